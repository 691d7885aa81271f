//! What a caller gets: the value of one flag, or of all that she may see.

use std::time::{SystemTime, UNIX_EPOCH};

use lambda_http::http::StatusCode;
use pennon_eval::{Context, Flag, Reason};
use serde::Serialize;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::failure::{Code, Failure, FailureItem};
use crate::snapshot::KeyKind;

/// What a function may answer. Lambda takes six megabytes, in which the body stands as a JSON text,
/// and its quotes as two characters each; the rest of the response is small.
const LARGEST_ANSWER: usize = 5_900_000;

/// The value of a flag on the wire. Without a value the code's own default counts, which is never
/// written as null.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
    reason: Reason,
    variant: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

/// One of the items of a bulk answer: a value, or why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Value(Item<'a>),
    Failure(FailureItem<'a>),
}

/// All flags on the wire.
#[derive(Debug)]
pub struct Bulk {
    /// The body.
    pub body: String,
    /// The variants that were given: flag, variant.
    pub given: Vec<(String, String)>,
}

impl Item<'_> {
    /// The flag and the variant that was given.
    #[must_use]
    pub fn given(&self) -> (&str, &str) {
        (self.key, self.variant)
    }
}

impl Caller {
    /// Whether the caller may know of a flag. A key for clients can be read by everyone who has the
    /// client, so flags whose metadata says `"serverOnly": true` do not exist for it.
    #[must_use]
    pub fn may_see(&self, flag: &Flag) -> bool {
        match self.kind {
            KeyKind::Server => true,
            KeyKind::Client => !flag.is_server_only(),
        }
    }

    /// One flag.
    ///
    /// # Errors
    /// Why it has no value.
    pub fn evaluate<'a>(&'a self, key: &'a str, context: &Context) -> Result<Item<'a>, Failure> {
        let flags = &self.reading.snapshot.flags;
        if !flags.get(key).is_some_and(|flag| self.may_see(flag)) {
            return Err(Failure::new(
                Code::FlagNotFound,
                format!("Flag '{key}' not found"),
            ));
        }
        self.item(key, context, now())
    }

    fn item<'a>(&'a self, key: &'a str, context: &Context, now: i64) -> Result<Item<'a>, Failure> {
        let evaluation = self
            .reading
            .ruleset
            .evaluate(key, context, now)
            .map_err(|error| Failure::of_evaluation(key, &error))?;
        Ok(Item {
            key,
            value: evaluation.value,
            reason: evaluation.reason,
            variant: evaluation.variant,
            metadata: flat(evaluation.metadata),
        })
    }
}

/// What OFREP and the SDKs take for metadata: booleans, texts and numbers, and nothing nested.
fn flat(metadata: &Map<String, Value>) -> Map<String, Value> {
    let plain = metadata.iter().filter(|(_, value)| match value {
        Value::Bool(_) | Value::String(_) | Value::Number(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    });
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Seconds since 1970, which rules may compare with.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
