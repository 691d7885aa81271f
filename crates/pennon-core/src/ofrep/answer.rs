//! What a caller gets: the value of one flag, or of all that she may see.

use lambda_http::http::StatusCode;
use pennon_eval::{Context, Reason, Work};
use serde::Serialize;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::failure::{Code, Failure, FailureItem};
use crate::http::{LARGEST_ANSWER, Response, beyond_lambda, json};
use crate::timestamp::unix_seconds;

/// The value of a flag on the wire. Without a value the code's own default counts, which is never
/// written as null.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    pub(super) key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<&'a Value>,
    pub(super) reason: Reason,
    pub(super) variant: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(super) metadata: Map<String, Value>,
}

/// One of the items of a bulk answer: a value, or why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Value(Item<'a>),
    Failure(FailureItem<'a>),
}

/// All flags on the wire.
#[derive(Debug, Serialize)]
pub struct Bulk<'a> {
    flags: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

impl Item<'_> {
    /// The flag and the variant that was given.
    #[must_use]
    pub fn given(&self) -> (&str, &str) {
        (self.key, self.variant)
    }
}

impl Bulk<'_> {
    /// The flags and the variants that were given.
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.flags.iter().filter_map(|entry| match entry {
            Entry::Value(item) => Some(item.given()),
            Entry::Failure(_) => None,
        })
    }

    /// The whole answer: 200, or 500 when it is larger than a function may answer. The gateway would
    /// make a 500 of that as well, and not say why.
    #[must_use]
    pub fn answer(&self) -> Response {
        let response = json(StatusCode::OK, self);
        let Some(size) = beyond_lambda(&response) else {
            return response;
        };
        let details = format!(
            "All flags together are {size} bytes, more than the {LARGEST_ANSWER} that fit into one \
             answer; ask for single flags, or make variants smaller"
        );
        tracing::error!(
            domain = "config",
            size,
            "all flags together do not fit into one answer"
        );
        Failure::general(StatusCode::INTERNAL_SERVER_ERROR, details).answer(None)
    }
}

impl Caller {
    /// One flag.
    ///
    /// # Errors
    /// Why it has no value.
    pub fn evaluate<'a>(&'a self, key: &'a str, context: &Context) -> Result<Item<'a>, Failure> {
        let snapshot = &self.reading.snapshot;
        let flag = snapshot.flags.get(key);
        if !flag.is_some_and(|flag| snapshot.shows(flag, self.kind)) {
            return Err(Failure::new(
                Code::FlagNotFound,
                format!("Flag '{key}' not found"),
            ));
        }
        self.item(key, context, unix_seconds(), &mut Work::default())
    }

    /// All flags that the caller may see, by key.
    #[must_use]
    pub fn evaluate_all(&self, context: &Context) -> Bulk<'_> {
        let now = unix_seconds();
        let mut work = Work::default();
        let snapshot = &self.reading.snapshot;
        let visible = snapshot
            .flags
            .iter()
            .filter(|(_, flag)| snapshot.shows(flag, self.kind));
        let flags = visible.map(|(key, _)| {
            let key = key.as_str();
            match self.item(key, context, now, &mut work) {
                Ok(item) => Entry::Value(item),
                Err(failure) => Entry::Failure(failure.into_item(key)),
            }
        });
        Bulk {
            flags: flags.collect(),
            metadata: flat(&snapshot.settings.metadata),
        }
    }

    fn item<'a>(
        &'a self,
        key: &'a str,
        context: &Context,
        now: i64,
        work: &mut Work,
    ) -> Result<Item<'a>, Failure> {
        let evaluation = self
            .reading
            .snapshot
            .rules()
            .evaluate_within(key, context, now, work)
            .map_err(|error| Failure::of_evaluation(key, &error, self.kind))?;
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
pub(super) fn flat(metadata: &Map<String, Value>) -> Map<String, Value> {
    let plain = metadata.iter().filter(|(_, value)| match value {
        Value::Bool(_) | Value::String(_) | Value::Number(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    });
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
