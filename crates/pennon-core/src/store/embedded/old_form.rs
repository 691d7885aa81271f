//! The form that `flags.json` had before it was a flagd file: an object of environments, each an object
//! of flags, and everything else under `$pennon`. It is read once, to be converted.

use std::collections::BTreeMap;

use pennon_eval::{Definition, EvaluationDefaults, Flag, FlagKey, Override, Rollout, Settings};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::flags_file::{Contents, FlagSet, broken_rules};
use super::state::{Archived, EnvironmentNote, FlagNote, OverrideNote, Record};
use crate::environment::Environment;
use crate::store::record::{AuditEntry, KeyRecord, ScheduleRecord};

/// Under this name stands what only the service writes.
const BESIDE: &str = "$pennon";
/// Fields that a flagd file has at its top, and what Pennon adds there.
const FLAGD: [&str; 4] = [
    "$schema",
    "$evaluators",
    "evaluationDefaults",
    "environments",
];

/// What a file in the old form holds.
#[derive(Debug, Default)]
pub(super) struct OldForm {
    /// The flags in use.
    environments: BTreeMap<String, BTreeMap<FlagKey, Flag>>,
    /// All else, by environment.
    beside: BTreeMap<String, Beside>,
}

/// What stands of an environment beside its flags. All of it may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Beside {
    settings: Settings,
    /// API keys under their hashes.
    keys: BTreeMap<String, KeyRecord>,
    archived: BTreeMap<FlagKey, Archived>,
    /// When flags were created and last changed.
    times: BTreeMap<FlagKey, FlagNote>,
    overrides: BTreeMap<FlagKey, BTreeMap<String, OverrideNote>>,
    schedules: Vec<ScheduleRecord>,
    /// Oldest first.
    audit: Vec<AuditEntry>,
}

/// Whether a file has the old form. A flagd file always has `flags`; an environment of this name is
/// taken for one only where the file says otherwise that it is old.
pub(super) fn is_old(file: &Value) -> bool {
    let Some(fields) = file.as_object() else {
        return false;
    };
    if fields.contains_key(BESIDE) {
        return true;
    }
    !has_flags_of_flagd(fields)
        && !FLAGD.iter().any(|name| fields.contains_key(*name))
        && fields.values().all(Value::is_object)
}

fn has_flags_of_flagd(file: &Map<String, Value>) -> bool {
    match file.get("flags") {
        None => false,
        Some(Value::Object(flags)) => {
            !file.contains_key("production")
                || flags.values().any(|flag| flag.get("state").is_some())
        }
        Some(_) => true,
    }
}

impl OldForm {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What a new file says instead, and what belongs beside it. Every user gets what they got.
    pub(super) fn convert(self) -> (Contents, Vec<Record>) {
        let mut contents = Contents {
            defaults: EvaluationDefaults::Existing,
            ..Contents::default()
        };
        let mut records = Vec::new();
        let mut audit = Vec::new();
        let mut beside = self.beside;
        for (environment, flags) in self.environments {
            let beside = beside.entry(environment.clone()).or_default();
            for (key, flag) in &flags {
                let mut note = beside.times.remove(key).unwrap_or_default();
                if flag.definition.is_some() {
                    note.rollout_percentage = flag.rollout_percentage;
                    note.salt.clone_from(&flag.salt);
                }
                note.exempt = !broken_rules(key, flag, beside.schedules.iter()).is_empty();
                if note.exempt {
                    tracing::warn!(
                        environment,
                        flag_key = key.as_str(),
                        "the flag is from before today's rules and stays as it is"
                    );
                }
                if note != FlagNote::default() {
                    let (environment, key) = (environment.clone(), key.clone());
                    records.push(Record::Flag {
                        environment,
                        key,
                        note,
                    });
                }
            }
            let settings = std::mem::take(&mut beside.settings);
            let set = FlagSet { flags, settings };
            let note = set.note(&environment);
            if note != EnvironmentNote::default() {
                let environment = environment.clone();
                records.push(Record::Environment { environment, note });
            }
            contents.environments.insert(environment, set);
        }
        for (name, beside) in beside {
            if beside.settings != Settings::default() {
                let set = contents.of(&name);
                set.settings = beside.settings;
                let (environment, note) = (name.clone(), set.note(&name));
                if note != EnvironmentNote::default() {
                    records.push(Record::Environment { environment, note });
                }
            }
            let environment = || name.clone();
            records.extend(
                beside
                    .archived
                    .into_iter()
                    .map(|(key, archived)| Record::Archived {
                        environment: environment(),
                        key,
                        archived: Some(Box::new(archived)),
                    }),
            );
            records.extend(beside.times.into_iter().map(|(key, note)| Record::Flag {
                environment: environment(),
                key,
                note,
            }));
            for (key, notes) in beside.overrides {
                records.extend(notes.into_iter().map(|(user, note)| Record::Override {
                    environment: environment(),
                    key: key.clone(),
                    user,
                    note: Some(note),
                }));
            }
            records.extend(beside.keys.into_iter().map(|(hash, key)| Record::Key {
                environment: environment(),
                hash,
                key,
            }));
            let schedules = beside.schedules.into_iter();
            records.extend(schedules.map(|schedule| Record::Schedule {
                environment: environment(),
                schedule: Box::new(schedule),
            }));
            audit.extend(beside.audit);
        }
        audit.sort_by_key(|entry: &AuditEntry| entry.id);
        records.extend(audit.into_iter().map(Record::Audit));
        (contents, records)
    }
}

impl<'de> Deserialize<'de> for OldForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OldFormVisitor)
    }
}

/// Reads entry by entry, so that a mistake is reported with its line.
struct OldFormVisitor;

impl<'de> Visitor<'de> for OldFormVisitor {
    type Value = OldForm;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object with an object of flags per environment")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<OldForm, M::Error> {
        let mut old = OldForm::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == BESIDE {
                old.beside = map.next_value()?;
            } else {
                if let Err(error) = Environment::parse(&name) {
                    return Err(M::Error::custom(format!("'{name}': {error}")));
                }
                let flags = map.next_value_seed(FlagsOf(&name))?;
                old.environments.insert(name, flags);
            }
        }
        Ok(old)
    }
}

/// A flag.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenFlag {
    enabled: bool,
    rollout_percentage: Rollout,
    description: Option<String>,
    salt: Option<String>,
    definition: Option<WrittenDefinition>,
    overrides: BTreeMap<String, Override>,
}

/// What a flag is beyond a switch.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenDefinition {
    variants: Map<String, Value>,
    default_variant: Option<String>,
    targeting: Option<Value>,
    metadata: Map<String, Value>,
}

/// The flags of the environment of this name.
pub(super) struct FlagsOf<'a>(pub(super) &'a str);

impl<'de> DeserializeSeed<'de> for FlagsOf<'_> {
    type Value = BTreeMap<FlagKey, Flag>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Reads flag by flag, so that a mistake is reported with the flag that it is in.
impl<'de> Visitor<'de> for FlagsOf<'_> {
    type Value = BTreeMap<FlagKey, Flag>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "an object with the flags of '{}'", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let environment = self.0;
        let in_environment =
            |error: M::Error| M::Error::custom(format!("in '{environment}': {error}"));
        let mut flags = BTreeMap::new();
        while let Some(key) = map.next_key::<FlagKey>().map_err(in_environment)? {
            let in_flag = |error: M::Error| {
                M::Error::custom(format!("flag '{key}' of '{environment}': {error}"))
            };
            let written: WrittenFlag = map.next_value().map_err(in_flag)?;
            let definition = written.definition.map(|definition| Definition {
                variants: definition.variants,
                default_variant: definition.default_variant,
                targeting: definition.targeting,
                metadata: definition.metadata,
                unreadable: None,
            });
            if definition
                .as_ref()
                .is_some_and(|definition| definition.variants.is_empty())
            {
                return Err(in_flag(M::Error::custom(
                    "a definition must have a variant",
                )));
            }
            let flag = Flag {
                enabled: written.enabled,
                rollout_percentage: written.rollout_percentage,
                description: written.description,
                salt: written.salt,
                definition,
                overrides: written.overrides,
                other: Map::new(),
            };
            flags.insert(key, flag);
        }
        Ok(flags)
    }
}
