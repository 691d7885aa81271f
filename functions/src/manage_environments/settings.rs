//! `GET` and `PUT /api/admin/environments/{environment}/settings`: shared evaluators, the version
//! of `fractional`, defaults of partial rollouts, metadata.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::{EvaluationDefaults, Settings};
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::service::{Changed, MovedUsers};
use pennon_core::store::SettingsRecord;
use serde_json::{Value, json};

pub(crate) async fn read(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let record = app.service.settings(&environment).await?;
    let defaults = app.service.store().evaluation_defaults().await?;
    Ok(answer(StatusCode::OK, &environment, &record, defaults))
}

/// Replaces all settings: absent ones get their defaults. With `?dryRun=true` it returns only how many of the users in
/// the body would get another value of a simple flag.
pub(crate) async fn replace(
    app: &App,
    request: &Request,
    actor: &Actor,
) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    if request.boolean("dryRun")? {
        let (settings, users) = http::parse_settings_with_users(request.body())?;
        let moved = app
            .service
            .compare_settings(&environment, &settings, &expected, actor, &users)
            .await?;
        return Ok(comparison(&environment, users.len(), &moved));
    }
    let settings = http::parse_settings(request.body())?;
    // Read before the change: after the commit the request must not fail.
    let defaults = app.service.store().evaluation_defaults().await?;
    let result = app
        .service
        .change_settings(&environment, &settings, &expected, actor, request.context())
        .await?;
    Ok(changed(StatusCode::OK, &environment, &result, defaults))
}

fn comparison(environment: &Environment, users: usize, moved: &[MovedUsers]) -> Response {
    let flags: Vec<Value> = moved
        .iter()
        .map(|moved| json!({ "flagKey": moved.key, "on": moved.on, "off": moved.off }))
        .collect();
    let body = json!({
        "environment": environment.as_str(),
        "dryRun": true,
        "users": users,
        "flags": flags,
    });
    http::json(StatusCode::OK, &body)
}

/// The settings that the environment inherits from the installation.
pub(crate) fn inherited(settings: &Settings) -> Vec<&'static str> {
    let own = [
        ("anonymousRollout", settings.anonymous_rollout.is_some()),
        ("bucketing", settings.bucketing.is_some()),
    ];
    own.into_iter()
        .filter(|(_, is_own)| !is_own)
        .map(|(name, _)| name)
        .collect()
}

fn answer(
    status: StatusCode,
    environment: &Environment,
    record: &SettingsRecord,
    defaults: EvaluationDefaults,
) -> Response {
    let settings = &record.settings;
    let mut body = json!({
        "environment": environment.as_str(),
        "fractional": settings.fractional,
        "anonymousRollout": settings.anonymous_rollout(defaults),
        "bucketing": settings.bucketing(defaults),
        "inherited": inherited(settings),
        "evaluators": settings.evaluators,
        "metadata": settings.metadata,
        "revision": record.revision,
    });
    // The stored text, so that an admin can repair it by a PUT of all settings.
    if let Some(unreadable) = &settings.unreadable {
        body["broken"] = json!({ "reason": unreadable.reason, "settings": unreadable.text });
    }
    let response = http::json(status, &body);
    http::with_header(response, "etag", ETag::of_record(record.revision).as_str())
}

pub(crate) fn changed(
    status: StatusCode,
    environment: &Environment,
    changed: &Changed<SettingsRecord>,
    defaults: EvaluationDefaults,
) -> Response {
    let response = answer(status, environment, &changed.value, defaults);
    http::with_invalidation(response, changed.invalidated)
}
