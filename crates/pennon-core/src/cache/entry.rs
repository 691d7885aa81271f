//! What stands in the hash of an environment.
//!
//! One field per flag: its key, and the flag as JSON. Beside them the fields of the protocol, which
//! all begin with `__`:
//!
//! | field | value |
//! |---|---|
//! | `__rev` | the revision of the flags; with it the hash is an entry, without it there is none |
//! | `__l:<lease>` | a reader may fill until then (Redis' clock, ms) |
//! | `__head` | somebody is filling; others wait until then (ms) |
//! | `__b:<writer>` | somebody is committing; nobody may fill until then (ms) |
//! | `__f:<key>` | a flag whose own key begins with `__` |

use std::collections::BTreeMap;

use pennon_eval::{Flag, FlagKey};

use crate::environment::Environment;
use crate::snapshot::{Revision, Snapshot};

/// The field that holds the revision.
pub(super) const REVISION: &str = "__rev";
const RESERVED: &str = "__";
const ESCAPED_FLAG: &str = "__f:";

/// The key of an environment's hash.
pub(super) fn key(environment: &Environment) -> String {
    format!("feature_flags:{environment}")
}

/// All fields of a snapshot, the revision first, as field, value, field, value, ….
pub(super) fn encode(snapshot: &Snapshot) -> Result<Vec<String>, serde_json::Error> {
    let mut fields = Vec::with_capacity(2 + 2 * snapshot.flags.len());
    fields.push(REVISION.to_owned());
    fields.push(snapshot.revision.to_string());
    for (key, flag) in &snapshot.flags {
        let key = key.as_str();
        fields.push(if key.starts_with(RESERVED) {
            format!("{ESCAPED_FLAG}{key}")
        } else {
            key.to_owned()
        });
        fields.push(serde_json::to_string(flag)?);
    }
    Ok(fields)
}

/// The snapshot that these fields hold, or `None` when they make no sense: a part of them was
/// damaged, so none can be trusted.
pub(super) fn decode(fields: &[(String, String)]) -> Option<Snapshot> {
    let mut revision = None;
    let mut flags = BTreeMap::new();
    for (field, value) in fields {
        let key = if field == REVISION {
            revision = Some(Revision(value.parse().ok()?));
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
    Some(Snapshot {
        revision: revision?,
        flags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        }
    }

    #[test]
    fn a_snapshot_survives_whatever_its_keys_are() {
        for keys in [
            &[][..],
            &["a", "b"],
            &["__rev", "__l:x", "__b:x", "__head", "__f:a", "a"],
        ] {
            let snapshot = snapshot(keys);
            let fields = encode(&snapshot).expect("encodes");
            assert_eq!(decode(&pairs(&fields)), Some(snapshot));
        }
    }

    #[test]
    fn a_damaged_entry_is_no_entry() {
        let good = encode(&snapshot(&["a"])).expect("encodes");
        for (at, damage) in [(1, "x"), (1, ""), (3, "{"), (3, "null"), (2, "")] {
            let mut fields = good.clone();
            damage.clone_into(&mut fields[at]);
            assert_eq!(decode(&pairs(&fields)), None, "{damage:?} at {at}");
        }
        assert_eq!(decode(&pairs(&good[2..])), None, "without a revision");
    }

    #[test]
    fn the_key_is_the_one_the_stories_name() {
        assert_eq!(key(&Environment::production()), "feature_flags:production");
    }
}
