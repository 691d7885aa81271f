//! The result of an evaluation.

use serde::Serialize;
use serde_json::{Map, Value};

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
