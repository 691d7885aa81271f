//! The Lambda functions: the lines `# @function name=…` of `infra/functions.yaml`.

use std::path::Path;

use crate::blocks::{Values, directive};
use crate::read;

const PATH: &str = "infra/functions.yaml";
/// Default values by `kind=`: for functions that read flags, and for functions of admin routes.
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
    /// The `Handler`, and the module of the handler; `get-flag` is the resource `GetFlagFunction`.
    pub(crate) name: String,
    /// The name in metric math and in the dashboard.
    pub(crate) short: Option<String>,
    /// The role: `Read` is the resource `ReadRole` in `infra/roles.yaml`.
    pub(crate) role: String,
    /// The reserved concurrency, if the function has one.
    pub(crate) concurrency: Option<String>,
    /// Whether the function runs in the VPC, with access to cache and database.
    pub(crate) in_network: bool,
    /// The functions whose new version must be live before the new version of this one is created: a list for
    /// [`Functions::select`].
    pub(crate) after: Option<String>,
    /// The alarms that stop the rollout of a new version.
    pub(crate) canary: Canary,
}

/// The alarms that stop the rollout of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Canary {
    /// None: the new version receives all calls at once.
    None,
    /// Crashes, for a function that answers no requests.
    Crashes,
    /// Crashes, for a function that runs every minute: the new version gets about three calls in the hour of the
    /// canary.
    ScheduledCrashes,
    /// Crashes and responses with 5xx, for a function with too few calls for rates.
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
            other => Err(format!("canary={other} is unknown")),
        }
    }

    /// The blocks of the alarms, without the prefix `canary-`.
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
                // Generating the template reports malformed directives.
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

    /// The functions of a list such as `reads,reconcile`. `reads` are the functions that read flags. `cache` are those
    /// that use the cache while they serve a request, but not `health`, `schedules`, `ramps` and `sync-flags`: an alarm
    /// can have at most ten metrics.
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
            return Err(format!("{name}= is unknown"));
        }
        let kind = values.get("kind").unwrap_or_default();
        let defaults = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, defaults)| defaults);
        if defaults.is_none() && !kind.is_empty() {
            return Err(format!("kind={kind} is unknown"));
        }
        let get = |name: &str| {
            let default = defaults.and_then(|all| all.iter().find(|(known, _)| *known == name));
            values.get(name).or(default.map(|(_, value)| *value))
        };
        let require = |name: &str| get(name).ok_or_else(|| format!("{name}= is missing"));
        Ok(Self {
            name: require("name")?.to_owned(),
            short: get("short").map(str::to_owned),
            role: require("role")?.to_owned(),
            concurrency: get("concurrency").map(str::to_owned),
            in_network: get("network") != Some("none"),
            after: get("after").map(str::to_owned),
            canary: Canary::parse(require("canary")?)?,
        })
    }

    /// The prefix of the names of its resources: `GetFlag` for `get-flag`.
    pub(crate) fn id(&self) -> String {
        camel(&self.name)
    }

    /// The name of the function in AWS.
    pub(crate) fn full_name(&self) -> String {
        match self.name.as_str() {
            // The IAM role of CodeDeploy may only invoke functions with this prefix.
            "pre-traffic" => "CodeDeployHook_${AWS::StackName}".to_owned(),
            name => format!("${{AWS::StackName}}-{name}"),
        }
    }

    pub(crate) fn short(&self) -> Result<&str, String> {
        let short = self.short.as_deref();
        short.ok_or_else(|| format!("{PATH}: {} has no short=", self.name))
    }
}

/// Joins words in camel case: `GetFlag` for `get-flag`.
pub(crate) fn camel(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}
