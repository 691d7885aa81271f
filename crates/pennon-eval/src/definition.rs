//! Definitions of flags with variants, and settings of environments.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Bucketing, EvaluationDefaults};

/// The variants of a flag, and the rule that chooses one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// The values by name.
    #[serde(default)]
    pub variants: Map<String, Value>,
    /// The variant for callers for whom the rule chooses none; without it, the application uses its own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_variant: Option<String>,
    /// The targeting rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targeting: Option<Value>,
    /// Metadata in the result of an evaluation.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Set, instead of all other fields, if the stored JSON is not a valid definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// Stored JSON that cannot be parsed. It stays in the store until an editor replaces it, and only evaluations
/// that depend on it fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Why it cannot be parsed.
    pub reason: String,
    /// The stored text.
    pub text: String,
}

/// The settings of an environment, which apply to all its flags.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Named rules that other rules refer to.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub evaluators: Map<String, Value>,
    /// The version of `fractional`.
    #[serde(default)]
    pub fractional: FractionalVersion,
    /// The value of a simple flag with a partial rollout for a caller without a targeting key, on routes that
    /// cannot report that the key is missing. Without it the default of the installation applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_rollout: Option<bool>,
    /// The hash that orders the users of simple flags. Without it the default of the installation applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucketing: Option<Bucketing>,
    /// Metadata in the result of an evaluation.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Fields of an imported flagd file without a meaning in Pennon, such as `$schema`. An export contains them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub other: Map<String, Value>,
    /// Set, instead of all other fields, if the stored JSON is not valid settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// The version of the hash of `fractional`. The versions give a caller different buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FractionalVersion {
    /// Hashes the bytes of a text, as older flagd engines do: for rules whose callers must keep their variants.
    V2,
    /// Hashes the CBOR encoding of any value.
    #[default]
    V3,
}

/// Parses a stored JSON object. Every field may be absent.
fn read_stored<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    let read = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        Err("it is not a JSON object".to_owned())
    };
    read.map_err(|reason| Unreadable {
        reason,
        text: text.to_owned(),
    })
}

/// Writes the JSON for the store; unreadable JSON is written back unchanged.
fn write_stored(
    value: &impl Serialize,
    unreadable: Option<&Unreadable>,
) -> Result<String, serde_json::Error> {
    match unreadable {
        Some(unreadable) => Ok(unreadable.text.clone()),
        None => serde_json::to_string(value),
    }
}

impl Settings {
    /// Parses stored settings. Invalid JSON is kept in [`Self::unreadable`].
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        match read_stored(text) {
            // The field is for the cache; in the store it must not mark valid JSON as unreadable.
            Ok(settings) => Self {
                unreadable: None,
                ..settings
            },
            Err(unreadable) => Self {
                unreadable: Some(unreadable),
                ..Self::default()
            },
        }
    }

    /// The JSON for the store.
    ///
    /// # Errors
    /// If a value cannot be serialised.
    pub fn to_stored(&self) -> Result<String, serde_json::Error> {
        write_stored(self, self.unreadable.as_ref())
    }

    /// The value of a partial rollout for a caller without a targeting key, in an installation with these
    /// defaults. `None` if it depends on unreadable defaults.
    #[must_use]
    pub fn anonymous_rollout(&self, defaults: EvaluationDefaults) -> Option<bool> {
        self.anonymous_rollout.or(defaults.anonymous_rollout())
    }

    /// The hash that orders the users of simple flags, in an installation with these defaults. `None` if it
    /// depends on unreadable defaults.
    #[must_use]
    pub fn bucketing(&self, defaults: EvaluationDefaults) -> Option<Bucketing> {
        self.bucketing.or(defaults.bucketing())
    }
}

impl Definition {
    /// Parses a stored definition. Invalid JSON is kept in [`Self::unreadable`].
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        match read_stored(text) {
            // The field is for the cache; in the store it must not mark valid JSON as unreadable.
            Ok(definition) => Self {
                unreadable: None,
                ..definition
            },
            Err(unreadable) => Self {
                unreadable: Some(unreadable),
                ..Self::default()
            },
        }
    }

    /// The JSON for the store.
    ///
    /// # Errors
    /// If a value cannot be serialised.
    pub fn to_stored(&self) -> Result<String, serde_json::Error> {
        write_stored(self, self.unreadable.as_ref())
    }

    /// Whether the settings of the environment may change the result of the rule.
    pub(crate) fn depends_on_settings(&self) -> bool {
        self.has_operation(|operator, _| ["$ref", "fractional"].contains(&operator))
    }

    /// Whether `is_one` is true for an operator and its arguments, or for any other field of an object in the rule.
    pub(crate) fn has_operation(&self, is_one: impl Fn(&str, &Value) -> bool) -> bool {
        fn has(value: &Value, is_one: &impl Fn(&str, &Value) -> bool) -> bool {
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
                Value::Array(items) => items.iter().any(|item| has(item, is_one)),
                Value::Object(fields) => fields
                    .iter()
                    .any(|(name, value)| is_one(name, value) || has(value, is_one)),
            }
        }
        self.rule().is_some_and(|rule| has(rule, &is_one))
    }

    /// The rule. `None` without targeting, and for `null` and `{}`.
    #[must_use]
    pub fn rule(&self) -> Option<&Value> {
        let rule = self.targeting.as_ref();
        rule.filter(|rule| match rule {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_named_unreadable_in_a_stored_document_is_ignored() {
        let mark = r#""unreadable": {"reason": "r", "text": "no JSON"}"#;
        let definition = Definition::from_stored(&format!(r#"{{"variants": {{"a": 1}}, {mark}}}"#));
        assert_eq!(definition.unreadable, None);
        assert!(definition.variants.contains_key("a"));
        let settings = Settings::from_stored(&format!(r#"{{"fractional": "v2", {mark}}}"#));
        assert_eq!(settings.unreadable, None);
        assert_eq!(settings.fractional, FractionalVersion::V2);
        for text in ["null", "[]", "", "{", r#"{"variants": 1}"#] {
            let stored = Definition::from_stored(text);
            assert_eq!(
                stored.unreadable.as_ref().map(|found| found.text.as_str()),
                Some(text)
            );
            assert_eq!(stored.to_stored().ok().as_deref(), Some(text));
        }
    }
}
