//! What an evaluation has left of the work that it may do.

use super::bounds::{BYTES_PER_STEP, STEPS};
use super::stop::Stop;

/// Counts the steps of one evaluation.
#[derive(Debug)]
pub(super) struct Steps(u32);

impl Steps {
    pub(super) fn new() -> Self {
        Self(STEPS)
    }

    #[inline]
    pub(super) fn one(&mut self) -> Result<(), Stop> {
        self.take(1)
    }

    #[inline]
    pub(super) fn take(&mut self, steps: usize) -> Result<(), Stop> {
        let left = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.0.checked_sub(steps));
        self.0 = left.ok_or(Stop::TooMuchWork)?;
        Ok(())
    }

    /// The steps of looking at, or making, a text.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Stop> {
        self.take(text.len() / BYTES_PER_STEP)
    }
}
