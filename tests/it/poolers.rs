//! Behind `PgBouncer` in transaction mode: migrations, reads and changes work, and no session state is left on a
//! connection that another client uses next.

use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::pooler::Pooler;
use pennon_tests::postgres::{Database, connect};
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::{percentage, set_percentage};
use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;

async fn migrate(url: &str) -> Result<Value, Value> {
    let function = Function::start("migrate", &[("DATABASE_URL", url)]).await;
    function.invoke(&json!({})).await
}

/// The session state of the connection that the next client of the pool gets.
async fn left_behind(url: &str) -> Vec<String> {
    let client = connect(url).await.expect("connects");
    let mut found = Vec::new();
    for setting in [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        let rows = client.simple_query(&format!("show {setting}")).await;
        let is_default = rows.expect("a setting").iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("0")),
        );
        if !is_default {
            found.push(setting.to_owned());
        }
    }
    let locks = client
        .simple_query(
            "select 1 from pg_locks where locktype = 'advisory' and database =
               (select oid from pg_database where datname = current_database())",
        )
        .await
        .expect("locks");
    if locks
        .iter()
        .any(|row| matches!(row, SimpleQueryMessage::Row(_)))
    {
        found.push("an advisory lock".to_owned());
    }
    found
}

#[tokio::test]
async fn migrations_run_behind_a_pooler_twice_and_at_once_and_leave_nothing_behind() {
    let database = Database::create_empty().await;
    let pooler = Pooler::start(&database).await;
    let url = database.url_by(pooler.port());
    let (one, other) = tokio::join!(migrate(&url), migrate(&url));
    let applied = |outcome: &Result<Value, Value>| {
        let answer = outcome.as_ref().expect("migrates");
        answer["applied"].as_u64().expect("a number")
    };
    assert!(applied(&one) + applied(&other) >= 5, "{one:?} {other:?}");
    assert_eq!(applied(&migrate(&url).await), 0, "a third run");
    assert_eq!(left_behind(&url).await, Vec::<String>::new());
}

#[tokio::test]
async fn reads_and_changes_work_behind_a_pooler_and_leave_nothing_behind() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let pooler = Pooler::start(&database).await;
    let url = database.url_by(pooler.port());
    let environment = [("DATABASE_URL", url.as_str())];
    let get = Function::start("get-flag", &environment).await;
    let update = Function::start("update-flag", &environment).await;
    let other = Function::start("get-flag", &environment).await;
    for percent in [1, 2, 3] {
        set_percentage(&update, "checkout", percent).await;
        for reader in [&get, &other] {
            assert_eq!(
                percentage(&reader.call(&Event::get("checkout")).await),
                percent
            );
        }
        assert_eq!(left_behind(&url).await, Vec::<String>::new());
    }
    // A rejected change ends its transaction too.
    let refused = update.call(&Event::update("missing", &json!({}))).await;
    assert_eq!(refused.status, 404);
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 3);
    assert_eq!(left_behind(&url).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_migration_that_is_killed_keeps_no_lock() {
    let database = Database::create_empty().await;
    let pooler = Pooler::start(&database).await;
    for url in [database.url_by(pooler.port()), database.url()] {
        let statement = "drop schema public cascade; create schema public;
             create table feature_flags (id uuid); begin; lock table feature_flags";
        database
            .sql()
            .batch_execute(statement)
            .await
            .expect("a lock");
        let mut function = Function::start("migrate", &[("DATABASE_URL", &url)]).await;
        {
            let event = json!({});
            let waits = function.invoke(&event);
            // Other tests use the same server.
            let waiting = "select 1 from pg_locks where not granted and database =
                (select oid from pg_database where datname = current_database())";
            let blocked = eventually("the migration waits for the table", async || {
                let found = database.sql().query(waiting, &[]).await.expect("locks");
                !found.is_empty()
            });
            tokio::select! {
                outcome = waits => panic!("the migration does not wait: {outcome:?}"),
                () = blocked => {}
            }
        }
        function.kill();
        let statement = "rollback; drop schema public cascade; create schema public";
        database.sql().batch_execute(statement).await.expect("free");
        let again = migrate(&url).await.expect("migrates");
        assert!(again["applied"].as_u64() >= Some(5), "{again}");
        assert_eq!(left_behind(&url).await, Vec::<String>::new());
    }
}

/// The number of connections of functions to this database in this state, queried on a connection that is not in a
/// transaction: within one, PostgreSQL keeps returning the activity of the first query.
async fn sessions(database: &Database, state: &str) -> i64 {
    let query = format!(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'pennon' and {state}"
    );
    let client = connect(&database.url()).await.expect("connects");
    let row = client.query_one(&query, &[]).await;
    row.expect("a count").get(0)
}

#[tokio::test]
async fn the_database_ends_a_read_whose_function_has_given_up() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let pooler = Pooler::start(&database).await;
    for url in [database.url_by(pooler.port()), database.url()] {
        let get = Function::start("get-flag", &[("DATABASE_URL", &url)]).await;
        let statement = "begin; lock table feature_flags in access exclusive mode";
        database.sql().batch_execute(statement).await.expect("lock");
        let failed = get.call(&Event::get("checkout")).await;
        assert_eq!(failed.status, 503, "{failed:?}");
        // The table is still locked, so only the statement timeout can end the read.
        eventually("nothing waits for the table", async || {
            sessions(&database, "wait_event_type = 'Lock'").await == 0
        })
        .await;
        database
            .sql()
            .batch_execute("rollback")
            .await
            .expect("free");
        eventually("the function reads again", async || {
            get.call(&Event::get("checkout")).await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn the_database_ends_a_change_that_stops_before_its_commit() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let pooler = Pooler::start(&database).await;
    for url in [database.url_by(pooler.port()), database.url()] {
        let update = Function::start("update-flag", &[("DATABASE_URL", &url)]).await;
        let statement = "begin; select 1 from feature_flags for update";
        database.sql().batch_execute(statement).await.expect("lock");
        let change = Event::update("checkout", &json!({"rolloutPercentage": 70}));
        let stopped = async {
            eventually("the change waits for the flag", async || {
                sessions(&database, "wait_event_type = 'Lock'").await > 0
            })
            .await;
            update.process().freeze();
            database
                .sql()
                .batch_execute("rollback")
                .await
                .expect("free");
            let open = "state like 'idle in transaction%'";
            eventually("the transaction is open and idle", async || {
                sessions(&database, open).await > 0
            })
            .await;
            eventually("the database has ended the transaction", async || {
                sessions(&database, open).await == 0
            })
            .await;
            update.process().thaw();
        };
        let (answer, ()) = tokio::join!(update.call(&change), stopped);
        assert!(answer.status >= 500, "{answer:?}");
        let row = database
            .sql()
            .query_one("select rollout_percentage from feature_flags", &[])
            .await
            .expect("a flag");
        assert_eq!(row.get::<_, i32>(0), 50, "the stopped change was committed");
    }
}

#[tokio::test]
async fn a_login_that_the_pooler_rejects_is_read_again_and_replaced_by_the_fallback() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let pooler = Pooler::start_with_login(&database, ("service", "right")).await;
    let url = |login: &str| {
        let url = database.url_by(pooler.port());
        url.replace("//pennon@", &format!("//{login}@"))
    };
    let manager = SecretsManager::start().await;
    let right = manager.create("right", &url("service:right")).await;
    for (name, login) in [("password", "service:wrong"), ("user", "unknown:right")] {
        let wrong = manager.create(name, &url(login)).await;
        let secret = ("DATABASE_SECRET_ARN", wrong.as_str());
        let fallback = ("DATABASE_FALLBACK_SECRET_ARN", right.as_str());
        let protected = manager.function("get-flag", &[secret, fallback]).await;
        let answer = protected.call(&Event::get("checkout")).await;
        assert_eq!(answer.status, 200, "{name}: {}", protected.log());
        let get = manager.function("get-flag", &[secret]).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(answer.status, 503, "{name}: {answer:?}");
        manager.change(&wrong, &url("service:right")).await;
        eventually("the secret is read again", async || {
            get.call(&Event::get("checkout")).await.status == 200
        })
        .await;
    }
}
