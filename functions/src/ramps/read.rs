//! `GET /api/admin/flags/{flagKey}/ramp`: the newest ramp with all its transitions and the states of its
//! alarms, and an outline of earlier ones.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::service::fetch_alarm_states;
use serde_json::{Value, json};

use super::view;

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let ramps = app.service.ramps(&environment, &key).await?;
    let Some((newest, earlier)) = ramps.split_first() else {
        return Err(Error::NotFound(format!("A ramp of '{key}'")));
    };
    let mut body = view::ramp(&key, newest);
    let states = fetch_alarm_states(&newest.plan.guards, app.alarms()).await;
    for (index, state) in states.into_iter().enumerate() {
        body["guards"][index]["state"] = json!(state);
    }
    body["earlier"] = Value::Array(earlier.iter().map(view::outline).collect());
    let response = http::json(StatusCode::OK, &body);
    let tag = ETag::of_record(newest.version);
    Ok(http::with_header(response, "etag", tag.as_str()))
}
