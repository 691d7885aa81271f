//! API keys.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::snapshot::is_valid_key;
use super::statement::Parameter;
use super::transaction::Transaction;
use crate::api_key::{kind_name, parse_kind};
use crate::environment::Environment;
use crate::error::Error;
use crate::key_kind::KeyKind;
use crate::key_uses::LastUses;
use crate::store::KeyRecord;

const COLUMNS: &str = "id::text as id, kind, name, hash, created_at, created_by, revoked_at,
    (select to_char(last_used_on, 'YYYY-MM-DD') from pennon_key_uses
     where key_id = pennon_api_keys.id::text) as last_used_on";

/// Rows are changed in the order of their keys, so that concurrent batches cannot deadlock. A row that is up to date is
/// not written again.
const RECORD_USES: &str = "
    insert into pennon_key_uses as known (key_id, last_used_on)
    select given.id, (given.at at time zone 'utc')::date
    from unnest($1::text[], $2::timestamptz[]) as given (id, at)
    order by 1
    on conflict (key_id) do update set last_used_on = excluded.last_used_on
      where known.last_used_on < excluded.last_used_on";

impl PostgresStore {
    pub(in crate::store) async fn list_keys(
        &self,
        environment: &Environment,
    ) -> Result<Vec<KeyRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from pennon_api_keys where environment = $1
             order by created_at desc, id"
        );
        let rows = self
            .rows(&statement, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        Ok(rows.iter().map(record_of).collect())
    }

    pub(in crate::store) async fn record_key_uses(&self, uses: &LastUses) -> Result<(), Error> {
        let ids: Vec<&str> = uses.keys().map(String::as_str).collect();
        let times: Vec<SystemTime> = uses.values().copied().collect();
        let parameters: [Parameter<'_>; 2] =
            [(&ids, Type::TEXT_ARRAY), (&times, Type::TIMESTAMPTZ_ARRAY)];
        self.rows(RECORD_USES, &parameters).await?;
        Ok(())
    }
}

impl Transaction {
    pub(in crate::store) async fn keys(&mut self) -> Result<Vec<KeyRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from pennon_api_keys where environment = $1 order by created_at, id"
        );
        let rows = self
            .rows(&statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        Ok(rows.iter().map(record_of).collect())
    }

    pub(in crate::store) async fn insert_key(
        &mut self,
        hash: &str,
        kind: KeyKind,
        name: &str,
    ) -> Result<KeyRecord, Error> {
        let statement = format!(
            "insert into pennon_api_keys (environment, kind, name, hash, created_by)
             values ($1, $2, $3, $4, $5) returning {COLUMNS}"
        );
        let parameters: [Parameter<'_>; 5] = [
            (&self.environment(), Type::TEXT),
            (&kind_name(kind), Type::TEXT),
            (&name, Type::TEXT),
            (&hash, Type::TEXT),
            (&self.actor(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        one(&rows)
    }

    pub(in crate::store) async fn revoke_key(&mut self, id: &str) -> Result<KeyRecord, Error> {
        // Compared as text, so that an invalid UUID matches no row. A cast of it would fail the query.
        let statement = format!(
            "update pennon_api_keys set revoked_at = now(), revoked_by = $3
             where environment = $1 and id::text = $2 and revoked_at is null
             returning {COLUMNS}"
        );
        let parameters: [Parameter<'_>; 3] = [
            (&self.environment(), Type::TEXT),
            (&id, Type::TEXT),
            (&self.actor(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        one(&rows)
    }
}

fn one(rows: &[Row]) -> Result<KeyRecord, Error> {
    match rows.first() {
        Some(row) => Ok(record_of(row)),
        None => Err(Error::NotFound("Key".to_owned())),
    }
}

fn record_of(row: &Row) -> KeyRecord {
    // NULL occurs only in a table without its constraints.
    let text = |column: &str| row.get::<_, Option<&str>>(column).unwrap_or_default();
    let kind = text("kind");
    KeyRecord {
        id: row.get("id"),
        unreadable: !is_valid_key(kind, text("hash")),
        kind: parse_kind(kind).unwrap_or(KeyKind::Client),
        name: text("name").to_owned(),
        created_at: row.get("created_at"),
        created_by: row.get("created_by"),
        revoked_at: row.get("revoked_at"),
        last_used_on: row.get("last_used_on"),
    }
}
