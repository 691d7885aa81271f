//! Questions about flags, answered out of the cache and the store.
//!
//! An instance keeps the snapshot that it last saw. A read asks Redis for the revision only; if it
//! is the one held, the answer is in memory. If it is another, the entry is fetched once. If there
//! is no entry, one reader loads from the store and fills. If Redis cannot be asked, the store is
//! asked for its revision instead, and if neither answers, what is held is better than nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pennon_eval::{Flag, FlagKey};
use tracing::{error, warn};

use crate::cache::{Budget, Cache, Found, Lease, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{Revision, Snapshot};
use crate::store::{Change, Fresh, Store};
use crate::telemetry::{CacheOutcome, Trace};

/// How long to wait before asking again whether another reader has filled: first, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(4);
const LONGEST_WAIT: Duration = Duration::from_millis(32);
/// How long all waiting for another reader may take. A little more than a filler's head start: when
/// it has died, one of those who wait is the next to get a lease.
const PATIENCE: Duration = Duration::from_millis(170);
/// Names that nobody knows may make us look into the store once per this time, not once per name.
const BETWEEN_LISTINGS: Duration = Duration::from_secs(1);

/// One request's time and record.
#[derive(Debug)]
pub struct Scope {
    /// When the request arrived. An answer must not be older than this.
    pub arrived: Instant,
    /// What it may spend on the cache.
    pub budget: Budget,
    /// What happens meanwhile.
    pub trace: Trace,
}

impl Scope {
    /// A request that arrives now.
    #[must_use]
    pub fn begin(budget: Duration) -> Self {
        Self {
            arrived: Instant::now(),
            budget: Budget::new(budget),
            trace: Trace::default(),
        }
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The snapshot held by this instance, known to be current.
    Memory,
    /// The entry in Redis, fetched for this answer.
    Redis,
    /// The store.
    Database,
    /// The snapshot held by this instance, with nobody left to say whether it is current.
    Stale,
}

/// The flags of an environment, and how they were come by.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The flags.
    pub snapshot: Arc<Snapshot>,
    /// Where from.
    pub source: Source,
    /// What the cache (Redis, or memory where there is no Redis) had to do with it.
    pub cache: CacheOutcome,
}

/// What became of a change.
#[derive(Debug)]
pub struct Updated {
    /// The flag from now on.
    pub flag: Flag,
    /// Whether every instance reads it from now on. `None` without a shared cache, where every
    /// instance asks the database anyway.
    pub invalidated: Option<bool>,
}

/// Answers questions about flags.
pub struct FlagService {
    cache: Option<Cache>,
    store: Store,
    max_age: Duration,
    known: Mutex<HashMap<Environment, Arc<Shelf>>>,
    listing: tokio::sync::Mutex<Option<Instant>>,
}

/// What this instance knows of one environment.
#[derive(Default)]
struct Shelf {
    held: Mutex<Option<Held>>,
    /// Held while one request finds out more on behalf of all that wait; what came of it last.
    errand: tokio::sync::Mutex<Option<Errand>>,
    /// How many failures of the cache had been seen when an entry was last compared with the store.
    outages_settled: Mutex<u64>,
}

/// A snapshot, and when it was last known to be current.
#[derive(Debug, Clone)]
struct Held {
    snapshot: Arc<Snapshot>,
    as_of: Instant,
    /// When the entry in Redis runs out, as far as known.
    entry_until: Option<Instant>,
}

/// What finding out led to. Whoever arrived before it began may share it.
#[derive(Debug, Clone)]
struct Errand {
    began: Instant,
    outcome: Result<Reading, Error>,
}

impl FlagService {
    /// Puts a service together: the one place where cache and store meet.
    #[must_use]
    pub fn new(cache: Option<Cache>, store: Store, max_age: Duration) -> Self {
        let production = (Environment::production(), Arc::new(Shelf::default()));
        Self {
            cache,
            store,
            max_age,
            known: Mutex::new(HashMap::from([production])),
            listing: tokio::sync::Mutex::new(None),
        }
    }

    /// The flags of an environment as they are at the request's arrival or later. An environment
    /// that nobody has heard of has none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when neither cache nor store answers and nothing is held.
    pub async fn read(&self, environment: &Environment, scope: &Scope) -> Result<Reading, Error> {
        let Some(shelf) = self.shelf(environment, scope).await? else {
            return Ok(Reading {
                snapshot: Arc::new(Snapshot::empty()),
                source: Source::Memory,
                cache: CacheOutcome::Miss,
            });
        };
        let reading = self.read_shelf(&shelf, environment, scope).await?;
        scope.trace.cache(reading.cache);
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

    /// Changes a flag, tells the cache, and says whether it could be told.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Unavailable`] when the store does not answer.
    pub async fn update(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
        scope: &Scope,
    ) -> Result<Updated, Error> {
        let Some(pending) = self.store.begin(environment, key, change).await? else {
            return Err(Error::FlagNotFound(key.to_string()));
        };
        let Some(cache) = &self.cache else {
            let flag = pending.commit().await?;
            return Ok(Updated {
                flag,
                invalidated: None,
            });
        };
        let first_half = scope.budget.half();
        let mark = cache.block(environment, &first_half, &scope.trace).await;
        scope.budget.give_back(&first_half);
        // When the commit fails its outcome is unknown, and the mark stays: it runs out after the
        // commit can no longer happen.
        let flag = pending.commit().await?;
        let told = cache
            .unblock(environment, mark, &scope.budget, &scope.trace)
            .await;
        scope.trace.invalidated(told);
        if !told {
            error!(
                domain = "config",
                cache_invalidated = 0,
                environment = environment.as_str(),
                flag_key = key.as_str(),
                "the change is committed but Redis could not be told; \
                 other instances may serve the old value until it is reconciled or expires"
            );
        }
        Ok(Updated {
            flag,
            invalidated: Some(told),
        })
    }

    /// Compares the cache with the store for every environment, drops what is older and fills what
    /// is missing. Says how many entries were wrong.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer, or the cache could not be told of an
    /// entry that is wrong.
    pub async fn reconcile(&self, budget: Duration) -> Result<Reconciled, Error> {
        let mut done = Reconciled::default();
        let Some(cache) = &self.cache else {
            return Ok(done);
        };
        for (environment, current) in self.store.environments().await? {
            let scope = Scope::begin(budget);
            done.environments += 1;
            let cached = cache
                .revision(&environment, &scope.budget, &scope.trace)
                .await;
            match cached {
                Lookup::Hit(revision) if revision == current => continue,
                Lookup::Hit(revision) => {
                    // The listing may be older than the entry by now: ask again before dropping it.
                    if self.revision_of(&environment).await? == revision {
                        continue;
                    }
                    let told = cache
                        .discard(&environment, revision, &scope.budget, &scope.trace)
                        .await;
                    if !told {
                        done.unreachable += 1;
                        continue;
                    }
                    done.repaired += 1;
                }
                Lookup::Miss => {}
                Lookup::Unavailable => {
                    done.unreachable += 1;
                    continue;
                }
            }
            self.read(&environment, &scope).await?;
            done.warmed += 1;
        }
        Ok(done)
    }

    /// The shared cache, where there is one.
    #[must_use]
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    async fn read_shelf(
        &self,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
    ) -> Result<Reading, Error> {
        let held = shelf.held();
        if let Some(held) = &held
            && !self.max_age.is_zero()
            && held.as_of.elapsed() < self.max_age
        {
            return Ok(Reading::memory(held));
        }
        let Some(cache) = &self.cache else {
            return self
                .run_errand(shelf, environment, scope, Task::AskStore)
                .await;
        };
        let asked = Instant::now();
        let outages = cache.outages();
        let lookup = cache
            .revision(environment, &scope.budget, &scope.trace)
            .await;
        let task = match (lookup, &held) {
            (Lookup::Unavailable, _) => Task::AskStore,
            (Lookup::Miss, held) => {
                if held.as_ref().is_some_and(Held::entry_has_run_out) {
                    scope.trace.expired();
                }
                Task::FetchOrFill
            }
            // There was an outage, in which an invalidation may have been lost.
            (Lookup::Hit(found), _) if shelf.distrusts(outages) => {
                Task::Verify(found, Some(outages))
            }
            (Lookup::Hit(found), Some(held)) if found == held.snapshot.revision => {
                shelf.confirm(found, asked);
                return Ok(Reading::memory(held));
            }
            // Redis is behind what this instance has seen: a replica lags, or a restart brought
            // back an old entry.
            (Lookup::Hit(found), Some(held)) if found < held.snapshot.revision => {
                Task::Verify(found, None)
            }
            (Lookup::Hit(_), _) => Task::FetchOrFill,
        };
        self.run_errand(shelf, environment, scope, task).await
    }

    /// Finds out more, one request at a time per environment; the others share what came of it if
    /// it began after they arrived.
    async fn run_errand(
        &self,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        task: Task,
    ) -> Result<Reading, Error> {
        let mut last = shelf.errand.lock().await;
        if let Some(errand) = &*last
            && errand.began >= scope.arrived
        {
            return errand.outcome.clone();
        }
        let began = Instant::now();
        let outcome = self.find_out(shelf, environment, scope, task, began).await;
        *last = Some(Errand {
            began,
            outcome: outcome.clone(),
        });
        outcome
    }

    async fn find_out(
        &self,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        task: Task,
        began: Instant,
    ) -> Result<Reading, Error> {
        match (task, &self.cache) {
            // Without Redis, memory is the cache and the database says whether it is current.
            (_, None) => self.ask_store(shelf, environment, scope, began).await,
            (Task::AskStore, Some(_)) => self
                .ask_store(shelf, environment, scope, began)
                .await
                .map(|reading| reading.without_cache(CacheOutcome::Unavailable)),
            (Task::Verify(found, outages), Some(cache)) => {
                self.verify(cache, shelf, environment, scope, began, found, outages)
                    .await
            }
            (Task::FetchOrFill, Some(cache)) => {
                self.fetch_or_fill(cache, shelf, environment, scope, began)
                    .await
            }
        }
    }

    /// Fetches the entry; fills it when there is none and nobody else is at it.
    async fn fetch_or_fill(
        &self,
        cache: &Cache,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        began: Instant,
    ) -> Result<Reading, Error> {
        let patience = Instant::now() + PATIENCE;
        let mut wait = FIRST_WAIT;
        let outcome = loop {
            match cache.read(environment, &scope.budget, &scope.trace).await {
                Found::Entry(snapshot, _) if shelf.is_ahead_of(snapshot.revision) => {
                    return self
                        .verify(
                            cache,
                            shelf,
                            environment,
                            scope,
                            began,
                            snapshot.revision,
                            None,
                        )
                        .await;
                }
                Found::Entry(snapshot, lives_for) => {
                    return Ok(shelf.hold_entry(snapshot, lives_for, began));
                }
                Found::Lease(lease) => {
                    return self
                        .load_and_fill(cache, lease, shelf, environment, scope, began)
                        .await;
                }
                Found::Busy if Instant::now() + wait < patience => {
                    tokio::time::sleep(wait).await;
                    scope.budget.spend(wait);
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Found::Unavailable => break CacheOutcome::Unavailable,
                Found::Busy | Found::NoFill | Found::Damaged => break CacheOutcome::Miss,
            }
        };
        self.ask_store(shelf, environment, scope, began)
            .await
            .map(|reading| reading.without_cache(outcome))
    }

    async fn load_and_fill(
        &self,
        cache: &Cache,
        lease: Lease,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        began: Instant,
    ) -> Result<Reading, Error> {
        let reading = self
            .ask_store(shelf, environment, scope, began)
            .await?
            .without_cache(CacheOutcome::Miss);
        if reading.source != Source::Stale {
            let snapshot = &reading.snapshot;
            let filled = cache
                .fill(environment, lease, snapshot, &scope.budget, &scope.trace)
                .await;
            if filled {
                shelf.entry_lives_for(cache.ttl());
            }
        }
        Ok(reading)
    }

    /// Asks the store whether an entry at this revision is right, and drops it when it is not. With
    /// the store gone too, the newer of the entry and what is held is the best there is.
    #[expect(clippy::too_many_arguments, reason = "they are what an errand carries")]
    async fn verify(
        &self,
        cache: &Cache,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        began: Instant,
        found: Revision,
        outages: Option<u64>,
    ) -> Result<Reading, Error> {
        let verdict = self.ask_store(shelf, environment, scope, began).await;
        match verdict {
            Ok(reading) if reading.source != Source::Stale => {
                let right = reading.snapshot.revision == found;
                let settled = right
                    || cache
                        .discard(environment, found, &scope.budget, &scope.trace)
                        .await;
                if let (true, Some(outages)) = (settled, outages) {
                    shelf.settle(outages);
                }
                Ok(if right {
                    reading
                } else {
                    reading.without_cache(CacheOutcome::Miss)
                })
            }
            Ok(stale) if stale.snapshot.revision >= found => Ok(stale),
            Ok(_) | Err(Error::Unavailable(_)) => {
                let entry = cache.read(environment, &scope.budget, &scope.trace).await;
                match (entry, verdict) {
                    (Found::Entry(snapshot, lives_for), _) => {
                        let reading = shelf.hold_entry(snapshot, lives_for, began);
                        Ok(Reading {
                            source: Source::Stale,
                            ..reading
                        })
                    }
                    (_, verdict) => verdict,
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Asks the store, sending along which revision is held: an environment that has not changed
    /// costs one number.
    async fn ask_store(
        &self,
        shelf: &Shelf,
        environment: &Environment,
        scope: &Scope,
        began: Instant,
    ) -> Result<Reading, Error> {
        let held = shelf.held();
        let known = held.as_ref().map(|held| held.snapshot.revision);
        scope.trace.database_load();
        match (self.store.snapshot(environment, known).await, held) {
            (Ok(Fresh::Unchanged), Some(held)) => {
                shelf.confirm(held.snapshot.revision, began);
                Ok(Reading::memory(&held))
            }
            (Ok(Fresh::Unchanged), None) => Err(Error::Internal(
                "the store says that nothing has changed, to one who knows nothing".to_owned(),
            )),
            (Ok(Fresh::Changed(snapshot)), _) => {
                let snapshot = Arc::new(snapshot);
                shelf.hold(Held {
                    snapshot: snapshot.clone(),
                    as_of: began,
                    entry_until: None,
                });
                Ok(Reading {
                    snapshot,
                    source: Source::Database,
                    cache: CacheOutcome::Miss,
                })
            }
            (Err(failure @ Error::Unavailable(_)), Some(held)) => {
                warn!(domain = "config", error = %failure, "the database does not answer");
                Ok(Reading {
                    snapshot: held.snapshot,
                    source: Source::Stale,
                    cache: CacheOutcome::Unavailable,
                })
            }
            (Err(failure), _) => Err(failure),
        }
    }

    async fn revision_of(&self, environment: &Environment) -> Result<Revision, Error> {
        match self.store.snapshot(environment, None).await? {
            Fresh::Changed(snapshot) => Ok(snapshot.revision),
            Fresh::Unchanged => Ok(Revision::NONE),
        }
    }

    /// The shelf of an environment that exists. A name that nobody knows gets none, so that made-up
    /// names cost neither memory nor a query each.
    async fn shelf(
        &self,
        environment: &Environment,
        scope: &Scope,
    ) -> Result<Option<Arc<Shelf>>, Error> {
        if let Some(shelf) = self.known().get(environment) {
            return Ok(Some(shelf.clone()));
        }
        // Only environments that exist have an entry.
        if let Some(cache) = &self.cache {
            let found = cache
                .revision(environment, &scope.budget, &scope.trace)
                .await;
            if matches!(found, Lookup::Hit(_)) {
                return Ok(Some(
                    self.known().entry(environment.clone()).or_default().clone(),
                ));
            }
        }
        let mut listed = self.listing.lock().await;
        if listed.is_none_or(|at| at.elapsed() >= BETWEEN_LISTINGS) {
            let environments = self.store.environments().await?;
            *listed = Some(Instant::now());
            let mut known = self.known();
            for (name, _revision) in environments {
                known.entry(name).or_default();
            }
        }
        Ok(self.known().get(environment).cloned())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Environment, Arc<Shelf>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a read still has to do after it has asked Redis for the revision.
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

/// What reconciling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Environments that were looked at.
    pub environments: usize,
    /// Entries that were older than the database, and were dropped.
    pub repaired: usize,
    /// Entries that were filled.
    pub warmed: usize,
    /// Environments whose entry could not be looked at or dropped.
    pub unreachable: usize,
}

impl Reading {
    fn memory(held: &Held) -> Self {
        Self {
            snapshot: held.snapshot.clone(),
            source: Source::Memory,
            cache: CacheOutcome::Hit,
        }
    }

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

impl Held {
    fn entry_has_run_out(&self) -> bool {
        self.entry_until
            .is_some_and(|until| until <= Instant::now())
    }
}

impl Shelf {
    fn held(&self) -> Option<Held> {
        self.lock_held().clone()
    }

    fn hold(&self, held: Held) {
        *self.lock_held() = Some(held);
    }

    /// Keeps what was just fetched from Redis.
    fn hold_entry(&self, snapshot: Snapshot, lives_for: Duration, began: Instant) -> Reading {
        let snapshot = Arc::new(snapshot);
        self.hold(Held {
            snapshot: snapshot.clone(),
            as_of: began,
            entry_until: Some(Instant::now() + lives_for),
        });
        Reading {
            snapshot,
            source: Source::Redis,
            cache: CacheOutcome::Hit,
        }
    }

    fn is_ahead_of(&self, revision: Revision) -> bool {
        self.lock_held()
            .as_ref()
            .is_some_and(|held| held.snapshot.revision > revision)
    }

    /// What is held was current at that time.
    fn confirm(&self, revision: Revision, at: Instant) {
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
        {
            held.as_of = held.as_of.max(at);
        }
    }

    fn entry_lives_for(&self, ttl: Duration) {
        if let Some(held) = &mut *self.lock_held() {
            held.entry_until = Some(Instant::now() + ttl);
        }
    }

    fn distrusts(&self, outages: u64) -> bool {
        *self.lock_settled() != outages
    }

    fn settle(&self, outages: u64) {
        *self.lock_settled() = outages;
    }

    fn lock_held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_settled(&self) -> MutexGuard<'_, u64> {
        self.outages_settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
