//! `DELETE /api/admin/flags/{flagKey}/schedule/{id}`: cancels a scheduled change.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};

use super::view;

pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    // Some programs write UUIDs in capitals.
    let id = request.parameter("id").to_ascii_lowercase();
    if id.contains('\0') {
        let error = "Must not contain a NUL character";
        return Err(Error::invalid_field("id", error));
    }
    let cancelled = app
        .service
        .cancel_schedule(&environment, &key, &id, actor)
        .await?;
    Ok(http::json(StatusCode::OK, &view::schedule(&cancelled)))
}
