//! The known environments. A request for an unknown name causes a query only if Redis has no usable list.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::FlagService;
use super::snapshot_slot::SnapshotSlot;
use crate::cache::{Cache, Found, Lease, Lookup};
use crate::environment::Environment;
use crate::error::Error;
use crate::moment::Moment;
use crate::request_context::RequestContext;
use crate::store::Waiting;

/// Without Redis, and after a failure, an instance reads the list from the store at most once in this time, however many
/// names are unknown. This is also how long a new environment can then stay unknown to another instance.
const LISTING_INTERVAL: Duration = Duration::from_secs(1);
/// Limit on the wait for another reader that loads the list.
const FILL_WAIT_LIMIT: Duration = Duration::from_millis(170);
/// The pause between two reads during that wait.
const WAIT: Duration = Duration::from_millis(16);

/// The list of environments in Redis.
enum Listed {
    /// The names of all environments.
    Names(Vec<Environment>),
    /// Redis has no list. Load it, then fill with this lease.
    Lease(Lease),
    /// Redis has no usable list, and this reader must not fill it: the list may be changing.
    FillForbidden,
    /// Redis is unavailable.
    Unavailable,
}

/// A read of the list of environments from the store.
#[derive(Debug)]
pub(super) struct ListRead {
    began: Moment,
    outcome: Result<(), Error>,
}

impl ListRead {
    /// Whether a request may use it: always if the request arrived before it began. A later request may use a recent
    /// one; with Redis only a failed one, because it may lack an environment whose creation Redis has confirmed since.
    fn is_usable(&self, context: &RequestContext, has_redis: bool) -> bool {
        let is_recent = self.began.age() < LISTING_INTERVAL;
        self.began.instant() >= context.arrived
            || (is_recent && (!has_redis || self.outcome.is_err()))
    }
}

impl FlagService {
    /// The slot of an existing environment. An unknown name gets none, so it takes no memory; if Redis has the list, it
    /// costs two commands to Redis and no query.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither Redis nor the store returns the environment or the list of environments.
    pub(super) async fn slot(
        &self,
        environment: &Environment,
        context: &RequestContext,
    ) -> Result<Option<Arc<SnapshotSlot>>, Error> {
        if let Some(slot) = self.known_slot(environment) {
            return Ok(Some(slot));
        }
        // The in-memory store is read without a query. A list in Redis would only hide an edit of its file.
        let is_in_memory = self.store.is_in_memory();
        let cache = self.cache.as_ref().filter(|_| !is_in_memory);
        let (mut lease, mut has_redis) = (None, false);
        if let Some(cache) = cache {
            // Only existing environments have an entry. So an environment with an entry is served even while the store
            // does not answer, and without a lease of the list, which other instances would wait for.
            let found = cache.revision(environment, context).await;
            if matches!(found, Lookup::Hit(_)) {
                self.add_known([environment.clone()]);
                return Ok(self.known_slot(environment));
            }
            match self.listed_in_cache(cache, context).await {
                Listed::Names(names) => {
                    self.add_known(names);
                    return Ok(self.known_slot(environment));
                }
                Listed::Lease(given) => lease = Some((cache, given)),
                Listed::FillForbidden => has_redis = true,
                Listed::Unavailable => {}
            }
        }
        let mut last_read = self.last_list_read.lock().await;
        // Another request may have read the list meanwhile.
        if let Some(slot) = self.known_slot(environment) {
            return Ok(Some(slot));
        }
        // A fill must hold a list that was read after the lease was given.
        if let Some(last) = &*last_read
            && !is_in_memory
            && last.is_usable(context, has_redis)
            && (lease.is_none() || last.outcome.is_err())
        {
            return last.outcome.clone().map(|()| None);
        }
        let began = Moment::now();
        let outcome = match self.store.environments().await {
            Ok(environments) => {
                let names: Vec<Environment> =
                    environments.into_iter().map(|(name, _)| name).collect();
                if let Some((cache, lease)) = lease {
                    cache.fill_list(lease, &names, context).await;
                }
                self.add_known(names);
                Ok(())
            }
            Err(error) => Err(error),
        };
        *last_read = Some(ListRead {
            began,
            outcome: outcome.clone(),
        });
        // Another request may have found its entry in Redis while this read failed.
        match self.known_slot(environment) {
            Some(slot) => Ok(Some(slot)),
            None => outcome.map(|()| None),
        }
    }

    /// Reads the list of environments from Redis, and waits while another reader loads it.
    async fn listed_in_cache(&self, cache: &Cache, context: &RequestContext) -> Listed {
        let deadline = Instant::now() + FILL_WAIT_LIMIT;
        let mut has_repaired = false;
        loop {
            match cache.read_list(context).await {
                Found::Entry(names, _) => return Listed::Names(*names),
                Found::Lease(lease) => return Listed::Lease(lease),
                Found::Corrupt { .. } if !has_repaired => has_repaired = true,
                Found::FillInProgress if Instant::now() + WAIT < deadline => {
                    tokio::time::sleep(WAIT).await;
                    context.budget.spend(WAIT);
                }
                Found::FillInProgress | Found::Corrupt { .. } | Found::FillForbidden => {
                    return Listed::FillForbidden;
                }
                Found::Unavailable => return Listed::Unavailable,
            }
        }
    }

    fn add_known(&self, names: impl IntoIterator<Item = Environment>) {
        let mut known = self.known();
        for name in names {
            known.entry(name).or_default();
        }
    }

    /// All environments, after a check that the store can be read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer, or lacks a table or a column.
    pub(super) async fn readable_environments(&self) -> Result<Vec<Environment>, Error> {
        let environments = self.store.environments().await?;
        // A read may be answered from Redis and would not notice a missing table or column. This query uses all tables
        // and columns that a read needs, and returns only a number.
        if let Some((environment, revision)) = environments.first() {
            let known = Some(*revision);
            self.store
                .snapshot(environment, known, Waiting::Never)
                .await?;
        }
        Ok(environments.into_iter().map(|(name, _)| name).collect())
    }

    /// Counts unreadable rows in as many of these environments as can be read until the deadline. The next call finds
    /// those in memory and continues with the others.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither Redis nor the store answers.
    pub(super) async fn unreadable_rows(
        &self,
        environments: Vec<Environment>,
        context: &RequestContext,
        deadline: Instant,
    ) -> Result<usize, Error> {
        let (mut count, mut installation) = (0, 0);
        for environment in environments {
            let read = timeout_at(deadline.into(), self.read(&environment, context));
            let Ok(reading) = read.await else { break };
            let reading = reading?;
            let snapshot = &reading.snapshot;
            // All environments share the row of the installation.
            let shared = usize::from(snapshot.has_unreadable_defaults());
            count += snapshot.unreadable_count().saturating_sub(shared);
            installation = installation.max(shared);
        }
        Ok(count + installation)
    }

    fn known_slot(&self, environment: &Environment) -> Option<Arc<SnapshotSlot>> {
        self.known().get(environment).cloned()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<Environment, Arc<SnapshotSlot>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
