//! `PUT /local/alarms/{name}`: sets the state of an alarm, so that a ramp can be tried on a laptop. Only the local
//! server has this route. It works unless `CLOUDWATCH_ENDPOINT` is set.

use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use pennon_core::alarms::AlarmState;
use pennon_core::app::App;
use pennon_core::auth::{Actor, Role};
use pennon_core::error::Error;
use pennon_core::http::{self, Fields, Incoming, Response, decoded};
use pennon_core::service::AlarmEvent;
use serde_json::json;

const PREFIX: &str = "/local/alarms/";

/// The name of the alarm, if the request is for this route.
pub(crate) fn alarm_of(method: &Method, path: &str) -> Option<String> {
    let name = path.strip_prefix(PREFIX)?;
    let is_route = method == Method::PUT && !name.is_empty() && !name.contains('/');
    is_route.then(|| decoded(name))?
}

/// Sets the state for an admin, and handles `ALARM` as the function `guard` does.
pub(crate) async fn answer(app: &App, alarm: &str, incoming: &Incoming, body: &[u8]) -> Response {
    let set = set(app, alarm, incoming, body).await;
    set.unwrap_or_else(|error| http::error_reply(&error))
}

async fn set(app: &App, alarm: &str, incoming: &Incoming, body: &[u8]) -> Result<Response, Error> {
    let auth = &app.config.auth;
    Actor::verify(incoming.claims.as_ref(), &incoming.headers, auth)?.require(Role::Admin)?;
    let mut fields = Fields::parse(body)?;
    let state = fields.take("state", |value| {
        let state = value.as_str().and_then(AlarmState::parse);
        state.ok_or("must be OK, ALARM or INSUFFICIENT_DATA")
    });
    fields.require("state", state.as_ref());
    fields.reject_rest();
    fields.finish()?;
    let state = state.unwrap_or(AlarmState::Ok);
    if !app.alarms().set(alarm, state) {
        return Err(Error::Conflict(
            "CLOUDWATCH_ENDPOINT is set, so the states of alarms are not stored here; remove it to set them".to_owned(),
        ));
    }
    let mut rolled_back = 0;
    if state == AlarmState::Alarm {
        let budget = app.config.cache.request_budget;
        let event = AlarmEvent {
            name: alarm,
            arn: None,
            at: SystemTime::now(),
        };
        rolled_back = app.service.handle_alarm(event, budget).await?;
    }
    let body = json!({ "alarm": alarm, "state": state.name(), "rolledBack": rolled_back });
    Ok(http::json(StatusCode::OK, &body))
}
