//! Limits on rules, contexts and the work of an evaluation.
//!
//! Administrators write rules and anyone may send a context. The limits keep both from stalling a function
//! or overflowing its stack. Real rules stay far below all of them.

/// How deep a rule may be nested, after references are replaced. Compiling and evaluating recurse
/// this deep; the frames fit many times into the smallest stack of a thread (2 MB).
pub(crate) const RULE_DEPTH: usize = 64;

/// How deep the JSON of a rule may be nested, lists of arguments included: as deep as `serde_json` reads
/// it.
pub(crate) const RULE_JSON_DEPTH: usize = 2 * RULE_DEPTH;

/// How many values a rule may hold, after references are replaced: about a megabyte of JSON.
pub(crate) const RULE_NODES: usize = 50_000;

/// How deep a context, or a list that a rule builds, may be nested.
pub(crate) const DATA_DEPTH: usize = 32;

/// How many values a context may hold.
pub(crate) const CONTEXT_NODES: usize = 10_000;

/// How many steps one evaluation may take: each operator that runs, each item of a list that is visited and
/// each [`BYTES_PER_STEP`] bytes of text cost one step. All of them take about two milliseconds.
pub(crate) const STEPS: u32 = 100_000;

/// How many bytes of text count as a step.
pub(crate) const BYTES_PER_STEP: usize = 16;

/// How many steps a request may take for what the context of its caller adds (lists to walk, texts to
/// compare), and how many the flags of an environment may take together for a caller with nothing but a
/// targeting key. About 70 milliseconds.
pub const REQUEST_STEPS: u64 = 5_000_000;

/// How many steps one evaluation may take.
pub const EVALUATION_STEPS: u64 = STEPS as u64;

/// How many values all rules of an environment together may fold from constants that several rules share.
/// Beyond this limit such an operation runs for each caller, as if its operands were not constant.
pub(crate) const FOLDED_VALUES: usize = 200_000;

/// How many values are checked for parts that cannot work, in one file or change. A rule that refers to
/// evaluators is checked together with them, once per reference.
pub(crate) const LINT_VALUES: usize = 5_000_000;

/// Why an evaluation stopped without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvalError {
    /// The rule divides by zero.
    #[error("the targeting divides by zero")]
    DivisionByZero,
    /// The evaluation used [`STEPS`].
    #[error("the targeting takes more work than one evaluation may")]
    TooMuchWork,
    /// The evaluations of the request together used [`REQUEST_STEPS`].
    #[error(
        "with this context all flags together take more work than one request may; ask for single flags, \
         or send less context"
    )]
    RequestTooMuchWork,
    /// The rule builds a list that is nested deeper than [`DATA_DEPTH`].
    #[error("the targeting builds a list that is nested too deep")]
    TooDeep,
}

/// The steps that an evaluation may still take. Two limits apply: that of one evaluation, which every
/// version of Pennon counts in the same way, and that of the request.
#[derive(Debug)]
pub(crate) struct Fuel {
    /// The rest of the evaluation's own steps, or of the request's where these are fewer.
    left: u32,
    /// The rest of the request's steps beyond `left`.
    request_left: u64,
    /// The sum of both at the beginning.
    initial: u64,
    /// The error when nothing is left.
    error: EvalError,
}

impl Fuel {
    /// For an evaluation in a request that may take this many more steps.
    pub(crate) fn for_request(steps: u64) -> Self {
        let (left, error) = match u32::try_from(steps) {
            Ok(steps) if steps < STEPS => (steps, EvalError::RequestTooMuchWork),
            Ok(_) | Err(_) => (STEPS, EvalError::TooMuchWork),
        };
        Self {
            left,
            request_left: steps - u64::from(left),
            initial: steps,
            error,
        }
    }

    /// For an evaluation that only its own limit bounds.
    pub(crate) fn for_evaluation() -> Self {
        Self::for_request(u64::MAX)
    }

    /// How many steps were taken.
    pub(crate) fn used(&self) -> u64 {
        self.initial - self.request_left - u64::from(self.left)
    }

    #[inline]
    pub(crate) fn charge_step(&mut self) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(1).ok_or(self.error)?;
        Ok(())
    }

    /// Returns the last step, where the next one stands for both.
    #[inline]
    pub(crate) fn refund_step(&mut self) {
        self.left += 1;
    }

    #[inline]
    pub(crate) fn charge(&mut self, steps: usize) -> Result<(), EvalError> {
        let left = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.left.checked_sub(steps));
        self.left = left.ok_or(self.error)?;
        Ok(())
    }

    /// Charges for reading or writing a text.
    pub(crate) fn charge_text(&mut self, text: &str) -> Result<(), EvalError> {
        self.charge(text.len() / BYTES_PER_STEP)
    }

    /// Charges steps to the request and not to the evaluation: earlier versions did not count this work, so
    /// an evaluation that they accept must not fail because of it.
    #[inline]
    pub(crate) fn charge_request(&mut self, steps: u64) -> Result<(), EvalError> {
        if steps == 0 {
            return Ok(());
        }
        if let Some(request_left) = self.request_left.checked_sub(steps) {
            self.request_left = request_left;
            return Ok(());
        }
        // From here on the request and the evaluation share the rest.
        let excess = steps - self.request_left;
        self.request_left = 0;
        self.error = EvalError::RequestTooMuchWork;
        let left = u32::try_from(excess)
            .ok()
            .and_then(|excess| self.left.checked_sub(excess));
        self.left = left.unwrap_or(0);
        left.map(|_left| ()).ok_or(self.error)
    }

    /// Charges the request for reading this many bytes of text.
    #[inline]
    pub(crate) fn charge_request_for_bytes(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.charge_request((bytes / BYTES_PER_STEP) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_ends_at_its_own_limit_and_at_that_of_its_request() {
        let mut fuel = Fuel::for_request(150_000);
        assert_eq!(fuel.charge(100_000), Ok(()));
        assert_eq!(fuel.charge_step(), Err(EvalError::TooMuchWork));
        assert_eq!(fuel.used(), 100_000);

        let mut fuel = Fuel::for_request(150_000);
        assert_eq!(fuel.charge_request(50_000), Ok(()));
        assert_eq!(fuel.charge_request(90_000), Ok(()));
        assert_eq!(fuel.charge(10_000), Ok(()));
        assert_eq!(fuel.used(), 150_000);
        assert_eq!(fuel.charge_step(), Err(EvalError::RequestTooMuchWork));

        let mut fuel = Fuel::for_request(10);
        assert_eq!(fuel.charge(11), Err(EvalError::RequestTooMuchWork));
        assert_eq!(fuel.charge_request(11), Err(EvalError::RequestTooMuchWork));
        assert_eq!(fuel.used(), 10);

        let mut fuel = Fuel::for_evaluation();
        assert_eq!(fuel.charge_request(1 << 40), Ok(()));
        assert_eq!(fuel.charge(100_000), Ok(()));
        assert_eq!(fuel.charge_step(), Err(EvalError::TooMuchWork));
    }

    #[test]
    fn the_manual_names_every_limit() {
        let manual = include_str!("../../../docs/targeting.md");
        assert_eq!(
            (RULE_NODES, CONTEXT_NODES, STEPS),
            (50_000, 10_000, 100_000)
        );
        for limit in [
            format!("| {RULE_DEPTH} operations |"),
            format!("| {DATA_DEPTH} |"),
            format!("{BYTES_PER_STEP} bytes of text"),
            "| 50,000 values |".to_owned(),
            "| 10,000 values |".to_owned(),
            "| 100,000 steps |".to_owned(),
        ] {
            assert!(manual.contains(&limit), "{limit}");
        }
    }
}
