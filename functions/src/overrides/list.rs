//! `GET /api/admin/flags/{flagKey}/users`: the overrides of a flag, newest first.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::Override;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::service::override_state;
use pennon_core::store::OverridePage;
use serde_json::{Value, json};

/// A page contains includes and excludes, which the response lists separately. The `ETag` covers all overrides of the
/// flag.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let page = request.page()?;
    let store = app.service.store();
    let Some(OverridePage {
        overrides: found,
        revision,
    }) = store.list_overrides(&environment, &key, page).await?
    else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let mut includes: Vec<Value> = Vec::new();
    let mut excludes: Vec<Value> = Vec::new();
    for record in &found.items {
        match record.kind {
            Override::Include | Override::Variant(_) => includes.push(override_state(record)),
            Override::Exclude | Override::Unreadable => excludes.push(override_state(record)),
        }
    }
    let body = json!({
        "includes": includes,
        "excludes": excludes,
        "pagination": http::pagination(page, &found),
    });
    let response = http::json(StatusCode::OK, &body);
    Ok(http::with_header(
        response,
        "etag",
        ETag::of_record(revision).as_str(),
    ))
}
