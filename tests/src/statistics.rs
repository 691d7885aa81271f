//! Statistics for benchmarks.

use std::time::Duration;

/// A collection of durations. Without any, its statistics are NaN, which is within no limit.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds a duration.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds durations.
    pub fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.0.extend(times);
    }

    /// The number of durations.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A percentile in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().map_or(f64::NAN, milliseconds)
    }

    /// The mean in milliseconds.
    pub fn mean(&self) -> f64 {
        let count = u32::try_from(self.0.len()).expect("not that many");
        milliseconds(self.0.iter().sum()) / f64::from(count)
    }

    /// The maximum in milliseconds.
    pub fn longest(&self) -> f64 {
        self.0.iter().max().copied().map_or(f64::NAN, milliseconds)
    }
}

/// A duration in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
