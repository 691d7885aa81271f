//! `/api/admin/flags`: creating, explaining, archiving, restoring, reverting and deleting flags.

mod audit;
mod create;
mod explain;
mod list;
mod read;
mod remove;
mod restore;
mod revert;
mod view;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Handles the routes of flags.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::FlagNotFound`], [`Error::NotFound`], [`Error::Conflict`],
/// [`Error::PreconditionFailed`] and [`Error::RateLimited`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    match request.route().map(|route| (route.method, route.path)) {
        Some(("GET", "/api/admin/flags")) => list::handle(&app, &request).await,
        Some(("POST", "/api/admin/flags")) => create::handle(&app, &request, &actor).await,
        Some(("GET", "/api/admin/flags/{flagKey}")) => read::handle(&app, &request).await,
        Some(("DELETE", "/api/admin/flags/{flagKey}")) => {
            remove::handle(&app, &request, &actor).await
        }
        Some(("POST", "/api/admin/flags/{flagKey}/explain")) => {
            explain::handle(&app, &request).await
        }
        Some(("POST", "/api/admin/flags/{flagKey}/restore")) => {
            restore::handle(&app, &request, &actor).await
        }
        Some(("POST", "/api/admin/flags/{flagKey}/revert")) => {
            revert::handle(&app, &request, &actor).await
        }
        Some(("GET", "/api/admin/flags/{flagKey}/audit")) => audit::handle(&app, &request).await,
        _ => Err(request.route_not_found()),
    }
}
