//! The Extensions API of Lambda.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, request};
use http_body_util::Full;
use pennon_core::https::{Https, Received};
use serde::Deserialize;
use serde_json::json;

/// Lambda requires the name of the program in `/opt/extensions`.
const NAME: &str = "pennon-extension";
const VERSION: &str = "2020-01-01";
/// Time limit of requests that Lambda answers at once.
const LIMIT: Duration = Duration::from_secs(5);
/// Limit on a response.
const MAX_RESPONSE_SIZE: usize = 64 * 1024;

/// A registered extension.
pub(crate) struct Extension {
    client: Arc<Https>,
    base: String,
    id: String,
}

/// An event of the Extensions API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "eventType", rename_all = "UPPERCASE")]
pub(crate) enum Event {
    /// An invocation begins. Lambda does not freeze the instance before this extension requests the next event.
    Invoke,
    /// The instance ends within two seconds.
    Shutdown,
}

impl Extension {
    /// Registers this process with the Extensions API at this address.
    ///
    /// # Errors
    /// A message for the log.
    pub(crate) async fn register(address: &str, client: Arc<Https>) -> Result<Self, String> {
        let mut extension = Self {
            client,
            base: format!("http://{address}/{VERSION}/extension"),
            id: String::new(),
        };
        let request = Request::post(format!("{}/register", extension.base))
            .header("lambda-extension-name", NAME);
        let body = json!({ "events": ["INVOKE", "SHUTDOWN"] }).to_string();
        let received = extension.send(request, body, LIMIT).await?;
        let id = received.headers.get("lambda-extension-identifier");
        let id = id.and_then(|id| id.to_str().ok());
        id.ok_or("Lambda has assigned no identifier")?
            .clone_into(&mut extension.id);
        Ok(extension)
    }

    /// Waits for the next event. The request also reports that this extension has finished the last one.
    ///
    /// # Errors
    /// A message for the log.
    pub(crate) async fn next(&self) -> Result<Event, String> {
        let request = Request::get(format!("{}/event/next", self.base))
            .header("lambda-extension-identifier", &self.id);
        // Until the next invocation, which may be hours away.
        let received = self.send(request, String::new(), Duration::MAX).await?;
        serde_json::from_slice(&received.body).map_err(|error| format!("unknown event: {error}"))
    }

    /// Reports that the extension cannot start (`init`) or continue (`exit`). Lambda then ends the instance.
    pub(crate) async fn report(&self, phase: &str, error_type: &str, why: &str) {
        let request = Request::post(format!("{}/{phase}/error", self.base))
            .header("lambda-extension-identifier", &self.id)
            .header("lambda-extension-function-error-type", error_type);
        let body = json!({ "errorType": error_type, "errorMessage": why, "stackTrace": [] });
        if let Err(error) = self.send(request, body.to_string(), LIMIT).await {
            tracing::error!(
                domain = "config",
                "the failure cannot be reported to Lambda: {error}"
            );
        }
    }

    async fn send(
        &self,
        request: request::Builder,
        body: String,
        within: Duration,
    ) -> Result<Received, String> {
        let request = request
            .body(Full::<Bytes>::from(body))
            .map_err(|error| error.to_string())?;
        let path = request.uri().path().to_owned();
        let received = self
            .client
            .send_limited(request, MAX_RESPONSE_SIZE, within)
            .await
            .map_err(|why| format!("the Extensions API does not answer {path}: {why}"))?;
        match received.status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(received),
            status => Err(format!("the Extensions API answered {path} with {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_recognised_among_their_other_fields() {
        let parse = |text: &str| serde_json::from_str::<Event>(text).ok();
        let invoke = r#"{"eventType": "INVOKE", "deadlineMs": 1, "requestId": "r", "tracing": {"type": "t"}}"#;
        assert_eq!(parse(invoke), Some(Event::Invoke));
        let shutdown =
            r#"{"eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": 1}"#;
        assert_eq!(parse(shutdown), Some(Event::Shutdown));
        assert_eq!(parse(r#"{"eventType": "RESTORE"}"#), None);
    }
}
