//! Explanations of values, on PostgreSQL and on a file.

use pennon_tests::api::Api;
use pennon_tests::eventually;
use serde_json::{Value, json};

async fn explain(api: &Api, flag: &str, context: &Value) -> Value {
    let path = format!("/api/admin/flags/{flag}/explain");
    let answer = api
        .admin("POST", &path, &json!({ "context": context }))
        .await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    answer.json()
}

async fn create(api: &Api, flag: &Value) {
    let made = api.admin("POST", "/api/admin/flags", flag).await;
    assert_eq!(made.status, 201, "{made:?} on {}", api.store);
}

fn step<'a>(explained: &'a Value, name: &str) -> &'a Value {
    let path = explained["path"].as_array().expect("a path");
    let found = path.iter().find(|step| step["step"] == name);
    found.unwrap_or_else(|| panic!("{name} in {explained}"))
}

#[tokio::test]
async fn a_simple_flag_is_explained_by_override_and_bucket() {
    for api in Api::of_both_kinds().await {
        let alice = json!({"targetingKey": "alice"});
        let explained = explain(&api, "checkout", &alice).await;
        let bucket = step(&explained, "bucket");
        let place = bucket["bucket"].as_u64().expect("a bucket");
        assert_eq!(
            (&bucket["percent"], &bucket["result"], &explained["value"]),
            (&json!(50), &json!(place < 50), &json!(place < 50)),
            "{explained} on {}",
            api.store
        );
        assert_eq!(explained["reason"], "SPLIT");
        let served = api.get("/api/config/flags?userId=alice").await.json();
        assert_eq!(served["checkout"], explained["value"], "on {}", api.store);

        let nobody = explain(&api, "checkout", &json!({})).await;
        assert_eq!(nobody["error"]["code"], "TARGETING_KEY_MISSING", "{nobody}");
        assert_eq!(step(&nobody, "bucket")["bucket"], Value::Null);

        let wanted = json!({"userId": "alice", "overrideType": "include"});
        let set = api
            .admin("POST", "/api/admin/flags/checkout/users", &wanted)
            .await;
        assert_eq!(set.status, 201, "{set:?}");
        let explained = explain(&api, "checkout", &alice).await;
        assert_eq!(
            explained["path"],
            json!([
                {"step": "archived", "result": false},
                {"step": "serverOnly", "result": false},
                {"step": "enabled", "result": true},
                {"step": "override", "result": "include"},
            ]),
            "on {}",
            api.store
        );
        assert_eq!(explained["value"], true);

        let disabled = explain(&api, "export", &alice).await;
        assert_eq!(disabled["reason"], "DISABLED");
        assert_eq!(step(&disabled, "enabled")["result"], false);
        let full = explain(&api, "search", &json!({})).await;
        assert_eq!(
            (&step(&full, "rollout")["percent"], &full["value"]),
            (&json!(100), &json!(true))
        );
        let gone = api
            .admin_if("*", "DELETE", "/api/admin/flags/export", &Value::Null)
            .await;
        assert_eq!(gone.status, 200, "{gone:?}");
        let archived = explain(&api, "export", &alice).await;
        assert_eq!(archived["error"]["code"], "FLAG_NOT_FOUND");
        assert_eq!(
            archived["path"],
            json!([{"step": "archived", "result": true}])
        );
        // Lists of flags count as evaluations, but no explanation does. Counts are added once a second; those of the
        // explanations above would be added with this list at the latest.
        assert_eq!(api.get("/api/config/flags?userId=alice").await.status, 200);
        let evaluations = async |flag: &str| {
            let path = format!("/api/admin/flags/{flag}/usage");
            api.read(&path).await.json()["evaluations"].clone()
        };
        eventually("the second list is counted", async || {
            evaluations("search").await.as_u64() >= Some(2)
        })
        .await;
        assert_eq!(evaluations("checkout").await, 2, "explanations are counted");
    }
}

#[tokio::test]
async fn a_rule_is_explained_operation_by_operation_with_pointers_into_its_text() {
    for api in Api::of_both_kinds().await {
        let settings = json!({"evaluators": {"staff": {"in": [{"var": "team"}, ["ops", "dev"]]}}});
        let path = "/api/admin/environments/production/settings";
        let set = api.admin_if("*", "PUT", path, &settings).await;
        assert_eq!(set.status, 200, "{set:?} on {}", api.store);
        create(
            &api,
            &json!({
                "key": "banner",
                "enabled": true,
                "definition": {
                    "variants": {"red": "#c00", "blue": "#00c", "green": "#0c0"},
                    "defaultVariant": "red",
                    "metadata": {"serverOnly": true},
                    "targeting": {"if": [
                        {"$ref": "staff"},
                        "green",
                        {"==": [{"var": "plan"}, "pro"]},
                        {"fractional": [["red", 30], ["blue", 70]]},
                    ]},
                },
            }),
        )
        .await;
        let staff = explain(&api, "banner", &json!({"team": "dev"})).await;
        assert_eq!(
            (&staff["variant"], &staff["value"]),
            (&json!("green"), &json!("#0c0"))
        );
        assert_eq!(
            staff["path"],
            json!([
                {"step": "archived", "result": false},
                {"step": "serverOnly", "result": true},
                {"step": "enabled", "result": true},
                {"step": "override", "result": null},
                {
                    "step": "operation", "pointer": "", "operator": "if", "depth": 0, "result": "green",
                    "operands": [
                        {"value": true}, {"value": "green"}, {"skipped": true}, {"skipped": true},
                    ],
                },
                {
                    "step": "operation", "evaluator": "staff", "pointer": "", "operator": "in",
                    "depth": 1, "result": true,
                    "operands": [{"value": "dev"}, {"value": ["ops", "dev"]}],
                },
            ]),
            "on {}",
            api.store
        );

        let pro = json!({"targetingKey": "alice", "plan": "pro"});
        let pro = explain(&api, "banner", &pro).await;
        let path = pro["path"].as_array().expect("a path");
        let chosen = path.iter().find(|step| step["operator"] == "fractional");
        let chosen = chosen.expect("a fractional");
        assert_eq!(chosen["pointer"], "/if/3", "{chosen}");
        let fractional = &chosen["fractional"];
        assert_eq!(
            (&fractional["total"], &fractional["variants"]),
            (
                &json!(100),
                &json!([{"variant": "red", "limit": 30}, {"variant": "blue", "limit": 100}])
            )
        );
        let bucket = fractional["bucket"].as_u64().expect("a bucket");
        let variant = if bucket < 30 { "red" } else { "blue" };
        assert_eq!(pro["variant"], variant, "{pro} on {}", api.store);

        // Without a targeting key there is no bucket, and the default applies.
        let nobody = explain(&api, "banner", &json!({"plan": "pro"})).await;
        assert_eq!(step(&nobody, "default")["variant"], "red", "{nobody}");
        assert_eq!(nobody["reason"], "DEFAULT");
        assert!(nobody.to_string().contains(r#""bucket":null"#), "{nobody}");
    }
}

#[tokio::test]
async fn a_context_that_cannot_be_evaluated_is_rejected() {
    for api in Api::of_both_kinds().await {
        let path = "/api/admin/flags/checkout/explain";
        for (body, field) in [
            (json!({}), "context"),
            (json!({"context": []}), "context"),
            (json!({"context": {"targetingKey": 1}}), "context"),
            (json!({"context": {}, "user": "alice"}), "user"),
        ] {
            let answer = api.admin("POST", path, &body).await;
            assert_eq!(answer.status, 400, "{answer:?} on {}", api.store);
            let errors = &answer.json()["details"]["fieldErrors"];
            assert!(errors[field].is_array(), "{answer:?}");
        }
        let unknown = "/api/admin/flags/unknown/explain";
        let answer = api.admin("POST", unknown, &json!({"context": {}})).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}
