//! Limits on rules, contexts and the computation of an evaluation.
//!
//! Editors write rules, and anyone may send a context. The limits prevent both from stalling a function or
//! overflowing its stack. Real rules are far below all limits.

/// The maximum nesting of a rule, with references replaced. Compilation and evaluation recurse this deep; their stack
/// frames fit many times into the smallest stack of a thread (2 MB).
pub(crate) const RULE_DEPTH: usize = 64;

/// The maximum nesting of the JSON of a rule, including lists of arguments: that of `serde_json`.
pub(crate) const RULE_JSON_DEPTH: usize = 2 * RULE_DEPTH;

/// The maximum number of values of a rule, with references replaced, and of a flag's variants: about 1 MB of JSON.
pub(crate) const RULE_NODES: usize = 50_000;

/// The maximum nesting of a context, of the value of a variant, and of a list that a rule builds.
pub(crate) const DATA_DEPTH: usize = 32;

/// The maximum number of values of a context.
pub(crate) const CONTEXT_NODES: usize = 10_000;

/// The maximum number of steps of one evaluation. Each evaluated operator or constant, each visited item of a list and
/// each [`BYTES_PER_STEP`] bytes of text count as one step. All steps together take about two milliseconds.
pub(crate) const STEPS: u32 = 100_000;

/// The number of bytes of text that count as one step.
pub(crate) const BYTES_PER_STEP: usize = 16;

/// The maximum number of steps that a request may take because of its context (lists to iterate over, texts to
/// compare), and that all flags of an environment may take together for a context with only a targeting key. About
/// 70 milliseconds.
pub const REQUEST_STEPS: u64 = 5_000_000;

/// Limit on the values that constant folding may create from shared constants, over all rules of an environment.
/// Beyond this limit such an operation is evaluated for each caller, as if its operands were not constant.
pub(crate) const FOLDED_VALUES: usize = 200_000;

/// Limit on the values that are linted in one file or change. A rule that refers to evaluators is linted together
/// with them, once per reference.
pub(crate) const LINT_VALUES: usize = 5_000_000;

/// Why an evaluation stopped without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvalError {
    /// The rule divides by zero.
    #[error("the targeting divides by zero")]
    DivisionByZero,
    /// The evaluation used [`STEPS`].
    #[error("the targeting takes more steps than one evaluation may")]
    TooManySteps,
    /// The evaluations of the request together used the [`REQUEST_STEPS`] that it may take because of its context.
    #[error(
        "this context takes more steps than one request may; send a smaller context, or evaluate single flags"
    )]
    TooManyRequestSteps,
    /// The rule builds a list that is nested deeper than [`DATA_DEPTH`].
    #[error("the targeting builds a list that is nested too deeply")]
    TooDeep,
}

/// The steps that an evaluation may still take. Two limits apply: that of one evaluation, which all versions of Pennon
/// count in the same way, and that of the request.
#[derive(Debug)]
pub(crate) struct Fuel {
    /// The remaining steps of the evaluation, or of the request if these are fewer.
    left: u32,
    /// The remaining steps of the request beyond `left`.
    request_left: u64,
    /// The initial sum of both.
    initial: u64,
    /// The error if no step is left.
    error: EvalError,
}

impl Fuel {
    /// For an evaluation in a request that may take this many more steps.
    pub(crate) fn for_request(steps: u64) -> Self {
        let (left, error) = match u32::try_from(steps) {
            Ok(steps) if steps < STEPS => (steps, EvalError::TooManyRequestSteps),
            Ok(_) | Err(_) => (STEPS, EvalError::TooManySteps),
        };
        Self {
            left,
            request_left: steps - u64::from(left),
            initial: steps,
            error,
        }
    }

    /// For an evaluation without a limit of its request.
    pub(crate) fn for_evaluation() -> Self {
        Self::for_request(u64::MAX)
    }

    /// The number of steps taken.
    pub(crate) fn used(&self) -> u64 {
        self.initial - self.request_left - u64::from(self.left)
    }

    #[inline]
    pub(crate) fn charge_step(&mut self) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(1).ok_or(self.error)?;
        Ok(())
    }

    /// Refunds a step, for a node that forwards to another node, which charges its own step.
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

    /// Charges steps to the request and not to the evaluation: earlier versions did not count these steps, so a rule
    /// that they accept must not fail because of them.
    #[inline]
    pub(crate) fn charge_request_limit(&mut self, steps: u64) -> Result<(), EvalError> {
        if steps == 0 {
            return Ok(());
        }
        if let Some(request_left) = self.request_left.checked_sub(steps) {
            self.request_left = request_left;
            return Ok(());
        }
        // The request has no steps of its own left, so the rest is taken from those of the evaluation.
        let excess = steps - self.request_left;
        self.request_left = 0;
        self.error = EvalError::TooManyRequestSteps;
        let left = u32::try_from(excess)
            .ok()
            .and_then(|excess| self.left.checked_sub(excess));
        self.left = left.unwrap_or(0);
        left.map(|_left| ()).ok_or(self.error)
    }

    /// Charges the request for reading this many bytes of text.
    #[inline]
    pub(crate) fn charge_request_limit_for_bytes(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.charge_request_limit((bytes / BYTES_PER_STEP) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_fails_at_its_own_limit_and_at_that_of_its_request() {
        let mut fuel = Fuel::for_request(150_000);
        assert_eq!(fuel.charge(100_000), Ok(()));
        assert_eq!(fuel.charge_step(), Err(EvalError::TooManySteps));
        assert_eq!(fuel.used(), 100_000);

        let mut fuel = Fuel::for_request(150_000);
        assert_eq!(fuel.charge_request_limit(50_000), Ok(()));
        assert_eq!(fuel.charge_request_limit(90_000), Ok(()));
        assert_eq!(fuel.charge(10_000), Ok(()));
        assert_eq!(fuel.used(), 150_000);
        assert_eq!(fuel.charge_step(), Err(EvalError::TooManyRequestSteps));

        let mut fuel = Fuel::for_request(10);
        assert_eq!(fuel.charge(11), Err(EvalError::TooManyRequestSteps));
        assert_eq!(
            fuel.charge_request_limit(11),
            Err(EvalError::TooManyRequestSteps)
        );
        assert_eq!(fuel.used(), 10);

        let mut fuel = Fuel::for_evaluation();
        assert_eq!(fuel.charge_request_limit(1 << 40), Ok(()));
        assert_eq!(fuel.charge(100_000), Ok(()));
        assert_eq!(fuel.charge_step(), Err(EvalError::TooManySteps));
    }

    #[test]
    fn the_documentation_states_the_limits_of_rules_contexts_and_steps() {
        let manual = include_str!("../../../docs/targeting.md");
        assert_eq!(
            (RULE_NODES, CONTEXT_NODES, STEPS),
            (50_000, 10_000, 100_000)
        );
        for limit in [
            format!("| {RULE_DEPTH} levels |"),
            format!("| {DATA_DEPTH} |"),
            format!("{BYTES_PER_STEP} bytes of text"),
            "| 50,000 values |".to_owned(),
            "| 10,000 values |".to_owned(),
            "| 100,000 steps |".to_owned(),
        ] {
            assert!(manual.contains(&limit), "targeting.md lacks {limit:?}");
        }
    }
}
