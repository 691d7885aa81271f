//! `GET /api/config/flags`: every flag of an environment, evaluated for the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::{Context, FlagKey};
use pennon_core::http::{self, ETag, Request, Response};

/// Answers with an object of booleans under the flags' keys; flags with other values are left out. An
/// environment that nobody has heard of has no flags.
///
/// # Errors
/// [`Error::Invalid`] for an environment that cannot be one.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let user = request.user(&app).await;
    let reading = app.service.read(&environment, request.scope()).await?;
    let tag = ETag::for_user(reading.snapshot.revision, user.as_ref());
    let rules = reading.snapshot.rules();
    let response = if !rules.look_at_the_time() && request.has(&tag) {
        http::not_modified(&tag)
    } else {
        let (context, now) = (Context::of(user.as_ref()), http::unix_seconds());
        let flags = reading.snapshot.flags.keys();
        let values: BTreeMap<&FlagKey, bool> = flags
            .filter_map(|key| Some((key, rules.is_on(key.as_str(), &context, now)?)))
            .collect();
        let variant = |on: bool| if on { "on" } else { "off" };
        let given = values.iter().map(|(key, on)| (key.as_str(), variant(*on)));
        app.tally.add(&environment, given);
        let response = http::json(StatusCode::OK, &values);
        http::tagged(response, &tag, rules.look_at_the_time(), &request)
    };
    let response = http::with_header(response, "vary", "Authorization");
    Ok(http::with_cache_headers(response, &reading))
}
