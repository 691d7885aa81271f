//! The result of an evaluation.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::limits::EvalError;

/// The result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation<'a> {
    /// The value; if absent, the application uses its own default.
    pub value: Option<&'a Value>,
    /// The name of the variant; empty without a value.
    pub variant: &'a str,
    /// The reason for the value.
    pub reason: Reason,
    /// The metadata of the flag and its environment.
    pub metadata: &'a Map<String, Value>,
}

/// The result of an evaluation, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The position of the variant in [`CompiledVariants`](crate::CompiledVariants); `None` without a value.
    pub variant: Option<usize>,
    /// The reason for the value.
    pub reason: Reason,
}

/// The reason for a value, as in OpenFeature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The value is the same for all callers without an override.
    Static,
    /// The rule selected no variant, so the default applies; or the flag has no default variant.
    Default,
    /// The rule or an override selected the variant.
    TargetingMatch,
    /// The caller's bucket in the rollout of a simple flag determined the value.
    Split,
    /// The flag is disabled.
    Disabled,
}

/// Why a flag has no value for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The flag does not exist.
    #[error("the flag does not exist")]
    FlagNotFound,
    /// The flag buckets callers by their targeting key, and the context has none.
    #[error("the flag buckets callers by targetingKey, and the context has none")]
    TargetingKeyMissing,
    /// Stored data that the value depends on is invalid: the definition, an override, the settings of the environment
    /// or the defaults of the installation.
    #[error("stored data is invalid: {0}")]
    Parse(String),
    /// The rule failed, the selected variant does not exist, or the request has no steps left.
    #[error("{0}")]
    General(String),
}

impl EvaluationError {
    /// The error of an evaluation for which the request has no steps left.
    #[must_use]
    pub fn no_steps_left() -> Self {
        Self::General(EvalError::TooManyRequestSteps.to_string())
    }
}
