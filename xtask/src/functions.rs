//! The Lambda functions: the lines `# @function name=…` of `infra/functions.yaml`.

use std::path::Path;

use crate::blocks::{Values, directive};
use crate::read;

const PATH: &str = "infra/functions.yaml";
/// What most of them have in common, by `kind=`: functions that read flags, and functions for admins.
const KINDS: [(&str, [(&str, &str); 3]); 2] = [
    (
        "read",
        [
            ("role", "Read"),
            ("concurrency", "!Ref ReservedConcurrency"),
            ("canary", "rates"),
        ],
    ),
    (
        "admin",
        [
            ("role", "Change"),
            ("concurrency", "!Ref AdminConcurrency"),
            ("canary", "none"),
        ],
    ),
];

/// Every function, in the order of the file.
pub(crate) struct Functions(Vec<Function>);

/// One function.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    /// Its `Handler`, and the module of its handler; `get-flag` is the resource `GetFlagFunction`.
    pub(crate) name: String,
    /// Its name in metric math and in the dashboard.
    pub(crate) short: Option<String>,
    /// What it may do: `Read` is the resource `ReadRole` in `infra/roles.yaml`.
    pub(crate) role: String,
    /// The most instances, where the stack has a limit at all.
    pub(crate) concurrency: Option<String>,
    /// Whether it reaches cache and database, in the VPC.
    pub(crate) in_network: bool,
    /// The functions whose new version must be live before this one's is created: a list as [`Functions::select`]
    /// takes it.
    pub(crate) after: Option<String>,
    /// What stops the rollout of a new version.
    pub(crate) canary: Canary,
}

/// What stops the rollout of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Canary {
    /// Nothing: all calls go to the new version at once.
    None,
    /// Crashes. The function answers nobody.
    Crashes,
    /// Crashes of a function that the schedule calls, about three times in the hour.
    ScheduledCrashes,
    /// Crashes and answers with 5xx. There are too few calls for rates.
    Errors,
    /// Errors, their rate, the cache hit rate and the latency.
    Rates,
}

impl Canary {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "crashes" => Ok(Self::Crashes),
            "scheduled" => Ok(Self::ScheduledCrashes),
            "errors" => Ok(Self::Errors),
            "rates" => Ok(Self::Rates),
            other => Err(format!("canary={other} is not known")),
        }
    }

    /// Its alarms: blocks, without the `canary-` of their names.
    pub(crate) fn alarms(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Crashes | Self::ScheduledCrashes => &["crashes"],
            Self::Errors => &["crashes", "server-errors"],
            Self::Rates => &[
                "error-rate",
                "crashes",
                "server-errors",
                "hit-rate",
                "latency",
            ],
        }
    }
}

impl Functions {
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut functions = Vec::new();
        for (at, line) in read(root, PATH)?.lines().enumerate() {
            let function = match directive(line) {
                Some(Ok(directive)) if directive.block == "function" => {
                    Function::parse(&directive.values)
                }
                // The template reports directives that cannot be read.
                Some(Ok(_) | Err(_)) | None => continue,
            };
            functions.push(function.map_err(|problem| format!("{PATH}:{}: {problem}", at + 1))?);
        }
        Ok(Self(functions))
    }

    pub(crate) fn all(&self) -> &[Function] {
        &self.0
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Function, String> {
        let found = self.0.iter().find(|function| function.name == name);
        found.ok_or_else(|| format!("{PATH} has no function {name:?}"))
    }

    /// The functions of a list such as `reads,reconcile`. `reads` are those that read flags; `cache` all that use the
    /// cache for a caller, as many as an alarm can have metrics: `schedules` only plans what `reconcile` does.
    pub(crate) fn select(&self, list: &str) -> Result<Vec<&Function>, String> {
        let mut names = Vec::new();
        for name in list.split(',') {
            if name == "reads" || name == "cache" {
                names.extend(["get-flag", "list-flags", "evaluate-flag", "evaluate-flags"]);
            }
            match name {
                "reads" => {}
                "cache" => {
                    names.extend(["update-flag", "overrides", "manage-flags"]);
                    names.extend(["manage-environments", "manage-keys", "report-usage"]);
                }
                name => names.push(name),
            }
        }
        names.into_iter().map(|name| self.find(name)).collect()
    }
}

impl Function {
    fn parse(values: &Values) -> Result<Self, String> {
        let known = [
            "kind",
            "name",
            "short",
            "role",
            "concurrency",
            "network",
            "after",
            "canary",
        ];
        if let Some(name) = values.names().find(|name| !known.contains(name)) {
            return Err(format!("{name}= is not known here"));
        }
        let kind = values.get("kind").unwrap_or_default();
        let defaults = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, defaults)| defaults);
        if defaults.is_none() && !kind.is_empty() {
            return Err(format!("kind={kind} is not known"));
        }
        let get = |name: &str| {
            let default = defaults.and_then(|it| it.iter().find(|(known, _)| *known == name));
            values.get(name).or(default.map(|(_, value)| *value))
        };
        let need = |name: &str| get(name).ok_or_else(|| format!("{name}= is missing"));
        Ok(Self {
            name: need("name")?.to_owned(),
            short: get("short").map(str::to_owned),
            role: need("role")?.to_owned(),
            concurrency: get("concurrency").map(str::to_owned),
            in_network: get("network") != Some("none"),
            after: get("after").map(str::to_owned),
            canary: Canary::parse(need("canary")?)?,
        })
    }

    /// `GetFlag` of `get-flag`: what the names of its resources begin with.
    pub(crate) fn id(&self) -> String {
        camel(&self.name)
    }

    /// Its name in AWS.
    pub(crate) fn full_name(&self) -> String {
        match self.name.as_str() {
            // CodeDeploy may invoke no other names.
            "pre-traffic" => "CodeDeployHook_${AWS::StackName}".to_owned(),
            name => format!("${{AWS::StackName}}-{name}"),
        }
    }

    pub(crate) fn short(&self) -> Result<&str, String> {
        let short = self.short.as_deref();
        short.ok_or_else(|| format!("{PATH}: {} has no short=", self.name))
    }
}

/// `GetFlag` of `get-flag`.
pub(crate) fn camel(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}
