//! All flags of one environment at one moment.

use std::collections::BTreeMap;

use pennon_eval::{Flag, FlagKey};

/// Counts the changes of an environment. A later commit has a higher revision, always.
///
/// It starts at, and never falls behind, the database's clock in milliseconds: a database that is
/// restored or created anew continues above every revision that a cache may still hold. It stays
/// below 2^53, so that Lua and JSON readers keep every digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of an environment that has never had a flag.
    pub const NONE: Self = Self(0);
}

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The flags of an environment and the revision at which they were read, in one consistent read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision that these flags are the state of.
    pub revision: Revision,
    /// Every flag under its key.
    pub flags: BTreeMap<FlagKey, Flag>,
}

impl Snapshot {
    /// An environment without flags.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            revision: Revision::NONE,
            flags: BTreeMap::new(),
        }
    }
}
