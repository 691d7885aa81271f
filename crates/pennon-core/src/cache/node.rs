//! One Redis server: the connections to it, how they are replaced, and whether it is worth asking.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

use super::address::Address;
use super::client::{Command, Connections, Escort, Failure, Reply};
use super::url::RedisUrl;
use crate::breaker::Breaker;
use crate::config::CacheConfig;

/// Connecting anew, or trying to, more often than this would only add load to a Redis that struggles.
const BETWEEN_REBUILDS: Duration = Duration::from_millis(100);

/// What every connection of one Redis has in common: how to log in, and the limits.
pub(super) struct Login {
    pub(super) url: RedisUrl,
    pub(super) config: CacheConfig,
}

/// One server.
pub(super) struct Node {
    address: Address,
    login: Arc<Login>,
    current: Mutex<Option<Arc<Connections>>>,
    /// Held while connecting; when that last ended, and why it failed if it did.
    connecting: tokio::sync::Mutex<Option<(Instant, Option<Failure>)>>,
    /// Whether it is worth reading from.
    pub(super) reads: Breaker,
    /// Whether it is worth writing to.
    pub(super) writes: Breaker,
}

impl Node {
    pub(super) fn new(address: Address, login: Arc<Login>) -> Self {
        Self {
            address,
            login,
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
            reads: Breaker::default(),
            writes: Breaker::default(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The connections that stand, or new ones: one request opens them for all.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Arc<Connections>, Failure> {
        if let Some(connections) = self.standing() {
            return Ok(connections);
        }
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.connecting.lock()).await
        else {
            return Err(Failure::TimedOut);
        };
        if let Some(connections) = self.standing() {
            return Ok(connections);
        }
        if let Some((at, Some(failure))) = &*last
            && at.elapsed() < BETWEEN_REBUILDS
        {
            return Err(failure.clone());
        }
        let login = &self.login;
        let left = deadline.saturating_duration_since(Instant::now());
        let within = login.config.connect_timeout.min(left);
        let opened = Connections::open(&login.url, &self.address, &login.config, within).await;
        let is_first = last.is_none();
        *last = Some((Instant::now(), opened.as_ref().err().cloned()));
        let connections = Arc::new(opened?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(connections.clone());
        if !is_first {
            info!(domain = "config", node_id = %self.address, "Redis connected anew");
        }
        Ok(connections)
    }

    /// Connects in place of a connection that has just failed. Says whether there is reason to try
    /// again at once: not where connections are lost as soon as they stand.
    pub(super) async fn reconnect(&self, deadline: Instant) -> bool {
        let stood_briefly = |last: &Option<(Instant, Option<Failure>)>| {
            last.as_ref()
                .is_some_and(|(at, _)| at.elapsed() < BETWEEN_REBUILDS)
        };
        // Somebody else is connecting when it is held: share that.
        let is_flapping = self.standing().is_none()
            && self
                .connecting
                .try_lock()
                .is_ok_and(|last| stood_briefly(&last));
        !is_flapping && self.connect(deadline).await.is_ok()
    }

    /// Connects if need be and sends one command. On failure, the connections that failed go along:
    /// who wants to be rid of them passes them to [`Node::give_up`].
    pub(super) async fn send(
        &self,
        command: &Command<'_>,
        escort: Escort,
        within: Duration,
        deadline: Instant,
    ) -> Result<Reply, (Failure, Option<Arc<Connections>>)> {
        let connections = match self.connect(deadline).await {
            Ok(connections) => connections,
            Err(failure) => return Err((failure, None)),
        };
        let within = within.min(deadline.saturating_duration_since(Instant::now()));
        let sent = connections.send(command, escort, within).await;
        sent.map_err(|failure| (failure, Some(connections)))
    }

    /// Drops these connections, unless somebody has replaced them already.
    pub(super) fn give_up(&self, failed: Option<&Arc<Connections>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(now), Some(failed)) = (&*current, failed)
            && Arc::ptr_eq(now, failed)
        {
            *current = None;
        }
    }

    /// Drops its connections: nobody needs them for now.
    pub(super) fn disconnect(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether there is a connection to it.
    pub(super) fn is_connected(&self) -> bool {
        self.standing().is_some()
    }

    /// How many connections are open right now.
    pub(super) fn connections(&self) -> usize {
        self.standing().map_or(0, |connections| connections.count())
    }

    fn standing(&self) -> Option<Arc<Connections>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|connections| !connections.are_dead())
    }
}
