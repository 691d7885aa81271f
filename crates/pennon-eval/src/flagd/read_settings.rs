//! Parses the settings of an environment in a flagd file.

use serde_json::{Map, Value};

use super::fields::{META_ANONYMOUS, META_BUCKETING, META_FRACTIONAL, META_PREFIX};
use super::file::Mode;
use crate::violation::Violations;
use crate::{FractionalVersion, Settings, validate};

/// Replaces fields, or merges new ones into them.
pub(super) fn put(into: &mut Map<String, Value>, new: Map<String, Value>, mode: Mode) {
    match mode {
        Mode::Replace => *into = new,
        Mode::Merge => into.extend(new),
    }
}

/// Parses the metadata of a file. `pennon.fractional`, `pennon.anonymousRollout` and `pennon.bucketing` are settings;
/// metadata with only these fields does not change the metadata of the environment. Other fields that begin with
/// `pennon.` are metadata without a meaning in Pennon: `keep` records their JSON pointers for `File::kept`.
pub(super) fn read_file_metadata(
    value: &Value,
    settings: &mut Settings,
    mode: Mode,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) {
    let mut metadata = validate::set_metadata(value, problems);
    let count = metadata.len();
    if let Some(version) = metadata.shift_remove(META_FRACTIONAL) {
        match version.as_str() {
            Some("v2") => settings.fractional = FractionalVersion::V2,
            Some("v3") => settings.fractional = FractionalVersion::V3,
            Some(_) | None => problems.inside(META_FRACTIONAL, |problems| {
                problems.add_wrong("\"v2\" or \"v3\"", &version);
            }),
        }
    }
    if let Some(anonymous) = metadata.shift_remove(META_ANONYMOUS) {
        problems.inside(META_ANONYMOUS, |problems| {
            let parsed = validate::anonymous_rollout(&anonymous, problems);
            settings.anonymous_rollout = parsed.or(settings.anonymous_rollout);
        });
    }
    if let Some(bucketing) = metadata.shift_remove(META_BUCKETING) {
        problems.inside(META_BUCKETING, |problems| {
            let parsed = validate::bucketing(&bucketing, problems);
            settings.bucketing = parsed.or(settings.bucketing);
        });
    }
    for name in metadata.keys() {
        if name.starts_with(META_PREFIX) {
            problems.inside(name, |problems| keep(problems));
        }
    }
    if !metadata.is_empty() || count == 0 {
        put(&mut settings.metadata, metadata, mode);
    }
}
