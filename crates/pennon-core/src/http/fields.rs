//! The fields of a JSON body, taken one by one so that every mistake is reported at once.

use std::ops::RangeInclusive;

use pennon_eval::json::{self, JsonError, count_values};
use pennon_eval::{Violation, pointer_step};
use serde_json::{Map, Value};

use crate::error::{Error, FieldErrors};

/// A body that is no JSON, and where it ceases to be.
#[must_use]
pub fn not_json(error: &serde_json::Error) -> Error {
    Error::invalid_form(format!("The body is not valid JSON: {error}"))
}

/// Duplicate keys as field errors, each under its JSON pointer.
fn twice<'a>(duplicates: impl Iterator<Item = &'a Violation>) -> Error {
    let mut errors = FieldErrors::default();
    for found in duplicates {
        let place = found.pointer.strip_prefix('/').unwrap_or(&found.pointer);
        errors.add(place, found.message.as_str());
    }
    Error::Invalid(errors)
}

/// More values than this a body does not have, since each takes up to a hundred times its length in memory:
/// as many as an environment may have, and what a file has beside them.
const MOST_VALUES: usize = 600_000;

/// Refuses a body that would take too much memory to be read.
///
/// # Errors
/// [`Error::Invalid`] with the number of its values.
pub fn must_have_few_values(body: &[u8]) -> Result<(), Error> {
    match count_values(body) {
        0..=MOST_VALUES => Ok(()),
        values => Err(Error::invalid_form(format!(
            "The body has {values} JSON values, more than {MOST_VALUES}"
        ))),
    }
}

/// A JSON object, and what has been wrong with it so far.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    /// What is wrong; a handler may add to it.
    pub errors: FieldErrors,
}

impl Fields {
    /// Takes a body as a JSON object.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is none, or when an object in it holds a key twice: nobody can say which
    /// of the two is meant.
    pub fn of(body: &[u8]) -> Result<Self, Error> {
        must_have_few_values(body)?;
        match json::parse(body) {
            Ok(value) => Self::of_value(value),
            Err(JsonError::Syntax(error)) => Err(not_json(&error)),
            Err(JsonError::Duplicates(duplicates)) => Err(twice(duplicates.iter())),
        }
    }

    /// The same on a route of the existing service, which takes the last of two equal keys, as its clients
    /// may rely on. `newer` are the fields that these clients do not know: in them a key that occurs twice
    /// is refused, and so is one of them that occurs twice.
    ///
    /// # Errors
    /// [`Error::Invalid`] as above.
    pub fn of_existing_client(body: &[u8], newer: &[&str]) -> Result<Self, Error> {
        must_have_few_values(body)?;
        let (value, duplicates) = json::read(body).map_err(|error| not_json(&error))?;
        let is_in = |at: &str, name: &str| {
            let rest = at.strip_prefix('/').and_then(|at| at.strip_prefix(name));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let refused: Vec<&Violation> = duplicates
            .iter()
            .filter(|found| {
                newer
                    .iter()
                    .any(|name| is_in(&found.pointer, &pointer_step(name)))
            })
            .collect();
        if refused.is_empty() {
            Self::of_value(value)
        } else {
            Err(twice(refused.into_iter()))
        }
    }

    fn of_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Object(fields) => Ok(Self::within(fields)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Error::invalid_form("Expected a JSON object")),
        }
    }

    /// Takes the fields of an object within a body.
    #[must_use]
    pub fn within(fields: Map<String, Value>) -> Self {
        Self {
            fields,
            errors: FieldErrors::default(),
        }
    }

    /// Takes a text whose number of characters lies in this range. Absent and `null` are nothing.
    pub fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        match self.fields.shift_remove(name)? {
            Value::Null => None,
            Value::String(text) if !length.contains(&text.chars().count()) => {
                let (least, most) = (length.start(), length.end());
                let message = format!("Must have {least} to {most} characters");
                self.errors.add(name, message);
                None
            }
            // PostgreSQL keeps every character but this one.
            Value::String(text) if text.contains('\0') => {
                self.errors.add(name, "Must not contain a NUL character");
                None
            }
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.errors.add(name, "Expected a string");
                None
            }
        }
    }

    /// How many have not been taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// Takes a field and parses it. The parser's message becomes an error of the field.
    pub fn take<T, Message: Into<String>>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Message>,
    ) -> Option<T> {
        match read(&self.fields.shift_remove(name)?) {
            Ok(taken) => Some(taken),
            Err(message) => {
                self.errors.add(name, message);
                None
            }
        }
    }

    /// The same for a field that may be `null`, which is nothing as well.
    pub fn take_or_null<T, Message: Into<String>>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Message>,
    ) -> Option<T> {
        if self.fields.get(name).is_some_and(Value::is_null) {
            self.fields.shift_remove(name);
        }
        self.take(name, read)
    }

    /// Takes any value. Absent and `null` are nothing.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.fields
            .shift_remove(name)
            .filter(|value| !value.is_null())
    }

    /// Takes whatever is left.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.fields)
    }

    /// Reports a required field that is missing, unless it has an error already.
    pub fn must_have<T>(&mut self, name: &str, found: Option<&T>) {
        if found.is_none() && !self.errors.fields.contains_key(name) {
            self.errors.add(name, "Required");
        }
    }

    /// Adds a message about every field that has not been taken: for routes that no older client
    /// knows, so that a typing error is no silent one.
    pub fn must_be_empty(&mut self) {
        let rest = self.rest();
        self.errors
            .add_unknown(rest.keys().map(String::as_str), "Unknown field");
    }

    /// Whether all was well.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all errors.
    pub fn finish(self) -> Result<(), Error> {
        self.errors.none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_occurs_twice_is_refused_with_its_place() {
        let body = br#"{"a": 1, "b": [{"c/d": 1, "c/d": 2}], "a": 3}"#;
        let Err(Error::Invalid(errors)) = Fields::of(body) else {
            panic!("errors");
        };
        let names: Vec<&str> = errors.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b/0/c~1d"]);
        let mut fields = Fields::of_existing_client(body, &["c", "bb"]).expect("the last counts");
        assert_eq!(fields.value("a"), Some(3.into()));
        for newer in ["a", "b"] {
            let refused = Fields::of_existing_client(body, &[newer]);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{newer}");
        }
    }

    #[test]
    fn every_mistake_is_reported_and_nothing_else() {
        let body = br#"{"a":"","b":5,"c":null,"d":"x\u0000","e":"fine","f":[]}"#;
        let mut fields = Fields::of(body).expect("an object");
        assert_eq!(fields.text("a", 1..=3), None);
        assert_eq!(fields.text("b", 0..=3), None);
        assert_eq!(fields.text("c", 1..=3), None);
        assert_eq!(fields.text("d", 0..=3), None);
        assert_eq!(fields.text("e", 0..=4), Some("fine".to_owned()));
        fields.must_have("b", None::<&String>);
        fields.must_have("c", None::<&String>);
        fields.must_be_empty();
        let Err(Error::Invalid(errors)) = fields.finish() else {
            panic!("errors");
        };
        let names: Vec<&str> = errors.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "c", "d", "f"]);
        assert_eq!(errors.fields["b"], ["Expected a string"]);
        assert_eq!(errors.fields["c"], ["Required"]);
    }
}
