//! Alarms that guard ramps: metric alarms of moto's CloudWatch, a composite alarm, and the function `guard`.

use std::time::{Duration, SystemTime};

use pennon_tests::api::Api;
use pennon_tests::cloudwatch::{CloudWatch, CompositeAlarm, GUARD_FUNCTION_ARN};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

use super::{
    RAMP, act, create, edit_ramp, end_bakes, guarded, percentage, plan, ramp, set_alarm, sql,
    start_ramp, steps,
};

/// A stack with the functions of ramps.
pub(super) struct Deployment {
    pub(super) stack: Stack,
    pub(super) alarms: CloudWatch,
    pub(super) ramps: Function,
    pub(super) reconcile: Function,
    pub(super) guard: Function,
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = environment.iter();
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

impl Deployment {
    /// Starts the functions with moto's CloudWatch.
    pub(super) async fn start() -> Self {
        let (stack, alarms) = (Stack::start().await, CloudWatch::start().await);
        let environment = alarms.environment();
        let environment = borrowed(&environment);
        Self {
            ramps: stack.function_with("ramps", &environment).await,
            reconcile: stack.function_with("reconcile", &environment).await,
            // `guard` does not call CloudWatch.
            guard: stack.function("guard").await,
            stack,
            alarms,
        }
    }

    pub(super) async fn create(&self, key: &str, plan: &Value) -> Response {
        let path = format!("/api/admin/flags/{key}/ramp");
        let event = Event::admin("POST", &path, &plan.to_string()).header("if-match", "*");
        self.ramps.call(&event).await
    }

    pub(super) async fn start_ramp(&self, key: &str, plan: &Value) {
        let answer = self.create(key, plan).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    async fn act(&self, key: &str, action: &str) -> Response {
        let path = format!("/api/admin/flags/{key}/ramp/{action}");
        let event = Event::admin("POST", &path, "").header("if-match", "*");
        self.ramps.call(&event).await
    }

    pub(super) async fn read(&self, key: &str) -> Value {
        let path = format!("/api/admin/flags/{key}/ramp");
        self.ramps
            .call(&Event::admin("GET", &path, ""))
            .await
            .json()
    }

    pub(super) async fn run(&self) -> Value {
        self.reconcile.invoke(&json!({})).await.expect("reconciles")
    }
}

/// The event by which CloudWatch invokes a function, at this time.
pub(super) fn alarm_event(alarm: &str, state: &str, at: &str) -> Value {
    json!({
        "source": "aws.cloudwatch",
        "alarmArn": format!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:{alarm}"),
        "accountId": "123456789012", "time": at, "region": "us-east-1",
        "alarmData": {
            "alarmName": alarm,
            "state": {"value": state, "reason": "test", "timestamp": at},
            "previousState": {"value": "OK", "reason": "test", "timestamp": at},
            "configuration": {"metrics": [{"id": "m", "metricStat": {
                "metric": {"namespace": "AWS/Lambda", "name": "Errors", "dimensions": {}},
                "period": 60, "stat": "Sum"}, "returnData": true}]},
        },
    })
}

pub(super) fn now() -> String {
    pennon_core::http::timestamp(SystemTime::now()).replace('Z', "+0000")
}

#[tokio::test]
async fn reconcile_reads_the_alarms_of_cloudwatch() {
    let deployment = Deployment::start().await;
    let alarms = &deployment.alarms;
    alarms
        .add("silent", &["arn:aws:sns:us-east-1:1:topic"])
        .await;
    alarms.add("metric", &[GUARD_FUNCTION_ARN]).await;
    alarms.add("both", &[GUARD_FUNCTION_ARN]).await;
    let guards = json!([
        {"alarm": "both"}, {"alarm": "silent"},
        {"alarm": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:metric", "onMissing": "hold"},
    ]);
    let body = json!({"steps": steps(&[60, 70, 80]), "guards": guards});
    let mut elsewhere = body.clone();
    elsewhere["guards"][2]["alarm"] = json!("arn:aws:cloudwatch:eu-west-1:1:alarm:metric");
    let refused = deployment.create("checkout", &elsewhere).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(
        refused.body.contains("metric' does not exist"),
        "{refused:?}"
    );
    let made = deployment.create("checkout", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(made.json()["guards"][1]["warning"].is_string(), "{made:?}");
    assert_eq!(made.json()["guards"][0]["warning"], Value::Null);
    end_bakes(&deployment.stack).await;
    deployment.run().await;
    assert_eq!(deployment.read("checkout").await["step"], 2);
    // Reading the alarms for a response has a time limit. If a busy machine exceeds it, the states are `unknown`.
    let shows = async |expected: [&str; 3]| {
        let expected = expected.map(Value::from);
        eventually("the ramp shows its alarms", async || {
            let ramp = deployment.read("checkout").await;
            let guards = ramp["guards"].as_array().expect("guards").iter();
            let states: Vec<Value> = guards.map(|guard| guard["state"].clone()).collect();
            states == expected
        })
        .await;
    };
    shows(["ok", "ok", "ok"]).await;
    let message = "alarms that guard ramps invoke no function; ramps notice them once a minute";
    assert!(deployment.reconcile.has_logged(message));

    for (state, reason) in [("INSUFFICIENT_DATA", "has no data"), ("", "does not exist")] {
        if state.is_empty() {
            alarms.delete("metric").await;
        } else {
            alarms.set("metric", state).await;
        }
        end_bakes(&deployment.stack).await;
        deployment.run().await;
        let ramp = deployment.read("checkout").await;
        assert_eq!(ramp["state"], "holding");
        assert_eq!(ramp["reason"], format!("alarm 'metric' {reason}"));
        assert_eq!(ramp["step"], 2);
        let metric = if state.is_empty() {
            "missing"
        } else {
            "insufficientData"
        };
        shows(["ok", "ok", metric]).await;
    }
    for fault in [Mode::Hang, Mode::Refuse] {
        alarms.wire.set(fault).await;
        shows(["unknown", "unknown", "unknown"]).await;
    }
    deployment.run().await;
    let ramp = deployment.read("checkout").await;
    let reason = ramp["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("CloudWatch did not answer"), "{reason}");
    assert_eq!(deployment.create("search", &body).await.status, 503);
    alarms.wire.set(Mode::Open).await;
    alarms.set("both", "ALARM").await;
    shows(["alarm", "ok", "missing"]).await;
    deployment.run().await;
    let ramp = deployment.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["percent"].as_u64()),
        (&json!("rolledBack"), Some(50))
    );
}

#[tokio::test]
async fn a_run_reads_the_alarms_of_more_than_a_hundred_names() {
    let deployment = Deployment::start().await;
    for number in 0..105 {
        let name = format!("alarm-{number}");
        deployment.alarms.add(&name, &[GUARD_FUNCTION_ARN]).await;
    }
    for number in 0..15 {
        let key = format!("flag-{number}");
        deployment.stack.database.add_flag(&key, true, 0).await;
        let guards = (0..7).map(|part| json!({"alarm": format!("alarm-{}", number * 7 + part)}));
        let guards: Vec<Value> = guards.collect();
        let body = json!({"steps": steps(&[10, 20]), "guards": guards});
        deployment.start_ramp(&key, &body).await;
    }
    for name in ["alarm-3", "alarm-104"] {
        deployment.alarms.set(name, "ALARM").await;
    }
    end_bakes(&deployment.stack).await;
    deployment.run().await;
    for number in 0..15 {
        let ramp = deployment.read(&format!("flag-{number}")).await;
        let wanted = if [0, 14].contains(&number) {
            "rolledBack"
        } else {
            "baking"
        };
        assert_eq!(ramp["state"], wanted, "{number}: {ramp}");
    }
}

#[tokio::test]
async fn guard_rolls_a_ramp_back_once_and_ignores_other_events() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let old = "2026-01-01T00:00:00.000+0000";
    let body = guarded(&[60, 70], "errors");
    deployment.start_ramp("checkout", &body).await;
    let guard = &deployment.guard;
    let none = |state: &str| Ok(json!({"state": state, "rolledBack": 0}));
    for state in ["OK", "INSUFFICIENT_DATA"] {
        assert_eq!(
            guard.invoke(&alarm_event("errors", state, &now())).await,
            none(state)
        );
    }
    assert_eq!(
        guard.invoke(&alarm_event("errors", "ALARM", old)).await,
        none("ALARM")
    );
    assert_eq!(
        guard.invoke(&alarm_event("other", "ALARM", &now())).await,
        none("ALARM")
    );
    for event in [json!({}), json!([]), json!({"alarmData": {"alarmName": 1}})] {
        assert!(guard.invoke(&event).await.is_err(), "{event}");
    }
    assert_eq!(deployment.read("checkout").await["state"], "baking");
    let event = alarm_event("errors", "ALARM", &now());
    let done = json!({"state": "ALARM", "rolledBack": 1});
    assert_eq!(guard.invoke(&event).await, Ok(done));
    assert_eq!(guard.invoke(&event).await, none("ALARM"));
    let ramp = deployment.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["percent"].as_u64()),
        (&json!("rolledBack"), Some(50))
    );
}

/// Sets the beginning of a ramp's current step to this many minutes ago.
async fn begin_steps_earlier(stack: &Stack, key: &str, minutes: u64) {
    let at = SystemTime::now() - Duration::from_secs(minutes * 60);
    let at = pennon_core::http::timestamp(at);
    let earlier = format!(
        "update pennon_ramps set ramp = (ramp::jsonb || '{{\"stepBeganAt\": \"{at}\"}}')::json
         where flag_key = '{key}'"
    );
    sql(stack, &earlier).await;
}

#[tokio::test]
async fn a_shared_alarm_rolls_back_only_ramps_that_advanced_within_its_evaluation_interval() {
    let deployment = Deployment::start().await;
    // One alarm is created with an evaluation interval of 20 minutes; that of the other is raised to 20 minutes while
    // it guards ramps.
    deployment
        .alarms
        .put("errors", &[GUARD_FUNCTION_ARN], 20)
        .await;
    deployment
        .alarms
        .put("slow", &[GUARD_FUNCTION_ARN], 5)
        .await;
    // The event of an alarm names a period of one minute, which is not the evaluation interval.
    let advanced = [("just-now", 0), ("in-time", 15), ("before", 25)];
    for alarm in ["errors", "slow"] {
        for (key, minutes) in advanced {
            let key = format!("{alarm}-{key}");
            deployment.stack.database.add_flag(&key, true, 0).await;
            let body = guarded(&[60, 70], alarm);
            deployment.start_ramp(&key, &body).await;
            begin_steps_earlier(&deployment.stack, &key, minutes).await;
        }
    }
    for alarm in ["errors", "slow"] {
        if alarm == "slow" {
            deployment
                .alarms
                .put(alarm, &[GUARD_FUNCTION_ARN], 20)
                .await;
            deployment.run().await;
        }
        let done = json!({"state": "ALARM", "rolledBack": 2});
        let event = alarm_event(alarm, "ALARM", &now());
        assert_eq!(deployment.guard.invoke(&event).await, Ok(done), "{alarm}");
        for (key, state, percent) in [
            ("just-now", "rolledBack", 0),
            ("in-time", "rolledBack", 0),
            ("before", "paused", 60),
        ] {
            let ramp = deployment.read(&format!("{alarm}-{key}")).await;
            assert_eq!(
                (&ramp["state"], &ramp["percent"]),
                (&json!(state), &json!(percent)),
                "{ramp}"
            );
        }
        // Lambda repeats the event after an admin has resumed the ramp.
        let before = format!("{alarm}-before");
        assert_eq!(deployment.act(&before, "resume").await.status, 200);
        let none = json!({"state": "ALARM", "rolledBack": 0});
        assert_eq!(deployment.guard.invoke(&event).await, Ok(none));
        assert_eq!(deployment.read(&before).await["state"], "baking");
    }
}

#[tokio::test]
async fn a_ramp_that_is_checked_after_others_of_its_alarm_were_stopped_is_paused() {
    let deployment = Deployment::start().await;
    for (alarm, by_reconcile) in [("first", false), ("second", true)] {
        let alarms = &deployment.alarms;
        alarms.put(alarm, &[GUARD_FUNCTION_ARN], 20).await;
        let (cause, other) = (format!("{alarm}-cause"), format!("{alarm}-other"));
        for (key, minutes) in [(&cause, 0), (&other, 25)] {
            deployment.stack.database.add_flag(key, true, 0).await;
            let body = guarded(&[60, 70], alarm);
            deployment.start_ramp(key, &body).await;
            begin_steps_earlier(&deployment.stack, key, minutes).await;
        }
        let holder = pennon_tests::postgres::connect(&deployment.stack.database.url()).await;
        let holder = holder.expect("a connection");
        let lock = format!("begin; select from pennon_ramps where flag_key = '{other}' for update");
        holder.batch_execute(&lock).await.expect("a lock");
        alarms.set(alarm, "ALARM").await;
        let event = alarm_event(alarm, "ALARM", &now());
        let done = |rolled_back| Ok(json!({"state": "ALARM", "rolledBack": rolled_back}));
        assert_eq!(deployment.guard.invoke(&event).await, done(1));
        assert_eq!(deployment.read(&other).await["state"], "baking");
        holder.batch_execute("rollback").await.expect("no lock");
        // Without CloudWatch, a run changes the ramp's state. The alarm must still stop the ramp.
        alarms.wire.set(Mode::Refuse).await;
        deployment.run().await;
        assert_eq!(deployment.read(&other).await["state"], "holding");
        alarms.wire.set(Mode::Open).await;
        if by_reconcile {
            deployment.run().await;
        } else {
            assert_eq!(deployment.guard.invoke(&event).await, done(0));
        }
        for (key, state) in [(&cause, "rolledBack"), (&other, "paused")] {
            let ramp = deployment.read(key).await;
            assert_eq!(ramp["state"], state, "{ramp}");
        }
        // The ramp was resumed after the other one was stopped, so it does not share the alarm any more.
        assert_eq!(deployment.act(&other, "resume").await.status, 200);
        let again = alarm_event(alarm, "ALARM", &now());
        assert_eq!(deployment.guard.invoke(&again).await, done(1));
    }
}

#[tokio::test]
async fn a_rollback_reads_no_ramp_that_has_ended() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let body = guarded(&[60, 70], "errors");
    deployment.start_ramp("checkout", &body).await;
    // A read of this row would log that it is unreadable.
    let ended = "
        insert into pennon_ramps (id, environment, flag_key, watched, open, alarms, ramp)
          select 'ended', environment, flag_key, false, false, alarms, '{}' from pennon_ramps";
    sql(&deployment.stack, ended).await;
    let event = alarm_event("errors", "ALARM", &now());
    let done = json!({"state": "ALARM", "rolledBack": 1});
    assert_eq!(deployment.guard.invoke(&event).await, Ok(done));
    let message = "a stored ramp cannot be read";
    assert!(!deployment.guard.has_logged(message));
}

#[tokio::test]
async fn a_ramp_that_is_not_among_the_five_hundred_of_a_run_shares_its_alarm_with_those_that_are() {
    let deployment = Deployment::start().await;
    deployment
        .alarms
        .put("errors", &[GUARD_FUNCTION_ARN], 20)
        .await;
    for (key, minutes) in [("cause", 0), ("other", 25)] {
        deployment.stack.database.add_flag(key, true, 0).await;
        let body = guarded(&[60, 70], "errors");
        deployment.start_ramp(key, &body).await;
        begin_steps_earlier(&deployment.stack, key, minutes).await;
    }
    // A run skips unreadable ramps, but they take 499 of its 500 places.
    let many = "
        update pennon_ramps set checked_at = null where flag_key = 'other';
        insert into pennon_ramps (id, environment, flag_key, watched, open, alarms, ramp)
          select 'many-' || number, 'production', 'many-' || number, true, true, '{}', '{}'
          from generate_series(1, 499) as number";
    sql(&deployment.stack, many).await;
    deployment.alarms.set("errors", "ALARM").await;
    deployment.run().await;
    for (key, state) in [("cause", "baking"), ("other", "paused")] {
        assert_eq!(deployment.read(key).await["state"], state, "{key}");
    }
}

#[tokio::test]
async fn a_run_that_cannot_read_which_ramps_share_an_alarm_checks_all_of_its_ramps() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    for (key, body) in [
        ("guarded", guarded(&[60, 70], "errors")),
        ("unguarded", plan(&[60, 70])),
    ] {
        deployment.stack.database.add_flag(key, true, 0).await;
        deployment.start_ramp(key, &body).await;
    }
    // Rows can be written with this type, but not searched for a name.
    let unsearchable = "
        alter table pennon_ramps alter column alarms drop default,
          alter column alarms type text using alarms::text";
    sql(&deployment.stack, unsearchable).await;
    deployment.alarms.set("errors", "ALARM").await;
    end_bakes(&deployment.stack).await;
    deployment.run().await;
    assert_eq!(deployment.read("guarded").await["state"], "rolledBack");
    assert_eq!(deployment.read("unguarded").await["step"], 2);
}

#[tokio::test]
async fn an_event_that_arrives_after_reconcile_has_seen_its_alarm_changes_nothing() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let mut body = guarded(&[60, 70], "errors");
    body["onAlarm"] = json!("pause");
    deployment.start_ramp("checkout", &body).await;
    let late = alarm_event("errors", "ALARM", &now());
    deployment.alarms.set("errors", "ALARM").await;
    deployment.run().await;
    let ramp = deployment.read("checkout").await;
    let last = ramp["transitions"].as_array().and_then(|it| it.last());
    let engine = format!("ramp:{}", ramp["id"].as_str().expect("an id"));
    assert_eq!(
        last.map(|it| (&it["state"], &it["actor"])),
        Some((&json!("paused"), &json!(engine)))
    );
    deployment.alarms.set("errors", "OK").await;
    assert_eq!(deployment.act("checkout", "resume").await.status, 200);
    let guard = &deployment.guard;
    let none = json!({"state": "ALARM", "rolledBack": 0});
    assert_eq!(guard.invoke(&late).await, Ok(none.clone()));
    assert_eq!(deployment.read("checkout").await["state"], "baking");
    // The alarm fires again.
    let again = alarm_event("errors", "ALARM", &now());
    assert_eq!(guard.invoke(&again).await, Ok(none));
    assert_eq!(deployment.read("checkout").await["state"], "paused");
}

#[tokio::test]
async fn a_forged_ramp_never_raises_a_share_when_it_is_rolled_back() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    for (number, (on_alarm, forged)) in [
        (
            "start",
            json!({"start": {"enabled": true, "rolloutPercentage": 90}}),
        ),
        (
            "start",
            json!({"start": {"enabled": false, "rolloutPercentage": 100}}),
        ),
        (
            "previous",
            json!({"startPercent": 99, "step": 1, "start": {"rolloutPercentage": 99}}),
        ),
        (
            "previous",
            json!({"step": 2, "plan": {"steps": steps(&[95, 96]),
            "guards": [{"alarm": "errors", "onMissing": "hold"}], "onAlarm": "previous"}}),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("flag-{number}");
        deployment.stack.database.add_flag(&key, true, 10).await;
        let mut body = guarded(&[20, 70], "errors");
        body["onAlarm"] = json!(on_alarm);
        deployment.start_ramp(&key, &body).await;
        let forge = format!(
            "update pennon_ramps set ramp = (ramp::jsonb || '{forged}')::json
             where flag_key = '{key}'"
        );
        sql(&deployment.stack, &forge).await;
        let event = alarm_event("errors", "ALARM", &now());
        let outcome = deployment.guard.invoke(&event).await;
        assert!(outcome.is_err(), "{forged}: {outcome:?}");
        let statement = "select enabled, rollout_percentage from feature_flags where flag_key = $1";
        let row = deployment
            .stack
            .database
            .sql()
            .query_one(statement, &[&key])
            .await;
        let row = row.expect("a flag");
        assert_eq!(
            (row.get::<_, bool>(0), row.get::<_, i32>(1)),
            (true, 20),
            "{forged}"
        );
        sql(&deployment.stack, "delete from pennon_ramps").await;
    }
}

#[tokio::test]
async fn a_composite_alarm_guards_a_ramp() {
    const NAME: &str = "service-health";
    let stack = Stack::start().await;
    let alarm = CompositeAlarm::start(NAME).await;
    let environment = alarm.environment();
    let environment = borrowed(&environment);
    let ramps = stack.function_with("ramps", &environment).await;
    let reconcile = stack.function_with("reconcile", &environment).await;
    let guard = stack.function("guard").await;
    stack.database.add_flag("other", true, 0).await;
    let path = |key: &str| format!("/api/admin/flags/{key}/ramp");
    let state = async |key: &str| {
        let answer = ramps.call(&Event::admin("GET", &path(key), "")).await;
        let ramp = answer.json();
        (ramp["state"].clone(), ramp["percent"].clone())
    };
    for (key, name) in [
        ("checkout", NAME),
        (
            "other",
            "arn:aws:cloudwatch:us-east-1:123456789012:alarm:service-health",
        ),
    ] {
        let body = guarded(&[60, 70], name).to_string();
        let event = Event::admin("POST", &path(key), &body).header("if-match", "*");
        let made = ramps.call(&event).await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(made.json()["guards"][0]["warning"], Value::Null, "{made:?}");
    }
    let requests = alarm.requests();
    assert!(!requests.is_empty());
    for (target, body) in requests {
        assert_eq!(target, "GraniteServiceVersion20100801.DescribeAlarms");
        assert_eq!(body["AlarmTypes"], json!(["MetricAlarm", "CompositeAlarm"]));
        let names = [json!([NAME]), json!(["errors", "latency"])];
        assert!(names.contains(&body["AlarmNames"]), "{body}");
    }
    reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(state("checkout").await, (json!("baking"), json!(60)));

    alarm.set("ALARM", Duration::ZERO);
    let body = guarded(&[60], NAME).to_string();
    let event = Event::admin("POST", &path("search"), &body).header("if-match", "*");
    let refused = ramps.call(&event).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("is in ALARM"), "{refused:?}");
    // The step began within the evaluation interval (half an hour) of an alarm in the rule.
    begin_steps_earlier(&stack, "checkout", 20).await;
    // The event of a composite alarm has a rule instead of metrics.
    let mut event = alarm_event(NAME, "ALARM", &now());
    event["alarmData"]["configuration"] = json!({"alarmRule": "ALARM(\"errors\")"});
    let done = json!({"state": "ALARM", "rolledBack": 2});
    assert_eq!(guard.invoke(&event).await, Ok(done));
    assert_eq!(state("checkout").await, (json!("rolledBack"), json!(50)));
    assert_eq!(state("other").await, (json!("rolledBack"), json!(0)));

    // Without the event, a run finds the alarm, here twenty minutes after it fired. Only a step that began in the half
    // hour before that can be the cause.
    alarm.set("OK", Duration::ZERO);
    for (key, minutes) in [("checkout", 60), ("other", 40)] {
        let acknowledge = format!("{}/acknowledge", path(key));
        let event = Event::admin("POST", &acknowledge, "").header("if-match", "*");
        assert_eq!(ramps.call(&event).await.status, 200);
        let body = guarded(&[60, 70], NAME).to_string();
        let event = Event::admin("POST", &path(key), &body).header("if-match", "*");
        assert_eq!(ramps.call(&event).await.status, 201);
        begin_steps_earlier(&stack, key, minutes).await;
    }
    alarm.set("ALARM", Duration::from_secs(20 * 60));
    reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(state("checkout").await, (json!("paused"), json!(60)));
    assert_eq!(state("other").await, (json!("rolledBack"), json!(0)));
}

#[tokio::test]
async fn on_missing_decides_what_an_alarm_without_data_or_a_deleted_alarm_does() {
    let alarms = CloudWatch::start().await;
    let environment = alarms.environment();
    let cases = ["hold", "rollback", "ignore"];
    let losses = [("no-data", "has no data"), ("deleted", "does not exist")];
    let every = || cases.iter().flat_map(|it| losses.map(|loss| (*it, loss)));
    for (number, api) in Api::of_both_kinds_with_variables(&borrowed(&environment))
        .await
        .into_iter()
        .enumerate()
    {
        let key = |on_missing: &str, loss: &str| format!("{on_missing}-{loss}");
        let name = |on_missing: &str, loss: &str| format!("{on_missing}-{loss}-{number}");
        for (on_missing, (loss, _)) in every() {
            let flag =
                json!({"key": key(on_missing, loss), "enabled": true, "rolloutPercentage": 5});
            let made = api.admin("POST", "/api/admin/flags", &flag).await;
            assert_eq!(made.status, 201, "{made:?}");
            let alarm = name(on_missing, loss);
            alarms.add(&alarm, &[GUARD_FUNCTION_ARN]).await;
            let body = json!({
                "steps": [
                    {"percent": 10, "bakeSeconds": 3_600}, {"percent": 20, "bakeSeconds": 3_600},
                ],
                "guards": [{"alarm": alarm, "onMissing": on_missing}],
            });
            let path = format!("/api/admin/flags/{}/ramp", key(on_missing, loss));
            let made = api.admin_if("*", "POST", &path, &body).await;
            assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        }
        for (on_missing, (loss, _)) in every() {
            let alarm = name(on_missing, loss);
            if loss == "deleted" {
                alarms.delete(&alarm).await;
            } else {
                alarms.set(&alarm, "INSUFFICIENT_DATA").await;
            }
        }
        for (on_missing, (loss, reason)) in every() {
            let path = format!("/api/admin/flags/{}/ramp", key(on_missing, loss));
            let reason = format!("alarm '{}' {reason}", name(on_missing, loss));
            let read = async || api.read(&path).await.json();
            let (state, percent) = match on_missing {
                "hold" => ("holding", 10),
                "rollback" => ("rolledBack", 5),
                _ => ("baking", 20),
            };
            if on_missing == "ignore" {
                let advanced = api
                    .admin_if("*", "POST", &format!("{path}/advance"), &Value::Null)
                    .await;
                assert_eq!(advanced.status, 200, "{advanced:?} on {}", api.store);
            } else {
                eventually("the ramp follows its guard", async || {
                    read().await["reason"] == reason
                })
                .await;
            }
            let ramp = read().await;
            assert_eq!(
                (&ramp["state"], &ramp["percent"]),
                (&json!(state), &json!(percent)),
                "{on_missing} {loss} on {}: {ramp}",
                api.store
            );
            if on_missing == "hold" {
                let advance = format!("{path}/advance");
                let refused = api.admin_if("*", "POST", &advance, &Value::Null).await;
                assert_eq!(refused.status, 409, "{refused:?} on {}", api.store);
            }
        }
        // The engine advances past an alarm that is ignored.
        let body = json!({
            "steps": [
                {"percent": 60, "bakeSeconds": 1}, {"percent": 70, "bakeSeconds": 3_600},
            ],
            "guards": [{"alarm": name("ignore", "steps"), "onMissing": "ignore"}],
        });
        alarms
            .add(&name("ignore", "steps"), &[GUARD_FUNCTION_ARN])
            .await;
        start_ramp(&api, &body).await;
        alarms.delete(&name("ignore", "steps")).await;
        eventually("the second step begins", async || {
            ramp(&api).await["step"] == 2
        })
        .await;
        assert_eq!(percentage(&api).await, 70, "on {}", api.store);
    }
}

#[tokio::test]
async fn a_ramp_is_not_advanced_by_hand_while_its_alarm_is_not_ok() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    deployment.stack.database.add_flag("waiting", true, 0).await;
    let mut approval = guarded(&[10], "errors");
    approval["steps"][0]["approval"] = json!(true);
    let baking = guarded(&[60, 70], "errors");
    for (key, body) in [("checkout", &baking), ("waiting", &approval)] {
        deployment.start_ramp(key, body).await;
    }
    for state in ["ALARM", "INSUFFICIENT_DATA", "deleted"] {
        if state == "deleted" {
            deployment.alarms.delete("errors").await;
        } else {
            deployment.alarms.set("errors", state).await;
        }
        for (key, step, percent) in [("checkout", 1, 60), ("waiting", 0, 0)] {
            let refused = deployment.act(key, "advance").await;
            assert_eq!(refused.status, 409, "{state}: {refused:?}");
            assert!(refused.body.contains("alarm 'errors'"), "{refused:?}");
            let ramp = deployment.read(key).await;
            assert_eq!(
                (&ramp["step"], &ramp["percent"]),
                (&json!(step), &json!(percent)),
                "{state}"
            );
        }
    }
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    for (key, percent) in [("checkout", 70), ("waiting", 10)] {
        let advanced = deployment.act(key, "advance").await;
        assert_eq!(advanced.status, 200, "{advanced:?}");
        assert_eq!(advanced.json()["percent"], percent);
    }
}

/// Moves a time of the ramp of `checkout` by SQL; `seconds` may be negative.
async fn move_time(stack: &Stack, field: &str, seconds: i64) {
    let statement = format!(
        "update pennon_ramps set ramp = jsonb_set(ramp::jsonb, '{{{field}}}', to_jsonb(to_char(
           (ramp->>'{field}')::timestamptz at time zone 'utc' + make_interval(secs => {seconds}),
           'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')))::json
         where flag_key = 'checkout'"
    );
    sql(stack, &statement).await;
}

#[tokio::test]
async fn a_bake_during_which_cloudwatch_never_answered_does_not_count() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let body = guarded(&[60, 70], "errors");
    deployment.start_ramp("checkout", &body).await;
    deployment.alarms.wire.set(Mode::Refuse).await;
    // Runs 100 s apart; the bake has ended at the third.
    for seconds in [-100, -100, -3_500] {
        move_time(&deployment.stack, "checkedAt", -100).await;
        move_time(&deployment.stack, "dueAt", seconds).await;
        deployment.run().await;
        let ramp = deployment.read("checkout").await;
        let reason = ramp["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("CloudWatch did not answer"), "{ramp}");
    }
    move_time(&deployment.stack, "checkedAt", -100).await;
    deployment.alarms.wire.set(Mode::Open).await;
    deployment.run().await;
    let ramp = deployment.read("checkout").await;
    assert_eq!(ramp["step"], 1, "{ramp}");
    let reason = ramp["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("the step was not watched"), "{ramp}");
    deployment.run().await;
    assert_eq!(deployment.read("checkout").await["state"], "baking");
    end_bakes(&deployment.stack).await;
    deployment.run().await;
    assert_eq!(deployment.read("checkout").await["step"], 2);
}

#[tokio::test]
async fn advance_is_rejected_if_another_step_began_meanwhile() {
    let deployment = Deployment::start().await;
    let stack = &deployment.stack;
    deployment
        .start_ramp("checkout", &plan(&[60, 70, 80]))
        .await;
    let lock = pennon_tests::postgres::connect(&stack.database.url()).await;
    let lock = lock.expect("a connection");
    lock.batch_execute("begin; select 1 from feature_flags where flag_key = 'checkout' for update")
        .await
        .expect("a lock");
    // As if `reconcile` began the second step at that moment.
    let begin_step = async {
        eventually("the request waits in its transaction", async || {
            let waiting = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            let row = stack.database.sql().query_one(waiting, &[]).await;
            row.expect("a count").get::<_, i64>(0) > 0
        })
        .await;
        let step = "update pennon_ramps set ramp = (ramp::jsonb || jsonb_build_object(
            'step', 2, 'percent', 70, 'version', (ramp->>'version')::bigint + 1))::json";
        lock.batch_execute(step).await.expect("a step");
        lock.batch_execute("commit").await.expect("a commit");
    };
    let (answer, ()) = tokio::join!(deployment.act("checkout", "advance"), begin_step);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("has changed"), "{answer:?}");
    assert_eq!(deployment.read("checkout").await["step"], 2);
}

/// Lambda may repeat an event for ten minutes, and the alarm may be OK again by then.
#[tokio::test]
async fn an_alarm_from_before_a_ramp_began_or_was_resumed_does_not_roll_it_back() {
    let deployment = Deployment::start().await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    deployment.stack.database.add_flag("waiting", true, 0).await;
    let mut approval = guarded(&[10], "errors");
    approval["steps"][0]["approval"] = json!(true);
    deployment.start_ramp("waiting", &approval).await;
    let baking = guarded(&[60, 70], "errors");
    deployment.start_ramp("checkout", &baking).await;
    assert_eq!(deployment.act("checkout", "pause").await.status, 200);
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    pause().await;
    let fired_at = now();
    pause().await;
    assert_eq!(deployment.act("waiting", "advance").await.status, 200);
    assert_eq!(deployment.act("checkout", "resume").await.status, 200);
    for (at, state) in [(fired_at, "baking"), (now(), "rolledBack")] {
        let event = alarm_event("errors", "ALARM", &at);
        deployment.guard.invoke(&event).await.expect("an outcome");
        for key in ["waiting", "checkout"] {
            assert_eq!(deployment.read(key).await["state"], state, "{key}");
        }
    }
}

#[tokio::test]
async fn a_ramp_that_an_alarm_has_stopped_shares_the_alarm_until_its_rollback_is_acknowledged() {
    for (acknowledged, state) in [(false, "paused"), (true, "rolledBack")] {
        for mut api in Api::of_both_kinds().await {
            let other = "/api/admin/flags/other";
            let flag = json!({"key": "other", "enabled": true, "rolloutPercentage": 5});
            let made = api.admin("POST", "/api/admin/flags", &flag).await;
            assert_eq!(made.status, 201, "{made:?}");
            set_alarm(&api, "errors", "OK").await;
            start_ramp(&api, &guarded(&[60, 70], "errors")).await;
            assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
            set_alarm(&api, "errors", "OK").await;
            if acknowledged {
                assert_eq!(act(&api, "acknowledge").await.status, 200);
            }
            let path = format!("{other}/ramp");
            let body = guarded(&[60, 70], "errors");
            let made = api.admin_if("*", "POST", &path, &body).await;
            assert_eq!(made.status, 201, "{made:?}");
            // As if this ramp had begun before the other one was stopped.
            edit_ramp(&mut api, "other", |ramp| {
                let at = SystemTime::now() - Duration::from_secs(25 * 60);
                let at = json!(pennon_core::http::timestamp(at));
                for transition in ramp["transitions"].as_array_mut().expect("a list") {
                    transition["at"] = at.clone();
                }
                ramp["stepBeganAt"] = at;
            })
            .await;
            set_alarm(&api, "errors", "ALARM").await;
            eventually("the alarm stops the ramp", async || {
                let ramp = api.read(&path).await.json();
                assert!(
                    ["baking", "holding", state]
                        .contains(&ramp["state"].as_str().unwrap_or_default()),
                    "{ramp} on {}",
                    api.store
                );
                ramp["state"] == state
            })
            .await;
        }
    }
}

#[tokio::test]
async fn without_a_way_to_cloudwatch_a_ramp_with_guards_is_rejected() {
    for api in Api::of_both_kinds_with_variables(&[("CLOUDWATCH_ENDPOINT", "none")]).await {
        let refused = create(&api, &guarded(&[60, 70], "errors")).await;
        assert_eq!(refused.status, 409, "{refused:?} on {}", api.store);
        assert!(
            refused.body.contains("CLOUDWATCH_ENDPOINT is none"),
            "{refused:?}"
        );
        assert_eq!(api.read(RAMP).await.status, 404);
        start_ramp(&api, &plan(&[60, 70])).await;
        let advanced = act(&api, "advance").await;
        assert_eq!(advanced.status, 200, "{advanced:?} on {}", api.store);
        assert_eq!(percentage(&api).await, 70);
    }
}
