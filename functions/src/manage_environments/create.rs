//! `POST /api/admin/environments`: creates an empty environment.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::FractionalVersion;
use pennon_core::http::{self, Fields, Request, Response};

use super::settings;

/// Takes `environment`, its name, and `fractional`: `v3` (the default), or `v2` for flags from a system that
/// evaluates `fractional` by version 2.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let (environment, fractional) = parse(request.body())?;
    let defaults = app.service.store().evaluation_defaults().await?;
    let changed = app
        .service
        .create_environment(&environment, fractional, actor, request.context())
        .await?;
    Ok(settings::changed(
        StatusCode::CREATED,
        &environment,
        &changed,
        defaults,
    ))
}

fn parse(body: &[u8]) -> Result<(Environment, FractionalVersion), Error> {
    let mut fields = Fields::parse(body)?;
    let name = fields.text("environment", 0..=255);
    fields.require("environment", name.as_ref());
    let name = name.unwrap_or_default();
    let environment = Environment::parse(&name);
    if let (Err(why), None) = (&environment, fields.errors.fields.get("environment")) {
        fields.errors.add("environment", why.to_string());
    }
    let fractional = http::fractional(&mut fields);
    fields.reject_rest();
    fields.finish()?;
    let environment =
        environment.map_err(|why| Error::invalid_field("environment", why.to_string()))?;
    Ok((environment, fractional))
}
