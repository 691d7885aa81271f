//! The topology of a cluster: its nodes, the shard that serves each slot, and redirections.

mod primaries;
mod refresh;
mod replica_reads;
mod slots;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub(super) use primaries::Primaries;
pub(super) use replica_reads::ReplicaReads;
pub(super) use slots::slot;

use super::address::Address;
use super::node::{Login, Node};
use crate::moment::Moment;

/// A primary and the replicas that follow it.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) primary: Arc<Node>,
    /// `None` if the primary is known from a redirection only.
    pub(super) replicas: Option<Vec<Arc<Node>>>,
    /// When the primary first listed none of these replicas. Cleared when the map of another node is used.
    replicas_doubted_since: Option<Instant>,
}

impl Shard {
    /// Whether the primary has no replicas, as far as it knows itself.
    fn is_alone(&self) -> bool {
        self.replicas_doubted_since.is_some() || self.replicas.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether a replica can confirm an invalidation. If the replicas are unknown, one may be able to.
    pub(super) fn can_confirm(&self) -> bool {
        self.replicas
            .as_ref()
            .is_none_or(|replicas| !replicas.is_empty())
    }
}

/// Ranges of slots, first and last, and the shard that serves each.
type SlotMap = Vec<(u16, u16, Shard)>;

/// The known nodes of a cluster, and the slots that they serve.
pub(super) struct Topology {
    login: Arc<Login>,
    /// The node of the URL: any node, or a name that always resolves to one.
    seed: Arc<Node>,
    /// The slot of most requests.
    default_slot: u16,
    map: Mutex<Arc<SlotMap>>,
    /// Nodes that became known from redirections since the last refresh.
    migration_targets: Mutex<Vec<Arc<Node>>>,
    /// Serialises refreshes. Holds the time when the last one finished.
    refreshing: tokio::sync::Mutex<Option<Moment>>,
    /// Rotates the order in which refreshes ask the nodes.
    next_node: AtomicUsize,
}

impl Topology {
    pub(super) fn new(seed: Arc<Node>, login: Arc<Login>, default_slot: u16) -> Self {
        Self {
            login,
            seed,
            default_slot,
            map: Mutex::default(),
            migration_targets: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(None),
            next_node: AtomicUsize::new(0),
        }
    }

    /// The shard that serves a slot, if known.
    pub(super) fn serving(&self, slot: u16) -> Option<Shard> {
        shard_at(&self.map(), slot).cloned()
    }

    /// Every node of the slot map and every target of a redirection, once. The seed node only if it is one of them.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let map = self.map();
        let of_shards = map.iter().flat_map(|(_, _, shard)| {
            let replicas = shard.replicas.iter().flatten();
            std::iter::once(&shard.primary).chain(replicas)
        });
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        // `moved` puts a migration target into the map, too.
        for node in of_shards.chain(self.lock_migration_targets().iter()) {
            if !nodes.iter().any(|known| known.address() == node.address()) {
                nodes.push(node.clone());
            }
        }
        nodes
    }

    /// The shard of a primary, if known.
    pub(super) fn shard_of(&self, primary: &Node) -> Option<Shard> {
        self.map()
            .iter()
            .map(|(_, _, shard)| shard)
            .find(|shard| shard.primary.address() == primary.address())
            .cloned()
    }

    /// The node at the address of a redirection. An unknown one is added.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        self.nodes()
            .into_iter()
            .find(|node| node.address() == address)
            .unwrap_or_else(|| {
                let node = Arc::new(Node::new(address.clone(), self.login.clone()));
                self.lock_migration_targets().push(node.clone());
                node
            })
    }

    /// Applies a `MOVED` redirection to one slot. The next refresh updates the rest of the map.
    pub(super) fn moved(&self, slot: u16, to: &Address) {
        let primary = self.node(to);
        let mut map = self.lock();
        let mut new: SlotMap = Vec::with_capacity(map.len() + 2);
        for (first, last, shard) in map.iter() {
            if !(*first..=*last).contains(&slot) {
                new.push((*first, *last, shard.clone()));
                continue;
            }
            if *first < slot {
                new.push((*first, slot - 1, shard.clone()));
            }
            if slot < *last {
                new.push((slot + 1, *last, shard.clone()));
            }
        }
        let shard = Shard {
            primary,
            replicas: None,
            replicas_doubted_since: None,
        };
        new.push((slot, slot, shard));
        *map = Arc::new(new);
    }

    fn map(&self) -> Arc<SlotMap> {
        self.lock().clone()
    }

    fn lock_migration_targets(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Node>>> {
        self.migration_targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<SlotMap>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard_at(map: &SlotMap, slot: u16) -> Option<&Shard> {
    map.iter()
        .find(|(first, last, _)| (*first..=*last).contains(&slot))
        .map(|(_, _, shard)| shard)
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json};
    use serde_json::{Value, json};

    use super::slots::{SLOTS, decode};
    use super::*;
    use crate::cache::RedisUrl;
    use crate::cache::client::Reply;
    use crate::config::Config;

    /// Converts JSON, which has the same structure, to a reply.
    fn reply(value: &Value) -> Reply {
        match value {
            Value::Null => Reply::Nothing,
            Value::Bool(true) => Reply::WrongType,
            Value::Bool(false) => Reply::Malformed,
            Value::Number(number) => number.as_i64().map_or(Reply::Malformed, Reply::Number),
            Value::String(text) => Reply::Text(text.as_str().into()),
            Value::Array(items) => Reply::List(items.iter().map(reply).collect()),
            Value::Object(fields) => Reply::List(fields.values().map(reply).collect()),
        }
    }

    #[test]
    fn every_node_in_the_slot_map_of_any_reply_has_an_address() {
        let login = Arc::new(Login {
            url: RedisUrl::parse("redis-cluster://seed.example:7000", false).expect("a URL"),
            config: Config::from_lookup(|_| None).0.cache,
        });
        let seed = Arc::new(Node::new(Address::new("seed.example", 7000), login.clone()));
        let examples = [
            json!([
                [
                    0,
                    5460,
                    ["10.0.0.1", 6379, "id-1", []],
                    ["10.0.0.4", 6379, "id-4", ["hostname", "a"]]
                ],
                [5461, 10922, ["", 6380, "id-2"], [null, 6381, "id-5"]],
                [10923, 16383, ["::1", 6379, "id-3"]],
            ]),
            json!([[
                0,
                16383,
                ["?", 6379, "id"],
                ["node.example", 0, "id"],
                ["b", 65535, "id"]
            ]]),
            json!([]),
        ];
        for_all(&json(examples), |value| {
            let topology = Topology::new(seed.clone(), login.clone(), 16_114);
            let map = topology.map_of(decode(&reply(&value), seed.address()));
            let ranges = match &value {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            };
            assert!(map.len() <= ranges);
            *topology.lock() = Arc::new(map);
            for node in topology.nodes() {
                assert!(!node.address().host().is_empty(), "{value}");
                // Nodes with equal addresses are the same node.
                assert!(Arc::ptr_eq(&node, &topology.node(node.address())));
            }
            let to = Address::new("moved.example", 1);
            for slot in [0, 16_114, SLOTS - 1] {
                topology.serving(slot);
                topology.moved(slot, &to);
                let now = topology.serving(slot).expect("a node that was named");
                assert_eq!(*now.primary.address(), to);
            }
        });
    }
}
