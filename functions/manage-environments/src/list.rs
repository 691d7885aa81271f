//! `GET /api/admin/environments`: which there are.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Response};
use serde_json::{Value, json};

pub(crate) async fn handle(app: &App) -> Result<Response, Error> {
    let found = app.service.store().list_environments().await?;
    let environments: Vec<Value> = found
        .iter()
        .map(|record| {
            json!({
                "environment": record.environment.as_str(),
                "revision": record.revision.0,
                "flags": record.flags,
                "archived": record.archived,
                "fractional": record.fractional,
            })
        })
        .collect();
    let body = json!({ "environments": environments });
    Ok(http::json(StatusCode::OK, &body))
}
