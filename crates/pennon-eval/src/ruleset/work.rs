//! The work that the evaluations of one request may take.

use super::evaluation::EvaluationError;
use crate::limits::{EvalError, REQUEST_STEPS};

/// The work that one request may still have done by evaluations. A request for many flags shares one.
///
/// What a rule takes for a caller of whom nothing but the id is known is never refused: it is checked when
/// flags are written. Of the rest, such as walking a long list in the context for each of thousands of
/// flags, a request may have so much.
#[derive(Debug)]
pub struct Work {
    pub(super) steps: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            steps: REQUEST_STEPS,
        }
    }
}

impl Work {
    /// For a caller of whom only an id is known.
    pub(super) fn unlimited() -> Self {
        Self { steps: u64::MAX }
    }

    /// Takes what was done beyond what an evaluation may always have.
    pub(super) fn take(&mut self, done: u64, always: u64) -> Result<(), EvaluationError> {
        let beyond = done.saturating_sub(always);
        let left = self.steps.checked_sub(beyond);
        self.steps = left.unwrap_or(0);
        left.map(|_left| ())
            .ok_or_else(|| EvaluationError::General(EvalError::RequestTooMuchWork.to_string()))
    }
}
