//! `POST /api/admin/flags`: creates a flag.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::eval::FlagKey;
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::limits;
use pennon_core::service::Change;
use serde_json::Value;

use super::view;

/// Takes `key` and the fields of an update. Absent fields have their defaults: off, 0 %.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let (key, wanted) = parse(request.body())?;
    let changed = app
        .service
        .create_flag(&environment, &key, &wanted, actor, request.context())
        .await?;
    Ok(view::changed(StatusCode::CREATED, &key, &changed))
}

fn parse(body: &[u8]) -> Result<(FlagKey, Change), Error> {
    let mut fields = Fields::parse(body)?;
    let key = fields.take("key", |value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| "Expected a string".to_owned())?;
        limits::new_key(text)
    });
    fields.require("key", key.as_ref());
    let change = http::take_change(&mut fields);
    fields.reject_rest();
    fields.finish()?;
    let key = key.ok_or_else(|| Error::invalid_field("key", "Required"))?;
    Ok((key, change))
}
