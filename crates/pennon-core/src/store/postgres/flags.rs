//! Flags for the admin API, including archived ones, with revisions and times but without overrides.

use std::collections::BTreeMap;

use pennon_eval::{Bucketing, COSTLY_OPERATORS, Definition, Flag, FlagKey, Rollout};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::error::{StatementError, unreadable};
use super::statement::{BATCH_SIZE, Parameter, count};
use super::transaction::Transaction;
use crate::environment::Environment;
use crate::error::Error;
use crate::flag_sums::FlagSums;
use crate::store::{FlagQuery, FlagRecord, FlagRecords, NewState, Page};

/// Matches a `fractional` that [`Definition::may_be_costly`] counts: its first argument is neither a bucket nor a `var`
/// with a fixed path.
const COSTLY_FRACTIONAL: &str =
    r#""fractional"\s*:(?!\s*\[\s*(\[|\]|\{\s*"var"\s*:\s*"[^"]*"\s*\}))"#;

/// Inserts or replaces flags. Triggers raise the revisions.
const PUT: &str = "
    insert into feature_flags as known
      (flag_key, environment, enabled, rollout_percentage, description, salt, bucketing, definition,
       other, archived_at, created_at, updated_at)
    select given.flag_key, $1, given.enabled, given.percentage, given.description, given.salt,
           given.bucketing, given.definition::json, given.other::json, case when given.archived then now() end,
           now() at time zone 'utc', now() at time zone 'utc'
    from unnest($2::text[], $3::boolean[], $4::integer[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::boolean[], $10::text[])
      as given (flag_key, enabled, percentage, description, salt, definition, other, archived,
                bucketing)
    on conflict (flag_key, environment) do update
      set enabled = excluded.enabled, rollout_percentage = excluded.rollout_percentage,
          description = excluded.description, salt = excluded.salt,
          bucketing = excluded.bucketing, definition = excluded.definition, other = excluded.other,
          archived_at = case when excluded.archived_at is not null
                             then coalesce(known.archived_at, excluded.archived_at) end,
          updated_at = excluded.updated_at";

pub(super) const COLUMNS: &str = "flag_key, enabled, rollout_percentage, description, salt,
    bucketing, definition::text as definition, other::text as other, archived_at, revision, created_at, updated_at";

impl PostgresStore {
    pub(in crate::store) async fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        let statement =
            format!("select {COLUMNS} from feature_flags where flag_key = $1 and environment = $2");
        let parameters: [Parameter<'_>; 2] = [
            (&key.as_str(), Type::TEXT),
            (&environment.as_str(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.first().map(record_of))
    }

    pub(in crate::store) async fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Page<(FlagKey, FlagRecord)>, Error> {
        // `position` searches for the literal text; unlike `like`, it has no wildcards.
        let chosen = "from feature_flags
            where environment = $1 and (archived_at is not null) = $2
              and ($3 = '' or position(lower($3) in lower(flag_key)) > 0
                           or position(lower($3) in lower(coalesce(description, ''))) > 0)";
        let statement = format!(
            "with chosen as (select {COLUMNS} {chosen})
             select counted.total, page.*
             from (select count(*) as total from chosen) as counted
             left join (
               select * from chosen order by flag_key collate \"C\" limit $4 offset $5
             ) as page on true
             order by flag_key collate \"C\""
        );
        let parameters: [Parameter<'_>; 5] = [
            (&environment.as_str(), Type::TEXT),
            (&query.archived, Type::BOOL),
            (&query.search, Type::TEXT),
            (&i64::from(query.page.size), Type::INT8),
            (&query.page.offset(), Type::INT8),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            items.extend(keyed_record_of(row));
        }
        let total = rows.first().map_or(0, |row| count(row, "total"));
        Ok(Page { items, total })
    }
}

impl Transaction {
    pub(in crate::store) async fn flag(
        &mut self,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flags where flag_key = $1 and environment = $2
             for no key update"
        );
        let rows = self
            .rows(
                &statement,
                &[
                    (&key.as_str(), Type::TEXT),
                    (&self.environment(), Type::TEXT),
                ],
            )
            .await?;
        Ok(rows.first().map(record_of))
    }

    /// All flags, including archived ones, and the number of rows: keys that are invalid in a request are left out of
    /// the flags. `lock` is the locking clause.
    pub(super) async fn all_flags(&mut self, lock: &str) -> Result<(FlagRecords, usize), Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flags where environment = $1 order by flag_key {lock}"
        );
        let rows = self
            .rows(&statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        let mut records = BTreeMap::new();
        for row in &rows {
            records.extend(keyed_record_of(row));
        }
        Ok((records, rows.len()))
    }

    pub(in crate::store) async fn sums_without(
        &mut self,
        key: &FlagKey,
    ) -> Result<FlagSums, Error> {
        // An upper bound of the number of values. Before each value, or the name of its field, is one of the characters
        // `,[{`, which may also occur in texts. `Flag::size` does not count the outermost value, which has none.
        let statement = format!(
            r#"
            select count(*) filter (where definition is null) as simple, count(definition) as typed,
                   coalesce(sum(octet_length(flag_key)), 0) as keys,
                   coalesce(sum(octet_length(stored)), 0) as definitions,
                   coalesce(sum(length(stored) - length(translate(stored, ',[{{', ''))), 0) as values,
                   count(*) filter (where definition::text ~ '"({})"|{COSTLY_FRACTIONAL}') as costly
            from feature_flags cross join lateral (select concat(definition, other) as stored) as texts
            where environment = $1 and flag_key <> $2 and archived_at is null"#,
            COSTLY_OPERATORS.join("|").replace('$', "\\$")
        );
        let parameters: [Parameter<'_>; 2] = [
            (&self.environment(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        let sum = |column: &str| {
            let sum = rows.first().map_or(0, |row| count(row, column));
            usize::try_from(sum).unwrap_or(usize::MAX)
        };
        Ok(FlagSums {
            simple: sum("simple"),
            typed: sum("typed"),
            keys: sum("keys"),
            definitions: sum("definitions"),
            values: sum("values"),
            costly: sum("costly"),
        })
    }

    pub(in crate::store) async fn flags_in_use(&mut self) -> Result<FlagRecords, Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flags where environment = $1 and archived_at is null"
        );
        let rows = self
            .rows(&statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        let mut records = BTreeMap::new();
        for row in &rows {
            records.extend(keyed_record_of(row));
        }
        Ok(records)
    }

    pub(in crate::store) async fn insert_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
    ) -> Result<FlagRecord, Error> {
        let statement = format!(
            "insert into feature_flags
               (flag_key, environment, enabled, rollout_percentage, description, salt, definition,
                other, bucketing, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7::json, $8::json, $9,
                     now() at time zone 'utc', now() at time zone 'utc')
             returning {COLUMNS}"
        );
        self.put_flag(&statement, key, flag, None)
            .await
            .map_err(|error| match error {
                StatementError::Constraint(SqlState::UNIQUE_VIOLATION) => {
                    Error::Conflict(format!("Flag '{key}' already exists"))
                }
                StatementError::Constraint(code) => {
                    Error::Internal(format!("the flag was rejected: {}", code.code()))
                }
                StatementError::Other(error) => error,
            })
    }

    pub(in crate::store) async fn write_flag(
        &mut self,
        key: &FlagKey,
        flag: &Flag,
        archived: bool,
    ) -> Result<FlagRecord, Error> {
        let statement = format!(
            "update feature_flags
             set enabled = $3, rollout_percentage = $4, description = $5, salt = $6,
                 definition = $7::json, other = $8::json, bucketing = $9,
                 archived_at = case when $10 then coalesce(archived_at, now()) end,
                 updated_at = now() at time zone 'utc'
             where flag_key = $1 and environment = $2
             returning {COLUMNS}"
        );
        self.put_flag(&statement, key, flag, Some(archived))
            .await
            .map_err(|error| match error {
                StatementError::Constraint(code) => {
                    Error::Internal(format!("the flag was rejected: {}", code.code()))
                }
                StatementError::Other(error) => error,
            })
    }

    pub(in crate::store) async fn put_flags(
        &mut self,
        flags: &[NewState<'_>],
    ) -> Result<(), Error> {
        for part in flags.chunks(BATCH_SIZE) {
            let mut definitions = Vec::with_capacity(part.len());
            let mut others = Vec::with_capacity(part.len());
            for state in part {
                definitions.push(definition_text(state.flag)?);
                others.push(other_text(state.flag)?);
            }
            let flags: Vec<&Flag> = part.iter().map(|state| state.flag).collect();
            let keys: Vec<&str> = part.iter().map(|state| state.key.as_str()).collect();
            let enabled: Vec<bool> = flags.iter().map(|flag| flag.enabled).collect();
            let percentages: Vec<i32> = flags
                .iter()
                .map(|flag| i32::from(flag.rollout_percentage.percent()))
                .collect();
            let descriptions: Vec<Option<&str>> = flags
                .iter()
                .map(|flag| flag.description.as_deref())
                .collect();
            let salts: Vec<Option<&str>> = flags.iter().map(|flag| flag.salt.as_deref()).collect();
            let bucketings: Vec<Option<&str>> = flags
                .iter()
                .map(|flag| flag.bucketing.map(Bucketing::name))
                .collect();
            let archived: Vec<bool> = part.iter().map(|state| state.archived).collect();
            let parameters: [Parameter<'_>; 10] = [
                (&self.environment(), Type::TEXT),
                (&keys, Type::TEXT_ARRAY),
                (&enabled, Type::BOOL_ARRAY),
                (&percentages, Type::INT4_ARRAY),
                (&descriptions, Type::TEXT_ARRAY),
                (&salts, Type::TEXT_ARRAY),
                (&definitions, Type::TEXT_ARRAY),
                (&others, Type::TEXT_ARRAY),
                (&archived, Type::BOOL_ARRAY),
                (&bucketings, Type::TEXT_ARRAY),
            ];
            self.rows(PUT, &parameters).await?;
        }
        Ok(())
    }

    pub(in crate::store) async fn delete_flag(&mut self, key: &FlagKey) -> Result<(), Error> {
        self.rows(
            "delete from feature_flags where flag_key = $1 and environment = $2",
            &[
                (&key.as_str(), Type::TEXT),
                (&self.environment(), Type::TEXT),
            ],
        )
        .await?;
        Ok(())
    }

    async fn put_flag(
        &mut self,
        statement: &str,
        key: &FlagKey,
        flag: &Flag,
        archived: Option<bool>,
    ) -> Result<FlagRecord, StatementError> {
        let percentage = i32::from(flag.rollout_percentage.percent());
        let definition = definition_text(flag).map_err(StatementError::Other)?;
        let other = other_text(flag).map_err(StatementError::Other)?;
        let bucketing = flag.bucketing.map(Bucketing::name);
        let environment = self.environment();
        let key = key.as_str();
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&key, Type::TEXT),
            (&environment, Type::TEXT),
            (&flag.enabled, Type::BOOL),
            (&percentage, Type::INT4),
            (&flag.description, Type::TEXT),
            (&flag.salt, Type::TEXT),
            (&definition, Type::TEXT),
            (&other, Type::TEXT),
            (&bucketing, Type::TEXT),
        ];
        if let Some(archived) = &archived {
            parameters.push((archived, Type::BOOL));
        }
        let rows = self.try_rows(statement, &parameters).await?;
        let row = rows.first().ok_or_else(|| {
            StatementError::Other(Error::Internal("a locked flag is missing".to_owned()))
        })?;
        Ok(record_of(row))
    }
}

fn definition_text(flag: &Flag) -> Result<Option<String>, Error> {
    let text = flag.definition.as_ref().map(Definition::to_stored);
    text.transpose().map_err(|error| unreadable(&error))
}

/// Fields that are kept for the export, as a parameter; NULL if there are none.
fn other_text(flag: &Flag) -> Result<Option<String>, Error> {
    let other = (!flag.other.is_empty()).then(|| serde_json::to_string(&flag.other));
    other.transpose().map_err(|error| unreadable(&error))
}

/// Parses a flag, without its overrides and the fields that only the admin API returns.
///
/// If its table has no constraints, a flag may have invalid values. They mean what they mean to an existing service: a
/// percentage above 100 is 100, below 0 or NULL is 0, and NULL for `enabled` is off.
pub(super) fn flag_of(row: &Row) -> Flag {
    let percentage = row.get::<_, Option<i32>>("rollout_percentage").unwrap_or(0);
    let definition: Option<&str> = row.get("definition");
    let bucketing: Option<&str> = row.get("bucketing");
    Flag {
        enabled: row.get::<_, Option<bool>>("enabled").unwrap_or(false),
        rollout_percentage: Rollout::parse(i64::from(percentage.clamp(0, 100))).unwrap_or_default(),
        description: row.get("description"),
        salt: row.get("salt"),
        // The constraint of the column rejects other names.
        bucketing: bucketing.and_then(Bucketing::named),
        definition: definition.map(Definition::from_stored),
        ..Flag::default()
    }
}

fn record_of(row: &Row) -> FlagRecord {
    let other: Option<&str> = row.get("other");
    FlagRecord {
        flag: Flag {
            // Not evaluated; invalid fields are left out.
            other: other
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            ..flag_of(row)
        },
        archived_at: row.get("archived_at"),
        revision: row.get("revision"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}

/// The flag of a row, with its key. `None` for the row of an empty page, and for a key that is invalid in a request.
pub(super) fn keyed_record_of(row: &Row) -> Option<(FlagKey, FlagRecord)> {
    let text: Option<String> = row.get("flag_key");
    let key = FlagKey::parse(text?).ok()?;
    Some((key, record_of(row)))
}
