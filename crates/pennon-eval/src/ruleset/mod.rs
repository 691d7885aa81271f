//! The compiled flags of an environment.

mod evaluation;
mod explain;
mod flag;
mod request_fuel;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use self::flag::CompiledFlag;
use crate::logic::evaluators::Evaluators;
use crate::time_access;
use crate::{Context, EvaluationDefaults, Flag, FlagKey, Settings};

pub use evaluation::{Decision, Evaluation, EvaluationError, Reason};
pub use explain::{ExplainedValue, Explanation, explain};
pub(crate) use flag::unreadable_reason;
pub use request_fuel::RequestFuel;

/// The variants and the metadata of a compiled flag.
#[derive(Debug)]
pub struct CompiledVariants<'a> {
    /// The key of the flag.
    pub key: &'a FlagKey,
    /// The variants by name, in the order of [`Decision::variant`].
    pub variants: Vec<(&'a str, &'a Value)>,
    /// The reason that most evaluations are expected to have.
    pub usual_reason: Reason,
    /// The metadata of the flag and its environment, equal in every [`Evaluation`].
    pub metadata: &'a Map<String, Value>,
}

/// All flags of an environment, compiled once per revision and evaluated for every caller.
#[derive(Debug, Clone)]
pub struct Ruleset {
    /// Sorted by key. Responses with all flags need no lookups.
    flags: Vec<(FlagKey, Arc<CompiledFlag>)>,
    depends_on_time: bool,
    /// Whether a simple flag with a partial rollout is on for a caller without a targeting key. `false` if the
    /// setting is unreadable.
    anonymous_rollout: bool,
}

impl Ruleset {
    /// Compiles the flags of an environment. The evaluation of a flag that does not compile fails with
    /// [`EvaluationError::Parse`]; other flags are not affected. `defaults` are those of the installation, for
    /// settings that the environment does not have. Flags in an [`Arc`] are shared, not copied.
    #[must_use]
    pub fn compile(
        flags: &BTreeMap<FlagKey, impl Borrow<Flag> + Clone + Into<Arc<Flag>>>,
        settings: &Settings,
        defaults: EvaluationDefaults,
    ) -> Self {
        Self::compile_with(flags, settings, defaults, |_| None)
    }

    /// Compiles the flags of the next revision of an environment with the same settings and defaults. `is_unchanged`
    /// says which flags are as they were in this ruleset; they are not compiled again.
    #[must_use]
    pub fn compile_next(
        &self,
        flags: &BTreeMap<FlagKey, impl Borrow<Flag> + Clone + Into<Arc<Flag>>>,
        settings: &Settings,
        defaults: EvaluationDefaults,
        is_unchanged: impl Fn(&FlagKey) -> bool,
    ) -> Self {
        Self::compile_with(flags, settings, defaults, |key| {
            let position = self.position(key.as_str()).filter(|_| is_unchanged(key))?;
            Some(Arc::clone(&self.flags[position].1))
        })
    }

    fn compile_with(
        flags: &BTreeMap<FlagKey, impl Borrow<Flag> + Clone + Into<Arc<Flag>>>,
        settings: &Settings,
        defaults: EvaluationDefaults,
        compiled: impl Fn(&FlagKey) -> Option<Arc<CompiledFlag>>,
    ) -> Self {
        let evaluators = Evaluators::of(settings);
        let common = Arc::new(settings.metadata.clone());
        let flags = flags.iter().map(|(key, flag)| {
            let compile = || CompiledFlag::compile(key, flag, &evaluators, defaults, &common);
            let flag = compiled(key).unwrap_or_else(|| Arc::new(compile()));
            (key.clone(), flag)
        });
        let flags: Vec<_> = flags.collect();
        let depends_on_time = flags.iter().any(|(_, flag)| flag.depends_on_time)
            || settings.evaluators.values().any(time_access::may_read_time);
        Self {
            flags,
            depends_on_time,
            anonymous_rollout: settings.anonymous_rollout(defaults).unwrap_or(false),
        }
    }

    /// Whether a rule may read the time. The value for a caller may then change without a change of a flag.
    #[must_use]
    pub fn depends_on_time(&self) -> bool {
        self.depends_on_time
    }

    /// Evaluates a flag for a caller. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`EvaluationError`] if the flag has no value for the caller.
    pub fn evaluate(
        &self,
        key: &str,
        context: &Context,
        now: i64,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        self.evaluate_within(key, context, now, &mut RequestFuel::default())
    }

    /// Evaluates one of several flags of a request.
    ///
    /// # Errors
    /// [`EvaluationError`] if the flag has no value for the caller, or the request has no steps left.
    pub fn evaluate_within(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        let Some(position) = self.position(key) else {
            return Err(EvaluationError::FlagNotFound);
        };
        let (key, flag) = &self.flags[position];
        flag.evaluate(key.as_str(), context, now, fuel)
    }

    /// Evaluates the flag at this position in the order of keys, which is that of [`Self::variants`], for a caller that
    /// needs only the position of the variant.
    ///
    /// # Errors
    /// Those of [`Self::evaluate_within`]; [`EvaluationError::FlagNotFound`] if no flag has this position.
    pub fn decide_at(
        &self,
        position: usize,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Decision, EvaluationError> {
        let Some((key, flag)) = self.flags.get(position) else {
            return Err(EvaluationError::FlagNotFound);
        };
        flag.decide(key.as_str(), context, now, fuel)
    }

    /// The variants and the metadata of all flags, in the order of their keys.
    pub fn variants(&self) -> impl Iterator<Item = CompiledVariants<'_>> {
        self.flags.iter().map(|(key, flag)| CompiledVariants {
            key,
            variants: flag.variants(),
            usual_reason: flag.usual_reason(),
            metadata: flag.metadata(),
        })
    }

    /// Whether a flag is on for a caller, for clients that only support booleans. `None` if the flag does not exist,
    /// its definition is unreadable, or its values are not booleans. For a caller without a targeting key, the settings
    /// and the defaults of the installation determine the value of a simple flag with a partial rollout. A boolean flag
    /// without a value, and a flag whose evaluation fails, are off.
    #[must_use]
    pub fn is_on(&self, key: &str, context: &Context, now: i64) -> Option<bool> {
        self.is_on_at(self.position(key)?, context, now)
    }

    /// [`Self::is_on`] for the flag at this position in the order of keys.
    #[must_use]
    pub fn is_on_at(&self, position: usize, context: &Context, now: i64) -> Option<bool> {
        let (key, flag) = self.flags.get(position)?;
        let evaluate = || flag.is_on(key.as_str(), context, now, self.anonymous_rollout);
        if context.is_empty() && !self.depends_on_time {
            return *flag.is_on_for_anonymous.get_or_init(evaluate);
        }
        evaluate()
    }

    fn position(&self, key: &str) -> Option<usize> {
        let compare = |(own, _): &(FlagKey, Arc<CompiledFlag>)| own.as_str().cmp(key);
        self.flags.binary_search_by(compare).ok()
    }
}
