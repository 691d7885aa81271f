//! Comparing the cache with the store: the repair that does not depend on anyone's request.

use std::time::Duration;

use super::{FlagService, Scope};
use crate::cache::Lookup;
use crate::error::Error;
use crate::store::{Fresh, Waiting};

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

impl FlagService {
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
                .revision_at_primary(&environment, &scope.budget, &scope.trace)
                .await;
            match cached {
                Lookup::Hit(revision) if revision == current => continue,
                Lookup::Hit(revision) => {
                    // The listing may be older than the entry by now: ask again before dropping it.
                    let current = self
                        .store
                        .snapshot(&environment, Some(revision), Waiting::UntilTimeout)
                        .await?;
                    if current == Fresh::Unchanged {
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
            // Somebody who commits right now keeps everyone from filling.
            let filled = cache
                .revision_at_primary(&environment, &scope.budget, &scope.trace)
                .await;
            if matches!(filled, Lookup::Hit(_)) {
                done.warmed += 1;
            }
        }
        Ok(done)
    }
}
