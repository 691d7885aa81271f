//! The steps that bring a database to the newest version, each in a transaction of its own.

use tokio_postgres::Client;

/// Every step, in order. A step that has run anywhere is never edited.
const STEPS: [(i32, &str, &str); 2] = [
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (
        2,
        "revisions",
        include_str!("migrations/0002_revisions.sql"),
    ),
];

/// Two migrations at once would trip over each other; this names the lock they queue at. The number
/// is arbitrary ("PNN" in ASCII) and only has to be ours.
const LOCK: i64 = 0x50_4e_4e;

/// Runs the steps that have not run. Says how many those were.
///
/// # Errors
/// What PostgreSQL says about the first step that fails. The steps before it stay.
pub(super) async fn run(client: &Client) -> Result<usize, tokio_postgres::Error> {
    let lock = format!("select pg_advisory_lock({LOCK})");
    let unlock = format!("select pg_advisory_unlock({LOCK})");
    client.batch_execute(&lock).await?;
    let outcome = run_missing(client).await;
    client.batch_execute(&unlock).await?;
    outcome
}

async fn run_missing(client: &Client) -> Result<usize, tokio_postgres::Error> {
    client
        .batch_execute(
            "create table if not exists pennon_migrations (
               step integer primary key,
               name text not null,
               applied_at timestamptz not null default now()
             )",
        )
        .await?;
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
        if let Err(error) = client.batch_execute(&text).await {
            client.batch_execute("rollback").await?;
            return Err(error);
        }
        applied += 1;
    }
    Ok(applied)
}
