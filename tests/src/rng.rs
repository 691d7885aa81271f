//! Random numbers that are reproducible by a seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A generator. Its clones share one sequence.
#[derive(Debug, Clone)]
pub struct Rng {
    generator: Arc<Mutex<fastrand::Rng>>,
}

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            generator: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        }
    }

    /// A number below `sides`.
    pub fn roll(&self, sides: u32) -> u32 {
        let mut generator = self
            .generator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generator.u32(..sides)
    }

    /// A duration below `limit`.
    pub fn pause(&self, limit: Duration) -> Duration {
        limit * self.roll(1_000) / 1_000
    }
}
