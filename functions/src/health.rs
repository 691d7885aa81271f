//! `GET /health` and `/health/ready`: whether Redis and PostgreSQL answer. The result for PostgreSQL may be up to ten
//! seconds old. `GET /health/live` checks neither.

use std::sync::Arc;
use std::time::Duration;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use serde_json::json;

/// Time limit of the checks of Redis and PostgreSQL, which run concurrently.
const TIMEOUT: Duration = Duration::from_secs(1);

/// `/health` and `/health/live` always return 200. `/health/ready` returns 503 if the database does not answer
/// or cannot be read. It ignores Redis, without which responses are slower but correct.
///
/// # Errors
/// None.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let route = request.route().map(|route| route.path);
    if route == Some("/health/live") {
        return Ok(http::json(StatusCode::OK, &json!({ "status": "ok" })));
    }
    let check = app.service.check_database(request.context(), TIMEOUT);
    let (check, cache) = tokio::join!(check, cache(&app));
    let database = report("database", check.failure.map_or(Ok(()), Err));
    let exposes_failure_reasons = app.service.store().exposes_failure_reasons();
    let response = if route == Some("/health/ready") {
        let checks = json!({ "database": database.status(), "cache": cache.status() });
        if database.is_healthy() {
            let body = json!({ "status": "ready", "checks": checks });
            http::json(StatusCode::OK, &body)
        } else {
            let body = json!({ "status": "not_ready", "checks": checks });
            http::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    } else {
        let unreadable = check.unreadable_rows;
        let state_file_problem = app.service.store().unreadable_state();
        let healthy = database.is_healthy()
            && cache.is_healthy()
            && unreadable == 0
            && state_file_problem.is_none();
        let mut body = json!({
            "status": if healthy { "healthy" } else { "degraded" },
            "version": env!("CARGO_PKG_VERSION"),
            "environment": app.config.stage,
            "timestamp": http::timestamp(std::time::SystemTime::now()),
            "services": { "database": database.status(), "cache": cache.status() },
        });
        if unreadable > 0 {
            body["unreadableRows"] = json!(unreadable);
        }
        if let Some(why) = state_file_problem {
            body["message"] = json!(why);
        }
        if let (Check::Failed(why), true) = (&database, exposes_failure_reasons) {
            body["message"] = json!(why);
        }
        http::json(StatusCode::OK, &body)
    };
    Ok(http::with_header(response, "cache-control", "no-store"))
}

/// The result of a check.
enum Check {
    Healthy,
    /// The service does not answer, cannot be read, or has an invalid URL; holds the reason.
    Failed(String),
    /// The service is not configured, which is supported.
    Disabled,
}

impl Check {
    fn is_healthy(&self) -> bool {
        match self {
            Self::Healthy | Self::Disabled => true,
            Self::Failed(_) => false,
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failed(_) => "unhealthy",
            Self::Disabled => "disabled",
        }
    }
}

async fn cache(app: &App) -> Check {
    match app.service.cache() {
        Some(cache) => report("cache", cache.ping(TIMEOUT).await),
        // An unreadable or invalid URL is a failure; a missing one is not.
        None if app.config.cache.is_configured() => {
            Check::Failed("the URL of Redis cannot be read".to_owned())
        }
        None => Check::Disabled,
    }
}

fn report(service: &str, outcome: Result<(), String>) -> Check {
    match outcome {
        Ok(()) => Check::Healthy,
        Err(why) => {
            tracing::warn!(domain = "config", service, error = %why, "health check failed");
            Check::Failed(why)
        }
    }
}
