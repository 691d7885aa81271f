//! HTTPS clients: for the issuer of tokens, for calls to AWS, for webhooks, and for the extension. Only this module
//! uses the clients of hyper.

mod webhook_client;

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use url::form_urlencoded;

use crate::tls::{self, Authorities};

pub use webhook_client::Reach;
pub(crate) use webhook_client::{PostError, WebhookClient};

/// The default limit of a response. Key sets, discovery documents and tokens have a few kilobytes.
const MAX_RESPONSE_SIZE: usize = 256 * 1024;

/// A client that verifies certificates and does not follow redirects.
pub struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// A received response.
pub struct Received {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Https {
    /// A client that trusts these authorities.
    ///
    /// # Errors
    /// A message for the log if a PEM file is invalid.
    pub(crate) fn new(authorities: &Authorities<'_>) -> Result<Self, String> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(authorities)?)
            .https_or_http()
            .enable_http1()
            .build();
        // Connections are not kept: Lambda freezes instances between requests, and servers close idle connections.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(client))
    }

    /// A client that trusts the authorities of a PEM file, or the public ones without a file.
    ///
    /// # Errors
    /// A message for the log if the file is invalid.
    pub fn trusting(ca_file: Option<&str>) -> Result<Self, String> {
        Self::new(&ca_file.map_or(Authorities::Public, Authorities::File))
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// A message for the log, with the URL: no response in time, a response that is too large, a status other than
    /// success (also a redirect), or a body that is not JSON.
    pub async fn get_json(&self, url: &str, within: Duration) -> Result<Value, String> {
        let with_url = |why: String| format!("{url}: {why}");
        let request = Request::get(url)
            .header("accept", "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| with_url(error.to_string()))?;
        let response = self.send(request, within).await.map_err(with_url)?;
        if !response.status.is_success() {
            return Err(with_url(response.status.to_string()));
        }
        serde_json::from_slice(&response.body).map_err(|error| with_url(error.to_string()))
    }

    /// Sends a form. Returns the status and the JSON of the response, `null` if it is not JSON.
    ///
    /// # Errors
    /// A message for the log, with the URL but without values of the form.
    pub async fn post_form(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        within: Duration,
    ) -> Result<(u16, Value), String> {
        let with_url = |why: String| format!("{url}: {why}");
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let request = Request::post(url)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::<Bytes>::from(form.finish()))
            .map_err(|error| with_url(error.to_string()))?;
        let response = self.send(request, within).await.map_err(with_url)?;
        let body = serde_json::from_slice(&response.body).unwrap_or_default();
        Ok((response.status.as_u16(), body))
    }

    /// Sends a request and reads the response, with any status.
    ///
    /// # Errors
    /// A message for the log: no connection, a timeout, or a response that is too large.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Received, String> {
        self.send_limited(request, MAX_RESPONSE_SIZE, within).await
    }

    /// Like `send`, with another limit of the response in bytes.
    ///
    /// # Errors
    /// Those of `send`.
    pub async fn send_limited(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        within: Duration,
    ) -> Result<Received, String> {
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|error| with_causes(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, largest).collect().await;
            Ok(Received {
                status: parts.status,
                headers: parts.headers,
                body: body.map_err(|error| error.to_string())?.to_bytes(),
            })
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no response within {} ms", within.as_millis())))
    }
}

/// The message of an error with those of its causes, because the outermost error only says that sending failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
