//! A change that waits for its commit: made on a copy, written as a whole.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey, Override, Settings};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::EmbeddedStore;
use super::contents::{Archived, Beside, Contents, OverrideNote, Times, digest_of};
use crate::environment::Environment;
use crate::error::Error;
use crate::http::wire_size;
use crate::id::unique_id;
use crate::ofrep::FlagSums;
use crate::snapshot::Revision;
use crate::store::record::{
    Action, AuditEntry, AuditStep, FlagRecord, FlagRecords, NewState, OverrideRecord,
    ScheduleRecord, ScheduleStatus, SettingsRecord,
};

/// The file keeps this many lines of audit per environment; it is read and written whole.
const LONGEST_AUDIT: usize = 1_000;
/// How often a schedule is tried again; the default of the column in the database.
const MAX_RETRIES: i32 = 3;

/// A copy of the contents, and the right to be the only one who changes them.
pub struct Transaction {
    store: EmbeddedStore,
    environment: Environment,
    actor: String,
    contents: Contents,
    based_on: Revision,
    _alone: OwnedMutexGuard<()>,
}

impl EmbeddedStore {
    pub(in crate::store) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        let alone = self.writing.clone().lock_owned().await;
        let inner = self.current()?;
        Ok(Transaction {
            contents: inner.contents.clone(),
            based_on: inner.revision,
            store: self.clone(),
            environment: environment.clone(),
            actor: actor.to_owned(),
            _alone: alone,
        })
    }
}

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same steps as in a database, where each can fail"
)]
impl Transaction {
    pub(in crate::store) fn flag(&mut self, key: &FlagKey) -> Result<Option<FlagRecord>, Error> {
        Ok(self.contents.flag(self.environment.as_str(), key))
    }

    pub(in crate::store) fn flags(&mut self) -> Result<FlagRecords, Error> {
        Ok(self.contents.flags(self.environment.as_str()))
    }

    pub(in crate::store) fn sums_without(&mut self, key: &FlagKey) -> Result<FlagSums, Error> {
        let mut sums = FlagSums::default();
        let flags = self.contents.environments.get(self.environment.as_str());
        for (name, flag) in flags.into_iter().flatten() {
            if name == key {
                continue;
            }
            sums.keys += name.as_str().len();
            match &flag.definition {
                Some(definition) => {
                    sums.typed += 1;
                    sums.definitions += wire_size(definition);
                }
                None => sums.simple += 1,
            }
        }
        Ok(sums)
    }

    pub(in crate::store) fn flags_in_use(&mut self) -> Result<FlagRecords, Error> {
        let mut flags = self.flags()?;
        flags.retain(|_, record| record.archived_at.is_none());
        Ok(flags)
    }

    pub(in crate::store) fn insert_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
    ) -> Result<FlagRecord, Error> {
        let name = self.environment.as_str();
        if self.contents.flag(name, key).is_some() {
            return Err(Error::Conflict(format!("There is a flag '{key}' already")));
        }
        let now = Some(SystemTime::now());
        let times = Times {
            created_at: now,
            updated_at: now,
        };
        self.contents.beside(name).times.insert(key.clone(), times);
        let flags = self.contents.environments.entry(name.to_owned());
        flags.or_default().insert(key.clone(), flag.clone());
        self.must_find(key)
    }

    pub(in crate::store) fn write_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
        archived: bool,
    ) -> Result<FlagRecord, Error> {
        let before = self.must_find(key)?;
        let name = self.environment.as_str();
        let overrides = self.contents.overrides(name, key);
        let flag = Flag {
            overrides: overrides
                .into_iter()
                .map(|record| (record.user_id, record.kind))
                .collect(),
            ..flag.clone()
        };
        let live = self.contents.environments.entry(name.to_owned());
        let live = live.or_default();
        live.remove(key);
        if !archived {
            live.insert(key.clone(), flag.clone());
        }
        let beside = self.contents.beside(name);
        beside.archived.remove(key);
        if archived {
            let archived_at = before.archived_at.or(Some(SystemTime::now()));
            let archived = Archived { archived_at, flag };
            beside.archived.insert(key.clone(), archived);
        }
        let times = beside.times.entry(key.clone()).or_default();
        times.updated_at = Some(SystemTime::now());
        self.must_find(key)
    }

    pub(in crate::store) fn put_flags(&mut self, flags: &[NewState<'_>]) -> Result<(), Error> {
        for state in flags {
            let NewState {
                key,
                flag,
                archived,
            } = *state;
            if self.contents.flag(self.environment.as_str(), key).is_none() {
                self.insert_flag(key, flag)?;
            }
            self.write_flag(key, flag, archived)?;
        }
        Ok(())
    }

    pub(in crate::store) fn delete_flag(&mut self, key: &FlagKey) -> Result<(), Error> {
        let name = self.environment.as_str();
        if let Some(flags) = self.contents.environments.get_mut(name) {
            flags.remove(key);
        }
        let beside = self.contents.beside(name);
        beside.archived.remove(key);
        beside.times.remove(key);
        beside.overrides.remove(key);
        beside
            .schedules
            .retain(|schedule| schedule.flag_key != *key);
        Ok(())
    }

    pub(in crate::store) fn overrides(
        &mut self,
        key: &FlagKey,
    ) -> Result<Vec<OverrideRecord>, Error> {
        Ok(self.contents.overrides(self.environment.as_str(), key))
    }

    pub(in crate::store) fn named_variants(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, String, u64)>, Error> {
        let mut named = Vec::new();
        for key in keys {
            let mut users: BTreeMap<String, u64> = BTreeMap::new();
            for record in self.contents.overrides(self.environment.as_str(), key) {
                match record.kind {
                    Override::Variant(variant) => *users.entry(variant).or_default() += 1,
                    Override::Include | Override::Exclude => {}
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
        let all = self.contents.overrides(self.environment.as_str(), key);
        Ok(all.into_iter().find(|record| record.user_id == user))
    }

    pub(in crate::store) fn overrides_revision(&mut self, key: &FlagKey) -> Result<i64, Error> {
        Ok(self
            .contents
            .overrides_revision(self.environment.as_str(), key))
    }

    pub(in crate::store) fn put_overrides(
        &mut self,
        key: &FlagKey,
        wanted: &[OverrideRecord],
    ) -> Result<Vec<OverrideRecord>, Error> {
        let now = Some(SystemTime::now());
        let mut put = Vec::with_capacity(wanted.len());
        for one in wanted {
            let user = one.user_id.clone();
            let kind = one.kind.clone();
            let was_there = self.stored_flag(key)?.overrides.insert(user.clone(), kind);
            let beside = self.contents.beside(self.environment.as_str());
            let notes = beside.overrides.entry(key.clone()).or_default();
            let created_at = match was_there {
                // Unknown for one that somebody wrote into the file.
                Some(_) => notes.get(&user).and_then(|note| note.created_at),
                None => one.created_at.or(now),
            };
            let note = OverrideNote {
                reason: one.reason.clone(),
                created_by: one.created_by.clone(),
                created_at,
            };
            notes.insert(user, note);
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
        for user in users {
            self.stored_flag(key)?.overrides.remove(*user);
            let beside = self.contents.beside(self.environment.as_str());
            if let Some(notes) = beside.overrides.get_mut(key) {
                notes.remove(*user);
            }
        }
        Ok(())
    }

    pub(in crate::store) fn wait_for_override_change(
        &mut self,
        key: &FlagKey,
        limit: u32,
        window: Duration,
    ) -> Result<Option<Duration>, Error> {
        let now = SystemTime::now();
        let audit = &self.contents.beside(self.environment.as_str()).audit;
        let nth = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let counted = [Action::SetOverride, Action::SetOverrides].map(Action::name);
        let oldest = audit
            .iter()
            .rev()
            .filter(|entry| {
                entry.flag_key.as_deref() == Some(key.as_str())
                    && counted.contains(&entry.action.as_str())
            })
            .nth(nth);
        Ok(oldest.and_then(|entry| {
            let age = now.duration_since(entry.at).unwrap_or_default();
            window.checked_sub(age)
        }))
    }

    pub(in crate::store) fn settings(&mut self) -> Result<SettingsRecord, Error> {
        Ok(super::settings_in(
            &self.contents,
            self.environment.as_str(),
        ))
    }

    pub(in crate::store) fn write_settings(
        &mut self,
        settings: &Settings,
    ) -> Result<SettingsRecord, Error> {
        let name = self.environment.as_str();
        self.contents.beside(name).settings = settings.clone();
        // So that the environment is there, and can be seen in the file, without a flag.
        let flags = self.contents.environments.entry(name.to_owned());
        flags.or_default();
        self.settings()
    }

    pub(in crate::store) fn environment_revision(&mut self) -> Result<Option<Revision>, Error> {
        let name = self.environment.as_str();
        let known = self.contents.environments.contains_key(name);
        Ok(known.then_some(self.based_on))
    }

    /// The commit raises it, whatever it brings.
    pub(in crate::store) fn raise_revision(&mut self) -> Result<(), Error> {
        Ok(())
    }

    pub(in crate::store) fn insert_schedule(
        &mut self,
        key: &FlagKey,
        at: SystemTime,
        updates: &Value,
    ) -> Result<ScheduleRecord, Error> {
        let schedule = ScheduleRecord {
            id: unique_id(),
            flag_key: key.clone(),
            scheduled_at: at,
            status: ScheduleStatus::Pending,
            updates: updates.clone(),
            applied_at: None,
            error_message: None,
            created_by: Some(self.actor.clone()),
            cancelled_by: None,
            cancelled_at: None,
            created_at: Some(SystemTime::now()),
            retry_count: 0,
            max_retries: MAX_RETRIES,
            next_retry_at: None,
            last_error: None,
        };
        let beside = self.contents.beside(self.environment.as_str());
        beside.schedules.push(schedule.clone());
        Ok(schedule)
    }

    pub(in crate::store) fn schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        let schedules = &self.contents.beside(self.environment.as_str()).schedules;
        let found = schedules
            .iter()
            .find(|schedule| schedule.id == id && schedule.flag_key == *key);
        Ok(found.cloned())
    }

    pub(in crate::store) fn schedules(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<ScheduleRecord>, Error> {
        let schedules = &self.contents.beside(self.environment.as_str()).schedules;
        let of_these = schedules
            .iter()
            .filter(|schedule| keys.contains(&&schedule.flag_key));
        Ok(of_these.cloned().collect())
    }

    pub(in crate::store) fn claim_schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        self.schedule(key, id)
    }

    pub(in crate::store) fn write_schedule(
        &mut self,
        schedule: &ScheduleRecord,
    ) -> Result<(), Error> {
        let schedules = &mut self.contents.beside(self.environment.as_str()).schedules;
        if let Some(known) = schedules.iter_mut().find(|known| known.id == schedule.id) {
            known.clone_from(schedule);
        }
        Ok(())
    }

    pub(in crate::store) fn note(
        &mut self,
        key: Option<&FlagKey>,
        action: Action,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        let newest = self
            .contents
            .beside
            .values()
            .flat_map(|beside| &beside.audit)
            .map(|entry| entry.id)
            .max();
        let entry = AuditEntry {
            id: newest.unwrap_or(0) + 1,
            environment: self.environment.to_string(),
            flag_key: key.map(ToString::to_string),
            action: action.name().to_owned(),
            actor: self.actor.clone(),
            at: SystemTime::now(),
            before,
            after,
        };
        let audit = &mut self.contents.beside(self.environment.as_str()).audit;
        audit.push(entry);
        if audit.len() > LONGEST_AUDIT {
            audit.remove(0);
        }
        Ok(())
    }

    pub(in crate::store) fn note_all(
        &mut self,
        action: Action,
        steps: Vec<AuditStep>,
    ) -> Result<(), Error> {
        for AuditStep { key, before, after } in steps {
            self.note(Some(&key), action, before, after)?;
        }
        Ok(())
    }

    pub(in crate::store) fn commit(self) -> Result<(), Error> {
        let mut inner = self.store.current()?;
        if inner.revision != self.based_on {
            return Err(Error::Unavailable(
                "somebody has edited the file meanwhile".to_owned(),
            ));
        }
        let before = std::mem::replace(&mut inner.contents, self.contents);
        if let Err(error) = inner.write() {
            // What is not in the file has not happened.
            inner.contents = before;
            return Err(Error::FileOfNoUse(error));
        }
        Ok(())
    }

    pub(super) fn actor(&self) -> &str {
        &self.actor
    }

    /// What the service keeps of the environment beside its flags.
    pub(super) fn beside(&mut self) -> &mut Beside {
        self.contents.beside(self.environment.as_str())
    }

    fn must_find(&self, key: &FlagKey) -> Result<FlagRecord, Error> {
        self.contents
            .flag(self.environment.as_str(), key)
            .ok_or_else(|| Error::FlagNotFound(key.to_string()))
    }

    /// The flag with its overrides, wherever it stands.
    fn stored_flag(&mut self, key: &FlagKey) -> Result<&mut Flag, Error> {
        let name = self.environment.as_str();
        let live = self
            .contents
            .environments
            .get_mut(name)
            .and_then(|flags| flags.get_mut(key));
        if let Some(flag) = live {
            return Ok(flag);
        }
        let beside = self.contents.beside.get_mut(name);
        beside
            .and_then(|beside| beside.archived.get_mut(key))
            .map(|archived| &mut archived.flag)
            .ok_or_else(|| Error::FlagNotFound(key.to_string()))
    }
}

/// A revision of settings where nobody counts.
pub(super) fn settings_revision(settings: &Settings) -> i64 {
    if *settings == Settings::default() {
        0
    } else {
        digest_of(settings)
    }
}
