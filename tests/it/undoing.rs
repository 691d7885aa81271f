//! Restoring flags that were archived or deleted, with everything that belongs to them.

use pennon_tests::api::Api;
use serde_json::{Value, json};

const CHECKOUT: &str = "/api/admin/flags/checkout";
const AUDIT: &str = "/api/admin/flags/checkout/audit";
const USERS: &str = "/api/admin/flags/checkout/users";
const REVERT: &str = "/api/admin/flags/checkout/revert";
const SCHEDULE: &str = "/api/admin/flags/checkout/schedule";

async fn newest(api: &Api) -> Value {
    api.read(AUDIT).await.json()["entries"][0].clone()
}

async fn archive(api: &Api) {
    let answer = api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
}

async fn restore(api: &Api) {
    let url = format!("{CHECKOUT}/restore");
    let answer = api.admin_if("*", "POST", &url, &Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
}

#[tokio::test]
async fn reverting_a_deletion_restores_the_flag_with_its_overrides() {
    for api in Api::of_both_kinds().await {
        let alice = json!({"userId": "alice", "overrideType": "exclude", "reason": "r"});
        api.admin("POST", USERS, &alice).await;
        let bob = json!({"userId": "bob", "overrideType": "include"});
        api.admin("POST", USERS, &bob).await;
        let before = api.read(USERS).await.json();
        archive(&api).await;
        let url = format!("{CHECKOUT}?permanently=true");
        let gone = api.admin_if("*", "DELETE", &url, &Value::Null).await;
        assert_eq!(gone.status, 204);
        let deleted = newest(&api).await;
        assert_eq!(deleted["action"], "flag.delete");

        let body = json!({"auditId": deleted["id"], "state": "before"});
        let back = api.admin_if("*", "POST", REVERT, &body).await;
        assert_eq!(back.status, 200, "{back:?} on {}", api.store);
        assert!(
            back.json()["archivedAt"].is_string(),
            "the flag is no longer archived"
        );
        let entry = newest(&api).await;
        assert_eq!(entry["action"], "flag.revert");
        assert_eq!(entry["after"]["overrides"], deleted["before"]["overrides"]);
        restore(&api).await;
        assert_eq!(api.read(USERS).await.json(), before, "on {}", api.store);
        let state = api.get("/api/config/flags/checkout").await.json();
        assert_eq!(state["rolloutPercentage"], 50);
    }
}

#[tokio::test]
async fn overrides_without_a_time_are_listed_as_the_oldest() {
    let api = Api::on_postgres().await;
    for user in ["alice", "bob"] {
        let body = json!({"userId": user, "overrideType": "include"});
        api.admin("POST", USERS, &body).await;
    }
    let sql = api.stack().database.sql();
    let forget = "update feature_flag_user_overrides set created_at = null where user_id = 'bob'";
    sql.batch_execute(forget).await.expect("an update");
    archive(&api).await;
    let url = format!("{CHECKOUT}?permanently=true");
    api.admin_if("*", "DELETE", &url, &Value::Null).await;
    let overrides = newest(&api).await["before"]["overrides"].clone();
    let users = [&overrides[0]["userId"], &overrides[1]["userId"]];
    assert_eq!(users, ["bob", "alice"], "{overrides}");
}

#[tokio::test]
async fn a_revert_with_the_tag_of_a_flag_that_was_deleted_since_is_rejected() {
    for api in Api::of_both_kinds().await {
        let body = json!({"rolloutPercentage": 51});
        let changed = api.admin("PATCH", CHECKOUT, &body).await;
        assert_eq!(changed.status, 200, "{changed:?} on {}", api.store);
        let entry = newest(&api).await;
        let read = api.read(CHECKOUT).await;
        let tag = read.header("etag").expect("an ETag").to_owned();
        archive(&api).await;
        let url = format!("{CHECKOUT}?permanently=true");
        let gone = api.admin_if("*", "DELETE", &url, &Value::Null).await;
        assert_eq!(gone.status, 204, "{gone:?} on {}", api.store);

        let body = json!({"auditId": entry["id"], "state": "after"});
        let answer = api.admin_if(&tag, "POST", REVERT, &body).await;
        assert_eq!(answer.status, 412, "{answer:?} on {}", api.store);
        assert_eq!(api.read(CHECKOUT).await.status, 404, "on {}", api.store);
        let answer = api.admin_if("*", "POST", REVERT, &body).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    }
}

#[tokio::test]
async fn restoring_an_override_counts_as_an_addition_and_removing_it_does_not() {
    for api in Api::of_both_kinds().await {
        let alice = json!({"userId": "alice", "overrideType": "exclude"});
        api.admin("POST", USERS, &alice).await;
        let id = newest(&api).await["id"].clone();
        for round in 1..200 {
            let side = if round % 2 == 0 { "after" } else { "before" };
            let body = json!({"auditId": id, "state": side});
            let answer = api.admin_if("*", "POST", REVERT, &body).await;
            assert_eq!(answer.status, 200, "{round} {answer:?} on {}", api.store);
        }
        let body = json!({"auditId": id, "state": "after"});
        let answer = api.admin_if("*", "POST", REVERT, &body).await;
        assert_eq!(answer.status, 429, "{answer:?} on {}", api.store);
        assert_eq!(answer.json()["error"], "RATE_LIMITED");
        assert!(answer.header("retry-after").is_some());
        let nothing = json!({"auditId": id, "state": "before"});
        let answer = api.admin_if("*", "POST", REVERT, &nothing).await;
        assert_eq!(answer.status, 200, "a needless revert was rejected");
    }
}

#[tokio::test]
async fn archiving_a_flag_cancels_its_schedules() {
    for api in Api::of_both_kinds().await {
        let plan = json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"enabled": true}});
        let planned = api.admin("POST", SCHEDULE, &plan).await.json();
        let id = planned["id"].as_str().expect("an id");
        archive(&api).await;
        let entry = newest(&api).await;
        assert_eq!(entry["action"], "schedule.cancel", "on {}", api.store);
        assert_eq!(entry["actor"], "local-admin");
        assert_eq!(entry["after"]["status"], "cancelled");
        let one = format!("{SCHEDULE}/{id}");
        let answer = api.admin("DELETE", &one, &Value::Null).await;
        assert_eq!(
            answer.status, 404,
            "a route found a schedule of an archived flag"
        );
        assert_eq!(api.read(SCHEDULE).await.status, 404);
        restore(&api).await;
        let list = api.read(SCHEDULE).await.json();
        assert_eq!(list[0]["status"], "cancelled", "on {}", api.store);
        assert_eq!(list[0]["cancelledBy"], "local-admin");
        assert!(list[0]["cancelledAt"].is_string());

        // The same if an import or a revert archives the flag.
        let archived = newest_archiving(&api).await;
        for round in ["import", "revert"] {
            api.admin("POST", SCHEDULE, &plan).await;
            let answer = if round == "import" {
                let url = "/api/admin/environments/production/import";
                api.admin_if("*", "POST", url, &json!({"flags": {}})).await
            } else {
                let body = json!({"auditId": archived});
                api.admin_if("*", "POST", REVERT, &body).await
            };
            assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
            restore(&api).await;
            let list = api.read(SCHEDULE).await.json();
            let pending = list.as_array().expect("a list").iter();
            let pending = pending.filter(|entry| entry["status"] == "pending");
            assert_eq!(pending.count(), 0, "{round} on {}", api.store);
        }
    }
}

#[tokio::test]
async fn a_revert_that_takes_a_flag_out_of_the_archive_cancels_its_schedules() {
    let api = Api::on_postgres().await;
    archive(&api).await;
    let archived = newest_archiving(&api).await;
    // As the existing service does, which knows no archived flags.
    let planned = "insert into feature_flag_schedules (flag_id, scheduled_at, status, updates)
        select id, '2099-01-01', 'pending', '{\"enabled\": true}' from feature_flags where flag_key = 'checkout'";
    let done = api.stack().database.sql().execute(planned, &[]).await;
    assert_eq!(done.expect("a schedule"), 1);
    let body = json!({"auditId": archived, "state": "before"});
    let answer = api.admin_if("*", "POST", REVERT, &body).await;
    assert_eq!(answer.json()["archivedAt"], Value::Null, "{answer:?}");
    let list = api.read(SCHEDULE).await.json();
    assert_eq!(list[0]["status"], "cancelled", "{list}");
}

#[tokio::test]
async fn an_override_cannot_be_reverted_to_a_variant_that_its_flag_no_longer_has() {
    for api in Api::of_both_kinds().await {
        let of = |names: &[&str]| {
            let variants: Value = names
                .iter()
                .map(|name| ((*name).to_owned(), json!(name)))
                .collect();
            json!({"definition": {"variants": variants, "defaultVariant": "a"}})
        };
        let typed = api.admin_if("*", "PATCH", CHECKOUT, &of(&["a", "b"])).await;
        assert_eq!(typed.status, 200, "{typed:?} on {}", api.store);
        let b = json!({"userId": "alice", "overrideType": "include", "variant": "b"});
        let set = api.admin("POST", USERS, &b).await;
        assert_eq!(set.status, 201, "{set:?} on {}", api.store);
        let of_one = newest(&api).await;
        let replaced = |list: Value| json!({ "overrides": list });
        for list in [json!([]), json!([b])] {
            let put = api.admin_if("*", "PUT", USERS, &replaced(list)).await;
            assert_eq!(put.status, 200, "{put:?} on {}", api.store);
        }
        let of_many = newest(&api).await;
        let put = api.admin_if("*", "PUT", USERS, &replaced(json!([]))).await;
        assert_eq!(put.status, 200, "{put:?} on {}", api.store);
        let typed = api.admin_if("*", "PATCH", CHECKOUT, &of(&["a"])).await;
        assert_eq!(typed.status, 200, "{typed:?} on {}", api.store);
        for (entry, action) in [(of_one, "override.set"), (of_many, "overrides.set")] {
            assert_eq!(entry["action"], action, "on {}", api.store);
            let body = json!({"auditId": entry["id"], "state": "after"});
            let answer = api.admin_if("*", "POST", REVERT, &body).await;
            assert_eq!(answer.status, 409, "{action} {answer:?} on {}", api.store);
            let message = answer.json()["message"].to_string();
            assert!(message.contains("the variant 'b'"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_flag_cannot_be_reverted_to_metadata_that_is_reserved_for_files() {
    for mut api in Api::of_both_kinds().await {
        let of =
            |metadata: Value| json!({"definition": {"variants": {"a": 1}, "metadata": metadata}});
        for metadata in [json!({"tempo": "x"}), json!({})] {
            let set = api.admin_if("*", "PATCH", CHECKOUT, &of(metadata)).await;
            assert_eq!(set.status, 200, "{set:?} on {}", api.store);
        }
        let entry = newest(&api).await;
        as_stored_by_an_earlier_version(&mut api).await;
        let body = json!({"auditId": entry["id"], "state": "before"});
        let answer = api.admin_if("*", "POST", REVERT, &body).await;
        assert_eq!(answer.status, 409, "{answer:?} on {}", api.store);
        let message = answer.json()["message"].to_string();
        assert!(message.contains("pennon.salt"), "{message}");
        let body = json!({"auditId": entry["id"], "state": "after"});
        let answer = api.admin_if("*", "POST", REVERT, &body).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    }
}

#[tokio::test]
async fn an_archived_flag_with_metadata_that_is_reserved_for_files_can_be_restored() {
    for mut api in Api::of_both_kinds().await {
        let typed = json!({"definition": {"variants": {"a": 1}, "metadata": {"tempo": "x"}}});
        let set = api.admin_if("*", "PATCH", CHECKOUT, &typed).await;
        assert_eq!(set.status, 200, "{set:?} on {}", api.store);
        archive(&api).await;
        as_stored_by_an_earlier_version(&mut api).await;
        restore(&api).await;
        api.local_mut().restart().await;
        let health = api.get("/health").await.json();
        assert_eq!(health["status"], "healthy", "{health} on {}", api.store);
    }
}

/// Renames the metadata `tempo` in the stored flags and their audit to `pennon.salt`, which earlier versions accepted.
async fn as_stored_by_an_earlier_version(api: &mut Api) {
    let (accepted, reserved) = (r#""tempo""#, r#""pennon.salt""#);
    if let Some(stack) = &api.stack {
        let renamed = |column: &str| {
            format!("{column} = replace({column}::text, '{accepted}', '{reserved}')::json")
        };
        let statement = format!(
            "update pennon_audit set {}, {}; update feature_flags set {}",
            renamed("before"),
            renamed("after"),
            renamed("definition")
        );
        let done = stack.database.sql().batch_execute(&statement).await;
        return done.expect("a statement");
    }
    api.local_mut().kill();
    let path = api.local().folder().join("flags.json.state");
    let text = std::fs::read_to_string(&path).expect("a file");
    let edited = text.replace(accepted, reserved);
    assert_ne!(edited, text);
    std::fs::write(&path, edited).expect("a file");
    api.local_mut().restart().await;
}

/// The id of the audit entry of the newest archiving.
async fn newest_archiving(api: &Api) -> Value {
    let entry = api.read(AUDIT).await.json();
    let entries = entry["entries"].as_array().expect("entries");
    let found = entries
        .iter()
        .find(|entry| entry["action"] == "flag.archive");
    found.expect("an entry")["id"].clone()
}
