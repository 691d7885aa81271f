//! A point in time, on both clocks.

use std::time::{Duration, Instant, SystemTime};

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

    /// How long ago this was: the longer one of the durations by the two clocks. [`Duration::MAX`] if the wall clock
    /// was set back to before this moment: the age is then unknown.
    #[must_use]
    pub fn age(self) -> Duration {
        self.age_at(Self::now())
    }

    /// Whether it is not before another moment of this process.
    #[must_use]
    pub fn is_since(self, other: Self) -> bool {
        self.monotonic >= other.monotonic
    }

    fn age_at(self, now: Self) -> Duration {
        let monotonic = now.monotonic.saturating_duration_since(self.monotonic);
        match now.wall.duration_since(self.wall) {
            Ok(wall) => wall.max(monotonic),
            Err(_) => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_advanced_more_decides() {
        let then = Moment::now();
        let later = |monotonic: u64, wall: u64| Moment {
            monotonic: then.monotonic + Duration::from_secs(monotonic),
            wall: then.wall + Duration::from_secs(wall),
        };
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
    }
}
