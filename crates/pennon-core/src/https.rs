//! HTTPS clients: for the issuer of tokens, for AWS calls without an SDK, and for webhooks. Only this module
//! uses the clients of hyper.

mod guarded;

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

pub use guarded::Reach;
pub(crate) use guarded::{Guarded, PostError};

/// The longest answer that is read. Key sets and reports are a few kilobytes.
const LARGEST_ANSWER: usize = 256 * 1024;

/// A client that checks certificates and follows no redirects.
pub struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Https {
    /// A client that trusts these authorities.
    ///
    /// # Errors
    /// A sentence for the log when a PEM file cannot be used.
    pub(crate) fn new(authorities: &Authorities<'_>) -> Result<Self, String> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(authorities)?)
            .https_or_http()
            .enable_http1()
            .build();
        // A connection that was kept while the instance was frozen is half-dead: keep none.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(client))
    }

    /// A client that trusts the authorities of a PEM file, or the public ones.
    ///
    /// # Errors
    /// A sentence for the log when the file cannot be used.
    pub fn trusting(ca_file: Option<&str>) -> Result<Self, String> {
        Self::new(&ca_file.map_or(Authorities::Public, Authorities::File))
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// A sentence for the log, with the address: no answer in time, another status than a success (a redirect
    /// as well), or no JSON.
    pub async fn get_json(&self, url: &str, within: Duration) -> Result<Value, String> {
        let told = |why: String| format!("{url}: {why}");
        let request = Request::get(url)
            .header("accept", "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| told(error.to_string()))?;
        let answer = self.send(request, within).await.map_err(told)?;
        if !answer.status.is_success() {
            return Err(told(answer.status.to_string()));
        }
        serde_json::from_slice(&answer.body).map_err(|error| told(error.to_string()))
    }

    /// Sends a form. Gives the status and the JSON of the answer, `null` where it is none.
    ///
    /// # Errors
    /// A sentence for the log, with the address and nothing of the form.
    pub async fn post_form(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        within: Duration,
    ) -> Result<(u16, Value), String> {
        let told = |why: String| format!("{url}: {why}");
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let request = Request::post(url)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::<Bytes>::from(form.finish()))
            .map_err(|error| told(error.to_string()))?;
        let answer = self.send(request, within).await.map_err(told)?;
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok((answer.status.as_u16(), body))
    }

    /// Sends a request and reads the answer, whatever its status, within a time.
    ///
    /// # Errors
    /// A sentence for the log: no connection, no time left, or too long an answer.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Answer, String> {
        self.send_for(request, LARGEST_ANSWER, within).await
    }

    /// The same with another limit for the answer, in bytes.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub(crate) async fn send_for(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        within: Duration,
    ) -> Result<Answer, String> {
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|error| tell(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, largest).collect().await;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.map_err(|error| error.to_string())?.to_bytes(),
            })
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", within.as_millis())))
    }
}

/// An error with its causes: the outermost one only says that something failed.
fn tell(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
