//! What an instance knows of one environment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Reading, Source};
use crate::error::Error;
use crate::snapshot::{Revision, Snapshot};
use crate::telemetry::CacheOutcome;

/// What this instance knows of one environment.
#[derive(Default)]
pub(super) struct Shelf {
    held: Mutex<Option<Held>>,
    /// Held while one request finds out more on behalf of all that wait; what came of it last.
    pub(super) errand: tokio::sync::Mutex<Option<Errand>>,
    /// How many failures of the cache had been seen when an entry was last compared with the store.
    outages_settled: Mutex<u64>,
}

/// A snapshot, and when it was last known to be current.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) as_of: Instant,
    /// When the entry in Redis runs out, as far as known.
    entry_until: Option<Instant>,
}

/// What finding out led to. Whoever arrived before it began may share it.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) began: Instant,
    pub(super) outcome: Result<Reading, Error>,
}

impl Held {
    /// An answer out of memory.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            snapshot: self.snapshot.clone(),
            source: Source::Memory,
            cache: CacheOutcome::Hit,
        }
    }

    /// An answer for want of a better one.
    pub(super) fn stale(&self) -> Reading {
        Reading {
            snapshot: self.snapshot.clone(),
            source: Source::Stale,
            cache: CacheOutcome::Unavailable,
        }
    }

    pub(super) fn entry_has_run_out(&self) -> bool {
        self.entry_until
            .is_some_and(|until| until <= Instant::now())
    }
}

impl Shelf {
    pub(super) fn held(&self) -> Option<Held> {
        self.lock_held().clone()
    }

    fn hold(&self, held: Held) {
        *self.lock_held() = Some(held);
    }

    /// Keeps what was just loaded from the store.
    pub(super) fn hold_loaded(&self, snapshot: Snapshot, began: Instant) -> Reading {
        let snapshot = Arc::new(snapshot);
        self.hold(Held {
            snapshot: snapshot.clone(),
            as_of: began,
            entry_until: None,
        });
        Reading {
            snapshot,
            source: Source::Database,
            cache: CacheOutcome::Miss,
        }
    }

    /// Keeps what was just fetched from Redis.
    pub(super) fn hold_entry(
        &self,
        snapshot: Snapshot,
        lives_for: Duration,
        began: Instant,
    ) -> Reading {
        let snapshot = Arc::new(snapshot);
        self.hold(Held {
            snapshot: snapshot.clone(),
            as_of: began,
            // From before Redis was asked, so that this never ends after the entry.
            entry_until: Some(began + lives_for),
        });
        Reading {
            snapshot,
            source: Source::Redis,
            cache: CacheOutcome::Hit,
        }
    }

    pub(super) fn is_ahead_of(&self, revision: Revision) -> bool {
        self.lock_held()
            .as_ref()
            .is_some_and(|held| held.snapshot.revision > revision)
    }

    /// What is held was current at that time.
    pub(super) fn confirm(&self, revision: Revision, at: Instant) {
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
        {
            held.as_of = held.as_of.max(at);
        }
    }

    /// The entry was filled with what is held, no earlier than at that time.
    pub(super) fn filled(&self, ttl: Duration, sent: Instant) {
        if let Some(held) = &mut *self.lock_held() {
            held.entry_until = Some(sent + ttl);
        }
    }

    pub(super) fn distrusts(&self, outages: u64) -> bool {
        *self.lock_settled() != outages
    }

    pub(super) fn settle(&self, outages: u64) {
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
