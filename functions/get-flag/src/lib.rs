//! `GET /api/config/flags/{flagKey}`: the state of one flag, the same for everyone.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, FlagState, Request, Response};

/// Answers with the flag's raw state, not with an evaluation.
///
/// # Errors
/// [`Error::FlagNotFound`]; [`Error::Invalid`] for a key or an environment that cannot be one.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key_in_path()?;
    let reading = app.service.read(&environment, request.scope()).await?;
    let Some(flag) = reading.snapshot.flags.get(&key) else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let tag = ETag::of(reading.snapshot.revision);
    let response = if request.has(&tag) {
        http::not_modified(&tag)
    } else {
        let response = http::json(StatusCode::OK, &FlagState::of(&key, flag));
        http::with_header(response, "etag", tag.as_str())
    };
    Ok(http::with_cache_headers(response, &reading))
}
