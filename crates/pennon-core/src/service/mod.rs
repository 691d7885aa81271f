//! Questions about flags, answered out of the cache and the store.
//!
//! An instance keeps the snapshot that it last saw. A read asks Redis for the revision only; if it
//! is the one held, the answer is in memory. If it is another, the entry is fetched once. If there
//! is no entry, one reader loads from the store and fills. If Redis cannot be asked, the store is
//! asked for its revision instead, and if neither answers, what is held is better than nothing.

mod change;
mod environments;
mod flags;
mod health;
mod import;
mod keys;
mod overrides;
mod read;
mod reconcile;
mod schedules;
mod settings;
mod snapshot_slot;
mod update;
mod usage;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use change::{Changed, Expected};
pub use flags::Side;
pub use health::DatabaseCheck;
pub use import::{Difference, FlagDifference, Import, SettingsDifference};
pub use keys::NewKey;
pub use overrides::{NewOverride, OverridesPut, PutMode, override_state};
pub use reconcile::Reconciled;
pub use schedules::SchedulesRun;
pub use update::Change;
pub use usage::{FlagUsage, Stale, StaleFlag};

use crate::cache::{Budget, Cache};
use crate::config::Config;
use crate::environment::Environment;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::telemetry::{CacheOutcome, Trace};
use snapshot_slot::SnapshotSlot;

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

/// Answers questions about flags.
pub struct FlagService {
    cache: Option<Cache>,
    store: Store,
    max_age: Duration,
    known: Mutex<HashMap<Environment, Arc<SnapshotSlot>>>,
    /// Serialises reading the list of environments from the store. Holds when it was last read.
    listing: tokio::sync::Mutex<Option<Instant>>,
    last_check: health::LastCheck,
}

impl FlagService {
    /// Puts a service together: the one place where cache and store meet.
    #[must_use]
    pub fn new(cache: Option<Cache>, store: Store, config: &Config) -> Self {
        let production = (Environment::production(), Arc::new(SnapshotSlot::default()));
        Self {
            cache,
            store,
            max_age: config.snapshot_max_age,
            known: Mutex::new(HashMap::from([production])),
            listing: tokio::sync::Mutex::new(None),
            last_check: health::LastCheck::default(),
        }
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
}
