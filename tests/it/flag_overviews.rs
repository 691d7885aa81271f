//! The list of all flags of an environment, on PostgreSQL and on a file.

use pennon_core::http::MAX_RESPONSE_SIZE;
use pennon_tests::api::Api;
use pennon_tests::eventually;
use serde_json::{Value, json};

const LIST: &str = "/api/admin/environments/production/flags";

async fn list(api: &Api) -> Value {
    let answer = api.read(LIST).await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    answer.json()
}

fn find<'a>(list: &'a Value, key: &str) -> &'a Value {
    let flags = list["flags"].as_array().expect("a list");
    let found = flags.iter().find(|flag| flag["key"] == key);
    found.unwrap_or_else(|| panic!("{key} in {list}"))
}

#[tokio::test]
async fn all_flags_are_listed_with_their_overrides_ramps_schedules_and_usage() {
    for api in Api::of_both_kinds().await {
        let created = json!({
            "key": "banner",
            "enabled": true,
            "description": "Which banner",
            "definition": {
                "variants": {"red": "#c00", "blue": "#00c"},
                "defaultVariant": "red",
                "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "blue"]},
                "metadata": {"serverOnly": true},
            },
        });
        let made = api.admin("POST", "/api/admin/flags", &created).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let found = list(&api).await;
        let mut banner = find(&found, "banner").clone();
        assert_eq!(banner["revision"], made.json()["revision"]);
        assert!(banner["updatedAt"].is_string(), "{banner}");
        for changing in ["revision", "updatedAt"] {
            banner.as_object_mut().expect("an object").remove(changing);
        }
        assert_eq!(
            banner,
            json!({
                "key": "banner", "description": "Which banner", "type": "string", "enabled": true,
                "rolloutPercentage": 0, "bucketing": null, "variants": 2, "hasDefinition": true,
                "hasTargeting": true,
                "defaultVariant": "red", "serverOnly": true, "archived": false, "overrides": 0,
                "lastEvaluatedAt": null, "recentEvaluations": 0, "stale": null, "ramp": null,
                "nextSchedule": null,
            }),
            "on {}",
            api.store
        );
        let checkout = find(&found, "checkout");
        assert_eq!(
            (&checkout["type"], &checkout["variants"]),
            (&json!("boolean"), &json!(2)),
            "on {}",
            api.store
        );
        // The default of the installation.
        let bucketing = checkout["bucketing"].as_str().expect("a hash");
        assert!(["sha256", "fractional"].contains(&bucketing), "{checkout}");

        let flag = "/api/admin/flags/checkout";
        for user in ["alice", "bob"] {
            let wanted = json!({"userId": user, "overrideType": "include"});
            let set = api.admin("POST", &format!("{flag}/users"), &wanted).await;
            assert_eq!(set.status, 201, "{set:?}");
        }
        for (at, percent) in [("2099-01-02T00:00:00Z", 60), ("2099-01-01T00:00:00Z", 55)] {
            let wanted = json!({"scheduledAt": at, "updates": {"rolloutPercentage": percent}});
            let path = "/api/admin/flags/search/schedule";
            let set = api.admin("POST", path, &wanted).await;
            assert_eq!(set.status, 201, "{set:?}");
        }
        let steps = json!({"steps": [{"percent": 60, "bakeSeconds": 3600}]});
        let ramp = api
            .admin_if("*", "POST", &format!("{flag}/ramp"), &steps)
            .await;
        assert_eq!(ramp.status, 201, "{ramp:?} on {}", api.store);
        let gone = api
            .admin_if("*", "DELETE", "/api/admin/flags/export", &Value::Null)
            .await;
        assert_eq!(gone.status, 200, "{gone:?}");
        assert_eq!(api.get("/api/config/flags?userId=alice").await.status, 200);
        eventually("the evaluation is counted", async || {
            find(&list(&api).await, "search")["recentEvaluations"] == 1
        })
        .await;

        let found = list(&api).await;
        let checkout = find(&found, "checkout");
        assert_eq!(checkout["overrides"], 2, "on {}", api.store);
        assert_eq!(
            checkout["ramp"],
            json!({"state": "baking", "step": 1, "percent": 60, "reason": null}),
            "on {}",
            api.store
        );
        let search = find(&found, "search");
        assert_eq!(
            search["nextSchedule"],
            json!({"at": "2099-01-01T00:00:00.000Z", "change": {"rolloutPercentage": 55}}),
            "on {}",
            api.store
        );
        assert!(search["lastEvaluatedAt"].is_string(), "{search}");
        assert_eq!(find(&found, "export")["archived"], true, "on {}", api.store);
        let usage = api.read("/api/admin/flags/search/usage").await.json();
        let hours = usage["hours"].as_array().expect("a list");
        assert_eq!(hours.len(), 1, "{usage} on {}", api.store);
        assert_eq!(
            (&hours[0]["variant"], &hours[0]["count"]),
            (&json!("on"), &json!(1))
        );
    }
}

#[tokio::test]
async fn a_flag_with_an_empty_rule_has_no_targeting() {
    for api in Api::of_both_kinds().await {
        let created = json!({
            "key": "banner", "enabled": true,
            "definition": {"variants": {"a": 1}, "defaultVariant": "a", "targeting": {}},
        });
        let made = api.admin("POST", "/api/admin/flags", &created).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let found = list(&api).await;
        let banner = find(&found, "banner");
        assert_eq!(banner["hasTargeting"], false, "{banner} on {}", api.store);
    }
}

#[tokio::test]
async fn the_list_shows_a_simple_flag_without_bucketing_if_the_settings_are_unreadable() {
    let api = Api::on_postgres().await;
    let statement = "insert into pennon_environment_settings (environment, settings)
                     values ('production', '[]')";
    let sql = api.stack().database.sql();
    sql.batch_execute(statement).await.expect("settings");
    let found = list(&api).await;
    let simple = find(&found, "search");
    assert_eq!(simple["bucketing"], Value::Null);
    assert_eq!(simple["hasDefinition"], false);
}

#[tokio::test]
async fn the_list_is_sent_again_only_after_a_change() {
    for api in Api::of_both_kinds().await {
        let whole = api.read(LIST).await;
        let tag = whole.header("etag").expect("a tag").to_owned();
        let headers = [("if-none-match", tag.as_str())];
        let again = api.client().send("GET", LIST, &headers, &Value::Null).await;
        assert_eq!(
            (again.status, again.body.as_str()),
            (304, ""),
            "on {}",
            api.store
        );
        // An override does not change the revision of the flag.
        let wanted = json!({"userId": "alice", "overrideType": "include"});
        let set = api
            .admin("POST", "/api/admin/flags/search/users", &wanted)
            .await;
        assert_eq!(set.status, 201, "{set:?}");
        let changed = api.client().send("GET", LIST, &headers, &Value::Null).await;
        assert_eq!(changed.status, 200, "on {}", api.store);

        let unknown = api.read("/api/admin/environments/nowhere/flags").await;
        assert_eq!(unknown.status, 404, "{unknown:?} on {}", api.store);
    }
}

#[tokio::test]
async fn ten_thousand_flags_fit_into_a_response() {
    let api = Api::on_postgres().await;
    let sql = api.stack().database.sql();
    sql.batch_execute(
        "insert into feature_flags (flag_key, environment, enabled, description, definition)
           select 'checkout-experiment-' || number, 'production', true, repeat('d', 40),
                  '{\"variants\": {\"one\": 1, \"two\": 2}, \"defaultVariant\": \"one\"}'
           from generate_series(1, 10000) as number",
    )
    .await
    .expect("many flags");
    let found = list(&api).await;
    assert_eq!(found["flags"].as_array().map(Vec::len), Some(10_003));
    let flag = find(&found, "checkout-experiment-10000");
    assert_eq!(flag["description"], "d".repeat(40));
    sql.batch_execute("update feature_flags set description = repeat('d', 500)")
        .await
        .expect("long texts");
    let answer = api.read(LIST).await;
    assert!(
        answer.body.len() < MAX_RESPONSE_SIZE,
        "{}",
        answer.body.len()
    );
    let flag = find(&answer.json(), "checkout-experiment-10000").clone();
    assert_eq!(
        (&flag["description"], &flag["type"]),
        (&Value::Null, &json!("number"))
    );
}
