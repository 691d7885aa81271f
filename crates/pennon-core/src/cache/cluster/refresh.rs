//! Refreshes of the slot map: when, and from which node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::slots::{SlotRange, decode};
use super::{Shard, SlotMap, Topology, shard_at};
use crate::cache::address::Address;
use crate::cache::client::{Command, CommandOptions, Failure};
use crate::cache::node::Node;
use crate::moment::Moment;

/// The shortest time between two refreshes, which limits the load on nodes that are busy with a failover.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(50);
/// How long one node may take to answer `CLUSTER SLOTS`.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(100);
/// The number of nodes that are asked concurrently if one node may be out of date.
const PARALLEL_QUERIES: usize = 3;
/// The age at which the slot map is refreshed even without a sign that it is wrong. Replicas join and leave
/// unnoticed, and a primary that is partitioned from all other nodes does not know that it was replaced. A refresh
/// costs a connection to another node, a few milliseconds.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The same for a slot map in which the primary has no replicas. There may be none, but the primary may also have
/// just taken over, or be partitioned from them.
const MAX_AGE_WITHOUT_REPLICAS: Duration = Duration::from_secs(5);

/// The slot map of one node.
struct Answer {
    map: SlotMap,
    /// See [`Topology::is_doubtful`].
    is_doubtful: bool,
}

impl Topology {
    /// Refreshes the slot map before a request to `owner` if the map is too old. `owner` is asked last, because a
    /// partitioned primary does not know that it was replaced. An `owner` that is known only from a redirection is
    /// asked like any other node. For a command that a replica must confirm, a map without replicas is refreshed at
    /// once.
    pub(in crate::cache) async fn refresh_if_due(
        &self,
        owner: Option<&Arc<Node>>,
        needs_confirmation: bool,
        deadline: Instant,
    ) {
        let (max_age, suspect) = match owner.map(|owner| self.shard_of(owner)) {
            Some(None | Some(Shard { replicas: None, .. })) => (MIN_REFRESH_INTERVAL, None),
            Some(Some(shard)) if !shard.is_alone() => (MAX_AGE, owner),
            Some(Some(_)) if needs_confirmation => (MIN_REFRESH_INTERVAL, owner),
            Some(Some(_)) => (MAX_AGE_WITHOUT_REPLICAS, owner),
            None => (MAX_AGE, None),
        };
        // If the lock is held, another request refreshes.
        let is_due = self
            .refreshing
            .try_lock()
            .is_ok_and(|last| last.is_none_or(|last| last.age() >= max_age));
        if is_due {
            self.refresh(suspect, deadline).await;
        }
    }

    /// Reads the slot map. `suspect` is asked last, after all other nodes have failed or given a doubtful answer. One
    /// request refreshes, and the others wait for it.
    pub(in crate::cache) async fn refresh(&self, suspect: Option<&Arc<Node>>, deadline: Instant) {
        let started = Moment::now();
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.refreshing.lock()).await
        else {
            return;
        };
        if last.is_some_and(|last| last.is_since(started) || last.age() < MIN_REFRESH_INTERVAL) {
            return;
        }
        let mut nodes = self.nodes();
        // Connected nodes first, because they answer soonest. The order rotates, so that a node with an old map is
        // not always asked first.
        if !nodes.is_empty() {
            let first = self.next_node.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(first);
        }
        nodes.sort_by_key(|node| !node.is_connected());
        nodes.push(self.seed.clone());
        let is_suspect =
            |node: &Arc<Node>| suspect.is_some_and(|suspect| suspect.address() == node.address());
        nodes.retain(|node| !is_suspect(node));
        let parallel = if suspect.is_some() {
            PARALLEL_QUERIES
        } else {
            1
        };
        // The first refresh also connects to the seed node.
        let timeout = if self.map().is_empty() {
            REFRESH_TIMEOUT + self.login.config.connect_timeout
        } else {
            REFRESH_TIMEOUT
        };
        let groups = nodes
            .chunks(parallel)
            .chain(suspect.map(std::slice::from_ref));
        if let Some(map) = self.ask_in_turn(groups, timeout, deadline).await {
            *self.lock() = Arc::new(map);
            self.lock_migration_targets().clear();
        }
        *last = Some(Moment::now());
    }

    /// Asks groups of nodes until one gives an answer that is not doubtful. If there is none, the last answer is used,
    /// unless the time is over before all nodes were asked.
    async fn ask_in_turn<'a>(
        &self,
        groups: impl Iterator<Item = &'a [Arc<Node>]>,
        timeout: Duration,
        deadline: Instant,
    ) -> Option<SlotMap> {
        let mut doubtful = None;
        for group in groups {
            if Instant::now() >= deadline {
                return None;
            }
            let until = deadline.min(Instant::now() + timeout);
            let mut answers: FuturesUnordered<_> =
                group.iter().map(|node| self.ask(node, until)).collect();
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answer) if answer.is_doubtful => doubtful = Some(answer.map),
                    Ok(answer) => return Some(answer.map),
                    Err(_silent) => {}
                }
            }
        }
        doubtful
    }

    async fn ask(&self, node: &Arc<Node>, deadline: Instant) -> Result<Answer, Failure> {
        let was_connected = node.is_connected();
        let within = deadline.saturating_duration_since(Instant::now());
        let answer = node
            .send(&Command::Slots, CommandOptions::default(), within, deadline)
            .await;
        match answer {
            Ok(reply) => {
                let mut map = self.map_of(decode(&reply, node.address()));
                let is_doubtful = self.is_doubtful(&map);
                self.keep_replicas(&mut map, node);
                // A connection that was opened for this query is kept only if requests will use it.
                if !was_connected && !self.will_be_used(&map, node) {
                    node.disconnect();
                }
                if map.is_empty() {
                    return Err(Failure::Refused("the node knows no slots".to_owned()));
                }
                Ok(Answer { map, is_doubtful })
            }
            Err((failure, connections)) => {
                node.give_up(connections.as_ref());
                Err(failure)
            }
        }
    }

    /// The slot map with these ranges. Equal addresses become one node, and known nodes keep their connections.
    pub(super) fn map_of(&self, ranges: Vec<SlotRange>) -> SlotMap {
        let nodes = self.nodes().into_iter().chain([self.seed.clone()]);
        let mut known: HashMap<Address, Arc<Node>> = HashMap::new();
        for node in nodes {
            known.entry(node.address().clone()).or_insert(node);
        }
        let mut node = |address: Address| {
            let new = || Arc::new(Node::new(address.clone(), self.login.clone()));
            known.entry(address.clone()).or_insert_with(new).clone()
        };
        let shards = ranges.into_iter().map(|range| {
            let shard = Shard {
                primary: node(range.primary),
                replicas: Some(range.replicas.into_iter().map(&mut node).collect()),
                replicas_doubted_since: None,
            };
            (range.first, range.last, shard)
        });
        shards.collect()
    }

    /// Whether this map says that the primary of the default slot has no replicas, and the current map does not. The
    /// new map may come from a primary that was replaced and does not know it.
    fn is_doubtful(&self, map: &SlotMap) -> bool {
        let Some(shard) = shard_at(map, self.default_slot) else {
            return false;
        };
        let is_known = self.serving(self.default_slot).is_some_and(|known| {
            known.primary.address() == shard.primary.address() && !known.can_confirm()
        });
        !shard.can_confirm() && !is_known
    }

    /// Keeps the known replicas of a primary that itself reports that it has none. Perhaps they were removed, but
    /// perhaps one of them has become primary and the old primary does not know it: then the old primary must not
    /// confirm an invalidation alone. If no other node answers for [`MAX_AGE`], the replicas count as removed.
    fn keep_replicas(&self, map: &mut SlotMap, replied: &Arc<Node>) {
        for (_, _, shard) in map.iter_mut() {
            // The name of the seed may lead to the primary.
            let by_itself =
                replied.address() == shard.primary.address() || Arc::ptr_eq(replied, &self.seed);
            let known = self.shard_of(&shard.primary);
            let Some(known) = known.filter(|_| by_itself && !shard.can_confirm()) else {
                continue;
            };
            let since = known.replicas_doubted_since.unwrap_or_else(Instant::now);
            if known.replicas.iter().flatten().next().is_some() && since.elapsed() < MAX_AGE {
                shard.replicas = known.replicas;
                shard.replicas_doubted_since = Some(since);
            }
        }
    }

    fn will_be_used(&self, map: &SlotMap, node: &Node) -> bool {
        shard_at(map, self.default_slot)
            .is_some_and(|shard| shard.primary.address() == node.address())
    }
}
