//! JSON bodies with a duplicate key in an object, whose meaning is ambiguous.

use std::collections::BTreeSet;

use pennon_core::http::ENDPOINTS;
use pennon_tests::api::Api;
use pennon_tests::local::{ADMIN_TOKEN, API_KEY};
use pennon_tests::response::Response;
use pennon_tests::routes::path_for;
use serde_json::{Value, json};

/// Sends a text as the admin, or to the routes of applications with the server's API key.
async fn send(api: &Api, method: &str, path: &str, body: &str) -> Response {
    let token = if path.starts_with("/ofrep") || path.starts_with("/v1") {
        API_KEY
    } else {
        ADMIN_TOKEN
    };
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("if-match", "*")];
    api.local().send(method, path, &headers, body).await
}

/// Method, route, body, and the position of the duplicate.
const REFUSED: [(&str, &str, &str, &str); 36] = [
    (
        "POST",
        "/v1/evaluation-counts",
        r#"{"batch":"b","counts":{"production":{"2026-11-29":{"a":{"on":1,"on":2}}}}}"#,
        "counts/production/2026-11-29/a/on",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp",
        r#"{"onAlarm":"start","onAlarm":"off"}"#,
        "onAlarm",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp",
        r#"{"steps":[{"percent":5,"bakeSeconds":60,"percent":50}]}"#,
        "steps/0/percent",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/pause",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/resume",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/advance",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/rollback",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/acknowledge",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/ramp/cancel",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags",
        r#"{"key":"one","key":"two"}"#,
        "key",
    ),
    (
        "POST",
        "/api/admin/flags",
        r#"{"key":"one","enabled":true,"enabled":true}"#,
        "enabled",
    ),
    (
        "POST",
        "/api/admin/flags",
        r#"{"key":"one","k\u0065y":"two"}"#,
        "key",
    ),
    (
        "POST",
        "/api/admin/flags",
        r#"{"key":"one","definition":{"variants":{"a":{"b":[{"c":1,"c":1}]}}}}"#,
        "definition/variants/a/b/0/c",
    ),
    (
        "PATCH",
        "/api/admin/flags/{flagKey}",
        r#"{"salt":"a","salt":"b"}"#,
        "salt",
    ),
    (
        "PATCH",
        "/api/admin/flags/{flagKey}",
        r#"{"bucketing":"sha256","bucketing":"fractional"}"#,
        "bucketing",
    ),
    (
        "PATCH",
        "/api/admin/flags/{flagKey}",
        r#"{"definition":{"variants":{"a":1,"a":2}}}"#,
        "definition/variants/a",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}",
        r#"{"definition":null,"definition":{"variants":{"a":1}}}"#,
        "definition",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}",
        r#"{"definition":{"variants":{"a":1},"targeting":{"if":[true,"a"],"if":[true,"b"]}}}"#,
        "definition/targeting/if",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/users",
        r#"{"userId":"al","overrideType":"include","variant":"a","variant":"b"}"#,
        "variant",
    ),
    (
        "PUT",
        "/api/admin/flags/{flagKey}/users",
        r#"{"overrides":[{"userId":"al","userId":"bo","overrideType":"include"}]}"#,
        "overrides/0/userId",
    ),
    (
        "PUT",
        "/api/admin/flags/{flagKey}/users",
        r#"{"overrides":[],"overrides":[]}"#,
        "overrides",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/explain",
        r#"{"context":{"targetingKey":"alice","targetingKey":"bob"}}"#,
        "context/targetingKey",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/revert",
        r#"{"auditId":1,"auditId":2}"#,
        "auditId",
    ),
    (
        "POST",
        "/api/admin/environments",
        r#"{"environment":"a","environment":"b"}"#,
        "environment",
    ),
    (
        "PUT",
        "/api/admin/environments/{environment}/settings",
        r#"{"evaluators":{"ours":{"==":[1,1]},"ours":{"==":[1,2]}}}"#,
        "evaluators/ours",
    ),
    (
        "PUT",
        "/api/admin/environments/{environment}/settings",
        r#"{"metadata":{"a/b":1,"a/b":2}}"#,
        "metadata/a~1b",
    ),
    (
        "POST",
        "/api/admin/environments/{environment}/import",
        r#"{"flags":{},"flags":{}}"#,
        "/flags",
    ),
    (
        "POST",
        "/api/admin/environments/{environment}/copy",
        r#"{"from":"a","flags":[{"flagKey":"b","flagKey":"c","ifMatch":null}]}"#,
        "flags/0/flagKey",
    ),
    (
        "POST",
        "/api/admin/webhooks",
        r#"{"name":"n","url":"https://one.example","url":"https://two.example"}"#,
        "url",
    ),
    (
        "POST",
        "/api/admin/webhooks/{webhookId}/enable",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/flags/{flagKey}/restore",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/environments/{environment}/purge",
        r#"{"reason":"a","reason":"b"}"#,
        "reason",
    ),
    (
        "POST",
        "/api/admin/keys",
        r#"{"kind":"client","kind":"server","name":"n"}"#,
        "kind",
    ),
    (
        "POST",
        "/ofrep/v1/evaluate/flags",
        r#"{"context":{"targetingKey":"alice","targetingKey":"bob"}}"#,
        "/context/targetingKey",
    ),
    (
        "POST",
        "/ofrep/v1/evaluate/flags/{flagKey}",
        r#"{"context":{"tier":{"a":1,"a":2}}}"#,
        "/context/tier/a",
    ),
    (
        "POST",
        "/ofrep/v1/evaluate/flags/{flagKey}",
        r#"{"context":{},"context":{}}"#,
        "/context",
    ),
];

#[tokio::test]
async fn every_route_with_a_body_rejects_a_duplicate_key_and_names_its_position() {
    for api in Api::of_both_kinds().await {
        let before = api
            .read("/api/admin/environments/production/export")
            .await
            .body;
        for (method, route, body, place) in REFUSED {
            let path = path_for(route, "checkout");
            let answer = send(&api, method, &path, body).await;
            assert_eq!(
                answer.status, 400,
                "{method} {route} {body} {answer:?} on {}",
                api.store
            );
            let message = if route.starts_with("/ofrep") {
                assert_eq!(answer.json()["errorCode"], "INVALID_CONTEXT", "{answer:?}");
                let details = answer.json()["errorDetails"].clone();
                assert!(
                    details.to_string().contains(&format!("{place}:")),
                    "{details}"
                );
                details.to_string()
            } else {
                answer.json()["details"]["fieldErrors"][place].to_string()
            };
            assert!(
                message.contains("more than once"),
                "{place} in {answer:?} on {}",
                api.store
            );
        }
        let after = api
            .read("/api/admin/environments/production/export")
            .await
            .body;
        assert_eq!(before, after, "a flag was changed on {}", api.store);
        assert_eq!(
            api.read("/api/admin/keys").await.json(),
            json!({"keys": []})
        );
    }
}

#[test]
fn the_cases_cover_every_route_with_a_body() {
    let known: BTreeSet<(&str, &str)> = REFUSED
        .iter()
        .map(|(method, route, _, _)| (*method, *route))
        .chain([
            // All its fields are those of the existing service; see the next test.
            ("POST", "/api/admin/flags/{flagKey}/schedule"),
        ])
        .collect();
    for route in ENDPOINTS {
        if ["POST", "PUT", "PATCH"].contains(&route.method) {
            assert!(known.contains(&(route.method, route.path)), "{route:?}");
        }
    }
}

#[tokio::test]
async fn for_existing_clients_the_last_duplicate_key_wins() {
    for api in Api::of_both_kinds().await {
        let url = "/api/admin/flags/checkout";
        for method in ["PATCH", "POST"] {
            for (body, field, expected) in [
                (
                    r#"{"enabled":true,"enabled":false}"#,
                    "enabled",
                    json!(false),
                ),
                (
                    r#"{"rolloutPercentage":5,"rolloutPercentage":7}"#,
                    "rolloutPercentage",
                    json!(7),
                ),
                (
                    r#"{"description":"a","description":"b"}"#,
                    "description",
                    json!("b"),
                ),
                // Unknown fields are ignored, as without a duplicate.
                (
                    r#"{"enabled":true,"owner":{"a":1,"a":2}}"#,
                    "enabled",
                    json!(true),
                ),
            ] {
                let answer = send(&api, method, url, body).await;
                assert_eq!(answer.status, 200, "{body} {answer:?} on {}", api.store);
                assert_eq!(answer.json()[field], expected, "{body} on {}", api.store);
            }
        }
        let users = format!("{url}/users");
        let body =
            r#"{"userId":"al","userId":"bo","overrideType":"exclude","overrideType":"include"}"#;
        let set = send(&api, "POST", &users, body).await;
        assert_eq!(set.status, 201, "{set:?} on {}", api.store);
        let one = set.json();
        assert_eq!(
            (&one["userId"], &one["overrideType"]),
            (&json!("bo"), &json!("include"))
        );
        let body = r#"{"scheduledAt":"2098-01-01T00:00Z","scheduledAt":"2099-01-01T00:00Z",
            "updates":{"enabled":true,"enabled":false}}"#;
        let plan = send(&api, "POST", &format!("{url}/schedule"), body).await;
        assert_eq!(plan.status, 201, "{plan:?} on {}", api.store);
        assert_eq!(plan.json()["scheduledAt"], "2099-01-01T00:00:00.000Z");
        assert_eq!(plan.json()["updates"], json!({"enabled": false}));
        let gone = api
            .admin("DELETE", &format!("{users}/bo"), &Value::Null)
            .await;
        assert_eq!(gone.status, 204);
    }
}
