//! Copying flags from one environment to another, on PostgreSQL and on a file.

use pennon_tests::api::Api;
use pennon_tests::response::Response;
use serde_json::{Value, json};

const ENVIRONMENTS: &str = "/api/admin/environments";
const COPY: &str = "/api/admin/environments/production/copy";

/// Creates an environment unless it exists, writes these settings and adds these flags.
async fn create(api: &Api, environment: &str, settings: &Value, flags: &[Value]) {
    let made = json!({ "environment": environment });
    let made = api.admin("POST", ENVIRONMENTS, &made).await;
    assert!([201, 409].contains(&made.status), "{made:?}");
    let path = format!("{ENVIRONMENTS}/{environment}/settings");
    let set = api.admin_if("*", "PUT", &path, settings).await;
    assert_eq!(set.status, 200, "{set:?}");
    let path = format!("/api/admin/flags?environment={environment}");
    for flag in flags {
        let made = api.admin("POST", &path, flag).await;
        assert_eq!(made.status, 201, "{flag}: {made:?} on {}", api.store);
    }
}

/// The body that copies these flags from staging, whatever production has.
fn body(keys: &[&str]) -> Value {
    let flags: Vec<Value> = keys
        .iter()
        .map(|key| json!({"flagKey": key, "ifMatch": "*"}))
        .collect();
    json!({"from": "staging", "flags": flags})
}

/// The responses to a dry run and to the copy.
async fn both_ways(api: &Api, body: &Value) -> [Response; 2] {
    let dry = format!("{COPY}?dryRun=true");
    [
        api.admin("POST", &dry, body).await,
        api.admin("POST", COPY, body).await,
    ]
}

/// A flag without the fields that differ between environments.
async fn flag(api: &Api, environment: &str, key: &str) -> Value {
    let path = format!("/api/admin/flags/{key}?environment={environment}");
    let mut flag = api.read(&path).await.json();
    let fields = flag.as_object_mut().expect("a flag");
    for own in ["revision", "createdAt", "updatedAt"] {
        fields.remove(own);
    }
    flag
}

async fn tag(api: &Api, key: &str) -> String {
    let read = api.read(&format!("/api/admin/flags/{key}")).await;
    read.header("etag").expect("an ETag").to_owned()
}

/// The audit entries of production.
async fn audit(api: &Api) -> Vec<Value> {
    let path = format!("{ENVIRONMENTS}/production/audit");
    let audit = api.read(&path).await.json();
    audit["entries"].as_array().expect("entries").clone()
}

fn typed(key: &str, rule: &Value) -> Value {
    json!({"key": key, "enabled": true, "description": "d", "definition": {
        "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": rule,
    }})
}

#[tokio::test]
async fn a_copy_replaces_all_of_a_flag_except_its_overrides_and_a_dry_run_reports_the_same() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let rule = json!({"if": [{"==": [{"var": "tier"}, "gold"]}, "on"]});
        let flags = [
            json!({"key": "checkout", "enabled": false, "rolloutPercentage": 7, "salt": "s", "bucketing": "fractional"}),
            json!({"key": "search", "enabled": true, "rolloutPercentage": 100}),
            json!({"key": "export", "enabled": true, "rolloutPercentage": 30}),
            typed("banner", &rule),
        ];
        create(&api, "staging", &json!({}), &flags).await;
        for (user, query) in [("alice", ""), ("bob", "?environment=staging")] {
            let include = json!({"userId": user, "overrideType": "include"});
            let path = format!("/api/admin/flags/checkout/users{query}");
            assert_eq!(api.admin("POST", &path, &include).await.status, 201);
        }
        let plan = json!({"scheduledAt": "2099-01-01T00:00Z", "updates": {"enabled": false}});
        let export = "/api/admin/flags/export";
        let planned = api
            .admin("POST", &format!("{export}/schedule"), &plan)
            .await;
        assert_eq!(planned.status, 201, "{planned:?}");
        assert!(
            api.admin_if("*", "DELETE", export, &Value::Null)
                .await
                .status
                < 300
        );
        let staged = "/api/admin/environments/staging/audit";
        let source = api.read(staged).await.body;
        let seen = api.get("/api/config/flags/checkout").await;

        let wanted = json!({"from": "staging", "flags": [
            {"flagKey": "banner", "ifMatch": null},
            {"flagKey": "search", "ifMatch": tag(&api, "search").await},
            {"flagKey": "export", "ifMatch": tag(&api, "export").await},
            {"flagKey": "checkout", "ifMatch": tag(&api, "checkout").await},
        ]});
        let unchanged = audit(&api).await;
        let dry = api
            .admin("POST", &format!("{COPY}?dryRun=true"), &wanted)
            .await;
        assert_eq!(dry.status, 200, "{dry:?} on {on}");
        assert_eq!(audit(&api).await, unchanged, "a dry run was audited");
        let done = api.admin("POST", COPY, &wanted).await;
        assert_eq!(done.status, 200, "{done:?} on {on}");
        let (mut dry, mut done) = (dry.json(), done.json());
        assert_eq!(
            (dry["dryRun"].take(), done["dryRun"].take()),
            (true.into(), false.into())
        );
        assert_eq!(dry, done, "on {on}");
        let names = |list: &str| -> Vec<Value> {
            let list = done[list].as_array().expect("a list").iter();
            list.map(|it| it["key"].clone()).collect()
        };
        assert_eq!(names("created"), ["banner"], "{done}");
        assert_eq!(names("changed"), ["checkout", "export"], "{done}");
        assert_eq!(done["unchanged"], 1, "{done}");
        assert_eq!(done["changed"][0]["before"]["rolloutPercentage"], 50);
        assert_eq!(done["changed"][0]["after"]["salt"], "s");
        assert_eq!(done["changed"][0]["after"]["bucketing"], "fractional");

        for key in ["checkout", "search", "export", "banner"] {
            let copied = flag(&api, "production", key).await;
            assert_eq!(copied, flag(&api, "staging", key).await, "on {on}");
        }
        assert_ne!(
            api.get("/api/config/flags/checkout").await.body,
            seen.body,
            "the cache has the old state on {on}"
        );
        let users = api.read("/api/admin/flags/checkout/users").await.json();
        assert_eq!(users["includes"][0]["userId"], "alice", "{users} on {on}");
        assert_eq!(users["pagination"]["total"], 1, "{users} on {on}");
        let schedules = api.read(&format!("{export}/schedule")).await.json();
        assert_eq!(schedules[0]["status"], "cancelled", "on {on}");

        let entries = audit(&api).await;
        let copies: Vec<&Value> = entries
            .iter()
            .filter(|it| it["action"] == "flag.copy")
            .collect();
        assert_eq!(copies.len(), 3, "{entries:?} on {on}");
        for entry in &copies {
            assert_eq!(entry["after"]["copiedFrom"], "staging", "{entry}");
            assert_eq!(entry["actor"], "local-admin");
        }
        assert_eq!(api.read(staged).await.body, source, "on {on}");
        let first = copies.iter().find(|it| it["flagKey"] == "checkout");
        let back = json!({"auditId": first.expect("an entry")["id"], "state": "before"});
        let revert = "/api/admin/flags/checkout/revert";
        let reverted = api.admin_if("*", "POST", revert, &back).await;
        assert_eq!(reverted.json()["rolloutPercentage"], 50, "{reverted:?}");
        let again = json!({"auditId": first.expect("an entry")["id"]});
        let reverted = api.admin_if("*", "POST", revert, &again).await;
        assert_eq!(reverted.json()["rolloutPercentage"], 7, "{reverted:?}");
    }
}

#[tokio::test]
async fn a_copy_is_refused_as_a_whole_with_the_reason_and_the_names() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let flags = ["checkout", "search", "gone", "new", "export"]
            .map(|key| json!({"key": key, "enabled": true, "rolloutPercentage": 9}));
        create(&api, "staging", &json!({}), &flags).await;
        let gone = "/api/admin/flags/gone?environment=staging";
        let archived = api.admin_if("*", "DELETE", gone, &Value::Null).await;
        assert_eq!(archived.status, 200, "{archived:?}");
        let long = "d".repeat(501);
        if let Some(stack) = &api.stack {
            let statement = format!(
                "update feature_flags set description = '{long}' where flag_key = 'new';
                 update feature_flags set definition = '[]' where flag_key = 'export' and environment = 'staging'"
            );
            let sql = stack.database.sql();
            sql.batch_execute(&statement).await.expect("rows");
        }
        let one = |key: &str, tag: Value| json!({"from": "staging", "flags": [{"flagKey": "search", "ifMatch": "*"}, {"flagKey": key, "ifMatch": tag}]});
        let any = || json!("*");
        let many: Vec<String> = (0..5_001).map(|number| format!("f{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let stale = json!("\"1\"");
        let mut cases = vec![
            (one("new", json!("\"7\"")), 412, "'new' does not exist"),
            (one("checkout", Value::Null), 412, "'checkout' exists"),
            (
                one("checkout", stale.clone()),
                412,
                "'checkout' has changed",
            ),
            (one("other", any()), 404, "Flag 'other' in 'staging'"),
            (one("gone", any()), 409, "'gone' is archived"),
            (
                json!({"from": "nowhere", "flags": [{"flagKey": "a", "ifMatch": null}]}),
                404,
                "'nowhere'",
            ),
            (
                json!({"from": "production", "flags": [{"flagKey": "checkout", "ifMatch": "*"}]}),
                400,
                "Must not be 'production' itself",
            ),
            (one("search", any()), 400, "another entry, flags/0"),
            (one("checkout", json!("7")), 400, "flags/1/ifMatch"),
            (one("checkout", json!("W/\"7\"")), 400, "flags/1/ifMatch"),
            (one("", any()), 400, "flags/1/flagKey"),
            (
                json!({"from": "staging", "flags": [{"flagKey": "checkout"}, 5, {"ifMatch": null, "x": 1}]}),
                400,
                "flags/0/ifMatch",
            ),
            (
                json!({"from": "staging", "flags": []}),
                400,
                "1 to 5000 entries",
            ),
            (body(&many), 400, "(got 5001)"),
            (
                body(&many[..5_000]),
                404,
                "'f9', and 4990 more in 'staging'",
            ),
            (
                json!({"from": "staging", "flags": vec![5; 60]}),
                400,
                "10 more are not listed",
            ),
            (
                json!({"from": "a b", "flags": {}, "all": true}),
                400,
                "Unknown field",
            ),
            (json!({}), 400, "Required"),
        ];
        if api.stack.is_some() {
            let why = "the definition of 'export' is unreadable";
            cases.push((one("export", any()), 409, why));
            cases.push((one("new", any()), 400, "flags/1/description"));
        }
        let before = audit(&api).await;
        for (body, status, words) in cases {
            for answer in both_ways(&api, &body).await {
                assert_eq!(answer.status, status, "{body} {answer:?} on {on}");
                assert!(answer.body.contains(words), "{words}: {answer:?} on {on}");
            }
        }
        let unknown = format!("{ENVIRONMENTS}/nowhere/copy");
        let answer = api.admin("POST", &unknown, &body(&["search"])).await;
        assert_eq!(answer.status, 404, "{answer:?} on {on}");
        // The message names all flags whose precondition fails, because there are few.
        let all = json!({"from": "staging", "flags": [
            {"flagKey": "checkout", "ifMatch": stale}, {"flagKey": "search", "ifMatch": null},
            {"flagKey": "new", "ifMatch": "\"7\""},
        ]});
        let answer = api.admin("POST", COPY, &all).await.json();
        let message = answer["message"].as_str().expect("a message").to_owned();
        let names = "'checkout' has changed, 'search' exists, 'new' does not exist";
        assert!(message.contains(names), "{message} on {on}");
        assert_eq!(audit(&api).await, before, "a flag was copied on {on}");
    }
}

#[tokio::test]
async fn a_flag_whose_rule_would_mean_something_else_is_refused_or_has_a_warning() {
    let tier = |name: &str| json!({"==": [{"var": "tier"}, name]});
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let evaluators = json!({
            "same": tier("gold"), "other": tier("gold"), "only": tier("gold"),
            "outer": {"or": [{"$ref": "same"}, {"$ref": "other"}]},
            "split": {"fractional": [["on", 50], ["off", 50]]},
        });
        let uses = |name: &str| json!({"if": [{"$ref": name}, "on"]});
        let flags = [
            typed("same", &uses("same")),
            typed("other", &uses("other")),
            typed("only", &uses("only")),
            typed("outer", &uses("outer")),
            typed("split", &json!({"$ref": "split"})),
            json!({"key": "checkout", "rolloutPercentage": 20, "salt": "s"}),
            json!({"key": "search", "rolloutPercentage": 100, "salt": "s"}),
            json!({"key": "export", "rolloutPercentage": 20, "salt": "s"}),
            json!({"key": "own", "rolloutPercentage": 20, "bucketing": "sha256"}),
        ];
        let settings = json!({
            "evaluators": evaluators, "fractional": "v2", "bucketing": "sha256",
            "metadata": {"serverOnly": true},
        });
        create(&api, "staging", &settings, &flags).await;
        let mut target = evaluators.clone();
        target["other"] = tier("silver");
        target.as_object_mut().expect("some").remove("only");
        let settings = json!({"evaluators": target, "fractional": "v3", "bucketing": "fractional"});
        let own = json!({"key": "own", "rolloutPercentage": 30});
        create(&api, "production", &settings, &[own]).await;

        let before = audit(&api).await;
        for (key, expected) in [
            (
                "other",
                "'other' uses the evaluator 'other', which 'production' defines differently",
            ),
            (
                "only",
                "'only' uses the evaluator 'only', which 'production' lacks",
            ),
            (
                "outer",
                "'outer' uses the evaluator 'other', which 'production' defines differently",
            ),
        ] {
            for answer in both_ways(&api, &body(&["same", key])).await {
                assert_eq!(answer.status, 409, "{key} {answer:?} on {on}");
                assert!(answer.body.contains(expected), "{answer:?} on {on}");
                assert!(!answer.body.contains("'same'"), "{answer:?} on {on}");
            }
        }
        assert_eq!(audit(&api).await, before, "a flag was copied on {on}");

        let keys = ["same", "split", "checkout", "search", "export", "own"];
        for answer in both_ways(&api, &body(&keys)).await {
            assert_eq!(answer.status, 200, "{answer:?} on {on}");
            let body = answer.json();
            let warnings = body["warnings"].as_array().expect("a list").iter();
            let found: Vec<(&str, bool)> = warnings
                .map(|it| {
                    let message = it["message"].as_str().expect("a text");
                    let place = it["pointer"].as_str().expect("a pointer");
                    (place, message.contains("visible to everyone"))
                })
                .collect();
            // Every flag becomes visible to everyone, because production lacks `serverOnly`. A partial rollout (2, 4)
            // or `fractional` (1) selects other users than in staging, unless the flag has its own bucketing (5). A
            // rollout in production moves to other users if the copy changes its salt (2) or bucketing (5); 3 reaches
            // all users.
            let expected = [
                ("/flags/2", false),
                ("/flags/2/salt", false),
                ("/flags/2", true),
                ("/flags/4", false),
                ("/flags/4", true),
                ("/flags/5/bucketing", false),
                ("/flags/5", true),
                ("/flags/0", true),
                ("/flags/3", true),
                ("/flags/1", false),
                ("/flags/1", true),
            ];
            assert_eq!(found, expected, "{body} on {on}");
        }
    }
}

#[tokio::test]
async fn a_copy_above_a_limit_or_with_unreadable_settings_is_rejected() {
    let api = Api::on_postgres().await;
    let value = "x".repeat(250_000);
    let flags: Vec<Value> = (0..24)
        .map(|number| {
            json!({"key": format!("f{number}"), "enabled": true, "definition": {
                "variants": {"a": value}, "defaultVariant": "a",
            }})
        })
        .collect();
    let (some, rest) = flags.split_at(12);
    create(&api, "staging", &json!({}), some).await;
    create(&api, "production", &json!({}), rest).await;
    let keys: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for answer in both_ways(&api, &body(&keys)).await {
        assert_eq!(answer.status, 400, "{answer:?}");
        let fields = &answer.json()["details"]["fieldErrors"];
        assert!(fields["flags"].is_array(), "{fields}");
    }
    for environment in ["staging", "production"] {
        let statement = format!(
            "update pennon_environment_settings set settings = '{{}}';
             update pennon_environment_settings set settings = '[]' where environment = '{environment}'"
        );
        let sql = api.stack().database.sql();
        sql.batch_execute(&statement).await.expect("settings");
        for answer in both_ways(&api, &body(&["f0"])).await {
            assert_eq!(answer.status, 409, "{answer:?}");
            let words = format!("settings of '{environment}' are unreadable");
            assert!(answer.body.contains(&words), "{answer:?}");
        }
    }
}
