//! A feature flag.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Bucketing, Definition, EvaluationDefaults, Settings};

/// One feature flag in one environment, without its key: flags are stored in maps by key.
///
/// The serialised form is the value of a field of the Redis hash. Absent fields get their defaults, so that a new
/// version can add a field while the previous version still writes entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flag {
    /// A disabled simple flag is off for everyone, whatever else is set, and a disabled typed flag has no value.
    #[serde(default)]
    pub enabled: bool,
    /// The percentage of users for whom a simple flag is `true`.
    #[serde(default)]
    pub rollout_percentage: Rollout,
    /// A description for people. Evaluation ignores it.
    #[serde(default)]
    pub description: Option<String>,
    /// Hashed before the id of the user, so that flags with different salts start with different users. Without a
    /// salt the order by [`Bucketing::Sha256`](crate::Bucketing::Sha256) is the same for every flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// The hash that orders the users of a simple flag. Without it that of the environment applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucketing: Option<Bucketing>,
    /// The variants and the rule of a typed flag; a simple flag has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Fields of an imported flagd file without a meaning in Pennon, for the export. Evaluation ignores them, and
    /// a snapshot for evaluation may lack them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub other: Map<String, Value>,
    /// Overrides by user id. They apply before the rule or the rollout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
}

impl Flag {
    /// The hash that orders the users of this flag, if it is a simple one, in an environment with these settings. `None`
    /// if it depends on unreadable defaults.
    #[must_use]
    pub fn bucketing(
        &self,
        settings: &Settings,
        defaults: EvaluationDefaults,
    ) -> Option<Bucketing> {
        self.bucketing.or(settings.bucketing(defaults))
    }
}

/// The value of an enabled flag for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// The user gets `true` from a simple flag, and the default variant of a typed flag.
    Include,
    /// The user gets `false` from a simple flag, and the default variant of a typed flag.
    Exclude,
    /// The user gets this variant of a typed flag, and `true` from a simple flag.
    Variant(String),
    /// The stored override is invalid, so evaluations for this user fail.
    Unreadable,
}

impl Override {
    /// Whether a simple flag is on for the user. An override with a variant counts as on.
    pub(crate) fn is_in(&self) -> bool {
        match self {
            Self::Include | Self::Variant(_) => true,
            Self::Exclude | Self::Unreadable => false,
        }
    }
}

/// A rollout percentage: an integer from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Rollout(u8);

/// The percentage is below 0 or above 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout percentage must be an integer from 0 to 100")]
pub struct RolloutOutOfRange;

impl Rollout {
    /// Parses a percentage.
    ///
    /// # Errors
    /// [`RolloutOutOfRange`] if it is below 0 or above 100.
    pub fn parse(percent: i64) -> Result<Self, RolloutOutOfRange> {
        match u8::try_from(percent) {
            Ok(percent) if percent <= 100 => Ok(Self(percent)),
            Ok(_) | Err(_) => Err(RolloutOutOfRange),
        }
    }

    /// The percentage, 0 to 100.
    #[must_use]
    pub fn percent(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Rollout {
    type Error = RolloutOutOfRange;

    fn try_from(percent: i64) -> Result<Self, Self::Error> {
        Self::parse(percent)
    }
}

impl From<Rollout> for i64 {
    fn from(rollout: Rollout) -> Self {
        i64::from(rollout.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_an_integer_from_0_to_100() {
        for good in [0, 1, 99, 100] {
            assert_eq!(Rollout::parse(good).map(i64::from), Ok(good));
        }
        for bad in [-1, 101, 256, i64::MIN, i64::MAX] {
            assert_eq!(Rollout::parse(bad), Err(RolloutOutOfRange));
        }
    }

    #[test]
    fn a_serialised_flag_is_parsed_again_and_absent_fields_get_defaults() {
        let flag = Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(25).expect("in range"),
            description: Some("ünïcode \"quoted\"".to_owned()),
            overrides: BTreeMap::from([("alice".to_owned(), Override::Exclude)]),
            ..Flag::default()
        };
        let text = serde_json::to_string(&flag).expect("serialises");
        assert_eq!(serde_json::from_str::<Flag>(&text).expect("reads"), flag);
        assert_eq!(
            serde_json::from_str::<Flag>("{}").expect("reads"),
            Flag::default()
        );
        assert!(serde_json::from_str::<Flag>(r#"{"rolloutPercentage":101}"#).is_err());
    }
}
