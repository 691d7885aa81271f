//! Every path that no route has: behind API Gateway's `$default` route, whose own answer would not
//! have the shape that clients know.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Answers 404; 401 where only admins may look and nobody has said who they are.
///
/// # Errors
/// Always: [`Error::RouteNotFound`] or [`Error::Unauthenticated`].
#[expect(clippy::unused_async, reason = "every handler has this form")]
pub async fn handle(_app: Arc<App>, request: Request) -> Result<Response, Error> {
    Err(request.route_not_found())
}
