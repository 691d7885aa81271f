//! Which environments exist, without asking anyone about every name that somebody makes up.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shelf::Shelf;
use super::{FlagService, Scope};
use crate::cache::Lookup;
use crate::environment::Environment;
use crate::error::Error;

/// Names that nobody knows may make us look into the store once per this time, not once per name. An
/// environment that comes into being is seen by every instance after that long.
const BETWEEN_LISTINGS: Duration = Duration::from_secs(1);

impl FlagService {
    /// The shelf of an environment that exists. A name that nobody knows gets none, so that made-up
    /// names cost neither memory nor a query each.
    pub(super) async fn shelf(
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

    /// How much of what is stored cannot be read, over all environments.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when neither cache nor store answers.
    pub async fn unreadable_rows(&self, scope: &Scope) -> Result<usize, Error> {
        let (mut count, mut installation) = (0, 0);
        for (environment, _) in self.store.environments().await? {
            let reading = self.read(&environment, scope).await?;
            let snapshot = &reading.snapshot;
            // All environments share the row of the installation.
            let shared = usize::from(snapshot.has_unreadable_defaults());
            count += snapshot.unreadable_count().saturating_sub(shared);
            installation = installation.max(shared);
        }
        Ok(count + installation)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Environment, Arc<Shelf>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
