//! Decides whether a new version may get traffic. CodeDeploy invokes this function before it shifts traffic; it has
//! no route.
//!
//! First it invokes the new version of `migrate`. Then it invokes `GET /health` of the new version of `health`, which
//! pings Redis and PostgreSQL from inside the VPC with the settings and secrets of this release. At the end it reports
//! the result to CodeDeploy. CodeDeploy's event does not name the versions, so the template sets them as variables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pennon_core::app::App;
use pennon_core::aws::{Aws, CallError, QualifiedFunction};
use pennon_core::error::Error;
use serde_json::{Value, json};

/// Time limit of one invocation of `migrate`, a little more than that function's timeout. Several deployments invoke it
/// at once, and each run waits for the runs before it.
const MIGRATION: Duration = Duration::from_secs(305);
/// Time limit of one health check, including a cold start.
const HEALTH_CHECK: Duration = Duration::from_secs(15);
/// The pause between two attempts, so that a brief outage can end.
const PAUSE: Duration = Duration::from_secs(2);

/// Migrates, waits until the version is healthy, and reports `Succeeded` or `Failed`. Each of the first two steps is
/// retried for at most `PRE_TRAFFIC_RETRY_LIMIT_MS`. `migrate` is not retried if it has run and failed, or if the
/// permission to invoke it is missing.
///
/// # Errors
/// If the event is not from CodeDeploy, a variable that Lambda sets is missing, or the report to CodeDeploy fails.
/// CodeDeploy then cancels the deployment after an hour.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let id = |name: &str| {
        let missing = || Error::Internal(format!("the event has no {name}"));
        event[name].as_str().ok_or_else(missing)
    };
    let deployment = id("DeploymentId")?;
    let execution = id("LifecycleEventHookExecutionId")?;
    let aws = Aws::from_process().map_err(Error::Internal)?;

    let outcome = match migrate(&app, &aws).await {
        Ok(()) => wait_until_healthy(&app, &aws).await,
        Err(why) => Err(why),
    };
    match &outcome {
        Ok(()) => tracing::info!(domain = "config", deployment, "the new version is healthy"),
        Err(why) => {
            tracing::error!(domain = "config", deployment, error = %why, "the new version gets no traffic");
        }
    }
    aws.report_hook(deployment, execution, outcome.is_ok())
        .await
        .map_err(|why| Error::Unavailable(why.to_string()))?;
    Ok(json!({ "deployment": deployment, "healthy": outcome.is_ok() }))
}

/// Migrations are additive, so the old version keeps working. The deployments of all functions invoke `migrate` at
/// once and may exceed its concurrency; a retry is safe, because runs are serialised and apply only missing steps.
async fn migrate(app: &App, aws: &Aws) -> Result<(), String> {
    let Some(arn) = &app.config.pre_traffic.migrate_function else {
        return Ok(());
    };
    let version = QualifiedFunction::parse_version(arn)
        .ok_or("MIGRATE_FUNCTION_ARN is not the ARN of a function's version")?;
    let attempt = || async {
        let done = aws.invoke(&version, &json!({}), MIGRATION).await?;
        let applied = &done["applied"];
        tracing::info!(domain = "config", %applied, "the database is up to date");
        Ok(())
    };
    let outcome = retry(app, "not migrated yet", attempt).await;
    outcome.map_err(|why| format!("migrate: {why}"))
}

async fn wait_until_healthy(app: &App, aws: &Aws) -> Result<(), String> {
    let arn = app.config.pre_traffic.health_function.as_deref();
    let version = arn
        .and_then(QualifiedFunction::parse_version)
        .ok_or("HEALTH_FUNCTION_ARN is not the ARN of a function's version")?;
    let attempt = || async {
        let response = aws.invoke(&version, &health_event(), HEALTH_CHECK).await;
        // Every failure may be temporary.
        response
            .map_err(|error| error.to_string())
            .and_then(|response| check_health(&response))
            .map_err(CallError::Transient)
    };
    retry(app, "not healthy yet", attempt).await
}

/// Retries until success, a permanent error, or the time limit.
async fn retry<F: Future<Output = Result<(), CallError>>>(
    app: &App,
    not_yet: &str,
    attempt: impl Fn() -> F,
) -> Result<(), String> {
    let deadline = Instant::now() + app.config.pre_traffic.retry_limit;
    loop {
        let why = match attempt().await {
            Ok(()) => return Ok(()),
            Err(CallError::Permanent(why) | CallError::Invalid(why)) => return Err(why),
            Err(CallError::Transient(why)) => why,
        };
        if Instant::now() + PAUSE > deadline {
            return Err(why);
        }
        tracing::warn!(domain = "config", error = %why, "{not_yet}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Requires that Redis and PostgreSQL both answer. The service works without Redis, but a release that loses the
/// connection to Redis must not get traffic. A row that cannot be read is no reason to reject a release, which may be
/// meant to read it.
fn check_health(response: &Value) -> Result<(), String> {
    let body = response["body"].as_str().unwrap_or_default();
    let health: Value = serde_json::from_str(body).unwrap_or_default();
    let services = &health["services"];
    let has_cache = ["healthy", "disabled"]
        .map(Value::from)
        .contains(&services["cache"]);
    if response["statusCode"] == 200 && services["database"] == "healthy" && has_cache {
        return Ok(());
    }
    Err(format!(
        "health answered {}: {body}",
        response["statusCode"]
    ))
}

/// An event of API Gateway for `GET /health`.
fn health_event() -> Value {
    json!({
        "version": "2.0",
        "routeKey": "GET /health",
        "rawPath": "/health",
        "rawQueryString": "",
        "headers": { "host": "pre-traffic", "user-agent": "pennon-pre-traffic" },
        "requestContext": {
            "http": { "method": "GET", "path": "/health", "protocol": "HTTP/1.1" },
            "requestId": "pre-traffic",
            "routeKey": "GET /health",
            "stage": "$default",
        },
        "isBase64Encoded": false,
    })
}
