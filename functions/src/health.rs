//! `GET /health`, `/health/live` and `/health/ready`: whether Redis answers right now, and whether
//! PostgreSQL did within the last ten seconds.

use std::sync::Arc;
use std::time::Duration;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use serde_json::json;

/// How long Redis and PostgreSQL have for an answer, both at once.
const WITHIN: Duration = Duration::from_secs(1);

/// Answers for the route that was asked: 200 always for `/health` and `/health/live`, 503 for
/// `/health/ready` when the database does not answer. Without Redis the service is slower, not
/// wrong, so Redis does not count there.
///
/// # Errors
/// None.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let route = request.route().map(|route| route.path);
    if route == Some("/health/live") {
        return Ok(http::json(StatusCode::OK, &json!({ "status": "ok" })));
    }
    let check = app.service.check_database(request.scope(), WITHIN);
    let (check, cache) = tokio::join!(check, cache(&app));
    let database = judge("database", check.failure.map_or(Ok(()), Err));
    let may_tell_why = app.service.store().may_tell_why();
    let response = if route == Some("/health/ready") {
        let checks = json!({ "database": database.word(), "cache": cache.word() });
        if database.is_well() {
            let body = json!({ "status": "ready", "checks": checks });
            http::json(StatusCode::OK, &body)
        } else {
            let body = json!({ "status": "not_ready", "checks": checks });
            http::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    } else {
        let unreadable = check.unreadable_rows;
        let unreadable_state = app.service.store().unreadable_state();
        let well =
            database.is_well() && cache.is_well() && unreadable == 0 && unreadable_state.is_none();
        let mut body = json!({
            "status": if well { "healthy" } else { "degraded" },
            "version": env!("CARGO_PKG_VERSION"),
            "environment": app.config.stage,
            "timestamp": http::timestamp(std::time::SystemTime::now()),
            "services": { "database": database.word(), "cache": cache.word() },
        });
        if unreadable > 0 {
            body["unreadableRows"] = json!(unreadable);
        }
        if let Some(why) = unreadable_state {
            body["message"] = json!(why);
        }
        if let (Check::Failed(why), true) = (&database, may_tell_why) {
            body["message"] = json!(why);
        }
        http::json(StatusCode::OK, &body)
    };
    Ok(http::with_header(response, "cache-control", "no-store"))
}

/// How one of the services does.
enum Check {
    Well,
    /// It does not answer, and why.
    Failed(String),
    /// It is not configured, which is a legal way to run.
    Disabled,
}

impl Check {
    fn is_well(&self) -> bool {
        match self {
            Self::Well | Self::Disabled => true,
            Self::Failed(_) => false,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Well => "healthy",
            Self::Failed(_) => "unhealthy",
            Self::Disabled => "disabled",
        }
    }
}

async fn cache(app: &App) -> Check {
    match app.service.cache() {
        Some(cache) => judge("cache", cache.ping(WITHIN).await),
        // A URL that could not be had or understood is a failure; none at all is not.
        None if app.config.cache.is_configured() => {
            Check::Failed("its address could not be read".to_owned())
        }
        None => Check::Disabled,
    }
}

fn judge(service: &str, outcome: Result<(), String>) -> Check {
    match outcome {
        Ok(()) => Check::Well,
        Err(why) => {
            tracing::warn!(domain = "config", service, error = %why, "health check failed");
            Check::Failed(why)
        }
    }
}
