//! `/api/admin/flags/{flagKey}/schedule`: scheduled changes. `reconcile` applies them.

mod cancel;
mod create;
mod list;
mod view;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Handles the routes of schedules.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::FlagNotFound`], [`Error::NotFound`] and [`Error::InvalidState`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    match request.route().map(|route| (route.method, route.path)) {
        Some(("GET", "/api/admin/flags/{flagKey}/schedule")) => list::handle(&app, &request).await,
        Some(("POST", "/api/admin/flags/{flagKey}/schedule")) => {
            create::handle(&app, &request, &actor).await
        }
        Some(("DELETE", "/api/admin/flags/{flagKey}/schedule/{id}")) => {
            cancel::handle(&app, &request, &actor).await
        }
        _ => Err(request.route_not_found()),
    }
}
