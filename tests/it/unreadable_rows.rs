//! An unreadable row affects only what depends on it, and can be repaired.

use std::time::{Duration, Instant};

use pennon_tests::api::Api;
use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::eventually;
use pennon_tests::postgres::connect;
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
async fn an_unreadable_definition_fails_only_its_flag_and_can_be_repaired() {
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
            let metrics = &line["_aws"]["CloudWatchMetrics"];
            assert!(metrics.to_string().contains("unreadable_rows"), "{metrics}");
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
        // A change of something else keeps the stored text.
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
        // An instance reads the row again after ten seconds; a new one does so immediately.
        let health = stack.function("health").await;
        let healthy = health.call(&Event::load("health")).await.json();
        assert_eq!(healthy["status"], "healthy", "{healthy}");
        list.call(&Event::list()).await;
        let line = list.last_request();
        assert!(
            !line["_aws"].to_string().contains("unreadable_rows"),
            "{line}"
        );
    }
    let reports = list.lines().into_iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("unreadable row") && line["name"] == "bad"
    });
    // Two reads found each text: it is logged once, and again when the row breaks again.
    assert_eq!(reports.count(), 6, "{}", list.log());
}

#[tokio::test]
async fn unreadable_settings_overrides_and_keys_fail_only_what_depends_on_them() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    sql(
        &stack,
        "insert into pennon_environment_settings (environment, settings) values ('production', '[]');
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
        // `checkout` has a percentage between 0 and 100, so the settings determine which users get it.
        assert_eq!(code("checkout", "bob").await, (400, json!("PARSE_ERROR")));
        assert_eq!(code("search", "alice").await, (400, json!("PARSE_ERROR")));
        assert_eq!(code("search", "bob").await, (200, Value::Null));
        assert_eq!(code("export", "bob").await, (200, Value::Null));
    }
    // One instance fills Redis, another one reads it.
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

const FLAGS: &str = "/api/admin/flags";
const EXPORT: &str = "/api/admin/environments/production/export";
const IMPORT: &str = "/api/admin/environments/production/import";
const SETTINGS: &str = "/api/admin/environments/production/settings";

/// Makes the definition of `bad` unreadable.
async fn break_bad(api: &Api, text: &str) {
    let statement =
        format!("update feature_flags set definition = '{text}'::json where flag_key = 'bad'");
    sql(api.stack(), &statement).await;
}

/// A server on PostgreSQL, with a flag `bad` whose definition is unreadable.
async fn with_bad_flag() -> Api {
    let api = Api::on_postgres().await;
    let definition: Value = serde_json::from_str(DEFINITION).expect("JSON");
    let new = json!({"key": "bad", "enabled": true, "definition": definition});
    assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
    break_bad(&api, "[1]").await;
    api
}

#[tokio::test]
async fn an_unreadable_schedule_fails_alone_and_can_be_cancelled() {
    let api = Api::on_postgres().await;
    let url = "/api/admin/flags/checkout/schedule";
    for at in ["2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z"] {
        let plan = json!({"scheduledAt": at, "updates": {"enabled": false}});
        assert_eq!(api.admin("POST", url, &plan).await.status, 201);
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    sql(
        api.stack(),
        &format!(
            "alter table feature_flag_schedules drop constraint schedule_status_check;
             alter table feature_flag_schedules alter column status drop not null;
             alter table feature_flag_schedules alter column updates drop not null;
             alter table feature_flag_schedules alter column scheduled_at drop not null;
             insert into feature_flag_schedules (flag_id, scheduled_at, status, updates)
               select id, t.at, t.status, t.updates from feature_flags, (values
                 (now() + interval '1 day', 'maybe', '{{\"enabled\": false}}'::jsonb),
                 (now() - interval '1 minute', 'maybe', '{{\"enabled\": false}}'),
                 (now() + interval '2 days', null, '{{\"enabled\": false}}'),
                 (now() + interval '3 days', 'pending', '{{\"a\": 1e400}}'),
                 (now() + interval '4 days', 'pending', '{deep}'),
                 (now() + interval '5 days', 'pending', null),
                 (null, 'pending', '{{\"enabled\": false}}'),
                 ('infinity', 'pending', '{{\"enabled\": false}}'),
                 (now() - interval '1 minute', 'pending', '{{\"a\": 1e400}}')
               ) as t (at, status, updates) where flag_key = 'checkout'"
        ),
    )
    .await;
    let listed = api.read(url).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let all = listed.json();
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), 11);
    let broken: Vec<&Value> = all.iter().filter(|one| one["broken"].is_object()).collect();
    assert_eq!(broken.len(), 8, "{listed:?}");
    let reasons: Vec<&Value> = broken.iter().map(|one| &one["broken"]["reason"]).collect();
    assert!(
        json!(reasons)
            .to_string()
            .contains("its status 'maybe' is unknown"),
        "{reasons:?}"
    );

    // The unreadable schedule that is pending and due is abandoned; the readable one is applied.
    sql(
        api.stack(),
        "update feature_flag_schedules set scheduled_at = now() - interval '1 second'
         where scheduled_at > '2098-12-31' and scheduled_at < '2099-01-02'",
    )
    .await;
    eventually(
        "the schedules that are due are applied or have failed",
        async || {
            let all = api.read(url).await.json();
            let of = |status: &str| {
                let all = all.as_array().expect("a list").iter();
                all.filter(|one| one["status"] == status).count()
            };
            (of("applied"), of("failed"), of("unreadable")) == (1, 1, 3)
        },
    )
    .await;
    for one in api.read(url).await.json().as_array().expect("a list") {
        if ["pending", "unreadable"].contains(&one["status"].as_str().expect("a status")) {
            let id = one["id"].as_str().expect("an id");
            let cancelled = api
                .admin("DELETE", &format!("{url}/{id}"), &Value::Null)
                .await;
            assert_eq!(
                (cancelled.status, &cancelled.json()["status"]),
                (200, &json!("cancelled"))
            );
        }
    }
    let audit = api
        .read("/api/admin/flags/checkout/audit?pageSize=100")
        .await;
    assert_eq!(audit.status, 200, "{audit:?}");
}

#[tokio::test]
async fn archiving_a_flag_cancels_unreadable_schedules() {
    let api = Api::on_postgres().await;
    sql(
        api.stack(),
        "alter table feature_flag_schedules drop constraint schedule_status_check;
         insert into feature_flag_schedules (flag_id, scheduled_at, status, updates)
           select id, now() + interval '1 day', 'maybe', '1' from feature_flags where flag_key = 'checkout'",
    )
    .await;
    let url = "/api/admin/flags/checkout";
    assert_eq!(
        api.admin_if("*", "DELETE", url, &Value::Null).await.status,
        200
    );
    let row = "select status from feature_flag_schedules";
    let row = api
        .stack()
        .database
        .sql()
        .query_one(row, &[])
        .await
        .expect("a row");
    assert_eq!(row.get::<_, String>(0), "cancelled");
}

#[tokio::test]
async fn unreadable_defaults_fail_only_flags_that_depend_on_them() {
    for damage in [
        "update pennon_installation set evaluation_defaults = 'other'",
        "delete from pennon_installation",
        "alter table pennon_installation drop constraint pennon_installation_one_row;
         alter table pennon_installation drop constraint pennon_installation_pkey;
         insert into pennon_installation (only_row, evaluation_defaults) values (false, 'new')",
    ] {
        let stack = Stack::start().await;
        stack.database.add_key(EXAMPLE_KEY).await;
        stack.database.add_flag("more", true, 10).await;
        sql(
            &stack,
            "alter table pennon_installation drop constraint pennon_installation_defaults_check",
        )
        .await;
        sql(&stack, damage).await;
        let list = stack.function("list-flags").await;
        let evaluate = stack.function("evaluate-flag").await;
        let code = async |key: &str| {
            let answer = evaluate.call(&evaluation(key, "bob")).await;
            (answer.status, answer.json()["errorCode"].clone())
        };
        let listed = list.call(&Event::list()).await;
        let expected = json!({"checkout": false, "export": false, "more": false, "search": true});
        assert_eq!((listed.status, listed.json()), (200, expected), "{damage}");
        assert_eq!(
            code("checkout").await,
            (400, json!("PARSE_ERROR")),
            "{damage}"
        );
        assert_eq!(code("search").await, (200, Value::Null), "{damage}");
        // One instance fills Redis, another one reads it.
        let other = stack.function("evaluate-flag").await;
        let answer = other.call(&evaluation("checkout", "bob")).await;
        assert_eq!((answer.status, answer.source()), (400, "redis"), "{damage}");
        let health = stack.function("health").await;
        let degraded = health.call(&Event::load("health")).await.json();
        let status = (&degraded["status"], &degraded["unreadableRows"]);
        assert_eq!(status, (&json!("degraded"), &json!(1)), "{degraded}");
        assert!(list.log().contains("evaluation_defaults"), "{}", list.log());

        // An environment with its own settings for both needs no defaults.
        let manage = stack.function("manage-environments").await;
        let read = manage.call(&Event::admin("GET", SETTINGS, "")).await.json();
        assert_eq!(
            (&read["bucketing"], &read["anonymousRollout"]),
            (&Value::Null, &Value::Null)
        );
        let listed = manage
            .call(&Event::admin("GET", "/api/admin/environments", ""))
            .await;
        assert_eq!(listed.status, 200, "{listed:?}");
        let own = r#"{"bucketing": "sha256", "anonymousRollout": true}"#;
        let event = Event::admin("PUT", SETTINGS, own).header("if-match", "*");
        assert_eq!(manage.call(&event).await.status, 200);
        assert_eq!(code("checkout").await, (200, Value::Null), "{damage}");
        let event = Event::admin("PUT", SETTINGS, "{}").header("if-match", "*");
        assert_eq!(manage.call(&event).await.status, 200);
        assert_eq!(code("checkout").await.0, 400, "{damage}");

        // `migrate` does not guess, but accepts an operator's choice.
        let migrate = stack.function("migrate").await;
        let again = migrate.invoke(&json!({})).await.expect("it runs");
        assert_eq!(
            again["evaluationDefaults"], "unreadable",
            "{damage} {again}"
        );
        assert_eq!(code("checkout").await.0, 400, "{damage}");
        let repaired = migrate
            .invoke(&json!({"evaluationDefaults": "existing"}))
            .await
            .expect("it runs");
        assert_eq!(
            repaired["evaluationDefaults"], "existing",
            "{damage} {repaired}"
        );
        stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
        assert_eq!(code("checkout").await, (200, Value::Null), "{damage}");
        // An instance reads the row again after ten seconds; a new one does so immediately.
        let health = stack.function("health").await;
        let healthy = health.call(&Event::load("health")).await.json();
        assert_eq!(healthy["status"], "healthy", "{damage} {healthy}");
    }
}

#[tokio::test]
async fn an_unreadable_audit_entry_fails_alone() {
    let api = Api::on_postgres().await;
    let url = "/api/admin/flags/checkout";
    let change = json!({"rolloutPercentage": 51});
    assert_eq!(api.admin("PATCH", url, &change).await.status, 200);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for state in ["{\"a\": 1e999}", deep.as_str()] {
        sql(
            api.stack(),
            &format!(
                "insert into pennon_audit (environment, flag_key, action, actor, before, after)
                 values ('production', 'checkout', 'flag.update', 'sql', '{{}}', '{state}')"
            ),
        )
        .await;
        for list in [
            &format!("{url}/audit"),
            "/api/admin/environments/production/audit",
        ] {
            let listed = api.read(list).await;
            assert_eq!(listed.status, 200, "{listed:?}");
            let entries = listed.json()["entries"].clone();
            assert_eq!(
                (&entries[0]["before"], &entries[0]["after"]),
                (&json!({}), &Value::Null)
            );
            assert!(entries[0]["broken"]["reason"].is_string(), "{listed:?}");
            let last = entries
                .as_array()
                .and_then(|all| all.last())
                .expect("an entry");
            assert_eq!(last["after"]["rolloutPercentage"], 51, "{listed:?}");
        }
        let id = api.read(&format!("{url}/audit")).await.json()["entries"][0]["id"].clone();
        let revert = json!({"auditId": id});
        let answer = api
            .admin_if("*", "POST", &format!("{url}/revert"), &revert)
            .await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("unreadable"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_export_names_unreadable_flags_and_its_import_leaves_them_alone() {
    let api = with_bad_flag().await;
    let exported = api.read(EXPORT).await;
    assert_eq!(exported.status, 200, "{exported:?}");
    let file = exported.json();
    assert_eq!(file["flags"]["bad"], Value::Null);
    assert_eq!(
        file["pennon.unreadable"],
        json!({"flags": ["bad"], "settings": false})
    );
    for path in [&format!("{IMPORT}?dryRun=true"), IMPORT] {
        let answer = api.admin_if("*", "POST", path, &file).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let done = answer.json();
        assert_eq!(
            (&done["archived"], &done["kept"]),
            (&json!([]), &json!([])),
            "{answer:?}"
        );
        assert_eq!(
            done["warnings"][0]["pointer"], "/pennon.unreadable/flags/0",
            "{answer:?}"
        );
    }
    let bad = api.read("/api/admin/flags/bad").await.json();
    assert_eq!(
        (&bad["archivedAt"], &bad["broken"]["definition"]),
        (&Value::Null, &json!("[1]"))
    );
    // A file without the flag archives it, and the response names it.
    let mut silent = file.clone();
    silent
        .as_object_mut()
        .expect("an object")
        .remove("pennon.unreadable");
    let answer = api.admin_if("*", "POST", IMPORT, &silent).await;
    assert_eq!(answer.json()["archived"][0]["key"], "bad", "{answer:?}");

    for wrong in [
        json!(1),
        json!({"flags": [1]}),
        json!({"flags": "bad"}),
        json!({"what": []}),
    ] {
        let mut file = file.clone();
        file["pennon.unreadable"] = wrong;
        let answer = api.admin_if("*", "POST", IMPORT, &file).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("/pennon.unreadable"), "{answer:?}");
    }
}

#[tokio::test]
async fn unreadable_settings_are_named_by_every_list_and_block_no_import_of_flags() {
    let api = Api::on_postgres().await;
    for text in ["[]", "null", "{\"evaluators\": 1}"] {
        sql(
            api.stack(),
            &format!(
                "insert into pennon_environment_settings (environment, settings)
                 values ('production', '{text}')
                 on conflict (environment) do update set settings = excluded.settings"
            ),
        )
        .await;
        let read = api.read(SETTINGS).await.json();
        assert_eq!(read["broken"]["settings"], *text, "{read}");
        let all = api.read("/api/admin/environments").await.json();
        assert!(
            all["environments"][0]["broken"]["reason"].is_string(),
            "{all}"
        );
        let file = api.read(EXPORT).await.json();
        assert_eq!(
            file["pennon.unreadable"],
            json!({"flags": [], "settings": true})
        );
        let answer = api.admin_if("*", "POST", IMPORT, &file).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json()["warnings"][0]["pointer"],
            "/pennon.unreadable/settings"
        );
        assert_eq!(api.read(SETTINGS).await.json()["broken"]["settings"], *text);
        let mut more = file.clone();
        more["$evaluators"] = json!({"ours": {"==": [1, 1]}});
        let answer = api.admin_if("*", "POST", IMPORT, &more).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.body.contains("unreadable"), "{answer:?}");
        let repaired = api.admin_if("*", "PUT", SETTINGS, &json!({})).await;
        assert_eq!(
            (repaired.status, &repaired.json()["broken"]),
            (200, &Value::Null)
        );
        let answer = api.admin_if("*", "POST", IMPORT, &more).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    sql(
        api.stack(),
        "alter table pennon_environment_settings alter column settings drop not null;
         update pennon_environment_settings set settings = null",
    )
    .await;
    assert!(
        api.read(SETTINGS).await.json()["broken"].is_object(),
        "NULL counts as the default settings"
    );
}

#[tokio::test]
async fn a_flag_with_an_unreadable_definition_can_be_imported_archived_deleted_and_restored() {
    let api = with_bad_flag().await;
    let url = "/api/admin/flags/bad";
    let good = json!({"state": "ENABLED", "variants": {"red": 1}, "defaultVariant": "red"});
    let file = json!({"flags": {"bad": good}});
    let merge = format!("{IMPORT}?mode=merge");
    // An override names a variant that the new definition lacks.
    sql(
        api.stack(),
        "insert into feature_flag_user_overrides (flag_id, user_id, override_type, variant)
           select id, 'alice', 'include', 'on' from feature_flags where flag_key = 'bad'",
    )
    .await;
    for path in [format!("{merge}&dryRun=true"), merge.clone()] {
        let answer = api.admin_if("*", "POST", &path, &file).await;
        assert_eq!(answer.status, 409, "{answer:?}");
    }
    let patch = json!({"definition": {"variants": {"red": 1}}});
    assert_eq!(api.admin_if("*", "PATCH", url, &patch).await.status, 409);
    let users = format!("{url}/users/alice");
    assert_eq!(api.admin("DELETE", &users, &Value::Null).await.status, 204);
    let dry = api
        .admin_if("*", "POST", &format!("{merge}&dryRun=true"), &file)
        .await;
    assert_eq!(dry.json()["changed"][0]["key"], "bad", "{dry:?}");
    let done = api.admin_if("*", "POST", &merge, &file).await;
    assert_eq!(done.status, 200, "{done:?}");
    let read = api.read(url).await.json();
    assert_eq!(
        (&read["definition"]["variants"], &read["broken"]),
        (&json!({"red": 1}), &Value::Null)
    );

    break_bad(&api, "5").await;
    let list = api.read(FLAGS).await.json();
    assert_eq!(list["flags"][0]["broken"]["definition"], "5", "{list}");
    let archived = api.admin_if("*", "DELETE", url, &Value::Null).await;
    assert_eq!(archived.json()["broken"]["definition"], "5", "{archived:?}");
    let list = api.read(&format!("{FLAGS}?archived=true")).await.json();
    assert_eq!(list["flags"][0]["broken"]["definition"], "5", "{list}");
    let restored = api
        .admin_if("*", "POST", &format!("{url}/restore"), &json!({}))
        .await;
    assert_eq!(restored.json()["broken"]["definition"], "5", "{restored:?}");
    let audit = api.read(&format!("{url}/audit")).await.json();
    let entries = audit["entries"].as_array().expect("entries");
    let import = entries
        .iter()
        .find(|entry| entry["action"] == "flag.import");
    let to = json!({"auditId": import.expect("an entry")["id"]});
    let reverted = api
        .admin_if("*", "POST", &format!("{url}/revert"), &to)
        .await;
    assert_eq!(
        reverted.json()["definition"]["variants"],
        json!({"red": 1}),
        "{reverted:?}"
    );

    break_bad(&api, "{\"variants\": 1}").await;
    assert_eq!(
        api.admin_if("*", "DELETE", url, &Value::Null).await.status,
        200
    );
    let gone = format!("{url}?permanently=true");
    assert_eq!(
        api.admin_if("*", "DELETE", &gone, &Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(api.read(url).await.status, 404);
    let audit = api.read(&format!("{url}/audit")).await;
    assert_eq!(audit.status, 200, "{audit:?}");
    let back = json!({"auditId": audit.json()["entries"][0]["id"], "state": "before"});
    let back = api
        .admin_if("*", "POST", &format!("{url}/revert"), &back)
        .await;
    assert_eq!(back.status, 200, "the deletion was not reverted: {back:?}");
    assert_eq!(back.json()["broken"]["definition"], "{\"variants\": 1}");
}

#[tokio::test]
async fn unconstrained_rows_evaluate_as_in_the_existing_service() {
    let api = Api::on_postgres().await;
    for (key, enabled, stored, expected, shown) in [
        ("above", "true", "140", true, 100),
        ("highest", "true", "2147483647", true, 100),
        ("below", "true", "-5", false, 0),
        ("lowest", "true", "-2147483648", false, 0),
        ("nothing", "true", "null", false, 0),
        ("unknown", "null", "100", false, 100),
    ] {
        sql(
            api.stack(),
            &format!(
                "alter table feature_flags drop constraint if exists rollout_percentage_check;
                 alter table feature_flags alter column rollout_percentage drop not null;
                 alter table feature_flags alter column enabled drop not null;
                 alter table feature_flag_user_overrides alter column user_id drop not null;
                 insert into feature_flags (flag_key, environment, enabled, rollout_percentage, created_at, updated_at)
                   values ('{key}', 'production', {enabled}, {stored}, 'infinity', '-infinity');
                 insert into feature_flag_user_overrides (flag_id, user_id, override_type, created_at)
                   select id, null, 'include', '12345-01-01' from feature_flags where flag_key = '{key}'"
            ),
        )
        .await;
        let listed = api.get("/api/config/flags?userId=alice").await;
        assert_eq!(
            (listed.status, &listed.json()[key]),
            (200, &json!(expected)),
            "{key}"
        );
        let one = api.get(&format!("/api/config/flags/{key}")).await;
        assert_eq!(
            (one.status, &one.json()["rolloutPercentage"]),
            (200, &json!(shown)),
            "{key}"
        );
        let url = format!("{FLAGS}/{key}");
        let read = api.read(&url).await;
        assert_eq!(
            read.json()["createdAt"],
            "9999-12-31T23:59:59.999Z",
            "{read:?}"
        );
        assert_eq!(
            read.json()["updatedAt"],
            "0000-01-01T00:00:00.000Z",
            "{read:?}"
        );
        assert_eq!(api.read(FLAGS).await.status, 200, "{key}");
        let users = api.read(&format!("{url}/users")).await;
        assert_eq!(
            (users.status, &users.json()["pagination"]["total"]),
            (200, &json!(0)),
            "{users:?}"
        );
        let repaired = api
            .admin(
                "PATCH",
                &url,
                &json!({"rolloutPercentage": 7, "enabled": true}),
            )
            .await;
        assert_eq!(percentage(&repaired), 7, "{key}");
    }
    sql(
        api.stack(),
        "insert into pennon_evaluation_counts (environment, flag_key, variant, day, count, last_at)
           values ('production', 'above', 'on', 'infinity', 1, 'infinity'),
                  ('production', 'above', 'other', current_date, -1, '-infinity')",
    )
    .await;
    let usage = api.read("/api/admin/flags/above/usage").await;
    assert_eq!(usage.status, 200, "{usage:?}");
    assert_eq!(api.read("/api/admin/flags/stale").await.status, 200);
    assert_eq!(api.get("/health").await.json()["status"], "healthy");
}

#[tokio::test]
async fn a_row_cannot_mark_itself_as_unreadable() {
    let api = with_bad_flag().await;
    break_bad(
        &api,
        r#"{"variants": {"a": 1}, "unreadable": {"reason": "r", "text": "no JSON"}}"#,
    )
    .await;
    let url = "/api/admin/flags/bad";
    let read = api.read(url).await.json();
    assert_eq!(read["broken"], Value::Null, "{read}");
    let changed = api.admin("PATCH", url, &json!({"enabled": true})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

#[tokio::test]
async fn a_table_of_unreadable_rows_does_not_flood_the_log() {
    let stack = Stack::start().await;
    sql(
        &stack,
        "insert into feature_flags (flag_key, environment, enabled, definition)
           select 'f' || number, 'production', true, 'null' from generate_series(1, 100) as number",
    )
    .await;
    let list = stack.function("list-flags").await;
    for _ in 0..2 {
        assert_eq!(list.call(&Event::list()).await.status, 200);
        stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
        // Another revision with the same rows.
        sql(
            &stack,
            "update feature_flags set enabled = not enabled where flag_key = 'checkout'",
        )
        .await;
    }
    let lines = list.lines();
    let about = lines
        .iter()
        .filter(|line| line["error.type"] == "unreadable_row");
    let about: Vec<&Value> = about.collect();
    assert_eq!(about.len(), 21, "{}", list.log());
    assert_eq!(
        about.iter().filter(|line| line["more"] == 80).count(),
        1,
        "{}",
        list.log()
    );
}

/// Statements that rename a table or a column that a read needs.
const MISSING: [&str; 10] = [
    "alter table feature_flags rename column definition to definition_x",
    "alter table feature_flags rename column archived_at to archived_at_x",
    "alter table feature_flags rename column salt to salt_x",
    "alter table feature_flags rename column bucketing to bucketing_x",
    "alter table feature_flag_user_overrides rename to feature_flag_user_overrides_x",
    "alter table feature_flag_user_overrides rename column variant to variant_x",
    "alter table pennon_api_keys rename to pennon_api_keys_x",
    "alter table pennon_environment_settings rename to pennon_environment_settings_x",
    "alter table pennon_environment_settings rename column settings to settings_x",
    "alter table pennon_installation rename to pennon_installation_x",
];

#[tokio::test]
async fn a_missing_table_or_column_of_a_migrated_database_is_an_error_and_grants_no_access() {
    for missing in MISSING {
        let stack = Stack::start().await;
        stack.database.add_key(EXAMPLE_KEY).await;
        let hidden = json!({"variants": {"on": true, "off": false}, "defaultVariant": "on",
                            "metadata": {"serverOnly": true}});
        stack.database.add_typed_flag("hidden", &hidden).await;
        let list = stack.function("list-flags").await;
        let shown = json!({"checkout": true, "export": false, "search": true});
        assert_eq!(list.call(&Event::list()).await.json(), shown);
        sql(&stack, missing).await;
        // Another revision, and no entry in Redis.
        sql(
            &stack,
            "update pennon_environments set revision = revision + 1",
        )
        .await;
        stack.redis.command(&["FLUSHALL"]);

        let cold = stack.function("list-flags").await;
        let evaluate = stack.function("evaluate-flag").await;
        for _ in 0..2 {
            let answer = list.call(&Event::list()).await;
            assert_eq!(
                (answer.status, answer.source(), answer.json()),
                (200, "stale", shown.clone()),
                "{missing}"
            );
            assert_eq!(cold.call(&Event::list()).await.status, 503, "{missing}");
            let answer = evaluate.call(&evaluation("search", "alice")).await;
            assert_ne!(answer.status, 401, "{missing}: {answer:?}");
            assert!(answer.status >= 500, "{missing}: {answer:?}");
        }
        let logged = |line: &Value| line.to_string().contains("does not exist");
        assert!(cold.lines().iter().any(logged), "{missing}: {}", cold.log());
        assert!(list.lines().iter().any(logged), "{missing}: {}", list.log());
        assert!(
            stack.redis.fields().iter().all(|(name, _)| name != "__rev"),
            "{missing}: the cache was filled"
        );
        let health = stack.function("health").await;
        let degraded = health.call(&Event::load("health")).await.json();
        assert_eq!(
            (&degraded["status"], &degraded["services"]["database"]),
            (&json!("degraded"), &json!("unhealthy")),
            "{missing}: {degraded}"
        );
    }
}

#[tokio::test]
async fn health_notices_a_missing_column_while_redis_still_answers() {
    let stack = Stack::start().await;
    let list = stack.function("list-flags").await;
    assert_eq!(list.call(&Event::list()).await.status, 200);
    sql(&stack, MISSING[0]).await;
    let health = stack.function("health").await;
    let degraded = health.call(&Event::load("health")).await.json();
    assert_eq!(degraded["status"], "degraded", "{degraded}");
}

#[tokio::test]
async fn health_answers_within_its_time_while_the_flags_cannot_be_read() {
    let stack = Stack::start().await;
    let other = connect(&stack.database.url()).await.expect("connects");
    for table in ["pennon_environments", "feature_flags"] {
        let lock = format!("begin; lock table {table} in access exclusive mode");
        other.batch_execute(&lock).await.expect("a lock");
        let health = stack.function("health").await;
        let started = Instant::now();
        let degraded = health.call(&Event::load("health")).await.json();
        // The timeout of a query is 15 s here.
        assert!(started.elapsed() < Duration::from_secs(8), "{table}");
        assert_eq!(
            (&degraded["status"], &degraded["services"]["database"]),
            (&json!("degraded"), &json!("unhealthy")),
            "{table}: {degraded}"
        );
        other.batch_execute("rollback").await.expect("no lock");
    }
}

#[tokio::test]
async fn migrate_does_not_decide_again_when_the_installation_table_is_missing() {
    let stack = Stack::start().await;
    sql(&stack, "drop table pennon_installation").await;
    let migrate = stack.function("migrate").await;
    let answer = migrate.invoke(&json!({})).await;
    assert_eq!(
        answer,
        Ok(json!({"applied": 0, "evaluationDefaults": "unreadable"}))
    );
}
