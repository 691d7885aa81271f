//! Lambda's Invoke for the function `send-webhooks`.

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
use crate::receiver::Receiver;

/// The alias that functions invoke.
const ALIAS: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-send-webhooks:live";
/// The time limit of a request, instead of ten seconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Lambda accepts events of 6 MB.
const MAX_EVENT_SIZE: usize = 6 * 1024 * 1024;

/// An endpoint of Lambda that runs `send-webhooks`.
pub struct WebhookFunction {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    sends: Sends,
    refusal: Mutex<Option<StatusCode>>,
    paths: Mutex<Vec<String>>,
}

/// The code behind the endpoint.
enum Sends {
    /// The sender of the function, but to receivers on this machine.
    ToThisMachine(Sender),
    /// The function.
    Function(Box<Function>),
}

impl WebhookFunction {
    /// Sends as the function does, but to receivers on this machine, which the function refuses.
    pub async fn to_this_machine() -> Self {
        let sender = Sender::anywhere(Some(&Receiver::authority())).expect("a sender");
        Self::start(Sends::ToThisMachine(sender)).await
    }

    /// Runs the function.
    pub async fn real() -> Self {
        let function = Function::start("send-webhooks", &[]).await;
        Self::start(Sends::Function(Box::new(function))).await
    }

    async fn start(sends: Sends) -> Self {
        let shared = Arc::new(Shared {
            sends,
            refusal: Mutex::default(),
            paths: Mutex::default(),
        });
        let router = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .layer(DefaultBodyLimit::max(MAX_EVENT_SIZE))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// The variables of a function that invokes it.
    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL_LAMBDA", &self.address),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("SEND_WEBHOOKS_FUNCTION_ARN", ALIAS),
        ]
    }

    /// Rejects invocations with this status until the next call.
    pub fn refuse(&self, status: Option<u16>) {
        let status = status.map(|status| StatusCode::from_u16(status).expect("a status"));
        *self.shared.refusal.lock().expect("not poisoned") = status;
    }

    /// The paths of the invocations so far.
    pub fn invocations(&self) -> Vec<String> {
        self.shared.paths.lock().expect("not poisoned").clone()
    }
}

async fn invoke(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    let path = format!("{name}?{}", query.unwrap_or_default());
    shared.paths.lock().expect("not poisoned").push(path);
    let refusal = *shared.refusal.lock().expect("not poisoned");
    if let Some(status) = refusal {
        let why = json!({ "Message": "Not now" });
        return (status, HeaderMap::new(), why.to_string());
    }
    let mut headers = HeaderMap::new();
    let answer = match &shared.sends {
        Sends::ToThisMachine(sender) => {
            let messages: Vec<Message> =
                serde_json::from_value(event["messages"].clone()).expect("messages");
            let outcomes = sender.send_all(messages, TIMEOUT).await;
            let outcomes: Vec<_> = outcomes.into_iter().map(Result::err).collect();
            json!({ "outcomes": outcomes })
        }
        Sends::Function(function) => function.invoke(&event).await.unwrap_or_else(|error| {
            let unhandled = HeaderValue::from_static("Unhandled");
            headers.insert("x-amz-function-error", unhandled);
            error
        }),
    };
    (StatusCode::OK, headers, answer.to_string())
}
