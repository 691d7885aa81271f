//! A compiled flag.

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::evaluation::{Decision, Evaluation, EvaluationError, Reason};
use super::request_fuel::RequestFuel;
use crate::limits::BYTES_PER_STEP;
use crate::logic::bucket::HashedKey;
use crate::logic::evaluators::Evaluators;
use crate::logic::{self, Choice, Input, Rule, Run};
use crate::rollout_order::UserOrder;
use crate::time_access;
use crate::trace::Step;
use crate::{Context, Definition, EvaluationDefaults, Flag, FlagKey, Override, Settings};

static TRUE: Value = Value::Bool(true);
static FALSE: Value = Value::Bool(false);
/// The variants of a simple flag, sorted by name like those of typed flags.
static SIMPLE_VARIANTS: [(&str, &Value); 2] = [("off", &FALSE), ("on", &TRUE)];

/// The steps of hashing a user id that are not charged to the request: those of an id of 256 bytes.
const FREE_ID_STEPS: u64 = 16;

/// Up to this number of variants, a scan is faster than a binary search: it compares only names of equal length.
const MAX_SCANNED: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct CompiledFlag {
    enabled: bool,
    /// The flag, if it has overrides. Shared, because it may have hundreds of thousands.
    overridden: Option<Arc<Flag>>,
    metadata: Arc<Map<String, Value>>,
    /// Why every evaluation of the enabled flag fails, if it does.
    unreadable: Option<String>,
    kind: Kind,
    hashed_key: HashedKey,
    /// Whether the rule may read the time.
    pub(super) depends_on_time: bool,
    /// Whether the flag is on for an empty context. Computed once, because the result is always the same, and most
    /// callers of public routes send no context.
    pub(super) is_on_for_anonymous: OnceLock<Option<bool>>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A boolean flag with a rollout percentage.
    Simple { percent: u8, order: UserOrder },
    /// A flag with variants and a rule.
    Typed(Typed),
}

#[derive(Debug, Clone)]
struct Typed {
    /// Sorted by name.
    variants: Vec<(String, Value)>,
    default: Option<DefaultVariant>,
    /// Without a rule, all callers get the default.
    rule: Option<Result<Rule, String>>,
    is_boolean: bool,
}

#[derive(Debug, Clone)]
struct DefaultVariant {
    name: String,
    /// `None` if there is no such variant, so evaluations that need it fail.
    position: Option<usize>,
}

impl CompiledFlag {
    pub(super) fn compile(
        key: &FlagKey,
        shared: &(impl Borrow<Flag> + Clone + Into<Arc<Flag>>),
        evaluators: &Evaluators<'_>,
        defaults: EvaluationDefaults,
        common: &Arc<Map<String, Value>>,
    ) -> Self {
        let flag: &Flag = shared.borrow();
        let settings = evaluators.settings;
        let definition = flag.definition.as_ref();
        let (kind, metadata) = match definition {
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
            overridden: (!flag.overrides.is_empty()).then(|| shared.clone().into()),
            metadata,
            unreadable: unreadable_reason(flag, settings, defaults),
            kind,
            hashed_key: HashedKey::new(settings.fractional, key.as_str()),
            depends_on_time: definition
                .and_then(|definition| definition.targeting.as_ref())
                .is_some_and(time_access::may_read_time),
            is_on_for_anonymous: OnceLock::new(),
        }
    }

    pub(super) fn evaluate<'a>(
        &'a self,
        key: &'a str,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let Decision { variant, reason } = self.decide(key, context, now, fuel)?;
        let found = variant.map(|position| match &self.kind {
            Kind::Simple { .. } => SIMPLE_VARIANTS[position],
            Kind::Typed(typed) => {
                let (name, value) = &typed.variants[position];
                (name.as_str(), value)
            }
        });
        Ok(Evaluation {
            value: found.map(|(_, value)| value),
            variant: found.map_or("", |(name, _)| name),
            reason,
            metadata: &self.metadata,
        })
    }

    #[inline]
    pub(super) fn decide(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Decision, EvaluationError> {
        match &self.kind {
            Kind::Simple { percent, order } => {
                let (on, reason) = self.simple(*percent, order, context, fuel)?;
                Ok(Decision {
                    variant: Some(usize::from(on)),
                    reason,
                })
            }
            Kind::Typed(typed) => self.typed(typed, key, context, now, fuel),
        }
    }

    /// The variants, in the order of [`Decision::variant`].
    pub(super) fn variants(&self) -> Vec<(&str, &Value)> {
        match &self.kind {
            Kind::Simple { .. } => SIMPLE_VARIANTS.to_vec(),
            Kind::Typed(typed) => {
                let variants = typed.variants.iter();
                variants
                    .map(|(name, value)| (name.as_str(), value))
                    .collect()
            }
        }
    }

    /// The reason that most evaluations are expected to have.
    pub(super) fn usual_reason(&self) -> Reason {
        if !self.enabled {
            return Reason::Disabled;
        }
        match &self.kind {
            Kind::Simple {
                percent: 0 | 100.., ..
            } => Reason::Static,
            Kind::Simple { .. } => Reason::Split,
            Kind::Typed(typed) if typed.rule.is_some() => Reason::TargetingMatch,
            Kind::Typed(typed) if typed.default.is_none() => Reason::Default,
            Kind::Typed(_) => Reason::Static,
        }
    }

    /// The metadata of every evaluation.
    pub(super) fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Whether the flag is on; `None` if its values are not booleans.
    pub(super) fn is_on(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        anonymous_rollout: bool,
    ) -> Option<bool> {
        if matches!(&self.kind, Kind::Typed(typed) if !typed.is_boolean) {
            return None;
        }
        // These callers send only a targeting key, so the request needs no limit.
        let fuel = &mut RequestFuel::unlimited();
        Some(match self.evaluate(key, context, now, fuel) {
            Ok(evaluation) => evaluation.value == Some(&TRUE),
            Err(EvaluationError::TargetingKeyMissing) => anonymous_rollout,
            Err(
                EvaluationError::FlagNotFound
                | EvaluationError::Parse(_)
                | EvaluationError::General(_),
            ) => false,
        })
    }

    #[inline]
    fn override_of(&self, context: &Context) -> Option<&Override> {
        let overrides = &self.overridden.as_ref()?.overrides;
        overrides.get(context.user()?.as_str())
    }

    /// The override of the user.
    ///
    /// # Errors
    /// If the value depends on stored data that is unreadable.
    #[inline]
    fn readable_override(&self, context: &Context) -> Result<Option<&Override>, EvaluationError> {
        if let Some(reason) = &self.unreadable {
            return Err(EvaluationError::Parse(reason.clone()));
        }
        match self.override_of(context) {
            Some(Override::Unreadable) => Err(EvaluationError::Parse(
                "the override of this user is unreadable".to_owned(),
            )),
            found @ (Some(Override::Include | Override::Exclude | Override::Variant(_)) | None) => {
                Ok(found)
            }
        }
    }

    /// Records the steps before a rollout or a rule, if the evaluation is explained.
    #[cold]
    fn record_preconditions(&self, context: &Context, fuel: &mut RequestFuel) {
        fuel.record(|| Step::Enabled {
            result: self.enabled,
        });
        if !self.enabled {
            return;
        }
        if let Err(EvaluationError::Parse(reason)) = self.readable_override(context) {
            fuel.record(|| Step::Readable { reason });
            return;
        }
        fuel.record(|| {
            let (result, variant) = match self.override_of(context) {
                None => (None, None),
                Some(Override::Include) => (Some("include"), None),
                Some(Override::Exclude) => (Some("exclude"), None),
                Some(Override::Variant(name)) => (Some("variant"), Some(name.clone())),
                Some(Override::Unreadable) => (Some("unreadable"), None),
            };
            Step::Override { result, variant }
        });
    }

    /// Whether a simple flag is on, and the reason. Unreadable data is an error for an enabled flag. Otherwise:
    ///
    /// 1. a disabled flag is off for all callers, also those with an override (a kill switch);
    /// 2. an override determines the value for its user;
    /// 3. 0 % is off and 100 % is on for all callers;
    /// 4. a caller without a targeting key gets an error;
    /// 5. for all other callers, the flag is on if their bucket is below the percentage.
    fn simple(
        &self,
        percent: u8,
        order: &UserOrder,
        context: &Context,
        fuel: &mut RequestFuel,
    ) -> Result<(bool, Reason), EvaluationError> {
        if fuel.trace.is_some() {
            self.record_preconditions(context, fuel);
        }
        if !self.enabled {
            return Ok((false, Reason::Disabled));
        }
        if let Some(found) = self.readable_override(context)? {
            return Ok((found.is_in(), Reason::TargetingMatch));
        }
        match percent {
            0 | 100.. => {
                let on = percent > 0;
                fuel.record(|| Step::Rollout {
                    percent,
                    result: on,
                });
                Ok((on, Reason::Static))
            }
            percent => {
                let Some(user) = context.user() else {
                    fuel.record(|| order.step(None, percent));
                    return Err(EvaluationError::TargetingKeyMissing);
                };
                // The id is hashed, and a caller may send a long one.
                fuel.charge((user.as_str().len() / BYTES_PER_STEP) as u64, FREE_ID_STEPS)?;
                let bucket = order.bucket(&self.hashed_key, user, context);
                fuel.record(|| order.step(Some(bucket), percent));
                Ok((bucket < percent, Reason::Split))
            }
        }
    }

    #[inline]
    fn typed(
        &self,
        typed: &Typed,
        key: &str,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Decision, EvaluationError> {
        if fuel.trace.is_some() {
            self.record_preconditions(context, fuel);
        }
        if !self.enabled {
            return Ok(Decision {
                variant: None,
                reason: Reason::Disabled,
            });
        }
        match self.readable_override(context)? {
            Some(Override::Include | Override::Exclude | Override::Unreadable) => {
                return typed.default(Reason::TargetingMatch, fuel);
            }
            Some(Override::Variant(variant)) => {
                return typed.named(variant, Reason::TargetingMatch);
            }
            None => {}
        }
        let rule = match &typed.rule {
            None => return typed.default(Reason::Static, fuel),
            Some(Ok(rule)) => rule,
            Some(Err(why)) => return Err(EvaluationError::Parse(why.clone())),
        };
        let steps = rule.cost.saturating_add(fuel.steps);
        let input = Input {
            context,
            flag: key,
            hashed_key: &self.hashed_key,
            now,
        };
        let mut run = Run::for_request(steps, fuel.trace.as_deref_mut());
        let choice = rule.choose(input, &mut run);
        let taken = run.steps();
        fuel.charge(taken, rule.cost)?;
        match choice {
            Ok(Choice::None) => typed.default(Reason::Default, fuel),
            Ok(Choice::Variant(position)) => Ok(Decision {
                variant: Some(position),
                reason: Reason::TargetingMatch,
            }),
            Ok(Choice::Named(name)) => typed.named(&name, Reason::TargetingMatch),
            Err(error) => Err(EvaluationError::General(error.to_string())),
        }
    }
}

impl Typed {
    fn compile(definition: &Definition, evaluators: &Evaluators<'_>) -> Self {
        let variants = definition.variants.iter();
        let mut variants: Vec<_> = variants
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        variants.sort_by(|(one, _), (other, _)| one.cmp(other));
        let rule = definition.rule().map(|rule| {
            let mut rule = logic::compile(rule, evaluators)
                .map_err(|error| format!("{} at /targeting{}", error.message, error.pointer))?;
            rule.find_variants(&|name| position(&variants, name));
            Ok(rule)
        });
        // flagd treats an empty name as absent.
        let default = definition.default_variant.as_ref();
        let default = default.filter(|name| !name.is_empty());
        let default = default.map(|name| DefaultVariant {
            name: name.clone(),
            position: position(&variants, name),
        });
        Self {
            is_boolean: definition.unreadable.is_none()
                && definition.variants.values().all(Value::is_boolean),
            variants,
            default,
            rule,
        }
    }

    fn default(&self, reason: Reason, fuel: &mut RequestFuel) -> Result<Decision, EvaluationError> {
        fuel.record(|| Step::Default {
            variant: self.default.as_ref().map(|default| default.name.clone()),
        });
        match &self.default {
            Some(default) => decision(default.position, &default.name, reason),
            None => Ok(Decision {
                variant: None,
                reason: Reason::Default,
            }),
        }
    }

    fn named(&self, name: &str, reason: Reason) -> Result<Decision, EvaluationError> {
        decision(position(&self.variants, name), name, reason)
    }
}

/// The decision for the variant at this position, or the error if there is no variant of this name.
fn decision(
    position: Option<usize>,
    name: &str,
    reason: Reason,
) -> Result<Decision, EvaluationError> {
    match position {
        Some(_) => Ok(Decision {
            variant: position,
            reason,
        }),
        None => Err(EvaluationError::General(no_variant(name))),
    }
}

/// The position of a name among sorted variants.
fn position(variants: &[(String, Value)], name: &str) -> Option<usize> {
    if variants.len() <= MAX_SCANNED {
        return variants.iter().position(|(own, _)| own == name);
    }
    let compare = |(own, _): &(String, Value)| own.as_str().cmp(name);
    variants.binary_search_by(compare).ok()
}

/// Why every evaluation of an enabled flag fails, if stored data on which it depends is unreadable.
pub(crate) fn unreadable_reason(
    flag: &Flag,
    settings: &Settings,
    defaults: EvaluationDefaults,
) -> Option<String> {
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
    (is_partial && flag.bucketing(settings, defaults).is_none())
        .then(|| "the evaluation defaults of the installation are unreadable".to_owned())
}

/// The error for a variant that does not exist. The name may come from the context, so it is truncated to at most 128
/// bytes of JSON.
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

/// The metadata of the environment and of the flag, which takes precedence.
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
