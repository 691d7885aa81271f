//! `GET /api/admin/flags/{flagKey}`: one flag, archived or not.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};

use super::view;

/// The `ETag` of the response is the `If-Match` of a change.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let store = app.service.store();
    let Some(record) = store.find_flag(&environment, &key).await? else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let tag = ETag::of_record(record.revision);
    if request.has_current(&tag) {
        return Ok(http::not_modified(&tag));
    }
    Ok(view::answer(StatusCode::OK, &key, &record))
}
