//! The format of `flags.json` in earlier versions: an object of environments, each an object of flags, and all other
//! data under `$pennon`. A file in this format is converted to a flagd file when the server starts.

use std::collections::BTreeMap;

use pennon_eval::{Definition, EvaluationDefaults, Flag, FlagKey, Override, Rollout, Settings};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::flags_file::{Contents, FlagSet, flag_violations};
use super::state::{Archived, Exemptions, FlagDetails, OverrideDetails, Record};
use crate::environment::Environment;
use crate::store::record::{AuditEntry, KeyRecord, ScheduleRecord};

/// The field with the data that only the service writes.
const SERVICE_DATA: &str = "$pennon";
/// Fields at the top level that, besides `flags`, mark a file as a flagd file. Pennon adds the last two.
const FLAGD_FIELDS: [&str; 4] = [
    "$schema",
    "$evaluators",
    "evaluationDefaults",
    "environments",
];

/// A file in the old format.
#[derive(Debug, Default)]
pub(super) struct OldFile {
    /// The flags in use.
    environments: BTreeMap<String, BTreeMap<FlagKey, Flag>>,
    /// All other data, by environment.
    service_data: BTreeMap<String, ServiceData>,
}

/// The data of an environment without its flags. Every field is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceData {
    settings: Settings,
    /// API keys by hash.
    keys: BTreeMap<String, KeyRecord>,
    archived: BTreeMap<FlagKey, Archived>,
    /// When flags were created and last changed.
    times: BTreeMap<FlagKey, FlagDetails>,
    overrides: BTreeMap<FlagKey, BTreeMap<String, OverrideDetails>>,
    schedules: Vec<ScheduleRecord>,
    /// Oldest first.
    audit: Vec<AuditEntry>,
}

/// Whether a file has the old format. A flagd file always has the field `flags`; in the old format, that may be the
/// name of an environment.
pub(super) fn is_old(file: &Value) -> bool {
    let Some(fields) = file.as_object() else {
        return false;
    };
    if fields.contains_key(SERVICE_DATA) {
        return true;
    }
    !has_flags_of_flagd(fields)
        && !FLAGD_FIELDS.iter().any(|name| fields.contains_key(*name))
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

impl OldFile {
    /// Parses a file.
    ///
    /// # Errors
    /// An error with its line.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Converts to the contents of a new file and the records of its state. Evaluations do not change.
    pub(super) fn convert(self) -> (Contents, Vec<Record>) {
        let mut contents = Contents {
            defaults: EvaluationDefaults::Existing,
            ..Contents::default()
        };
        let mut records = Vec::new();
        let mut audit = Vec::new();
        let mut service_data = self.service_data;
        for (environment, flags) in self.environments {
            let data = service_data.entry(environment.clone()).or_default();
            for (key, flag) in &flags {
                let mut details = data.times.remove(key).unwrap_or_default();
                if flag.definition.is_some() {
                    details.rollout_percentage = flag.rollout_percentage;
                    details.salt.clone_from(&flag.salt);
                }
                details.exempt = !flag_violations(key, flag, data.schedules.iter()).is_empty();
                if details.exempt {
                    tracing::warn!(
                        environment,
                        flag_key = key.as_str(),
                        "the flag violates rules that are newer than the file; it stays unchanged"
                    );
                }
                if details != FlagDetails::default() {
                    let (environment, key) = (environment.clone(), key.clone());
                    records.push(Record::Flag {
                        environment,
                        key,
                        details,
                    });
                }
            }
            let settings = std::mem::take(&mut data.settings);
            let set = FlagSet { flags, settings };
            let exemptions = set.exemptions();
            if exemptions != Exemptions::default() {
                let environment = environment.clone();
                records.push(Record::Environment {
                    environment,
                    exemptions,
                });
            }
            contents.environments.insert(environment, set);
        }
        for (name, data) in service_data {
            if data.settings != Settings::default() {
                let set = contents.environment_mut(&name);
                set.settings = data.settings;
                let (environment, exemptions) = (name.clone(), set.exemptions());
                if exemptions != Exemptions::default() {
                    records.push(Record::Environment {
                        environment,
                        exemptions,
                    });
                }
            }
            let environment = || name.clone();
            records.extend(
                data.archived
                    .into_iter()
                    .map(|(key, archived)| Record::Archived {
                        environment: environment(),
                        key,
                        archived: Some(Box::new(archived)),
                    }),
            );
            records.extend(data.times.into_iter().map(|(key, details)| Record::Flag {
                environment: environment(),
                key,
                details,
            }));
            for (key, users) in data.overrides {
                records.extend(users.into_iter().map(|(user, details)| Record::Override {
                    environment: environment(),
                    key: key.clone(),
                    user,
                    details: Some(details),
                }));
            }
            records.extend(data.keys.into_iter().map(|(hash, key)| Record::Key {
                environment: environment(),
                hash,
                key,
            }));
            let schedules = data.schedules.into_iter();
            records.extend(schedules.map(|schedule| Record::Schedule {
                environment: environment(),
                schedule: Box::new(schedule),
            }));
            audit.extend(data.audit);
        }
        audit.sort_by_key(|entry: &AuditEntry| entry.id);
        records.extend(audit.into_iter().map(Record::Audit));
        (contents, records)
    }
}

impl<'de> Deserialize<'de> for OldFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OldFileVisitor)
    }
}

/// Parses entry by entry, so that an error has its line.
struct OldFileVisitor;

impl<'de> Visitor<'de> for OldFileVisitor {
    type Value = OldFile;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object with an object of flags per environment")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<OldFile, M::Error> {
        let mut old = OldFile::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == SERVICE_DATA {
                old.service_data = map.next_value()?;
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

/// A flag in the old format.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct OldFlag {
    enabled: bool,
    rollout_percentage: Rollout,
    description: Option<String>,
    salt: Option<String>,
    definition: Option<OldDefinition>,
    overrides: BTreeMap<String, Override>,
}

/// The definition of a typed flag.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct OldDefinition {
    variants: Map<String, Value>,
    default_variant: Option<String>,
    targeting: Option<Value>,
    metadata: Map<String, Value>,
}

/// Deserialises the flags of the environment with this name.
pub(super) struct FlagsOf<'a>(pub(super) &'a str);

impl<'de> DeserializeSeed<'de> for FlagsOf<'_> {
    type Value = BTreeMap<FlagKey, Flag>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Parses flag by flag, so that an error names its flag.
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
            let written: OldFlag = map.next_value().map_err(in_flag)?;
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
                bucketing: None,
                definition,
                overrides: written.overrides,
                other: Map::new(),
            };
            flags.insert(key, flag);
        }
        Ok(flags)
    }
}
