//! How simple flags are evaluated where the settings of their environment do not say.

use serde::{Deserialize, Serialize};

/// Which answers an installation gives for partial rollouts where the settings of an environment leave it
/// open. It is decided once per installation and stored, so that an upgrade never changes who gets a flag.
///
/// Serialised as `existing` or `new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvaluationDefaults {
    /// As the service that Pennon replaces: a caller without a targeting key gets `true`, and
    /// [`Bucketing::Sha256`].
    Existing,
    /// A caller without a targeting key gets `false`, and [`Bucketing::Fractional`].
    New,
}

/// What places the users of a simple flag in an order; the first of them get `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucketing {
    /// SHA-256 over the user id, the same order for every flag without a salt.
    Sha256,
    /// flagd's `fractional` over flag key and user id, in the version of the environment: an order for
    /// each flag, which flagd's engines compute as well.
    Fractional,
}

impl EvaluationDefaults {
    /// The defaults of this name, `existing` or `new`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Existing, Self::New]
            .into_iter()
            .find(|defaults| defaults.name() == name)
    }

    /// `existing` or `new`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::New => "new",
        }
    }

    /// What a caller without a targeting key gets from a partial rollout, on routes that cannot say that
    /// the key is missing.
    #[must_use]
    pub const fn anonymous_rollout(self) -> bool {
        match self {
            Self::Existing => true,
            Self::New => false,
        }
    }

    /// What places the users of a simple flag.
    #[must_use]
    pub const fn bucketing(self) -> Bucketing {
        match self {
            Self::Existing => Bucketing::Sha256,
            Self::New => Bucketing::Fractional,
        }
    }
}

impl Bucketing {
    /// The bucketing of this name, `sha256` or `fractional`.
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
