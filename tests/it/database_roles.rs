//! Functions log in to PostgreSQL with the role that they need, and `migrate` creates these roles.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use pennon_tests::TIME_LIMIT;
use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES, SYNC_KEY};
use pennon_tests::eventually;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::pooler::Pooler;
use pennon_tests::postgres::{Database, Server, connect, program};
use pennon_tests::process::{new_folder, output_within};
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::percentage;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::tidy;

const OLD_TABLES: &str = include_str!("old_tables.sql");
const ROLES: [&str; 3] = ["read", "write", "count"];
const OWNER_PASSWORD: &str = "owner-password";

/// The role of each function. The other functions have no database, and `migrate` logs in as the owner.
const FUNCTIONS: [(&str, &str); 18] = [
    ("get-flag", "read"),
    ("list-flags", "read"),
    ("evaluate-flag", "read"),
    ("evaluate-flags", "read"),
    ("health", "read"),
    ("sync-flags", "read"),
    ("report-usage", "read"),
    ("update-flag", "write"),
    ("overrides", "write"),
    ("schedules", "write"),
    ("manage-flags", "write"),
    ("manage-environments", "write"),
    ("manage-keys", "write"),
    ("ramps", "write"),
    ("guard", "write"),
    ("reconcile", "write"),
    ("count-evaluations", "count"),
    ("migrate", "owner"),
];

/// A PostgreSQL that requires passwords and logs every statement, a login that owns the database `flags` and is not a
/// superuser, and the secrets that a stack has before the first `migrate`.
struct Installation {
    server: Server,
    manager: SecretsManager,
    owner_arn: String,
    role_arns: Vec<String>,
}

impl Installation {
    async fn start(rights: &str) -> Self {
        let settings = ["log_statement=all", "log_line_prefix=%u: "];
        let server = Server::start(&settings, |folder| {
            let rules = "host all pennon all trust\nhost all all all scram-sha-256\n";
            std::fs::write(folder.join("data/pg_hba.conf"), rules).expect("writes");
        })
        .await;
        let admin = connect(&server.url("postgres")).await.expect("connects");
        for statement in [
            format!("create role owner login {rights}"),
            // The server's log must not contain the next statement.
            "set log_statement = none".to_owned(),
            format!("alter role owner password '{OWNER_PASSWORD}'"),
            "create database flags owner owner".to_owned(),
        ] {
            admin.batch_execute(&statement).await.expect("set up");
        }
        let manager = SecretsManager::start().await;
        let url = url_of(&server, &format!("owner:{OWNER_PASSWORD}"));
        let owner_arn = manager.create("database", &url).await;
        let mut role_arns = Vec::new();
        for role in ROLES {
            role_arns.push(manager.create_empty(&format!("database-{role}")).await);
        }
        Self {
            server,
            manager,
            owner_arn,
            role_arns,
        }
    }

    async fn sql(&self) -> Client {
        connect(&self.server.url("flags")).await.expect("connects")
    }

    fn arn(&self, role: &str) -> &str {
        let at = ROLES.iter().position(|name| *name == role);
        at.map_or(&self.owner_arn, |at| &self.role_arns[at])
    }

    async fn start_migrate(&self, more: &[(&str, &str)]) -> Function {
        let mut environment = vec![
            ("DATABASE_SECRET_ARN", self.owner_arn.as_str()),
            ("DATABASE_READ_SECRET_ARN", self.arn("read")),
            ("DATABASE_WRITE_SECRET_ARN", self.arn("write")),
            ("DATABASE_COUNT_SECRET_ARN", self.arn("count")),
        ];
        environment.extend(more);
        self.manager.function("migrate", &environment).await
    }

    async fn migrate_with(&self, event: Value) -> Value {
        let migrate = self.start_migrate(&[]).await;
        let answer = migrate.invoke(&event).await;
        answer.unwrap_or_else(|error| panic!("{error}; {}", migrate.log()))
    }

    async fn migrate(&self) -> Value {
        self.migrate_with(json!({})).await
    }

    /// Starts a function with the secret of its role.
    async fn function(&self, name: &str, more: &[(&str, &str)]) -> Function {
        let role = FUNCTIONS.iter().find(|(function, _)| *function == name);
        let (_, role) = role.expect("a function with a database");
        let mut environment = vec![("DATABASE_SECRET_ARN", self.arn(role))];
        environment.extend(more);
        self.manager.function(name, &environment).await
    }

    /// A connection as this role.
    async fn connect_as(&self, role: &str) -> Client {
        let url = self.manager.value(self.arn(role)).await.expect("a value");
        connect(&url).await.expect("the login works")
    }

    /// All passwords, which no log may contain.
    async fn passwords(&self) -> Vec<String> {
        let mut passwords = vec![OWNER_PASSWORD.to_owned()];
        for role in ROLES {
            let url = self.manager.value(self.arn(role)).await.expect("a value");
            passwords.push(password_of(&url));
        }
        passwords
    }

    /// Changes the recorded time so that the secrets seem a minute older.
    async fn let_a_minute_pass(&self) {
        let pass = "update pennon_role_secrets set written_at = written_at - interval '1 minute'";
        self.sql().await.batch_execute(pass).await.expect("later");
    }

    /// Runs the statements in a response of `migrate` as a superuser. Then the role `read` works, and `migrate` has
    /// nothing left to do.
    async fn becomes_ready_by_the_statements_of(&self, answer: &Value) {
        let statements = answer["sql"].as_str().expect("SQL");
        let ran = self.sql().await.batch_execute(statements).await;
        ran.expect("they run");
        self.connect_as("read").await;
        let answer = self.migrate().await;
        assert_eq!(answer["databaseRoles"], "ready", "{answer}");
    }
}

fn url_of(server: &Server, login: &str) -> String {
    let url = server.url("flags");
    url.replace("//pennon@", &format!("//{login}@"))
}

fn password_of(url: &str) -> String {
    let login = url
        .split("//")
        .nth(1)
        .and_then(|rest| rest.split('@').next());
    let password = login.and_then(|login| login.split(':').nth(1));
    password.expect("a password").to_owned()
}

fn user_of(url: &str) -> String {
    let rest = url.split("//").nth(1).expect("a URL");
    rest.split(':').next().expect("a user").to_owned()
}

#[tokio::test]
async fn migrate_creates_the_roles_once_and_logs_no_password() {
    let installation = Installation::start("createrole").await;
    let first = installation.start_migrate(&[]).await;
    let answer = first.invoke(&json!({})).await.expect("migrates");
    assert_eq!(answer["databaseRoles"], "ready", "{answer}");
    assert_eq!(answer["secretsWritten"], 3, "{answer}");
    let passwords = installation.passwords().await;
    let again = installation.migrate().await;
    assert_eq!(again["secretsWritten"], 0, "{again}");
    assert_eq!(installation.passwords().await, passwords);

    for role in ROLES {
        let user = installation.connect_as(role).await;
        let row = user.query_one("select current_user::text", &[]).await;
        let name: String = row.expect("a row").get(0);
        assert_eq!(name, format!("pennon_flags_{role}_a"));
    }
    let server_log = installation.server.process().log();
    assert!(
        server_log.contains("SCRAM-SHA-256$4096:"),
        "no verifier was sent"
    );
    for password in passwords {
        assert!(
            !server_log.contains(&password),
            "a password in the server's log"
        );
        assert!(!first.log().contains(&password), "a password in the log");
        assert!(!answer.to_string().contains(&password));
    }
}

#[tokio::test]
async fn concurrent_runs_of_migrate_agree_on_the_secrets() {
    let installation = Installation::start("createrole").await;
    let runs = join_all((0..4).map(|_| installation.start_migrate(&[]))).await;
    let answers = join_all(runs.iter().map(async |run| run.invoke(&json!({})).await)).await;
    let written: u64 = answers
        .iter()
        .map(|answer| {
            let answer = answer.as_ref().expect("migrates");
            answer["secretsWritten"].as_u64().expect("a number")
        })
        .sum();
    assert_eq!(written, 3, "{answers:?}");
    for role in ROLES {
        installation.connect_as(role).await;
    }
}

/// Statements, and the roles that may run them.
const RIGHTS: [(&str, &[&str]); 39] = [
    ("select from feature_flags", &["read", "write"]),
    (
        "select from feature_flag_user_overrides",
        &["read", "write"],
    ),
    ("select from pennon_environments", &["read", "write"]),
    (
        "select from pennon_environment_settings",
        &["read", "write"],
    ),
    ("select from pennon_api_keys", &["read", "write"]),
    ("select from pennon_installation", &["read", "write"]),
    (
        "select from pennon_evaluation_counts",
        &["read", "write", "count"],
    ),
    ("select from feature_flag_schedules", &["write"]),
    ("select from pennon_audit", &["write"]),
    ("select from pennon_ramps", &["write"]),
    ("delete from pennon_ramps", &[]),
    ("update pennon_outbox set attempts = 0", &["write"]),
    ("delete from pennon_outbox", &["write"]),
    ("update pennon_event_sequences set last = 0", &["write"]),
    ("delete from pennon_event_sequences", &[]),
    ("update pennon_webhooks set due_at = now()", &["write"]),
    ("select from pennon_webhook_destinations", &["write"]),
    (
        "select from pennon_evaluation_hours",
        &["read", "write", "count"],
    ),
    ("delete from pennon_evaluation_hours", &["count"]),
    ("update pennon_evaluation_hours set count = 0", &["count"]),
    ("select from pennon_key_uses", &["write", "count"]),
    (
        "update pennon_key_uses set last_used_on = '2026-01-01'",
        &["count"],
    ),
    ("delete from pennon_key_uses", &[]),
    ("select from pennon_counted_batches", &["count"]),
    ("select from pennon_role_secrets", &[]),
    ("select from pennon_migrations", &["read", "write"]),
    (
        "insert into feature_flags (flag_key) values ('new')",
        &["write"],
    ),
    ("update feature_flags set enabled = true", &["write"]),
    ("delete from feature_flags", &["write"]),
    ("truncate feature_flags", &[]),
    ("drop table feature_flags", &[]),
    (
        "update pennon_installation set evaluation_defaults = 'new'",
        &[],
    ),
    (
        "insert into pennon_audit (environment, action, actor) values ('production', 'x', 'x')",
        &["write"],
    ),
    ("update pennon_audit set actor = 'somebody else'", &[]),
    ("delete from pennon_audit", &[]),
    ("truncate pennon_audit", &[]),
    (
        "insert into pennon_counted_batches (id) values ('x')",
        &["count"],
    ),
    ("select pennon_raise_revisions('{production}')", &[]),
    ("create role more", &[]),
];

async fn assert_rights(installation: &Installation) {
    let mut wrong = Vec::new();
    for role in ROLES {
        let user = installation.connect_as(role).await;
        for (statement, allowed) in RIGHTS {
            user.batch_execute("begin").await.expect("begins");
            let done = user.batch_execute(statement).await;
            user.batch_execute("rollback").await.expect("ends");
            let denied = done.as_ref().err().and_then(|error| error.code());
            let expected = if allowed.contains(&role) {
                None
            } else {
                Some("42501")
            };
            if denied.map(SqlState::code) != expected {
                wrong.push(format!("{role}: {statement}: {done:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn each_role_may_do_what_its_functions_do_and_no_more() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    assert_rights(&installation).await;
    let sql = installation.sql().await;
    // The next `migrate` undoes changes of rights by SQL.
    sql.batch_execute(
        "grant delete on pennon_audit to pennon_flags_write;
         revoke select on feature_flags from pennon_flags_read",
    )
    .await
    .expect("changes");
    installation.migrate().await;
    let rights = "select has_table_privilege('pennon_flags_write', 'pennon_audit', 'delete'),
        has_table_privilege('pennon_flags_read', 'feature_flags', 'select')";
    let row = sql.query_one(rights, &[]).await.expect("rights");
    assert_eq!((row.get(0), row.get(1)), (false, true));
}

/// Owner, rights and settings of each function and table.
const PRIVILEGES: &str = "
    select oid::regprocedure::text as name, proowner::regrole::text as owner, proconfig::text as settings,
           array(select unnest(coalesce(proacl, acldefault('f', proowner)))::text order by 1) as rights
    from pg_proc where pronamespace = 'public'::regnamespace
    union all
    select oid::regclass::text, relowner::regrole::text, null,
           array(select unnest(coalesce(relacl, acldefault('r', relowner)))::text order by 1)
    from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
    order by name";

#[tokio::test]
async fn after_a_restore_without_privileges_migrate_restores_them() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let sql = installation.sql().await;
    let privileges = async || {
        let rows = sql.query(PRIVILEGES, &[]).await.expect("privileges");
        let text = |row: &tokio_postgres::Row| {
            let settings: Option<String> = row.get("settings");
            let rights: Vec<String> = row.get("rights");
            let [name, owner] = ["name", "owner"].map(|name| row.get::<_, String>(name));
            format!("{name}: {owner} {settings:?} {rights:?}")
        };
        rows.iter().map(text).collect::<Vec<String>>()
    };
    let before = privileges().await;
    let folder = new_folder("dump");
    let file = folder.join("pennon.dump");
    let url = url_of(&installation.server, &format!("owner:{OWNER_PASSWORD}"));
    // As in docs/infrastructure/backup-and-restore.md.
    let mut dump = Command::new(program("pg_dump"));
    dump.args(["-Fc", &url, "-f"]).arg(&file);
    let mut restore = Command::new(program("pg_restore"));
    restore
        .args(["--clean", "--if-exists", "--no-owner", "--no-privileges"])
        .args(["--single-transaction", "-d", &url])
        .arg(&file);
    for command in [&mut dump, &mut restore] {
        let output = output_within(command, TIME_LIMIT);
        assert!(output.status.success(), "{output:?}");
    }
    assert_ne!(privileges().await, before);
    installation.migrate().await;
    assert_eq!(privileges().await, before);
    assert_rights(&installation).await;
    // The triggers still raise revisions.
    let change = "insert into feature_flags (flag_key, environment) values ('new', 'restored')";
    let user = installation.connect_as("write").await;
    user.batch_execute(change).await.expect("a flag");
    let revision = "select revision from pennon_environments where environment = 'restored'";
    let row = sql.query_one(revision, &[]).await.expect("a revision");
    assert!(row.get::<_, i64>(0) > 0);
}

/// The role of the function must be able to read which migrations have run.
#[tokio::test]
async fn a_function_with_a_role_that_is_deployed_before_a_migration_keeps_answering() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let before_bucketing = "
        insert into feature_flags (flag_key, enabled, rollout_percentage) values ('checkout', true, 50);
        alter table feature_flags drop column bucketing;
        delete from pennon_migrations where step >= 12";
    let sql = installation.sql().await;
    sql.batch_execute(before_bucketing).await.expect("undone");
    let get = installation.function("get-flag", &[]).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(answer.status, 200, "{answer:?}; {}", get.log());
    assert_eq!(installation.migrate().await["applied"], 2);
    assert_eq!(get.call(&Event::get("checkout")).await.status, 200);
}

/// Default privileges can give other roles rights on a new table, and SQL can add more.
#[tokio::test]
async fn only_the_owner_keeps_the_right_to_change_audit_entries() {
    let installation = Installation::start("createrole").await;
    let sql = installation.sql().await;
    sql.batch_execute(
        "create role reporting login; create role helper login;
         alter default privileges for role owner grant all on tables to reporting, public",
    )
    .await
    .expect("default privileges");
    let shared_login = [("DATABASE_SECRET_ARN", installation.owner_arn.as_str())];
    let migrate = installation
        .manager
        .function("migrate", &shared_login)
        .await;
    migrate.invoke(&json!({})).await.expect("migrates");
    let rights = "select role || ': ' || string_agg(lower(name), ' ' order by name)
         from unnest(array['reporting', 'helper']) as role,
              unnest(array['DELETE', 'INSERT', 'REFERENCES', 'SELECT', 'TRIGGER', 'TRUNCATE', 'UPDATE']) as name
         where has_table_privilege(role, 'pennon_audit', name)
            or (name in ('REFERENCES', 'UPDATE') and has_any_column_privilege(role, 'pennon_audit', name))
         group by role order by role";
    let found = async || {
        let rows = sql.query(rights, &[]).await.expect("rights");
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let kept = ["helper: insert select", "reporting: insert select"];
    let log = migrate.log();
    assert_eq!(found().await, kept, "{log}");
    // Each revoked privilege, and from whom.
    assert!(
        log.contains("DELETE from public, DELETE from reporting"),
        "{log}"
    );
    // Rights on other tables stay.
    let others = "select has_table_privilege('reporting', 'pennon_environments', 'delete')";
    let row = sql.query_one(others, &[]).await.expect("rights");
    assert!(row.get::<_, bool>(0));

    sql.batch_execute(
        "grant update (actor), references (actor) on pennon_audit to helper;
         grant truncate, delete on pennon_audit to reporting with grant option;
         set role reporting; grant delete on pennon_audit to helper; reset role",
    )
    .await
    .expect("more rights");
    installation.migrate().await;
    assert_eq!(found().await, kept);
    let again = installation.start_migrate(&[]).await;
    again.invoke(&json!({})).await.expect("migrates");
    assert!(!again.log().contains("pennon_audit"), "{}", again.log());
}

#[tokio::test]
async fn every_function_works_with_the_role_that_it_has() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let with_database: BTreeSet<String> = FUNCTIONS.map(|(name, _)| name.to_owned()).into();
    let mut all = tidy::functions();
    let without = ["console", "not-found", "pre-traffic", "send-webhooks"];
    all.retain(|name| !without.contains(&name.as_str()));
    assert_eq!(with_database, all);
    let sql = installation.sql().await;
    sql.batch_execute(&format!(
        "insert into feature_flags (flag_key, enabled, rollout_percentage) values
           ('new-checkout', true, 50), ('checkout', true, 50), ('banner', true, 100);
         insert into pennon_api_keys (environment, kind, name, hash, created_by) values
           ('production', 'server', 'of a test', encode(sha256(convert_to('{EXAMPLE_KEY}', 'utf8')), 'hex'), 'test'),
           ('production', 'sync', 'of a test', encode(sha256(convert_to('{SYNC_KEY}', 'utf8')), 'hex'), 'test')"
    ))
    .await
    .expect("flags and a key");
    let mut requests = 0;
    for (name, role) in FUNCTIONS {
        if role == "owner" {
            continue;
        }
        let function = installation.function(name, &[]).await;
        for (file, function_of_file, _status) in REQUEST_FILES {
            if function_of_file == name {
                let answer = function.call(&Event::load(file)).await;
                assert!(
                    answer.status < 500,
                    "{file}: {answer:?}; {}",
                    function.log()
                );
                requests += 1;
            }
        }
        if ["guard", "reconcile", "count-evaluations"].contains(&name) {
            let outcome = function.invoke(Event::load(name).value()).await;
            outcome.unwrap_or_else(|error| panic!("{name}: {error}; {}", function.log()));
            requests += 1;
        }
        let log = function.log();
        assert!(!log.contains("permission denied"), "{name}: {log}");
    }
    assert!(requests > 30, "only {requests} requests were made");
}

#[tokio::test]
async fn the_existing_service_keeps_its_login_its_tables_and_its_rights() {
    let installation = Installation::start("createrole").await;
    let sql = installation.sql().await;
    // `owner` owns the tables and is the login of `migrate`; `reporting` is a login of the existing service that only
    // has rights on them.
    sql.batch_execute(&format!(
        "set role owner; {OLD_TABLES}; reset role;
         create role reporting login;
         grant select, insert, update, delete on all tables in schema public to reporting"
    ))
    .await
    .expect("old tables");
    installation.migrate().await;
    let owners = "select count(*) from pg_tables where tablename like 'feature\\_flag%' and tableowner = 'owner'";
    let row = sql.query_one(owners, &[]).await.expect("owners");
    assert_eq!(row.get::<_, i64>(0), 3);
    for role in ["owner", "reporting"] {
        let statements = [
            "insert into feature_flags (flag_key, enabled) values ('theirs', true)",
            "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
             select id, 'carol', 'include' from feature_flags where flag_key = 'theirs'",
            "update feature_flags set rollout_percentage = 7 where flag_key = 'theirs'",
            "delete from feature_flags where flag_key = 'theirs'",
        ];
        for statement in statements {
            let statement = format!("set role {role}; {statement}; reset role");
            let done = sql.batch_execute(&statement).await;
            done.unwrap_or_else(|error| panic!("{role}: {statement}: {error:?}"));
        }
    }
    sql.batch_execute(
        "set role owner; alter table feature_flags add column theirs text; reset role",
    )
    .await
    .expect("they may still change their table");
    let get = installation.function("get-flag", &[]).await;
    assert_eq!(get.call(&Event::get("old-rollout")).await.status, 200);
}

#[tokio::test]
async fn a_rotation_while_functions_run_fails_no_request() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let sql = installation.sql().await;
    sql.batch_execute("insert into feature_flags (flag_key, enabled, rollout_percentage) values ('checkout', true, 50)")
        .await
        .expect("a flag");
    let get = installation.function("get-flag", &[]).await;
    let update = installation.function("update-flag", &[]).await;
    let over = std::cell::Cell::new(false);
    let load = async {
        let mut requests = 0;
        while !over.get() {
            requests += 1;
            let read = get.call(&Event::get("checkout")).await;
            assert_eq!(read.status, 200, "{read:?} {}", get.log());
            assert_ne!(read.source(), "stale", "{}", get.log());
            let body = json!({ "rolloutPercentage": requests % 100 });
            let changed = update.call(&Event::update("checkout", &body)).await;
            assert_eq!(changed.status, 200, "{changed:?} {}", update.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        requests
    };
    let rotations = async {
        let event = json!({"rotateDatabaseRoles": true});
        for rotation in 1..=4 {
            installation.let_a_minute_pass().await;
            let before = installation.passwords().await;
            let rotated = installation.migrate_with(event.clone()).await;
            assert_eq!(rotated["secretsWritten"], 3, "{rotated}");
            assert_ne!(installation.passwords().await, before);
            let url = installation.manager.value(installation.arn("read")).await;
            let expected = if rotation % 2 == 1 { "b" } else { "a" };
            assert_eq!(
                user_of(&url.expect("a value")),
                format!("pennon_flags_read_{expected}")
            );
            // A function that starts now, and those that are running.
            let cold = installation.function("get-flag", &[]).await;
            assert_eq!(cold.call(&Event::get("checkout")).await.status, 200);
            // The secret is read again at most every five seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        over.set(true);
    };
    let (requests, ()) = tokio::join!(load, rotations);
    assert!(requests > 10);
    // A second rotation within seconds would invalidate a login that functions have just read.
    let again = installation
        .migrate_with(json!({"rotateDatabaseRoles": true}))
        .await;
    assert_eq!(again["secretsWritten"], 0, "{again}");
}

#[tokio::test]
async fn without_the_right_to_create_roles_migrate_returns_the_statements_and_the_shared_login_keeps_working()
 {
    let installation = Installation::start("").await;
    let answer = installation.migrate().await;
    assert_eq!(answer["databaseRoles"], "waiting", "{answer}");
    let sql = installation.sql().await;
    // Neither a superuser nor a member of the role that owns the tables.
    sql.batch_execute("create role admin login createrole password 'admin-password'")
        .await
        .expect("an administrator");
    let admin = connect(&url_of(&installation.server, "admin:admin-password")).await;
    let admin = admin.expect("connects");
    sql.batch_execute("insert into feature_flags (flag_key, enabled, rollout_percentage) values ('checkout', true, 50)")
        .await
        .expect("a flag");
    let fallback = [(
        "DATABASE_FALLBACK_SECRET_ARN",
        installation.owner_arn.as_str(),
    )];
    let get = installation.function("get-flag", &fallback).await;
    for _ in 0..3 {
        assert_eq!(
            get.call(&Event::get("checkout")).await.status,
            200,
            "{}",
            get.log()
        );
    }
    // The statements stay the same until they have been run, except for the salt of the verifiers.
    let statements = installation.migrate().await["sql"]
        .as_str()
        .expect("SQL")
        .to_owned();
    for password in installation.passwords().await {
        assert!(!statements.contains(&password), "{statements}");
        assert!(!get.log().contains(&password));
    }
    admin
        .batch_execute(&statements)
        .await
        .expect("an administrator runs them");
    let answer = installation.migrate().await;
    assert_eq!(answer["databaseRoles"], "ready", "{answer}");
    assert_eq!(answer["secretsWritten"], 0, "{answer}");
    eventually("the running function uses its role", async || {
        assert_eq!(get.call(&Event::get("checkout")).await.status, 200);
        installation
            .server
            .process()
            .log()
            .contains("pennon_flags_read_a: LOG:")
    })
    .await;
    assert_rights(&installation).await;
    // A rotation needs an administrator too, because migrate may not change these logins. The first rotation creates
    // the second login of each role, and the second one changes the first login.
    for login in ["b", "a"] {
        installation.let_a_minute_pass().await;
        let rotate = json!({"rotateDatabaseRoles": true});
        let rotated = installation.migrate_with(rotate).await;
        assert_eq!(rotated["databaseRoles"], "waiting", "{rotated}");
        let passwords = installation.passwords().await;
        installation.let_a_minute_pass().await;
        let answer = installation.migrate().await;
        assert_eq!(answer["databaseRoles"], "waiting", "{answer}");
        assert_eq!(installation.passwords().await, passwords);
        let statements = answer["sql"].as_str().expect("SQL");
        admin.batch_execute(statements).await.expect("they run");
        let answer = installation.migrate().await;
        assert_eq!(answer["databaseRoles"], "ready", "{answer}");
        for role in ROLES {
            let user = installation.connect_as(role).await;
            let row = user.query_one("select current_user::text", &[]).await;
            let name: String = row.expect("a row").get(0);
            assert_eq!(name, format!("pennon_flags_{role}_{login}"));
        }
    }
}

#[tokio::test]
async fn if_a_superuser_runs_the_statements_the_roles_have_their_rights_at_once() {
    let installation = Installation::start("").await;
    let answer = installation.migrate().await;
    let statements = answer["sql"].as_str().expect("SQL");
    let sql = installation.sql().await;
    sql.batch_execute(statements).await.expect("they run");
    assert_rights(&installation).await;
}

#[tokio::test]
async fn after_the_logged_statement_only_migrate_may_create_objects_in_the_schema() {
    let installation = Installation::start("createrole").await;
    let sql = installation.sql().await;
    // As before PostgreSQL 15, where the owner of the database does not own the schema.
    sql.batch_execute(
        "alter schema public owner to pennon; grant create on schema public to public",
    )
    .await
    .expect("an old schema");
    let migrate = installation.start_migrate(&[]).await;
    migrate.invoke(&json!({})).await.expect("migrates");
    let lines = migrate.lines();
    let statements: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["statement"].as_str())
        .collect();
    let expected =
        "grant create on schema public to owner; revoke create on schema public from public";
    assert_eq!(statements, [expected], "{}", migrate.log());
    sql.batch_execute(statements[0]).await.expect("it runs");
    let again = installation.start_migrate(&[]).await;
    let answer = again.invoke(&json!({})).await.expect("migrates");
    assert_eq!(answer["databaseRoles"], "ready", "{answer}");
    assert!(!again.log().contains("revoke create"), "{}", again.log());
    assert_rights(&installation).await;
}

#[tokio::test]
async fn statements_for_a_role_that_another_login_manages_are_returned_until_they_have_been_run() {
    let installation = Installation::start("createrole").await;
    let sql = installation.sql().await;
    // Only a superuser may change this role.
    sql.batch_execute("create role pennon_flags_read_a superuser")
        .await
        .expect("a role");
    for _ in 0..2 {
        let answer = installation.migrate().await;
        assert_eq!(answer["databaseRoles"], "waiting", "{answer}");
        installation.let_a_minute_pass().await;
    }
    let passwords = installation.passwords().await;
    let answer = installation.migrate().await;
    assert_eq!(installation.passwords().await, passwords);
    installation
        .becomes_ready_by_the_statements_of(&answer)
        .await;
}

#[tokio::test]
async fn statements_of_an_earlier_run_do_not_complete_a_later_one() {
    let installation = Installation::start("").await;
    let sql = installation.sql().await;
    let earlier = installation.migrate().await;
    let earlier = earlier["sql"].as_str().expect("SQL");
    // The secret was lost, so the next run creates another password.
    let read = installation.arn("read");
    installation.manager.change(read, "nonsense").await;
    installation.let_a_minute_pass().await;
    let later = installation.migrate().await;
    sql.batch_execute(earlier).await.expect("they run");
    let answer = installation.migrate().await;
    assert_eq!(answer["databaseRoles"], "waiting", "{answer}");
    let later = later["sql"].as_str().expect("SQL");
    assert!(later.contains("pennon_flags_read_a"), "{later}");
    installation
        .becomes_ready_by_the_statements_of(&answer)
        .await;
}

#[tokio::test]
async fn the_name_of_the_schema_may_have_capital_letters() {
    let installation = Installation::start("createrole").await;
    let sql = installation.sql().await;
    sql.batch_execute("create schema \"Flags\" authorization owner")
        .await
        .expect("a schema");
    let url = url_of(&installation.server, &format!("owner:{OWNER_PASSWORD}"));
    let url = format!("{url}&options=-c%20search_path%3D%22Flags%22");
    installation
        .manager
        .change(&installation.owner_arn, &url)
        .await;
    installation.migrate().await;
    sql.batch_execute(
        "grant delete on \"Flags\".pennon_audit to pennon_flags_write;
         revoke select on \"Flags\".feature_flags from pennon_flags_read",
    )
    .await
    .expect("changes");
    let answer = installation.migrate().await;
    assert_eq!(answer["databaseRoles"], "ready", "{answer}");
    let read = installation.connect_as("read").await;
    let selected = read.batch_execute("select from feature_flags").await;
    selected.expect("the role may read");
    let write = installation.connect_as("write").await;
    let denied = write.batch_execute("delete from pennon_audit").await;
    let denied = denied.expect_err("the right was revoked");
    assert_eq!(denied.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test]
async fn a_login_in_the_query_of_the_owners_url_is_not_written_to_the_secrets_of_roles() {
    let installation = Installation::start("createrole").await;
    let url = installation.server.url("flags").replace("pennon@", "");
    let login = format!("user=owner&password={OWNER_PASSWORD}");
    let url = format!("{url}&{login}");
    installation
        .manager
        .change(&installation.owner_arn, &url)
        .await;
    let names_its_own_login = async || {
        for role in ROLES {
            let user = installation.connect_as(role).await;
            let row = user.query_one("select current_user::text", &[]).await;
            let name: String = row.expect("a row").get(0);
            assert!(name.starts_with(&format!("pennon_flags_{role}_")), "{name}");
        }
    };
    installation.migrate().await;
    names_its_own_login().await;
    // An earlier version wrote such a secret.
    let read = installation.arn("read");
    let secret = installation.manager.value(read).await.expect("a value");
    let secret = format!("{secret}&{login}");
    installation.manager.change(read, &secret).await;
    let record =
        "update pennon_role_secrets set digest = encode(sha256(convert_to($1, 'utf8')), 'hex')
        where role = 'read'";
    let sql = installation.sql().await;
    sql.execute(record, &[&secret]).await.expect("a digest");
    installation.let_a_minute_pass().await;
    let answer = installation.migrate().await;
    assert_eq!(answer["secretsWritten"], 1, "{answer}");
    names_its_own_login().await;
}

#[tokio::test]
async fn a_function_whose_role_has_no_login_yet_logs_the_reason_and_uses_a_later_login() {
    let installation = Installation::start("createrole").await;
    let get = installation.function("get-flag", &[]).await;
    let early = get.call(&Event::get("checkout")).await;
    assert_eq!(
        (early.status, early.header("retry-after")),
        (503, Some("1"))
    );
    assert!(get.log().contains("run `migrate`"), "{}", get.log());
    installation.migrate().await;
    eventually("it reads the secret again", async || {
        get.call(&Event::get("checkout")).await.status == 404
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_was_lost_or_is_from_another_server_is_written_again() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let read = installation.arn("read");
    for text in [
        "nonsense",
        "postgres://pennon_flags_read_a:other@127.0.0.1/flags?sslmode=disable",
    ] {
        installation.manager.change(read, text).await;
        installation.let_a_minute_pass().await;
        let answer = installation.migrate().await;
        assert_eq!(answer["secretsWritten"], 1, "{answer}");
        installation.connect_as("read").await;
    }
    // The database was restored on a server without these roles.
    let sql = installation.sql().await;
    sql.batch_execute("drop owned by pennon_flags_count; drop role pennon_flags_count_a; drop role pennon_flags_count")
        .await
        .expect("gone");
    let answer = installation.migrate().await;
    assert_eq!(answer["secretsWritten"], 1, "{answer}");
    installation.connect_as("count").await;
}

#[tokio::test]
async fn the_server_ends_idle_sessions_of_the_roles_unless_a_pooler_keeps_them() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let idle_timeout = async |role: &str| {
        let user = installation.connect_as(role).await;
        let row = user.query_one("show idle_session_timeout", &[]).await;
        row.expect("a setting").get::<_, String>(0)
    };
    for role in ROLES {
        assert_eq!(idle_timeout(role).await, "1min", "{role}");
    }
    for (seconds, expected) in [("0", "0"), ("1", "1s")] {
        let migrate = installation
            .start_migrate(&[("DATABASE_IDLE_SESSION_SECONDS", seconds)])
            .await;
        migrate.invoke(&json!({})).await.expect("migrates");
        assert_eq!(idle_timeout("read").await, expected);
    }
    let user = installation.connect_as("read").await;
    eventually("the session is closed", async || user.is_closed()).await;
    let owner = "select count(*) from pg_db_role_setting join pg_roles on oid = setrole where rolname = 'owner'";
    let row = installation.sql().await.query_one(owner, &[]).await;
    assert_eq!(
        row.expect("settings").get::<_, i64>(0),
        0,
        "the owner's login has a setting"
    );
}

#[tokio::test]
async fn roles_are_created_behind_a_pooler() {
    let database = Database::create_empty().await;
    let pooler = Pooler::start(&database).await;
    let manager = SecretsManager::start().await;
    let owner = manager
        .create("database", &database.url_by(pooler.port()))
        .await;
    let read = manager.create_empty("read").await;
    let environment = [
        ("DATABASE_SECRET_ARN", owner.as_str()),
        ("DATABASE_READ_SECRET_ARN", &read),
        ("DATABASE_IDLE_SESSION_SECONDS", "0"),
    ];
    let runs = join_all((0..2).map(|_| manager.function("migrate", &environment))).await;
    for answer in join_all(runs.iter().map(async |run| run.invoke(&json!({})).await)).await {
        assert_eq!(answer.expect("migrates")["databaseRoles"], "ready");
    }
    let role = format!("pennon_{}_read_a", database.name());
    let url = manager.value(&read).await.expect("a value");
    assert_eq!(user_of(&url), role);
    let client = connect(&database.url()).await.expect("connects");
    client
        .batch_execute(&format!("set role {role}; select from feature_flags"))
        .await
        .expect("the role may read");
}

#[tokio::test]
async fn a_rejected_login_of_database_url_is_tried_again_despite_a_fallback() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let sql = installation.sql().await;
    let add = "insert into feature_flags (flag_key, enabled, rollout_percentage) values ('checkout', true, 50)";
    sql.batch_execute(add).await.expect("a flag");
    let url = url_of(&installation.server, "late:late-password");
    let logins = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_FALLBACK_SECRET_ARN", &installation.owner_arn),
    ];
    let get = installation.manager.function("get-flag", &logins).await;
    // A rejected login costs the server a process, so it is not tried for each request.
    for _ in 0..20 {
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(answer.status, 200, "{answer:?}; {}", get.log());
    }
    let log = installation.server.process().log();
    let rejected = log.matches("late: FATAL:").count();
    assert!((1..20).contains(&rejected), "{rejected}");
    sql.batch_execute("create role late login password 'late-password' in role pennon_flags_read")
        .await
        .expect("the login exists now");
    eventually("the login is used", async || {
        assert_eq!(get.call(&Event::get("checkout")).await.status, 200);
        installation.server.process().log().contains("late: LOG:")
    })
    .await;
}

#[tokio::test]
async fn requests_whose_login_is_rejected_at_the_same_time_all_use_the_new_one() {
    let installation = Installation::start("createrole").await;
    installation.migrate().await;
    let sql = installation.sql().await;
    sql.batch_execute("insert into feature_flags (flag_key) values ('one'), ('other')")
        .await
        .expect("flags");
    let settings = [
        ("AWS_LAMBDA_MAX_CONCURRENCY", "2"),
        ("DATABASE_POOL_SIZE", "2"),
        ("DATABASE_FALLBACK_SECRET_ARN", &installation.owner_arn),
    ];
    let functions = [
        installation.function("update-flag", &settings[..2]).await,
        installation.function("update-flag", &settings).await,
    ];
    installation.let_a_minute_pass().await;
    installation
        .migrate_with(json!({"rotateDatabaseRoles": true}))
        .await;
    sql.batch_execute("alter role pennon_flags_write_a password 'changed'")
        .await
        .expect("the old login ends");
    // The secret is read again at most every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let used_by_owner = || {
        installation
            .server
            .process()
            .log()
            .matches("owner: LOG:")
            .count()
    };
    let before = used_by_owner();
    for update in &functions {
        let changes = ["one", "other"].map(async |key| {
            let body = json!({"rolloutPercentage": 7});
            update.call(&Event::update(key, &body)).await
        });
        for answer in join_all(changes).await {
            assert_eq!(answer.status, 200, "{answer:?}; {}", update.log());
        }
    }
    assert_eq!(used_by_owner(), before, "a request used the fallback");
}

#[tokio::test]
async fn the_fallback_secret_is_read_again_after_a_rotation() {
    let installation = Installation::start("createrole").await;
    let manager = &installation.manager;
    let owner = ("DATABASE_SECRET_ARN", installation.owner_arn.as_str());
    let migrate = manager.function("migrate", &[owner]).await;
    migrate.invoke(&json!({})).await.expect("migrates");
    let sql = installation.sql().await;
    sql.batch_execute(
        "insert into feature_flags (flag_key, enabled, rollout_percentage) values ('checkout', true, 50)",
    )
    .await
    .expect("a flag");
    let fallback = ("DATABASE_FALLBACK_SECRET_ARN", owner.1);
    let get = installation.function("get-flag", &[fallback]).await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    sql.batch_execute(
        "alter role owner password 'rotated'; update feature_flags set rollout_percentage = 7",
    )
    .await
    .expect("a rotation");
    let url = url_of(&installation.server, "owner:rotated");
    manager.change(owner.1, &url).await;
    eventually("the rotated login is used", async || {
        percentage(&get.call(&Event::get("checkout")).await) == 7
    })
    .await;
}

#[tokio::test]
async fn while_no_login_works_secrets_and_logins_are_tried_at_most_every_five_seconds() {
    let installation = Installation::start("createrole").await;
    let manager = &installation.manager;
    let url = url_of(&installation.server, "late:late-password");
    let rejected = manager.create("late", &url).await;
    let logins = [
        ("DATABASE_SECRET_ARN", rejected.as_str()),
        ("DATABASE_FALLBACK_SECRET_ARN", installation.arn("read")),
    ];
    let tries = || {
        installation
            .server
            .process()
            .log()
            .matches("late: FATAL:")
            .count()
    };
    let started = Instant::now();
    let update = manager.function("update-flag", &logins).await;
    eventually("the rejected login is tried again", async || {
        let body = json!({"rolloutPercentage": 7});
        let answer = update.call(&Event::update("checkout", &body)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        tries() > 1
    })
    .await;
    let periods = 1 + usize::try_from(started.elapsed().as_secs() / 5).expect("a number");
    assert!(tries() <= periods, "{}", tries());
    // moto's log has no action names; each call is one POST.
    let reads = manager.log().matches("POST").count() - manager.own_calls();
    assert!(reads <= 2 * periods, "{reads}");
}
