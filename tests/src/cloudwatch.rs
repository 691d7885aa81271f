//! The metric alarms of CloudWatch, as moto's server plays them. It knows no composite alarms.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::process::Process;
use crate::secrets::start_moto;
use crate::wire::Wire;

/// The action of an alarm that `guard` learns of.
pub const GUARD: &str = "arn:aws:lambda:us-east-1:123456789012:function:pennon-guard:live";

/// A CloudWatch for one test, behind a wire.
pub struct CloudWatch {
    _process: Process,
    base: String,
    /// Leads the functions here.
    pub wire: Wire,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl CloudWatch {
    /// Starts moto and waits until it answers.
    pub async fn start() -> Self {
        let (process, port) = start_moto().await;
        Self {
            _process: process,
            base: format!("http://127.0.0.1:{port}/"),
            wire: Wire::to(port),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The variables that lead a function here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.wire.port());
        [
            ("CLOUDWATCH_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Adds a metric alarm that is OK and does this when it rings.
    pub async fn add(&self, name: &str, actions: &[&str]) {
        let alarm = json!({
            "AlarmName": name, "AlarmActions": actions, "ActionsEnabled": true,
            "MetricName": "Errors", "Namespace": "AWS/Lambda", "Statistic": "Sum", "Period": 60,
            "EvaluationPeriods": 1, "Threshold": 1.0,
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
