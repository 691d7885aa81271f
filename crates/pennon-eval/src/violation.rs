//! What is wrong with JSON that someone sent, and where.

use serde_json::{Map, Value};

/// What is wrong with a definition, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// A JSON pointer into what was checked.
    pub at: String,
    /// What is wrong there.
    pub problem: String,
}

/// Violations that are being collected, and the place that is looked at.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    at: String,
    found: Vec<Violation>,
}

/// More than anyone would read, and a bound on the answer to a hostile definition.
const MOST: usize = 50;

impl Violations {
    pub(crate) fn add(&mut self, problem: impl Into<String>) {
        self.add_at("", problem);
    }

    /// Adds what is wrong further in.
    pub(crate) fn add_at(&mut self, below: &str, problem: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push(Violation {
                at: format!("{}{below}", self.at),
                problem: problem.into(),
            });
        }
    }

    /// Looks at a field or an item.
    pub(crate) fn inside<T>(&mut self, step: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.at.len();
        self.at.push('/');
        self.at.push_str(&pointer_step(step));
        let result = work(self);
        self.at.truncate(length);
        result
    }

    /// Looks at the place of this JSON pointer.
    pub(crate) fn at<T>(&mut self, below: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.at.len();
        self.at.push_str(below);
        let result = work(self);
        self.at.truncate(length);
        result
    }

    /// The JSON pointer to the place that is looked at.
    pub(crate) fn pointer(&self) -> &str {
        &self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The result, unless there are problems.
    pub(crate) fn or<T>(self, result: T) -> Result<T, Vec<Violation>> {
        if self.found.is_empty() {
            Ok(result)
        } else {
            Err(self.found)
        }
    }

    /// The fields of an object; says so when it is none.
    pub(crate) fn object<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let fields = value.as_object();
        if fields.is_none() {
            self.add("must be an object");
        }
        fields
    }

    /// Takes an object whose values are texts, numbers and booleans.
    pub(crate) fn flat(&mut self, value: &Value) -> Map<String, Value> {
        let Some(fields) = self.object(value) else {
            return Map::new();
        };
        for (name, value) in fields {
            match value {
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    self.inside(name, |problems| {
                        problems.add("must be a string, a number or a boolean");
                    });
                }
            }
        }
        fields.clone()
    }
}

/// A field's name or an item's number as one step of a JSON pointer (RFC 6901, section 3).
#[must_use]
pub fn pointer_step(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
