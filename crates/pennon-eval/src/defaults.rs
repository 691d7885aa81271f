//! The defaults of an installation for settings that an environment leaves open.

use serde::{Deserialize, Serialize};

/// The defaults of an installation for partial rollouts, where the settings of an environment leave them open.
/// Chosen once per installation and stored, so that an upgrade never changes which users get a flag.
///
/// Serialised by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvaluationDefaults {
    /// As in the existing service, which Pennon can replace (docs/migration.md): `true` for a caller without a
    /// targeting key, and [`Bucketing::Sha256`].
    Existing,
    /// `false` for a caller without a targeting key, and [`Bucketing::Fractional`].
    New,
    /// The stored value is invalid. Evaluations that depend on it fail, so that no caller gets a value that
    /// differs from the earlier ones.
    Unreadable,
}

/// The hash that orders the users of a simple flag. A rollout of n % is on for the first n %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucketing {
    /// SHA-256 over the salt, if the flag has one, and the user id. Without a salt the order is the same for all flags.
    Sha256,
    /// flagd's `fractional` over the flag key, or the salt if the flag has one, and the user id. The setting
    /// `fractional` of the environment selects its version. The order is different for each key or salt, and
    /// equal to that of flagd's engines.
    Fractional,
}

impl EvaluationDefaults {
    /// Parses `existing` or `new`. [`Self::Unreadable`] cannot be chosen.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Existing, Self::New]
            .into_iter()
            .find(|defaults| defaults.name() == name)
    }

    /// `existing`, `new` or `unreadable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::New => "new",
            Self::Unreadable => "unreadable",
        }
    }

    /// The value of a partial rollout for a caller without a targeting key, on routes that cannot report that the
    /// key is missing. `None` for unreadable defaults.
    #[must_use]
    pub const fn anonymous_rollout(self) -> Option<bool> {
        match self {
            Self::Existing => Some(true),
            Self::New => Some(false),
            Self::Unreadable => None,
        }
    }

    /// The hash that orders the users of a simple flag. `None` for unreadable defaults.
    #[must_use]
    pub const fn bucketing(self) -> Option<Bucketing> {
        match self {
            Self::Existing => Some(Bucketing::Sha256),
            Self::New => Some(Bucketing::Fractional),
            Self::Unreadable => None,
        }
    }
}

impl Bucketing {
    /// Parses `sha256` or `fractional`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Fractional]
            .into_iter()
            .find(|bucketing| bucketing.name() == name)
    }

    /// `sha256` or `fractional`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Fractional => "fractional",
        }
    }
}
