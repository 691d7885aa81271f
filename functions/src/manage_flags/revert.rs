//! `POST /api/admin/flags/{flagKey}/revert`: reverts a flag, or the overrides that an audit entry is about, to the state
//! before or after an earlier change.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{Fields, Request, Response};
use pennon_core::service::Side;

use super::view;

/// Takes `auditId`, and `state`: `after` (the default) or `before` that change. Later changes are undone too.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let to = parse(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let changed = app
        .service
        .revert_flag(&environment, &key, to, &expected, actor, request.context())
        .await?;
    Ok(view::changed(StatusCode::OK, &key, &changed))
}

fn parse(body: &[u8]) -> Result<(i64, Side), Error> {
    let mut fields = Fields::parse(body)?;
    let id = fields.value("auditId");
    let id = id.as_ref().and_then(serde_json::Value::as_i64);
    if id.is_none() {
        let error = "Expected the id of an entry of the flag's audit";
        fields.errors.add("auditId", error);
    }
    let side = match fields.text("state", 0..=10).as_deref() {
        None | Some("after") => Side::After,
        Some("before") => Side::Before,
        Some(_) => {
            fields.errors.add("state", "Expected before or after");
            Side::After
        }
    };
    fields.reject_rest();
    fields.finish()?;
    Ok((id.unwrap_or_default(), side))
}
