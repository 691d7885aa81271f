//! Evaluation counts: written to the log, added in batches, read over the admin API.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use pennon_core::counts::day;
use pennon_tests::api::Api;
use pennon_tests::event::{EXAMPLE_KEY, Event, SYNC_KEY};
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::local::{API_KEY, Local};
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

async fn stack() -> Stack {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack
}

/// The event with which CloudWatch Logs invokes a subscriber.
pub(crate) fn subscription_event(data: &Value) -> Value {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(data.to_string().as_bytes())
        .expect("packs");
    let data = STANDARD.encode(encoder.finish().expect("packs"));
    json!({ "awslogs": { "data": data } })
}

/// The log lines of a function that match the subscription's filter, as a batch.
fn batch(function: &Function, name: &str) -> Value {
    let lines = function.lines();
    let logged = lines.iter().filter(|line| line["evaluated"].is_u64());
    // Not every line contains a time, but CloudWatch adds one to every line.
    let times = lines
        .iter()
        .filter_map(|line| line["_aws"]["Timestamp"].as_u64());
    let now = times.max();
    let events: Vec<Value> = logged
        .enumerate()
        .map(|(number, line)| {
            json!({
                "id": format!("{name}-{number}"),
                "timestamp": now,
                "message": line.to_string(),
            })
        })
        .collect();
    subscription_event(
        &json!({"messageType": "DATA_MESSAGE", "logGroup": name, "logEvents": events}),
    )
}

async fn counts(stack: &Stack) -> Vec<(String, String, i64)> {
    let rows = stack
        .database
        .sql()
        .query(
            "select flag_key, variant, sum(count)::bigint from pennon_evaluation_counts
             where environment = 'production' and day between current_date - 1 and current_date
             group by 1, 2 order by 1, 2",
            &[],
        )
        .await
        .expect("rows");
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

fn expected_counts(expected: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    expected
        .iter()
        .map(|(flag, variant, count)| ((*flag).to_owned(), (*variant).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn evaluations_in_the_log_are_counted_once_even_when_delivered_again() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    let list = stack.function("list-flags").await;
    // user-8 has bucket 49 and user-118 bucket 99; checkout is at 50 %.
    for user in ["user-8", "user-8", "user-118"] {
        let event = Event::evaluate("checkout", &json!({"targetingKey": user}));
        assert_eq!(one.call(&event).await.status, 200);
    }
    let event = Event::evaluate_all(&json!({"targetingKey": "user-8"}));
    assert_eq!(all.call(&event).await.status, 200);
    assert_eq!(list.call(&Event::list()).await.status, 200);
    assert_eq!(counts(&stack).await, [], "a request has written counts");

    let count = stack.function("count-evaluations").await;
    for (function, name, lines, evaluations) in [
        (&one, "one", 3, 3),
        (&all, "all", 1, 3),
        (&list, "list", 1, 3),
    ] {
        let event = batch(function, name);
        let done = json!({"lines": lines, "evaluations": evaluations, "again": false});
        assert_eq!(count.invoke(&event).await, Ok(done), "{name}");
        let again = json!({"lines": lines, "evaluations": 0, "again": true});
        assert_eq!(count.invoke(&event).await, Ok(again), "{name}");
    }
    assert_eq!(
        counts(&stack).await,
        expected_counts(&[
            ("checkout", "off", 1),
            ("checkout", "on", 4),
            ("export", "off", 2),
            ("search", "on", 2),
        ])
    );
}

/// A request that posts counts of today.
fn posted(id: &str, flags: &Value) -> Event {
    let today = day(SystemTime::now());
    let body = json!({"batch": id, "counts": {"production": {today: flags}}});
    Event::load("sync-flags-counts").body(&body.to_string())
}

#[tokio::test]
async fn posted_evaluations_are_counted_once_even_when_posted_and_delivered_again() {
    let stack = stack().await;
    stack.database.add_key(SYNC_KEY).await;
    let sync = stack.function("sync-flags").await;
    let first = posted(
        "b-1",
        &json!({"search": {"on": 3}, "no-such-flag": {"on": 8}}),
    );
    let second = posted("b-2", &json!({"search": {"on": 4}}));
    for (event, evaluations, ignored) in [(&first, 3, 8), (&first, 3, 8), (&second, 4, 0)] {
        let answer = sync.call(event).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let expected = json!({"evaluations": evaluations, "ignored": ignored});
        assert_eq!(answer.json(), expected);
    }
    for (event, status) in [
        (first.clone().api_key(EXAMPLE_KEY), 403),
        (first.clone().without_header("authorization"), 401),
        (first.body(r#"{"batch":"b","counts":{"staging":{}}}"#), 403),
        (posted("b-3", &json!({"search": {"on": 0}})), 400),
    ] {
        assert_eq!(sync.call(&event).await.status, status);
    }
    assert_eq!(counts(&stack).await, [], "a request has written counts");

    let count = stack.function("count-evaluations").await;
    let event = batch(&sync, "sync");
    // Three lines with counts, and the line of the request with the other key, which reports the use of that key.
    // `again` is true in both deliveries, because b-1 was posted twice.
    for evaluations in [7, 0] {
        let done = json!({"lines": 4, "evaluations": evaluations, "again": true});
        assert_eq!(count.invoke(&event).await, Ok(done));
    }
    let expected = expected_counts(&[("search", "on", 7)]);
    assert_eq!(counts(&stack).await, expected);
}

/// Creates an API key: its id and the key itself.
async fn create_key(keys: &Function, kind: &str) -> (String, String) {
    let body = json!({"kind": kind, "name": kind}).to_string();
    let made = keys.call(&Event::load("manage-keys").body(&body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}

/// The last uses in the list of keys, by id.
fn last_uses(listed: &Value) -> BTreeMap<String, Value> {
    let keys = listed["keys"].as_array().expect("a list").iter();
    keys.map(|key| {
        let id = key["id"].as_str().expect("an id").to_owned();
        (id, key["lastUsedOn"].clone())
    })
    .collect()
}

#[tokio::test]
async fn the_list_of_keys_shows_the_day_of_the_last_use_even_if_nothing_was_evaluated() {
    let stack = stack().await;
    let keys = stack.function("manage-keys").await;
    let (server, server_key) = create_key(&keys, "server").await;
    let (client, client_key) = create_key(&keys, "client").await;
    let (sync, sync_key) = create_key(&keys, "sync").await;
    let (config, config_key) = create_key(&keys, "server").await;
    let (unused, _) = create_key(&keys, "server").await;
    let one = stack.function("evaluate-flag").await;
    let alice = json!({"targetingKey": "alice"});
    for _ in 0..3 {
        let event = Event::evaluate("search", &alice).api_key(&server_key);
        assert_eq!(one.call(&event).await.status, 200);
    }
    let all = stack.function("evaluate-flags").await;
    let event = Event::evaluate_all(&alice);
    let answer = all.call(&event.clone().api_key(&client_key)).await;
    let tag = answer.header("etag").expect("an ETag").to_owned();
    let all = stack.function("evaluate-flags").await;
    let event = event.api_key(&client_key).header("if-none-match", &tag);
    assert_eq!(all.call(&event).await.status, 304);
    let get = stack.function("get-flag").await;
    let event = Event::get("search").anonymous().api_key(&config_key);
    assert_eq!(get.call(&event).await.status, 200);
    let flags = stack.function("sync-flags").await;
    let event = Event::load("sync-flags").anonymous().api_key(&sync_key);
    assert_eq!(flags.call(&event).await.status, 200);

    let logged: Vec<Value> = one
        .requests()
        .iter()
        .map(|line| line["api_keys"].clone())
        .collect();
    assert_eq!(logged, [json!([server]), Value::Null, Value::Null]);
    assert_eq!(flags.last_request()["api_keys"], json!([sync]));
    let count = stack.function("count-evaluations").await;
    let before = stack.database.revision("production").await;
    for (function, name, evaluations) in [
        (&one, "one", 3),
        (&all, "all", 0),
        (&get, "get", 0),
        (&flags, "flags", 0),
    ] {
        let log = function.log();
        for key in [&server_key, &client_key, &sync_key, &config_key] {
            assert!(!log.contains(key.as_str()), "{name}");
        }
        let event = batch(function, name);
        for _ in 0..2 {
            let outcome = count.invoke(&event).await.expect("counted");
            let expected = if outcome["again"] == true {
                0
            } else {
                evaluations
            };
            assert_eq!(outcome["evaluations"], expected, "{name}");
        }
    }
    assert_eq!(
        stack.database.revision("production").await,
        before,
        "the counts changed the revision of the environment"
    );
    let list = Event::load("manage-keys-list");
    let listed = keys.call(&list).await.json();
    let mut uses = last_uses(&listed);
    let today = json!(day(SystemTime::now()));
    for id in [&server, &client, &sync, &config] {
        assert_eq!(uses.remove(id), Some(today.clone()), "{listed}");
    }
    assert_eq!(uses.remove(&unused), Some(Value::Null));
}

#[tokio::test]
async fn only_a_later_day_replaces_the_last_use_of_a_key_and_an_invalid_id_is_ignored() {
    let stack = stack().await;
    // At noon UTC, the next day has begun in this time zone. So the test fails if the day is not computed in UTC.
    let zone = "do $$ begin execute format('alter database %I set timezone to ''Pacific/Kiritimati''', current_database()); end $$";
    stack
        .database
        .sql()
        .batch_execute(zone)
        .await
        .expect("a time zone");
    let keys = stack.function("manage-keys").await;
    let (id, _) = create_key(&keys, "server").await;
    let count = stack.function("count-evaluations").await;
    // 2033-05-18, at noon.
    let noon = 2_000_030_400_000_u64;
    let day = 86_400_000;
    let list = Event::load("manage-keys-list");
    for (name, at, expected) in [
        ("first", noon, "2033-05-18"),
        ("earlier", noon - day, "2033-05-18"),
        ("later", noon + day, "2033-05-19"),
    ] {
        let ids = json!([
            id,
            "a\u{0}",
            "'; drop table pennon_key_uses; --",
            "0".repeat(37)
        ]);
        let message = json!({"evaluated": 0, "api_keys": ids}).to_string();
        let line = json!({"id": name, "timestamp": at, "message": message});
        let event =
            subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": [line]}));
        let done = json!({"lines": 1, "evaluations": 0, "again": false});
        assert_eq!(count.invoke(&event).await, Ok(done), "{name}");
        let uses = last_uses(&keys.call(&list).await.json());
        assert_eq!(uses[&id], expected, "{name}");
    }
    let rows = stack
        .database
        .sql()
        .query("select from pennon_key_uses", &[])
        .await;
    assert_eq!(rows.expect("rows").len(), 1);
}

#[tokio::test]
async fn failed_evaluations_and_unchanged_responses_are_not_counted() {
    let stack = stack().await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    let get = stack.function("get-flag").await;
    let list = stack.function("list-flags").await;
    for event in [
        Event::evaluate("no-such-flag", &json!({"targetingKey": "a"})),
        Event::evaluate("checkout", &json!({})),
        Event::evaluate("search", &json!({})).body("{"),
        Event::evaluate("search", &json!({})).without_header("authorization"),
    ] {
        assert!(one.call(&event).await.status >= 400);
    }
    let bulk = Event::evaluate_all(&json!({"targetingKey": "a"}));
    let answer = all.call(&bulk).await;
    let tag = answer.header("etag").expect("an ETag").to_owned();
    // An instance logs the counts of its first response with all flags at once, and those of later responses after ten
    // seconds.
    let another = stack.function("evaluate-flags").await;
    let unchanged = another.call(&bulk.header("if-none-match", &tag)).await;
    assert_eq!(unchanged.status, 304);
    assert_eq!(get.call(&Event::get("search")).await.status, 200);
    let nowhere = Event::list().query("environment=nowhere");
    assert_eq!(list.call(&nowhere).await.status, 200);
    let logged = |function: &Function| -> u64 {
        let lines = function.requests();
        let logged = lines.iter().filter_map(|line| line["evaluated"].as_u64());
        logged.sum()
    };
    assert_eq!(logged(&one), 0);
    assert_eq!((logged(&all), logged(&another)), (3, 0));
    assert_eq!((logged(&get), logged(&list)), (0, 0));
}

#[tokio::test]
async fn an_unchanged_response_is_not_counted_even_if_a_rule_reads_the_time() {
    let stack = stack().await;
    let definition = json!({
        "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{">": [{"var": "$flagd.timestamp"}, 1]}, "on"]},
    });
    stack.database.add_typed_flag("launch", &definition).await;
    for (name, event) in [
        (
            "evaluate-flags",
            Event::evaluate_all(&json!({"targetingKey": "a"})),
        ),
        ("list-flags", Event::list()),
    ] {
        // Another instance, because the first one would log more counts only after ten seconds.
        let [first, second] = [stack.function(name).await, stack.function(name).await];
        let answer = first.call(&event).await;
        assert_eq!(answer.status, 200, "{name}");
        let tag = answer.header("etag").expect("an ETag").to_owned();
        // This client gets the body in another form. The tag contains a hash of the text, which is the same.
        let plain = event.header("accept-encoding", "identity");
        let unchanged = second.call(&plain.header("if-none-match", &tag)).await;
        assert_eq!(unchanged.status, 304, "{name}");
        let lines = [first.last_request(), second.last_request()];
        assert!(
            lines[0]["evaluated"].as_u64() > Some(0),
            "{name}: {lines:?}"
        );
        assert_eq!(lines[1]["evaluated"].as_u64().unwrap_or(0), 0, "{name}");
    }
}

/// Adds this many flags, which are on for everyone.
async fn add_flags(stack: &Stack, number: u64) {
    let insert = format!(
        "insert into feature_flags (flag_key, enabled, rollout_percentage)
         select 'flag-' || n, true, 100 from generate_series(1, {number}) as n"
    );
    let inserted = stack.database.sql().batch_execute(&insert).await;
    inserted.expect("flags");
}

#[tokio::test]
async fn counts_of_many_flags_are_logged_in_one_line_every_ten_seconds() {
    let stack = stack().await;
    add_flags(&stack, 3_000).await;
    let started = Instant::now();
    let all = stack.function("evaluate-flags").await;
    let event = Event::evaluate_all(&json!({"targetingKey": "a"}));
    let evaluated = |line: &Value| line["evaluated"].as_u64().unwrap_or(0);
    assert_eq!(all.call(&event).await.status, 200);
    assert_eq!(evaluated(&all.last_request()), 3003);
    eventually("the counts of later requests are logged", async || {
        assert_eq!(all.call(&event).await.status, 200);
        evaluated(&all.last_request()) > 0
    })
    .await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(10), "too early: {waited:?}");
    let lines = all.requests();
    let requests = u64::try_from(lines.len()).expect("few requests");
    assert_eq!(lines.iter().map(evaluated).sum::<u64>(), 3003 * requests);
    for line in [lines.first(), lines.last()].into_iter().flatten() {
        let length = line.to_string().len();
        assert!(length < 256 * 1024, "longer than 256 KiB: {length}");
    }
}

#[tokio::test]
async fn counts_that_do_not_fit_into_a_line_are_logged_by_the_same_request() {
    let stack = stack().await;
    add_flags(&stack, 9_000).await;
    let all = stack.function("evaluate-flags").await;
    let event = Event::evaluate_all(&json!({"targetingKey": "a"}));
    assert_eq!(all.call(&event).await.status, 200);
    let mut lines = all.lines();
    lines.retain(|line| line.get("evaluated").is_some());
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let length = line.to_string().len();
        assert!(length < 256 * 1024, "longer than 256 KiB: {length}");
    }
    let count = stack.function("count-evaluations").await;
    let done = count.invoke(&batch(&all, "all")).await.expect("counted");
    assert_eq!(done["evaluations"], 9_003, "{done}");
}

#[tokio::test]
async fn concurrent_batches_lose_no_counts() {
    let stack = stack().await;
    let count = [
        stack.function("count-evaluations").await,
        stack.function("count-evaluations").await,
    ];
    let line = |flags: &[&str]| {
        let mut given = json!({});
        for flag in flags {
            given[flag] = json!({"on": 1, "off": 2});
        }
        json!({"evaluations": {"production": {"2026-11-21": given}}}).to_string()
    };
    let send = |number: usize| {
        // Every second batch has the opposite order. Locking rows in these orders would cause deadlocks.
        let mut flags = ["a", "b", "c", "d", "e"];
        if number.is_multiple_of(2) {
            flags.reverse();
        }
        let event = json!({"id": format!("id-{number}"), "timestamp": 1, "message": line(&flags)});
        let event =
            subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": [event]}));
        let count = &count[number % 2];
        async move { count.invoke(&event).await }
    };
    for outcome in pennon_tests::join_all((0..40).map(send)).await {
        assert_eq!(outcome.expect("counted")["evaluations"], 15);
    }
    let rows = stack
        .database
        .sql()
        .query_one(
            "select sum(count)::bigint, count(*) from pennon_evaluation_counts",
            &[],
        )
        .await
        .expect("a row");
    assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)), (600, 10));
}

#[tokio::test]
async fn an_invalid_batch_is_an_error_and_an_invalid_line_is_skipped() {
    let stack = stack().await;
    let count = stack.function("count-evaluations").await;
    let good = r#"{"evaluations":{"production":{"2026-11-21":{"a":{"on":1}}}}}"#;
    let events = json!([
        {"id": "1", "timestamp": 1, "message": "no JSON"},
        {"id": "2", "timestamp": 1, "message": r#"{"evaluations":"many"}"#},
        {"id": "3", "timestamp": 1, "message": good},
    ]);
    let event = subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": events}));
    let done = json!({"lines": 1, "evaluations": 1, "again": false});
    assert_eq!(count.invoke(&event).await, Ok(done));
    let control = subscription_event(&json!({"messageType": "CONTROL_MESSAGE", "logEvents": []}));
    let done = json!({"lines": 0, "evaluations": 0, "again": false});
    assert_eq!(count.invoke(&control).await, Ok(done));
    for event in [
        json!({}),
        json!({"awslogs": {"data": "!"}}),
        json!({"awslogs": {"data": STANDARD.encode("not gzip")}}),
        subscription_event(&json!([1])),
    ] {
        assert!(count.invoke(&event).await.is_err(), "{event}");
    }
    stack
        .database_wire
        .set(pennon_tests::wire::Mode::Refuse)
        .await;
    let later = json!([{"id": "4", "timestamp": 1, "message": good}]);
    let event = subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": later}));
    assert!(
        count.invoke(&event).await.is_err(),
        "the failure was not reported, so Lambda would not try again"
    );
}

#[tokio::test]
async fn a_batch_of_which_no_count_can_be_stored_is_reported_as_lost() {
    let stack = stack().await;
    let count = stack.function("count-evaluations").await;
    let counts =
        json!({"evaluations": {"production": {"2026-11-21": {"a": {"on": 512, "off": 1}}}}});
    // PostgreSQL has no time this late, so it rejects every count, and also a statement without counts.
    let line =
        json!({"id": "1", "timestamp": 9_224_318_500_000_000_u64, "message": counts.to_string()});
    let event = json!({"messageType": "DATA_MESSAGE", "logEvents": [line]});
    let outcome = count.invoke(&subscription_event(&event)).await;
    assert_eq!(outcome.expect("counted")["lost"], 513);
}

#[tokio::test]
async fn a_count_that_the_database_rejects_affects_no_other_count() {
    let stack = stack().await;
    let count = stack.function("count-evaluations").await;
    let sent = json!({"evaluations": {
        "production": {
            "2026-11-21": {
                "a": {"on": 1, "a\u{0}": 2, "off": 4},
                "b": {"on": 8, ("x".repeat(9_000)): 16},
                "nul\u{0}": {"on": 32},
                "most": {"on": 9_223_372_036_854_775_807_u64},
            },
            "2026-11-22": {"a": {"on": 64}},
            "yesterday-or-so": {"a": {"on": 128}},
            "infinity": {"a": {"on": 1024}},
            "-infinity": {"a": {"on": 1024}},
            "10000-01-01": {"a": {"on": 1024}},
            "today": {"a": {"on": 1024}},
            "2026-11-23": {"a": {"on": 2048, ("v".repeat(255)): 4096, ("v".repeat(256)): 8192}},
        },
        "staging\u{0}": {"2026-11-21": {"a": {"on": 256}}},
    }});
    let event = |id: &str, message: &Value| {
        let line = json!({"id": id, "timestamp": 1, "message": message.to_string()});
        subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": [line]}))
    };
    let first = event("1", &sent);
    let outcome = count.invoke(&first).await.expect("counted");
    assert_eq!(
        outcome["lost"],
        2 + 16 + 32 + 128 + 256 + 4 * 1024 + 8192,
        "{outcome}"
    );
    let again = count.invoke(&first).await.expect("counted");
    assert_eq!(again["again"], true, "{again}");
    // One more evaluation of the flag whose count has reached the maximum, and 512 of another flag.
    let full = json!({"evaluations": {"production": {"2026-11-21": {
        "a": {"on": 512}, "most": {"on": 1},
    }}}});
    let outcome = count.invoke(&event("2", &full)).await.expect("counted");
    assert_eq!(
        (&outcome["evaluations"], &outcome["lost"]),
        (&json!(512), &json!(1))
    );
    let rows = stack
        .database
        .sql()
        .query(
            "select flag_key, variant, day::text, count from pennon_evaluation_counts
             where flag_key <> 'most' order by 1, 2, 3",
            &[],
        )
        .await
        .expect("rows");
    let rows: Vec<(String, String, String, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let row = |flag: &str, variant: &str, day: &str, count| {
        (flag.to_owned(), variant.to_owned(), day.to_owned(), count)
    };
    assert_eq!(
        rows,
        [
            row("a", "off", "2026-11-21", 4),
            row("a", "on", "2026-11-21", 513),
            row("a", "on", "2026-11-22", 64),
            row("a", "on", "2026-11-23", 2048),
            row("a", &"v".repeat(255), "2026-11-23", 4096),
            row("b", "on", "2026-11-21", 8),
        ]
    );
    stack
        .database
        .sql()
        .batch_execute(
            "insert into pennon_evaluation_counts (environment, flag_key, variant, day, count)
             select environment, flag_key, 'off', day, count from pennon_evaluation_counts
             where flag_key = 'most'",
        )
        .await
        .expect("the same count for a second variant");
    let report = stack.function("report-usage").await;
    let usage = Event::load("report-usage-flag").parameter("flagKey", "b");
    let answer = report.call(&usage).await;
    assert_eq!(
        answer.status, 200,
        "a sum that overflows affected another flag: {answer:?}"
    );
    assert_eq!(answer.json()["evaluations"], 8);
    let named = "a count was rejected; these evaluations are not counted";
    let lines = count.lines();
    let lost: Vec<&Value> = lines
        .iter()
        .filter(|line| line["message"] == named)
        .collect();
    // Logged: five of the seven counts that are rejected before the database (at most five are logged), the three that
    // the database rejects, and one of the second batch.
    assert_eq!(lost.len(), 9, "the number of logged rejections is wrong");
    assert!(lost.iter().all(|line| line.to_string().len() < 1_000));
}

#[tokio::test]
async fn counts_by_the_hour_are_kept_for_fourteen_days() {
    let stack = stack().await;
    let database = stack.database.sql();
    let earlier = "
        insert into pennon_evaluation_hours (environment, flag_key, variant, hour, count)
        select 'production', 'checkout', 'on', now() - interval '14 days' + make_interval(mins => minutes), 1
        from unnest(array[-60, -1, 10, 60]) as minutes;
        insert into pennon_evaluation_counts (environment, flag_key, variant, day, count)
        values ('production', 'checkout', 'on', now()::date - 15, 2)";
    database.batch_execute(earlier).await.expect("rows");
    let hours = async || {
        let rows = "select flag_key, count(*) from pennon_evaluation_hours group by 1 order by 1";
        let rows = database.query(rows, &[]).await.expect("rows");
        let row = |row: &tokio_postgres::Row| (row.get(0), row.get(1));
        rows.iter().map(row).collect::<Vec<(String, i64)>>()
    };
    let count = stack.function("count-evaluations").await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis();
    let day_ms = 24 * 60 * 60 * 1_000;
    // A name that the database rejects makes the function add a batch in parts.
    for (flag, name) in [("whole", "on"), ("in-parts", "nul\u{0}")] {
        for (days, number) in [(13, 1), (15, 2)] {
            let line = json!({"evaluations": {"production": {"2026-11-21": {
                flag: {"on": number}, "other": {name: 1},
            }}}});
            let id = format!("{flag}-{days}");
            let at = now - days * day_ms;
            let event = json!({"id": id, "timestamp": at, "message": line.to_string()});
            let event =
                subscription_event(&json!({"messageType": "DATA_MESSAGE", "logEvents": [event]}));
            count.invoke(&event).await.expect("counted");
        }
    }
    let row = |flag: &str, hours| (flag.to_owned(), hours);
    let kept = [
        row("checkout", 2),
        row("in-parts", 1),
        row("other", 1),
        row("whole", 1),
    ];
    assert_eq!(hours().await, kept);
    let days =
        "select flag_key, sum(count)::bigint from pennon_evaluation_counts group by 1 order by 1";
    let days = database.query(days, &[]).await.expect("rows");
    let days: Vec<(String, i64)> = days.iter().map(|row| (row.get(0), row.get(1))).collect();
    // The counts by the day are kept.
    let all = [
        row("checkout", 2),
        row("in-parts", 3),
        row("other", 2),
        row("whole", 3),
    ];
    assert_eq!(days, all);
}

#[tokio::test]
async fn an_invalid_variant_name_affects_no_other_counts() {
    let api = Api::on_postgres().await;
    let stack = api.stack();
    let definition = json!({
        "variants": {"a\u{0}": true, "b": false}, "defaultVariant": "a\u{0}",
    });
    stack.database.add_typed_flag("strange", &definition).await;
    stack.database.add_key(EXAMPLE_KEY).await;
    let body = r#"{"context":{"targetingKey":"alice"}}"#;
    for key in ["strange", "search"] {
        let path = format!("/ofrep/v1/evaluate/flags/{key}");
        let answer = api.local().evaluate(&path, API_KEY, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    eventually("the other evaluation is counted", async || {
        let usage = api.read("/api/admin/flags/search/usage").await;
        assert_eq!(usage.status, 200, "the breaker is open: {usage:?}");
        usage.json()["evaluations"] == 1
    })
    .await;
}

fn stale_keys(answer: &Response) -> Vec<(String, Value)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let flags = body["flags"].as_array().expect("a list");
    flags
        .iter()
        .map(|flag| {
            let key = flag["key"].as_str().expect("a key").to_owned();
            (key, flag["reasons"].clone())
        })
        .collect()
}

#[tokio::test]
async fn stale_flags_are_unused_or_the_same_for_everyone() {
    let stack = stack().await;
    let sql = stack.database.sql();
    let report = stack.function("report-usage").await;
    let event = Event::load("report-usage");
    let at_first = stale_keys(&report.call(&event).await);
    assert_eq!(at_first, [], "new flags are reported as stale");
    sql.batch_execute(
        "update feature_flags set created_at = '2020-01-01', updated_at = '2020-01-01';
         insert into pennon_evaluation_counts (environment, flag_key, variant, day, count, last_at)
         values ('production', 'checkout', 'on', current_date, 7, now()),
                ('production', 'checkout', 'off', current_date - 1, 2, now() - interval '1 day'),
                ('production', 'search', 'on', current_date - 60, 9, now() - interval '60 days')",
    )
    .await
    .expect("an old state");
    let answer = report.call(&event).await;
    let both = json!(["notEvaluated", "sameForEveryone"]);
    assert_eq!(
        stale_keys(&answer),
        [
            ("export".to_owned(), both.clone()),
            ("search".to_owned(), both.clone())
        ]
    );
    let search = &answer.json()["flags"][1];
    assert_eq!(search["evaluations"], 9);
    assert!(search["lastEvaluatedAt"].is_string(), "{search}");
    let longer = report.call(&event.clone().query("days=90")).await;
    assert_eq!(
        stale_keys(&longer),
        [
            ("export".to_owned(), both),
            ("search".to_owned(), json!(["sameForEveryone"]))
        ]
    );
    // A flag that has another value for one user is not the same for everyone.
    sql.batch_execute(
        "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
         select id, 'alice', 'exclude' from feature_flags where flag_key = 'search'",
    )
    .await
    .expect("an override");
    stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
    let keys = stale_keys(&report.call(&event).await);
    assert_eq!(keys[1], ("search".to_owned(), json!(["notEvaluated"])));

    for bad in [
        "days=0",
        "days=401",
        "days=x",
        "days=1.5",
        "environment=a%20b",
    ] {
        let answer = report.call(&event.clone().query(bad)).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    assert_eq!(report.call(&event.clone().anonymous()).await.status, 401);
    assert_eq!(report.call(&event.user("u", "[users]")).await.status, 403);

    let usage = Event::load("report-usage-flag").parameter("flagKey", "checkout");
    let answer = report.call(&usage).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["evaluations"], 9);
    assert!(body["lastEvaluatedAt"].is_string());
    assert_eq!(body["days"][0]["variant"], "on");
    assert_eq!(body["days"][0]["count"], 7);
    assert_eq!(body["days"][1]["variant"], "off");
    let newest = report.call(&usage.clone().query("days=1")).await.json();
    assert_eq!(newest["days"].as_array().map(Vec::len), Some(1));
    let gone = usage.parameter("flagKey", "no-such-flag");
    assert_eq!(report.call(&gone).await.status, 404);
}

#[tokio::test]
async fn a_flag_with_an_empty_rule_is_the_same_for_everyone() {
    let stack = stack().await;
    let rule = json!({"if": [{"==": [{"var": "plan"}, "pro"]}, "a", null]});
    for (key, targeting) in [("empty", json!({})), ("ruled", rule)] {
        let definition = json!({
            "variants": {"a": 1, "b": 2}, "defaultVariant": "b", "targeting": targeting,
        });
        stack.database.add_typed_flag(key, &definition).await;
    }
    let sql = stack.database.sql();
    sql.batch_execute(
        "delete from feature_flags where definition is null;
         update feature_flags set created_at = '2020-01-01', updated_at = '2020-01-01'",
    )
    .await
    .expect("an old state");
    let report = stack.function("report-usage").await;
    assert_eq!(
        stale_keys(&report.call(&Event::load("report-usage")).await),
        [
            (
                "empty".to_owned(),
                json!(["notEvaluated", "sameForEveryone"])
            ),
            ("ruled".to_owned(), json!(["notEvaluated"])),
        ]
    );
}

#[tokio::test]
async fn the_local_server_counts_without_a_log() {
    let local = Local::start(&[]).await;
    let path = "/ofrep/v1/evaluate/flags/new-checkout";
    let body = r#"{"context":{"targetingKey":"alice"}}"#;
    for _ in 0..3 {
        assert_eq!(local.evaluate(path, API_KEY, body).await.status, 200);
    }
    eventually("the evaluations are counted", async || {
        let usage = local
            .admin("GET", "/api/admin/flags/new-checkout/usage", "")
            .await
            .json();
        usage["evaluations"] == 3 && usage["lastEvaluatedAt"].is_string()
    })
    .await;
    let other = local.admin("GET", "/admin/flags/dark-mode/usage", "").await;
    assert_eq!(other.json()["lastEvaluatedAt"], Value::Null);

    let create = r#"{"kind": "client", "name": "page"}"#;
    let made = local.admin("POST", "/api/admin/keys", create).await.json();
    assert_eq!(made["lastUsedOn"], Value::Null);
    let key = made["key"].as_str().expect("a key");
    assert_eq!(local.evaluate(path, key, body).await.status, 200);
    eventually("the use of the key is recorded", async || {
        let listed = local.admin("GET", "/api/admin/keys", "").await.json();
        listed["keys"][0]["lastUsedOn"].is_string()
    })
    .await;
}

#[tokio::test]
async fn the_usage_of_a_flag_with_any_number_of_counted_variants_fits_into_a_response() {
    let stack = Stack::start().await;
    let insert = "
        insert into pennon_evaluation_counts (environment, flag_key, variant, day, count, last_at)
        select 'production', 'search', number || repeat('v', 240), current_date - 1, 1, now()
        from generate_series(1, 30000) as number";
    let insert_hours = "
        insert into pennon_evaluation_hours (environment, flag_key, variant, hour, count)
        select 'production', 'search', number || repeat('v', 240), date_trunc('hour', now()), 1
        from generate_series(1, 30000) as number";
    for statement in [insert, insert_hours] {
        let inserted = stack.database.sql().batch_execute(statement).await;
        inserted.expect("rows");
    }
    let report = stack.function("report-usage").await;
    let event = Event::load("report-usage-flag").parameter("flagKey", "search");
    let answer = report.call(&event).await;
    assert_eq!(
        answer.status,
        200,
        "{}",
        &answer.body[..200.min(answer.body.len())]
    );
    let body = answer.json();
    assert_eq!(body["evaluations"], 30_000);
    let shown = |name: &str| body[name].as_array().expect("a list").len();
    let omitted = answer.header("x-omitted-counts").expect("a number");
    let omitted: usize = omitted.parse().expect("a number");
    assert_eq!(shown("days") + shown("hours") + omitted, 60_000);
    assert!(shown("days") > 5_000 && shown("hours") > 5_000, "{omitted}");
}
