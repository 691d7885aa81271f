//! The two AWS services that `pre-traffic` calls: Lambda's Invoke, which runs the real health function, and
//! CodeDeploy, which records its calls. No emulator implements both.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

use crate::lambda::Function;

/// The version of `health` to check.
pub const HEALTH_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:7";

/// The version of `migrate` to run.
pub const MIGRATE_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-migrate:4";

/// The simulated services.
pub struct ControlPlane {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    health: Function,
    migrate: Function,
    invocations: Mutex<Vec<Call>>,
    reports: Mutex<Vec<Call>>,
    refusals: Mutex<Vec<(&'static str, StatusCode)>>,
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

/// Signs the request on standard input as botocore does.
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
        let shared = Arc::new(Shared {
            health,
            migrate,
            invocations: Mutex::default(),
            reports: Mutex::default(),
            refusals: Mutex::default(),
        });
        let router = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/", post(report))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// Rejects one invocation of this function, as Lambda does: 409 while a new version is pending, 429 when no
    /// instance is available.
    pub fn reject_once(&self, function: &'static str, status: u16) {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut refusals = self.shared.refusals.lock().expect("not poisoned");
        refusals.push((function, status));
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
        self.shared
            .invocations
            .lock()
            .expect("not poisoned")
            .clone()
    }

    /// The calls to CodeDeploy that were received.
    pub fn reports(&self) -> Vec<Call> {
        self.shared.reports.lock().expect("not poisoned").clone()
    }
}

async fn invoke(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let text = String::from_utf8_lossy(&body).into_owned();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    shared.invocations.lock().expect("not poisoned").push(Call {
        path: format!(
            "/2015-03-31/functions/{name}/invocations?{}",
            query.unwrap_or_default()
        ),
        service: "lambda",
        headers,
        body: body.clone(),
        text,
    });
    let refused = {
        let mut refusals = shared.refusals.lock().expect("not poisoned");
        let found = refusals.iter().position(|(function, _)| *function == name);
        found.map(|position| refusals.remove(position).1)
    };
    if let Some(status) = refused {
        let why = json!({ "Message": "Not now" });
        return (status, HeaderMap::new(), why.to_string());
    }
    let function = if name == "pennon-migrate" {
        &shared.migrate
    } else {
        &shared.health
    };
    let mut headers = HeaderMap::new();
    let answer = match function.invoke(&body).await {
        Ok(answer) => answer,
        Err(error) => {
            let handled = axum::http::HeaderValue::from_static("Unhandled");
            headers.insert("x-amz-function-error", handled);
            error
        }
    };
    (StatusCode::OK, headers, answer.to_string())
}

async fn report(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> String {
    shared.reports.lock().expect("not poisoned").push(Call {
        path: "/".to_owned(),
        service: "codedeploy",
        headers,
        body: serde_json::from_slice(&body).expect("JSON"),
        text: String::from_utf8_lossy(&body).into_owned(),
    });
    json!({ "lifecycleEventHookExecutionId": "execution-1" }).to_string()
}
