//! What a browser wants to hear before it lets a page ask, and before it shows the page the answer.
//!
//! Any page may ask: a key is needed all the same, and no browser sends one by itself as it would a
//! cookie. API Gateway puts its own headers in the place of these, from the parameter `CorsOrigins`
//! of the template; these are for `sam local` and the local server.

use lambda_http::Body;
use lambda_http::http::StatusCode;

use crate::http::{Response, with_header};

/// As long as the browsers that grant the most will remember it (two hours).
const REMEMBER_SECONDS: &str = "7200";

/// Adds what a page may see.
#[must_use]
pub fn with_cors(response: Response) -> Response {
    let response = with_header(response, "access-control-allow-origin", "*");
    with_header(
        response,
        "access-control-expose-headers",
        "ETag, Retry-After, X-Cache-Hit, X-Cache-Source, X-Request-Id",
    )
}

/// The answer to a browser's question before the first request of a page. `allow` are the methods of
/// the path; those that change flags by `PATCH`, `PUT` or `DELETE` stay out of a page's reach, as at the
/// gateway.
pub(crate) fn preflight(allow: &str) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let for_pages = |method: &&str| ["GET", "HEAD", "POST", "OPTIONS"].contains(method);
    let methods: Vec<&str> = allow.split(", ").filter(for_pages).collect();
    let response = with_header(
        response,
        "access-control-allow-methods",
        &methods.join(", "),
    );
    let response = with_header(
        response,
        "access-control-allow-headers",
        "Authorization, Content-Type, If-None-Match, X-API-Key",
    );
    let response = with_header(response, "allow", allow);
    with_cors(with_header(
        response,
        "access-control-max-age",
        REMEMBER_SECONDS,
    ))
}
