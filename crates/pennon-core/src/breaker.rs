//! A circuit breaker: after a failure it rejects calls for a while, so that requests do not wait for a server that
//! is down.
//!
//! Redis reads, Redis writes, database reads and calls of EventBridge have separate breakers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause after a failure. Short, because after a brief failure the server is back soon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause after a probe that failed at once. A longer one would save little and delay recovery.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// After a slow probe the pause is this many times as long as the probe, so that few requests wait for a server
/// that does not answer.
const PAUSE_PER_PROBE: u32 = 4;
/// The longest pause after a slow probe. It limits how long the end of an outage stays unnoticed.
const MAX_PAUSE_AFTER_SLOW_PROBE: Duration = Duration::from_secs(2);
/// After this time without a result a probe counts as lost, and the next call probes: the request of the probe was
/// dropped, or the instance was frozen during it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Permits all calls while they succeed; after a failure, one call per pause.
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

/// The breaker's decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// The breaker is closed.
    Normal,
    /// The breaker is open, and the pause is over: this call tests whether the server answers.
    Probe,
    /// Do not call.
    Refused,
}

impl Breaker {
    /// Requests permission for a call. A permitted caller must report the result with
    /// [`succeeded`](Self::succeeded) or [`failed`](Self::failed).
    pub fn permit(&self, now: Instant) -> Permit {
        let mut state = self.lock();
        match *state {
            State::Closed => Permit::Normal,
            State::Open { until, .. } if now < until => Permit::Refused,
            State::Probing { since, .. } if now < since + PROBE_TIMEOUT => Permit::Refused,
            State::Open { pause, .. } | State::Probing { pause, .. } => {
                *state = State::Probing { since: now, pause };
                Permit::Probe
            }
        }
    }

    /// Records a successful call and closes the breaker. Returns whether it was open.
    pub fn succeeded(&self) -> bool {
        let mut state = self.lock();
        let was_open = !matches!(*state, State::Closed);
        *state = State::Closed;
        was_open
    }

    /// Records a failed call and opens the breaker, for longer after each failed probe.
    pub fn failed(&self, now: Instant) {
        let mut state = self.lock();
        let pause = match *state {
            State::Closed => FIRST_PAUSE,
            // The call began before the breaker opened, so it belongs to the same outage.
            State::Open { until, .. } if now < until => return,
            State::Open { pause, .. } => pause,
            State::Probing { since, pause } => {
                let took = now.saturating_duration_since(since);
                let after_slow_probe = (took * PAUSE_PER_PROBE).min(MAX_PAUSE_AFTER_SLOW_PROBE);
                (pause * 2).min(MAX_PAUSE).max(after_slow_probe)
            }
        };
        *state = State::Open {
            until: now + pause,
            pause,
        };
    }

    /// Whether the breaker is open, which includes a probe.
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
    fn a_failure_opens_the_breaker_and_permits_one_probe_at_a_time() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.permit(start), Permit::Normal);
        breaker.failed(start);
        assert_eq!(breaker.permit(start + 249 * MS), Permit::Refused);
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
        assert_eq!(breaker.permit(start + 251 * MS), Permit::Refused);
        assert!(breaker.succeeded(), "a success did not end the outage");
        assert_eq!(breaker.permit(start + 252 * MS), Permit::Normal);
        assert!(!breaker.succeeded(), "the outage ended twice");
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
    fn a_slow_probe_is_followed_by_a_long_pause() {
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
    fn after_a_lost_probe_the_next_call_probes() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(start);
        assert_eq!(breaker.permit(start + 250 * MS), Permit::Probe);
        assert_eq!(breaker.permit(start + 2_000 * MS), Permit::Refused);
        assert_eq!(breaker.permit(start + 2_250 * MS), Permit::Probe);
    }
}
