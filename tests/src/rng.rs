//! Random numbers that a seed repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A generator; clones go on together. The sequence is `SplitMix64`:
/// <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug, Clone)]
pub struct Rng {
    state: Arc<AtomicU64>,
}

impl Rng {
    /// A generator that this seed repeats.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(AtomicU64::new(seed)),
        }
    }

    /// A number below `sides`.
    pub fn roll(&self, sides: u32) -> u32 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self
            .state
            .fetch_add(step, Ordering::Relaxed)
            .wrapping_add(step);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u32::try_from(mixed % u64::from(sides)).expect("below a u32")
    }

    /// A time below `most`.
    pub fn pause(&self, most: Duration) -> Duration {
        most * self.roll(1_000) / 1_000
    }
}
