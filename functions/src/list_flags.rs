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
    let tag = ETag::for_user(
        client.reading.snapshot.revision,
        &client.environment,
        client.kind,
        user.as_ref(),
    );
    let context = Context::of(user.as_ref());
    let response = client.list_switches(request.incoming(), &context, &tag, &app.tally);
    let response = http::with_fixed_header(response, "vary", "Authorization, X-API-Key");
    Ok(http::with_cache_headers(response, &client.reading))
}
