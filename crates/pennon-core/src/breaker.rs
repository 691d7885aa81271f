//! A circuit breaker: after a failure, callers are spared the next one.
//!
//! Used for Redis reads, Redis writes and database reads, each with one of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause after a failure. Short, so that a blip costs little freshness.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after a probe that failed at once. A longer one would save next to nothing and
/// only delay recovery.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A probe that took its time is paid for by this many times as long a pause, so that an outage in
/// which nothing answers costs a request now and then, not every one.
const PAUSE_PER_PROBE: u32 = 4;
/// But nobody waits longer than this for somebody to find out that the outage is over.
const LONGEST_PAUSE_AFTER_SLOW_PROBE: Duration = Duration::from_secs(2);
/// A probe that has not come back after this long is taken for lost: its request was dropped, or
/// the instance was frozen in the middle of it.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(2);

/// Lets calls through while they succeed; after a failure lets one through per pause.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
        pause: Duration,
    },
    Probing {
        since: Instant,
        pause: Duration,
    },
}

/// What the breaker says to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// All is well: take the time you need.
    Normal,
    /// The last call failed. This one finds out whether the next may go.
    Probe,
    /// Do not call.
    Refused,
}

impl Breaker {
    /// Asks for permission to call. Whoever gets one reports back with [`succeeded`](Self::succeeded)
    /// or [`failed`](Self::failed).
    pub fn permit(&self, now: Instant) -> Permit {
        let mut state = self.lock();
        match *state {
            State::Closed => Permit::Normal,
            State::Open { until, .. } if now < until => Permit::Refused,
            State::Probing { since, .. } if now < since + PROBE_LOST_AFTER => Permit::Refused,
            State::Open { pause, .. } | State::Probing { pause, .. } => {
                *state = State::Probing { since: now, pause };
                Permit::Probe
            }
        }
    }

    /// A call came back well: close. Says whether that ended an outage.
    pub fn succeeded(&self) -> bool {
        let mut state = self.lock();
        let was_open = !matches!(*state, State::Closed);
        *state = State::Closed;
        was_open
    }

    /// A call failed: open, for longer each time it fails again.
    pub fn failed(&self, now: Instant) {
        let mut state = self.lock();
        let pause = match *state {
            State::Closed => FIRST_PAUSE,
            // A call that began before the breaker opened says nothing new.
            State::Open { until, .. } if now < until => return,
            State::Open { pause, .. } => pause,
            State::Probing { since, pause } => {
                let took = now.saturating_duration_since(since);
                let paid = (took * PAUSE_PER_PROBE).min(LONGEST_PAUSE_AFTER_SLOW_PROBE);
                (pause * 2).min(LONGEST_PAUSE).max(paid)
            }
        };
        *state = State::Open {
            until: now + pause,
            pause,
        };
    }

    /// Whether calls are being refused or probed.
    pub fn is_open(&self) -> bool {
        !matches!(*self.lock(), State::Closed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_failure_opens_it_and_one_probe_at_a_time_may_pass() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.permit(start), Permit::Normal);
        breaker.failed(start);
        assert_eq!(breaker.permit(start + 249 * MS), Permit::Refused);
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
        assert_eq!(breaker.permit(start + 251 * MS), Permit::Refused);
        assert!(breaker.succeeded(), "that ended an outage");
        assert_eq!(breaker.permit(start + 252 * MS), Permit::Normal);
        assert!(!breaker.succeeded(), "there was no outage to end");
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        breaker.failed(now);
        for pause in [250, 500, 1_000, 1_000] {
            assert_eq!(breaker.permit(now + (pause - 1) * MS), Permit::Refused);
            now += pause * MS;
            assert_eq!(breaker.permit(now), Permit::Probe);
            breaker.failed(now);
        }
    }

    #[test]
    fn a_slow_probe_earns_a_long_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(start);
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
        breaker.failed(start + 650 * MS);
        assert_eq!(breaker.permit(start + 2_249 * MS), Permit::Refused);
        assert_eq!(breaker.permit(start + 2_250 * MS), Permit::Probe);
        breaker.failed(start + 4_250 * MS);
        assert_eq!(breaker.permit(start + 6_250 * MS), Permit::Probe);
    }

    #[test]
    fn late_failures_of_the_same_outage_do_not_lengthen_the_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..50 {
            breaker.failed(start);
        }
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
    }

    #[test]
    fn a_lost_probe_does_not_close_the_door_for_ever() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(start);
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
        assert_eq!(breaker.permit(start + 2_000 * MS), Permit::Refused);
        assert_eq!(breaker.permit(start + 2_250 * MS), Permit::Probe);
    }
}
