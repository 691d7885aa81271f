//! The types of the protocol: leases, write barriers, results of reads, and time limits.

use std::time::Duration;

use super::authentic::EntryInfo;
use crate::snapshot::Snapshot;

/// The TTL of a lease: the time for a slow read of the database and the fill.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How long other readers wait for the first one to fill before they load too. A load takes a few milliseconds; a
/// reader that died delays the others by at most this time.
pub(super) const FILL_GRACE_PERIOD: Duration = Duration::from_millis(150);
/// The TTL of a write barrier. A `COMMIT` reaches the database within it or never: the database ends a transaction that
/// idles for [`crate::store::COMMIT_TIMEOUT`]. One that the database delays longer leaves an old entry to `reconcile`.
pub const BARRIER: Duration = Duration::from_secs(15);
/// A write barrier that arrives later than this after it was sent is not set: it was queued in a server that hung,
/// and its writer has given up. A writer whose clock is behind that of Redis by more than this cannot set a barrier
/// either; reads are correct if [`super::Cache::end_write`] is confirmed.
pub(super) const BARRIER_LATE: Duration = Duration::from_secs(2);
const _: () = assert!(crate::store::COMMIT_TIMEOUT.as_millis() * 2 < BARRIER.as_millis());

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The entry exists.
    Hit(T),
    /// There is no entry.
    Miss,
    /// There is an entry that is forged, expired or invalid. A read of the whole entry reports and removes it.
    Unusable,
    /// Redis is unavailable.
    Unavailable,
}

/// The result of reading a whole entry.
#[derive(Debug)]
pub enum Found<T = Snapshot> {
    /// An authentic entry.
    Entry(Box<T>, EntryInfo),
    /// There is no entry. Load, then fill with this lease.
    Lease(Lease),
    /// There is no entry, and another reader is loading it. Ask again soon.
    FillInProgress,
    /// Load without filling: a write is in progress, Redis is full, or the entry belongs to another
    /// installation.
    FillForbidden,
    /// An entry that is forged, expired or invalid. Ask again.
    Corrupt {
        /// Whether Redis has confirmed that it is gone.
        removed: bool,
    },
    /// Redis is unavailable.
    Unavailable,
}

/// The result of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The entry is stored.
    Stored,
    /// It is not stored, for example because a change has revoked the lease or Redis is unavailable.
    NotStored,
    /// It is large, and Redis has not confirmed it, usually because the budget has ended. Another attempt would then
    /// take as long.
    TooSlow,
}

/// Permission to fill an entry once.
#[derive(Debug)]
pub struct Lease {
    pub(super) id: String,
}

/// A write barrier on an environment: no reader may fill until it is removed or expires.
#[derive(Debug)]
pub struct WriteBarrier {
    pub(super) id: String,
    pub(super) confirmed: bool,
    /// Whether the reply to an attempt was lost, so that the barrier may be set after
    /// [`super::Cache::end_write`].
    pub(super) may_arrive_late: bool,
}

impl WriteBarrier {
    /// Whether Redis has confirmed it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.confirmed
    }
}
