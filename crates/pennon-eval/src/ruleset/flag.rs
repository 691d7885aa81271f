//! A compiled flag.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::evaluation::{Evaluation, EvaluationError, Reason};
use super::work::Work;
use crate::limits::BYTES_PER_STEP;
use crate::logic::evaluators::Evaluators;
use crate::logic::{self, Choice, Rule};
use crate::rollout_order::UserOrder;
use crate::{Context, Definition, EvaluationDefaults, Flag, Override, Settings};

static TRUE: Value = Value::Bool(true);
static FALSE: Value = Value::Bool(false);

/// How many steps of hashing an id every evaluation may take: those of an id of 256 bytes.
const SHORT_ID: u64 = 16;

/// A value, the name of its variant, how it came about.
type Decision<'a> = (Option<&'a Value>, &'a str, Reason);

#[derive(Debug, Clone)]
pub(super) struct CompiledFlag {
    enabled: bool,
    overrides: BTreeMap<String, Override>,
    metadata: Arc<Map<String, Value>>,
    /// Why the flag has no value for anybody while it is enabled.
    unreadable: Option<String>,
    kind: Kind,
    /// Whether the flag is on for a caller without any context, computed for the first one: the result is the
    /// same for all of them, and on public routes most callers send no context.
    pub(super) is_on_for_anonymous: OnceLock<Option<bool>>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Users in proportion.
    Simple { percent: u8, order: UserOrder },
    /// Variants and a rule.
    Typed(Typed),
}

#[derive(Debug, Clone)]
struct Typed {
    /// Few, as a rule, and then quicker to find in order than by hashing.
    variants: BTreeMap<String, Value>,
    default: Option<String>,
    /// None: the default for everyone.
    rule: Option<Result<Rule, String>>,
    is_boolean: bool,
}

impl CompiledFlag {
    pub(super) fn compile(
        flag: &Flag,
        evaluators: &Evaluators<'_>,
        defaults: EvaluationDefaults,
        common: &Arc<Map<String, Value>>,
    ) -> Self {
        let settings = evaluators.settings;
        let (kind, metadata) = match &flag.definition {
            None => {
                let kind = Kind::Simple {
                    percent: flag.rollout_percentage.percent(),
                    order: UserOrder::of(flag, settings, defaults),
                };
                (kind, Arc::clone(common))
            }
            Some(definition) => {
                let kind = Kind::Typed(Typed::compile(definition, evaluators));
                (kind, merge(common, &definition.metadata))
            }
        };
        Self {
            enabled: flag.enabled,
            overrides: flag.overrides.clone(),
            metadata,
            unreadable: unreadable(flag, settings, defaults),
            kind,
            is_on_for_anonymous: OnceLock::new(),
        }
    }

    pub(super) fn evaluate<'a>(
        &'a self,
        key: &'a str,
        context: &Context,
        now: i64,
        work: &mut Work,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let (value, variant, reason) = match &self.kind {
            Kind::Simple { percent, order } => {
                let (on, reason) = self.simple(*percent, order, key, context, work)?;
                let (value, variant) = if on { (&TRUE, "on") } else { (&FALSE, "off") };
                (Some(value), variant, reason)
            }
            Kind::Typed(typed) => self.typed(typed, key, context, now, work)?,
        };
        Ok(Evaluation {
            value,
            variant,
            reason,
            metadata: &self.metadata,
        })
    }

    /// Whether the flag is on, if its values are boolean.
    pub(super) fn is_on(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        anonymous_rollout: bool,
    ) -> Option<bool> {
        // The context of these callers holds nothing but an id.
        let work = &mut Work::unlimited();
        match &self.kind {
            Kind::Simple { percent, order } => {
                let result = self.simple(*percent, order, key, context, work);
                Some(match result {
                    Ok((on, _)) => on,
                    Err(EvaluationError::TargetingKeyMissing) => anonymous_rollout,
                    Err(
                        EvaluationError::FlagNotFound
                        | EvaluationError::Parse(_)
                        | EvaluationError::General(_),
                    ) => false,
                })
            }
            Kind::Typed(typed) if typed.is_boolean => {
                let result = self.typed(typed, key, context, now, work);
                Some(matches!(result, Ok((Some(Value::Bool(true)), _, _))))
            }
            Kind::Typed(_) => None,
        }
    }

    fn overridden(&self, context: &Context) -> Option<&Override> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(context.user()?.as_str())
    }

    /// Fails where what the answer depends on could not be read.
    fn must_be_readable(&self, context: &Context) -> Result<(), EvaluationError> {
        if let Some(reason) = &self.unreadable {
            return Err(EvaluationError::Parse(reason.clone()));
        }
        match self.overridden(context) {
            Some(Override::Unreadable) => Err(EvaluationError::Parse(
                "the override of this user is unreadable".to_owned(),
            )),
            Some(Override::Include | Override::Exclude | Override::Variant(_)) | None => Ok(()),
        }
    }

    /// Whether a simple flag is on, and why. In this order:
    ///
    /// 1. a flag that is not enabled is off for everyone, included users too (a kill switch);
    /// 2. an override decides for its user;
    /// 3. 0 % is off and 100 % is on for everyone;
    /// 4. a caller without a targeting key is the one error;
    /// 5. everyone else is on when the bucket is below the percentage.
    fn simple(
        &self,
        percent: u8,
        order: &UserOrder,
        key: &str,
        context: &Context,
        work: &mut Work,
    ) -> Result<(bool, Reason), EvaluationError> {
        if !self.enabled {
            return Ok((false, Reason::Disabled));
        }
        self.must_be_readable(context)?;
        if let Some(by_name) = self.overridden(context) {
            return Ok((by_name.is_in(), Reason::TargetingMatch));
        }
        match percent {
            0 => Ok((false, Reason::Static)),
            100.. => Ok((true, Reason::Static)),
            percent => {
                let user = context.user().ok_or(EvaluationError::TargetingKeyMissing)?;
                // The id is hashed, and of most callers it is short.
                work.take((user.as_str().len() / BYTES_PER_STEP) as u64, SHORT_ID)?;
                let bucket = order.bucket(key, user, context);
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
        work: &mut Work,
    ) -> Result<Decision<'a>, EvaluationError> {
        if !self.enabled {
            return Ok((None, "", Reason::Disabled));
        }
        self.must_be_readable(context)?;
        match self.overridden(context) {
            Some(Override::Include | Override::Exclude | Override::Unreadable) => {
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
        let (choice, done) = rule.choose(key, context, now, rule.cost.saturating_add(work.steps));
        work.take(done, rule.cost)?;
        match choice {
            Ok(Choice::None) => typed.default(Reason::Default),
            Ok(Choice::Named(name)) => typed.variant(&name, Reason::TargetingMatch),
            Err(stop) => Err(EvaluationError::General(stop.to_string())),
        }
    }
}

impl Typed {
    fn compile(definition: &Definition, evaluators: &Evaluators<'_>) -> Self {
        let variants = definition.variants.iter();
        let rule = definition.rule().map(|rule| {
            logic::compile(rule, evaluators)
                .map_err(|error| format!("{} at /targeting{}", error.message, error.pointer))
        });
        Self {
            is_boolean: definition.unreadable.is_none()
                && definition.variants.values().all(Value::is_boolean),
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

/// Why a flag has no value for any caller.
fn unreadable(flag: &Flag, settings: &Settings, defaults: EvaluationDefaults) -> Option<String> {
    if let Some(definition) = &flag.definition
        && let Some(unreadable) = &definition.unreadable
    {
        return Some(format!(
            "the definition is unreadable: {}",
            unreadable.reason
        ));
    }
    let is_partial =
        flag.definition.is_none() && (1..100).contains(&flag.rollout_percentage.percent());
    if let Some(unreadable) = &settings.unreadable
        && (is_partial
            || flag
                .definition
                .as_ref()
                .is_some_and(Definition::depends_on_settings))
    {
        return Some(format!(
            "the settings of the environment are unreadable: {}",
            unreadable.reason
        ));
    }
    (is_partial && settings.bucketing(defaults).is_none())
        .then(|| "the evaluation defaults of the installation are unreadable".to_owned())
}

/// Why a flag has no value for a caller whose variant does not exist. A name may come from the context, and
/// be of any length: it takes 128 bytes at most, as they are in JSON.
fn no_variant(name: &str) -> String {
    const SHOWN: usize = 32;
    let plain = |character: char| match character {
        '"' | '\\' => '?',
        character if character.is_control() => '?',
        character => character,
    };
    let shown: String = name.chars().take(SHOWN).map(plain).collect();
    format!("there is no variant '{shown}'")
}

/// The metadata of the environment with that of the flag, which wins.
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
