//! The headers of the console's responses.

use lambda_http::http::{HeaderName, HeaderValue};

use super::reply::Response;

/// Headers of every response of the console, errors included. Headers that the response already has are kept.
#[must_use]
pub fn with_console_headers(mut response: Response) -> Response {
    let policy = HeaderValue::from_str(&content_security_policy(None));
    let headers = [
        ("cache-control", "no-cache"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let policy = policy.ok().map(|value| ("content-security-policy", value));
    for (name, value) in headers.into_iter().chain(policy) {
        let name = HeaderName::from_static(name);
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// The policy of the console's pages. Its scripts may send requests to this server, and to the origin of the issuer's
/// token endpoint. `form-action 'none'` prevents injected forms from submitting. `trusted-types 'none'` and
/// `require-trusted-types-for` make the assignment of a text to `innerHTML` and the like fail.
#[must_use]
pub fn content_security_policy(token_origin: Option<&str>) -> String {
    let connect = match token_origin {
        Some(origin) => format!("'self' {origin}"),
        None => "'self'".to_owned(),
    };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; frame-ancestors 'none'; \
         base-uri 'none'; form-action 'none'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}
