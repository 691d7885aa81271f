//! Reading flags: the path that every request takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::snapshot_slot::{Began, CachedSnapshot, Refresh, SnapshotSlot};
use super::{FlagService, Reading, Scope, Source};
use crate::cache::{Cache, Found, Lease, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{Revision, Snapshot};
use crate::store::{Fresh, Waiting};
use crate::telemetry::CacheOutcome;

/// How long to wait before asking again whether another reader has filled: first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(4);
const LONGEST_WAIT: Duration = Duration::from_millis(32);
/// How long all waiting for another reader may take. A little more than a filler's head start: when
/// it has died, one of those who wait is the next to get a lease.
const PATIENCE: Duration = Duration::from_millis(170);

/// How long the word of Redis counts that nothing has changed. It is authentic, but may be from before a
/// change: somebody who can write to Redis can put back what was there. An entry that was filled longer
/// ago than this says nothing unless PostgreSQL has confirmed its revision meanwhile. With the usual
/// lifetime of 300 s no entry gets that old, and this costs nothing.
const BELIEVED_FOR: Duration = Duration::from_secs(300);
/// How often a read fetches an entry again after it has dropped one that was forged or damaged: once, to
/// replace it. Somebody who forges all the time must not keep a request busy.
const REPAIRS: u32 = 1;

/// What a read has to do once Redis was asked for the revision.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Redis is out of reach, or there is none.
    AskStore,
    /// Redis has an entry that this instance does not hold, or none.
    FetchOrFill,
    /// Redis has an entry at this revision that may be wrong. When that is because of an outage: how
    /// many had been seen.
    Verify(Revision, Option<u64>),
}

/// A request that finds out more about an environment, for itself and for those that wait.
struct Search<'a> {
    service: &'a FlagService,
    slot: &'a SnapshotSlot,
    environment: &'a Environment,
    scope: &'a Scope,
    began: Began,
}

impl FlagService {
    /// The flags of an environment as they are at the request's arrival or later. An environment
    /// that nobody has heard of has none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when neither cache nor store answers and nothing is held.
    pub async fn read(&self, environment: &Environment, scope: &Scope) -> Result<Reading, Error> {
        let Some(slot) = self.slot(environment, scope).await? else {
            scope.trace.unknown_environment();
            return Ok(Reading {
                snapshot: Arc::new(Snapshot::empty()),
                source: Source::Memory,
                cache: CacheOutcome::Miss,
            });
        };
        let reading = self.read_slot(&slot, environment, scope).await?;
        scope.trace.cache(reading.cache);
        scope
            .trace
            .unreadable_rows(reading.snapshot.unreadable_count());
        if reading.source == Source::Stale {
            scope.trace.stale();
            warn!(
                domain = "config",
                stale = 1,
                environment = environment.as_str(),
                revision = reading.snapshot.revision.0,
                "nobody can say whether the flags are current; serving what was known before"
            );
        }
        Ok(reading)
    }

    async fn read_slot(
        &self,
        slot: &SnapshotSlot,
        environment: &Environment,
        scope: &Scope,
    ) -> Result<Reading, Error> {
        let held = slot.held();
        if let Some(held) = &held
            && !self.max_age.is_zero()
            && held.as_of.elapsed() < self.max_age
        {
            return Ok(held.reading());
        }
        let asked = Instant::now();
        let task = match &self.cache {
            None => Task::AskStore,
            Some(cache) => {
                let lookup = cache
                    .revision(environment, &scope.budget, &scope.trace)
                    .await;
                // Afterwards: asking is how a new primary, or another Redis, is noticed.
                let outages = cache.outages();
                match (lookup, &held) {
                    (Lookup::Unavailable, _) => Task::AskStore,
                    (Lookup::Miss, held) => {
                        if held.as_ref().is_some_and(CachedSnapshot::entry_has_expired) {
                            scope.trace.expired();
                        }
                        Task::FetchOrFill
                    }
                    // There was an outage, in which an invalidation may have been lost.
                    (Lookup::Hit(found), _) if slot.distrusts(outages) => {
                        Task::Verify(found.revision, Some(outages))
                    }
                    (Lookup::Hit(found), Some(held))
                        if found.revision == held.snapshot.revision =>
                    {
                        if found.age < BELIEVED_FOR || held.was_confirmed_within(BELIEVED_FOR) {
                            slot.confirm(found.revision, asked);
                            return Ok(held.reading());
                        }
                        Task::Verify(found.revision, None)
                    }
                    // Redis is behind what this instance has seen: a replica lags, or a restart
                    // or somebody else brought back an old entry.
                    (Lookup::Hit(found), Some(held)) if found.revision < held.snapshot.revision => {
                        Task::Verify(found.revision, None)
                    }
                    (Lookup::Hit(_), _) => Task::FetchOrFill,
                }
            }
        };
        // One request at a time finds out more; the others share what came of it, if it began after
        // they arrived.
        let mut last = match (slot.refresh.try_lock(), task, held) {
            (Ok(last), _, _) => last,
            // Both have failed, and somebody is already finding out whether the store is back. That
            // takes as long as its timeout; what is held is at hand.
            (Err(_busy), Task::AskStore, Some(held)) if self.store.is_failing() => {
                return Ok(held.stale());
            }
            (Err(_busy), _, _) => slot.refresh.lock().await,
        };
        if let Some(refresh) = &*last
            && refresh.began >= scope.arrived
        {
            return refresh.outcome.clone();
        }
        let began = Began::now();
        let search = Search {
            service: self,
            slot,
            environment,
            scope,
            began,
        };
        let outcome = search.run(task).await;
        *last = Some(Refresh {
            began: began.at,
            outcome: outcome.clone(),
        });
        outcome
    }
}

impl Search<'_> {
    async fn run(&self, task: Task) -> Result<Reading, Error> {
        match (task, &self.service.cache) {
            // Without Redis, memory is the cache and the database says whether it is current.
            (_, None) => self.ask_store(Waiting::UntilTimeout).await,
            (Task::AskStore, Some(_)) => {
                let reading = self.ask_store(Waiting::UntilTimeout).await?;
                Ok(reading.without_cache(CacheOutcome::Unavailable))
            }
            (Task::Verify(found, outages), Some(cache)) => self.verify(cache, found, outages).await,
            (Task::FetchOrFill, Some(cache)) => self.fetch_or_fill(cache).await,
        }
    }

    /// Fetches the entry; fills it when there is none and nobody else is at it.
    async fn fetch_or_fill(&self, cache: &Cache) -> Result<Reading, Error> {
        let patience = Instant::now() + PATIENCE;
        let mut wait = FIRST_WAIT;
        let mut repairs = 0;
        let outcome = loop {
            match self.entry(cache).await {
                Found::Entry(snapshot, _) if self.slot.is_ahead_of(snapshot.revision) => {
                    return self.verify(cache, snapshot.revision, None).await;
                }
                Found::Entry(snapshot, seen) => {
                    let found = snapshot.revision;
                    let outages = cache.outages();
                    if self.slot.distrusts(outages) {
                        return self.verify(cache, found, Some(outages)).await;
                    }
                    return match self.slot.hold_entry(*snapshot, &seen, self.began) {
                        Some(reading) if seen.age < BELIEVED_FOR => Ok(reading),
                        Some(_) | None => self.verify(cache, found, None).await,
                    };
                }
                Found::Lease(lease) => return self.load_and_fill(cache, lease).await,
                Found::Corrupt if repairs < REPAIRS => repairs += 1,
                Found::FillInProgress if Instant::now() + wait < patience => {
                    tokio::time::sleep(wait).await;
                    self.scope.budget.spend(wait);
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Found::Unavailable => break CacheOutcome::Unavailable,
                Found::FillInProgress | Found::FillForbidden | Found::Corrupt => {
                    break CacheOutcome::Miss;
                }
            }
        };
        Ok(self
            .ask_store(Waiting::UntilTimeout)
            .await?
            .without_cache(outcome))
    }

    async fn load_and_fill(&self, cache: &Cache, lease: Lease) -> Result<Reading, Error> {
        // "Unchanged" would not do for what came out of Redis: it would go back there unchecked.
        let known = self.slot.held().filter(|held| held.is_from_store);
        let reading = self.ask_store_about(known, Waiting::UntilTimeout).await?;
        let reading = reading.without_cache(CacheOutcome::Miss);
        if reading.source != Source::Stale {
            let sent = Instant::now();
            let filled = cache
                .fill(
                    self.environment,
                    lease,
                    &reading.snapshot,
                    &self.scope.budget,
                    &self.scope.trace,
                )
                .await;
            if filled {
                self.slot.filled(cache.ttl(), sent);
            }
        }
        Ok(reading)
    }

    /// Asks the store whether an entry at this revision is right, and drops it when it is not. With
    /// the store gone too, the newer of the entry and what is held is the best there is.
    async fn verify(
        &self,
        cache: &Cache,
        found: Revision,
        outages: Option<u64>,
    ) -> Result<Reading, Error> {
        match self.ask_store(Waiting::Never).await {
            Ok(reading) if reading.source != Source::Stale => {
                let right = reading.snapshot.revision == found;
                let settled = right || self.discard(cache, found).await;
                if let (true, Some(outages)) = (settled, outages) {
                    self.slot.settle(outages);
                }
                Ok(if right {
                    reading
                } else {
                    reading.without_cache(CacheOutcome::Miss)
                })
            }
            Ok(stale) if stale.snapshot.revision >= found => Ok(stale),
            verdict @ (Ok(_) | Err(Error::Unavailable(_))) => match self.entry(cache).await {
                Found::Entry(snapshot, seen) => {
                    match self.slot.hold_entry(*snapshot, &seen, self.began) {
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
                | Found::Corrupt
                | Found::Unavailable => verdict,
            },
            Err(failure) => Err(failure),
        }
    }

    /// Asks the store, sending along which revision is held: an environment that has not changed
    /// costs one number. What is held is a better answer than to wait for a database that takes no
    /// connection.
    async fn ask_store(&self, without_snapshot: Waiting) -> Result<Reading, Error> {
        self.ask_store_about(self.slot.held(), without_snapshot)
            .await
    }

    /// The same about what is given. Without it, everything is loaded.
    async fn ask_store_about(
        &self,
        known: Option<CachedSnapshot>,
        without_snapshot: Waiting,
    ) -> Result<Reading, Error> {
        let waiting = match self.slot.held() {
            Some(_) => Waiting::Never,
            None => without_snapshot,
        };
        self.scope.trace.database_load();
        let revision = known.as_ref().map(|known| known.snapshot.revision);
        let store = &self.service.store;
        let answer = store.snapshot(self.environment, revision, waiting).await;
        match (answer, known) {
            (Ok(Fresh::Unchanged), Some(known)) => {
                self.slot
                    .confirm_by_store(known.snapshot.revision, self.began);
                Ok(known.reading())
            }
            (Ok(Fresh::Unchanged), None) => Err(Error::Internal(
                "the store says that nothing has changed, to one who knows nothing".to_owned(),
            )),
            (Ok(Fresh::Changed(snapshot)), _) => Ok(self.slot.hold_loaded(snapshot, self.began)),
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

    async fn entry(&self, cache: &Cache) -> Found {
        let scope = self.scope;
        cache
            .read(self.environment, &scope.budget, &scope.trace)
            .await
    }

    async fn discard(&self, cache: &Cache, wrong: Revision) -> bool {
        let scope = self.scope;
        cache
            .discard(self.environment, wrong, &scope.budget, &scope.trace)
            .await
    }
}

impl Reading {
    /// The same flags, come by without the shared cache: even where memory had them, it was the
    /// database that said that they are current.
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
