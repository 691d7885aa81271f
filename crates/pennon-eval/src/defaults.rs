//! How simple flags are evaluated where the settings of their environment do not say.

use serde::{Deserialize, Serialize};

/// Which answers an installation gives for partial rollouts where the settings of an environment leave it
/// open. It is decided once per installation and stored, so that an upgrade never changes who gets a flag.
///
/// Serialised by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvaluationDefaults {
    /// As an existing service with these tables: a caller without a targeting key gets `true`, and
    /// [`Bucketing::Sha256`].
    Existing,
    /// A caller without a targeting key gets `false`, and [`Bucketing::Fractional`].
    New,
    /// What is stored is neither of them. Flags whose answer depends on it fail, so that nobody gets
    /// another answer than the installation has given so far.
    Unreadable,
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
    /// The defaults of this name, `existing` or `new`. Nobody can choose [`Self::Unreadable`].
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

    /// What a caller without a targeting key gets from a partial rollout, on routes that cannot say that
    /// the key is missing. `None` when that cannot be read.
    #[must_use]
    pub const fn anonymous_rollout(self) -> Option<bool> {
        match self {
            Self::Existing => Some(true),
            Self::New => Some(false),
            Self::Unreadable => None,
        }
    }

    /// What places the users of a simple flag. `None` when that cannot be read.
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
