//! One Redis server: its connections, their replacement, and its breakers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

use super::address::Address;
use super::client::{Command, CommandOptions, Connections, Failure, Reply};
use super::url::RedisUrl;
use crate::breaker::Breaker;
use crate::config::CacheConfig;

/// The shortest time between two attempts to connect, so as not to add load to a Redis in trouble.
const MIN_RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// What all connections to one Redis share: the login and the limits.
pub(super) struct Login {
    pub(super) url: RedisUrl,
    pub(super) config: CacheConfig,
}

/// One server.
pub(super) struct Node {
    address: Address,
    login: Arc<Login>,
    current: Mutex<Option<Arc<Connections>>>,
    /// Serialises connecting. Holds when the last attempt ended, and its failure.
    connecting: tokio::sync::Mutex<Option<(Instant, Option<Failure>)>>,
    /// The breaker of reads.
    pub(super) reads: Breaker,
    /// The breaker of writes.
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

    /// The open connections, or new ones, which one request opens for all that wait.
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
            && at.elapsed() < MIN_RECONNECT_INTERVAL
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

    /// Replaces a connection that has failed. Returns whether another attempt makes sense now, which it does
    /// not where connections are lost as soon as they are established.
    pub(super) async fn reconnect(&self, deadline: Instant) -> bool {
        let stood_briefly = |last: &Option<(Instant, Option<Failure>)>| {
            last.as_ref()
                .is_some_and(|(at, _)| at.elapsed() < MIN_RECONNECT_INTERVAL)
        };
        // While the lock is held, another request connects: share its connection.
        let is_flapping = self.standing().is_none()
            && self
                .connecting
                .try_lock()
                .is_ok_and(|last| stood_briefly(&last));
        !is_flapping && self.connect(deadline).await.is_ok()
    }

    /// Connects if necessary and sends one command. A failure comes with the connections that failed, for
    /// [`Node::give_up`].
    pub(super) async fn send(
        &self,
        command: &Command<'_>,
        options: CommandOptions,
        within: Duration,
        deadline: Instant,
    ) -> Result<Reply, (Failure, Option<Arc<Connections>>)> {
        let connections = match self.connect(deadline).await {
            Ok(connections) => connections,
            Err(failure) => return Err((failure, None)),
        };
        let within = within.min(deadline.saturating_duration_since(Instant::now()));
        let sent = connections.send(command, options, within).await;
        sent.map_err(|failure| (failure, Some(connections)))
    }

    /// Drops these connections, unless they were replaced already.
    pub(super) fn give_up(&self, failed: Option<&Arc<Connections>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(now), Some(failed)) = (&*current, failed)
            && Arc::ptr_eq(now, failed)
        {
            *current = None;
        }
    }

    /// Drops the connections, which are not needed for now.
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
