//! `GET /api/admin/flags/{flagKey}/users`: who is an exception, newest first.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::Override;
use pennon_core::http::{self, Request, Response};
use pennon_core::service::override_state;
use serde_json::{Value, json};

/// The page is cut over both kinds together and then sorted into them.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let page = request.page()?;
    let store = app.service.store();
    let Some(found) = store.list_overrides(&environment, &key, page).await? else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let mut includes: Vec<Value> = Vec::new();
    let mut excludes: Vec<Value> = Vec::new();
    for record in &found.items {
        match record.kind {
            Override::Include | Override::Variant(_) => includes.push(override_state(record)),
            Override::Exclude => excludes.push(override_state(record)),
        }
    }
    let body = json!({
        "includes": includes,
        "excludes": excludes,
        "pagination": http::pagination(page, &found),
    });
    Ok(http::json(StatusCode::OK, &body))
}
