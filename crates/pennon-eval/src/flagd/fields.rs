//! Names of fields in a flagd file.

// Fields of a flag: some of flagd's, and those of the short form of a simple flag.
pub(super) const STATE: &str = "state";
pub(super) const KEY: &str = "key";
pub(super) const DESCRIPTION: &str = "description";
pub(super) const ROLLOUT: &str = "rolloutPercentage";
pub(super) const SALT: &str = "salt";
pub(super) const BUCKETING: &str = "bucketing";
pub(super) const OVERRIDES: &str = "overrides";

/// Metadata of a flag: the rollout percentage, which marks the flag as simple.
pub(super) const META_ROLLOUT: &str = "pennon.rolloutPercentage";
pub(super) const META_SALT: &str = "pennon.salt";
/// Metadata of a flag, written by earlier versions instead of the field `description`.
pub(super) const META_DESCRIPTION: &str = "pennon.description";
pub(super) const META_OVERRIDES: &str = "pennon.overrides";
/// Metadata of the file: the version of `fractional`.
pub(super) const META_FRACTIONAL: &str = "pennon.fractional";
/// Metadata of a document for engines: the keys of flags that only Pennon can evaluate, separated by commas.
pub(super) const META_REMOTE_ONLY: &str = "pennon.remoteOnly";
// Metadata of the file: settings that override the defaults of the installation. A flag may have its own bucketing.
pub(super) const META_ANONYMOUS: &str = "pennon.anonymousRollout";
pub(super) const META_BUCKETING: &str = "pennon.bucketing";
pub(super) const META_PREFIX: &str = "pennon.";

/// Top-level fields of `flags.json`, which the local server removes before it parses a file. They are rejected in an
/// import, which would store them as unknown fields of the environment: they would take effect when that environment is
/// written to `flags.json`.
pub(super) const LOCAL_FIELDS: [&str; 2] = ["environments", "evaluationDefaults"];

/// Top-level field of an export: the parts that it omits because they are unreadable. `flags` lists keys, `settings` is
/// true if the settings are omitted. An import does not change the omitted parts.
pub(super) const UNREADABLE: &str = "pennon.unreadable";

/// Fields that the metadata of a flag must not have, because a file has Pennon's own fields under these names.
pub const RESERVED_FLAG_METADATA: [&str; 5] = [
    META_ROLLOUT,
    META_SALT,
    META_BUCKETING,
    META_DESCRIPTION,
    META_OVERRIDES,
];

/// Fields that the metadata of an environment must not have, for the same reason.
pub const RESERVED_SETTINGS_METADATA: [&str; 3] = [META_FRACTIONAL, META_ANONYMOUS, META_BUCKETING];
