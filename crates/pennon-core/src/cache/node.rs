//! One Redis server: its connections, their replacement, and its breakers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::address::Address;
use super::client::{Command, CommandOptions, Connections, Failure, Reply};
use super::url::RedisUrl;
use crate::breaker::Breaker;
use crate::config::CacheConfig;
use crate::moment::Moment;

/// The shortest time between two attempts to connect, which limits the load on an overloaded Redis.
const MIN_RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// The login and the limits that all connections to one Redis share.
pub(super) struct Login {
    pub(super) url: RedisUrl,
    pub(super) config: CacheConfig,
}

/// One Redis server.
pub(super) struct Node {
    address: Address,
    /// The address as text.
    name: Arc<str>,
    login: Arc<Login>,
    current: Mutex<Option<Arc<Connections>>>,
    /// Serialises connecting. Holds the time when the last attempt ended, and its failure.
    connecting: tokio::sync::Mutex<Option<(Moment, Option<Failure>)>>,
    /// Whether connections were opened since [`Node::has_reconnected`] was last called. Those of the first attempt do
    /// not count.
    reopened: AtomicBool,
    /// The breaker of reads.
    pub(super) reads: Breaker,
    /// The breaker of writes.
    pub(super) writes: Breaker,
}

impl Node {
    pub(super) fn new(address: Address, login: Arc<Login>) -> Self {
        Self {
            name: address.to_string().into(),
            address,
            login,
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
            reopened: AtomicBool::new(false),
            reads: Breaker::default(),
            writes: Breaker::default(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The name for the log line of a request.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the open connections, or opens new ones. One request opens them; the others wait for it.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Arc<Connections>, Failure> {
        if let Some(connections) = self.open_connections() {
            return Ok(connections);
        }
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.connecting.lock()).await
        else {
            return Err(Failure::TimedOut);
        };
        if let Some(connections) = self.open_connections() {
            return Ok(connections);
        }
        if let Some((at, Some(failure))) = &*last
            && at.age() < MIN_RECONNECT_INTERVAL
        {
            return Err(failure.clone());
        }
        let login = &self.login;
        let left = deadline.saturating_duration_since(Instant::now());
        let within = login.config.connect_timeout.min(left);
        let opened = Connections::open(&login.url, &self.address, &login.config, within).await;
        let is_first = last.is_none();
        *last = Some((Moment::now(), opened.as_ref().err().cloned()));
        let connections = Arc::new(opened?);
        if !is_first {
            // Before a command can use the connection.
            self.reopened.store(true, Ordering::Release);
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(connections.clone());
        Ok(connections)
    }

    /// Replaces a failed connection. Returns whether there is one for another attempt. None is opened within
    /// [`MIN_RECONNECT_INTERVAL`] of the last attempt to connect.
    pub(super) async fn reconnect(&self, deadline: Instant) -> bool {
        let is_recent = |last: &Option<(Moment, Option<Failure>)>| {
            last.as_ref()
                .is_some_and(|(at, _)| at.age() < MIN_RECONNECT_INTERVAL)
        };
        // If the lock is held, another request connects, and this one uses its connection.
        let is_flapping = self.open_connections().is_none()
            && self
                .connecting
                .try_lock()
                .is_ok_and(|last| is_recent(&last));
        !is_flapping && self.connect(deadline).await.is_ok()
    }

    /// Connects if necessary and sends one command. The error contains the connections that failed, for
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

    /// Drops these connections, unless they are already replaced.
    pub(super) fn give_up(&self, failed: Option<&Arc<Connections>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(now), Some(failed)) = (&*current, failed)
            && Arc::ptr_eq(now, failed)
        {
            *current = None;
        }
    }

    /// Drops the connections. The next command opens new ones.
    pub(super) fn disconnect(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether it has an open connection.
    pub(super) fn is_connected(&self) -> bool {
        self.open_connections().is_some()
    }

    /// Whether one of its connections was replaced since the last call, by [`Node::connect`] or by the client library.
    pub(super) fn has_reconnected(&self) -> bool {
        let by_library = self
            .open_connections()
            .is_some_and(|connections| connections.were_replaced());
        self.reopened.swap(false, Ordering::AcqRel) || by_library
    }

    /// The number of open connections.
    pub(super) fn connections(&self) -> usize {
        self.open_connections()
            .map_or(0, |connections| connections.count())
    }

    fn open_connections(&self) -> Option<Arc<Connections>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|connections| !connections.are_dead())
    }
}
