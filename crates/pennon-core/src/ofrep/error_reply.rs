//! HTTP responses to failed requests on an OFREP path.

use lambda_http::http::StatusCode;
use pennon_eval::EvaluationError;

use super::request::MAX_BODY_SIZE;
use crate::error::Error;
use crate::http::{OfrepPath, Response, json, with_header};
use crate::key_kind::KeyKind;
use crate::ofrep_format::Failure;

/// The response to a failed request on an OFREP path. Texts of internal errors are not disclosed.
///
/// An unavailable store is reported as 500, not 503: the protocol defines 500, and the JavaScript clients read the
/// body only of that status.
#[must_use]
pub fn error_reply(error: &Error, path: &OfrepPath) -> Response {
    let key = path.key();
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
        Error::Forbidden(_) | Error::OtherEnvironment => general(
            StatusCode::FORBIDDEN,
            "The API key is for another environment",
        ),
        Error::KeyKind(why) => general(StatusCode::FORBIDDEN, why),
        Error::FlagNotFound(key) => {
            Failure::of_evaluation(key, &EvaluationError::FlagNotFound, KeyKind::Client)
                .answer(Some(key))
        }
        Error::RouteNotFound => general(
            StatusCode::NOT_FOUND,
            "Unknown path; the routes are /ofrep/v1/evaluate/flags and /ofrep/v1/evaluate/flags/{key}",
        ),
        Error::MethodNotAllowed { allow } => with_header(
            general(StatusCode::METHOD_NOT_ALLOWED, "Use POST to evaluate flags"),
            "allow",
            allow,
        ),
        Error::Invalid(errors) => general(StatusCode::BAD_REQUEST, &errors.summary()),
        Error::RateLimited { retry_after } => too_many(*retry_after, key),
        Error::NotFound(what) => general(StatusCode::NOT_FOUND, &format!("{what} not found")),
        Error::Conflict(why) => general(StatusCode::CONFLICT, why),
        Error::InvalidState(why) => general(StatusCode::BAD_REQUEST, why),
        Error::PreconditionFailed => general(
            StatusCode::PRECONDITION_FAILED,
            "The item has changed since it was read",
        ),
        Error::ItemsChanged(why) => general(StatusCode::PRECONDITION_FAILED, why),
        Error::PreconditionRequired => {
            general(StatusCode::PRECONDITION_REQUIRED, "If-Match is missing")
        }
        Error::TooLarge { .. } => Failure::too_large(MAX_BODY_SIZE).answer(key),
        Error::Unavailable(_) | Error::StoreFile(_) => with_header(
            general(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Flags cannot be read right now; try again in a moment",
            ),
            "retry-after",
            "1",
        ),
        Error::ResponseTooLarge(why) => general(StatusCode::PAYLOAD_TOO_LARGE, why),
        Error::Internal(_) => general(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    }
}

impl Failure {
    /// The response to the failed request; with a key, about that flag.
    #[must_use]
    pub fn answer(&self, key: Option<&str>) -> Response {
        json(self.status, &self.item(key))
    }
}

/// 429. `Retry-After` is in whole seconds, at least one: the only form that every client reads.
fn too_many(retry_after: u64, key: Option<&str>) -> Response {
    let retry_after = retry_after.max(1);
    let details = format!("Too many requests; try again in {retry_after} s");
    let failure = Failure::general(StatusCode::TOO_MANY_REQUESTS, details);
    with_header(failure.answer(key), "retry-after", &retry_after.to_string())
}
