//! How many steps an evaluation of a flag takes at most.

use crate::logic::compile;
use crate::logic::evaluators::Evaluators;
use crate::{Definition, Flag};

/// Operators by which a rule may take more steps than its length suggests.
pub const COSTLY: [&str; 12] = [
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
    /// How many steps an evaluation takes at most for a caller with nothing but a targeting key.
    #[must_use]
    pub fn cost(&self, evaluators: &Evaluators<'_>) -> u64 {
        let rule = self.definition.as_ref().and_then(Definition::rule);
        let rule = rule.and_then(|rule| compile(rule, evaluators).ok());
        1 + rule.map_or(0, |rule| rule.cost)
    }
}

impl Definition {
    /// Whether the rule may take more steps than its length suggests, because it refers to evaluators, walks
    /// lists or builds texts.
    #[must_use]
    pub fn may_be_costly(&self) -> bool {
        self.uses_any_of(&COSTLY)
    }
}
