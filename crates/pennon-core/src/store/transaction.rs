//! Changes to one environment that happen together or not at all.
//!
//! Rows that are read here stay locked until the end, so what was decided on them still holds when
//! it is committed. Dropping a transaction takes everything back.

use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey, Settings};
use serde_json::Value;

use super::record::{
    Action, AuditStep, FlagRecord, FlagRecords, KeyRecord, NewState, OverrideRecord,
    ScheduleRecord, SettingsRecord,
};
use super::{embedded, postgres};
use crate::error::Error;
use crate::flag_sums::FlagSums;
use crate::ramp::Ramp;
use crate::snapshot::{KeyKind, Revision};

/// Changes that are made and not committed.
pub enum Transaction {
    /// In PostgreSQL.
    Postgres(postgres::Transaction),
    /// On a copy of the file.
    Embedded(embedded::Transaction),
}

/// Asks whichever kind it is.
macro_rules! ask {
    ($transaction:expr, $kept:ident => $question:expr) => {
        match $transaction {
            Transaction::Postgres($kept) => $question.await,
            Transaction::Embedded($kept) => $question,
        }
    };
}

/// Every step fails with [`Error::Unavailable`] when the store does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
impl Transaction {
    /// A flag, archived or not. Nobody else changes it until the end.
    pub async fn flag(&mut self, key: &FlagKey) -> Result<Option<FlagRecord>, Error> {
        ask!(self, open => open.flag(key))
    }

    /// Every flag, archived ones included. Nobody else changes them until the end.
    pub async fn flags(&mut self) -> Result<FlagRecords, Error> {
        ask!(self, open => open.flags())
    }

    /// Sums over the flags in use but this one. Ask with the environment locked: then they hold.
    pub async fn sums_without(&mut self, key: &FlagKey) -> Result<FlagSums, Error> {
        ask!(self, open => open.sums_without(key))
    }

    /// Every flag in use, as it is now. Others may change them, unless the environment is locked.
    pub async fn flags_in_use(&mut self) -> Result<FlagRecords, Error> {
        ask!(self, open => open.flags_in_use())
    }

    /// Adds a flag. [`Error::Conflict`] when there is one under this key.
    pub async fn insert_flag(&mut self, key: &FlagKey, flag: &Flag) -> Result<FlagRecord, Error> {
        ask!(self, open => open.insert_flag(key, flag))
    }

    /// Replaces a flag that is there. Overrides stay as they are.
    pub async fn write_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
        archived: bool,
    ) -> Result<FlagRecord, Error> {
        ask!(self, open => open.write_flag(key, flag, archived))
    }

    /// Adds flags, or replaces those that are there, as [`Self::insert_flag`] and [`Self::write_flag`]
    /// do: many at once, in a few round trips.
    pub async fn put_flags(&mut self, flags: &[NewState<'_>]) -> Result<(), Error> {
        ask!(self, open => open.put_flags(flags))
    }

    /// Removes a flag, and its overrides and schedules with it.
    pub async fn delete_flag(&mut self, key: &FlagKey) -> Result<(), Error> {
        ask!(self, open => open.delete_flag(key))
    }

    /// All overrides of a flag, oldest first.
    pub async fn overrides(&mut self, key: &FlagKey) -> Result<Vec<OverrideRecord>, Error> {
        ask!(self, open => open.overrides(key))
    }

    /// Which variants of these flags overrides name, and for how many users each.
    pub async fn named_variants(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, String, u64)>, Error> {
        ask!(self, open => open.named_variants(keys))
    }

    /// A flag's override for one user.
    pub async fn find_override(
        &mut self,
        key: &FlagKey,
        user: &str,
    ) -> Result<Option<OverrideRecord>, Error> {
        ask!(self, open => open.find_override(key, user))
    }

    /// The revision of [`super::OverridePage`].
    pub async fn overrides_revision(&mut self, key: &FlagKey) -> Result<i64, Error> {
        ask!(self, open => open.overrides_revision(key))
    }

    /// Sets overrides of a flag that is there, one for each user, in one round trip. Where a user has one
    /// already, `created_at` stays what it is; otherwise it is what is wanted, or now.
    pub async fn put_overrides(
        &mut self,
        key: &FlagKey,
        wanted: &[OverrideRecord],
    ) -> Result<Vec<OverrideRecord>, Error> {
        ask!(self, open => open.put_overrides(key, wanted))
    }

    /// The same for one.
    pub async fn put_override(
        &mut self,
        key: &FlagKey,
        wanted: &OverrideRecord,
    ) -> Result<OverrideRecord, Error> {
        let mut put = self
            .put_overrides(key, std::slice::from_ref(wanted))
            .await?;
        put.pop()
            .ok_or_else(|| Error::Internal("an override left no row".to_owned()))
    }

    /// Removes the overrides of these users, in one round trip.
    pub async fn delete_overrides(&mut self, key: &FlagKey, users: &[&str]) -> Result<(), Error> {
        ask!(self, open => open.delete_overrides(key, users))
    }

    /// How long to wait until fewer than `limit` additions and changes of a flag's overrides lie within
    /// the window, as the audit tells. Ask with the flag locked: then nobody else can add one meanwhile.
    pub async fn wait_for_override_change(
        &mut self,
        key: &FlagKey,
        limit: u32,
        window: Duration,
    ) -> Result<Option<Duration>, Error> {
        ask!(self, open => open.wait_for_override_change(key, limit, window))
    }

    /// The settings of the environment. Nobody else changes them until the end, if there are any.
    pub async fn settings(&mut self) -> Result<SettingsRecord, Error> {
        ask!(self, open => open.settings())
    }

    /// Replaces the settings of the environment, which thereby exists.
    pub async fn write_settings(&mut self, settings: &Settings) -> Result<SettingsRecord, Error> {
        ask!(self, open => open.write_settings(settings))
    }

    /// The environment's revision; `None` when there is no such environment. Nobody else changes the
    /// environment until the end.
    pub async fn environment_revision(&mut self) -> Result<Option<Revision>, Error> {
        ask!(self, open => open.environment_revision())
    }

    /// Raises the environment's revision, so that nobody takes what he has for current.
    pub async fn raise_revision(&mut self) -> Result<(), Error> {
        ask!(self, open => open.raise_revision())
    }

    /// All API keys, revoked ones included.
    pub async fn keys(&mut self) -> Result<Vec<KeyRecord>, Error> {
        ask!(self, open => open.keys())
    }

    /// Adds a key by its hash.
    pub async fn insert_key(
        &mut self,
        hash: &str,
        kind: KeyKind,
        name: &str,
    ) -> Result<KeyRecord, Error> {
        ask!(self, open => open.insert_key(hash, kind, name))
    }

    /// Revokes a key. [`Error::NotFound`] when it is not there, or revoked.
    pub async fn revoke_key(&mut self, id: &str) -> Result<KeyRecord, Error> {
        ask!(self, open => open.revoke_key(id))
    }

    /// Plans a change of a flag that is there.
    pub async fn insert_schedule(
        &mut self,
        key: &FlagKey,
        at: SystemTime,
        updates: &Value,
    ) -> Result<ScheduleRecord, Error> {
        ask!(self, open => open.insert_schedule(key, at, updates))
    }

    /// A schedule of a flag. Nobody else changes it until the end.
    pub async fn schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        ask!(self, open => open.schedule(key, id))
    }

    /// All schedules of these flags. Nobody else changes them until the end.
    pub async fn schedules(&mut self, keys: &[&FlagKey]) -> Result<Vec<ScheduleRecord>, Error> {
        ask!(self, open => open.schedules(keys))
    }

    /// One schedule, but nothing when somebody else has it in hand.
    pub async fn claim_schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        ask!(self, open => open.claim_schedule(key, id))
    }

    /// Writes down what has become of a schedule.
    pub async fn write_schedule(&mut self, schedule: &ScheduleRecord) -> Result<(), Error> {
        ask!(self, open => open.write_schedule(schedule))
    }

    /// The ramps of these flags that are live, or were rolled back and are not acknowledged; a flag has
    /// one at most. Nobody else changes them until the end.
    pub async fn open_ramps(&mut self, keys: &[&FlagKey]) -> Result<Vec<(FlagKey, Ramp)>, Error> {
        ask!(self, open => open.open_ramps(keys))
    }

    /// The same for one flag.
    pub async fn open_ramp(&mut self, key: &FlagKey) -> Result<Option<Ramp>, Error> {
        let mut found = self.open_ramps(&[key]).await?;
        Ok(found.pop().map(|(_, ramp)| ramp))
    }

    /// One ramp, but nothing while another transaction has it.
    pub async fn claim_ramp(&mut self, key: &FlagKey, id: &str) -> Result<Option<Ramp>, Error> {
        ask!(self, open => open.claim_ramp(key, id))
    }

    /// Adds a ramp, or replaces the one with its id.
    pub async fn write_ramp(&mut self, key: &FlagKey, ramp: &Ramp) -> Result<(), Error> {
        ask!(self, open => open.write_ramp(key, ramp))
    }

    /// Who has changed the flag last, and by which [`Action`], as the audit tells.
    pub async fn last_change(&mut self, key: &FlagKey) -> Result<Option<(String, String)>, Error> {
        ask!(self, open => open.last_change(key))
    }

    /// Writes into the audit what this transaction does.
    pub async fn note(
        &mut self,
        key: Option<&FlagKey>,
        action: Action,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        ask!(self, open => open.note(key, action, before, after))
    }

    /// Writes many entries of one kind, in this order and in a few round trips.
    pub async fn note_all(&mut self, action: Action, steps: Vec<AuditStep>) -> Result<(), Error> {
        ask!(self, open => open.note_all(action, steps))
    }

    /// Commits. [`Error::Unavailable`] when the outcome is unknown: the commit may still happen, within
    /// [`super::COMMIT_WITHIN`].
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Postgres(open) => open.commit().await,
            Self::Embedded(open) => open.commit(),
        }
    }
}
