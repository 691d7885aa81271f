//! Evaluates one flag and records the steps that decided.

use std::sync::Arc;

use serde_json::Value;

use super::evaluation::{EvaluationError, Reason};
use super::flag::CompiledFlag;
use super::work::RequestFuel;
use crate::logic::evaluators::Evaluators;
use crate::trace::{Step, Trace};
use crate::{Context, EvaluationDefaults, Flag, FlagKey, Settings};

/// The value of a flag for a caller, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The result, equal to that of every other evaluation.
    pub outcome: Result<ExplainedValue, EvaluationError>,
    /// The steps that decided, in their order.
    pub path: Vec<Step>,
}

/// The result of an explained evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedValue {
    /// The value; if absent, the application uses its own default.
    pub value: Option<Value>,
    /// The name of the variant; empty without a value.
    pub variant: String,
    /// The reason for the value.
    pub reason: Reason,
}

/// Evaluates a flag as [`Ruleset::evaluate`](crate::Ruleset::evaluate) does, and records the steps. It compiles the
/// flag first, so it is much slower.
#[must_use]
pub fn explain(
    (key, flag): (&FlagKey, &Flag),
    settings: &Settings,
    defaults: EvaluationDefaults,
    context: &Context,
    now: i64,
) -> Explanation {
    let evaluators = Evaluators::for_trace(settings);
    let common = Arc::new(settings.metadata.clone());
    let compiled = CompiledFlag::compile(key, flag, &evaluators, defaults, &common);
    let mut fuel = RequestFuel::traced();
    let outcome = compiled.evaluate(key.as_str(), context, now, &mut fuel);
    let outcome = outcome.map(|found| ExplainedValue {
        value: found.value.cloned(),
        variant: found.variant.to_owned(),
        reason: found.reason,
    });
    let path = fuel.trace.take().map(|trace| Trace::finish(*trace));
    Explanation {
        outcome,
        path: path.unwrap_or_default(),
    }
}
