//! OFREP failures.
//!
//! Every failure has a code and a text, and a key if it is about one flag: the Python client raises an exception
//! without the text, and the JavaScript client ignores a failure without key or code.

use std::borrow::Cow;

use lambda_http::http::StatusCode;
use pennon_eval::EvaluationError;
use serde::Serialize;

use crate::key_kind::KeyKind;

/// OFREP's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request or the rule of the flag is malformed.
    ParseError,
    /// The flag buckets callers by their targeting key, and the context has none.
    TargetingKeyMissing,
    /// The context is invalid.
    InvalidContext,
    /// The flag does not exist, or the caller may not see it.
    FlagNotFound,
    /// Any other failure.
    General,
}

/// A failure, of a whole request or of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// A text for people.
    pub details: String,
    pub(crate) status: StatusCode,
}

/// The JSON of a failure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailureItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    error_code: Code,
    error_details: Cow<'a, str>,
}

impl Failure {
    /// A failed evaluation, or an invalid context: 404 for an unknown flag, otherwise 400.
    #[must_use]
    pub fn new(code: Code, details: impl Into<String>) -> Self {
        let status = match code {
            Code::FlagNotFound => StatusCode::NOT_FOUND,
            Code::ParseError | Code::TargetingKeyMissing | Code::InvalidContext | Code::General => {
                StatusCode::BAD_REQUEST
            }
        };
        Self {
            code,
            details: details.into(),
            status,
        }
    }

    /// 413: the body exceeds the limit, in bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let details = format!("The body is larger than {limit} bytes");
        Self::general(StatusCode::PAYLOAD_TOO_LARGE, details)
    }

    /// The reason why a flag has no value for this caller. Only servers get details, which may quote the rule: everyone
    /// can read a client key.
    #[must_use]
    pub fn of_evaluation(key: &str, error: &EvaluationError, kind: KeyKind) -> Self {
        let with_details = |text: String, details: &str| match kind {
            KeyKind::Server | KeyKind::Sync => format!("{text}: {details}"),
            KeyKind::Client => text,
        };
        match error {
            EvaluationError::FlagNotFound => {
                Self::new(Code::FlagNotFound, format!("Flag '{key}' not found"))
            }
            EvaluationError::TargetingKeyMissing => Self::new(
                Code::TargetingKeyMissing,
                format!("Flag '{key}' buckets callers by targetingKey, and the context has none"),
            ),
            EvaluationError::Parse(why) => Self::new(
                Code::ParseError,
                with_details(format!("Data that flag '{key}' needs cannot be used"), why),
            ),
            EvaluationError::General(why) => Self::new(
                Code::General,
                with_details(format!("Flag '{key}' cannot be evaluated"), why),
            ),
        }
    }

    /// The name of the failure in the log.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.code {
            Code::ParseError => "parse_error",
            Code::TargetingKeyMissing => "targeting_key_missing",
            Code::InvalidContext => "invalid_context",
            Code::FlagNotFound => "flag_not_found",
            Code::General => "general",
        }
    }

    /// Any other failure, with this status.
    #[must_use]
    pub fn general(status: StatusCode, details: impl Into<String>) -> Self {
        Self {
            code: Code::General,
            details: details.into(),
            status,
        }
    }

    /// Converts it to an item of a bulk response.
    pub(crate) fn into_item(self, key: &str) -> FailureItem<'_> {
        FailureItem {
            key: Some(key),
            error_code: self.code,
            error_details: Cow::Owned(self.details),
        }
    }

    pub(crate) fn item<'a>(&'a self, key: Option<&'a str>) -> FailureItem<'a> {
        FailureItem {
            key,
            error_code: self.code,
            error_details: Cow::Borrowed(&self.details),
        }
    }
}
