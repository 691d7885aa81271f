//! Requests as gateways pass them: decoded paths, base paths and stages, function URLs, REST APIs, and malformed
//! events.

use std::collections::{BTreeMap, BTreeSet};

use pennon_core::http::{ENDPOINTS, Endpoint};
use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES, SYNC_KEY};
use pennon_tests::lambda::Function;
use pennon_tests::response::Response;
use pennon_tests::routes::{path_for, paths_for, read_status};
use pennon_tests::stack::{Stack, percentage};
use serde_json::{Value, json};

/// Texts that must be encoded in a path, and that a gateway passes decoded.
const SPECIAL_TEXTS: [&str; 9] = [
    "CORP\\alice",
    "a#b",
    "a b",
    "100%",
    "a?b=c",
    "%2F",
    "ä😀",
    "..",
    "a/b",
];

/// One function of each name, started on first use.
struct Functions<'a> {
    stack: &'a Stack,
    running: BTreeMap<&'static str, Function>,
}

impl<'a> Functions<'a> {
    fn of(stack: &'a Stack) -> Self {
        Self {
            stack,
            running: BTreeMap::new(),
        }
    }

    async fn call(&mut self, function: &'static str, event: &Event) -> Response {
        if !self.running.contains_key(function) {
            let started = self.stack.function(function).await;
            self.running.insert(function, started);
        }
        self.running[function].call(event).await
    }
}

#[tokio::test]
async fn every_route_is_served_behind_any_base_path_even_one_that_looks_like_a_route() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    let mut functions = Functions::of(&stack);
    for base in ["/flags", "/prod", "/api/v1", "/ofrep", "/a/b/c"] {
        stack.database.add_flag("new-checkout", true, 5).await;
        for (file, function, status) in REQUEST_FILES {
            let mut event = Event::load(file);
            let path = event.value()["rawPath"]
                .as_str()
                .expect("a path")
                .to_owned();
            event.value_mut()["rawPath"] = json!(format!("{base}{path}"));
            let answer = functions.call(function, &event).await;
            // Resources that exist after the first round.
            let existed_before = file.ends_with("-create") && answer.status == 409;
            assert!(
                answer.status == status || existed_before,
                "{file} behind {base}: {answer:?}"
            );
        }
        stack
            .database
            .sql()
            .batch_execute("delete from feature_flags where flag_key = 'new-checkout'")
            .await
            .expect("deleted");
    }
}

#[tokio::test]
async fn flag_keys_and_user_ids_in_paths_may_contain_any_character() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let mut functions = Functions::of(&stack);
    for (key, percent) in SPECIAL_TEXTS.into_iter().zip(10..) {
        stack.database.add_flag(key, true, percent).await;
    }
    for (key, percent) in SPECIAL_TEXTS.into_iter().zip(10..) {
        for base in ["", "/flags"] {
            let at = |method: &str, template: &str| {
                Event::by_route(method, template, base, &[("flagKey", key), ("userId", key)])
            };
            let answer = functions
                .call("get-flag", &at("GET", "/api/config/flags/{flagKey}"))
                .await;
            assert_eq!(percentage(&answer), i64::from(percent), "{key}");
            let answer = functions
                .call("manage-flags", &at("GET", "/admin/flags/{flagKey}"))
                .await;
            assert_eq!((answer.status, &answer.json()["key"]), (200, &json!(key)));
            let update = at("PATCH", "/api/admin/flags/{flagKey}").body("{}");
            let answer = functions.call("update-flag", &update).await;
            assert_eq!((answer.status, &answer.json()["key"]), (200, &json!(key)));
            let users = "/api/admin/flags/{flagKey}/users";
            let body = json!({"userId": key, "overrideType": "include"}).to_string();
            let set = at("POST", users).body(&body);
            assert_eq!(functions.call("overrides", &set).await.status, 201, "{key}");
            let answer = functions.call("overrides", &at("GET", users)).await;
            assert_eq!(answer.json()["includes"][0]["userId"], key);
            let remove = at("DELETE", "/api/admin/flags/{flagKey}/users/{userId}");
            let answer = functions.call("overrides", &remove).await;
            assert_eq!(answer.status, 204, "{key}: {answer:?}");
            let answer = functions.call("overrides", &at("GET", users)).await;
            assert_eq!(answer.json()["includes"], json!([]), "{key}");
            let schedule = at("GET", "/api/admin/flags/{flagKey}/schedule");
            let answer = functions.call("schedules", &schedule).await;
            assert_eq!((answer.status, answer.json()), (200, json!([])), "{key}");
            for (function, rest) in [("manage-flags", "audit"), ("report-usage", "usage")] {
                let event = at("GET", &format!("/api/admin/flags/{{flagKey}}/{rest}"));
                assert_eq!(functions.call(function, &event).await.status, 200, "{key}");
            }
            let evaluate = at("POST", "/ofrep/v1/evaluate/flags/{flagKey}")
                .api_key(EXAMPLE_KEY)
                .body(r#"{"context": {"targetingKey": "u"}}"#);
            let answer = functions.call("evaluate-flag", &evaluate).await;
            assert_eq!((answer.status, &answer.json()["key"]), (200, &json!(key)));
        }
    }
}

#[tokio::test]
async fn public_routes_answer_at_function_urls_and_through_rest_apis() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_flag("a b", true, 7).await;
    let mut functions = Functions::of(&stack);
    let context = r#"{"context": {"targetingKey": "user-8"}}"#;
    let with_key_and_context = |event: Event| event.api_key(EXAMPLE_KEY).body(context);
    for (function, method, template, path, expected) in [
        (
            "list-flags",
            "GET",
            "/api/config/flags",
            "",
            r#""checkout":true"#,
        ),
        (
            "get-flag",
            "GET",
            "/config/flags/{flagKey}",
            "/config/flags/a%20b",
            r#""rolloutPercentage":7"#,
        ),
        (
            "evaluate-flag",
            "POST",
            "/ofrep/v1/evaluate/flags/{flagKey}",
            "/ofrep/v1/evaluate/flags/a%20b",
            r#""key":"a b""#,
        ),
        (
            "evaluate-flags",
            "POST",
            "/api/ofrep/v1/evaluate/flags",
            "",
            r#""key":"a b""#,
        ),
        ("health", "GET", "/health", "", r#""status":"healthy""#),
        (
            "health",
            "GET",
            "/api/health/live",
            "",
            r#"{"status":"ok"}"#,
        ),
        ("health", "GET", "/health/ready", "", r#""status":"ready""#),
    ] {
        let by_route = Event::by_route(method, template, "", &[("flagKey", "a b")]).anonymous();
        let url = if path.is_empty() { template } else { path };
        for event in [
            with_key_and_context(by_route.clone()),
            with_key_and_context(by_route.clone()).at_function_url(url),
            with_key_and_context(by_route.clone()).by_rest_api(),
            // With a REST API that proxies all paths, `path` does not contain the stage.
            with_key_and_context(by_route.clone())
                .at_function_url(url)
                .by_rest_api(),
            with_key_and_context(by_route)
                .at_function_url(url)
                .stage("prod", "/prod"),
        ] {
            let answer = functions.call(function, &event).await;
            assert_eq!(answer.status, 200, "{event:?}: {answer:?}");
            assert!(answer.body.contains(expected), "{event:?}: {answer:?}");
        }
    }
    let listed = functions
        .call(
            "list-flags",
            &Event::list().query("environment=nowhere").by_rest_api(),
        )
        .await;
    assert_eq!(listed.body, "{}", "the query was not read");
}

#[tokio::test]
async fn an_unknown_prefix_without_a_matched_route_is_404_and_so_is_a_route_of_another_function() {
    let stack = Stack::start().await;
    let mut functions = Functions::of(&stack);
    for endpoint in ENDPOINTS {
        let path = path_for(endpoint.path, "checkout");
        for method in ["GET", "POST", "DELETE"] {
            let lost = Event::load("not-found")
                .path(&format!("/wrong{path}"), None)
                .method(method);
            let answer = functions.call("not-found", &lost).await;
            assert_eq!(answer.status, 404, "{method} /wrong{path}: {answer:?}");
        }
    }
    let names: BTreeSet<&str> = ENDPOINTS.iter().map(|it| it.function).collect();
    for function in names {
        for endpoint in ENDPOINTS.iter().filter(|it| it.function != function) {
            for path in paths_for(endpoint, "checkout") {
                let event = Event::load("not-found").path(&path, None);
                let event = event.method(endpoint.method).user("u", "[admin]");
                let answer = functions.call(function, &event).await;
                let place = format!("{function}: {} {path}: {answer:?}", endpoint.method);
                assert_eq!(answer.status, 404, "{place}");
            }
        }
    }
    for path in ["/live", "/anything/ready"] {
        let event = Event::load("not-found").path(path, None);
        let answer = functions.call("health", &event).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    // The function that changes flags does not serve the route that deletes one.
    let event = Event::by_route(
        "DELETE",
        "/api/admin/flags/{flagKey}",
        "",
        &[("flagKey", "checkout")],
    );
    let event = event.body(r#"{"enabled": false}"#);
    assert_eq!(functions.call("update-flag", &event).await.status, 404);
}

#[tokio::test]
async fn a_mutated_event_gets_a_response_and_never_fails_the_invocation() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    stack.database.add_flag("new-checkout", true, 5).await;
    for name in ["get-flag", "overrides", "evaluate-flags", "not-found"] {
        let function = stack.function(name).await;
        let files = REQUEST_FILES.iter().filter(|file| file.1 == name);
        let events: Vec<Event> = files.map(|file| Event::load(file.0)).collect();
        let by_rest_api = events.iter().map(|event| event.clone().by_rest_api());
        let examples = events.iter().cloned().chain(by_rest_api);
        let examples: Vec<Value> = examples.map(|event| event.value().clone()).collect();
        for event in pennon_fuzz::some(&pennon_fuzz::json(examples), 250) {
            let answer = match function.invoke(&event).await {
                Ok(response) => Response::of_gateway(&response),
                Err(error) => panic!("{name}: {error} to {event}"),
            };
            assert!(
                (200..500).contains(&answer.status) || answer.status == 503,
                "{name}: {answer:?} to {event}"
            );
        }
    }
}

/// Values that no gateway writes, with their places in the event.
fn malformed_values() -> Vec<Vec<(&'static str, Value)>> {
    let base64 = |body: &str| vec![("/isBase64Encoded", json!(true)), ("/body", json!(body))];
    let one = |place: &'static str, value: Value| vec![(place, value)];
    let method = "/requestContext/http/method";
    vec![
        base64("{}{}"),
        base64("e30"),
        // Base64 of invalid UTF-8.
        base64("/////w=="),
        one("/body", json!({"enabled": true})),
        one("/isBase64Encoded", json!("true")),
        one("/headers/accept", json!("a\r\nset-cookie: b")),
        one("/headers/accept", json!("\0")),
        one("/headers/accept", json!("\u{7f}")),
        one("/headers/accept", json!(1)),
        one("/headers", json!({"a b": "c"})),
        one("/headers", json!({"": "c"})),
        one("/headers", json!("accept: all")),
        one(method, json!("GE T")),
        one(method, json!("")),
        one(method, json!("PATCH\0")),
        one(method, json!(7)),
        one("/requestContext/http", json!({})),
        one("/requestContext", json!(null)),
        one("/pathParameters", json!(["a"])),
        one("/pathParameters/flagKey", json!(1)),
        one("/rawQueryString", json!({})),
        one("/rawPath", json!(1)),
        one("/requestContext/routeKey", json!(["POST /"])),
    ]
}

#[tokio::test]
async fn an_unreadable_event_is_400_in_the_error_format_of_its_function() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let update = stack.function("update-flag").await;
    let evaluate = stack.function("evaluate-flag").await;
    let context = json!({"targetingKey": "u"});
    for (function, event, error_field) in [
        (&update, Event::update("checkout", &json!({})), "error"),
        (
            &evaluate,
            Event::evaluate("checkout", &context),
            "errorDetails",
        ),
    ] {
        let is_400 = |answer: &Response, what: &str| {
            assert_eq!(answer.status, 400, "{what}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert!(answer.json()[error_field].is_string(), "{what}: {answer:?}");
        };
        for changes in malformed_values() {
            let mut bad = event.clone();
            for (place, value) in &changes {
                *bad.value_mut().pointer_mut(place).expect(place) = value.clone();
            }
            is_400(&function.call(&bad).await, &format!("{changes:?}"));
        }
        // Texts that are not events: invalid JSON, invalid strings and numbers, deep nesting, and JSON of other forms.
        let text = event.value().to_string();
        let body = text.find("\"body\":\"").expect("a body") + 8;
        for text in [
            format!("{}\\ud800{}", &text[..body], &text[body..]),
            text.replace("\"isBase64Encoded\":false", "\"isBase64Encoded\":1e999"),
            text.replace("\"requestId\":\"", "\"requestId\":\"\\udfff"),
            format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
            "null".to_owned(),
            "[]".to_owned(),
            "\"GET /\"".to_owned(),
            "{}".to_owned(),
            "{\"hello\":\"world\"}".to_owned(),
            "{\"\\ud800\":1}".to_owned(),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            let what: String = text.chars().take(60).collect();
            match function.invoke_text(&text).await {
                Ok(response) => is_400(&Response::of_gateway(&response), &what),
                Err(error) => panic!("{what}: {error}"),
            }
        }
        assert_eq!(
            function.call(&event).await.status,
            200,
            "the function no longer serves requests"
        );
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let stack = Stack::start().await;
    stack.database.add_key(SYNC_KEY).await;
    let mut functions = Functions::of(&stack);
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.method == "GET") {
        let parameters = [("flagKey", "checkout"), ("environment", "production")];
        let at = |method: &str| {
            let event = Event::by_route(method, endpoint.path, "", &parameters);
            event.header("x-api-key", SYNC_KEY)
        };
        let get = functions.call(endpoint.function, &at("GET")).await;
        // The first response may come from the database, and the next ones from memory, with another `x-cache-source`.
        let again = functions.call(endpoint.function, &at("GET")).await;
        let head = functions.call(endpoint.function, &at("HEAD")).await;
        let path = endpoint.path;
        let expected = read_status(endpoint);
        assert_eq!(
            (get.status, head.status),
            (expected, expected),
            "{path}: {head:?}"
        );
        assert_eq!(head.body, "", "{path}");
        let length = head.header("content-length").expect("a length");
        assert_eq!(length, again.body.len().to_string(), "{path}");
        for (name, value) in &again.headers {
            assert_eq!(head.header(name), Some(value.as_str()), "{name} of {path}");
        }
        if let Some(tag) = get.header("etag") {
            let conditional = |method: &str| at(method).header("if-none-match", tag);
            let get = functions.call(endpoint.function, &conditional("GET")).await;
            let head = functions
                .call(endpoint.function, &conditional("HEAD"))
                .await;
            assert_eq!(get.status, head.status, "{path}");
        }
    }
}

#[tokio::test]
async fn another_method_of_a_known_path_is_405_and_names_the_allowed_ones() {
    let stack = Stack::start().await;
    let mut functions = Functions::of(&stack);
    for endpoint in ENDPOINTS {
        let own = ENDPOINTS.iter().filter(|it| it.path == endpoint.path);
        let mut allowed: Vec<&str> = own.map(|it| it.method).collect();
        if let Some(at) = allowed.iter().position(|method| *method == "GET") {
            allowed.insert(at + 1, "HEAD");
        }
        allowed.push("OPTIONS");
        let allow = allowed.join(", ");
        let others = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "get"];
        for method in others.into_iter().filter(|it| !allowed.contains(it)) {
            for path in paths_for(endpoint, "checkout") {
                let place = format!("{method} {path}");
                // The path `/api/admin/flags/stale` also matches `/api/admin/flags/{flagKey}`, which has other methods.
                let matches_path = |it: &Endpoint| paths_for(it, "stale").contains(&path);
                if ENDPOINTS
                    .iter()
                    .any(|it| it.method == method && matches_path(it))
                {
                    continue;
                }
                let nobody = Event::load("not-found").path(&path, None).method(method);
                if endpoint.is_admin() {
                    let answer = functions.call("not-found", &nobody).await;
                    assert_eq!(answer.status, 401, "{place}: {answer:?}");
                    assert_eq!(answer.header("allow"), None, "{place}");
                }
                let authenticated = nobody.user("u", "[users]");
                let answer = functions.call("not-found", &authenticated).await;
                assert_eq!(answer.status, 405, "{place}: {answer:?}");
                assert_eq!(answer.header("allow"), Some(allow.as_str()), "{place}");
                if !endpoint.is_ofrep() {
                    assert_eq!(answer.json()["error"], "Method not allowed", "{place}");
                }
            }
        }
    }
    // If the gateway has one route for all methods of a path, its function answers 405 itself.
    for (function, template) in [
        ("get-flag", "/api/config/flags/{flagKey}"),
        ("health", "/health"),
        ("evaluate-flag", "/ofrep/v1/evaluate/flags/{flagKey}"),
    ] {
        let mut event = Event::by_route("ANY", template, "/flags", &[("flagKey", "checkout")]);
        event = event.method("PUT").anonymous();
        let answer = functions.call(function, &event).await;
        assert_eq!(answer.status, 405, "{template}: {answer:?}");
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.ends_with("OPTIONS"))
        );
    }
}
