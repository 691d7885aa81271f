//! The value of one flag in an OFREP response.

use pennon_eval::Reason;
use serde::Serialize;
use serde_json::{Map, Value};

/// The value of a flag. The field `value` is omitted, not null, when the application's own default applies.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    pub(crate) key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<&'a Value>,
    pub(crate) reason: Reason,
    pub(crate) variant: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) metadata: Map<String, Value>,
}

impl Item<'_> {
    /// The key of the flag and the variant served.
    #[must_use]
    pub fn served(&self) -> (&str, &str) {
        (self.key, self.variant)
    }
}

/// The fields of metadata that OFREP and the SDKs accept: booleans, strings and numbers. The others are left out.
pub(crate) fn without_nested_values(metadata: &Map<String, Value>) -> Map<String, Value> {
    let plain = metadata.iter().filter(|(_, value)| match value {
        Value::Bool(_) | Value::String(_) | Value::Number(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    });
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
