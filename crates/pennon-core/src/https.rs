//! HTTPS to others: the issuer of tokens, and AWS where an SDK would be too much. The only home of
//! hyper.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::tls::{self, Authorities};

/// The longest answer that is read. Key sets and reports are a few kilobytes.
const LARGEST_ANSWER: usize = 256 * 1024;

/// A client that checks certificates and follows no redirects.
pub(crate) struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

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

    /// Sends a request and reads the answer, whatever its status, within a time.
    ///
    /// # Errors
    /// A sentence for the log: no connection, no time left, or too long an answer.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Answer, String> {
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|error| tell(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
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
