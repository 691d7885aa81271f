//! When a replica may answer instead of its primary.
//!
//! A replica can lag by any amount of time, and its reply does not show by how much. It is asked only while
//! the last reply of the primary is younger than [`TRUST`], and its reply is used only if it has the revision
//! of the primary or a newer one. A confirmed change is therefore visible after [`TRUST`] at the latest,
//! however far the replica lags: by then the primary is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::snapshot::Revision;

/// How long a reply of the primary counts, and so the most staleness that a replica can add. Half a second is
/// the lag that raises an alarm, and under load one read in hundreds goes to the primary.
const TRUST: Duration = Duration::from_millis(500);

/// The last replies of primaries, by environment.
#[derive(Default)]
pub(in crate::cache) struct Replicas {
    known: Mutex<HashMap<Environment, Known>>,
}

#[derive(Default, Clone, Copy)]
struct Known {
    /// The revision that the primary had, and when it was asked.
    said: Option<(Revision, Instant)>,
    /// When this instance last changed something. Replies to earlier requests do not count.
    changed: Option<Instant>,
}

impl Replicas {
    /// The revision that a replica must have at least. `None` when only the primary may answer.
    pub(in crate::cache) fn must_know(
        &self,
        environment: &Environment,
        now: Instant,
    ) -> Option<Revision> {
        let (revision, asked) = self.lock().get(environment)?.said?;
        (now.saturating_duration_since(asked) < TRUST).then_some(revision)
    }

    /// The primary was asked at that time, and had this revision.
    pub(in crate::cache) fn primary_said(
        &self,
        environment: &Environment,
        revision: Revision,
        asked: Instant,
    ) {
        let mut known = self.lock();
        let known = known.entry(environment.clone()).or_default();
        if known.changed.is_none_or(|changed| changed < asked) {
            known.said = Some((revision, asked));
        }
    }

    /// The primary has no entry.
    pub(in crate::cache) fn primary_has_none(&self, environment: &Environment) {
        if let Some(known) = self.lock().get_mut(environment) {
            known.said = None;
        }
    }

    /// This instance has changed something, and must see its own change.
    pub(in crate::cache) fn changed(&self, environment: &Environment, now: Instant) {
        let changed = Some(now);
        let said = None;
        self.lock()
            .insert(environment.clone(), Known { said, changed });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Environment, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_replica_is_asked_only_shortly_after_its_primary() {
        let replicas = Replicas::default();
        let production = Environment::production();
        let start = Instant::now();
        assert_eq!(replicas.must_know(&production, start), None);
        replicas.primary_said(&production, Revision(7), start);
        let must_know = |after| replicas.must_know(&production, start + after);
        assert_eq!(must_know(499 * MS), Some(Revision(7)));
        assert_eq!(must_know(500 * MS), None);
        replicas.primary_has_none(&production);
        assert_eq!(must_know(MS), None);
    }

    #[test]
    fn what_the_primary_was_asked_before_an_own_change_does_not_count() {
        let replicas = Replicas::default();
        let production = Environment::production();
        let start = Instant::now();
        replicas.primary_said(&production, Revision(7), start);
        replicas.changed(&production, start + 10 * MS);
        assert_eq!(replicas.must_know(&production, start + 11 * MS), None);
        // A reply to a request from before the change.
        replicas.primary_said(&production, Revision(7), start + 9 * MS);
        assert_eq!(replicas.must_know(&production, start + 11 * MS), None);
        replicas.primary_said(&production, Revision(8), start + 12 * MS);
        assert_eq!(
            replicas.must_know(&production, start + 13 * MS),
            Some(Revision(8))
        );
    }
}
