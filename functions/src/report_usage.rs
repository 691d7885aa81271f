//! `GET /api/admin/flags/stale` and `GET /api/admin/flags/{flagKey}/usage`: which flags are used, how,
//! and which nobody needs any more.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response, timestamp};
use pennon_core::service::{Stale, StaleFlag};
use serde_json::{Value, json};

/// A flag that nobody has touched or asked for in a month can wait for no release any more.
const DAYS: u32 = 30;
/// What is older may still be counted and is of no use.
const MOST_DAYS: u32 = 400;

/// Answers with the flags that are stale, or with the use of one.
///
/// # Errors
/// In this order: [`Error::Unauthenticated`], [`Error::Forbidden`], [`Error::Invalid`],
/// [`Error::FlagNotFound`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let _admin = request.admin(&app.config.auth)?;
    let environment = request.environment()?;
    let days = request.whole_number("days", DAYS, 1..=MOST_DAYS)?;
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
    let page = request.page_if_any()?;
    let scope = request.scope();
    let flags = app.service.stale_flags(environment, days, scope).await?;
    let flags: Vec<Value> = flags.iter().map(shown).collect();
    let mut body = http::listed("flags", flags, page);
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
    let body = json!({
        "key": key.as_str(),
        "environment": environment.as_str(),
        "lastEvaluatedAt": used.usage.last_evaluated_at.map(timestamp),
        "evaluations": used.usage.evaluations,
        "days": counts,
    });
    Ok(http::json(StatusCode::OK, &body))
}

fn shown(flag: &StaleFlag) -> Value {
    let reasons: Vec<&str> = flag.reasons.iter().map(|reason| name(*reason)).collect();
    json!({
        "key": flag.key.as_str(),
        "reasons": reasons,
        "lastEvaluatedAt": flag.usage.last_evaluated_at.map(timestamp),
        "evaluations": flag.usage.evaluations,
        "createdAt": flag.record.created_at.map(timestamp),
        "updatedAt": flag.record.updated_at.map(timestamp),
    })
}

fn name(reason: Stale) -> &'static str {
    match reason {
        Stale::NotEvaluated => "notEvaluated",
        Stale::SameForEveryone => "sameForEveryone",
    }
}
