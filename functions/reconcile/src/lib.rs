//! Compares the cache with the database, drops entries that are older and fills what is missing.
//! Runs every minute: it is what bounds a lost invalidation.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

/// Reconciles every environment and says what that took.
///
/// # Errors
/// [`Error::Unavailable`] when the database does not answer, or Redis could not be asked about some
/// environment: the invocation fails, so that an alarm sees it.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let done = app
        .service
        .reconcile(app.config.cache.request_budget)
        .await?;
    tracing::info!(
        domain = "config",
        environments = done.environments,
        repaired = done.repaired,
        warmed = done.warmed,
        unreachable = done.unreachable,
        "cache reconciled"
    );
    if done.unreachable > 0 {
        return Err(Error::Unavailable(format!(
            "Redis could not be asked about {} of {} environments",
            done.unreachable, done.environments
        )));
    }
    Ok(json!({
        "environments": done.environments,
        "repaired": done.repaired,
        "warmed": done.warmed,
    }))
}
