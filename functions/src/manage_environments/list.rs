//! `GET /api/admin/environments`: lists environments.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use serde_json::{Value, json};

use super::settings;

pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let page = request.optional_page()?;
    let store = app.service.store();
    let defaults = store.evaluation_defaults().await?;
    let found = store.list_environments().await?;
    let environments: Vec<Value> = found
        .iter()
        .map(|record| {
            let own = &record.settings;
            let mut environment = json!({
                "environment": record.environment.as_str(),
                "revision": record.revision.0,
                "flags": record.flags,
                "archived": record.archived,
                "fractional": own.fractional,
                "anonymousRollout": own.anonymous_rollout(defaults),
                "bucketing": own.bucketing(defaults),
                "inherited": settings::inherited(own),
            });
            if let Some(unreadable) = &own.unreadable {
                environment["broken"] = json!({ "reason": unreadable.reason });
            }
            environment
        })
        .collect();
    let body = http::list_body("environments", environments, page);
    Ok(http::json(StatusCode::OK, &body))
}
