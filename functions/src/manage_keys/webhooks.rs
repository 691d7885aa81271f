//! `/api/admin/webhooks`: creating, listing, enabling and deleting webhooks.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Fields, Request, Response, timestamp};
use pennon_core::service::WantedWebhook;
use pennon_core::webhooks::{Format, Reach, Transport, UnreadableWebhook, Webhook};
use serde_json::{Value, json};
use url::Url;

/// Limit on a name, in characters.
const MAX_NAME: usize = 100;
/// Limit on a URL, in characters.
const MAX_URL: usize = 2000;

pub(crate) async fn list(app: &App, environment: &Environment) -> Result<Response, Error> {
    let webhooks = app.service.store().list_webhooks(environment).await?;
    let shown = webhooks.iter().map(|webhook| match webhook {
        Ok(webhook) => shown(webhook, environment),
        Err(UnreadableWebhook { id }) => json!({
            "id": id,
            "environment": environment.as_str(),
            "broken": "its stored state is unreadable; nothing is sent to it",
        }),
    });
    let body = json!({ "webhooks": shown.collect::<Vec<Value>>() });
    Ok(http::json(StatusCode::OK, &body))
}

pub(crate) async fn create(
    app: &App,
    request: &Request,
    actor: &Actor,
    environment: &Environment,
) -> Result<Response, Error> {
    let wanted = parse(request.body(), app.webhook_transport().reach())?;
    if let Transport::Absent(why) = app.webhook_transport() {
        return Err(Error::Conflict(format!("Webhooks cannot be sent: {why}")));
    }
    let new = app
        .service
        .create_webhook(environment, wanted, actor)
        .await?;
    let mut body = shown(&new.webhook, environment);
    body["secret"] = json!(new.secret.expose());
    let response = http::json(StatusCode::CREATED, &body);
    let response = http::with_header(response, "cache-control", "no-store");
    Ok(tagged(response, &new.webhook))
}

pub(crate) async fn enable(
    app: &App,
    request: &Request,
    actor: &Actor,
    environment: &Environment,
) -> Result<Response, Error> {
    Fields::reject_all(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let id = request.parameter("webhookId");
    let webhook = app
        .service
        .enable_webhook(environment, id, &expected, actor)
        .await?;
    let response = http::json(StatusCode::OK, &shown(&webhook, environment));
    Ok(tagged(response, &webhook))
}

pub(crate) async fn delete(
    app: &App,
    request: &Request,
    actor: &Actor,
    environment: &Environment,
) -> Result<Response, Error> {
    let expected = request.expected()?;
    expected.require_if_match()?;
    let id = request.parameter("webhookId");
    app.service
        .delete_webhook(environment, id, &expected, actor)
        .await?;
    Ok(http::no_content())
}

fn parse(body: &[u8], reach: Reach) -> Result<WantedWebhook, Error> {
    let mut fields = Fields::parse(body)?;
    let name = fields.visible_name("name", MAX_NAME);
    fields.require("name", name.as_ref());
    let url = fields.take("url", |value| {
        let text = value.as_str().ok_or("Expected a string")?;
        if text.chars().count() > MAX_URL {
            return Err(format!("Must have at most {MAX_URL} characters"));
        }
        let url = Url::parse(text).map_err(|error| format!("Must be a URL: {error}"))?;
        reach
            .accepts(&url)
            .map_err(|why| format!("The URL {why}"))?;
        Ok(url)
    });
    fields.require("url", url.as_ref());
    let format = fields.take_or_null("format", |value| {
        let format = value.as_str().and_then(Format::named);
        format.ok_or("Must be json or slack")
    });
    fields.reject_rest();
    fields.finish()?;
    let (Some(name), Some(url)) = (name, url) else {
        return Err(Error::invalid_form("name and url are required"));
    };
    Ok(WantedWebhook {
        name,
        url,
        format: format.unwrap_or(Format::Json),
    })
}

fn tagged(response: Response, webhook: &Webhook) -> Response {
    let tag = ETag::of_record(webhook.revision);
    http::with_header(response, "etag", tag.as_str())
}

/// The JSON of a webhook in responses, without its secret, and without the path of its URL, because that path often is
/// a secret too.
fn shown(webhook: &Webhook, environment: &Environment) -> Value {
    json!({
        "id": webhook.id,
        "environment": environment.as_str(),
        "name": webhook.name,
        "origin": webhook.origin,
        "format": webhook.format,
        "revision": webhook.revision,
        "createdAt": timestamp(webhook.created_at),
        "createdBy": webhook.created_by,
        "deliveredAt": webhook.delivered_at.map(timestamp),
        "outage": webhook.outage,
        "disabled": webhook.disabled,
    })
}
