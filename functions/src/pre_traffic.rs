//! Decides whether a new version may get traffic. CodeDeploy invokes it before the first call is
//! shifted; no route leads here.
//!
//! It lets the new version of `migrate` bring the database up to date, asks the new version of
//! `health` for `/health`, which pings Redis and PostgreSQL from inside the VPC, with the settings
//! and the secrets of this release, and tells CodeDeploy. CodeDeploy's event does not say which
//! versions it is about, so the template does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pennon_core::app::App;
use pennon_core::aws::{Aws, FunctionVersion, Refusal};
use pennon_core::error::Error;
use serde_json::{Value, json};

/// What Lambda grants to `migrate`, and a moment. Several deployments come at once; the database lets
/// one after the other.
const MIGRATION: Duration = Duration::from_secs(305);
/// One question. The version may have to start first.
const QUESTION: Duration = Duration::from_secs(15);
/// Between two attempts: long enough for a blip to pass.
const PAUSE: Duration = Duration::from_secs(2);

/// Asks until the version is healthy or its time is over, and reports `Succeeded` or `Failed`.
///
/// # Errors
/// When the event is none of CodeDeploy's, or CodeDeploy cannot be told: it then waits, and gives
/// the deployment up after an hour.
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

/// Migrations only add, so the old version goes on while the new one finds what it needs. As every
/// function's deployment asks for them at once, there may be no instance left for a moment: it is
/// asked again, which does no harm, since one runs after the other and does only what is missing.
async fn migrate(app: &App, aws: &Aws) -> Result<(), String> {
    let Some(arn) = &app.config.rollout.migrate_function else {
        return Ok(());
    };
    let version = FunctionVersion::parse(arn)
        .ok_or("MIGRATE_FUNCTION_ARN is not the ARN of a function's version")?;
    let attempt = || async {
        let done = aws.invoke(&version, &json!({}), MIGRATION).await?;
        let applied = &done["applied"];
        tracing::info!(domain = "config", %applied, "the database is up to date");
        Ok(())
    };
    let outcome = insist(app, "not migrated yet", attempt).await;
    outcome.map_err(|why| format!("migrate: {why}"))
}

async fn wait_until_healthy(app: &App, aws: &Aws) -> Result<(), String> {
    let arn = app.config.rollout.health_function.as_deref();
    let version = arn
        .and_then(FunctionVersion::parse)
        .ok_or("HEALTH_FUNCTION_ARN is not the ARN of a function's version")?;
    let attempt = || async {
        let answer = aws.invoke(&version, &question(), QUESTION).await;
        // Whatever is wrong with it may be better in a moment.
        let judged = answer.map_err(|refusal| refusal.to_string());
        judged
            .and_then(|response| judge(&response))
            .map_err(Refusal::ForNow)
    };
    insist(app, "not healthy yet", attempt).await
}

/// Tries until it succeeds, is refused for good, or patience is at its end.
async fn insist<F: Future<Output = Result<(), Refusal>>>(
    app: &App,
    not_yet: &str,
    attempt: impl Fn() -> F,
) -> Result<(), String> {
    let deadline = Instant::now() + app.config.rollout.patience;
    loop {
        let why = match attempt().await {
            Ok(()) => return Ok(()),
            Err(Refusal::ForGood(why)) => return Err(why),
            Err(Refusal::ForNow(why)) => why,
        };
        if Instant::now() + PAUSE > deadline {
            return Err(why);
        }
        tracing::warn!(domain = "config", error = %why, "{not_yet}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Healthy means that both answer. A service whose cache is gone answers all the same, but a release
/// that takes the cache away is no release to shift traffic to.
fn judge(response: &Value) -> Result<(), String> {
    let body = response["body"].as_str().unwrap_or_default();
    let health: Value = serde_json::from_str(body).unwrap_or_default();
    if response["statusCode"] == 200 && health["status"] == "healthy" {
        return Ok(());
    }
    Err(format!(
        "health answered {}: {body}",
        response["statusCode"]
    ))
}

/// `GET /health` as API Gateway writes it.
fn question() -> Value {
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
