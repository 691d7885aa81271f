//! Every path that no route has, behind API Gateway's `$default` route, whose own answer would not have
//! the shape that clients know; and `GET /`, which says what this is.
//!
//! What no route has is answered before any handler, the same by every function: 404; 405 where the path
//! has other methods; 401 where only admins may look and nobody has said who they are; 308 for an
//! evaluation by `//ofrep/…`, which is what an SDK asks whose base URL ends with a slash, and which no
//! route of the gateway takes.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use serde_json::json;

/// Answers with name, version and where the documentation is.
///
/// # Errors
/// None.
pub async fn handle(_app: Arc<App>, _request: Request) -> Result<Response, Error> {
    let body = json!({
        "name": "Pennon",
        "version": env!("CARGO_PKG_VERSION"),
        "documentation": concat!(env!("CARGO_PKG_REPOSITORY"), "#readme"),
    });
    Ok(http::json(StatusCode::OK, &body))
}
