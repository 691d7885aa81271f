//! `GET /api/admin/flags/{flagKey}/schedule`: what is planned, and what has become of it.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use serde_json::Value;

use crate::view;

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let found = app
        .service
        .store()
        .list_schedules(&environment, &key)
        .await?;
    let Some(found) = found else {
        return Err(Error::FlagNotFound(key.to_string()));
    };
    let body: Vec<Value> = found.iter().map(view::schedule).collect();
    Ok(http::json(StatusCode::OK, &body))
}
