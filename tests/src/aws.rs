//! The two parts of AWS that decide about a rollout, as far as `pre-traffic` needs them. Lambda's
//! Invoke runs the real health function; CodeDeploy writes down what it is told. Nothing else can
//! play them on one machine.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

use crate::lambda::Function;

/// The version that CodeDeploy asks about.
pub const HEALTH_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:7";

/// The version that is to migrate.
pub const MIGRATE_VERSION: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-migrate:4";

/// A running control plane.
pub struct ControlPlane {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    health: Function,
    migrate: Function,
    invocations: Mutex<Vec<Call>>,
    reports: Mutex<Vec<Call>>,
    refusals: Mutex<usize>,
}

/// One call that came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

impl Call {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl ControlPlane {
    /// Starts it before functions that are running. So many invocations of health are refused first,
    /// as those of a version that was published a moment ago.
    pub async fn start(migrate: Function, health: Function, refusals: usize) -> Self {
        let shared = Arc::new(Shared {
            health,
            migrate,
            invocations: Mutex::default(),
            reports: Mutex::default(),
            refusals: Mutex::new(refusals),
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

    /// What leads `pre-traffic` here.
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

    /// The invocations so far.
    pub fn invocations(&self) -> Vec<Call> {
        self.shared
            .invocations
            .lock()
            .expect("not poisoned")
            .clone()
    }

    /// What CodeDeploy was told so far.
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
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    shared.invocations.lock().expect("not poisoned").push(Call {
        path: format!("{name}?{}", query.unwrap_or_default()),
        headers,
        body: body.clone(),
    });
    let function = if name == "pennon-migrate" {
        &shared.migrate
    } else {
        let mut refusals = shared.refusals.lock().expect("not poisoned");
        if *refusals > 0 {
            *refusals -= 1;
            let pending = json!({ "Message": "The function is currently in the Pending state" });
            return (StatusCode::CONFLICT, HeaderMap::new(), pending.to_string());
        }
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
        headers,
        body: serde_json::from_slice(&body).expect("JSON"),
    });
    json!({ "lifecycleEventHookExecutionId": "execution-1" }).to_string()
}
