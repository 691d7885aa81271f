//! `/api/admin/flags/{flagKey}/users`: overrides for single users, one by one or in bulk.

mod list;
mod put;
mod remove;
mod set;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Handles the routes of overrides.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::FlagNotFound`], [`Error::NotFound`], [`Error::PreconditionFailed`],
/// [`Error::Conflict`] and [`Error::RateLimited`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    match request.route().map(|route| (route.method, route.path)) {
        Some(("GET", "/api/admin/flags/{flagKey}/users")) => list::handle(&app, &request).await,
        Some(("POST", "/api/admin/flags/{flagKey}/users")) => {
            set::handle(&app, &request, &actor).await
        }
        Some(("PUT", "/api/admin/flags/{flagKey}/users")) => {
            put::handle(&app, &request, &actor).await
        }
        Some(("DELETE", "/api/admin/flags/{flagKey}/users/{userId}")) => {
            remove::handle(&app, &request, &actor).await
        }
        _ => Err(request.route_not_found()),
    }
}
