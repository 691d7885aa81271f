//! Applies due schedules and advances ramps; then compares the cache with the database, removes entries that differ and
//! fills missing ones; then sends waiting change events to EventBridge and to webhooks. It runs every minute, which
//! limits how long a lost invalidation has an effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

/// The steps of a run, in their order. Together they end within 50 s. Otherwise Lambda would stop the run before change
/// events are sent, or before the responses of webhooks are recorded; their receivers would then get the same events
/// again. The last item of a step exceeds its limit: with a database that needs seconds for a statement, a schedule or
/// a ramp by about 4 s, a comparison by 8 s, change events by 4 s, and a round of webhooks by 22 s.
const SCHEDULES: Step = Step::of(10, 10);
const RAMPS: Step = Step::of(25, 25);
const COMPARISONS: Step = Step::of(15, 32);
const EVENTS: Step = Step::of(10, 44);
const WEBHOOKS: Step = Step::of(8, 28);
/// Several runs have failed to deliver an event of this age, so an operator has to look.
const MAX_EVENT_AGE: Duration = Duration::from_secs(15 * 60);

/// The time limits of a step. It begins no further item after them.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Since its own beginning.
    most: Duration,
    /// Since the beginning of the invocation.
    until: Duration,
}

impl Step {
    const fn of(most: u64, until: u64) -> Self {
        Self {
            most: Duration::from_secs(most),
            until: Duration::from_secs(until),
        }
    }

    /// The time for the step if it begins so long after the invocation.
    fn after(self, elapsed: Duration) -> Duration {
        self.most.min(self.until.saturating_sub(elapsed))
    }
}

/// Applies due schedules, advances ramps, reconciles every environment, sends change events, and returns the numbers.
///
/// # Errors
/// [`Error::Unavailable`] if the database does not answer, a scheduled change failed for a reason that a retry may
/// resolve or no time was left for it, a ramp could not be checked, Redis was unavailable for an environment, a change
/// event is undelivered for too long, or `send-webhooks` cannot be invoked. The invocation then fails, so that an alarm
/// reports it. A webhook that fails is not an error; the list of webhooks shows its failures.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let began = Instant::now();
    let budget = app.config.cache.request_budget;
    let left = |step: Step| step.after(began.elapsed());
    let service = &app.service;
    let schedules = service.run_schedules(budget, left(SCHEDULES)).await;
    let ramps = service.run_ramps(app.alarms(), budget, left(RAMPS)).await;
    // Reconciles even if schedules or ramps failed: a lost invalidation must not wait for them.
    let done = service.reconcile(budget, left(COMPARISONS)).await;
    // Last, and before any error is returned: an outage of EventBridge must not delay the cache, and an error of the
    // steps before must not delay events.
    let published = service.publish(app.bus(), left(EVENTS)).await;
    let webhooks = service
        .deliver_webhooks(app.webhook_transport(), left(WEBHOOKS))
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
        environments_left = done.left,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The time limit of an invocation.
    const TIME_LIMIT: Duration = Duration::from_secs(50);

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
    fn a_run_ends_in_time_even_if_every_step_uses_all_of_its_time() {
        let mut elapsed = Duration::ZERO;
        let last_items = [(SCHEDULES, 4), (RAMPS, 4), (COMPARISONS, 8), (EVENTS, 4)];
        for (step, last_item) in last_items {
            let within = step.after(elapsed);
            assert!(within >= Duration::from_secs(3), "{step:?}: {within:?}");
            elapsed += within + Duration::from_secs(last_item);
        }
        assert!(elapsed < TIME_LIMIT, "{elapsed:?}");
        assert_eq!(WEBHOOKS.after(elapsed), Duration::ZERO);
    }

    #[test]
    fn the_last_round_of_webhooks_ends_before_the_invocation() {
        for (elapsed, expected) in [(0, 8), (20, 8), (23, 5), (28, 0), (45, 0)] {
            let (elapsed, expected) = (Duration::from_secs(elapsed), Duration::from_secs(expected));
            assert_eq!(WEBHOOKS.after(elapsed), expected);
            let ends = elapsed + expected + Duration::from_secs(22);
            assert!(expected.is_zero() || ends <= TIME_LIMIT, "{ends:?}");
        }
    }
}
