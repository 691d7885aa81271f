//! The Lambda extension, the Extensions API that it registers with, and a service that can misbehave.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::{get, post};
use pennon_eval::document::Document;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::aws::{serve, serve_at_address};
use crate::binaries::binary;
use crate::eventually;
use crate::local::HttpClient;
use crate::process::{Process, coverage, free_port};
use crate::response::Response;

/// The sync key of extensions.
pub const SYNC_KEY: &str = "pennon_sync_production_0123456789012345678901234567890123456789012";

/// How the service responds to requests for flags.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// With this document.
    Serve(Value),
    /// With this status, these headers besides `Content-Type`, and this body.
    Answer(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// Never.
    Hang,
}

/// A service that serves one document, and records requests.
pub struct FlagSource {
    url: String,
    state: Arc<SourceState>,
}

struct SourceState {
    behaviour: Mutex<Behaviour>,
    /// The `If-None-Match` of each request for flags.
    requests: Mutex<Vec<Option<String>>>,
    not_modified: Mutex<usize>,
    /// When the extension first gave up a request that hangs.
    given_up: Mutex<Option<Instant>>,
    /// The status of responses to counts, and the bodies received.
    counts: Mutex<(u16, Vec<Value>)>,
}

/// An Extensions API with one extension.
pub struct ExtensionsApi {
    address: String,
    api: Arc<Api>,
}

struct Api {
    events: mpsc::UnboundedSender<Value>,
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>,
    seen: Mutex<Seen>,
}

/// The requests that an extension has sent.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The names of the registrations.
    pub registrations: Vec<String>,
    /// The number of requests for an event.
    pub requests: usize,
    /// When the first event was requested, which ends the cold start.
    pub first_request: Option<Instant>,
    /// Errors, with their phase and type.
    pub errors: Vec<(String, String, Value)>,
}

/// A running extension.
pub struct Extension {
    process: Process,
    client: HttpClient,
    lambda: Option<ExtensionsApi>,
}

impl FlagSource {
    /// Starts a service.
    pub async fn start(behaviour: Behaviour) -> Self {
        let state = Arc::new(SourceState {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
            not_modified: Mutex::default(),
            given_up: Mutex::default(),
            counts: Mutex::new((200, Vec::new())),
        });
        let router = Router::new()
            .route("/v1/flags", get(flags))
            .route("/v1/evaluation-counts", post(counts))
            .with_state(state.clone());
        Self {
            url: serve(router).await,
            state,
        }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Changes how it responds.
    pub fn set(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    /// Changes the status of responses to counts.
    pub fn set_counts_status(&self, status: u16) {
        lock(&self.state.counts).0 = status;
    }

    /// The `If-None-Match` of each request for flags.
    pub fn requests(&self) -> Vec<Option<String>> {
        lock(&self.state.requests).clone()
    }

    /// The number of responses with 304.
    pub fn not_modified(&self) -> usize {
        *lock(&self.state.not_modified)
    }

    /// When the extension first gave up a request that hangs.
    pub fn given_up(&self) -> Option<Instant> {
        *lock(&self.state.given_up)
    }

    /// The counts received, with repetitions.
    pub fn counts(&self) -> Vec<Value> {
        lock(&self.state.counts).1.clone()
    }
}

impl Drop for FlagSource {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking() || !self.state.requests.is_poisoned(),
            "a request for flags had wrong headers"
        );
    }
}

async fn flags(State(state): State<Arc<SourceState>>, headers: HeaderMap) -> AxumResponse {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = text(header::IF_NONE_MATCH).map(str::to_owned);
    {
        // A panic while the lock is held poisons it, and so fails the test.
        let mut requests = lock(&state.requests);
        assert_eq!(text(HeaderName::from_static("x-api-key")), Some(SYNC_KEY));
        assert_eq!(text(header::ACCEPT), Some(Document::CONTENT_TYPE));
        requests.push(tag.clone());
    }
    let behaviour = lock(&state.behaviour).clone();
    let kind = (header::CONTENT_TYPE, Document::CONTENT_TYPE.to_owned());
    match behaviour {
        Behaviour::Serve(document) => {
            let etag = format!("\"{}\"", document["revision"]);
            if tag.as_deref() == Some(&etag) {
                *lock(&state.not_modified) += 1;
                return StatusCode::NOT_MODIFIED.into_response();
            }
            ([kind, (header::ETAG, etag)], document.to_string()).into_response()
        }
        Behaviour::Answer(status, headers, body) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut response = (status, [kind], body).into_response();
            for (name, value) in headers {
                let name = HeaderName::from_static(name);
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            response
        }
        Behaviour::Hang => {
            // The client closes the connection, which ends this handler.
            let _given_up = GivenUp(state.clone());
            std::future::pending().await
        }
    }
}

/// Records the time when it is dropped.
struct GivenUp(Arc<SourceState>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        lock(&self.0.given_up).get_or_insert_with(Instant::now);
    }
}

async fn counts(State(state): State<Arc<SourceState>>, body: Bytes) -> StatusCode {
    let mut counts = lock(&state.counts);
    counts.1.push(serde_json::from_slice(&body).expect("JSON"));
    StatusCode::from_u16(counts.0).expect("a status")
}

impl ExtensionsApi {
    /// Starts to listen.
    pub async fn start() -> Self {
        let (events, next) = mpsc::unbounded_channel();
        let api = Arc::new(Api {
            events,
            next: tokio::sync::Mutex::new(next),
            seen: Mutex::default(),
        });
        let router = Router::new()
            .route("/2020-01-01/extension/register", post(register))
            .route("/2020-01-01/extension/event/next", get(next_event))
            .route("/2020-01-01/extension/{phase}/error", post(take_error))
            .with_state(api.clone());
        Self {
            address: serve_at_address(router).await.to_string(),
            api,
        }
    }

    /// Its address, for `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Begins an invocation. No function runs: the test sends the requests of one.
    pub fn invoke(&self) {
        self.send(json!({
            "eventType": "INVOKE",
            "deadlineMs": 4_000_000_000_000_u64,
            "requestId": "3da1f2dc-3222-475e-9205-e2e6c6318895",
            "invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:shop",
            "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2"},
        }));
    }

    /// Ends the instance.
    pub fn shut_down(&self) {
        self.send(json!({
            "eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": 4_000_000_000_000_u64,
        }));
    }

    /// The requests that the extension has sent.
    pub fn seen(&self) -> Seen {
        lock(&self.api.seen).clone()
    }

    /// Waits until the extension has requested this many events. Lambda freezes it then.
    pub async fn wait_for_requests(&self, count: usize) {
        eventually("the extension requests an event", async || {
            self.seen().requests >= count
        })
        .await;
    }

    fn send(&self, event: Value) {
        self.api.events.send(event).expect("the API runs");
    }
}

/// The id that the API assigns.
const ID: &str = "1a2b3c4d-0000-4000-8000-000000000000";

async fn register(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let mut seen = lock(&api.seen);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["events"], json!(["INVOKE", "SHUTDOWN"]));
    let name = headers["lambda-extension-name"].to_str().expect("text");
    seen.registrations.push(name.to_owned());
    (
        [("lambda-extension-identifier", ID)],
        json!({"functionName": "shop", "functionVersion": "$LATEST", "handler": "index"})
            .to_string(),
    )
}

async fn next_event(State(api): State<Arc<Api>>, headers: HeaderMap) -> String {
    {
        let mut seen = lock(&api.seen);
        assert_eq!(headers["lambda-extension-identifier"], ID);
        seen.requests += 1;
        seen.first_request.get_or_insert_with(Instant::now);
    }
    match api.next.lock().await.recv().await {
        Some(event) => event.to_string(),
        None => std::future::pending().await,
    }
}

async fn take_error(
    State(api): State<Arc<Api>>,
    UrlPath(phase): UrlPath<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut seen = lock(&api.seen);
    assert_eq!(headers["lambda-extension-identifier"], ID);
    let kind = headers["lambda-extension-function-error-type"].to_str();
    let kind = kind.expect("text").to_owned();
    let body = serde_json::from_slice(&body).expect("JSON");
    seen.errors.push((phase, kind, body));
    StatusCode::ACCEPTED
}

impl Extension {
    /// Starts an extension on Lambda, with its temporary files in this folder, and waits until Lambda would freeze it.
    pub async fn start(url: &str, folder: &Path, environment: &[(&str, &str)]) -> Self {
        let lambda = ExtensionsApi::start().await;
        let mut all = vec![("AWS_LAMBDA_RUNTIME_API", lambda.address.as_str())];
        all.extend_from_slice(environment);
        let mut extension = Self::start_program(url, folder, &all, &[]);
        lambda.wait_for_requests(1).await;
        extension.lambda = Some(lambda);
        extension
    }

    /// Starts an extension with settings that it rejects, and waits until it has reported the error to Lambda. Returns
    /// the phase, type and body of the error.
    pub async fn fail_to_start(
        url: &str,
        folder: &Path,
        environment: &[(&str, &str)],
    ) -> (String, String, Value) {
        let lambda = ExtensionsApi::start().await;
        let mut all = vec![("AWS_LAMBDA_RUNTIME_API", lambda.address.as_str())];
        all.extend_from_slice(environment);
        let _extension = Self::start_program(url, folder, &all, &[]);
        eventually("the extension reports an error", async || {
            !lambda.seen().errors.is_empty()
        })
        .await;
        lambda.seen().errors.remove(0)
    }

    /// Starts the program as a sidecar, and waits until it accepts connections.
    pub async fn start_sidecar(url: &str, folder: &Path, environment: &[(&str, &str)]) -> Self {
        let extension = Self::start_program(url, folder, environment, &["--listen"]);
        let address = extension.address();
        eventually("the sidecar listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        extension
    }

    /// The address on which it listens.
    pub fn address(&self) -> &str {
        self.client.base.trim_start_matches("http://")
    }

    fn start_program(
        url: &str,
        folder: &Path,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let port = free_port();
        let mut command = Command::new("env");
        command
            .arg("-i")
            .arg(format!("PENNON_URL={url}"))
            .arg(format!("PENNON_SYNC_KEY={SYNC_KEY}"))
            .arg(format!("PENNON_PORT={port}"))
            .arg(format!("TMPDIR={}", folder.display()))
            .args(coverage().map(|(name, value)| format!("{name}={value}")))
            .args(
                environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(binary("pennon-extension"))
            .args(arguments);
        Self {
            process: Process::start(&command, &folder.join(format!("log-{port}")), None),
            client: HttpClient::of(format!("http://127.0.0.1:{port}")),
            lambda: None,
        }
    }

    /// Evaluates a flag, or with an empty key all flags.
    pub async fn evaluate(&self, key: &str, body: &str) -> Response {
        self.send(&path_of(key), &[], body).await
    }

    /// The value of a flag for the user `alice`, and whether the response is marked as stale.
    ///
    /// # Panics
    /// If the status is not 200, or the source is neither `memory` nor `stale`.
    pub async fn value_and_staleness(&self, key: &str) -> (Value, bool) {
        let response = self
            .evaluate(key, r#"{"context":{"targetingKey":"alice"}}"#)
            .await;
        assert_eq!(response.status, 200, "{response:?}; log:\n{}", self.log());
        let is_stale = match response.source() {
            "memory" => false,
            "stale" => true,
            other => panic!("unexpected source {other}"),
        };
        (response.json()["value"].clone(), is_stale)
    }

    /// Sends a `POST`.
    pub async fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.client.send("POST", path, headers, body).await
    }

    /// Sends any request.
    pub async fn request(&self, method: &str, path: &str) -> Response {
        self.client.send(method, path, &[], "").await
    }

    /// The Extensions API.
    ///
    /// # Panics
    /// If it is a sidecar.
    pub fn lambda(&self) -> &ExtensionsApi {
        self.lambda.as_ref().expect("on Lambda")
    }

    /// The process, to freeze and thaw it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// The path that evaluates a flag, or with an empty key all flags.
pub fn path_of(key: &str) -> String {
    if key.is_empty() {
        return "/ofrep/v1/evaluate/flags".to_owned();
    }
    let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
    format!("/ofrep/v1/evaluate/flags/{key}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}
