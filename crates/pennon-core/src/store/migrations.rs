//! The steps that bring a database to the newest version, each in a transaction of its own.

use std::time::Duration;

use pennon_eval::EvaluationDefaults;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Migrated;
use super::installation::{self, Undecided};

/// Every step, in order. A step that has run anywhere is never edited.
const STEPS: [(i32, &str, &str); 5] = [
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (
        2,
        "revisions",
        include_str!("migrations/0002_revisions.sql"),
    ),
    (
        3,
        "management",
        include_str!("migrations/0003_management.sql"),
    ),
    (4, "counting", include_str!("migrations/0004_counting.sql")),
    (
        5,
        "flag fields",
        include_str!("migrations/0005_flag_fields.sql"),
    ),
];

/// Two migrations at once would trip over each other; this names the lock they queue at. The number
/// is arbitrary ("PNN" in ASCII) and only has to be ours.
const LOCK: i64 = 0x50_4e_4e;

/// How often a step is tried while the old service's transactions are in its way. A step waits a few
/// seconds at most each time, since everybody else waits behind it; together that is well within the
/// five minutes that the function `migrate` has.
const ATTEMPTS: u32 = 5;
/// Between two attempts those who waited behind the step get their turn.
const PAUSE: Duration = Duration::from_secs(1);

/// Decides which evaluation defaults the installation has, and runs the steps that have not run.
///
/// # Errors
/// What PostgreSQL says about the first step that fails. The steps before it stay.
pub(super) async fn run(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<Migrated, Undecided> {
    let lock = format!("select pg_advisory_lock({LOCK})");
    let unlock = format!("select pg_advisory_unlock({LOCK})");
    client.batch_execute(&lock).await?;
    let outcome = run_missing(client, wanted).await;
    let unlocked = client.batch_execute(&unlock).await;
    let migrated = outcome?;
    unlocked?;
    Ok(migrated)
}

async fn run_missing(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<Migrated, Undecided> {
    client
        .batch_execute(
            "begin; create table if not exists pennon_migrations (
               step integer primary key,
               name text not null,
               applied_at timestamptz not null default now()
             )",
        )
        .await?;
    let defaults = installation::decide(client, wanted).await?;
    client.batch_execute("commit").await?;
    let mut applied = 0;
    for (step, name, sql) in STEPS {
        let known = client
            .query_opt("select 1 from pennon_migrations where step = $1", &[&step])
            .await?;
        if known.is_some() {
            continue;
        }
        let text = format!(
            "begin;\n{sql}\ninsert into pennon_migrations (step, name) values ({step}, '{name}');\ncommit;"
        );
        run_step(client, step, &text).await?;
        applied += 1;
    }
    Ok(Migrated { applied, defaults })
}

async fn run_step(client: &Client, step: i32, text: &str) -> Result<(), tokio_postgres::Error> {
    let mut attempt = 1;
    loop {
        let Err(error) = client.batch_execute(text).await else {
            return Ok(());
        };
        client.batch_execute("rollback").await?;
        let in_the_way = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        let passes = error.code().is_some_and(|code| in_the_way.contains(code));
        if !passes || attempt == ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(
            domain = "config",
            step,
            attempt,
            error = %error,
            "a transaction is in the way of a migration; trying again"
        );
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
