//! `/api/admin/environments`: environments, their flags and settings, export, import and copying.

mod audit;
mod copy;
mod create;
mod export;
mod flags;
mod import;
mod list;
mod purge;
mod settings;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{Request, Response};

/// Handles the routes of environments.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::NotFound`], [`Error::Conflict`], [`Error::PreconditionFailed`] and
/// [`Error::ItemsChanged`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    match request.route().map(|route| (route.method, route.path)) {
        Some(("GET", "/api/admin/environments")) => list::handle(&app, &request).await,
        Some(("POST", "/api/admin/environments")) => create::handle(&app, &request, &actor).await,
        Some(("GET", "/api/admin/environments/{environment}/flags")) => {
            flags::handle(&app, &request).await
        }
        Some(("GET", "/api/admin/environments/{environment}/settings")) => {
            settings::read(&app, &request).await
        }
        Some(("PUT", "/api/admin/environments/{environment}/settings")) => {
            settings::replace(&app, &request, &actor).await
        }
        Some(("GET", "/api/admin/environments/{environment}/export")) => {
            export::handle(&app, &request, &actor).await
        }
        Some(("POST", "/api/admin/environments/{environment}/import")) => {
            import::handle(&app, &request, &actor).await
        }
        Some(("POST", "/api/admin/environments/{environment}/copy")) => {
            copy::handle(&app, &request, &actor).await
        }
        Some(("POST", "/api/admin/environments/{environment}/purge")) => {
            purge::handle(&app, &request, &actor).await
        }
        Some(("GET", "/api/admin/environments/{environment}/audit")) => {
            audit::handle(&app, &request).await
        }
        _ => Err(request.route_not_found()),
    }
}
