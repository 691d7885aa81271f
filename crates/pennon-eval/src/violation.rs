//! Violations in JSON from outside, with JSON pointers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde_json::{Map, Value};

use crate::json::quote;

/// A violation in a definition, in settings or in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Violation {
    /// A JSON pointer into the checked value.
    pub pointer: String,
    /// The message, such as `must be a string`: the pointer is its subject.
    pub message: String,
}

/// The violations found so far, and the pointer to the value that is being checked. Those above the limit are not
/// listed.
#[derive(Debug, Default)]
pub struct Violations {
    pointer: String,
    found: Vec<Violation>,
    /// The hashes of the violations that are not listed.
    unlisted: Vec<u64>,
}

/// Limit on listed violations: a hostile definition may have one in every value.
const MAX_VIOLATIONS: usize = 50;
/// Limit on violations that [`Violations::without`] compares. The others are only counted: their comparison would cost
/// more than the check of a hostile request.
const MAX_COMPARED: usize = 5_000;
/// Stands for a violation that is only counted.
const NOT_COMPARED: u64 = 0;
/// Limit on texts in a summary.
const MAX_IN_SUMMARY: usize = 10;
/// Limit on the text of an error, in bytes: longer than any text that does not quote the request.
const MAX_TEXT_LENGTH: usize = 4_000;

impl Violations {
    pub(crate) fn add(&mut self, message: impl Into<String>) {
        self.add_at("", message);
    }

    /// Adds a violation below the current value. Pointer and message are truncated: a name may have megabytes, and
    /// every violation below it would hold a copy.
    pub fn add_at(&mut self, below: &str, message: impl Into<String>) {
        if self.count() >= MAX_COMPARED {
            self.unlisted.push(NOT_COMPARED);
            return;
        }
        // No text is copied further than it can be part of the truncated pointer.
        let (above, below) = (start_of(&self.pointer), start_of(below));
        let violation = Violation {
            pointer: truncate_text(format!("{above}{below}")),
            message: truncate_text(message.into()),
        };
        if self.found.len() < MAX_VIOLATIONS {
            self.found.push(violation);
        } else {
            self.unlisted.push(hash_of(&violation));
        }
    }

    /// Adds all violations of another list, below the current value. Those that it does not list are counted.
    pub fn append(&mut self, other: Self) {
        self.extend(other.found);
        self.unlisted.extend(other.unlisted);
    }

    /// Changes each violation that is listed.
    #[must_use]
    pub fn map(mut self, change: impl FnMut(Violation) -> Violation) -> Self {
        self.found = self.found.into_iter().map(change).collect();
        self
    }

    /// The violations that `known` does not have, listed or not. Beyond the first 5,000 they count as equal.
    #[must_use]
    pub fn without(mut self, known: &Self) -> Self {
        let listed = known.found.iter().map(hash_of);
        let known: HashSet<u64> = listed.chain(known.unlisted.iter().copied()).collect();
        self.found.retain(|found| !known.contains(&hash_of(found)));
        self.unlisted.retain(|hash| !known.contains(hash));
        self
    }

    /// Adds a violation with the expected value and the actual one.
    pub(crate) fn add_wrong(&mut self, wanted: &str, value: &Value) {
        self.add(format!("must be {wanted} (got {})", quote(value)));
    }

    /// Checks a field or an item.
    pub fn inside<T>(&mut self, step: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        if step.contains(['~', '/']) {
            self.pointer.push_str(&pointer_step(step));
        } else {
            self.pointer.push_str(step);
        }
        let result = work(self);
        self.pointer.truncate(length);
        result
    }

    /// Checks the value at this JSON pointer below the current value.
    pub fn at<T>(&mut self, below: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push_str(below);
        let result = work(self);
        self.pointer.truncate(length);
        result
    }

    /// The JSON pointer to the current value.
    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Whether no violation was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The first violations, as a function describes them, and the number of the others, as one text.
    #[must_use]
    pub fn summary(&self, mut describe: impl FnMut(&Violation) -> String) -> String {
        let mut summary = Summary::default();
        for found in &self.found {
            summary.add_with(|| describe(found));
        }
        summary.count += self.unlisted.len();
        summary.join("; ")
    }

    /// The number of violations, including those that are not listed.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.unlisted.len()
    }

    /// The violations, at most 50. If there are more, the list ends with the number of the others.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Violation> {
        let more = self.unlisted.len();
        if more > 0 {
            let are = if more == 1 { "is" } else { "are" };
            self.found.push(Violation {
                pointer: String::new(),
                message: format!("{more} more {are} not listed"),
            });
        }
        self.found
    }

    /// The result, or the violations if there are any.
    ///
    /// # Errors
    /// The violations.
    pub fn into_result<T>(self, result: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(result)
        } else {
            Err(self)
        }
    }

    /// The fields of an object. Adds a violation for any other value.
    pub(crate) fn object<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let fields = value.as_object();
        if fields.is_none() {
            self.add("must be an object");
        }
        fields
    }

    /// Parses an object whose values are strings, numbers and booleans.
    pub(crate) fn object_of_scalars(&mut self, value: &Value) -> Map<String, Value> {
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

impl Extend<Violation> for Violations {
    fn extend<I: IntoIterator<Item = Violation>>(&mut self, found: I) {
        for Violation { pointer, message } in found {
            self.add_at(&pointer, message);
        }
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(found: I) -> Self {
        let mut violations = Self::default();
        violations.extend(found);
        violations
    }
}

/// The first of many texts, and the number of the others.
#[derive(Debug, Default)]
pub struct Summary {
    first: Vec<String>,
    count: usize,
}

impl Summary {
    /// Adds a text, or counts it if there are enough.
    pub fn add(&mut self, text: impl Into<String>) {
        self.add_with(|| text.into());
    }

    fn add_with(&mut self, text: impl FnOnce() -> String) {
        if self.first.len() < MAX_IN_SUMMARY {
            self.first.push(truncate_text(text()));
        }
        self.count += 1;
    }

    /// The number of texts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// All as one text, with this between them.
    #[must_use]
    pub fn join(&self, separator: &str) -> String {
        let text = self.first.join(separator);
        match self.count - self.first.len() {
            0 => text,
            more => format!("{text}{separator}and {more} more"),
        }
    }
}

fn hash_of(violation: &Violation) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(violation)
}

/// The start of a text, long enough that [`truncate_text`] truncates it if it would truncate the text.
fn start_of(text: &str) -> &str {
    &text[..text.ceil_char_boundary(MAX_TEXT_LENGTH + 1)]
}

/// Truncates the text of an error, which may quote the request.
#[must_use]
pub fn truncate_text<'a>(text: impl Into<Cow<'a, str>>) -> String {
    let text = text.into();
    if text.len() > MAX_TEXT_LENGTH {
        let begin = &text[..text.floor_char_boundary(MAX_TEXT_LENGTH)];
        format!("{begin}…")
    } else {
        text.into_owned()
    }
}

/// A name or an index as one step of a JSON pointer (RFC 6901, section 3).
#[must_use]
pub fn pointer_step(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_below_a_name_of_megabytes_are_counted_without_copies_of_the_name() {
        let mut list = Violations::default();
        list.inside(&"x".repeat(2_000_000), |list| {
            for _ in 0..300_000 {
                list.add("is wrong");
            }
        });
        assert_eq!(list.count(), 300_000);
        let first = list.into_list().remove(0);
        let expected = truncate_text(format!("/{}", "x".repeat(2 * MAX_TEXT_LENGTH)));
        assert_eq!(first.pointer, expected);
    }

    fn numbered(numbers: std::ops::Range<usize>) -> Violations {
        let mut list = Violations::default();
        for number in numbers {
            list.add_at(&format!("/{number}"), "is wrong");
        }
        list
    }

    #[test]
    fn violations_are_compared_exactly_whether_they_are_listed_or_not() {
        let known = numbered(0..60);
        for left in [1..60, 0..59, 40..60, 55..60] {
            let new = numbered(left).without(&known);
            assert!(new.is_empty(), "{new:?}");
        }
        assert_eq!(numbered(50..75).without(&known).count(), 15);
        assert_eq!(numbered(30..100).without(&known).count(), 40);
        assert_eq!(numbered(60..120).without(&known).count(), 60);
        let new = numbered(55..70).without(&known).into_list();
        let pointers = new.iter().map(|found| found.pointer.clone());
        assert!(pointers.eq((60..70).map(|number| format!("/{number}"))));
    }

    #[test]
    fn a_summary_counts_all_violations_that_it_does_not_contain() {
        let text = numbered(0..60).summary(|found| found.pointer.clone());
        assert_eq!(text, "/0; /1; /2; /3; /4; /5; /6; /7; /8; /9; and 50 more");
        let text = numbered(0..2).summary(|found| found.message.clone());
        assert_eq!(text, "is wrong; is wrong");
    }

    #[test]
    fn new_violations_that_are_not_listed_are_counted() {
        let known = numbered(0..60);
        assert!(numbered(0..55).without(&known).into_list().is_empty());
        let new = numbered(0..63).without(&known);
        let new = new.into_list();
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].message, "3 more are not listed");
        assert_eq!(numbered(60..70).without(&known).into_list().len(), 10);
    }
}
