//! Why a rule has no result.

/// Why the evaluation of a rule stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    /// It divides by zero.
    #[error("the targeting divides by zero")]
    DivisionByZero,
    /// It is more work than one evaluation may be.
    #[error("the targeting takes more work than one evaluation may")]
    TooMuchWork,
    /// With what the flags before it took, it is more work than one request may be.
    #[error(
        "with this context all flags together take more work than one request may; ask for single flags, \
         or send less context"
    )]
    RequestTooMuchWork,
    /// It builds lists in lists in lists.
    #[error("the targeting builds a list that is nested too deep")]
    TooDeep,
}
