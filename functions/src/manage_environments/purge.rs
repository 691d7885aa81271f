//! `POST /api/admin/environments/{environment}/purge`: makes all instances read the environment
//! again.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, Fields, Request, Response};
use serde_json::json;

/// For an admin who suspects that an instance serves outdated flags.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    Fields::reject_all(request.body())?;
    let done = app
        .service
        .purge(&environment, actor, request.context())
        .await?;
    let body = json!({
        "environment": environment.as_str(),
        "purged": done.invalidated != Some(false),
    });
    let response = http::json(StatusCode::OK, &body);
    Ok(http::with_invalidation(response, done.invalidated))
}
