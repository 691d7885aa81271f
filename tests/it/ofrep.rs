//! The OpenFeature Remote Evaluation Protocol, through the compiled functions.

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

/// A stack with simple flags, typed flags of all kinds, and the example key.
async fn stack() -> Stack {
    let stack = Stack::start().await;
    let database = &stack.database;
    database.add_key(EXAMPLE_KEY).await;
    let variants = |variants: Value| json!({"variants": variants, "defaultVariant": "a"});
    for (key, definition) in [
        ("t-boolean", variants(json!({"a": true, "b": false}))),
        ("t-string", variants(json!({"a": "hello"}))),
        ("t-integer", variants(json!({"a": 7}))),
        ("t-float", variants(json!({"a": 2.0, "b": 2.5}))),
        (
            "t-object",
            variants(json!({"a": {"z": 1, "a": [1.0, null, {"b": "c"}]}})),
        ),
        (
            "t-code-default",
            json!({"variants": {"a": "x"}, "defaultVariant": null}),
        ),
    ] {
        database.add_typed_flag(key, &definition).await;
    }
    stack
}

fn alice() -> Value {
    json!({"targetingKey": "alice"})
}

/// Checks the form of an error response, and returns its details.
fn failure(answer: &Response, status: u16, code: &str, key: Option<&str>) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body["errorCode"], code, "{answer:?}");
    assert_eq!(body.get("key").and_then(Value::as_str), key, "{answer:?}");
    let details = body["errorDetails"].as_str().expect("errorDetails");
    assert!(!details.is_empty());
    details.to_owned()
}

#[tokio::test]
async fn a_simple_flag_returns_value_variant_and_reason() {
    let stack = stack().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
             select id, 'user-51', 'include' from feature_flags where flag_key = 'checkout'",
        )
        .await
        .expect("an override");
    let evaluate = stack.function("evaluate-flag").await;
    // user-8 has bucket 49 and user-118 bucket 99; checkout is at 50 %.
    for (flag, user, value, variant, reason) in [
        ("search", "user-8", true, "on", "STATIC"),
        ("checkout", "user-8", true, "on", "SPLIT"),
        ("checkout", "user-118", false, "off", "SPLIT"),
        ("checkout", "user-51", true, "on", "TARGETING_MATCH"),
        ("export", "user-8", false, "off", "DISABLED"),
    ] {
        let event = Event::evaluate(flag, &json!({"targetingKey": user}));
        let answer = evaluate.call(&event).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"key": flag, "value": value, "reason": reason, "variant": variant}),
        );
    }
}

#[tokio::test]
async fn every_value_keeps_its_json_form() {
    let stack = stack().await;
    let evaluate = stack.function("evaluate-flag").await;
    for (flag, value) in [
        ("t-boolean", "true"),
        ("t-string", r#""hello""#),
        ("t-integer", "7"),
        ("t-float", "2.0"),
        ("t-object", r#"{"z":1,"a":[1.0,null,{"b":"c"}]}"#),
    ] {
        let answer = evaluate.call(&Event::evaluate(flag, &alice())).await;
        assert_eq!(
            answer.body,
            format!(r#"{{"key":"{flag}","value":{value},"reason":"STATIC","variant":"a"}}"#)
        );
    }
}

#[tokio::test]
async fn the_code_default_is_an_absent_value_and_never_null() {
    let stack = stack().await;
    let evaluate = stack.function("evaluate-flag").await;
    let answer = evaluate
        .call(&Event::evaluate("t-code-default", &alice()))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body.get("value"), None, "{body}");
    assert!(body["variant"].is_string(), "{body}");
    assert_eq!(body["reason"], "DEFAULT");
}

#[tokio::test]
async fn without_a_targeting_key_only_flags_with_a_partial_rollout_fail() {
    let stack = stack().await;
    let evaluate = stack.function("evaluate-flag").await;
    for context in [json!({}), json!({"plan": "pro"})] {
        let answer = evaluate.call(&Event::evaluate("search", &context)).await;
        assert_eq!(answer.json()["value"], true, "{answer:?}");
        let answer = evaluate.call(&Event::evaluate("export", &context)).await;
        assert_eq!(answer.json()["reason"], "DISABLED", "{answer:?}");
        let answer = evaluate.call(&Event::evaluate("checkout", &context)).await;
        failure(&answer, 400, "TARGETING_KEY_MISSING", Some("checkout"));
    }
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list()).await;
    assert_eq!(
        answer.json()["checkout"],
        true,
        "GET /api/config/flags differs from the existing service (docs/migration.md)"
    );
}

#[tokio::test]
async fn an_unknown_flag_is_404_with_its_key() {
    let stack = stack().await;
    let evaluate = stack.function("evaluate-flag").await;
    for key in ["no-such-flag", "käse 😀", "a\0b"] {
        let answer = evaluate.call(&Event::evaluate(key, &alice())).await;
        let details = failure(&answer, 404, "FLAG_NOT_FOUND", Some(key));
        assert!(details.contains(key), "{details}");
        assert!(answer.header("x-cache-source").is_some(), "{answer:?}");
    }
}

#[tokio::test]
async fn requests_without_a_valid_key_are_rejected() {
    let stack = stack().await;
    let random = "x".repeat(43);
    for name in ["evaluate-flag", "evaluate-flags"] {
        let function = stack.function(name).await;
        let event = match name {
            "evaluate-flag" => Event::evaluate("search", &alice()),
            _ => Event::evaluate_all(&alice()),
        };
        let key = (name == "evaluate-flag").then_some("search");
        let none = event.clone().without_header("authorization");
        let unknown = [
            none.clone(),
            none.clone().user("u-1", "[admin]"),
            event.clone().api_key(""),
            event.clone().api_key("local-test-token"),
            event
                .clone()
                .api_key(&format!("pennon_server_production_{random}")),
            event
                .clone()
                .api_key(&format!("pennon_client_production_{random}")),
            event
                .clone()
                .api_key(&format!("pennon_server_nowhere_{random}")),
            event.clone().header("authorization", EXAMPLE_KEY),
            event
                .clone()
                .api_key(&EXAMPLE_KEY.replace("server", "client")),
            // Without a key, an invalid request is 401 too.
            none.clone().body("{"),
        ];
        for event in unknown {
            let answer = function.call(&event).await;
            failure(&answer, 401, "GENERAL", key);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        let by_header = none.header("x-api-key", EXAMPLE_KEY);
        assert_eq!(function.call(&by_header).await.status, 200);
        let by_token = event.header("authorization", &format!("bearer {EXAMPLE_KEY}"));
        assert_eq!(function.call(&by_token).await.status, 200);
    }
}

#[tokio::test]
async fn a_key_opens_its_own_environment_and_no_other() {
    let stack = stack().await;
    let staging = "pennon_server_staging_".to_owned() + &"s".repeat(43);
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
             values ('only-staging', true, 100, 'staging')",
        )
        .await
        .expect("a flag");
    stack.database.add_key(&staging).await;
    let evaluate = stack.function("evaluate-flag").await;
    let here = Event::evaluate("only-staging", &alice());
    failure(
        &evaluate.call(&here).await,
        404,
        "FLAG_NOT_FOUND",
        Some("only-staging"),
    );
    let there = here.api_key(&staging);
    assert_eq!(evaluate.call(&there).await.json()["value"], true);
    for (query, status) in [
        ("environment=staging", 200),
        ("environment=", 200),
        ("environment=production", 403),
        ("environment=a%20b", 400),
    ] {
        let answer = evaluate.call(&there.clone().query(query)).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        if status != 200 {
            failure(&answer, status, "GENERAL", Some("only-staging"));
        }
    }
}

#[tokio::test]
async fn an_invalid_body_returns_an_ofrep_error() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    for (body, code) in [
        ("{", "PARSE_ERROR"),
        ("{\"context\":{\"a\":}}", "PARSE_ERROR"),
        ("", "INVALID_CONTEXT"),
        ("null", "INVALID_CONTEXT"),
        ("[]", "INVALID_CONTEXT"),
        ("{}", "INVALID_CONTEXT"),
        (r#"{"context":null}"#, "INVALID_CONTEXT"),
        (r#"{"context":[]}"#, "INVALID_CONTEXT"),
        (r#"{"context":"alice"}"#, "INVALID_CONTEXT"),
        (r#"{"context":{"targetingKey":7}}"#, "INVALID_CONTEXT"),
    ] {
        let answer = one
            .call(&Event::evaluate("search", &alice()).body(body))
            .await;
        failure(&answer, 400, code, Some("search"));
        let answer = all.call(&Event::evaluate_all(&alice()).body(body)).await;
        failure(&answer, 400, code, None);
    }
    let answer = one.call(&Event::evaluate("search", &alice())).await;
    assert_eq!(answer.status, 200, "invalid bodies stopped the function");
}

#[tokio::test]
async fn an_ofrep_body_over_64_kib_is_rejected_with_413() {
    let stack = stack().await;
    let context = |size: usize| json!({"targetingKey": "alice", "a": "x".repeat(size)});
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    let answer = one.call(&Event::evaluate("search", &context(65_000))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = one.call(&Event::evaluate("search", &context(70_000))).await;
    failure(&answer, 413, "GENERAL", Some("search"));
    let answer = all.call(&Event::evaluate_all(&context(70_000))).await;
    failure(&answer, 413, "GENERAL", None);
}

#[tokio::test]
async fn all_flags_are_ordered_by_key_and_a_flag_that_fails_does_not_affect_the_others() {
    let stack = stack().await;
    let all = stack.function("evaluate-flags").await;
    let answer = all.call(&Event::evaluate_all(&json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let items = body["flags"].as_array().expect("a list");
    let keys: Vec<&str> = items
        .iter()
        .map(|item| item["key"].as_str().expect("a key"))
        .collect();
    assert_eq!(
        keys,
        [
            "checkout",
            "export",
            "search",
            "t-boolean",
            "t-code-default",
            "t-float",
            "t-integer",
            "t-object",
            "t-string"
        ]
    );
    assert_eq!(items[0]["errorCode"], "TARGETING_KEY_MISSING");
    assert!(items[0]["errorDetails"].is_string(), "{}", items[0]);
    for item in &items[1..] {
        assert!(
            item["reason"].is_string() && item["variant"].is_string(),
            "{item}"
        );
        assert_eq!(item.get("errorCode"), None);
    }
    assert!(answer.body.contains(r#""value":2.0"#), "{answer:?}");
    assert_eq!(items[4].get("value"), None);
}

#[tokio::test]
async fn a_matching_etag_is_answered_with_304() {
    let stack = stack().await;
    let all = stack.function("evaluate-flags").await;
    let event = Event::evaluate_all(&json!({"targetingKey": "alice", "plan": "pro"}));
    let first = all.call(&event).await;
    let tag = first.header("etag").expect("an ETag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "weak: {tag}");
    for named in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"x\", {tag}"),
        "*".to_owned(),
    ] {
        let again = all
            .call(&event.clone().header("if-none-match", &named))
            .await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{named}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        assert_eq!(again.header("access-control-allow-origin"), Some("*"));
        let exposed = again.header("access-control-expose-headers");
        assert!(exposed.is_some_and(|names| names.contains("ETag")));
    }
    let hinted = event
        .clone()
        .query("flagConfigEtag=%22x%22&flagConfigLastModified=1");
    assert_eq!(
        all.call(&hinted).await.status,
        200,
        "flagConfigEtag counted as If-None-Match"
    );
    let reordered = event
        .clone()
        .body(r#"{ "context": {"plan": "pro", "targetingKey": "alice"} }"#)
        .header("if-none-match", &tag);
    assert_eq!(all.call(&reordered).await.status, 304, "another ETag");

    let update = stack.function("update-flag").await;
    let change = Event::update("search", &json!({"enabled": false}));
    assert_eq!(update.call(&change).await.status, 200);
    let after = all.call(&event.header("if-none-match", &tag)).await;
    assert_eq!(after.status, 200, "an ETag from before the change matched");
    assert_ne!(after.header("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn with_rules_that_read_the_time_an_etag_stops_matching_when_the_response_changes() {
    let stack = stack().await;
    let all = stack.function("evaluate-flags").await;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    // Longer than the next two calls take on a busy machine.
    let soon = now.as_secs() + 10;
    stack
        .database
        .add_typed_flag(
            "launch",
            &json!({
                "variants": {"before": 1, "after": 2}, "defaultVariant": "before",
                "targeting": {"if": [{">=": [{"var": "$flagd.timestamp"}, soon]}, "after", "before"]},
            }),
        )
        .await;
    let event = Event::evaluate_all(&alice());
    let first = all.call(&event).await;
    assert!(first.body.contains(r#""variant":"before""#), "{first:?}");
    let tag = first.header("etag").expect("an ETag").to_owned();
    let again = event.header("if-none-match", &tag);
    assert_eq!(all.call(&again).await.status, 304);
    eventually("the launch shows", async || {
        let answer = all.call(&again).await;
        answer.status == 200 && answer.body.contains(r#""variant":"after""#)
    })
    .await;
}

#[tokio::test]
async fn another_context_or_another_kind_of_key_gets_another_etag() {
    let stack = stack().await;
    let client = "pennon_client_production_".to_owned() + &"c".repeat(43);
    stack.database.add_key(&client).await;
    let all = stack.function("evaluate-flags").await;
    let base = Event::evaluate_all(&alice());
    let mut tags = Vec::new();
    for event in [
        base.clone(),
        Event::evaluate_all(&json!({"targetingKey": "bob"})),
        // The OFREP web provider still sends its last ETag if only attributes other than `targetingKey` have changed.
        Event::evaluate_all(&json!({"targetingKey": "alice", "plan": "pro"})),
        Event::evaluate_all(&json!({"targetingKey": "alice", "plan": ["pro"]})),
        Event::evaluate_all(&json!({})),
        base.api_key(&client),
    ] {
        let answer = all.call(&event).await;
        let tag = answer.header("etag").expect("an ETag").to_owned();
        assert!(!tags.contains(&tag), "{event:?}");
        for other in &tags {
            let answer = all
                .call(&event.clone().header("if-none-match", other))
                .await;
            assert_eq!(answer.status, 200, "{event:?}");
        }
        tags.push(tag);
    }
}

#[tokio::test]
async fn a_browser_may_send_requests_and_read_responses() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    let fallback = stack.function("not-found").await;
    let preflight = |event: Event| {
        event
            .method("OPTIONS")
            .without_header("authorization")
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,if-none-match",
            )
    };
    let single = Event::evaluate("search", &alice());
    for (function, event) in [
        (&one, single.clone()),
        (&all, Event::evaluate_all(&alice())),
        (
            &fallback,
            Event::load("not-found").path("/ofrep/v1/evaluate/flags", None),
        ),
        (
            &fallback,
            Event::load("not-found").path("//ofrep/v1/evaluate/flags/x", None),
        ),
    ] {
        let answer = function.call(&preflight(event)).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (204, ""),
            "{answer:?}"
        );
        let header = |name: &str| answer.header(name).unwrap_or_default().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains("post"));
        for name in [
            "authorization",
            "x-api-key",
            "content-type",
            "if-none-match",
        ] {
            assert!(
                header("access-control-allow-headers").contains(name),
                "{name}"
            );
        }
    }
    for event in [
        single.clone(),
        Event::evaluate("no-such-flag", &alice()),
        single.clone().body("{"),
        single.without_header("authorization"),
    ] {
        let answer = one.call(&event).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("*"),
            "{answer:?}"
        );
        let exposed = answer
            .header("access-control-expose-headers")
            .expect("exposed");
        assert!(exposed.contains("ETag") && exposed.contains("Retry-After"));
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_under_ofrep_return_ofrep_errors() {
    let fallback = Function::start("not-found", &[]).await;
    let at = |path: &str, method: &str| Event::load("not-found").path(path, None).method(method);
    for path in [
        "/ofrep",
        "/ofrep/v1/configuration",
        "/api/ofrep/v2/evaluate/flags",
        "/ofrep/v1/evaluate/flags/a/b",
    ] {
        for method in ["GET", "POST"] {
            let answer = fallback.call(&at(path, method)).await;
            failure(&answer, 404, "GENERAL", None);
        }
    }
    for (path, key) in [
        ("/ofrep/v1/evaluate/flags", None),
        ("/api/ofrep/v1/evaluate/flags/a%20b", Some("a b")),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = fallback.call(&at(path, method)).await;
            failure(&answer, 405, "GENERAL", key);
            assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
        }
    }
    let answer = fallback.call(&at("/api/config/flags/ofrep/x", "GET")).await;
    assert_eq!(
        answer.body, r#"{"error":"Not found"}"#,
        "a path outside OFREP got an OFREP error"
    );
}

#[tokio::test]
async fn a_base_url_with_a_slash_at_its_end_or_a_stage_in_it_works() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    for start in ["", "/", "/api", "/prod", "/prod/api/", "/api/"] {
        let path = format!("{start}/ofrep/v1/evaluate/flags");
        // No gateway has extracted the key from this path.
        let event = Event::evaluate("search", &alice()).path(&format!("{path}/search"), None);
        let answer = one.call(&event).await;
        assert_eq!(answer.json()["value"], true, "{path}: {answer:?}");
        let answer = all
            .call(&Event::evaluate_all(&alice()).path(&path, None))
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    // API Gateway has no route for an empty path segment, so `not-found` redirects the client.
    let fallback = stack.function("not-found").await;
    let event = Event::evaluate("search", &alice())
        .path("//ofrep/v1/evaluate/flags/a%2Fb", None)
        .query("environment=production");
    let answer = fallback.call(&event).await;
    assert_eq!(
        answer.status, 308,
        "the redirect may change the method: {answer:?}"
    );
    assert_eq!(
        answer.header("location"),
        Some("/ofrep/v1/evaluate/flags/a%2Fb?environment=production")
    );
}

#[tokio::test]
async fn without_cache_and_database_a_warm_instance_answers_and_a_cold_one_sends_retry_after() {
    let stack = stack().await;
    let warm = stack.function("evaluate-flag").await;
    let event = Event::evaluate("search", &alice());
    assert_eq!(warm.call(&event).await.status, 200);
    let cold = stack.function("evaluate-flag").await;
    stack.redis.set(Mode::Refuse).await;
    stack.database_wire.set(Mode::Refuse).await;
    let answer = warm.call(&event).await;
    assert_eq!(
        (answer.status, answer.source()),
        (200, "stale"),
        "{answer:?}"
    );
    let answer = cold.call(&event).await;
    failure(&answer, 500, "GENERAL", Some("search"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
}

#[tokio::test]
async fn responses_name_their_source() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let event = Event::evaluate("search", &alice());
    assert_eq!(one.call(&event).await.source(), "database");
    let answer = one.call(&event).await;
    assert_eq!(
        (answer.source(), answer.header("x-cache-hit")),
        ("memory", Some("true"))
    );
    let other = stack.function("evaluate-flags").await;
    let answer = other.call(&Event::evaluate_all(&alice())).await;
    assert_eq!(answer.source(), "redis");
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
}

#[tokio::test]
async fn a_client_key_does_not_see_server_only_flags() {
    let stack = stack().await;
    let client = "pennon_client_production_".to_owned() + &"c".repeat(43);
    stack.database.add_key(&client).await;
    stack
        .database
        .add_typed_flag(
            "fraud-limit",
            &json!({"variants": {"a": 1}, "defaultVariant": "a", "metadata": {"serverOnly": true}}),
        )
        .await;
    let one = stack.function("evaluate-flag").await;
    let event = Event::evaluate("fraud-limit", &alice());
    assert_eq!(one.call(&event).await.json()["value"], 1);
    let answer = one.call(&event.api_key(&client)).await;
    failure(&answer, 404, "FLAG_NOT_FOUND", Some("fraud-limit"));
    let all = stack.function("evaluate-flags").await;
    let event = Event::evaluate_all(&alice());
    assert!(all.call(&event).await.body.contains("fraud-limit"));
    let answer = all.call(&event.api_key(&client)).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("fraud-limit"), "{answer:?}");
    assert!(answer.body.contains("t-float"), "{answer:?}");
}

#[tokio::test]
async fn metadata_is_flat() {
    let stack = stack().await;
    stack
        .database
        .add_typed_flag(
            "described",
            &json!({
                "variants": {"a": 1}, "defaultVariant": "a",
                "metadata": {"team": "shop", "tier": 2, "beta": false, "nested": {"a": 1}, "list": [1]},
            }),
        )
        .await;
    let one = stack.function("evaluate-flag").await;
    let answer = one.call(&Event::evaluate("described", &alice())).await;
    assert_eq!(
        answer.json()["metadata"],
        json!({"team": "shop", "tier": 2, "beta": false})
    );
}

#[tokio::test]
async fn ten_thousand_flags_fit_into_one_answer_and_large_values_fail_alone() {
    let stack = stack().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage)
             select 'flag-' || lpad(n::text, 5, '0'), true, 50 from generate_series(1, 10000) as n",
        )
        .await
        .expect("flags");
    let all = stack.function("evaluate-flags").await;
    let answer = all.call(&Event::evaluate_all(&alice())).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["flags"].as_array().map(Vec::len), Some(10_009));
    // Lambda receives the response as JSON, with the body as a string in it.
    let wire = json!({ "body": answer.body }).to_string().len();
    assert!(wire < 6 * 1024 * 1024, "{wire}");

    let large = json!({"variants": {"a": "x".repeat(700_000)}, "defaultVariant": "a"});
    for number in 0..10 {
        stack
            .database
            .add_typed_flag(&format!("large-{number}"), &large)
            .await;
    }
    stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
    let answer = all.call(&Event::evaluate_all(&alice())).await;
    assert_eq!(answer.status, 200);
    let wire = json!({ "body": answer.body }).to_string().len();
    assert!(wire < 6 * 1024 * 1024, "{wire}");
    let body = answer.json();
    let flags = body["flags"].as_array().expect("a list");
    assert_eq!(flags.len(), 10_019);
    let failed: Vec<&Value> = flags
        .iter()
        .filter(|flag| !flag["errorCode"].is_null())
        .collect();
    assert!(!failed.is_empty() && failed.len() < 10, "{}", failed.len());
    for flag in failed {
        assert_eq!(flag["errorCode"], "GENERAL", "{flag}");
        assert!(
            flag["key"]
                .as_str()
                .is_some_and(|key| key.starts_with("large-")),
            "{flag}"
        );
        let details = flag["errorDetails"].as_str().unwrap_or_default();
        assert!(details.contains("bytes"), "{details}");
    }
}

#[tokio::test]
async fn a_value_too_large_for_a_response_fails_only_its_flag() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let of_size = |text: &str, size: usize| json!({"variants": {"a": text.repeat(size / text.len())}, "defaultVariant": "a"});
    // The first is too large by itself, the second because of its escapes, and the others in total.
    for (key, definition) in [
        ("huge", of_size("x", 6_500_000)),
        ("quotes", of_size("\"", 2_500_000)),
        ("large-1", of_size("x", 2_500_000)),
        ("large-2", of_size("x", 2_600_000)),
        ("large-3", of_size("x", 2_700_000)),
    ] {
        stack.database.add_typed_flag(key, &definition).await;
    }
    let context = json!({"targetingKey": "alice"});
    let one = stack.function("evaluate-flag").await;
    for key in ["huge", "quotes"] {
        let event = Event::evaluate(key, &context).api_key(EXAMPLE_KEY);
        let answer = one.call(&event).await;
        assert_eq!(answer.status, 400, "{key}: {}", answer.body.len());
        let body = answer.json();
        assert_eq!(
            (&body["key"], &body["errorCode"]),
            (&json!(key), &json!("GENERAL"))
        );
        let details = body["errorDetails"].as_str().expect("a text");
        assert!(details.contains("too large"), "{details}");
    }
    let event = Event::evaluate("large-3", &context).api_key(EXAMPLE_KEY);
    assert_eq!(one.call(&event).await.status, 200);

    let all = stack.function("evaluate-flags").await;
    let answer = all
        .call(&Event::evaluate_all(&context).api_key(EXAMPLE_KEY))
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 5_900_000);
    let body = answer.json();
    let flags = body["flags"].as_array().expect("flags");
    let keys: Vec<&Value> = flags.iter().map(|flag| &flag["key"]).collect();
    assert_eq!(
        keys,
        [
            "checkout", "export", "huge", "large-1", "large-2", "large-3", "quotes", "search"
        ]
    );
    let failed: Vec<&Value> = flags
        .iter()
        .filter(|flag| flag["errorCode"] == "GENERAL")
        .map(|flag| &flag["key"])
        .collect();
    assert_eq!(failed, ["huge", "large-3", "quotes"]);
}

#[tokio::test]
async fn a_large_response_is_compressed_for_clients_that_accept_it() {
    let stack = stack().await;
    let sql = "insert into feature_flags (flag_key, enabled, rollout_percentage)
               select 'flag-' || n, true, 100 from generate_series(1, 100) as n";
    stack
        .database
        .sql()
        .batch_execute(sql)
        .await
        .expect("flags");
    for function in ["evaluate-flags", "list-flags"] {
        let event = match function {
            "list-flags" => Event::list(),
            _ => Event::evaluate_all(&alice()),
        };
        let instance = stack.function(function).await;
        let plain = instance.call(&event).await;
        for coding in ["gzip", "zstd"] {
            let accepts = event.clone().header("accept-encoding", coding);
            let raw = instance.invoke(accepts.value()).await.expect("a response");
            assert_eq!(raw["isBase64Encoded"], true);
            let length = raw["body"].as_str().map_or(0, str::len);
            assert!(
                length * 2 < plain.body.len(),
                "{length} of {}",
                plain.body.len()
            );
            let compressed = Response::of_gateway(&raw);
            assert_eq!(compressed.body, plain.body);
            assert_eq!(compressed.header("content-encoding"), Some(coding));
            for answer in [&plain, &compressed] {
                let vary = answer.header("vary").expect("vary");
                assert!(vary.ends_with("Accept-Encoding"), "{vary}");
                let tag = answer.header("etag").expect("a tag");
                let unchanged = instance
                    .call(&accepts.clone().header("if-none-match", tag))
                    .await;
                assert_eq!(
                    (unchanged.status, unchanged.header("etag")),
                    (304, Some(tag))
                );
            }
            assert_ne!(plain.header("etag"), compressed.header("etag"));
        }
    }
}
