//! Webhooks: change events, sent as signed POST requests to URLs that admins choose.
//!
//! Requests have the form of [Standard Webhooks](https://www.standardwebhooks.com): receivers verify them
//! with the libraries of that specification.

mod message;
mod sender;
mod transport;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::config::Secret;

pub use crate::https::Reach;
pub use message::{Message, new_secret};
pub use sender::{Failure, Sender};
pub use transport::{REQUEST_TIMEOUT, Transport};

/// A webhook that fails for this long is disabled.
pub const MAX_OUTAGE: Duration = Duration::from_secs(24 * 3600);
/// The pause after the first failure. It doubles with every further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// If an attempt that fails was later than planned by more than this, its failure begins a new outage. Pennon itself
/// could not send before, for example because the database was down.
const MAX_DELAY: Duration = MAX_PAUSE;

/// A webhook as the admin API returns it: without its secret and without the path of its URL, which often is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Its purpose, as the admin who created it describes it.
    pub name: String,
    /// Scheme, host and port of its URL.
    pub origin: String,
    /// The format of the body.
    pub format: Format,
    /// When it was created.
    #[serde(with = "crate::timestamp::required")]
    pub created_at: SystemTime,
    /// The admin who created it.
    pub created_by: String,
    /// Raised when it is enabled or disabled; its `ETag`.
    pub revision: i64,
    /// Why and since when it receives nothing more.
    #[serde(default)]
    pub disabled: Option<Disabled>,
    /// When it last accepted events.
    #[serde(default, with = "crate::timestamp::optional")]
    pub delivered_at: Option<SystemTime>,
    /// The failures since then.
    #[serde(default)]
    pub outage: Option<Outage>,
}

/// A webhook that is stored but cannot be read, for example after a change by SQL. It receives nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableWebhook {
    /// Its id.
    pub id: String,
}

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The events as JSON.
    Json,
    /// A message for an incoming webhook of Slack, which other chat services accept as well.
    Slack,
}

/// Why a webhook is disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disabled {
    /// Since when.
    #[serde(with = "crate::timestamp::required")]
    pub at: SystemTime,
    /// The last failure.
    pub reason: String,
}

/// Failures in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outage {
    /// The time of the first one.
    #[serde(with = "crate::timestamp::required")]
    pub since: SystemTime,
    /// Their number.
    pub attempts: u32,
    /// The last one.
    pub error: String,
    /// The time of the next attempt.
    #[serde(with = "crate::timestamp::required")]
    pub next_attempt_at: SystemTime,
}

/// The URL and the secret of a webhook. Stored apart from [`Webhook`], so that a list of webhooks cannot show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The URL.
    pub url: Secret,
    /// The key of the signature: `whsec_` and base64.
    pub secret: Secret,
}

impl Format {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Slack => "slack",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = [Self::Json, Self::Slack].into_iter();
        all.find(|format| format.name() == name)
    }
}

impl Webhook {
    /// The time of the next attempt, if it is enabled.
    #[must_use]
    pub fn due_at(&self, now: SystemTime) -> SystemTime {
        let outage = self.outage.as_ref();
        outage.map_or(now, |outage| outage.next_attempt_at)
    }

    /// Records an accepted request.
    pub fn succeed(&mut self, now: SystemTime) {
        self.delivered_at = Some(now);
        self.outage = None;
    }

    /// Records a failed request: plans the next attempt, or disables the webhook. `jitter` shortens the pause by up to
    /// a quarter, so that the webhooks of a receiver that was down are not all retried at the same time.
    pub fn fail(&mut self, failure: &Failure, now: SystemTime, jitter: u8) {
        // Between the planned attempt and a late one, nobody knows whether the receiver worked.
        let ongoing = self
            .outage
            .as_ref()
            .filter(|outage| now <= outage.next_attempt_at + MAX_DELAY);
        let (since, before) = ongoing.map_or((now, 0), |outage| (outage.since, outage.attempts));
        let lasted = now.duration_since(since).unwrap_or_default();
        if !failure.retryable || lasted >= MAX_OUTAGE {
            self.revision += 1;
            self.disabled = Some(Disabled {
                at: now,
                reason: failure.reason.clone(),
            });
        }
        let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(before));
        let pause = doubled.min(MAX_PAUSE);
        let shortened = pause * u32::from(jitter) / (4 * u32::from(u8::MAX));
        let pause = pause.saturating_sub(shortened);
        self.outage = Some(Outage {
            since,
            attempts: before.saturating_add(1),
            error: failure.reason.clone(),
            next_attempt_at: now + pause,
        });
    }

    /// Enables it again, and forgets its failures.
    pub fn enable(&mut self) {
        self.revision += 1;
        self.disabled = None;
        self.outage = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            id: "w".to_owned(),
            name: "deployments".to_owned(),
            origin: "https://example.com".to_owned(),
            format: Format::Json,
            created_at: SystemTime::UNIX_EPOCH,
            created_by: "alice".to_owned(),
            revision: 1,
            disabled: None,
            delivered_at: None,
            outage: None,
        }
    }

    fn failure(retryable: bool) -> Failure {
        Failure {
            retryable,
            reason: "the receiver answered 503".to_owned(),
        }
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_a_success_ends_them() {
        let mut webhook = webhook();
        let mut now = SystemTime::UNIX_EPOCH;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let mut early = webhook.clone();
            early.fail(&failure(true), now, u8::MAX);
            webhook.fail(&failure(true), now, 0);
            let pause = Duration::from_secs(minutes * 60);
            assert_eq!(webhook.due_at(now), now + pause);
            assert_eq!(early.due_at(now), now + pause * 3 / 4);
            now += pause;
        }
        webhook.succeed(now);
        assert_eq!((webhook.outage.clone(), webhook.revision), (None, 1));
        webhook.fail(&failure(true), now, 0);
        assert_eq!(webhook.due_at(now), now + FIRST_PAUSE);
    }

    #[test]
    fn a_day_of_failures_disables_and_enabling_starts_over() {
        let mut webhook = webhook();
        let start = SystemTime::UNIX_EPOCH;
        let mut now = start;
        while now < start + MAX_OUTAGE {
            webhook.fail(&failure(true), now, 0);
            assert_eq!(webhook.disabled, None);
            // As late as an attempt of the same outage can be.
            now = webhook.due_at(now) + MAX_DELAY;
        }
        webhook.fail(&failure(true), now, 0);
        assert!(webhook.disabled.is_some() && webhook.revision == 2);
        webhook.enable();
        assert_eq!((webhook.due_at(start), webhook.revision), (start, 3));
        webhook.fail(&failure(true), start + MAX_OUTAGE * 2, 0);
        assert_eq!(webhook.disabled, None);
    }

    #[test]
    fn a_failure_long_after_the_planned_attempt_begins_a_new_outage() {
        let mut webhook = webhook();
        let start = SystemTime::UNIX_EPOCH;
        webhook.fail(&failure(true), start, 0);
        let later = start + MAX_OUTAGE * 2;
        webhook.fail(&failure(true), later, 0);
        assert_eq!(webhook.disabled, None);
        let outage = webhook.outage.as_ref().expect("an outage");
        assert_eq!((outage.since, outage.attempts), (later, 1));
        assert_eq!(webhook.due_at(later), later + FIRST_PAUSE);
    }

    #[test]
    fn a_failure_that_no_attempt_can_resolve_disables_at_once() {
        let mut webhook = webhook();
        webhook.fail(&failure(false), SystemTime::UNIX_EPOCH, 0);
        assert!(webhook.disabled.is_some());
    }

    #[test]
    fn a_clock_that_jumps_back_disables_nothing() {
        let mut webhook = webhook();
        webhook.fail(&failure(true), SystemTime::UNIX_EPOCH + MAX_OUTAGE * 2, 0);
        webhook.fail(&failure(true), SystemTime::UNIX_EPOCH, 0);
        assert_eq!(webhook.disabled, None);
    }
}
