//! The slot map of a cluster, and when it is refreshed.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::select_ok;

use super::address::Address;
use super::client::{Command, CommandOptions, Failure, Reply};
use super::node::{Login, Node};

/// The number of hash slots of a cluster.
const SLOTS: u16 = 16_384;
/// The shortest time between two refreshes. More of them would only burden nodes that are busy with a
/// failover.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(50);
/// How long one node may take to answer `CLUSTER SLOTS`.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(100);
/// How many nodes are asked at the same time when one node is suspected to be out of date.
const PARALLEL_QUERIES: usize = 3;
/// How old the slot map may become without any sign that it is wrong. Replicas join and leave unnoticed,
/// and a primary that is partitioned from all other nodes does not know that it was replaced. A refresh
/// costs a connection to another node, a few milliseconds.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The same for a slot map in which the primary has no replicas. There may be none; but they are missing as
/// well when the primary has just taken over, when it was never written to, and when it is partitioned from
/// them.
const MAX_AGE_WITHOUT_REPLICAS: Duration = Duration::from_secs(5);

/// The slot of a key: CRC16/XMODEM modulo 16,384. Keys of Pennon have no hash tag, because names of
/// environments cannot contain braces.
pub(super) fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _bit| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// A primary and the replicas that follow it.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) primary: Arc<Node>,
    /// `None` where only a redirection has named the primary.
    pub(super) replicas: Option<Vec<Arc<Node>>>,
}

/// Ranges of slots, first and last, and the shard that serves each.
type SlotMap = Vec<(u16, u16, Shard)>;

/// The known nodes of a cluster.
pub(super) struct Topology {
    login: Arc<Login>,
    /// The node of the URL: any node, or a name that always resolves to one.
    seed: Arc<Node>,
    /// The slot of most requests.
    default_slot: u16,
    map: Mutex<Arc<SlotMap>>,
    /// Nodes that a redirection has named and that are not in the slot map: they import slots.
    migration_targets: Mutex<Vec<Arc<Node>>>,
    /// Serialises refreshes. Holds the time when the last one finished.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    /// The node to ask first next time.
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

    /// The shard that serves a slot, where that is known.
    pub(super) fn serving(&self, slot: u16) -> Option<Shard> {
        self.map()
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .map(|(_, _, shard)| shard.clone())
    }

    /// Every known node once, without the seed node.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for (_, _, shard) in self.map().iter() {
            let replicas = shard.replicas.iter().flatten();
            for node in std::iter::once(&shard.primary).chain(replicas) {
                if !nodes.iter().any(|known| known.address() == node.address()) {
                    nodes.push(node.clone());
                }
            }
        }
        nodes.extend(self.lock_migration_targets().iter().cloned());
        nodes
    }

    /// How many replicas a primary has, where that is known.
    pub(super) fn replicas_of(&self, primary: &Node) -> Option<usize> {
        let map = self.map();
        let mut shards = map.iter().map(|(_, _, shard)| shard);
        let shard = shards.find(|shard| shard.primary.address() == primary.address())?;
        shard.replicas.as_ref().map(Vec::len)
    }

    /// The node at this address, which a redirection has named.
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

    /// Takes over a redirection for one slot. The rest of the map follows with the next refresh.
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
        let replicas = None;
        new.push((slot, slot, Shard { primary, replicas }));
        *map = Arc::new(new);
    }

    /// Refreshes the slot map if it is too old, before a request to `owner`. Other nodes are asked first,
    /// because a primary that was partitioned and replaced still believes that it is one; only right after
    /// a redirection the owner itself knows best. A caller that relies on replicas gets a new map where the
    /// known one has none.
    pub(super) async fn refresh_if_due(
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
        // While the lock is held, another request refreshes.
        let is_due = self
            .refreshing
            .try_lock()
            .is_ok_and(|last| last.is_none_or(|last| last.elapsed() >= lasts));
        if is_due {
            self.refresh(suspect, deadline).await;
        }
    }

    /// Reads the slot map, from `suspect` only when no other node answers. One request refreshes for all
    /// that wait.
    pub(super) async fn refresh(&self, suspect: Option<&Arc<Node>>, deadline: Instant) {
        let asked = Instant::now();
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.refreshing.lock()).await
        else {
            return;
        };
        if last.is_some_and(|last| last > asked || last.elapsed() < MIN_REFRESH_INTERVAL) {
            return;
        }
        let mut nodes = self.nodes();
        // A connected node answers soonest. Among equals the order rotates, so that a node with an old map
        // is not asked every time.
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
        // The first refresh includes connecting to the seed node.
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
                let map = self.read(&reply, node.address());
                // A connection that was opened for this query is kept only if requests will use it.
                if !was_connected && !self.will_be_used(&map, node) {
                    node.disconnect();
                }
                if map.is_empty() {
                    return Err(Failure::Refused("it has no slots".to_owned()));
                }
                Ok(map)
            }
            Err((failure, connections)) => {
                node.give_up(connections.as_ref());
                Err(failure)
            }
        }
    }

    /// Decodes the reply to `CLUSTER SLOTS`: for each range its first and last slot, its primary and its
    /// replicas; for each node host, port, id and more.
    fn read(&self, reply: &Reply, found_at: &Address) -> SlotMap {
        let mut known: HashMap<Address, Arc<Node>> = self
            .nodes()
            .into_iter()
            .map(|node| (node.address().clone(), node))
            .collect();
        let seed = (self.seed.address().clone(), self.seed.clone());
        known.entry(seed.0).or_insert(seed.1);
        let mut node = |reply: &Reply| {
            let address = address_of(reply)?.or_host_of(found_at);
            let new = || Arc::new(Node::new(address.clone(), self.login.clone()));
            Some(known.entry(address.clone()).or_insert_with(new).clone())
        };
        let Reply::List(ranges) = reply else {
            return SlotMap::new();
        };
        let mut map = SlotMap::new();
        for range in ranges {
            let Reply::List(parts) = range else { continue };
            let [
                Reply::Number(first),
                Reply::Number(last),
                primary,
                replicas @ ..,
            ] = parts.as_slice()
            else {
                continue;
            };
            let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(*last)) else {
                continue;
            };
            if let Some(primary) = node(primary) {
                let replicas = Some(replicas.iter().filter_map(&mut node).collect());
                map.push((first, last, Shard { primary, replicas }));
            }
        }
        map
    }

    fn will_be_used(&self, map: &SlotMap, node: &Node) -> bool {
        map.iter().any(|(first, last, shard)| {
            (*first..=*last).contains(&self.default_slot)
                && shard.primary.address() == node.address()
        })
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

/// Host and port of a node. The host is empty where the node does not know its own.
fn address_of(reply: &Reply) -> Option<Address> {
    let Reply::List(parts) = reply else {
        return None;
    };
    match parts.as_slice() {
        [Reply::Text(host), Reply::Number(port), ..] => {
            Some(Address::new(host, u16::try_from(*port).ok()?))
        }
        [Reply::Nothing, Reply::Number(port), ..] => {
            Some(Address::new("", u16::try_from(*port).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        for (key, expected) in [
            ("feature_flags:production", 16_114),
            ("foo", 12_182),
            ("123456789", 12_739),
            ("", 0),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json};
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::RedisUrl;
    use crate::config::Config;

    /// Replies are lists, numbers and texts, as JSON is.
    fn reply(value: &Value) -> Reply {
        match value {
            Value::Null => Reply::Nothing,
            Value::Bool(true) => Reply::WrongType,
            Value::Bool(false) => Reply::Malformed,
            Value::Number(number) => number.as_i64().map_or(Reply::Malformed, Reply::Number),
            Value::String(text) => Reply::Text(text.clone()),
            Value::Array(items) => Reply::List(items.iter().map(reply).collect()),
            Value::Object(fields) => Reply::List(fields.values().map(reply).collect()),
        }
    }

    #[test]
    fn every_reply_gives_a_picture_in_which_each_node_has_an_address() {
        let login = Arc::new(Login {
            url: RedisUrl::parse("redis-cluster://seed.example:7000").expect("a URL"),
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
            let map = topology.read(&reply(&value), seed.address());
            let ranges = match &value {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            };
            assert!(map.len() <= ranges);
            *topology.lock() = Arc::new(map);
            for node in topology.nodes() {
                assert!(!node.address().host().is_empty(), "{value}");
                // The same address is the same node, however often it is named.
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
