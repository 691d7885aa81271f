//! The time that one request may spend on the cache.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// The remaining time. Only waiting for Redis reduces it.
#[derive(Debug)]
pub struct Budget {
    left: Mutex<Duration>,
}

impl Budget {
    /// A budget of this size.
    #[must_use]
    pub fn new(size: Duration) -> Self {
        Self {
            left: Mutex::new(size),
        }
    }

    /// The remaining time.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subtracts an amount, down to zero.
    pub fn spend(&self, amount: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(amount);
    }

    /// Splits off half of the remaining time, so that one step cannot starve the next.
    #[must_use]
    pub fn half(&self) -> Self {
        let half = self.remaining() / 2;
        self.spend(half);
        Self::new(half)
    }

    /// Returns the unused time of a part that [`half`](Self::half) has split off.
    pub fn give_back(&self, part: &Self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left += part.remaining();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_budget_is_never_negative() {
        let budget = Budget::new(100 * MS);
        budget.spend(70 * MS);
        assert_eq!(budget.remaining(), 30 * MS);
        budget.spend(70 * MS);
        assert_eq!(budget.remaining(), Duration::ZERO);
    }

    #[test]
    fn the_unused_time_of_a_half_is_given_back() {
        let budget = Budget::new(100 * MS);
        let half = budget.half();
        half.spend(10 * MS);
        assert_eq!(budget.remaining(), 50 * MS);
        budget.give_back(&half);
        assert_eq!(budget.remaining(), 90 * MS);
    }
}
