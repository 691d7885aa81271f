//! `POST /api/admin/flags/{flagKey}/restore`: restores an archived flag, which stays off.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{Fields, Request, Response};

use super::view;

pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    Fields::reject_all(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let changed = app
        .service
        .restore_flag(&environment, &key, &expected, actor, request.context())
        .await?;
    Ok(view::changed(StatusCode::OK, &key, &changed))
}
