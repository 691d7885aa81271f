//! The evaluation defaults are chosen once per installation, and an upgrade never changes them.

use std::collections::BTreeMap;

use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::lambda::{Function, MAC_KEY};
use pennon_tests::local::Local;
use pennon_tests::postgres::Database;
use pennon_tests::process::new_folder;
use pennon_tests::redis::{KEY, Redis};
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const OLD_TABLES: &str = include_str!("old_tables.sql");

/// The first four migrations, which earlier versions applied.
const STEPS: [&str; 4] = [
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0001_tables.sql"),
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0002_revisions.sql"),
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0003_management.sql"),
    include_str!("../../crates/pennon-core/src/store/postgres/migrations/0004_counting.sql"),
];

/// Users and their buckets, recorded from an existing service.
const RECORDED: [(&str, i32); 20] = [
    ("user-123", 35),
    ("user-456", 15),
    ("user-0", 73),
    ("user-1", 52),
    ("alice", 1),
    ("Alice", 30),
    ("bob", 12),
    ("a", 10),
    ("ä", 99),
    ("😀", 88),
    (" user-123", 17),
    ("00000000-0000-4000-8000-000000000000", 96),
    ("user-18", 0),
    ("user-20", 4),
    ("user-37", 5),
    ("user-113", 24),
    ("user-76", 25),
    ("user-8", 49),
    ("user-51", 50),
    ("user-118", 99),
];

/// The existing service's formula, computed by PostgreSQL.
const BUCKET_QUERY: &str = "
    select ('x' || substr(encode(sha256(convert_to($1, 'utf8')), 'hex'), 1, 8))::bit(32)::bigint % 100";

async fn run(database: &Database, sql: &str) {
    let done = database.sql().batch_execute(sql).await;
    done.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// Applies the first migrations, as an earlier version would have.
async fn migrate_as_before(database: &Database, steps: usize) {
    let text = STEPS[..steps].join(";\n");
    let done: Vec<String> = (1..=steps).map(|step| format!("({step}, 'x')")).collect();
    run(
        database,
        &format!(
            "begin; {text};
             create table pennon_migrations (
               step integer primary key, name text not null,
               applied_at timestamptz not null default now()
             );
             insert into pennon_migrations (step, name) values {};
             commit",
            done.join(", ")
        ),
    )
    .await;
}

async fn migrate_with(database: &Database, event: &Value) -> Result<Value, Value> {
    let function = Function::start("migrate", &[("DATABASE_URL", &database.url())]).await;
    function.invoke(event).await
}

/// Migrates, and returns the chosen defaults.
async fn chosen_defaults(database: &Database, event: &Value) -> Result<String, String> {
    match migrate_with(database, event).await {
        Ok(done) => Ok(done["evaluationDefaults"]
            .as_str()
            .expect("a text")
            .to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn list(database: &Database) -> Function {
    Function::start("list-flags", &[("DATABASE_URL", &database.url())]).await
}

/// Starts `list-flags` with a cache. Without one, every call would connect to the database.
async fn cached_list(database: &Database, redis: &Redis) -> Function {
    let (database, redis) = (database.url(), redis.url());
    Function::start(
        "list-flags",
        &[("DATABASE_URL", &database), ("REDIS_URL", &redis)],
    )
    .await
}

/// The values of every flag for 300 users and an anonymous caller. Deletes the cache first.
async fn answers(list: &Function, redis: &Redis) -> BTreeMap<String, Value> {
    redis.command(&["FLUSHALL"]);
    let mut all = BTreeMap::new();
    for number in 0..300 {
        let user = format!("user-{number}");
        let answer = list.call(&Event::list().user(&user, "[]")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        all.insert(user, answer.json());
    }
    let anonymous = list.call(&Event::list().anonymous()).await;
    all.insert(String::new(), anonymous.json());
    all
}

#[tokio::test]
async fn migrate_chooses_the_defaults_by_the_existing_tables_and_reports_them() {
    let no_choice = json!({});
    for (name, prepare, expected) in [
        ("nothing", "", "new"),
        (
            "tables of something else",
            "create table customers (id int)",
            "new",
        ),
        ("the old tables", OLD_TABLES, "existing"),
        ("the old tables, empty", "EMPTY", "existing"),
        (
            "one of the old tables",
            "create table feature_flag_schedules (id uuid primary key, flag_id uuid,
               scheduled_at timestamptz not null, status text not null default 'pending',
               updates jsonb not null, applied_at timestamptz, error_message text,
               retry_count integer not null default 0, max_retries integer not null default 3,
               next_retry_at timestamptz, last_error text, created_by text, cancelled_by text,
               cancelled_at timestamptz, created_at timestamptz default now())",
            "existing",
        ),
    ] {
        let database = Database::create_empty().await;
        match prepare {
            "EMPTY" => {
                run(&database, OLD_TABLES).await;
                run(&database, "truncate feature_flags cascade").await;
            }
            sql => run(&database, sql).await,
        }
        assert_eq!(
            chosen_defaults(&database, &no_choice).await.as_deref(),
            Ok(expected),
            "{name}"
        );
        database.add_flag("a", true, 50).await;
        assert_eq!(
            chosen_defaults(&database, &no_choice).await.as_deref(),
            Ok(expected),
            "second run, {name}"
        );
        let anonymous = list(&database).await.call(&Event::list()).await;
        assert_eq!(anonymous.json()["a"], expected == "existing", "{name}");
    }
    for steps in [2, 4] {
        let database = Database::create_empty().await;
        migrate_as_before(&database, steps).await;
        assert_eq!(
            chosen_defaults(&database, &no_choice).await.as_deref(),
            Ok("existing"),
            "{steps} steps"
        );
    }
}

#[tokio::test]
async fn an_operator_can_choose_the_defaults_and_change_them_only_while_there_are_no_flags() {
    let (existing, new) = (
        json!({"evaluationDefaults": "existing"}),
        json!({"evaluationDefaults": "new"}),
    );
    let database = Database::create_empty().await;
    assert_eq!(
        chosen_defaults(&database, &existing).await.as_deref(),
        Ok("existing")
    );
    assert_eq!(
        chosen_defaults(&database, &json!({})).await.as_deref(),
        Ok("existing"),
        "a run without a choice changed the defaults"
    );
    assert_eq!(
        chosen_defaults(&database, &new).await.as_deref(),
        Ok("new"),
        "the defaults could not be changed although there are no flags"
    );
    assert_eq!(
        chosen_defaults(&database, &json!({})).await.as_deref(),
        Ok("new"),
        "a run without a choice changed the defaults"
    );
    database.add_flag("a", true, 50).await;
    let refused = chosen_defaults(&database, &existing)
        .await
        .expect_err("a flag depends on the defaults");
    assert!(
        refused.contains("'new'") && refused.contains("anonymousRollout"),
        "{refused}"
    );
    assert_eq!(
        chosen_defaults(&database, &new).await.as_deref(),
        Ok("new"),
        "the value in effect was rejected"
    );
    run(
        &database,
        "update feature_flags set archived_at = now(), enabled = false",
    )
    .await;
    assert!(
        chosen_defaults(&database, &existing).await.is_err(),
        "the defaults were changed although an archived flag may be restored"
    );

    let database = Database::create_empty().await;
    run(&database, OLD_TABLES).await;
    assert_eq!(
        chosen_defaults(&database, &new).await.as_deref(),
        Ok("new"),
        "the choice before the first migration had no effect"
    );
    assert!(
        chosen_defaults(&database, &existing).await.is_err(),
        "the defaults were changed although the flags of the old tables depend on them"
    );
}

#[tokio::test]
async fn an_invalid_event_decides_nothing() {
    let database = Database::create_empty().await;
    for event in [
        json!({"evaluationDefaults": "old"}),
        json!({"evaluationDefaults": true}),
        json!({"evaluationDefaults": null}),
        json!({"evaluationdefaults": "existing"}),
        json!({"evaluationDefaults": "new", "more": 1}),
        json!("existing"),
        json!(["new"]),
    ] {
        let refused = chosen_defaults(&database, &event)
            .await
            .expect_err("a mistake");
        assert!(
            refused.contains("event") || refused.contains("must be"),
            "{refused}"
        );
    }
    let tables = "select count(*) from pg_class where relname like 'pennon%'";
    let row = database.sql().query_one(tables, &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn concurrent_migrations_choose_the_same_defaults() {
    let database = Database::create_empty().await;
    let event = json!({});
    let all = tokio::join!(
        chosen_defaults(&database, &event),
        chosen_defaults(&database, &event),
        chosen_defaults(&database, &event)
    );
    assert_eq!(
        all,
        (
            Ok("new".to_owned()),
            Ok("new".to_owned()),
            Ok("new".to_owned())
        )
    );
}

#[tokio::test]
async fn an_upgrade_changes_no_result_of_three_hundred_users() {
    const FLAGS: &str = "
        insert into feature_flags (flag_key, enabled, rollout_percentage)
        select 'at-' || percent, true, percent from unnest(array[0, 1, 13, 50, 87, 99, 100]) as percent";
    for steps in [0, 2, 4] {
        let database = Database::create_empty().await;
        run(&database, OLD_TABLES).await;
        run(&database, FLAGS).await;
        if steps > 0 {
            migrate_as_before(&database, steps).await;
        }
        if steps == 4 {
            run(
                &database,
                "insert into feature_flags (flag_key, enabled, rollout_percentage, salt)
                values ('salted', true, 50, 'pepper')",
            )
            .await;
        }
        let redis = Redis::start();
        let old = cached_list(&database, &redis).await;
        // Functions cannot read tables without revisions, which the migrations add.
        let before = if steps > 0 {
            Some(answers(&old, &redis).await)
        } else {
            None
        };
        assert_eq!(
            chosen_defaults(&database, &json!({})).await.as_deref(),
            Ok("existing")
        );
        let after = answers(&old, &redis).await;
        let fresh = cached_list(&database, &redis).await;
        assert_eq!(answers(&fresh, &redis).await, after, "{steps}");
        if let Some(before) = before {
            assert_eq!(before, after, "{steps}");
        }
        for (user, flags) in &after {
            if user.is_empty() {
                assert_eq!(flags["at-1"], true);
                assert_eq!(flags["at-0"], false);
                continue;
            }
            let row = database
                .sql()
                .query_one(BUCKET_QUERY, &[user])
                .await
                .expect("a bucket");
            let bucket: i64 = row.get(0);
            for percent in [0, 1, 13, 50, 87, 99, 100] {
                let got = flags[format!("at-{percent}")] == true;
                assert_eq!(got, bucket < percent, "{user} at {percent}");
            }
        }
    }
}

#[tokio::test]
async fn existing_defaults_keep_the_results_of_the_recorded_users() {
    let stack = Stack::start().await;
    let mut file = serde_json::Map::new();
    for (_, bucket) in RECORDED {
        for percent in [bucket, bucket + 1] {
            let key = format!("at-{percent}");
            if file.contains_key(&key) {
                continue;
            }
            stack.database.add_flag(&key, true, percent).await;
            file.insert(key, json!({"enabled": true, "rolloutPercentage": percent}));
        }
    }
    let folder = new_folder("recorded");
    let file = json!({ "production": file }).to_string();
    std::fs::write(folder.join("flags.json"), file).expect("a file");
    let local = Local::start_in(folder, &[]).await;
    let list = stack.function("list-flags").await;
    let check = |answer: &Response, user: &str, bucket: i32| {
        let flags = answer.json();
        assert_eq!(flags[format!("at-{bucket}")], false, "{user}");
        assert_eq!(flags[format!("at-{}", bucket + 1)], true, "{user}");
    };
    for (user, bucket) in RECORDED {
        let answer = list.call(&Event::list().user(user, "[]")).await;
        check(&answer, user, bucket);
        let set = percent_encoding::NON_ALPHANUMERIC;
        let encoded = percent_encoding::utf8_percent_encode(user, set);
        let path = format!("/api/config/flags?userId={encoded}");
        check(&local.get(&path).await, user, bucket);
    }
    assert_eq!(list.call(&Event::list()).await.json()["at-1"], true);
    assert_eq!(local.get("/api/config/flags").await.json()["at-1"], true);
}

#[tokio::test]
async fn a_new_installation_turns_partial_rollouts_off_for_anonymous_callers_and_each_flag_orders_users_differently()
 {
    let database = Database::create_empty().await;
    assert_eq!(
        chosen_defaults(&database, &json!({})).await.as_deref(),
        Ok("new")
    );
    for (key, percent) in [("f", 30), ("g", 50), ("h", 50), ("full", 100), ("none", 0)] {
        database.add_flag(key, true, percent).await;
    }
    let list = list(&database).await;
    let anonymous = list.call(&Event::list()).await.json();
    let expected = json!({"f": false, "g": false, "h": false, "full": true, "none": false});
    assert_eq!(anonymous, expected);
    // flagd's hash of "f" and "alice" is in bucket 30.
    let alice = Event::list().user("alice", "[]");
    assert_eq!(list.call(&alice).await.json()["f"], false);
    run(
        &database,
        "update feature_flags set rollout_percentage = 31 where flag_key = 'f'",
    )
    .await;
    assert_eq!(list.call(&alice).await.json()["f"], true);
    let redis = Redis::start();
    let all = answers(&cached_list(&database, &redis).await, &redis).await;
    let gets = |key: &str| {
        all.values()
            .map(|flags| flags[key] == true)
            .collect::<Vec<_>>()
    };
    assert_ne!(
        gets("g"),
        gets("h"),
        "two flags order the users in the same way"
    );

    let key = format!("pennon_server_production_{}", "k".repeat(43));
    database.add_key(&key).await;
    let url = database.url();
    let evaluate = Function::start("evaluate-flag", &[("DATABASE_URL", &url)]).await;
    let event = Event::evaluate("g", &json!({})).api_key(&key);
    let answer = evaluate.call(&event).await;
    assert_eq!(
        answer.json()["errorCode"],
        "TARGETING_KEY_MISSING",
        "{answer:?}"
    );
}

const SETTINGS: &str = "/api/admin/environments/production/settings";

/// The value of `checkout` for this user; an empty id is an anonymous caller.
async fn checkout(api: &Api, user: &str) -> Value {
    let path = format!("/api/config/flags?userId={user}");
    api.get(&path).await.json()["checkout"].clone()
}

/// Whether each of these users gets the flag.
async fn checkout_of_each(api: &Api, users: &[String]) -> Vec<bool> {
    let mut values = Vec::new();
    for user in users {
        values.push(checkout(api, user).await == true);
    }
    values
}

/// The numbers of users whose value became `true`, and of those whose value became `false`.
fn moved(before: &[bool], after: &[bool]) -> (usize, usize) {
    let count = |value| {
        let pairs = before.iter().zip(after);
        pairs
            .filter(|(old, new)| old != new && **new == value)
            .count()
    };
    (count(true), count(false))
}

#[tokio::test]
async fn a_dry_run_of_settings_counts_the_users_for_whom_a_flag_changes() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let override_of_user_0 = json!({"userId": "user-0", "overrideType": "include"});
        let set = api
            .admin(
                "POST",
                "/api/admin/flags/checkout/users",
                &override_of_user_0,
            )
            .await;
        assert_eq!(set.status, 201, "{set:?} on {on}");
        let typed = json!({"key": "split", "enabled": true, "definition": {
            "variants": {"on": true, "off": false}, "defaultVariant": "off",
            "targeting": {"fractional": [["on", 50], ["off", 50]]},
        }});
        let made = api.admin("POST", "/api/admin/flags", &typed).await;
        assert_eq!(made.status, 201, "{made:?} on {on}");

        let users: Vec<String> = (0..40).map(|number| format!("user-{number}")).collect();
        let of_users = async || checkout_of_each(&api, &users).await;
        let before = of_users().await;
        let settings = json!({"bucketing": "fractional", "fractional": "v2"});
        let mut wanted = settings.clone();
        wanted["users"] = json!(users);
        let dry = format!("{SETTINGS}?dryRun=true");
        let tag = api
            .read(SETTINGS)
            .await
            .header("etag")
            .expect("a tag")
            .to_owned();
        assert_eq!(api.admin("PUT", &dry, &wanted).await.status, 428);
        let found = api.admin_if(&tag, "PUT", &dry, &wanted).await;
        assert_eq!(found.status, 200, "{found:?} on {on}");
        assert_eq!(api.read(SETTINGS).await.header("etag"), Some(tag.as_str()));
        assert_eq!(of_users().await, before, "a dry run had effects on {on}");

        // Without `dryRun` the request changes settings, and takes no users.
        assert_eq!(
            api.admin_if(&tag, "PUT", SETTINGS, &wanted).await.status,
            400
        );
        let done = api.admin_if(&tag, "PUT", SETTINGS, &settings).await;
        assert_eq!(done.status, 200, "{done:?} on {on}");
        let after = of_users().await;
        let (on_count, off_count) = moved(&before, &after);
        assert!(on_count > 0 && off_count > 0, "{before:?} {after:?}");
        let expected = json!({
            "environment": "production", "dryRun": true, "users": 40,
            "flags": [{"flagKey": "checkout", "on": on_count, "off": off_count}],
        });
        assert_eq!(found.json(), expected, "on {on}");

        let stale = api.admin_if(&tag, "PUT", &dry, &wanted).await;
        assert_eq!(stale.status, 412, "{stale:?} on {on}");
        let unchanged = api.admin_if("*", "PUT", &dry, &wanted).await.json();
        assert_eq!(unchanged["flags"], json!([]), "on {on}");
        for users in [
            json!("alice"),
            json!([""]),
            json!([1]),
            json!(vec!["a"; 10_001]),
        ] {
            wanted["users"] = users;
            let answer = api.admin_if("*", "PUT", &dry, &wanted).await;
            assert_eq!(answer.status, 400, "{answer:?} on {on}");
            assert!(answer.json()["details"]["fieldErrors"]["users"].is_array());
        }
    }
}

#[tokio::test]
async fn settings_of_an_environment_override_the_defaults() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let shown = |answer: &Response| {
            assert!(matches!(answer.status, 200 | 201), "{on}: {answer:?}");
            let body = answer.json();
            json!([
                body["anonymousRollout"],
                body["bucketing"],
                body["inherited"]
            ])
        };
        let inherited = json!([true, "sha256", ["anonymousRollout", "bucketing"]]);
        assert_eq!(shown(&api.read(SETTINGS).await), inherited, "{on}");
        assert_eq!(checkout(&api, "").await, true, "{on}");
        // `user-8` is in bucket 49 by SHA-256.
        let body = json!({"rolloutPercentage": 40});
        api.admin("PATCH", "/api/admin/flags/checkout", &body).await;
        let sha256 = checkout(&api, "user-8").await;
        assert_eq!(sha256, false, "{on}");

        for bad in [
            json!({"anonymousRollout": "false"}),
            json!({"bucketing": "md5"}),
            json!({"bucketing": 1}),
            json!({"inherited": []}),
        ] {
            let refused = api.admin_if("*", "PUT", SETTINGS, &bad).await;
            assert_eq!(refused.status, 400, "{on}: {bad} {refused:?}");
        }
        let body = json!({"anonymousRollout": false});
        let set = api.admin_if("*", "PUT", SETTINGS, &body).await;
        assert_eq!(shown(&set), json!([false, "sha256", ["bucketing"]]), "{on}");
        assert_eq!(checkout(&api, "").await, false, "{on}");
        assert_eq!(checkout(&api, "user-8").await, sha256, "{on}");
        let body = json!({"anonymousRollout": false, "bucketing": "fractional"});
        let set = api.admin_if("*", "PUT", SETTINGS, &body).await;
        let own = json!([false, "fractional", []]);
        assert_eq!(shown(&set), own, "{on}");
        assert_eq!(shown(&api.read(SETTINGS).await), own, "{on}");
        let environments = api.read("/api/admin/environments").await.json();
        let listed = &environments["environments"][0];
        assert_eq!(
            json!([
                listed["anonymousRollout"],
                listed["bucketing"],
                listed["inherited"]
            ]),
            own,
            "{on}"
        );
        let mut enabled = 0;
        for number in 0..40 {
            let user = format!("user-{number}");
            let got = checkout(&api, &user).await;
            assert!(got.is_boolean(), "{on}");
            enabled += usize::from(got == true);
        }
        assert!((4..30).contains(&enabled), "{on}: {enabled} of 40 at 40 %");

        // An export holds the settings of the environment itself, and an import applies them.
        let export = "/api/admin/environments/production/export";
        let file = api.read(export).await.json();
        assert_eq!(file["metadata"]["pennon.anonymousRollout"], false, "{on}");
        assert_eq!(file["metadata"]["pennon.bucketing"], "fractional", "{on}");
        let body = json!({"environment": "copy"});
        let made = api.admin("POST", "/api/admin/environments", &body).await;
        assert_eq!(shown(&made), inherited, "{on}");
        let import = "/api/admin/environments/copy/import";
        let done = api.admin_if("*", "POST", import, &file).await;
        assert_eq!(done.status, 200, "{on}: {done:?}");
        let copy = "/api/admin/environments/copy/settings";
        assert_eq!(shown(&api.read(copy).await), own, "{on}");
        let path = "/api/config/flags?environment=copy&userId=";
        assert_eq!(api.get(path).await.json()["checkout"], false, "{on}");

        let set = api
            .admin_if("*", "PUT", SETTINGS, &json!({"bucketing": null}))
            .await;
        assert_eq!(shown(&set), inherited, "{on}");
        assert_eq!(checkout(&api, "").await, true, "{on}");
        assert_eq!(checkout(&api, "user-8").await, sha256, "{on}");
    }
}

/// Each part prefixed with its length: the input of an entry's hash and MAC.
fn framed(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Replaces the defaults in production's entry and signs the entry, as another version would fill it.
fn fill_with_defaults(stack: &Stack, defaults: Option<&str>) {
    fill_with(stack, |fields| {
        let mut common: Value = serde_json::from_str(&fields["__env"]).expect("JSON");
        let common = common.as_object_mut().expect("an object");
        assert!(common.remove("defaults").is_some());
        if let Some(defaults) = defaults {
            common.insert("defaults".to_owned(), json!(defaults));
        }
        fields.insert("__env".to_owned(), json!(common).to_string());
    });
}

/// Changes fields of production's entry and signs the entry, as another version would fill it.
fn fill_with(stack: &Stack, change: impl FnOnce(&mut BTreeMap<String, String>)) {
    let mut fields: BTreeMap<String, String> = stack.redis.fields().into_iter().collect();
    change(&mut fields);
    let header = ["__rev", "__inst", "__exp", "__sum", "__mac"];
    let content: Vec<&str> = fields
        .iter()
        .filter(|(name, _)| !header.contains(&name.as_str()))
        .flat_map(|(name, value)| [name.as_str(), value.as_str()])
        .collect();
    let sum = hex(&Sha256::digest(framed(&content)));
    let [revision, installation, expiry] = ["__rev", "__inst", "__exp"].map(|name| &*fields[name]);
    let message = framed(&[
        "pennon cache entry 1",
        installation,
        "production",
        revision,
        expiry,
        &sum,
    ]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, MAC_KEY.as_bytes());
    let mac = hex(hmac::sign(&key, &message).as_ref());
    fields.extend([("__sum".to_owned(), sum), ("__mac".to_owned(), mac)]);
    stack.redis.command(&["DEL", KEY]);
    let fields = fields
        .iter()
        .flat_map(|(name, value)| [name.as_str(), value]);
    let command: Vec<&str> = ["HSET", KEY].into_iter().chain(fields).collect();
    stack.redis.command(&command);
    stack.redis.command(&["PEXPIRE", KEY, "300000"]);
}

#[tokio::test]
async fn an_entry_of_a_version_without_the_bucketing_of_flags_is_filled_again() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    let values = async |list: &Function| {
        let mut values = Vec::new();
        for number in 0..20 {
            let event = Event::list().user(&format!("user-{number}"), "[]");
            values.push(list.call(&event).await.json()["checkout"].clone());
        }
        values
    };
    let sha256 = values(&list).await;
    let update = stack.function("update-flag").await;
    let body = r#"{"bucketing":"fractional"}"#;
    let event = Event::admin("PATCH", "/api/admin/flags/checkout", body).header("if-match", "*");
    let changed = update.call(&event).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let fractional = values(&list).await;
    assert_ne!(sha256, fractional);
    // The earlier version does not read the column `bucketing`, so its entries do not contain it.
    fill_with(&stack, |fields| {
        assert!(fields.remove("__fmt").is_some());
        let flag: Value = serde_json::from_str(&fields["checkout"]).expect("JSON");
        let mut flag = flag.as_object().expect("an object").clone();
        assert!(flag.shift_remove("bucketing").is_some());
        fields.insert("checkout".to_owned(), json!(flag).to_string());
        fields.remove("__idx");
        fields.remove("__imac");
    });
    for source in ["database", "redis"] {
        let other = stack.function("list-flags").await;
        assert_eq!(other.call(&Event::list()).await.source(), source);
        assert_eq!(values(&other).await, fractional);
        assert!(!other.log().contains("forged_entry"), "{}", other.log());
    }
}

const CHECKOUT: &str = "/api/admin/flags/checkout";

/// The bucketing of `checkout`: its own, in the list of all flags, and in an explanation.
async fn bucketings(api: &Api) -> Value {
    let flag = api.read(CHECKOUT).await.json();
    let list = api
        .read("/api/admin/environments/production/flags")
        .await
        .json();
    let all = list["flags"].as_array().expect("a list").clone();
    let listed = all
        .into_iter()
        .find(|it| it["key"] == "checkout")
        .expect("listed");
    let context = json!({"context": {"targetingKey": "user-1"}});
    let explained = api
        .admin("POST", &format!("{CHECKOUT}/explain"), &context)
        .await;
    let explained = explained.json();
    let steps = explained["path"].as_array().expect("a path").iter();
    let step = steps
        .clone()
        .find(|step| step["step"] == "bucket")
        .expect("a bucket");
    json!([flag["bucketing"], listed["bucketing"], step["bucketing"]])
}

#[tokio::test]
async fn a_dry_run_counts_the_users_whose_value_changes_with_the_bucketing_of_a_flag() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let override_of_user_0 = json!({"userId": "user-0", "overrideType": "include"});
        let set = api
            .admin("POST", &format!("{CHECKOUT}/users"), &override_of_user_0)
            .await;
        assert_eq!(set.status, 201, "{set:?} on {on}");
        let users: Vec<String> = (0..40).map(|number| format!("user-{number}")).collect();
        let of_users = async || checkout_of_each(&api, &users).await;
        assert_eq!(
            bucketings(&api).await,
            json!([null, "sha256", "sha256"]),
            "on {on}"
        );

        let before = of_users().await;
        let change = json!({"bucketing": "fractional"});
        let mut tried = change.clone();
        tried["users"] = json!(users);
        let dry = format!("{CHECKOUT}?dryRun=true");
        let tag = api
            .read(CHECKOUT)
            .await
            .header("etag")
            .expect("a tag")
            .to_owned();
        for (path, body) in [(&dry, &tried), (&CHECKOUT.to_owned(), &change)] {
            assert_eq!(api.admin("PATCH", path, body).await.status, 428, "on {on}");
        }
        let found = api.admin_if(&tag, "PATCH", &dry, &tried).await;
        assert_eq!(found.status, 200, "{found:?} on {on}");
        assert_eq!(api.read(CHECKOUT).await.header("etag"), Some(tag.as_str()));
        assert_eq!(of_users().await, before, "a dry run had effects on {on}");

        let done = api.admin_if(&tag, "PATCH", CHECKOUT, &change).await;
        assert_eq!(done.status, 200, "{done:?} on {on}");
        let after = of_users().await;
        let (on_count, off_count) = moved(&before, &after);
        assert!(on_count > 0 && off_count > 0, "{before:?} {after:?}");
        let expected = json!({
            "environment": "production", "flagKey": "checkout", "dryRun": true, "users": 40,
            "on": on_count, "off": off_count,
        });
        assert_eq!(found.json(), expected, "on {on}");
        let own = json!(["fractional", "fractional", "fractional"]);
        assert_eq!(bucketings(&api).await, own, "on {on}");
        let stale = api.admin_if(&tag, "PATCH", &dry, &tried).await;
        assert_eq!(stale.status, 412, "{stale:?} on {on}");

        // While the flag has a bucketing of its own, that of its environment has no effect on it.
        let body = json!({"bucketing": "fractional", "users": users});
        let settings = format!("{SETTINGS}?dryRun=true");
        let counted = api.admin_if("*", "PUT", &settings, &body).await.json();
        assert_eq!(counted["flags"], json!([]), "on {on}");
        let back = api
            .admin_if("*", "PATCH", CHECKOUT, &json!({"bucketing": null}))
            .await;
        assert_eq!(back.status, 200, "{back:?} on {on}");
        assert_eq!(of_users().await, before, "on {on}");
        let counted = api.admin_if("*", "PUT", &settings, &body).await.json();
        let row = json!([{"flagKey": "checkout", "on": on_count, "off": off_count}]);
        assert_eq!(counted["flags"], row, "on {on}");

        for (body, field) in [
            (json!({"bucketing": "md5"}), "bucketing"),
            (json!({"bucketing": 1}), "bucketing"),
            (json!({"bucketing": "sha256", "users": "alice"}), "users"),
            (json!({"bucketing": "sha256", "users": [""]}), "users"),
            (
                json!({"bucketing": "sha256", "users": vec!["a"; 10_001]}),
                "users",
            ),
            (
                json!({"definition": {"variants": {"a": 1}}, "users": []}),
                "dryRun",
            ),
        ] {
            let answer = api.admin_if("*", "PATCH", &dry, &body).await;
            assert_eq!(answer.status, 400, "{answer:?} on {on}");
            assert!(
                answer.json()["details"]["fieldErrors"][field].is_array(),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_entry_without_the_defaults_is_filled_again() {
    let stack = Stack::start().await;
    let change = "update pennon_installation set evaluation_defaults = 'new'";
    run(&stack.database, change).await;
    let list = stack.function("list-flags").await;
    assert_eq!(list.call(&Event::list()).await.json()["checkout"], false);
    // The defaults of an authentic entry are used.
    fill_with_defaults(&stack, Some("existing"));
    let other = stack.function("list-flags").await;
    let answer = other.call(&Event::list()).await;
    assert_eq!(answer.source(), "redis");
    assert_eq!(answer.json()["checkout"], true);
    // A version without this feature fills entries without defaults.
    fill_with_defaults(&stack, None);
    let other = stack.function("list-flags").await;
    let answer = other.call(&Event::list()).await;
    assert_eq!(answer.source(), "database");
    assert_eq!(answer.json()["checkout"], false);
    assert!(!other.log().contains("forged_entry"), "{}", other.log());
}
