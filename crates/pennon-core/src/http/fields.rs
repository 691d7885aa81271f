//! The fields of a JSON body, taken one by one so that every mistake is reported at once.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Complaints, Error};

/// A body that is no JSON, and where it ceases to be.
#[must_use]
pub fn not_json(error: &serde_json::Error) -> Error {
    Error::invalid_form(format!("The body is not valid JSON: {error}"))
}

/// A JSON object, and what has been wrong with it so far.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    /// What is wrong; a handler may add to it.
    pub complaints: Complaints,
}

impl Fields {
    /// Takes a body as a JSON object.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is none.
    pub fn of(body: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self {
                fields,
                complaints: Complaints::default(),
            }),
            Ok(_) => Err(Error::invalid_form("Expected a JSON object")),
            Err(error) => Err(not_json(&error)),
        }
    }

    /// Takes the fields of an object within a body.
    #[must_use]
    pub fn within(fields: Map<String, Value>) -> Self {
        Self {
            fields,
            complaints: Complaints::default(),
        }
    }

    /// Takes a text whose number of characters lies in this range. Absent and `null` are nothing.
    pub fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        match self.fields.shift_remove(name)? {
            Value::Null => None,
            Value::String(text) if !length.contains(&text.chars().count()) => {
                let (least, most) = (length.start(), length.end());
                let complaint = format!("Must have {least} to {most} characters");
                self.complaints.add(name, complaint);
                None
            }
            // PostgreSQL keeps every character but this one.
            Value::String(text) if text.contains('\0') => {
                self.complaints.add(name, "Must not hold a NUL character");
                None
            }
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.complaints.add(name, "Expected a string");
                None
            }
        }
    }

    /// How many have not been taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// Takes a field in the form that it is read into, or complains in the reader's words.
    pub fn take<T, Complaint: Into<String>>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Complaint>,
    ) -> Option<T> {
        match read(&self.fields.shift_remove(name)?) {
            Ok(taken) => Some(taken),
            Err(complaint) => {
                self.complaints.add(name, complaint);
                None
            }
        }
    }

    /// The same for a field that may be `null`, which is nothing as well.
    pub fn take_or_null<T, Complaint: Into<String>>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Complaint>,
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

    /// Adds a complaint about a field that must be there, unless there is one already.
    pub fn must_have<T>(&mut self, name: &str, found: Option<&T>) {
        if found.is_none() && !self.complaints.fields.contains_key(name) {
            self.complaints.add(name, "Required");
        }
    }

    /// Adds a complaint about every field that has not been taken: for routes that no older client
    /// knows, so that a typing error is no silent one.
    pub fn must_be_empty(&mut self) {
        for (name, _) in self.rest() {
            self.complaints.add(&name, "Unknown field");
        }
    }

    /// Whether all was well.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all complaints.
    pub fn finish(self) -> Result<(), Error> {
        if self.complaints.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.complaints))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let Err(Error::Invalid(complaints)) = fields.finish() else {
            panic!("complaints");
        };
        let names: Vec<&str> = complaints.fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "c", "d", "f"]);
        assert_eq!(complaints.fields["b"], ["Expected a string"]);
        assert_eq!(complaints.fields["c"], ["Required"]);
    }
}
