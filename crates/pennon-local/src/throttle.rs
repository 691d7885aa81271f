//! Plays the throttling of API Gateway, so that a client's patience can be tried on a laptop.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket of tokens: a request takes one, and so many come back per second.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl Throttle {
    /// A full bucket, for so many requests per second. A second's worth may come at once.
    pub(crate) fn new(rate: f64) -> Self {
        let burst = rate.max(1.0);
        Self {
            rate,
            burst,
            state: Mutex::new((burst, Instant::now())),
        }
    }

    /// Takes a token, or says after how many whole seconds there will be one: at least one second.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *state;
        let come_back = now.saturating_duration_since(since).as_secs_f64() * self.rate;
        let tokens = (tokens + come_back).min(self.burst);
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
    fn so_many_requests_pass_at_once_and_the_rest_are_told_when_to_come_back() {
        let throttle = Throttle::new(0.5);
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Ok(()));
        let Err(wait) = throttle.admit(start) else {
            panic!("the bucket is empty");
        };
        assert!((2..=3).contains(&wait), "{wait}");
        assert!(throttle.admit(start + Duration::from_secs(1)).is_err());
        assert_eq!(throttle.admit(start + Duration::from_secs(wait)), Ok(()));
    }
}
