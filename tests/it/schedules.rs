//! Scheduled changes: created, cancelled, and applied on time.

use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::response::Response;
use pennon_tests::stack::{Stack, percentage};
use serde_json::{Value, json};

const SCHEDULE: &str = "/api/admin/flags/checkout/schedule";

fn plan(at: &str, updates: &Value) -> Value {
    json!({"scheduledAt": at, "updates": updates})
}

/// Schedules a change of `checkout` and returns its id.
async fn schedule_change(api: &Api, updates: &Value) -> String {
    let body = plan("2099-01-01T00:00:00Z", updates);
    let answer = api.admin("POST", SCHEDULE, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Makes a schedule due: changes its time to `since` ago.
async fn make_due(stack: &Stack, id: &str, since: &str) {
    let statement = format!(
        "update feature_flag_schedules
         set scheduled_at = now() - interval '{since}', next_retry_at = null where id = '{id}'"
    );
    stack
        .database
        .sql()
        .batch_execute(&statement)
        .await
        .expect("a schedule");
}

fn statuses(answer: &Response) -> Vec<String> {
    let list = answer.json();
    let list = list.as_array().expect("a list");
    let status = |entry: &Value| entry["status"].as_str().expect("a status").to_owned();
    list.iter().map(status).collect()
}

#[tokio::test]
async fn a_change_is_scheduled_listed_by_time_and_cancelled() {
    for api in Api::of_both_kinds().await {
        let later = plan(
            "2099-06-01T10:30:00.5Z",
            &json!({"enabled": false, "rolloutPercentage": 1e1}),
        );
        let made = api.admin("POST", SCHEDULE, &later).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let body = made.json();
        let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(
            names,
            [
                "id",
                "flagKey",
                "scheduledAt",
                "status",
                "updates",
                "appliedAt",
                "errorMessage",
                "createdBy",
                "createdAt",
            ]
        );
        assert_eq!(body["flagKey"], "checkout");
        assert_eq!(body["scheduledAt"], "2099-06-01T10:30:00.500Z");
        assert_eq!(body["status"], "pending");
        assert_eq!(
            body["updates"],
            json!({"enabled": false, "rolloutPercentage": 10})
        );
        assert_eq!(
            (&body["appliedAt"], &body["errorMessage"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(made.header("x-ignored-fields"), None);
        let mut sooner = plan(
            "2099-01-01T00:00:00Z",
            &json!({"enabled": false, "description": "d", "colour": 1}),
        );
        sooner["note"] = json!("n");
        let sooner = api.admin("POST", SCHEDULE, &sooner).await;
        assert_eq!(
            sooner.header("x-ignored-fields"),
            Some("note, updates.description, updates.colour"),
            "an ignored field is not named"
        );
        let sooner = sooner.json();
        assert_eq!(sooner["updates"], json!({"enabled": false}));

        let gone = api
            .admin(
                "DELETE",
                // The id is a UUID, so its case does not matter.
                &format!(
                    "{SCHEDULE}/{}",
                    body["id"].as_str().expect("an id").to_uppercase()
                ),
                &Value::Null,
            )
            .await;
        assert_eq!(gone.status, 200, "{gone:?} on {}", api.store);
        let cancelled = gone.json();
        assert_eq!(cancelled["status"], "cancelled");
        assert_eq!(cancelled["cancelledBy"], "local-admin");
        assert!(cancelled["cancelledAt"].is_string());
        let list = api.read(SCHEDULE).await;
        assert_eq!(list.status, 200);
        assert_eq!(list.json(), json!([sooner, cancelled]), "on {}", api.store);
        let audit = api.read("/api/admin/flags/checkout/audit").await.json();
        assert_eq!(audit["entries"][0]["action"], "schedule.cancel");
        assert_eq!(audit["entries"][2]["action"], "schedule.create");
        for id in ["00000000-0000-4000-8000-000000000000", "x", "'--"] {
            let answer = api
                .admin("DELETE", &format!("{SCHEDULE}/{id}"), &Value::Null)
                .await;
            assert_eq!(
                (answer.status, answer.json()["error"].clone()),
                (404, json!("NOT_FOUND")),
                "{id}"
            );
        }
        assert_eq!(
            api.read("/api/admin/flags/search/schedule").await.json(),
            json!([])
        );
    }
}

#[tokio::test]
async fn the_schedule_of_a_flag_that_an_edit_removed_does_not_change_a_new_flag() {
    let api = Api::on_file().await;
    let path = api.local().folder().join("flags.json");
    schedule_change(&api, &json!({"enabled": false})).await;
    std::fs::write(&path, r#"{"flags": {}}"#).expect("an edit");
    eventually("the flag is gone", async || {
        api.read(SCHEDULE).await.status == 404
    })
    .await;
    let body = json!({"key": "checkout", "enabled": true});
    let made = api.admin("POST", "/api/admin/flags", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(api.read(SCHEDULE).await.json(), json!([]));
}

#[tokio::test]
async fn an_edit_that_removes_a_flag_cancels_its_schedules() {
    for stopped in [false, true] {
        let mut api = Api::on_file().await;
        let path = api.local().folder().join("flags.json");
        schedule_change(&api, &json!({"enabled": false})).await;
        let original = std::fs::read_to_string(&path).expect("a file");
        if stopped {
            api.local_mut().kill();
        }
        std::fs::write(&path, r#"{"flags": {}}"#).expect("an edit");
        if stopped {
            api.local_mut().restart().await;
        }
        eventually("the flag is gone", async || {
            api.read(SCHEDULE).await.status == 404
        })
        .await;
        std::fs::write(&path, original).expect("an edit");
        api.local_mut().restart().await;
        let list = api.read(SCHEDULE).await;
        assert_eq!(statuses(&list), ["cancelled"], "stopped: {stopped}");
        assert_eq!(list.json()[0]["cancelledBy"], "flags.json");
    }
}

#[tokio::test]
async fn an_invalid_schedule_is_rejected() {
    for api in Api::of_both_kinds().await {
        let nowhere = "/api/admin/flags/no-such-flag/schedule";
        let future = "2099-01-01T00:00:00Z";
        for (body, field) in [
            (json!({}), "scheduledAt"),
            (json!({}), "updates"),
            (
                plan("2020-01-01T00:00:00Z", &json!({"enabled": true})),
                "scheduledAt",
            ),
            (
                plan("2099-01-01T00:00:00", &json!({"enabled": true})),
                "scheduledAt",
            ),
            (
                plan("2099-01-01T00:00:00+1", &json!({"enabled": true})),
                "scheduledAt",
            ),
            (plan("tomorrow", &json!({"enabled": true})), "scheduledAt"),
            (
                json!({"scheduledAt": 5, "updates": {"enabled": true}}),
                "scheduledAt",
            ),
            (plan(future, &json!({})), "updates"),
            (plan(future, &json!([])), "updates"),
            (plan(future, &json!({"enabled": "yes"})), "updates"),
            (plan(future, &json!({"rolloutPercentage": 101})), "updates"),
            (plan(future, &json!({"description": "x"})), "updates"),
        ] {
            let answer = api.admin("POST", nowhere, &body).await;
            assert_eq!(answer.status, 400, "{body}");
            let fields = answer.json()["details"]["fieldErrors"].clone();
            assert!(
                fields[field].is_array(),
                "{body}: {fields} on {}",
                api.store
            );
        }
        let good = plan(future, &json!({"enabled": true}));
        for (method, path, body) in [
            ("POST", nowhere.to_owned(), good),
            ("GET", nowhere.to_owned(), Value::Null),
            ("DELETE", format!("{nowhere}/x"), Value::Null),
        ] {
            let answer = api.admin(method, &path, &body).await;
            assert_eq!(answer.status, 404, "{method} on {}", api.store);
        }
        let local = api.local();
        for (method, path) in [
            ("GET", SCHEDULE),
            ("POST", SCHEDULE),
            ("DELETE", "/admin/flags/a/schedule/x"),
        ] {
            assert_eq!(local.send(method, path, &[], "{}").await.status, 401);
        }
    }
}

#[tokio::test]
async fn a_scheduled_change_is_applied_on_time_and_seen_by_another_instance() {
    let api = Api::on_postgres().await;
    let stack = api.stack();
    let reconcile = stack.function("reconcile").await;
    let get = stack.function("get-flag").await;
    let state = async || get.call(&Event::get("checkout")).await.json();
    let id = schedule_change(&api, &json!({"enabled": false, "rolloutPercentage": 77})).await;
    assert_eq!(state().await["rolloutPercentage"], 50);
    reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(state().await["rolloutPercentage"], 50, "applied too early");
    make_due(stack, &id, "1 second").await;
    // The local server or the function `reconcile` applies the change, whichever finds it first.
    eventually("the change is made", async || {
        reconcile.invoke(&json!({})).await.expect("reconciles");
        state().await["rolloutPercentage"] == 77
    })
    .await;
    assert_eq!(state().await["enabled"], false);
    let made = api.read(SCHEDULE).await.json()[0].clone();
    assert_eq!(made["status"], "applied");
    assert!(made["appliedAt"].is_string());
    let late = api
        .admin("DELETE", &format!("{SCHEDULE}/{id}"), &Value::Null)
        .await;
    assert_eq!(
        (late.status, late.json()["error"].clone()),
        (400, json!("INVALID_STATE"))
    );
    let audit = api.read("/api/admin/flags/checkout/audit").await.json();
    assert_eq!(audit["entries"][0]["action"], "flag.schedule");
    assert_eq!(audit["entries"][0]["actor"], format!("schedule:{id}"));
    assert_eq!(audit["entries"][0]["before"]["rolloutPercentage"], 50);
}

#[tokio::test]
async fn concurrent_reconcilers_apply_each_change_once() {
    let stack = Stack::start().await;
    let planner = stack.function("schedules").await;
    for percentage in 1..=20 {
        let body = plan(
            "2099-01-01T00:00:00Z",
            &json!({"rolloutPercentage": percentage}),
        );
        let event = Event::admin("POST", SCHEDULE, &body.to_string());
        assert_eq!(planner.call(&event).await.status, 201);
    }
    stack
        .database
        .sql()
        .batch_execute(
            "update feature_flag_schedules
             set scheduled_at = now() - interval '1 minute'
                              + (updates ->> 'rolloutPercentage')::int * interval '1 second'",
        )
        .await
        .expect("the schedules become due");
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(stack.function("reconcile").await);
    }
    let event = json!({});
    let mut applied = 0;
    // A schedule that another run has locked is skipped; a second round applies what is left.
    for _ in 0..2 {
        let runs = workers.iter().map(|worker| worker.invoke(&event));
        for outcome in pennon_tests::join_all(runs).await {
            applied += outcome.expect("reconciles")["applied"]
                .as_u64()
                .expect("a number");
        }
    }
    assert_eq!(applied, 20);
    let row = stack
        .database
        .sql()
        .query_one(
            "select (select count(*) from pennon_audit where action = 'flag.schedule'),
                    (select count(*) from feature_flag_schedules where status = 'applied')",
            &[],
        )
        .await
        .expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (20, 20));
}

#[tokio::test]
async fn a_failed_change_is_retried_and_then_fails() {
    let stack = Stack::start().await;
    let planner = stack.function("schedules").await;
    let reconcile = stack.function("reconcile").await;
    let body = plan("2099-01-01T00:00:00Z", &json!({"rolloutPercentage": 9})).to_string();
    let answer = planner.call(&Event::admin("POST", SCHEDULE, &body)).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let sql = stack.database.sql();
    sql.batch_execute(
        "alter table feature_flags add constraint not_nine check (rollout_percentage <> 9)",
    )
    .await
    .expect("a constraint");
    let list = Event::admin("GET", SCHEDULE, "");
    for round in 0..3 {
        make_due(&stack, &id, "1 second").await;
        assert!(
            reconcile.invoke(&json!({})).await.is_err(),
            "the run did not fail, so no alarm counts it"
        );
        assert_eq!(statuses(&planner.call(&list).await), ["pending"], "{round}");
        let again = reconcile
            .invoke(&json!({}))
            .await
            .expect("no retry before its time");
        assert_eq!(again["applied"], 0);
    }
    make_due(&stack, &id, "1 second").await;
    assert!(reconcile.invoke(&json!({})).await.is_err());
    let given_up = planner.call(&list).await.json()[0].clone();
    assert_eq!(given_up["status"], "failed");
    assert!(given_up["errorMessage"].is_string());
    let late = planner
        .call(&Event::admin("DELETE", &format!("{SCHEDULE}/{id}"), ""))
        .await;
    assert_eq!(
        (late.status, late.json()["error"].clone()),
        (400, json!("INVALID_STATE"))
    );

    sql.batch_execute("alter table feature_flags drop constraint not_nine")
        .await
        .expect("no constraint");
    make_due(&stack, &id, "1 second").await;
    let run = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(run["applied"], 0, "a failed schedule was applied");
}

#[tokio::test]
async fn a_change_that_is_too_late_or_for_an_archived_flag_is_not_applied() {
    let api = Api::on_postgres().await;
    let stack = api.stack();
    let reconcile = stack.function("reconcile").await;
    let forgotten = schedule_change(&api, &json!({"rolloutPercentage": 1})).await;
    make_due(stack, &forgotten, "25 hours").await;
    let failed = async |wanted: i64| {
        eventually("the schedule is given up", async || {
            reconcile.invoke(&json!({})).await.expect("no error");
            let row = stack
                .database
                .sql()
                .query_one(
                    "select count(*) from feature_flag_schedules where status = 'failed'",
                    &[],
                )
                .await
                .expect("a count");
            row.get::<_, i64>(0) == wanted
        })
        .await;
    };
    failed(1).await;
    let of_archived = schedule_change(&api, &json!({"enabled": true})).await;
    api.admin_if("*", "DELETE", "/api/admin/flags/checkout", &Value::Null)
        .await;
    // As if a version without cancellation had archived the flag.
    let again = format!(
        "update feature_flag_schedules set status = 'pending', cancelled_at = null
         where id = '{of_archived}'"
    );
    let sql = stack.database.sql();
    sql.batch_execute(&again).await.expect("a schedule");
    make_due(stack, &of_archived, "1 second").await;
    failed(2).await;
    let flag = api.read("/api/admin/flags/checkout").await.json();
    assert_eq!(
        (flag["enabled"].clone(), flag["rolloutPercentage"].clone()),
        (json!(false), json!(50))
    );
}

#[tokio::test]
async fn the_local_server_applies_scheduled_changes_without_a_database() {
    let api = Api::on_file().await;
    api.schedule_soon("checkout", &json!({"rolloutPercentage": 12}))
        .await;
    eventually("the change is made", async || {
        let state = api.get("/api/config/flags/checkout").await.json();
        state["rolloutPercentage"] == 12
    })
    .await;
    assert_eq!(statuses(&api.read(SCHEDULE).await), ["applied"]);
}

#[tokio::test]
async fn of_two_changes_for_the_same_time_the_one_that_was_scheduled_last_wins() {
    let both = Api::of_both_kinds().await;
    let keys: Vec<String> = (0..8).map(|number| format!("twice-{number}")).collect();
    for api in &both {
        for key in &keys {
            let flag = json!({"key": key, "enabled": true, "rolloutPercentage": 1});
            let made = api.admin("POST", "/api/admin/flags", &flag).await;
            assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        }
    }
    // Longer than a busy machine takes to create the schedules.
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(20);
    let soon = pennon_core::http::timestamp(soon);
    for api in &both {
        for key in &keys {
            for percentage in [10, 50] {
                let body = plan(&soon, &json!({"rolloutPercentage": percentage}));
                let path = format!("/api/admin/flags/{key}/schedule");
                let made = api.admin("POST", &path, &body).await;
                assert_eq!(made.status, 201, "{made:?} on {}", api.store);
            }
        }
    }
    for api in &both {
        for key in &keys {
            let path = format!("/api/admin/flags/{key}");
            let schedule = format!("{path}/schedule");
            eventually("both changes are made", async || {
                statuses(&api.read(&schedule).await) == ["applied", "applied"]
            })
            .await;
            let percentage = api.read(&path).await.json()["rolloutPercentage"].clone();
            assert_eq!(percentage, 50, "{key} on {}", api.store);
        }
    }
}

/// The service that Pennon replaces stores schedules without applying them, and its environments may have any name.
#[tokio::test]
async fn due_schedules_of_environments_with_invalid_names_do_not_keep_others_from_being_applied() {
    let stack = Stack::start().await;
    let reconcile = stack.function("reconcile").await;
    let sql = stack.database.sql();
    sql.batch_execute(
        "insert into feature_flags (flag_key, environment, enabled, rollout_percentage)
         values ('old', 'customer.acceptance', true, 1);
         insert into feature_flag_schedules (flag_id, scheduled_at, updates)
         select id, now() - interval '2 hours', '{\"rolloutPercentage\": 9}'
         from feature_flags, generate_series(1, 100) where flag_key = 'old';
         insert into feature_flag_schedules (flag_id, scheduled_at, updates)
         select id, now() - interval '1 hour', '{\"rolloutPercentage\": 9}'
         from feature_flags where flag_key = 'checkout'",
    )
    .await
    .expect("schedules");
    let outcome = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(outcome["applied"], 1);
}

#[tokio::test]
async fn a_run_leaves_time_for_its_other_work_if_many_flags_with_due_schedules_are_locked() {
    let stack = Stack::start().await.with_default_timeouts();
    let reconcile = stack.function("reconcile").await;
    let sql = stack.database.sql();
    sql.batch_execute(
        "insert into feature_flags (flag_key, enabled, rollout_percentage)
         select 'locked-' || n, true, 1 from generate_series(1, 9) as n;
         insert into feature_flag_schedules (flag_id, scheduled_at, updates)
         select id, now() - interval '1 hour', '{\"rolloutPercentage\": 9}'
         from feature_flags where flag_key like 'locked-%';
         insert into feature_flag_schedules (flag_id, scheduled_at, updates)
         select id, now() - interval '1 minute', '{\"rolloutPercentage\": 9}'
         from feature_flags where flag_key = 'checkout'",
    )
    .await
    .expect("schedules");
    let lock = pennon_tests::postgres::connect(&stack.database.url()).await;
    let lock = lock.expect("a connection");
    lock.batch_execute(
        "begin; select 1 from feature_flags where flag_key like 'locked-%' for update",
    )
    .await
    .expect("a lock");
    let failure = reconcile.invoke(&json!({})).await.expect_err("a failure");
    let failure = failure.to_string();
    assert!(failure.contains("no time was left for"), "{failure}");
    assert!(reconcile.has_logged("cache reconciled"));
    let get = stack.function("get-flag").await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&answer), 9, "the unlocked flag did not change");
    lock.batch_execute("rollback").await.expect("no lock");
    // No failure was recorded, so the next run applies all of them.
    let outcome = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(outcome["applied"], 9);
}
