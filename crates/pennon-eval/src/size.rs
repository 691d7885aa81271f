//! How much room JSON takes, as values.

use serde_json::{Map, Value};

use crate::logic::evaluators::Evaluators;
use crate::logic::{bounds, compile};
use crate::{Definition, Flag, Settings};

/// How many steps a request may take for what the context of its caller adds, and how many the flags of an
/// environment may take together for a caller of whom nothing but the id is known.
pub const REQUEST_STEPS: u64 = bounds::REQUEST_STEPS;

/// How many steps one evaluation may take.
pub const EVALUATION_STEPS: u64 = bounds::STEPS as u64;

/// So many bytes of text count as one more value: about as much as a value takes in memory.
const BYTES_PER_VALUE: usize = 64;

/// How many values a value is, itself, those in it, and their texts.
pub(crate) fn of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + of_text(text),
        Value::Array(items) => 1 + items.iter().map(of).sum::<usize>(),
        Value::Object(fields) => 1 + of_fields(fields),
    }
}

/// How many values the fields of an object are.
pub(crate) fn of_fields(fields: &Map<String, Value>) -> usize {
    let fields = fields.iter();
    fields.map(|(name, value)| of_text(name) + of(value)).sum()
}

/// How many values the bytes of a text are, beside the one that it is itself.
pub(crate) fn of_text(text: &str) -> usize {
    text.len() / BYTES_PER_VALUE
}

impl Flag {
    /// How many values the flag is in memory: every value of its JSON counts, and every 64 bytes of text
    /// once more. Overrides are not counted.
    #[must_use]
    pub fn size(&self) -> usize {
        let definition = self.definition.as_ref().map_or(0, Definition::size);
        1 + definition + of_fields(&self.other)
    }

    /// How many steps it takes at most to evaluate the flag, for a caller of whom nothing but the id is
    /// known.
    #[must_use]
    pub fn cost(&self, evaluators: &Evaluators<'_>) -> u64 {
        let rule = self.definition.as_ref().and_then(Definition::rule);
        let rule = rule.and_then(|rule| compile(rule, evaluators).ok());
        1 + rule.map_or(0, |rule| rule.cost)
    }
}

impl Definition {
    fn size(&self) -> usize {
        let unreadable = self.unreadable.as_ref();
        of_fields(&self.variants)
            + self.targeting.as_ref().map_or(0, of)
            + of_fields(&self.metadata)
            + unreadable.map_or(0, |unreadable| of_text(&unreadable.text))
    }

    /// Whether its rule may take more steps than its length tells: it refers to others, walks through
    /// lists or makes texts.
    #[must_use]
    pub fn may_be_costly(&self) -> bool {
        fn names(value: &Value) -> bool {
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
                Value::Array(items) => items.iter().any(names),
                Value::Object(fields) => fields
                    .iter()
                    .any(|(name, value)| COSTLY.contains(&name.as_str()) || names(value)),
            }
        }
        self.rule().is_some_and(names)
    }
}

/// Operators by which a rule may take more steps than its length tells.
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

impl Settings {
    /// How many values the settings are in memory, as [`Flag::size`] counts.
    #[must_use]
    pub fn size(&self) -> usize {
        of_fields(&self.evaluators) + of_fields(&self.metadata) + of_fields(&self.other)
    }
}
