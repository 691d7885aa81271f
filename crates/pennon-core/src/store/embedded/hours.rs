//! Counts of evaluations by the hour, in memory. After a restart, counts that the journal has already summed up by day
//! are missing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::counts::Count;
use crate::store::HourCount;

/// The number of hours that are kept: as many as the usage of a flag shows.
const KEPT_HOURS: u64 = 24;

const HOUR: Duration = Duration::from_hours(1);

/// The counts of one hour by environment and flag, and by variant.
type Flags = BTreeMap<(String, String), BTreeMap<String, u64>>;

/// Counts by hour (since 1970).
#[derive(Debug, Default)]
pub(super) struct Hours(BTreeMap<u64, Flags>);

impl Hours {
    /// Adds a count of the hour of `until`.
    pub(super) fn add(&mut self, one: Count<'_>, until: SystemTime) {
        let hour = hour_of(until);
        let place = (one.environment.to_owned(), one.flag.to_owned());
        let variants = self.0.entry(hour).or_default().entry(place).or_default();
        let count = variants.entry(one.variant.to_owned()).or_default();
        *count = count.saturating_add(one.count);
        let newest = self.0.last_key_value().map_or(hour, |(newest, _)| *newest);
        self.0.retain(|hour, _| hour + KEPT_HOURS > newest);
    }

    /// The counts of a flag in the present hour and this many earlier ones, newest first.
    pub(super) fn counts(
        &self,
        environment: &str,
        flag: &str,
        earlier_hours: u32,
    ) -> Vec<HourCount> {
        let first = hour_of(SystemTime::now()).saturating_sub(u64::from(earlier_hours));
        let place = (environment.to_owned(), flag.to_owned());
        let mut counts = Vec::new();
        for (hour, flags) in self.0.range(first..).rev() {
            let variants = flags.get(&place).into_iter().flatten();
            counts.extend(variants.map(|(variant, count)| HourCount {
                hour: SystemTime::UNIX_EPOCH + HOUR * u32::try_from(*hour).unwrap_or(u32::MAX),
                variant: variant.clone(),
                count: *count,
            }));
        }
        counts
    }
}

fn hour_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / HOUR.as_secs())
}
