//! Ramps: rollouts that advance by themselves, and that alarms and admins can end.

mod engine;
mod guards;
mod superseded;

use std::time::SystemTime;

use pennon_tests::api::Api;
use pennon_tests::eventually;
use pennon_tests::local::API_KEY;
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const FLAG: &str = "/api/admin/flags/checkout";

const RAMP: &str = "/api/admin/flags/checkout/ramp";
const COPY: &str = "/api/admin/environments/production/copy";

const HOUR_IN_SECONDS: u32 = 3_600;

/// Steps with these percentages that bake for an hour.
fn steps(percentages: &[u8]) -> Value {
    let step = |percent: &u8| json!({"percent": percent, "bakeSeconds": HOUR_IN_SECONDS});
    percentages.iter().map(step).collect()
}

fn plan(percentages: &[u8]) -> Value {
    json!({ "steps": steps(percentages) })
}

fn guarded(percentages: &[u8], alarm: &str) -> Value {
    json!({ "steps": steps(percentages), "guards": [{ "alarm": alarm }] })
}

async fn create(api: &Api, plan: &Value) -> Response {
    api.admin_if("*", "POST", RAMP, plan).await
}

/// Creates the environment `staging` with another state of the flag, for [`copy_of_flag`].
async fn create_staging(api: &Api) {
    let staging = json!({"environment": "staging"});
    let made = api.admin("POST", "/api/admin/environments", &staging).await;
    assert_eq!(made.status, 201, "{made:?}");
    let flag = json!({"key": "checkout", "enabled": true, "rolloutPercentage": 55});
    let path = "/api/admin/flags?environment=staging";
    let made = api.admin("POST", path, &flag).await;
    assert_eq!(made.status, 201, "{made:?}");
}

/// The body of a request that copies the flag from that environment.
fn copy_of_flag() -> Value {
    json!({"from": "staging", "flags": [{"flagKey": "checkout", "ifMatch": "*"}]})
}

async fn start_ramp(api: &Api, plan: &Value) -> Value {
    let answer = create(api, plan).await;
    assert_eq!(answer.status, 201, "{answer:?} on {}", api.store);
    answer.json()
}

async fn act(api: &Api, action: &str) -> Response {
    let path = format!("{RAMP}/{action}");
    api.admin_if("*", "POST", &path, &Value::Null).await
}

async fn ramp(api: &Api) -> Value {
    let answer = api.read(RAMP).await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    answer.json()
}

async fn percentage(api: &Api) -> Value {
    api.read(FLAG).await.json()["rolloutPercentage"].clone()
}

async fn patch(api: &Api, body: &Value) -> Response {
    api.admin_if("*", "PATCH", FLAG, body).await
}

/// Sets the state of an alarm of the local server.
async fn set_alarm(api: &Api, alarm: &str, state: &str) -> Value {
    let path = format!("/local/alarms/{alarm}");
    let answer = api.admin("PUT", &path, &json!({ "state": state })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn sql(stack: &Stack, statement: &str) {
    let done = stack.database.sql().batch_execute(statement).await;
    done.expect("a statement");
}

/// Edits the stored ramp of a flag, to simulate a change of the clock or a newer version of Pennon.
async fn edit_ramp(api: &mut Api, key: &str, edit: impl Fn(&mut Value)) {
    if let Some(stack) = &api.stack {
        let database = stack.database.sql();
        let read = "select id, ramp::text from pennon_ramps where flag_key = $1 and open";
        let row = database.query_one(read, &[&key]).await.expect("a ramp");
        let mut ramp: Value = serde_json::from_str(row.get(1)).expect("JSON");
        edit(&mut ramp);
        let write = "update pennon_ramps set ramp = $1::text::json where id = $2";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&ramp.to_string(), &row.get::<_, String>(0)];
        let written = database.execute(write, &parameters).await;
        assert_eq!(written.expect("a row"), 1);
        return;
    }
    api.local_mut().kill();
    let path = api.local().folder().join("flags.json.state");
    let text = std::fs::read_to_string(&path).expect("a file");
    let mut edited = String::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        let records = line.get_mut("records").and_then(Value::as_array_mut);
        for record in records.into_iter().flatten() {
            if record["ramp"]["key"] == key {
                edit(&mut record["ramp"]["ramp"]);
            }
        }
        edited.push_str(&line.to_string());
        edited.push('\n');
    }
    assert_ne!(edited, text, "no ramp of {key}");
    std::fs::write(&path, edited).expect("a file");
    api.local_mut().restart().await;
}

/// Ends the bake of every ramp that is baking or holding, as if `reconcile` had checked the ramp all the time.
async fn end_bakes(stack: &Stack) {
    let text = pennon_core::http::timestamp(SystemTime::now());
    let statement = format!(
        "update pennon_ramps set ramp = (ramp::jsonb || jsonb_build_object(
           'dueAt', to_char(now() at time zone 'utc' - interval '1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
           'checkedAt', '{text}'))::json where watched"
    );
    sql(stack, &statement).await;
}

#[tokio::test]
async fn a_ramp_advances_by_itself_and_completes() {
    for api in Api::of_both_kinds().await {
        let steps = json!([
            {"percent": 60, "bakeSeconds": 1}, {"percent": 100, "bakeSeconds": 1},
        ]);
        let first = start_ramp(&api, &json!({ "steps": steps })).await;
        assert_eq!(first["state"], "baking");
        assert_eq!(percentage(&api).await, 60);
        eventually("the ramp completes", async || {
            ramp(&api).await["state"] == "completed"
        })
        .await;
        assert_eq!(percentage(&api).await, 100, "on {}", api.store);
        let done = ramp(&api).await;
        let transitions = done["transitions"].as_array().expect("a list");
        let listed: Vec<String> = transitions
            .iter()
            .map(|it| format!("{}/{}/{}", it["state"], it["step"], it["percent"]))
            .collect();
        let wanted = [
            "\"pending\"/0/50",
            "\"baking\"/1/60",
            "\"baking\"/2/100",
            "\"completed\"/2/100",
        ];
        assert_eq!(listed, wanted, "on {}", api.store);
        let id = done["id"].as_str().expect("an id");
        let engine = format!("ramp:{id}");
        assert_eq!(transitions[2]["actor"], engine);
        assert_eq!(transitions[0]["actor"], "local-admin");
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        let listed: Vec<(&Value, &Value)> = audit["entries"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|entry| (&entry["action"], &entry["actor"]))
            .collect();
        let (engine, admin) = (json!(engine), json!("local-admin"));
        let actions = ["ramp.change", "flag.ramp", "flag.ramp", "ramp.create"].map(Value::from);
        let wanted: Vec<(&Value, &Value)> = actions
            .iter()
            .zip([&engine, &engine, &admin, &admin])
            .collect();
        assert_eq!(listed, wanted, "on {}", api.store);
    }
}

#[tokio::test]
async fn each_action_is_allowed_in_its_states_only() {
    const ACTIONS: [&str; 6] = [
        "pause",
        "resume",
        "advance",
        "rollback",
        "acknowledge",
        "cancel",
    ];
    // The actions that lead to a state, the state, and the actions that it allows.
    let cases: [(&[&str], &str, &[&str]); 6] = [
        (&[], "baking", &["pause", "advance", "rollback", "cancel"]),
        (&["pause"], "paused", &["resume", "rollback", "cancel"]),
        (&["rollback"], "rolledBack", &[]),
        (&["cancel"], "cancelled", &[]),
        (&["advance", "advance"], "completed", &[]),
        (
            &["pause", "resume"],
            "baking",
            &["pause", "advance", "rollback", "cancel"],
        ),
    ];
    for api in Api::of_both_kinds().await {
        for (path, state, allowed) in cases {
            for action in ACTIONS {
                let reset = patch(&api, &json!({"rolloutPercentage": 50})).await;
                assert_eq!(reset.status, 200);
                start_ramp(&api, &plan(&[60, 70])).await;
                for step in path {
                    assert_eq!(act(&api, step).await.status, 200, "{step} on {}", api.store);
                }
                assert_eq!(ramp(&api).await["state"], state, "on {}", api.store);
                let before = ramp(&api).await;
                let answer = act(&api, action).await;
                let is_allowed = allowed.contains(&action);
                assert_eq!(
                    answer.status == 200,
                    is_allowed,
                    "{action} of {state}: {answer:?}"
                );
                if !is_allowed {
                    assert_eq!(answer.status, 400, "{action} of {state}: {answer:?}");
                    assert_eq!(answer.json()["error"], "INVALID_STATE", "{answer:?}");
                    assert_eq!(ramp(&api).await, before, "{action} changed a {state} ramp");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_approval_holds_the_first_step_and_later_ones() {
    for api in Api::of_both_kinds().await {
        let steps = json!([
            {"percent": 60, "bakeSeconds": 1, "approval": true},
            {"percent": 70, "bakeSeconds": 1, "approval": true},
        ]);
        let first = start_ramp(&api, &json!({ "steps": steps })).await;
        assert_eq!(
            (&first["state"], first["step"].as_u64()),
            (&json!("pending"), Some(0))
        );
        assert_eq!(first["reason"], "the first step needs an approval");
        assert_eq!(percentage(&api).await, 50);
        for action in ["resume", "acknowledge"] {
            assert_eq!(act(&api, action).await.status, 400, "{action}");
        }
        assert_eq!(act(&api, "pause").await.json()["state"], "paused");
        let resumed = act(&api, "resume").await.json();
        assert_eq!(resumed["state"], "pending");
        assert_eq!(resumed["reason"], "the first step needs an approval");
        assert_eq!(act(&api, "advance").await.json()["state"], "baking");
        assert_eq!(percentage(&api).await, 60);
        eventually("the ramp holds", async || {
            let ramp = ramp(&api).await;
            ramp["state"] == "holding" && ramp["reason"] == "the next step needs an approval"
        })
        .await;
        assert_eq!(percentage(&api).await, 60);
        assert_eq!(act(&api, "advance").await.json()["step"], 2);
        assert_eq!(percentage(&api).await, 70, "on {}", api.store);
    }
}

#[tokio::test]
async fn the_tag_of_an_earlier_ramp_approves_no_step_of_the_next_one() {
    for api in Api::of_both_kinds().await {
        let first = create(&api, &plan(&[60])).await;
        let tag = first.header("etag").expect("a tag").to_owned();
        assert_eq!(act(&api, "cancel").await.status, 200, "on {}", api.store);
        let next = json!({"steps": [{"percent": 90, "bakeSeconds": 600, "approval": true}]});
        assert_eq!(create(&api, &next).await.status, 201, "on {}", api.store);
        let path = format!("{RAMP}/advance");
        let answer = api.admin_if(&tag, "POST", &path, &Value::Null).await;
        assert_eq!(answer.status, 412, "{answer:?} on {}", api.store);
    }
}

#[tokio::test]
async fn changes_of_a_ramp_require_its_current_tag() {
    for api in Api::of_both_kinds().await {
        let body = plan(&[60, 70]);
        let flag = api.read(FLAG).await;
        let tag = flag.header("etag").expect("a tag").to_owned();
        assert_eq!(api.admin("POST", RAMP, &body).await.status, 428);
        assert_eq!(api.admin_if("\"1\"", "POST", RAMP, &body).await.status, 412);
        let made = api.admin_if(&tag, "POST", RAMP, &body).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let tag = api
            .read(RAMP)
            .await
            .header("etag")
            .expect("a tag")
            .to_owned();
        assert_eq!(made.header("etag"), Some(tag.as_str()));
        for action in [
            "pause",
            "advance",
            "rollback",
            "acknowledge",
            "cancel",
            "resume",
        ] {
            let path = format!("{RAMP}/{action}");
            let nothing = Value::Null;
            assert_eq!(
                api.admin("POST", &path, &nothing).await.status,
                428,
                "{action}"
            );
            let wrong = api.admin_if("\"77\"", "POST", &path, &nothing).await;
            assert_eq!(wrong.status, 412, "{action} on {}", api.store);
        }
        let path = format!("{RAMP}/pause");
        let paused = api.admin_if(&tag, "POST", &path, &Value::Null).await;
        assert_eq!(paused.status, 200);
        let again = api.admin_if(&tag, "POST", &path, &Value::Null).await;
        assert_eq!(again.status, 412, "the tag of an older state was accepted");
        for (method, path) in [("POST", RAMP), ("GET", RAMP)] {
            assert_eq!(api.local().send(method, path, &[], "").await.status, 401);
        }
    }
}

#[tokio::test]
async fn an_invalid_plan_is_rejected_with_its_field() {
    for api in Api::of_both_kinds().await {
        let one = json!([{"percent": 60, "bakeSeconds": 1}]);
        let with = |field: &str, value: Value| {
            let mut body = json!({ "steps": one });
            body[field] = value;
            body
        };
        let step = |field: &str, value: Value| {
            let mut step = one[0].clone();
            step[field] = value;
            json!({ "steps": [step] })
        };
        let guard = |guard: Value| with("guards", json!([guard]));
        for (body, field) in [
            (json!({}), "steps"),
            (json!({"steps": []}), "steps"),
            (json!({"steps": {}}), "steps"),
            (json!({"steps": [1]}), "steps/0"),
            (json!({"steps": vec![one[0].clone(); 51]}), "steps"),
            (plan(&[60, 60]), "steps"),
            (plan(&[70, 60]), "steps"),
            (step("percent", json!(0)), "steps/0/percent"),
            (step("percent", json!(101)), "steps/0/percent"),
            (step("percent", json!(1.5)), "steps/0/percent"),
            (step("percent", Value::Null), "steps/0/percent"),
            (step("bakeSeconds", json!(0)), "steps/0/bakeSeconds"),
            (
                step("bakeSeconds", json!(30 * 24 * 3_600 + 1)),
                "steps/0/bakeSeconds",
            ),
            (step("minEvaluations", json!(0)), "steps/0/minEvaluations"),
            (step("approval", json!("yes")), "steps/0/approval"),
            (step("colour", json!(1)), "steps/0/colour"),
            (with("guards", json!({})), "guards"),
            (guard(json!("a")), "guards/0"),
            (guard(json!({})), "guards/0/alarm"),
            (guard(json!({"alarm": 1})), "guards/0/alarm"),
            (guard(json!({"alarm": ""})), "guards/0/alarm"),
            (guard(json!({"alarm": "a\n"})), "guards/0/alarm"),
            (guard(json!({"alarm": "a".repeat(256)})), "guards/0/alarm"),
            (
                guard(json!({"alarm": "arn:aws:cloudwatch:us-east-1:1:alarm:"})),
                "guards/0/alarm",
            ),
            (
                guard(json!({"alarm": "arn:aws:sns:us-east-1:1:topic"})),
                "guards/0/alarm",
            ),
            (
                guard(json!({"alarm": "a", "onMissing": "panic"})),
                "guards/0/onMissing",
            ),
            (guard(json!({"alarm": "a", "colour": 1})), "guards/0/colour"),
            (
                with(
                    "guards",
                    json!([{"alarm": "a"}, {"alarm": "arn:aws:cloudwatch:e:1:alarm:a"}]),
                ),
                "guards",
            ),
            (with("onAlarm", json!("explode")), "onAlarm"),
            (with("onAlarm", json!(1)), "onAlarm"),
            (with("from", json!("a")), "to"),
            (with("to", json!("a")), "from"),
        ] {
            let answer = create(&api, &body).await;
            assert_eq!(answer.status, 400, "{body}: {answer:?} on {}", api.store);
            let fields = answer.json()["details"]["fieldErrors"].clone();
            assert!(
                fields[field].is_array(),
                "{body}: {fields} on {}",
                api.store
            );
        }
        assert_eq!(api.read(RAMP).await.status, 404);
        // The state of the flag.
        for (key, body, status) in [
            ("no-such-flag", plan(&[60]), 404),
            ("export", plan(&[100]), 409),
            ("checkout", plan(&[50]), 409),
            ("checkout", with("from", json!("a")), 400),
            (
                "checkout",
                json!({"steps": one, "from": "a", "to": "b"}),
                409,
            ),
        ] {
            let path = format!("/api/admin/flags/{key}/ramp");
            let answer = api.admin_if("*", "POST", &path, &body).await;
            assert_eq!(answer.status, status, "{key} {body}: {answer:?}");
        }
        start_ramp(&api, &plan(&[60])).await;
        assert_eq!(create(&api, &plan(&[70])).await.status, 409, "two ramps");
        let path = format!("{RAMP}/pause");
        let answer = api.admin_if("*", "POST", &path, &json!({"a": 1})).await;
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test]
async fn a_ramp_starts_and_is_advanced_only_while_its_guards_are_ok() {
    for api in Api::of_both_kinds().await {
        let guards = json!([{"alarm": "errors"}, {"alarm": "slow", "onMissing": "ignore"}]);
        let body = json!({"steps": steps(&[60, 70, 80]), "guards": guards});
        for (errors, slow) in [
            ("ALARM", "OK"),
            ("INSUFFICIENT_DATA", "OK"),
            ("OK", "ALARM"),
        ] {
            set_alarm(&api, "errors", errors).await;
            set_alarm(&api, "slow", slow).await;
            assert_eq!(create(&api, &body).await.status, 409, "{errors} {slow}");
        }
        set_alarm(&api, "slow", "OK").await;
        let mut unset = body.clone();
        unset["guards"][0]["alarm"] = json!("never-set");
        start_ramp(&api, &unset).await;
        assert_eq!(act(&api, "rollback").await.status, 200);
        start_ramp(&api, &body).await;
        set_alarm(&api, "slow", "INSUFFICIENT_DATA").await;
        assert_eq!(act(&api, "advance").await.status, 200, "not ignored");
        act(&api, "pause").await;
        assert_eq!(
            set_alarm(&api, "errors", "ALARM").await["rolledBack"],
            0,
            "an alarm rolled a paused ramp back"
        );
        // The alarm is checked before the state, whose error would be 400.
        assert_eq!(act(&api, "advance").await.status, 409);
        assert_eq!(percentage(&api).await, 70, "on {}", api.store);
    }
}

#[tokio::test]
async fn an_alarm_rolls_the_flag_back_as_configured() {
    for api in Api::of_both_kinds().await {
        let mut earlier = Vec::new();
        for (on_alarm, state, percent, enabled) in [
            ("previous", "rolledBack", 60, true),
            ("start", "rolledBack", 50, true),
            ("off", "rolledBack", 70, false),
            ("pause", "paused", 70, true),
        ] {
            set_alarm(&api, "errors", "OK").await;
            let mut body = guarded(&[60, 70, 80], "errors");
            body["onAlarm"] = json!(on_alarm);
            let id = start_ramp(&api, &body).await["id"].clone();
            assert_eq!(act(&api, "advance").await.status, 200);
            set_alarm(&api, "errors", "ALARM").await;
            let after = ramp(&api).await;
            assert_eq!(after["id"], id);
            assert_eq!(
                after["state"], state,
                "{on_alarm} on {}: {after}",
                api.store
            );
            assert_eq!(after["reason"], "alarm 'errors' is in ALARM");
            let last = after["transitions"]
                .as_array()
                .and_then(|it| it.last())
                .cloned();
            assert_eq!(last.expect("one")["actor"], "alarm:errors");
            let flag = api.read(FLAG).await.json();
            assert_eq!(
                flag["rolloutPercentage"], percent,
                "{on_alarm} on {}",
                api.store
            );
            assert_eq!(flag["enabled"], enabled, "{on_alarm} on {}", api.store);
            // CloudWatch may call twice.
            assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 0);
            let end = if state == "paused" {
                "cancel"
            } else {
                "acknowledge"
            };
            let ended = act(&api, end).await;
            assert_eq!(ended.status, 200, "{ended:?}");
            assert_eq!(
                ended.json()["reason"].is_null(),
                end == "cancel",
                "{end}: {ended:?}"
            );
            let reset = json!({"enabled": true, "rolloutPercentage": 50});
            assert_eq!(patch(&api, &reset).await.status, 200);
            earlier.insert(0, (id, ended.json()["transitions"].clone()));
        }
        // An acknowledgement does not change `endedAt`.
        let shown = ramp(&api).await["earlier"].clone();
        assert_eq!(shown.as_array().map(Vec::len), Some(3));
        for (shown, (id, transitions)) in
            shown.as_array().expect("a list").iter().zip(&earlier[1..])
        {
            assert_eq!(shown["id"], *id, "on {}", api.store);
            let mut transitions = transitions.as_array().expect("a list").iter();
            let end = transitions.find(|it| it["state"] == "rolledBack");
            assert_eq!(
                shown["endedAt"],
                end.expect("an end")["at"],
                "on {}",
                api.store
            );
        }
    }
}

/// Requests that are rejected after an alarm has rolled the flag back. Most would give the feature to users again.
fn requests_that_need_acknowledgement(audit: &Value) -> Vec<(&'static str, String, Value)> {
    let entries = audit["entries"].as_array().expect("entries");
    let revert = |action: &str, state: &str| {
        let mut found = entries.iter().filter(|it| it["action"] == action);
        let entry = found.next().expect("an entry");
        json!({ "auditId": entry["id"], "state": state })
    };
    let import = json!({"flags": {"checkout": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
    }}});
    let import_path = "/api/admin/environments/production/import?mode=merge";
    let (users, reverts) = (format!("{FLAG}/users"), format!("{FLAG}/revert"));
    let one = |user: &str, kind: &str| json!({"userId": user, "overrideType": kind});
    let many = |list: Value| json!({ "overrides": list });
    vec![
        ("PATCH", FLAG.to_owned(), json!({"rolloutPercentage": 51})),
        ("PATCH", FLAG.to_owned(), json!({"rolloutPercentage": 10})),
        (
            "PATCH",
            FLAG.to_owned(),
            json!({"description": "x", "enabled": false}),
        ),
        ("POST", FLAG.to_owned(), json!({"rolloutPercentage": 51})),
        ("POST", reverts.clone(), revert("flag.ramp", "after")),
        ("POST", import_path.to_owned(), import),
        ("POST", COPY.to_owned(), copy_of_flag()),
        ("POST", RAMP.to_owned(), plan(&[70])),
        ("POST", users.clone(), one("new", "include")),
        ("POST", users.clone(), one("out", "include")),
        ("DELETE", format!("{users}/out"), Value::Null),
        (
            "PUT",
            format!("{users}?mode=merge"),
            many(json!([one("new", "exclude"), one("out", "include")])),
        ),
        ("PUT", users.clone(), many(json!([one("in", "include")]))),
        ("POST", reverts.clone(), revert("override.set", "before")),
        ("POST", reverts.clone(), revert("override.delete", "before")),
        ("POST", reverts, revert("overrides.set", "after")),
    ]
}

#[tokio::test]
async fn most_changes_of_a_rolled_back_flag_are_rejected_until_the_rollback_is_acknowledged() {
    for api in Api::of_both_kinds().await {
        set_alarm(&api, "errors", "OK").await;
        create_staging(&api).await;
        let users = format!("{FLAG}/users");
        let one = |user: &str, kind: &str| json!({"userId": user, "overrideType": kind});
        let many = json!({"overrides": [one("in", "include"), one("more", "include")]});
        for (method, path, body) in [
            ("PUT", users.clone(), many),
            ("POST", users.clone(), one("gone", "include")),
            ("DELETE", format!("{users}/gone"), Value::Null),
            ("DELETE", format!("{users}/more"), Value::Null),
            ("POST", users.clone(), one("out", "exclude")),
        ] {
            let made = api.admin_if("*", method, &path, &body).await;
            assert!(
                made.status < 300,
                "{method} {path}: {made:?} on {}",
                api.store
            );
        }
        start_ramp(&api, &guarded(&[60], "errors")).await;
        assert_eq!(ramp(&api).await["guards"][0]["state"], "ok");
        assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
        assert_eq!(ramp(&api).await["guards"][0]["state"], "alarm");
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        let rejected = async |method: &str, path: &str, body: &Value| {
            let answer = api.admin_if("*", method, path, body).await;
            let what = format!("{method} {path} {body} on {}", api.store);
            assert_eq!(answer.status, 409, "{what}: {answer:?}");
            assert!(answer.body.contains("acknowledge"), "{what}: {answer:?}");
        };
        for (method, path, body) in requests_that_need_acknowledgement(&audit) {
            rejected(method, &path, &body).await;
        }
        assert_eq!(percentage(&api).await, 50);
        let list = api.read(&users).await.json();
        let listed = |kind: &str| list[kind].as_array().map(Vec::len);
        assert_eq!((listed("includes"), listed("excludes")), (Some(1), Some(1)));
        // Requests that only take the feature away are accepted.
        let permanently = format!("{FLAG}?permanently=true");
        let restore = format!("{FLAG}/restore");
        for (method, path, body) in [
            ("POST", users.clone(), one("out", "exclude")),
            ("POST", users.clone(), one("in", "exclude")),
            ("POST", users.clone(), one("other", "exclude")),
            ("PATCH", FLAG.to_owned(), json!({"enabled": false})),
            ("DELETE", FLAG.to_owned(), Value::Null),
        ] {
            let answer = api.admin_if("*", method, &path, &body).await;
            assert!(answer.status < 300, "{method} {path} {body}: {answer:?}");
        }
        rejected("DELETE", &permanently, &Value::Null).await;
        let restored = api.admin_if("*", "POST", &restore, &Value::Null).await;
        assert_eq!(restored.status, 200, "{restored:?} on {}", api.store);
        rejected("PATCH", FLAG, &json!({"enabled": true})).await;
        assert_eq!(ramp(&api).await["acknowledgedBy"], Value::Null);
        // The rollback of an archived flag can be acknowledged.
        api.admin_if("*", "DELETE", FLAG, &Value::Null).await;
        let acknowledged = act(&api, "acknowledge").await;
        assert_eq!(acknowledged.json()["acknowledgedBy"], "local-admin");
        assert_eq!(
            act(&api, "acknowledge").await.status,
            404,
            "a rollback was acknowledged twice"
        );
        let restored = api.admin_if("*", "POST", &restore, &Value::Null).await;
        assert_eq!(restored.status, 200, "{restored:?}");
        for body in [one("new", "include"), one("out", "include")] {
            assert_eq!(api.admin("POST", &users, &body).await.status, 201);
        }
        let on = json!({"enabled": true});
        assert_eq!(patch(&api, &on).await.status, 200, "on {}", api.store);
        // An admin's own rollback needs nobody to acknowledge it.
        start_ramp(&api, &plan(&[60])).await;
        let back = act(&api, "rollback").await.json();
        assert_eq!(
            (&back["state"], back["percent"].as_u64()),
            (&json!("rolledBack"), Some(50))
        );
        assert_eq!(
            patch(&api, &json!({"rolloutPercentage": 55})).await.status,
            200
        );
    }
}

#[tokio::test]
async fn a_rolled_back_flag_that_was_deleted_without_the_api_cannot_be_created_again() {
    let api = Api::on_postgres().await;
    set_alarm(&api, "errors", "OK").await;
    create_staging(&api).await;
    start_ramp(&api, &guarded(&[60], "errors")).await;
    assert_eq!(set_alarm(&api, "errors", "ALARM").await["rolledBack"], 1);
    let audit = api.read(&format!("{FLAG}/audit")).await.json();
    let entry = &audit["entries"][0];
    let delete =
        "delete from feature_flags where flag_key = 'checkout' and environment = 'production'";
    sql(api.stack(), delete).await;
    let flag = json!({"key": "checkout", "enabled": true, "rolloutPercentage": 60});
    let import = json!({"flags": {"checkout": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
    }}});
    let import_path = "/api/admin/environments/production/import?mode=merge";
    let revert = json!({"auditId": entry["id"], "state": "before"});
    let mut copy = copy_of_flag();
    copy["flags"][0]["ifMatch"] = Value::Null;
    for (path, body) in [
        ("/api/admin/flags", &flag),
        (import_path, &import),
        (COPY, &copy),
        ("/api/admin/flags/checkout/revert", &revert),
    ] {
        let answer = api.admin_if("*", "POST", path, body).await;
        assert_eq!(answer.status, 409, "{path}: {answer:?}");
        assert!(answer.body.contains("acknowledge"), "{path}: {answer:?}");
    }
    assert_eq!(act(&api, "acknowledge").await.status, 200);
    let made = api.admin("POST", "/api/admin/flags", &flag).await;
    assert_eq!(made.status, 201, "{made:?}");
}

#[tokio::test]
async fn a_ramp_moves_weight_between_two_variants() {
    for api in Api::of_both_kinds().await {
        let flag = json!({"key": "theme", "enabled": true, "definition": {
            "variants": {"red": "r", "green": "g", "blue": "b"}, "defaultVariant": "red",
            "targeting": {"fractional": [["red", 70], ["green", 10], ["blue", 20]]},
        }});
        let made = api.admin("POST", "/api/admin/flags", &flag).await;
        assert_eq!(made.status, 201, "{made:?}");
        let path = "/api/admin/flags/theme/ramp";
        let mut body = json!({"steps": steps(&[20, 80]), "from": "red", "to": "green"});
        for (from, to, why) in [
            ("red", "blue", "must stand next to each other"),
            ("red", "pink", "has no variant 'pink'"),
            ("blue", "green", "both variants together have 30 %"),
        ] {
            let mut wrong = body.clone();
            (wrong["from"], wrong["to"]) = (json!(from), json!(to));
            let answer = api.admin_if("*", "POST", path, &wrong).await;
            assert_eq!(answer.status, 409, "{from} {to}: {answer:?}");
            assert!(answer.body.contains(why), "{from} {to}: {answer:?}");
        }
        let answer = api.admin_if("*", "POST", path, &body).await;
        assert_eq!(answer.status, 201, "{answer:?} on {}", api.store);
        let rule = async || {
            let flag = api.read("/api/admin/flags/theme").await.json();
            flag["definition"]["targeting"]["fractional"].clone()
        };
        assert_eq!(rule().await, json!([["red", 3], ["green", 1], ["blue", 1]]));
        let advance = format!("{path}/advance");
        api.admin_if("*", "POST", &advance, &Value::Null).await;
        assert_eq!(rule().await, json!([["red", 0], ["green", 4], ["blue", 1]]));
        let back = format!("{path}/rollback");
        assert_eq!(
            api.admin_if("*", "POST", &back, &Value::Null).await.status,
            200
        );
        assert_eq!(
            rule().await,
            json!([["red", 70], ["green", 10], ["blue", 20]])
        );
        body["steps"] = steps(&[81]);
        assert_eq!(api.admin_if("*", "POST", path, &body).await.status, 409);

        // 75 % could be expressed by these weights only with a sum above 2147483647.
        let mut flag = flag.clone();
        flag["key"] = json!("finer");
        let fine = json!([["red", 2_000_000_000], ["green", 1], ["blue", 1]]);
        flag["definition"]["targeting"]["fractional"] = fine;
        let made = api.admin("POST", "/api/admin/flags", &flag).await;
        assert_eq!(made.status, 201, "{made:?}");
        body["steps"] = steps(&[50, 75]);
        let path = "/api/admin/flags/finer/ramp";
        let answer = api.admin_if("*", "POST", path, &body).await;
        assert_eq!(answer.status, 409, "{answer:?} on {}", api.store);
        assert!(
            answer.body.contains("sum would exceed 2147483647"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_step_counts_only_evaluations_since_it_began() {
    for api in Api::of_both_kinds().await {
        if let Some(stack) = &api.stack {
            stack.database.add_key(API_KEY).await;
        }
        let evaluate = async |times: u32| {
            for _ in 0..times {
                let path = "/ofrep/v1/evaluate/flags/checkout";
                let body = r#"{"context":{"targetingKey":"u"}}"#;
                let answer = api.local().evaluate(path, API_KEY, body).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        };
        evaluate(5).await;
        let usage = "/api/admin/flags/checkout/usage";
        eventually("the evaluations are counted", async || {
            api.read(usage).await.json()["evaluations"] == 5
        })
        .await;
        let steps = json!([
            {"percent": 60, "bakeSeconds": 1, "minEvaluations": 3},
            {"percent": 70, "bakeSeconds": 3600},
        ]);
        start_ramp(&api, &json!({ "steps": steps })).await;
        eventually("the ramp holds", async || {
            ramp(&api).await["reason"] == "the step needs 3 evaluations"
        })
        .await;
        evaluate(3).await;
        eventually("the step begins", async || ramp(&api).await["step"] == 2).await;
        assert_eq!(percentage(&api).await, 70, "on {}", api.store);
    }
}
