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

impl Settings {
    /// What a caller without a targeting key gets from a partial rollout in an installation with these
    /// defaults.
    #[must_use]
    pub fn anonymous_rollout(&self, defaults: EvaluationDefaults) -> bool {
        self.anonymous_rollout
            .unwrap_or(defaults.anonymous_rollout())
    }

    /// What places the users of simple flags in an installation with these defaults.
    #[must_use]
    pub fn bucketing(&self, defaults: EvaluationDefaults) -> Bucketing {
        self.bucketing.unwrap_or(defaults.bucketing())
    }
}

impl Definition {
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
