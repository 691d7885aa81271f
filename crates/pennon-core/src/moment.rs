//! A point in time, on both clocks.

use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock of a later moment may be behind that of an earlier one without having been set back: the
/// clocks of a moment are read one after the other, and a thread may wait for the processor in between, for a few
/// periods of 20 ms on a small function.
const READING_GAP: Duration = Duration::from_millis(100);

/// A point in time. Lambda freezes a process between invocations, and the monotonic clock may stop meanwhile; the
/// wall clock may be set. Each covers the failure of the other.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// The present time.
    #[must_use]
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// How long ago this was.
    #[must_use]
    pub fn age(self) -> Duration {
        self.age_at(Self::now())
    }

    /// The time from this moment to a later one: the longer one of the durations by the two clocks. [`Duration::MAX`]
    /// if the wall clock was set back to more than 100 ms before this moment: the age is then unknown. Zero if the
    /// other moment is earlier.
    #[must_use]
    pub fn age_at(self, now: Self) -> Duration {
        let Some(monotonic) = now.monotonic.checked_duration_since(self.monotonic) else {
            return Duration::ZERO;
        };
        match now.wall.duration_since(self.wall) {
            Ok(wall) => wall.max(monotonic),
            Err(behind) if behind.duration() <= READING_GAP => monotonic,
            Err(_) => Duration::MAX,
        }
    }

    /// Whether it is not before another moment of this process.
    #[must_use]
    pub fn is_since(self, other: Self) -> bool {
        self.monotonic >= other.monotonic
    }

    /// The monotonic clock at this moment.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.monotonic
    }

    /// The moment when each clock has advanced by this much, in milliseconds.
    #[cfg(test)]
    pub(crate) fn after(self, monotonic: u64, wall: u64) -> Self {
        Self {
            monotonic: self.monotonic + Duration::from_millis(monotonic),
            wall: self.wall + Duration::from_millis(wall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_advanced_more_decides() {
        let then = Moment::now();
        let later = |monotonic: u64, wall: u64| then.after(monotonic * 1_000, wall * 1_000);
        assert_eq!(then.age_at(later(3, 3)), Duration::from_secs(3));
        // Frozen: the monotonic clock stood still.
        assert_eq!(then.age_at(later(0, 3_600)), Duration::from_hours(1));
        // The wall clock was slowed, or set back and forth.
        assert_eq!(then.age_at(later(60, 1)), Duration::from_mins(1));
        let set_back = Moment {
            wall: then.wall - Duration::from_secs(1),
            ..later(5, 0)
        };
        assert_eq!(then.age_at(set_back), Duration::MAX);
        // Another thread made `now` before `self`, or between the two clock readings of `self`.
        assert_eq!(later(1, 1).age_at(then), Duration::ZERO);
        assert_eq!(
            then.after(0, 2).age_at(then.after(1, 1)),
            Duration::from_millis(1)
        );
    }
}
