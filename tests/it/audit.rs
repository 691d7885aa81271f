//! The audit: an entry in the transaction of each change, and reverting a flag to the state in an entry.

use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const CHECKOUT: &str = "/api/admin/flags/checkout";
const AUDIT: &str = "/api/admin/flags/checkout/audit";

/// Reads the entries of an audit, newest first.
async fn read_audit(api: &Api, path: &str) -> Vec<Value> {
    let answer = api.read(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["entries"].as_array().expect("a list").clone()
}

async fn audit_rows(stack: &Stack) -> i64 {
    let row = stack
        .database
        .sql()
        .query_one("select count(*) from pennon_audit", &[])
        .await
        .expect("a count");
    row.get(0)
}

#[tokio::test]
async fn each_change_has_an_entry_and_that_of_an_update_has_actor_time_and_both_states() {
    for api in Api::of_both_kinds().await {
        assert!(
            read_audit(&api, AUDIT).await.is_empty(),
            "an unchanged flag has an entry"
        );
        api.admin(
            "PATCH",
            CHECKOUT,
            &json!({"rolloutPercentage": 60, "description": "why"}),
        )
        .await;
        let user = json!({"userId": "alice", "overrideType": "exclude", "reason": "r"});
        api.admin("POST", &format!("{CHECKOUT}/users"), &user).await;
        api.admin("DELETE", &format!("{CHECKOUT}/users/alice"), &Value::Null)
            .await;
        api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
        api.admin_if("*", "POST", &format!("{CHECKOUT}/restore"), &Value::Null)
            .await;
        api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
        api.admin_if(
            "*",
            "DELETE",
            &format!("{CHECKOUT}?permanently=true"),
            &Value::Null,
        )
        .await;
        api.admin("POST", "/api/admin/flags", &json!({"key": "checkout"}))
            .await;

        let entries = read_audit(&api, AUDIT).await;
        let actions: Vec<&str> = entries
            .iter()
            .rev()
            .filter_map(|entry| entry["action"].as_str())
            .collect();
        assert_eq!(
            actions,
            [
                "flag.update",
                "override.set",
                "override.delete",
                "flag.archive",
                "flag.restore",
                "flag.archive",
                "flag.delete",
                "flag.create",
            ],
            "on {}",
            api.store
        );
        let oldest = entries.last().expect("an entry");
        assert_eq!(oldest["flagKey"], "checkout");
        assert_eq!(oldest["environment"], "production");
        assert_eq!(oldest["actor"], "local-admin");
        assert_eq!(oldest["at"].as_str().map(str::len), Some(24));
        assert_eq!(oldest["before"]["rolloutPercentage"], 50);
        assert_eq!(oldest["before"]["description"], Value::Null);
        assert_eq!(oldest["after"]["rolloutPercentage"], 60);
        assert_eq!(oldest["after"]["description"], "why");
        let ids: Vec<i64> = entries
            .iter()
            .filter_map(|entry| entry["id"].as_i64())
            .collect();
        assert!(
            ids.is_sorted_by(|one, other| one > other),
            "the newest entry is not first: {ids:?}"
        );
        let page = api.read(&format!("{AUDIT}?page=2&pageSize=3")).await.json();
        assert_eq!(page["entries"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            page["pagination"],
            json!({"page": 2, "pageSize": 3, "total": 8})
        );
        assert_eq!(page["entries"][0]["id"], ids[3]);

        // A rejected change has no entry.
        api.admin("PATCH", CHECKOUT, &json!({"rolloutPercentage": 101}))
            .await;
        api.admin_if("\"1\"", "PATCH", CHECKOUT, &json!({"rolloutPercentage": 1}))
            .await;
        assert_eq!(read_audit(&api, AUDIT).await.len(), 8);
        let unknown = api.read("/api/admin/flags/no-such-flag/audit").await;
        assert_eq!(unknown.status, 404);
    }
}

#[tokio::test]
async fn the_audit_of_an_environment_covers_its_flags_and_the_environment_itself() {
    for api in Api::of_both_kinds().await {
        api.admin("PATCH", CHECKOUT, &json!({"enabled": false}))
            .await;
        api.admin(
            "PATCH",
            "/api/admin/flags/search",
            &json!({"enabled": false}),
        )
        .await;
        api.admin(
            "POST",
            "/api/admin/environments",
            &json!({"environment": "staging"}),
        )
        .await;
        api.admin(
            "POST",
            "/api/admin/environments/staging/purge",
            &Value::Null,
        )
        .await;
        let entries = read_audit(&api, "/api/admin/environments/production/audit").await;
        let keys: Vec<&Value> = entries.iter().map(|entry| &entry["flagKey"]).collect();
        assert_eq!(keys, ["search", "checkout"], "on {}", api.store);
        let entries = read_audit(&api, "/api/admin/environments/staging/audit").await;
        let actions: Vec<&Value> = entries.iter().map(|entry| &entry["action"]).collect();
        assert_eq!(actions, ["environment.purge", "environment.create"]);
        let unknown = api.read("/api/admin/environments/nowhere/audit").await;
        assert_eq!(unknown.status, 404);
    }
}

#[tokio::test]
async fn a_commit_that_fails_leaves_neither_a_change_nor_an_entry() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let overrides = stack.function("overrides").await;
    let sql = stack.database.sql();
    // Only the commit fails: first as on a full disk, after which a retry may succeed; then by an error of a trigger,
    // after which a retry would fail too.
    for (code, status) in [("53100", 503), ("P0001", 500)] {
        sql.batch_execute(&format!(
            "create or replace function refuse() returns trigger language plpgsql as
               $$ begin raise exception 'not today' using errcode = '{code}'; end $$;
             drop trigger if exists refuse on pennon_audit;
             create constraint trigger refuse after insert on pennon_audit
               deferrable initially deferred for each row execute function refuse()",
        ))
        .await
        .expect("a trigger");
        let event = Event::update("checkout", &json!({"rolloutPercentage": 1}));
        assert_eq!(update.call(&event).await.status, status, "{code}");
        let body = json!({"userId": "alice", "overrideType": "include"}).to_string();
        let event = Event::admin("POST", "/api/admin/flags/checkout/users", &body);
        assert_eq!(overrides.call(&event).await.status, status, "{code}");
        assert_eq!(audit_rows(&stack).await, 0, "{code}");
        let row = sql
            .query_one(
                "select rollout_percentage, (select count(*) from feature_flag_user_overrides)
                 from feature_flags where flag_key = 'checkout'",
                &[],
            )
            .await
            .expect("a row");
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1)), (50, 0));
    }

    sql.batch_execute("drop trigger refuse on pennon_audit")
        .await
        .expect("no trigger");
    let event = Event::update("checkout", &json!({"rolloutPercentage": 2}));
    assert_eq!(update.call(&event).await.status, 200);
    assert_eq!(audit_rows(&stack).await, 1);
}

#[tokio::test]
async fn an_entry_that_cannot_be_written_stops_the_change() {
    let api = Api::on_postgres().await;
    let sql = api.stack().database.sql();
    sql.batch_execute("alter table pennon_audit add constraint no_more check (false) not valid")
        .await
        .expect("a constraint");
    let answer = api
        .admin("PATCH", CHECKOUT, &json!({"rolloutPercentage": 1}))
        .await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.body, r#"{"error":"Internal server error"}"#);
    let state = api.get("/api/config/flags/checkout").await;
    assert_eq!(state.json()["rolloutPercentage"], 50);
}

#[tokio::test]
async fn a_flag_is_reverted_to_any_earlier_state() {
    for api in Api::of_both_kinds().await {
        let definition = json!({"variants": {"a": 1.0}, "defaultVariant": "a"});
        for body in [
            json!({"rolloutPercentage": 60, "salt": "s", "bucketing": "fractional"}),
            json!({"description": "typed", "definition": definition}),
            json!({"definition": null, "salt": null, "bucketing": null, "enabled": false}),
        ] {
            assert_eq!(
                api.admin_if("*", "PATCH", CHECKOUT, &body).await.status,
                200
            );
        }
        let entries = read_audit(&api, AUDIT).await;
        let id = |at: usize| entries[at]["id"].clone();
        let revert = format!("{CHECKOUT}/revert");
        let revert_to = async |body: Value| {
            let answer = api.admin_if("*", "POST", &revert, &body).await;
            assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
            answer
        };
        let typed = revert_to(json!({"auditId": id(1)})).await;
        assert!(
            typed.body.contains(r#""variants":{"a":1.0}"#),
            "{}",
            typed.body
        );
        let flag = typed.json();
        assert_eq!(
            json!([flag["salt"], flag["bucketing"], flag["enabled"]]),
            json!(["s", "fractional", true])
        );
        let first = revert_to(json!({"auditId": id(2), "state": "before"}))
            .await
            .json();
        assert_eq!(
            first["rolloutPercentage"], 50,
            "not the state before the first change"
        );
        assert_eq!(
            (first["definition"].clone(), first["description"].clone()),
            (Value::Null, Value::Null)
        );
        assert_eq!(
            api.get("/api/config/flags/checkout").await.json()["rolloutPercentage"],
            50
        );
        let newest = read_audit(&api, AUDIT).await.swap_remove(0);
        assert_eq!(newest["action"], "flag.revert");
        assert_eq!(newest["after"], entries[2]["before"]);

        for (body, status) in [
            (json!({}), 400),
            (json!({"auditId": "1"}), 400),
            (json!({"auditId": id(0), "state": "during"}), 400),
            (json!({"auditId": id(0), "other": 1}), 400),
            (json!({"auditId": 999_999}), 404),
        ] {
            let answer = api.admin_if("*", "POST", &revert, &body).await;
            assert_eq!(answer.status, status, "{body}");
        }
        let stale = api
            .admin_if("\"1\"", "POST", &revert, &json!({"auditId": id(0)}))
            .await;
        assert_eq!(stale.status, 412);
        let plan = json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"enabled": true}});
        api.admin("POST", &format!("{CHECKOUT}/schedule"), &plan)
            .await;
        let planned = read_audit(&api, AUDIT).await.swap_remove(0);
        let no_state = json!({"auditId": planned["id"]});
        let answer = api.admin_if("*", "POST", &revert, &no_state).await;
        assert_eq!(
            answer.status, 409,
            "a flag was reverted to a scheduled change"
        );

        let another = "/api/admin/flags/search/revert";
        let answer = api
            .admin_if("*", "POST", another, &json!({"auditId": id(0)}))
            .await;
        assert_eq!(answer.status, 404, "an entry of another flag was used");
    }
}

#[tokio::test]
async fn a_permanently_deleted_flag_can_be_restored() {
    for api in Api::of_both_kinds().await {
        let user = json!({"userId": "alice", "overrideType": "exclude", "reason": "r"});
        api.admin("POST", &format!("{CHECKOUT}/users"), &user).await;
        api.admin("PATCH", CHECKOUT, &json!({"rolloutPercentage": 61}))
            .await;
        api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
        api.admin_if(
            "*",
            "DELETE",
            &format!("{CHECKOUT}?permanently=true"),
            &Value::Null,
        )
        .await;
        let entries = read_audit(&api, AUDIT).await;
        assert_eq!(
            entries[0]["before"]["overrides"][0]["userId"], "alice",
            "the entry lacks the overrides"
        );
        let revert = format!("{CHECKOUT}/revert");
        let nothing = api
            .admin_if("*", "POST", &revert, &json!({"auditId": entries[0]["id"]}))
            .await;
        assert_eq!(nothing.status, 409, "a flag was reverted to its deletion");
        let body = json!({"auditId": entries[2]["id"]});
        let back = api.admin_if("*", "POST", &revert, &body).await;
        assert_eq!(back.status, 200, "{back:?} on {}", api.store);
        let state = api.get("/api/config/flags/checkout").await.json();
        assert_eq!(state["rolloutPercentage"], 61);
        let archived = json!({"auditId": entries[1]["id"]});
        api.admin_if("*", "POST", &revert, &archived).await;
        assert_eq!(
            api.get("/api/config/flags/checkout").await.status,
            404,
            "the flag is not archived again"
        );
    }
}

#[tokio::test]
async fn a_single_override_is_reverted() {
    for api in Api::of_both_kinds().await {
        let users = format!("{CHECKOUT}/users");
        let user = json!({"userId": "alice", "overrideType": "exclude", "reason": "r"});
        api.admin("POST", &users, &user).await;
        api.admin("DELETE", &format!("{users}/alice"), &Value::Null)
            .await;
        let entries = read_audit(&api, AUDIT).await;
        let revert = format!("{CHECKOUT}/revert");
        let undo = json!({"auditId": entries[0]["id"], "state": "before"});
        assert_eq!(api.admin_if("*", "POST", &revert, &undo).await.status, 200);
        let list = api.read(&users).await.json();
        assert_eq!(list["excludes"][0]["reason"], "r", "on {}", api.store);
        let undo = json!({"auditId": entries[1]["id"], "state": "before"});
        assert_eq!(api.admin_if("*", "POST", &revert, &undo).await.status, 200);
        assert_eq!(api.read(&users).await.json()["pagination"]["total"], 0);
    }
}
