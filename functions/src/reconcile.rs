//! Makes the changes whose time has come; then compares the cache with the database, drops entries that
//! are different and fills what is missing. Runs every minute: it is what bounds a lost invalidation.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::telemetry::Metric;
use serde_json::{Value, json};

/// Makes scheduled changes, reconciles every environment, and says what that took.
///
/// # Errors
/// [`Error::Unavailable`] when the database does not answer, a scheduled change could not be made, or
/// Redis could not be asked about some environment: the invocation fails, so that an alarm sees it.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let budget = app.config.cache.request_budget;
    let schedules = app.service.run_schedules(budget).await;
    let ramps = app.service.run_ramps(app.alarms(), budget).await;
    // Whatever became of schedules, a lost invalidation must not wait.
    let done = app.service.reconcile(budget).await?;
    let schedules = schedules?;
    let ramps = ramps?;
    tracing::info!(
        domain = "config",
        applied = schedules.applied,
        postponed = schedules.postponed,
        failed = schedules.failed,
        ramps = ramps.checked,
        ramps_advanced = ramps.advanced,
        ramps_rolled_back = ramps.rolled_back,
        environments = done.environments,
        repaired = done.repaired,
        warmed = done.warmed,
        unreachable = done.unreachable,
        "cache reconciled"
    );
    if done.forged > 0 {
        app.instance
            .write_metric(Metric::ForgedEntries, done.forged);
    }
    if done.unreachable > 0 {
        return Err(Error::Unavailable(format!(
            "Redis could not be asked about {} of {} environments",
            done.unreachable, done.environments
        )));
    }
    if schedules.postponed > 0 {
        return Err(Error::Unavailable(format!(
            "{} scheduled changes could not be made in time",
            schedules.postponed
        )));
    }
    if ramps.failed > 0 {
        return Err(Error::Unavailable(format!(
            "{} ramps could not be checked",
            ramps.failed
        )));
    }
    Ok(json!({
        "applied": schedules.applied,
        "environments": done.environments,
        "repaired": done.repaired,
        "warmed": done.warmed,
    }))
}
