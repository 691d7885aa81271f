//! `PATCH` and `POST /api/admin/flags/{flagKey}`: change a flag.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, FlagState, Request, Response};

/// Changes what the body names and answers with the flag's new state.
///
/// `X-Cache-Invalidated: false` says that the change is made but that other instances may serve the
/// old value for a while; `X-Ignored-Fields` names what the body holds and nobody understands.
///
/// # Errors
/// In this order: [`Error::Unauthenticated`], [`Error::Forbidden`], [`Error::Invalid`],
/// [`Error::FlagNotFound`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let _admin = request.admin(&app.config.auth)?;
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let (change, ignored) = http::parse_change(request.body())?;
    let updated = app
        .service
        .update(&environment, &key, &change, request.scope())
        .await?;
    let mut response = http::json(StatusCode::OK, &FlagState::of(&key, &updated.flag));
    if let Some(told) = updated.invalidated {
        let told = if told { "true" } else { "false" };
        response = http::with_header(response, "x-cache-invalidated", told);
    }
    if !ignored.is_empty() {
        request.scope().trace.ignored_fields(&ignored);
        let names = http::header_list(&ignored);
        response = http::with_header(response, "x-ignored-fields", &names);
    }
    Ok(response)
}
