//! Names of fields and of metadata in a flagd file.

/// Fields of a flag: some of flagd's, and those of the short form of a simple flag.
pub(super) const STATE: &str = "state";
pub(super) const KEY: &str = "key";
pub(super) const DESCRIPTION: &str = "description";
pub(super) const ROLLOUT: &str = "rolloutPercentage";
pub(super) const SALT: &str = "salt";
pub(super) const OVERRIDES: &str = "overrides";

/// Metadata of a flag: marks a simple flag, and is its rollout percentage.
pub(super) const META_ROLLOUT: &str = "pennon.rolloutPercentage";
pub(super) const META_SALT: &str = "pennon.salt";
/// Written by earlier versions, which did not know that a flagd file may have a `description`.
pub(super) const META_DESCRIPTION: &str = "pennon.description";
pub(super) const META_OVERRIDES: &str = "pennon.overrides";
/// Metadata of the file: the version of `fractional`.
pub(super) const META_FRACTIONAL: &str = "pennon.fractional";
/// Metadata of the file: settings that override the defaults of the installation.
pub(super) const META_ANONYMOUS: &str = "pennon.anonymousRollout";
pub(super) const META_BUCKETING: &str = "pennon.bucketing";
pub(super) const META_PREFIX: &str = "pennon.";

/// Top-level fields of `flags.json`. The local server takes them out before it reads the rest here; in
/// any other file they would be kept and then mean something in `flags.json`.
pub(super) const LOCAL_FIELDS: [&str; 2] = ["environments", "evaluationDefaults"];

/// Top-level field of an export: what the environment has and no file can hold, because it cannot be read.
/// `flags` lists keys, `settings` is true when the settings are missing. An import leaves both as they are.
pub(super) const UNREADABLE: &str = "pennon.unreadable";
