//! A Lambda Runtime API, and functions that run against it.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use pennon_core::telemetry::Metric;

use crate::aws::serve_at_address;
use crate::binaries::binary;
use crate::event::Event;
use crate::process::{Process, coverage, new_folder};
use crate::response::Response;
use crate::{TIME_LIMIT, eventually};

/// Lambda's limit: 6 MiB and 100 bytes.
const MAX_RESPONSE: usize = 6 * 1024 * 1024 + 100;

/// A running function: one warm instance.
pub struct Function {
    process: Process,
    runtime: RuntimeApi,
    folder: std::path::PathBuf,
}

/// The Runtime API of one instance.
pub struct RuntimeApi {
    address: String,
    api: Arc<Api>,
}

struct Api {
    waiting: mpsc::UnboundedSender<(String, String)>,
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, String)>>,
    running: Mutex<HashMap<String, oneshot::Sender<Result<String, String>>>>,
    counter: AtomicU64,
    first_poll: OnceLock<Instant>,
}

/// The `INSTALLATION_ID` of functions and servers, unless a test sets another one.
pub const INSTALLATION: &str = "tests";

/// The MAC key of functions and servers, unless a test sets another one.
pub const MAC_KEY: &str = "a-key-for-tests-of-sixty-four-characters-0123456789-0123456789ab";

/// Metrics that count as 0 if a log line omits them.
fn counters() -> impl Iterator<Item = Metric> {
    Metric::ALL.into_iter().filter(|metric| match metric {
        Metric::ResponseLatency | Metric::CacheHitRate | Metric::ActiveConnections => false,
        Metric::CacheMisses
        | Metric::CacheUnavailable
        | Metric::RedisConnectionErrors
        | Metric::RedisRetries
        | Metric::BreakerOpen
        | Metric::DatabaseLoads
        | Metric::StaleAnswers
        | Metric::FillsRefused
        | Metric::UnreadableRows
        | Metric::ForgedEntries
        | Metric::ServerErrors => true,
    })
}

/// The program of a function: all functions share one, except the one that benchmarks compare with.
fn program(function: &str) -> &str {
    match function {
        "hello-world" => function,
        _ => "pennon-functions",
    }
}

impl RuntimeApi {
    /// Starts to listen.
    pub async fn start() -> Self {
        let (waiting, next) = mpsc::unbounded_channel();
        let api = Arc::new(Api {
            waiting,
            next: tokio::sync::Mutex::new(next),
            running: Mutex::new(HashMap::new()),
            counter: AtomicU64::new(0),
            first_poll: OnceLock::new(),
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next_event))
            .route(
                "/2018-06-01/runtime/invocation/{id}/response",
                post(take_response),
            )
            .route(
                "/2018-06-01/runtime/invocation/{id}/error",
                post(take_error),
            )
            .layer(DefaultBodyLimit::max(MAX_RESPONSE))
            .with_state(api.clone());
        let address = serve_at_address(router).await.to_string();
        Self { address, api }
    }

    /// The environment variables that Lambda sets for a function, and those that all functions in tests have.
    pub fn environment(&self, name: &str) -> Vec<(String, String)> {
        let lambda = [
            ("AWS_LAMBDA_RUNTIME_API", self.address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("_HANDLER", name),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("AWS_REGION", "us-east-1"),
            // By default the installation is named after the address of the database. The functions of one test reach
            // the same database through different proxies, so they would count as different installations.
            ("INSTALLATION_ID", INSTALLATION),
            ("CACHE_MAC_KEY", MAC_KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        lambda.into_iter().chain(coverage()).collect()
    }

    /// When the function first requested an event, which ends its cold start.
    pub fn first_poll(&self) -> Option<Instant> {
        self.api.first_poll.get().copied()
    }

    /// Sends an event to the function and returns its response or its error; `None` without either within
    /// [`TIME_LIMIT`].
    pub async fn invoke(&self, event: &Value) -> Option<Result<Value, Value>> {
        self.invoke_text(&event.to_string()).await
    }

    /// Sends an event as text, which need not be valid JSON.
    pub async fn invoke_text(&self, event: &str) -> Option<Result<Value, Value>> {
        let number = self.api.counter.fetch_add(1, Ordering::Relaxed);
        let id = format!("invocation-{number}");
        let (done, outcome) = oneshot::channel();
        self.api
            .running
            .lock()
            .expect("not poisoned")
            .insert(id.clone(), done);
        self.api
            .waiting
            .send((id, event.to_owned()))
            .expect("the API runs");
        let outcome = tokio::time::timeout(TIME_LIMIT, outcome).await.ok()?;
        let parse = |text: &str| serde_json::from_str(text).expect("JSON");
        Some(match outcome.expect("an answer") {
            Ok(text) => Ok(parse(&text)),
            Err(text) => Err(parse(&text)),
        })
    }
}

impl Function {
    /// Starts a function with only the variables of [`RuntimeApi::environment`] and these, and waits until it requests
    /// an event, which ends its cold start. Of variables with the same name, the last one applies.
    pub async fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new("env"), name, environment).await
    }

    /// Starts a function with this limit on its address space (`ulimit -v`).
    pub async fn start_within(bytes: u64, name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        let kilobytes = (bytes / 1024).to_string();
        command.args(["-c", "ulimit -v \"$0\" && exec env \"$@\"", &kilobytes]);
        Self::start_by(command, name, environment).await
    }

    /// Starts a function through a command that takes the arguments of `env`.
    pub async fn start_by(mut command: Command, name: &str, environment: &[(&str, &str)]) -> Self {
        let runtime = RuntimeApi::start().await;
        let folder = new_folder(name);
        command
            .arg("-i")
            .args(
                runtime
                    .environment(name)
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .args(
                environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(binary(program(name)));
        let function = Self {
            process: Process::start(&command, &folder.join("log"), None),
            runtime,
            folder,
        };
        eventually("the function requests an event", async || {
            function.runtime.first_poll().is_some()
        })
        .await;
        function
    }

    /// Sends an event and returns the function's response or its error.
    ///
    /// # Panics
    /// If it does not respond.
    pub async fn invoke(&self, event: &Value) -> Result<Value, Value> {
        self.runtime
            .invoke(event)
            .await
            .unwrap_or_else(|| panic!("no answer in time; log:\n{}", self.log()))
    }

    /// Sends an event as text.
    ///
    /// # Panics
    /// If it does not respond.
    pub async fn invoke_text(&self, event: &str) -> Result<Value, Value> {
        self.runtime
            .invoke_text(event)
            .await
            .unwrap_or_else(|| panic!("no answer in time to {event}; log:\n{}", self.log()))
    }

    /// Sends a request and returns the response as a client receives it.
    ///
    /// # Panics
    /// If the invocation fails, which no request may cause.
    pub async fn call(&self, event: &Event) -> Response {
        match self.invoke(event.value()).await {
            Ok(response) => Response::of_gateway(&response),
            Err(error) => panic!("the invocation failed: {error}; log:\n{}", self.log()),
        }
    }

    /// The peak memory of the function in bytes. Linux only.
    ///
    /// # Panics
    /// If the function has ended.
    pub fn peak_memory(&self) -> u64 {
        self.process.memory("VmHWM:")
    }

    /// The process, to freeze and thaw it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL, as when Lambda ends an instance in the middle of a request.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its log lines as JSON.
    pub fn lines(&self) -> Vec<Value> {
        self.log()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    /// The log lines of its requests, in order. A function writes the line before it sends the response. Metrics that
    /// are absent from a line count as 0.
    pub fn requests(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line.get("_aws").is_some());
        for line in lines.iter_mut().filter_map(Value::as_object_mut) {
            for counter in counters() {
                line.entry(counter.name()).or_insert(Value::from(0));
            }
        }
        lines
    }

    /// The log line of the last request.
    pub fn last_request(&self) -> Value {
        self.requests().pop().expect("a request line")
    }

    /// Whether the log has a line with this message.
    pub fn has_logged(&self, message: &str) -> bool {
        self.lines().iter().any(|line| line["message"] == message)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.process.kill();
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

async fn next_event(State(api): State<Arc<Api>>) -> (HeaderMap, String) {
    api.first_poll.get_or_init(Instant::now);
    let event = api.next.lock().await.recv().await;
    let Some((id, event)) = event else {
        std::future::pending().await
    };
    let deadline = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        + Duration::from_secs(30);
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
    };
    put("lambda-runtime-aws-request-id", &id);
    put(
        "lambda-runtime-deadline-ms",
        &deadline.as_millis().to_string(),
    );
    put(
        "lambda-runtime-invoked-function-arn",
        "arn:aws:lambda:us-east-1:123456789012:function:pennon:live",
    );
    put(
        "lambda-runtime-trace-id",
        "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
    );
    (headers, event)
}

async fn take_response(
    State(api): State<Arc<Api>>,
    UrlPath(id): UrlPath<String>,
    body: Bytes,
) -> StatusCode {
    finish(&api, &id, Ok(String::from_utf8_lossy(&body).into_owned()))
}

async fn take_error(
    State(api): State<Arc<Api>>,
    UrlPath(id): UrlPath<String>,
    body: Bytes,
) -> StatusCode {
    finish(&api, &id, Err(String::from_utf8_lossy(&body).into_owned()))
}

fn finish(api: &Api, id: &str, outcome: Result<String, String>) -> StatusCode {
    let done = api.running.lock().expect("not poisoned").remove(id);
    match done {
        Some(done) => {
            let _nobody_waits = done.send(outcome);
            StatusCode::ACCEPTED
        }
        None => StatusCode::NOT_FOUND,
    }
}
