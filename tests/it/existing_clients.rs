//! Clients of an existing service that Pennon replaces (docs/migration.md): what its routes accept for them, such as
//! unknown parameters, which newer routes reject.

use std::time::{Duration, SystemTime};

use pennon_core::http::{ENDPOINTS, UnknownParameters, timestamp};
use pennon_tests::api::Api;
use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::lambda::Function;
use pennon_tests::routes::path_for;
use pennon_tests::stack::{Stack, database_loads};
use serde_json::{Value, json};

/// A valid request to a route. Every path parameter is `checkout`, except the environment.
fn event(method: &str, path: &str) -> Event {
    let parameters =
        ["flagKey", "userId", "id", "keyId", "webhookId"].map(|name| (name, "checkout"));
    let mut parameters = parameters.to_vec();
    parameters.push(("environment", "production"));
    let event = Event::by_route(method, path, "", &parameters);
    let event = if path.starts_with("/ofrep/") {
        event.anonymous().api_key(EXAMPLE_KEY)
    } else {
        event
    };
    let body = match (method, path) {
        (_, path) if path.ends_with("/users") => json!({"userId": "u", "overrideType": "include"}),
        (_, path) if path.ends_with("/schedule") => {
            json!({"scheduledAt": "2099-01-01T00:00Z", "updates": {"enabled": true}})
        }
        (_, path) if path.starts_with("/ofrep/") => json!({"context": {"targetingKey": "u"}}),
        _ => json!({}),
    };
    event.body(&body.to_string())
}

#[tokio::test]
async fn an_unknown_parameter_is_ignored_and_named_where_the_existing_service_ignored_it() {
    let stack = Stack::start().await;
    for endpoint in ENDPOINTS
        .iter()
        .filter(|it| it.unknown_parameters == UnknownParameters::Ignored)
    {
        let function = stack.function(endpoint.function).await;
        let path = endpoint.path;
        let plain = function.call(&event(endpoint.method, path)).await;
        let query = "Environment=x&a%0Ab=1&a%0Ab=2&&environment=production&cache=no";
        let answer = function
            .call(&event(endpoint.method, path).query(query))
            .await;
        assert_eq!(answer.status, plain.status, "{path}: {answer:?}");
        let ignored = answer.header("x-ignored-parameters").unwrap_or_default();
        let names: Vec<&str> = ignored.split(", ").collect();
        for name in ["Environment", "a?b", "cache"] {
            assert!(names.contains(&name), "{path}: {ignored:?}");
        }
        assert!(!names.contains(&"environment") || path.starts_with("/health"));
        assert_eq!(plain.header("x-ignored-parameters"), None, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_rejected_by_every_other_route_and_changes_nothing() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let before = stack.database.revision("production").await;
    let mut rejecting = 0;
    for endpoint in ENDPOINTS
        .iter()
        .filter(|it| it.unknown_parameters == UnknownParameters::Rejected)
    {
        rejecting += 1;
        let function = stack.function(endpoint.function).await;
        let (method, path) = (endpoint.method, endpoint.path);
        for query in ["dryrun=true", "page_size=5", "ENVIRONMENT=staging", "=1"] {
            let request = event(method, path).header("if-match", "*").query(query);
            let answer = function.call(&request).await;
            assert_eq!(answer.status, 400, "{method} {path}?{query}: {answer:?}");
            let name = query.split('=').next().expect("a name");
            assert!(answer.body.contains(name), "{path}: {answer:?}");
            for known in endpoint.query {
                assert!(answer.body.contains(known), "{known} of {path}: {answer:?}");
            }
        }
        for name in endpoint.query {
            let twice = format!("{name}=a&{name}=b");
            let answer = function.call(&event(method, path).query(&twice)).await;
            assert_eq!(answer.status, 400, "{method} {path}?{twice}: {answer:?}");
        }
        if endpoint.is_admin() {
            // An unauthorized caller does not learn what is wrong with the request.
            for (event, status) in [
                (event(method, path).anonymous(), 401),
                (event(method, path).user("u", "[users]"), 403),
            ] {
                let answer = function.call(&event.query("dryrun=true")).await;
                assert_eq!(answer.status, status, "{method} {path}");
            }
        }
    }
    assert!(rejecting > 15);
    let after = stack.database.revision("production").await;
    assert_eq!(after, before, "a rejected request changed flags");
}

#[tokio::test]
async fn an_unknown_environment_is_reported_and_no_flags_are_loaded() {
    let stack = Stack::start().await;
    let unknown = |answer: &pennon_tests::response::Response| {
        answer.header("x-unknown-environment").map(str::to_owned)
    };
    for (name, base, status) in [
        ("list-flags", Event::list(), 200),
        ("get-flag", Event::get("checkout"), 404),
    ] {
        let function: Function = stack.function(name).await;
        let known = function.call(&base).await;
        assert_eq!((known.status, unknown(&known)), (200, None));
        let loads = database_loads(&function);
        for number in 0..30 {
            let query = format!("environment=nowhere-{number}");
            let answer = function.call(&base.clone().query(&query)).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(unknown(&answer).as_deref(), Some("true"), "{answer:?}");
            if status == 200 {
                assert_eq!(answer.body, "{}");
            }
        }
        assert_eq!(database_loads(&function), loads, "flags were loaded");
        let head = base.clone().method("HEAD").query("environment=nowhere");
        let answer = function.call(&head).await;
        assert_eq!(unknown(&answer).as_deref(), Some("true"), "{answer:?}");
        let bad = base.clone().query("environment=no%20where");
        let answer = function.call(&bad).await;
        assert_eq!((answer.status, unknown(&answer)), (400, None));
    }
    let keys = format!("{:?}", stack.redis.command(&["KEYS", "*nowhere*"]));
    assert!(!keys.contains("nowhere"), "{keys}");
}

#[tokio::test]
async fn a_bad_page_size_is_replaced_by_the_default_and_a_bad_page_is_rejected() {
    for api in Api::of_both_kinds().await {
        let mut lists = 0;
        for endpoint in ENDPOINTS.iter().filter(|it| it.query.contains(&"pageSize")) {
            lists += 1;
            let path = path_for(endpoint.path, "checkout");
            for size in ["0", "-1", "x", "1.5", "1001", "99999999999999", "", "%00"] {
                let answer = api.read(&format!("{path}?pageSize={size}")).await;
                assert_eq!(answer.status, 200, "{size} on {}: {answer:?}", api.store);
                assert_eq!(answer.json()["pagination"]["pageSize"], 50, "{size}");
            }
            let answer = api.read(&format!("{path}?pageSize=7&page=2")).await;
            let pagination = &answer.json()["pagination"];
            assert_eq!(
                (&pagination["pageSize"], &pagination["page"]),
                (&json!(7), &json!(2))
            );
            for page in ["0", "-1", "x", "1.5", "1000001"] {
                let answer = api.read(&format!("{path}?page={page}&pageSize=x")).await;
                assert_eq!(answer.status, 400, "{page} on {}", api.store);
                let errors = &answer.json()["details"]["fieldErrors"];
                assert!(errors["page"].is_array(), "{errors}");
                assert!(errors["pageSize"].is_null(), "{errors}");
            }
        }
        assert!(lists >= 6, "only {lists} lists");
    }
}

#[tokio::test]
async fn a_time_may_have_an_offset_and_omit_seconds() {
    let at = "/api/admin/flags/checkout/schedule";
    for api in Api::of_both_kinds().await {
        for (text, expected) in [
            ("2099-06-01T12:30Z", "2099-06-01T12:30:00.000Z"),
            ("2099-06-01T12:30+02:00", "2099-06-01T10:30:00.000Z"),
            ("2099-06-01T00:30:15.5+02:00", "2099-05-31T22:30:15.500Z"),
            ("2099-12-31T22:00:00-05:30", "2100-01-01T03:30:00.000Z"),
        ] {
            let body = json!({"scheduledAt": text, "updates": {"enabled": false}});
            let answer = api.admin("POST", at, &body).await;
            assert_eq!(answer.status, 201, "{text} on {}: {answer:?}", api.store);
            assert_eq!(answer.json()["scheduledAt"], expected, "{text}");
        }
        // This time is in the past; without its offset it would be in the future.
        let soon = timestamp(SystemTime::now() + Duration::from_secs(1_800));
        let past = soon.replace('Z', "+01:00");
        for text in ["2099-06-01T12Z", "2099-06-01", "2099-06-01T12:30+2", &past] {
            let body = json!({"scheduledAt": text, "updates": {"enabled": false}});
            let answer = api.admin("POST", at, &body).await;
            assert_eq!(answer.status, 400, "{text} on {}: {answer:?}", api.store);
            let errors = &answer.json()["details"]["fieldErrors"]["scheduledAt"];
            assert!(errors.to_string().contains("offset"), "{errors}");
        }
    }
}

#[tokio::test]
async fn a_null_description_removes_it() {
    let path = "/api/admin/flags/checkout";
    for api in Api::of_both_kinds().await {
        for method in ["PATCH", "POST"] {
            for (body, expected) in [
                (json!({"description": "why"}), json!("why")),
                (json!({"enabled": true}), json!("why")),
                (json!({"description": null}), Value::Null),
                (json!({"description": ""}), json!("")),
                (json!({"description": null, "enabled": true}), Value::Null),
            ] {
                let answer = api.admin(method, path, &body).await;
                assert_eq!(answer.status, 200, "{body} on {}: {answer:?}", api.store);
                assert_eq!(answer.json()["description"], expected, "{body}");
                let read = api.get("/api/config/flags/checkout").await;
                assert_eq!(
                    read.json()["description"],
                    expected,
                    "{body} on {}",
                    api.store
                );
            }
        }
    }
}

#[tokio::test]
async fn the_local_server_treats_methods_and_authorization_schemes_as_the_gateway_does() {
    for api in Api::of_both_kinds().await {
        let local = api.local();
        let root = local.get("/").await;
        assert_eq!(root.status, 200);
        let body = root.json();
        assert_eq!(
            (&body["name"], local.get("/api").await.json()),
            (&json!("Pennon"), body.clone())
        );
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        assert!(
            body["documentation"]
                .as_str()
                .is_some_and(|url| url.starts_with("https://"))
        );
        let head = local.send("HEAD", "/api/config/flags", &[], "").await;
        let get = local.get("/api/config/flags").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), get.header("content-length"));
        assert_eq!(head.header("etag"), get.header("etag"));

        let origin = [
            ("origin", "https://shop.example"),
            ("access-control-request-method", "GET"),
        ];
        let admin_methods = "PATCH, POST, GET, HEAD, DELETE, OPTIONS";
        for (path, allow, cross_origin) in [
            ("/api/config/flags", "GET, HEAD, OPTIONS", true),
            ("/api/admin/flags/checkout", admin_methods, false),
            ("/ofrep/v1/evaluate/flags", "POST, OPTIONS", true),
        ] {
            let answer = local.send("OPTIONS", path, &origin, "").await;
            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
            assert_eq!(answer.header("allow"), Some(allow), "{path}");
            let methods = answer.header("access-control-allow-methods");
            assert_eq!(methods, cross_origin.then_some(allow), "{path}");
            let origin = answer.header("access-control-allow-origin");
            assert_eq!(origin, cross_origin.then_some("*"), "{path}");
        }
        let answer = local.send("OPTIONS", "/nowhere", &origin, "").await;
        assert_eq!(answer.status, 404);
        let page = local.send("GET", "/api/config/flags", &origin, "").await;
        assert_eq!(page.header("access-control-allow-origin"), Some("*"));
        assert_eq!(get.header("access-control-allow-origin"), Some("*"));

        for word in ["Bearer", "bearer", "BEARER"] {
            let token = format!("{word} {}", pennon_tests::local::ADMIN_TOKEN);
            let key = format!("{word} {}", pennon_tests::local::API_KEY);
            let admin = [("authorization", token.as_str())];
            let answer = local.send("GET", "/api/admin/flags", &admin, "").await;
            assert_eq!(answer.status, 200, "{word}");
            let answer = local.send("PUT", "/api/admin/flags", &admin, "").await;
            assert_eq!(answer.status, 405, "{word}");
            let sdk = [("authorization", key.as_str())];
            let path = "/ofrep/v1/evaluate/flags";
            let answer = local.send("POST", path, &sdk, r#"{"context": {}}"#).await;
            assert_eq!(answer.status, 200, "{word}: {answer:?}");
            let both = [
                ("authorization", "Basic dTpw"),
                ("x-api-key", pennon_tests::local::API_KEY),
            ];
            let answer = local.send("POST", path, &both, r#"{"context": {}}"#).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let answer = local.send("PUT", "/api/admin/flags", &[], "").await;
        assert_eq!(answer.status, 401);
    }
}
