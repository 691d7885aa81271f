//! Reads and changes of flags, through the cache and the store.
//!
//! An instance keeps its last snapshot of each environment. A read gets only the revision from Redis and
//! compares it with that of the snapshot. If they are equal, the snapshot is current. Otherwise the entry is
//! fetched once; if none exists, one reader loads from the store and fills. If Redis is unavailable, the
//! revision is read from the store. If the store is unavailable too, the snapshot is used, marked stale.

mod change;
mod copy;
mod deliver;
mod environments;
mod flags;
mod health;
mod import;
mod keys;
mod overrides;
mod publish;
mod ramps;
mod read;
mod reconcile;
mod schedules;
mod settings;
mod snapshot_slot;
mod update;
mod usage;
mod validate;
mod webhooks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use change::{Changed, Expected};
pub use copy::{FlagToCopy, FlagsToCopy};
pub use deliver::WebhooksRun;
pub use flags::Side;
pub use health::DatabaseCheck;
pub use import::{Difference, FlagDifference, Import, MAX_FLAGS, SettingsDifference};
pub use keys::NewKey;
pub use overrides::{NewOverride, OverridesPut, PutMode, override_state};
pub use publish::Published;
pub use ramps::{AlarmEvent, GuardAlarmState, RampAction, RampsRun, fetch_alarm_states};
pub use reconcile::Reconciled;
pub use schedules::SchedulesRun;
pub use settings::MovedUsers;
pub use update::Change;
pub use usage::{FlagUsage, Overview, Overviews, STALE_AFTER_DAYS, Stale, StaleFlag};
pub use webhooks::{NewWebhook, WantedWebhook};

use crate::cache::Cache;
use crate::config::Config;
use crate::environment::Environment;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::telemetry::CacheOutcome;
use snapshot_slot::SnapshotSlot;

/// Where a snapshot was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The memory of this instance, confirmed to be current now or less than `SNAPSHOT_MAX_AGE_MS` ago.
    Memory,
    /// The entry in Redis.
    Redis,
    /// The store.
    Database,
    /// The memory of this instance or the entry in Redis. The store does not answer, and Redis cannot confirm that the
    /// flags are current.
    Stale,
}

/// The flags of an environment, and where they were read from.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The flags.
    pub snapshot: Arc<Snapshot>,
    /// Where they were read from.
    pub source: Source,
    /// What the cache answered: Redis, or the memory of this instance if no Redis is configured.
    pub cache: CacheOutcome,
}

/// Reads and changes flags.
pub struct FlagService {
    cache: Option<Cache>,
    store: Store,
    max_age: Duration,
    known: Mutex<HashMap<Environment, Arc<SnapshotSlot>>>,
    /// Locked while the list of environments is read from the store.
    last_list_read: tokio::sync::Mutex<Option<environments::ListRead>>,
    last_check: health::LastCheck,
}

impl FlagService {
    /// Creates a service from a cache and a store.
    #[must_use]
    pub fn new(cache: Option<Cache>, store: Store, config: &Config) -> Self {
        let production = (Environment::production(), Arc::new(SnapshotSlot::default()));
        Self {
            cache,
            store,
            max_age: config.snapshot_max_age,
            known: Mutex::new(HashMap::from([production])),
            last_list_read: tokio::sync::Mutex::new(None),
            last_check: health::LastCheck::default(),
        }
    }

    /// The shared cache, if Redis is configured.
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
