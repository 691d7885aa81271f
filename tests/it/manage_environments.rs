//! Environments: creating, listing, configuring, importing, exporting and purging, on PostgreSQL and on a file.

use pennon_tests::api::Api;
use pennon_tests::eventually;
use pennon_tests::redis::KEY;
use serde_json::{Value, json};

const ENVIRONMENTS: &str = "/api/admin/environments";
const SETTINGS: &str = "/api/admin/environments/production/settings";
const IMPORT: &str = "/api/admin/environments/production/import";
const EXPORT: &str = "/api/admin/environments/production/export";

fn typed(value: &str) -> Value {
    json!({
        "state": "ENABLED",
        "variants": {"red": "#c00", "blue": value},
        "defaultVariant": "red",
    })
}

#[tokio::test]
async fn an_environment_is_created_and_can_be_used_at_once() {
    for api in Api::of_both_kinds().await {
        let staging = json!({"environment": "staging"});
        let made = api.admin("POST", ENVIRONMENTS, &staging).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        assert_eq!(made.json()["fractional"], "v3");
        assert_eq!(api.admin("POST", ENVIRONMENTS, &staging).await.status, 409);
        let url = "/api/admin/flags?environment=staging";
        let flag = api
            .admin("POST", url, &json!({"key": "a", "enabled": true}))
            .await;
        assert_eq!(flag.status, 201, "{flag:?}");
        let state = api.get("/api/config/flags/a?environment=staging").await;
        assert_eq!(state.json()["enabled"], true);
        assert_eq!(
            api.get("/api/config/flags/a").await.status,
            404,
            "a flag of staging was found in production"
        );
        let old = json!({"environment": "old", "fractional": "v2"});
        assert_eq!(
            api.admin("POST", ENVIRONMENTS, &old).await.json()["fractional"],
            "v2"
        );

        let listed = api.read(ENVIRONMENTS).await.json();
        let find = |name: &str| -> Value {
            let all = listed["environments"].as_array().expect("a list");
            let found = all.iter().find(|record| record["environment"] == name);
            found.cloned().unwrap_or_default()
        };
        assert_eq!(
            (&find("staging")["flags"], &find("production")["flags"]),
            (&json!(1), &json!(3))
        );
        assert_eq!(find("old")["fractional"], "v2", "on {}", api.store);
        for (body, field) in [
            (json!({}), "environment"),
            (json!({"environment": "a b"}), "environment"),
            (json!({"environment": "x".repeat(21)}), "environment"),
            (
                json!({"environment": "x", "fractional": "v1"}),
                "fractional",
            ),
            (json!({"environment": "x", "colour": "red"}), "colour"),
        ] {
            let answer = api.admin("POST", ENVIRONMENTS, &body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(
                answer.json()["details"]["fieldErrors"][field].is_array(),
                "{body}"
            );
        }
    }
}

#[tokio::test]
async fn replacing_settings_requires_their_current_tag() {
    for api in Api::of_both_kinds().await {
        let read = api.read(SETTINGS).await;
        assert_eq!(read.status, 200);
        assert_eq!(read.json()["evaluators"], json!({}));
        let tag = read.header("etag").expect("an ETag").to_owned();
        let body = json!({"metadata": {"team": "shop"}, "evaluators": {"gold": {"==": [{"var": "tier"}, "gold"]}}});
        assert_eq!(api.admin("PUT", SETTINGS, &body).await.status, 428);
        let mine = api.admin_if(&tag, "PUT", SETTINGS, &body).await;
        assert_eq!(mine.status, 200, "{mine:?} on {}", api.store);
        assert_eq!(mine.json()["metadata"], json!({"team": "shop"}));
        let yours = api.admin_if(&tag, "PUT", SETTINGS, &json!({})).await;
        assert_eq!(yours.status, 412);
        let read = api.read(SETTINGS).await;
        assert_eq!(read.json()["evaluators"], body["evaluators"]);
        assert_eq!(read.header("etag"), mine.header("etag"));
        for (body, field) in [
            (json!({"evaluators": []}), "evaluators"),
            (json!({"metadata": 1}), "metadata"),
            (json!({"fractional": 3}), "fractional"),
            (json!({"evaluator": {}}), "evaluator"),
        ] {
            let answer = api.admin_if("*", "PUT", SETTINGS, &body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(
                answer.json()["details"]["fieldErrors"][field].is_array(),
                "{body}"
            );
        }
        let unknown = "/api/admin/environments/nowhere/settings";
        assert_eq!(api.read(unknown).await.status, 404);
        assert_eq!(
            api.admin_if("*", "PUT", unknown, &json!({})).await.status,
            404
        );
        let odd = "/api/admin/environments/a%20b/settings";
        assert_eq!(api.read(odd).await.status, 400);
    }
}

#[tokio::test]
async fn an_import_applies_the_file_and_a_dry_run_only_reports_the_changes() {
    for api in Api::of_both_kinds().await {
        // The file keeps `search`, changes `checkout`, lacks `export` and adds `theme`.
        let exported = api.read(EXPORT).await;
        assert_eq!(exported.status, 200, "{exported:?}");
        let mut file = exported.json();
        let flags = file["flags"].as_object_mut().expect("flags");
        flags.remove("export");
        flags.insert("checkout".to_owned(), typed("#11c"));
        flags.insert("theme".to_owned(), typed("#00c"));

        let dry = api
            .admin("POST", &format!("{IMPORT}?dryRun=true"), &file)
            .await;
        assert_eq!(dry.status, 200, "{dry:?} on {}", api.store);
        let preview = dry.json();
        let keys = |list: &str| -> Vec<&str> {
            let list = preview[list].as_array().expect("a list");
            list.iter()
                .filter_map(|entry| entry["key"].as_str())
                .collect()
        };
        assert_eq!(preview["dryRun"], true);
        assert_eq!(
            (keys("created"), keys("changed")),
            (vec!["theme"], vec!["checkout"])
        );
        assert_eq!(
            (keys("archived"), &preview["unchanged"]),
            (vec!["export"], &json!(1))
        );
        assert_eq!(preview["changed"][0]["before"]["rolloutPercentage"], 50);
        assert!(preview["changed"][0]["after"]["definition"]["variants"].is_object());
        assert_eq!(
            api.get("/api/config/flags/theme").await.status,
            404,
            "a dry run created a flag"
        );
        assert_eq!(
            api.read("/api/admin/environments/production/audit")
                .await
                .json()["entries"],
            json!([])
        );

        let tag = dry.header("etag").expect("an ETag").to_owned();
        assert_eq!(api.admin("POST", IMPORT, &file).await.status, 428);
        let done = api.admin_if(&tag, "POST", IMPORT, &file).await;
        assert_eq!(done.status, 200, "{done:?}");
        assert_eq!(
            done.json()["changed"],
            preview["changed"],
            "the import differs from its dry run"
        );
        assert_eq!(done.json()["dryRun"], false);
        assert_eq!(api.get("/api/config/flags/theme").await.status, 200);
        assert_eq!(api.get("/api/config/flags/export").await.status, 404);
        let archived = api.read("/api/admin/flags/export").await.json();
        assert!(archived["archivedAt"].is_string(), "not archived");
        let again = api.admin_if(&tag, "POST", IMPORT, &file).await;
        assert_eq!(again.status, 412, "a tag from before the import matched");

        let same = api
            .admin("POST", &format!("{IMPORT}?dryRun=true"), &file)
            .await
            .json();
        assert_eq!(
            (same["unchanged"].clone(), same["changed"].clone()),
            (json!(3), json!([]))
        );
        let audit = api.read("/api/admin/flags/checkout/audit").await.json();
        assert_eq!(audit["entries"][0]["action"], "flag.import");
        let back = json!({"auditId": audit["entries"][0]["id"], "state": "before"});
        let answer = api
            .admin_if("*", "POST", "/api/admin/flags/checkout/revert", &back)
            .await;
        assert_eq!(
            answer.json()["rolloutPercentage"],
            50,
            "the imported flag was not reverted"
        );
    }
}

#[tokio::test]
async fn an_export_is_imported_into_another_environment_without_a_change() {
    for api in Api::of_both_kinds().await {
        let theme = json!({"key": "theme", "enabled": true, "definition": {
            "variants": {"one": 1, "two": 2.0}, "defaultVariant": "two",
            "targeting": {"if": [{"in": ["@example.com", {"var": "email"}]}, "one", null]},
        }});
        assert_eq!(
            api.admin("POST", "/api/admin/flags", &theme).await.status,
            201
        );
        let exported = api.read(EXPORT).await;
        let dry = api
            .admin("POST", &format!("{IMPORT}?dryRun=true"), &exported.json())
            .await
            .json();
        assert_eq!(dry["unchanged"], 4, "{dry} on {}", api.store);
        assert_eq!(dry["settings"], Value::Null);
        api.admin("POST", ENVIRONMENTS, &json!({"environment": "copy"}))
            .await;
        let url = "/api/admin/environments/copy";
        let done = api
            .admin_if("*", "POST", &format!("{url}/import"), &exported.json())
            .await;
        assert_eq!(done.status, 200, "{done:?}");
        let copied = api.read(&format!("{url}/export")).await;
        assert_eq!(copied.body, exported.body, "the exports differ");
    }
}

#[tokio::test]
async fn an_import_with_any_error_changes_nothing() {
    for api in Api::of_both_kinds().await {
        for (file, place) in [
            (
                json!({"flags": {"good": typed("x"), "bad": {"state": "ENABLED"}}}),
                "/flags/bad",
            ),
            (json!({"flags": "none"}), "/flags"),
            (json!({"flags": [{"state": "ENABLED"}]}), "/flags/0/key"),
        ] {
            for url in [IMPORT.to_owned(), format!("{IMPORT}?dryRun=true")] {
                let answer = api.admin_if("*", "POST", &url, &file).await;
                assert_eq!(answer.status, 400, "{file}");
                let details = answer.json()["details"].clone();
                assert!(
                    details.to_string().contains(place),
                    "{details} on {}",
                    api.store
                );
            }
        }
        assert_eq!(api.get("/api/config/flags/good").await.status, 404);
        let unknown = "/api/admin/environments/nowhere/import";
        let answer = api
            .admin_if("*", "POST", unknown, &json!({"flags": {}}))
            .await;
        assert_eq!(answer.status, 404);
    }
}

#[tokio::test]
async fn overrides_survive_an_import() {
    for api in Api::of_both_kinds().await {
        let users = "/api/admin/flags/checkout/users";
        let alice = json!({"userId": "alice", "overrideType": "exclude"});
        api.admin("POST", users, &alice).await;
        let file = json!({"flags": {"checkout": typed("#00c")}});
        assert_eq!(api.admin_if("*", "POST", IMPORT, &file).await.status, 200);
        assert_eq!(
            api.read(users).await.json()["pagination"]["total"],
            1,
            "on {}",
            api.store
        );
        let exported = api.read(EXPORT).await;
        assert!(
            !exported.body.contains("alice"),
            "an exported file names a user"
        );
        let mut file = exported.json();
        file["flags"]["checkout"]["metadata"] =
            json!({"pennon.overrides": "{\"bob\":\"include\"}"});
        let answer = api.admin_if("*", "POST", IMPORT, &file).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(
            answer
                .body
                .contains("/flags/checkout/metadata/pennon.overrides"),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn an_evaluator_in_use_cannot_be_removed() {
    for api in Api::of_both_kinds().await {
        let evaluators = json!({"evaluators": {"gold": {"==": [{"var": "tier"}, "gold"]}}});
        assert_eq!(
            api.admin_if("*", "PUT", SETTINGS, &evaluators).await.status,
            200
        );
        let flag = json!({"key": "limit", "enabled": true, "definition": {
            "variants": {"small": 1, "large": 2}, "defaultVariant": "small",
            "targeting": {"if": [{"$ref": "gold"}, "large", "small"]},
        }});
        let made = api.admin("POST", "/api/admin/flags", &flag).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let refused = api.admin_if("*", "PUT", SETTINGS, &json!({})).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(
            refused.body.contains("flags/limit/targeting"),
            "{}",
            refused.body
        );
        let bad = json!({"evaluators": {"gold": {"no_such_operator": [1]}}});
        assert_eq!(api.admin_if("*", "PUT", SETTINGS, &bad).await.status, 400);

        let limit = "/api/admin/flags/limit";
        api.admin_if("*", "DELETE", limit, &Value::Null).await;
        assert_eq!(
            api.admin_if("*", "PUT", SETTINGS, &json!({})).await.status,
            200
        );
        let back = api
            .admin_if("*", "POST", &format!("{limit}/restore"), &Value::Null)
            .await;
        assert_eq!(back.status, 400, "restored without evaluator: {back:?}");
    }
}

#[tokio::test]
async fn a_purge_makes_every_instance_read_again() {
    let api = Api::on_postgres().await;
    let other = api.another_instance().await;
    let stack = api.stack();
    for one in [&api, &other] {
        assert_eq!(one.get("/api/config/flags/checkout").await.status, 200);
    }
    let before = stack.database.revision("production").await;
    // A change without triggers, which does not raise the revision.
    stack
        .database
        .sql()
        .batch_execute(
            "set session_replication_role = replica;
             update feature_flags set rollout_percentage = 7 where flag_key = 'checkout';
             set session_replication_role = origin",
        )
        .await
        .expect("a change");
    let percentage = async |one: &Api| {
        let answer = one.get("/api/config/flags/checkout").await;
        answer.json()["rolloutPercentage"].clone()
    };
    assert_eq!(percentage(&other).await, 50);
    let done = api
        .admin(
            "POST",
            "/api/admin/environments/production/purge",
            &Value::Null,
        )
        .await;
    assert_eq!(done.status, 200);
    assert_eq!(
        done.json(),
        json!({"environment": "production", "purged": true})
    );
    assert_eq!(done.header("x-cache-invalidated"), Some("true"));
    assert!(!stack.redis.has_entry() && stack.database.revision("production").await > before);
    assert_eq!(percentage(&api).await, 7);
    assert_eq!(percentage(&other).await, 7);
    assert!(stack.redis.has_entry(), "{KEY} was not filled again");
    let unknown = "/api/admin/environments/nowhere/purge";
    assert_eq!(api.admin("POST", unknown, &Value::Null).await.status, 404);
}

#[tokio::test]
async fn the_list_of_environments_is_complete_unless_a_page_is_requested() {
    for api in Api::of_both_kinds().await {
        for name in ["a", "b"] {
            let body = json!({"environment": name});
            assert_eq!(api.admin("POST", ENVIRONMENTS, &body).await.status, 201);
        }
        let whole = api.read(ENVIRONMENTS).await.json();
        let all = whole["environments"].as_array().expect("a list");
        assert!(all.len() >= 3, "{whole} on {}", api.store);
        assert_eq!(whole.get("pagination"), None);
        let second = api.read(&format!("{ENVIRONMENTS}?page=2&pageSize=1")).await;
        assert_eq!(second.status, 200, "{second:?} on {}", api.store);
        let expected = json!({
            "environments": [all[1]],
            "pagination": {"page": 2, "pageSize": 1, "total": all.len()},
        });
        assert_eq!(second.json(), expected, "on {}", api.store);
    }
}

#[tokio::test]
async fn a_change_in_another_environment_does_not_change_the_tag_of_an_import() {
    for api in Api::of_both_kinds().await {
        let staging = json!({"environment": "staging"});
        let created = api.admin("POST", ENVIRONMENTS, &staging).await;
        assert_eq!(created.status, 201, "{created:?} on {}", api.store);
        let file = json!({"flags": {}});
        let dry_run = format!("{IMPORT}?dryRun=true");
        let preview = api.admin("POST", &dry_run, &file).await;
        let tag = preview.header("etag").expect("a tag").to_owned();
        let revision = |list: &Value| {
            let all = list["environments"].as_array().cloned();
            let mut all = all.unwrap_or_default().into_iter();
            let found = all.find(|one| one["environment"] == "production");
            found.expect("production")["revision"].clone()
        };
        let before = revision(&api.read(ENVIRONMENTS).await.json());
        let flag = json!({"key": "new", "enabled": true});
        let path = "/api/admin/flags?environment=staging";
        assert_eq!(api.admin("POST", path, &flag).await.status, 201);
        if api.stack.is_none() {
            let path = api.local().folder().join("flags.json");
            let text = std::fs::read_to_string(&path).expect("a file");
            let edited = text.replace("\"new\"", "\"edited\"");
            assert_ne!(edited, text);
            std::fs::write(&path, edited).expect("an edit");
            eventually("the edit applies", async || {
                let found = api.get("/api/config/flags/edited?environment=staging");
                found.await.status == 200
            })
            .await;
        }
        let after = revision(&api.read(ENVIRONMENTS).await.json());
        assert_eq!(after, before, "on {}", api.store);
        let done = api.admin_if(&tag, "POST", IMPORT, &file).await;
        assert_eq!(done.status, 200, "{done:?} on {}", api.store);
    }
}

#[tokio::test]
async fn production_has_keys_and_webhooks_before_it_has_flags() {
    let api = Api::on_postgres().await;
    let empty = "delete from feature_flags; delete from pennon_environment_settings;
        delete from pennon_environments";
    let done = api.stack().database.sql().batch_execute(empty).await;
    done.expect("an empty database");
    let hook = json!({"name": "deployments", "url": "https://hooks.example.com/pennon"});
    let created = api.admin("POST", "/api/admin/webhooks", &hook).await;
    assert_eq!(created.status, 201, "{created:?}");
    let done = api.stack().database.sql().batch_execute(empty).await;
    done.expect("an empty database");
    let key = json!({"kind": "server", "name": "shop"});
    let created = api.admin("POST", "/api/admin/keys", &key).await;
    assert_eq!(created.status, 201, "{created:?}");
    let text = created.json()["key"].as_str().expect("a key").to_owned();
    let path = "/ofrep/v1/evaluate/flags";
    let answer = api.local().evaluate(path, &text, r#"{"context":{}}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for (path, body) in [("/api/admin/keys", &key), ("/api/admin/webhooks", &hook)] {
        let path = format!("{path}?environment=unknown");
        let answer = api.admin("POST", &path, body).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}
