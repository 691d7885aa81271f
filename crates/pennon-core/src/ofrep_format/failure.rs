//! What went wrong, in OFREP's words.
//!
//! Every failure has a code and a text, and the key where it is about one flag: the Python client fails
//! without the text, the JavaScript one makes nothing of an answer without key and code.

use std::borrow::Cow;

use lambda_http::http::StatusCode;
use pennon_eval::EvaluationError;
use serde::Serialize;

use crate::snapshot::KeyKind;

/// OFREP's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request, or the flag's rule, is not what it should be.
    ParseError,
    /// The flag divides callers by their targeting key, and there is none.
    TargetingKeyMissing,
    /// The context is no context.
    InvalidContext,
    /// There is no such flag that the caller may see.
    FlagNotFound,
    /// Anything else.
    General,
}

/// A failure, of a whole request or of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub code: Code,
    /// For a person.
    pub details: String,
    pub(crate) status: StatusCode,
}

/// A failure on the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailureItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    error_code: Code,
    error_details: Cow<'a, str>,
}

impl Failure {
    /// A failure because of what was asked: 404 for a flag that is not there, else 400.
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

    /// 413: the body is larger than this many bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let details = format!("The body is larger than {limit} bytes");
        Self::general(StatusCode::PAYLOAD_TOO_LARGE, details)
    }

    /// Why a flag has no value for this caller. Details go to servers only: they quote the rule, or what it
    /// computed, and everyone can read a key for clients.
    #[must_use]
    pub fn of_evaluation(key: &str, error: &EvaluationError, kind: KeyKind) -> Self {
        let with_details = |text: String, details: &str| match kind {
            KeyKind::Server => format!("{text}: {details}"),
            KeyKind::Client => text,
        };
        match error {
            EvaluationError::FlagNotFound => {
                Self::new(Code::FlagNotFound, format!("Flag '{key}' not found"))
            }
            EvaluationError::TargetingKeyMissing => Self::new(
                Code::TargetingKeyMissing,
                format!(
                    "Flag '{key}' divides callers by their targetingKey, and the context has none"
                ),
            ),
            EvaluationError::Parse(why) => Self::new(
                Code::ParseError,
                with_details(
                    format!("The definition of flag '{key}' cannot be used"),
                    why,
                ),
            ),
            EvaluationError::General(why) => Self::new(
                Code::General,
                with_details(format!("Flag '{key}' cannot be evaluated"), why),
            ),
        }
    }

    /// What kind of failure the log calls it.
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

    pub(crate) fn general(status: StatusCode, details: impl Into<String>) -> Self {
        Self {
            code: Code::General,
            details: details.into(),
            status,
        }
    }

    /// As an item among those of other flags.
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
