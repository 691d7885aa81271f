//! Throttling as by API Gateway, so that the retries of a client can be tested locally.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket: a request takes a token, and `rate` tokens are added per second.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl Throttle {
    /// A full bucket for `rate` requests per second. The burst is the number of tokens of one second, at least one.
    pub(crate) fn new(rate: f64) -> Self {
        let burst = rate.max(1.0);
        Self {
            rate,
            burst,
            state: Mutex::new((burst, Instant::now())),
        }
    }

    /// Takes a token. Without one, returns a number of whole seconds after which there is one.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *state;
        let added = now.saturating_duration_since(since).as_secs_f64() * self.rate;
        let tokens = (tokens + added).min(self.burst);
        if tokens >= 1.0 {
            *state = (tokens - 1.0, now);
            return Ok(());
        }
        *state = (tokens, now);
        let wait = Duration::try_from_secs_f64((1.0 - tokens) / self.rate);
        Err(wait.map_or(1, |wait| wait.as_secs() + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_and_other_requests_get_the_seconds_to_wait() {
        let throttle = Throttle::new(0.5);
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Ok(()));
        let Err(wait) = throttle.admit(start) else {
            panic!("an empty bucket admitted a request");
        };
        assert!((2..=3).contains(&wait), "{wait}");
        assert!(throttle.admit(start + Duration::from_secs(1)).is_err());
        assert_eq!(throttle.admit(start + Duration::from_secs(wait)), Ok(()));
    }
}
