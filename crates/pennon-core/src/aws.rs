//! Signed calls to AWS: read and write secrets, invoke a version of a function, report the result of a check to
//! CodeDeploy, read alarms, put events.
//!
//! Five SDKs for these requests would more than double the size of the program. The crate that the SDKs use computes
//! the signature.

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
use crate::https::{Https, Received};
use crate::tls::Authorities;

/// Time limit of the report to CodeDeploy.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough for a hundred composite alarms, each with a rule of 10 kB, a reason and its data.
const MAX_RESPONSE_SIZE: usize = 6 * 1024 * 1024;

/// A service of AWS.
struct Service {
    /// Its name in host names and in signatures.
    name: &'static str,
    /// The variable with another endpoint. AWS SDKs read the same variables:
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html>.
    endpoint_variable: &'static str,
}

const CODEDEPLOY: Service = Service {
    name: "codedeploy",
    endpoint_variable: "AWS_ENDPOINT_URL_CODEDEPLOY",
};
const CLOUDWATCH: Service = Service {
    name: "monitoring",
    endpoint_variable: "AWS_ENDPOINT_URL_CLOUDWATCH",
};
const EVENTBRIDGE: Service = Service {
    name: "events",
    endpoint_variable: "AWS_ENDPOINT_URL_EVENTBRIDGE",
};
const LAMBDA: Service = Service {
    name: "lambda",
    endpoint_variable: "AWS_ENDPOINT_URL_LAMBDA",
};
const SECRETS_MANAGER: Service = Service {
    name: "secretsmanager",
    endpoint_variable: "AWS_ENDPOINT_URL_SECRETS_MANAGER",
};

/// Calls AWS with the credentials of this function's role.
pub struct Aws {
    https: Https,
    region: String,
    credentials: Credentials,
}

/// A published version or an alias of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifiedFunction {
    name: String,
    /// The number of the version, or the name of the alias.
    qualifier: String,
}

/// Why a call failed. The text is for the log.
#[derive(Debug)]
pub enum CallError {
    /// AWS could not be reached or is overloaded; a retry may succeed.
    Transient(String),
    /// The invoked function failed, or AWS rejects the call; a retry would fail too.
    Permanent(String),
    /// AWS rejects the content of the call, so that another content may succeed.
    Invalid(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(why) | Self::Permanent(why) | Self::Invalid(why) => {
                formatter.write_str(why)
            }
        }
    }
}

/// Lambda answers 409 while a newly published version is pending, 429 if the concurrency limit is reached, and 5xx
/// if it cannot connect an instance to the VPC. Other services answer 400 when they throttle a caller.
pub(crate) fn is_transient(response: &Received) -> bool {
    response.status == StatusCode::CONFLICT
        || response.status == StatusCode::TOO_MANY_REQUESTS
        || response.status.is_server_error()
        || error_code(&response.body) == "ThrottlingException"
}

/// A call with an invalid field is answered with 400 and the code `ValidationException`, a call that is too large with
/// 413. Missing permissions are 400 with another code.
fn is_invalid(response: &Received) -> bool {
    response.status == StatusCode::PAYLOAD_TOO_LARGE
        || response.status == StatusCode::BAD_REQUEST
            && error_code(&response.body) == "ValidationException"
}

/// The code of an error response without its namespace, or `unknown`:
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>.
pub(crate) fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["__type"].as_str().unwrap_or("unknown");
    code.rsplit('#').next().unwrap_or(code).to_owned()
}

impl QualifiedFunction {
    /// Parses `arn:…:lambda:<region>:<account>:function:<name>:<version>`. An ARN without a version is rejected: it
    /// would invoke the newest code, which need not be the version that the deployment shifts traffic to.
    #[must_use]
    pub fn parse_version(arn: &str) -> Option<Self> {
        Self::parse(arn).filter(Self::is_version)
    }

    /// Parses `arn:…:lambda:<region>:<account>:function:<name>:<alias>`.
    #[must_use]
    pub fn parse_alias(arn: &str) -> Option<Self> {
        Self::parse(arn).filter(|found| !found.is_version())
    }

    fn is_version(&self) -> bool {
        self.qualifier.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn parse(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", _, "lambda", _, _, "function", name, qualifier] = parts.as_slice() else {
            return None;
        };
        let is_plain = |text: &str| {
            let mut bytes = text.bytes();
            !text.is_empty()
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        (is_plain(name) && is_plain(qualifier)).then(|| Self {
            name: (*name).to_owned(),
            qualifier: (*qualifier).to_owned(),
        })
    }
}

impl Aws {
    /// Reads region and credentials from the environment variables that Lambda sets.
    ///
    /// # Errors
    /// A message for the log if a variable is missing.
    pub fn from_process() -> Result<Self, String> {
        let required =
            |name: &str| process_environment(name).ok_or_else(|| format!("{name} is not set"));
        Ok(Self {
            https: Https::new(&Authorities::Public)?,
            region: required("AWS_REGION")?,
            credentials: Credentials::new(
                required("AWS_ACCESS_KEY_ID")?,
                required("AWS_SECRET_ACCESS_KEY")?,
                process_environment("AWS_SESSION_TOKEN"),
                None,
                "the function's environment",
            ),
        })
    }

    /// Calls an action of Secrets Manager once. Returns the response with any status.
    ///
    /// # Errors
    /// If Secrets Manager does not answer within `within`. The text contains nothing of the body.
    pub(crate) async fn call_secrets_manager(
        &self,
        action: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Received, CallError> {
        let target = format!("secretsmanager.{action}");
        let headers = [("x-amz-target", target.as_str())];
        let url = format!("{}/", self.endpoint(&SECRETS_MANAGER));
        self.exchange(&SECRETS_MANAGER, &url, &headers, body, within)
            .await
    }

    /// Invokes a version or an alias of a function with an event, and returns its result.
    ///
    /// # Errors
    /// If the invocation or the function fails, or takes longer than `within`.
    pub async fn invoke(
        &self,
        function: &QualifiedFunction,
        event: &Value,
        within: Duration,
    ) -> Result<Value, CallError> {
        let path = format!(
            "/2015-03-31/functions/{}/invocations?Qualifier={}",
            function.name, function.qualifier
        );
        let headers = [("x-amz-invocation-type", "RequestResponse")];
        let url = format!("{}{path}", self.endpoint(&LAMBDA));
        let response = self.call(&LAMBDA, &url, &headers, event, within).await?;
        let text = String::from_utf8_lossy(&response.body);
        if response.headers.contains_key("x-amz-function-error") {
            return Err(CallError::Permanent(format!("the function failed: {text}")));
        }
        serde_json::from_slice(&response.body).map_err(|_| {
            CallError::Permanent(format!("the function's response is not JSON: {text}"))
        })
    }

    /// Reports to CodeDeploy whether the deployment may continue.
    ///
    /// # Errors
    /// If CodeDeploy does not accept the report.
    pub async fn report_hook(
        &self,
        deployment: &str,
        execution: &str,
        succeeded: bool,
    ) -> Result<(), CallError> {
        let body = json!({
            "deploymentId": deployment,
            "lifecycleEventHookExecutionId": execution,
            "status": if succeeded { "Succeeded" } else { "Failed" },
        });
        let headers = [(
            "x-amz-target",
            "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus",
        )];
        let url = format!("{}/", self.endpoint(&CODEDEPLOY));
        self.call(&CODEDEPLOY, &url, &headers, &body, REPORT_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Reads the metric and composite alarms with these names, at most 100. Returns CloudWatch's description.
    /// `endpoint`, from `CLOUDWATCH_ENDPOINT`, replaces the region's endpoint.
    ///
    /// # Errors
    /// If CloudWatch does not answer within `within`, or rejects the call.
    pub async fn describe_alarms(
        &self,
        endpoint: Option<&str>,
        names: &[&str],
        within: Duration,
    ) -> Result<Value, CallError> {
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
        let endpoint = endpoint.map_or_else(|| self.endpoint(&CLOUDWATCH), ToOwned::to_owned);
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let response = self
            .call(&CLOUDWATCH, &url, &headers, &body, within)
            .await?;
        serde_json::from_slice(&response.body)
            .map_err(|_| CallError::Permanent("CloudWatch's response is not JSON".to_owned()))
    }

    /// Calls `PutEvents` of EventBridge with at most ten entries. Returns its response.
    ///
    /// # Errors
    /// If EventBridge does not answer within `within`, or rejects the call.
    pub async fn put_events(
        &self,
        entries: Vec<Value>,
        within: Duration,
    ) -> Result<Value, CallError> {
        let body = json!({ "Entries": entries });
        let headers = [("x-amz-target", "AWSEvents.PutEvents")];
        let url = format!("{}/", self.endpoint(&EVENTBRIDGE));
        let response = self
            .call(&EVENTBRIDGE, &url, &headers, &body, within)
            .await?;
        serde_json::from_slice(&response.body)
            .map_err(|_| CallError::Permanent("the response of EventBridge is not JSON".to_owned()))
    }

    /// Sends a signed POST. A status other than success is an error.
    async fn call(
        &self,
        service: &Service,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
        within: Duration,
    ) -> Result<Received, CallError> {
        let response = self.exchange(service, url, headers, body, within).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let text = String::from_utf8_lossy(&response.body);
        let why = format!("{} at {url}: {}: {text}", service.name, response.status);
        Err(if is_transient(&response) {
            CallError::Transient(why)
        } else if is_invalid(&response) {
            CallError::Invalid(why)
        } else {
            CallError::Permanent(why)
        })
    }

    /// Sends a signed POST, and returns the response with any status.
    async fn exchange(
        &self,
        service: &Service,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
        within: Duration,
    ) -> Result<Received, CallError> {
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
            .map_err(|error| CallError::Permanent(error.to_string()))?;
        self.sign(service.name, url, &mut request, body.as_bytes())
            .map_err(CallError::Permanent)?;
        self.https
            .send_limited(request, MAX_RESPONSE_SIZE, within)
            .await
            .map_err(|why| CallError::Transient(format!("{} at {url}: {why}", service.name)))
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

    /// The endpoint of a service, without a final slash.
    fn endpoint(&self, service: &Service) -> String {
        let configured = process_environment(service.endpoint_variable)
            .or_else(|| process_environment("AWS_ENDPOINT_URL"));
        if let Some(url) = configured {
            return url.trim_end_matches('/').to_owned();
        }
        let dual_stack = process_environment("AWS_USE_DUALSTACK_ENDPOINT");
        regional_endpoint(
            service.name,
            &self.region,
            dual_stack.as_deref() == Some("true"),
        )
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
    fn the_endpoint_of_a_region_depends_on_dual_stack_and_on_its_partition() {
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
    fn the_code_of_an_error_has_no_namespace() {
        for (body, code) in [
            (
                r#"{"__type": "AccessDeniedException"}"#,
                "AccessDeniedException",
            ),
            (
                r#"{"__type": "com.amazonaws.secretsmanager#ResourceNotFoundException", "message": "x"}"#,
                "ResourceNotFoundException",
            ),
            ("{}", "unknown"),
            ("<html>", "unknown"),
        ] {
            assert_eq!(error_code(body.as_bytes()), code);
        }
    }

    #[test]
    fn an_arn_without_a_published_version_is_rejected() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:7";
        let found = QualifiedFunction::parse_version(arn);
        assert_eq!(
            found.map(|it| (it.name, it.qualifier)),
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
            assert_eq!(QualifiedFunction::parse_version(wrong), None, "{wrong}");
        }
        let alias = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health:live";
        assert!(QualifiedFunction::parse_alias(alias).is_some());
        assert_eq!(QualifiedFunction::parse_alias(arn), None);
    }
}
