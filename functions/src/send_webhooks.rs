//! Sends requests to webhooks. It runs outside the VPC, because functions inside may have IPv6 egress only, which most
//! receivers do not accept. `reconcile` invokes it with signed requests, so it needs no secret.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::webhooks::{Message, REQUEST_TIMEOUT, Sender};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Event {
    messages: Vec<Message>,
}

/// Sends the requests of the event. Returns one outcome for each: `null`, or the failure.
///
/// # Errors
/// [`Error::Invalid`] if the event is not `{"messages": […]}`; [`Error::Internal`] if TLS cannot be set up.
pub async fn handle(_app: Arc<App>, event: Value) -> Result<Value, Error> {
    let Event { messages } = serde_json::from_value(event)
        .map_err(|error| Error::invalid_form(format!("Expected {{\"messages\": […]}}: {error}")))?;
    let sender = Sender::public().map_err(Error::Internal)?;
    let outcomes = sender.send_all(messages, REQUEST_TIMEOUT).await;
    let failures: Vec<Value> = outcomes
        .into_iter()
        .map(|outcome| outcome.err().map_or(Value::Null, |failure| json!(failure)))
        .collect();
    Ok(json!({ "outcomes": failures }))
}
