//! Transactions that change one environment.
//!
//! Rows that a read locks stay locked until the transaction ends, so decisions based on them still hold at the commit.
//! A method that locks the rows it reads says so. Dropping a transaction rolls it back.

use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey, Settings};
use serde_json::Value;

use super::record::{
    Action, AuditedChange, EnvironmentState, FlagRecord, FlagRecords, KeyRecord, LeasedWebhook,
    NewState, OverrideRecord, ScheduleRecord, SettingsRecord,
};
use super::{embedded, postgres};
use crate::error::Error;
use crate::events::ChangeEvent;
use crate::flag_sums::FlagSums;
use crate::key_kind::KeyKind;
use crate::ramp::Ramp;
use crate::snapshot::Revision;
use crate::webhooks::{Destination, UnreadableWebhook, Webhook};

/// An open transaction.
pub enum Transaction {
    /// In PostgreSQL.
    Postgres(postgres::Transaction),
    /// On a copy of the local state.
    Embedded(embedded::Transaction),
}

/// Calls a method of the transaction's kind.
macro_rules! dispatch {
    ($transaction:expr, $open:ident => $call:expr) => {
        match $transaction {
            Transaction::Postgres($open) => $call.await,
            Transaction::Embedded($open) => $call,
        }
    };
}

/// A method that can return an [`Error`] returns [`Error::Unavailable`] if the store does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "stated once for all methods")]
impl Transaction {
    /// Locks and reads a flag, archived or not.
    pub async fn flag(&mut self, key: &FlagKey) -> Result<Option<FlagRecord>, Error> {
        dispatch!(self, open => open.flag(key))
    }

    /// Locks the flags, the settings and then the environment, and reads them. From then on until the commit, nobody
    /// else changes them or adds a flag.
    pub async fn lock_environment(&mut self) -> Result<EnvironmentState, Error> {
        dispatch!(self, open => open.lock_environment())
    }

    /// Reads the same as [`Self::lock_environment`], for a transaction that changes nothing. Locks only the
    /// environment, which every change of a flag or of the settings locks too. Waiting for the row of a flag could
    /// deadlock with a change that has locked this row and waits for the environment.
    pub async fn read_environment(&mut self) -> Result<EnvironmentState, Error> {
        dispatch!(self, open => open.read_environment())
    }

    /// Sums over the flags in use (not archived) except this one. The sums stay valid until the commit only if the
    /// environment is locked.
    pub async fn sums_without(&mut self, key: &FlagKey) -> Result<FlagSums, Error> {
        dispatch!(self, open => open.sums_without(key))
    }

    /// Reads all flags in use without locking them. They may change, unless the environment is locked.
    pub async fn flags_in_use(&mut self) -> Result<FlagRecords, Error> {
        dispatch!(self, open => open.flags_in_use())
    }

    /// Adds a flag. [`Error::Conflict`] if the key is taken.
    pub async fn insert_flag(&mut self, key: &FlagKey, flag: &Flag) -> Result<FlagRecord, Error> {
        dispatch!(self, open => open.insert_flag(key, flag))
    }

    /// Replaces an existing flag. Overrides stay as they are.
    pub async fn write_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
        archived: bool,
    ) -> Result<FlagRecord, Error> {
        dispatch!(self, open => open.write_flag(key, flag, archived))
    }

    /// Adds or replaces many flags in a few round trips.
    pub async fn put_flags(&mut self, flags: &[NewState<'_>]) -> Result<(), Error> {
        dispatch!(self, open => open.put_flags(flags))
    }

    /// Removes a flag, and its overrides and schedules with it.
    pub async fn delete_flag(&mut self, key: &FlagKey) -> Result<(), Error> {
        dispatch!(self, open => open.delete_flag(key))
    }

    /// Locks and reads all overrides of a flag, oldest first.
    pub async fn overrides(&mut self, key: &FlagKey) -> Result<Vec<OverrideRecord>, Error> {
        dispatch!(self, open => open.overrides(key))
    }

    /// Reads which variants of these flags occur in overrides, each with its number of users. Locks nothing.
    pub async fn variants_in_overrides(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, String, u64)>, Error> {
        dispatch!(self, open => open.variants_in_overrides(keys))
    }

    /// Reads a flag's override for one user, without locking it.
    pub async fn find_override(
        &mut self,
        key: &FlagKey,
        user: &str,
    ) -> Result<Option<OverrideRecord>, Error> {
        dispatch!(self, open => open.find_override(key, user))
    }

    /// Reads the revision of [`super::OverridePage`], without locking overrides.
    pub async fn overrides_revision(&mut self, key: &FlagKey) -> Result<i64, Error> {
        dispatch!(self, open => open.overrides_revision(key))
    }

    /// Sets overrides of an existing flag, one per user, in one round trip. `created_at` of an existing override stays;
    /// a new override has the given time, or the current one.
    pub async fn put_overrides(
        &mut self,
        key: &FlagKey,
        wanted: &[OverrideRecord],
    ) -> Result<Vec<OverrideRecord>, Error> {
        dispatch!(self, open => open.put_overrides(key, wanted))
    }

    /// Sets one override.
    pub async fn put_override(
        &mut self,
        key: &FlagKey,
        wanted: &OverrideRecord,
    ) -> Result<OverrideRecord, Error> {
        let mut put = self
            .put_overrides(key, std::slice::from_ref(wanted))
            .await?;
        put.pop()
            .ok_or_else(|| Error::Internal("writing an override returned no row".to_owned()))
    }

    /// Removes the overrides of these users, in one round trip.
    pub async fn delete_overrides(&mut self, key: &FlagKey, users: &[&str]) -> Result<(), Error> {
        dispatch!(self, open => open.delete_overrides(key, users))
    }

    /// How long to wait until fewer than `limit` audit entries of the last `window` set overrides of the flag; `None`
    /// if that is so now. A change of many overrides at once is one entry. The flag must be locked, so that concurrent
    /// requests cannot exceed the limit.
    pub async fn override_change_retry_after(
        &mut self,
        key: &FlagKey,
        limit: u32,
        window: Duration,
    ) -> Result<Option<Duration>, Error> {
        dispatch!(self, open => open.override_change_retry_after(key, limit, window))
    }

    /// Locks and reads the settings of the environment.
    pub async fn settings(&mut self) -> Result<SettingsRecord, Error> {
        dispatch!(self, open => open.settings())
    }

    /// Adds the environment with these settings; `None` if it exists.
    pub async fn insert_environment(
        &mut self,
        settings: &Settings,
    ) -> Result<Option<SettingsRecord>, Error> {
        dispatch!(self, open => open.insert_environment(settings))
    }

    /// Replaces the settings of the environment.
    pub async fn write_settings(&mut self, settings: &Settings) -> Result<SettingsRecord, Error> {
        dispatch!(self, open => open.write_settings(settings))
    }

    /// Locks the environment and reads its revision; `None` if it does not exist.
    pub async fn lock_revision(&mut self) -> Result<Option<Revision>, Error> {
        dispatch!(self, open => open.lock_revision())
    }

    /// Raises the environment's revision, so that all cached snapshots are outdated.
    pub async fn raise_revision(&mut self) -> Result<(), Error> {
        dispatch!(self, open => open.raise_revision())
    }

    /// Reads all API keys, revoked ones included, without locking them.
    pub async fn keys(&mut self) -> Result<Vec<KeyRecord>, Error> {
        dispatch!(self, open => open.keys())
    }

    /// Adds a key by its hash.
    pub async fn insert_key(
        &mut self,
        hash: &str,
        kind: KeyKind,
        name: &str,
    ) -> Result<KeyRecord, Error> {
        dispatch!(self, open => open.insert_key(hash, kind, name))
    }

    /// Revokes a key. [`Error::NotFound`] if it does not exist or is already revoked.
    pub async fn revoke_key(&mut self, id: &str) -> Result<KeyRecord, Error> {
        dispatch!(self, open => open.revoke_key(id))
    }

    /// Adds a schedule to an existing flag.
    pub async fn insert_schedule(
        &mut self,
        key: &FlagKey,
        at: SystemTime,
        updates: &Value,
    ) -> Result<ScheduleRecord, Error> {
        dispatch!(self, open => open.insert_schedule(key, at, updates))
    }

    /// Locks and reads a schedule of a flag.
    pub async fn schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        dispatch!(self, open => open.schedule(key, id))
    }

    /// Locks and reads all schedules of these flags.
    pub async fn schedules(&mut self, keys: &[&FlagKey]) -> Result<Vec<ScheduleRecord>, Error> {
        dispatch!(self, open => open.schedules(keys))
    }

    /// Locks and reads a schedule; `None` if another transaction has locked it or it does not exist.
    pub async fn try_lock_schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        dispatch!(self, open => open.try_lock_schedule(key, id))
    }

    /// Writes a schedule.
    pub async fn write_schedule(&mut self, schedule: &ScheduleRecord) -> Result<(), Error> {
        dispatch!(self, open => open.write_schedule(schedule))
    }

    /// Locks and reads the ramps of these flags that are live, or were rolled back and are not acknowledged; a flag
    /// has at most one. `None` stands for an unreadable ramp.
    pub async fn open_ramps(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, Option<Ramp>)>, Error> {
        dispatch!(self, open => open.open_ramps(keys))
    }

    /// Locks and reads the open ramp of one flag.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ramp is unreadable.
    pub async fn open_ramp(&mut self, key: &FlagKey) -> Result<Option<Ramp>, Error> {
        match self.open_ramps(&[key]).await?.pop() {
            None => Ok(None),
            Some((_, Some(ramp))) => Ok(Some(ramp)),
            Some((_, None)) => Err(unreadable_ramp(key)),
        }
    }

    /// Locks and reads a ramp; `None` if another transaction has locked it, or it is unreadable or does not exist.
    pub async fn try_lock_ramp(&mut self, key: &FlagKey, id: &str) -> Result<Option<Ramp>, Error> {
        dispatch!(self, open => open.try_lock_ramp(key, id))
    }

    /// Adds a ramp, or replaces the one with its id.
    pub async fn write_ramp(&mut self, key: &FlagKey, ramp: &Ramp) -> Result<(), Error> {
        dispatch!(self, open => open.write_ramp(key, ramp))
    }

    /// The number of webhooks of the environment, including unreadable ones.
    pub async fn count_webhooks(&mut self) -> Result<u64, Error> {
        dispatch!(self, open => open.count_webhooks())
    }

    /// Locks and reads a webhook of the environment.
    pub async fn webhook(
        &mut self,
        id: &str,
    ) -> Result<Option<Result<Webhook, UnreadableWebhook>>, Error> {
        dispatch!(self, open => open.webhook(id))
    }

    /// Adds a webhook.
    pub async fn insert_webhook(
        &mut self,
        webhook: &Webhook,
        destination: &Destination,
    ) -> Result<(), Error> {
        dispatch!(self, open => open.insert_webhook(webhook, destination))
    }

    /// Replaces the webhook with this id, except its URL and secret. With a lease, only while it still has this lease.
    /// Returns whether it was replaced.
    pub async fn write_webhook(
        &mut self,
        webhook: &Webhook,
        lease: Option<SystemTime>,
    ) -> Result<bool, Error> {
        dispatch!(self, open => open.write_webhook(webhook, lease))
    }

    /// Leases the enabled webhook, of any environment, that is due and has waited longest with undelivered events. No
    /// other transaction leases it until the lease ends or it is written.
    pub async fn lease_webhook(&mut self, lease: Duration) -> Result<Option<LeasedWebhook>, Error> {
        dispatch!(self, open => open.lease_webhook(lease))
    }

    /// Deletes a webhook, its URL, its secret and its undelivered events.
    pub async fn delete_webhook(&mut self, id: &str) -> Result<(), Error> {
        dispatch!(self, open => open.delete_webhook(id))
    }

    /// The actor, for the audit.
    #[must_use]
    pub fn actor(&self) -> &str {
        match self {
            Self::Postgres(open) => open.actor(),
            Self::Embedded(open) => open.actor(),
        }
    }

    /// Actor and [`Action`] of the newest audit entry in which the flag or one of its ramps changed.
    pub async fn last_change(&mut self, key: &FlagKey) -> Result<Option<(String, String)>, Error> {
        dispatch!(self, open => open.last_change(key))
    }

    /// Claims events for the event bus up to a limit: the first undelivered event of each flag, the longest due first.
    /// No other transaction claims events of these flags until this one ends.
    pub async fn claim_events(&mut self, limit: u32) -> Result<Vec<ChangeEvent>, Error> {
        dispatch!(self, open => open.claim_events(limit))
    }

    /// The oldest undelivered events of a webhook, in the order in which they are to be delivered.
    pub async fn next_events(
        &mut self,
        webhook_id: &str,
        limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        dispatch!(self, open => open.next_events(webhook_id, limit))
    }

    /// Removes events that a webhook has received, by their positions.
    pub async fn remove_events(
        &mut self,
        webhook_id: &str,
        delivered: &[i64],
    ) -> Result<(), Error> {
        dispatch!(self, open => open.remove_events(webhook_id, delivered))
    }

    /// Removes events that the event bus has received, by their positions, and postpones rejected ones.
    pub async fn settle_events(
        &mut self,
        delivered: &[i64],
        rejected: &[i64],
    ) -> Result<(), Error> {
        dispatch!(self, open => open.settle_events(delivered, rejected))
    }

    /// Adds an audit entry.
    pub async fn add_audit_entry(
        &mut self,
        key: Option<&FlagKey>,
        action: Action,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        dispatch!(self, open => open.add_audit_entry(key, action, before, after))
    }

    /// Adds many audit entries with the same action, in this order and in a few round trips.
    pub async fn add_audit_entries(
        &mut self,
        action: Action,
        changes: impl Iterator<Item = AuditedChange>,
    ) -> Result<(), Error> {
        dispatch!(self, open => open.add_audit_entries(action, changes))
    }

    /// Commits. [`Error::Unavailable`] if the outcome is unknown: the database still commits if it receives the request
    /// within [`super::COMMIT_TIMEOUT`].
    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Postgres(open) => open.commit().await,
            Self::Embedded(open) => open.commit(),
        }
    }

    /// Rolls back and keeps the connection for the next transaction. Dropping a transaction rolls back too, but closes
    /// the connection.
    pub async fn rollback(self) {
        match self {
            Self::Postgres(open) => open.rollback().await,
            Self::Embedded(_) => {}
        }
    }
}

/// The error of an operation on a ramp whose stored form cannot be parsed.
pub(crate) fn unreadable_ramp(key: &FlagKey) -> Error {
    Error::Conflict(format!(
        "The ramp of '{key}' is unreadable: its row was edited, or a newer version wrote it; the log says why"
    ))
}
