//! The evaluation defaults of an installation, decided and stored by the first `migrate`.

use pennon_eval::EvaluationDefaults;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::migrations::INSTALLATION;

/// Why a migration failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrationError {
    /// An error of PostgreSQL.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    /// Other defaults were decided, and flags depend on them.
    #[error(
        "the evaluation defaults of this installation are '{0}', and its flags depend on them; to \
         evaluate an environment another way, set anonymousRollout and bucketing in its settings"
    )]
    DefaultsDecided(&'static str),
}

/// A table with one row. The first `migrate` of a version that uses the table creates it.
const TABLE: &str = "
    create table if not exists pennon_installation (
      only_row boolean primary key default true
        constraint pennon_installation_one_row check (only_row),
      evaluation_defaults text not null
        constraint pennon_installation_defaults_check
          check (evaluation_defaults in ('existing', 'new')),
      decided_at timestamptz not null default now()
    )";

/// Tables of an existing service, even if empty, or steps applied by earlier versions make the installation an
/// existing one, whose evaluations must not change.
const DECIDE: &str = "
    insert into pennon_installation (evaluation_defaults)
    select coalesce($1::text, case
      when to_regclass('feature_flags') is not null
        or to_regclass('feature_flag_user_overrides') is not null
        or to_regclass('feature_flag_schedules') is not null
        or exists (select from pennon_migrations)
      then 'existing' else 'new' end)
    on conflict do nothing";

/// Decides the defaults of the installation, unless they are already decided, and returns them. Runs in the transaction
/// that holds the lock of the migrations, before the first step creates the tables that this function checks for. The
/// decision can be changed only while there are no flags.
///
/// If a decided row is unreadable or missing, or its table is missing although `pennon_migrations` has its step, the
/// defaults are not decided again without `wanted`: a guess could change evaluations.
pub(super) async fn decide(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<EvaluationDefaults, MigrationError> {
    let was_decided = exists(client, "pennon_installation").await? || is_recorded(client).await?;
    client.batch_execute(TABLE).await?;
    let name = wanted.map(EvaluationDefaults::name);
    if !was_decided {
        client.query_typed(DECIDE, &[(&name, Type::TEXT)]).await?;
    }
    let stored = "select string_agg(distinct evaluation_defaults, ', ') as name
        from pennon_installation";
    let rows = client.query_typed(stored, &[]).await?;
    let named = |row: &Row| EvaluationDefaults::named(row.get::<_, Option<&str>>("name")?);
    let Some(decided) = rows.first().and_then(named) else {
        if let Some(wanted) = wanted {
            replace(client, wanted).await?;
        }
        return Ok(wanted.unwrap_or(EvaluationDefaults::Unreadable));
    };
    match wanted {
        Some(wanted) if wanted != decided => {
            if has_flags(client).await? {
                return Err(MigrationError::DefaultsDecided(decided.name()));
            }
            let change = "update pennon_installation
                set evaluation_defaults = $1::text, decided_at = now()";
            client.query_typed(change, &[(&name, Type::TEXT)]).await?;
            Ok(wanted)
        }
        Some(_) | None => Ok(decided),
    }
}

/// Replaces the row, and raises the revisions of all environments so that they are read again.
async fn replace(client: &Client, wanted: EvaluationDefaults) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute("delete from pennon_installation")
        .await?;
    let insert = "insert into pennon_installation (evaluation_defaults) values ($1::text)";
    client
        .query_typed(insert, &[(&wanted.name(), Type::TEXT)])
        .await?;
    if exists(client, "pennon_environments").await? {
        let raise = "update pennon_environments
            set revision = greatest(
                  revision + 1, floor(extract(epoch from clock_timestamp()) * 1000)::bigint),
                changed_at = now()";
        client.batch_execute(raise).await?;
    }
    Ok(())
}

async fn exists(client: &Client, table: &str) -> Result<bool, tokio_postgres::Error> {
    let exists = "select to_regclass($1::text) is not null as exists";
    let rows = client.query_typed(exists, &[(&table, Type::TEXT)]).await?;
    Ok(rows.iter().any(|row| row.get("exists")))
}

/// Whether `pennon_migrations` has the step after which the table exists.
async fn is_recorded(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let recorded = "select from pennon_migrations where step = $1";
    let rows = client
        .query_typed(recorded, &[(&INSTALLATION, Type::INT4)])
        .await?;
    Ok(!rows.is_empty())
}

async fn has_flags(client: &Client) -> Result<bool, tokio_postgres::Error> {
    if !exists(client, "feature_flags").await? {
        return Ok(false);
    }
    let rows = client
        .query_typed("select from feature_flags limit 1", &[])
        .await?;
    Ok(!rows.is_empty())
}
