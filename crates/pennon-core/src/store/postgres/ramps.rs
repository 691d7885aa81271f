//! Ramps.

use std::time::SystemTime;

use pennon_eval::FlagKey;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tracing::error;

use super::statement::count;
use super::{PostgresStore, Transaction};
use crate::environment::Environment;
use crate::error::Error;
use crate::ramp::{FlagRamp, Guard, Ramp};

impl PostgresStore {
    pub(in crate::store) async fn watched_ramps(&self, limit: u32) -> Result<Vec<FlagRamp>, Error> {
        let statement = "
            select environment, flag_key, id, ramp::text as ramp from pennon_ramps
            where watched order by checked_at nulls first, id limit $1";
        let rows = self
            .rows(statement, &[(&i64::from(limit), Type::INT8)])
            .await?;
        Ok(rows.iter().filter_map(flag_ramp_of).collect())
    }

    pub(in crate::store) async fn open_ramps_guarded_by(
        &self,
        alarms: &[&str],
    ) -> Result<Vec<FlagRamp>, Error> {
        // Open ramps have an index. Without it, the query would read all ended ramps too, which are never deleted.
        let statement = "
            select environment, flag_key, id, ramp::text as ramp from pennon_ramps
            where open and alarms && $1 order by id";
        let rows = self.rows(statement, &[(&alarms, Type::TEXT_ARRAY)]).await?;
        Ok(rows.iter().filter_map(flag_ramp_of).collect())
    }

    pub(in crate::store) async fn last_change(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<(String, String)>, Error> {
        let parameters: [super::Parameter<'_>; 2] = [
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
        ];
        let rows = self.rows(LAST_CHANGE, &parameters).await?;
        Ok(rows.first().map(change_of))
    }

    pub(in crate::store) async fn list_ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
        limit: u32,
    ) -> Result<Vec<Option<Ramp>>, Error> {
        let statement = "
            select id, ramp::text as ramp from pennon_ramps
            where environment = $1 and flag_key = $2 order by created_at desc, id limit $3";
        let parameters: [super::Parameter<'_>; 3] = [
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&i64::from(limit), Type::INT8),
        ];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.iter().map(ramp_of).collect())
    }

    pub(in crate::store) async fn evaluation_counter(
        &self,
        environment: &Environment,
        key: &FlagKey,
        time: SystemTime,
    ) -> Result<u64, Error> {
        let statement = "
            select least(coalesce(sum(count), 0), 9223372036854775807)::bigint as count
            from pennon_evaluation_hours
            where environment = $1 and flag_key = $2 and hour >= date_trunc('hour', $3)";
        let parameters: [super::Parameter<'_>; 3] = [
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&time, Type::TIMESTAMPTZ),
        ];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.first().map_or(0, |row| count(row, "count")))
    }
}

impl Transaction {
    pub(in crate::store) async fn open_ramps(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, Option<Ramp>)>, Error> {
        let statement = "
            select flag_key, id, ramp::text as ramp from pennon_ramps
            where environment = $1 and flag_key = any($2) and open
            order by flag_key for update";
        let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        let parameters: [super::Parameter<'_>; 2] =
            [(&self.environment(), Type::TEXT), (&keys, Type::TEXT_ARRAY)];
        let rows = self.rows(statement, &parameters).await?;
        let open = rows.iter().filter_map(|row| {
            let key = FlagKey::parse(row.get::<_, &str>("flag_key")).ok()?;
            Some((key, ramp_of(row)))
        });
        Ok(open.collect())
    }

    pub(in crate::store) async fn try_lock_ramp(
        &mut self,
        key: &FlagKey,
        id: &str,
    ) -> Result<Option<Ramp>, Error> {
        let statement = "
            select id, ramp::text as ramp from pennon_ramps
            where environment = $1 and flag_key = $2 and id = $3 for update skip locked";
        let parameters: [super::Parameter<'_>; 3] = [
            (&self.environment(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&id, Type::TEXT),
        ];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.first().and_then(ramp_of))
    }

    pub(in crate::store) async fn write_ramp(
        &mut self,
        key: &FlagKey,
        ramp: &Ramp,
    ) -> Result<(), Error> {
        let text = serde_json::to_string(ramp)
            .map_err(|error| Error::Internal(format!("a ramp cannot be serialised: {error}")))?;
        let (watched, open) = (ramp.state.is_watched(), ramp.is_open());
        let guards = ramp.plan.guards.iter();
        let alarms: Vec<&str> = guards.map(Guard::name).collect();
        let parameters: [super::Parameter<'_>; 8] = [
            (&ramp.id, Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&watched, Type::BOOL),
            (&open, Type::BOOL),
            (&ramp.checked_at, Type::TIMESTAMPTZ),
            (&alarms, Type::TEXT_ARRAY),
            (&text, Type::TEXT),
        ];
        let statement = "
            insert into pennon_ramps
              (id, environment, flag_key, watched, open, checked_at, alarms, ramp)
            values ($1, $2, $3, $4, $5, $6, $7, $8::json)
            on conflict (id) do update
              set watched = excluded.watched, open = excluded.open,
                  checked_at = excluded.checked_at, alarms = excluded.alarms, ramp = excluded.ramp, updated_at = now()";
        self.rows(statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn last_change(
        &mut self,
        key: &FlagKey,
    ) -> Result<Option<(String, String)>, Error> {
        let parameters: [super::Parameter<'_>; 2] = [
            (&self.environment(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
        ];
        let rows = self.rows(LAST_CHANGE, &parameters).await?;
        Ok(rows.first().map(change_of))
    }
}

const LAST_CHANGE: &str = "
    select actor, action from pennon_audit
    where environment = $1 and flag_key = $2 and (action like 'flag.%' or action like 'ramp.%')
      and before::text is distinct from after::text
    order by id desc limit 1";

fn change_of(row: &Row) -> (String, String) {
    (row.get("actor"), row.get("action"))
}

fn flag_ramp_of(row: &Row) -> Option<FlagRamp> {
    Some(FlagRamp {
        environment: Environment::parse(row.get("environment")).ok()?,
        key: FlagKey::parse(row.get::<_, &str>("flag_key")).ok()?,
        ramp: ramp_of(row)?,
    })
}

/// Parses a stored ramp. `None` for an unreadable one, which is logged and does not affect others.
pub(super) fn ramp_of(row: &Row) -> Option<Ramp> {
    let id: &str = row.get("id");
    serde_json::from_str(row.get("ramp"))
        .inspect_err(|why| {
            error!(domain = "config", ramp = id, error = %why, "a stored ramp cannot be read");
        })
        .ok()
}
