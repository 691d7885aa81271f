//! Sends requests to webhooks.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Message;
use crate::https::{PostError, Reach, WebhookClient};
use crate::tls::Authorities;

/// Sends requests to webhooks, from this process.
pub struct Sender(WebhookClient);

/// Why a webhook did not accept a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Text for the list of webhooks, without secrets.
    pub reason: String,
}

impl Sender {
    /// Sends to public addresses over HTTPS.
    ///
    /// # Errors
    /// Text for the log if TLS cannot be set up.
    pub fn public() -> Result<Self, String> {
        Ok(Self(WebhookClient::new(
            &Authorities::Public,
            Reach::Public,
        )?))
    }

    /// Sends to any address, over HTTP too, and trusts the authorities of a PEM file: for the local server and
    /// for tests.
    ///
    /// # Errors
    /// Text for the log if the file cannot be used.
    pub fn anywhere(ca_file: Option<&str>) -> Result<Self, String> {
        let authorities = ca_file.map_or(Authorities::Public, Authorities::File);
        Ok(Self(WebhookClient::new(&authorities, Reach::Anywhere)?))
    }

    /// Which addresses it may send to: public ones over HTTPS, or any.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.0.reach()
    }

    /// Sends all requests at the same time. Returns one outcome for each, in their order.
    pub async fn send_all(
        &self,
        messages: Vec<Message>,
        within: Duration,
    ) -> Vec<Result<(), Failure>> {
        join_all(messages.into_iter().map(|one| self.send(one, within))).await
    }

    /// Sends a request. Any 2xx status accepts it.
    ///
    /// # Errors
    /// The webhook did not accept it in time.
    pub async fn send(&self, message: Message, within: Duration) -> Result<(), Failure> {
        let url = Url::parse(&message.url).map_err(|error| Failure {
            retryable: false,
            reason: format!("the URL is invalid: {error}"),
        })?;
        let headers = message.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
        match self.0.post(&url, headers, message.body, within).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(Failure {
                // A redirect could lead to an internal address, and a receiver that is gone stays gone. Other
                // errors end when someone repairs the receiver or configures the secret there.
                retryable: !status.is_redirection() && status != StatusCode::GONE,
                reason: format!("the receiver answered {}", status.as_u16()),
            }),
            Err(PostError::Failed(reason)) => Err(Failure {
                retryable: true,
                reason,
            }),
            Err(PostError::Refused(reason)) => Err(Failure {
                retryable: false,
                reason,
            }),
        }
    }
}
