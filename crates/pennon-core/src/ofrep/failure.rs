//! What went wrong, in OFREP's words.
//!
//! Every failure has a code and a text, and the key where it is about one flag: the Python client fails
//! without the text, the JavaScript one makes nothing of an answer without key and code.

use std::borrow::Cow;

use lambda_http::http::StatusCode;
use pennon_eval::EvaluationError;
use serde::Serialize;

use super::request::LARGEST_BODY;
use crate::error::Error;
use crate::http::OfrepPath;
use crate::http::{Response, json, with_header};
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
    status: StatusCode,
}

/// A failure on the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailureItem<'a> {
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

    /// 413: the body is larger than any context.
    #[must_use]
    pub fn too_large() -> Self {
        let details = format!("The body is larger than {LARGEST_BODY} bytes");
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

    /// The answer to a request that failed with this; about a flag when there is a key.
    #[must_use]
    pub fn answer(&self, key: Option<&str>) -> Response {
        json(self.status, &self.item(key))
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

    pub(super) fn general(status: StatusCode, details: impl Into<String>) -> Self {
        Self {
            code: Code::General,
            details: details.into(),
            status,
        }
    }

    /// As an item among those of other flags.
    pub(super) fn into_item(self, key: &str) -> FailureItem<'_> {
        FailureItem {
            key: Some(key),
            error_code: self.code,
            error_details: Cow::Owned(self.details),
        }
    }

    fn item<'a>(&'a self, key: Option<&'a str>) -> FailureItem<'a> {
        FailureItem {
            key,
            error_code: self.code,
            error_details: Cow::Borrowed(&self.details),
        }
    }
}

/// 429. Whole seconds, at least one: the only form of `Retry-After` that every client reads.
#[must_use]
pub fn too_many(retry_after: u64, key: Option<&str>) -> Response {
    let retry_after = retry_after.max(1);
    let details = format!("Too many requests; try again in {retry_after} s");
    let failure = Failure::general(StatusCode::TOO_MANY_REQUESTS, details);
    with_header(failure.answer(key), "retry-after", &retry_after.to_string())
}

/// What an error looks like on a path of OFREP's. Texts of internal errors stay inside.
///
/// A store that does not answer is a 500 and no 503 here: 500 is the protocol's own word for it, and
/// the only one of the two whose body the JavaScript clients read.
pub(crate) fn error_reply(error: &Error, place: &OfrepPath) -> Response {
    let key = place.key();
    let general = |status: StatusCode, details: &str| Failure::general(status, details).answer(key);
    match error {
        Error::Unauthenticated | Error::NoKey => with_header(
            general(
                StatusCode::UNAUTHORIZED,
                "An API key is needed, as a bearer token or in X-API-Key",
            ),
            "www-authenticate",
            "Bearer",
        ),
        Error::Forbidden | Error::OtherEnvironment => general(
            StatusCode::FORBIDDEN,
            "The API key is for another environment",
        ),
        Error::FlagNotFound(key) => {
            Failure::of_evaluation(key, &EvaluationError::FlagNotFound, KeyKind::Client)
                .answer(Some(key))
        }
        Error::RouteNotFound => general(
            StatusCode::NOT_FOUND,
            "There are /ofrep/v1/evaluate/flags and /ofrep/v1/evaluate/flags/{key}, and nothing else",
        ),
        Error::MethodNotAllowed { allow } => with_header(
            general(
                StatusCode::METHOD_NOT_ALLOWED,
                "Flags are evaluated by POST",
            ),
            "allow",
            allow,
        ),
        Error::Invalid(complaints) => general(StatusCode::BAD_REQUEST, &complaints.summary()),
        Error::RateLimited { retry_after } => too_many(*retry_after, key),
        Error::NotFound(what) => general(StatusCode::NOT_FOUND, &format!("{what} not found")),
        Error::Conflict(why) => general(StatusCode::CONFLICT, why),
        Error::InvalidState(why) => general(StatusCode::BAD_REQUEST, why),
        Error::PreconditionFailed => general(
            StatusCode::PRECONDITION_FAILED,
            "It has been changed meanwhile",
        ),
        Error::PreconditionRequired => {
            general(StatusCode::PRECONDITION_REQUIRED, "If-Match is missing")
        }
        Error::TooLarge { .. } => Failure::too_large().answer(key),
        Error::Unavailable(_) | Error::StoreFile(_) => with_header(
            general(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Flags cannot be read right now; try again in a moment",
            ),
            "retry-after",
            "1",
        ),
        Error::Internal(_) => general(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    }
}
