//! What an evaluation has left of the work that it may do.

use super::bounds::{BYTES_PER_STEP, STEPS};
use super::stop::Stop;

/// Counts the steps of one evaluation. Two limits apply: that of one evaluation, which every engine since
/// the first version of Pennon has counted in the same way, and that of the request.
#[derive(Debug)]
pub(super) struct Steps {
    /// What is left of the evaluation's own, or of the request's if that is less.
    left: u32,
    /// What the request has left beyond them.
    beyond: u64,
    /// Both at the beginning.
    given: u64,
    /// What it means when nothing is left.
    stop: Stop,
}

impl Steps {
    /// For an evaluation in a request that may take so many steps more.
    pub(super) fn within(request: u64) -> Self {
        let (left, stop) = match u32::try_from(request) {
            Ok(request) if request < STEPS => (request, Stop::RequestTooMuchWork),
            Ok(_) | Err(_) => (STEPS, Stop::TooMuchWork),
        };
        Self {
            left,
            beyond: request - u64::from(left),
            given: request,
            stop,
        }
    }

    /// For an evaluation by itself.
    pub(super) fn alone() -> Self {
        Self::within(u64::MAX)
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> u64 {
        self.given - self.beyond - u64::from(self.left)
    }

    #[inline]
    pub(super) fn one(&mut self) -> Result<(), Stop> {
        self.left = self.left.checked_sub(1).ok_or(self.stop)?;
        Ok(())
    }

    /// Gives the last one back, which another one stands for.
    #[inline]
    pub(super) fn not_that_one(&mut self) {
        self.left += 1;
    }

    #[inline]
    pub(super) fn take(&mut self, steps: usize) -> Result<(), Stop> {
        let left = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.left.checked_sub(steps));
        self.left = left.ok_or(self.stop)?;
        Ok(())
    }

    /// The steps of looking at, or making, a text.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Stop> {
        self.take(text.len() / BYTES_PER_STEP)
    }

    /// Work that counts against the request only: earlier versions did not count it, so an evaluation
    /// by itself must not fail by it.
    #[inline]
    pub(super) fn beside(&mut self, steps: u64) -> Result<(), Stop> {
        if steps == 0 {
            return Ok(());
        }
        if let Some(beyond) = self.beyond.checked_sub(steps) {
            self.beyond = beyond;
            return Ok(());
        }
        // What the request has beyond is used up; from here on it shares what is left.
        let rest = steps - self.beyond;
        self.beyond = 0;
        self.stop = Stop::RequestTooMuchWork;
        let left = u32::try_from(rest)
            .ok()
            .and_then(|rest| self.left.checked_sub(rest));
        self.left = left.unwrap_or(0);
        left.map(|_left| ()).ok_or(self.stop)
    }

    /// The same for looking at so many bytes of text.
    #[inline]
    pub(super) fn bytes_beside(&mut self, bytes: usize) -> Result<(), Stop> {
        self.beside((bytes / BYTES_PER_STEP) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_ends_at_its_own_limit_and_at_that_of_its_request() {
        let mut steps = Steps::within(150_000);
        assert_eq!(steps.take(100_000), Ok(()));
        assert_eq!(steps.one(), Err(Stop::TooMuchWork));
        assert_eq!(steps.taken(), 100_000);

        let mut steps = Steps::within(150_000);
        assert_eq!(steps.beside(50_000), Ok(()));
        assert_eq!(steps.beside(90_000), Ok(()));
        assert_eq!(steps.take(10_000), Ok(()));
        assert_eq!(steps.taken(), 150_000);
        assert_eq!(steps.one(), Err(Stop::RequestTooMuchWork));

        let mut steps = Steps::within(10);
        assert_eq!(steps.take(11), Err(Stop::RequestTooMuchWork));
        assert_eq!(steps.beside(11), Err(Stop::RequestTooMuchWork));
        assert_eq!(steps.taken(), 10);

        let mut steps = Steps::alone();
        assert_eq!(steps.beside(1 << 40), Ok(()));
        assert_eq!(steps.take(100_000), Ok(()));
        assert_eq!(steps.one(), Err(Stop::TooMuchWork));
    }
}
