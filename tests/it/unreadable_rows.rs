//! One row that makes no sense harms only what depends on it, and can be repaired by the API.

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::stack::{Stack, percentage};
use serde_json::{Value, json};

const DEFINITION: &str = r#"{"variants": {"on": true, "off": false}, "defaultVariant": "on"}"#;

async fn sql(stack: &Stack, text: &str) {
    stack.database.sql().batch_execute(text).await.expect(text);
}

fn evaluation(key: &str, user: &str) -> Event {
    Event::evaluate(key, &json!({ "targetingKey": user })).api_key(EXAMPLE_KEY)
}

#[tokio::test]
async fn an_unreadable_definition_fails_its_flag_alone_and_can_be_repaired() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let definition: Value = serde_json::from_str(DEFINITION).expect("JSON");
    stack.database.add_typed_flag("bad", &definition).await;
    let list = stack.function("list-flags").await;
    let get = stack.function("get-flag").await;
    let evaluate = stack.function("evaluate-flag").await;
    let health = stack.function("health").await;
    let manage = stack.function("manage-flags").await;
    let update = stack.function("update-flag").await;
    for text in [
        "null",
        "[]",
        "5",
        "\"x\"",
        r#"{"variants": []}"#,
        r#"{"variants": 1, "metadata": 2}"#,
    ] {
        let statement =
            format!("update feature_flags set definition = '{text}'::json where flag_key = 'bad'");
        sql(&stack, &statement).await;
        stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
        for _ in 0..2 {
            let answer = list.call(&Event::list()).await;
            assert_eq!(answer.status, 200, "{text}: {answer:?}");
            let expected = json!({"checkout": true, "export": false, "search": true});
            assert_eq!(answer.json(), expected, "{text}");
            let line = list.last_request();
            assert_eq!(line["unreadable_rows"], 1, "{text}: {line}");
            let told = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
            assert!(told.to_string().contains("unreadable_rows"), "{told}");
        }
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        let failed = evaluate.call(&evaluation("bad", "alice")).await;
        assert_eq!(
            (failed.status, &failed.json()["errorCode"]),
            (400, &json!("PARSE_ERROR")),
            "{text}"
        );
        assert_eq!(
            evaluate.call(&evaluation("search", "alice")).await.status,
            200
        );
        let degraded = health.call(&Event::load("health")).await.json();
        assert_eq!(
            (&degraded["status"], &degraded["unreadableRows"]),
            (&json!("degraded"), &json!(1))
        );

        let read = manage
            .call(&Event::admin("GET", "/api/admin/flags/bad", ""))
            .await;
        assert_eq!(read.status, 200, "{read:?}");
        assert_eq!(read.json()["broken"]["definition"], *text);
        // A change of something else leaves what is stored.
        let switched = update
            .call(&Event::update("bad", &json!({"enabled": true})))
            .await;
        assert_eq!(switched.status, 200, "{switched:?}");
        let rows = stack
            .database
            .sql()
            .query_one(
                "select definition::text from feature_flags where flag_key = 'bad'",
                &[],
            )
            .await
            .expect("a row");
        assert_eq!(rows.get::<_, String>(0), text);
        let body = json!({ "definition": definition });
        let repaired = update
            .call(&Event::update("bad", &body).header("if-match", "*"))
            .await;
        assert_eq!(repaired.status, 200, "{repaired:?}");
        let given = evaluate.call(&evaluation("bad", "alice")).await;
        assert_eq!((given.status, &given.json()["value"]), (200, &json!(true)));
        // An instance looks again ten seconds later; another one at once.
        let health = stack.function("health").await;
        let healthy = health.call(&Event::load("health")).await.json();
        assert_eq!(healthy["status"], "healthy", "{healthy}");
        list.call(&Event::list()).await;
        let line = list.last_request();
        assert_eq!(line["unreadable_rows"], Value::Null, "no metric: {line}");
    }
    let reports = list.lines().into_iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("unreadable row") && line["name"] == "bad"
    });
    assert_eq!(reports.count(), 1, "logged once: {}", list.log());
}

#[tokio::test]
async fn unreadable_settings_overrides_and_keys_fail_only_what_depends_on_them() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    sql(
        &stack,
        "insert into pennon_environment_settings (environment, settings) values ('production', '[]');
         alter table feature_flag_user_overrides drop constraint if exists feature_flag_user_overrides_override_type_check;
         alter table pennon_api_keys drop constraint pennon_key_kind_check;
         insert into pennon_api_keys (environment, kind, name, hash, created_by)
           values ('production', 'robot', 'x', repeat('a', 64), 'test');
         do $$ declare name text; begin
           for name in select conname from pg_constraint
             where conrelid = 'feature_flag_user_overrides'::regclass and contype = 'c'
           loop execute format('alter table feature_flag_user_overrides drop constraint %I', name); end loop;
         end $$;
         insert into feature_flag_user_overrides (flag_id, user_id, override_type)
           select id, 'alice', 'maybe' from feature_flags where flag_key = 'search'",
    )
    .await;
    let evaluate = stack.function("evaluate-flag").await;
    let code = async |key: &str, user: &str| {
        let answer = evaluate.call(&evaluation(key, user)).await;
        (answer.status, answer.json()["errorCode"].clone())
    };
    for _ in 0..2 {
        // Its percentage lies between the ends, so the settings decide who gets it.
        assert_eq!(code("checkout", "bob").await, (400, json!("PARSE_ERROR")));
        assert_eq!(code("search", "alice").await, (400, json!("PARSE_ERROR")));
        assert_eq!(code("search", "bob").await, (200, Value::Null));
        assert_eq!(code("export", "bob").await, (200, Value::Null));
    }
    // What one instance puts into Redis, another one reads.
    let other = stack.function("evaluate-flag").await;
    let answer = other.call(&evaluation("search", "alice")).await;
    assert_eq!((answer.status, answer.source()), (400, "redis"));
    let keys = stack.function("manage-keys").await;
    let listed = keys.call(&Event::admin("GET", "/api/admin/keys", "")).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    assert!(listed.body.contains("\"broken\""), "{}", listed.body);
    let health = stack.function("health").await;
    let degraded = health.call(&Event::load("health")).await.json();
    assert_eq!(degraded["unreadableRows"], 3, "{degraded}");
    let manage = stack.function("manage-environments").await;
    let path = "/api/admin/environments/production/settings";
    let event = Event::admin("PUT", path, "{}").header("if-match", "*");
    let repaired = manage.call(&event).await;
    assert_eq!(repaired.status, 200, "{repaired:?}");
    assert_eq!(code("checkout", "bob").await, (200, Value::Null));
}
