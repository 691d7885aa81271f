//! How `reconcile` advances ramps: late runs, killed runs, many ramps in one run, and a row that it cannot read.

use std::time::{Duration, SystemTime};

use pennon_tests::api::Api;
use pennon_tests::cloudwatch::GUARD_FUNCTION_ARN;
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

use super::guards::Deployment;
use super::{
    RAMP, create, edit_ramp, end_bakes, guarded, patch, percentage, plan, ramp, set_alarm, sql,
    start_ramp,
};

#[tokio::test]
async fn an_unreadable_ramp_harms_only_itself() {
    for mut api in Api::of_both_kinds().await {
        let other = "/api/admin/flags/search/ramp";
        let ready = json!({"rolloutPercentage": 10});
        let ready = api
            .admin_if("*", "PATCH", "/api/admin/flags/search", &ready)
            .await;
        assert_eq!(ready.status, 200);
        start_ramp(&api, &plan(&[60, 70])).await;
        edit_ramp(&mut api, "checkout", |ramp| {
            ramp["state"] = json!("melting");
        })
        .await;
        // A ramp of another flag begins, advances and completes beside it.
        let steps = json!([{"percent": 20, "bakeSeconds": 1}, {"percent": 30, "bakeSeconds": 1}]);
        let made = api
            .admin_if("*", "POST", other, &json!({ "steps": steps }))
            .await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        eventually("the other ramp completes", async || {
            api.read(other).await.json()["state"] == "completed"
        })
        .await;
        assert_eq!(percentage(&api).await, 60, "on {}", api.store);
        // The flag can be changed, and the ramp stays until someone repairs it.
        assert_eq!(
            patch(&api, &json!({"rolloutPercentage": 55})).await.status,
            200
        );
        for _ in 0..2 {
            let again = create(&api, &plan(&[70])).await;
            assert_eq!(again.status, 409, "{again:?} on {}", api.store);
            assert!(again.body.contains("unreadable"), "{again:?}");
            let read = api.read(RAMP).await;
            assert_eq!(read.status, 409, "{read:?} on {}", api.store);
            assert!(read.body.contains("unreadable"), "{read:?}");
            if api.stack.is_none() {
                api.local_mut().restart().await;
            }
        }
        edit_ramp(&mut api, "checkout", |ramp| ramp["state"] = json!("baking")).await;
        eventually("the repaired ramp finds the change", async || {
            ramp(&api).await["state"] == "superseded"
        })
        .await;
        assert_eq!(
            create(&api, &plan(&[70])).await.status,
            201,
            "on {}",
            api.store
        );
    }
}

#[tokio::test]
async fn reconcile_skips_an_unreadable_ramp() {
    let deployment = Deployment::start().await;
    deployment.stack.database.add_flag("other", true, 0).await;
    for key in ["checkout", "other"] {
        deployment.start_ramp(key, &plan(&[60, 70])).await;
    }
    end_bakes(&deployment.stack).await;
    let broken = "update pennon_ramps set ramp = '{\"id\": 1}' where flag_key = 'checkout'";
    sql(&deployment.stack, broken).await;
    deployment.run().await;
    assert_eq!(deployment.read("other").await["step"], 2);
    assert!(
        deployment
            .reconcile
            .has_logged("a stored ramp cannot be read")
    );
}

#[tokio::test]
async fn a_clock_that_was_set_back_bakes_the_step_again_and_hides_no_alarm() {
    for mut api in Api::of_both_kinds().await {
        set_alarm(&api, "errors", "OK").await;
        let made = start_ramp(&api, &guarded(&[60, 70], "errors")).await;
        // As if the step had begun by a clock that was three hours ahead.
        edit_ramp(&mut api, "checkout", |ramp| {
            for (field, hours) in [("stepBeganAt", 3), ("checkedAt", 3), ("dueAt", 4)] {
                let at = SystemTime::now() + Duration::from_secs(hours * 3_600);
                ramp[field] = json!(pennon_core::http::timestamp(at));
            }
        })
        .await;
        if api.stack.is_none() {
            // `edit_ramp` has restarted the server, which loses the states of its alarms.
            set_alarm(&api, "errors", "OK").await;
        }
        let reason = "the clock was set back, and the step bakes again";
        eventually("the step bakes again", async || {
            let transitions = ramp(&api).await["transitions"].clone();
            let mut transitions = transitions.as_array().expect("a list").iter();
            transitions.any(|it| it["state"] == "holding" && it["reason"] == reason)
        })
        .await;
        let after = ramp(&api).await;
        assert_eq!(
            (&after["step"], &after["percent"]),
            (&json!(1), &json!(60)),
            "on {}",
            api.store
        );
        let due = |ramp: &Value| ramp["dueAt"].as_str().map(ToOwned::to_owned);
        let an_hour_later = SystemTime::now() + Duration::from_secs(3_600);
        let an_hour_later = pennon_core::http::timestamp(an_hour_later);
        assert!(due(&after) >= due(&made), "{after}");
        assert!(due(&after) <= Some(an_hour_later), "{after}");
        assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
        assert_eq!(percentage(&api).await, 50, "on {}", api.store);
    }
}

#[tokio::test]
async fn after_a_jump_of_the_clock_a_step_bakes_again() {
    for mut api in Api::of_both_kinds().await {
        start_ramp(&api, &plan(&[60, 70])).await;
        // As if the clock had jumped three hours ahead after the step began.
        edit_ramp(&mut api, "checkout", |ramp| {
            for (field, hours) in [("stepBeganAt", 3), ("checkedAt", 3), ("dueAt", 2)] {
                let at = SystemTime::now() - Duration::from_secs(hours * 3_600);
                ramp[field] = json!(pennon_core::http::timestamp(at));
            }
        })
        .await;
        eventually("the step bakes again", async || {
            let transitions = ramp(&api).await["transitions"].clone();
            let mut transitions = transitions.as_array().expect("a list").iter();
            transitions.any(|it| {
                let reason = it["reason"].as_str().unwrap_or_default();
                it["state"] == "holding" && reason.starts_with("the step was not watched for")
            })
        })
        .await;
        eventually("the ramp bakes", async || {
            ramp(&api).await["state"] == "baking"
        })
        .await;
        assert_eq!(ramp(&api).await["step"], 1, "on {}", api.store);
        assert_eq!(percentage(&api).await, 60, "on {}", api.store);
    }
}

#[tokio::test]
async fn a_late_run_bakes_the_step_again_and_begins_one_step_at_a_time() {
    let deployment = Deployment::start().await;
    deployment
        .start_ramp("checkout", &plan(&[60, 70, 80]))
        .await;
    let late = "update pennon_ramps set ramp = (ramp::jsonb || '{
        \"dueAt\": \"2026-01-01T01:00:00.000Z\", \"checkedAt\": \"2026-01-01T00:00:00.000Z\"
        }')::json";
    sql(&deployment.stack, late).await;
    deployment.run().await;
    let ramp = deployment.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["step"].as_u64()),
        (&json!("holding"), Some(1))
    );
    deployment.run().await;
    assert_eq!(deployment.read("checkout").await["state"], "baking");
    end_bakes(&deployment.stack).await;
    deployment.run().await;
    deployment.run().await;
    assert_eq!(
        deployment.read("checkout").await["step"],
        2,
        "a run skipped a bake, or began no step"
    );
}

#[tokio::test]
async fn the_run_after_a_killed_one_begins_the_step_once() {
    let mut deployment = Deployment::start().await;
    deployment
        .start_ramp("checkout", &plan(&[60, 70, 80]))
        .await;
    end_bakes(&deployment.stack).await;
    let stack = &deployment.stack;
    let lock = pennon_tests::postgres::connect(&stack.database.url()).await;
    let lock = lock.expect("a connection");
    lock.batch_execute("begin; select 1 from pennon_environments for update")
        .await
        .expect("a lock");
    {
        let event = json!({});
        let run = deployment.reconcile.invoke(&event);
        let waits = eventually("the run waits in its transaction", async || {
            let waiting = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            let row = stack.database.sql().query_one(waiting, &[]).await;
            row.expect("a count").get::<_, i64>(0) > 0
        });
        tokio::select! {
            _ = run => panic!("the run did not wait"),
            () = waits => {}
        }
    }
    deployment.reconcile.kill();
    lock.batch_execute("rollback").await.expect("no lock");
    let next = stack.function("reconcile").await;
    for _ in 0..3 {
        next.invoke(&json!({})).await.expect("reconciles");
    }
    let ramp = deployment.read("checkout").await;
    assert_eq!(
        (ramp["step"].as_u64(), ramp["percent"].as_u64()),
        (Some(2), Some(70))
    );
    let row = stack
        .database
        .sql()
        .query_one(
            "select count(*) from pennon_audit where action = 'flag.ramp'",
            &[],
        )
        .await;
    assert_eq!(row.expect("a count").get::<_, i64>(0), 2);
}

/// `evaluationsBefore` counts the evaluations in the hour in which a step begins. If a step begins while the hour
/// changes, the count and the start time must belong to the same hour.
#[tokio::test]
async fn the_start_of_a_step_is_the_time_at_which_earlier_evaluations_were_counted() {
    let stack = Stack::start().await;
    let ramps = stack.function("ramps").await;
    let reconcile = stack.function("reconcile").await;
    let lock = pennon_tests::postgres::connect(&stack.database.url()).await;
    let lock = lock.expect("a connection");
    let counted = "insert into pennon_evaluation_hours (environment, flag_key, variant, hour, count)
        select 'production', 'checkout', 'on', date_trunc('hour', now()) + make_interval(hours => hour), 7
        from generate_series(0, 1) as hour";
    sql(&stack, counted).await;
    let step = |percent: u8| json!({"percent": percent, "bakeSeconds": 3_600, "minEvaluations": 1});
    let body = json!({"steps": [step(60), step(70), step(80)]}).to_string();
    let create = Event::admin("POST", RAMP, &body).header("if-match", "*");
    let advance = format!("{RAMP}/advance");
    let advance = Event::admin("POST", &advance, "").header("if-match", "*");
    for (number, name) in ["create", "advance", "reconcile"].into_iter().enumerate() {
        // The lock makes every change of the flag wait, as a slow change by someone else would.
        lock.batch_execute("begin; select 1 from feature_flags for update")
            .await
            .expect("a lock");
        let begin = async {
            match name {
                "create" => assert_eq!(ramps.call(&create).await.status, 201),
                "advance" => assert_eq!(ramps.call(&advance).await.status, 200),
                _ => {
                    reconcile.invoke(&json!({})).await.expect("reconciles");
                }
            }
        };
        let release = async {
            eventually("the change waits", async || {
                let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
                let row = stack.database.sql().query_one(waiting, &[]).await;
                row.expect("a count").get::<_, i64>(0) > 0
            })
            .await;
            let lock_released_at = pennon_core::http::timestamp(SystemTime::now());
            lock.batch_execute("rollback").await.expect("no lock");
            lock_released_at
        };
        let ((), lock_released_at) = tokio::join!(begin, release);
        let read = "select ramp::text from pennon_ramps";
        let row = stack.database.sql().query_one(read, &[]).await;
        let ramp: Value = serde_json::from_str(row.expect("a ramp").get(0)).expect("JSON");
        assert_eq!(ramp["step"], number + 1, "{name}: {ramp}");
        assert!(
            ramp["evaluationsBefore"].as_u64() >= Some(7),
            "{name}: {ramp}"
        );
        let began_at = ramp["stepBeganAt"].as_str().expect("a time");
        assert!(began_at <= lock_released_at.as_str(), "{name}: {ramp}");
        // Ends the bake and adds an evaluation, so that `reconcile` can begin the third step in the last round.
        end_bakes(&stack).await;
        let more = "update pennon_evaluation_hours set count = count + 1";
        sql(&stack, more).await;
    }
}

/// The numbers of the last run in the log of `reconcile`: ramps checked, and advanced.
fn last_run(deployment: &Deployment) -> (i64, i64) {
    let lines = deployment.reconcile.lines();
    let mut lines = lines.iter().rev();
    let line = lines.find(|line| line["message"] == "cache reconciled");
    let line = line.expect("a line");
    let number = |name: &str| line[name].as_i64().expect("a number");
    (number("ramps"), number("ramps_advanced"))
}

#[tokio::test]
async fn one_run_advances_five_hundred_ramps_and_the_next_run_the_others() {
    const MANY: i64 = 510;
    const PER_RUN: i64 = 500;
    let deployment = Deployment::start().await;
    let stack = &deployment.stack;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    let body = guarded(&[60, 70], "errors");
    deployment.start_ramp("checkout", &body).await;
    // The rows that 510 requests would create.
    let copies = format!(
        "insert into feature_flags (flag_key, enabled, rollout_percentage)
           select 'many-' || number, true, 60 from generate_series(1, {MANY}) as number;
         insert into pennon_ramps (id, environment, flag_key, watched, open, checked_at, alarms, ramp)
           select flag.flag_key, made.environment, flag.flag_key, true, true, now(), made.alarms,
                  (made.ramp::jsonb || jsonb_build_object('id', flag.flag_key, 'flagRevision', flag.revision))::json
           from pennon_ramps made, feature_flags flag
           where made.flag_key = 'checkout' and flag.flag_key like 'many-%';
         delete from pennon_ramps where flag_key = 'checkout'"
    );
    sql(stack, &copies).await;
    end_bakes(stack).await;
    deployment.run().await;
    let (checked, mut advanced) = last_run(&deployment);
    // On a slow machine, the run ends at its time limit and leaves ramps to the next run.
    let left = deployment.reconcile.lines();
    let mut left = left.iter().filter_map(|line| line["left"].as_i64());
    let left = left.next().unwrap_or(0);
    assert_eq!((checked, advanced + left), (PER_RUN - left, PER_RUN));
    while advanced < MANY {
        deployment.run().await;
        let (_, more) = last_run(&deployment);
        assert!(more > 0, "{advanced} of {MANY} ramps advanced");
        advanced += more;
    }
    let database = stack.database.sql();
    let counts = "select count(*), count(distinct flag_key) from pennon_audit
                  where action = 'flag.ramp' and flag_key like 'many-%'";
    let row = database.query_one(counts, &[]).await.expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (MANY, MANY));
    let at_the_second_step = "select count(*) from feature_flags
                              where flag_key like 'many-%' and rollout_percentage = 70";
    let row = database.query_one(at_the_second_step, &[]).await;
    assert_eq!(row.expect("a count").get::<_, i64>(0), MANY);
    // A run keeps its connection, also after checks that change nothing: the last run checked the ramps that bake on.
    let sessions = "select sessions from pg_stat_database where datname = current_database()";
    let row = database.query_one(sessions, &[]).await.expect("a count");
    let sessions: i64 = row.get(0);
    assert!(sessions < 100, "{sessions} connections for {MANY} ramps");
}
