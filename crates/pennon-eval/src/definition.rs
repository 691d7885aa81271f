//! What a flag is beyond a switch.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Bucketing, EvaluationDefaults};

/// Variants, and how one is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Values under their names.
    #[serde(default)]
    pub variants: Map<String, Value>,
    /// Whom no rule decides gets this one; without it, the code's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_variant: Option<String>,
    /// The rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targeting: Option<Value>,
    /// For whoever reads evaluations.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Set instead of all other fields when what is stored is no definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// JSON in a store that is not what it should be. It is kept as it is until somebody replaces it, and
/// only what depends on it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What is wrong with it.
    pub reason: String,
    /// The JSON.
    pub text: String,
}

/// What holds for every flag of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Rules that others name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub evaluators: Map<String, Value>,
    /// How `fractional` chooses.
    #[serde(default)]
    pub fractional: FractionalVersion,
    /// What a caller without a targeting key gets from a partial rollout of a simple flag, on routes that
    /// cannot say that the key is missing; without it, the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_rollout: Option<bool>,
    /// What places the users of simple flags; without it, the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucketing: Option<Bucketing>,
    /// For whoever reads evaluations.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Fields of the flagd file that the environment came from and that mean nothing to Pennon, such as
    /// `$schema`: kept for the export.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub other: Map<String, Value>,
    /// Set instead of all other fields when what is stored are no settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// What `fractional` hashes to place callers. Two environments that differ in it place the same callers
/// differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FractionalVersion {
    /// The bytes of a text, as flagd's older engines do: for rules whose callers must stay where they are.
    V2,
    /// Any value, in its CBOR encoding.
    #[default]
    V3,
}

/// Reads a stored JSON object; every field of it may be absent.
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

impl Settings {
    /// Takes JSON from a store as settings. What is none is kept, see [`Self::unreadable`].
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        match read_stored(text) {
            // A field of this name in the store is one that means nothing.
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

    /// The JSON that a store keeps.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn to_stored(&self) -> Result<String, serde_json::Error> {
        match &self.unreadable {
            Some(unreadable) => Ok(unreadable.text.clone()),
            None => serde_json::to_string(self),
        }
    }

    /// What a caller without a targeting key gets from a partial rollout in an installation with these
    /// defaults. `None` when it depends on defaults that cannot be read.
    #[must_use]
    pub fn anonymous_rollout(&self, defaults: EvaluationDefaults) -> Option<bool> {
        self.anonymous_rollout.or(defaults.anonymous_rollout())
    }

    /// What places the users of simple flags in an installation with these defaults. `None` when it
    /// depends on defaults that cannot be read.
    #[must_use]
    pub fn bucketing(&self, defaults: EvaluationDefaults) -> Option<Bucketing> {
        self.bucketing.or(defaults.bucketing())
    }
}

impl Definition {
    /// Takes JSON from a store as a definition. What is none is kept, see [`Self::unreadable`].
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        match read_stored(text) {
            // A field of this name in the store is one that means nothing.
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

    /// The JSON that a store keeps.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn to_stored(&self) -> Result<String, serde_json::Error> {
        match &self.unreadable {
            Some(unreadable) => Ok(unreadable.text.clone()),
            None => serde_json::to_string(self),
        }
    }

    /// Whether the rule gives another result with other settings.
    pub(crate) fn depends_on_settings(&self) -> bool {
        fn names(value: &Value) -> bool {
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
                Value::Array(items) => items.iter().any(names),
                Value::Object(fields) => fields.iter().any(|(name, value)| {
                    ["$ref", "fractional"].contains(&name.as_str()) || names(value)
                }),
            }
        }
        self.rule().is_some_and(names)
    }

    /// The rule; none when it is absent or empty.
    pub(crate) fn rule(&self) -> Option<&Value> {
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
    fn what_is_stored_cannot_say_of_itself_that_it_is_unreadable() {
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
                stored.unreadable.as_ref().map(|it| it.text.as_str()),
                Some(text)
            );
            assert_eq!(stored.to_stored().ok().as_deref(), Some(text));
        }
    }
}
