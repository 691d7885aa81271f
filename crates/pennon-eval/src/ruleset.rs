//! All flags of an environment, ready to be evaluated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::logic::{self, Choice, Rule};
use crate::{Context, Definition, Flag, FlagKey, Override, Settings, bucket_of};

static TRUE: Value = Value::Bool(true);
static FALSE: Value = Value::Bool(false);

/// All flags of an environment, compiled: made once per state of the environment, and then asked for
/// every caller.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    flags: HashMap<FlagKey, Compiled>,
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation<'a> {
    /// The value; without one, the default in the caller's code.
    pub value: Option<&'a Value>,
    /// The name of the variant; may be empty.
    pub variant: &'a str,
    /// How it came about.
    pub reason: Reason,
    /// What the flag and its environment say about themselves.
    pub metadata: &'a Map<String, Value>,
}

/// How a value came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// It is the same for everyone.
    Static,
    /// The rule chose nothing, so it is the default.
    Default,
    /// The rule, or an override, chose it.
    TargetingMatch,
    /// The caller's place in the rollout of a simple flag.
    Split,
    /// The flag is not enabled.
    Disabled,
}

/// Why a flag has no value for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// There is no such flag.
    #[error("there is no such flag")]
    FlagNotFound,
    /// The flag places callers by their targeting key, and there is none.
    #[error("the flag is rolled out by targeting key, and the context has none")]
    TargetingKeyMissing,
    /// The definition of the flag cannot be understood.
    #[error("the definition cannot be understood: {0}")]
    Parse(String),
    /// The rule has no usable result.
    #[error("{0}")]
    General(String),
}

#[derive(Debug, Clone)]
struct Compiled {
    enabled: bool,
    overrides: BTreeMap<String, Override>,
    metadata: Arc<Map<String, Value>>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Users in proportion.
    Simple { percent: u8, salt: Option<String> },
    /// Variants and a rule.
    Typed(Typed),
}

#[derive(Debug, Clone)]
struct Typed {
    variants: HashMap<String, Value>,
    default: Option<String>,
    /// None: the default for everyone.
    rule: Option<Result<Rule, String>>,
    is_boolean: bool,
}

impl Ruleset {
    /// Compiles the flags of an environment. A flag that does not compile answers its callers with
    /// [`EvaluationError::Parse`]; the others are not concerned.
    #[must_use]
    pub fn compile(flags: &BTreeMap<FlagKey, Flag>, settings: &Settings) -> Self {
        let common = Arc::new(settings.metadata.clone());
        let flags = flags.iter().map(|(key, flag)| {
            let (kind, metadata) = match &flag.definition {
                None => (
                    Kind::Simple {
                        percent: flag.rollout_percentage.percent(),
                        salt: flag.salt.clone(),
                    },
                    Arc::clone(&common),
                ),
                Some(definition) => (
                    Kind::Typed(Typed::compile(definition, settings)),
                    merge(&common, &definition.metadata),
                ),
            };
            let compiled = Compiled {
                enabled: flag.enabled,
                overrides: flag.overrides.clone(),
                metadata,
                kind,
            };
            (key.clone(), compiled)
        });
        Self {
            flags: flags.collect(),
        }
    }

    /// What a caller gets. `now` is the time in seconds since 1970, for rules that look at it.
    ///
    /// # Errors
    /// [`EvaluationError`], when there is no value.
    pub fn evaluate(
        &self,
        key: &str,
        context: &Context,
        now: i64,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        let (key, flag) = self
            .flags
            .get_key_value(key)
            .ok_or(EvaluationError::FlagNotFound)?;
        let (value, variant, reason) = match &flag.kind {
            Kind::Simple { percent, salt } => {
                let (on, reason) = flag.simple(*percent, salt.as_deref(), context)?;
                let (value, variant) = if on { (&TRUE, "on") } else { (&FALSE, "off") };
                (Some(value), variant, reason)
            }
            Kind::Typed(typed) => flag.typed(typed, key.as_str(), context, now)?,
        };
        Ok(Evaluation {
            value,
            variant,
            reason,
            metadata: &flag.metadata,
        })
    }

    /// Whether a flag is on for a caller, for those who know on and off only; nothing for a flag that
    /// does not exist or has other values than these. A simple flag is on for a caller without a
    /// targeting key while its rollout is above 0. A boolean flag that leaves the choice to the
    /// caller's code, or that cannot be evaluated, is off.
    #[must_use]
    pub fn is_on(&self, key: &str, context: &Context, now: i64) -> Option<bool> {
        let (key, flag) = self.flags.get_key_value(key)?;
        match &flag.kind {
            Kind::Simple { percent, salt } => {
                let decided = flag.simple(*percent, salt.as_deref(), context);
                Some(decided.map_or(true, |(on, _)| on))
            }
            Kind::Typed(typed) if typed.is_boolean => {
                let decided = flag.typed(typed, key.as_str(), context, now);
                Some(matches!(decided, Ok((Some(Value::Bool(true)), _, _))))
            }
            Kind::Typed(_) => None,
        }
    }
}

/// A value, the name of its variant, how it came about.
type Decision<'a> = (Option<&'a Value>, &'a str, Reason);

impl Compiled {
    fn overridden(&self, context: &Context) -> Option<&Override> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(context.user()?.as_str())
    }

    /// The rules of [`evaluate`](crate::evaluate), and why. The one error is a missing key.
    fn simple(
        &self,
        percent: u8,
        salt: Option<&str>,
        context: &Context,
    ) -> Result<(bool, Reason), EvaluationError> {
        if !self.enabled {
            return Ok((false, Reason::Disabled));
        }
        if let Some(by_name) = self.overridden(context) {
            return Ok((by_name.is_in(), Reason::TargetingMatch));
        }
        match percent {
            0 => Ok((false, Reason::Static)),
            100.. => Ok((true, Reason::Static)),
            percent => {
                let user = context.user().ok_or(EvaluationError::TargetingKeyMissing)?;
                let bucket = match salt {
                    None => context.bucket(user),
                    Some(salt) => bucket_of(salt, user),
                };
                Ok((bucket < percent, Reason::Split))
            }
        }
    }

    fn typed<'a>(
        &'a self,
        typed: &'a Typed,
        key: &'a str,
        context: &Context,
        now: i64,
    ) -> Result<Decision<'a>, EvaluationError> {
        if !self.enabled {
            return Ok((None, "", Reason::Disabled));
        }
        match self.overridden(context) {
            Some(Override::Include | Override::Exclude) => {
                return typed.default(Reason::TargetingMatch);
            }
            Some(Override::Variant(variant)) => {
                return typed.variant(variant, Reason::TargetingMatch);
            }
            None => {}
        }
        let rule = match &typed.rule {
            None => return typed.default(Reason::Static),
            Some(Ok(rule)) => rule,
            Some(Err(why)) => return Err(EvaluationError::Parse(why.clone())),
        };
        match rule.choose(key, context, now) {
            Ok(Choice::None) => typed.default(Reason::Default),
            Ok(Choice::Named(name)) => typed.variant(&name, Reason::TargetingMatch),
            Err(stop) => Err(EvaluationError::General(stop.to_string())),
        }
    }
}

impl Typed {
    fn compile(definition: &Definition, settings: &Settings) -> Self {
        let variants = definition.variants.iter();
        let rule = definition.rule().map(|rule| {
            logic::compile(rule, settings)
                .map_err(|fault| format!("{} at /targeting{}", fault.why, fault.at))
        });
        Self {
            is_boolean: definition.variants.values().all(Value::is_boolean),
            variants: variants
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            // flagd takes an empty name for none.
            default: definition
                .default_variant
                .clone()
                .filter(|name| !name.is_empty()),
            rule,
        }
    }

    fn default(&self, reason: Reason) -> Result<Decision<'_>, EvaluationError> {
        match &self.default {
            Some(name) => self.variant(name, reason),
            None => Ok((None, "", Reason::Default)),
        }
    }

    fn variant(&self, name: &str, reason: Reason) -> Result<Decision<'_>, EvaluationError> {
        match self.variants.get_key_value(name) {
            Some((name, value)) => Ok((Some(value), name, reason)),
            None => Err(EvaluationError::General(no_variant(name))),
        }
    }
}

fn no_variant(name: &str) -> String {
    // A name may come from the context, and be of any length.
    const SHOWN: usize = 64;
    let shown: String = name.chars().take(SHOWN).collect();
    format!("there is no variant '{shown}'")
}

/// What a flag says about itself goes before what its environment says.
fn merge(common: &Arc<Map<String, Value>>, own: &Map<String, Value>) -> Arc<Map<String, Value>> {
    if own.is_empty() {
        return Arc::clone(common);
    }
    let mut merged = (**common).clone();
    for (name, value) in own {
        merged.insert(name.clone(), value.clone());
    }
    Arc::new(merged)
}
