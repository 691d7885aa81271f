//! Comparing the cache with the store: the repair that does not depend on anyone's request.

use std::time::Duration;

use super::snapshot_slot::Began;
use super::{FlagService, Scope};
use crate::cache::{Cache, Found, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::Revision;
use crate::store::{Fresh, Waiting};

/// What reconciling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Environments that were looked at.
    pub environments: usize,
    /// Entries that were not what the database has, and were dropped.
    pub repaired: usize,
    /// Of these, entries that were not authentic, or were and had other content at the same revision.
    pub forged: u32,
    /// Entries that were filled.
    pub warmed: usize,
    /// Environments whose entry could not be looked at or dropped.
    pub unreachable: usize,
}

/// What became of comparing one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Right,
    /// It was wrong and is gone.
    Dropped,
    /// There is none to compare.
    Absent,
    Unreachable,
}

impl FlagService {
    /// Compares the cache with the store for every environment, revision and content, drops what is
    /// different and fills what is missing. Says how many entries were wrong.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer, or the cache could not be told of an
    /// entry that is wrong.
    pub async fn reconcile(&self, budget: Duration) -> Result<Reconciled, Error> {
        let mut done = Reconciled::default();
        let Some(cache) = &self.cache else {
            return Ok(done);
        };
        let environments = self.store.environments().await?;
        self.compare_list(cache, &environments, budget).await;
        for (environment, current) in environments {
            let scope = Scope::begin(budget);
            done.environments += 1;
            let compared = self
                .compare_entry(cache, &environment, current, &scope)
                .await?;
            match compared {
                Compared::Right => continue,
                Compared::Dropped => done.repaired += 1,
                Compared::Absent => {}
                Compared::Unreachable => {
                    done.unreachable += 1;
                    continue;
                }
            }
            self.read(&environment, &scope).await?;
            // Somebody who commits right now keeps everyone from filling.
            let filled = cache
                .revision_at_primary(&environment, &scope.budget, &scope.trace)
                .await;
            if matches!(filled, Lookup::Hit(_)) {
                done.warmed += 1;
            }
            let forged = scope.trace.facts().forged_entries;
            done.forged += forged;
            // The read found it and has dropped it.
            if compared == Compared::Absent && forged > 0 {
                done.repaired += 1;
            }
        }
        Ok(done)
    }

    /// Drops the list of environments when it is not what the store has. It is not filled: that is for
    /// the first who asks for a name that is not known.
    async fn compare_list(
        &self,
        cache: &Cache,
        stored: &[(Environment, Revision)],
        budget: Duration,
    ) {
        let scope = Scope::begin(budget);
        let (budget, trace) = (&scope.budget, &scope.trace);
        // Reading one that is not there would ask for the right to fill it.
        let found = cache
            .revision_at_primary(&Environment::listing(), budget, trace)
            .await;
        if matches!(found, Lookup::Hit(_))
            && let Found::Entry(names, _) = cache.read_list(budget, trace).await
            && !names.iter().eq(stored.iter().map(|(name, _)| name))
        {
            cache.discard_list(budget, trace).await;
        }
    }

    async fn compare_entry(
        &self,
        cache: &Cache,
        environment: &Environment,
        current: Revision,
        scope: &Scope,
    ) -> Result<Compared, Error> {
        let (budget, trace) = (&scope.budget, &scope.trace);
        let found = match cache.revision_at_primary(environment, budget, trace).await {
            Lookup::Hit(seen) => seen.revision,
            // Also what is no authentic entry: the read that follows reports and replaces it.
            Lookup::Miss => return Ok(Compared::Absent),
            Lookup::Unavailable => return Ok(Compared::Unreachable),
        };
        // The listing may be older than the entry by now: ask again before dropping it.
        if found != current
            && self
                .store
                .snapshot(environment, Some(found), Waiting::UntilTimeout)
                .await?
                != Fresh::Unchanged
        {
            return Ok(drop_entry(cache, environment, found, scope).await);
        }
        let entry = match cache.read(environment, budget, trace).await {
            Found::Entry(entry, _) => *entry,
            Found::Corrupt => return Ok(Compared::Dropped),
            Found::Lease(_) | Found::FillInProgress | Found::FillForbidden => {
                return Ok(Compared::Absent);
            }
            Found::Unavailable => return Ok(Compared::Unreachable),
        };
        // A change in between makes another revision, which the next run compares.
        match self
            .store
            .snapshot(environment, None, Waiting::UntilTimeout)
            .await?
        {
            Fresh::Changed(stored) if stored.revision == entry.revision && stored != entry => {
                tracing::error!(
                    domain = "config",
                    error.r#type = "different_entry",
                    environment = environment.as_str(),
                    "a cache entry is authentic and is not what PostgreSQL has at its revision; it is \
                     dropped. Was a row changed with triggers disabled, or is the key known to others? \
                     See cache-forged-entries in docs/operations.md"
                );
                trace.forged_entry();
                let slot = self.known().entry(environment.clone()).or_default().clone();
                slot.hold_loaded(stored, Began::now());
                Ok(drop_entry(cache, environment, entry.revision, scope).await)
            }
            Fresh::Changed(_) | Fresh::Unchanged => Ok(Compared::Right),
        }
    }
}

async fn drop_entry(
    cache: &Cache,
    environment: &Environment,
    wrong: Revision,
    scope: &Scope,
) -> Compared {
    let told = cache
        .discard(environment, wrong, &scope.budget, &scope.trace)
        .await;
    if told {
        Compared::Dropped
    } else {
        Compared::Unreachable
    }
}
