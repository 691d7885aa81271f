//! Creates responses. Only [`error_reply`], and its counterpart for OFREP, map an [`Error`] to a status.

use lambda_http::Body;
use lambda_http::http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::etag::ETag;
use crate::error::{Error, FieldErrors};
use crate::snapshot::fragments::BodyText;
use crate::wire_size::on_the_wire;

/// Limit on the body of a response. Lambda accepts six megabytes of JSON, which contain the body as a string, so a
/// quotation mark takes two bytes. The rest of the response is small.
pub const MAX_RESPONSE_SIZE: usize = 5_900_000;

/// The number of headers for which memory is reserved: enough for most responses. Without it, the memory would be
/// allocated again each time the headers outgrow it.
const RESERVED_HEADERS: usize = 12;

/// A response to a request.
pub type Response = lambda_http::http::Response<Body>;

/// A response with a JSON body.
#[must_use]
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => json_text(status, text),
        Err(error) => error_reply(&Error::Internal(error.to_string())),
    }
}

/// A response with a text that is JSON already.
#[must_use]
pub(crate) fn json_text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::Text(text));
    *response.status_mut() = status;
    response.headers_mut().reserve(RESERVED_HEADERS);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Marks a response whose text is already the JSON string for the gateway. Only clients that accept no compression get
/// one, so the text is never compressed.
#[derive(Debug, Clone, Copy)]
struct JsonString;

/// A response with a body that is JSON already.
#[must_use]
pub(crate) fn json_body(status: StatusCode, body: BodyText) -> Response {
    let mut response = json_text(status, body.text);
    if body.is_json_string {
        response.extensions_mut().insert(JsonString);
    }
    response
}

/// Whether the text of the body is a JSON string already, as the gateway expects it.
#[must_use]
pub(crate) fn is_json_string(response: &Response) -> bool {
    response.extensions().get::<JsonString>().is_some()
}

/// The size of the body as Lambda counts it, if it exceeds [`MAX_RESPONSE_SIZE`].
#[must_use]
pub fn size_above_limit(response: &Response) -> Option<usize> {
    // Neither escapes nor base64 make a body more than twice as large.
    if response.body().len() <= MAX_RESPONSE_SIZE / 2 {
        return None;
    }
    let size = if let Body::Binary(bytes) = response.body() {
        base64_size(bytes.len())
    } else if is_json_string(response) {
        response.body().len()
    } else {
        on_the_wire(response.body())
    };
    (size > MAX_RESPONSE_SIZE).then_some(size)
}

/// The size of bytes in base64, as Lambda receives a binary body.
pub(super) fn base64_size(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Adds the name of a request header to `Vary`. API Gateway accepts each header once.
#[must_use]
pub fn with_added_vary(response: Response, name: &'static str) -> Response {
    let known = response.headers().get(header::VARY);
    match known.and_then(|known| known.to_str().ok()) {
        None => with_fixed_header(response, "vary", name),
        Some(known) if known.split(", ").any(|known| known == name) => response,
        Some(known) => {
            let all = format!("{known}, {name}");
            with_header(response, "vary", &all)
        }
    }
}

/// 204, without a body.
#[must_use]
pub fn no_content() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 304: the caller has the current response.
#[must_use]
pub fn not_modified(tag: &ETag) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    with_header(response, "etag", tag.as_str())
}

/// 308: the client repeats the request, with the same method and body, at this path.
pub(crate) fn permanent_redirect(path: &str) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    with_header(response, "location", path)
}

/// Sets a header, unless the value is invalid in a header.
#[must_use]
pub fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    response
}

/// Sets a header whose value is fixed, without a copy of it.
#[must_use]
pub fn with_fixed_header(
    mut response: Response,
    name: &'static str,
    value: &'static str,
) -> Response {
    let (name, value) = (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    response.headers_mut().insert(name, value);
    response
}

/// Formats names from a request as a header value: at most 20, separated by commas, each truncated to 64 characters.
/// Commas, quotes, backslashes and all characters that are not visible ASCII become `?`.
#[must_use]
pub fn header_list(names: &[String]) -> String {
    let plain = |character: char| match character {
        ',' | '"' | '\\' => '?',
        '!'..='~' => character,
        _ => '?',
    };
    let names = names
        .iter()
        .take(20)
        .map(|name| name.chars().take(64).map(plain).collect::<String>());
    names.collect::<Vec<_>>().join(", ")
}

fn unavailable(message: &str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let response = explained(status, "Service unavailable", message);
    with_header(response, "retry-after", "1")
}

fn forbidden(message: &str) -> Response {
    explained(StatusCode::FORBIDDEN, "Forbidden", message)
}

/// An error with its name and an explanation for people.
fn explained(status: StatusCode, error: &str, message: &str) -> Response {
    json(status, &json!({ "error": error, "message": message }))
}

/// The response to an error. Texts of internal errors are not disclosed.
#[must_use]
pub fn error_reply(error: &Error) -> Response {
    match error {
        Error::Invalid(errors) => json(StatusCode::BAD_REQUEST, &validation(errors)),
        Error::Unauthenticated => explained(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "A valid token is needed",
        ),
        Error::NoKey => with_header(
            explained(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "An API key is needed, in X-API-Key or as a bearer token",
            ),
            "www-authenticate",
            "Bearer",
        ),
        Error::KeyKind(why) => forbidden(why),
        Error::OtherEnvironment => forbidden("The API key is for another environment"),
        Error::Forbidden(role) => {
            let groups = role.groups();
            forbidden(&format!(
                "This needs the role {role}: you must be in one of the groups {groups}"
            ))
        }
        Error::FlagNotFound(key) => explained(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            &format!("Flag '{key}' not found"),
        ),
        Error::NotFound(what) => explained(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            &format!("{what} not found"),
        ),
        Error::Conflict(why) => explained(StatusCode::CONFLICT, "CONFLICT", why),
        Error::InvalidState(why) => explained(StatusCode::BAD_REQUEST, "INVALID_STATE", why),
        Error::PreconditionFailed => explained(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            "If-Match does not match the current state: the item has changed since you read it, or the ETag is that \
             of another item. Read it again",
        ),
        Error::ItemsChanged(why) => {
            explained(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", why)
        }
        Error::PreconditionRequired => explained(
            StatusCode::PRECONDITION_REQUIRED,
            "PRECONDITION_REQUIRED",
            "Send If-Match with the ETag of the state that you have read, or with * to replace any state",
        ),
        Error::RateLimited { retry_after } => with_header(
            explained(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                &format!("Too many changes; try again in {retry_after} s"),
            ),
            "retry-after",
            &retry_after.to_string(),
        ),
        Error::RouteNotFound => json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        Error::MethodNotAllowed { allow } => with_header(
            explained(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                &format!("This path supports only {allow}"),
            ),
            "allow",
            allow,
        ),
        Error::Unavailable(_) => unavailable("Try again in a moment"),
        Error::StoreFile(why) => unavailable(why),
        Error::TooLarge { limit } => explained(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload too large",
            &format!("The body is larger than {limit} bytes"),
        ),
        Error::ResponseTooLarge(why) => {
            explained(StatusCode::PAYLOAD_TOO_LARGE, "Response too large", why)
        }
        Error::Internal(_) => json_text(
            StatusCode::INTERNAL_SERVER_ERROR,
            r#"{"error":"Internal server error"}"#.to_owned(),
        ),
    }
}

/// Validation errors in the format of the existing service, which Pennon can replace: `docs/migration.md`.
fn validation(errors: &FieldErrors) -> serde_json::Value {
    json!({
        "error": "Validation failed",
        "details": { "formErrors": errors.form, "fieldErrors": errors.fields },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_measured_as_lambda_receives_it() {
        for (body, size) in [
            (Body::Binary(vec![0; 4_425_000]), None),
            (Body::Binary(vec![0; 4_425_001]), Some(5_900_004)),
            (Body::Text("x".repeat(5_900_000)), None),
            (Body::Text("\"".repeat(2_950_001)), Some(5_900_002)),
        ] {
            assert_eq!(size_above_limit(&Response::new(body)), size);
        }
    }

    #[test]
    fn names_from_a_request_cannot_break_a_header() {
        let names = ["owner", "a\r\nset-cookie: x", "naïve", "a,b", ""].map(str::to_owned);
        assert_eq!(header_list(&names), "owner, a??set-cookie:?x, na?ve, a?b, ");
        assert_eq!(header_list(&["x".repeat(1_000)]).len(), 64);
    }
}
