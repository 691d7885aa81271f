//! The rules for an imported file, which are as strict as those for a single flag.

use pennon_tests::api::Api;
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

const FLAGS: &str = "/api/admin/flags";
const IMPORT: &str = "/api/admin/environments/production/import";
const EXPORT: &str = "/api/admin/environments/production/export";

/// A flagd file of one flag, with this metadata.
fn file(key: &str, metadata: &Value) -> Value {
    json!({"flags": {key: {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
        "metadata": metadata,
    }}})
}

/// The responses to a dry run and to the import.
async fn both_ways(api: &Api, file: &Value) -> [Response; 2] {
    let dry = format!("{IMPORT}?dryRun=true");
    [
        api.admin_if("*", "POST", &dry, file).await,
        api.admin_if("*", "POST", IMPORT, file).await,
    ]
}

#[tokio::test]
async fn an_import_checks_texts_and_keys_as_creating_a_flag_does() {
    let long = "k".repeat(4_000);
    for api in Api::of_both_kinds().await {
        for (name, text) in [
            ("salt", "a\0b".to_owned()),
            ("salt", String::new()),
            ("salt", "s".repeat(101)),
            ("description", "a\0b".to_owned()),
            ("description", "d".repeat(501)),
        ] {
            let field = format!("pennon.{name}");
            let place = format!("/flags/a~0b/metadata/{field}");
            for answer in both_ways(&api, &file("a~b", &json!({(field.as_str()): text}))).await {
                assert_eq!(answer.status, 400, "{field} {answer:?} on {}", api.store);
                let fields = answer.json()["details"]["fieldErrors"].clone();
                assert!(fields[&place].is_array(), "{fields} on {}", api.store);
            }
            let alone = json!({"key": "a~b", name: text});
            let answer = api.admin("POST", FLAGS, &alone).await;
            assert_eq!(answer.status, 400, "{alone}");
        }
        for key in [&long, &long[..256], "a\nb", "stale", ".", ".."] {
            for answer in both_ways(&api, &file(key, &json!({}))).await {
                assert_eq!(answer.status, 400, "{key:?} {answer:?} on {}", api.store);
                let fields = answer.json()["details"]["fieldErrors"].clone();
                // An error names the beginning of a key that is very long.
                let place = format!("/flags/{}", &key[..key.len().min(3_000)]);
                let mut names = fields.as_object().into_iter().flatten();
                assert!(names.any(|(name, _)| name.starts_with(&place)), "{fields}");
            }
            let answer = api.admin("POST", FLAGS, &json!({"key": key})).await;
            assert_eq!(answer.status, 400, "{key:?} on {}", api.store);
            let fields = answer.json()["details"]["fieldErrors"].clone();
            assert!(fields["key"].is_array(), "{fields}");
        }
        let most = json!({"pennon.description": "ä".repeat(500), "pennon.salt": "ä".repeat(100)});
        let [dry, done] = both_ways(&api, &file(&long[..255], &most)).await;
        assert_eq!((dry.status, done.status), (200, 200), "{done:?}");
    }
}

#[tokio::test]
async fn flags_from_before_a_rule_keep_their_names_and_texts() {
    let api = Api::on_postgres().await;
    let database = &api.stack().database;
    let long = "k".repeat(300);
    for key in ["stale", ".", &long] {
        database.add_flag(key, true, 10).await;
    }
    let statement = "update feature_flags set description = repeat('d', 600)";
    database
        .sql()
        .batch_execute(statement)
        .await
        .expect("texts");
    let mut file = api.read(EXPORT).await.json();
    file["flags"]["stale"]["state"] = json!("DISABLED");
    let [dry, done] = both_ways(&api, &file).await;
    assert_eq!((dry.status, done.status), (200, 200), "{done:?}");
    assert_eq!(done.json()["changed"][0]["key"], "stale");
    file["flags"]["stale"]["description"] = json!("e".repeat(600));
    for answer in both_ways(&api, &file).await {
        assert_eq!(answer.status, 400, "a new long text was accepted");
    }
}

#[tokio::test]
async fn a_variant_that_an_override_names_cannot_be_removed() {
    let definition = |variants: Value| json!({"variants": variants, "defaultVariant": "red"});
    let theme = format!("{FLAGS}/theme");
    for api in Api::of_both_kinds().await {
        let one = definition(json!({"red": "#c00"}));
        let two = definition(json!({"red": "#c00", "blue": "#00c"}));
        let new = json!({"key": "theme", "enabled": true, "definition": one});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        let patch = async |definition: &Value| {
            let body = json!({"definition": definition});
            api.admin_if("*", "PATCH", &theme, &body).await
        };
        assert_eq!(patch(&two).await.status, 200);
        for user in ["alice", "bob"] {
            let body = json!({"userId": user, "overrideType": "include", "variant": "blue"});
            let answer = api.admin("POST", &format!("{theme}/users"), &body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        let refused = |answer: &Response| {
            assert_eq!(answer.status, 409, "{answer:?} on {}", api.store);
            let message = answer.json()["message"].to_string();
            for word in ["theme", "'blue'", "2 users"] {
                assert!(message.contains(word), "{message} on {}", api.store);
            }
        };
        refused(&patch(&one).await);
        refused(&patch(&Value::Null).await);
        let mut file = api.read(EXPORT).await.json();
        file["flags"]["theme"]["variants"] = json!({"red": "#c00"});
        for answer in both_ways(&api, &file).await {
            refused(&answer);
        }
        let audit = api.read(&format!("{theme}/audit")).await.json();
        let first = audit["entries"]
            .as_array()
            .and_then(|all| all.last())
            .cloned();
        let back = json!({"auditId": first.expect("an entry")["id"]});
        let revert = format!("{theme}/revert");
        refused(&api.admin_if("*", "POST", &revert, &back).await);

        let three = definition(json!({"blue": "#00c", "red": "#c01", "green": "#0c0"}));
        assert_eq!(patch(&three).await.status, 200, "blue could not be kept");
        for user in ["alice", "bob"] {
            let path = format!("{theme}/users/{user}");
            api.admin("DELETE", &path, &Value::Null).await;
        }
        assert_eq!(patch(&one).await.status, 200, "blue could not be removed");
    }
}

/// Whether a list of warnings has 50 entries with a place, and then this one without.
fn ends_with(warnings: &[Value], last: &str) -> bool {
    let (listed, end) = warnings.split_at(50);
    listed.iter().all(|it| it["pointer"] != "") && end == [json!({"pointer": "", "message": last})]
}

#[tokio::test]
async fn a_list_that_is_cut_off_ends_with_how_many_are_missing() {
    const SETTINGS: &str = "/api/admin/environments/production/settings";
    const TEN: &str = "10 more are not listed";
    let choice = |other: &str| json!({"choice": {"if": [{"var": "x"}, "on", other]}});
    let flags: serde_json::Map<String, Value> = (0..60)
        .map(|number| {
            let salt = if number > 0 { "pennon.salt" } else { "salt" };
            let flag = json!({
                "state": "ENABLED", "variants": {"on": 1}, "targeting": {"$ref": "choice"},
                "metadata": {salt: "s"},
            });
            (format!("f{number}"), flag)
        })
        .collect();
    for api in Api::of_both_kinds().await {
        // Warnings of the file itself, and of the comparison with the environment.
        let imported = json!({"flags": flags, "$evaluators": choice("ghost")});
        for answer in both_ways(&api, &imported).await {
            let warnings = answer.json()["warnings"].as_array().cloned();
            let warnings = warnings.expect("warnings");
            assert_eq!(warnings.len(), 102, "on {}", api.store);
            let (of_file, others) = warnings.split_at(51);
            assert!(ends_with(of_file, TEN), "{of_file:?} on {}", api.store);
            let nine = "9 more are not listed";
            assert!(ends_with(others, nine), "{others:?} on {}", api.store);
        }

        // Mistakes in one flag.
        let bad = (0..60).map(|number| (format!("\n{number}"), json!(number)));
        let bad: serde_json::Map<String, Value> = bad.collect();
        let wrong = json!({"flags": {"wrong": {"state": "ENABLED", "variants": bad}}});
        for refused in both_ways(&api, &wrong).await {
            let details = refused.json()["details"].clone();
            assert_eq!(details["formErrors"], json!([TEN]), "on {}", api.store);
            let fields = details["fieldErrors"].as_object().map(serde_json::Map::len);
            assert_eq!(fields, Some(50), "on {}", api.store);
        }

        // Flags that other settings break.
        let good = json!({"evaluators": choice("on")});
        let set = api.admin_if("*", "PUT", SETTINGS, &good).await;
        assert_eq!(set.status, 200, "{set:?}");
        let bad = json!({"evaluators": choice("ghost")});
        let refused = api.admin_if("*", "PUT", SETTINGS, &bad).await;
        assert_eq!(refused.status, 400, "on {}", api.store);
        let details = refused.json()["details"].clone();
        assert_eq!(details["formErrors"], json!([TEN]), "on {}", api.store);
        let fields = details["fieldErrors"].as_object().map(serde_json::Map::len);
        assert_eq!(fields, Some(50), "on {}", api.store);
        let file = json!({"flags": {}, "$evaluators": choice("ghost")});
        let path = format!("{IMPORT}?mode=merge&dryRun=true");
        let answer = api.admin("POST", &path, &file).await;
        let warnings = answer.json()["warnings"].as_array().cloned();
        assert!(ends_with(&warnings.expect("warnings"), TEN), "{answer:?}");

        // Flags that select other users in another environment.
        let made = json!({"environment": "staging"});
        let environments = "/api/admin/environments";
        let made = api.admin("POST", environments, &made).await;
        assert_eq!(made.status, 201, "{made:?}");
        let simple: serde_json::Map<String, Value> = (0..60)
            .map(|number| {
                let flag = json!({"state": "ENABLED", "rolloutPercentage": 50});
                (format!("s{number}"), flag)
            })
            .collect();
        for (environment, bucketing) in [("staging", "sha256"), ("production", "fractional")] {
            let path = format!("{environments}/{environment}/import?mode=merge");
            let file = json!({"flags": {}, "metadata": {"pennon.bucketing": bucketing}});
            assert_eq!(api.admin_if("*", "POST", &path, &file).await.status, 200);
        }
        let path = format!("{environments}/staging/import");
        let file = json!({ "flags": simple });
        assert_eq!(api.admin_if("*", "POST", &path, &file).await.status, 200);
        let copied = simple
            .keys()
            .map(|key| json!({"flagKey": key, "ifMatch": "*"}));
        let body = json!({"from": "staging", "flags": copied.collect::<Vec<_>>()});
        let path = format!("{environments}/production/copy");
        let answer = api.admin("POST", &path, &body).await;
        let warnings = answer.json()["warnings"].as_array().cloned();
        assert!(ends_with(&warnings.expect("warnings"), TEN), "{answer:?}");
    }
}

#[tokio::test]
async fn settings_that_repair_one_of_many_evaluators_are_accepted() {
    const SETTINGS: &str = "/api/admin/environments/production/settings";
    let choosing = |weight: u8| json!({"fractional": [["on", weight]]});
    for api in Api::of_both_kinds().await {
        let mut evaluators: serde_json::Map<String, Value> = (10..70)
            .map(|number| (format!("choice-{number}"), choosing(0)))
            .collect();
        let file = json!({"flags": {}, "$evaluators": evaluators});
        let path = format!("{IMPORT}?mode=merge");
        let imported = api.admin_if("*", "POST", &path, &file).await;
        assert_eq!(imported.status, 200, "{imported:?} on {}", api.store);
        for number in [10, 69, 40] {
            evaluators.insert(format!("choice-{number}"), choosing(1));
            let repaired = json!({ "evaluators": evaluators });
            let set = api.admin_if("*", "PUT", SETTINGS, &repaired).await;
            assert_eq!(set.status, 200, "{set:?} on {}", api.store);
        }
        for number in [1, 2, 3, 4] {
            evaluators.insert(format!("another-{number}"), choosing(0));
        }
        let broken = json!({ "evaluators": evaluators });
        let refused = api.admin_if("*", "PUT", SETTINGS, &broken).await;
        assert_eq!(refused.status, 400, "{refused:?} on {}", api.store);
    }
}

#[tokio::test]
async fn an_error_about_a_conflict_counts_the_overrides_and_schedules_that_it_does_not_name() {
    for api in Api::of_both_kinds().await {
        let names = (0..12).map(|number| (format!("v{number}"), json!(number)));
        let variants: serde_json::Map<String, Value> = names.collect();
        let new = json!({"key": "typed", "definition": {"variants": variants}});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        let overrides = variants
            .keys()
            .map(|name| json!({"userId": name, "overrideType": "include", "variant": name}));
        let overrides = json!({"overrides": overrides.collect::<Vec<_>>()});
        let path = format!("{FLAGS}/typed/users");
        let set = api.admin_if("*", "PUT", &path, &overrides).await;
        assert_eq!(set.status, 200, "{set:?}");
        let path = format!("{FLAGS}/typed");
        let one = json!({"definition": {"variants": {"v": 1}}});
        let removed = api.admin_if("*", "PATCH", &path, &one).await;
        for _ in 0..12 {
            let later =
                json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"rolloutPercentage": 5}});
            let path = format!("{FLAGS}/checkout/schedule");
            let made = api.admin("POST", &path, &later).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        let typed = api
            .admin_if("*", "PATCH", &format!("{FLAGS}/checkout"), &one)
            .await;
        for refused in [removed, typed] {
            assert_eq!(refused.status, 409, "{refused:?} on {}", api.store);
            assert!(refused.body.contains("; and 2 more"), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn thousands_of_flags_are_imported_at_once_and_too_many_are_rejected() {
    let many = |count: usize| -> Value {
        let flags: serde_json::Map<String, Value> = (0..count)
            .map(|number| {
                let flag = json!({"state": "ENABLED", "variants": {"v": number}});
                (format!("flag-{number}"), flag)
            })
            .collect();
        json!({ "flags": flags })
    };
    for api in Api::of_both_kinds().await {
        for answer in both_ways(&api, &many(5_001)).await {
            assert_eq!(answer.status, 400, "on {}", api.store);
            assert!(answer.body.contains("5000"), "{}", answer.body);
        }
        let [_, done] = both_ways(&api, &many(5_000)).await;
        assert_eq!(done.status, 200, "on {}", api.store);
        let result = done.json();
        let length = |list: &str| result[list].as_array().map(Vec::len);
        assert_eq!(
            (length("created"), length("archived")),
            (Some(5_000), Some(3))
        );
        let mut file = many(5_000);
        file["flags"]["flag-7"]["variants"]["v"] = json!(-7);
        let [_, done] = both_ways(&api, &file).await;
        assert_eq!(done.json()["unchanged"], 4_999, "on {}", api.store);
        let audit = api.read(&format!("{FLAGS}/flag-7/audit")).await.json();
        let values: Vec<&Value> = audit["entries"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|entry| &entry["after"]["definition"]["variants"]["v"])
            .collect();
        assert_eq!(values, [&json!(-7), &json!(7)], "not one entry per import");
        let archived = api.read(&format!("{FLAGS}/search")).await.json();
        assert!(archived["archivedAt"].is_string() && archived["enabled"] == false);
        let back = api.admin_if("*", "POST", IMPORT, &file).await;
        assert_eq!(back.json()["unchanged"], 5_000);
    }
}

#[tokio::test]
async fn a_response_larger_than_lambda_allows_is_not_sent() {
    // Flags from before variants had a limit.
    let large = |letter: &str| json!({"v": letter.repeat(1_600_000)});
    let flags = (0..4).map(|number| {
        let flag = json!({"definition": {"variants": large("x")}});
        (format!("large-{number}"), flag)
    });
    let flags: serde_json::Map<String, Value> = flags.collect();
    let api = Api::on_file_with(&json!({ "production": flags })).await;
    let export = api.read(EXPORT).await;
    assert_eq!(export.status, 409);
    assert!(export.body.contains("5900000"), "{}", export.body);
    let flag = json!({"state": "ENABLED", "variants": large("y")});
    let [dry, done] = both_ways(&api, &json!({"flags": {"large-0": flag}})).await;
    assert_eq!((dry.status, done.status), (200, 200));
    let result = done.json();
    assert_eq!(result["changed"], json!([{"key": "large-0"}]));
    assert_eq!(result["archived"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn an_invalid_request_is_400_even_while_the_store_does_not_answer() {
    let rule = json!({"if": [{"$ref": "ours"}, "on"]});
    let with_targeting = |targeting: &Value| {
        let mut file = file("new", &json!({}));
        file["flags"]["new"]["targeting"] = targeting.clone();
        file
    };
    let stack = Stack::start().await.with_default_timeouts();
    for api in [Api::on_stack(stack).await, Api::on_file().await] {
        if let Some(stack) = &api.stack {
            stack.database_wire.set(Mode::Refuse).await;
        } else {
            let path = api.local().folder().join("flags.json");
            std::fs::write(path, "{ oops").expect("writes");
        }
        let definition = json!({"variants": {"on": true}, "targeting": rule});
        for (body, status) in [
            (json!({"flags": 1}), 400),
            (
                json!({"flags": {"new": {"state": "on", "variants": {"a": 1}}}}),
                400,
            ),
            (with_targeting(&json!({"iff": [true, "on"]})), 400),
            (file("new", &json!({"pennon.overrides": 1})), 400),
            // Only the store has the evaluators.
            (with_targeting(&rule), 503),
            (file("new", &json!({})), 503),
        ] {
            for answer in both_ways(&api, &body).await {
                assert_eq!(answer.status, status, "{body} {answer:?} on {}", api.store);
            }
            let merge = format!("{IMPORT}?mode=merge");
            let answer = api.admin_if("*", "POST", &merge, &body).await;
            assert_eq!(answer.status, status, "{body} {answer:?} on {}", api.store);
        }
        let mut broken = definition.clone();
        broken["defaultVariant"] = json!("gone");
        for (definition, status) in [(&broken, 400), (&definition, 503)] {
            let new = json!({"key": "new", "definition": definition});
            let created = api.admin("POST", FLAGS, &new).await;
            let url = format!("{FLAGS}/checkout");
            let change = json!({"definition": definition});
            let changed = api.admin_if("*", "PATCH", &url, &change).await;
            for answer in [created, changed] {
                assert_eq!(answer.status, status, "{answer:?} on {}", api.store);
            }
        }
        let exported = api.read(EXPORT).await;
        assert_eq!(exported.status, 503, "{exported:?} on {}", api.store);
    }
}
