//! Reads of flags. Every evaluation takes this path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::snapshot_slot::{CachedSnapshot, Refresh, SnapshotSlot};
use super::{FlagService, Reading, Source};
use crate::cache::{Cache, Fill, Found, Lease, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::moment::Moment;
use crate::request_context::RequestContext;
use crate::snapshot::{Revision, Snapshot};
use crate::store::{SnapshotUpdate, Waiting};
use crate::telemetry::CacheOutcome;

/// The first and the longest pause between two checks whether another reader has filled the entry.
const FIRST_WAIT: Duration = Duration::from_millis(4);
const MAX_WAIT: Duration = Duration::from_millis(32);
/// Limit on the wait for another reader's fill. A little more than the fill grace period: if the other reader has
/// died, a waiting reader gets the next lease.
const FILL_WAIT_LIMIT: Duration = Duration::from_millis(170);

/// The age up to which an entry in Redis is trusted to be current. An attacker who can write to Redis can replay
/// an authentic entry from before a change. An older entry counts only if PostgreSQL has confirmed its
/// revision within this time. With the default TTL of 300 s no entry gets this old.
const TRUST_PERIOD: Duration = Duration::from_secs(300);
/// How often a read retries after it has removed a forged or corrupt entry: once. Without a limit, an attacker
/// who keeps forging entries could keep a request busy.
const MAX_REPAIRS: u32 = 1;

/// The next step of a read after the lookup of the revision in Redis.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Redis is unavailable or not configured: read from the store.
    ReadStore,
    /// Redis has an entry that this instance does not hold.
    Fetch,
    /// Redis has no entry.
    Fill,
    /// The entry in Redis, at this revision, may be wrong: compare it with the store. Also holds the number of
    /// outages so far if an outage is the reason.
    Verify(Revision, Option<u64>),
}

/// A refresh of the snapshot of an environment, on behalf of one request and those that wait for it.
struct RefreshRun<'a> {
    service: &'a FlagService,
    slot: &'a SnapshotSlot,
    environment: &'a Environment,
    context: &'a RequestContext,
    started: Moment,
}

impl FlagService {
    /// Reads the flags of an environment, in a state no older than the arrival of the request, unless
    /// `SNAPSHOT_MAX_AGE_MS` or `REDIS_REPLICA_READS` allows an older one or the reading is
    /// [stale](Source::Stale). An unknown environment has no flags.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither cache nor store answers and the instance has no snapshot.
    pub async fn read(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> Result<Reading, Error> {
        self.read_within(self.max_age, environment, context).await
    }

    /// Like [`Self::read`]. A snapshot in memory is returned without asking Redis if it is younger than `max_age`.
    pub(super) async fn read_within(
        &self,
        max_age: Duration,
        environment: &Environment,
        context: &RequestContext,
    ) -> Result<Reading, Error> {
        let Some(slot) = self.slot(environment, context).await? else {
            context.trace.unknown_environment();
            return Ok(Reading {
                snapshot: Arc::new(Snapshot::empty()),
                source: Source::Memory,
                cache: CacheOutcome::Miss,
            });
        };
        let reading = self.read_slot(&slot, max_age, environment, context).await?;
        context.trace.cache(reading.cache);
        context
            .trace
            .unreadable_rows(reading.snapshot.unreadable_count());
        if reading.source == Source::Stale {
            context.trace.stale();
            warn!(
                domain = "config",
                stale = 1,
                environment = environment.as_str(),
                revision = reading.snapshot.revision.0,
                "neither Redis nor the database can confirm the flags; serving the last known ones, possibly out of date"
            );
        }
        Ok(reading)
    }

    async fn read_slot(
        &self,
        slot: &SnapshotSlot,
        max_age: Duration,
        environment: &Environment,
        context: &RequestContext,
    ) -> Result<Reading, Error> {
        let held = slot.held();
        if let Some(held) = &held
            && !max_age.is_zero()
            && held.is_younger_than(max_age)
        {
            return Ok(held.reading());
        }
        let asked = Moment::now();
        let task = match &self.cache {
            None => Task::ReadStore,
            Some(cache) => {
                let lookup = cache.revision(environment, context).await;
                // Read after the lookup, which detects a new primary or another Redis and counts it as an outage.
                let outages = cache.outages();
                match (lookup, &held) {
                    (Lookup::Unavailable, _) => Task::ReadStore,
                    (Lookup::Miss | Lookup::Unusable, held) => {
                        if held.as_ref().is_some_and(CachedSnapshot::entry_has_expired) {
                            context.trace.expired();
                        }
                        Task::Fill
                    }
                    // An invalidation may have been lost in an outage.
                    (Lookup::Hit(found), _) if slot.needs_comparison(outages) => {
                        Task::Verify(found.revision, Some(outages))
                    }
                    // Somebody has edited the file of a local server.
                    (Lookup::Hit(found), _)
                        if self.store.contradicts(environment, found.revision) =>
                    {
                        Task::Verify(found.revision, None)
                    }
                    (Lookup::Hit(found), Some(held))
                        if found.revision == held.snapshot.revision =>
                    {
                        if found.age < TRUST_PERIOD || held.was_confirmed_within(TRUST_PERIOD) {
                            slot.confirm(found.revision, asked);
                            return Ok(held.reading());
                        }
                        Task::Verify(found.revision, None)
                    }
                    // Redis is behind this instance: a replica lags, or a restart or an attacker
                    // restored an old entry.
                    (Lookup::Hit(found), Some(held)) if found.revision < held.snapshot.revision => {
                        Task::Verify(found.revision, None)
                    }
                    (Lookup::Hit(_), _) => Task::Fetch,
                }
            }
        };
        // One request at a time refreshes; the others share its outcome if it began after they arrived.
        let mut last = match (slot.refresh.try_lock(), task, held) {
            (Ok(last), _, _) => last,
            // Redis and the store have failed, and another request already probes the store, which may
            // take until its timeout. Do not wait for that with a snapshot at hand.
            (Err(_busy), Task::ReadStore, Some(held)) if self.store.is_failing() => {
                return Ok(held.stale());
            }
            (Err(_busy), _, _) => slot.refresh.lock().await,
        };
        if let Some(refresh) = &*last
            && refresh.started >= context.arrived
        {
            return refresh.outcome.clone();
        }
        let started = Moment::now();
        let run = RefreshRun {
            service: self,
            slot,
            environment,
            context,
            started,
        };
        let outcome = run.run(task).await;
        *last = Some(Refresh {
            started: started.instant(),
            outcome: outcome.clone(),
        });
        outcome
    }
}

impl RefreshRun<'_> {
    async fn run(&self, task: Task) -> Result<Reading, Error> {
        match (task, &self.service.cache) {
            // Without Redis, memory is the cache, and the database confirms that it is current.
            (_, None) => self.read_store(Waiting::UntilTimeout).await,
            (Task::ReadStore, Some(_)) => {
                let reading = self.read_store(Waiting::UntilTimeout).await?;
                Ok(reading.without_cache(CacheOutcome::Unavailable))
            }
            (Task::Verify(found, outages), Some(cache)) => self.verify(cache, found, outages).await,
            (Task::Fetch, Some(cache)) => self.fetch_or_fill(cache, true).await,
            // Without a lease, which would make other readers wait.
            (Task::Fill, Some(_)) if self.slot.skips_fills() => {
                let reading = self.read_store(Waiting::UntilTimeout).await?;
                Ok(reading.without_cache(CacheOutcome::Miss))
            }
            (Task::Fill, Some(cache)) => self.fetch_or_fill(cache, false).await,
        }
    }

    /// Fetches the entry, which may exist or not. If there is none, fills it, or waits for the reader that does.
    async fn fetch_or_fill(&self, cache: &Cache, mut may_exist: bool) -> Result<Reading, Error> {
        let deadline = Instant::now() + FILL_WAIT_LIMIT;
        let mut wait = FIRST_WAIT;
        let mut repairs = 0;
        let outcome = loop {
            let found = if may_exist {
                self.entry(cache).await
            } else {
                cache.read(self.environment, self.context).await
            };
            match found {
                Found::Entry(snapshot, _)
                    if self.slot.is_ahead_of(snapshot.revision)
                        || self
                            .service
                            .store
                            .contradicts(self.environment, snapshot.revision) =>
                {
                    return self.verify(cache, snapshot.revision, None).await;
                }
                Found::Entry(snapshot, seen) => {
                    let found = snapshot.revision;
                    let outages = cache.outages();
                    if self.slot.needs_comparison(outages) {
                        return self.verify(cache, found, Some(outages)).await;
                    }
                    let is_trusted = seen.age < TRUST_PERIOD;
                    let held = self
                        .slot
                        .hold_entry(*snapshot, &seen, self.started, is_trusted);
                    return match held {
                        Some(reading) if is_trusted => Ok(reading),
                        Some(_) | None => self.verify(cache, found, None).await,
                    };
                }
                Found::Lease(lease) => return self.load_and_fill(cache, lease).await,
                Found::Corrupt { .. } if repairs < MAX_REPAIRS => repairs += 1,
                Found::FillInProgress if Instant::now() + wait < deadline => {
                    tokio::time::sleep(wait).await;
                    self.context.budget.spend(wait);
                    wait = (wait * 2).min(MAX_WAIT);
                    may_exist = true;
                }
                Found::Unavailable => break CacheOutcome::Unavailable,
                Found::FillInProgress | Found::FillForbidden | Found::Corrupt { .. } => {
                    break CacheOutcome::Miss;
                }
            }
        };
        Ok(self
            .read_store(Waiting::UntilTimeout)
            .await?
            .without_cache(outcome))
    }

    async fn load_and_fill(&self, cache: &Cache, lease: Lease) -> Result<Reading, Error> {
        // A snapshot that came from Redis is loaded again. If only its revision were compared with the store, its
        // content would be written back to Redis unverified.
        let known = self.slot.held().filter(|held| held.is_from_store);
        let reading = self
            .read_store_relative_to(known, Waiting::UntilTimeout)
            .await?;
        let reading = reading.without_cache(CacheOutcome::Miss);
        if reading.source != Source::Stale {
            let sent = Moment::now();
            let filled = cache
                .fill(self.environment, lease, &reading.snapshot, self.context)
                .await;
            match filled {
                Fill::Stored => self.slot.filled(cache.ttl(), sent),
                Fill::TooSlow => self.slot.skip_fills(),
                Fill::NotStored => {}
            }
        }
        Ok(reading)
    }

    /// Compares the revision of an entry with the store, and removes the entry if it differs. If the store is
    /// unavailable, uses the newer of the entry and the snapshot.
    async fn verify(
        &self,
        cache: &Cache,
        found: Revision,
        outages: Option<u64>,
    ) -> Result<Reading, Error> {
        match self.read_store(Waiting::Never).await {
            Ok(reading) if reading.source != Source::Stale => {
                let matches = reading.snapshot.revision == found;
                let settled = matches || self.discard(cache, found).await;
                if let (true, Some(outages)) = (settled, outages) {
                    self.slot.settle(outages);
                }
                Ok(if matches {
                    reading
                } else {
                    reading.without_cache(CacheOutcome::Miss)
                })
            }
            Ok(stale) if stale.snapshot.revision >= found => Ok(stale),
            verdict @ (Ok(_) | Err(Error::Unavailable(_))) => match self.entry(cache).await {
                Found::Entry(snapshot, seen) => {
                    match self.slot.hold_entry(*snapshot, &seen, self.started, false) {
                        Some(reading) => Ok(Reading {
                            source: Source::Stale,
                            ..reading
                        }),
                        None => verdict,
                    }
                }
                Found::Lease(_)
                | Found::FillInProgress
                | Found::FillForbidden
                | Found::Corrupt { .. }
                | Found::Unavailable => verdict,
            },
            Err(failure) => Err(failure),
        }
    }

    /// Reads from the store, with the revision of the snapshot: if nothing has changed, only a number is
    /// transferred. With a snapshot, does not wait for a database that accepts no connection.
    async fn read_store(&self, waiting_without_snapshot: Waiting) -> Result<Reading, Error> {
        self.read_store_relative_to(self.slot.held(), waiting_without_snapshot)
            .await
    }

    /// Reads from the store, relative to a given snapshot. Without one, everything is loaded.
    async fn read_store_relative_to(
        &self,
        known: Option<CachedSnapshot>,
        waiting_without_snapshot: Waiting,
    ) -> Result<Reading, Error> {
        let waiting = match self.slot.held() {
            Some(_) => Waiting::Never,
            None => waiting_without_snapshot,
        };
        self.context.trace.database_load();
        let revision = known.as_ref().map(|known| known.snapshot.revision);
        let store = &self.service.store;
        let answer = store.snapshot(self.environment, revision, waiting).await;
        match (answer, known) {
            (Ok(SnapshotUpdate::Unchanged), Some(known)) => {
                self.slot
                    .confirm_by_store(known.snapshot.revision, self.started);
                Ok(known.reading())
            }
            (Ok(SnapshotUpdate::Unchanged), None) => Err(Error::Internal(
                "the store answered \"unchanged\" to a read that named no revision".to_owned(),
            )),
            (Ok(SnapshotUpdate::Changed(snapshot)), _) => {
                Ok(self.slot.hold_loaded(snapshot, self.started))
            }
            (Err(failure @ Error::Unavailable(_)), _) => match self.slot.held() {
                Some(held) => {
                    warn!(domain = "config", error = %failure, "the database does not answer");
                    Ok(held.stale())
                }
                None => Err(failure),
            },
            (Err(failure), _) => Err(failure),
        }
    }

    /// Fetches the entry: only what has changed since the held snapshot, if possible.
    async fn entry(&self, cache: &Cache) -> Found {
        let context = self.context;
        if let Some(held) = self.slot.held()
            && let Some((snapshot, info)) = cache
                .read_changes(self.environment, &held.snapshot, context)
                .await
        {
            return Found::Entry(Box::new(snapshot), info);
        }
        cache.read(self.environment, context).await
    }

    async fn discard(&self, cache: &Cache, wrong: Revision) -> bool {
        let context = self.context;
        cache.discard(self.environment, wrong, context).await
    }
}

impl Reading {
    /// The same flags with the database as their source: even if they were in memory, the database has
    /// confirmed that they are current.
    fn without_cache(self, cache: CacheOutcome) -> Self {
        let source = match self.source {
            Source::Memory | Source::Redis | Source::Database => Source::Database,
            Source::Stale => Source::Stale,
        };
        Self {
            source,
            cache,
            ..self
        }
    }
}
