//! The time that one request may spend on the cache.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The remaining time. Waiting for Redis, and encoding and decoding entries, reduce it; reads from PostgreSQL do not.
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

    /// Does work for the cache at the expense of the budget, such as decoding an entry. The work cannot be interrupted,
    /// but later steps get less time. Half of the remaining time is left for them, however long the work takes:
    /// otherwise an instance with a slow processor could never fill the cache, or remove an invalid entry.
    pub fn charge<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        let part = self.half();
        part.spend(started.elapsed());
        self.give_back(&part);
        result
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
    fn work_is_charged_half_of_the_remaining_time_at_most() {
        let budget = Budget::new(1_000 * MS);
        let result = budget.charge(|| {
            std::thread::sleep(20 * MS);
            7
        });
        assert_eq!(result, 7);
        assert!((500 * MS..=980 * MS).contains(&budget.remaining()));
        let budget = Budget::new(20 * MS);
        budget.charge(|| std::thread::sleep(20 * MS));
        assert_eq!(budget.remaining(), 10 * MS);
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
