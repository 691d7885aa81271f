//! The contract of clients: paths, statuses, bodies and headers, through the compiled functions with the events of API
//! Gateway.

use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES, SYNC_KEY};
use pennon_tests::lambda::Function;
use pennon_tests::response::Response;
use pennon_tests::stack::{Stack, percentage};
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

/// The `details` of a 400 response, after a check of its form.
fn validation_details(answer: &Response) -> Value {
    assert_eq!(answer.status, 400, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error"], "Validation failed");
    assert!(body["details"]["formErrors"].is_array(), "{body}");
    assert!(body["details"]["fieldErrors"].is_object(), "{body}");
    body["details"].clone()
}

#[tokio::test]
async fn a_single_flag_returns_its_raw_state_in_a_fixed_order() {
    let stack = Stack::start().await;
    let get = stack.function("get-flag").await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        r#"{"key":"checkout","enabled":true,"rolloutPercentage":50,"description":null}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-request-id"), Some("event-get-flag"));
    // The caller does not matter, although bucket 52 is outside 50 %.
    let answer = get.call(&Event::get("checkout").user("user-1", "[]")).await;
    assert_eq!(answer.json()["enabled"], true);
}

#[tokio::test]
async fn an_unknown_flag_is_404_in_the_format_of_the_existing_service() {
    let stack = Stack::start().await;
    let get = stack.function("get-flag").await;
    let answer = get.call(&Event::get("no-such-flag")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.body,
        r#"{"error":"NOT_FOUND","message":"Flag 'no-such-flag' not found"}"#
    );
}

#[tokio::test]
async fn flags_whose_stored_keys_have_unusual_characters_are_returned() {
    let stack = Stack::start().await;
    let keys = ["with space", "käse/😀", "__rev", "__l:x", "a'b\"c", "%00"];
    for key in keys {
        stack.database.add_flag(key, true, 7).await;
    }
    let get = stack.function("get-flag").await;
    let list = stack.function("list-flags").await;
    for key in keys {
        let event = Event::get("x").path("/api/config/flags/x", Some(key));
        assert_eq!(percentage(&get.call(&event).await), 7, "{key}");
        assert_eq!(list.call(&Event::list()).await.json()[key], true, "{key}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_stored_is_400_and_never_500() {
    let stack = Stack::start().await;
    for (function, event) in [
        ("get-flag", Event::get("x")),
        ("update-flag", Event::update("x", &json!({}))),
    ] {
        let function = stack.function(function).await;
        for key in ["\0", "a\0b", ""] {
            let event = event.clone().path("/api/x", Some(key));
            let details = validation_details(&function.call(&event).await);
            assert!(details["fieldErrors"]["flagKey"].is_array(), "{details}");
        }
    }
}

#[tokio::test]
async fn the_list_is_evaluated_for_the_caller() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    let on = |checkout: bool| json!({"checkout": checkout, "export": false, "search": true});
    // user-8 has bucket 49 and user-51 bucket 50; checkout is at 50 %.
    for (event, expected) in [
        (Event::list().user("user-8", "[]"), on(true)),
        (Event::list().user("user-51", "[]"), on(false)),
        (Event::list(), on(true)),
    ] {
        let answer = list.call(&event).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), expected);
    }
}

#[tokio::test]
async fn the_list_follows_overrides_unless_the_flag_is_disabled() {
    let stack = Stack::start().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
             select id, 'user-8', 'exclude' from feature_flags where flag_key = 'checkout'
             union all
             select id, 'user-51', 'include' from feature_flags",
        )
        .await
        .expect("overrides");
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list().user("user-8", "[]")).await;
    assert_eq!(answer.json()["checkout"], false);
    let answer = list.call(&Event::list().user("user-51", "[]")).await;
    assert_eq!(
        answer.json(),
        json!({"checkout": true, "export": false, "search": true})
    );
}

#[tokio::test]
async fn only_verified_claims_name_the_user_unless_configuration_says_otherwise() {
    let stack = Stack::start().await;
    let closed = stack.function("list-flags").await;
    let event = Event::list()
        .query("userId=user-51")
        .header("authorization", "Bearer e30.e30.x");
    assert_eq!(closed.call(&event).await.json()["checkout"], true);
    let open = stack
        .function_with("list-flags", &[("TRUST_USER_ID_PARAMETER", "true")])
        .await;
    assert_eq!(open.call(&event).await.json()["checkout"], false);
    let verified = event.user("user-8", "[]");
    assert_eq!(open.call(&verified).await.json()["checkout"], true);
}

#[tokio::test]
async fn environments_are_separate_and_production_is_the_default() {
    let stack = Stack::start().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
             values ('checkout', true, 5, 'staging')",
        )
        .await
        .expect("a flag");
    let get = stack.function("get-flag").await;
    for (query, expected) in [
        ("", 50),
        ("environment=", 50),
        ("environment=production", 50),
        ("environment=staging", 5),
    ] {
        let answer = get.call(&Event::get("checkout").query(query)).await;
        assert_eq!(percentage(&answer), expected, "{query}");
    }
}

#[tokio::test]
async fn an_unknown_environment_has_no_flags() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list().query("environment=nowhere")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    let get = stack.function("get-flag").await;
    let answer = get
        .call(&Event::get("checkout").query("environment=nowhere"))
        .await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn an_invalid_environment_name_is_400() {
    let stack = Stack::start().await;
    for (name, event) in [
        ("list-flags", Event::list()),
        ("get-flag", Event::get("checkout")),
        ("update-flag", Event::update("checkout", &json!({}))),
    ] {
        let function = stack.function(name).await;
        for bad in ["a%20b", "123456789012345678901", "%00", "a:b", "%C3%A9"] {
            let event = event.clone().query(&format!("environment={bad}"));
            let details = validation_details(&function.call(&event).await);
            assert!(details["fieldErrors"]["environment"].is_array(), "{bad}");
        }
    }
}

#[tokio::test]
async fn an_update_answers_with_the_new_state_by_patch_and_by_post() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let patch = Event::update(
        "checkout",
        &json!({"enabled": false, "rolloutPercentage": 1e1, "description": "why"}),
    );
    let answer = update.call(&patch).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        r#"{"key":"checkout","enabled":false,"rolloutPercentage":10,"description":"why"}"#
    );
    let post = Event::load("update-flag-post").path("/admin/flags/checkout", Some("checkout"));
    let answer = update.call(&post).await;
    assert_eq!(
        answer.body,
        r#"{"key":"checkout","enabled":false,"rolloutPercentage":50,"description":"why"}"#
    );
}

#[tokio::test]
async fn an_empty_update_is_legal_and_touches_updated_at() {
    let stack = Stack::start().await;
    stack
        .database
        .sql()
        .batch_execute("update feature_flags set updated_at = '2020-01-01'")
        .await
        .expect("an old date");
    let update = stack.function("update-flag").await;
    let answer = update.call(&Event::update("checkout", &json!({}))).await;
    assert_eq!(percentage(&answer), 50);
    let fresh: bool = stack
        .database
        .sql()
        .query_one(
            "select updated_at between (now() at time zone 'utc') - interval '1 hour'
                               and (now() at time zone 'utc') + interval '1 hour'
             from feature_flags where flag_key = 'checkout'",
            &[],
        )
        .await
        .expect("a row")
        .get(0);
    assert!(fresh, "updated_at is not the present time in UTC");
}

#[tokio::test]
async fn an_update_reports_every_mistake_and_changes_nothing() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let body = json!({"enabled": "yes", "rolloutPercentage": 101, "description": 5});
    let details = validation_details(&update.call(&Event::update("checkout", &body)).await);
    let fields = details["fieldErrors"].as_object().expect("an object");
    assert_eq!(fields.len(), 3, "{details}");
    for text in ["", "{", "[]", "null", "{\"enabled\":tru"] {
        let details = validation_details(&update.call(&Event::update_text("checkout", text)).await);
        assert_ne!(details["formErrors"], json!([]), "{text}");
    }
    let get = stack.function("get-flag").await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
}

#[tokio::test]
async fn validation_comes_before_existence_and_existence_is_checked() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let bad = Event::update("no-such-flag", &json!({"rolloutPercentage": -1}));
    validation_details(&update.call(&bad).await);
    let good = Event::update("no-such-flag", &json!({"rolloutPercentage": 1}));
    let answer = update.call(&good).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"], "NOT_FOUND");
    let elsewhere = Event::update("checkout", &json!({})).query("environment=nowhere");
    assert_eq!(update.call(&elsewhere).await.status, 404);
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_named() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let body = json!({"rolloutPercentage": 3, "owner": "x", "a\nb": 1});
    let answer = update.call(&Event::update("checkout", &body)).await;
    assert_eq!(percentage(&answer), 3);
    assert_eq!(answer.header("x-ignored-fields"), Some("owner, a?b"));
    assert_eq!(
        update.last_request()["ignored_fields"],
        json!(["owner", "a\nb"])
    );
    validation_details(
        &update
            .call(&Event::update("checkout", &json!({"owner": "x"})))
            .await,
    );
}

#[tokio::test]
async fn admin_routes_reject_callers_without_a_verified_identity() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let event = Event::update("checkout", &json!({"enabled": false}));
    let nobody = event.clone().anonymous();
    for (event, status, error) in [
        (nobody.clone(), 401, "Unauthorized"),
        // The gateway has not verified the claims of this token.
        (
            nobody
                .clone()
                .header("authorization", "Bearer e30.eyJzdWIiOiJhIn0.x"),
            401,
            "Unauthorized",
        ),
        (nobody.query("userId=admin"), 401, "Unauthorized"),
        (event.clone().user("u-1", "[users]"), 403, "Forbidden"),
        (event.clone().user("u-1", ""), 403, "Forbidden"),
        (event.clone().user("", "[admin]"), 401, "Unauthorized"),
    ] {
        let answer = update.call(&event).await;
        assert_eq!(answer.status, status, "{event:?}");
        assert_eq!(answer.json()["error"], error);
    }
    let get = stack.function("get-flag").await;
    let state = get.call(&Event::get("checkout")).await.json();
    assert_eq!(state["enabled"], true, "a rejected request was applied");
    for groups in ["[admin]", "[users admins]", "admin"] {
        let answer = update.call(&event.clone().user("u-1", groups)).await;
        assert_eq!(answer.status, 200, "{groups}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_404_and_under_admin_401() {
    let function = Function::start("not-found", &[]).await;
    let event = Event::load("not-found");
    for (path, status, error) in [
        ("/no/such/path", 404, "Not found"),
        ("/api/config/flags/a/b", 404, "Not found"),
        ("/api/admin/nothing", 401, "Unauthorized"),
        ("/admin/nothing", 401, "Unauthorized"),
    ] {
        let answer = function.call(&event.clone().path(path, None)).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.json()["error"], error, "{path}");
    }
    let admin = event.path("/api/admin/nothing", None).user("u", "[admin]");
    assert_eq!(function.call(&admin).await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_rejected_only_after_the_route_and_the_role_are_checked() {
    let stack = Stack::start().await;
    let large = "x".repeat(4_000_001);
    let unknown = Event::load("not-found").body(&large);
    let update = Event::update_text("checkout", &large);
    for (function, event, status) in [
        (
            "not-found",
            unknown.clone().path("/no/such/path", None),
            404,
        ),
        ("not-found", unknown.path("/api/admin/nothing", None), 401),
        ("update-flag", update.clone().anonymous(), 401),
        ("update-flag", update.clone().user("u", "[users]"), 403),
        ("update-flag", update.clone(), 413),
        // The size is checked before unknown parameters and the content of the body.
        ("update-flag", update.query("unknown=1"), 413),
    ] {
        let answer = stack.function(function).await.call(&event).await;
        assert_eq!(answer.status, status, "{function}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_matching_etag_is_304_until_a_flag_changes() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    for (name, event) in [
        ("get-flag", Event::get("checkout")),
        ("list-flags", Event::list().user("user-8", "[]")),
    ] {
        let function = stack.function(name).await;
        let first = function.call(&event).await;
        let tag = first.header("etag").expect("an ETag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "weak: {tag}");
        for named in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = function
                .call(&event.clone().header("if-none-match", &named))
                .await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{named}");
            assert_eq!(again.header("etag"), Some(tag.as_str()));
        }
        let changed = Event::update("checkout", &json!({"rolloutPercentage": 51}));
        assert_eq!(update.call(&changed).await.status, 200);
        let after = function.call(&event.header("if-none-match", &tag)).await;
        assert_eq!(after.status, 200, "{name}");
        assert_ne!(after.header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test]
async fn another_caller_has_another_etag() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    let tag = |answer: Response| answer.header("etag").expect("an ETag").to_owned();
    let one = tag(list.call(&Event::list().user("user-8", "[]")).await);
    let other = list
        .call(
            &Event::list()
                .user("user-51", "[]")
                .header("if-none-match", &one),
        )
        .await;
    assert_eq!(other.status, 200);
    assert_ne!(tag(other), one);
}

#[tokio::test]
async fn health_reports_each_service_and_stays_200_when_one_fails() {
    let mut stack = Stack::start().await.with_default_timeouts();
    let health = stack.function_with("health", &[("STAGE", "staging")]).await;
    let answer = health.call(&Event::load("health")).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let names: Vec<&str> = body
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        ["status", "version", "environment", "timestamp", "services"]
    );
    assert_eq!(body["status"], "healthy");
    assert_eq!(body["environment"], "staging");
    assert_eq!(
        body["services"],
        json!({"database": "healthy", "cache": "healthy"})
    );
    let time = body["timestamp"].as_str().expect("a time");
    assert_eq!(time.len(), "2026-11-21T09:00:00.000Z".len(), "{time}");
    assert_eq!((&time[10..11], &time[19..20], &time[23..]), ("T", ".", "Z"));

    stack.redis.kill();
    let answer = health.call(&Event::load("health")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "degraded");
    assert_eq!(answer.json()["services"]["cache"], "unhealthy");
    stack.redis.restart().await;
    let answer = health.call(&Event::load("health")).await;
    assert_eq!(
        answer.json()["status"],
        "healthy",
        "the return of Redis is not reported"
    );
}

#[tokio::test]
async fn readiness_depends_on_the_database_and_liveness_on_the_process_alone() {
    let mut stack = Stack::start().await.with_default_timeouts();
    let health = stack.function("health").await;
    let ready = Event::load("health-ready");
    let answer = health.call(&ready).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"status": "ready", "checks": {"database": "healthy", "cache": "healthy"}})
    );
    stack.redis.kill();
    assert_eq!(health.call(&ready).await.status, 200, "not ready");
    for mode in [Mode::Refuse, Mode::Hang] {
        stack.database_wire.set(Mode::Open).await;
        // Another instance, because one that has queried PostgreSQL does so again only after ten seconds.
        let health = stack.function("health").await;
        stack.database_wire.set(mode.clone()).await;
        let answer = health.call(&ready).await;
        assert_eq!(answer.status, 503, "{mode:?}");
        assert_eq!(answer.json()["status"], "not_ready");
        assert_eq!(answer.json()["checks"]["database"], "unhealthy");
    }
    let live = health.call(&Event::load("health-live")).await;
    assert_eq!((live.status, live.json()), (200, json!({"status": "ok"})));
}

#[tokio::test]
async fn every_event_file_is_answered_by_its_function() {
    let stack = Stack::start().await;
    stack.database.add_flag("new-checkout", true, 5).await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    for (file, function, status) in REQUEST_FILES {
        let function = stack.function(function).await;
        let answer = function.call(&Event::load(file)).await;
        assert_eq!(answer.status, status, "{file}: {answer:?}");
    }
    // Events that are not requests. pre_traffic.rs sends pre-traffic.json, which needs a control plane.
    for (file, expected) in [
        (
            "migrate",
            json!({"applied": 0, "evaluationDefaults": "existing"}),
        ),
        (
            "reconcile",
            json!({"applied": 0, "environments": 2, "repaired": 0, "warmed": 0}),
        ),
        (
            "count-evaluations",
            json!({"lines": 1, "evaluations": 2, "again": false}),
        ),
        ("guard", json!({"state": "ALARM", "rolledBack": 0})),
        (
            "send-webhooks",
            json!({"outcomes": [
                {"retryable": false, "reason": "the URL must name a public address"},
            ]}),
        ),
    ] {
        let function = stack.function(file).await;
        let answer = function.invoke(Event::load(file).value()).await;
        assert_eq!(answer, Ok(expected), "{file}");
    }
}

#[tokio::test]
async fn an_unexpected_event_causes_no_function_error() {
    let stack = Stack::start().await;
    let get = stack.function("get-flag").await;
    // No path parameters, as from a misconfigured route.
    let event = Event::get("checkout").path("/api/config/flags/checkout", None);
    assert_eq!(get.call(&event).await.status, 400);
    let event = Event::get("checkout").query("environment=production&environment=x&%FF=%ZZ");
    assert_eq!(get.call(&event).await.status, 200);
    // An event that is not HTTP; `events.rs` has more of them.
    let answer = get
        .invoke(&json!({"hello": "world"}))
        .await
        .expect("an answer");
    assert_eq!(answer["statusCode"], 400);
    assert_eq!(get.call(&Event::get("checkout")).await.status, 200);
}

#[tokio::test]
async fn no_url_or_header_crashes_a_function() {
    let stack = Stack::start().await;
    let get = stack.function("get-flag").await;
    for query in [
        "a=\"<>",
        "a=%",
        "a=%ff",
        "a=\u{7f}",
        "=&&=",
        "a=`{|}^ b",
        "ä=ö",
    ] {
        let answer = get.call(&Event::get("checkout").query(query)).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
    }
    for path in [
        "/api/config/flags/%",
        "/api/config/flags/\"<>",
        "/a b",
        "//",
        "/%00",
    ] {
        let answer = get
            .call(&Event::get("checkout").path(path, Some("none")))
            .await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
    for host in ["a b", "[", "", "x:99999", "ä.example", "a@b", "%"] {
        let answer = get.call(&Event::get("checkout").header("host", host)).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}
