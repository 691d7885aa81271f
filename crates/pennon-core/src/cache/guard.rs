//! What stands between a request and a Redis that may be gone.
//!
//! A command passes the breaker of the node that serves its key, is tried a few times within the
//! request's budget, and either comes back with a reply or the cache is unavailable. A connection
//! that does not answer is replaced here, and a node that is no longer the primary is noticed here,
//! inside a request: on Lambda nothing runs between requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::address::Address;
use super::budget::Budget;
use super::client::{Before, Command, Connections, Escort, Failure, Reply, Script, WAITING};
use super::node::{Login, Node};
use super::shards::{Shards, slot};
use super::url::RedisUrl;
use crate::breaker::{Breaker, Permit};
use crate::config::CacheConfig;
use crate::telemetry::Trace;

/// Pauses before the first, second and third retry. Together they are longer than any budget, so the
/// last one is cut to what the budget has left, see [`pause_before`].
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// What is left of a budget must be worth an attempt.
const LEAST_ATTEMPT: Duration = Duration::from_millis(5);
/// What the last retry keeps of the budget for itself: enough to connect anew and for one round trip.
const LAST_ATTEMPT: Duration = Duration::from_millis(20);
/// A last retry so soon after the one before would find the same Redis, so it is not made.
const SHORTEST_LAST_PAUSE: Duration = Duration::from_millis(50);
/// A request that only finds out whether an outage is over pays no more than this for it.
const PROBE_BUDGET: Duration = Duration::from_millis(150);
/// Redirections that one call follows. A failover takes one, a slot on the move two; more than a few
/// means that nodes disagree.
const MOST_REDIRECTIONS: usize = 5;
/// What a replica has to answer. The primary is the way out, and it must have time left.
const REPLICA_WITHIN: Duration = Duration::from_millis(50);
/// A replica that failed is left alone for this long, and with it all others: what hit one may be
/// about to hit the next, and the primary has the same answer.
const REPLICAS_REST: Duration = Duration::from_secs(5);

pub(super) struct Guard {
    login: Arc<Login>,
    /// The only node; of a cluster, the way in.
    door: Arc<Node>,
    /// Where there is a cluster, its nodes.
    shards: Option<Shards>,
    /// The slot that most requests use: a health check asks whoever serves it.
    usual_slot: u16,
    /// Who last answered for a slot, to notice a new primary.
    primaries: Mutex<HashMap<u16, Address>>,
    replicas_rest_until: Mutex<Option<Instant>>,
    /// Which replica is next.
    turn: AtomicUsize,
    outages: AtomicU64,
}

/// Which node it was, and what came of it.
type Outcome = (Arc<Node>, Result<Reply, Failure>);

impl Guard {
    /// Connects for the first time, within that limit, to whoever serves that key. A failure leaves
    /// a guard that connects within a later request.
    pub(super) async fn connect(
        url: RedisUrl,
        config: CacheConfig,
        usual_key: &str,
        within: Duration,
    ) -> Self {
        let started = Instant::now();
        let deadline = started + within;
        let door = Address::new(&url.host, url.port);
        let login = Arc::new(Login { url, config });
        let door = Arc::new(Node::new(door, login.clone()));
        let is_cluster = login.url.cluster;
        let usual_slot = slot(usual_key);
        let guard = Self {
            shards: is_cluster.then(|| Shards::new(door.clone(), login.clone(), usual_slot)),
            login,
            door,
            usual_slot,
            primaries: Mutex::default(),
            replicas_rest_until: Mutex::new(None),
            turn: AtomicUsize::new(0),
            outages: AtomicU64::new(0),
        };
        if let Some(shards) = &guard.shards {
            shards.look(None, deadline).await;
        }
        let opened = match guard.home(guard.usual_slot) {
            Some(home) => (home.connect(deadline).await.map(drop), home),
            // Why there is no picture is known at the door.
            None => (
                match guard.door.connect(deadline).await {
                    Ok(_) => Err(no_slots()),
                    Err(failure) => Err(failure),
                },
                guard.door.clone(),
            ),
        };
        match opened {
            (Ok(()), home) => {
                let message = if is_cluster {
                    "Connected to Redis Cluster"
                } else {
                    "Redis connected"
                };
                info!(
                    domain = "config",
                    duration = millis(started.elapsed()),
                    node_id = %home.address(),
                    "{message}"
                );
                guard.answered(&home, guard.usual_slot);
            }
            (Err(failure), home) => {
                let now = Instant::now();
                home.reads.failed(now);
                home.writes.failed(now);
                guard.outages.fetch_add(1, Ordering::Relaxed);
                guard.report(&home, &failure);
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
        let slot = self.slot_of(command);
        let known = self.home(slot);
        let home = known.as_ref().unwrap_or(&self.door);
        let breaker = breaker_of(home, command);
        let probe = started + remaining.min(PROBE_BUDGET);
        let (node, outcome) = match breaker.permit(started) {
            Permit::Normal => {
                if let Some(shards) = &self.shards {
                    let is_last = is_last_word(command);
                    shards.look_in_time(known.as_ref(), is_last, probe).await;
                }
                let deadline = started + remaining;
                self.insist(command, slot, deadline, PAUSES.len(), trace)
                    .await
            }
            Permit::Probe => self.probe(command, slot, home, probe, trace).await,
            Permit::Refused if must_be_tried(command) => {
                self.probe(command, slot, home, probe, trace).await
            }
            Permit::Refused => return None,
        };
        budget.spend(started.elapsed());
        trace.node(node.address().to_string());
        match outcome {
            Ok(reply) => {
                let of_node = breaker_of(&node, command).succeeded();
                if breaker.succeeded() || of_node {
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
                trace.cache_failed(failure.kind());
                self.report(&node, &failure);
                None
            }
        }
    }

    /// Asks a replica, once. It may know less than the primary; `None` also where there is none, or
    /// one has failed lately.
    pub(super) async fn ask_replica(
        &self,
        command: &Command<'_>,
        budget: &Budget,
        trace: &Trace,
    ) -> Option<Reply> {
        let started = Instant::now();
        let rest = *self.lock_rest();
        if rest.is_some_and(|until| started < until) {
            return None;
        }
        let shard = self.shards.as_ref()?.serving(self.slot_of(command))?;
        let replicas = shard.replicas?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let replica = replicas.get(turn.checked_rem(replicas.len())?)?;
        // Half, so that the primary can still be asked.
        let within = REPLICA_WITHIN.min(budget.remaining() / 2);
        let escort = Escort {
            before: Before::ReadOnly,
            wait: false,
        };
        let sent = replica
            .send(command, escort, within, started + within)
            .await;
        budget.spend(started.elapsed());
        match sent {
            Ok(reply) => {
                trace.node(replica.address().to_string());
                Some(reply)
            }
            Err((failure, connections)) => {
                replica.give_up(connections.as_ref());
                *self.lock_rest() = Some(Instant::now() + REPLICAS_REST);
                trace.connection_error();
                warn!(
                    domain = "config",
                    node_id = %replica.address(),
                    error.r#type = failure.kind(),
                    error = %failure,
                    "a replica does not answer, asking the primary for a while"
                );
                None
            }
        }
    }

    /// PING, for a health check: past the breakers, and connecting if need be.
    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let trace = Trace::default();
        let (_node, outcome) = self
            .insist(
                &Command::Ping,
                self.usual_slot,
                deadline,
                PAUSES.len(),
                &trace,
            )
            .await;
        match outcome {
            Ok(_pong) => Ok(()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Looks who serves what, because whoever answered this command seems to be on its own.
    pub(super) async fn look_again(&self, command: &Command<'_>, budget: &Budget) {
        if let Some(shards) = &self.shards {
            let started = Instant::now();
            let within = budget.remaining().min(PROBE_BUDGET);
            let lonely = self.home(self.slot_of(command));
            shards.look(lonely.as_ref(), started + within).await;
            budget.spend(started.elapsed());
        }
    }

    /// How often something happened in which an invalidation may have been lost: a call failed, or
    /// another node became primary. A reader that sees this number move trusts no entry unseen.
    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// How many connections are open right now.
    pub(super) fn connections(&self) -> usize {
        let nodes = self.nodes();
        nodes.iter().map(|node| node.connections()).sum()
    }

    /// Whether keys are shared out over several nodes.
    pub(super) fn is_cluster(&self) -> bool {
        self.shards.is_some()
    }

    /// Whether reads of what most requests ask for are being refused.
    pub(super) fn is_open(&self) -> bool {
        self.home(self.usual_slot)
            .unwrap_or_else(|| self.door.clone())
            .reads
            .is_open()
    }

    /// One attempt to find out whether an outage is over. In a cluster another node may have taken
    /// over meanwhile: that is cheaper to learn from the others than from the one that failed.
    async fn probe(
        &self,
        command: &Command<'_>,
        slot: u16,
        suspect: &Arc<Node>,
        deadline: Instant,
        trace: &Trace,
    ) -> Outcome {
        if let Some(shards) = &self.shards {
            shards.look(Some(suspect), deadline).await;
        }
        self.insist(command, slot, deadline, 0, trace).await
    }

    /// Tries up to 1 + `retries` times until the deadline.
    async fn insist(
        &self,
        command: &Command<'_>,
        slot: u16,
        deadline: Instant,
        retries: usize,
        trace: &Trace,
    ) -> Outcome {
        // After a failure without retries, a new connection still deserves one attempt.
        let allowed = retries.max(1);
        let mut retried = 0;
        let mut redirected = 0;
        let mut detour = None;
        loop {
            let (node, before) = match (detour.take(), self.home(slot)) {
                (Some(node), _) => (node, Before::Asking),
                (None, Some(home)) => (home, Before::Nothing),
                (None, None) => {
                    if let Some(shards) = &self.shards {
                        shards.look(Some(&self.door), deadline).await;
                    }
                    match self.home(slot) {
                        Some(home) => (home, Before::Nothing),
                        None => return (self.door.clone(), Err(self.why_nobody(deadline).await)),
                    }
                }
            };
            let wait = self.must_be_replicated(command, &node);
            let escort = Escort { before, wait };
            let mut within = self.time_for(command);
            if wait {
                within += WAITING;
            }
            let (failure, connections) = match node.send(command, escort, within, deadline).await {
                Ok(reply) => return (node, Ok(reply)),
                Err(failed) => failed,
            };
            if let (Failure::Moved(to) | Failure::Ask(to), Some(shards)) = (&failure, &self.shards)
                && redirected < MOST_REDIRECTIONS
            {
                redirected += 1;
                let to = to.clone().or_host_of(node.address());
                if matches!(failure, Failure::Ask(_)) {
                    detour = Some(shards.node(&to));
                } else {
                    shards.look(None, deadline).await;
                    if self.home(slot).is_none_or(|home| *home.address() != to) {
                        shards.moved(slot, &to);
                    }
                }
                continue;
            }
            trace.connection_error();
            let mended = self
                .mend(&node, connections.as_ref(), &failure, slot, deadline)
                .await;
            if retried >= allowed || (retries == 0 && !mended) {
                return (node, Err(failure));
            }
            let pause = if mended {
                (left(deadline) >= LEAST_ATTEMPT).then_some(Duration::ZERO)
            } else {
                pause_before(retried, left(deadline))
            };
            let mut fits = pause.is_some();
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
                // An instance that was frozen or throttled meanwhile has nothing left.
                fits = left(deadline) >= LEAST_ATTEMPT;
            }
            if !fits {
                warn!(
                    domain = "config",
                    node_id = %node.address(),
                    error.r#type = failure.kind(),
                    error = %failure,
                    retries = retried,
                    retries_allowed = allowed,
                    budget_left_ms = millis(left(deadline)),
                    "Redis retries stopped by the time budget"
                );
                return (node, Err(failure));
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

    /// Does what can be done about a failure: another node where one has taken over, else a new
    /// connection. Says whether there is something new to try.
    async fn mend(
        &self,
        node: &Arc<Node>,
        connections: Option<&Arc<Connections>>,
        failure: &Failure,
        slot: u16,
        deadline: Instant,
    ) -> bool {
        let is_hopeful = match failure {
            Failure::TimedOut | Failure::NotConnected(_) => true,
            // A primary that became a replica: its name may lead to the new one by now. A cluster
            // that is down, or has gone on without this node.
            Failure::Refused(why) => ["READONLY", "CLUSTERDOWN", "MASTERDOWN"]
                .iter()
                .any(|word| why.contains(word)),
            Failure::Moved(_) | Failure::Ask(_) => false,
        };
        if !is_hopeful {
            return false;
        }
        // Whoever comes next begins with a new connection, not with waiting for this one.
        node.give_up(connections);
        if let Some(shards) = &self.shards {
            shards.look(Some(node), deadline).await;
            if self
                .home(slot)
                .is_some_and(|home| home.address() != node.address())
            {
                return true;
            }
        }
        node.reconnect(deadline).await
    }

    /// How long one attempt may take. What moves a whole environment may take all there is: it is
    /// large, not lost.
    fn time_for(&self, command: &Command<'_>) -> Duration {
        match command {
            Command::Read { .. }
            | Command::Run {
                script: Script::Fill,
                ..
            } => self.login.config.request_budget,
            Command::Header { .. } | Command::Ping | Command::Slots | Command::Run { .. } => {
                self.login.config.operation_timeout
            }
        }
    }

    /// An invalidation waits for a replica, unless there is known to be none.
    fn must_be_replicated(&self, command: &Command<'_>, node: &Node) -> bool {
        let shards = self.shards.as_ref().filter(|_| is_last_word(command));
        shards.is_some_and(|shards| shards.replicas_of(node) != Some(0))
    }

    /// The node that a slot's commands go to, where that is known.
    fn home(&self, slot: u16) -> Option<Arc<Node>> {
        match &self.shards {
            None => Some(self.door.clone()),
            Some(shards) => shards.serving(slot).map(|shard| shard.primary),
        }
    }

    fn slot_of(&self, command: &Command<'_>) -> u16 {
        command.key().map_or(self.usual_slot, slot)
    }

    /// Why nobody serves a slot.
    async fn why_nobody(&self, deadline: Instant) -> Failure {
        match self.door.connect(deadline).await {
            Ok(_) => no_slots(),
            Err(failure) => failure,
        }
    }

    /// Notices and tells, once, that a slot has a new primary.
    fn answered(&self, node: &Node, slot: u16) {
        // Nor is it one who only answers while the slot is on its way there.
        let home = self.home(slot);
        if self.shards.is_none() || home.is_none_or(|home| home.address() != node.address()) {
            return;
        }
        let mut primaries = self
            .primaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if primaries.get(&slot) == Some(node.address()) {
            return;
        }
        if primaries.insert(slot, node.address().clone()).is_some() {
            // It may have been behind when it took over: an invalidation may be lost.
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
        let mut nodes = self.shards.as_ref().map(Shards::nodes).unwrap_or_default();
        if !nodes.iter().any(|node| Arc::ptr_eq(node, &self.door)) {
            nodes.push(self.door.clone());
        }
        nodes
    }

    fn lock_rest(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.replicas_rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause before the retry with this number, counted from 0, or nothing when the retry does not fit
/// into the rest of the budget. Only the last pause is cut: by then every other retry was made, and
/// what is left of the budget is of no other use.
fn pause_before(retry: usize, left: Duration) -> Option<Duration> {
    let full = *PAUSES.get(retry)?;
    if retry + 1 < PAUSES.len() {
        return (left >= full + LEAST_ATTEMPT).then_some(full);
    }
    let pause = full.min(left.saturating_sub(LAST_ATTEMPT));
    (pause >= SHORTEST_LAST_PAUSE).then_some(pause)
}

fn breaker_of<'a>(node: &'a Node, command: &Command<'_>) -> &'a Breaker {
    match command {
        Command::Header { .. } | Command::Read { .. } | Command::Ping | Command::Slots => {
            &node.reads
        }
        Command::Run { .. } => &node.writes,
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
        Command::Header { .. } | Command::Read { .. } | Command::Ping | Command::Slots => false,
    }
}

/// Whether it is what readers rely on after a commit.
fn is_last_word(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Run {
            script: Script::Unblock,
            ..
        }
    )
}

fn no_slots() -> Failure {
    Failure::Refused(
        "no node says who serves which slots: not a cluster, or not formed yet".to_owned(),
    )
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(retry: usize, left: u64) -> Option<u128> {
        pause_before(retry, Duration::from_millis(left)).map(|pause| pause.as_millis())
    }

    #[test]
    fn the_first_two_pauses_are_kept_in_full_or_the_retry_is_not_made() {
        for (retry, left, pause) in [
            (0, 400, Some(100)),
            (0, 105, Some(100)),
            (0, 104, None),
            (1, 300, Some(200)),
            (1, 205, Some(200)),
            (1, 204, None),
        ] {
            assert_eq!(
                milliseconds(retry, left),
                pause,
                "retry {retry}, {left} ms left"
            );
        }
    }

    #[test]
    fn the_last_pause_is_cut_to_what_is_left_of_the_budget() {
        for (left, pause) in [
            (1_000, Some(400)),
            (420, Some(400)),
            (200, Some(180)),
            (100, Some(80)),
            (70, Some(50)),
            (69, None),
            (0, None),
        ] {
            assert_eq!(milliseconds(2, left), pause, "{left} ms left");
        }
    }

    #[test]
    fn there_is_no_fourth_retry() {
        assert_eq!(milliseconds(3, 10_000), None);
    }
}
