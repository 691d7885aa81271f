//! Transactions of the local store. A transaction changes a copy of the data, and the commit writes the copy.

mod schedules;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey, Override, Rollout, Settings};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::EmbeddedStore;
use super::data::Data;
use super::flags_file::flag_violations;
use super::state::{Archived, FlagDetails, OverrideDetails, Record, State};
use crate::environment::Environment;
use crate::error::Error;
use crate::flag_sums::FlagSums;
use crate::snapshot::Revision;
use crate::store::record::{
    Action, AuditEntry, AuditedChange, EnvironmentState, FlagRecord, FlagRecords, NewState,
    OverrideRecord, SettingsRecord,
};
use crate::wire_size::wire_size;

/// A copy of the data, and the lock that excludes other changes.
pub struct Transaction {
    store: EmbeddedStore,
    environment: Environment,
    actor: String,
    data: Data,
    /// The records applied to the copy.
    records: Vec<Record>,
    next_audit_id: i64,
    /// The revision of all data at the beginning.
    based_on: Revision,
    /// The revision of the environment at the beginning.
    revision: Revision,
    /// Whether the commit raises the revision of the environment even if its data does not change.
    raises_revision: bool,
    _writing: OwnedMutexGuard<()>,
}

impl EmbeddedStore {
    pub(in crate::store) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        let writing = self.writing.clone().lock_owned().await;
        let inner = self.lock_current()?;
        Ok(Transaction {
            data: inner.data.clone(),
            records: Vec::new(),
            next_audit_id: inner.history.next_id(),
            based_on: inner.revision,
            revision: inner.revision_of(environment.as_str()),
            raises_revision: false,
            store: self.clone(),
            environment: environment.clone(),
            actor: actor.to_owned(),
            _writing: writing,
        })
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl Transaction {
    pub(in crate::store) fn flag(&mut self, key: &FlagKey) -> Result<Option<FlagRecord>, Error> {
        Ok(self.data.flag(self.environment.as_str(), key))
    }

    pub(in crate::store) fn lock_environment(&mut self) -> Result<EnvironmentState, Error> {
        self.read_environment()
    }

    pub(in crate::store) fn read_environment(&mut self) -> Result<EnvironmentState, Error> {
        Ok(EnvironmentState {
            revision: self.lock_revision()?,
            flags: self.data.flags(self.environment.as_str()),
            settings: self.settings()?,
        })
    }

    pub(in crate::store) fn sums_without(&mut self, key: &FlagKey) -> Result<FlagSums, Error> {
        let mut sums = FlagSums::default();
        let contents = &self.data.contents;
        let set = contents.environments.get(self.environment.as_str());
        for (name, flag) in set.into_iter().flat_map(|set| &set.flags) {
            if name == key {
                continue;
            }
            sums.keys += name.as_str().len();
            sums.values += flag.size();
            match &flag.definition {
                Some(definition) => {
                    sums.typed += 1;
                    sums.definitions += wire_size(definition);
                    sums.costly += usize::from(definition.may_be_costly());
                }
                None => sums.simple += 1,
            }
        }
        Ok(sums)
    }

    pub(in crate::store) fn flags_in_use(&mut self) -> Result<FlagRecords, Error> {
        let mut flags = self.data.flags(self.environment.as_str());
        flags.retain(|_, record| record.archived_at.is_none());
        Ok(flags)
    }

    pub(in crate::store) fn insert_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
    ) -> Result<FlagRecord, Error> {
        if self.data.flag(self.environment.as_str(), key).is_some() {
            return Err(Error::Conflict(format!("Flag '{key}' already exists")));
        }
        // An edit that removed a flag has left its cancelled schedules. A new flag with the same key must not get them.
        let state = self.data.state.of(self.environment.as_str()).into_iter();
        let mut schedules = state.flat_map(|state| state.schedules.values());
        if schedules.any(|schedule| schedule.flag_key == *key) {
            self.delete_flag(key)?;
        }
        let details = FlagDetails {
            created_at: Some(SystemTime::now()),
            ..FlagDetails::default()
        };
        self.put_in_use(key, flag.clone(), &details);
        self.require_flag(key)
    }

    pub(in crate::store) fn write_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
        archived: bool,
    ) -> Result<FlagRecord, Error> {
        let before = self.require_flag(key)?;
        let environment = self.environment.to_string();
        let overrides = self.data.overrides(&environment, key);
        let flag = Flag {
            overrides: overrides
                .into_iter()
                .map(|record| (record.user_id, record.kind))
                .collect(),
            ..flag.clone()
        };
        let was_archived = self.data.state.archived(&environment, key).is_some();
        if archived {
            self.data
                .contents
                .environment_mut(&environment)
                .flags
                .remove(key);
            let now = SystemTime::now();
            let archived_at = before.archived_at.or(Some(now));
            let details = self.data.state.details(&environment, key).cloned();
            self.apply(Record::Flag {
                environment: environment.clone(),
                key: key.clone(),
                details: FlagDetails {
                    updated_at: Some(now),
                    ..details.unwrap_or_default()
                },
            });
            self.apply(Record::Archived {
                environment,
                key: key.clone(),
                archived: Some(Box::new(Archived { archived_at, flag })),
            });
            return self.require_flag(key);
        }
        if was_archived {
            self.apply(Record::Archived {
                environment: environment.clone(),
                key: key.clone(),
                archived: None,
            });
        }
        let details = self.data.state.details(&environment, key).cloned();
        self.put_in_use(key, flag, &details.unwrap_or_default());
        self.require_flag(key)
    }

    pub(in crate::store) fn put_flags(&mut self, flags: &[NewState<'_>]) -> Result<(), Error> {
        for state in flags {
            let NewState {
                key,
                flag,
                archived,
            } = *state;
            if self.data.flag(self.environment.as_str(), key).is_none() {
                self.insert_flag(key, flag)?;
            }
            self.write_flag(key, flag, archived)?;
        }
        Ok(())
    }

    pub(in crate::store) fn delete_flag(&mut self, key: &FlagKey) -> Result<(), Error> {
        let environment = self.environment.to_string();
        if let Some(set) = self.data.contents.environments.get_mut(&environment) {
            set.flags.remove(key);
        }
        let key = key.clone();
        self.apply(Record::Deleted { environment, key });
        Ok(())
    }

    pub(in crate::store) fn overrides(
        &mut self,
        key: &FlagKey,
    ) -> Result<Vec<OverrideRecord>, Error> {
        Ok(self.data.overrides(self.environment.as_str(), key))
    }

    pub(in crate::store) fn variants_in_overrides(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, String, u64)>, Error> {
        let mut named = Vec::new();
        for key in keys {
            let mut users: BTreeMap<String, u64> = BTreeMap::new();
            for record in self.data.overrides(self.environment.as_str(), key) {
                match record.kind {
                    Override::Variant(variant) => *users.entry(variant).or_default() += 1,
                    Override::Include | Override::Exclude | Override::Unreadable => {}
                }
            }
            let of_flag = users.into_iter();
            named.extend(of_flag.map(|(variant, users)| ((*key).clone(), variant, users)));
        }
        Ok(named)
    }

    pub(in crate::store) fn find_override(
        &mut self,
        key: &FlagKey,
        user: &str,
    ) -> Result<Option<OverrideRecord>, Error> {
        let all = self.data.overrides(self.environment.as_str(), key);
        Ok(all.into_iter().find(|record| record.user_id == user))
    }

    pub(in crate::store) fn overrides_revision(&mut self, key: &FlagKey) -> Result<i64, Error> {
        Ok(self.data.overrides_revision(self.environment.as_str(), key))
    }

    pub(in crate::store) fn put_overrides(
        &mut self,
        key: &FlagKey,
        wanted: &[OverrideRecord],
    ) -> Result<Vec<OverrideRecord>, Error> {
        let now = Some(SystemTime::now());
        let mut before: BTreeMap<String, Option<SystemTime>> = self
            .data
            .overrides(self.environment.as_str(), key)
            .into_iter()
            .map(|record| (record.user_id, record.created_at))
            .collect();
        self.change_overrides(key, |overrides| {
            for one in wanted {
                overrides.insert(one.user_id.clone(), one.kind.clone());
            }
        })?;
        let mut put = Vec::with_capacity(wanted.len());
        for one in wanted {
            // An existing override that was added by an edit of the file has no time, and gets none.
            let known = before.remove(&one.user_id);
            let created_at = known.unwrap_or(one.created_at.or(now));
            self.apply(Record::Override {
                environment: self.environment.to_string(),
                key: key.clone(),
                user: one.user_id.clone(),
                details: Some(OverrideDetails {
                    reason: one.reason.clone(),
                    created_by: one.created_by.clone(),
                    created_at,
                }),
            });
            put.push(OverrideRecord {
                created_at,
                ..one.clone()
            });
        }
        Ok(put)
    }

    pub(in crate::store) fn delete_overrides(
        &mut self,
        key: &FlagKey,
        users: &[&str],
    ) -> Result<(), Error> {
        self.change_overrides(key, |overrides| {
            for user in users {
                overrides.remove(*user);
            }
        })?;
        for user in users {
            self.apply(Record::Override {
                environment: self.environment.to_string(),
                key: key.clone(),
                user: (*user).to_owned(),
                details: None,
            });
        }
        Ok(())
    }

    pub(in crate::store) fn override_change_retry_after(
        &mut self,
        key: &FlagKey,
        limit: u32,
        window: Duration,
    ) -> Result<Option<Duration>, Error> {
        let now = SystemTime::now();
        let nth = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let counted = [Action::SetOverride, Action::SetOverrides].map(Action::name);
        let inner = self.store.lock_current()?;
        let newest_first = inner.history.audit.iter().rev();
        let oldest = newest_first
            .take_while(|entry| now.duration_since(entry.at).unwrap_or_default() < window)
            .filter(|entry| {
                entry.environment == self.environment.as_str()
                    && entry.flag_key.as_deref() == Some(key.as_str())
                    && counted.contains(&entry.action.as_str())
            })
            .nth(nth);
        Ok(oldest.and_then(|entry| {
            let age = now.duration_since(entry.at).unwrap_or_default();
            window.checked_sub(age)
        }))
    }

    pub(in crate::store) fn settings(&mut self) -> Result<SettingsRecord, Error> {
        Ok(self.data.settings(self.environment.as_str()))
    }

    pub(in crate::store) fn insert_environment(
        &mut self,
        settings: &Settings,
    ) -> Result<Option<SettingsRecord>, Error> {
        match self.lock_revision()? {
            Some(_) => Ok(None),
            None => self.write_settings(settings).map(Some),
        }
    }

    pub(in crate::store) fn write_settings(
        &mut self,
        settings: &Settings,
    ) -> Result<SettingsRecord, Error> {
        let set = self
            .data
            .contents
            .environment_mut(self.environment.as_str());
        set.settings.clone_from(settings);
        self.settings()
    }

    pub(in crate::store) fn lock_revision(&mut self) -> Result<Option<Revision>, Error> {
        let name = self.environment.as_str();
        let known = self.data.contents.environments.contains_key(name);
        Ok(known.then_some(self.revision))
    }

    pub(in crate::store) fn raise_revision(&mut self) -> Result<(), Error> {
        self.raises_revision = true;
        Ok(())
    }

    pub(in crate::store) fn add_audit_entry(
        &mut self,
        key: Option<&FlagKey>,
        action: Action,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        let entry = AuditEntry {
            id: self.next_audit_id,
            environment: self.environment.to_string(),
            flag_key: key.map(ToString::to_string),
            action: action.name().to_owned(),
            actor: self.actor.clone(),
            at: SystemTime::now(),
            before,
            after,
            unreadable: None,
        };
        self.next_audit_id += 1;
        self.apply(Record::Audit(entry));
        Ok(())
    }

    pub(in crate::store) fn add_audit_entries(
        &mut self,
        action: Action,
        changes: impl Iterator<Item = AuditedChange>,
    ) -> Result<(), Error> {
        for AuditedChange { key, before, after } in changes {
            self.add_audit_entry(Some(&key), action, before, after)?;
        }
        Ok(())
    }

    pub(in crate::store) fn commit(mut self) -> Result<(), Error> {
        let store = self.store.clone();
        let mut inner = store.lock_current()?;
        if inner.revision != self.based_on {
            return Err(Error::StoreFile(format!(
                "{} was edited while the change was being made, so the change was not made; try again",
                inner.files.flags().display()
            )));
        }
        self.exempt_violating_flags(&inner.data);
        let seen = inner.seen.as_ref();
        let digest = seen.map(|(_, digest)| digest.clone()).unwrap_or_default();
        let raises = self.raises_revision || self.records.iter().any(Record::raises_revision);
        let raised = raises.then_some(self.environment.as_str());
        inner
            .commit(self.data, self.records, &digest, raised)
            .map_err(Error::StoreFile)
    }

    pub(in crate::store) fn actor(&self) -> &str {
        &self.actor
    }

    pub(super) fn environment(&self) -> &str {
        self.environment.as_str()
    }

    pub(super) fn state(&self) -> &State {
        &self.data.state
    }

    /// Applies a record to the copy.
    pub(super) fn apply(&mut self, record: Record) {
        self.data.state.apply(&record);
        self.records.push(record);
    }

    /// Writes a flag in use.
    fn put_in_use(&mut self, key: &FlagKey, flag: Flag, details: &FlagDetails) {
        let environment = self.environment.to_string();
        let is_typed = flag.definition.is_some();
        let details = FlagDetails {
            updated_at: Some(SystemTime::now()),
            rollout_percentage: if is_typed {
                flag.rollout_percentage
            } else {
                Rollout::default()
            },
            salt: flag.salt.clone().filter(|_| is_typed),
            bucketing: flag.bucketing.filter(|_| is_typed),
            ..details.clone()
        };
        let flags = &mut self.data.contents.environment_mut(&environment).flags;
        flags.insert(key.clone(), flag);
        let key = key.clone();
        self.apply(Record::Flag {
            environment,
            key,
            details,
        });
    }

    /// Exempts changed flags that violate rules, such as reverted or restored flags: the API accepts them, so the file
    /// must not be rejected when it is read again.
    fn exempt_violating_flags(&mut self, before: &Data) {
        let name = self.environment.as_str();
        let Some(set) = self.data.contents.environments.get(name) else {
            return;
        };
        let state = self.data.state.of(name).into_iter();
        let schedules = state.flat_map(|state| state.schedules.values());
        let violating: Vec<FlagKey> = set
            .flags
            .iter()
            .filter(|(key, flag)| before.contents.flag(name, key) != Some(*flag))
            .filter(|(key, flag)| !flag_violations(key, flag, schedules.clone()).is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        for key in violating {
            let environment = self.environment.to_string();
            let details = self.data.state.details(&environment, &key).cloned();
            let details = details.unwrap_or_default();
            if !details.exempt {
                let details = FlagDetails {
                    exempt: true,
                    ..details
                };
                self.apply(Record::Flag {
                    environment,
                    key,
                    details,
                });
            }
        }
    }

    fn require_flag(&self, key: &FlagKey) -> Result<FlagRecord, Error> {
        self.data
            .flag(self.environment.as_str(), key)
            .ok_or_else(|| Error::FlagNotFound(key.to_string()))
    }

    /// Changes the overrides of a flag, in use or archived.
    fn change_overrides(
        &mut self,
        key: &FlagKey,
        change: impl FnOnce(&mut BTreeMap<String, Override>),
    ) -> Result<(), Error> {
        let environment = self.environment.to_string();
        if let Some(flag) = self.data.contents.flag_mut(&environment, key) {
            change(&mut flag.overrides);
            return Ok(());
        }
        let Some(archived) = self.data.state.archived(&environment, key) else {
            return Err(Error::FlagNotFound(key.to_string()));
        };
        let mut archived = archived.clone();
        change(&mut archived.flag.overrides);
        self.apply(Record::Archived {
            environment,
            key: key.clone(),
            archived: Some(Box::new(archived)),
        });
        Ok(())
    }
}
