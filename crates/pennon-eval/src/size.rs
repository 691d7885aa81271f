//! The memory that flags and settings take, counted in JSON values.

use serde_json::{Map, Value};

use crate::{Definition, Flag, Settings};

/// This many bytes of text count as one more value: about the memory of a value.
const BYTES_PER_VALUE: usize = 64;

/// The number of values in a value, with itself and its texts.
pub(crate) fn of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + of_text(text),
        Value::Array(items) => 1 + items.iter().map(of).sum::<usize>(),
        Value::Object(fields) => 1 + of_fields(fields),
    }
}

/// The number of values in the fields of an object.
fn of_fields(fields: &Map<String, Value>) -> usize {
    let fields = fields.iter();
    fields.map(|(name, value)| of_text(name) + of(value)).sum()
}

/// How many values the bytes of a text count as, beyond the text itself.
fn of_text(text: &str) -> usize {
    text.len() / BYTES_PER_VALUE
}

impl Flag {
    /// The size of the flag in memory: each value of its variants, rule, metadata and unknown fields counts as one, and
    /// so do each 64 bytes of text. Other fields, such as overrides, are not counted.
    #[must_use]
    pub fn size(&self) -> usize {
        let definition = self.definition.as_ref().map_or(0, Definition::size);
        1 + definition + of_fields(&self.other)
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
}

impl Settings {
    /// The size of the settings in memory, counted as in [`Flag::size`].
    #[must_use]
    pub fn size(&self) -> usize {
        of_fields(&self.evaluators) + of_fields(&self.metadata) + of_fields(&self.other)
    }
}
