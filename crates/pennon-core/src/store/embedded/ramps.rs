//! Ramps.

use std::time::SystemTime;

use pennon_eval::FlagKey;

use super::EmbeddedStore;
use super::state::StoredRamp;
use crate::environment::Environment;
use crate::error::Error;
use crate::ramp::{FlagRamp, Ramp};

impl EmbeddedStore {
    pub(in crate::store) fn watched_ramps(&self, limit: u32) -> Result<Vec<FlagRamp>, Error> {
        let mut all = self.ramps_where(|ramp| ramp.state.is_watched())?;
        all.sort_by_key(|watched| watched.ramp.checked_at);
        all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(all)
    }

    pub(in crate::store) fn open_ramps_guarded_by(
        &self,
        alarms: &[&str],
    ) -> Result<Vec<FlagRamp>, Error> {
        self.ramps_where(|ramp| {
            let mut guards = ramp.plan.guards.iter();
            ramp.is_open() && guards.any(|guard| alarms.contains(&guard.name()))
        })
    }

    fn ramps_where(&self, is_wanted: impl Fn(&Ramp) -> bool) -> Result<Vec<FlagRamp>, Error> {
        let inner = self.lock_current()?;
        let mut all: Vec<FlagRamp> = Vec::new();
        for (name, state) in inner.data.state.iter() {
            let Ok(environment) = Environment::parse(name) else {
                continue;
            };
            for (key, ramps) in &state.ramps {
                let readable = ramps.iter().filter_map(StoredRamp::readable);
                let wanted = readable.filter(|ramp| is_wanted(ramp));
                all.extend(wanted.map(|ramp| FlagRamp {
                    environment: environment.clone(),
                    key: key.clone(),
                    ramp: ramp.clone(),
                }));
            }
        }
        Ok(all)
    }

    pub(in crate::store) fn list_ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
        limit: u32,
    ) -> Result<Vec<Option<Ramp>>, Error> {
        let inner = self.lock_current()?;
        let state = inner.data.state.of(environment.as_str());
        let ramps = state.and_then(|state| state.ramps.get(key));
        let newest_first = ramps.into_iter().flatten().rev();
        let readable = newest_first.map(|ramp| ramp.readable().cloned());
        Ok(readable
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect())
    }

    /// The number of all evaluations, whatever the time, because the file counts by day. Callers use only the
    /// difference of two results.
    pub(in crate::store) fn evaluation_counter(
        &self,
        environment: &Environment,
        key: &FlagKey,
        _time: SystemTime,
    ) -> Result<u64, Error> {
        let usage = self.usage(environment)?;
        Ok(usage.get(key).map_or(0, |usage| usage.evaluations))
    }

    pub(in crate::store) fn last_change(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<(String, String)>, Error> {
        let inner = self.lock_current()?;
        let mut newest_first = inner.history.audit.iter().rev();
        let found = newest_first.find(|entry| {
            entry.environment == environment.as_str()
                && entry.flag_key.as_deref() == Some(key.as_str())
                && ["flag.", "ramp."]
                    .iter()
                    .any(|kind| entry.action.starts_with(kind))
                && entry.before != entry.after
        });
        Ok(found.map(|entry| (entry.actor.clone(), entry.action.clone())))
    }
}
