//! `DELETE /api/admin/flags/{flagKey}`: archives a flag; with `?permanently=true`, deletes an
//! archived one.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};

use super::view;

/// Returns 200 with the archived flag, or 204 after a deletion.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let permanently = request.boolean("permanently")?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let context = request.context();
    if permanently {
        let gone = app
            .service
            .delete_flag(&environment, &key, &expected, actor, context)
            .await?;
        return Ok(http::with_invalidation(
            http::no_content(),
            gone.invalidated,
        ));
    }
    let changed = app
        .service
        .archive_flag(&environment, &key, &expected, actor, context)
        .await?;
    Ok(view::changed(StatusCode::OK, &key, &changed))
}
