//! Upper bounds of the steps of an evaluation.

use crate::logic::compile;
use crate::logic::evaluators::Evaluators;
use crate::{Definition, Flag};

/// Operators by which a rule may take more steps than its length suggests.
pub const COSTLY_OPERATORS: [&str; 12] = [
    "$ref",
    "map",
    "filter",
    "reduce",
    "all",
    "some",
    "none",
    "merge",
    "cat",
    "substr",
    "missing_some",
    "missing",
];

impl Flag {
    /// The maximum number of steps of an evaluation, for a context with only a targeting key.
    #[must_use]
    pub fn cost(&self, evaluators: &Evaluators<'_>) -> u64 {
        let rule = self.definition.as_ref().and_then(Definition::rule);
        let rule = rule.and_then(|rule| compile(rule, evaluators).ok());
        1 + rule.map_or(0, |rule| rule.cost)
    }
}

impl Definition {
    /// Whether the rule may take more steps than its length suggests, because it refers to evaluators, iterates over
    /// lists or builds strings.
    #[must_use]
    pub fn may_be_costly(&self) -> bool {
        self.uses_any_of(&COSTLY_OPERATORS)
    }
}
