//! Ramps: rollouts that advance by themselves, and that alarms and humans end.

use std::time::SystemTime;

use pennon_tests::api::Api;
use pennon_tests::cloudwatch::{CloudWatch, GUARD};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::local::API_KEY;
use pennon_tests::response::Response;
use pennon_tests::rng::Rng;
use pennon_tests::side_by_side;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

const FLAG: &str = "/api/admin/flags/checkout";
const RAMP: &str = "/api/admin/flags/checkout/ramp";
const LONG: u32 = 3_600;

/// Steps with these percentages that bake for an hour.
fn steps(percentages: &[u8]) -> Value {
    let step = |percent: &u8| json!({"percent": percent, "bakeSeconds": LONG});
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

async fn started(api: &Api, plan: &Value) -> Value {
    let answer = create(api, plan).await;
    assert_eq!(answer.status, 201, "{answer:?} on {}", api.on);
    answer.json()
}

async fn act(api: &Api, action: &str) -> Response {
    let path = format!("{RAMP}/{action}");
    api.admin_if("*", "POST", &path, &Value::Null).await
}

async fn ramp(api: &Api) -> Value {
    let answer = api.read(RAMP).await;
    assert_eq!(answer.status, 200, "{answer:?} on {}", api.on);
    answer.json()
}

async fn percentage(api: &Api) -> Value {
    api.read(FLAG).await.json()["rolloutPercentage"].clone()
}

async fn patch(api: &Api, body: &Value) -> Response {
    api.admin_if("*", "PATCH", FLAG, body).await
}

/// Sets the state of an alarm of the local server.
async fn set(api: &Api, alarm: &str, state: &str) -> Value {
    let path = format!("/local/alarms/{alarm}");
    let answer = api.admin("PUT", &path, &json!({ "state": state })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn sql(stack: &Stack, statement: &str) {
    let done = stack.database.sql().batch_execute(statement).await;
    done.expect("a statement");
}

/// Ends the bake of the present step of every ramp, as if it had been watched all the time.
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
        let first = started(&api, &json!({ "steps": steps })).await;
        assert_eq!(first["state"], "baking");
        assert_eq!(percentage(&api).await, 60);
        eventually("the ramp completes", async || {
            ramp(&api).await["state"] == "completed"
        })
        .await;
        assert_eq!(percentage(&api).await, 100, "on {}", api.on);
        let done = ramp(&api).await;
        let transitions = done["transitions"].as_array().expect("a list");
        let told: Vec<String> = transitions
            .iter()
            .map(|it| format!("{}/{}/{}", it["state"], it["step"], it["percent"]))
            .collect();
        let wanted = [
            "\"pending\"/0/50",
            "\"baking\"/1/60",
            "\"baking\"/2/100",
            "\"completed\"/2/100",
        ];
        assert_eq!(told, wanted, "on {}", api.on);
        let id = done["id"].as_str().expect("an id");
        let engine = format!("ramp:{id}");
        assert_eq!(transitions[2]["actor"], engine);
        assert_eq!(transitions[0]["actor"], "local-admin");
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        let told: Vec<(&Value, &Value)> = audit["entries"]
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
        assert_eq!(told, wanted, "on {}", api.on);
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
    // How to get there, the state, and the actions that it allows.
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
                started(&api, &plan(&[60, 70])).await;
                for step in path {
                    assert_eq!(act(&api, step).await.status, 200, "{step} on {}", api.on);
                }
                assert_eq!(ramp(&api).await["state"], state, "on {}", api.on);
                let before = ramp(&api).await;
                let answer = act(&api, action).await;
                let is_allowed = allowed.contains(&action);
                assert_eq!(
                    answer.status == 200,
                    is_allowed,
                    "{action} of {state}: {answer:?}"
                );
                if !is_allowed {
                    assert!([400, 404].contains(&answer.status), "{answer:?}");
                    assert_eq!(ramp(&api).await, before, "nothing has changed");
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
        let first = started(&api, &json!({ "steps": steps })).await;
        assert_eq!(
            (&first["state"], first["step"].as_u64()),
            (&json!("pending"), Some(0))
        );
        assert_eq!(percentage(&api).await, 50);
        for action in ["resume", "acknowledge"] {
            assert_eq!(act(&api, action).await.status, 400, "{action}");
        }
        assert_eq!(act(&api, "pause").await.json()["state"], "paused");
        assert_eq!(act(&api, "resume").await.json()["state"], "pending");
        assert_eq!(act(&api, "advance").await.json()["state"], "baking");
        assert_eq!(percentage(&api).await, 60);
        eventually("the ramp holds", async || {
            let ramp = ramp(&api).await;
            ramp["state"] == "holding" && ramp["reason"] == "the next step needs an approval"
        })
        .await;
        assert_eq!(percentage(&api).await, 60);
        assert_eq!(act(&api, "advance").await.json()["step"], 2);
        assert_eq!(percentage(&api).await, 70, "on {}", api.on);
    }
}

#[tokio::test]
async fn changes_need_the_state_that_they_are_based_on() {
    for api in Api::of_both_kinds().await {
        let body = plan(&[60, 70]);
        let flag = api.read(FLAG).await;
        let tag = flag.header("etag").expect("a tag").to_owned();
        assert_eq!(api.admin("POST", RAMP, &body).await.status, 428);
        assert_eq!(api.admin_if("\"1\"", "POST", RAMP, &body).await.status, 412);
        let made = api.admin_if(&tag, "POST", RAMP, &body).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.on);
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
            assert_eq!(wrong.status, 412, "{action} on {}", api.on);
        }
        let path = format!("{RAMP}/pause");
        let paused = api.admin_if(&tag, "POST", &path, &Value::Null).await;
        assert_eq!(paused.status, 200);
        let again = api.admin_if(&tag, "POST", &path, &Value::Null).await;
        assert_eq!(again.status, 412, "the tag is of the state before");
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
            (json!({"steps": [1]}), "steps"),
            (json!({"steps": vec![one[0].clone(); 51]}), "steps"),
            (plan(&[60, 60]), "steps"),
            (plan(&[70, 60]), "steps"),
            (step("percent", json!(0)), "steps"),
            (step("percent", json!(101)), "steps"),
            (step("percent", json!(1.5)), "steps"),
            (step("percent", Value::Null), "steps"),
            (step("bakeSeconds", json!(0)), "steps"),
            (step("bakeSeconds", json!(30 * 24 * 3_600 + 1)), "steps"),
            (step("minEvaluations", json!(0)), "steps"),
            (step("approval", json!("yes")), "steps"),
            (step("colour", json!(1)), "steps"),
            (with("guards", json!({})), "guards"),
            (guard(json!("a")), "guards"),
            (guard(json!({})), "guards"),
            (guard(json!({"alarm": 1})), "guards"),
            (guard(json!({"alarm": ""})), "guards"),
            (guard(json!({"alarm": "a\n"})), "guards"),
            (guard(json!({"alarm": "a".repeat(256)})), "guards"),
            (
                guard(json!({"alarm": "arn:aws:cloudwatch:us-east-1:1:alarm:"})),
                "guards",
            ),
            (
                guard(json!({"alarm": "arn:aws:sns:us-east-1:1:topic"})),
                "guards",
            ),
            (guard(json!({"alarm": "a", "onMissing": "panic"})), "guards"),
            (guard(json!({"alarm": "a", "colour": 1})), "guards"),
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
            assert_eq!(answer.status, 400, "{body}: {answer:?} on {}", api.on);
            let fields = answer.json()["details"]["fieldErrors"].clone();
            assert!(fields[field].is_array(), "{body}: {fields} on {}", api.on);
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
        started(&api, &plan(&[60])).await;
        assert_eq!(create(&api, &plan(&[70])).await.status, 409, "one is live");
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
        let refused = create(&api, &body).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(
            refused.body.contains("alarm 'errors' does not exist"),
            "{refused:?}"
        );
        for (errors, slow) in [
            ("ALARM", "OK"),
            ("INSUFFICIENT_DATA", "OK"),
            ("OK", "ALARM"),
        ] {
            set(&api, "errors", errors).await;
            set(&api, "slow", slow).await;
            assert_eq!(create(&api, &body).await.status, 409, "{errors} {slow}");
        }
        set(&api, "slow", "OK").await;
        started(&api, &body).await;
        set(&api, "slow", "INSUFFICIENT_DATA").await;
        assert_eq!(act(&api, "advance").await.status, 200, "that is ignored");
        act(&api, "pause").await;
        assert_eq!(
            set(&api, "errors", "ALARM").await["rolledBack"],
            0,
            "paused"
        );
        // The engine would roll back a ramp that is watched.
        assert_eq!(act(&api, "advance").await.status, 409);
        assert_eq!(percentage(&api).await, 70, "on {}", api.on);
    }
}

#[tokio::test]
async fn an_alarm_takes_the_flag_back_as_planned() {
    for api in Api::of_both_kinds().await {
        for (on_alarm, state, percent, enabled) in [
            ("previous", "rolledBack", 60, true),
            ("start", "rolledBack", 50, true),
            ("off", "rolledBack", 70, false),
            ("pause", "paused", 70, true),
        ] {
            set(&api, "errors", "OK").await;
            let mut body = guarded(&[60, 70, 80], "errors");
            body["onAlarm"] = json!(on_alarm);
            let id = started(&api, &body).await["id"].clone();
            assert_eq!(act(&api, "advance").await.status, 200);
            set(&api, "errors", "ALARM").await;
            let after = ramp(&api).await;
            assert_eq!(after["id"], id);
            assert_eq!(after["state"], state, "{on_alarm} on {}: {after}", api.on);
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
                api.on
            );
            assert_eq!(flag["enabled"], enabled, "{on_alarm} on {}", api.on);
            // CloudWatch may call twice.
            assert_eq!(set(&api, "errors", "ALARM").await["rolledBack"], 0);
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
                "still says why"
            );
            let reset = json!({"enabled": true, "rolloutPercentage": 50});
            assert_eq!(patch(&api, &reset).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_rolled_back_flag_can_only_be_switched_off_until_that_is_acknowledged() {
    for api in Api::of_both_kinds().await {
        set(&api, "errors", "OK").await;
        started(&api, &guarded(&[60], "errors")).await;
        assert_eq!(set(&api, "errors", "ALARM").await["rolledBack"], 1);
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        let step = audit["entries"].as_array().expect("entries").iter();
        let mut steps = step.filter(|it| it["action"] == "flag.ramp");
        let step = steps.next().expect("a step");
        let revert = json!({ "auditId": step["id"] });
        let import = json!({"flags": {"checkout": {
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
        }}});
        let import_path = "/api/admin/environments/production/import?mode=merge";
        let off = json!({"enabled": false});
        for (method, path, body) in [
            ("PATCH", FLAG, json!({"rolloutPercentage": 51})),
            ("PATCH", FLAG, json!({"rolloutPercentage": 10})),
            ("PATCH", FLAG, json!({"description": "x", "enabled": false})),
            ("POST", "/api/admin/flags/checkout/revert", revert),
            ("POST", import_path, import),
            ("POST", RAMP, plan(&[70])),
        ] {
            let answer = api.admin_if("*", method, path, &body).await;
            assert_eq!(
                answer.status, 409,
                "{path} {body}: {answer:?} on {}",
                api.on
            );
        }
        assert_eq!(percentage(&api).await, 50);
        assert_eq!(patch(&api, &off).await.status, 200);
        assert_eq!(patch(&api, &json!({"enabled": true})).await.status, 409);
        assert_eq!(ramp(&api).await["acknowledgedBy"], Value::Null);
        let acknowledged = act(&api, "acknowledge").await;
        assert_eq!(acknowledged.json()["acknowledgedBy"], "local-admin");
        assert_eq!(
            act(&api, "acknowledge").await.status,
            404,
            "no ramp is open"
        );
        assert_eq!(
            patch(&api, &json!({"enabled": true})).await.status,
            200,
            "on {}",
            api.on
        );
        // An admin's own rollback needs nobody to acknowledge it.
        started(&api, &plan(&[60])).await;
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
async fn a_change_by_a_human_supersedes_the_ramp_and_is_named() {
    for api in Api::of_both_kinds().await {
        let audit = api.read(&format!("{FLAG}/audit")).await.json();
        assert_eq!(audit["entries"], json!([]));
        let import = json!({"flags": {"checkout": {
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
            "targeting": {"fractional": [["on", 55], ["off", 45]]},
        }}});
        let import_path = "/api/admin/environments/production/import?mode=merge";
        for (method, path, body, action) in [
            (
                "PATCH",
                FLAG,
                json!({"rolloutPercentage": 52}),
                "flag.update",
            ),
            ("PATCH", FLAG, json!({"description": "d"}), "flag.update"),
            ("POST", import_path, import, "flag.import"),
            ("DELETE", FLAG, Value::Null, "flag.archive"),
        ] {
            for pause in [false, true] {
                started(&api, &plan(&[60, 70])).await;
                if pause {
                    assert_eq!(act(&api, "pause").await.status, 200);
                }
                let include = json!({"userId": "some-user", "overrideType": "include"});
                let set = api.admin("POST", &format!("{FLAG}/users"), &include).await;
                assert!([200, 201].contains(&set.status), "{set:?}");
                let state = if pause { "paused" } else { "baking" };
                assert_eq!(ramp(&api).await["state"], state, "not by an override");
                let answer = api.admin_if("*", method, path, &body).await;
                assert!(
                    answer.status < 300,
                    "{path} {body}: {answer:?} on {}",
                    api.on
                );
                let after = ramp(&api).await;
                assert_eq!(after["state"], "superseded", "{action} on {}", api.on);
                let reason = format!("local-admin changed the flag ({action})");
                assert_eq!(after["reason"], reason, "on {}", api.on);
                assert_eq!(act(&api, "advance").await.status, 404);
                if action == "flag.archive" {
                    let restore = format!("{FLAG}/restore");
                    api.admin_if("*", "POST", &restore, &Value::Null).await;
                }
                let reset = json!({"enabled": true, "rolloutPercentage": 50, "definition": null});
                let reset = patch(&api, &reset).await;
                assert_eq!(reset.status, 200, "{reset:?}");
            }
        }
        let earlier = ramp(&api).await["earlier"].as_array().map(Vec::len);
        assert_eq!(earlier, Some(7));
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
            "history outlives the flag"
        );
    }
}

#[tokio::test]
async fn a_change_without_the_api_supersedes_the_ramp_and_blames_nobody() {
    for api in Api::of_both_kinds().await {
        for pause in [false, true] {
            patch(&api, &json!({"rolloutPercentage": 50})).await;
            started(&api, &plan(&[60, 70])).await;
            if pause {
                assert_eq!(act(&api, "pause").await.status, 200);
            }
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
            eventually("the ramp is superseded", async || {
                ramp(&api).await["state"] == "superseded"
            })
            .await;
            assert_eq!(
                ramp(&api).await["reason"],
                "the flag was changed without the API",
                "on {}",
                api.on
            );
            if pause {
                let answer = act(&api, "resume").await;
                assert_eq!(answer.status, 409, "{answer:?}");
            }
            assert_eq!(percentage(&api).await, 33);
        }
    }
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
        for (from, to) in [("red", "blue"), ("red", "pink"), ("blue", "green")] {
            let mut wrong = body.clone();
            (wrong["from"], wrong["to"]) = (json!(from), json!(to));
            let answer = api.admin_if("*", "POST", path, &wrong).await;
            assert_eq!(answer.status, 409, "{from} {to}: {answer:?}");
        }
        let answer = api.admin_if("*", "POST", path, &body).await;
        assert_eq!(answer.status, 201, "{answer:?} on {}", api.on);
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
    }
}

#[tokio::test]
async fn a_step_waits_for_evaluations_from_its_start_on() {
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
        eventually("they are counted", async || {
            api.read(usage).await.body.contains('5')
        })
        .await;
        let steps = json!([
            {"percent": 60, "bakeSeconds": 1, "minEvaluations": 3},
            {"percent": 70, "bakeSeconds": 3600},
        ]);
        started(&api, &json!({ "steps": steps })).await;
        eventually("the ramp holds", async || {
            ramp(&api).await["reason"] == "the step needs 3 evaluations"
        })
        .await;
        evaluate(3).await;
        eventually("the step begins", async || ramp(&api).await["step"] == 2).await;
        assert_eq!(percentage(&api).await, 70, "on {}", api.on);
    }
}

/// Functions that read alarms from moto.
struct Watched {
    stack: Stack,
    alarms: CloudWatch,
    ramps: Function,
    reconcile: Function,
    guard: Function,
}

impl Watched {
    async fn start() -> Self {
        let (stack, alarms) = (Stack::start().await, CloudWatch::start().await);
        let environment = alarms.environment();
        let more: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Self {
            ramps: stack.function_with("ramps", &more).await,
            reconcile: stack.function_with("reconcile", &more).await,
            // It asks CloudWatch nothing.
            guard: stack.function("guard").await,
            stack,
            alarms,
        }
    }

    async fn create(&self, key: &str, plan: &Value) -> Response {
        let path = format!("/api/admin/flags/{key}/ramp");
        let event = Event::admin("POST", &path, &plan.to_string()).header("if-match", "*");
        self.ramps.call(&event).await
    }

    async fn read(&self, key: &str) -> Value {
        let path = format!("/api/admin/flags/{key}/ramp");
        self.ramps
            .call(&Event::admin("GET", &path, ""))
            .await
            .json()
    }

    async fn run(&self) -> Value {
        self.reconcile.invoke(&json!({})).await.expect("reconciles")
    }
}

/// The event by which CloudWatch invokes a function, at this time.
fn rings(alarm: &str, state: &str, at: &str) -> Value {
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

fn now() -> String {
    pennon_core::http::timestamp(SystemTime::now()).replace('Z', "+0000")
}

#[tokio::test]
async fn reconcile_reads_the_alarms_of_cloudwatch() {
    let watched = Watched::start().await;
    let alarms = &watched.alarms;
    alarms
        .add("silent", &["arn:aws:sns:us-east-1:1:topic"])
        .await;
    alarms.add("metric", &[GUARD]).await;
    alarms.add("both", &[GUARD]).await;
    let guards = json!([
        {"alarm": "both"}, {"alarm": "silent"},
        {"alarm": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:metric", "onMissing": "hold"},
    ]);
    let body = json!({"steps": steps(&[60, 70, 80]), "guards": guards});
    let mut elsewhere = body.clone();
    elsewhere["guards"][2]["alarm"] = json!("arn:aws:cloudwatch:eu-west-1:1:alarm:metric");
    assert_eq!(watched.create("checkout", &elsewhere).await.status, 409);
    let made = watched.create("checkout", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(made.json()["guards"][1]["warning"].is_string(), "{made:?}");
    assert_eq!(made.json()["guards"][0]["warning"], Value::Null);
    end_bakes(&watched.stack).await;
    watched.run().await;
    assert_eq!(watched.read("checkout").await["step"], 2);
    let message = "alarms that guard ramps invoke no function; ramps notice them once a minute";
    assert!(watched.reconcile.has_logged(message));

    for (state, reason) in [("INSUFFICIENT_DATA", "has no data"), ("", "does not exist")] {
        if state.is_empty() {
            alarms.delete("metric").await;
        } else {
            alarms.set("metric", state).await;
        }
        end_bakes(&watched.stack).await;
        watched.run().await;
        let ramp = watched.read("checkout").await;
        assert_eq!(ramp["state"], "holding");
        assert_eq!(ramp["reason"], format!("alarm 'metric' {reason}"));
        assert_eq!(ramp["step"], 2);
    }
    alarms.wire.set(Mode::Refuse).await;
    watched.run().await;
    let ramp = watched.read("checkout").await;
    let reason = ramp["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("CloudWatch did not answer"), "{reason}");
    assert_eq!(watched.create("search", &body).await.status, 503);
    alarms.wire.set(Mode::Open).await;
    alarms.set("both", "ALARM").await;
    watched.run().await;
    let ramp = watched.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["percent"].as_u64()),
        (&json!("rolledBack"), Some(50))
    );
}

#[tokio::test]
async fn a_run_reads_the_alarms_of_more_than_a_hundred_names() {
    let watched = Watched::start().await;
    for number in 0..105 {
        let name = format!("alarm-{number}");
        watched.alarms.add(&name, &[GUARD]).await;
    }
    for number in 0..15 {
        let key = format!("flag-{number}");
        watched.stack.database.add_flag(&key, true, 0).await;
        let guards = (0..7).map(|part| json!({"alarm": format!("alarm-{}", number * 7 + part)}));
        let guards: Vec<Value> = guards.collect();
        let body = json!({"steps": steps(&[10, 20]), "guards": guards});
        assert_eq!(watched.create(&key, &body).await.status, 201);
    }
    for name in ["alarm-3", "alarm-104"] {
        watched.alarms.set(name, "ALARM").await;
    }
    end_bakes(&watched.stack).await;
    watched.run().await;
    for number in 0..15 {
        let ramp = watched.read(&format!("flag-{number}")).await;
        let wanted = if [0, 14].contains(&number) {
            "rolledBack"
        } else {
            "baking"
        };
        assert_eq!(ramp["state"], wanted, "{number}: {ramp}");
    }
}

#[tokio::test]
async fn guard_takes_ramps_back_once_and_ignores_events_without_an_alarm() {
    let watched = Watched::start().await;
    watched.alarms.add("errors", &[GUARD]).await;
    let old = "2026-01-01T00:00:00.000+0000";
    let body = guarded(&[60, 70], "errors");
    assert_eq!(watched.create("checkout", &body).await.status, 201);
    let guard = &watched.guard;
    let none = |state: &str| Ok(json!({"state": state, "rolledBack": 0}));
    for state in ["OK", "INSUFFICIENT_DATA"] {
        assert_eq!(
            guard.invoke(&rings("errors", state, &now())).await,
            none(state)
        );
    }
    assert_eq!(
        guard.invoke(&rings("errors", "ALARM", old)).await,
        none("ALARM")
    );
    assert_eq!(
        guard.invoke(&rings("other", "ALARM", &now())).await,
        none("ALARM")
    );
    for event in [json!({}), json!([]), json!({"alarmData": {"alarmName": 1}})] {
        assert!(guard.invoke(&event).await.is_err(), "{event}");
    }
    assert_eq!(watched.read("checkout").await["state"], "baking");
    let event = rings("errors", "ALARM", &now());
    let done = json!({"state": "ALARM", "rolledBack": 1});
    assert_eq!(guard.invoke(&event).await, Ok(done));
    assert_eq!(guard.invoke(&event).await, none("ALARM"));
    let ramp = watched.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["percent"].as_u64()),
        (&json!("rolledBack"), Some(50))
    );
}

#[tokio::test]
async fn of_two_ramps_on_one_alarm_only_the_one_that_advanced_lately_rolls_back() {
    let watched = Watched::start().await;
    watched.alarms.add("errors", &[GUARD]).await;
    watched.stack.database.add_flag("older", true, 0).await;
    let body = guarded(&[60, 70], "errors");
    for key in ["older", "checkout"] {
        assert_eq!(watched.create(key, &body).await.status, 201);
    }
    let earlier = "update pennon_ramps set ramp = (ramp::jsonb ||
        '{\"stepBeganAt\": \"2026-01-01T00:00:00.000Z\"}')::json where flag_key = 'older'";
    sql(&watched.stack, earlier).await;
    let done = json!({"state": "ALARM", "rolledBack": 1});
    let event = rings("errors", "ALARM", &now());
    assert_eq!(watched.guard.invoke(&event).await, Ok(done));
    assert_eq!(watched.read("checkout").await["state"], "rolledBack");
    let older = watched.read("older").await;
    assert_eq!(
        (&older["state"], older["percent"].as_u64()),
        (&json!("paused"), Some(60))
    );
}

#[tokio::test]
async fn a_forged_ramp_never_raises_a_share_when_it_is_rolled_back() {
    let watched = Watched::start().await;
    watched.alarms.add("errors", &[GUARD]).await;
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
        watched.stack.database.add_flag(&key, true, 10).await;
        let mut body = guarded(&[20, 70], "errors");
        body["onAlarm"] = json!(on_alarm);
        assert_eq!(watched.create(&key, &body).await.status, 201);
        let forge = format!(
            "update pennon_ramps set ramp = (ramp::jsonb || '{forged}')::json
             where flag_key = '{key}'"
        );
        sql(&watched.stack, &forge).await;
        let event = rings("errors", "ALARM", &now());
        let outcome = watched.guard.invoke(&event).await;
        assert!(outcome.is_err(), "{forged}: {outcome:?}");
        let statement = "select enabled, rollout_percentage from feature_flags where flag_key = $1";
        let row = watched
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
        sql(&watched.stack, "delete from pennon_ramps").await;
    }
}

#[tokio::test]
async fn an_unreadable_ramp_harms_only_itself() {
    let watched = Watched::start().await;
    watched.stack.database.add_flag("other", true, 0).await;
    for key in ["checkout", "other"] {
        assert_eq!(watched.create(key, &plan(&[60, 70])).await.status, 201);
    }
    let broken = "update pennon_ramps set ramp = '{\"id\": 1}' where flag_key = 'checkout'";
    let other = &watched;
    end_bakes(&other.stack).await;
    sql(&watched.stack, broken).await;
    watched.run().await;
    assert_eq!(watched.read("other").await["step"], 2);
    let update = watched.stack.function("update-flag").await;
    let event = Event::update("checkout", &json!({"rolloutPercentage": 1}));
    assert_eq!(update.call(&event).await.status, 200);
    let again = watched.create("checkout", &plan(&[70])).await;
    assert_eq!(again.status, 409, "{again:?}");
    assert!(again.body.contains("unreadable"), "{again:?}");
}

#[tokio::test]
async fn a_late_run_bakes_the_step_again_and_catches_nothing_up() {
    let watched = Watched::start().await;
    assert_eq!(
        watched
            .create("checkout", &plan(&[60, 70, 80]))
            .await
            .status,
        201
    );
    let late = "update pennon_ramps set ramp = (ramp::jsonb || '{
        \"dueAt\": \"2026-01-01T01:00:00.000Z\", \"checkedAt\": \"2026-01-01T00:00:00.000Z\"
        }')::json";
    sql(&watched.stack, late).await;
    watched.run().await;
    let ramp = watched.read("checkout").await;
    assert_eq!(
        (&ramp["state"], ramp["step"].as_u64()),
        (&json!("holding"), Some(1))
    );
    watched.run().await;
    assert_eq!(watched.read("checkout").await["state"], "baking");
    end_bakes(&watched.stack).await;
    watched.run().await;
    watched.run().await;
    assert_eq!(
        watched.read("checkout").await["step"],
        2,
        "one step for each bake"
    );
}

#[tokio::test]
async fn a_step_that_a_killed_run_began_is_made_once_by_the_next() {
    let mut watched = Watched::start().await;
    assert_eq!(
        watched
            .create("checkout", &plan(&[60, 70, 80]))
            .await
            .status,
        201
    );
    end_bakes(&watched.stack).await;
    let stack = &watched.stack;
    let lock = pennon_tests::postgres::connect(&stack.database.url()).await;
    let lock = lock.expect("a connection");
    lock.batch_execute("begin; select 1 from pennon_environments for update")
        .await
        .expect("a lock");
    {
        let event = json!({});
        let run = watched.reconcile.invoke(&event);
        let waits = eventually("the run waits in its transaction", async || {
            let waiting = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            let row = stack.database.sql().query_one(waiting, &[]).await;
            row.expect("a count").get::<_, i64>(0) > 0
        });
        tokio::select! {
            _ = run => panic!("the run must wait"),
            () = waits => {}
        }
    }
    watched.reconcile.kill();
    lock.batch_execute("rollback").await.expect("no lock");
    let next = stack.function("reconcile").await;
    for _ in 0..3 {
        next.invoke(&json!({})).await.expect("reconciles");
    }
    let ramp = watched.read("checkout").await;
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

/// No ramp writes after a newer change by a human: between the creation of a ramp and each change that it
/// makes, the audit of the flag has no change by anybody else.
#[tokio::test]
async fn no_ramp_overwrites_a_newer_change_by_a_human() {
    const FLAGS: u32 = 40;
    const ROUNDS: u32 = 50;
    let api = Api::on_postgres().await;
    let stack = api.stack();
    let (one, other) = (
        stack.function("reconcile").await,
        stack.function("reconcile").await,
    );
    let guard = stack.function("guard").await;
    for number in 0..FLAGS {
        stack
            .database
            .add_flag(&format!("f{number}"), true, 0)
            .await;
    }
    let rng = Rng::new(7);
    let clients: Vec<_> = (0..FLAGS).map(|_| api.client()).collect();
    for _ in 0..ROUNDS {
        set(&api, "race", "OK").await;
        let reset = "update feature_flags set rollout_percentage = 0 where flag_key like 'f%';
            update pennon_ramps set watched = false, open = false";
        sql(stack, reset).await;
        let all = clients.iter().zip(0_u32..).map(async |(client, number)| {
            let path = format!("/api/admin/flags/f{number}");
            let ramp = format!("{path}/ramp");
            let any = [("if-match", "*")];
            let body = if number % 2 == 0 {
                plan(&[20, 40, 60, 80])
            } else {
                guarded(&[20, 40, 60, 80], "race")
            };
            let made = client.send("POST", &ramp, &any, &body).await;
            assert_eq!(made.status, 201, "{made:?}");
        });
        side_by_side(all).await;
        end_bakes(stack).await;
        let humans = side_by_side(clients.iter().zip(0_u32..).map(async |(client, number)| {
            tokio::time::sleep(rng.pause(std::time::Duration::from_millis(100))).await;
            let path = format!("/api/admin/flags/f{number}");
            let body = json!({"rolloutPercentage": 90 + rng.roll(10)});
            let answer = client
                .send("PATCH", &path, &[("if-match", "*")], &body)
                .await;
            assert!([200, 409].contains(&answer.status), "{answer:?}");
        }));
        let event = rings("race", "ALARM", &now());
        let runs = json!({});
        let alarm = async {
            tokio::time::sleep(rng.pause(std::time::Duration::from_millis(100))).await;
            guard.invoke(&event).await.expect("rolls back");
        };
        let (_humans, (), first, second) =
            tokio::join!(humans, alarm, one.invoke(&runs), other.invoke(&runs));
        first.expect("reconciles");
        second.expect("reconciles");
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
        select count(*) filter (where changed > created),
               count(*) filter (where action = 'flag.ramp'),
               count(*) filter (where action = 'flag.rollback')
        from ordered where action in ('flag.ramp', 'flag.rollback')";
    let row = sql.query_one(overwritten, &[]).await.expect("counts");
    let count = |at: usize| row.get::<_, i64>(at);
    assert_eq!(count(0), 0, "a ramp has overwritten a change");
    assert!(
        count(1) > 2_100 && count(2) > 100,
        "{} {}",
        count(1),
        count(2)
    );
}
