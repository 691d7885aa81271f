//! The JSON of a flag on the routes of the existing service, which Pennon can replace: `docs/migration.md`.

use pennon_eval::{Flag, FlagKey};
use serde::Serialize;

/// The configured state of a flag, equal for all callers, with the fields in the order of the existing service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagState<'a> {
    key: &'a str,
    enabled: bool,
    rollout_percentage: u8,
    description: Option<&'a str>,
}

impl<'a> FlagState<'a> {
    /// The state of this flag.
    #[must_use]
    pub fn of(key: &'a FlagKey, flag: &'a Flag) -> Self {
        Self {
            key: key.as_str(),
            enabled: flag.enabled,
            rollout_percentage: flag.rollout_percentage.percent(),
            description: flag.description.as_deref(),
        }
    }
}
