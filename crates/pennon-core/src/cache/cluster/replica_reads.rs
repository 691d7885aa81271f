//! Decides when a replica may answer instead of its primary.
//!
//! A replica can lag by any amount of time, and its reply does not show by how much. It is asked only while the
//! last reply of the primary is younger than [`MAX_AGE`], and its reply is used only if it has the revision of that
//! reply or a newer one. So a confirmed change is visible after at most [`MAX_AGE`], whatever the lag: then the
//! primary is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::environment::Environment;
use crate::moment::Moment;
use crate::snapshot::Revision;

/// How long a reply of the primary is used, and so the most staleness that replicas can add. Half a second is the
/// lag that raises an alarm; under load, one in hundreds of reads is sent to the primary.
const MAX_AGE: Duration = Duration::from_millis(500);

/// Decides about reads from replicas, by the last reply of the primary for each environment.
#[derive(Default)]
pub(in crate::cache) struct ReplicaReads {
    primaries: Mutex<HashMap<Environment, PrimaryState>>,
}

#[derive(Default, Clone, Copy)]
struct PrimaryState {
    /// The revision on the primary, and when the primary was asked.
    revision: Option<(Revision, Moment)>,
    /// When this instance last changed something. Replies to earlier requests are ignored.
    changed: Option<Moment>,
}

impl ReplicaReads {
    /// The least revision that a replica must have. `None` if only the primary may answer.
    pub(in crate::cache) fn least_revision(
        &self,
        environment: &Environment,
        now: Moment,
    ) -> Option<Revision> {
        let (revision, asked) = self.lock().get(environment)?.revision?;
        (asked.age_at(now) < MAX_AGE).then_some(revision)
    }

    /// Records the revision on the primary, which was asked at this time.
    pub(in crate::cache) fn record_primary(
        &self,
        environment: &Environment,
        revision: Revision,
        asked: Moment,
    ) {
        let mut known = self.lock();
        let known = match known.get_mut(environment) {
            Some(known) => known,
            None => known.entry(environment.clone()).or_default(),
        };
        if known.changed.is_none_or(|changed| !changed.is_since(asked)) {
            known.revision = Some((revision, asked));
        }
    }

    /// Records that the primary has no usable entry.
    pub(in crate::cache) fn forget_primary(&self, environment: &Environment) {
        if let Some(known) = self.lock().get_mut(environment) {
            known.revision = None;
        }
    }

    /// Records a change by this instance, which must read its own change.
    pub(in crate::cache) fn record_change(&self, environment: &Environment, now: Moment) {
        let state = PrimaryState {
            revision: None,
            changed: Some(now),
        };
        self.lock().insert(environment.clone(), state);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Environment, PrimaryState>> {
        self.primaries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_asked_only_shortly_after_its_primary() {
        let reads = ReplicaReads::default();
        let production = Environment::production();
        let start = Moment::now();
        assert_eq!(reads.least_revision(&production, start), None);
        reads.record_primary(&production, Revision(7), start);
        let after = |ms| start.after(ms, ms);
        let least_revision = |ms| reads.least_revision(&production, after(ms));
        assert_eq!(least_revision(499), Some(Revision(7)));
        assert_eq!(least_revision(500), None);
        // Frozen for ten seconds, in which the monotonic clock stood still.
        let thawed = start.after(1, 10_001);
        assert_eq!(reads.least_revision(&production, thawed), None);
        reads.forget_primary(&production);
        assert_eq!(least_revision(1), None);
    }

    #[test]
    fn replies_to_requests_before_an_own_change_are_ignored() {
        let reads = ReplicaReads::default();
        let production = Environment::production();
        let start = Moment::now();
        let after = |ms| start.after(ms, ms);
        reads.record_primary(&production, Revision(7), start);
        reads.record_change(&production, after(10));
        assert_eq!(reads.least_revision(&production, after(11)), None);
        // A late reply to a request that was sent before the change.
        reads.record_primary(&production, Revision(7), after(9));
        assert_eq!(reads.least_revision(&production, after(11)), None);
        reads.record_primary(&production, Revision(8), after(12));
        assert_eq!(
            reads.least_revision(&production, after(13)),
            Some(Revision(8))
        );
    }
}
