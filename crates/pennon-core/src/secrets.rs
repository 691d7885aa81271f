//! Reads and writes secrets in Secrets Manager.

use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::aws::{Aws, error_code, is_transient};
use crate::config::{Secret, SecretSource};
use crate::https::Received;
use crate::id::unique_id;

/// Time limit of one attempt. All attempts together take about three seconds, so that the instance can fall back
/// within Lambda's limit of an initialisation phase, ten seconds.
const TIMEOUT: Duration = Duration::from_millis(1_500);
const MAX_ATTEMPTS: u32 = 2;
/// The pause before another attempt.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Reads and writes secrets. The client is created with the first call.
#[derive(Default)]
pub struct Secrets {
    aws: OnceLock<Result<Aws, String>>,
}

/// Why a call failed.
enum Failure {
    /// No usable response: none arrived, it is not JSON, or the client could not be created. The reason is for the log.
    Unreachable(String),
    /// Secrets Manager rejected the call with this code.
    Rejected(String),
}

/// The fields of a response to `GetSecretValue` that this program reads.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretValue {
    secret_string: Option<String>,
}

impl Secrets {
    /// Returns the value of a source, or `None` if none is configured.
    ///
    /// # Errors
    /// A message for the log with the remedy. It contains the secret's ARN but not its value.
    pub async fn resolve(&self, source: &SecretSource) -> Result<Option<Secret>, String> {
        match source {
            SecretSource::Plain(secret) => Ok(Some(secret.clone())),
            SecretSource::None => Ok(None),
            SecretSource::SecretArn(arn) => {
                let found = self.get(arn).await.map_err(|why| explain(arn, &why))?;
                let text = found.filter(|text| !text.trim().is_empty());
                let text = text.ok_or_else(|| {
                    format!(
                        "secret {arn} has no text; store its value as SecretString: a connection URL, or the MAC key"
                    )
                })?;
                Ok(Some(Secret::new(text)))
            }
        }
    }

    /// The value of a secret, or `None` if it has no value yet: the template creates the secrets of database roles
    /// without a value, and `migrate` writes it.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub async fn current(&self, arn: &str) -> Result<Option<Secret>, String> {
        match self.get(arn).await {
            Ok(text) => Ok(text.map(Secret::new)),
            Err(Failure::Rejected(code)) if code == "ResourceNotFoundException" => Ok(None),
            Err(why) => Err(explain(arn, &why)),
        }
    }

    /// Writes the value of a secret.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub async fn put(&self, arn: &str, value: &Secret) -> Result<(), String> {
        // Both attempts send this token, so that the second one does not create another version.
        let body = json!({
            "SecretId": arn,
            "SecretString": value.expose(),
            "ClientRequestToken": unique_id(),
        });
        match self.call("PutSecretValue", &body).await {
            Ok(_) => Ok(()),
            Err(Failure::Rejected(code)) => Err(format!(
                "secret {arn} cannot be written: {code}; the secret must exist, and the function's role needs \
                 secretsmanager:PutSecretValue on it"
            )),
            Err(why @ Failure::Unreachable(_)) => Err(explain(arn, &why)),
        }
    }

    async fn get(&self, arn: &str) -> Result<Option<String>, Failure> {
        let response = self
            .call("GetSecretValue", &json!({ "SecretId": arn }))
            .await?;
        // The error of the parser is not repeated: it could contain a part of the secret.
        let value: SecretValue = serde_json::from_slice(&response.body)
            .map_err(|_| Failure::Unreachable("the response is not JSON".to_owned()))?;
        Ok(value.secret_string)
    }

    async fn call(&self, action: &str, body: &Value) -> Result<Received, Failure> {
        let aws = self.aws.get_or_init(Aws::from_process).as_ref();
        let aws = aws.map_err(|why| Failure::Unreachable(why.clone()))?;
        let mut attempt = 1;
        loop {
            let failure = match aws.call_secrets_manager(action, body, TIMEOUT).await {
                Ok(response) if response.status.is_success() => return Ok(response),
                Ok(response) => {
                    let failure = Failure::Rejected(error_code(&response.body));
                    if !is_transient(&response) {
                        return Err(failure);
                    }
                    failure
                }
                Err(error) => Failure::Unreachable(error.to_string()),
            };
            if attempt == MAX_ATTEMPTS {
                return Err(failure);
            }
            attempt += 1;
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

/// Describes a failure and its remedy.
fn explain(arn: &str, failure: &Failure) -> String {
    let code = match failure {
        Failure::Unreachable(why) => {
            return format!(
                "Secrets Manager cannot be reached for {arn}; \
                 check how the function leaves the VPC (endpoint, security group): {why}"
            );
        }
        Failure::Rejected(code) => code.as_str(),
    };
    match code {
        "ResourceNotFoundException" => {
            format!(
                "secret {arn} does not exist or has no value; check the ARN and the region, and run \
                 `migrate`, which writes the secrets of database roles"
            )
        }
        "AccessDeniedException" => format!(
            "reading secret {arn} is denied; \
             grant secretsmanager:GetSecretValue on it to the function's role"
        ),
        "DecryptionFailure" => format!(
            "secret {arn} cannot be decrypted; grant kms:Decrypt on its key to the function's role"
        ),
        _ => format!("secret {arn} cannot be read: {code}"),
    }
}
