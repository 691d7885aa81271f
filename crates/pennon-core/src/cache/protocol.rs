//! What readers and writers exchange with Redis: leases, write barriers, and their times.

use std::time::Duration;

use super::authentic::Seen;
use crate::snapshot::Snapshot;

/// How long a reader may take from its lease to its fill: a slow read of the database, and the fill.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How long other readers wait for the first one before they load themselves. A load takes a few
/// milliseconds; a reader that died delays the others by this at most.
pub(super) const FILL_GRACE_PERIOD: Duration = Duration::from_millis(150);
/// The TTL of a write barrier that is not removed. A commit happens within it or never: the database ends a
/// transaction that idles for [`crate::store::COMMIT_WITHIN`].
pub const BARRIER: Duration = Duration::from_secs(15);
/// A write barrier that arrives later than this after it was sent is not set: it was queued in a server that
/// hung, and its writer has given up. With a larger clock skew the write barrier is not set; reads stay
/// correct and the response reports that the invalidation is unconfirmed.
pub(super) const BARRIER_LATE: Duration = Duration::from_secs(2);
const _: () = assert!(crate::store::COMMIT_WITHIN.as_millis() * 2 < BARRIER.as_millis());

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It was found.
    Hit(T),
    /// Redis does not have it.
    Miss,
    /// Redis is unavailable.
    Unavailable,
}

/// The result of reading a whole entry.
#[derive(Debug)]
pub enum Found<T = Snapshot> {
    /// An authentic entry.
    Entry(Box<T>, Seen),
    /// No entry. Load, then fill with this lease.
    Lease(Lease),
    /// No entry, and another reader is loading it. Ask again soon.
    FillInProgress,
    /// No entry, and a write is in progress or Redis is full; or an entry of another installation. Load
    /// without filling.
    FillForbidden,
    /// An entry that is forged, expired or invalid. It has been removed. Ask again.
    Corrupt,
    /// Redis is unavailable.
    Unavailable,
}

/// The right to fill an environment once.
#[derive(Debug)]
pub struct Lease {
    pub(super) id: String,
}

/// A writer's barrier on an environment: until it is removed, no reader may fill.
#[derive(Debug)]
pub struct WriteBarrier {
    pub(super) id: String,
    pub(super) confirmed: bool,
    /// The reply to an attempt was lost, so the barrier may be set after [`super::Cache::end_write`].
    pub(super) may_arrive_late: bool,
}

impl WriteBarrier {
    /// Whether Redis has confirmed it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.confirmed
    }
}
