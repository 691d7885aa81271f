//! CloudWatch: metric alarms by moto's server, which has no composite alarms, and one composite alarm by a
//! server that answers in the documented format.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::aws::serve_at_address;
use crate::process::Process;
use crate::secrets::start_moto;
use crate::wire::Wire;

/// The function `guard`, as the action of an alarm that invokes it.
pub const GUARD_FUNCTION_ARN: &str =
    "arn:aws:lambda:us-east-1:123456789012:function:pennon-guard:live";

/// Of the two metric alarms in the rule of the composite alarm, the one that exists.
const PART: &str = "latency";

/// The environment variables that point a function to a CloudWatch.
fn environment(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    [
        ("CLOUDWATCH_ENDPOINT", endpoint.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A CloudWatch for one test, behind a wire.
pub struct CloudWatch {
    _process: Process,
    base: String,
    /// The wire between functions and moto.
    pub wire: Wire,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl CloudWatch {
    /// Starts moto and waits until it responds.
    pub async fn start() -> Self {
        let (process, port) = start_moto().await;
        Self {
            _process: process,
            base: format!("http://127.0.0.1:{port}/"),
            wire: Wire::to(port),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The environment variables that point a function to this CloudWatch.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(self.wire.port())
    }

    /// Adds a metric alarm that is OK, with these actions.
    pub async fn add(&self, name: &str, actions: &[&str]) {
        self.put(name, actions, 1).await;
    }

    /// Adds or replaces a metric alarm that is OK, with an evaluation interval of this many minutes and these actions.
    pub async fn put(&self, name: &str, actions: &[&str], minutes: u32) {
        let alarm = json!({
            "AlarmName": name, "AlarmActions": actions, "ActionsEnabled": true,
            "MetricName": "Errors", "Namespace": "AWS/Lambda", "Statistic": "Sum", "Period": 60,
            "EvaluationPeriods": minutes, "Threshold": 1.0,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        });
        self.send("PutMetricAlarm", &alarm).await;
        self.set(name, "OK").await;
    }

    /// Sets the state of an alarm.
    pub async fn set(&self, name: &str, state: &str) {
        let state = json!({ "AlarmName": name, "StateValue": state, "StateReason": "a test" });
        self.send("SetAlarmState", &state).await;
    }

    /// Deletes an alarm.
    pub async fn delete(&self, name: &str) {
        self.send("DeleteAlarms", &json!({ "AlarmNames": [name] }))
            .await;
    }

    async fn send(&self, action: &str, body: &Value) {
        let request = hyper::Request::post(&self.base)
            .header("content-type", "application/x-amz-json-1.0")
            .header(
                "x-amz-target",
                format!("GraniteServiceVersion20100801.{action}"),
            )
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/monitoring/aws4_request",
            )
            .body(Full::from(body.to_string()))
            .expect("a request");
        let response = self.client.request(request).await.expect("a response");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body");
        assert!(status.is_success(), "{action}: {:?}", body.to_bytes());
    }
}

/// A CloudWatch with one composite alarm, whose rule names a metric alarm that evaluates half an hour, and a deleted
/// one.
pub struct CompositeAlarm {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    /// The state, and when it began.
    state: Mutex<(String, SystemTime)>,
    requests: Mutex<Vec<(String, Value)>>,
}

impl CompositeAlarm {
    /// Starts the server, with this alarm in `OK`.
    pub async fn start(name: &str) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::new(("OK".to_owned(), SystemTime::now())),
            requests: Mutex::default(),
        });
        let router = Router::new()
            .route("/", post(describe_alarms))
            .with_state(shared.clone());
        let port = serve_at_address(router).await.port();
        Self { port, shared }
    }

    /// The environment variables that point a function to this server.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(self.port)
    }

    /// Sets the state of the alarm, which it entered this long ago.
    pub fn set(&self, state: &str, age: Duration) {
        let since = SystemTime::now() - age;
        *self.shared.state.lock().expect("not poisoned") = (state.to_owned(), since);
    }

    /// The requests so far: `X-Amz-Target`, and the body.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }
}

/// `DescribeAlarms` as the API reference describes it: without `AlarmTypes`, CloudWatch returns metric alarms only.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html>
async fn describe_alarms(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> String {
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let target = headers.get("x-amz-target").map(|it| it.to_str());
    let target = target.and_then(Result::ok).unwrap_or_default().to_owned();
    let lists = |field: &str, item: &str| {
        let list = body[field].as_array();
        list.is_some_and(|list| list.iter().any(|it| it == item))
    };
    let name = shared.name.as_str();
    let is_wanted = lists("AlarmTypes", "CompositeAlarm") && lists("AlarmNames", name);
    let (state, since) = shared.state.lock().expect("not poisoned").clone();
    let since = since.duration_since(UNIX_EPOCH).expect("after 1970");
    let alarm = json!({
        "ActionsEnabled": true,
        "AlarmActions": [GUARD_FUNCTION_ARN],
        "AlarmArn": format!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"),
        "AlarmConfigurationUpdatedTimestamp": 1_795_900_000.125,
        "AlarmName": name,
        "AlarmRule": "ALARM(\"errors\") OR ALARM(\"latency\")",
        "InsufficientDataActions": [],
        "OKActions": [],
        "StateReason": "a test",
        "StateReasonData": "{\"triggeringAlarms\":[]}",
        "StateTransitionedTimestamp": since.as_secs_f64(),
        "StateUpdatedTimestamp": since.as_secs_f64(),
        "StateValue": state,
    });
    let composite = if is_wanted { vec![alarm] } else { Vec::new() };
    let part = json!({
        "ActionsEnabled": true,
        "AlarmName": PART,
        "EvaluationPeriods": 3,
        "Period": 600,
        "StateValue": "OK",
    });
    let is_wanted = lists("AlarmTypes", "MetricAlarm") && lists("AlarmNames", PART);
    let metric = if is_wanted { vec![part] } else { Vec::new() };
    shared
        .requests
        .lock()
        .expect("not poisoned")
        .push((target, body));
    json!({ "CompositeAlarms": composite, "MetricAlarms": metric }).to_string()
}
