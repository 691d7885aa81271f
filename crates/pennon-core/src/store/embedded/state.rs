//! The data that the service keeps outside of `flags.json`. It is stored as a sequence of records; applying them in
//! order gives the state.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::{Bucketing, Flag, FlagKey, Rollout};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::flags_file::Contents;
use super::hours::Hours;
use crate::counts::{Count, Counts};
use crate::ramp::{Ramp, RampState};
use crate::store::record::{AuditEntry, KeyRecord, ScheduleRecord};

/// One change of the state. The names of variants and fields are the format of the state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Record {
    /// An audit entry.
    Audit(AuditEntry),
    /// The new details of a flag.
    Flag {
        environment: String,
        key: FlagKey,
        #[serde(rename = "note")]
        details: FlagDetails,
    },
    /// A flag was archived, or restored (`None`).
    Archived {
        environment: String,
        key: FlagKey,
        archived: Option<Box<Archived>>,
    },
    /// A flag was deleted, with everything about it except its audit, its counts and its ramps.
    Deleted { environment: String, key: FlagKey },
    /// The new details of an override, or its removal (`None`).
    Override {
        environment: String,
        key: FlagKey,
        user: String,
        #[serde(rename = "note")]
        details: Option<OverrideDetails>,
    },
    /// An API key, by its hash.
    Key {
        environment: String,
        hash: String,
        key: KeyRecord,
    },
    /// The rules that an environment is exempt from.
    Environment {
        environment: String,
        #[serde(rename = "note")]
        exemptions: Exemptions,
    },
    /// The new state of a schedule.
    Schedule {
        environment: String,
        schedule: Box<ScheduleRecord>,
    },
    /// The new state of a ramp.
    Ramp {
        environment: String,
        key: FlagKey,
        ramp: StoredRamp,
    },
    /// Counts to add.
    Counts {
        counts: Counts,
        #[serde(with = "crate::timestamp::required")]
        until: SystemTime,
    },
    /// When a flag was last evaluated. Written by compaction, which merges counts.
    LastEvaluated {
        environment: String,
        flag: String,
        #[serde(with = "crate::timestamp::required")]
        at: SystemTime,
    },
    /// The days (UTC, `YYYY-MM-DD`) on which API keys were used, by id.
    KeyUses { days: BTreeMap<String, String> },
}

impl Record {
    /// Whether the record raises the revision of its environment, as a change of this kind does in PostgreSQL.
    pub(super) fn raises_revision(&self) -> bool {
        match self {
            Self::Flag { .. }
            | Self::Archived { .. }
            | Self::Deleted { .. }
            | Self::Override { .. }
            | Self::Key { .. } => true,
            Self::Audit(_)
            | Self::Environment { .. }
            | Self::Schedule { .. }
            | Self::Ramp { .. }
            | Self::Counts { .. }
            | Self::LastEvaluated { .. }
            | Self::KeyUses { .. } => false,
        }
    }
}

/// Data of a flag, in use or archived, that `flags.json` does not contain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FlagDetails {
    #[serde(
        with = "crate::timestamp::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) created_at: Option<SystemTime>,
    #[serde(
        with = "crate::timestamp::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) updated_at: Option<SystemTime>,
    /// The rollout percentage of a typed flag. Like salt and bucketing, it applies again when the definition is
    /// removed; `flags.json` contains none of them, because they have no effect on a typed flag.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) rollout_percentage: Rollout,
    /// The salt of a typed flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    /// The bucketing of a typed flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bucketing: Option<Bucketing>,
    /// Whether the rules for names, texts and definitions are not applied, because the flag's state is older than them.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) exempt: bool,
}

/// The rules that are not applied to an environment, because its data is older than they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Exemptions {
    /// Whether its metadata violates a rule.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) exempt: bool,
}

/// An archived flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Archived {
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) archived_at: Option<SystemTime>,
    pub(super) flag: Flag,
}

/// Data of an override that evaluation does not need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OverrideDetails {
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) created_by: Option<String>,
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) created_at: Option<SystemTime>,
}

/// A ramp in the state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", untagged)]
pub(super) enum StoredRamp {
    /// A valid ramp.
    Readable(Box<Ramp>),
    /// A ramp from a newer version or an edited file. It is kept unchanged, and does not affect other ramps.
    Unreadable(Value),
}

impl From<Value> for StoredRamp {
    fn from(stored: Value) -> Self {
        match serde_json::from_value(stored.clone()) {
            Ok(ramp) => Self::Readable(ramp),
            Err(why) => {
                let id = stored.get("id").and_then(Value::as_str);
                let id = id.unwrap_or_default();
                tracing::error!(domain = "config", ramp = id, error = %why, "a stored ramp cannot be read");
                Self::Unreadable(stored)
            }
        }
    }
}

impl StoredRamp {
    pub(super) fn readable(&self) -> Option<&Ramp> {
        match self {
            Self::Readable(ramp) => Some(ramp),
            Self::Unreadable(_) => None,
        }
    }

    /// Whether the ramp is open, so that its flag cannot have another one. An unreadable ramp counts as open unless its
    /// state is readable and not open.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Readable(ramp) => ramp.is_open(),
            Self::Unreadable(stored) => {
                let state = stored.get("state").map(RampState::deserialize);
                let Some(Ok(state)) = state else { return true };
                let acknowledged_by = stored.get("acknowledgedBy").unwrap_or(&Value::Null);
                state.is_live() || state == RampState::RolledBack && acknowledged_by.is_null()
            }
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Readable(ramp) => Some(&ramp.id),
            Self::Unreadable(stored) => stored.get("id")?.as_str(),
        }
    }
}

/// The state without the [`History`], because each transaction copies the state, and audit and counts become large.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    environments: BTreeMap<String, EnvironmentState>,
}

/// The state of one environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EnvironmentState {
    pub(super) exemptions: Exemptions,
    pub(super) flags: BTreeMap<FlagKey, FlagDetails>,
    pub(super) archived: BTreeMap<FlagKey, Archived>,
    /// By flag and user.
    pub(super) overrides: BTreeMap<FlagKey, BTreeMap<String, OverrideDetails>>,
    /// By hash.
    pub(super) keys: BTreeMap<String, KeyRecord>,
    /// By id.
    pub(super) schedules: BTreeMap<String, ScheduleRecord>,
    /// By flag, oldest first.
    pub(super) ramps: BTreeMap<FlagKey, Vec<StoredRamp>>,
}

/// Audit, counts and uses of keys.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Oldest first.
    pub(super) audit: Vec<AuditEntry>,
    pub(super) counts: Counts,
    /// By environment and flag.
    pub(super) last_evaluated: BTreeMap<(String, String), SystemTime>,
    pub(super) hours: Hours,
    /// The last day on which an API key was used, by id.
    pub(super) key_uses: BTreeMap<String, String>,
}

impl State {
    /// The state of an environment, if there is any.
    pub(super) fn of(&self, environment: &str) -> Option<&EnvironmentState> {
        self.environments.get(environment)
    }

    /// All environments with a state.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &EnvironmentState)> {
        self.environments.iter()
    }

    /// The details of a flag, in use or archived.
    pub(super) fn details(&self, environment: &str, key: &FlagKey) -> Option<&FlagDetails> {
        self.of(environment)?.flags.get(key)
    }

    /// An archived flag, with its overrides.
    pub(super) fn archived(&self, environment: &str, key: &FlagKey) -> Option<&Archived> {
        self.of(environment)?.archived.get(key)
    }

    /// The records that cancel the schedules of flags that are neither in `flags.json` nor archived.
    pub(super) fn cancel_schedules_without_flag(&self, contents: &Contents) -> Vec<Record> {
        let mut records = Vec::new();
        for (name, state) in &self.environments {
            let has_no_flag = |key: &FlagKey| {
                contents.flag(name, key).is_none() && !state.archived.contains_key(key)
            };
            let schedules = state.schedules.values();
            let removed = schedules.filter(|it| it.is_open() && has_no_flag(&it.flag_key));
            records.extend(removed.map(|schedule| Record::Schedule {
                environment: name.clone(),
                schedule: Box::new(schedule.cancelled("flags.json")),
            }));
        }
        records
    }

    /// Applies a record. Audit entries, counts and uses of keys belong to the [`History`].
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Audit(_)
            | Record::Counts { .. }
            | Record::LastEvaluated { .. }
            | Record::KeyUses { .. } => {}
            Record::Flag {
                environment,
                key,
                details,
            } => {
                let flags = &mut self.environment(environment).flags;
                flags.insert(key.clone(), details.clone());
            }
            Record::Archived {
                environment,
                key,
                archived,
            } => {
                let all = &mut self.environment(environment).archived;
                match archived {
                    Some(archived) => all.insert(key.clone(), (**archived).clone()),
                    None => all.remove(key),
                };
            }
            Record::Deleted { environment, key } => {
                let state = self.environment(environment);
                state.flags.remove(key);
                state.archived.remove(key);
                state.overrides.remove(key);
                state
                    .schedules
                    .retain(|_, schedule| schedule.flag_key != *key);
            }
            Record::Override {
                environment,
                key,
                user,
                details,
            } => {
                let all = &mut self.environment(environment).overrides;
                match details {
                    Some(details) => {
                        let users = all.entry(key.clone()).or_default();
                        users.insert(user.clone(), details.clone());
                    }
                    None => {
                        if let Some(users) = all.get_mut(key) {
                            users.remove(user);
                        }
                    }
                }
            }
            Record::Key {
                environment,
                hash,
                key,
            } => {
                let keys = &mut self.environment(environment).keys;
                keys.insert(hash.clone(), key.clone());
            }
            Record::Environment {
                environment,
                exemptions,
            } => {
                self.environment(environment).exemptions = exemptions.clone();
            }
            Record::Schedule {
                environment,
                schedule,
            } => {
                let schedules = &mut self.environment(environment).schedules;
                schedules.insert(schedule.id.clone(), (**schedule).clone());
            }
            Record::Ramp {
                environment,
                key,
                ramp,
            } => {
                let ramps = self
                    .environment(environment)
                    .ramps
                    .entry(key.clone())
                    .or_default();
                let is_same =
                    |known: &&mut StoredRamp| known.id().is_some() && known.id() == ramp.id();
                match ramps.iter_mut().find(is_same) {
                    Some(known) => known.clone_from(ramp),
                    None => ramps.push(ramp.clone()),
                }
            }
        }
    }

    fn environment(&mut self, environment: &str) -> &mut EnvironmentState {
        self.environments.entry(environment.to_owned()).or_default()
    }

    /// The records that give this state.
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (name, state) in &self.environments {
            let environment = || name.clone();
            if state.exemptions != Exemptions::default() {
                records.push(Record::Environment {
                    environment: environment(),
                    exemptions: state.exemptions.clone(),
                });
            }
            records.extend(state.flags.iter().map(|(key, details)| Record::Flag {
                environment: environment(),
                key: key.clone(),
                details: details.clone(),
            }));
            records.extend(state.archived.iter().map(|(key, flag)| Record::Archived {
                environment: environment(),
                key: key.clone(),
                archived: Some(Box::new(flag.clone())),
            }));
            for (key, users) in &state.overrides {
                records.extend(users.iter().map(|(user, details)| Record::Override {
                    environment: environment(),
                    key: key.clone(),
                    user: user.clone(),
                    details: Some(details.clone()),
                }));
            }
            records.extend(state.keys.iter().map(|(hash, key)| Record::Key {
                environment: environment(),
                hash: hash.clone(),
                key: key.clone(),
            }));
            records.extend(state.schedules.values().map(|schedule| Record::Schedule {
                environment: environment(),
                schedule: Box::new(schedule.clone()),
            }));
            for (key, ramps) in &state.ramps {
                records.extend(ramps.iter().map(|ramp| Record::Ramp {
                    environment: environment(),
                    key: key.clone(),
                    ramp: ramp.clone(),
                }));
            }
        }
        records
    }
}

impl History {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Audit(entry) => self.audit.push(entry),
            Record::Counts { counts, until } => {
                for one in counts.iter() {
                    let Count {
                        environment,
                        day,
                        flag,
                        variant,
                        count,
                    } = one;
                    self.counts.add(environment, day, flag, variant, count);
                    // Compaction writes sums of many hours, with the epoch as their time.
                    if until != SystemTime::UNIX_EPOCH {
                        self.hours.add(one, until);
                    }
                    let place = (environment.to_owned(), flag.to_owned());
                    self.raise_last_evaluated(place, until);
                }
            }
            Record::LastEvaluated {
                environment,
                flag,
                at,
            } => {
                self.raise_last_evaluated((environment, flag), at);
            }
            Record::KeyUses { days } => {
                for (id, day) in days {
                    let last = self.key_uses.entry(id).or_default();
                    if *last < day {
                        *last = day;
                    }
                }
            }
            Record::Flag { .. }
            | Record::Archived { .. }
            | Record::Deleted { .. }
            | Record::Override { .. }
            | Record::Key { .. }
            | Record::Environment { .. }
            | Record::Schedule { .. }
            | Record::Ramp { .. } => {}
        }
    }

    /// Keeps the latest time, because batches may arrive out of order, and clocks may be set back.
    fn raise_last_evaluated(&mut self, place: (String, String), at: SystemTime) {
        let last = self.last_evaluated.entry(place).or_insert(at);
        *last = at.max(*last);
    }

    /// The id of the next audit entry.
    pub(super) fn next_id(&self) -> i64 {
        self.audit.last().map_or(1, |entry| entry.id + 1)
    }

    /// The records that give a state and this history.
    pub(super) fn records(&self, state: &State) -> Vec<Record> {
        let mut records = state.records();
        records.extend(self.audit.iter().cloned().map(Record::Audit));
        if !self.counts.is_empty() {
            records.push(Record::Counts {
                counts: self.counts.clone(),
                until: SystemTime::UNIX_EPOCH,
            });
        }
        let last = self.last_evaluated.iter();
        records.extend(last.map(|((environment, flag), at)| Record::LastEvaluated {
            environment: environment.clone(),
            flag: flag.clone(),
            at: *at,
        }));
        if !self.key_uses.is_empty() {
            records.push(Record::KeyUses {
                days: self.key_uses.clone(),
            });
        }
        records
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn records() -> Vec<Record> {
        let text = json!([
            {"flag": {"environment": "production", "key": "a", "note": {
                "createdAt": "2026-01-01T00:00:00.000Z", "rolloutPercentage": 5, "salt": "s",
                "exempt": true}}},
            {"flag": {"environment": "staging", "key": "gone", "note": {}}},
            {"environment": {"environment": "staging", "note": {"exempt": true}}},
            {"archived": {"environment": "staging", "key": "old", "archived": {
                "archivedAt": null, "flag": {"enabled": false, "rolloutPercentage": 7}}}},
            {"override": {"environment": "production", "key": "a", "user": "bob", "note": {
                "reason": "why", "createdBy": null, "createdAt": null}}},
            {"deleted": {"environment": "staging", "key": "gone"}},
            {"counts": {"counts": {"production": {"2026-01-01": {"a": {"on": 2}}}},
                "until": "2026-01-01T00:00:01.000Z"}},
            {"counts": {"counts": {"production": {"2026-01-01": {"a": {"on": 3}}}},
                "until": "2026-01-01T00:00:02.000Z"}},
            {"counts": {"counts": {"production": {"2026-01-01": {"a": {"on": 1}}}},
                "until": "2026-01-01T00:00:01.000Z"}},
            {"audit": {"id": 7, "environment": "production", "flagKey": "a", "action": "flag.update",
                "actor": "me", "at": "2026-01-01T00:00:00.000Z", "before": null, "after": {"b": 1}}},
            {"keyUses": {"days": {"k-1": "2026-01-02", "k-2": "2026-01-01"}}},
            {"keyUses": {"days": {"k-1": "2026-01-01"}}},
        ]);
        serde_json::from_value(text).expect("records")
    }

    fn replay(records: Vec<Record>) -> (State, History) {
        let (mut state, mut history) = (State::default(), History::default());
        for record in records {
            state.apply(&record);
            history.apply(record);
        }
        (state, history)
    }

    #[test]
    fn the_records_of_a_state_give_the_same_state() {
        let (state, history) = replay(records());
        assert_eq!(history.counts.total(), 6);
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_602);
        let last: Vec<_> = history.last_evaluated.values().collect();
        assert_eq!(last, [&latest], "not the latest time");
        assert_eq!(history.next_id(), 8);
        let days = [("k-1", "2026-01-02"), ("k-2", "2026-01-01")];
        let days = days.map(|(id, day)| (id.to_owned(), day.to_owned()));
        assert_eq!(history.key_uses, BTreeMap::from(days));
        let text = serde_json::to_string(&history.records(&state)).expect("JSON");
        let (again, past) = replay(serde_json::from_str(&text).expect("records"));
        assert_eq!(past.counts, history.counts);
        assert_eq!(past.last_evaluated, history.last_evaluated);
        assert_eq!(past.audit, history.audit);
        assert_eq!(past.key_uses, history.key_uses);
        for (name, environment) in state.iter() {
            assert_eq!(again.of(name), Some(environment), "{name}");
        }
    }
}
