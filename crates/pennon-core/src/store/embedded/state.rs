//! What the service keeps of flags beside `flags.json`, where people would only be in its way, as a
//! sequence of records: whoever applies them in order has the state.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey, Rollout};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::counts::{Count, Counts};
use crate::ramp::{Ramp, RampState};
use crate::store::record::{AuditEntry, KeyRecord, ScheduleRecord};

/// A step that changes the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Record {
    /// A line of the audit.
    Audit(AuditEntry),
    /// What is known of a flag from now on.
    Flag {
        environment: String,
        key: FlagKey,
        note: FlagNote,
    },
    /// A flag is archived from now on, or no longer.
    Archived {
        environment: String,
        key: FlagKey,
        archived: Option<Box<Archived>>,
    },
    /// A flag is gone, and everything about it but its audit and its counts.
    Deleted { environment: String, key: FlagKey },
    /// What is known of an override, or that it is gone.
    Override {
        environment: String,
        key: FlagKey,
        user: String,
        note: Option<OverrideNote>,
    },
    /// An API key, by its hash.
    Key {
        environment: String,
        hash: String,
        key: KeyRecord,
    },
    /// What an environment has from before today's rules.
    Environment {
        environment: String,
        note: EnvironmentNote,
    },
    /// A schedule, as it is from now on.
    Schedule {
        environment: String,
        schedule: Box<ScheduleRecord>,
    },
    /// A ramp, as it is from now on.
    Ramp {
        environment: String,
        key: FlagKey,
        ramp: StoredRamp,
    },
    /// Evaluations, in addition to those before.
    Counts {
        counts: Counts,
        #[serde(with = "crate::timestamp::required")]
        until: SystemTime,
    },
    /// When a flag was last evaluated, for counts that were put together.
    LastEvaluated {
        environment: String,
        flag: String,
        #[serde(with = "crate::timestamp::required")]
        at: SystemTime,
    },
}

/// What a flag in use has beside its entry in `flags.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FlagNote {
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
    /// Of a typed flag: the rollout percentage and the salt that count again when its definition is
    /// removed. A typed flag in `flags.json` has neither, since they have no effect there.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) rollout_percentage: Rollout,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) salt: Option<String>,
    /// The flag is from before today's rules of names, texts and definitions, which are not applied to
    /// it.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) exempt: bool,
}

/// What an environment has from before today's rules, which hold for everything else in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EnvironmentNote {
    /// How large the answer with all of its flags could become, in bytes, where that is too large.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) bulk_size: usize,
    /// Its metadata breaks a rule.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) exempt: bool,
}

/// A flag out of use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Archived {
    #[serde(default, with = "crate::timestamp::optional")]
    pub(super) archived_at: Option<SystemTime>,
    pub(super) flag: Flag,
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

/// A ramp in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", untagged)]
pub(super) enum StoredRamp {
    /// One that this version reads.
    Readable(Box<Ramp>),
    /// A newer version wrote it, or someone edited the file. It is kept as it is, and harms no other ramp.
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

    /// Whether the flag can have no other ramp beside it. An unreadable ramp counts as open unless its state
    /// says otherwise.
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

/// What a transaction may change. It is copied for each, so nothing in it grows for ever.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    environments: BTreeMap<String, Aside>,
}

/// What is known of an environment beside its flags.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Aside {
    pub(super) note: EnvironmentNote,
    pub(super) flags: BTreeMap<FlagKey, FlagNote>,
    pub(super) archived: BTreeMap<FlagKey, Archived>,
    pub(super) overrides: BTreeMap<FlagKey, BTreeMap<String, OverrideNote>>,
    /// API keys under their hashes.
    pub(super) keys: BTreeMap<String, KeyRecord>,
    /// Under their ids.
    pub(super) schedules: BTreeMap<String, ScheduleRecord>,
    /// Of each flag, oldest first.
    pub(super) ramps: BTreeMap<FlagKey, Vec<StoredRamp>>,
}

/// What only grows.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Oldest first.
    pub(super) audit: Vec<AuditEntry>,
    pub(super) counts: Counts,
    /// By environment and flag.
    pub(super) last_evaluated: BTreeMap<(String, String), SystemTime>,
}

impl State {
    /// What is known of an environment; nothing when it was never heard of.
    pub(super) fn of(&self, environment: &str) -> Option<&Aside> {
        self.environments.get(environment)
    }

    /// All environments of which something is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Aside)> {
        self.environments.iter()
    }

    pub(super) fn note(&self, environment: &str, key: &FlagKey) -> Option<&FlagNote> {
        self.of(environment)?.flags.get(key)
    }

    /// The archived flag under this key, with its overrides.
    pub(super) fn archived(&self, environment: &str, key: &FlagKey) -> Option<&Archived> {
        self.of(environment)?.archived.get(key)
    }

    /// Makes a step. Audit and counts are the history's.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Audit(_) | Record::Counts { .. } | Record::LastEvaluated { .. } => {}
            Record::Flag {
                environment,
                key,
                note,
            } => {
                let flags = &mut self.aside(environment).flags;
                flags.insert(key.clone(), note.clone());
            }
            Record::Archived {
                environment,
                key,
                archived,
            } => {
                let all = &mut self.aside(environment).archived;
                match archived {
                    Some(archived) => all.insert(key.clone(), (**archived).clone()),
                    None => all.remove(key),
                };
            }
            Record::Deleted { environment, key } => {
                let aside = self.aside(environment);
                aside.flags.remove(key);
                aside.archived.remove(key);
                aside.overrides.remove(key);
                aside
                    .schedules
                    .retain(|_, planned| planned.flag_key != *key);
            }
            Record::Override {
                environment,
                key,
                user,
                note,
            } => {
                let all = &mut self.aside(environment).overrides;
                match note {
                    Some(note) => {
                        let notes = all.entry(key.clone()).or_default();
                        notes.insert(user.clone(), note.clone());
                    }
                    None => {
                        if let Some(notes) = all.get_mut(key) {
                            notes.remove(user);
                        }
                    }
                }
            }
            Record::Key {
                environment,
                hash,
                key,
            } => {
                let keys = &mut self.aside(environment).keys;
                keys.insert(hash.clone(), key.clone());
            }
            Record::Environment { environment, note } => {
                self.aside(environment).note = note.clone();
            }
            Record::Schedule {
                environment,
                schedule,
            } => {
                let schedules = &mut self.aside(environment).schedules;
                schedules.insert(schedule.id.clone(), (**schedule).clone());
            }
            Record::Ramp {
                environment,
                key,
                ramp,
            } => {
                let ramps = self
                    .aside(environment)
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

    fn aside(&mut self, environment: &str) -> &mut Aside {
        self.environments.entry(environment.to_owned()).or_default()
    }

    /// The steps that lead from nothing to this state.
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (name, aside) in &self.environments {
            let environment = || name.clone();
            if aside.note != EnvironmentNote::default() {
                records.push(Record::Environment {
                    environment: environment(),
                    note: aside.note.clone(),
                });
            }
            records.extend(aside.flags.iter().map(|(key, note)| Record::Flag {
                environment: environment(),
                key: key.clone(),
                note: note.clone(),
            }));
            records.extend(aside.archived.iter().map(|(key, flag)| Record::Archived {
                environment: environment(),
                key: key.clone(),
                archived: Some(Box::new(flag.clone())),
            }));
            for (key, notes) in &aside.overrides {
                records.extend(notes.iter().map(|(user, note)| Record::Override {
                    environment: environment(),
                    key: key.clone(),
                    user: user.clone(),
                    note: Some(note.clone()),
                }));
            }
            records.extend(aside.keys.iter().map(|(hash, key)| Record::Key {
                environment: environment(),
                hash: hash.clone(),
                key: key.clone(),
            }));
            records.extend(aside.schedules.values().map(|schedule| Record::Schedule {
                environment: environment(),
                schedule: Box::new(schedule.clone()),
            }));
            for (key, ramps) in &aside.ramps {
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
                    let place = (environment.to_owned(), flag.to_owned());
                    self.last_evaluated.insert(place, until);
                }
            }
            Record::LastEvaluated {
                environment,
                flag,
                at,
            } => {
                self.last_evaluated.insert((environment, flag), at);
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

    /// The id of the entry that comes next.
    pub(super) fn next_id(&self) -> i64 {
        self.audit.last().map_or(1, |entry| entry.id + 1)
    }

    /// The steps that lead from nothing to a state and this history.
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
        records
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn records() -> Vec<Record> {
        let text = json!([
            {"flag": {"environment": "production", "key": "a", "note": {
                "createdAt": "2026-01-01T00:00:00.000Z", "rolloutPercentage": 5, "salt": "s",
                "exempt": true}}},
            {"flag": {"environment": "staging", "key": "gone", "note": {}}},
            {"environment": {"environment": "staging", "note": {"bulkSize": 9, "exempt": true}}},
            {"archived": {"environment": "staging", "key": "old", "archived": {
                "archivedAt": null, "flag": {"enabled": false, "rolloutPercentage": 7}}}},
            {"override": {"environment": "production", "key": "a", "user": "bob", "note": {
                "reason": "why", "createdBy": null, "createdAt": null}}},
            {"deleted": {"environment": "staging", "key": "gone"}},
            {"counts": {"counts": {"production": {"2026-01-01": {"a": {"on": 2}}}},
                "until": "2026-01-01T00:00:01.000Z"}},
            {"counts": {"counts": {"production": {"2026-01-01": {"a": {"on": 3}}}},
                "until": "2026-01-01T00:00:02.000Z"}},
            {"audit": {"id": 7, "environment": "production", "flagKey": "a", "action": "flag.update",
                "actor": "me", "at": "2026-01-01T00:00:00.000Z", "before": null, "after": {"b": 1}}},
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
    fn what_is_written_anew_is_the_same_state() {
        let (state, history) = replay(records());
        assert_eq!(history.counts.total(), 5);
        assert_eq!(history.next_id(), 8);
        let text = serde_json::to_string(&history.records(&state)).expect("JSON");
        let (again, past) = replay(serde_json::from_str(&text).expect("records"));
        assert_eq!(past.counts, history.counts);
        assert_eq!(past.last_evaluated, history.last_evaluated);
        assert_eq!(past.audit, history.audit);
        for (name, aside) in state.iter() {
            assert_eq!(again.of(name), Some(aside), "{name}");
        }
    }
}
