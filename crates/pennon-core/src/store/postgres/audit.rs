//! The audit.

use pennon_eval::FlagKey;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::outbox::with_events;
use super::statement::{Parameter, count};
use super::transaction::Transaction;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{Action, AuditEntry, AuditedChange, Page, PageRequest};

/// How many entries one statement adds. The states of all flags of an import at once can take more memory than the
/// function has.
const CHANGES_PER_STATEMENT: usize = 100;
const COLUMNS: &str =
    "id, environment, flag_key, action, actor, at, before::text as before, after::text as after";

impl PostgresStore {
    pub(in crate::store) async fn list_audit(
        &self,
        environment: &Environment,
        key: Option<&FlagKey>,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Error> {
        let chosen = "from pennon_audit
            where environment = $1 and ($2::text is null or flag_key = $2)";
        let statement = format!(
            "select counted.total, page.*
             from (select count(*) as total {chosen}) as counted
             left join (
               select {COLUMNS} {chosen} order by id desc limit $3 offset $4
             ) as page on true
             order by page.id desc"
        );
        let parameters: [Parameter<'_>; 4] = [
            (&environment.as_str(), Type::TEXT),
            (&key.map(FlagKey::as_str), Type::TEXT),
            (&i64::from(page.size), Type::INT8),
            (&page.offset(), Type::INT8),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.get::<_, Option<i64>>("id").is_some() {
                items.push(entry_of(row));
            }
        }
        let total = rows.first().map_or(0, |row| count(row, "total"));
        Ok(Page { items, total })
    }

    pub(in crate::store) async fn find_audit(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: i64,
    ) -> Result<Option<AuditEntry>, Error> {
        let statement = format!(
            "select {COLUMNS} from pennon_audit
             where id = $1 and environment = $2 and flag_key = $3"
        );
        let parameters: [Parameter<'_>; 3] = [
            (&id, Type::INT8),
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.first().map(entry_of))
    }
}

impl Transaction {
    pub(in crate::store) async fn add_audit_entry(
        &mut self,
        key: Option<&FlagKey>,
        action: Action,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        let text = |value: Option<Value>| value.map(|value| value.to_string());
        let parameters: [Parameter<'_>; 6] = [
            (&self.environment(), Type::TEXT),
            (&key.map(FlagKey::as_str), Type::TEXT),
            (&action.name(), Type::TEXT),
            (&self.actor(), Type::TEXT),
            (&text(before), Type::TEXT),
            (&text(after), Type::TEXT),
        ];
        let insert =
            "insert into pennon_audit (environment, flag_key, action, actor, before, after)
             values ($1, $2, $3, $4, $5::json, $6::json)";
        let statement = with_events(insert, "values (coalesce($2, ''))", self.has_bus());
        self.rows(&statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn add_audit_entries(
        &mut self,
        action: Action,
        mut changes: impl Iterator<Item = AuditedChange>,
    ) -> Result<(), Error> {
        let texts = |part: &[AuditedChange], side: fn(&AuditedChange) -> &Option<Value>| {
            let text = |change| side(change).as_ref().map(ToString::to_string);
            part.iter().map(text).collect::<Vec<Option<String>>>()
        };
        loop {
            let part: Vec<AuditedChange> = changes.by_ref().take(CHANGES_PER_STATEMENT).collect();
            if part.is_empty() {
                return Ok(());
            }
            let keys: Vec<&str> = part.iter().map(|change| change.key.as_str()).collect();
            let before = texts(&part, |change| &change.before);
            let after = texts(&part, |change| &change.after);
            let parameters: [Parameter<'_>; 6] = [
                (&self.environment(), Type::TEXT),
                (&action.name(), Type::TEXT),
                (&self.actor(), Type::TEXT),
                (&keys, Type::TEXT_ARRAY),
                (&before, Type::TEXT_ARRAY),
                (&after, Type::TEXT_ARRAY),
            ];
            let insert =
                "insert into pennon_audit (environment, flag_key, action, actor, before, after)
                 select $1, given.flag_key, $2, $3, given.before::json, given.after::json
                 from unnest($4::text[], $5::text[], $6::text[])
                   with ordinality as given (flag_key, before, after, place)
                 order by given.place";
            let statement = with_events(insert, "select unnest($4::text[])", self.has_bus());
            self.rows(&statement, &parameters).await?;
        }
    }
}

/// Parses an entry. An unreadable state is omitted, with the reason in the entry.
fn entry_of(row: &Row) -> AuditEntry {
    let mut wrong = Vec::new();
    let mut state = |column: &str| {
        let text: Option<&str> = row.get(column);
        match serde_json::from_str(text?) {
            Ok(state) => Some(state),
            Err(error) => {
                wrong.push(format!("the state {column} cannot be read: {error}"));
                None
            }
        }
    };
    let (before, after) = (state("before"), state("after"));
    AuditEntry {
        id: row.get("id"),
        environment: row.get("environment"),
        flag_key: row.get("flag_key"),
        action: row.get("action"),
        actor: row.get("actor"),
        at: row.get("at"),
        before,
        after,
        unreadable: (!wrong.is_empty()).then(|| wrong.join("; ")),
    }
}
