//! `GET /api/admin/environments/{environment}/audit`: the changes of an environment, newest first.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let page = request.page()?;
    app.service.require_environment(&environment).await?;
    let store = app.service.store();
    let found = store.list_audit(&environment, None, page).await?;
    Ok(http::json(StatusCode::OK, &http::audit_page(page, &found)))
}
