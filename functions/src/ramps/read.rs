//! `GET /api/admin/flags/{flagKey}/ramp`: the newest ramp with all its transitions, and an outline of earlier ones.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};
use serde_json::Value;

use super::view;

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let ramps = app.service.ramps(&environment, &key).await?;
    let Some((newest, earlier)) = ramps.split_first() else {
        return Err(Error::NotFound(format!("A ramp of '{key}'")));
    };
    let mut body = view::ramp(&key, newest);
    body["earlier"] = Value::Array(earlier.iter().map(view::outline).collect());
    let response = http::json(StatusCode::OK, &body);
    let tag = ETag::of_record(newest.version);
    Ok(http::with_header(response, "etag", tag.as_str()))
}
