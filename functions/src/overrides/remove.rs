//! `DELETE /api/admin/flags/{flagKey}/users/{userId}`: removes an override.

use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};

pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let user = request.item("userId")?;
    if user.is_empty() || user.contains('\0') {
        let error = "Must not be empty or contain a NUL character";
        return Err(Error::invalid_field("userId", error));
    }
    let changed = app
        .service
        .remove_override(&environment, &key, user, actor, request.context())
        .await?;
    Ok(http::with_invalidation(
        http::no_content(),
        changed.invalidated,
    ))
}
