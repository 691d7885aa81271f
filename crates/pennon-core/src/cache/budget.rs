//! What one request may spend on the cache.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Time that is used up by waiting for Redis, and by nothing else.
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

    /// What is left.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes that much away, at most all.
    pub fn spend(&self, amount: Duration) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(amount);
    }

    /// Splits off half of what is left, so that one step cannot starve the next.
    #[must_use]
    pub fn half(&self) -> Self {
        let half = self.remaining() / 2;
        self.spend(half);
        Self::new(half)
    }

    /// Returns what a split-off part did not use.
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
    fn a_budget_never_goes_below_nothing() {
        let budget = Budget::new(100 * MS);
        budget.spend(70 * MS);
        assert_eq!(budget.remaining(), 30 * MS);
        budget.spend(70 * MS);
        assert_eq!(budget.remaining(), Duration::ZERO);
    }

    #[test]
    fn a_half_gives_back_what_it_did_not_use() {
        let budget = Budget::new(100 * MS);
        let half = budget.half();
        half.spend(10 * MS);
        assert_eq!(budget.remaining(), 50 * MS);
        budget.give_back(&half);
        assert_eq!(budget.remaining(), 90 * MS);
    }
}
