//! Secrets Manager, simulated by moto's server: <https://docs.getmoto.org/en/latest/docs/server_mode.html>.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::aws::serve;
use crate::eventually;
use crate::lambda::Function;
use crate::process::{Process, find_program, free_port, new_folder};
use crate::wire::Wire;

/// A Secrets Manager for one test.
pub struct SecretsManager {
    process: Process,
    port: u16,
    endpoint: String,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The number of calls that the test made, which moto's log contains too.
    calls: AtomicUsize,
}

impl SecretsManager {
    /// Starts moto and waits until it responds.
    pub async fn start() -> Self {
        let (process, port) = start_moto().await;
        Self {
            process,
            port,
            endpoint: format!("http://127.0.0.1:{port}"),
            client: Client::builder(TokioExecutor::new()).build_http(),
            calls: AtomicUsize::new(0),
        }
    }

    /// Creates a secret and returns its ARN.
    pub async fn create(&self, name: &str, text: &str) -> String {
        let answer = self.send_value("CreateSecret", "Name", name, text).await;
        answer["ARN"]
            .as_str()
            .unwrap_or_else(|| panic!("no ARN in {answer}"))
            .to_owned()
    }

    /// Creates a secret without a value, as a template does, and returns its ARN.
    pub async fn create_empty(&self, name: &str) -> String {
        let answer = self.send("CreateSecret", &json!({ "Name": name })).await;
        answer["ARN"]
            .as_str()
            .unwrap_or_else(|| panic!("no ARN in {answer}"))
            .to_owned()
    }

    /// The value of a secret.
    pub async fn value(&self, arn: &str) -> Option<String> {
        let answer = self
            .send("GetSecretValue", &json!({ "SecretId": arn }))
            .await;
        answer["SecretString"].as_str().map(str::to_owned)
    }

    /// Replaces the value of a secret.
    pub async fn change(&self, arn: &str, text: &str) {
        let answer = self
            .send_value("PutSecretValue", "SecretId", arn, text)
            .await;
        assert_eq!(answer["ARN"], arn, "{answer}");
    }

    /// Calls an action that sets the value of a secret. `parameter` is the field that identifies the secret (`Name` or
    /// `SecretId`), and `secret` its value.
    async fn send_value(&self, action: &str, parameter: &str, secret: &str, text: &str) -> Value {
        let number = self.calls.load(Ordering::Relaxed);
        let body = json!({ parameter: secret, "SecretString": text, "ClientRequestToken": format!("{number:032}") });
        self.send(action, &body).await
    }

    async fn send(&self, action: &str, body: &Value) -> Value {
        let target = format!("secretsmanager.{action}");
        self.call("secretsmanager", &target, body).await
    }

    /// Calls any service of moto.
    pub async fn call(&self, service: &str, target: &str, body: &Value) -> Value {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // moto chooses the service by the scope of the signature. SQS has another version of the protocol.
        let version = if service == "sqs" { "1.0" } else { "1.1" };
        let scope = format!("Credential=test/20261121/us-east-1/{service}/aws4_request");
        let request = hyper::Request::post(&self.endpoint)
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", target)
            .header("authorization", format!("AWS4-HMAC-SHA256 {scope}"))
            .body(Full::from(body.to_string()))
            .expect("a request");
        let response = self.client.request(request).await.expect("a response");
        let body = response.into_body().collect().await.expect("a body");
        serde_json::from_slice(&body.to_bytes()).unwrap_or_default()
    }

    /// Creates a wire in front of this Secrets Manager, and returns it with its endpoint.
    pub fn behind_a_wire(&self) -> (Wire, String) {
        let wire = Wire::to(self.port);
        let endpoint = format!("http://127.0.0.1:{}", wire.port());
        (wire, endpoint)
    }

    /// The environment variables that point a function to this Secrets Manager.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.endpoint)
    }

    /// Records the responses with the values of these secrets.
    pub async fn record(&self, arns: &[&str]) -> RecordedSecrets {
        let mut responses = HashMap::new();
        for arn in arns {
            let body = json!({ "SecretId": arn });
            let response = self.send("GetSecretValue", &body).await;
            assert!(response["SecretString"].is_string(), "{arn}: {response}");
            responses.insert((*arn).to_owned(), response.to_string());
        }
        RecordedSecrets::start(responses).await
    }

    /// Starts a function that uses this Secrets Manager.
    pub async fn function(&self, name: &str, more: &[(&str, &str)]) -> Function {
        let own = self.environment();
        let own = own
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = own.chain(more.iter().copied()).collect();
        Function::start(name, &environment).await
    }

    /// Its log, with a line per call.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The number of calls that the test itself made.
    pub fn own_calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Repeats recorded responses of moto without its delay. moto, a program in Python, took 1.8 ms for each secret, one
/// after the other: with two secrets, 3.6 of the 8.4 ms until a function requested its first event.
pub struct RecordedSecrets {
    endpoint: String,
}

impl RecordedSecrets {
    async fn start(responses: HashMap<String, String>) -> Self {
        let router = Router::new()
            .route("/", post(repeat))
            .with_state(Arc::new(responses));
        Self {
            endpoint: serve(router).await,
        }
    }

    /// The environment variables that point a function to the recording.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.endpoint)
    }
}

async fn repeat(State(responses): State<Arc<HashMap<String, String>>>, body: String) -> String {
    let request: Value = serde_json::from_str(&body).expect("JSON");
    let arn = request["SecretId"].as_str().expect("an ARN");
    let response = responses.get(arn);
    response
        .unwrap_or_else(|| panic!("{arn} was not recorded"))
        .clone()
}

fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Starts moto and returns its port.
pub(crate) async fn start_moto() -> (Process, u16) {
    let tools = format!("{}/../.tools/bin", env!("CARGO_MANIFEST_DIR"));
    let program = find_program(
        "moto_server",
        &[&tools],
        "Install it with `pip install 'moto[server]'`, or run `scripts/test`, which does.",
    );
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let folder = new_folder("moto");
    let process = Process::start(&command, &folder.join("log"), Some(&folder));
    eventually("moto answers", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    })
    .await;
    (process, port)
}
