//! `POST /api/admin/flags`: a new flag.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Admin;
use pennon_core::error::Error;
use pennon_core::eval::FlagKey;
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::service::Change;

use crate::view;

/// The longest key of a new flag, in characters. Keys that are there already may be longer.
const LONGEST_KEY: usize = 255;

/// Takes `key`, and what an update takes. What is absent has its default: off, 0 %.
pub(crate) async fn handle(app: &App, request: &Request, admin: &Admin) -> Result<Response, Error> {
    let environment = request.environment()?;
    let (key, wanted) = parse(request.body())?;
    let changed = app
        .service
        .create_flag(&environment, &key, &wanted, admin, request.scope())
        .await?;
    Ok(view::changed(StatusCode::CREATED, &key, &changed))
}

fn parse(body: &[u8]) -> Result<(FlagKey, Change), Error> {
    let mut fields = Fields::of(body)?;
    let key = fields.text("key", 1..=LONGEST_KEY);
    fields.must_have("key", key.as_ref());
    let key = key.unwrap_or_default();
    if key.chars().any(char::is_control) {
        let complaint = "Must not hold control characters";
        fields.complaints.add("key", complaint);
    }
    let change = http::take_change(&mut fields);
    fields.must_be_empty();
    fields.finish()?;
    let key = FlagKey::parse(key).map_err(|why| Error::invalid_field("key", why.to_string()))?;
    Ok((key, change))
}
