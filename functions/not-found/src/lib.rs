//! Every path that no route has: behind API Gateway's `$default` route, whose own answer would not
//! have the shape that clients know.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Answers what no route has, as every function answers what is for none of its routes: 404; 405 where
/// the path has other methods; 401 where only admins may look and nobody has said who they are; 308 for
/// an evaluation by `//ofrep/…`, which is what an SDK asks whose base URL ends with a slash, and which
/// no route of the gateway takes.
///
/// # Errors
/// [`Error::RouteNotFound`], [`Error::MethodNotAllowed`] or [`Error::Unauthenticated`].
#[expect(clippy::unused_async, reason = "every handler has this form")]
pub async fn handle(_app: Arc<App>, request: Request) -> Result<Response, Error> {
    Err(request.route_not_found())
}
