//! The form of the file: environments, and in each the flags under their keys, as people write them.
//! What only the service writes stands apart, under a name that no environment can have.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey, Settings};
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::written::FlagsOf;
use crate::environment::Environment;
use crate::store::record::{AuditEntry, FlagRecord, KeyRecord, OverrideRecord, ScheduleRecord};

/// Under this name stands what only the service writes.
const BESIDE: &str = "$pennon";

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Contents {
    /// The flags in use.
    pub(super) environments: BTreeMap<String, BTreeMap<FlagKey, Flag>>,
    /// All else, by environment.
    pub(super) beside: BTreeMap<String, Beside>,
}

/// What the service keeps of an environment beside its flags. All of it may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Beside {
    #[serde(skip_serializing_if = "is_default")]
    pub(super) settings: Settings,
    /// API keys under their hashes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) keys: BTreeMap<String, KeyRecord>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) archived: BTreeMap<FlagKey, Archived>,
    /// When flags came into being and were last changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) times: BTreeMap<FlagKey, Times>,
    /// Of overrides, what evaluation does not need, by flag and user.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) overrides: BTreeMap<FlagKey, BTreeMap<String, OverrideNote>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) schedules: Vec<ScheduleRecord>,
    /// Oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) audit: Vec<AuditEntry>,
}

/// A flag out of use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Archived {
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) archived_at: Option<SystemTime>,
    pub(super) flag: Flag,
}

/// When a flag came into being and was last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Times {
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) created_at: Option<SystemTime>,
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) updated_at: Option<SystemTime>,
}

/// Of an override, what evaluation does not need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OverrideNote {
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) created_by: Option<String>,
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) created_at: Option<SystemTime>,
}

impl Contents {
    pub(super) fn flag(&self, environment: &str, key: &FlagKey) -> Option<FlagRecord> {
        let beside = self.beside.get(environment);
        let times = beside
            .and_then(|beside| beside.times.get(key))
            .copied()
            .unwrap_or_default();
        let live = self
            .environments
            .get(environment)
            .and_then(|flags| flags.get(key));
        let (flag, archived) = if let Some(flag) = live {
            (flag, None)
        } else {
            let archived = beside?.archived.get(key)?;
            (&archived.flag, Some(archived))
        };
        let mut flag = flag.clone();
        flag.overrides.clear();
        Some(FlagRecord {
            revision: digest_of(&(&flag, archived.is_some())),
            flag,
            archived_at: archived.and_then(|archived| {
                // Whoever archives by hand need not say when.
                archived.archived_at.or(Some(SystemTime::UNIX_EPOCH))
            }),
            created_at: times.created_at,
            updated_at: times.updated_at,
        })
    }

    /// Every flag's record, archived ones included.
    pub(super) fn flags(&self, environment: &str) -> BTreeMap<FlagKey, FlagRecord> {
        let live = self.environments.get(environment);
        let archived = self.beside.get(environment).map(|beside| &beside.archived);
        let keys = live
            .into_iter()
            .flat_map(BTreeMap::keys)
            .chain(archived.into_iter().flat_map(BTreeMap::keys));
        keys.filter_map(|key| Some((key.clone(), self.flag(environment, key)?)))
            .collect()
    }

    /// The overrides of a flag, archived or not, oldest first.
    pub(super) fn overrides(&self, environment: &str, key: &FlagKey) -> Vec<OverrideRecord> {
        let beside = self.beside.get(environment);
        let live = self
            .environments
            .get(environment)
            .and_then(|flags| flags.get(key));
        let archived = || Some(&beside?.archived.get(key)?.flag);
        let notes = beside.and_then(|beside| beside.overrides.get(key));
        let mut records: Vec<OverrideRecord> = live
            .or_else(archived)
            .into_iter()
            .flat_map(|flag| &flag.overrides)
            .map(|(user, kind)| {
                let note = notes
                    .and_then(|notes| notes.get(user))
                    .cloned()
                    .unwrap_or_default();
                OverrideRecord {
                    user_id: user.clone(),
                    kind: kind.clone(),
                    reason: note.reason,
                    created_by: note.created_by,
                    created_at: note.created_at,
                }
            })
            .collect();
        records.sort_by_key(|record| record.created_at);
        records
    }

    /// A number that follows from all overrides of a flag.
    pub(super) fn overrides_revision(&self, environment: &str, key: &FlagKey) -> i64 {
        let mut all = self.overrides(environment, key);
        all.sort_by(|one, other| one.user_id.cmp(&other.user_id));
        let states: Vec<_> = all
            .iter()
            .map(|one| (&one.user_id, &one.kind, &one.reason))
            .collect();
        digest_of(&states)
    }

    /// Everything that is known of an environment but its flags, to be changed.
    pub(super) fn beside(&mut self, environment: &str) -> &mut Beside {
        self.beside.entry(environment.to_owned()).or_default()
    }
}

/// A number that another content has another of: what stands in for a revision where people edit the
/// file by hand and count nothing. It stays below 2^48, so that every reader keeps every digit.
pub(super) fn digest_of(content: &impl Serialize) -> i64 {
    let text = serde_json::to_vec(content).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest[..6]
        .iter()
        .fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Serialize for Contents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (environment, flags) in &self.environments {
            map.serialize_entry(environment, flags)?;
        }
        let beside: BTreeMap<&String, &Beside> = self
            .beside
            .iter()
            .filter(|(_, beside)| !is_default(*beside))
            .collect();
        if !beside.is_empty() {
            map.serialize_entry(BESIDE, &beside)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ContentsVisitor)
    }
}

/// Reads entry by entry, so that a mistake is reported with its line.
struct ContentsVisitor;

impl<'de> Visitor<'de> for ContentsVisitor {
    type Value = Contents;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object with an object of flags per environment")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Contents, M::Error> {
        let mut contents = Contents::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == BESIDE {
                contents.beside = map.next_value()?;
            } else {
                if let Err(error) = Environment::parse(&name) {
                    return Err(M::Error::custom(format!("'{name}': {error}")));
                }
                let flags = map.next_value_seed(FlagsOf(&name))?;
                contents.environments.insert(name, flags);
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_before_loads_and_stays_as_it_is() {
        let text = r#"{"production":{"a":{"enabled":true,"rolloutPercentage":5,"description":null,"overrides":{"alice":"include"}}}}"#;
        let contents: Contents = serde_json::from_str(text).expect("loads");
        let key = FlagKey::parse("a").expect("a key");
        assert_eq!(contents.overrides("production", &key).len(), 1);
        assert_eq!(
            contents.flag("production", &key).expect("there").created_at,
            None
        );
        assert_eq!(serde_json::to_string(&contents).expect("writes"), text);
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        let text = "{\n\"production\": {\n\"a\": {\"rolloutPercentage\": 101}\n}\n}";
        let error = serde_json::from_str::<Contents>(text).expect_err("out of range");
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
