//! Overrides for single users.

use std::time::{Duration, SystemTime};

use pennon_eval::{FlagKey, Override};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::snapshot::override_of;
use super::statement::{Parameter, count};
use super::transaction::Transaction;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{OverridePage, OverrideRecord, Page, PageRequest};

const COLUMNS: &str = "user_id, override_type, variant, reason, created_by, created_at";
/// A hash of all overrides of a flag, independent of their order. 48 bits, which JSON readers represent exactly.
const REVISION: &str = "mod(abs(coalesce(sum(hashtextextended(
      json_build_array(user_id, override_type, variant, reason)::text, 0
    )), 0)), 281474976710656)::bigint";
/// Ignores overrides without a user, which only a table without its constraint can contain.
const HAS_USER: &str = "user_id is not null";
/// The id of the flag, from the parameters $1 and $2.
const FLAG: &str = "(select id from feature_flags where flag_key = $1 and environment = $2)";

impl PostgresStore {
    pub(in crate::store) async fn list_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        page: PageRequest,
    ) -> Result<Option<OverridePage>, Error> {
        // One row without a user if the page is empty; no row if the flag does not exist or is archived.
        let statement = format!(
            "select counted.total, counted.revision, page.*
            from (
              select id from feature_flags
              where flag_key = $1 and environment = $2 and archived_at is null
            ) as flag
            cross join lateral (
              select count(*) as total, {REVISION} as revision
              from feature_flag_user_overrides where flag_id = flag.id and {HAS_USER}
            ) as counted
            left join lateral (
              select id, user_id, override_type, variant, reason, created_by, created_at
              from feature_flag_user_overrides where flag_id = flag.id and {HAS_USER}
              order by created_at desc nulls last, id limit $3 offset $4
            ) as page on true
            order by page.created_at desc nulls last, page.id"
        );
        let parameters: [Parameter<'_>; 4] = [
            (&key.as_str(), Type::TEXT),
            (&environment.as_str(), Type::TEXT),
            (&i64::from(page.size), Type::INT8),
            (&page.offset(), Type::INT8),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let total = count(first, "total");
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.get::<_, Option<&str>>("user_id").is_some() {
                items.push(record_of(row));
            }
        }
        Ok(Some(OverridePage {
            overrides: Page { items, total },
            revision: first.get("revision"),
        }))
    }
}

impl Transaction {
    pub(in crate::store) async fn overrides(
        &mut self,
        key: &FlagKey,
    ) -> Result<Vec<OverrideRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flag_user_overrides
             where flag_id = {FLAG} and {HAS_USER}
             order by created_at nulls first, id for no key update"
        );
        let parameters: [Parameter<'_>; 2] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.iter().map(record_of).collect())
    }

    pub(in crate::store) async fn variants_in_overrides(
        &mut self,
        keys: &[&FlagKey],
    ) -> Result<Vec<(FlagKey, String, u64)>, Error> {
        let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        let parameters: [Parameter<'_>; 2] =
            [(&self.environment(), Type::TEXT), (&keys, Type::TEXT_ARRAY)];
        let rows = self
            .rows(
                "select flag.flag_key, override_row.variant, count(*) as users
                 from feature_flag_user_overrides as override_row
                 join feature_flags as flag on flag.id = override_row.flag_id
                 where flag.environment = $1 and flag.flag_key = any($2)
                   and override_row.override_type = 'include' and override_row.variant is not null
                 group by 1, 2 order by flag.flag_key collate \"C\", override_row.variant",
                &parameters,
            )
            .await?;
        let named = rows.iter().filter_map(|row| {
            let key = FlagKey::parse(row.get::<_, &str>("flag_key")).ok()?;
            Some((key, row.get("variant"), count(row, "users")))
        });
        Ok(named.collect())
    }

    pub(in crate::store) async fn find_override(
        &mut self,
        key: &FlagKey,
        user: &str,
    ) -> Result<Option<OverrideRecord>, Error> {
        let statement = format!(
            "select {COLUMNS} from feature_flag_user_overrides
             where flag_id = {FLAG} and user_id = $3"
        );
        let parameters: [Parameter<'_>; 3] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&user, Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.first().map(record_of))
    }

    pub(in crate::store) async fn overrides_revision(
        &mut self,
        key: &FlagKey,
    ) -> Result<i64, Error> {
        let statement = format!(
            "select {REVISION} as revision from feature_flag_user_overrides
             where flag_id = {FLAG} and {HAS_USER}"
        );
        let parameters: [Parameter<'_>; 2] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.first().map_or(0, |row| row.get("revision")))
    }

    pub(in crate::store) async fn put_overrides(
        &mut self,
        key: &FlagKey,
        wanted: &[OverrideRecord],
    ) -> Result<Vec<OverrideRecord>, Error> {
        let statement = format!(
            "insert into feature_flag_user_overrides as known
               (flag_id, user_id, override_type, variant, reason, created_by, created_at)
             select {FLAG}, given.user_id, given.kind, given.variant, given.reason,
                    given.created_by, coalesce(given.created_at, now() at time zone 'utc')
             from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::timestamp[])
               as given (user_id, kind, variant, reason, created_by, created_at)
             on conflict (flag_id, user_id) do update
               set override_type = excluded.override_type, variant = excluded.variant,
                   reason = excluded.reason, created_by = excluded.created_by
             returning {COLUMNS}"
        );
        let users: Vec<&str> = wanted.iter().map(|one| one.user_id.as_str()).collect();
        let (kinds, variants): (Vec<&str>, Vec<Option<&str>>) = wanted
            .iter()
            .map(|one| match &one.kind {
                Override::Include => ("include", None),
                // Callers never pass `Unreadable`: it represents a row with an unknown type.
                Override::Exclude | Override::Unreadable => ("exclude", None),
                Override::Variant(variant) => ("include", Some(variant.as_str())),
            })
            .unzip();
        let reasons: Vec<Option<&str>> = wanted.iter().map(|one| one.reason.as_deref()).collect();
        let authors: Vec<Option<&str>> =
            wanted.iter().map(|one| one.created_by.as_deref()).collect();
        let times: Vec<Option<SystemTime>> = wanted.iter().map(|one| one.created_at).collect();
        let parameters: [Parameter<'_>; 8] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&users, Type::TEXT_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&variants, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&authors, Type::TEXT_ARRAY),
            (&times, Type::TIMESTAMP_ARRAY),
        ];
        let rows = self.rows(&statement, &parameters).await?;
        Ok(rows.iter().map(record_of).collect())
    }

    pub(in crate::store) async fn delete_overrides(
        &mut self,
        key: &FlagKey,
        users: &[&str],
    ) -> Result<(), Error> {
        let statement = format!(
            "delete from feature_flag_user_overrides where flag_id = {FLAG} and user_id = any($3)"
        );
        let parameters: [Parameter<'_>; 3] = [
            (&key.as_str(), Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&users, Type::TEXT_ARRAY),
        ];
        self.rows(&statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn override_change_retry_after(
        &mut self,
        key: &FlagKey,
        limit: u32,
        window: Duration,
    ) -> Result<Option<Duration>, Error> {
        // The oldest of the newest `limit` changes determines the wait: the limit is reached until that change leaves
        // the window.
        let statement = "
            select (extract(epoch from at - clock_timestamp()) + $4)::double precision as wait
            from pennon_audit
            where environment = $1 and flag_key = $2
              and action in ('override.set', 'overrides.set')
              and at > clock_timestamp() - make_interval(secs => $4)
            order by id desc
            limit 1 offset $3 - 1";
        let parameters: [Parameter<'_>; 4] = [
            (&self.environment(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&i64::from(limit), Type::INT8),
            (&window.as_secs_f64(), Type::FLOAT8),
        ];
        let rows = self.rows(statement, &parameters).await?;
        let wait = rows.first().map(|row| row.get::<_, f64>("wait"));
        Ok(wait.map(|wait| Duration::from_secs_f64(wait.clamp(0.0, window.as_secs_f64()))))
    }
}

fn record_of(row: &Row) -> OverrideRecord {
    let kind: Option<&str> = row.get("override_type");
    OverrideRecord {
        user_id: row.get("user_id"),
        kind: override_of(kind.unwrap_or_default(), row.get("variant")),
        reason: row.get("reason"),
        created_by: row.get("created_by"),
        created_at: row.get("created_at"),
    }
}
