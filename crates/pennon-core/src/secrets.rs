//! Reads and writes secrets in Secrets Manager, with the AWS SDK.
//!
//! The client is created when the first secret is read. The SDK's default timeouts are minutes, longer than the
//! initialisation phase of Lambda, so it uses the timeouts below.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::config::{Secret, UrlSource};

/// Time limit of connecting.
const CONNECT: Duration = Duration::from_secs(1);
/// Time limit of one attempt, including the response.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Time limit of all attempts, so that the instance can fall back within its cold start.
const OPERATION: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 2;

/// The root certificates of AWS endpoints: <https://www.amazontrust.com/repository/>. They are compiled in, because
/// reading the hundreds of certificates of the system takes longer than the rest of a cold start.
const AMAZON_AUTHORITIES: &[u8] = include_bytes!("../certs/amazon.pem");

/// Reads and writes secrets with one shared client.
#[derive(Default)]
pub struct Secrets {
    client: OnceCell<Client>,
}

impl Secrets {
    /// Returns the URL of a source, or `None` if none is configured.
    ///
    /// # Errors
    /// A message for the log with the remedy. It contains the secret's ARN but not its value.
    pub async fn resolve(&self, source: &UrlSource) -> Result<Option<Secret>, String> {
        match source {
            UrlSource::Plain(secret) => Ok(Some(secret.clone())),
            UrlSource::None => Ok(None),
            UrlSource::SecretArn(arn) => {
                // Boxed, because the SDK's future has tens of kilobytes and a deeply nested type.
                let fetch: BoxFuture<'_, Result<Secret, String>> = Box::pin(self.fetch(arn));
                fetch.await.map(Some)
            }
        }
    }

    /// The value of a secret, or `None` if it has no value yet: the template creates the secrets of database roles
    /// without a value, and `migrate` writes it.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub async fn current(&self, arn: &str) -> Result<Option<Secret>, String> {
        let reading: BoxFuture<'_, Result<Option<Secret>, String>> = Box::pin(async {
            let client = self.client.get_or_init(connect).await;
            let answer = client.get_secret_value().secret_id(arn).send().await;
            match answer {
                Ok(value) => Ok(value.secret_string().map(Secret::new)),
                Err(error) => {
                    let service = error.as_service_error();
                    if service.is_some_and(GetSecretValueError::is_resource_not_found_exception) {
                        Ok(None)
                    } else {
                        Err(explain(arn, &error))
                    }
                }
            }
        });
        reading.await
    }

    /// Writes the value of a secret.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub async fn put(&self, arn: &str, value: &Secret) -> Result<(), String> {
        let writing: BoxFuture<'_, Result<(), String>> = Box::pin(async {
            let client = self.client.get_or_init(connect).await;
            let request = client.put_secret_value().secret_id(arn);
            let answer = request.secret_string(value.expose()).send().await;
            answer.map_err(|error| match error.as_service_error() {
                Some(service) => format!(
                    "secret {arn} cannot be written: {}; the secret must exist, and the function's role needs \
                     secretsmanager:PutSecretValue on it",
                    service.meta().code().unwrap_or("unknown")
                ),
                None => format!("Secrets Manager cannot be reached for {arn}: {error}"),
            })?;
            Ok(())
        });
        writing.await
    }

    async fn fetch(&self, arn: &str) -> Result<Secret, String> {
        let client = self.client.get_or_init(connect).await;
        let answer = client.get_secret_value().secret_id(arn).send().await;
        let value = answer.map_err(|error| explain(arn, &error))?;
        match value.secret_string() {
            Some(text) if !text.trim().is_empty() => Ok(Secret::new(text)),
            Some(_) | None => Err(format!(
                "secret {arn} has no text; store the connection URL as its SecretString"
            )),
        }
    }
}

async fn connect() -> Client {
    let region = crate::config::process_environment("AWS_REGION");
    let mut builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    match trust(region.as_deref()) {
        Ok(context) => builder = builder.tls_context(context),
        Err(error) => {
            tracing::warn!(domain = "config", %error, "using the system's root certificates");
        }
    }
    let http = builder.build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    // Lambda sets these variables to the credentials of the role. The SDK's default chain of providers takes a
    // millisecond to build.
    if crate::config::process_environment("AWS_ACCESS_KEY_ID").is_some() {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    // Always set on Lambda. Without it, the SDK requests the region from the instance metadata service.
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    Client::new(&loader.load().await)
}

/// Trusts Amazon's root certificates, and those of the system in partitions whose endpoints may have others.
fn trust(region: Option<&str>) -> Result<TlsContext, impl std::fmt::Display> {
    let prefixes = ["cn-", "us-gov-", "us-iso", "eusc-"];
    let is_other_partition =
        region.is_none_or(|region| prefixes.iter().any(|prefix| region.starts_with(prefix)));
    let store = if is_other_partition {
        TrustStore::default()
    } else {
        TrustStore::empty().with_pem_certificate(AMAZON_AUTHORITIES)
    };
    TlsContext::builder().with_trust_store(store).build()
}

/// Describes an error and its remedy. The SDK's messages contain no secret values.
fn explain<R>(arn: &str, error: &SdkError<GetSecretValueError, R>) -> String {
    let Some(service) = error.as_service_error() else {
        return format!(
            "Secrets Manager cannot be reached for {arn}; \
             check how the function leaves the VPC (endpoint, security group): {error}"
        );
    };
    let code = service.meta().code().unwrap_or("unknown");
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
