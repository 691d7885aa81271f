//! `/api/admin/keys`: creating, listing and revoking API keys; and `/api/admin/webhooks`.

mod body;
mod webhooks;

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::api_key::{kind_name, may_be_an_id};
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response, timestamp};
use pennon_core::store::KeyRecord;
use serde_json::{Value, json};

/// Handles the routes of API keys and webhooks.
///
/// # Errors
/// Those of [`Request::actor`], then those of the route, such as [`Error::Unavailable`], [`Error::Invalid`],
/// [`Error::PreconditionRequired`], [`Error::NotFound`], [`Error::Conflict`] and [`Error::PreconditionFailed`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let actor = request.actor(&app.config.auth)?;
    let environment = request.environment()?;
    match request.route().map(|route| (route.method, route.path)) {
        Some(("POST", "/api/admin/keys")) => create(&app, &request, &actor, &environment).await,
        Some(("GET", "/api/admin/keys")) => list(&app, &request, &environment).await,
        Some(("DELETE", "/api/admin/keys/{keyId}")) => {
            revoke(&app, &request, &actor, &environment).await
        }
        Some(("GET", "/api/admin/webhooks")) => webhooks::list(&app, &environment).await,
        Some(("POST", "/api/admin/webhooks")) => {
            webhooks::create(&app, &request, &actor, &environment).await
        }
        Some(("POST", "/api/admin/webhooks/{webhookId}/enable")) => {
            webhooks::enable(&app, &request, &actor, &environment).await
        }
        Some(("DELETE", "/api/admin/webhooks/{webhookId}")) => {
            webhooks::delete(&app, &request, &actor, &environment).await
        }
        _ => Err(request.route_not_found()),
    }
}

async fn create(
    app: &App,
    request: &Request,
    actor: &Actor,
    environment: &Environment,
) -> Result<Response, Error> {
    let wanted = body::parse(request.body())?;
    let changed = app
        .service
        .create_key(
            environment,
            wanted.kind,
            &wanted.name,
            actor,
            request.context(),
        )
        .await?;
    let new = changed.value;
    let mut body = key_json(&new.record, environment);
    // The only response with the key: the store keeps only its hash.
    body["key"] = json!(new.text.expose());
    let response = http::json(StatusCode::CREATED, &body);
    let response = http::with_header(response, "cache-control", "no-store");
    Ok(http::with_invalidation(response, changed.invalidated))
}

/// All keys, or a page if the query names one.
async fn list(app: &App, request: &Request, environment: &Environment) -> Result<Response, Error> {
    let page = request.optional_page()?;
    let keys = app.service.store().list_keys(environment).await?;
    let keys: Vec<Value> = keys.iter().map(|key| key_json(key, environment)).collect();
    let body = http::list_body("keys", keys, page);
    Ok(http::json(StatusCode::OK, &body))
}

async fn revoke(
    app: &App,
    request: &Request,
    actor: &Actor,
    environment: &Environment,
) -> Result<Response, Error> {
    // Some programs write UUIDs in capitals.
    let id = request.parameter("keyId").to_ascii_lowercase();
    if !may_be_an_id(&id) {
        return Err(Error::NotFound("Key".to_owned()));
    }
    let changed = app
        .service
        .revoke_key(environment, &id, actor, request.context())
        .await?;
    Ok(http::with_invalidation(
        http::no_content(),
        changed.invalidated,
    ))
}

/// The JSON of a key in responses, without the key itself.
fn key_json(record: &KeyRecord, environment: &Environment) -> Value {
    let mut key = json!({
        "id": record.id,
        "kind": if record.unreadable { "unreadable" } else { kind_name(record.kind) },
        "environment": environment.as_str(),
        "name": record.name,
        "createdAt": record.created_at.map(timestamp),
        "createdBy": record.created_by,
        "revokedAt": record.revoked_at.map(timestamp),
        "lastUsedOn": record.last_used_on,
    });
    if record.unreadable {
        key["broken"] = json!("its kind or its hash is invalid; it is rejected");
    }
    key
}
