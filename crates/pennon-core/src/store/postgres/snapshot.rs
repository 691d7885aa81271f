//! Reads the snapshot of an environment in one consistent read.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};

use pennon_eval::{EvaluationDefaults, FlagKey, Override, Settings};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::error::Failure;
use super::flags::flag_of;
use super::migrations::{FLAG_BUCKETING, INSTALLATION, MANAGEMENT};
use super::statement::Parameter;
use crate::api_key::parse_kind;
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{ApiKey, Revision, Snapshot, UnreadableItem};
use crate::store::{SnapshotUpdate, Waiting};

/// Limit on the unreadable rows of one read that are logged in separate lines; one more line has the number of the
/// others. A damaged table must not fill the log.
const MAX_REPORTED: usize = 20;

/// One row for the environment, and one per flag unless the environment is unchanged. A single statement is one
/// consistent read and one round trip.
macro_rules! snapshot {
    ($defaults:literal, $bucketing:literal) => {
        concat!(
            "
    with known as materialized (
      select coalesce(
        (select revision from pennon_environments where environment = $1::text), 0
      ) as revision
    )
    select known.revision,
           case when common.environment is not null then coalesce(common.settings::text, 'null') end
             as settings, ",
            $defaults,
            " as defaults,
           live.ids, live.key_kinds, live.hashes,
           null as flag_key, null::boolean as enabled, null::integer as rollout_percentage,
           null as description, null as definition, null as salt, null as bucketing,
           null::text[] as users, null::text[] as kinds, null::text[] as variants
    from known
    left join pennon_environment_settings as common
      on common.environment = $1::text and known.revision is distinct from $2::bigint
    left join lateral (
      select array_agg(id::text) as ids, array_agg(kind) as key_kinds, array_agg(hash) as hashes
      from pennon_api_keys where environment = $1::text and revoked_at is null
    ) as live on known.revision is distinct from $2::bigint
    union all
    select null, null, null, null, null, null,
           flag.flag_key, flag.enabled, flag.rollout_percentage,
           flag.description, flag.definition::text, flag.salt, ",
            $bucketing,
            " as bucketing,
           named.users, named.kinds, named.variants
    from known
    join feature_flags as flag
      on flag.environment = $1::text and flag.archived_at is null
         and known.revision is distinct from $2::bigint
    left join lateral (
      select array_agg(user_id) as users, array_agg(override_type) as kinds,
             array_agg(variant) as variants
      from feature_flag_user_overrides where flag_id = flag.id
    ) as named on true"
        )
    };
}

const SNAPSHOT: &str = snapshot!(
    "(select coalesce(string_agg(distinct evaluation_defaults, ', '), '') from pennon_installation)",
    "flag.bucketing"
);

/// The snapshot before the step `flag bucketing`.
const SNAPSHOT_BEFORE_FLAG_BUCKETING: &str = snapshot!(
    "(select coalesce(string_agg(distinct evaluation_defaults, ', '), '') from pennon_installation)",
    "null::text"
);

/// The snapshot before the step `installation`: with the defaults of the earlier version, so that evaluations do not
/// change.
const SNAPSHOT_BEFORE_INSTALLATION: &str = snapshot!("'existing'", "null::text");

/// The snapshot before the step `management`.
const SNAPSHOT_BEFORE_MANAGEMENT: &str = "
    with known as materialized (
      select coalesce(
        (select revision from pennon_environments where environment = $1::text), 0
      ) as revision
    )
    select known.revision, null as settings, 'existing' as defaults,
           null::text[] as ids, null::text[] as key_kinds, null::text[] as hashes,
           null as flag_key, null::boolean as enabled, null::integer as rollout_percentage,
           null as description, null as definition, null as salt, null as bucketing,
           null::text[] as users, null::text[] as kinds, null::text[] as variants
    from known
    union all
    select null, null, null, null, null, null,
           flag.flag_key, flag.enabled, flag.rollout_percentage, flag.description, null, null, null,
           named.users, named.kinds, null
    from known
    join feature_flags as flag
      on flag.environment = $1::text and known.revision is distinct from $2::bigint
    left join lateral (
      select array_agg(user_id) as users, array_agg(override_type) as kinds
      from feature_flag_user_overrides where flag_id = flag.id
    ) as named on true";

impl PostgresStore {
    pub(in crate::store) async fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
        waiting: Waiting,
    ) -> Result<SnapshotUpdate, Error> {
        self.guarded(self.load(environment, known, waiting)).await
    }

    async fn load(
        &self,
        environment: &Environment,
        known: Option<Revision>,
        waiting: Waiting,
    ) -> Result<SnapshotUpdate, Failure> {
        let client = self.connections.get(waiting).await?;
        let known_revision = known.map(|revision| revision.0);
        let name = environment.as_str();
        let parameters: [Parameter<'_>; 2] = [(&name, Type::TEXT), (&known_revision, Type::INT8)];
        // A new version is deployed before its migration has run, and answers in between.
        let mut rows = self.query(&client, SNAPSHOT, &parameters).await;
        for (step, older) in [
            (FLAG_BUCKETING, SNAPSHOT_BEFORE_FLAG_BUCKETING),
            (INSTALLATION, SNAPSHOT_BEFORE_INSTALLATION),
            (MANAGEMENT, SNAPSHOT_BEFORE_MANAGEMENT),
        ] {
            if let Err(error) = &rows
                && self.is_before(step, &client, error).await
            {
                rows = self.query(&client, older, &parameters).await;
            }
        }
        client.give_back();
        let rows = rows.map_err(|error| Failure::of_snapshot(&error))?;
        let mut snapshot = None;
        let mut flags = BTreeMap::new();
        for row in &rows {
            if let Some(revision) = row.get::<_, Option<i64>>("revision") {
                let revision = Revision(revision);
                if known == Some(revision) {
                    return Ok(SnapshotUpdate::Unchanged);
                }
                snapshot = Some(Snapshot {
                    revision,
                    flags: BTreeMap::new(),
                    settings: settings_of(row.get("settings")),
                    defaults: defaults_of(row.get("defaults")),
                    keys: keys_of(row),
                    unreadable_keys: unreadable_keys_of(row),
                    ..Snapshot::empty()
                });
            }
            // Only SQL can create a row with an empty key, and no request can name it.
            let text: Option<String> = row.get("flag_key");
            if let Some(key) = text.and_then(|text| FlagKey::parse(text).ok()) {
                let mut flag = flag_of(row);
                flag.overrides = overrides_of(row);
                flags.insert(key, Arc::new(flag));
            }
        }
        let snapshot =
            snapshot.ok_or_else(|| Error::Internal("the snapshot has no revision".to_owned()))?;
        let snapshot = Snapshot { flags, ..snapshot };
        self.report_unreadable(environment, &snapshot);
        Ok(SnapshotUpdate::Changed(snapshot))
    }
}

impl PostgresStore {
    /// Logs the unreadable items of an environment, each one once, and again if its stored text changes or it breaks
    /// again after a repair.
    fn report_unreadable(&self, environment: &Environment, snapshot: &Snapshot) {
        let items = snapshot.unreadable();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if items.is_empty() {
            reported.remove(environment);
            return;
        }
        let known = reported.remove(environment).unwrap_or_default();
        let mut current = HashSet::with_capacity(items.len());
        let mut new = Vec::new();
        for item in items {
            let id = id_of(&item);
            current.insert(id);
            if !known.contains(&id) {
                new.push(item);
            }
        }
        reported.insert(environment.clone(), current);
        drop(reported);
        for item in new.iter().take(MAX_REPORTED) {
            tracing::error!(
                domain = "config",
                error.r#type = "unreadable_row",
                environment = environment.as_str(),
                kind = item.kind,
                name = item.name,
                error = item.reason,
                "unreadable row in the database: evaluations that depend on it fail; \
                 replace or delete it with the admin API"
            );
        }
        if new.len() > MAX_REPORTED {
            tracing::error!(
                domain = "config",
                error.r#type = "unreadable_row",
                environment = environment.as_str(),
                more = new.len() - MAX_REPORTED,
                "more unreadable rows in the database than are logged separately"
            );
        }
    }
}

/// Identifies an unreadable state of a row.
fn id_of(item: &UnreadableItem<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (item.kind, item.name, item.reason, item.stored).hash(&mut hasher);
    hasher.finish()
}

/// Parses stored settings. Without a row, the defaults.
pub(super) fn settings_of(text: Option<&str>) -> Settings {
    text.map(Settings::from_stored).unwrap_or_default()
}

/// Parses the stored defaults of the installation. `migrate` creates the table and its row together, so a missing row
/// is unreadable, like an unknown name.
pub(super) fn defaults_of(stored: Option<&str>) -> EvaluationDefaults {
    let known = stored.and_then(EvaluationDefaults::named);
    known.unwrap_or(EvaluationDefaults::Unreadable)
}

/// Parses an override.
pub(super) fn override_of(kind: &str, variant: Option<String>) -> Override {
    match (kind, variant) {
        ("include", Some(variant)) => Override::Variant(variant),
        ("include", None) => Override::Include,
        // An existing service may have changed an include to an exclude and kept the variant.
        ("exclude", _) => Override::Exclude,
        // Only a table without its constraint can contain other words.
        _ => Override::Unreadable,
    }
}

fn keys_of(row: &Row) -> BTreeMap<String, ApiKey> {
    // A key of an unknown kind is rejected.
    stored_keys(row)
        .into_iter()
        .filter_map(|(id, kind, hash)| {
            let kind = parse_kind(&kind)?;
            Some((hash, ApiKey { id, kind }))
        })
        .collect()
}

/// Id, kind and hash of each key. NULL, which only a table without its constraints can contain, becomes an empty text.
fn stored_keys(row: &Row) -> Vec<(String, String, String)> {
    let column = |name: &str| {
        let column: Option<Vec<Option<String>>> = row.get(name);
        column
            .unwrap_or_default()
            .into_iter()
            .map(Option::unwrap_or_default)
    };
    column("ids")
        .zip(column("key_kinds"))
        .zip(column("hashes"))
        .map(|((id, kind), hash)| (id, kind, hash))
        .collect()
}

/// The ids of keys with an invalid row. They are rejected.
fn unreadable_keys_of(row: &Row) -> Vec<String> {
    stored_keys(row)
        .into_iter()
        .filter(|(_, kind, hash)| !is_valid_key(kind, hash))
        .map(|(id, _, _)| id)
        .collect()
}

/// Whether kind and hash of a key are valid.
pub(super) fn is_valid_key(kind: &str, hash: &str) -> bool {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    parse_kind(kind).is_some() && hash.len() == 64 && hash.bytes().all(hexadecimal)
}

fn overrides_of(row: &Row) -> BTreeMap<String, Override> {
    let users: Option<Vec<Option<String>>> = row.get("users");
    let kinds: Option<Vec<Option<&str>>> = row.get("kinds");
    let variants: Option<Vec<Option<String>>> = row.get("variants");
    let mut variants = variants.unwrap_or_default().into_iter();
    users
        .into_iter()
        .flatten()
        .zip(kinds.into_iter().flatten())
        .filter_map(|(user, kind)| {
            let variant = variants.next().flatten();
            // An override without a user is ignored.
            Some((user?, override_of(kind.unwrap_or_default(), variant)))
        })
        .collect()
}
