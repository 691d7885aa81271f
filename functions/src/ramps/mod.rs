//! `/api/admin/flags/{flagKey}/ramp`: a rollout that advances by itself while alarms guard it. `reconcile` advances it.
//! `guard` rolls it back or pauses it when an alarm fires, and `reconcile` does so if `guard` was not invoked.

mod create;
mod read;
mod view;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{Fields, Request, Response};
use pennon_core::service::RampAction;

/// Handles the routes of ramps.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::FlagNotFound`], [`Error::NotFound`],
/// [`Error::PreconditionFailed`], [`Error::Conflict`] and [`Error::InvalidState`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    let action = match request.route().map(|route| (route.method, route.path)) {
        Some(("GET", "/api/admin/flags/{flagKey}/ramp")) => {
            return read::handle(&app, &request).await;
        }
        Some(("POST", "/api/admin/flags/{flagKey}/ramp")) => {
            return create::handle(&app, &request, &actor).await;
        }
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/pause")) => RampAction::Pause,
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/resume")) => RampAction::Resume,
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/advance")) => RampAction::Advance,
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/rollback")) => RampAction::RollBack,
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/acknowledge")) => RampAction::Acknowledge,
        Some(("POST", "/api/admin/flags/{flagKey}/ramp/cancel")) => RampAction::Cancel,
        _ => return Err(request.route_not_found()),
    };
    apply(&app, &request, &actor, action).await
}

async fn apply(
    app: &App,
    request: &Request,
    actor: &Actor,
    action: RampAction,
) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    Fields::reject_all(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let service = &app.service;
    let (alarms, context) = (app.alarms(), request.context());
    let changed = service.apply_ramp_action(
        &environment,
        &key,
        action,
        &expected,
        actor,
        alarms,
        context,
    );
    Ok(view::changed(&key, &changed.await?))
}
