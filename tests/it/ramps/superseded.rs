//! A change of a flag by anyone but its ramp supersedes the ramp, which then never writes again.

use std::time::Duration;

use pennon_tests::api::Api;
use pennon_tests::cloudwatch::GUARD_FUNCTION_ARN;
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::rng::Rng;
use serde_json::{Value, json};

use super::guards::{Deployment, alarm_event, now};
use super::{
    COPY, FLAG, act, copy_of_flag, create_staging, end_bakes, guarded, patch, percentage, plan,
    ramp, set_alarm, sql, start_ramp,
};

#[tokio::test]
async fn a_change_by_an_admin_supersedes_the_ramp_and_the_reason_names_the_admin() {
    for api in Api::of_both_kinds().await {
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        assert_eq!(audit["entries"], json!([]));
        let import = json!({"flags": {"checkout": {
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
            "targeting": {"fractional": [["on", 55], ["off", 45]]},
        }}});
        let import_path = "/api/admin/environments/production/import?mode=merge";
        create_staging(&api).await;
        let revert_path = format!("{FLAG}/revert");
        for (method, path, body, action) in [
            (
                "PATCH",
                FLAG,
                json!({"rolloutPercentage": 52}),
                "flag.update",
            ),
            ("PATCH", FLAG, json!({"description": "d"}), "flag.update"),
            ("POST", import_path, import, "flag.import"),
            ("POST", COPY, copy_of_flag(), "flag.copy"),
            ("POST", &revert_path, Value::Null, "flag.revert"),
            ("DELETE", FLAG, Value::Null, "flag.archive"),
        ] {
            for pause in [false, true] {
                start_ramp(&api, &plan(&[60, 70])).await;
                let mut body = body.clone();
                if action == "flag.revert" {
                    let audit = api.read(&format!("{FLAG}/audit")).await.json();
                    let mut entries = audit["entries"].as_array().expect("entries").iter();
                    let step = entries
                        .find(|it| it["action"] == "flag.ramp")
                        .expect("a step");
                    body = json!({"auditId": step["id"], "state": "before"});
                }
                if pause {
                    assert_eq!(act(&api, "pause").await.status, 200);
                }
                let include = json!({"userId": "some-user", "overrideType": "include"});
                let set = api.admin("POST", &format!("{FLAG}/users"), &include).await;
                assert!([200, 201].contains(&set.status), "{set:?}");
                let state = if pause { "paused" } else { "baking" };
                assert_eq!(
                    ramp(&api).await["state"],
                    state,
                    "an override changed the state of the ramp"
                );
                let answer = api.admin_if("*", method, path, &body).await;
                assert!(
                    answer.status < 300,
                    "{path} {body}: {answer:?} on {}",
                    api.store
                );
                let after = ramp(&api).await;
                assert_eq!(after["state"], "superseded", "{action} on {}", api.store);
                let reason = format!("local-admin changed the flag ({action})");
                assert_eq!(after["reason"], reason, "on {}", api.store);
                let is_archived = action == "flag.archive";
                let expected = if is_archived { 404 } else { 400 };
                assert_eq!(act(&api, "advance").await.status, expected, "{action}");
                if is_archived {
                    let restore = format!("{FLAG}/restore");
                    api.admin_if("*", "POST", &restore, &Value::Null).await;
                }
                let reset = json!({
                    "enabled": true, "rolloutPercentage": 50, "description": null, "definition": null,
                });
                let reset = patch(&api, &reset).await;
                assert_eq!(reset.status, 200, "{reset:?}");
            }
        }
        let earlier = ramp(&api).await["earlier"].as_array().map(Vec::len);
        assert_eq!(earlier, Some(11));
        api.admin_if("*", "DELETE", FLAG, &Value::Null).await;
        let gone = format!("{FLAG}?permanently=true");
        assert!(
            api.admin_if("*", "DELETE", &gone, &Value::Null)
                .await
                .status
                < 300
        );
        assert_eq!(
            ramp(&api).await["state"],
            "superseded",
            "the ramp was deleted with its flag"
        );
    }
}

#[tokio::test]
async fn a_write_without_a_difference_keeps_the_ramp_and_its_guard() {
    for api in Api::of_both_kinds().await {
        set_alarm(&api, "errors", "OK").await;
        start_ramp(&api, &guarded(&[60, 70], "errors")).await;
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        let step = &audit["entries"][0];
        assert_eq!(step["action"], "flag.ramp", "on {}", api.store);
        let revert = json!({"auditId": step["id"], "state": "after"});
        let same = json!({"enabled": true, "rolloutPercentage": 60});
        for state in ["baking", "paused"] {
            for body in [&json!({}), &same] {
                assert_eq!(patch(&api, body).await.status, 200, "on {}", api.store);
            }
            let path = format!("{FLAG}/revert");
            let reverted = api.admin_if("*", "POST", &path, &revert).await;
            assert_eq!(reverted.status, 200, "{reverted:?} on {}", api.store);
            let id = api.schedule_soon("checkout", &same).await;
            let settled = settled_schedule(&api, "checkout", &id).await;
            assert_eq!(settled["status"], "applied", "on {}", api.store);
            assert_eq!(ramp(&api).await["state"], state, "on {}", api.store);
            let action = if state == "baking" { "pause" } else { "resume" };
            assert_eq!(act(&api, action).await.status, 200, "on {}", api.store);
        }
        assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
        assert_eq!(percentage(&api).await, 50, "on {}", api.store);
        assert_eq!(
            patch(&api, &json!({})).await.status,
            200,
            "on {}",
            api.store
        );
        assert_eq!(ramp(&api).await["state"], "rolledBack", "on {}", api.store);
    }
}

/// The schedule with this id, once it is not pending any more.
async fn settled_schedule(api: &Api, key: &str, id: &str) -> Value {
    let path = format!("/api/admin/flags/{key}/schedule");
    let mut found = Value::Null;
    eventually("the schedule is applied or fails", async || {
        let list = api.read(&path).await.json();
        let list = list.as_array().expect("a list").clone();
        found = list.into_iter().find(|it| it["id"] == id).expect("it");
        found["status"] != "pending"
    })
    .await;
    found
}

#[tokio::test]
async fn a_due_schedule_supersedes_the_ramp_and_the_reason_names_the_schedule() {
    for api in Api::of_both_kinds().await {
        start_ramp(&api, &plan(&[60, 70])).await;
        let id = api
            .schedule_soon("checkout", &json!({"rolloutPercentage": 52}))
            .await;
        assert_eq!(
            settled_schedule(&api, "checkout", &id).await["status"],
            "applied"
        );
        let after = ramp(&api).await;
        assert_eq!(after["state"], "superseded", "on {}", api.store);
        let reason = format!("schedule:{id} changed the flag (flag.schedule)");
        assert_eq!(after["reason"], reason, "on {}", api.store);
        assert_eq!(percentage(&api).await, 52);
    }
}

#[tokio::test]
async fn a_due_schedule_of_a_rolled_back_flag_fails_with_the_reason() {
    for api in Api::of_both_kinds().await {
        set_alarm(&api, "errors", "OK").await;
        start_ramp(&api, &guarded(&[60], "errors")).await;
        assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
        let refused = api
            .schedule_soon("checkout", &json!({"rolloutPercentage": 90}))
            .await;
        let other = api
            .schedule_soon("search", &json!({"rolloutPercentage": 9}))
            .await;
        let found = settled_schedule(&api, "checkout", &refused).await;
        assert_eq!(found["status"], "failed", "{found} on {}", api.store);
        let why = found["errorMessage"].as_str().expect("a reason");
        assert!(
            why.contains("was rolled back (alarm 'errors' is in ALARM)"),
            "{why}"
        );
        assert!(why.contains("acknowledge"), "{why}");
        assert_eq!(percentage(&api).await, 50, "on {}", api.store);
        assert_eq!(ramp(&api).await["state"], "rolledBack");
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        assert_eq!(
            audit["entries"][0]["action"], "schedule.fail",
            "on {}",
            api.store
        );
        assert_eq!(
            settled_schedule(&api, "search", &other).await["status"],
            "applied"
        );

        let off = api
            .schedule_soon("checkout", &json!({"enabled": false}))
            .await;
        assert_eq!(
            settled_schedule(&api, "checkout", &off).await["status"],
            "applied"
        );
        assert_eq!(
            api.read(FLAG).await.json()["enabled"],
            false,
            "on {}",
            api.store
        );
        assert_eq!(ramp(&api).await["acknowledgedBy"], Value::Null);
    }
}

#[tokio::test]
async fn reconcile_does_not_fail_on_a_schedule_of_a_rolled_back_flag() {
    let deployment = Deployment::start().await;
    let schedules = deployment.stack.function("schedules").await;
    deployment.alarms.add("errors", &[GUARD_FUNCTION_ARN]).await;
    deployment.stack.database.add_flag("other", true, 0).await;
    let body = guarded(&[60], "errors");
    deployment.start_ramp("checkout", &body).await;
    deployment.start_ramp("other", &plan(&[10, 20])).await;
    let event = alarm_event("errors", "ALARM", &now());
    let done = json!({"state": "ALARM", "rolledBack": 1});
    assert_eq!(deployment.guard.invoke(&event).await, Ok(done));
    for key in ["checkout", "search"] {
        let path = format!("/api/admin/flags/{key}/schedule");
        let body =
            json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"rolloutPercentage": 90}});
        let event = Event::admin("POST", &path, &body.to_string());
        assert_eq!(schedules.call(&event).await.status, 201);
    }
    let due = "update feature_flag_schedules set scheduled_at = now() - interval '1 second'";
    sql(&deployment.stack, due).await;
    end_bakes(&deployment.stack).await;
    assert_eq!(deployment.run().await["applied"], 1);
    assert_eq!(
        deployment.read("other").await["step"],
        2,
        "the other ramp was not advanced"
    );
    assert_eq!(deployment.run().await["applied"], 0);
    let list = Event::admin("GET", "/api/admin/flags/checkout/schedule", "");
    let list = schedules.call(&list).await.json();
    assert_eq!(list[0]["status"], "failed", "{list}");
}

#[tokio::test]
async fn a_change_without_the_api_supersedes_the_ramp_and_the_reason_names_no_admin() {
    for api in Api::of_both_kinds().await {
        for pause in [false, true] {
            patch(&api, &json!({"rolloutPercentage": 50})).await;
            start_ramp(&api, &plan(&[60, 70])).await;
            if pause {
                assert_eq!(act(&api, "pause").await.status, 200);
            }
            // This request changes nothing, so the reason must not name it.
            assert_eq!(patch(&api, &json!({})).await.status, 200);
            if let Some(stack) = &api.stack {
                let change = "update feature_flags set rollout_percentage = 33
                              where flag_key = 'checkout'";
                sql(stack, change).await;
            } else {
                let path = api.local().folder().join("flags.json");
                let text = std::fs::read_to_string(&path).expect("a file");
                let edited = text.replace("60", "33");
                assert_ne!(edited, text);
                std::fs::write(&path, edited).expect("a file");
            }
            assert_eq!(patch(&api, &json!({})).await.status, 200);
            eventually("the ramp is superseded", async || {
                ramp(&api).await["state"] == "superseded"
            })
            .await;
            assert_eq!(
                ramp(&api).await["reason"],
                "the flag was changed without the API",
                "on {}",
                api.store
            );
            if pause {
                let answer = act(&api, "resume").await;
                assert_eq!(answer.status, 409, "{answer:?}");
            }
            assert_eq!(percentage(&api).await, 33);
        }
    }
}

/// How the actors of a round of the race begin.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// All at once.
    Together,
    /// The engine has advanced the ramps before anyone changes a flag.
    EngineFirst,
    /// The alarm has rolled ramps back before anyone changes a flag.
    AlarmFirst,
}

/// No ramp writes after a newer change by an admin: between the creation of a ramp and each change that it
/// makes, the audit of the flag has no change by anyone else.
///
/// The audit alone decides whether a ramp has overwritten a change, so timing does not matter. Rounds with a fixed
/// order guarantee that ramps do write: on a slow machine, admins might otherwise win every race.
#[tokio::test]
async fn no_ramp_overwrites_a_newer_change_by_an_admin() {
    const FLAGS: u32 = 20;
    // Ten of twelve rounds race: two thousand flags.
    const ROUNDS: u32 = 120;
    let api = Api::on_postgres().await;
    let stack = api.stack();
    let engines = [
        stack.function("reconcile").await,
        stack.function("reconcile").await,
    ];
    let guard = stack.function("guard").await;
    for number in 0..FLAGS {
        let key = format!("f{number}");
        stack.database.add_flag(&key, true, 0).await;
    }
    let rng = Rng::new(7);
    let pause = || tokio::time::sleep(rng.pause(Duration::from_millis(100)));
    let any = [("if-match", "*")];
    let clients: Vec<_> = (0..FLAGS).map(|_| api.client()).collect();
    for round in 0..ROUNDS {
        let start = match round % 12 {
            0 => Start::EngineFirst,
            1 => Start::AlarmFirst,
            _ => Start::Together,
        };
        set_alarm(&api, "race", "OK").await;
        // Locks the flags first, as every change does. The engine of the local server is still running.
        let reset = "begin;
            select 1 from feature_flags where flag_key like 'f%' order by flag_key for update;
            update feature_flags set rollout_percentage = 0 where flag_key like 'f%';
            update pennon_ramps set watched = false, open = false;
            commit";
        sql(stack, reset).await;
        join_all(clients.iter().zip(0_u32..).map(async |(client, number)| {
            let body = if number % 2 == 0 {
                plan(&[20, 40, 60, 80])
            } else {
                guarded(&[20, 40, 60, 80], "race")
            };
            let path = format!("/api/admin/flags/f{number}/ramp");
            let made = client.send("POST", &path, &any, &body).await;
            assert_eq!(made.status, 201, "{made:?}\n{}", api.local().log());
        }))
        .await;
        end_bakes(stack).await;
        let advance = async || {
            let runs = engines.iter().map(|engine| until_done(engine, json!({})));
            join_all(runs).await;
        };
        let event = alarm_event("race", "ALARM", &now());
        let roll_back = async || until_done(&guard, event.clone()).await;
        match start {
            Start::Together => {}
            Start::EngineFirst => advance().await,
            Start::AlarmFirst => roll_back().await,
        }
        let admins = join_all(clients.iter().zip(0_u32..).map(async |(client, number)| {
            pause().await;
            let path = format!("/api/admin/flags/f{number}");
            let body = json!({"rolloutPercentage": 90 + rng.roll(10)});
            eventually(
                "the flag is changed, or its ramp was rolled back",
                async || {
                    let answer = client.send("PATCH", &path, &any, &body).await;
                    match answer.status {
                        200 | 409 => true,
                        // Too many changes wait for the same rows. An admin repeats the request.
                        503 => false,
                        _ => panic!("{answer:?}"),
                    }
                },
            )
            .await;
        }));
        let alarm = async {
            pause().await;
            roll_back().await;
        };
        tokio::join!(admins, alarm, advance());
    }
    let sql = stack.database.sql();
    let overwritten = "
        with ordered as (
          select id, flag_key, action,
                 max(id) filter (where action = 'ramp.create') over earlier as created,
                 max(id) filter (where action = 'flag.update') over earlier as changed
          from pennon_audit
          window earlier as (partition by flag_key order by id)
        )
        select count(*) filter (where changed > created and action in ('flag.ramp', 'flag.rollback')),
               count(*) filter (where action = 'flag.ramp'),
               count(*) filter (where action = 'flag.rollback'),
               count(*) filter (where action = 'flag.update'),
               (select deadlocks from pg_stat_database where datname = current_database())
        from ordered";
    let row = sql.query_one(overwritten, &[]).await.expect("counts");
    let count = |at: usize| row.get::<_, i64>(at);
    assert_eq!(count(0), 0, "a ramp has overwritten a change");
    let (rounds, flags) = (i64::from(ROUNDS), i64::from(FLAGS));
    // Every ramp began. In a twelfth of the rounds the engine advanced those without a guard, and in another
    // twelfth the alarm rolled the others back, before anyone changed a flag. Only ramps that were rolled back reject
    // a change.
    let (started, in_order) = (rounds * flags, rounds / 12 * flags / 2);
    assert!(count(1) >= started + in_order, "{} steps", count(1));
    assert!(count(2) >= in_order, "{} rollbacks", count(2));
    assert!(count(3) >= started / 2, "{} changes by admins", count(3));
    assert_eq!(count(4), 0, "changes of the same rows deadlocked");
}

/// Invokes a function again until it succeeds: a run fails while too many changes wait for the same rows. On Lambda,
/// the next invocation is the retry.
async fn until_done(function: &Function, event: Value) {
    let mut failure = Value::Null;
    for _ in 0..20 {
        match function.invoke(&event).await {
            Ok(_done) => return,
            Err(why) => failure = why,
        }
    }
    panic!("{failure}; log:\n{}", function.log());
}
