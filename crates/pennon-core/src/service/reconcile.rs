//! Compares the cache with the store and repairs it, independently of requests.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::FlagService;
use crate::cache::{Cache, Found, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::moment::Moment;
use crate::request_context::RequestContext;
use crate::snapshot::Revision;
use crate::store::{SnapshotUpdate, Waiting};

/// The actor of transactions, which change nothing.
const ACTOR: &str = "reconcile";

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Environments that were compared.
    pub environments: usize,
    /// Entries that differed from the database and were removed.
    pub repaired: usize,
    /// Entries that were filled.
    pub warmed: usize,
    /// Environments whose entry could not be read or removed.
    pub unreachable: usize,
    /// Environments for which no time was left.
    pub left: usize,
}

/// The result of the comparison of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// It equals the state in the store.
    Equal,
    /// It differed and was removed.
    Removed,
    /// There is no entry.
    Absent,
    /// Redis did not answer, or did not confirm that a wrong entry is gone.
    Unreachable,
}

impl FlagService {
    /// Compares revision and content of all cache entries with the store, removes entries that differ and fills
    /// missing ones. Begins no comparison after `within`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer; the error of an environment, after the others were
    /// compared: of several, that of the first by name.
    pub async fn reconcile(&self, budget: Duration, within: Duration) -> Result<Reconciled, Error> {
        let mut done = Reconciled::default();
        let Some(cache) = &self.cache else {
            return Ok(done);
        };
        let started = Instant::now();
        let mut environments = self.store.environments().await?;
        self.compare_list(cache, &environments, budget).await;
        // In another order in each run, so that a run without enough time never leaves the same ones.
        let order = RandomState::new();
        environments.sort_by_cached_key(|(environment, _)| order.hash_one(environment));
        let mut failures = BTreeMap::new();
        for (environment, current) in environments {
            if started.elapsed() > within {
                done.left += 1;
                continue;
            }
            let compared = self
                .reconcile_environment(cache, &environment, current, budget, &mut done)
                .await;
            let Err(error) = compared else { continue };
            tracing::error!(
                domain = "config",
                environment = environment.as_str(),
                error = %error,
                "an environment could not be compared with the cache"
            );
            // The flags of one environment may be too many for the time limit, which opens the breaker. If the store
            // works, a transaction closes it; otherwise the other environments cannot be read either.
            let begun = self.begin(&environment, ACTOR).await;
            failures.insert(environment, error);
            match begun {
                Ok(transaction) => transaction.rollback().await,
                Err(_) => break,
            }
        }
        if done.left > 0 {
            let left = done.left;
            tracing::warn!(
                domain = "config",
                left,
                "no time was left to compare all environments with the cache"
            );
        }
        // The first by name, not the first compared: that changes with the order, and the local server would log each
        // as a new failure.
        failures
            .pop_first()
            .map_or(Ok(done), |(_, error)| Err(error))
    }

    async fn reconcile_environment(
        &self,
        cache: &Cache,
        environment: &Environment,
        current: Revision,
        budget: Duration,
        done: &mut Reconciled,
    ) -> Result<(), Error> {
        let context = RequestContext::begin(budget);
        done.environments += 1;
        match self
            .compare_entry(cache, environment, current, &context)
            .await?
        {
            Compared::Equal => return Ok(()),
            Compared::Removed => done.repaired += 1,
            Compared::Absent => {}
            Compared::Unreachable => {
                done.unreachable += 1;
                return Ok(());
            }
        }
        // From memory, nothing would be filled.
        self.read_within(Duration::ZERO, environment, &context)
            .await?;
        // A concurrent change forbids the fill.
        let filled = cache.revision_at_primary(environment, &context).await;
        if matches!(filled, Lookup::Hit(_)) {
            done.warmed += 1;
        }
        Ok(())
    }

    /// Removes the list of environments if it differs from the store. The next read of an unknown name fills
    /// it.
    async fn compare_list(
        &self,
        cache: &Cache,
        stored: &[(Environment, Revision)],
        budget: Duration,
    ) {
        let context = RequestContext::begin(budget);
        // Checked first, because a read of a missing list takes a lease.
        let found = cache
            .revision_at_primary(&Environment::listing(), &context)
            .await;
        if matches!(found, Lookup::Hit(_))
            && let Found::Entry(names, _) = cache.read_list(&context).await
            && !names.iter().eq(stored.iter().map(|(name, _)| name))
        {
            cache.discard_list(&context).await;
        }
    }

    async fn compare_entry(
        &self,
        cache: &Cache,
        environment: &Environment,
        current: Revision,
        context: &RequestContext,
    ) -> Result<Compared, Error> {
        let found = match cache.revision_at_primary(environment, context).await {
            Lookup::Hit(seen) => seen.revision,
            // Not fetched, because a read of a missing entry takes a lease.
            Lookup::Miss => return Ok(Compared::Absent),
            Lookup::Unusable => {
                let found = cache.read(environment, context).await;
                return Ok(match found {
                    Found::Corrupt { removed: true } => Compared::Removed,
                    Found::Corrupt { removed: false } | Found::Unavailable => Compared::Unreachable,
                    Found::Entry(..)
                    | Found::Lease(_)
                    | Found::FillInProgress
                    | Found::FillForbidden => Compared::Absent,
                });
            }
            Lookup::Unavailable => return Ok(Compared::Unreachable),
        };
        // The list of revisions may be older than the entry: compare again before removing it.
        if found != current
            && self
                .store
                .snapshot(environment, Some(found), Waiting::UntilTimeout)
                .await?
                != SnapshotUpdate::Unchanged
        {
            return Ok(remove_entry(cache, environment, found, context).await);
        }
        let entry = match cache.read(environment, context).await {
            Found::Entry(entry, _) => *entry,
            Found::Corrupt { removed: true } => return Ok(Compared::Removed),
            Found::Lease(_) | Found::FillInProgress | Found::FillForbidden => {
                return Ok(Compared::Absent);
            }
            Found::Corrupt { removed: false } | Found::Unavailable => {
                return Ok(Compared::Unreachable);
            }
        };
        // A change in between gives another revision, which the next run compares.
        match self
            .store
            .snapshot(environment, None, Waiting::UntilTimeout)
            .await?
        {
            SnapshotUpdate::Changed(stored)
                if stored.revision == entry.revision && stored != entry =>
            {
                let compared = remove_entry(cache, environment, entry.revision, context).await;
                cache.count_forged_entry();
                tracing::error!(
                    domain = "config",
                    error.r#type = "different_entry",
                    environment = environment.as_str(),
                    removed = compared == Compared::Removed,
                    "an authentic cache entry differs from PostgreSQL at the same revision. \
                     Either a row was changed with triggers disabled, or the MAC key has leaked. See cache-forged-entries in docs/operations.md"
                );
                let slot = self.known().entry(environment.clone()).or_default().clone();
                slot.hold_loaded(stored, Moment::now());
                Ok(compared)
            }
            SnapshotUpdate::Changed(_) | SnapshotUpdate::Unchanged => Ok(Compared::Equal),
        }
    }
}

async fn remove_entry(
    cache: &Cache,
    environment: &Environment,
    wrong: Revision,
    context: &RequestContext,
) -> Compared {
    let confirmed = cache.discard(environment, wrong, context).await;
    if confirmed {
        Compared::Removed
    } else {
        Compared::Unreachable
    }
}
