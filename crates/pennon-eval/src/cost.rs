//! Upper bounds of the steps of an evaluation.

use serde_json::Value;

use crate::logic::compile;
use crate::logic::evaluators::Evaluators;
use crate::{Definition, Flag};

/// Operators by which a rule may take more steps than its length suggests. A `fractional` whose bucketing expression is
/// not simply a `var` may do so too, see [`Definition::may_be_costly`].
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
    /// lists, builds strings, or hashes the result of an operation. Nested in bucketing expressions, `fractional` may
    /// hash one text many times.
    #[must_use]
    pub fn may_be_costly(&self) -> bool {
        self.has_operation(|operator, arguments| {
            COSTLY_OPERATORS.contains(&operator)
                || operator == "fractional" && !hashes_an_attribute(arguments)
        })
    }
}

/// Whether a `fractional` has no bucketing expression, or one that is a `var` with a constant path.
fn hashes_an_attribute(arguments: &Value) -> bool {
    let Some(arguments) = arguments.as_array() else {
        return false;
    };
    match arguments.first() {
        None | Some(Value::Array(_)) => true,
        Some(first) => first.as_object().is_some_and(|first| {
            first.len() == 1 && first.get("var").is_some_and(Value::is_string)
        }),
    }
}
