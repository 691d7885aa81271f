//! `GET /api/config/flags`: every flag of an environment, evaluated for the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::{Context, FlagKey};
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::ofrep::{self, ApiClient};

/// Returns an object of booleans by flag key, without flags of other types and flags that the caller may not see.
/// An unknown environment has no flags.
///
/// # Errors
/// Those of [`ofrep::admit_to_config`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let ApiClient {
        environment,
        kind,
        reading,
    } = ofrep::admit_to_config(&app, &request).await?;
    let user = request.user(&app).await;
    let snapshot = &reading.snapshot;
    let tag = ETag::for_user(snapshot.revision, kind, user.as_ref());
    let rules = snapshot.rules();
    let response = if !rules.depends_on_time() && request.has_current(&tag) {
        http::not_modified(&tag)
    } else {
        let (context, now) = (Context::of(user.as_ref()), http::unix_seconds());
        let visible = snapshot
            .flags
            .iter()
            .filter(|(_, flag)| snapshot.shows(flag, kind));
        let values: BTreeMap<&FlagKey, bool> = visible
            .filter_map(|(key, _)| Some((key, rules.is_on(key.as_str(), &context, now)?)))
            .collect();
        let variant = |on: bool| if on { "on" } else { "off" };
        let served = values.iter().map(|(key, on)| (key.as_str(), variant(*on)));
        app.tally.add(&environment, served);
        let response = http::json(StatusCode::OK, &values);
        http::with_etag(response, &tag, rules.depends_on_time(), &request)
    };
    let response = http::with_header(response, "vary", "Authorization, X-API-Key");
    Ok(http::with_cache_headers(response, &reading))
}
