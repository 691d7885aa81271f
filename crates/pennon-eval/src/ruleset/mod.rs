//! All flags of an environment, ready to be evaluated.

mod evaluation;
mod flag;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use self::flag::CompiledFlag;
use crate::clock;
use crate::logic::evaluators::Evaluators;
use crate::{Context, EvaluationDefaults, Flag, FlagKey, Settings};

pub use evaluation::{Evaluation, EvaluationError, Reason};
pub use work::Work;

/// All flags of an environment, compiled once per state of the environment and evaluated for every caller.
#[derive(Debug, Clone)]
pub struct Ruleset {
    flags: HashMap<FlagKey, CompiledFlag>,
    looks_at_time: bool,
    /// Whether a simple flag with a partial rollout is on for a caller without a targeting key. `false` when
    /// the setting cannot be read, as for every flag that fails.
    anonymous_rollout: bool,
}

impl Ruleset {
    /// Compiles the flags of an environment. Evaluating a flag that does not compile fails with
    /// [`EvaluationError::Parse`]; the other flags are not affected. `defaults` are those of the
    /// installation, for what the settings leave open.
    #[must_use]
    pub fn compile(
        flags: &BTreeMap<FlagKey, Flag>,
        settings: &Settings,
        defaults: EvaluationDefaults,
    ) -> Self {
        let evaluators = Evaluators::of(settings);
        let common = Arc::new(settings.metadata.clone());
        let definitions = flags.values().filter_map(|flag| flag.definition.as_ref());
        let mut rules = definitions.filter_map(|definition| definition.targeting.as_ref());
        let looks_at_time = rules.any(clock::may_be_read_by)
            || settings.evaluators.values().any(clock::may_be_read_by);
        let flags = flags.iter().map(|(key, flag)| {
            let compiled = CompiledFlag::compile(flag, &evaluators, defaults, &common);
            (key.clone(), compiled)
        });
        Self {
            flags: flags.collect(),
            looks_at_time,
            anonymous_rollout: settings.anonymous_rollout(defaults).unwrap_or(false),
        }
    }

    /// Whether a rule may read the time. The same caller may then get another value later, although no flag
    /// has changed.
    #[must_use]
    pub fn look_at_the_time(&self) -> bool {
        self.looks_at_time
    }

    /// Evaluates a flag for a caller. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`EvaluationError`], when there is no value.
    pub fn evaluate(
        &self,
        key: &str,
        context: &Context,
        now: i64,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        self.evaluate_within(key, context, now, &mut Work::default())
    }

    /// Evaluates one of several flags of a request.
    ///
    /// # Errors
    /// [`EvaluationError`], when there is no value; [`EvaluationError::General`] when the request has done
    /// too much work.
    pub fn evaluate_within(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        work: &mut Work,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        let (key, flag) = self
            .flags
            .get_key_value(key)
            .ok_or(EvaluationError::FlagNotFound)?;
        flag.evaluate(key.as_str(), context, now, work)
    }

    /// Whether a flag is on for a caller, for clients that know on and off only; `None` for a flag that does
    /// not exist or whose values are not boolean. For a caller without a targeting key, the settings and the
    /// defaults of the installation decide on a simple flag with a partial rollout. A boolean flag without a
    /// default variant, or that cannot be evaluated, is off.
    #[must_use]
    pub fn is_on(&self, key: &str, context: &Context, now: i64) -> Option<bool> {
        let (key, flag) = self.flags.get_key_value(key)?;
        let decide = || flag.is_on(key.as_str(), context, now, self.anonymous_rollout);
        if context.is_empty() && !self.looks_at_time {
            return *flag.is_on_for_anonymous.get_or_init(decide);
        }
        decide()
    }
}
