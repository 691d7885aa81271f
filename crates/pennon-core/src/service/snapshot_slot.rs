//! The snapshot of one environment that an instance holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Reading, Source};
use crate::cache::EntryInfo;
use crate::error::Error;
use crate::moment::Moment;
use crate::snapshot::{Revision, Snapshot};
use crate::telemetry::CacheOutcome;

/// After a fill that was too slow, the instance does not fill this environment for this long. Otherwise every request
/// would encode and send the whole environment again, and use up its budget. Meanwhile the database confirms the
/// snapshot of the instance, which takes a few milliseconds.
const FILL_COOL_DOWN: Duration = Duration::from_secs(10);

/// The snapshot of one environment, and how it is refreshed.
#[derive(Default)]
pub(super) struct SnapshotSlot {
    held: Mutex<Option<CachedSnapshot>>,
    /// Serialises refreshes: one request refreshes for all that wait. Holds the last outcome.
    pub(super) refresh: tokio::sync::Mutex<Option<Refresh>>,
    /// The number of outages of the cache when an entry was last compared with the store.
    outages_settled: Mutex<u64>,
    /// When the last fill that was too slow ended.
    slow_fill: Mutex<Option<Instant>>,
}

/// A snapshot, and when it was last confirmed to be current.
#[derive(Debug, Clone)]
pub(super) struct CachedSnapshot {
    pub(super) snapshot: Arc<Snapshot>,
    /// When Redis or the store last confirmed it; `None` if it came from Redis and nothing has confirmed it.
    as_of: Option<Moment>,
    /// Whether this instance has loaded it from the store. A snapshot that came from Redis is never written
    /// back to Redis.
    pub(super) is_from_store: bool,
    /// When the store last confirmed that it is current.
    store_confirmed_at: Option<Moment>,
    /// The TTL of the entry in Redis at a moment, if known.
    entry_ttl: Option<(Moment, Duration)>,
}

/// The outcome of a refresh. Requests that arrived before it began may share it.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    pub(super) started: Instant,
    pub(super) outcome: Result<Reading, Error>,
}

impl CachedSnapshot {
    /// An answer from memory.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            snapshot: self.snapshot.clone(),
            source: Source::Memory,
            cache: CacheOutcome::Hit,
        }
    }

    /// An answer whose freshness is unknown.
    pub(super) fn stale(&self) -> Reading {
        Reading {
            snapshot: self.snapshot.clone(),
            source: Source::Stale,
            cache: CacheOutcome::Unavailable,
        }
    }

    /// Whether Redis or the store has confirmed it within this time.
    pub(super) fn is_younger_than(&self, time: Duration) -> bool {
        self.as_of.is_some_and(|at| at.age() < time)
    }

    /// Whether the store has confirmed it within this time.
    pub(super) fn was_confirmed_within(&self, time: Duration) -> bool {
        self.store_confirmed_at.is_some_and(|at| at.age() < time)
    }

    pub(super) fn entry_has_expired(&self) -> bool {
        self.entry_ttl.is_some_and(|(at, ttl)| at.age() >= ttl)
    }
}

impl SnapshotSlot {
    pub(super) fn held(&self) -> Option<CachedSnapshot> {
        self.lock_held().clone()
    }

    fn hold(&self, held: CachedSnapshot) {
        *self.lock_held() = Some(held);
    }

    /// Keeps a snapshot loaded from the store, even if it is older than the held one: the store may have been
    /// restored from a backup.
    pub(super) fn hold_loaded(&self, snapshot: Snapshot, started: Moment) -> Reading {
        let snapshot = Arc::new(snapshot);
        self.hold(CachedSnapshot {
            snapshot: snapshot.clone(),
            as_of: Some(started),
            is_from_store: true,
            store_confirmed_at: Some(started),
            entry_ttl: None,
        });
        Reading {
            snapshot,
            source: Source::Database,
            cache: CacheOutcome::Miss,
        }
    }

    /// Keeps a snapshot fetched from Redis. `is_confirmed`: it was read from Redis without a reason to doubt it. `None`
    /// if the held one is newer: an instance never returns to a lower revision because of Redis.
    pub(super) fn hold_entry(
        &self,
        snapshot: Snapshot,
        info: &EntryInfo,
        started: Moment,
        is_confirmed: bool,
    ) -> Option<Reading> {
        let snapshot = Arc::new(snapshot);
        let mut held = self.lock_held();
        if held
            .as_ref()
            .is_some_and(|held| held.snapshot.revision > snapshot.revision)
        {
            return None;
        }
        *held = Some(CachedSnapshot {
            snapshot: snapshot.clone(),
            as_of: is_confirmed.then_some(started),
            is_from_store: false,
            store_confirmed_at: None,
            // Counted from before the command, so that this is never later than the expiry in Redis.
            entry_ttl: Some((started, info.ttl)),
        });
        Some(Reading {
            snapshot,
            source: Source::Redis,
            cache: CacheOutcome::Hit,
        })
    }

    pub(super) fn is_ahead_of(&self, revision: Revision) -> bool {
        self.lock_held()
            .as_ref()
            .is_some_and(|held| held.snapshot.revision > revision)
    }

    /// Records that Redis confirmed the held snapshot at this time.
    pub(super) fn confirm(&self, revision: Revision, at: Moment) {
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
            && held.as_of.is_none_or(|as_of| at.is_since(as_of))
        {
            held.as_of = Some(at);
        }
    }

    /// Records that the store confirmed the held snapshot.
    pub(super) fn confirm_by_store(&self, revision: Revision, started: Moment) {
        self.confirm(revision, started);
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
        {
            held.store_confirmed_at = Some(started);
        }
    }

    /// Records that the entry was filled with the held snapshot, no earlier than at this time.
    pub(super) fn filled(&self, ttl: Duration, sent: Moment) {
        if let Some(held) = &mut *self.lock_held() {
            held.entry_ttl = Some((sent, ttl));
        }
    }

    /// Skips fills of this environment for [`FILL_COOL_DOWN`].
    pub(super) fn skip_fills(&self) {
        *self.lock_slow_fill() = Some(Instant::now());
    }

    /// Whether the last fill was too slow, less than [`FILL_COOL_DOWN`] ago.
    pub(super) fn skips_fills(&self) -> bool {
        self.lock_slow_fill()
            .is_some_and(|ended| ended.elapsed() < FILL_COOL_DOWN)
    }

    /// Whether an entry must be compared with the store, because of an outage since the last comparison.
    pub(super) fn needs_comparison(&self, outages: u64) -> bool {
        *self.lock_settled() != outages
    }

    /// Records that an entry was compared with the store after this many outages.
    pub(super) fn settle(&self, outages: u64) {
        *self.lock_settled() = outages;
    }

    fn lock_held(&self) -> MutexGuard<'_, Option<CachedSnapshot>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_slow_fill(&self) -> MutexGuard<'_, Option<Instant>> {
        self.slow_fill
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_settled(&self) -> MutexGuard<'_, u64> {
        self.outages_settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
