//! What a caller gets: the value of one flag, or of all that she may see.

use lambda_http::http::StatusCode;
use pennon_eval::{Context, Reason, Work};
use serde::Serialize;
use serde_json::{Map, Value};

use super::api_client::ApiClient;
use super::failure::{Code, Failure, FailureItem};
use crate::http::{LARGEST_ANSWER, Response, beyond_lambda, json};
use crate::timestamp::unix_seconds;
use crate::wire_size::wire_size;

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

    /// The whole answer.
    ///
    /// # Errors
    /// When it is larger than a function may answer: only SQL can store such a value.
    pub fn answer(&self) -> Result<Response, Failure> {
        let response = json(StatusCode::OK, self);
        match beyond_lambda(&response) {
            None => Ok(response),
            Some(size) => Err(too_large(self.key, size)),
        }
    }
}

/// Why a flag has no value whose value does not fit into an answer.
fn too_large(key: &str, size: usize) -> Failure {
    let details = format!(
        "The value of flag '{key}' is too large: it takes {size} bytes of the {LARGEST_ANSWER} that an \
         answer may have; make its variants smaller"
    );
    Failure::new(Code::General, details)
}

impl Bulk<'_> {
    /// The flags and the variants that were given.
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.flags.iter().filter_map(|entry| match entry {
            Entry::Value(item) => Some(item.given()),
            Entry::Failure(_) => None,
        })
    }

    /// The whole answer: 200. When it would be larger than a function may answer, the largest values become
    /// failures of their flags until the others fit. 500 when even that is too much: the gateway would make
    /// a 500 of it as well, and not say why.
    #[must_use]
    pub fn answer(&mut self) -> Response {
        let response = json(StatusCode::OK, self);
        let Some(size) = beyond_lambda(&response) else {
            return response;
        };
        drop(response);
        self.leave_out_largest(size);
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

    /// Puts failures in the place of the largest values until the answer, which has so many bytes, fits.
    fn leave_out_largest(&mut self, mut size: usize) {
        let entries = self.flags.iter_mut();
        let mut values: Vec<(usize, &mut Entry<'_>)> = entries
            .filter_map(|entry| match &*entry {
                Entry::Value(item) => Some((wire_size(item), entry)),
                Entry::Failure(_) => None,
            })
            .collect();
        values.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        for (of_value, entry) in values {
            let Entry::Value(Item { key, .. }) = *entry else {
                continue;
            };
            if size <= LARGEST_ANSWER {
                return;
            }
            tracing::error!(
                domain = "config",
                flag_key = key,
                size = of_value,
                "a value is left out: all flags together do not fit into one answer"
            );
            let failure = too_large(key, of_value).into_item(key);
            size = size.saturating_sub(of_value) + wire_size(&failure);
            *entry = Entry::Failure(failure);
        }
    }
}

impl ApiClient {
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
