//! Two AWS services that functions call: Lambda's Invoke, which runs functions, and CodeDeploy, which records its
//! calls. No emulator implements both.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::post;
use pennon_core::webhooks::{Message, Sender};
use serde_json::{Value, json};

use crate::lambda::Function;

/// Lambda accepts events of 6 MB.
const MAX_EVENT_SIZE: usize = 6 * 1024 * 1024;
/// The time limit of a request to a webhook, instead of ten seconds.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The version of `health` to check.
pub const HEALTH_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:7";

/// The version of `migrate` to run.
pub const MIGRATE_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-migrate:4";

/// The services that `pre-traffic` calls.
pub struct ControlPlane {
    address: String,
    invoke: Arc<Invoke>,
    reports: Arc<Mutex<Vec<Call>>>,
}

/// Lambda's Invoke. Records the calls, and rejects them on request.
pub struct Invoke {
    functions: Vec<(&'static str, Target)>,
    calls: Mutex<Vec<Call>>,
    rejections: Mutex<Vec<(&'static str, StatusCode)>>,
}

/// What an invocation of a function runs.
pub enum Target {
    /// The program of the function.
    Function(Box<Function>),
    /// The sender of `send-webhooks` in this process, which also sends to receivers on this machine.
    Sender(Sender),
}

/// One request that was received.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// The service of its signature.
    pub service: &'static str,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
    text: String,
}

/// A Python program that prints the signature that botocore computes for the request on standard input.
const SIGN: &str = r#"
import json, sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
call = json.load(sys.stdin)
signer = SigV4Auth(Credentials("test-id", "test-key", "test-session"), call["service"], "us-east-1")
request = AWSRequest("POST", call["url"], data=call["body"], headers=call["headers"])
request.context["timestamp"] = call["headers"]["x-amz-date"]
text = signer.string_to_sign(request, signer.canonical_request(request))
print(signer.signature(text, request))
"#;

impl Call {
    /// Whether its signature equals the one that botocore computes.
    pub fn is_signed(&self, address: &str) -> bool {
        let signed = self.header("authorization");
        let part = |name: &str| {
            let rest = signed.split(name).nth(1).unwrap_or_default();
            rest.split(',').next().unwrap_or_default().to_owned()
        };
        let headers: BTreeMap<String, String> = part("SignedHeaders=")
            .split(';')
            .map(|name| (name.to_owned(), self.header(name).to_owned()))
            .collect();
        let question = json!({ "service": self.service, "headers": headers, "body": self.text,
            "url": format!("{address}{}", self.path) });
        let python = format!("{}/../.tools/moto/bin/python", env!("CARGO_MANIFEST_DIR"));
        let mut signer = Command::new(python)
            .args(["-c", SIGN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("moto in .tools; `scripts/tools` installs it");
        let mut input = signer.stdin.take().expect("piped");
        let written = input.write_all(question.to_string().as_bytes());
        written.expect("writes");
        drop(input);
        let output = signer.wait_with_output().expect("ends");
        let wanted = String::from_utf8_lossy(&output.stdout);
        !wanted.trim().is_empty() && wanted.trim() == part("Signature=")
    }

    /// A header, or "".
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl ControlPlane {
    /// Starts the services, with these functions behind Invoke.
    pub async fn start(migrate: Function, health: Function) -> Self {
        let invoke = Invoke::new(vec![
            ("pennon-migrate", Target::Function(Box::new(migrate))),
            ("pennon-health", Target::Function(Box::new(health))),
        ]);
        let reports = Arc::new(Mutex::default());
        let codedeploy = Router::new()
            .route("/", post(report))
            .with_state(reports.clone());
        let address = serve(invoke.router().merge(codedeploy)).await;
        Self {
            address,
            invoke,
            reports,
        }
    }

    /// Rejects one invocation of this function.
    pub fn reject_once(&self, function: &'static str, status: u16) {
        self.invoke.reject_once(function, status);
    }

    /// The base URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The environment variables that point `pre-traffic` to these services.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL_LAMBDA", self.address.as_str()),
            ("AWS_ENDPOINT_URL_CODEDEPLOY", self.address.as_str()),
            ("AWS_ACCESS_KEY_ID", "test-id"),
            ("AWS_SECRET_ACCESS_KEY", "test-key"),
            ("AWS_SESSION_TOKEN", "test-session"),
            ("HEALTH_FUNCTION_ARN", HEALTH_VERSION),
            ("MIGRATE_FUNCTION_ARN", MIGRATE_VERSION),
        ]
    }

    /// The invocations that were received.
    pub fn invocations(&self) -> Vec<Call> {
        self.invoke.calls()
    }

    /// The calls to CodeDeploy that were received.
    pub fn reports(&self) -> Vec<Call> {
        self.reports.lock().expect("not poisoned").clone()
    }
}

impl Invoke {
    /// Answers invocations of these functions.
    pub fn new(functions: Vec<(&'static str, Target)>) -> Arc<Self> {
        Arc::new(Self {
            functions,
            calls: Mutex::default(),
            rejections: Mutex::default(),
        })
    }

    /// The route.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .layer(DefaultBodyLimit::max(MAX_EVENT_SIZE))
            .with_state(self.clone())
    }

    /// Rejects one invocation of this function, as Lambda does: 409 while a new version is pending, 429 when no
    /// instance is available.
    pub fn reject_once(&self, function: &'static str, status: u16) {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut rejections = self.rejections.lock().expect("not poisoned");
        rejections.push((function, status));
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("not poisoned").clone()
    }

    fn rejection(&self, function: &str) -> Option<StatusCode> {
        let mut rejections = self.rejections.lock().expect("not poisoned");
        let found = rejections.iter().position(|(name, _)| *name == function)?;
        Some(rejections.remove(found).1)
    }
}

impl Target {
    async fn run(&self, event: &Value) -> Result<Value, Value> {
        match self {
            Self::Function(function) => function.invoke(event).await,
            Self::Sender(sender) => {
                let messages = serde_json::from_value(event["messages"].clone());
                let messages: Vec<Message> = messages.expect("messages");
                let outcomes = sender.send_all(messages, SEND_TIMEOUT).await;
                let outcomes: Vec<_> = outcomes.into_iter().map(Result::err).collect();
                Ok(json!({ "outcomes": outcomes }))
            }
        }
    }
}

/// Serves a router on a port of this machine. Returns its URL.
pub async fn serve(router: Router) -> String {
    format!("http://{}", serve_at_address(router).await)
}

/// Serves a router on a port of this machine. Returns its address.
pub(crate) async fn serve_at_address(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn invoke(
    State(shared): State<Arc<Invoke>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let text = String::from_utf8_lossy(&body).into_owned();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let query = query.unwrap_or_default();
    shared.calls.lock().expect("not poisoned").push(Call {
        path: format!("/2015-03-31/functions/{name}/invocations?{query}"),
        service: "lambda",
        headers,
        body: body.clone(),
        text,
    });
    if let Some(status) = shared.rejection(&name) {
        let why = json!({ "Message": "Not now" });
        return (status, HeaderMap::new(), why.to_string());
    }
    let mut functions = shared.functions.iter();
    let Some((_, target)) = functions.find(|(known, _)| *known == name) else {
        let why = json!({ "Message": "Function not found" });
        return (StatusCode::NOT_FOUND, HeaderMap::new(), why.to_string());
    };
    let mut headers = HeaderMap::new();
    let answer = target.run(&body).await.unwrap_or_else(|error| {
        let unhandled = HeaderValue::from_static("Unhandled");
        headers.insert("x-amz-function-error", unhandled);
        error
    });
    (StatusCode::OK, headers, answer.to_string())
}

async fn report(
    State(reports): State<Arc<Mutex<Vec<Call>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> String {
    reports.lock().expect("not poisoned").push(Call {
        path: "/".to_owned(),
        service: "codedeploy",
        headers,
        body: serde_json::from_slice(&body).expect("JSON"),
        text: String::from_utf8_lossy(&body).into_owned(),
    });
    json!({ "lifecycleEventHookExecutionId": "execution-1" }).to_string()
}
