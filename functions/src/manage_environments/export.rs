//! `GET /api/admin/environments/{environment}/export`: all flags that are not archived, as a flagd file.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};

/// An import accepts the `ETag` of this response as `If-Match`.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let (file, revision) = app.service.export(&environment, actor).await?;
    let response = http::json(StatusCode::OK, &file);
    if let Some(size) = http::size_above_limit(&response) {
        let limit = http::MAX_RESPONSE_SIZE;
        let why =
            format!("The file takes {size} bytes in a response, more than the limit of {limit}");
        return Err(Error::Conflict(why));
    }
    let tag = ETag::of_record(revision.0);
    Ok(http::with_header(response, "etag", tag.as_str()))
}
