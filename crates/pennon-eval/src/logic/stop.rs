//! Why a rule has no result.

/// Why the evaluation of a rule stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    /// It divides by zero.
    #[error("the targeting divides by zero")]
    DivisionByZero,
    /// It comes to no number.
    #[error("the targeting comes to something that is no number")]
    NoNumber,
    /// It is more work than one evaluation may be.
    #[error("the targeting takes more work than one evaluation may")]
    TooMuchWork,
    /// It builds lists in lists in lists.
    #[error("the targeting builds a list that is nested too deep")]
    TooDeep,
}
