//! The cache shared by all instances: one Redis hash per environment.
//!
//! No function here except [`Cache::ping`] returns an error: a lookup can return "unavailable", and an invalidation
//! "unconfirmed". So a failure of Redis never fails a request.
//!
//! One more entry under the same protocol holds the names of all environments, so that requests for unknown
//! names cause no query.
//!
//! The protocol consists of five scripts. Each uses one key only, as a cluster requires:
//!
//! * A reader that finds no entry takes a **lease** before it reads the database, and may fill only while
//!   that lease is valid. Everything that removes the entry (a writer, an operator's `DEL`, expiry) also
//!   removes the leases, so no fill restores data that was read before the removal.
//! * Before its commit a writer sets a **write barrier**, which removes the entry and the leases and prevents
//!   new leases. After the commit it removes the barrier. If this second step is lost, the barrier expires once
//!   no `COMMIT` can reach the database any more; readers use the database until then.

mod address;
mod authentic;
mod client;
mod cluster;
mod entry;
mod executor;
mod invalidate;
mod mac;
mod node;
mod protocol;
mod retry;
mod target;
mod url;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use authentic::EntryInfo;
pub use protocol::{BARRIER, Fill, Found, Lease, Lookup, WriteBarrier};
pub use url::{InvalidRedisUrl, RedisUrl};

use authentic::{VerifiedHeader, in_milliseconds, now};
use client::{Command, Names, Reply, Script};
use cluster::ReplicaReads;
use entry::{Header, Signer, Unusable};
use executor::Executor;
use protocol::{BARRIER_LATE, FILL_GRACE_PERIOD, LEASE};
use target::TargetSource;

use crate::budget::Budget;
use crate::config::{CacheConfig, SecretSource};
use crate::environment::Environment;
use crate::id::unique_id;
use crate::installation::Installation;
use crate::moment::Moment;
use crate::request_context::RequestContext;
use crate::secrets::Secrets;
use crate::snapshot::{Revision, Snapshot};

/// The longest TTL of the list of environments; a shorter `CACHE_TTL_SECONDS` applies to it too. An environment
/// that SQL or an existing service has created is visible after this time at the latest; the API removes the list
/// when it creates one. While Redis works, all instances together query the database for unknown names about once
/// per TTL.
const LIST_TTL: Duration = Duration::from_secs(10);
/// Entries above this size, in bytes, are logged: transferring them slows requests down.
const LARGE_PAYLOAD: usize = 1_000_000;

/// Verifies and decodes the fields of an entry. The number is the present time, in milliseconds since 1970.
type Decode<T> = fn(&[(&str, &str)], &Signer<'_>, u64) -> Result<(T, Header), Unusable>;

/// The cache of this process: one Redis, single node or cluster, and during a migration its mirrors.
pub struct Cache {
    source: Arc<TargetSource>,
    replica_reads: ReplicaReads,
    may_read_replicas: bool,
    ttl: Duration,
    key_prefix: String,
    installation: Arc<Installation>,
    verified: Mutex<Option<VerifiedHeader>>,
    forged_entries: AtomicU32,
}

impl Cache {
    /// Reads the URL of Redis, then connects within this time. `None` if Redis is not configured. After a failure
    /// the cache is unavailable until a later request connects.
    pub async fn open(
        config: &CacheConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
        within: Duration,
    ) -> Option<Self> {
        match config.url {
            SecretSource::None => return None,
            SecretSource::Plain(_) | SecretSource::SecretArn(_) => {}
        }
        let default_key = entry::key(&config.key_prefix, &Environment::production());
        let source = TargetSource::open(config.clone(), secrets.clone(), default_key, within).await;
        Some(Self {
            source,
            replica_reads: ReplicaReads::default(),
            may_read_replicas: config.replica_reads,
            ttl: config.ttl,
            key_prefix: config.key_prefix.clone(),
            installation: installation.clone(),
            verified: Mutex::new(None),
            forged_entries: AtomicU32::new(0),
        })
    }

    /// Reads the header of an environment's entry, which is all that most requests need. With
    /// `REDIS_REPLICA_READS` a replica may answer: see `ReplicaReads`.
    pub async fn revision(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> Lookup<EntryInfo> {
        let now = Moment::now();
        self.source.renew(now, &context.budget).await;
        if self.may_read_replicas
            && let Some(least) = self.replica_reads.least_revision(environment, now)
            && let Some(target) = self.source.readable()
        {
            let key = self.key(environment);
            let command = Command::Fields {
                key: &key,
                names: Names::Header,
            };
            let reply = target.read.ask_replica(&command, context).await;
            let found = reply.map(|reply| self.header_in(reply, environment));
            if let Some(Lookup::Hit(info)) = found
                && info.revision >= least
            {
                return Lookup::Hit(info);
            }
        }
        self.ask_primary(environment, now, context).await
    }

    /// Like [`Self::revision`], but always asks the primary.
    pub async fn revision_at_primary(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> Lookup<EntryInfo> {
        let now = Moment::now();
        self.source.renew(now, &context.budget).await;
        self.ask_primary(environment, now, context).await
    }

    async fn ask_primary(
        &self,
        environment: &Environment,
        asked: Moment,
        context: &RequestContext,
    ) -> Lookup<EntryInfo> {
        if self.source.keys().is_none() {
            return Lookup::Unavailable;
        }
        let key = self.key(environment);
        let command = Command::Fields {
            key: &key,
            names: Names::Header,
        };
        let Some(reply) = self.ask(&command, context).await else {
            return Lookup::Unavailable;
        };
        let found = self.header_in(reply, environment);
        match &found {
            Lookup::Hit(info) => {
                self.replica_reads
                    .record_primary(environment, info.revision, asked);
            }
            Lookup::Miss | Lookup::Unusable | Lookup::Unavailable => {
                self.replica_reads.forget_primary(environment);
            }
        }
        found
    }

    /// Fetches the flags of an entry that differ from those of an earlier snapshot. `None` if that is not possible, for
    /// example without an entry: then [`Self::read`] fetches the whole entry.
    pub async fn read_changes(
        &self,
        environment: &Environment,
        earlier: &Snapshot,
        context: &RequestContext,
    ) -> Option<(Snapshot, EntryInfo)> {
        earlier.digests()?;
        let (keys, installation) = (self.source.keys()?, self.installation_id()?);
        let signer = Signer {
            keys: &keys,
            installation,
            environment: environment.as_str(),
        };
        let key = self.key(environment);
        let summary = self.fields(&key, Names::Summary, context).await?;
        let values = <[Option<&str>; 8]>::try_from(texts(&summary)).ok()?;
        let budget = &context.budget;
        let changes = budget.charge(|| entry::changes_since(earlier, values, &signer, now()))?;
        let names = changes.fields();
        let fetched = if names.is_empty() {
            Vec::new()
        } else {
            self.fields(&key, Names::Flags(&names), context).await?
        };
        let (snapshot, header) = budget.charge(|| {
            let changed = changes.with(&texts(&fetched))?;
            changed.0.compile_after(earlier);
            Some(changed)
        })?;
        let info = self.entry_info(&header);
        Some((snapshot, info))
    }

    /// The values of some fields of an entry.
    async fn fields(
        &self,
        key: &str,
        names: Names<'_>,
        context: &RequestContext,
    ) -> Option<Vec<Reply>> {
        match self.ask(&Command::Fields { key, names }, context).await? {
            Reply::List(values) => Some(values),
            Reply::Nothing
            | Reply::Number(_)
            | Reply::Text(_)
            | Reply::WrongType
            | Reply::Malformed => None,
        }
    }

    /// Fetches a whole entry, or a lease to fill it.
    pub async fn read(&self, environment: &Environment, context: &RequestContext) -> Found {
        // Boxed, because the compiler rejects the type of the nested futures as too deep.
        Box::pin(self.fetch(environment, CacheConfig::MAX_TTL, context, entry::decode)).await
    }

    /// Fetches the list of all environments, or a lease to fill it.
    pub async fn read_list(&self, context: &RequestContext) -> Found<Vec<Environment>> {
        self.source.renew(Moment::now(), &context.budget).await;
        let listing = Environment::listing();
        Box::pin(self.fetch(&listing, LIST_TTL, context, entry::decode_names)).await
    }

    async fn fetch<T>(
        &self,
        environment: &Environment,
        longest_ttl: Duration,
        context: &RequestContext,
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
            fill_grace_period: FILL_GRACE_PERIOD,
        };
        let Some(reply) = self.ask(&command, context).await else {
            return Found::Unavailable;
        };
        let Reply::List(parts) = reply else {
            return Found::FillForbidden;
        };
        match parts.as_slice() {
            [Reply::Text(kind), Reply::Number(ttl), Reply::List(fields)] if **kind == *"entry" => {
                let Some(installation) = self.installation_id() else {
                    return Found::FillForbidden;
                };
                let signer = Signer {
                    keys: &keys,
                    installation,
                    environment: environment.as_str(),
                };
                let decoded = context.budget.charge(|| {
                    let fields = pairs(fields).ok_or(Unusable::Corrupt)?;
                    decode(&fields, &signer, now())
                });
                let why = match decoded {
                    Ok((content, header)) => {
                        return Found::Entry(Box::new(content), self.entry_info(&header));
                    }
                    // Kept: if two installations removed each other's entries, every read would query the
                    // database. An entry without a TTL, or with a longer one than Pennon sets, was not written by
                    // Pennon.
                    Err(Unusable::OtherInstallation)
                        if u64::try_from(*ttl)
                            .is_ok_and(|ttl| Duration::from_millis(ttl) <= longest_ttl) =>
                    {
                        self.report_other_installation(environment);
                        return Found::FillForbidden;
                    }
                    Err(why) => why,
                };
                let removed = self.drop_entry(&key, "", context).await;
                self.report_unusable(why, environment, removed);
                Found::Corrupt { removed }
            }
            [Reply::Text(kind), Reply::Text(id)] if **kind == *"lease" => {
                Found::Lease(Lease { id: id.to_string() })
            }
            [Reply::Text(kind)] if **kind == *"busy" => Found::FillInProgress,
            _ => Found::FillForbidden,
        }
    }

    /// Stores a snapshot if the lease is still valid.
    pub async fn fill(
        &self,
        environment: &Environment,
        lease: Lease,
        snapshot: &Snapshot,
        context: &RequestContext,
    ) -> Fill {
        let asked = Moment::now();
        let encode = |signer: &Signer<'_>, expires| entry::encode(snapshot, signer, expires);
        let filled = self
            .put(environment, lease, self.ttl, encode, context)
            .await;
        if filled == Fill::Stored {
            self.replica_reads
                .record_primary(environment, snapshot.revision, asked);
        }
        filled
    }

    /// Stores the list of all environments if the lease is still valid.
    pub async fn fill_list(
        &self,
        lease: Lease,
        names: &[Environment],
        context: &RequestContext,
    ) -> Fill {
        let encode = |signer: &Signer<'_>, expires| entry::encode_names(names, signer, expires);
        let ttl = LIST_TTL.min(self.ttl);
        self.put(&Environment::listing(), lease, ttl, encode, context)
            .await
    }

    async fn put(
        &self,
        environment: &Environment,
        lease: Lease,
        ttl: Duration,
        encode: impl FnOnce(&Signer<'_>, u64) -> Result<Vec<String>, serde_json::Error>,
        context: &RequestContext,
    ) -> Fill {
        let (Some(keys), Some(installation)) = (self.source.keys(), self.installation_id()) else {
            return Fill::NotStored;
        };
        let signer = Signer {
            keys: &keys,
            installation,
            environment: environment.as_str(),
        };
        let expires = now().saturating_add(in_milliseconds(ttl));
        let encoded = context.budget.charge(|| encode(&signer, expires));
        let Ok(fields) = encoded else {
            return Fill::NotStored;
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
        let reply = self.run(Script::Fill, &key, &arguments, context).await;
        match reply {
            Some(Reply::Number(1)) => Fill::Stored,
            Some(Reply::Number(0)) => {
                context.trace.fill_refused();
                Fill::NotStored
            }
            None if size > LARGE_PAYLOAD => Fill::TooSlow,
            Some(_) | None => Fill::NotStored,
        }
    }

    /// Removes the list of all environments. Returns whether Redis has confirmed it.
    pub async fn discard_list(&self, context: &RequestContext) -> bool {
        let revision = entry::LIST_REVISION;
        self.discard(&Environment::listing(), revision, context)
            .await
    }

    /// Before a commit: removes the entry and prevents fills until [`Cache::end_write`], or until the barrier expires.
    pub async fn begin_write(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> WriteBarrier {
        self.source.renew(Moment::now(), &context.budget).await;
        let id = unique_id();
        let arguments = [
            id.clone(),
            BARRIER.as_millis().to_string(),
            now().to_string(),
            BARRIER_LATE.as_millis().to_string(),
        ];
        let invalidation = self
            .invalidate_all(Script::BeginWrite, environment, &arguments, context)
            .await;
        WriteBarrier {
            id,
            confirmed: invalidation.confirmed,
            may_arrive_late: invalidation.failures > 0,
        }
    }

    /// After a commit: removes the entry and lets readers fill again. Returns whether Redis has confirmed it:
    /// only then does every instance read the committed state. A confirmed barrier is not enough, because a
    /// restart or an operator may have removed it.
    ///
    /// In a cluster, a replica of the shard, if it has any, must acknowledge the removal too: a primary that dies loses
    /// the writes that no replica has received.
    pub async fn end_write(
        &self,
        environment: &Environment,
        barrier: WriteBarrier,
        context: &RequestContext,
    ) -> bool {
        let done_ttl = if barrier.may_arrive_late {
            BARRIER
        } else {
            Duration::ZERO
        };
        let arguments = [barrier.id, done_ttl.as_millis().to_string()];
        self.source.wait_until_current(&context.budget).await;
        // Checked before the invalidation, which uses the present target even if the secret arrives meanwhile.
        let reaches_all_readers = self.source.is_current(Moment::now());
        let invalidation = self
            .invalidate_all(Script::EndWrite, environment, &arguments, context)
            .await;
        self.replica_reads.record_change(environment, Moment::now());
        invalidation.confirmed && reaches_all_readers
    }

    /// After a commit that failed but may take effect: sets a write barrier that stays until it expires. Returns whether
    /// every Redis has confirmed it. It does not wait for replicas, unlike [`Self::end_write`].
    pub async fn begin_write_again(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> bool {
        self.source.wait_until_current(&context.budget).await;
        let reaches_all_readers = self.source.is_current(Moment::now());
        let barrier = self.begin_write(environment, context).await;
        self.replica_reads.record_change(environment, Moment::now());
        barrier.confirmed && reaches_all_readers
    }

    /// Removes an entry if it has this revision, which is known to be wrong. Returns whether Redis has confirmed it.
    pub async fn discard(
        &self,
        environment: &Environment,
        wrong: Revision,
        context: &RequestContext,
    ) -> bool {
        let key = self.key(environment);
        let confirmed = self.drop_entry(&key, &wrong.to_string(), context).await;
        self.replica_reads.record_change(environment, Moment::now());
        confirmed
    }

    /// Removes the entry at a key if it has this revision; with an empty revision, any entry. Returns whether Redis
    /// has confirmed that no such entry is left.
    async fn drop_entry(&self, key: &str, revision: &str, context: &RequestContext) -> bool {
        let arguments = [revision.to_owned()];
        self.run(Script::Discard, key, &arguments, context)
            .await
            .is_some()
    }

    /// Whether there is a valid URL.
    #[must_use]
    pub fn has_url(&self) -> bool {
        self.source.current().is_some()
    }

    /// Whether Redis is a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.source
            .current()
            .is_some_and(|target| target.read.is_cluster())
    }

    /// The TTL of an entry.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Checks with `PING` whether Redis answers, without the breakers.
    ///
    /// # Errors
    /// The reason, for the log, without secrets.
    pub async fn ping(&self, within: Duration) -> Result<(), String> {
        self.source.renew(Moment::now(), &Budget::new(within)).await;
        match self.source.current() {
            Some(_) if self.source.keys().is_none() => {
                Err("there is no key to authenticate entries".to_owned())
            }
            Some(target) => target.read.ping(within).await,
            None => Err("there is no valid Redis URL".to_owned()),
        }
    }

    /// The number of outages so far, each of which may have lost an invalidation.
    #[must_use]
    pub fn outages(&self) -> u64 {
        self.source.outages()
    }

    /// The number of open connections to Redis.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.source.current().map_or(0, |target| {
            let executors = std::iter::once(&target.read).chain(&target.mirrors);
            executors.map(Executor::connections).sum()
        })
    }

    /// Whether reads cannot use Redis: the breaker is open, or there is no valid URL.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        self.source
            .current()
            .is_none_or(|target| target.read.is_open())
    }

    fn key(&self, environment: &Environment) -> String {
        entry::key(&self.key_prefix, environment)
    }

    async fn ask(&self, command: &Command<'_>, context: &RequestContext) -> Option<Reply> {
        let target = self.source.readable()?;
        let outcome = target.read.execute(command, context).await;
        outcome.reply
    }

    async fn run(
        &self,
        script: Script,
        key: &str,
        arguments: &[String],
        context: &RequestContext,
    ) -> Option<Reply> {
        let command = Command::Run {
            script,
            key,
            arguments,
        };
        self.ask(&command, context).await
    }
}

/// The values as texts; `None` for a value that is not a text, such as that of a missing field.
fn texts(values: &[Reply]) -> Vec<Option<&str>> {
    values.iter().map(Reply::as_text).collect()
}

/// Groups alternating fields and values into pairs. `None` if one of them is not text or has no partner.
fn pairs(flat: &[Reply]) -> Option<Vec<(&str, &str)>> {
    flat.chunks(2)
        .map(|pair| match pair {
            [Reply::Text(field), Reply::Text(value)] => Some((&**field, &**value)),
            _ => None,
        })
        .collect()
}
