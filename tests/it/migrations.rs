//! An empty database and the tables of an existing service migrate, and rows are kept.

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::Database;
use serde_json::json;

/// The tables of the existing service, with rows.
const OLD_TABLES: &str = include_str!("old_tables.sql");

/// The tables of version 0.1.
const VERSION_0_1: [&str; 2] = [
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0001_tables.sql"),
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0002_revisions.sql"),
];

/// Changes by SQL to flags and overrides of production in [`OLD_TABLES`].
const CHANGES: [&str; 6] = [
    "update feature_flags set enabled = not enabled where flag_key = 'old-off'",
    "insert into feature_flags (flag_key, environment) values ('new', 'production')",
    "delete from feature_flags where flag_key = 'new'",
    "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
     select id, 'carol', 'include' from feature_flags where flag_key = 'old-off'",
    "update feature_flag_user_overrides set override_type = 'exclude' where user_id = 'carol'",
    "delete from feature_flag_user_overrides where user_id = 'carol'",
];

async fn migrate_to_version_0_1(database: &Database) {
    let steps = VERSION_0_1.join(";\n");
    let text = format!(
        "begin; {steps};
         create table pennon_migrations (
           step integer primary key, name text not null, applied_at timestamptz default now()
         );
         insert into pennon_migrations (step, name) values (1, 'tables'), (2, 'revisions');
         commit"
    );
    database.sql().batch_execute(&text).await.expect("0.1");
}

/// The number of migrations after the first `done`.
fn steps_after(done: u64) -> u64 {
    let folder = "../crates/pennon-core/src/store/postgres/migrations";
    let files = std::fs::read_dir(folder).expect("the steps");
    u64::try_from(files.count()).expect("few") - done
}

async fn migrate(database: &Database) -> Result<serde_json::Value, serde_json::Value> {
    let function = Function::start("migrate", &[("DATABASE_URL", &database.url())]).await;
    function.invoke(&json!({})).await
}

/// The indexes on the tables that Pennon shares with the existing service, with their columns.
async fn indexed(database: &Database) -> Vec<String> {
    let rows = database
        .sql()
        .query(
            "select pg_class.relname || ' ' ||
               string_agg(attname, ', ' order by array_position(indkey::int2[], attnum)) ||
               case when indisunique then ' unique' else '' end as line
             from pg_index
             join pg_class on pg_class.oid = indrelid
             join pg_attribute on attrelid = indrelid and attnum = any (indkey)
             where pg_class.relname like 'feature\\_flag%'
             group by pg_class.relname, indexrelid, indisunique
             order by line",
            &[],
        )
        .await
        .expect("indexes");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The indexes that [`indexed`] must find.
const INDEXED: [&str; 13] = [
    "feature_flag_schedules flag_id",
    "feature_flag_schedules id unique",
    "feature_flag_schedules next_retry_at",
    "feature_flag_schedules scheduled_at",
    "feature_flag_schedules status",
    "feature_flag_user_overrides flag_id",
    "feature_flag_user_overrides flag_id, user_id unique",
    "feature_flag_user_overrides id unique",
    "feature_flag_user_overrides user_id",
    "feature_flags environment",
    "feature_flags flag_key",
    "feature_flags flag_key, environment unique",
    "feature_flags id unique",
];

#[tokio::test]
async fn an_empty_database_gets_the_tables_of_the_existing_service_and_the_columns_of_pennon() {
    let database = Database::create_empty().await;
    assert_eq!(
        migrate(&database).await,
        Ok(json!({"applied": steps_after(0), "evaluationDefaults": "new"}))
    );
    assert_eq!(
        migrate(&database).await,
        Ok(json!({"applied": 0, "evaluationDefaults": "new"})),
        "the second run"
    );
    let columns = |table: &'static str| {
        let database = &database;
        async move {
            let rows = database
                .sql()
                .query(
                    "select column_name || ' ' || data_type || case is_nullable when 'NO' then ' not null' else '' end
                     from information_schema.columns where table_name = $1 order by ordinal_position",
                    &[&table],
                )
                .await
                .expect("columns");
            rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
        }
    };
    assert_eq!(
        columns("feature_flags").await,
        [
            "id uuid not null",
            "flag_key text not null",
            "enabled boolean not null",
            "rollout_percentage integer not null",
            "description text",
            "environment text not null",
            "created_at timestamp without time zone not null",
            "updated_at timestamp without time zone not null",
            "definition json",
            "salt text",
            "archived_at timestamp with time zone",
            "revision bigint not null",
            "other json",
            "bucketing text",
        ]
    );
    assert_eq!(
        columns("feature_flag_user_overrides").await,
        [
            "id uuid not null",
            "flag_id uuid not null",
            "user_id text not null",
            "override_type text not null",
            "reason text",
            "created_by text",
            "created_at timestamp without time zone",
            "variant text",
        ]
    );
    assert_eq!(columns("feature_flag_schedules").await.len(), 16);
    assert_eq!(indexed(&database).await, INDEXED);
    for bad in [
        "insert into feature_flags (flag_key, rollout_percentage) values ('a', 101)",
        "insert into feature_flags (flag_key) values ('b'), ('b')",
        "insert into feature_flags (flag_key, bucketing) values ('c', 'md5')",
        "insert into feature_flag_schedules (scheduled_at, updates, status) values (now(), '{}', 'x')",
    ] {
        assert!(database.sql().batch_execute(bad).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn tables_of_the_existing_service_migrate_and_keep_their_rows() {
    let database = Database::create_empty().await;
    database
        .sql()
        .batch_execute(OLD_TABLES)
        .await
        .expect("the old tables");
    assert_eq!(indexed(&database).await, INDEXED, "in old_tables.sql");
    assert_eq!(
        migrate(&database).await,
        Ok(json!({"applied": steps_after(0), "evaluationDefaults": "existing"}))
    );
    assert_eq!(indexed(&database).await, INDEXED, "after the migration");
    let count = |table: &'static str| {
        let database = &database;
        async move {
            let query = format!("select count(*) from {table}");
            let row = database
                .sql()
                .query_one(&query, &[])
                .await
                .expect("a count");
            row.get::<_, i64>(0)
        }
    };
    assert_eq!(count("feature_flags").await, 3);
    assert_eq!(count("feature_flag_user_overrides").await, 2);
    assert_eq!(count("feature_flag_schedules").await, 1);

    let url = database.url();
    let list = Function::start("list-flags", &[("DATABASE_URL", &url)]).await;
    let answer = list.call(&Event::list().user("alice", "[]")).await;
    assert_eq!(
        answer.json(),
        json!({"old-off": false, "old-rollout": false}),
        "the old override of alice was ignored"
    );
    let staging = Event::list().query("environment=staging");
    assert_eq!(
        list.call(&staging).await.json(),
        json!({"old-rollout": true})
    );
}

#[tokio::test]
async fn the_existing_service_keeps_working_on_migrated_tables_and_its_changes_raise_revisions() {
    let database = Database::create_empty().await;
    database
        .sql()
        .batch_execute(OLD_TABLES)
        .await
        .expect("the old tables");
    // A role without rights on our tables, like that of the existing service.
    database
        .sql()
        .batch_execute(
            "drop role if exists old_service; create role old_service;
             grant select, insert, update, delete on all tables in schema public to old_service",
        )
        .await
        .expect("a role");
    migrate(&database).await.expect("migrates");
    let mut last = database.revision("production").await;
    for change in CHANGES {
        let as_old_service = format!("set role old_service; {change}; reset role");
        database
            .sql()
            .batch_execute(&as_old_service)
            .await
            .expect(change);
        let now = database.revision("production").await;
        assert!(now > last, "{change} did not raise the revision");
        last = now;
    }
    let staging = database.revision("staging").await;
    database
        .sql()
        .batch_execute(
            "update feature_flags set environment = 'staging' where flag_key = 'old-off'",
        )
        .await
        .expect("a move");
    assert!(database.revision("production").await > last, "not raised");
    assert!(
        database.revision("staging").await > staging,
        "not raised in staging"
    );
    let before = database.revision("staging").await;
    database
        .sql()
        .batch_execute("truncate feature_flags cascade")
        .await
        .expect("truncates");
    assert!(database.revision("staging").await > before);
    database
        .sql()
        .batch_execute("reset role; drop owned by old_service; drop role old_service")
        .await
        .expect("the role is dropped");
}

/// Before PostgreSQL 15, every role may create objects in the schema `public`.
#[tokio::test]
async fn triggers_use_no_function_or_operator_of_another_role() {
    let database = Database::create_empty().await;
    let sql = database.sql();
    // The existing service may use another type of text.
    let tables = OLD_TABLES.replace("environment text", "environment varchar(20)");
    let tables = format!("{tables}; grant create on schema public to public");
    sql.batch_execute(&tables).await.expect("the old tables");
    let function = Function::start("migrate", &[("DATABASE_URL", &database.url())]).await;
    function.invoke(&json!({})).await.expect("migrates");
    let trap = "language plpgsql as $$ begin raise exception 'called'; end $$";
    let traps = format!(
        "drop role if exists trapper; create role trapper; set role trapper;
         create function unnest(text[]) returns setof text {trap};
         create function pennon_raise_revisions(varchar[]) returns void {trap};
         create function times(numeric, integer) returns numeric {trap};
         create function times(double precision, integer) returns double precision {trap};
         create operator * (leftarg = numeric, rightarg = integer, function = times);
         create operator * (leftarg = double precision, rightarg = integer, function = times);
         reset role"
    );
    sql.batch_execute(&traps).await.expect("traps");
    for change in CHANGES
        .into_iter()
        .chain(["truncate feature_flags cascade"])
    {
        let before = database.revision("production").await;
        sql.batch_execute(change).await.expect(change);
        assert!(database.revision("production").await > before, "{change}");
    }
    // Statements that functions send can still call the traps, so `migrate` logs this advice.
    let log = function.log();
    let advice = "revoke create on schema public from public";
    assert!(log.contains(advice), "{log}");
    sql.batch_execute("drop owned by trapper; drop role trapper")
        .await
        .expect("the role is dropped");
}

#[tokio::test]
async fn a_rolled_back_change_does_not_raise_the_revision() {
    let database = Database::create().await;
    database.add_flag("a", true, 1).await;
    let before = database.revision("production").await;
    database
        .sql()
        .batch_execute("begin; update feature_flags set enabled = false; rollback")
        .await
        .expect("rolls back");
    assert_eq!(database.revision("production").await, before);
}

#[tokio::test]
async fn concurrent_migrations_do_not_conflict() {
    let database = Database::create_empty().await;
    let (one, other) = tokio::join!(migrate(&database), migrate(&database));
    let applied = |outcome: Result<serde_json::Value, serde_json::Value>| {
        outcome.expect("migrates")["applied"]
            .as_u64()
            .expect("a number")
    };
    assert_eq!(applied(one) + applied(other), steps_after(0));
}

#[tokio::test]
async fn a_missing_database_is_a_clear_error() {
    let function = Function::start(
        "migrate",
        &[(
            "DATABASE_URL",
            "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable",
        )],
    )
    .await;
    let error = function.invoke(&json!({})).await.expect_err("no database");
    assert_eq!(error["errorType"], "Pennon.EventFailed");
    let message = error["errorMessage"].as_str().expect("a message");
    assert!(message.contains("refused"), "{message}");
    assert!(!error.to_string().contains("hunter2"));
    assert!(!function.log().contains("hunter2"));
}

#[tokio::test]
async fn statements_over_several_environments_do_not_deadlock() {
    let database = Database::create().await;
    // The same flags in two environments, whose rows are in opposite orders in the table.
    database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, environment) values
               ('one', 'a'), ('one', 'b'), ('other', 'b'), ('other', 'a')",
        )
        .await
        .expect("flags");
    let update = |key: &'static str| {
        let url = database.url();
        async move {
            let client = pennon_tests::postgres::connect(&url)
                .await
                .expect("connects");
            for _ in 0..200 {
                client
                    .execute(
                        "update feature_flags set enabled = not enabled where flag_key = $1",
                        &[&key],
                    )
                    .await
                    .expect("no deadlock");
            }
        }
    };
    tokio::join!(update("one"), update("other"));
}

#[tokio::test]
async fn a_function_that_is_deployed_before_its_migration_keeps_answering() {
    let database = Database::create_empty().await;
    database
        .sql()
        .batch_execute(OLD_TABLES)
        .await
        .expect("the old tables");
    migrate_to_version_0_1(&database).await;
    let list = Function::start("list-flags", &[("DATABASE_URL", &database.url())]).await;
    let alice = Event::list().user("alice", "[]");
    let expected = json!({"old-off": false, "old-rollout": false});
    assert_eq!(list.call(&alice).await.json(), expected);
    let before = database.revision("production").await;
    assert_eq!(
        migrate(&database).await,
        Ok(json!({"applied": steps_after(2), "evaluationDefaults": "existing"}))
    );
    assert_eq!(
        database.revision("production").await,
        before,
        "the migration raised the revision"
    );
    assert_eq!(list.call(&alice).await.json(), expected);
    let before_last_step = "alter table feature_flags drop column bucketing;
         delete from pennon_migrations where step >= 12";
    let sql = database.sql();
    sql.batch_execute(before_last_step).await.expect("undone");
    let list = Function::start("list-flags", &[("DATABASE_URL", &database.url())]).await;
    assert_eq!(list.call(&alice).await.json(), expected);
}

#[tokio::test]
async fn a_migration_waits_for_a_transaction_of_the_existing_service_and_retries() {
    let database = Database::create_empty().await;
    let sql = database.sql();
    sql.batch_execute(OLD_TABLES).await.expect("the old tables");
    migrate_to_version_0_1(&database).await;
    assert_eq!(
        migrate_during_a_transaction(&database).await,
        steps_after(2)
    );
}

#[tokio::test]
async fn the_first_migration_waits_in_the_same_way_if_a_table_of_the_existing_service_is_missing() {
    let database = Database::create_empty().await;
    let sql = database.sql();
    sql.batch_execute(OLD_TABLES).await.expect("the old tables");
    sql.batch_execute("drop table feature_flag_schedules")
        .await
        .expect("drops");
    assert_eq!(
        migrate_during_a_transaction(&database).await,
        steps_after(0)
    );
}

/// Migrates while a transaction has changed a flag, and commits it once the migration is retried. Returns the number of
/// steps that were applied.
async fn migrate_during_a_transaction(database: &Database) -> serde_json::Value {
    let sql = database.sql();
    sql.batch_execute("begin; update feature_flags set enabled = true")
        .await
        .expect("an open transaction");
    let function = Function::start("migrate", &[("DATABASE_URL", &database.url())]).await;
    let event = json!({});
    let (outcome, ()) = tokio::join!(function.invoke(&event), async {
        pennon_tests::eventually("the migration is retried", async || {
            function.has_logged("a transaction blocks a migration; retrying")
        })
        .await;
        sql.batch_execute("commit").await.expect("commits");
    });
    let outcome = outcome.expect("migrates");
    assert_eq!(outcome["evaluationDefaults"], "existing");
    outcome["applied"].clone()
}

#[tokio::test]
async fn settings_and_keys_raise_the_revision_of_their_environment_only() {
    let database = Database::create().await;
    database.add_flag("a", true, 1).await;
    let production = database.revision("production").await;
    let hash = "ab".repeat(32);
    let mut last = 0;
    for change in [
        "insert into pennon_environment_settings (environment) values ('staging')".to_owned(),
        "update pennon_environment_settings set settings = '{\"metadata\":{}}'".to_owned(),
        "delete from pennon_environment_settings".to_owned(),
        format!(
            "insert into pennon_api_keys (environment, kind, name, hash, created_by)
             values ('staging', 'server', 'x', '{hash}', 'me')"
        ),
        "update pennon_api_keys set revoked_at = now()".to_owned(),
        "delete from pennon_api_keys".to_owned(),
    ] {
        database
            .sql()
            .batch_execute(&change)
            .await
            .expect("a change");
        let now = database.revision("staging").await;
        assert!(now > last, "{change}");
        last = now;
    }
    assert_eq!(database.revision("production").await, production);
    for bad in [
        "insert into pennon_api_keys (environment, kind, name, hash, created_by)
         values ('staging', 'root', 'x', repeat('a', 64), 'me')",
        "insert into pennon_api_keys (environment, kind, name, hash, created_by)
         values ('staging', 'server', 'x', 'the key itself', 'me')",
    ] {
        assert!(database.sql().batch_execute(bad).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn every_change_of_a_flag_raises_its_revision() {
    let database = Database::create().await;
    let revision = || async {
        let row = database
            .sql()
            .query_one("select revision from feature_flags", &[])
            .await
            .expect("a row");
        row.get::<_, i64>(0)
    };
    database.add_flag("a", true, 1).await;
    let mut last = revision().await;
    for _ in 0..20 {
        database
            .sql()
            .batch_execute("update feature_flags set enabled = not enabled")
            .await
            .expect("as the existing service does");
        let now = revision().await;
        assert!(now > last);
        last = now;
    }
    database
        .sql()
        .batch_execute("delete from feature_flags")
        .await
        .expect("gone");
    database.add_flag("a", true, 1).await;
    assert!(revision().await > last, "the revision was used before");
}
