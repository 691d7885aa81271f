//! Counts of evaluations by flag and variant.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::FlagKey;

use super::EmbeddedStore;
use super::state::Record;
use crate::counts::{Counts, day};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{CountedBatch, DayCount, HourCount, Usage};

/// The number of ids of batches that are remembered: a program repeats a batch within minutes.
const MAX_COUNTED: usize = 1_000;

impl EmbeddedStore {
    /// Adds the counts of a batch that ends at `until`. The ids of batches are forgotten when the process ends.
    pub(in crate::store) fn count(
        &self,
        batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        // Also while `flags.json` is invalid, because these counts are stored nowhere else yet.
        let mut inner = self.lock_last_valid();
        let is_new = inner.counted.iter().all(|known| known != batch);
        if is_new {
            let record = Record::Counts {
                counts: counts.clone(),
                until,
            };
            inner.append_unsynced(record)?;
            inner.counted.push_back(batch.to_owned());
            if inner.counted.len() > MAX_COUNTED {
                inner.counted.pop_front();
            }
        }
        Ok(CountedBatch { is_new, lost: 0 })
    }

    pub(in crate::store) fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        let inner = self.lock_current()?;
        let before = Duration::from_secs(u64::from(days.saturating_sub(1)) * 24 * 60 * 60);
        let first = SystemTime::now().checked_sub(before).map(day);
        let of_flag = inner.history.counts.iter().filter(|one| {
            one.environment == environment.as_str()
                && one.flag == key.as_str()
                && first.as_deref().is_none_or(|first| one.day >= first)
        });
        let mut counts: Vec<DayCount> = of_flag
            .map(|one| DayCount {
                day: one.day.to_owned(),
                variant: one.variant.to_owned(),
                count: one.count,
            })
            .collect();
        counts.sort_by(|one, other| other.day.cmp(&one.day));
        Ok(counts)
    }

    pub(in crate::store) fn hour_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        earlier_hours: u32,
    ) -> Result<Vec<HourCount>, Error> {
        let inner = self.lock_current()?;
        let hours = &inner.history.hours;
        Ok(hours.counts(environment.as_str(), key.as_str(), earlier_hours))
    }

    pub(in crate::store) fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        let inner = self.lock_current()?;
        let mut flags: BTreeMap<FlagKey, Usage> = BTreeMap::new();
        for one in inner.history.counts.iter() {
            let Ok(key) = FlagKey::parse(one.flag) else {
                continue;
            };
            if one.environment == environment.as_str() {
                let place = (one.environment.to_owned(), one.flag.to_owned());
                let usage = flags.entry(key).or_default();
                usage.evaluations = usage.evaluations.saturating_add(one.count);
                usage.last_evaluated_at = inner.history.last_evaluated.get(&place).copied();
            }
        }
        Ok(flags)
    }
}
