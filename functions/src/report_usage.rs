//! `GET /api/admin/flags/stale` and `GET /api/admin/flags/{flagKey}/usage`: the usage of flags, and flags that can
//! probably be removed.
//!
//! Also `GET /api/admin/me`, although it is not about usage: like these routes it needs no permission to write, and
//! `manage-environments` already has as many routes as a deployment can change at once.

mod me;

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response, timestamp};
use pennon_core::service::{STALE_AFTER_DAYS, StaleFlag};
use serde_json::{Value, json};

/// Limit on the period; older counts are not useful.
const MAX_DAYS: u32 = 400;
/// More than the bytes of the usage of a flag besides its counts: a key has at most 255 characters.
const OVERHEAD: usize = 4_096;

/// Returns stale flags, the usage of one flag, or the caller's identity and roles.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`] and
/// [`Error::FlagNotFound`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    if request
        .route()
        .is_some_and(|route| route.path == "/api/admin/me")
    {
        return Ok(me::answer(&actor));
    }
    let environment = request.environment()?;
    let days = request.integer("days", STALE_AFTER_DAYS, 1..=MAX_DAYS)?;
    match request.route().map(|route| route.path) {
        Some("/api/admin/flags/stale") => stale(&app, &request, &environment, days).await,
        Some("/api/admin/flags/{flagKey}/usage") => usage(&app, &request, &environment, days).await,
        _ => Err(request.route_not_found()),
    }
}

async fn stale(
    app: &App,
    request: &Request,
    environment: &Environment,
    days: u32,
) -> Result<Response, Error> {
    let page = request.optional_page()?;
    let context = request.context();
    let flags = app.service.stale_flags(environment, days, context).await?;
    let flags: Vec<Value> = flags.iter().map(stale_flag).collect();
    let mut body = http::list_body("flags", flags, page);
    body["environment"] = json!(environment.as_str());
    body["days"] = json!(days);
    Ok(http::json(StatusCode::OK, &body))
}

async fn usage(
    app: &App,
    request: &Request,
    environment: &Environment,
    days: u32,
) -> Result<Response, Error> {
    let key = request.flag_key()?;
    let used = app.service.flag_usage(environment, &key, days).await?;
    let counts: Vec<Value> = used
        .days
        .iter()
        .map(|one| json!({ "day": one.day, "variant": one.variant, "count": one.count }))
        .collect();
    let hours: Vec<Value> = used
        .hours
        .iter()
        .map(|one| {
            json!({ "hour": timestamp(one.hour), "variant": one.variant, "count": one.count })
        })
        .collect();
    // Each list may fill half of the response. The oldest counts are omitted first.
    let reserved = http::MAX_RESPONSE_SIZE / 2 + OVERHEAD;
    let (counts, omitted_days) = http::take_fitting(counts, reserved);
    let (hours, omitted_hours) = http::take_fitting(hours, reserved);
    let body = json!({
        "key": key.as_str(),
        "environment": environment.as_str(),
        "lastEvaluatedAt": used.usage.last_evaluated_at.map(timestamp),
        "evaluations": used.usage.evaluations,
        "days": counts,
        "hours": hours,
    });
    let response = http::json(StatusCode::OK, &body);
    Ok(match omitted_days + omitted_hours {
        0 => response,
        omitted => http::with_header(response, "x-omitted-counts", &omitted.to_string()),
    })
}

fn stale_flag(flag: &StaleFlag) -> Value {
    let reasons: Vec<&str> = flag.reasons.iter().map(|reason| reason.name()).collect();
    json!({
        "key": flag.key.as_str(),
        "reasons": reasons,
        "lastEvaluatedAt": flag.usage.last_evaluated_at.map(timestamp),
        "evaluations": flag.usage.evaluations,
        "createdAt": flag.record.created_at.map(timestamp),
        "updatedAt": flag.record.updated_at.map(timestamp),
    })
}
