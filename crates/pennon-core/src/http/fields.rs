//! Takes the fields out of a JSON body one by one and collects all errors.

use std::ops::RangeInclusive;

use pennon_eval::json::{self, JsonError, count_values};
use pennon_eval::{Violation, pointer_step};
use serde_json::{Map, Value};

use crate::error::{Error, FieldErrors};
use crate::limits::{is_blank, is_invisible};

/// The error for a body that is not JSON, with the position.
#[must_use]
pub fn not_json(error: &serde_json::Error) -> Error {
    Error::invalid_form(format!("The body is not valid JSON: {error}"))
}

/// The error for duplicate keys, by their positions.
fn duplicate_keys(duplicates: &[Violation]) -> Error {
    let mut errors = FieldErrors::default();
    for found in duplicates {
        match found.pointer.strip_prefix('/') {
            Some(field) => errors.add(field, found.message.as_str()),
            None => errors.form.push(found.message.clone()),
        }
    }
    Error::Invalid(errors)
}

/// Limit on the JSON values of a body: an environment may have 500,000, and a file has a few more. A parsed value takes
/// up to a hundred times its length in memory.
const MAX_VALUES: usize = 600_000;

/// Rejects a body that would take too much memory when parsed.
///
/// # Errors
/// [`Error::Invalid`] with the number of values.
pub fn check_value_count(body: &[u8]) -> Result<(), Error> {
    match count_values(body) {
        0..=MAX_VALUES => Ok(()),
        values => Err(Error::invalid_form(format!(
            "The body has {values} JSON values, more than {MAX_VALUES}"
        ))),
    }
}

/// The fields of a JSON object that have not been taken yet, and the errors so far.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    /// The errors so far; handlers may add their own.
    pub errors: FieldErrors,
}

impl Fields {
    /// Rejects a body with fields, for routes without any. Accepts an empty body.
    ///
    /// # Errors
    /// Those of [`Self::parse`]; [`Error::Invalid`] with an error for each field.
    pub fn reject_all(body: &[u8]) -> Result<(), Error> {
        if body.trim_ascii().is_empty() {
            return Ok(());
        }
        let mut fields = Self::parse(body)?;
        fields.reject_rest();
        fields.finish()
    }

    /// Parses a body.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the body is not a JSON object, has too many values, or has an object with a duplicate key,
    /// which would be ambiguous.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        check_value_count(body)?;
        match json::parse(body) {
            Ok(value) => Self::of_value(value),
            Err(JsonError::Syntax(error)) => Err(not_json(&error)),
            Err(JsonError::Duplicates(duplicates)) => Err(duplicate_keys(&duplicates.into_list())),
        }
    }

    /// Parses a body on a route of the existing service. The last of duplicate keys counts, because clients of that
    /// service may rely on it. Duplicates are rejected only in `newer` fields, which these clients do not use, or if
    /// there are more than 50.
    ///
    /// # Errors
    /// As for [`Self::parse`], except for the accepted duplicates.
    pub fn parse_for_existing_clients(body: &[u8], newer: &[&str]) -> Result<Self, Error> {
        check_value_count(body)?;
        let (value, duplicates) = json::read(body).map_err(|error| not_json(&error))?;
        let is_in = |at: &str, name: &str| {
            let rest = at.strip_prefix('/').and_then(|at| at.strip_prefix(name));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut rejected = duplicates.into_list();
        rejected.retain(|found| {
            // Duplicates that are not listed may be in any field.
            let is_newer = |name: &&str| is_in(&found.pointer, &pointer_step(name));
            found.pointer.is_empty() || newer.iter().any(is_newer)
        });
        if rejected.is_empty() {
            Self::of_value(value)
        } else {
            Err(duplicate_keys(&rejected))
        }
    }

    fn of_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Object(fields) => Ok(Self::of_object(fields)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Error::invalid_form("Expected a JSON object")),
        }
    }

    /// The fields of an object inside a body.
    #[must_use]
    pub fn of_object(fields: Map<String, Value>) -> Self {
        Self {
            fields,
            errors: FieldErrors::default(),
        }
    }

    /// Takes a string with a number of characters in this range. `None` if it is absent, `null` or invalid.
    pub fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        match self.fields.shift_remove(name)? {
            Value::Null => None,
            Value::String(text) if !length.contains(&text.chars().count()) => {
                let (min, max) = (length.start(), length.end());
                let error = format!("Must have {min} to {max} characters");
                self.errors.add(name, error);
                None
            }
            // PostgreSQL cannot store NUL in a text.
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

    /// Takes a name by which people recognise an item in a list: a string with at most this many characters, of which
    /// one is visible. `None` if it is absent or `null`.
    pub fn visible_name(&mut self, name: &str, max: usize) -> Option<String> {
        let is_hidden = |character: char| {
            character.is_control() || is_blank(character) || is_invisible(character)
        };
        let text = self.text(name, 1..=max)?;
        if text.chars().all(is_hidden) {
            self.errors.add(name, "Must contain a visible character");
            return None;
        }
        Some(text)
    }

    /// The number of fields that have not been taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// Takes a field and parses it. Adds the error if that fails.
    pub fn take<T, E: Into<String>>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&self.fields.shift_remove(name)?) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.errors.add(name, error);
                None
            }
        }
    }

    /// Like [`Self::take`], for a field in which `null` means absent.
    pub fn take_or_null<T, E: Into<String>>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, E>,
    ) -> Option<T> {
        if self.fields.get(name).is_some_and(Value::is_null) {
            self.fields.shift_remove(name);
        }
        self.take(name, parse)
    }

    /// Takes any value. `None` if it is absent or `null`.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.fields
            .shift_remove(name)
            .filter(|value| !value.is_null())
    }

    /// Takes all remaining fields.
    pub fn take_rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.fields)
    }

    /// Adds an error if a required field is absent, unless the field already has an error.
    pub fn require<T>(&mut self, name: &str, found: Option<&T>) {
        if found.is_none() && !self.errors.fields.contains_key(name) {
            self.errors.add(name, "Required");
        }
    }

    /// Adds an error for every remaining field, so that a misspelled field is not silently ignored. Routes of the
    /// existing service must accept unknown fields.
    pub fn reject_rest(&mut self) {
        let rest = self.take_rest();
        self.errors
            .add_unknown(rest.keys().map(String::as_str), "Unknown field");
    }

    /// Returns the errors, if there are any.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all errors.
    pub fn finish(self) -> Result<(), Error> {
        self.errors.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_key_is_reported_with_its_position() {
        let body = br#"{"a": 1, "b": [{"c/d": 1, "c/d": 2}], "a": 3}"#;
        let Err(Error::Invalid(errors)) = Fields::parse(body) else {
            panic!("the duplicates were accepted");
        };
        let names: Vec<&str> = errors.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b/0/c~1d"]);
        let mut fields =
            Fields::parse_for_existing_clients(body, &["c", "bb"]).expect("the last counts");
        assert_eq!(fields.value("a"), Some(3.into()));
        for newer in ["a", "b"] {
            let rejected = Fields::parse_for_existing_clients(body, &[newer]);
            assert!(matches!(rejected, Err(Error::Invalid(_))), "{newer}");
        }
    }

    #[test]
    fn more_duplicate_keys_than_are_listed_are_rejected_in_any_field() {
        let body = |count: usize| {
            let duplicates = r#""enabled":true,"#.repeat(count + 1);
            format!("{{{duplicates}\"b\":1}}").into_bytes()
        };
        assert!(Fields::parse_for_existing_clients(&body(50), &["b"]).is_ok());
        let rejected = Fields::parse_for_existing_clients(&body(51), &["b"]);
        let Err(Error::Invalid(errors)) = rejected else {
            panic!("the duplicates were accepted");
        };
        assert_eq!(errors.form, ["1 more is not listed"]);
        assert!(errors.fields.is_empty());
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let body = br#"{"a":"","b":5,"c":null,"d":"x\u0000","e":"fine","f":[]}"#;
        let mut fields = Fields::parse(body).expect("an object");
        assert_eq!(fields.text("a", 1..=3), None);
        assert_eq!(fields.text("b", 0..=3), None);
        assert_eq!(fields.text("c", 1..=3), None);
        assert_eq!(fields.text("d", 0..=3), None);
        assert_eq!(fields.text("e", 0..=4), Some("fine".to_owned()));
        fields.require("b", None::<&String>);
        fields.require("c", None::<&String>);
        fields.reject_rest();
        let Err(Error::Invalid(errors)) = fields.finish() else {
            panic!("the fields were accepted");
        };
        let names: Vec<&str> = errors.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "c", "d", "f"]);
        assert_eq!(errors.fields["b"], ["Expected a string"]);
        assert_eq!(errors.fields["c"], ["Required"]);
    }
}
