//! `GET /api/config/flags`: every flag of an environment, evaluated for the caller.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::Context;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::ofrep;

/// Returns an object of booleans by flag key, without flags of other types and flags that the caller may not see.
/// An unknown environment has no flags.
///
/// # Errors
/// Those of [`ofrep::admit_to_config_routes`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let client = ofrep::admit_to_config_routes(&app, &request).await?;
    let user = request.user(&app).await;
    let snapshot = &client.reading.snapshot;
    let tag = ETag::for_user(
        snapshot.revision,
        &client.environment,
        client.kind,
        user.as_ref(),
    );
    let depends_on_time = snapshot.rules().depends_on_time();
    let response = if !depends_on_time && request.has_current(&tag) {
        http::not_modified(&tag)
    } else {
        let as_json_string = request.needs_body_as_json_string();
        let context = Context::of(user.as_ref());
        client.list_switches(&context, as_json_string, &app.tally, |response| {
            http::with_etag(response, &tag, depends_on_time, |tag| {
                request.has_current(tag)
            })
        })
    };
    let response = http::with_fixed_header(response, "vary", "Authorization, X-API-Key");
    Ok(http::with_cache_headers(response, &client.reading))
}
