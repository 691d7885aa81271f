//! Secrets Manager: the only home of the AWS SDK.
//!
//! The SDK is built only when a secret is asked for. Its own limits are minutes, longer than Lambda
//! grants to a cold start, so ours apply.

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

/// One attempt to connect.
const CONNECT: Duration = Duration::from_secs(1);
/// One attempt, answer included.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Everything, so that the fallback still comes within a cold start.
const OPERATION: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 2;

/// The authorities behind the endpoints of AWS: <https://www.amazontrust.com/repository/>. Compiled in,
/// because reading the hundreds of files of a system's store takes longer than everything else in a
/// cold start.
const AMAZON_AUTHORITIES: &[u8] = include_bytes!("../certs/amazon.pem");

/// Reads secrets, with one client for all of them.
#[derive(Default)]
pub struct Secrets {
    client: OnceCell<Client>,
}

impl Secrets {
    /// What a source says: a text, or nothing when none is configured.
    ///
    /// # Errors
    /// A sentence for the log that says what to do. It holds the secret's ARN and not its value.
    pub async fn resolve(&self, source: &UrlSource) -> Result<Option<Secret>, String> {
        match source {
            UrlSource::Plain(secret) => Ok(Some(secret.clone())),
            UrlSource::None => Ok(None),
            UrlSource::SecretArn(arn) => {
                // The SDK's future is tens of kilobytes, and its type too deep for those around it.
                let fetch: BoxFuture<'_, Result<Secret, String>> = Box::pin(self.fetch(arn));
                fetch.await.map(Some)
            }
        }
    }

    /// The value of a secret. `None` when it has none yet: the template creates the secrets of database
    /// roles, and `migrate` writes them.
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

    /// Gives a secret this value.
    ///
    /// # Errors
    /// A sentence for the log that says what to do. It holds the secret's ARN and not its value.
    pub async fn put(&self, arn: &str, value: &Secret) -> Result<(), String> {
        let writing: BoxFuture<'_, Result<(), String>> = Box::pin(async {
            let client = self.client.get_or_init(connect).await;
            let request = client.put_secret_value().secret_id(arn);
            let answer = request.secret_string(value.expose()).send().await;
            answer.map_err(|error| match error.as_service_error() {
                Some(service) => format!(
                    "secret {arn} cannot be written: {}; it has to exist, and the function's role needs \
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
                "secret {arn} has no text; put the connection URL in as its SecretString"
            )),
        }
    }
}

async fn connect() -> Client {
    let region = crate::config::process_environment("AWS_REGION");
    let mut builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    match trust(region.as_deref()) {
        Ok(context) => builder = builder.tls_context(context),
        Err(error) => tracing::warn!(domain = "config", %error, "using the system's authorities"),
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
    // Lambda puts a role's credentials here. The chain that would look in every other place as well
    // takes a millisecond to build.
    if crate::config::process_environment("AWS_ACCESS_KEY_ID").is_some() {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    // Lambda always says which region this is. Elsewhere the SDK would look for it in the network.
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    Client::new(&loader.load().await)
}

/// Whom to trust: Amazon's own authorities; in the partitions that have others, the system's store.
fn trust(region: Option<&str>) -> Result<TlsContext, impl std::fmt::Display> {
    let apart = ["cn-", "us-gov-", "us-iso", "eusc-"];
    let is_apart = region.is_none_or(|region| apart.iter().any(|start| region.starts_with(start)));
    let store = if is_apart {
        TrustStore::default()
    } else {
        TrustStore::empty().with_pem_certificate(AMAZON_AUTHORITIES)
    };
    TlsContext::builder().with_trust_store(store).build()
}

/// What went wrong and what to do about it. The SDK's texts hold no secret values.
fn explain<R>(arn: &str, error: &SdkError<GetSecretValueError, R>) -> String {
    let Some(service) = error.as_service_error() else {
        return format!(
            "Secrets Manager cannot be reached for {arn}; \
             check the function's way out of the VPC (endpoint, security group): {error}"
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
