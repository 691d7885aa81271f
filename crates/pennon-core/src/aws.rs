//! Signed calls to AWS: invoke a version of a function, tell CodeDeploy how a check ended, read alarms, put
//! events.
//!
//! Four SDKs for four requests would more than double what is compiled and shipped; the signature is
//! made by the crate that the SDKs use.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::config::process_environment;
use crate::https::{Answer, Https};
use crate::tls::Authorities;

/// A report, answer included.
const REPORT: Duration = Duration::from_secs(10);
/// A hundred composite alarms, each with a rule of 10 kB, a reason and its data.
const LARGEST_ANSWER: usize = 6 * 1024 * 1024;

/// AWS, as the role of this function.
pub struct Aws {
    https: Https,
    region: String,
    credentials: Credentials,
}

/// A published version of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionVersion {
    name: String,
    version: String,
}

/// Why a call came to nothing, as a sentence for the log.
#[derive(Debug)]
pub enum Refusal {
    /// AWS could not be reached, or could not take the call at that moment: the same call may succeed
    /// later.
    ForNow(String),
    /// The function ran and failed, or the call is wrong: the same call would come to nothing again.
    ForGood(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForNow(why) | Self::ForGood(why) => formatter.write_str(why),
        }
    }
}

/// Lambda answers 409 while a version that was published a moment ago is pending, 429 when the account
/// has no instance left, and 5xx when it cannot give one its place in the network.
fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error()
}

impl FunctionVersion {
    /// Takes `arn:…:lambda:<region>:<account>:function:<name>:<version>` apart. An ARN without a
    /// version names whatever code is newest, which is not what a deployment moves traffic to.
    #[must_use]
    pub fn parse(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", _, "lambda", _, _, "function", name, version] = parts.as_slice() else {
            return None;
        };
        let name_is_plain = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        (name_is_plain && is_number).then(|| Self {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
        })
    }
}

impl Aws {
    /// With what Lambda puts into a function's environment.
    ///
    /// # Errors
    /// A sentence for the log when something is missing.
    pub fn from_process() -> Result<Self, String> {
        let need =
            |name: &str| process_environment(name).ok_or_else(|| format!("{name} is not set"));
        Ok(Self {
            https: Https::new(&Authorities::Public)?,
            region: need("AWS_REGION")?,
            credentials: Credentials::new(
                need("AWS_ACCESS_KEY_ID")?,
                need("AWS_SECRET_ACCESS_KEY")?,
                process_environment("AWS_SESSION_TOKEN"),
                None,
                "the function's environment",
            ),
        })
    }

    /// Invokes a version with an event, waits so long at most, and gives what it answers.
    ///
    /// # Errors
    /// It could not be invoked, or it failed.
    pub async fn invoke(
        &self,
        function: &FunctionVersion,
        event: &Value,
        within: Duration,
    ) -> Result<Value, Refusal> {
        let path = format!(
            "/2015-03-31/functions/{}/invocations?Qualifier={}",
            function.name, function.version
        );
        let headers = [("x-amz-invocation-type", "RequestResponse")];
        let url = format!("{}{path}", self.endpoint("lambda"));
        let answer = self.call("lambda", &url, &headers, event, within).await?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.headers.contains_key("x-amz-function-error") {
            return Err(Refusal::ForGood(format!("the function failed: {text}")));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| Refusal::ForGood(format!("the function's answer is not JSON: {text}")))
    }

    /// Tells CodeDeploy whether its deployment may go on.
    ///
    /// # Errors
    /// It did not take the report.
    pub async fn report_hook(
        &self,
        deployment: &str,
        execution: &str,
        succeeded: bool,
    ) -> Result<(), Refusal> {
        let body = json!({
            "deploymentId": deployment,
            "lifecycleEventHookExecutionId": execution,
            "status": if succeeded { "Succeeded" } else { "Failed" },
        });
        let headers = [(
            "x-amz-target",
            "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus",
        )];
        let url = format!("{}/", self.endpoint("codedeploy"));
        self.call("codedeploy", &url, &headers, &body, REPORT)
            .await?;
        Ok(())
    }

    /// The metric and composite alarms with these names, at most 100, as CloudWatch describes them.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn describe_alarms(
        &self,
        endpoint: Option<&str>,
        names: &[&str],
        within: Duration,
    ) -> Result<Value, Refusal> {
        let body = json!({
            "AlarmNames": names,
            "AlarmTypes": ["MetricAlarm", "CompositeAlarm"],
            "MaxRecords": 100,
        });
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            (
                "x-amz-target",
                "GraniteServiceVersion20100801.DescribeAlarms",
            ),
        ];
        let endpoint = endpoint.map_or_else(|| self.endpoint("monitoring"), ToOwned::to_owned);
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let answer = self
            .call("monitoring", &url, &headers, &body, within)
            .await?;
        serde_json::from_slice(&answer.body)
            .map_err(|_| Refusal::ForGood("CloudWatch's answer is not JSON".to_owned()))
    }

    /// Calls `PutEvents` of EventBridge with at most ten entries. Returns its response.
    ///
    /// # Errors
    /// EventBridge did not answer, or rejected the call.
    pub async fn put_events(
        &self,
        entries: Vec<Value>,
        within: Duration,
    ) -> Result<Value, Refusal> {
        let body = json!({ "Entries": entries });
        let headers = [("x-amz-target", "AWSEvents.PutEvents")];
        let endpoint = self.endpoint("events");
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let answer = self.call("events", &url, &headers, &body, within).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|_| Refusal::ForGood("the response of EventBridge is not JSON".to_owned()))
    }

    /// A signed POST; an answer that is no success is an error.
    async fn call(
        &self,
        service: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
        within: Duration,
    ) -> Result<Answer, Refusal> {
        let body = body.to_string();
        let mut request = Request::post(url);
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/x-amz-json-1.1");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request
            .body(Full::from(Bytes::from(body.clone())))
            .map_err(|error| Refusal::ForGood(error.to_string()))?;
        self.sign(service, url, &mut request, body.as_bytes())
            .map_err(Refusal::ForGood)?;
        let told = |why: String| format!("{service} at {url}: {why}");
        let answer = self.https.send_for(request, LARGEST_ANSWER, within).await;
        let answer = answer.map_err(|why| Refusal::ForNow(told(why)))?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer.body);
        let why = told(format!("{}: {text}", answer.status));
        Err(if may_pass(answer.status) {
            Refusal::ForNow(why)
        } else {
            Refusal::ForGood(why)
        })
    }

    fn sign(
        &self,
        service: &str,
        url: &str,
        request: &mut Request<Full<Bytes>>,
        body: &[u8],
    ) -> Result<(), String> {
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(body))
            .map_err(|error| error.to_string())?;
        let (instructions, _signature) = sign(signable, &parameters)
            .map_err(|error| error.to_string())?
            .into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// The endpoint of a service. The variables have the names that every AWS SDK reads.
    fn endpoint(&self, service: &str) -> String {
        let variable = format!("AWS_ENDPOINT_URL_{}", service.to_ascii_uppercase());
        process_environment(&variable).unwrap_or_else(|| {
            let dual_stack = process_environment("AWS_USE_DUALSTACK_ENDPOINT");
            regional_endpoint(service, &self.region, dual_stack.as_deref() == Some("true"))
        })
    }
}

/// Only the dual-stack endpoint of a service has IPv6 addresses.
fn regional_endpoint(service: &str, region: &str, dual_stack: bool) -> String {
    let domain = match (region.starts_with("cn-"), dual_stack) {
        (false, false) => "amazonaws.com",
        (false, true) => "api.aws",
        (true, false) => "amazonaws.com.cn",
        (true, true) => "api.amazonwebservices.com.cn",
    };
    format!("https://{service}.{region}.{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_without_ipv4_use_the_dual_stack_endpoint() {
        for (region, dual_stack, endpoint) in [
            (
                "eu-west-1",
                false,
                "https://monitoring.eu-west-1.amazonaws.com",
            ),
            ("eu-west-1", true, "https://monitoring.eu-west-1.api.aws"),
            (
                "cn-north-1",
                false,
                "https://monitoring.cn-north-1.amazonaws.com.cn",
            ),
            (
                "cn-north-1",
                true,
                "https://monitoring.cn-north-1.api.amazonwebservices.com.cn",
            ),
        ] {
            assert_eq!(
                regional_endpoint("monitoring", region, dual_stack),
                endpoint
            );
        }
    }

    #[test]
    fn only_the_arn_of_a_version_names_one() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:7";
        let found = FunctionVersion::parse(arn);
        assert_eq!(
            found.map(|it| (it.name, it.version)),
            Some(("pennon-health".to_owned(), "7".to_owned()))
        );
        for wrong in [
            "",
            "pennon-health",
            "arn:aws:lambda:us-east-1:123456789012:function:pennon-health",
            "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:live",
            "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:$LATEST",
            "arn:aws:lambda:us-east-1:123456789012:function:a/b:7",
            "arn:aws:s3:us-east-1:123456789012:function:pennon-health:7",
        ] {
            assert_eq!(FunctionVersion::parse(wrong), None, "{wrong}");
        }
    }
}
