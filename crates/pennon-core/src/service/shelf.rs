//! What an instance knows of one environment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{Reading, Source};
use crate::cache::Seen;
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
    /// Whether this instance has loaded it from the store. An entry of Redis is never put back into
    /// Redis: what a fill holds comes from the store.
    pub(super) is_from_store: bool,
    /// When the store itself last said that it is current. By the clock of the machine: the one that only
    /// counts forward may stand still while Lambda freezes an instance.
    store_said: Option<SystemTime>,
    /// When the entry in Redis runs out, as far as known.
    entry_until: Option<Instant>,
}

/// When something began, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub(super) at: Instant,
    pub(super) time: SystemTime,
}

impl Began {
    pub(super) fn now() -> Self {
        Self {
            at: Instant::now(),
            time: SystemTime::now(),
        }
    }
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

    /// Whether the store has said within this time that it is current.
    pub(super) fn was_confirmed_within(&self, time: Duration) -> bool {
        let since = self.store_said.map(|at| at.elapsed());
        // A clock that was set back tells nothing.
        since.is_some_and(|since| since.is_ok_and(|since| since < time))
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

    /// Keeps what was just loaded from the store, even when that is older than what is held: a store that
    /// was restored from a backup has gone back.
    pub(super) fn hold_loaded(&self, snapshot: Snapshot, began: Began) -> Reading {
        let snapshot = Arc::new(snapshot);
        self.hold(Held {
            snapshot: snapshot.clone(),
            as_of: began.at,
            is_from_store: true,
            store_said: Some(began.time),
            entry_until: None,
        });
        Reading {
            snapshot,
            source: Source::Database,
            cache: CacheOutcome::Miss,
        }
    }

    /// Keeps what was just fetched from Redis, unless something newer is held. `None` then: an instance
    /// never goes back on the word of Redis.
    pub(super) fn hold_entry(
        &self,
        snapshot: Snapshot,
        seen: &Seen,
        began: Began,
    ) -> Option<Reading> {
        let snapshot = Arc::new(snapshot);
        let mut held = self.lock_held();
        if held
            .as_ref()
            .is_some_and(|held| held.snapshot.revision > snapshot.revision)
        {
            return None;
        }
        *held = Some(Held {
            snapshot: snapshot.clone(),
            as_of: began.at,
            is_from_store: false,
            store_said: None,
            // From before Redis was asked, so that this never ends after the entry.
            entry_until: Some(began.at + seen.lives_for),
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

    /// What is held was current at that time, as Redis says.
    pub(super) fn confirm(&self, revision: Revision, at: Instant) {
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
        {
            held.as_of = held.as_of.max(at);
        }
    }

    /// The same, as the store says.
    pub(super) fn confirm_by_store(&self, revision: Revision, began: Began) {
        self.confirm(revision, began.at);
        if let Some(held) = &mut *self.lock_held()
            && held.snapshot.revision == revision
        {
            held.store_said = Some(began.time);
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
