//! Applies due schedules and advances ramps; then compares the cache with the database, removes entries that differ and
//! fills missing ones; then sends waiting change events to EventBridge and to webhooks. It runs every minute, which
//! limits how long a lost invalidation has an effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

/// The time limit of an invocation: the function's timeout.
const TIME_LIMIT: Duration = Duration::from_secs(50);
/// The time limit for change events.
const PUBLISH_BUDGET: Duration = Duration::from_secs(10);
/// No request to a webhook begins later.
const WEBHOOKS_BUDGET: Duration = Duration::from_secs(8);
/// How long the last requests to webhooks take, with the transactions before and after them.
const LAST_REQUESTS: Duration = Duration::from_secs(20);
/// Several runs have failed to deliver an event of this age, so an operator has to look.
const MAX_EVENT_AGE: Duration = Duration::from_secs(15 * 60);

/// Applies due schedules, advances ramps, reconciles every environment, sends change events, and returns the numbers.
///
/// # Errors
/// [`Error::Unavailable`] if the database does not answer, a scheduled change failed for a reason that a retry may
/// resolve, a ramp could not be checked, Redis was unavailable for an environment, a change event is undelivered for
/// too long, or `send-webhooks` cannot be invoked: the invocation fails, so that an alarm reports it. A webhook that
/// fails is not an error; the list of webhooks shows its failures.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let began = Instant::now();
    let budget = app.config.cache.request_budget;
    let schedules = app.service.run_schedules(budget).await;
    let ramps = app.service.run_ramps(app.alarms(), budget).await;
    // Reconciles even if schedules or ramps failed: a lost invalidation must not wait for them.
    let done = app.service.reconcile(budget).await;
    // Last, and before any error is returned: an outage of EventBridge must not delay the cache, and an error of the
    // steps before must not delay events.
    let published = app.service.publish(app.bus(), PUBLISH_BUDGET).await;
    let webhooks = app
        .service
        .deliver_webhooks(app.webhook_transport(), webhooks_budget(began.elapsed()))
        .await;
    let done = done?;
    let schedules = schedules?;
    let ramps = ramps?;
    let published = published?;
    let webhooks = webhooks?;
    tracing::info!(
        domain = "config",
        applied = schedules.applied,
        postponed = schedules.postponed,
        failed = schedules.failed,
        left = schedules.left,
        ramps = ramps.checked,
        ramps_advanced = ramps.advanced,
        ramps_rolled_back = ramps.rolled_back,
        events_delivered = published.delivered,
        events_rejected = published.rejected,
        events_expired = published.expired,
        events_waiting = published.backlog.events,
        webhook_events_delivered = webhooks.delivered,
        webhook_requests_failed = webhooks.failed,
        webhooks_disabled = webhooks.disabled,
        environments = done.environments,
        repaired = done.repaired,
        warmed = done.warmed,
        unreachable = done.unreachable,
        "cache reconciled"
    );
    if done.unreachable > 0 {
        return Err(Error::Unavailable(format!(
            "Redis is unavailable for {} of {} environments",
            done.unreachable, done.environments
        )));
    }
    if schedules.postponed + schedules.left > 0 {
        return Err(Error::Unavailable(format!(
            "{} scheduled changes failed for a reason that a retry may resolve, and no time was left for {}",
            schedules.postponed, schedules.left
        )));
    }
    if ramps.failed > 0 {
        return Err(Error::Unavailable(format!(
            "{} ramps could not be checked",
            ramps.failed
        )));
    }
    if published.backlog.age > MAX_EVENT_AGE {
        return Err(Error::Unavailable(format!(
            "{} change events are undelivered, the oldest for {} s",
            published.backlog.events,
            published.backlog.age.as_secs()
        )));
    }
    Ok(json!({
        "applied": schedules.applied,
        "environments": done.environments,
        "repaired": done.repaired,
        "warmed": done.warmed,
    }))
}

/// The time for requests to webhooks after the other steps took `elapsed`. If Lambda ended the invocation before the
/// results of requests are recorded, the receivers would get the same events again.
fn webhooks_budget(elapsed: Duration) -> Duration {
    WEBHOOKS_BUDGET.min(TIME_LIMIT.saturating_sub(LAST_REQUESTS + elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_limit_is_the_timeout_in_the_template() {
        let template = include_str!("../../template.yaml");
        let (_, function) = template
            .split_once("\n  ReconcileFunction:\n")
            .expect("the function");
        let timeout = function
            .lines()
            .take_while(|line| line.starts_with("    "))
            .find_map(|line| line.trim().strip_prefix("Timeout: "));
        assert_eq!(timeout, Some(TIME_LIMIT.as_secs().to_string().as_str()));
    }

    #[test]
    fn requests_to_webhooks_end_before_the_invocation() {
        for (elapsed, budget) in [(0, 8), (22, 8), (25, 5), (30, 0), (45, 0)] {
            let budget = Duration::from_secs(budget);
            assert_eq!(webhooks_budget(Duration::from_secs(elapsed)), budget);
        }
    }
}
