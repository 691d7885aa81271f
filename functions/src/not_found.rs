//! `GET /`, and the target of API Gateway's `$default` route: the gateway's own 404 does not have the format that
//! clients expect.
//!
//! `middleware` responds to requests without a route of the function, in every function alike: 404; 405 if the path has
//! other methods; 401 on admin paths without an identity; preflight responses to `OPTIONS`; 308 for `/console/`, and
//! for an evaluation at `//ofrep/…`, which SDKs request if their base URL ends with a slash.

use lambda_http::http::StatusCode;
use pennon_core::http::{self, Response};
use serde_json::json;

/// Responds to `GET /`: the name, the version and the address of the documentation.
#[must_use]
pub fn handle() -> Response {
    let body = json!({
        "name": "Pennon",
        "version": env!("CARGO_PKG_VERSION"),
        "documentation": concat!(env!("CARGO_PKG_REPOSITORY"), "#readme"),
    });
    http::json(StatusCode::OK, &body)
}
