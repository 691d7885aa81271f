//! `PATCH` and `POST /api/admin/flags/{flagKey}`: changes a flag.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, FlagState, Request, Response};
use serde_json::json;

/// Changes the fields in the body and returns the new state, with the new revision as `ETag`. With `?dryRun=true` it
/// changes nothing and returns how many of the users in the body would get another value of a simple flag.
///
/// `If-Match` prevents an editor from overwriting a change that they have not seen. Clients of an existing service do
/// not send it, so it is required only with `definition`, `salt` and `bucketing`, which these clients do not know.
///
/// # Errors
/// Those of [`Request::actor`], then those of a change, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::FlagNotFound`], [`Error::PreconditionFailed`] and [`Error::Conflict`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let is_dry_run = request.boolean("dryRun")?;
    let (change, ignored, users) = if is_dry_run {
        http::parse_change_with_users(request.body())?
    } else {
        let (change, ignored) = http::parse_change(request.body())?;
        (change, ignored, Vec::new())
    };
    let expected = request.expected()?;
    if change.needs_if_match() {
        expected.require_if_match()?;
    }
    if is_dry_run {
        let moved = app
            .service
            .compare_update(&environment, &key, &change, &expected, &actor, &users)
            .await?;
        let body = json!({
            "environment": environment.as_str(),
            "flagKey": key,
            "dryRun": true,
            "users": users.len(),
            "on": moved.on,
            "off": moved.off,
        });
        let response = http::json(StatusCode::OK, &body);
        return Ok(http::with_ignored_fields(response, &ignored, &request));
    }
    let changed = app
        .service
        .update(
            &environment,
            &key,
            &change,
            &expected,
            &actor,
            request.context(),
        )
        .await?;
    let state = FlagState::of(&key, &changed.value.flag);
    let response = http::json(StatusCode::OK, &state);
    let tag = ETag::of_record(changed.value.revision);
    let response = http::with_header(response, "etag", tag.as_str());
    let response = http::with_invalidation(response, changed.invalidated);
    Ok(http::with_ignored_fields(response, &ignored, &request))
}
