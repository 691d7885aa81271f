//! The steps that bring a database to the newest version, each in a transaction of its own.

use std::time::Duration;

use pennon_eval::EvaluationDefaults;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::installation::{self, Undecided};

/// Every step, in order. A step that has run anywhere is never edited.
const STEPS: [(i32, &str, &str); 7] = [
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
];

/// The step that makes what admins manage: definitions, settings, API keys.
pub(super) const MANAGEMENT: i32 = 3;
/// The step that records that the evaluation defaults of the installation are stored.
pub(super) const INSTALLATION: i32 = 6;

/// Two migrations at once would trip over each other; this names the lock they queue at. The number
/// is arbitrary ("PNN" in ASCII) and only has to be ours.
const LOCK: i64 = 0x50_4e_4e;

/// How often a step is tried while the existing service's transactions are in its way. A step waits a few
/// seconds at most each time, since everybody else waits behind it; together that is well within the
/// five minutes that the function `migrate` has.
const ATTEMPTS: u32 = 5;
/// Between two attempts those who waited behind the step get their turn.
const PAUSE: Duration = Duration::from_secs(1);

/// A runner that stops between two statements of a step keeps the lock no longer than this.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);

/// Decides which evaluation defaults the installation has, and runs the steps that have not run. Returns
/// how many those were, and the defaults.
///
/// Each step is one transaction that holds the lock. Behind PgBouncer or RDS Proxy in transaction mode the
/// next transaction may run on another server connection, so a lock or a setting of the session would stay
/// behind on a connection that belongs to somebody else.
///
/// # Errors
/// The error of PostgreSQL for the first step that fails. The steps before it stay.
pub(super) async fn run(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<(usize, EvaluationDefaults), Undecided> {
    let defaults = prepare(client, wanted).await?;
    let mut applied = 0;
    for step in STEPS {
        if run_step(client, step).await? {
            applied += 1;
        }
    }
    Ok((applied, defaults))
}

/// Begins a transaction that holds the lock. Its end releases the lock, whatever ends it.
pub(super) async fn begin(client: &Client) -> Result<(), tokio_postgres::Error> {
    // A step may take longer than a statement of a request.
    let begin = format!(
        "begin;
         set local statement_timeout = 0;
         set local idle_in_transaction_session_timeout = {};
         select pg_advisory_xact_lock({LOCK});",
        ABANDONED_AFTER.as_millis()
    );
    client.batch_execute(&begin).await
}

/// The first transaction of every run: what has to be there before the first step.
async fn prepare(
    client: &Client,
    wanted: Option<EvaluationDefaults>,
) -> Result<EvaluationDefaults, Undecided> {
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

/// Runs a step unless it has run, and returns whether it did.
async fn run_step(client: &Client, step: (i32, &str, &str)) -> Result<bool, tokio_postgres::Error> {
    let mut attempt = 1;
    loop {
        let error = match try_step(client, step).await {
            Ok(applied) => return Ok(applied),
            Err(error) => error,
        };
        let in_the_way = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        let passes = error.code().is_some_and(|code| in_the_way.contains(code));
        if !passes || attempt == ATTEMPTS {
            // The caller closes the connection, which ends the transaction.
            return Err(error);
        }
        client.batch_execute("rollback").await?;
        tracing::warn!(
            domain = "config",
            step = step.0,
            attempt,
            error = %error,
            "a transaction is in the way of a migration; trying again"
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
        let text =
            format!("{sql}\ninsert into pennon_migrations (step, name) values ({step}, '{name}');");
        client.batch_execute(&text).await?;
    }
    client.batch_execute("commit").await?;
    Ok(known.is_empty())
}
