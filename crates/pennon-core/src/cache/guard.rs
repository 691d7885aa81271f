//! What stands between a request and a Redis that may be gone.
//!
//! A command passes a breaker, is tried a few times within the request's budget, and either comes
//! back with a reply or the cache is unavailable. A connection that does not answer is replaced
//! here, inside a request: on Lambda nothing runs between requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::budget::Budget;
use super::client::{Command, Connections, Failure, Reply, Script};
use super::url::RedisUrl;
use crate::breaker::{Breaker, Permit};
use crate::config::CacheConfig;
use crate::telemetry::Trace;

/// Pauses before a second, third and fourth attempt.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// Connecting anew more often than this would only add load to a Redis that struggles.
const BETWEEN_REBUILDS: Duration = Duration::from_millis(100);
/// What is left of a budget must be worth an attempt.
const LEAST_ATTEMPT: Duration = Duration::from_millis(5);
/// A request that only finds out whether an outage is over pays no more than this for it.
const PROBE_BUDGET: Duration = Duration::from_millis(150);

pub(super) struct Guard {
    url: RedisUrl,
    config: CacheConfig,
    current: Mutex<Option<Arc<Connections>>>,
    /// Held while connecting anew; when that last ended.
    rebuilding: tokio::sync::Mutex<Option<Instant>>,
    reads: Breaker,
    writes: Breaker,
    outages: AtomicU64,
}

impl Guard {
    /// Connects for the first time, within that limit. A failure leaves a guard that connects
    /// within a later request.
    pub(super) async fn connect(url: RedisUrl, config: CacheConfig, within: Duration) -> Self {
        let started = Instant::now();
        let opened = Connections::open(&url, &config, within).await;
        let guard = Self {
            url,
            config,
            current: Mutex::new(None),
            rebuilding: tokio::sync::Mutex::new(None),
            reads: Breaker::default(),
            writes: Breaker::default(),
            outages: AtomicU64::new(0),
        };
        match opened {
            Ok(connections) => {
                guard.replace(connections);
                let message = if guard.url.cluster {
                    "Connected to Redis Cluster"
                } else {
                    "Redis connected"
                };
                info!(
                    domain = "config",
                    duration = millis(started.elapsed()),
                    "{message}"
                );
            }
            Err(failure) => {
                let now = Instant::now();
                guard.reads.failed(now);
                guard.writes.failed(now);
                guard.outages.fetch_add(1, Ordering::Relaxed);
                guard.report(&failure);
            }
        }
        guard
    }

    /// Asks Redis, or finds within the budget that it cannot be asked.
    pub(super) async fn ask(
        &self,
        command: &Command<'_>,
        budget: &Budget,
        trace: &Trace,
    ) -> Option<Reply> {
        let remaining = budget.remaining();
        if remaining < LEAST_ATTEMPT {
            return None;
        }
        let started = Instant::now();
        let breaker = self.breaker_of(command);
        let outcome = match breaker.permit(started) {
            Permit::Normal => {
                self.insist(command, started + remaining, PAUSES.len(), trace)
                    .await
            }
            Permit::Probe => {
                let deadline = started + remaining.min(PROBE_BUDGET);
                self.insist(command, deadline, 0, trace).await
            }
            Permit::Refused if must_be_tried(command) => {
                let deadline = started + remaining.min(PROBE_BUDGET);
                self.insist(command, deadline, 0, trace).await
            }
            Permit::Refused => return None,
        };
        budget.spend(started.elapsed());
        match outcome {
            Ok(reply) => {
                if breaker.succeeded() {
                    info!(domain = "config", "Redis answers again");
                }
                Some(reply)
            }
            Err(failure) => {
                breaker.failed(Instant::now());
                self.outages.fetch_add(1, Ordering::Relaxed);
                trace.cache_failed(failure.kind());
                self.report(&failure);
                None
            }
        }
    }

    /// PING, for a health check: past the breakers, and connecting if need be.
    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let trace = Trace::default();
        match self
            .insist(&Command::Ping, deadline, PAUSES.len(), &trace)
            .await
        {
            Ok(_pong) => Ok(()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// How many calls have failed so far. A reader that sees this number move knows that there was
    /// a time in which an invalidation may have been lost.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// How many connections are open right now.
    pub(super) fn connections(&self) -> usize {
        self.current().map_or(0, |connections| connections.count())
    }

    /// Whether keys are shared out over several nodes.
    pub(super) fn is_cluster(&self) -> bool {
        self.url.cluster
    }

    /// Whether reads are being refused.
    pub(super) fn is_open(&self) -> bool {
        self.reads.is_open()
    }

    /// Tries up to 1 + `retries` times until the deadline.
    async fn insist(
        &self,
        command: &Command<'_>,
        deadline: Instant,
        retries: usize,
        trace: &Trace,
    ) -> Result<Reply, Failure> {
        let mut retried = 0;
        loop {
            let connections = self.current();
            let result = match &connections {
                Some(connections) if !connections.are_dead() => {
                    let within = self.time_for(command).min(left(deadline));
                    connections.send(command, within).await
                }
                Some(_) | None => Err(Failure::NotConnected("no connection yet".to_owned())),
            };
            let failure = match result {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            trace.connection_error();
            let mended = match &failure {
                Failure::TimedOut | Failure::NotConnected(_) => {
                    self.rebuild(connections.as_ref(), deadline).await
                }
                // A primary that became a replica: its name may lead to the new one by now.
                Failure::Refused(why) if why.contains("READONLY") => {
                    self.rebuild(connections.as_ref(), deadline).await
                }
                Failure::Refused(_) => false,
            };
            if !mended && failure == Failure::TimedOut {
                // Whoever comes next begins with a new connection, not with waiting for this one.
                self.forget(connections.as_ref());
            }
            // A new connection deserves a try even where no retry was granted.
            if retried >= retries && !(mended && retried == 0) {
                return Err(failure);
            }
            let pause = if mended {
                Duration::ZERO
            } else {
                PAUSES[retried.min(PAUSES.len() - 1)]
            };
            if left(deadline) < pause + LEAST_ATTEMPT {
                return Err(failure);
            }
            retried += 1;
            trace.retried();
            warn!(
                domain = "config",
                error.r#type = failure.kind(),
                error = %failure,
                "Redis retry attempt {retried}/{}",
                PAUSES.len()
            );
            tokio::time::sleep(pause).await;
            // An instance that was frozen or throttled meanwhile has nothing left.
            if left(deadline) < LEAST_ATTEMPT {
                return Err(failure);
            }
        }
    }

    /// Connects anew in place of `failed`, unless another request just did. Says whether there is
    /// something new to try.
    async fn rebuild(&self, failed: Option<&Arc<Connections>>, deadline: Instant) -> bool {
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.rebuilding.lock()).await
        else {
            return false;
        };
        let is_newer = match (self.current(), failed) {
            (Some(now), Some(failed)) => !Arc::ptr_eq(&now, failed),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_newer {
            return true;
        }
        if last.is_some_and(|last| last.elapsed() < BETWEEN_REBUILDS) {
            return false;
        }
        let within = self.config.connect_timeout.min(left(deadline));
        let opened = Connections::open(&self.url, &self.config, within).await;
        *last = Some(Instant::now());
        match opened {
            Ok(connections) => {
                self.replace(connections);
                info!(domain = "config", "Redis connected anew");
                true
            }
            Err(_failure) => false,
        }
    }

    /// How long one attempt may take. What moves a whole environment may take all there is: it is
    /// large, not lost.
    fn time_for(&self, command: &Command<'_>) -> Duration {
        match command {
            Command::Read { .. }
            | Command::Run {
                script: Script::Fill,
                ..
            } => self.config.request_budget,
            Command::Revision { .. } | Command::Ping | Command::Run { .. } => {
                self.config.operation_timeout
            }
        }
    }

    /// Gives these connections up, unless they have been replaced.
    fn forget(&self, failed: Option<&Arc<Connections>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(now), Some(failed)) = (&*current, failed)
            && Arc::ptr_eq(now, failed)
        {
            *current = None;
        }
    }

    fn report(&self, failure: &Failure) {
        if self.url.cluster {
            warn!(
                domain = "config",
                cluster_unavailable = 1,
                error.r#type = failure.kind(),
                error = %failure,
                "Redis Cluster unavailable, falling back to database"
            );
        } else {
            warn!(
                domain = "config",
                error.r#type = failure.kind(),
                error = %failure,
                "Redis connection failed, using fallback"
            );
        }
    }

    fn breaker_of(&self, command: &Command<'_>) -> &Breaker {
        match command {
            Command::Revision { .. } | Command::Read { .. } | Command::Ping => &self.reads,
            Command::Run { .. } => &self.writes,
        }
    }

    fn current(&self) -> Option<Arc<Connections>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn replace(&self, connections: Connections) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(connections));
    }
}

/// An invalidation is worth an attempt even in an outage: it is what keeps readers fresh, and changes
/// are rare.
fn must_be_tried(command: &Command<'_>) -> bool {
    match command {
        Command::Run { script, .. } => match script {
            Script::Block | Script::Unblock => true,
            Script::Fill | Script::Discard => false,
        },
        Command::Revision { .. } | Command::Read { .. } | Command::Ping => false,
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
