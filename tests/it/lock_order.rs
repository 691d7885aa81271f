//! Requests about a whole environment, and at the same time a change by SQL, as another service makes it. Such a change
//! locks its row first, and then, by a trigger, the environment. A request that locked them in the other order would
//! deadlock with it. Batches of counts that lock their rows in different orders would deadlock with each other. Two
//! requests that create the same flag or environment may both find that it does not exist; the later insertion is then
//! rejected with 409.

use std::time::{SystemTime, UNIX_EPOCH};

use pennon_tests::api::Api;
use pennon_tests::eventually;
use pennon_tests::postgres::connect;
use pennon_tests::response::Response;
use serde_json::{Value, json};
use tokio::join;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::counting::subscription_event;

const ENVIRONMENTS: &str = "/api/admin/environments";
const EXPORT: &str = "/api/admin/environments/production/export";
const IMPORT: &str = "/api/admin/environments/production/import";
const SETTINGS: &str = "/api/admin/environments/production/settings";

const LOCK_CHECKOUT: &str = "select from feature_flags
    where flag_key = 'checkout' and environment = 'production' for no key update";
const LOCK_SETTINGS: &str = "select from pennon_environment_settings
    where environment = 'production' for no key update";
const CHANGE_SETTINGS: &str = "update pennon_environment_settings set updated_at = now()
    where environment = 'production'";

/// A statement that gives `checkout` this description in production.
fn describe(text: &str) -> String {
    format!(
        "update feature_flags set description = '{text}'
         where flag_key = 'checkout' and environment = 'production'"
    )
}

/// A transaction of another service.
struct Other(Client);

impl Other {
    /// Begins with this statement.
    async fn begin(api: &Api, statement: &str) -> Self {
        let client = connect(&api.stack().database.url()).await;
        let client = client.expect("a connection");
        let begin = format!("begin; {statement}");
        client.batch_execute(&begin).await.expect("a lock");
        Self(client)
    }

    /// Whether another session waits for a lock of this transaction.
    async fn blocks_a_request(&self) -> bool {
        self.blocked().await > 0
    }

    /// The number of sessions that wait for this transaction, or for another one that waits for it.
    async fn blocked(&self) -> i64 {
        let waiting = "with recursive waiting (pid) as (
              select pg_backend_pid()
              union
              select locks.pid from pg_locks as locks
              join waiting on waiting.pid = any(pg_blocking_pids(locks.pid))
              where not locks.granted)
            select count(*) - 1 from waiting";
        let row = self.0.query_one(waiting, &[]).await;
        row.expect("an answer").get(0)
    }

    /// Commits after this statement.
    async fn finish(&self, statement: &str) {
        let done = self.0.batch_execute(&format!("{statement}; commit")).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// Sends a request in another task, with `If-Match: *`.
fn send(api: &Api, method: &'static str, path: &str, body: &Value) -> JoinHandle<Response> {
    send_if(api, "*", method, path, body)
}

/// Sends a request in another task, with this tag as `If-Match`.
fn send_if(
    api: &Api,
    tag: &str,
    method: &'static str,
    path: &str,
    body: &Value,
) -> JoinHandle<Response> {
    let (client, path, body) = (api.client(), path.to_owned(), body.clone());
    let tag = tag.to_owned();
    tokio::spawn(async move {
        let headers = [("if-match", tag.as_str())];
        client.send(method, &path, &headers, &body).await
    })
}

async fn create_staging(api: &Api) {
    let staging = json!({"environment": "staging"});
    let created = api.admin("POST", ENVIRONMENTS, &staging).await;
    assert_eq!(created.status, 201, "{created:?}");
    let flag = json!({"key": "checkout", "description": "of staging"});
    let path = "/api/admin/flags?environment=staging";
    assert_eq!(api.admin("POST", path, &flag).await.status, 201);
}

/// The body of a request that copies `checkout` from an environment.
fn copied_from(environment: &str) -> Value {
    json!({"from": environment, "flags": [{"flagKey": "checkout", "ifMatch": "*"}]})
}

#[tokio::test]
async fn a_request_about_an_environment_does_not_deadlock_with_a_change_that_holds_its_row() {
    let api = Api::on_postgres().await;
    create_staging(&api).await;
    let settings = json!({"metadata": {"team": "shop"}});
    let set = api.admin_if("*", "PUT", SETTINGS, &settings).await;
    assert_eq!(set.status, 200, "{set:?}");
    let file = json!({"flags": {"checkout": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "description": "of the file",
    }}});
    let copy = format!("{ENVIRONMENTS}/production/copy");
    let requests = [
        ("GET", EXPORT.to_owned(), Value::Null),
        (
            "POST",
            format!("{IMPORT}?mode=merge&dryRun=true"),
            file.clone(),
        ),
        ("POST", format!("{IMPORT}?mode=merge"), file),
        (
            "POST",
            format!("{copy}?dryRun=true"),
            copied_from("staging"),
        ),
        ("POST", copy, copied_from("staging")),
        (
            "POST",
            format!("{ENVIRONMENTS}/staging/copy"),
            copied_from("production"),
        ),
        (
            "PUT",
            SETTINGS.to_owned(),
            json!({"metadata": {"team": "search"}}),
        ),
    ];
    for (number, (method, path, body)) in requests.iter().enumerate() {
        let text = format!("description {number}");
        for (lock, change) in [
            (LOCK_CHECKOUT, describe(&text).as_str()),
            (LOCK_SETTINGS, CHANGE_SETTINGS),
        ] {
            let other = Other::begin(&api, lock).await;
            let request = send(&api, method, path, body);
            eventually("the request waits, or has its response", async || {
                request.is_finished() || other.blocks_a_request().await
            })
            .await;
            other.finish(change).await;
            let response = request.await.expect("no panic");
            assert_eq!(response.status, 200, "{method} {path}: {response:?}");
            // The request compared its flags with the state that the other transaction committed.
            if lock == LOCK_CHECKOUT && body["from"] != "production" && *method == "POST" {
                let before = &response.json()["changed"][0]["before"];
                assert_eq!(before["description"], text, "{method} {path}: {response:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_export_and_the_source_of_a_copy_contain_a_change_that_was_not_committed_when_they_began()
 {
    let api = Api::on_postgres().await;
    create_staging(&api).await;
    for (method, path, body, place) in [
        (
            "GET",
            EXPORT.to_owned(),
            Value::Null,
            "/flags/checkout/description",
        ),
        (
            "POST",
            format!("{ENVIRONMENTS}/staging/copy?dryRun=true"),
            copied_from("production"),
            "/changed/0/after/description",
        ),
    ] {
        let text = format!("before {path}");
        let other = Other::begin(&api, &describe(&text)).await;
        let request = send(&api, method, &path, &body);
        eventually("the request waits", async || other.blocks_a_request().await).await;
        other.finish("select").await;
        let response = request.await.expect("no panic").json();
        let found = response.pointer(place);
        assert_eq!(found, Some(&json!(text)), "{response}");
    }
}

#[tokio::test]
async fn an_import_that_waits_for_a_flag_includes_flags_that_are_added_meanwhile() {
    let api = Api::on_postgres().await;
    for (key, is_locked) in [("added", false), ("added-and-locked", true)] {
        let change_of_old = Other::begin(&api, LOCK_CHECKOUT).await;
        let import = send(&api, "POST", IMPORT, &json!({"flags": {}}));
        eventually("the import waits for the old flag", async || {
            change_of_old.blocks_a_request().await
        })
        .await;
        api.stack().database.add_flag(key, true, 100).await;
        if is_locked {
            let lock =
                format!("select from feature_flags where flag_key = '{key}' for no key update");
            let change_of_new = Other::begin(&api, &lock).await;
            change_of_old.finish("select").await;
            eventually("the import waits for the new flag", async || {
                change_of_new.blocks_a_request().await
            })
            .await;
            let describe =
                format!("update feature_flags set description = 'new' where flag_key = '{key}'");
            change_of_new.finish(&describe).await;
        } else {
            change_of_old.finish("select").await;
        }
        let response = import.await.expect("no panic");
        assert_eq!(response.status, 200, "{response:?}");
        let archived = response.json()["archived"].clone();
        let archived = archived.as_array().expect("a list");
        let found = archived.iter().find(|it| it["key"] == key);
        let found = found.unwrap_or_else(|| panic!("{response:?}"));
        let description = is_locked.then_some("new");
        assert_eq!(found["before"]["description"].as_str(), description);
    }
}

#[tokio::test]
async fn a_bulk_change_of_overrides_waits_for_a_change_of_one_override_before_it_compares_if_match()
{
    let api = Api::on_postgres().await;
    let path = "/api/admin/flags/checkout/users";
    let users = |names: &[&str]| {
        let users: Vec<Value> = names
            .iter()
            .map(|name| json!({"userId": name, "overrideType": "include"}))
            .collect();
        json!({ "overrides": users })
    };
    let put = api
        .admin_if("*", "PUT", path, &users(&["alice", "bob"]))
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    let lock = "select from feature_flag_user_overrides where user_id = 'bob' for no key update";
    let change = "update feature_flag_user_overrides set reason = 'new' where user_id = 'bob'";
    let tag = api
        .read(path)
        .await
        .header("etag")
        .expect("an ETag")
        .to_owned();
    for (tag, status) in [(tag.as_str(), 412), ("*", 200)] {
        let other = Other::begin(&api, lock).await;
        // The request writes Carol's override, whose trigger locks the environment, before it removes Bob's. So it must
        // lock Bob's override before it writes Carol's.
        let request = send_if(&api, tag, "PUT", path, &users(&["carol"]));
        eventually("the request waits", async || other.blocks_a_request().await).await;
        other.finish(change).await;
        let response = request.await.expect("no panic");
        assert_eq!(response.status, status, "{response:?}");
    }
}

#[tokio::test]
async fn of_two_requests_that_create_the_same_environment_or_flag_one_succeeds() {
    let api = Api::on_postgres().await;
    for (table, path, field, values, created_at) in [
        (
            "pennon_environment_settings",
            ENVIRONMENTS,
            "fractional",
            ["v2", "v3"],
            "/api/admin/environments/new/settings",
        ),
        (
            "feature_flags",
            "/api/admin/flags",
            "description",
            ["one", "other"],
            "/api/admin/flags/new",
        ),
    ] {
        // Both requests find that the name is unused before either can insert its row.
        let other = Other::begin(&api, &format!("lock table {table} in share mode")).await;
        let name = if path == ENVIRONMENTS {
            "environment"
        } else {
            "key"
        };
        let [one, another] =
            values.map(|value| send(&api, "POST", path, &json!({name: "new", field: value})));
        eventually("both wait", async || other.blocked().await == 2).await;
        other.finish("select").await;
        let (one, another) = join!(one, another);
        let mut responses = [one.expect("no panic"), another.expect("no panic")];
        responses.sort_by_key(|response| response.status);
        let [created, conflict] = &responses;
        assert_eq!(
            (created.status, conflict.status),
            (201, 409),
            "{responses:?}"
        );
        assert!(
            conflict.body.contains("'new' already exists"),
            "{conflict:?}"
        );
        let read = api.read(created_at).await.json();
        assert_eq!(read[field], created.json()[field], "{read}");
    }
}

#[tokio::test]
async fn batches_lock_the_counts_of_days_by_flag_and_then_the_counts_of_hours() {
    let api = Api::on_postgres().await;
    let count = api.stack().function("count-evaluations").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_millis();
    let batch = |id: &str, flag_on_second: &str| {
        let days = json!({
            "2026-11-21": {"a": {"on": 1}, "b": {"on": 1}},
            "2026-11-22": {"a": {"on": 1}, (flag_on_second): {"on": 1}},
        });
        let message = json!({"evaluations": {"production": days}}).to_string();
        let line = json!({"id": id, "timestamp": now, "message": message});
        subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": [line]}))
    };
    let first = count.invoke(&batch("first", "b")).await;
    assert_eq!(first.expect("counted")["evaluations"], 4);
    let of_day = |flag: &str, day: u8| {
        format!(
            "update pennon_evaluation_counts set count = count
             where flag_key = '{flag}' and day = '2026-11-{day}'"
        )
    };
    let of_hour = |flag: &str| {
        format!("update pennon_evaluation_hours set count = count where flag_key = '{flag}'")
    };
    // A point at which two batches meet, the row that the other batch has locked then, and the row that it locks next.
    for (meeting_point, lock, next) in [
        ("between days", of_day("a", 22), of_day("b", 21)),
        ("before hours", of_day("b", 21), of_hour("a")),
        ("between hours", of_hour("a"), of_hour("b")),
    ] {
        // PostgreSQL rejects a batch with NUL before it locks a row. The batch is then added in parts, which must lock
        // rows in the same order. Only the count with NUL is lost.
        for (flag, added) in [("b", 4), ("b\0", 3)] {
            let other = Other::begin(&api, &lock).await;
            let event = batch(&format!("{meeting_point}, {added} counts"), flag);
            let (outcome, ()) = join!(count.invoke(&event), async {
                eventually("the batch waits", async || other.blocks_a_request().await).await;
                other.finish(&next).await;
            });
            let outcome =
                outcome.unwrap_or_else(|error| panic!("{meeting_point}, {added}: {error}"));
            assert_eq!(outcome["evaluations"], added, "{meeting_point}: {outcome}");
        }
    }
    let sums = "select (select sum(count) from pennon_evaluation_counts)::bigint,
                       (select sum(count) from pennon_evaluation_hours)::bigint";
    let row = api
        .stack()
        .database
        .sql()
        .query_one(sums, &[])
        .await
        .expect("sums");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (25, 25));
}
