//! Sending change events from the outbox to webhooks.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::FlagService;
use super::webhooks::{find_webhook, state_of};
use crate::environment::Environment;
use crate::error::Error;
use crate::id::random_bytes;
use crate::store::{Action, LeasedWebhook, Transaction};
use crate::webhooks::{Failure, Message, Transport, UnreadableWebhook};

/// The actor of audit entries about webhooks that were disabled.
const ACTOR: &str = "webhooks";
/// Limit on the events of a request.
const MAX_EVENTS_PER_REQUEST: u32 = 20;
/// Limit on the bytes of the events of a request, unless it has only one: many receivers reject bodies of more than a
/// megabyte.
const MAX_REQUEST_SIZE: usize = 512 * 1024;
/// Limit on the requests that are sent at the same time.
const MAX_REQUESTS: usize = 20;
/// An invocation that has reached this size gets no further request. Lambda accepts 6 MB, and a request may have 1.5
/// MB.
const INVOCATION_SIZE: usize = 4 * 1024 * 1024;
/// Longer than the timeout of `send-webhooks`: when a lease expires, none of its requests is still on its way. Shorter
/// than the interval of `reconcile`: if `send-webhooks` cannot be invoked, every run must find that out and fail.
const LEASE: Duration = Duration::from_secs(30);
/// A round leases no further webhook after this time. With a slow database, recording the outcomes takes half as long
/// again as leasing did, and both must fit into [`MAX_ROUND`] beside the requests.
const MAX_LEASING: Duration = Duration::from_millis(1500);
/// A round, whose requests take up to 14 seconds, records no further outcome after this time: each locked environment
/// takes the time limit of a statement, and Lambda would stop `reconcile` at its timeout.
const MAX_ROUND: Duration = Duration::from_secs(18);

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebhooksRun {
    /// Events that receivers accepted.
    pub delivered: usize,
    /// Requests that failed.
    pub failed: usize,
    /// Webhooks that were disabled.
    pub disabled: usize,
}

impl FlagService {
    /// Sends the events of all webhooks that are due. Begins no further round of requests after `within`. A round takes
    /// up to 18 seconds, and the transaction around its last outcome more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if `send-webhooks` cannot be invoked, or the store does not answer, also if only the
    /// outcomes of one environment cannot be recorded. Events without a recorded outcome are sent again when the leases
    /// have expired.
    pub async fn deliver_webhooks(
        &self,
        transport: &Transport,
        within: Duration,
    ) -> Result<WebhooksRun, Error> {
        let started = Instant::now();
        let mut run = WebhooksRun::default();
        while started.elapsed() < within {
            let round_began = Instant::now();
            let Some(round) = self.lease_webhooks(round_began).await? else {
                break;
            };
            // Without an event that can be sent: other webhooks may have one.
            if round.is_empty() {
                continue;
            }
            let (leased, messages): (Vec<_>, Vec<_>) = round.into_iter().unzip();
            let outcomes = transport.send(messages).await.map_err(Error::Unavailable)?;
            let mut locked = HashSet::new();
            let mut failure = None;
            for (sent, outcome) in leased.iter().zip(outcomes) {
                let environment = &sent.leased.environment;
                // Someone may hold the lock of the environment: each of its other outcomes would wait for it too.
                if locked.contains(environment) {
                    continue;
                }
                if round_began.elapsed() > MAX_ROUND {
                    let late = "no time was left to record all responses of webhooks";
                    return Err(Error::Unavailable(late.to_owned()));
                }
                // If no transaction begins, the store does not answer, and would not for the others either.
                let transaction = self.begin(environment, ACTOR).await?;
                if let Err(error) = record_outcome(transaction, sent, outcome, &mut run).await {
                    locked.insert(environment);
                    failure.get_or_insert(error);
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(run)
    }

    /// Leases due webhooks and builds their requests. A lease is committed before its request is sent, because a
    /// request may take longer than a transaction. `None` if there is nothing to send and no other webhook is due.
    async fn lease_webhooks(
        &self,
        round_began: Instant,
    ) -> Result<Option<Vec<(Sent, Message)>>, Error> {
        let mut round = Vec::new();
        let mut size = 0;
        while round.len() < MAX_REQUESTS
            && size < INVOCATION_SIZE
            && round_began.elapsed() < MAX_LEASING
        {
            // Leases a webhook of any environment, whatever environment the transaction has.
            let mut transaction = self.begin(&Environment::production(), ACTOR).await?;
            let Some(leased) = transaction.lease_webhook(LEASE).await? else {
                transaction.rollback().await;
                if round.is_empty() {
                    return Ok(None);
                }
                break;
            };
            let events = transaction
                .next_events(&leased.webhook.id, MAX_EVENTS_PER_REQUEST)
                .await?;
            transaction.commit().await?;
            let mut sent = Sent {
                leased,
                positions: Vec::new(),
            };
            let mut bodies: Vec<Value> = Vec::new();
            let mut request_size = 0;
            for event in events {
                let body = event.to_json();
                request_size += body.to_string().len();
                if request_size > MAX_REQUEST_SIZE && !bodies.is_empty() {
                    break;
                }
                bodies.push(body);
                sent.positions.push(event.position);
            }
            // The audit entries of its events are gone, so nothing can be sent. The webhook stays leased, so that this
            // loop and the next rounds lease the others.
            if bodies.is_empty() {
                continue;
            }
            let LeasedWebhook {
                webhook,
                destination,
                ..
            } = &sent.leased;
            let message = Message::new(destination, webhook.format, &bodies, SystemTime::now());
            size += message.size();
            round.push((sent, message));
        }
        Ok(Some(round))
    }
}

/// Removes delivered events, or plans the next attempt.
async fn record_outcome(
    mut transaction: Transaction,
    sent: &Sent,
    outcome: Result<(), Failure>,
    run: &mut WebhooksRun,
) -> Result<(), Error> {
    let Sent { leased, positions } = sent;
    let id = &leased.webhook.id;
    let mut webhook = match find_webhook(&mut transaction, id).await {
        Ok(Ok(webhook)) => webhook,
        // Meanwhile it was deleted, and its events with it, or it became unreadable.
        Ok(Err(UnreadableWebhook { .. })) | Err(Error::NotFound(_)) => {
            transaction.rollback().await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let before = state_of(&webhook);
    let now = SystemTime::now();
    match outcome {
        Ok(()) => {
            run.delivered += positions.len();
            webhook.succeed(now);
            transaction.remove_events(id, positions).await?;
        }
        Err(failure) => {
            run.failed += 1;
            let mut jitter = [0];
            random_bytes(&mut jitter)?;
            webhook.fail(&failure, now, jitter[0]);
            tracing::warn!(
                domain = "config",
                environment = leased.environment.as_str(),
                webhook = id,
                origin = webhook.origin,
                error = failure.reason,
                disabled = webhook.disabled.is_some(),
                "a webhook did not accept change events"
            );
        }
    }
    // Without the lease, an admin has enabled the webhook or another run sends to it: this outcome is out of date.
    let is_current = transaction
        .write_webhook(&webhook, Some(leased.until))
        .await?;
    if is_current && webhook.disabled.is_some() {
        run.disabled += 1;
        let after = Some(state_of(&webhook));
        transaction
            .add_audit_entry(None, Action::DisableWebhook, Some(before), after)
            .await?;
    }
    transaction.commit().await
}

/// A request of this run.
struct Sent {
    leased: LeasedWebhook,
    positions: Vec<i64>,
}
