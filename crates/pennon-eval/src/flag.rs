//! A flag as evaluation needs it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Definition;

/// One feature flag in one environment. Its key is not part of it: a flag is always held under its
/// key.
///
/// The serialised form is what the Redis hash holds per field and what `flags.json` holds per flag.
/// Fields that are absent have their default, so that a version may add one while the version
/// before still writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flag {
    /// Off means off for everyone, whatever else is set.
    #[serde(default)]
    pub enabled: bool,
    /// The share of users who get `true`.
    #[serde(default)]
    pub rollout_percentage: Rollout,
    /// For people; evaluation never looks at it.
    #[serde(default)]
    pub description: Option<String>,
    /// What goes into the hash before the user's id, so that other users come first than for other
    /// flags. Without one they are the same for every flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Variants and targeting, when the flag is more than a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Fields of a flagd file that mean nothing to Pennon, kept for the export. Evaluation never looks at
    /// them, and an environment that was read for evaluation may lack them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub other: Map<String, Value>,
    /// Users who are decided by name, whatever their bucket.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, Override>,
}

/// What an override does with its user while the flag is enabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// The user gets `true`.
    Include,
    /// The user gets `false`.
    Exclude,
    /// The user gets this variant.
    Variant(String),
    /// What is stored is none of these: the user's evaluation fails.
    Unreadable,
}

impl Override {
    /// Whether the user gets `true` from a flag that knows on and off only. A variant that was named
    /// stands for being in.
    pub(crate) fn is_in(&self) -> bool {
        match self {
            Self::Include | Self::Variant(_) => true,
            Self::Exclude | Self::Unreadable => false,
        }
    }
}

/// A rollout percentage: a whole number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Rollout(u8);

/// The number is no rollout percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout percentage is a whole number from 0 to 100")]
pub struct RolloutOutOfRange;

impl Rollout {
    /// Takes a number as a percentage.
    ///
    /// # Errors
    /// [`RolloutOutOfRange`] when it is below 0 or above 100.
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
    fn a_rollout_is_a_whole_percentage() {
        for good in [0, 1, 99, 100] {
            assert_eq!(Rollout::parse(good).map(i64::from), Ok(good));
        }
        for bad in [-1, 101, 256, i64::MIN, i64::MAX] {
            assert_eq!(Rollout::parse(bad), Err(RolloutOutOfRange));
        }
    }

    #[test]
    fn a_flag_reads_what_it_wrote_and_fills_in_what_is_absent() {
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
