//! Two simulations of EventBridge: that of moto, with a queue that receives all events, and a server that fails on
//! request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};

use crate::aws::serve;
use crate::secrets::SecretsManager;
use crate::wire::Wire;

/// The name of the bus.
const BUS: &str = "changes";

/// An event bus of moto, and a queue that is the target of its rule.
pub struct EventBus {
    moto: SecretsManager,
    queue: String,
    wire: Wire,
    endpoint: String,
}

impl EventBus {
    /// Starts moto, and creates a bus, a queue and a rule between them.
    pub async fn start() -> Self {
        let moto = SecretsManager::start().await;
        let (wire, endpoint) = moto.behind_a_wire();
        let queue = json!({ "QueueName": "changes" });
        let queue = moto.call("sqs", "AmazonSQS.CreateQueue", &queue).await;
        let queue = queue["QueueUrl"].as_str().expect("a queue").to_owned();
        let pattern = json!({ "source": ["pennon"] }).to_string();
        let target = json!({ "Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:changes" });
        for (action, body) in [
            ("CreateEventBus", json!({ "Name": BUS })),
            (
                "PutRule",
                json!({ "Name": "all", "EventBusName": BUS, "EventPattern": pattern }),
            ),
            (
                "PutTargets",
                json!({ "Rule": "all", "EventBusName": BUS, "Targets": [target] }),
            ),
        ] {
            let action = format!("AWSEvents.{action}");
            let answer = moto.call("events", &action, &body).await;
            assert_eq!(answer["__type"], Value::Null, "{answer}");
        }
        Self {
            moto,
            queue,
            wire,
            endpoint,
        }
    }

    /// The wire from functions to the bus.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The variables with which a function sends its events here.
    pub fn environment(&self) -> [(&str, &str); 4] {
        environment(&self.endpoint)
    }

    /// Takes all events from the queue.
    pub async fn take_events(&self) -> Vec<Value> {
        let body = json!({ "QueueUrl": self.queue, "MaxNumberOfMessages": 10 });
        let mut events = Vec::new();
        loop {
            let answer = self.moto.call("sqs", "AmazonSQS.ReceiveMessage", &body);
            let answer = answer.await;
            let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
            if messages.is_empty() {
                return events;
            }
            for message in messages {
                let text = message["Body"].as_str().expect("a body");
                events.push(serde_json::from_str(text).expect("JSON"));
                let receipt =
                    json!({ "QueueUrl": self.queue, "ReceiptHandle": message["ReceiptHandle"] });
                let deleted = self.moto.call("sqs", "AmazonSQS.DeleteMessage", &receipt);
                deleted.await;
            }
        }
    }
}

/// A server that answers as EventBridge does, records the accepted events, and fails on request.
pub struct FailingBus {
    endpoint: String,
    shared: Arc<Shared>,
}

/// A failure of the next call of [`FailingBus`].
#[derive(Debug, Clone, Copy)]
pub enum BusFailure {
    /// Rejects the call as throttled.
    Throttled,
    /// Rejects the first entry of this flag, and accepts the others.
    Rejects(&'static str),
    /// Does not answer.
    Hangs,
}

/// The description of a flag whose changes [`FailingBus`] treats as invalid entries: like EventBridge, it rejects every
/// call that contains one.
pub const INVALID: &str = "invalid";

#[derive(Default)]
struct Shared {
    accepted: Mutex<Vec<Value>>,
    failures: Mutex<VecDeque<BusFailure>>,
    calls: Mutex<usize>,
}

impl FailingBus {
    /// Starts it.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/", post(put_events))
            .with_state(shared.clone());
        let endpoint = serve(router).await;
        Self { endpoint, shared }
    }

    /// Makes one call fail: the next one that has no failure yet.
    pub fn fail(&self, failure: BusFailure) {
        let mut failures = self.shared.failures.lock().expect("not poisoned");
        failures.push_back(failure);
    }

    /// The variables with which a function sends its events here.
    pub fn environment(&self) -> [(&str, &str); 4] {
        environment(&self.endpoint)
    }

    /// The details of the accepted events, in order.
    pub fn accepted(&self) -> Vec<Value> {
        self.shared.accepted.lock().expect("not poisoned").clone()
    }

    /// The number of calls so far.
    pub fn calls(&self) -> usize {
        *self.shared.calls.lock().expect("not poisoned")
    }
}

/// The variables of a function that cannot reach its bus.
pub const UNREACHABLE: [(&str, &str); 4] = environment("http://127.0.0.1:1");

const fn environment(endpoint: &str) -> [(&str, &str); 4] {
    [
        ("EVENT_BUS_NAME", BUS),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
}

async fn put_events(State(shared): State<Arc<Shared>>, body: Bytes) -> (StatusCode, String) {
    *shared.calls.lock().expect("not poisoned") += 1;
    let failure = shared.failures.lock().expect("not poisoned").pop_front();
    let mut rejected = match failure {
        None => "",
        Some(BusFailure::Rejects(key)) => key,
        Some(BusFailure::Hangs) => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            ""
        }
        Some(BusFailure::Throttled) => {
            let why = json!({ "__type": "ThrottlingException" });
            return (StatusCode::BAD_REQUEST, why.to_string());
        }
    };
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let entries = body["Entries"].as_array().expect("entries");
    let text = |entry: &Value, name: &str| entry[name].as_str().map_or(0, str::len);
    // 14 bytes for the time.
    let size =
        |entry| 14 + text(entry, "Source") + text(entry, "DetailType") + text(entry, "Detail");
    let size: usize = entries.iter().map(size).sum();
    let is_invalid = |entry: &Value| {
        let detail = entry["Detail"].as_str().unwrap_or_default();
        let detail: Value = serde_json::from_str(detail).unwrap_or_default();
        detail["after"]["description"] == INVALID
    };
    let is_valid = !entries.iter().any(is_invalid);
    if !is_valid || !(1..=10).contains(&entries.len()) || size > 256 * 1024 {
        let why = json!({ "__type": "ValidationException" });
        return (StatusCode::BAD_REQUEST, why.to_string());
    }
    let mut outcomes = Vec::new();
    for entry in entries {
        let detail = entry["Detail"].as_str().expect("a text");
        let detail: Value = serde_json::from_str(detail).expect("JSON");
        if detail["flagKey"] == rejected {
            rejected = "";
            outcomes.push(json!({ "ErrorCode": "InternalFailure", "ErrorMessage": "try again" }));
            continue;
        }
        outcomes.push(json!({ "EventId": detail["id"] }));
        shared.accepted.lock().expect("not poisoned").push(detail);
    }
    let failed = outcomes.iter().filter(|it| it["EventId"].is_null()).count();
    let answer = json!({ "FailedEntryCount": failed, "Entries": outcomes });
    (StatusCode::OK, answer.to_string())
}
