//! The Lambda Runtime API, as far as a function needs it, and functions that run against it.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::answer::Answer;
use crate::binaries::binary;
use crate::event::Event;
use crate::process::{Process, new_folder};
use crate::{PATIENCE, eventually};

/// A function binary that is running, as on one warm instance.
pub struct Function {
    process: Process,
    api: Arc<Api>,
    folder: std::path::PathBuf,
}

struct Api {
    waiting: mpsc::UnboundedSender<(String, String)>,
    next: tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, String)>>,
    running: Mutex<HashMap<String, oneshot::Sender<Result<String, String>>>>,
    counter: AtomicU64,
    /// How often the function has asked for work.
    asked: AtomicU64,
}

impl Function {
    /// Starts a function with these variables and nothing else in its environment, and waits until
    /// it asks for work: its cold start is over then.
    pub async fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_binary(&binary(name), name, environment).await
    }

    /// The same with a binary from somewhere else.
    pub async fn start_binary(program: &Path, name: &str, environment: &[(&str, &str)]) -> Self {
        let function = Self::launch(program, name, environment).await;
        eventually("the function asks for work", async || {
            function.api.asked.load(Ordering::Relaxed) > 0
        })
        .await;
        function
    }

    /// Starts a function and does not wait.
    pub async fn launch(program: &Path, name: &str, environment: &[(&str, &str)]) -> Self {
        let (waiting, next) = mpsc::unbounded_channel();
        let api = Arc::new(Api {
            waiting,
            next: tokio::sync::Mutex::new(next),
            running: Mutex::new(HashMap::new()),
            counter: AtomicU64::new(0),
            asked: AtomicU64::new(0),
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
            .with_state(api.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });

        let folder = new_folder(name);
        let mut command = Command::new("env");
        command
            .arg("-i")
            .arg(format!(
                "PATH={}",
                std::env::var("PATH").unwrap_or_default()
            ))
            .arg(format!("AWS_LAMBDA_RUNTIME_API={address}"))
            .arg(format!("AWS_LAMBDA_FUNCTION_NAME={name}"))
            .args([
                "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
                "AWS_REGION=us-east-1",
                "AWS_LAMBDA_LOG_FORMAT=JSON",
            ])
            .args(
                environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(program);
        let process = Process::start(&command, &folder.join("log"), None);
        Self {
            process,
            api,
            folder,
        }
    }

    /// Whether the function has asked for work yet.
    pub fn has_started(&self) -> bool {
        self.api.asked.load(Ordering::Relaxed) > 0
    }

    /// Sends an event and gives what the function answers: its response, or its error.
    pub async fn invoke(&self, event: &Value) -> Result<Value, Value> {
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
            .send((id, event.to_string()))
            .expect("the API runs");
        let outcome = tokio::time::timeout(PATIENCE, outcome)
            .await
            .unwrap_or_else(|_| panic!("no answer in time; log:\n{}", self.log()))
            .expect("an answer");
        let parse = |text: &str| serde_json::from_str(text).expect("JSON");
        match outcome {
            Ok(text) => Ok(parse(&text)),
            Err(text) => Err(parse(&text)),
        }
    }

    /// Sends a request and gives the response as a client sees it.
    pub async fn call(&self, event: &Event) -> Answer {
        let response = match self.invoke(event.value()).await {
            Ok(response) => response,
            Err(error) => panic!("the invocation failed: {error}; log:\n{}", self.log()),
        };
        let mut headers = BTreeMap::new();
        for (name, value) in response["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            headers.insert(name.to_ascii_lowercase(), value);
        }
        assert_eq!(response["isBase64Encoded"], false, "bodies are text");
        Answer {
            status: response["statusCode"]
                .as_u64()
                .and_then(|status| status.try_into().ok())
                .expect("a status"),
            headers,
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The process, to freeze and thaw.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL, as when Lambda takes an instance away in the middle of a request.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// All that the function has written.
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

    /// The lines of its requests, in order. A line is written before the answer is sent.
    pub fn requests(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line.get("_aws").is_some());
        lines
    }

    /// The line of the last request.
    pub fn last_request(&self) -> Value {
        self.requests().pop().expect("a request line")
    }

    /// Whether a line with this message was written.
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
    api.asked.fetch_add(1, Ordering::Relaxed);
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
