//! How much a request writes to the log, and that no caller can exceed that.

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::issuer::{Fault, Issuer, SigningKey, now};
use pennon_tests::lambda::Function;
use pennon_tests::stack::Stack;
use pennon_tests::topology::Topology;
use serde_json::{Value, json};

/// The maximum number of bytes that an anonymous request writes.
const ANONYMOUS: usize = 1_000;
/// The maximum number of bytes that a read writes on a warm instance, without the gateway's access log, whose size
/// `template::cost` computes.
pub(crate) const WARM_READ: usize = 700;
/// The same without Redis: every read queries the database and logs that.
pub(crate) const WARM_READ_WITHOUT_REDIS: usize = 760;

/// The functions that answer reads, each with a read that it answers with 200.
fn reads() -> [(&'static str, Event); 4] {
    let alice = json!({"targetingKey": "alice"});
    [
        ("list-flags", Event::list().anonymous()),
        ("get-flag", Event::get("checkout").anonymous()),
        ("evaluate-flag", Event::evaluate("checkout", &alice)),
        ("evaluate-flags", Event::evaluate_all(&alice)),
    ]
}

/// Names as long as on AWS.
fn names(function: &str) -> [(&'static str, String); 2] {
    [
        (
            "AWS_LAMBDA_FUNCTION_NAME",
            format!("pennon-production-{function}"),
        ),
        ("AWS_LAMBDA_FUNCTION_VERSION", "142".to_owned()),
    ]
}

#[tokio::test]
async fn a_warm_read_writes_little_to_the_log() {
    for topology in [Some(Topology::Single), Some(Topology::Cluster), None] {
        let stack = Stack::start_on(topology.unwrap_or(Topology::Single)).await;
        stack.database.add_key(EXAMPLE_KEY).await;
        for (name, event) in reads() {
            let names = names(name);
            let database = stack.database_url();
            let mut environment: Vec<(&str, &str)> = names
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let function = if topology.is_some() {
                stack.function_with(name, &environment).await
            } else {
                environment.push(("DATABASE_URL", &database));
                Function::start(name, &environment).await
            };
            for _ in 0..2 {
                assert_eq!(function.call(&event).await.status, 200, "{name}");
            }
            let before = function.log().len();
            for _ in 0..20 {
                assert_eq!(function.call(&event).await.status, 200, "{name}");
            }
            let each = (function.log().len() - before) / 20;
            let line = function.last_request();
            let most = match topology {
                Some(_) => WARM_READ,
                None => WARM_READ_WITHOUT_REDIS,
            };
            assert!(each <= most, "{name} {topology:?}: {each} bytes: {line}");
            require_fields_of_queries_and_alarms(&line, name, topology);
        }
    }
}

/// Checks that a line has the fields and metrics that saved queries and alarms use.
fn require_fields_of_queries_and_alarms(line: &Value, name: &str, topology: Option<Topology>) {
    assert_eq!(line["domain"], "config");
    for (field, value) in [
        ("cache_hit", 1),
        ("cache_miss", 0),
        ("cache_unavailable", 0),
        ("cold_start", 0),
        ("cache_hit_rate", 1),
    ] {
        assert_eq!(line[field], value, "{field} of {name}: {line}");
    }
    for field in [
        "duration",
        "response_latency",
        "active_connections",
        "status",
    ] {
        assert!(line[field].is_number(), "{field} of {name}: {line}");
    }
    for field in ["path", "request_id", "Function", "Version"] {
        assert!(line[field].is_string(), "{field} of {name}: {line}");
    }
    if name.ends_with("flag") {
        assert_eq!(line["flag_key"], "checkout", "{line}");
    }
    if topology.is_some() {
        assert!(line["node_id"].is_string(), "{line}");
    }
    if topology == Some(Topology::Cluster) {
        assert_eq!(line["cluster_unavailable"], 0, "{line}");
    }
}

/// Anonymous requests that try to fill the log, and what is large in them.
fn hostile(event: &Event) -> Vec<(&'static str, Event)> {
    let long = "x".repeat(10_000);
    let controls = "\u{1b}[2J\n{\"level\":\"ERROR\"}\u{0}\r\u{202e}".repeat(300);
    let escaped =
        percent_encoding::utf8_percent_encode(&controls, percent_encoding::NON_ALPHANUMERIC)
            .to_string();
    let parameters: Vec<String> = (0..1_000)
        .map(|number| format!("p{number}={number}"))
        .collect();
    let token = format!("Bearer {}", "e30.".repeat(2_000));
    let huge = "k".repeat(100_000);
    let deep = format!(
        "{{\"context\": {}1{}}}",
        "[".repeat(400_000),
        "]".repeat(400_000)
    );
    let wide = json!({"context": {"targetingKey": "x".repeat(1_000_000)}}).to_string();
    let mut named = event.clone();
    named.value_mut()["requestContext"]["requestId"] = json!(long);
    let mut lists = event.clone();
    for name in [
        "user-agent",
        "x-forwarded-for",
        "origin",
        "x-request-id",
        "traceparent",
        "cookie",
    ] {
        lists = lists.header(name, &"v".repeat(8_000));
    }
    vec![
        ("the path", event.clone().path(&format!("/{long}"), None)),
        (
            "an admin path",
            event
                .clone()
                .path(&format!("/api/admin/flags/x/users/{long}/y"), None),
        ),
        (
            "control characters in the path",
            event.clone().path(&format!("/{controls}"), None),
        ),
        (
            "a path at a function URL",
            event.clone().at_function_url(&format!("/{escaped}")),
        ),
        (
            "a flag key",
            event
                .clone()
                .at_function_url(&format!("/api/config/flags/{huge}")),
        ),
        (
            "a flag key that the gateway found",
            event.clone().parameter("flagKey", &huge),
        ),
        (
            "control characters in a key",
            event.clone().parameter("flagKey", &controls),
        ),
        ("the method", event.clone().method(&"M".repeat(8_000))),
        (
            "a thousand parameters",
            event.clone().query(&parameters.join("&")),
        ),
        (
            "the environment",
            event.clone().query(&format!("environment={long}")),
        ),
        (
            "control characters in the query",
            event.clone().query(&format!("environment={escaped}")),
        ),
        ("a token", event.clone().header("authorization", &token)),
        ("an API key", event.clone().header("x-api-key", &long)),
        (
            "a list of tags",
            event
                .clone()
                .header("if-none-match", &"\"a\",".repeat(2_000)),
        ),
        ("other headers", lists),
        ("a deep body", event.clone().body(&deep)),
        ("a wide body", event.clone().body(&wide)),
        ("the id of the request", named),
    ]
}

#[tokio::test]
async fn no_request_writes_more_to_the_log_than_its_budget() {
    let stack = Stack::start().await;
    let [list, get, evaluate, evaluate_all] = reads();
    let anonymous = |event: Event| {
        event
            .anonymous()
            .without_header("authorization")
            .without_header("x-api-key")
    };
    for (name, event) in [
        list,
        get,
        (evaluate.0, anonymous(evaluate.1)),
        (evaluate_all.0, anonymous(evaluate_all.1)),
        (
            "update-flag",
            anonymous(Event::update("checkout", &json!({}))),
        ),
        (
            "overrides",
            anonymous(Event::admin("DELETE", "/api/admin/flags/x/users/alice", "")),
        ),
        (
            "manage-flags",
            anonymous(Event::admin("GET", "/api/admin/flags", "")),
        ),
        ("health", Event::load("health")),
        ("not-found", Event::load("not-found")),
    ] {
        let names = names(name);
        let environment: Vec<(&str, &str)> = names
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let function = stack.function_with(name, &environment).await;
        let _first = function.call(&event).await;
        for (what, hostile) in hostile(&event) {
            let before = function.log().len();
            let answer = function.call(&hostile).await;
            let log = function.log();
            let written = &log[before..];
            assert!(
                written.len() <= ANONYMOUS,
                "{name}, {what}: {} bytes: {written}",
                written.len()
            );
            assert_eq!(written.lines().count(), 1, "{name}, {what}: {written}");
            assert!(
                answer.status < 500 || name == "health",
                "{name}, {what}: {answer:?}"
            );
        }
        // Every line is valid JSON, and no input has forged one.
        for line in function.lines() {
            assert_eq!(line["domain"], "config", "{line}");
            assert_ne!(line["level"], "ERROR", "{line}");
        }
    }
}

/// Tokens that are rejected for different reasons; a signature is checked only after the issuer's keys were fetched.
fn rejected_tokens(issuer: &Issuer, key: &SigningKey) -> Vec<(&'static str, String)> {
    let sign = |kid: &str, name: &str, value: Value| {
        let mut claims = issuer.claims("alice");
        claims[name] = value;
        key.sign(&json!({ "alg": key.algorithm(), "kid": kid }), &claims)
    };
    let good = sign("k1", "sub", json!("alice"));
    let long = "x".repeat(5_000);
    vec![
        ("no JWT", "e30.".repeat(2_000)),
        ("expired", sign("k1", "exp", json!(now() - 3_600))),
        ("another issuer", sign("k1", "iss", json!(long))),
        ("another audience", sign("k1", "aud", json!([long]))),
        ("an unknown key", sign(&long, "sub", json!("alice"))),
        ("a key of nobody", sign("k2", "sub", json!("alice"))),
        (
            "a changed signature",
            format!("{}AAAA", &good[..good.len() - 4]),
        ),
        ("no user", sign("k1", "sub", json!(""))),
    ]
}

/// At DEBUG and TRACE too: the HTTP client that fetches the keys must not log its steps.
#[tokio::test]
async fn a_rejected_token_stays_within_the_budget_of_a_request() {
    let key = SigningKey::p256();
    let issuer = Issuer::start(&[key.public("k1")]).await;
    let stack = Stack::start().await;
    let names = names("list-flags");
    for (level, fault) in [
        ("INFO", None),
        ("DEBUG", None),
        ("DEBUG", Some(Fault::Failing)),
        ("TRACE", Some(Fault::OtherIssuer)),
    ] {
        issuer.set_fault(fault);
        if fault == Some(Fault::OtherIssuer) {
            issuer.set_metadata("issuer", json!("x".repeat(5_000)));
        }
        let mut environment = vec![("AWS_LAMBDA_LOG_LEVEL", level)];
        environment.extend(names.iter().map(|(name, value)| (*name, value.as_str())));
        environment.extend(issuer.environment());
        let function = stack.function_with("list-flags", &environment).await;
        let mut failures = 0;
        for (what, token) in rejected_tokens(&issuer, &key) {
            let before = function.log().len();
            let event = Event::list().header("authorization", &format!("Bearer {token}"));
            let answer = function
                .call(&event.query(&format!("environment=production&{}=1", "x".repeat(5_000))))
                .await;
            assert_eq!(answer.status, 200, "{what} at {level}: {answer:?}");
            let log = function.log();
            let written = &log[before..];
            assert!(
                written.len() <= ANONYMOUS,
                "{what} at {level}: {} bytes: {written}",
                written.len()
            );
            assert_eq!(written.lines().count(), 1, "{what} at {level}: {written}");
            let line = function.last_request();
            assert!(line["token_error"].is_string(), "{what} at {level}: {line}");
            failures += usize::from(line["issuer_error"].is_string());
        }
        // The keys are fetched once in ten seconds.
        assert_eq!(failures, usize::from(fault.is_some()), "{}", function.log());
    }
}

#[tokio::test]
async fn the_log_has_the_path_of_the_route_and_names_no_user() {
    let stack = Stack::start().await;
    let users = "/api/admin/flags/checkout/users";
    let overrides = stack.function("overrides").await;
    let body = json!({"userId": "alice-4711", "overrideType": "include"}).to_string();
    let set = overrides.call(&Event::admin("POST", users, &body)).await;
    assert_eq!(set.status, 201, "{set:?}");
    for event in [
        Event::admin("DELETE", &format!("{users}/alice-4711"), ""),
        Event::admin("DELETE", &format!("{users}/alice-4711"), ""),
        Event::admin("DELETE", &format!("{users}/-"), "").query("userId=alice-4711"),
        // An unknown path, and a known path with another method.
        Event::admin("DELETE", &format!("{users}/alice-4711"), "")
            .at_function_url(&format!("{users}/alice-4711/alice-4711")),
        Event::admin("DELETE", &format!("{users}/alice-4711"), "")
            .at_function_url(&format!("{users}/alice-4711"))
            .method("PUT"),
    ] {
        let _any_answer = overrides.call(&event).await;
    }
    assert!(
        !overrides.log().contains("alice-4711"),
        "{}",
        overrides.log()
    );
    let paths: Vec<String> = overrides
        .requests()
        .iter()
        .map(|line| line["path"].as_str().expect("a path").to_owned())
        .collect();
    let route = "/api/admin/flags/{flagKey}/users/{userId}";
    assert_eq!(
        paths,
        [
            "/api/admin/flags/{flagKey}/users",
            route,
            route,
            route,
            "/api/admin/flags/*/users/*/*",
            route
        ]
    );
    assert_eq!(overrides.requests()[1]["flag_key"], "checkout");
}
