//! How often which variant was given, for as long as the process runs. A laptop needs no longer memory,
//! and a file that is written with every evaluation would be of little use to whoever edits it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::FlagKey;

use super::EmbeddedStore;
use crate::counts::Counts;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{DayCount, Usage};

/// What was counted since the process started.
#[derive(Debug, Default)]
pub(super) struct Counted {
    counts: Counts,
    /// By environment and flag.
    last: BTreeMap<(String, String), SystemTime>,
}

impl EmbeddedStore {
    /// Nobody hands over a batch twice here.
    pub(in crate::store) fn count(
        &self,
        _batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<bool, Error> {
        let counted = &mut self.current()?.counted;
        for one in counts.iter() {
            let counts = &mut counted.counts;
            counts.add(one.environment, one.day, one.flag, one.variant, one.count);
            let place = (one.environment.to_owned(), one.flag.to_owned());
            counted.last.insert(place, until);
        }
        Ok(true)
    }

    pub(in crate::store) fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        _days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        let inner = self.current()?;
        let of_flag = inner
            .counted
            .counts
            .iter()
            .filter(|one| one.environment == environment.as_str() && one.flag == key.as_str());
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

    pub(in crate::store) fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        let inner = self.current()?;
        let mut flags: BTreeMap<FlagKey, Usage> = BTreeMap::new();
        for one in inner.counted.counts.iter() {
            let Ok(key) = FlagKey::parse(one.flag) else {
                continue;
            };
            if one.environment == environment.as_str() {
                let place = (one.environment.to_owned(), one.flag.to_owned());
                let usage = flags.entry(key).or_default();
                usage.evaluations = usage.evaluations.saturating_add(one.count);
                usage.last_evaluated_at = inner.counted.last.get(&place).copied();
            }
        }
        Ok(flags)
    }
}
