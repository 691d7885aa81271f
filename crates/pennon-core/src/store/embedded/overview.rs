//! All flags of an environment with the other data that lists show.

use std::collections::BTreeMap;

use pennon_eval::FlagKey;

use super::EmbeddedStore;
use super::state::StoredRamp;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{FlagOverview, FlagOverviews, ScheduleRecord, ScheduleStatus};

impl EmbeddedStore {
    pub(in crate::store) fn flag_overviews(
        &self,
        environment: &Environment,
    ) -> Result<FlagOverviews, Error> {
        let revision = self
            .environments()?
            .into_iter()
            .find(|(name, _)| name == environment)
            .map(|(_, revision)| revision);
        let usage = self.usage(environment)?;
        let inner = self.lock_current()?;
        let name = environment.as_str();
        let state = inner.data.state.of(name);
        let mut schedules: BTreeMap<&FlagKey, &ScheduleRecord> = BTreeMap::new();
        for schedule in state.into_iter().flat_map(|state| state.schedules.values()) {
            if schedule.is_open() && schedule.status != ScheduleStatus::Unreadable {
                let next = schedules.entry(&schedule.flag_key).or_insert(schedule);
                if schedule.order() < next.order() {
                    *next = schedule;
                }
            }
        }
        let flags = inner.data.flags(name).into_iter().map(|(key, record)| {
            let ramps = state.and_then(|state| state.ramps.get(&key));
            let mut readable = ramps.into_iter().flatten().filter_map(StoredRamp::readable);
            let schedule = schedules.get(&key);
            FlagOverview {
                overrides: inner.data.override_count(name, &key),
                last_evaluated_at: usage.get(&key).and_then(|usage| usage.last_evaluated_at),
                recent_evaluations: {
                    let recent = inner.history.hours.counts(name, key.as_str(), 1);
                    let counts = recent.iter().map(|one| one.count);
                    counts.fold(0, u64::saturating_add)
                },
                ramp: readable.find(|ramp| ramp.is_open()).cloned(),
                next_schedule: schedule.map(|it| (it.scheduled_at, it.updates.clone())),
                key,
                record,
            }
        });
        Ok(FlagOverviews {
            revision,
            flags: flags.collect(),
        })
    }
}
