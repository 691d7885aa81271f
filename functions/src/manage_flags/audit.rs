//! `GET /api/admin/flags/{flagKey}/audit`: the changes of a flag, newest first.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};

/// A deleted flag keeps its audit.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let page = request.page()?;
    let store = app.service.store();
    let found = store.list_audit(&environment, Some(&key), page).await?;
    if found.total == 0 && store.find_flag(&environment, &key).await?.is_none() {
        return Err(Error::FlagNotFound(key.to_string()));
    }
    Ok(http::json(StatusCode::OK, &http::audit_page(page, &found)))
}
