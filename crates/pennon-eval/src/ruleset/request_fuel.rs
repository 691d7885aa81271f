//! Limits the steps that the evaluations of one request may take together.

use super::evaluation::EvaluationError;
use crate::limits::REQUEST_STEPS;
use crate::trace::{Step, Trace};

/// The steps that a request may still take because of its context. All evaluations of a request share one
/// `RequestFuel`. Without it, each of thousands of flags could iterate over a long list in the context.
///
/// The steps of a rule for a context with only a targeting key are not counted: they are limited when flags are
/// written.
#[derive(Debug)]
pub struct RequestFuel {
    pub(super) steps: u64,
    /// Records the steps of an evaluation that is explained.
    pub(super) trace: Option<Box<Trace>>,
}

impl Default for RequestFuel {
    fn default() -> Self {
        Self {
            steps: REQUEST_STEPS,
            trace: None,
        }
    }
}

impl RequestFuel {
    /// For a context with only a targeting key.
    pub(super) fn unlimited() -> Self {
        Self {
            steps: u64::MAX,
            trace: None,
        }
    }

    /// For an evaluation that is explained.
    pub(super) fn traced() -> Self {
        Self {
            trace: Some(Box::default()),
            ..Self::default()
        }
    }

    /// Records a step, if the evaluation is explained.
    #[inline]
    pub(super) fn record(&mut self, step: impl FnOnce() -> Step) {
        if let Some(trace) = &mut self.trace {
            trace.add(step());
        }
    }

    /// Charges the steps of an evaluation beyond those that it may always take.
    #[inline]
    pub(super) fn charge(&mut self, steps: u64, free: u64) -> Result<(), EvaluationError> {
        let left = self.steps.checked_sub(steps.saturating_sub(free));
        self.steps = left.unwrap_or(0);
        left.map(|_left| ())
            .ok_or_else(EvaluationError::no_steps_left)
    }
}
