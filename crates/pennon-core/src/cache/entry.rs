//! What stands in the hash of an environment.
//!
//! One field per flag: its key, and the flag as JSON. Beside them the fields of the protocol, which
//! all begin with `__`:
//!
//! | field | value |
//! |---|---|
//! | `__rev` | the revision of the flags |
//! | `__inst` | the installation that has filled it; see [`Installation`](crate::installation::Installation) |
//! | `__env` | what holds for all flags (settings, keys), as JSON; with these three the hash is an entry |
//! | `__l:<lease>` | a reader may fill until then (Redis' clock, ms) |
//! | `__head` | somebody is filling; others wait until then (ms) |
//! | `__d:<writer>` | that writer is done; its mark is not to be set again until then (ms) |
//! | `__b:<writer>` | somebody is committing; nobody may fill until then (ms) |
//! | `__f:<key>` | a flag whose own key begins with `__` |
//!
//! Version 0.1 may run beside this one. It takes `__rev` alone as an entry and passes over what it does
//! not know, so it can read ours: for it, a user who is to get a variant stands among a flag's
//! overrides as included, and which variant that is stands in `__env`. The other way round, an entry
//! of its making lacks definitions, settings and keys; without `__env` it is no entry to us, and is
//! replaced by one that both can read.

use std::collections::BTreeMap;

use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Settings};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::snapshot::{ApiKey, Revision, Snapshot};

/// The field that holds the revision.
pub(super) const REVISION: &str = "__rev";
/// The field that holds the id of the installation.
pub(super) const INSTALLATION: &str = "__inst";
const COMMON: &str = "__env";
const RESERVED: &str = "__";
const ESCAPED_FLAG: &str = "__f:";

/// The content of `__env`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Common {
    #[serde(default)]
    settings: Settings,
    /// Absent from entries of versions that knew one set of defaults only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    defaults: Option<EvaluationDefaults>,
    #[serde(default)]
    keys: BTreeMap<String, ApiKey>,
    /// Per flag and user, the variant that an override names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variants: BTreeMap<String, BTreeMap<String, String>>,
    /// Per flag, the users whose override cannot be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unreadable_overrides: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreadable_keys: Vec<String>,
}

/// The key of an environment's hash.
pub(super) fn key(prefix: &str, environment: &Environment) -> String {
    format!("{prefix}feature_flags:{environment}")
}

/// Why the fields of an entry are of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// A part of them was damaged, so none can be trusted.
    Corrupt,
    /// They are the flags of another installation.
    OtherInstallation,
}

/// All fields of a snapshot, the revision first, as field, value, field, value, ….
pub(super) fn encode(
    snapshot: &Snapshot,
    installation: &str,
) -> Result<Vec<String>, serde_json::Error> {
    let mut fields = Vec::with_capacity(6 + 2 * snapshot.flags.len());
    fields.push(REVISION.to_owned());
    fields.push(snapshot.revision.to_string());
    fields.push(INSTALLATION.to_owned());
    fields.push(installation.to_owned());
    let mut common = Common {
        settings: snapshot.settings.clone(),
        defaults: Some(snapshot.defaults),
        keys: snapshot.keys.clone(),
        variants: BTreeMap::new(),
        unreadable_overrides: BTreeMap::new(),
        unreadable_keys: snapshot.unreadable_keys.clone(),
    };
    for (key, flag) in &snapshot.flags {
        let (variants, unreadable) = (variants(flag), unreadable(flag));
        let text = if variants.is_none() && unreadable.is_empty() {
            serde_json::to_string(flag)?
        } else {
            serde_json::to_string(&with_plain_overrides(flag))?
        };
        if let Some(variants) = variants {
            common.variants.insert(key.to_string(), variants);
        }
        if !unreadable.is_empty() {
            common
                .unreadable_overrides
                .insert(key.to_string(), unreadable);
        }
        let key = key.as_str();
        fields.push(if key.starts_with(RESERVED) {
            format!("{ESCAPED_FLAG}{key}")
        } else {
            key.to_owned()
        });
        fields.push(text);
    }
    fields.push(COMMON.to_owned());
    fields.push(serde_json::to_string(&common)?);
    Ok(fields)
}

/// The snapshot that these fields hold.
///
/// # Errors
/// [`Unusable`]. Whose entry it is counts first: what another installation writes may have another form.
pub(super) fn decode(
    fields: &[(String, String)],
    installation: &str,
) -> Result<Snapshot, Unusable> {
    let filled_by = fields.iter().find(|(field, _)| field == INSTALLATION);
    match filled_by {
        Some((_, id)) if id == installation => snapshot_in(fields).ok_or(Unusable::Corrupt),
        Some(_) => Err(Unusable::OtherInstallation),
        None => Err(Unusable::Corrupt),
    }
}

fn snapshot_in(fields: &[(String, String)]) -> Option<Snapshot> {
    let mut revision = None;
    let mut common: Option<Common> = None;
    let mut flags = BTreeMap::new();
    for (field, value) in fields {
        let key = if field == REVISION {
            revision = Some(Revision(value.parse().ok()?));
            continue;
        } else if field == COMMON {
            common = Some(serde_json::from_str(value).ok()?);
            continue;
        } else if let Some(key) = field.strip_prefix(ESCAPED_FLAG) {
            key
        } else if field.starts_with(RESERVED) {
            continue;
        } else {
            field
        };
        let flag: Flag = serde_json::from_str(value).ok()?;
        flags.insert(FlagKey::parse(key).ok()?, flag);
    }
    let common = common?;
    for (key, variants) in common.variants {
        let flag = flags.get_mut(key.as_str())?;
        for (user, variant) in variants {
            flag.overrides.insert(user, Override::Variant(variant));
        }
    }
    for (key, users) in common.unreadable_overrides {
        let flag = flags.get_mut(key.as_str())?;
        for user in users {
            flag.overrides.insert(user, Override::Unreadable);
        }
    }
    Some(Snapshot {
        revision: revision?,
        flags,
        settings: common.settings,
        // Without them nobody can say what a caller without a key gets, so it is no entry.
        defaults: common.defaults?,
        keys: common.keys,
        unreadable_keys: common.unreadable_keys,
        ..Snapshot::empty()
    })
}

/// The overrides of a flag that name a variant, if there are any.
fn variants(flag: &Flag) -> Option<BTreeMap<String, String>> {
    let mut variants = BTreeMap::new();
    for (user, kind) in &flag.overrides {
        match kind {
            Override::Variant(variant) => {
                variants.insert(user.clone(), variant.clone());
            }
            Override::Include | Override::Exclude | Override::Unreadable => {}
        }
    }
    (!variants.is_empty()).then_some(variants)
}

/// The users of a flag whose override cannot be read.
fn unreadable(flag: &Flag) -> Vec<String> {
    let users = flag.overrides.iter();
    users
        .filter(|(_, kind)| **kind == Override::Unreadable)
        .map(|(user, _)| user.clone())
        .collect()
}

/// The same flag with every override in a form that version 0.1 can read.
fn with_plain_overrides(flag: &Flag) -> Flag {
    let mut plain = flag.clone();
    for kind in plain.overrides.values_mut() {
        match kind {
            Override::Variant(_) => *kind = Override::Include,
            Override::Unreadable => *kind = Override::Exclude,
            Override::Include | Override::Exclude => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "ours";

    fn pairs(flat: &[String]) -> Vec<(String, String)> {
        flat.chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }

    fn snapshot(keys: &[&str]) -> Snapshot {
        Snapshot {
            revision: Revision(1_700_000_000_123),
            flags: keys
                .iter()
                .map(|key| (FlagKey::parse(*key).expect("a key"), Flag::default()))
                .collect(),
            ..Snapshot::empty()
        }
    }

    #[test]
    fn a_snapshot_survives_whatever_its_keys_are() {
        for keys in [
            &[][..],
            &["a", "b"],
            &["__rev", "__env", "__l:x", "__b:x", "__head", "__f:a", "a"],
        ] {
            let snapshot = snapshot(keys);
            let fields = encode(&snapshot, OURS).expect("encodes");
            assert_eq!(decode(&pairs(&fields), OURS), Ok(snapshot));
        }
    }

    #[test]
    fn a_damaged_entry_is_no_entry() {
        let good = encode(&snapshot(&["a"]), OURS).expect("encodes");
        for (at, damage) in [(1, "x"), (1, ""), (5, "{"), (5, "null"), (4, "")] {
            let mut fields = good.clone();
            damage.clone_into(&mut fields[at]);
            let found = decode(&pairs(&fields), OURS);
            assert_eq!(found, Err(Unusable::Corrupt), "{damage:?} at {at}");
        }
        let without = |from: usize, to: usize| {
            let fields = [&good[..from], &good[to..]].concat();
            decode(&pairs(&fields), OURS)
        };
        assert_eq!(without(0, 2), Err(Unusable::Corrupt), "without a revision");
        assert_eq!(
            without(2, 4),
            Err(Unusable::Corrupt),
            "as version 0.1 fills"
        );
        assert_eq!(without(6, 8), Err(Unusable::Corrupt), "without __env");
    }

    #[test]
    fn an_entry_of_another_installation_is_told_from_a_damaged_one() {
        let mut fields = encode(&snapshot(&["a"]), "theirs").expect("encodes");
        let decoded = |fields: &[String]| decode(&pairs(fields), OURS);
        assert_eq!(decoded(&fields), Err(Unusable::OtherInstallation));
        "{".clone_into(&mut fields[5]);
        assert_eq!(decoded(&fields), Err(Unusable::OtherInstallation));
    }

    #[test]
    fn settings_keys_and_variants_travel_where_version_0_1_does_not_look() {
        let mut full = snapshot(&["theme"]);
        let key = ApiKey {
            id: "k-1".to_owned(),
            kind: crate::snapshot::KeyKind::Client,
        };
        full.keys.insert("ab".repeat(32), key);
        full.settings =
            serde_json::from_str(r#"{"evaluators":{"eu":{"==":[2.0,2]}}}"#).expect("settings");
        let flag = full.flags.get_mut("theme").expect("there");
        flag.overrides = BTreeMap::from([
            ("alice".to_owned(), Override::Variant("blue".to_owned())),
            ("bob".to_owned(), Override::Exclude),
        ]);
        let fields = encode(&full, OURS).expect("encodes");
        assert_eq!(decode(&pairs(&fields), OURS), Ok(full));
        let at = fields
            .iter()
            .position(|text| text == "theme")
            .expect("there");
        assert!(fields[at + 1].contains(r#""overrides":{"alice":"include","bob":"exclude"}"#));
    }

    #[test]
    fn the_key_is_the_one_the_stories_name() {
        let production = Environment::production();
        assert_eq!(key("", &production), "feature_flags:production");
        assert_eq!(key("b:", &production), "b:feature_flags:production");
    }
}
