//! Delivery of change events from the outbox to EventBridge.

use std::time::{Duration, Instant};

use super::FlagService;
use crate::environment::Environment;
use crate::error::Error;
use crate::events::{Delivery, EventBus, MAX_ENTRIES};
use crate::store::Backlog;

/// The time limit of a call to EventBridge. Well below [`crate::store::COMMIT_TIMEOUT`], after which the database
/// would end the transaction around it.
const MAX_CALL: Duration = Duration::from_secs(3);
/// A call does not start with less time than this, or than an earlier call of the run has taken: it would end at its
/// time limit, and open the breaker of the bus although EventBridge answers.
const MIN_CALL: Duration = Duration::from_millis(20);

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Events that EventBridge accepted.
    pub delivered: usize,
    /// Events that EventBridge rejected. They are sent again later.
    pub rejected: usize,
    /// Events that were removed undelivered, for EventBridge or a webhook.
    pub expired: u64,
    /// Events that are still waiting for EventBridge.
    pub backlog: Backlog,
}

impl FlagService {
    /// Delivers waiting change events, after the change of a request is committed. Takes at most `within` and never
    /// fails: undelivered events stay in the outbox, and `reconcile` sends them.
    pub async fn publish_after_change(&self, bus: &EventBus, within: Duration) {
        if !bus.is_available() {
            return;
        }
        let mut published = Published::default();
        // The last third is for the database. So a call that hangs reaches its own time limit, and the breaker of the
        // bus opens.
        let calls_end = Instant::now() + within * 2 / 3;
        let run = self.deliver(bus, calls_end, &mut published);
        match tokio::time::timeout(within, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(domain = "config", error = %error,
                    "change events were not delivered; reconcile sends them");
            }
            Err(_elapsed) => {
                tracing::warn!(
                    domain = "config",
                    "change events were not delivered in time; reconcile sends them"
                );
            }
        }
    }

    /// Removes expired events, then calls EventBridge with waiting ones for at most `within`. Without a bus, all events
    /// for EventBridge count as expired.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer. A failure of EventBridge is logged, and visible in the
    /// backlog.
    pub async fn publish(
        &self,
        bus: Option<&EventBus>,
        within: Duration,
    ) -> Result<Published, Error> {
        let expired = self.store.expire_events(bus.is_some()).await?;
        if expired > 0 {
            tracing::error!(
                domain = "config",
                expired,
                "change events were removed undelivered; the audit still contains the changes"
            );
        }
        let mut published = Published {
            expired,
            ..Published::default()
        };
        let Some(bus) = bus else {
            return Ok(published);
        };
        let calls_end = Instant::now() + within;
        if let Err(error) = self.deliver(bus, calls_end, &mut published).await {
            tracing::warn!(domain = "config", error = %error, "change events cannot be delivered");
        }
        published.backlog = self.store.backlog().await?;
        Ok(published)
    }

    /// Makes calls until no event can be sent now, a call fails or delivers no event, or the time is over.
    async fn deliver(
        &self,
        bus: &EventBus,
        calls_end: Instant,
        published: &mut Published,
    ) -> Result<(), Error> {
        // All environments share one outbox.
        let any = Environment::production();
        let mut needed = MIN_CALL;
        loop {
            let mut transaction = self.store.begin(&any, "events").await?;
            let events = transaction.claim_events(MAX_ENTRIES).await?;
            let left = calls_end.saturating_duration_since(Instant::now());
            if events.is_empty() || left < needed {
                return transaction.commit().await;
            }
            // An error drops the transaction, which rolls it back: the next run sends the same events again. The
            // same happens if the process ends here.
            let start = Instant::now();
            let deliveries = bus.put(&events, left.min(MAX_CALL)).await;
            needed = needed.max(start.elapsed());
            let deliveries = deliveries.map_err(|why| Error::Unavailable(why.to_string()))?;
            let (mut delivered, mut rejected) = (Vec::new(), Vec::new());
            for (event, delivery) in events.iter().zip(&deliveries) {
                match delivery {
                    Delivery::Accepted => delivered.push(event.position),
                    Delivery::Rejected(why) => {
                        tracing::warn!(
                            domain = "config",
                            environment = event.environment,
                            flag_key = event.flag_key,
                            audit_id = event.audit_id,
                            error = %why,
                            "EventBridge rejected a change event; it is sent again"
                        );
                        rejected.push(event.position);
                    }
                }
            }
            transaction.settle_events(&delivered, &rejected).await?;
            transaction.commit().await?;
            published.delivered += delivered.len();
            published.rejected += rejected.len();
            if delivered.is_empty() {
                return Ok(());
            }
        }
    }
}
