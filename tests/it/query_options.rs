//! Query parameters without a value, repeated, without a name, or not in UTF-8; and the size of errors that name unknown
//! fields.

use pennon_core::http::{ENDPOINTS, Endpoint, UnknownParameters};
use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::routes::{authorization_for, path_for};
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const IMPORT: &str = "/api/admin/environments/production/import";
const COPY: &str = "/api/admin/environments/production/copy";
const SETTINGS: &str = "/api/admin/environments/production/settings";
const USERS: &str = "/api/admin/flags/checkout/users";

#[tokio::test]
async fn an_option_without_a_value_is_rejected_and_changes_nothing() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let file = json!({"flags": {"new": {"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "a"}}});
        let overrides = json!({"overrides": [{"userId": "bob", "overrideType": "include"}]});
        let copy = json!({"from": "staging", "flags": [{"flagKey": "new", "ifMatch": null}]});
        let settings = json!({"bucketing": "fractional"});
        let change = json!({"rolloutPercentage": 7});
        let none = Value::Null;
        for (method, path, option, body, allowed) in [
            ("POST", IMPORT, "dryRun", &file, "true or false"),
            ("POST", IMPORT, "mode", &file, "replace or merge"),
            ("POST", COPY, "dryRun", &copy, "true or false"),
            ("PUT", SETTINGS, "dryRun", &settings, "true or false"),
            (
                "PATCH",
                "/api/admin/flags/checkout",
                "dryRun",
                &change,
                "true or false",
            ),
            ("PUT", USERS, "mode", &overrides, "replace or merge"),
            (
                "DELETE",
                "/api/admin/flags/checkout",
                "permanently",
                &none,
                "true or false",
            ),
            (
                "GET",
                "/api/admin/flags",
                "archived",
                &none,
                "true or false",
            ),
            ("GET", "/api/admin/flags", "page", &none, "from 1 to"),
            ("GET", "/api/admin/keys", "page", &none, "from 1 to"),
            (
                "GET",
                "/api/admin/flags/checkout/audit",
                "page",
                &none,
                "from 1 to",
            ),
            ("GET", "/api/admin/flags/stale", "days", &none, "from 1 to"),
            (
                "GET",
                "/api/admin/flags/checkout/usage",
                "days",
                &none,
                "from 1 to",
            ),
        ] {
            for query in [option.to_owned(), format!("{option}=")] {
                let url = format!("{path}?{query}");
                let answer = api.admin_if("*", method, &url, body).await;
                assert_eq!(answer.status, 400, "{on}: {method} {url} {answer:?}");
                let error = answer.json()["details"]["fieldErrors"][option].to_string();
                assert!(error.contains(allowed), "{on}: {method} {url} {error}");
            }
        }
        let shown = api.read("/api/admin/flags/checkout").await;
        assert_eq!(shown.json()["archivedAt"], Value::Null, "{on}: {shown:?}");
        assert_eq!(shown.json()["rolloutPercentage"], 50, "{on}: {shown:?}");
        assert_eq!(api.read("/api/admin/flags/new").await.status, 404, "{on}");
        // The list of overrides accepts `page` and `pageSize` without a value, for clients of the service that Pennon
        // replaces.
        for query in ["page=", "pageSize=", "page&pageSize"] {
            let listed = api.read(&format!("{USERS}?{query}")).await;
            assert_eq!(listed.status, 200, "{on}: {query} {listed:?}");
            assert_eq!(listed.json()["pagination"]["total"], 0, "{on}: {query}");
        }
    }
}

#[tokio::test]
async fn a_change_with_an_ambiguous_environment_or_dry_run_is_rejected() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let url = "/api/admin/flags/checkout?environment=production&environment=staging";
        let dry = "/api/admin/flags/checkout?dryRun=false&dryRun=true";
        let not_dry = "/api/admin/flags/checkout?dryRun=true&dryRun=false";
        let users = format!("{USERS}?environment=staging&environment=");
        let change = json!({"rolloutPercentage": 7});
        let user = json!({"userId": "bob", "overrideType": "include"});
        for (method, url, body, parameter) in [
            ("PATCH", url, &change, "environment"),
            ("POST", url, &change, "environment"),
            ("POST", &users, &user, "environment"),
            ("PATCH", dry, &change, "dryRun"),
            ("POST", not_dry, &change, "dryRun"),
        ] {
            let answer = api.admin(method, url, body).await;
            assert_eq!(answer.status, 400, "{on}: {method} {url} {answer:?}");
            assert!(
                answer.json()["details"]["fieldErrors"][parameter].is_array(),
                "{on}: {answer:?}"
            );
        }
        let url = "/api/admin/flags/checkout?environment=production&environment=production";
        let same = api
            .admin("PATCH", url, &json!({"rolloutPercentage": 8}))
            .await;
        assert_eq!(same.status, 200, "{on}: {same:?}");
        assert_eq!(same.json()["rolloutPercentage"], 8, "{on}: {same:?}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_utf_8_is_rejected() {
    let checks_parameters = |it: &&Endpoint| it.unknown_parameters == UnknownParameters::Rejected;
    for api in Api::of_both_kinds().await {
        let on = api.store;
        for endpoint in ENDPOINTS.iter().filter(checks_parameters) {
            let path = path_for(endpoint.path, "-");
            // The characters of an environment's name are checked instead, before the other parameters.
            let names = endpoint.query.iter().filter(|name| **name != "environment");
            for name in names {
                let place = format!("{on}: {} {path}?{name}", endpoint.method);
                let url = format!("{path}?&&{name}=a%FF");
                let headers = [
                    ("authorization", &*authorization_for(endpoint)),
                    ("if-match", "*"),
                ];
                let answer = api
                    .local()
                    .send(endpoint.method, &url, &headers, "{}")
                    .await;
                assert_eq!(answer.status, 400, "{place}: {answer:?}");
                assert!(answer.body.contains("UTF-8"), "{place}: {answer:?}");
            }
        }
        for (method, url) in [
            ("PATCH", "/api/admin/flags/-?flagKey=%FF"),
            ("DELETE", "/api/admin/flags/checkout/users/-?userId=caf%E9"),
        ] {
            let answer = api
                .admin(method, url, &json!({"rolloutPercentage": 8}))
                .await;
            assert_eq!(answer.status, 400, "{on}: {url} {answer:?}");
            assert!(answer.body.contains("UTF-8"), "{on}: {url} {answer:?}");
        }
        let ignored = "/api/admin/flags/checkout?other=%FF";
        let answer = api
            .admin("PATCH", ignored, &json!({"rolloutPercentage": 8}))
            .await;
        assert_eq!(answer.status, 200, "{on}: {answer:?}");
        let listed = api.get("/api/config/flags?userId=%FF&other=%FF").await;
        assert_eq!(listed.status, 200, "{on}: {listed:?}");
    }
}

#[tokio::test]
async fn a_parameter_without_a_name_is_reported_as_empty() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list().query("=1&x=2")).await;
    assert_eq!(
        (answer.status, answer.header("x-ignored-parameters")),
        (200, Some("(empty), x"))
    );
    let manage = stack.function("manage-flags").await;
    let event = Event::admin("GET", "/api/admin/flags", "").query("=1");
    let answer = manage.call(&event).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("(empty)"), "{answer:?}");
}

#[tokio::test]
async fn errors_that_name_unknown_fields_fit_into_a_response() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let unknown = |count: u32| -> Value {
            (0..count)
                .map(|number| (format!("unknown-{number}"), Value::from(1)))
                .collect()
        };
        let many = unknown(20_000);
        let long = json!({ "\"".repeat(150_000): 1 });
        let takes_body = |it: &&Endpoint| {
            let has_none = it.path.ends_with("/restore") || it.path.ends_with("/purge");
            it.is_admin() && ["POST", "PUT", "PATCH"].contains(&it.method) && !has_none
        };
        for endpoint in ENDPOINTS.iter().filter(takes_body) {
            let (method, path) = (endpoint.method, &path_for(endpoint.path, "checkout"));
            for (body, most) in [(&many, 20_000), (&long, 50_000)] {
                let answer = api.admin_if("*", method, path, body).await;
                assert_eq!(answer.status, 400, "{on}: {path}");
                let length = answer.body.len();
                assert!(length < most, "{on}: {path}: {length} bytes");
            }
        }
        let path = "/api/admin/environments";
        let answer = api.admin("POST", path, &unknown(200_000)).await;
        let details = &answer.json()["details"];
        let named = details["fieldErrors"].as_object().expect("an object").len();
        assert!((20..25).contains(&named), "{on}: {details}");
        assert!(
            details["formErrors"]
                .to_string()
                .contains("199980 more unknown names"),
            "{on}: {details}"
        );
    }
}
