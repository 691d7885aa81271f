//! Migrations of the database, each in its own transaction.

use std::time::Duration;

use pennon_eval::EvaluationDefaults;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::installation::{self, MigrationError};

/// All steps, in order. The statements of a released step never change.
const STEPS: [(i32, &str, &str); 13] = [
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (
        2,
        "revisions",
        include_str!("migrations/0002_revisions.sql"),
    ),
    (
        MANAGEMENT,
        "management",
        include_str!("migrations/0003_management.sql"),
    ),
    (4, "counting", include_str!("migrations/0004_counting.sql")),
    (
        5,
        "flag fields",
        include_str!("migrations/0005_flag_fields.sql"),
    ),
    (
        INSTALLATION,
        "installation",
        include_str!("migrations/0006_installation.sql"),
    ),
    (7, "ramps", include_str!("migrations/0007_ramps.sql")),
    (
        8,
        "change events",
        include_str!("migrations/0008_change_events.sql"),
    ),
    (9, "webhooks", include_str!("migrations/0009_webhooks.sql")),
    (
        10,
        "sync keys",
        include_str!("migrations/0010_sync_keys.sql"),
    ),
    (11, "key uses", include_str!("migrations/0011_key_uses.sql")),
    (
        FLAG_BUCKETING,
        "flag bucketing",
        include_str!("migrations/0012_flag_bucketing.sql"),
    ),
    (
        13,
        "search path",
        include_str!("migrations/0013_search_path.sql"),
    ),
];

/// The step that adds definitions, settings and API keys.
pub(super) const MANAGEMENT: i32 = 3;
/// The step that records that the evaluation defaults of the installation are stored.
pub(super) const INSTALLATION: i32 = 6;
/// The step that adds the bucketing of a flag.
pub(super) const FLAG_BUCKETING: i32 = 12;

/// The id of the advisory lock that serialises concurrent migrations. The number is arbitrary ("PNN" in ASCII).
const LOCK: i64 = 0x50_4e_4e;

/// The number of attempts while transactions of an existing service (docs/migration.md) hold conflicting locks. A step
/// waits only a few seconds for a lock (`lock_timeout`), because other statements queue behind it; all attempts fit into
/// the five minutes of `migrate`.
const ATTEMPTS: u32 = 5;
/// The pause between two attempts, in which statements that queued behind the step can run.
const PAUSE: Duration = Duration::from_secs(1);

/// Limit on how long a stopped migration keeps the lock between two statements.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Decides the evaluation defaults of the installation and runs pending steps. Returns the number of steps that it
/// applied, and the defaults.
///
/// Each step is one transaction that holds the lock. Behind PgBouncer or RDS Proxy in transaction mode the
/// next transaction may run on another server connection, so a session lock or a session setting would leak to
/// another client.
///
/// # Errors
/// If the defaults cannot be decided, no step runs. Otherwise the error of the first step that fails; the steps before it
/// stay applied.
pub(super) async fn run(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<(usize, EvaluationDefaults), MigrationError> {
    let defaults = prepare(client, wanted).await?;
    let mut applied = 0;
    for step in STEPS {
        if run_step(client, step).await? {
            applied += 1;
        }
    }
    Ok((applied, defaults))
}

/// Begins a transaction that holds the lock until its end.
pub(super) async fn begin(client: &Client) -> Result<(), tokio_postgres::Error> {
    // A step may take longer than the statements of requests.
    let begin = format!(
        "begin isolation level read committed;
         set local statement_timeout = 0;
         set local idle_in_transaction_session_timeout = {};
         select pg_advisory_xact_lock({LOCK});",
        IDLE_TIMEOUT.as_millis()
    );
    client.batch_execute(&begin).await
}

/// The first transaction of every run, which creates `pennon_migrations` and decides the defaults.
async fn prepare(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<EvaluationDefaults, MigrationError> {
    begin(client).await?;
    client
        .batch_execute(
            "create table if not exists pennon_migrations (
               step integer primary key,
               name text not null,
               applied_at timestamptz not null default now()
             )",
        )
        .await?;
    let defaults = installation::decide(client, wanted).await?;
    client.batch_execute("commit").await?;
    Ok(defaults)
}

/// Runs a step unless it was applied before. Returns whether it ran.
async fn run_step(client: &Client, step: (i32, &str, &str)) -> Result<bool, tokio_postgres::Error> {
    let mut attempt = 1;
    loop {
        let error = match try_step(client, step).await {
            Ok(applied) => return Ok(applied),
            Err(error) => error,
        };
        let conflicts = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        let may_succeed = error.code().is_some_and(|code| conflicts.contains(code));
        if !may_succeed || attempt == ATTEMPTS {
            // The caller closes the connection, which ends the transaction.
            return Err(error);
        }
        client.batch_execute("rollback").await?;
        tracing::warn!(
            domain = "config",
            step = step.0,
            attempt,
            error = %error,
            "a transaction blocks a migration; retrying"
        );
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn try_step(
    client: &Client,
    (step, name, sql): (i32, &str, &str),
) -> Result<bool, tokio_postgres::Error> {
    begin(client).await?;
    let known = client
        .query_typed(
            "select 1 from pennon_migrations where step = $1",
            &[(&step, Type::INT4)],
        )
        .await?;
    if known.is_empty() {
        // A step may set its own limit.
        let text = format!(
            "set local lock_timeout = '5s';\n{sql}\n\
             insert into pennon_migrations (step, name) values ({step}, '{name}');"
        );
        client.batch_execute(&text).await?;
    }
    client.batch_execute("commit").await?;
    Ok(known.is_empty())
}
