//! Which node of a cluster serves which keys, and finding out anew when that changes.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::select_ok;

use super::address::Address;
use super::client::{Command, Escort, Failure, Reply};
use super::node::{Login, Node};

/// Keys are shared out over this many slots.
const SLOTS: u16 = 16_384;
/// Asking for the slots more often than this tells nothing new and burdens nodes that are busy with a
/// failover.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// What one node has to answer which slots are whose. Others are asked at the same time.
const LOOK: Duration = Duration::from_millis(100);
/// So many nodes are asked at once when one is suspected: most likely one of them is well.
const ASKED_AT_ONCE: usize = 3;
/// How old the picture may become although nothing calls it wrong: replicas come and go without
/// anyone noticing, and a primary that is cut off from all others does not know that it has been
/// replaced. A look costs a connection to another node, a few milliseconds.
const PICTURE_LASTS: Duration = Duration::from_secs(60);
/// The same of a picture in which the primary has no replicas. There may really be none; but they are
/// missing as well when the primary has just taken over or has never been written to, and when it
/// is cut off from them.
const LONELY_PICTURE_LASTS: Duration = Duration::from_secs(5);

/// The slot of a key. Our keys have no braces, which could name a part that counts alone: the names
/// of environments cannot hold any.
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
    /// Unknown where all that is known is a redirection.
    pub(super) replicas: Option<Vec<Arc<Node>>>,
}

/// Slots, first and last, and who has them.
type Map = Vec<(u16, u16, Shard)>;

/// The nodes of a cluster as far as they are known.
pub(super) struct Shards {
    login: Arc<Login>,
    /// Where the URL leads: some node, or a name behind which there is always one.
    door: Arc<Node>,
    /// The slot that most requests use.
    usual_slot: u16,
    map: Mutex<Arc<Map>>,
    /// Nodes that a redirection has named and the picture does not hold: they are taking slots over.
    guests: Mutex<Vec<Arc<Node>>>,
    /// Held while looking; when that last ended.
    looking: tokio::sync::Mutex<Option<Instant>>,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
}

impl Shards {
    pub(super) fn new(door: Arc<Node>, login: Arc<Login>, usual_slot: u16) -> Self {
        Self {
            login,
            door,
            usual_slot,
            map: Mutex::default(),
            guests: Mutex::default(),
            looking: tokio::sync::Mutex::new(None),
            turn: AtomicUsize::new(0),
        }
    }

    /// Who has a slot, as far as known.
    pub(super) fn serving(&self, slot: u16) -> Option<Shard> {
        self.map()
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .map(|(_, _, shard)| shard.clone())
    }

    /// Every node that is known, each once, the door not among them.
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
        nodes.extend(self.lock_guests().iter().cloned());
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
                self.lock_guests().push(node.clone());
                node
            })
    }

    /// A node says that another one has this slot. Believed at once; the rest of the picture comes
    /// with the next look.
    pub(super) fn moved(&self, slot: u16, to: &Address) {
        let primary = self.node(to);
        let mut map = self.lock();
        let mut new: Map = Vec::with_capacity(map.len() + 2);
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

    /// Looks when it is time to, on behalf of a request that is about to ask `home`. Others are asked
    /// first: a primary that was cut off and replaced still takes itself for one. Only where a
    /// redirection has just led to it, it is the one who knows best. Who is about to rely on what the
    /// replicas say does not take an old word for it that there are none.
    pub(super) async fn look_in_time(
        &self,
        home: Option<&Arc<Node>>,
        relies_on_replicas: bool,
        deadline: Instant,
    ) {
        let (lasts, suspect) = match home.map(|home| self.replicas_of(home)) {
            Some(None) => (BETWEEN_LOOKS, None),
            Some(Some(0)) if relies_on_replicas => (BETWEEN_LOOKS, home),
            Some(Some(0)) => (LONELY_PICTURE_LASTS, home),
            Some(Some(_)) | None => (PICTURE_LASTS, home),
        };
        // Somebody is looking right now when it is held.
        let is_due = self
            .looking
            .try_lock()
            .is_ok_and(|last| last.is_none_or(|last| last.elapsed() >= lasts));
        if is_due {
            self.look(suspect, deadline).await;
        }
    }

    /// Looks who has which slots now, asking `suspect` only when nobody else answers. Of several
    /// requests, one looks for all.
    pub(super) async fn look(&self, suspect: Option<&Arc<Node>>, deadline: Instant) {
        let asked = Instant::now();
        let Ok(mut last) = tokio::time::timeout_at(deadline.into(), self.looking.lock()).await
        else {
            return;
        };
        if last.is_some_and(|last| last > asked || last.elapsed() < BETWEEN_LOOKS) {
            return;
        }
        let mut nodes = self.nodes();
        // A node that is connected answers soonest; among equals, each has its turn, so that one
        // with an old picture is not asked for ever.
        if !nodes.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(turn);
        }
        nodes.sort_by_key(|node| !node.is_connected());
        nodes.push(self.door.clone());
        let is_suspect =
            |node: &Arc<Node>| suspect.is_some_and(|suspect| suspect.address() == node.address());
        nodes.retain(|node| !is_suspect(node));
        let at_once = if suspect.is_some() { ASKED_AT_ONCE } else { 1 };
        // The way in may be long: it is connected to for the first time.
        let patience = if self.map().is_empty() {
            LOOK + self.login.config.connect_timeout
        } else {
            LOOK
        };
        for some in nodes
            .chunks(at_once)
            .chain(suspect.map(std::slice::from_ref))
        {
            let until = deadline.min(Instant::now() + patience);
            let looks = some.iter().map(|node| Box::pin(self.ask(node, until)));
            if let Ok((map, _others)) = select_ok(looks).await {
                *self.lock() = Arc::new(map);
                self.lock_guests().clear();
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        *last = Some(Instant::now());
    }

    async fn ask(&self, node: &Arc<Node>, deadline: Instant) -> Result<Map, Failure> {
        let was_connected = node.is_connected();
        let within = deadline.saturating_duration_since(Instant::now());
        let answer = node
            .send(&Command::Slots, Escort::default(), within, deadline)
            .await;
        match answer {
            Ok(reply) => {
                let map = self.read(&reply, node.address());
                // A connection that was made to look is kept only where requests will use it.
                if !was_connected && !self.will_be_used(&map, node) {
                    node.disconnect();
                }
                if map.is_empty() {
                    return Err(Failure::Refused("it knows of no slots".to_owned()));
                }
                Ok(map)
            }
            Err((failure, connections)) => {
                node.give_up(connections.as_ref());
                Err(failure)
            }
        }
    }

    /// `CLUSTER SLOTS`: of every range the first and the last slot, its primary, its replicas; of
    /// every node host, port, id, and more.
    fn read(&self, reply: &Reply, found_at: &Address) -> Map {
        let mut known: HashMap<Address, Arc<Node>> = self
            .nodes()
            .into_iter()
            .map(|node| (node.address().clone(), node))
            .collect();
        let door = (self.door.address().clone(), self.door.clone());
        known.entry(door.0).or_insert(door.1);
        let mut node = |reply: &Reply| {
            let address = address_of(reply)?.or_host_of(found_at);
            let new = || Arc::new(Node::new(address.clone(), self.login.clone()));
            Some(known.entry(address.clone()).or_insert_with(new).clone())
        };
        let Reply::List(ranges) = reply else {
            return Map::new();
        };
        let mut map = Map::new();
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

    fn will_be_used(&self, map: &Map, node: &Node) -> bool {
        map.iter().any(|(first, last, shard)| {
            (*first..=*last).contains(&self.usual_slot) && shard.primary.address() == node.address()
        })
    }

    fn map(&self) -> Arc<Map> {
        self.lock().clone()
    }

    fn lock_guests(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Node>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Map>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Host and port of a node. A host that is missing, or that the node itself does not know, is empty.
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
            Value::Bool(false) => Reply::Nonsense,
            Value::Number(number) => number.as_i64().map_or(Reply::Nonsense, Reply::Number),
            Value::String(text) => Reply::Text(text.clone()),
            Value::Array(items) => Reply::List(items.iter().map(reply).collect()),
            Value::Object(fields) => Reply::List(fields.values().map(reply).collect()),
        }
    }

    #[test]
    fn every_reply_gives_a_picture_in_which_each_node_has_an_address() {
        let login = Arc::new(Login {
            url: RedisUrl::parse("redis-cluster://door.example:7000").expect("a URL"),
            config: Config::from_lookup(|_| None).0.cache,
        });
        let door = Arc::new(Node::new(Address::new("door.example", 7000), login.clone()));
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
            let shards = Shards::new(door.clone(), login.clone(), 16_114);
            let map = shards.read(&reply(&value), door.address());
            let ranges = match &value {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            };
            assert!(map.len() <= ranges);
            *shards.lock() = Arc::new(map);
            for node in shards.nodes() {
                assert!(!node.address().host().is_empty(), "{value}");
                // The same address is the same node, however often it is named.
                assert!(Arc::ptr_eq(&node, &shards.node(node.address())));
            }
            let to = Address::new("moved.example", 1);
            for slot in [0, 16_114, SLOTS - 1] {
                shards.serving(slot);
                shards.moved(slot, &to);
                let now = shards.serving(slot).expect("a node that was named");
                assert_eq!(*now.primary.address(), to);
            }
        });
    }
}
