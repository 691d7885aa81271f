//! Executes commands on a Redis that may be unavailable: breaker, retries, recovery.
//!
//! A command passes the breaker of the node that serves its key and is tried a few times within the request's
//! budget. The executor replaces connections that do not answer, and finds the new primary after a failover. It
//! does so within requests, because nothing runs between requests on Lambda.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::address::Address;
use super::authentic::in_milliseconds;
use super::client::{
    Before, Command, CommandOptions, Connections, Failure, Names, REPLICATION_MARGIN, Reply, Script,
};
use super::cluster::{Primaries, Topology, slot};
use super::node::{Login, Node};
use super::retry::{MIN_ATTEMPT, RETRIES, pause_before};
use super::url::RedisUrl;
use crate::breaker::{Breaker, Permit};
use crate::budget::Budget;
use crate::config::CacheConfig;
use crate::request_context::RequestContext;
use crate::telemetry::Trace;

/// The time for a probe of a command whose attempts take less, with a refresh of the slot map; also a limit on the time
/// that other requests spend on such a refresh.
const PROBE_BUDGET: Duration = Duration::from_millis(150);
/// Limit on the redirections that one command follows. A failover takes one, a migrating slot two; more than a
/// few mean that nodes disagree.
const MAX_REDIRECTIONS: usize = 5;
/// The timeout of a replica, short enough that the primary can be asked after it.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(50);
/// After one replica fails, no replica is asked for this long: the failure may affect all of them, and the primary
/// gives the same answer.
const REPLICA_COOL_DOWN: Duration = Duration::from_secs(5);

/// Executes commands on one Redis, single node or cluster.
pub(super) struct Executor {
    login: Arc<Login>,
    /// The node of the URL; the only node unless Redis is a cluster.
    seed: Arc<Node>,
    /// The nodes and slots of a cluster.
    topology: Option<Topology>,
    /// The slot of most requests, which health checks use too.
    default_slot: u16,
    primaries: Primaries,
    replicas_cool_down_until: Mutex<Option<Instant>>,
    /// The replica to ask next.
    next_replica: AtomicUsize,
    /// See [`Self::outages`].
    outages: AtomicU64,
}

/// The result of a command.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The reply; `None` when Redis is unavailable.
    pub(super) reply: Option<Reply>,
    /// The number of failed attempts. Redis may still execute one that got no reply.
    pub(super) failures: u32,
}

/// The attempts of one command.
struct Attempts {
    /// The node of the last attempt.
    node: Arc<Node>,
    result: Result<Reply, Failure>,
    failures: u32,
}

impl Executor {
    /// Connects to the node that serves this key within this time. If that fails, a later request connects.
    pub(super) async fn connect(
        url: RedisUrl,
        config: CacheConfig,
        default_key: &str,
        within: Duration,
    ) -> Self {
        let started = Instant::now();
        let deadline = started + within;
        let seed = Address::new(&url.host, url.port);
        let login = Arc::new(Login { url, config });
        let seed = Arc::new(Node::new(seed, login.clone()));
        let is_cluster = login.url.cluster;
        let default_slot = slot(default_key);
        let executor = Self {
            topology: is_cluster.then(|| Topology::new(seed.clone(), login.clone(), default_slot)),
            login,
            seed,
            default_slot,
            primaries: Primaries::default(),
            replicas_cool_down_until: Mutex::new(None),
            next_replica: AtomicUsize::new(0),
            outages: AtomicU64::new(0),
        };
        if let Some(topology) = &executor.topology {
            topology.refresh(None, deadline).await;
        }
        let opened = match executor.owner(executor.default_slot) {
            Some(owner) => (owner.connect(deadline).await.map(drop), owner),
            None => (
                Err(executor.no_owner_failure(deadline).await),
                executor.seed.clone(),
            ),
        };
        match opened {
            (Ok(()), owner) => {
                let message = if is_cluster {
                    "Connected to Redis Cluster"
                } else {
                    "Redis connected"
                };
                info!(
                    domain = "config",
                    duration = in_milliseconds(started.elapsed()),
                    node_id = %owner.address(),
                    "{message}"
                );
                executor.answered(&owner, executor.default_slot);
            }
            (Err(failure), owner) => {
                let now = Instant::now();
                owner.reads.failed(now);
                owner.writes.failed(now);
                executor.outages.fetch_add(1, Ordering::Relaxed);
                executor.report(&owner, &failure);
            }
        }
        executor
    }

    /// Executes a command within the budget.
    pub(super) async fn execute(&self, command: &Command<'_>, context: &RequestContext) -> Outcome {
        const NOT_TRIED: Outcome = Outcome {
            reply: None,
            failures: 0,
        };
        let remaining = context.budget.remaining();
        if remaining < MIN_ATTEMPT {
            return NOT_TRIED;
        }
        let started = Instant::now();
        let slot = self.slot_of(command);
        let known = self.owner(slot);
        let owner = known.as_ref().unwrap_or(&self.seed);
        let breaker = breaker_of(owner, command);
        let wait = self.waits_for_replica(command, owner);
        // A shorter probe than one attempt would never succeed with a Redis that answers slowly, but in time.
        let probe_limit = self.time_for(command, wait).max(PROBE_BUDGET);
        let probe_deadline = started + remaining.min(probe_limit);
        let attempts = match breaker.permit(started) {
            Permit::Normal => {
                if let Some(topology) = &self.topology {
                    let needs_confirmation = command.ends_a_write();
                    let deadline = started + remaining.min(PROBE_BUDGET);
                    topology
                        .refresh_if_due(known.as_ref(), needs_confirmation, deadline)
                        .await;
                }
                let deadline = started + remaining;
                self.attempt(command, slot, deadline, RETRIES, &context.trace)
                    .await
            }
            Permit::Probe => {
                self.probe(command, slot, owner, probe_deadline, &context.trace)
                    .await
            }
            Permit::Refused if command.is_invalidation() => {
                self.probe(command, slot, owner, probe_deadline, &context.trace)
                    .await
            }
            Permit::Refused => return NOT_TRIED,
        };
        context.budget.spend(started.elapsed());
        let Attempts {
            node,
            result,
            failures,
        } = attempts;
        context.trace.node(node.name().clone());
        let reply = match result {
            Ok(reply) => {
                let was_open = breaker_of(&node, command).succeeded();
                if breaker.succeeded() || was_open {
                    info!(domain = "config", node_id = %node.address(), "Redis answers again");
                }
                self.answered(&node, slot);
                Some(reply)
            }
            Err(failure) => {
                let now = Instant::now();
                breaker.failed(now);
                breaker_of(&node, command).failed(now);
                self.outages.fetch_add(1, Ordering::Relaxed);
                context.trace.cache_failed(failure.kind());
                self.report(&node, &failure);
                None
            }
        };
        Outcome { reply, failures }
    }

    /// Asks a replica, which may lag behind the primary, once. Returns `None` if the replica fails, if there is none,
    /// and for [`REPLICA_COOL_DOWN`] after a failure.
    pub(super) async fn ask_replica(
        &self,
        command: &Command<'_>,
        context: &RequestContext,
    ) -> Option<Reply> {
        let started = Instant::now();
        let cool_down = *self.lock_cool_down();
        if cool_down.is_some_and(|until| started < until) {
            return None;
        }
        let shard = self.topology.as_ref()?.serving(self.slot_of(command))?;
        let replicas = shard.replicas?;
        let next = self.next_replica.fetch_add(1, Ordering::Relaxed);
        let replica = replicas.get(next.checked_rem(replicas.len())?)?;
        // Half of the budget, so that the primary can still be asked.
        let within = REPLICA_TIMEOUT.min(context.budget.remaining() / 2);
        if within < MIN_ATTEMPT {
            return None;
        }
        let options = CommandOptions {
            before: Before::ReadOnly,
            wait: false,
        };
        let sent = replica
            .send(command, options, within, started + within)
            .await;
        context.budget.spend(started.elapsed());
        match sent {
            Ok(reply) => {
                context.trace.node(replica.name().clone());
                Some(reply)
            }
            Err((failure, connections)) => {
                replica.give_up(connections.as_ref());
                *self.lock_cool_down() = Some(Instant::now() + REPLICA_COOL_DOWN);
                context.trace.connection_error();
                warn!(
                    domain = "config",
                    node_id = %replica.address(),
                    error.r#type = failure.kind(),
                    error = %failure,
                    "a replica does not answer; reading from the primary for a while"
                );
                None
            }
        }
    }

    /// `PING` for a health check: without the breakers, and with a new connection if there is none.
    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let trace = Trace::default();
        let attempts = self
            .attempt(&Command::Ping, self.default_slot, deadline, RETRIES, &trace)
            .await;
        match attempts.result {
            Ok(_pong) => Ok(()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Refreshes the slot map, because the node that answered this command seems to have lost its replicas.
    pub(super) async fn refresh_topology(&self, command: &Command<'_>, budget: &Budget) {
        if let Some(topology) = &self.topology {
            let started = Instant::now();
            let within = budget.remaining().min(PROBE_BUDGET);
            let suspect = self.owner(self.slot_of(command));
            topology.refresh(suspect.as_ref(), started + within).await;
            budget.spend(started.elapsed());
        }
    }

    /// The number of events that may have lost an invalidation: a failed connection at the start, a failed command, a
    /// replaced connection, or a new primary. When it changes, a reader compares its entry with the store before it
    /// uses the entry.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// The number of open connections.
    pub(super) fn connections(&self) -> usize {
        let nodes = self.nodes();
        nodes.iter().map(|node| node.connections()).sum()
    }

    /// Whether this is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.topology.is_some()
    }

    /// Whether the breaker refuses reads of the default slot.
    pub(super) fn is_open(&self) -> bool {
        self.owner(self.default_slot)
            .unwrap_or_else(|| self.seed.clone())
            .reads
            .is_open()
    }

    /// Makes one attempt, and another after a recovery, to find out whether an outage is over. In a cluster, first asks
    /// other nodes whether one of them has taken over, which is faster than waiting for the failed one.
    async fn probe(
        &self,
        command: &Command<'_>,
        slot: u16,
        suspect: &Arc<Node>,
        deadline: Instant,
        trace: &Trace,
    ) -> Attempts {
        if let Some(topology) = &self.topology {
            topology.refresh(Some(suspect), deadline).await;
        }
        self.attempt(command, slot, deadline, 0, trace).await
    }

    /// Makes up to 1 + `retries` attempts until the deadline. Without retries, makes a second attempt after a recovery.
    async fn attempt(
        &self,
        command: &Command<'_>,
        slot: u16,
        deadline: Instant,
        retries: usize,
        trace: &Trace,
    ) -> Attempts {
        let allowed = retries.max(1);
        let mut failures = 0;
        let mut retried = 0;
        let mut redirected = 0;
        let mut detour = None;
        loop {
            let (node, before) = match (detour.take(), self.owner(slot)) {
                (Some(node), _) => (node, Before::Asking),
                (None, Some(owner)) => (owner, Before::Nothing),
                (None, None) => {
                    if let Some(topology) = &self.topology {
                        topology.refresh(Some(&self.seed), deadline).await;
                    }
                    let Some(owner) = self.owner(slot) else {
                        let why = self.no_owner_failure(deadline).await;
                        return ended(self.seed.clone(), Err(why), failures);
                    };
                    (owner, Before::Nothing)
                }
            };
            let wait = self.waits_for_replica(command, &node);
            let options = CommandOptions { before, wait };
            let within = self.time_for(command, wait);
            let (failure, connections) = match node.send(command, options, within, deadline).await {
                Ok(reply) => return ended(node, Ok(reply), failures),
                Err(failed) => failed,
            };
            if let (Failure::Moved(to) | Failure::Ask(to), Some(topology)) =
                (&failure, &self.topology)
                && redirected < MAX_REDIRECTIONS
            {
                redirected += 1;
                let to = to.clone().or_host_of(node.address());
                if matches!(failure, Failure::Ask(_)) {
                    detour = Some(topology.node(&to));
                } else {
                    topology.refresh(None, deadline).await;
                    if self.owner(slot).is_none_or(|owner| *owner.address() != to) {
                        topology.moved(slot, &to);
                    }
                }
                continue;
            }
            trace.connection_error();
            failures += 1;
            let recovered = self
                .recover(&node, connections.as_ref(), &failure, slot, deadline)
                .await;
            if retried >= allowed || (retries == 0 && !recovered) {
                return ended(node, Err(failure), failures);
            }
            let pause = if recovered {
                (left(deadline) >= MIN_ATTEMPT).then_some(Duration::ZERO)
            } else {
                pause_before(retried, left(deadline))
            };
            let mut fits = pause.is_some();
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
                // If the instance was frozen or throttled during the pause, no time is left.
                fits = left(deadline) >= MIN_ATTEMPT;
            }
            if !fits {
                warn!(
                    domain = "config",
                    node_id = %node.address(),
                    error.r#type = failure.kind(),
                    error = %failure,
                    retries = retried,
                    retries_allowed = allowed,
                    budget_left_ms = in_milliseconds(left(deadline)),
                    "Redis retries stopped by the time budget"
                );
                return ended(node, Err(failure), failures);
            }
            retried += 1;
            trace.retried();
            warn!(
                domain = "config",
                node_id = %node.address(),
                error.r#type = failure.kind(),
                error = %failure,
                "Redis retry attempt {retried}/{allowed}"
            );
        }
    }

    /// Recovers from a failure: finds the node that has taken over, or opens a new connection. Returns whether
    /// another attempt may succeed.
    async fn recover(
        &self,
        node: &Arc<Node>,
        connections: Option<&Arc<Connections>>,
        failure: &Failure,
        slot: u16,
        deadline: Instant,
    ) -> bool {
        let is_recoverable = match failure {
            Failure::TimedOut | Failure::NotConnected(_) => true,
            // READONLY: the primary became a replica, and its name may resolve to the new primary by now.
            // CLUSTERDOWN: the cluster is down, or continues without this node.
            Failure::Refused(why) => ["READONLY", "CLUSTERDOWN", "MASTERDOWN"]
                .iter()
                .any(|word| why.contains(word)),
            Failure::Moved(_) | Failure::Ask(_) => false,
        };
        if !is_recoverable {
            return false;
        }
        // No other command must wait for these connections.
        node.give_up(connections);
        if let Some(topology) = &self.topology {
            topology.refresh(Some(node), deadline).await;
            if self
                .owner(slot)
                .is_some_and(|owner| owner.address() != node.address())
            {
                return true;
            }
        }
        node.reconnect(deadline).await
    }

    /// The timeout of one attempt, which may wait for a replica. A command that transfers flags may use the whole budget.
    fn time_for(&self, command: &Command<'_>, wait: bool) -> Duration {
        match command {
            Command::Fields {
                names: Names::Summary | Names::Flags(_),
                ..
            }
            | Command::Read { .. }
            | Command::Run {
                script: Script::Fill,
                ..
            } => self.login.config.request_budget,
            Command::Run { .. } if wait => self.login.config.operation_timeout + REPLICATION_MARGIN,
            Command::Fields {
                names: Names::Header,
                ..
            }
            | Command::Ping
            | Command::Slots
            | Command::Run { .. } => self.login.config.operation_timeout,
        }
    }

    /// Whether the command must wait for a replica: the invalidation after a commit does, unless the node has no
    /// replicas.
    fn waits_for_replica(&self, command: &Command<'_>, node: &Node) -> bool {
        let topology = self.topology.as_ref().filter(|_| command.ends_a_write());
        topology.is_some_and(|topology| {
            topology
                .shard_of(node)
                .is_none_or(|shard| shard.can_confirm())
        })
    }

    /// The node that serves a slot, if the slot map has one.
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        match &self.topology {
            None => Some(self.seed.clone()),
            Some(topology) => topology.serving(slot).map(|shard| shard.primary),
        }
    }

    fn slot_of(&self, command: &Command<'_>) -> u16 {
        command.key().map_or(self.default_slot, slot)
    }

    /// The failure to report if no node serves a slot: that of the seed node, or a missing slot map.
    async fn no_owner_failure(&self, deadline: Instant) -> Failure {
        match self.seed.connect(deadline).await {
            Ok(_) => no_slots(),
            Err(failure) => failure,
        }
    }

    /// Counts and logs, once each, that the connection of a node was replaced and that a slot has a new primary.
    fn answered(&self, node: &Node, slot: u16) {
        if node.has_reconnected() {
            // A restarted server may have loaded an older snapshot, and the same name may lead to another server.
            self.outages.fetch_add(1, Ordering::Relaxed);
            info!(domain = "config", node_id = %node.address(), "Redis connected anew");
        }
        // A node that imports the slot is not its primary yet.
        let owner = self.owner(slot);
        if self.topology.is_none() || owner.is_none_or(|owner| owner.address() != node.address()) {
            return;
        }
        if self.primaries.record(slot, node.address()) {
            // The new primary may have lagged when it took over, so an invalidation may be lost.
            self.outages.fetch_add(1, Ordering::Relaxed);
            info!(
                domain = "config",
                node_id = %node.address(),
                "Redis reconnected to new primary"
            );
        }
    }

    fn report(&self, node: &Node, failure: &Failure) {
        if self.is_cluster() {
            warn!(
                domain = "config",
                cluster_unavailable = 1,
                node_id = %node.address(),
                error.r#type = failure.kind(),
                error = %failure,
                "Redis Cluster unavailable, falling back to database"
            );
        } else {
            warn!(
                domain = "config",
                node_id = %node.address(),
                error.r#type = failure.kind(),
                error = %failure,
                "Redis connection failed, using fallback"
            );
        }
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes = self
            .topology
            .as_ref()
            .map(Topology::nodes)
            .unwrap_or_default();
        if !nodes.iter().any(|node| Arc::ptr_eq(node, &self.seed)) {
            nodes.push(self.seed.clone());
        }
        nodes
    }

    fn lock_cool_down(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.replicas_cool_down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn breaker_of<'a>(node: &'a Node, command: &Command<'_>) -> &'a Breaker {
    match command {
        Command::Fields { .. } | Command::Read { .. } | Command::Ping | Command::Slots => {
            &node.reads
        }
        Command::Run { .. } => &node.writes,
    }
}

fn ended(node: Arc<Node>, result: Result<Reply, Failure>, failures: u32) -> Attempts {
    Attempts {
        node,
        result,
        failures,
    }
}

fn no_slots() -> Failure {
    Failure::Refused(
        "no node has a slot map: this is not a cluster, or the cluster is not formed yet"
            .to_owned(),
    )
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
