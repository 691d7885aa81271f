//! Applies due schedules; then compares the cache with the database, removes entries that differ and fills missing
//! ones. It runs every minute, which limits how long a lost invalidation has an effect.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::telemetry::Metric;
use serde_json::{Value, json};

/// Applies due schedules, reconciles every environment, and returns the numbers.
///
/// # Errors
/// [`Error::Unavailable`] if the database does not answer, a scheduled change failed, or Redis was unavailable for
/// an environment: the invocation fails, so that an alarm reports it.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let budget = app.config.cache.request_budget;
    let schedules = app.service.run_schedules(budget).await;
    let ramps = app.service.run_ramps(app.alarms(), budget).await;
    // Reconciles even if schedules or ramps failed: a lost invalidation must not wait for them.
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
            "Redis is unavailable for {} of {} environments",
            done.unreachable, done.environments
        )));
    }
    if schedules.postponed > 0 {
        return Err(Error::Unavailable(format!(
            "{} scheduled changes failed and will be retried",
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
