//! Records of flags, combined from `flags.json` and the state file.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::flags_file::Contents;
use super::state::{FlagDetails, Record, State};
use crate::store::record::{FlagRecord, OverrideRecord, SettingsRecord};

/// The contents of both files, without the history. A transaction changes a copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    pub(super) contents: Contents,
    pub(super) state: State,
}

impl Data {
    /// The flag with its overrides, in use or archived.
    fn stored(&self, environment: &str, key: &FlagKey) -> Option<&Flag> {
        let archived = || self.state.archived(environment, key);
        let in_use = self.contents.flag(environment, key);
        in_use.or_else(|| archived().map(|archived| &archived.flag))
    }

    pub(super) fn flag(&self, environment: &str, key: &FlagKey) -> Option<FlagRecord> {
        let mut flag = self.stored(environment, key)?.clone();
        flag.overrides.clear();
        let is_archived = self.contents.flag(environment, key).is_none();
        let archived = self.state.archived(environment, key);
        let details = self.state.details(environment, key);
        Some(FlagRecord {
            revision: digest_of(&(&flag, is_archived)),
            flag,
            archived_at: archived
                .filter(|_| is_archived)
                .map(|archived| archived.archived_at.unwrap_or(SystemTime::UNIX_EPOCH)),
            created_at: details.and_then(|details| details.created_at),
            updated_at: details.and_then(|details| details.updated_at),
        })
    }

    /// The records of all flags, including archived ones.
    pub(super) fn flags(&self, environment: &str) -> BTreeMap<FlagKey, FlagRecord> {
        let in_use = self.contents.environments.get(environment);
        let archived = self.state.of(environment).map(|state| &state.archived);
        let keys = in_use
            .into_iter()
            .flat_map(|set| set.flags.keys())
            .chain(archived.into_iter().flat_map(BTreeMap::keys));
        keys.filter_map(|key| Some((key.clone(), self.flag(environment, key)?)))
            .collect()
    }

    /// Records that set the times of flags: of those that an edit of `before` added or changed, and of those without
    /// times.
    pub(super) fn times_of_edited_flags(
        &self,
        before: Option<&Contents>,
        after: &Contents,
    ) -> Vec<Record> {
        let now = Some(SystemTime::now());
        let without_overrides = |flag: &Flag| Flag {
            overrides: BTreeMap::new(),
            ..flag.clone()
        };
        let mut records = Vec::new();
        for (environment, set) in &after.environments {
            for (key, flag) in &set.flags {
                let known = before.map(|before| before.flag(environment, key));
                let is_added = known == Some(None);
                let is_changed = known.flatten().is_some_and(|known| {
                    known != flag && without_overrides(known) != without_overrides(flag)
                });
                let details = self.state.details(environment, key);
                let details = details.cloned().unwrap_or_default();
                let edited = if is_added {
                    (now, now)
                } else {
                    let created_at = details.created_at.or(details.updated_at).or(now);
                    let updated_at = details.updated_at.or(created_at);
                    (created_at, if is_changed { now } else { updated_at })
                };
                if edited != (details.created_at, details.updated_at) {
                    let (created_at, updated_at) = edited;
                    records.push(Record::Flag {
                        environment: environment.clone(),
                        key: key.clone(),
                        details: FlagDetails {
                            created_at,
                            updated_at,
                            ..details
                        },
                    });
                }
            }
        }
        records
    }

    /// Records that forget the details of flags and overrides that are neither in `after` nor archived. A flag or an
    /// override that is added later under the same name must not get them. An archived flag shares the details of its
    /// overrides with a flag that an edit adds under its key.
    pub(super) fn forget_removed(&self, after: &Contents) -> Vec<Record> {
        let mut records = Vec::new();
        for (environment, state) in self.state.iter() {
            // An edit may add a flag with the key of an archived one.
            let stored = |key: &FlagKey| {
                let archived = state.archived.get(key).map(|archived| &archived.flag);
                after.flag(environment, key).into_iter().chain(archived)
            };
            let default = FlagDetails::default();
            let removed = state.flags.iter();
            let removed =
                removed.filter(|(key, old)| **old != default && stored(key).next().is_none());
            records.extend(removed.map(|(key, _)| Record::Flag {
                environment: environment.clone(),
                key: key.clone(),
                details: FlagDetails::default(),
            }));
            for (key, users) in &state.overrides {
                let is_kept = |user: &str| stored(key).any(|it| it.overrides.contains_key(user));
                let removed = users.keys().filter(|user| !is_kept(user));
                records.extend(removed.map(|user| Record::Override {
                    environment: environment.clone(),
                    key: key.clone(),
                    user: user.clone(),
                    details: None,
                }));
            }
        }
        records
    }

    /// The number of overrides of a flag, archived or not.
    pub(super) fn override_count(&self, environment: &str, key: &FlagKey) -> u64 {
        let count = self
            .stored(environment, key)
            .map(|flag| flag.overrides.len());
        u64::try_from(count.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// The overrides of a flag, archived or not, oldest first.
    pub(super) fn overrides(&self, environment: &str, key: &FlagKey) -> Vec<OverrideRecord> {
        let state = self.state.of(environment);
        let details = state.and_then(|state| state.overrides.get(key));
        let flag = self.stored(environment, key);
        let users = flag.into_iter().flat_map(|flag| &flag.overrides);
        let mut records: Vec<OverrideRecord> = users
            .map(|(user, kind)| {
                let details = details.and_then(|users| users.get(user)).cloned();
                let details = details.unwrap_or_default();
                OverrideRecord {
                    user_id: user.clone(),
                    kind: kind.clone(),
                    reason: details.reason,
                    created_by: details.created_by,
                    created_at: details.created_at,
                }
            })
            .collect();
        records.sort_by_key(|record| record.created_at);
        records
    }

    /// A digest of all overrides of a flag.
    pub(super) fn overrides_revision(&self, environment: &str, key: &FlagKey) -> i64 {
        let mut all = self.overrides(environment, key);
        all.sort_by(|one, other| one.user_id.cmp(&other.user_id));
        let states: Vec<_> = all
            .iter()
            .map(|one| (&one.user_id, &one.kind, &one.reason))
            .collect();
        digest_of(&states)
    }

    pub(super) fn settings(&self, environment: &str) -> SettingsRecord {
        let set = self.contents.environments.get(environment);
        let settings = set.map(|set| set.settings.clone()).unwrap_or_default();
        SettingsRecord {
            // 0 for default settings, as in a database in which nobody has changed them.
            revision: if settings == pennon_eval::Settings::default() {
                0
            } else {
                digest_of(&settings)
            },
            settings,
        }
    }
}

/// A digest in place of a revision, because people who edit the file do not increment a number. It has 48 bits, which
/// JSON readers represent exactly.
fn digest_of(content: &impl Serialize) -> i64 {
    let text = serde_json::to_vec(content).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest[..6]
        .iter()
        .fold(0, |number, byte| (number << 8) | i64::from(*byte))
}
