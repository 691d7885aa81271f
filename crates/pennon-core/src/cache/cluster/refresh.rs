//! Refreshes of the slot map: when, and from which node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::select_ok;

use super::slots::{SlotRange, decode};
use super::{Shard, SlotMap, Topology};
use crate::cache::address::Address;
use crate::cache::client::{Command, CommandOptions, Failure};
use crate::cache::node::Node;

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

impl Topology {
    /// Refreshes the slot map before a request to `owner` if the map is too old. Other nodes are asked first,
    /// because a partitioned primary does not know that it was replaced; only right after a redirection is the
    /// owner asked itself. For a caller that relies on replicas, a map without replicas is refreshed at once.
    pub(in crate::cache) async fn refresh_if_due(
        &self,
        owner: Option<&Arc<Node>>,
        relies_on_replicas: bool,
        deadline: Instant,
    ) {
        let (lasts, suspect) = match owner.map(|owner| self.replicas_of(owner)) {
            Some(None) => (MIN_REFRESH_INTERVAL, None),
            Some(Some(0)) if relies_on_replicas => (MIN_REFRESH_INTERVAL, owner),
            Some(Some(0)) => (MAX_AGE_WITHOUT_REPLICAS, owner),
            Some(Some(_)) | None => (MAX_AGE, owner),
        };
        // If the lock is held, another request refreshes.
        let is_due = self
            .refreshing
            .try_lock()
            .is_ok_and(|last| last.is_none_or(|last| last.elapsed() >= lasts));
        if is_due {
            self.refresh(suspect, deadline).await;
        }
    }

    /// Reads the slot map; from `suspect` only if no other node answers. One request refreshes, and the others
    /// wait for it.
    pub(in crate::cache) async fn refresh(&self, suspect: Option<&Arc<Node>>, deadline: Instant) {
        let asked = Instant::now();
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.refreshing.lock()).await
        else {
            return;
        };
        if last.is_some_and(|last| last > asked || last.elapsed() < MIN_REFRESH_INTERVAL) {
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
        let at_once = if suspect.is_some() {
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
        for some in nodes
            .chunks(at_once)
            .chain(suspect.map(std::slice::from_ref))
        {
            let until = deadline.min(Instant::now() + timeout);
            let queries = some.iter().map(|node| Box::pin(self.ask(node, until)));
            if let Ok((map, _others)) = select_ok(queries).await {
                *self.lock() = Arc::new(map);
                self.lock_migration_targets().clear();
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        *last = Some(Instant::now());
    }

    async fn ask(&self, node: &Arc<Node>, deadline: Instant) -> Result<SlotMap, Failure> {
        let was_connected = node.is_connected();
        let within = deadline.saturating_duration_since(Instant::now());
        let answer = node
            .send(&Command::Slots, CommandOptions::default(), within, deadline)
            .await;
        match answer {
            Ok(reply) => {
                let map = self.map_of(decode(&reply, node.address()));
                // A connection that was opened for this query is kept only if requests will use it.
                if !was_connected && !self.will_be_used(&map, node) {
                    node.disconnect();
                }
                if map.is_empty() {
                    return Err(Failure::Refused("the node knows no slots".to_owned()));
                }
                Ok(map)
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
            };
            (range.first, range.last, shard)
        });
        shards.collect()
    }

    fn will_be_used(&self, map: &SlotMap, node: &Node) -> bool {
        map.iter().any(|(first, last, shard)| {
            (*first..=*last).contains(&self.default_slot)
                && shard.primary.address() == node.address()
        })
    }
}
