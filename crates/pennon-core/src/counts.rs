//! Counts evaluations by flag and variant, without a database write in the request.
//!
//! An instance counts in memory and adds the counts to the log line that each request writes anyway.
//! CloudWatch Logs delivers those lines to the function `count-evaluations`, which adds them to the database
//! in batches. A few entries are written with the line of their own request. Many entries, as from
//! evaluations of all flags, are written every ten seconds, so that counting takes a bounded share of the
//! log; what does not fit into the line of the request follows in lines of its own. If Lambda stops an instance
//! without notice, the counts that it has not written yet are lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::moment::Moment;
use crate::snapshot::fragments::{Choice, Fragments};

/// Up to this many entries are added to every line: about 30 bytes each, to a line of six hundred.
const ENTRIES_PER_LINE: usize = 2;
/// More entries are written only if the last line with counts is at least this old.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Limit on the bytes of keys and variants in one line. With usual names, the line stays below 128 KiB. CloudWatch
/// accepts events of 1 MB, which leaves room for the JSON of very short names and for escapes.
const MAX_BYTES: usize = 50_000;
/// Limit on the entries that an instance keeps, besides those that it is reporting: twenty thousand flags with five
/// variants each. Further variants are not counted.
const MAX_ENTRIES: usize = 100_000;

/// The longest name of a new variant, in characters. The database does not count variants with longer names: its index
/// contains the name beside the key of the flag.
pub const MAX_VARIANT_LENGTH: usize = 255;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Counts by flag and variant.
type ByFlag = BTreeMap<String, BTreeMap<String, u64>>;

/// Counts by day and environment.
type ByDay = BTreeMap<(String, Environment), ByFlag>;

/// Evaluations by environment, day (UTC), flag and variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, BTreeMap<String, ByFlag>>);

/// Counts that a program which evaluates flags itself has posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedCounts {
    /// The id of the batch, under which it is added once.
    pub batch: String,
    /// The counts.
    pub counts: Counts,
}

/// One of [`Counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<'a> {
    /// The environment.
    pub environment: &'a str,
    /// `YYYY-MM-DD`.
    pub day: &'a str,
    /// The flag's key.
    pub flag: &'a str,
    /// The variant; empty for the application's own default.
    pub variant: &'a str,
    /// The number of evaluations.
    pub count: u64,
}

impl Counts {
    /// Adds to one count.
    pub fn add(&mut self, environment: &str, day: &str, flag: &str, variant: &str, count: u64) {
        let entry = self
            .0
            .entry(environment.to_owned())
            .or_default()
            .entry(day.to_owned())
            .or_default()
            .entry(flag.to_owned())
            .or_default()
            .entry(variant.to_owned())
            .or_default();
        *entry = entry.saturating_add(count);
    }

    /// Iterates over all counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = Count<'_>> {
        self.0.iter().flat_map(|(environment, days)| {
            days.iter().flat_map(move |(day, flags)| {
                flags.iter().flat_map(move |(flag, variants)| {
                    variants.iter().map(move |(variant, count)| Count {
                        environment,
                        day,
                        flag,
                        variant,
                        count: *count,
                    })
                })
            })
        })
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter()
            .fold(0, |sum, entry| sum.saturating_add(entry.count))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The evaluations of an instance that no log line has reported yet.
#[derive(Debug, Default)]
pub struct Tally {
    inner: Mutex<Inner>,
}

/// Counts of the choices in responses with all flags, by the number of the [`Choice`]: finding the names of flag and
/// variant would take longer than evaluating the flag.
#[derive(Debug)]
struct ByChoice {
    day: u64,
    environment: Environment,
    fragments: Arc<Fragments>,
    counts: Vec<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Choices that are not in `by_day` yet.
    by_choice: Option<ByChoice>,
    /// By day and environment.
    by_day: ByDay,
    entries: usize,
    /// Counts that are being written to lines. Entries that are added meanwhile wait for the next interval: otherwise
    /// a report that other requests add to might never end.
    reporting: ByDay,
    /// When counts were last moved to `reporting`.
    reported: Option<Moment>,
}

impl Tally {
    /// Counts evaluations: pairs of a flag and the variant that a caller got.
    pub fn add<'a>(
        &self,
        environment: &Environment,
        served: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        self.add_on(&day(SystemTime::now()), environment, served);
    }

    fn add_on<'a>(
        &self,
        day: &str,
        environment: &Environment,
        served: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let mut served = served.into_iter().peekable();
        // Unknown environments have no flags. Without this check, made-up names would fill the memory.
        if served.peek().is_none() {
            return;
        }
        let mut inner = self.lock();
        let Inner {
            by_day: known,
            entries,
            ..
        } = &mut *inner;
        let key = (day.to_owned(), environment.clone());
        let flags = known.entry(key).or_default();
        for (flag, variant) in served {
            add(flags, entries, (flag, variant), 1);
        }
    }

    /// Counts the choices of a response with all flags.
    pub(crate) fn add_choices(
        &self,
        environment: &Environment,
        fragments: &Arc<Fragments>,
        served: &[Choice],
    ) {
        let day = SystemTime::now().duration_since(UNIX_EPOCH);
        let day = day.map_or(0, |since| since.as_secs() / SECONDS_PER_DAY);
        self.add_choices_on(day, environment, fragments, served);
    }

    fn add_choices_on(
        &self,
        day: u64,
        environment: &Environment,
        fragments: &Arc<Fragments>,
        served: &[Choice],
    ) {
        if served.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let is_current = |known: &ByChoice| {
            known.day == day
                && Arc::ptr_eq(&known.fragments, fragments)
                && known.environment == *environment
        };
        if !inner.by_choice.as_ref().is_some_and(is_current) {
            inner.name_choices();
            inner.by_choice = Some(ByChoice {
                day,
                environment: environment.clone(),
                fragments: Arc::clone(fragments),
                counts: vec![0; fragments.choice_count()],
            });
        }
        let Inner {
            by_choice: Some(known),
            entries,
            ..
        } = &mut *inner
        else {
            return;
        };
        for choice in served {
            match &mut known.counts[choice.number()] {
                0 if *entries >= MAX_ENTRIES => {}
                count => {
                    *entries += usize::from(*count == 0);
                    *count += 1;
                }
            }
        }
    }

    /// Takes the counts that the log line of the current request should report, if any are due. The caller then reports
    /// [`Self::remaining`] too.
    #[must_use]
    pub fn due(&self, now: Moment) -> Option<Counts> {
        let mut inner = self.lock();
        if inner.reporting.is_empty() {
            if inner.entries == 0 {
                return None;
            }
            let waited = inner
                .reported
                .is_none_or(|at| at.age_at(now) >= LINE_INTERVAL);
            if inner.entries > ENTRIES_PER_LINE && !waited {
                return None;
            }
            inner.start_report();
            inner.reported = Some(now);
        }
        Some(take(&mut inner.reporting, Some(MAX_BYTES)))
    }

    /// Takes counts that were due but did not fit into the lines so far. They do not wait for the line of the next
    /// request, which may arrive hours later or never.
    #[must_use]
    pub fn remaining(&self) -> Option<Counts> {
        let mut inner = self.lock();
        (!inner.reporting.is_empty()).then(|| take(&mut inner.reporting, Some(MAX_BYTES)))
    }

    /// Takes as many of the counts so far as fit into one line, all of one day, and says whether more of them remain.
    /// A receiver of counts of several days may reject all of them because of the oldest day.
    #[must_use]
    pub fn take_part(&self) -> (Counts, bool) {
        let mut inner = self.lock();
        if inner.reporting.is_empty() {
            inner.start_report();
        }
        let counts = take(&mut inner.reporting, Some(MAX_BYTES));
        (counts, !inner.reporting.is_empty())
    }

    /// Takes all counts, for a caller without a size limit.
    #[must_use]
    pub fn take(&self) -> Counts {
        let mut inner = self.lock();
        inner.name_choices();
        inner.entries = 0;
        let mut counts = take(&mut inner.reporting, None);
        for entry in take(&mut inner.by_day, None).iter() {
            counts.add(
                entry.environment,
                entry.day,
                entry.flag,
                entry.variant,
                entry.count,
            );
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to the count of a flag and a variant. Copies names only if they are new.
fn add(flags: &mut ByFlag, entries: &mut usize, (flag, variant): (&str, &str), more: u64) {
    match flags
        .get_mut(flag)
        .and_then(|variants| variants.get_mut(variant))
    {
        Some(count) => *count = count.saturating_add(more),
        None if *entries < MAX_ENTRIES => {
            let variants = flags.entry(flag.to_owned()).or_default();
            variants.insert(variant.to_owned(), more);
            *entries += 1;
        }
        None => {}
    }
}

impl Inner {
    /// Moves all counts to `reporting`, which must be empty.
    fn start_report(&mut self) {
        self.name_choices();
        self.reporting = std::mem::take(&mut self.by_day);
        self.entries = 0;
    }

    /// Moves the counts of `by_choice` to `by_day`.
    fn name_choices(&mut self) {
        let Some(known) = self.by_choice.take() else {
            return;
        };
        let day = day(UNIX_EPOCH + Duration::from_secs(known.day * SECONDS_PER_DAY));
        let flags = self.by_day.entry((day, known.environment)).or_default();
        for (number, count) in known.counts.into_iter().enumerate() {
            if count > 0 {
                self.entries -= 1;
                let (flag, variant) = known.fragments.names(Choice::from_number(number));
                add(flags, &mut self.entries, (&flag, &variant), count);
            }
        }
    }
}

/// Removes and returns counts: those of the first day until their names reach this many bytes, or all.
fn take(by_day: &mut ByDay, most_bytes: Option<usize>) -> Counts {
    let mut counts = Counts::default();
    let mut bytes = 0;
    let first_day = by_day.keys().next().map(|(day, _)| day.clone());
    while let Some(mut entry) = by_day.first_entry() {
        let (day, environment) = entry.key().clone();
        if most_bytes.is_some() && first_day.as_ref() != Some(&day) {
            break;
        }
        while let Some((flag, variants)) = entry.get_mut().pop_first() {
            for (variant, count) in variants {
                bytes += flag.len() + variant.len();
                counts.add(environment.as_str(), &day, &flag, &variant, count);
            }
            if most_bytes.is_some_and(|most| bytes >= most) {
                if entry.get().is_empty() {
                    entry.remove();
                }
                return counts;
            }
        }
        entry.remove();
    }
    counts
}

/// The day of a time, in UTC: `YYYY-MM-DD`.
#[must_use]
pub fn day(time: SystemTime) -> String {
    let date = time::OffsetDateTime::from(time).date();
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;

    fn production() -> Environment {
        Environment::production()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("flag-{number}")).collect()
    }

    fn on(names: &[String]) -> impl Iterator<Item = (&str, &str)> {
        names.iter().map(|name| (name.as_str(), "on"))
    }

    #[test]
    fn few_entries_are_reported_with_every_line() {
        let tally = Tally::default();
        let now = Moment::now();
        assert_eq!(tally.due(now), None);
        for _ in 0..3 {
            tally.add_on(
                "2026-11-21",
                &production(),
                [("a", "on"), ("a", "on"), ("b", "")],
            );
            let counts = tally.due(now).expect("due");
            assert_eq!(
                serde_json::to_string(&counts).expect("JSON"),
                r#"{"production":{"2026-11-21":{"a":{"on":2},"b":{"":1}}}}"#
            );
            assert_eq!(counts.total(), 3);
            assert_eq!(tally.due(now), None);
        }
    }

    #[test]
    fn many_entries_wait_ten_seconds_and_lose_nothing() {
        let tally = Tally::default();
        let now = Moment::now();
        let names = names(100);
        tally.add_on("2026-11-21", &production(), on(&names));
        assert_eq!(tally.due(now).map(|counts| counts.total()), Some(100));
        tally.add_on("2026-11-21", &production(), on(&names));
        tally.add_on("2026-11-21", &production(), on(&names));
        assert_eq!(tally.due(now.after(9_000, 9_000)), None);
        let later = now.after(10_000, 10_000);
        assert_eq!(tally.due(later).map(|counts| counts.total()), Some(200));
    }

    #[test]
    fn a_freeze_that_stops_the_monotonic_clock_counts_towards_the_ten_seconds() {
        let tally = Tally::default();
        let now = Moment::now();
        let names = names(100);
        for at in [now, now.after(20, 60_000)] {
            tally.add_on("2026-11-21", &production(), on(&names));
            assert_eq!(tally.due(at).map(|counts| counts.total()), Some(100));
        }
    }

    #[test]
    fn each_part_has_the_counts_of_one_day() {
        let tally = Tally::default();
        for day in ["2026-11-21", "2026-11-22"] {
            tally.add_on(day, &production(), [("a", "on")]);
        }
        for (day, more) in [("2026-11-21", true), ("2026-11-22", false)] {
            let (counts, remain) = tally.take_part();
            let days: Vec<&str> = counts.iter().map(|entry| entry.day).collect();
            assert_eq!((days, remain), (vec![day], more));
        }
        assert!(tally.take().is_empty());
    }

    #[test]
    fn a_line_is_bounded_and_further_ones_report_the_rest() {
        let tally = Tally::default();
        let now = Moment::now();
        let names = names(20_000);
        tally.add_on("2026-11-21", &production(), on(&names));
        let first = tally.due(now);
        // Not in this report, which would otherwise never end while others evaluate flags.
        tally.add_on("2026-11-21", &production(), on(&names[..3]));
        let mut reported = 0;
        let mut lines = 0;
        for counts in first
            .into_iter()
            .chain(std::iter::from_fn(|| tally.remaining()))
        {
            let length = serde_json::to_string(&counts).expect("JSON").len();
            assert!(length < 128 * 1024, "{length}");
            reported += counts.total();
            lines += 1;
        }
        assert_eq!(reported, 20_000);
        assert!((5..10).contains(&lines), "{lines}");
        assert_eq!(tally.due(now), None, "reported before ten seconds");
        let later = tally.due(now.after(10_000, 10_000));
        assert_eq!(later.map(|counts| counts.total()), Some(3));
    }

    #[test]
    fn parts_contain_what_was_counted_before_the_first_one() {
        let tally = Tally::default();
        let names = names(10_000);
        tally.add_on("2026-11-21", &production(), on(&names));
        let (mut evaluations, mut parts, mut more) = (0, 0, true);
        while more {
            let (counts, remain) = tally.take_part();
            more = remain;
            evaluations += counts.total();
            parts += 1;
            // Not in this report, which would otherwise never end.
            tally.add_on("2026-11-21", &production(), on(&names[..1]));
        }
        assert_eq!(evaluations, 10_000);
        assert!((2..5).contains(&parts), "{parts}");
        let (counts, more) = tally.take_part();
        assert_eq!((counts.total(), more), (parts, false));
        assert!(tally.take_part().0.is_empty());
    }

    #[test]
    fn evaluations_are_counted_on_their_own_day() {
        let tally = Tally::default();
        tally.add_on("2026-11-21", &production(), [("a", "on")]);
        tally.add_on("2026-11-22", &production(), [("a", "on")]);
        let counts = tally.take();
        let days: Vec<&str> = counts.iter().map(|entry| entry.day).collect();
        assert_eq!(days, ["2026-11-21", "2026-11-22"]);
        assert!(tally.take().is_empty());
    }

    #[test]
    fn choices_are_counted_on_their_own_day_and_with_the_names_of_their_own_snapshot() {
        let snapshot = |flag: &str| {
            let key = pennon_eval::FlagKey::parse(flag).expect("a key");
            Snapshot {
                flags: [(key, Arc::default())].into(),
                ..Snapshot::empty()
            }
        };
        let (first, second) = (snapshot("first"), snapshot("second"));
        let tally = Tally::default();
        let add = |day, snapshot: &Snapshot, variant| {
            let fragments = snapshot.items();
            let choice = fragments.choice(0, Some(variant));
            tally.add_choices_on(day, &production(), fragments, &[choice]);
        };
        add(0, &first, 0);
        add(0, &first, 0);
        add(0, &second, 0);
        add(1, &second, 1);
        tally.add_on("1970-01-02", &production(), [("second", "on")]);
        for day in [
            r#"{"production":{"1970-01-01":{"first":{"off":2},"second":{"off":1}}}}"#,
            r#"{"production":{"1970-01-02":{"second":{"on":2}}}}"#,
        ] {
            let counts = tally.due(Moment::now()).expect("due");
            assert_eq!(serde_json::to_string(&counts).expect("JSON"), day);
        }
        assert_eq!(tally.due(Moment::now().after(10_000, 10_000)), None);
        assert!(tally.take().is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let tally = Tally::default();
        let names = names(MAX_ENTRIES + 10);
        tally.add_on("2026-11-21", &production(), on(&names));
        assert_eq!(tally.take().total(), MAX_ENTRIES as u64);
    }

    #[test]
    fn a_day_is_utc() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_208_000_070);
        assert_eq!(day(noon), "2024-02-29");
    }
}
