//! Schedules and ramps of a transaction of the local store.

use std::time::SystemTime;

use pennon_eval::FlagKey;
use serde_json::Value;

use super::Transaction;
use crate::error::Error;
use crate::id::unique_id;
use crate::ramp::Ramp;
use crate::store::embedded::state::{Record, StoredRamp};
use crate::store::record::{ScheduleRecord, ScheduleStatus};

/// The limit on retries of a schedule; equal to the default in the database.
const MAX_RETRIES: i32 = 3;

#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl Transaction {
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
            unreadable: None,
            cancelled_at: None,
            created_at: Some(SystemTime::now()),
            retry_count: 0,
            max_retries: MAX_RETRIES,
            next_retry_at: None,
            last_error: None,
        };
        self.write_schedule(&schedule)?;
        Ok(schedule)
    }

    pub(in crate::store) fn schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        let state = self.data.state.of(self.environment.as_str());
        let found = state.and_then(|state| state.schedules.get(id));
        Ok(found.filter(|schedule| schedule.flag_key == *key).cloned())
    }

    pub(in crate::store) fn schedules(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<ScheduleRecord>, Error> {
        let state = self.data.state.of(self.environment.as_str());
        let schedules = state.into_iter().flat_map(|state| state.schedules.values());
        let of_these = schedules.filter(|schedule| keys.contains(&&schedule.flag_key));
        Ok(of_these.cloned().collect())
    }

    pub(in crate::store) fn try_lock_schedule(
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
        self.apply(Record::Schedule {
            environment: self.environment.to_string(),
            schedule: Box::new(schedule.clone()),
        });
        Ok(())
    }

    pub(in crate::store) fn open_ramps(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, Option<Ramp>)>, Error> {
        let open = keys.iter().filter_map(|key| {
            let ramp = self.ramps(key).iter().find(|ramp| ramp.is_open())?;
            Some(((*key).clone(), ramp.readable().cloned()))
        });
        Ok(open.collect())
    }

    pub(in crate::store) fn try_lock_ramp(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<Ramp>, Error> {
        let mut readable = self.ramps(key).iter().filter_map(StoredRamp::readable);
        Ok(readable.find(|ramp| ramp.id == id).cloned())
    }

    pub(in crate::store) fn write_ramp(&mut self, key: &FlagKey, ramp: &Ramp) -> Result<(), Error> {
        self.apply(Record::Ramp {
            environment: self.environment.to_string(),
            key: key.clone(),
            ramp: StoredRamp::Readable(Box::new(ramp.clone())),
        });
        Ok(())
    }

    pub(in crate::store) fn last_change(
        &mut self,
        key: &FlagKey,
    ) -> Result<Option<(String, String)>, Error> {
        self.store.last_change(&self.environment, key)
    }

    fn ramps(&self, key: &FlagKey) -> &[StoredRamp] {
        let state = self.data.state.of(self.environment.as_str());
        let ramps = state.and_then(|state| state.ramps.get(key));
        ramps.map_or(&[], Vec::as_slice)
    }
}
