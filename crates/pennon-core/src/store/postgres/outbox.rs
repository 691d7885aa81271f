//! The outbox: change events that are committed and not yet delivered.
//!
//! [`with_events`] writes one row per event and destination, in the statement that writes the audit entry. The
//! destinations are [`BUS`], if an event bus is configured, and the ids of the environment's webhooks, disabled ones
//! included. Without a destination a change writes no row and counts no sequence number.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::statement::{Parameter, count};
use super::{PostgresStore, Transaction};
use crate::error::Error;
use crate::events::{ChangeEvent, EventState, MAX_EVENT_SIZE};
use crate::store::{Backlog, EVENT_RETENTION, MAX_BACKLOG};

/// The destination of events for the event bus.
const BUS: &str = "bus";

/// Selects events with their content. `$1` is the limit on the bytes of a state; of a larger state only the hash is
/// read.
const EVENTS: &str = "
    select outbox.position, outbox.sequence, outbox.revision,
      audit.id, audit.environment, audit.flag_key, audit.action, audit.actor, audit.at,
      case when octet_length(audit.before::text) <= $1 then audit.before::text end as before,
      encode(sha256(convert_to(audit.before::text, 'UTF8')), 'hex') as before_hash,
      case when octet_length(audit.after::text) <= $1 then audit.after::text end as after,
      encode(sha256(convert_to(audit.after::text, 'UTF8')), 'hex') as after_hash
    from pennon_outbox as outbox
    join pennon_audit as audit on audit.id = outbox.audit_id";

impl PostgresStore {
    pub(in crate::store) async fn backlog(&self) -> Result<Backlog, Error> {
        let statement = "
            select count(*) as events,
              coalesce(extract(epoch from now() - min(created_at)), 0)::bigint as age
            from pennon_outbox where destination = $1";
        let rows = self.rows(statement, &[(&BUS, Type::TEXT)]).await?;
        let row = rows.first();
        Ok(Backlog {
            events: row.map_or(0, |row| count(row, "events")),
            age: Duration::from_secs(row.map_or(0, |row| count(row, "age"))),
        })
    }

    pub(in crate::store) async fn expire_events(&self, has_bus: bool) -> Result<u64, Error> {
        // Leaves out rows that another transaction has locked, because it delivers or removes these events. A wait for
        // it could exceed the time limit of the statement, or deadlock: it may delete its rows in another order.
        let statement = "
            with limits as materialized (
              select destination, (
                select position from pennon_outbox as counted
                where counted.destination = known.destination
                order by position desc offset $4 limit 1
              ) as last
              from (select distinct destination from pennon_outbox) as known
            ),
            expired as materialized (
              select outbox.destination, outbox.position
              from pennon_outbox as outbox join limits on outbox.destination = limits.destination
              where outbox.created_at < now() - make_interval(secs => $3)
                or outbox.position <= limits.last
                or (outbox.destination = $1 and not $2)
                or (outbox.destination <> $1 and not exists (
                  select from pennon_webhooks where id = outbox.destination
                ))
              for update of outbox skip locked
            ),
            removed as (
              delete from pennon_outbox as outbox using expired
              where outbox.destination = expired.destination and outbox.position = expired.position
              returning 1
            )
            select count(*) as removed from removed";
        let parameters: [Parameter<'_>; 4] = [
            (&BUS, Type::TEXT),
            (&has_bus, Type::BOOL),
            (&EVENT_RETENTION.as_secs_f64(), Type::FLOAT8),
            (&i64::from(MAX_BACKLOG), Type::INT8),
        ];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.first().map_or(0, |row| count(row, "removed")))
    }
}

impl Transaction {
    /// Only the first undelivered event of a flag can be claimed. While a transaction holds it, others skip the
    /// flag, so no event overtakes an earlier one of its flag, however many transactions deliver.
    ///
    /// The events that have been due for longest are claimed first. In the order of their positions, flags whose events
    /// are always rejected could fill every call.
    ///
    /// The first events are found in one pass over the outbox. A search for an earlier event per row exceeds the time
    /// limit of a statement once an outage has left 100,000 rows.
    pub(in crate::store) async fn claim_events(
        &mut self,
        limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        let statement = format!(
            "with first as materialized (
              select min(position) as position from pennon_outbox
              where destination = $2 group by environment, flag_key
            )
            {EVENTS}
            join first on first.position = outbox.position
            where outbox.destination = $2 and outbox.retry_at <= now()
            order by outbox.retry_at, outbox.position limit $3
            for update of outbox skip locked"
        );
        self.read_events(&statement, BUS, limit).await
    }

    pub(in crate::store) async fn next_events(
        &mut self,
        webhook_id: &str,
        limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        let statement =
            format!("{EVENTS} where outbox.destination = $2 order by outbox.position limit $3");
        self.read_events(&statement, webhook_id, limit).await
    }

    /// The events of a query that begins with [`EVENTS`]; `$2` is the destination and `$3` the limit.
    async fn read_events(
        &mut self,
        statement: &str,
        destination: &str,
        limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        let max_size = i32::try_from(MAX_EVENT_SIZE).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 3] = [
            (&max_size, Type::INT4),
            (&destination, Type::TEXT),
            (&i64::from(limit), Type::INT8),
        ];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.iter().map(event_of).collect())
    }

    pub(in crate::store) async fn remove_events(
        &mut self,
        webhook_id: &str,
        delivered: &[i64],
    ) -> Result<(), Error> {
        let statement = "delete from pennon_outbox where destination = $1 and position = any($2)";
        let parameters: [Parameter<'_>; 2] =
            [(&webhook_id, Type::TEXT), (&delivered, Type::INT8_ARRAY)];
        self.rows(statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn settle_events(
        &mut self,
        delivered: &[i64],
        rejected: &[i64],
    ) -> Result<(), Error> {
        let statement = "
            with delivered as (
              delete from pennon_outbox where destination = $1 and position = any($2)
            )
            update pennon_outbox
            set attempts = attempts + 1,
                retry_at = now() + make_interval(secs => least(5 * power(2, least(attempts, 10)), 300))
            where destination = $1 and position = any($3)";
        let parameters: [Parameter<'_>; 3] = [
            (&BUS, Type::TEXT),
            (&delivered, Type::INT8_ARRAY),
            (&rejected, Type::INT8_ARRAY),
        ];
        self.rows(statement, &parameters).await?;
        Ok(())
    }
}

/// Extends a statement that inserts audit entries: it also inserts the event of each entry for every destination.
/// `keys` is a query for the flag keys of these entries, one row for each; `$1` is their environment.
///
/// The row of a flag's sequence stays locked until the commit, so that numbers become visible in their order.
pub(super) fn with_events(insert_audit: &str, keys: &str, has_bus: bool) -> String {
    format!(
        "with noted as (
           {insert_audit} returning id, coalesce(flag_key, '') as flag_key
         ),
         destinations (destination) as (
           select '{BUS}' where {has_bus}
           union all select id from pennon_webhooks where environment = $1
         ),
         given (flag_key) as ({keys}),
         numbered as (
           insert into pennon_event_sequences as known (environment, flag_key, last)
           select $1, flag_key, count(*) from given
           where exists (select from destinations)
           group by flag_key order by flag_key
           on conflict (environment, flag_key) do update set last = known.last + excluded.last
           returning flag_key, last
         )
         insert into pennon_outbox
           (destination, audit_id, environment, flag_key, sequence, revision)
         select destinations.destination, noted.id, $1, noted.flag_key,
           numbered.last + 1 - row_number() over (
             partition by destinations.destination, noted.flag_key order by noted.id desc
           ),
           coalesce((select revision from pennon_environments where environment = $1), 0)
         from noted join numbered on numbered.flag_key = noted.flag_key cross join destinations
         order by noted.id"
    )
}

fn event_of(row: &Row) -> ChangeEvent {
    let state = |text: &str, hash: &str| {
        let text: Option<&str> = row.get(text);
        let sha256: Option<String> = row.get(hash);
        sha256.map(|sha256| EventState {
            sha256,
            json: text.and_then(|text| serde_json::from_str::<Value>(text).ok()),
        })
    };
    ChangeEvent {
        position: row.get("position"),
        audit_id: row.get("id"),
        environment: row.get("environment"),
        flag_key: row.get("flag_key"),
        sequence: row.get("sequence"),
        action: row.get("action"),
        actor: row.get("actor"),
        at: row.get::<_, SystemTime>("at"),
        revision: row.get("revision"),
        before: state("before", "before_hash"),
        after: state("after", "after_hash"),
    }
}
