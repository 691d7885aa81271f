//! The cache shared by all instances: one Redis hash per environment.
//!
//! Nothing here returns an error. A question is answered with a hit, a miss or "unavailable", a
//! request to change something with yes or no, so that no failure of Redis can become a failure of
//! a request.
//!
//! The protocol, in five scripts on one key each (legal in a cluster):
//!
//! * A reader that finds no entry takes a **lease** before it reads the database, and may fill only
//!   while that lease stands. Whatever drops the entry (a writer, an operator's `DEL`, expiry) drops
//!   the leases with it, so a fill can never bring back what was read before.
//! * A writer sets a **mark** before its commit, which drops the entry and the leases and keeps
//!   others from taking new ones, and removes the mark after. If the second step is lost, the mark
//!   runs out later than the commit can be delayed: readers go to the database until then.

mod budget;
mod client;
mod entry;
mod guard;
mod url;

use std::time::Duration;

pub use budget::Budget;
pub use url::{InvalidRedisUrl, RedisUrl};

use client::{Command, Reply, Script};
use guard::Guard;

use crate::config::CacheConfig;
use crate::environment::Environment;
use crate::id::unique_id;
use crate::snapshot::{Revision, Snapshot};
use crate::telemetry::Trace;

/// How long a reader may take from its lease to its fill: a slow database read, and the fill.
const LEASE: Duration = Duration::from_secs(5);
/// How long others wait for the first reader before they load themselves. A load takes a few
/// milliseconds; a reader that died costs the others no more than this.
const HEAD_START: Duration = Duration::from_millis(150);
/// How long a writer's mark stands when nobody removes it. A commit comes within it or never: the
/// database ends a transaction that idles for [`crate::store::COMMIT_WITHIN`].
pub const MARK: Duration = Duration::from_secs(15);
/// Above this size an entry costs noticeably more to move.
const LARGE_PAYLOAD: usize = 1_000_000;
const _: () = assert!(crate::store::COMMIT_WITHIN.as_millis() * 2 < MARK.as_millis());

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Here it is.
    Hit(T),
    /// Redis has no such thing.
    Miss,
    /// Redis cannot be asked.
    Unavailable,
}

/// What a reader finds when it wants a whole entry.
#[derive(Debug)]
pub enum Found {
    /// An entry, and how long it will live.
    Entry(Box<Snapshot>, Duration),
    /// No entry. Load, then fill with this lease.
    Lease(Lease),
    /// No entry, and somebody else is loading. Ask again soon.
    Busy,
    /// No entry, and a commit is under way or Redis is full. Load, do not fill.
    NoFill,
    /// An entry that makes no sense. It has been dropped. Load, do not fill.
    Damaged,
    /// Redis cannot be asked.
    Unavailable,
}

/// The right to fill an environment once.
#[derive(Debug)]
pub struct Lease {
    id: String,
}

/// A writer's mark on an environment.
#[derive(Debug)]
pub struct Mark {
    id: String,
    acknowledged: bool,
}

impl Mark {
    /// Whether Redis has set it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.acknowledged
    }
}

/// One Redis, single node or cluster.
pub struct Cache {
    guard: Guard,
    ttl: Duration,
}

impl Cache {
    /// Connects within that limit; a failure leaves a cache that connects within a later request.
    pub async fn connect(url: RedisUrl, config: CacheConfig, within: Duration) -> Self {
        let ttl = config.ttl;
        Self {
            guard: Guard::connect(url, config, within).await,
            ttl,
        }
    }

    /// The revision of an environment's entry: the few bytes that most requests ask for.
    pub async fn revision(
        &self,
        environment: &Environment,
        budget: &Budget,
        trace: &Trace,
    ) -> Lookup<Revision> {
        let key = entry::key(environment);
        match self
            .guard
            .ask(&Command::Revision { key: &key }, budget, trace)
            .await
        {
            None => Lookup::Unavailable,
            Some(Reply::Text(text)) => match text.parse() {
                Ok(revision) => Lookup::Hit(Revision(revision)),
                Err(_) => Lookup::Miss,
            },
            Some(
                Reply::Nothing
                | Reply::WrongType
                | Reply::Nonsense
                | Reply::Number(_)
                | Reply::List(_),
            ) => Lookup::Miss,
        }
    }

    /// A whole entry, or the right to fill it.
    pub async fn read(&self, environment: &Environment, budget: &Budget, trace: &Trace) -> Found {
        let key = entry::key(environment);
        let command = Command::Read {
            key: &key,
            lease: LEASE,
            head_start: HEAD_START,
        };
        let Some(reply) = self.guard.ask(&command, budget, trace).await else {
            return Found::Unavailable;
        };
        let Reply::List(parts) = reply else {
            return Found::NoFill;
        };
        match parts.as_slice() {
            [Reply::Text(kind), Reply::Number(ttl), Reply::List(fields)] if kind == "entry" => {
                if let Some(snapshot) = pairs(fields).and_then(|fields| entry::decode(&fields)) {
                    let ttl = Duration::from_millis(u64::try_from(*ttl).unwrap_or(0));
                    return Found::Entry(Box::new(snapshot), ttl);
                }
                tracing::warn!(
                    domain = "config",
                    error.r#type = "damaged_entry",
                    "the cache entry of {environment} makes no sense; dropping it"
                );
                self.drop_all(&key, unique_id(), budget, trace).await;
                Found::Damaged
            }
            [Reply::Text(kind), Reply::Text(id)] if kind == "lease" => {
                Found::Lease(Lease { id: id.clone() })
            }
            [Reply::Text(kind)] if kind == "busy" => Found::Busy,
            _ => Found::NoFill,
        }
    }

    /// Puts a snapshot in, whole and with its lifetime, if the lease still stands. Says whether it
    /// did.
    pub async fn fill(
        &self,
        environment: &Environment,
        lease: Lease,
        snapshot: &Snapshot,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let Ok(fields) = entry::encode(snapshot) else {
            return false;
        };
        let size: usize = fields.iter().map(String::len).sum();
        if size > LARGE_PAYLOAD {
            tracing::warn!(
                domain = "config",
                environment = environment.as_str(),
                bytes = size,
                "Large cache payload"
            );
        }
        let mut arguments = Vec::with_capacity(2 + fields.len());
        arguments.push(lease.id);
        arguments.push(self.ttl.as_millis().to_string());
        arguments.extend(fields);
        let key = entry::key(environment);
        let reply = self
            .run(Script::Fill, &key, &arguments, budget, trace)
            .await;
        let filled = reply == Some(Reply::Number(1));
        if reply == Some(Reply::Number(0)) {
            trace.fill_refused();
        }
        filled
    }

    /// Before a commit: drops the entry and keeps everyone from filling until [`Cache::unblock`].
    pub async fn block(&self, environment: &Environment, budget: &Budget, trace: &Trace) -> Mark {
        let key = entry::key(environment);
        let id = unique_id();
        let arguments = [id.clone(), MARK.as_millis().to_string()];
        let reply = self
            .run(Script::Block, &key, &arguments, budget, trace)
            .await;
        Mark {
            id,
            acknowledged: reply == Some(Reply::Number(1)),
        }
    }

    /// After a commit: drops whatever is there and lets readers fill again. Says whether Redis has
    /// done it: only then does every instance read what was committed. A mark that was acknowledged
    /// before does as much in most cases, but a restart or an operator may have removed it.
    pub async fn unblock(
        &self,
        environment: &Environment,
        mark: Mark,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let key = entry::key(environment);
        self.drop_all(&key, mark.id, budget, trace).await
    }

    /// Drops an entry that carries a revision known to be wrong. Says whether Redis was told.
    pub async fn discard(
        &self,
        environment: &Environment,
        wrong: Revision,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let key = entry::key(environment);
        self.run(Script::Discard, &key, &[wrong.to_string()], budget, trace)
            .await
            .is_some()
    }

    /// Whether keys are shared out over several nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.guard.is_cluster()
    }

    /// How long an entry lives.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// PING, past the breakers.
    ///
    /// # Errors
    /// A sentence for the log, without secrets.
    pub async fn ping(&self, within: Duration) -> Result<(), String> {
        self.guard.ping(within).await
    }

    /// How many calls have failed so far.
    #[must_use]
    pub fn outages(&self) -> u64 {
        self.guard.outages()
    }

    /// How many connections this process has open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.guard.connections()
    }

    /// Whether an outage is under way as far as this process knows.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.guard.is_open()
    }

    async fn run(
        &self,
        script: Script,
        key: &str,
        arguments: &[String],
        budget: &Budget,
        trace: &Trace,
    ) -> Option<Reply> {
        let command = Command::Run {
            script,
            key,
            arguments,
        };
        self.guard.ask(&command, budget, trace).await
    }

    /// Drops everything at a key but the marks of other writers.
    async fn drop_all(&self, key: &str, writer: String, budget: &Budget, trace: &Trace) -> bool {
        self.run(Script::Unblock, key, &[writer], budget, trace)
            .await
            == Some(Reply::Number(1))
    }
}

/// Flat fields and values as pairs, or nothing when one of them is no text.
fn pairs(flat: &[Reply]) -> Option<Vec<(String, String)>> {
    flat.chunks(2)
        .map(|pair| match pair {
            [Reply::Text(field), Reply::Text(value)] => Some((field.clone(), value.clone())),
            _ => None,
        })
        .collect()
}
