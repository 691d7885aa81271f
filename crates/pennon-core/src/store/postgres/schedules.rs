//! Scheduled changes.

use std::time::SystemTime;

use pennon_eval::FlagKey;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::statement::Parameter;
use super::transaction::Transaction;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{DueSchedule, ScheduleRecord, ScheduleStatus};

const COLUMNS: &str = "schedule.id::text as id, flag.flag_key, schedule.scheduled_at,
    schedule.status, schedule.updates::text as updates, schedule.applied_at,
    schedule.error_message, schedule.created_by, schedule.cancelled_by, schedule.cancelled_at,
    schedule.created_at, schedule.retry_count, schedule.max_retries, schedule.next_retry_at,
    schedule.last_error";

impl PostgresStore {
    pub(in crate::store) async fn list_schedules(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<Vec<ScheduleRecord>>, Error> {
        // One row without an id if the flag has no schedules; no row if the flag does not exist or is
        // archived.
        let statement = format!(
            "select {COLUMNS} from feature_flags as flag
             left join feature_flag_schedules as schedule on schedule.flag_id = flag.id
             where flag.flag_key = $1 and flag.environment = $2 and flag.archived_at is null
             order by schedule.scheduled_at, schedule.created_at nulls first, schedule.id"
        );
        let parameters: [Parameter<'_>; 2] = [
            (&key.as_str(), Type::TEXT),
            (&environment.as_str(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(rows.iter().filter_map(record_of).collect()))
    }

    pub(in crate::store) async fn due_schedules(
        &self,
        limit: u32,
    ) -> Result<Vec<DueSchedule>, Error> {
        // Flags that someone else has locked come last, so that waiting for them delays no others. The first condition
        // is that of `Environment::parse` and `FlagKey::parse`: rows that no request can change would fill the list for
        // ever. The others are those of `ScheduleRecord::is_due`.
        let statement = "
            select flag.environment, flag.flag_key, schedule.id::text as id
            from feature_flag_schedules as schedule
            join feature_flags as flag on flag.id = schedule.flag_id
            left join lateral (
              select true as is_free from feature_flags as same
              where same.id = flag.id for no key update skip locked
            ) as probe on true
            where flag.environment ~ '^[A-Za-z0-9_-]{1,20}$' and flag.flag_key <> ''
              and schedule.scheduled_at <= now()
              and (schedule.next_retry_at is null or schedule.next_retry_at <= now())
              and (schedule.status = 'pending'
                   or (schedule.status = 'failed' and schedule.next_retry_at is not null
                       and schedule.retry_count < schedule.max_retries))
            order by probe.is_free nulls last, schedule.scheduled_at, schedule.created_at nulls first, schedule.id
            limit $1";
        let rows = self
            .rows(statement, &[(&i64::from(limit), Type::INT8)])
            .await?;
        let due = rows.iter().filter_map(|row| {
            Some(DueSchedule {
                environment: Environment::parse(row.get("environment")).ok()?,
                key: FlagKey::parse(row.get::<_, &str>("flag_key")).ok()?,
                id: row.get("id"),
            })
        });
        Ok(due.collect())
    }
}

impl Transaction {
    pub(in crate::store) async fn insert_schedule(
        &mut self,
        key: &FlagKey,
        at: SystemTime,
        updates: &Value,
    ) -> Result<ScheduleRecord, Error> {
        let statement = format!(
            "with schedule as (
               insert into feature_flag_schedules (flag_id, scheduled_at, updates, created_by)
               select id, $3, $4::jsonb, $5 from feature_flags
               where flag_key = $1 and environment = $2
               returning *
             )
             select {COLUMNS} from schedule join feature_flags as flag on flag.id = schedule.flag_id"
        );
        let parameters: [Parameter<'_>; 5] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&at, Type::TIMESTAMPTZ),
            (&updates.to_string(), Type::TEXT),
            (&self.actor(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        let record = rows.first().and_then(record_of);
        record.ok_or_else(|| Error::FlagNotFound(key.to_string()))
    }

    pub(in crate::store) async fn schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        self.locked_schedule(key, id, "for update of schedule")
            .await
    }

    pub(in crate::store) async fn try_lock_schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        self.locked_schedule(key, id, "for update of schedule skip locked")
            .await
    }

    pub(in crate::store) async fn schedules(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<ScheduleRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flag_schedules as schedule
             join feature_flags as flag on flag.id = schedule.flag_id
             where flag.environment = $1 and flag.flag_key = any($2)
             order by schedule.scheduled_at, schedule.created_at nulls first, schedule.id
             for update of schedule"
        );
        let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        let parameters: [Parameter<'_>; 2] =
            [(&self.environment(), Type::TEXT), (&keys, Type::TEXT_ARRAY)];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.iter().filter_map(record_of).collect())
    }

    async fn locked_schedule(
        &mut self,
        key: &FlagKey,
        id: &str,
        lock: &str,
    ) -> Result<Option<ScheduleRecord>, Error> {
        // Compared as text, so that an invalid UUID matches no row. A cast of it would fail the query.
        let statement = format!(
            "select {COLUMNS} from feature_flag_schedules as schedule
             join feature_flags as flag on flag.id = schedule.flag_id
             where flag.flag_key = $1 and flag.environment = $2 and schedule.id::text = $3
             {lock}"
        );
        let parameters: [Parameter<'_>; 3] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&id, Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.first().and_then(record_of))
    }

    pub(in crate::store) async fn write_schedule(
        &mut self,
        schedule: &ScheduleRecord,
    ) -> Result<(), Error> {
        let status = match schedule.status {
            ScheduleStatus::Pending => "pending",
            ScheduleStatus::Applied => "applied",
            // `Unreadable` is never written: it represents an unknown status.
            ScheduleStatus::Failed | ScheduleStatus::Unreadable => "failed",
            ScheduleStatus::Cancelled => "cancelled",
        };
        let parameters: [Parameter<'_>; 9] = [
            (&schedule.id, Type::TEXT),
            (&status, Type::TEXT),
            (&schedule.applied_at, Type::TIMESTAMPTZ),
            (&schedule.error_message, Type::TEXT),
            (&schedule.cancelled_by, Type::TEXT),
            (&schedule.cancelled_at, Type::TIMESTAMPTZ),
            (&schedule.retry_count, Type::INT4),
            (&schedule.next_retry_at, Type::TIMESTAMPTZ),
            (&schedule.last_error, Type::TEXT),
        ];
        self.rows(
            "update feature_flag_schedules
             set status = $2, applied_at = $3, error_message = $4, cancelled_by = $5,
                 cancelled_at = $6, retry_count = $7, next_retry_at = $8, last_error = $9,
                 updated_at = now()
             where id::text = $1",
            &parameters,
        )
        .await?;
        Ok(())
    }
}

/// Parses a schedule. An unreadable one holds the reason, so that others in the list are not affected. `None` for the
/// row of a flag without schedules, or with an invalid key.
fn record_of(row: &Row) -> Option<ScheduleRecord> {
    let id: Option<String> = row.get("id");
    let mut wrong = Vec::new();
    let status: Option<&str> = row.get("status");
    let status = match status.unwrap_or_default() {
        "pending" => ScheduleStatus::Pending,
        "applied" => ScheduleStatus::Applied,
        "failed" => ScheduleStatus::Failed,
        "cancelled" => ScheduleStatus::Cancelled,
        other => {
            wrong.push(format!("its status '{other}' is unknown"));
            ScheduleStatus::Unreadable
        }
    };
    let scheduled_at: Option<SystemTime> = row.get("scheduled_at");
    if scheduled_at.is_none() {
        wrong.push("it has no time".to_owned());
    }
    // The column may contain any JSON, such as a number out of range.
    let updates: Option<&str> = row.get("updates");
    let updates = serde_json::from_str(updates.unwrap_or_default()).unwrap_or_else(|error| {
        wrong.push(format!("its updates cannot be read: {error}"));
        Value::Null
    });
    let number = |column: &str| row.get::<_, Option<i32>>(column).unwrap_or(0);
    Some(ScheduleRecord {
        id: id?,
        flag_key: FlagKey::parse(row.get::<_, &str>("flag_key")).ok()?,
        scheduled_at: scheduled_at.unwrap_or(SystemTime::UNIX_EPOCH),
        status,
        updates,
        applied_at: row.get("applied_at"),
        error_message: row.get("error_message"),
        created_by: row.get("created_by"),
        cancelled_by: row.get("cancelled_by"),
        unreadable: (!wrong.is_empty()).then(|| wrong.join("; ")),
        cancelled_at: row.get("cancelled_at"),
        created_at: row.get("created_at"),
        retry_count: number("retry_count"),
        max_retries: number("max_retries"),
        next_retry_at: row.get("next_retry_at"),
        last_error: row.get("last_error"),
    })
}
