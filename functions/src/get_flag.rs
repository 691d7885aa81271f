//! `GET /api/config/flags/{flagKey}`: the state of one flag, equal for all
//! callers who may see it.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, FlagState, Request, Response};
use pennon_core::ofrep::{self, ApiClient};

/// Returns the configuration of the flag, not an evaluation.
///
/// # Errors
/// Those of [`ofrep::admit_to_config_routes`]; [`Error::FlagNotFound`], also for a flag that the caller may not
/// see; [`Error::Invalid`] for an invalid key.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let ApiClient {
        environment,
        kind,
        reading,
        ..
    } = ofrep::admit_to_config_routes(&app, &request).await?;
    let key = request.flag_key_in_path()?;
    let snapshot = &reading.snapshot;
    // Checked before the ETag: a 304 would disclose that the flag exists.
    let Some(flag) = snapshot
        .flags
        .get(&key)
        .filter(|flag| snapshot.shows(flag, kind))
    else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let tag = ETag::of(reading.snapshot.revision, &environment);
    let response = if request.has_current(&tag) {
        http::not_modified(&tag)
    } else {
        let response = http::json(StatusCode::OK, &FlagState::of(&key, flag));
        http::with_header(response, "etag", tag.as_str())
    };
    let response = http::with_fixed_header(response, "vary", "Authorization, X-API-Key");
    Ok(http::with_cache_headers(response, &reading))
}
