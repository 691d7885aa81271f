//! Change events on EventBridge.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_tests::cloudwatch::{CloudWatch, GUARD_FUNCTION_ARN};
use pennon_tests::event::Event;
use pennon_tests::event_bus::{BusFailure, EventBus, FailingBus, INVALID, UNREACHABLE};
use pennon_tests::eventually;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::stack::{Stack, set_percentage};
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

/// The number of undelivered events.
async fn waiting(stack: &Stack) -> i64 {
    let count = "select count(*) from pennon_outbox";
    let row = stack.database.sql().query_one(count, &[]).await;
    row.expect("a count").get(0)
}

/// The flags with an event that was rejected and waits.
async fn rejected_flags(stack: &Stack) -> Vec<String> {
    let flags = "select distinct flag_key from pennon_outbox where attempts > 0";
    let rows = stack.database.sql().query(flags, &[]).await;
    rows.expect("rows").iter().map(|row| row.get(0)).collect()
}

/// Makes postponed events due.
async fn end_postponement(stack: &Stack) {
    let statement = "update pennon_outbox set retry_at = now()";
    let sql = stack.database.sql();
    sql.batch_execute(statement).await.expect("an update");
}

async fn reconcile(function: &Function) -> Result<Value, Value> {
    function.invoke(Event::load("reconcile").value()).await
}

/// The sequence numbers of each flag, in the order of arrival.
fn numbers(events: &[Value]) -> BTreeMap<&str, Vec<i64>> {
    let mut numbers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for event in events {
        let key = event["flagKey"].as_str().unwrap_or_default();
        let number = event["sequence"].as_i64().expect("a number");
        numbers.entry(key).or_default().push(number);
    }
    numbers
}

#[tokio::test]
async fn a_change_is_on_the_event_bus_before_its_response() {
    let stack = Stack::start().await;
    let bus = EventBus::start().await;
    let update = stack.function_with("update-flag", &bus.environment()).await;
    let mut events = Vec::new();
    let mut percentage = 0;
    // On a busy machine a request may exceed its time limit and leave its event in the outbox.
    eventually("an event arrives with its request", async || {
        percentage += 1;
        set_percentage(&update, "checkout", percentage).await;
        events = bus.take_events().await;
        !events.is_empty() && waiting(&stack).await == 0
    })
    .await;
    let newest = events.last().expect("an event");
    assert_eq!(newest["source"], "pennon");
    assert_eq!(newest["detail-type"], "Pennon Change");
    let detail = &newest["detail"];
    assert_eq!(detail["environment"], "production");
    assert_eq!(detail["flagKey"], "checkout");
    assert_eq!(detail["action"], "flag.update");
    assert_eq!(detail["sequence"], percentage);
    assert_eq!(detail["after"]["rolloutPercentage"], percentage);
    assert_eq!(
        detail["revision"],
        stack.database.revision("production").await
    );
    let query = "select id::text, actor from pennon_audit as entry order by entry.id desc limit 1";
    let audit = stack.database.sql().query_one(query, &[]).await;
    let audit = audit.expect("an entry");
    assert_eq!(detail["id"], audit.get::<_, &str>(0));
    assert_eq!(detail["actor"], audit.get::<_, &str>(1));
}

#[tokio::test]
async fn events_wait_while_eventbridge_is_down_and_reconcile_delivers_them_in_order() {
    let stack = Stack::start().await;
    let bus = EventBus::start().await;
    let update = stack.function_with("update-flag", &bus.environment()).await;
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    bus.wire().set(Mode::Refuse).await;
    for percentage in 1..=3 {
        set_percentage(&update, "checkout", percentage).await;
        set_percentage(&update, "search", percentage).await;
    }
    assert_eq!(waiting(&stack).await, 6);
    reconcile(&worker).await.expect("a young backlog");
    assert_eq!(waiting(&stack).await, 6);

    bus.wire().set(Mode::Open).await;
    eventually("the events are delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    let events = bus.take_events().await;
    let details: Vec<Value> = events.iter().map(|event| event["detail"].clone()).collect();
    let wanted = BTreeMap::from([("checkout", vec![1, 2, 3]), ("search", vec![1, 2, 3])]);
    assert_eq!(numbers(&details), wanted);
}

#[tokio::test]
async fn an_old_backlog_fails_reconcile_and_expires_after_a_week() {
    let stack = Stack::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    let worker = stack.function_with("reconcile", &UNREACHABLE).await;
    set_percentage(&update, "checkout", 1).await;
    set_percentage(&update, "search", 1).await;
    let sql = stack.database.sql();
    let age = |interval: &str| {
        format!("update pennon_outbox set created_at = now() - interval '{interval}'")
    };
    sql.batch_execute(&age("16 minutes")).await.expect("older");
    let failed = reconcile(&worker).await.expect_err("an alarm");
    assert!(
        failed.to_string().contains("change events are undelivered"),
        "{failed}"
    );
    sql.batch_execute(&age("8 days")).await.expect("older");
    let delivery = pennon_tests::postgres::connect(&stack.database.url()).await;
    let delivery = delivery.expect("a connection");
    let claim = "begin; select from pennon_outbox where flag_key = 'checkout' for update";
    delivery.batch_execute(claim).await.expect("a lock");
    reconcile(&worker).await.expect_err("an old event is left");
    let rest = "the run did not skip exactly the event that another one delivers";
    assert_eq!(waiting(&stack).await, 1, "{rest}");
    delivery.batch_execute("rollback").await.expect("no lock");
    reconcile(&worker).await.expect("no backlog");
    assert_eq!(waiting(&stack).await, 0);
}

#[tokio::test]
async fn the_backlog_is_limited() {
    let stack = Stack::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    let worker = stack.function_with("reconcile", &UNREACHABLE).await;
    let fill = "
        insert into pennon_outbox (destination, audit_id, environment, flag_key, sequence, revision)
        select 'bus', -number, 'production', 'search', number, 1
        from generate_series(1, 100003) as number";
    let sql = stack.database.sql();
    sql.batch_execute(fill).await.expect("rows");
    set_percentage(&update, "checkout", 1).await;
    reconcile(&worker).await.expect("a young backlog");
    assert_eq!(waiting(&stack).await, 100_000);
    let oldest = "select min(sequence) from pennon_outbox where flag_key = 'search'";
    let oldest = sql.query_one(oldest, &[]).await.expect("a row");
    assert_eq!(oldest.get::<_, i64>(0), 5, "not the oldest were removed");
}

#[tokio::test]
async fn a_rejected_entry_delays_later_events_of_its_flag_only() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    for percentage in 1..=2 {
        set_percentage(&update, "checkout", percentage).await;
        set_percentage(&update, "search", percentage).await;
    }
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    bus.fail(BusFailure::Throttled);
    reconcile(&worker).await.expect("a young backlog");
    assert_eq!(waiting(&stack).await, 4, "a throttled call removed events");

    bus.fail(BusFailure::Rejects("checkout"));
    eventually("the other flag is delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 2
    })
    .await;
    assert_eq!(
        numbers(&bus.accepted()),
        BTreeMap::from([("search", vec![1, 2])])
    );
    end_postponement(&stack).await;
    reconcile(&worker).await.expect("no backlog");
    assert_eq!(numbers(&bus.accepted())["checkout"], [1, 2]);
    assert_eq!(waiting(&stack).await, 0);
}

#[tokio::test]
async fn flags_whose_events_are_always_rejected_do_not_keep_other_events_waiting() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    let invalid = json!({ "description": INVALID });
    let sql = stack.database.sql();
    for number in 0..10 {
        let key = format!("rejected-{number}");
        stack.database.add_flag(&key, true, 50).await;
        let answer = update.call(&Event::update(&key, &invalid)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    set_percentage(&update, "search", 1).await;
    // As after a rejection: they are due again, later than the other event.
    end_postponement(&stack).await;
    let first = "update pennon_outbox set retry_at = created_at where flag_key = 'search'";
    sql.batch_execute(first).await.expect("an update");
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    eventually("the other event is delivered", async || {
        // The rejected events are due again in every run.
        reconcile(&worker).await.expect("a young backlog");
        let accepted = numbers(&bus.accepted()).contains_key("search");
        let again =
            "update pennon_outbox set retry_at = clock_timestamp() where flag_key <> 'search'";
        sql.batch_execute(again).await.expect("an update");
        accepted
    })
    .await;
    assert_eq!(waiting(&stack).await, 10);
}

#[tokio::test]
async fn an_invalid_entry_delays_later_events_of_its_flag_only() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    set_percentage(&update, "search", 1).await;
    let invalid = json!({ "description": INVALID });
    let answer = update.call(&Event::update("checkout", &invalid)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for percentage in 1..=2 {
        set_percentage(&update, "checkout", percentage).await;
    }
    set_percentage(&update, "search", 2).await;
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    // The call begins with a valid entry, which is not rejected with the invalid one.
    eventually("the invalid entry is rejected", async || {
        reconcile(&worker).await.expect("a young backlog");
        !rejected_flags(&stack).await.is_empty()
    })
    .await;
    assert_eq!(rejected_flags(&stack).await, ["checkout"]);
    eventually("the other flag is delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 3
    })
    .await;
    assert_eq!(
        numbers(&bus.accepted()),
        BTreeMap::from([("search", vec![1, 2])])
    );
    // The entry is sent again with the next event, and is rejected again.
    end_postponement(&stack).await;
    set_percentage(&update, "search", 3).await;
    eventually("a later event is delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 3
    })
    .await;
    assert_eq!(numbers(&bus.accepted())["search"], [1, 2, 3]);
}

#[tokio::test]
async fn events_of_killed_processes_are_delivered_by_the_next_run() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let mut update = stack.function_with("update-flag", &bus.environment()).await;
    let mut killed = stack.function_with("reconcile", &bus.environment()).await;
    let next = stack.function_with("reconcile", &bus.environment()).await;
    bus.fail(BusFailure::Hangs);
    // A request sends events after its commit.
    let body = json!({ "description": "changed" });
    let event = Event::update("checkout", &body);
    tokio::select! {
        _response = update.call(&event) => {}
        () = eventually("the request sends", async || bus.calls() == 1) => {}
    }
    update.kill();
    // On a busy machine the time limit of the request may end before it sends.
    let sent = bus.calls();
    if sent == 1 {
        bus.fail(BusFailure::Hangs);
    }
    let event = Event::load("reconcile");
    let run = killed.invoke(event.value());
    let until_it_sends = eventually("the run sends", async || bus.calls() > sent);
    tokio::select! {
        outcome = run => panic!("the run has ended: {outcome:?}"),
        () = until_it_sends => {}
    }
    killed.kill();
    eventually("the next run delivers", async || {
        reconcile(&next).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    assert_eq!(numbers(&bus.accepted())["checkout"], [1]);
}

#[tokio::test]
async fn a_request_succeeds_while_the_bus_hangs() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let update = stack.function_with("update-flag", &bus.environment()).await;
    for percentage in 1..=3 {
        bus.fail(BusFailure::Hangs);
        set_percentage(&update, "checkout", percentage).await;
    }
    assert_eq!(waiting(&stack).await, 3);
}

#[tokio::test]
async fn events_of_a_flag_arrive_in_order_from_concurrent_senders() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let mut admins = Vec::new();
    for _ in 0..3 {
        admins.push(stack.function_with("update-flag", &bus.environment()).await);
    }
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    let changes = admins.iter().map(async |admin| {
        for round in 1..=8 {
            for key in ["checkout", "search"] {
                let body = json!({ "description": format!("round {round}") });
                let answer = admin.call(&Event::update(key, &body)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
    });
    let runs = async {
        for _ in 0..8 {
            reconcile(&worker).await.expect("a young backlog");
        }
    };
    tokio::join!(join_all(changes), runs);
    eventually("all are delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    let accepted = bus.accepted();
    let by_flag = numbers(&accepted);
    assert_eq!(by_flag.len(), 2, "{accepted:?}");
    let all: Vec<i64> = (1..=24).collect();
    for (key, mut numbers) in by_flag {
        // An event is sent twice if its response was lost, but never out of order.
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        numbers.dedup();
        assert_eq!(numbers, all, "{key}");
    }
}

#[tokio::test]
async fn the_events_of_an_import_are_sent_within_the_limits_of_a_call() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let import = stack
        .function_with("manage-environments", &UNREACHABLE)
        .await;
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    let flag = |number: usize| {
        let variants = json!({ "on": "x".repeat(number * 2_000), "off": "" });
        let flag = json!({ "state": "ENABLED", "variants": variants, "defaultVariant": "on" });
        (format!("imported-{number:02}"), flag)
    };
    let flags: serde_json::Map<String, Value> = (1..=30).map(flag).collect();
    let file = json!({ "flags": flags }).to_string();
    let path = "/api/admin/environments/production/import";
    let event = Event::admin("POST", path, &file).header("if-match", "*");
    let answer = import.call(&event).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Three flags of the environment are not in the file and are archived.
    assert_eq!(waiting(&stack).await, 33);
    eventually("all are delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    let accepted = bus.accepted();
    assert_eq!(numbers(&accepted).len(), 33);
    let largest = accepted
        .iter()
        .find(|event| event["flagKey"] == "imported-30")
        .expect("an event");
    let text = largest["after"]["definition"]["variants"]["on"].as_str();
    assert_eq!(text.map(str::len), Some(60_000));
}

#[tokio::test]
async fn the_event_of_an_api_key_does_not_contain_the_key() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let keys = stack.function_with("manage-keys", &UNREACHABLE).await;
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    let body = json!({ "kind": "server", "name": "shop" }).to_string();
    let made = keys.call(&Event::load("manage-keys").body(&body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = &made.json()["id"];
    let revoke = Event::load("manage-keys-revoke").parameter("keyId", id.as_str().expect("an id"));
    assert_eq!(keys.call(&revoke).await.status, 204);
    eventually("both are delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    let accepted = bus.accepted();
    let key = json!({ "id": id, "kind": "server", "name": "shop" });
    for (event, (action, before, after)) in accepted.iter().zip([
        ("key.create", &Value::Null, &key),
        ("key.revoke", &key, &Value::Null),
    ]) {
        assert_eq!(event["action"], action);
        assert_eq!(event["flagKey"], Value::Null);
        assert_eq!((&event["before"], &event["after"]), (before, after));
    }
    assert_eq!(numbers(&accepted)[""], [1, 2]);
}

#[tokio::test]
async fn a_rollback_by_an_alarm_sends_an_event() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let alarms = CloudWatch::start().await;
    alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let own = alarms.environment();
    let own = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let environment: Vec<_> = own.chain(bus.environment()).collect();
    let ramps = stack.function_with("ramps", &environment).await;
    let guard = stack.function_with("guard", &environment).await;
    let plan = json!({
        "steps": [{ "percent": 60, "bakeSeconds": 3600 }], "guards": [{ "alarm": "errors" }],
    });
    let start = async |key: &str| {
        let path = format!("/api/admin/flags/{key}/ramp");
        let start = Event::admin("POST", &path, &plan.to_string()).header("if-match", "*");
        let started = ramps.call(&start).await;
        assert_eq!(started.status, 201, "{started:?}");
    };
    start("checkout").await;
    let alarm_event = || {
        let mut event = Event::load("guard").value().clone();
        let now = pennon_core::http::timestamp(SystemTime::now());
        event["alarmData"]["alarmName"] = json!("errors");
        event["alarmArn"] = json!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:errors");
        event["alarmData"]["state"]["timestamp"] = json!(now.replace('Z', "+0000"));
        event
    };
    let event = alarm_event();
    let done = guard.invoke(&event).await.expect("a rollback");
    assert_eq!(done["rolledBack"], 1);
    // On a busy machine the time limit may end before the events are sent. Lambda may repeat an invocation too.
    eventually("guard sends the events", async || {
        let again = guard.invoke(&event).await.expect("no ramp");
        assert_eq!(again["rolledBack"], 0);
        waiting(&stack).await == 0
    })
    .await;
    let accepted = bus.accepted();
    let numbers = numbers(&accepted);
    assert!(numbers["checkout"].is_sorted(), "{accepted:?}");
    let of = |action: &str| accepted.iter().find(|event| event["action"] == action);
    let step = of("flag.ramp").expect("the first step");
    assert_eq!(step["after"]["rolloutPercentage"], 60);
    let rollback = of("flag.rollback").expect("the rollback");
    assert_eq!(rollback["after"]["rolloutPercentage"], 50);
    assert_eq!(rollback["actor"], "alarm:errors");

    // The event of a rollback does not wait for another ramp, which cannot be rolled back.
    for key in ["other", "forged"] {
        stack.database.add_flag(key, true, 10).await;
        start(key).await;
    }
    let forge = "update pennon_ramps set ramp = (ramp::jsonb || '{\"start\": {\"rolloutPercentage\": 90}}')::json
        where flag_key = 'forged'";
    let sql = stack.database.sql();
    sql.batch_execute(forge).await.expect("a forged ramp");
    let event = alarm_event();
    eventually("guard sends the events", async || {
        let outcome = guard.invoke(&event).await;
        assert!(outcome.is_err(), "{outcome:?}");
        waiting(&stack).await == 0
    })
    .await;
    let accepted = bus.accepted();
    let mut rollbacks = accepted
        .iter()
        .filter(|event| event["action"] == "flag.rollback");
    assert!(rollbacks.any(|event| event["flagKey"] == "other"));
}

#[tokio::test]
async fn a_state_that_is_too_large_is_replaced_by_its_hash() {
    let stack = Stack::start().await;
    let bus = FailingBus::start().await;
    let update = stack.function_with("update-flag", &UNREACHABLE).await;
    set_percentage(&update, "checkout", 1).await;
    let enlarge = "
        update pennon_audit set after = json_build_object('text', repeat('x', 300000))
        returning id::text, encode(sha256(convert_to(after::text, 'UTF8')), 'hex')";
    let row = stack.database.sql().query_one(enlarge, &[]).await;
    let row = row.expect("an entry");
    let worker = stack.function_with("reconcile", &bus.environment()).await;
    eventually("it is delivered", async || {
        reconcile(&worker).await.expect("a young backlog");
        waiting(&stack).await == 0
    })
    .await;
    let event = &bus.accepted()[0];
    let hash = json!({ "sha256": row.get::<_, &str>(1), "auditId": row.get::<_, &str>(0) });
    assert_eq!(event["after"], hash);
    assert_eq!(event["before"]["rolloutPercentage"], 50);
}

#[tokio::test]
async fn without_a_bus_no_event_is_kept() {
    let stack = Stack::start().await;
    let with_bus = stack.function_with("update-flag", &UNREACHABLE).await;
    let without = stack.function("update-flag").await;
    set_percentage(&without, "checkout", 1).await;
    assert_eq!(waiting(&stack).await, 0);
    set_percentage(&with_bus, "checkout", 2).await;
    assert_eq!(waiting(&stack).await, 1);
    let worker = stack.function("reconcile").await;
    reconcile(&worker).await.expect("no backlog");
    assert_eq!(waiting(&stack).await, 0);
}

#[tokio::test]
async fn the_local_server_reports_that_a_flag_file_has_no_change_events() {
    let local = Local::start(&UNREACHABLE).await;
    let warning = "EVENT_BUS_NAME has no effect without DATABASE_URL";
    assert!(local.log().contains(warning), "{}", local.log());
    let body = json!({ "enabled": true }).to_string();
    let path = "/api/admin/flags/beta-search";
    let answer = local.admin("PATCH", path, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
