//! Requests to the service: the document of flags, and the counts of evaluations.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode, header};
use flate2::read::GzDecoder;
use http_body_util::Full;
use pennon_core::config::Secret;
use pennon_core::counts::Counts;
use pennon_core::environment::Environment;
use pennon_core::https::Https;
use pennon_core::snapshot::{Revision, Snapshot};
use pennon_eval::document::Document;
use serde_json::json;

use crate::settings::Settings;

/// Time limit of a request for the document.
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(2);
/// Time limit of a request with counts. Lambda gives extensions two seconds to shut down.
const POST_LIMIT: Duration = Duration::from_millis(1_500);
/// Limit on a response: the service sends at most 6 MB.
const MAX_RESPONSE_SIZE: usize = 6 * 1024 * 1024;
/// Limit on a decompressed document, so that a response of a few kilobytes cannot fill the memory of the function.
const MAX_DOCUMENT_SIZE: usize = 32 * 1024 * 1024;

/// A client of the service.
pub(crate) struct Service {
    client: Arc<Https>,
    base: String,
    key: Secret,
}

/// The flags of an environment, with the tag by which the service recognises them.
#[derive(Clone)]
pub(crate) struct Flags {
    pub(crate) environment: Environment,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) etag: String,
}

/// The answer to a request for flags. `confirmed` is false if the response is marked `stale`: neither the cache nor the
/// database of the service could confirm the flags.
pub(crate) enum Fetched {
    /// The flags still have the tag of the request.
    Unchanged { confirmed: bool },
    /// Other flags, and their document, decompressed.
    Changed {
        flags: Flags,
        document: Vec<u8>,
        confirmed: bool,
    },
    /// The service does not accept the key.
    KeyRejected,
}

/// The outcome of sending a batch of counts.
pub(crate) enum Posted {
    /// The service has added it, now or earlier.
    Accepted,
    /// The service will never accept it.
    Refused(String),
    /// It is unknown whether the service has added it. The same batch must be sent again.
    Unknown(String),
}

impl Service {
    pub(crate) fn new(settings: &Settings, client: Arc<Https>) -> Self {
        Self {
            client,
            base: settings.url.as_str().trim_end_matches('/').to_owned(),
            key: settings.key.clone(),
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Requests the flags, unless they still have this tag.
    ///
    /// # Errors
    /// A message for the log.
    pub(crate) async fn fetch(&self, etag: Option<&str>) -> Result<Fetched, String> {
        let mut request = Request::get(format!("{}/v1/flags", self.base))
            .header("x-api-key", self.key.expose())
            .header(header::ACCEPT, Document::CONTENT_TYPE)
            .header(header::ACCEPT_ENCODING, "gzip");
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let request = request
            .body(Full::<Bytes>::default())
            .map_err(|error| error.to_string())?;
        let received = self
            .client
            .send_limited(request, MAX_RESPONSE_SIZE, FETCH_LIMIT)
            .await?;
        let confirmed = text(&received.headers, "x-cache-source") != Some("stale");
        match received.status {
            StatusCode::OK => {
                check_type(&received.headers)?;
                let document = decompress(&received.headers, &received.body)?;
                let etag = text(&received.headers, header::ETAG.as_str()).unwrap_or_default();
                Ok(Fetched::Changed {
                    flags: Flags::parse(&document, etag)?,
                    document,
                    confirmed,
                })
            }
            StatusCode::NOT_MODIFIED if etag.is_some() => Ok(Fetched::Unchanged { confirmed }),
            StatusCode::UNAUTHORIZED => Ok(Fetched::KeyRejected),
            status => Err(format!("the service responded with {status}")),
        }
    }

    /// Sends counts. The service adds a batch once, however often it arrives.
    pub(crate) async fn post(&self, batch: &str, counts: &Counts) -> Posted {
        let body = json!({ "batch": batch, "counts": counts }).to_string();
        let request = Request::post(format!("{}/v1/evaluation-counts", self.base))
            .header("x-api-key", self.key.expose())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Posted::Refused(error.to_string()),
        };
        let sent = self
            .client
            .send_limited(request, MAX_RESPONSE_SIZE, POST_LIMIT);
        match sent.await {
            Ok(received) if received.status.is_success() => Posted::Accepted,
            Ok(received) => {
                let why = format!("the service responded with {}", received.status);
                match received.status {
                    StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Posted::Refused(why),
                    _ => Posted::Unknown(why),
                }
            }
            Err(why) => Posted::Unknown(why),
        }
    }
}

impl Flags {
    /// Parses a document and compiles its flags.
    ///
    /// # Errors
    /// A message for the log.
    pub(crate) fn parse(document: &[u8], etag: &str) -> Result<Self, String> {
        let document = Document::parse(document)
            .map_err(|error| format!("the document cannot be used: {error}"))?;
        let environment = Environment::parse(&document.environment)
            .map_err(|error| format!("the document cannot be used: {error}"))?;
        let flags = document.flags.into_owned().into_iter();
        let snapshot = Arc::new(Snapshot {
            revision: Revision(document.revision),
            flags: flags.map(|(key, flag)| (key, Arc::new(flag))).collect(),
            settings: document.settings.into_owned(),
            defaults: document.defaults,
            ..Snapshot::empty()
        });
        // Compiles the rules now, so that the first evaluation need not.
        let _compiled = snapshot.rules();
        Ok(Self {
            environment,
            snapshot,
            etag: etag.to_owned(),
        })
    }
}

/// Rejects another content type: a service that does not know this format responds with a flagd document.
fn check_type(headers: &HeaderMap) -> Result<(), String> {
    let found = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let found = found.split(';').next().unwrap_or_default().trim();
    if found == Document::CONTENT_TYPE {
        return Ok(());
    }
    Err(format!(
        "PENNON_URL responded with content type '{found}', not {}: it is not the service's URL, or the service is too old",
        Document::CONTENT_TYPE
    ))
}

fn decompress(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, String> {
    match text(headers, header::CONTENT_ENCODING.as_str()) {
        None | Some("identity") => Ok(body.to_vec()),
        Some("gzip") => {
            let mut document = Vec::new();
            let limit = u64::try_from(MAX_DOCUMENT_SIZE).unwrap_or(u64::MAX);
            GzDecoder::new(body)
                .take(limit + 1)
                .read_to_end(&mut document)
                .map_err(|error| format!("the document cannot be decompressed: {error}"))?;
            if document.len() > MAX_DOCUMENT_SIZE {
                return Err(format!(
                    "the document is larger than {MAX_DOCUMENT_SIZE} bytes"
                ));
            }
            Ok(document)
        }
        Some(other) => Err(format!("the document has an unknown encoding: {other}")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
