//! `GET /api/config/flags`: every flag of an environment, evaluated for the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::{FlagKey, evaluate};
use pennon_core::http::{self, ETag, Request, Response};

/// Answers with an object of booleans under the flags' keys. An environment that nobody has heard of
/// has no flags.
///
/// # Errors
/// [`Error::Invalid`] for an environment that cannot be one.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let user = request.user(&app).await;
    let reading = app.service.read(&environment, request.scope()).await?;
    let tag = ETag::for_user(reading.snapshot.revision, user.as_ref());
    let response = if request.has(&tag) {
        http::not_modified(&tag)
    } else {
        let values: BTreeMap<&FlagKey, bool> = reading
            .snapshot
            .flags
            .iter()
            .map(|(key, flag)| (key, evaluate(flag, user.as_ref())))
            .collect();
        let response = http::json(StatusCode::OK, &values);
        http::with_header(response, "etag", tag.as_str())
    };
    let response = http::with_header(response, "vary", "Authorization");
    Ok(http::with_cache_headers(response, &reading))
}
