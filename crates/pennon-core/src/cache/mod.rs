//! The cache shared by all instances: one Redis hash per environment.
//!
//! Nothing here returns an error. A question is answered with a hit, a miss or "unavailable", a
//! request to change something with yes or no, so that no failure of Redis can become a failure of
//! a request.
//!
//! Beside them there is one with the names of all environments, by the same protocol, so that a made-up
//! name costs the database nothing.
//!
//! The protocol, in five scripts on one key each (legal in a cluster):
//!
//! * A reader that finds no entry takes a **lease** before it reads the database, and may fill only
//!   while that lease stands. Whatever drops the entry (a writer, an operator's `DEL`, expiry) drops
//!   the leases with it, so a fill can never bring back what was read before.
//! * A writer sets a **mark** before its commit, which drops the entry and the leases and keeps
//!   others from taking new ones, and removes the mark after. If the second step is lost, the mark
//!   runs out later than the commit can be delayed: readers go to the database until then.

mod address;
mod authentic;
mod budget;
mod client;
mod entry;
mod guard;
mod link;
mod mac;
mod node;
mod replicas;
mod shards;
mod url;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use authentic::Seen;
pub use budget::Budget;
pub use url::{InvalidRedisUrl, RedisUrl};

use authentic::{in_milliseconds, now};
use client::{Command, Reply, Script};
use entry::{Header, Signer, Unusable};
use guard::Guard;
use link::Source;
use replicas::Replicas;

use crate::config::{CacheConfig, UrlSource};
use crate::environment::Environment;
use crate::id::unique_id;
use crate::installation::Installation;
use crate::secrets::Secrets;
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
/// A mark that arrives later than this after it was sent is not set: it lay in a server that hung, and
/// its writer has long given up. Clocks that differ by more cost writers their marks, and readers
/// nothing else: the answer says then whether Redis was told.
const MARK_LATE: Duration = Duration::from_secs(2);
/// How long the list of environments lives. Who creates an environment by the API drops it, so this is
/// how long an environment that came into being by SQL, or by the service before us, may stay unseen; and
/// names that nobody knows cost the database one query in this time, however many instances there are.
const LIST_TTL: Duration = Duration::from_secs(10);
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
pub enum Found<T = Snapshot> {
    /// An authentic entry.
    Entry(Box<T>, Seen),
    /// No entry. Load, then fill with this lease.
    Lease(Lease),
    /// No entry, and somebody else is loading. Ask again soon.
    Busy,
    /// No entry, and a commit is under way or Redis is full; or an entry of another installation. Load,
    /// do not fill.
    NoFill,
    /// An entry that is forged, expired or makes no sense. It has been dropped. Ask again.
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
    /// More than one attempt was made, and one that was taken for lost may still arrive.
    is_loose: bool,
}

impl Mark {
    /// Whether Redis has set it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.acknowledged
    }
}

/// Reads what fields hold, if it is authentic at that time.
type Decode<T> = fn(&[(String, String)], &Signer<'_>, u64) -> Result<(T, Header), Unusable>;

/// One Redis, single node or cluster.
pub struct Cache {
    source: Arc<Source>,
    replicas: Replicas,
    reads_replicas: bool,
    ttl: Duration,
    key_prefix: String,
    installation: Arc<Installation>,
}

impl Cache {
    /// Finds out where Redis is and connects within that limit, if there is to be one. A failure
    /// leaves a cache that is unavailable until a later request mends that.
    pub async fn open(
        config: &CacheConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
        within: Duration,
    ) -> Option<Self> {
        match config.url {
            UrlSource::None => return None,
            UrlSource::Plain(_) | UrlSource::SecretArn(_) => {}
        }
        let usual_key = entry::key(&config.key_prefix, &Environment::production());
        let source = Source::open(config.clone(), secrets.clone(), usual_key, within).await;
        Some(Self {
            source,
            replicas: Replicas::default(),
            reads_replicas: config.replica_reads,
            ttl: config.ttl,
            key_prefix: config.key_prefix.clone(),
            installation: installation.clone(),
        })
    }

    /// The revision of an environment's entry: the few bytes that most requests ask for. A replica
    /// may answer where that is configured; see `replicas` for what its answer is worth.
    pub async fn revision(
        &self,
        environment: &Environment,
        budget: &Budget,
        trace: &Trace,
    ) -> Lookup<Seen> {
        self.source.renew(budget).await;
        if self.reads_replicas
            && let Some(known) = self.replicas.must_know(environment, Instant::now())
            && let Some(link) = self.source.current()
        {
            let key = self.key(environment);
            let command = Command::Header { key: &key };
            let reply = link.read.ask_replica(&command, budget, trace).await;
            let found = reply.map(|reply| self.header_in(reply, environment));
            if let Some(Lookup::Hit(seen)) = found
                && seen.revision >= known
            {
                return Lookup::Hit(seen);
            }
        }
        self.ask_primary(environment, budget, trace).await
    }

    /// The same, by the word of the primary.
    pub async fn revision_at_primary(
        &self,
        environment: &Environment,
        budget: &Budget,
        trace: &Trace,
    ) -> Lookup<Seen> {
        self.source.renew(budget).await;
        self.ask_primary(environment, budget, trace).await
    }

    async fn ask_primary(
        &self,
        environment: &Environment,
        budget: &Budget,
        trace: &Trace,
    ) -> Lookup<Seen> {
        if self.source.keys().is_none() {
            return Lookup::Unavailable;
        }
        let key = self.key(environment);
        let asked = Instant::now();
        let command = Command::Header { key: &key };
        let Some(reply) = self.ask(&command, budget, trace).await else {
            return Lookup::Unavailable;
        };
        let found = self.header_in(reply, environment);
        match &found {
            Lookup::Hit(seen) => self
                .replicas
                .primary_said(environment, seen.revision, asked),
            Lookup::Miss | Lookup::Unavailable => self.replicas.primary_has_none(environment),
        }
        found
    }

    /// A whole entry, or the right to fill it.
    pub async fn read(&self, environment: &Environment, budget: &Budget, trace: &Trace) -> Found {
        // In a box: with all that it awaits, its type is too deep for those around it.
        Box::pin(self.fetch(environment, budget, trace, entry::decode)).await
    }

    /// The list of all environments, or the right to fill it.
    pub async fn read_list(&self, budget: &Budget, trace: &Trace) -> Found<Vec<Environment>> {
        self.source.renew(budget).await;
        let listing = Environment::listing();
        Box::pin(self.fetch(&listing, budget, trace, entry::decode_names)).await
    }

    async fn fetch<T>(
        &self,
        environment: &Environment,
        budget: &Budget,
        trace: &Trace,
        decode: Decode<T>,
    ) -> Found<T> {
        let Some(keys) = self.source.keys() else {
            return Found::Unavailable;
        };
        let key = self.key(environment);
        let command = Command::Read {
            key: &key,
            reader: &unique_id(),
            lease: LEASE,
            head_start: HEAD_START,
        };
        let Some(reply) = self.ask(&command, budget, trace).await else {
            return Found::Unavailable;
        };
        let Reply::List(parts) = reply else {
            return Found::NoFill;
        };
        match parts.as_slice() {
            [Reply::Text(kind), Reply::Number(ttl), Reply::List(fields)] if kind == "entry" => {
                let Some(installation) = self.installation_id() else {
                    return Found::NoFill;
                };
                let signer = Signer {
                    keys: &keys,
                    installation,
                    place: environment.as_str(),
                };
                let fields = pairs(fields).ok_or(Unusable::Corrupt);
                let decoded = fields.and_then(|fields| decode(&fields, &signer, now()));
                let why = match decoded {
                    Ok((content, header)) => {
                        return Found::Entry(Box::new(content), self.seen(&header));
                    }
                    // It stays: two installations that drop each other's entries would both load for
                    // every read. Every entry of ours has a lifetime; without one, nobody of ours wrote it.
                    Err(Unusable::OtherInstallation) if *ttl >= 0 => {
                        self.report_other_installation(environment);
                        return Found::NoFill;
                    }
                    Err(why) => why,
                };
                self.report_unusable(why, environment, trace);
                self.drop_entry(&key, "", budget, trace).await;
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
        let asked = Instant::now();
        let encode = |signer: &Signer<'_>, expires| entry::encode(snapshot, signer, expires);
        let filled = self
            .put(environment, lease, self.ttl, encode, budget, trace)
            .await;
        if filled {
            self.replicas
                .primary_said(environment, snapshot.revision, asked);
        }
        filled
    }

    /// Puts the list of all environments in, if the lease still stands. Says whether it did.
    pub async fn fill_list(
        &self,
        lease: Lease,
        names: &[Environment],
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let encode = |signer: &Signer<'_>, expires| entry::encode_names(names, signer, expires);
        let ttl = LIST_TTL.min(self.ttl);
        self.put(&Environment::listing(), lease, ttl, encode, budget, trace)
            .await
    }

    async fn put(
        &self,
        environment: &Environment,
        lease: Lease,
        ttl: Duration,
        encode: impl FnOnce(&Signer<'_>, u64) -> Result<Vec<String>, serde_json::Error>,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let (Some(keys), Some(installation)) = (self.source.keys(), self.installation_id()) else {
            return false;
        };
        let signer = Signer {
            keys: &keys,
            installation,
            place: environment.as_str(),
        };
        let expires = now().saturating_add(in_milliseconds(ttl));
        let Ok(fields) = encode(&signer, expires) else {
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
        arguments.push(ttl.as_millis().to_string());
        arguments.extend(fields);
        let key = self.key(environment);
        let reply = self
            .run(Script::Fill, &key, &arguments, budget, trace)
            .await;
        if reply == Some(Reply::Number(0)) {
            trace.fill_refused();
        }
        reply == Some(Reply::Number(1))
    }

    /// Drops the list of all environments. Says whether Redis was told.
    pub async fn discard_list(&self, budget: &Budget, trace: &Trace) -> bool {
        let revision = entry::LIST_REVISION;
        self.discard(&Environment::listing(), revision, budget, trace)
            .await
    }

    /// Before a commit: drops the entry and keeps everyone from filling until [`Cache::unblock`].
    pub async fn block(&self, environment: &Environment, budget: &Budget, trace: &Trace) -> Mark {
        self.source.renew(budget).await;
        let id = unique_id();
        let sent = SystemTime::now().duration_since(UNIX_EPOCH);
        let arguments = [
            id.clone(),
            MARK.as_millis().to_string(),
            sent.unwrap_or_default().as_millis().to_string(),
            MARK_LATE.as_millis().to_string(),
        ];
        let errors = trace.facts().connection_errors;
        let acknowledged = self
            .tell_all(Script::Block, environment, &arguments, budget, trace)
            .await;
        Mark {
            id,
            acknowledged,
            is_loose: trace.facts().connection_errors > errors,
        }
    }

    /// After a commit: drops whatever is there and lets readers fill again. Says whether Redis has
    /// done it: only then does every instance read what was committed. A mark that was acknowledged
    /// before does as much in most cases, but a restart or an operator may have removed it.
    ///
    /// Where there are replicas, one of them has to have it too: a primary that dies would take an
    /// invalidation along that nobody else has heard of.
    pub async fn unblock(
        &self,
        environment: &Environment,
        mark: Mark,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let done_for = if mark.is_loose { MARK } else { Duration::ZERO };
        let arguments = [mark.id, done_for.as_millis().to_string()];
        let told = self
            .tell_all(Script::Unblock, environment, &arguments, budget, trace)
            .await;
        self.replicas.changed(environment, Instant::now());
        told
    }

    /// Drops an entry that carries a revision known to be wrong. Says whether Redis was told.
    pub async fn discard(
        &self,
        environment: &Environment,
        wrong: Revision,
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let key = self.key(environment);
        let told = self
            .drop_entry(&key, &wrong.to_string(), budget, trace)
            .await;
        self.replicas.changed(environment, Instant::now());
        told
    }

    /// Drops the entry at a key if it has that revision, or any where none is given.
    async fn drop_entry(&self, key: &str, revision: &str, budget: &Budget, trace: &Trace) -> bool {
        let arguments = [revision.to_owned(), MARK.as_millis().to_string()];
        self.run(Script::Discard, key, &arguments, budget, trace)
            .await
            .is_some()
    }

    /// Whether the URL could be had and understood.
    #[must_use]
    pub fn has_url(&self) -> bool {
        self.source.current().is_some()
    }

    /// Whether keys are shared out over several nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.source
            .current()
            .is_some_and(|link| link.read.is_cluster())
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
        self.source.renew(&Budget::new(within)).await;
        match self.source.current() {
            Some(_) if self.source.keys().is_none() => {
                Err("there is no key to authenticate entries with".to_owned())
            }
            Some(link) => link.read.ping(within).await,
            None => Err("there is no Redis URL, or it makes no sense".to_owned()),
        }
    }

    /// How often something happened in which an invalidation may have been lost.
    #[must_use]
    pub fn outages(&self) -> u64 {
        self.source.outages()
    }

    /// How many connections this process has open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.source.current().map_or(0, |link| {
            let guards = std::iter::once(&link.read).chain(&link.told);
            guards.map(Guard::connections).sum()
        })
    }

    /// Whether an outage is under way as far as this process knows.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.source.current().is_none_or(|link| link.read.is_open())
    }

    fn key(&self, environment: &Environment) -> String {
        entry::key(&self.key_prefix, environment)
    }

    async fn ask(&self, command: &Command<'_>, budget: &Budget, trace: &Trace) -> Option<Reply> {
        let link = self.source.current()?;
        link.read.ask(command, budget, trace).await
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
        self.ask(&command, budget, trace).await
    }

    /// Runs a script at every Redis that is to be told of changes, all at once. Says whether all have
    /// done it, and replicas heard of it where that was asked for.
    async fn tell_all(
        &self,
        script: Script,
        environment: &Environment,
        arguments: &[String],
        budget: &Budget,
        trace: &Trace,
    ) -> bool {
        let Some(link) = self.source.current() else {
            return false;
        };
        let key = self.key(environment);
        let command = Command::Run {
            script,
            key: &key,
            arguments,
        };
        let began = Instant::now();
        let size = budget.remaining();
        let tell = async |guard: &Guard| {
            let own = Budget::new(size);
            match guard.ask(&command, &own, trace).await {
                Some(Reply::Number(1)) => true,
                Some(Reply::List(parts)) => match parts.as_slice() {
                    [Reply::Number(1), Reply::Number(1..)] => true,
                    [Reply::Number(1), Reply::Number(_)] => {
                        tracing::warn!(
                            domain = "config",
                            environment = environment.as_str(),
                            "no replica has confirmed an invalidation"
                        );
                        // Perhaps there are others by now, or none at all.
                        guard.look_again(&command, &own).await;
                        false
                    }
                    _ => false,
                },
                Some(
                    Reply::Nothing
                    | Reply::Number(_)
                    | Reply::Text(_)
                    | Reply::WrongType
                    | Reply::Nonsense,
                )
                | None => false,
            }
        };
        let guards = std::iter::once(&link.read).chain(&link.told);
        let told = futures_util::future::join_all(guards.map(tell)).await;
        budget.spend(began.elapsed());
        told.iter().all(|told| *told)
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
