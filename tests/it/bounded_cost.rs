//! Limits on the work and the memory that rules, requests and imports can cause.

use std::fmt::Write as _;

use pennon_tests::api::Api;
use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::eventually;
use pennon_tests::expensive_flags::{
    definition, doubling_evaluators, doubling_rule, list_evaluator, list_rule,
};
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use serde_json::{Map, Value, json};

const FLAGS: &str = "/api/admin/flags";
const IMPORT: &str = "/api/admin/environments/production/import";
const SETTINGS: &str = "/api/admin/environments/production/settings";

/// A file with this many flags that have this rule.
fn file(flags: usize, rule: &Value, evaluators: &Map<String, Value>) -> Value {
    let mut flag = definition(rule);
    flag["state"] = json!("ENABLED");
    let flags: Map<String, Value> = (0..flags)
        .map(|number| (format!("heavy-{number}"), flag.clone()))
        .collect();
    json!({"flags": flags, "$evaluators": evaluators})
}

fn fields(answer: &Response) -> Value {
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.json()["details"]["fieldErrors"].clone()
}

#[tokio::test]
async fn shared_evaluators_take_memory_once_for_any_number_of_flags() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack
        .database
        .add_heavy_flags(200, &definition(&doubling_rule()), &doubling_evaluators())
        .await;
    for (name, event) in [
        ("list-flags", Event::list().anonymous()),
        ("evaluate-flags", Event::evaluate_all(&json!({}))),
        ("evaluate-flag", Event::evaluate("heavy-7", &json!({}))),
    ] {
        let function = stack.function(name).await;
        let before = function.peak_memory();
        let answer = function.call(&event).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let answer = answer.json();
        let value = match name {
            "list-flags" => &answer["heavy-7"],
            "evaluate-flags" => {
                let mut flags = answer["flags"].as_array().expect("flags").iter();
                let flag = flags.find(|flag| flag["key"] == "heavy-7");
                &flag.expect("the flag")["value"]
            }
            _ => &answer["value"],
        };
        // Flags that exceed the limit still evaluate.
        assert_eq!(*value, true, "{name}");
        let taken = function.peak_memory() - before;
        assert!(taken < 24_000_000, "{name} took {taken} bytes");
    }
}

/// The default memory of a function in the template.
const FUNCTION_MEMORY: u64 = 512 * 1024 * 1024;

#[tokio::test]
async fn the_largest_import_of_rules_takes_less_memory_than_a_function_has() {
    // Nearly 500,000 values, the limit of an environment, in lists and objects with one element each.
    let mut rule = json!({"var": "a"});
    for _ in 0..40 {
        rule = json!({"!": [rule]});
    }
    let rule = json!({"if": [{"and": vec![rule; 12]}, "on", "off"]});
    let file = file(490, &rule, &Map::new()).to_string();
    let stack = Stack::start().await;
    let function = stack.function("manage-environments").await;
    let event = Event::admin("POST", IMPORT, &file).header("if-match", "*");
    // A transaction may be idle for five seconds. A debug build exceeds that on a busy machine.
    eventually("the import is accepted", async || {
        let answer = function.call(&event).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.status == 200
    })
    .await;
    let peak = function.peak_memory();
    assert!(peak < FUNCTION_MEMORY, "{peak} bytes");
}

#[tokio::test]
async fn an_import_of_expensive_flags_is_rejected_and_names_them() {
    for api in Api::of_both_kinds().await {
        for (rule, evaluators, flags) in [
            (doubling_rule(), doubling_evaluators(), 200),
            (list_rule(), list_evaluator(), 1_000),
        ] {
            let file = file(flags, &rule, &evaluators);
            for path in [format!("{IMPORT}?dryRun=true"), IMPORT.to_owned()] {
                let answer = api.admin_if("*", "POST", &path, &file).await;
                let message = fields(&answer)["/flags"].to_string();
                for word in ["production", "5000000", "steps", "heavy-0", "other flags"] {
                    assert!(
                        message.contains(word),
                        "no {word} in {message} on {}",
                        api.store
                    );
                }
            }
            // Fewer flags take no more than the steps of one request.
            let file = self::file(20, &rule, &evaluators);
            let answer = api.admin_if("*", "POST", IMPORT, &file).await;
            assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
            let list = api.get("/api/config/flags").await.json();
            assert_eq!(list["heavy-19"], true, "on {}", api.store);
        }
    }
}

#[tokio::test]
async fn every_write_of_flags_that_cost_too_much_is_rejected() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        // 49 × 100,000 steps and a few more: another flag exceeds the limit.
        let file = file(49, &list_rule(), &list_evaluator());
        let answer = api
            .admin_if("*", "POST", &format!("{IMPORT}?mode=merge"), &file)
            .await;
        assert_eq!(answer.status, 200, "{answer:?} on {on}");
        let refused = |answer: &Response, field: &str, key: &str| {
            let message = fields(answer)[field].to_string();
            for word in [key, "5000000", "steps", "heavy-0"] {
                assert!(message.contains(word), "no {word} in {message} on {on}");
            }
        };
        let new = json!({"key": "one-more", "definition": definition(&list_rule())});
        refused(
            &api.admin("POST", FLAGS, &new).await,
            "definition",
            "one-more",
        );
        let change = json!({"definition": definition(&list_rule())});
        for method in ["PATCH", "POST"] {
            let answer = api
                .admin_if("*", method, &format!("{FLAGS}/checkout"), &change)
                .await;
            refused(&answer, "definition", "checkout");
        }
        // Other flags may grow, and an expensive one may shrink.
        let small = json!({"definition": definition(&json!({"==": [{"var": "a"}, 1]}))});
        for key in ["checkout", "heavy-0"] {
            let answer = api
                .admin_if("*", "PATCH", &format!("{FLAGS}/{key}"), &small)
                .await;
            assert_eq!(answer.status, 200, "{answer:?} on {on}");
        }
        // Another flag takes the room that `heavy-0` has left, so `heavy-0` cannot be reverted.
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201, "on {on}");
        let audit = api.read(&format!("{FLAGS}/heavy-0/audit")).await.json();
        let undo = json!({"auditId": audit["entries"][0]["id"], "state": "before"});
        let answer = api
            .admin_if("*", "POST", &format!("{FLAGS}/heavy-0/revert"), &undo)
            .await;
        refused(&answer, "definition", "heavy-0");
        // Archiving makes room again; restoring fails once the room is taken.
        let first = format!("{FLAGS}/heavy-1");
        assert_eq!(
            api.admin_if("*", "DELETE", &first, &Value::Null)
                .await
                .status,
            200
        );
        let answer = api
            .admin_if("*", "POST", &format!("{FLAGS}/heavy-0/revert"), &undo)
            .await;
        assert_eq!(answer.status, 200, "{answer:?} on {on}");
        let answer = api
            .admin_if("*", "POST", &format!("{first}/restore"), &Value::Null)
            .await;
        refused(&answer, "definition", "heavy-1");

        // Evaluators add to the cost of the flags that refer to them.
        let cheap = json!({"evaluators": {"numbers": {"merge": [[1]]}}});
        assert_eq!(api.admin_if("*", "PUT", SETTINGS, &cheap).await.status, 200);
        let answer = api
            .admin_if("*", "POST", &format!("{first}/restore"), &Value::Null)
            .await;
        assert_eq!(answer.status, 200, "{answer:?} on {on}");
        let expensive = json!({ "evaluators": list_evaluator() });
        let answer = api.admin_if("*", "PUT", SETTINGS, &expensive).await;
        refused(&answer, "evaluators", "heavy-1");
    }
}

/// Creates this many flags with this rule, and returns the statuses of the responses.
async fn create(api: &Api, name: &str, flags: usize, rule: &Value) -> Vec<u16> {
    let mut statuses = Vec::new();
    for number in 0..flags {
        let key = format!("{name}-{number}");
        let new = json!({"key": key, "definition": definition(rule)});
        statuses.push(api.admin("POST", FLAGS, &new).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_flag_is_rejected_if_the_comparisons_of_all_flags_cost_too_much_together() {
    // Each of 2,000 iterations compares a text of 10,000 digits with a number. Comparisons count against the request
    // only, not against the limit of one evaluation.
    let compare = json!({"some": [["9".repeat(10_000)], {"==": [{"var": ""}, 1]}]});
    let numbers: Vec<u32> = (0..2_000).collect();
    let rule = json!({"if": [{"some": [numbers, compare]}, "on", "off"]});
    for api in Api::of_both_kinds().await {
        let statuses = create(&api, "compared", 3, &rule).await;
        assert_eq!(statuses, [201, 400, 400], "on {}", api.store);
    }
}

#[tokio::test]
async fn nested_bucketing_expressions_count_the_text_that_each_level_may_hash() {
    // Each level counts the text that it may hash, but none of the operators is costly by itself.
    let text = "x".repeat(200_000);
    let mut nested = json!({"if": [{"var": "plan"}, text, "x"]});
    for _ in 0..50 {
        nested = json!({"fractional": [nested, ["on", 1]]});
    }
    for api in Api::of_both_kinds().await {
        let statuses = create(&api, "nested", 7, &nested).await;
        // At most 725,000 steps each: 100,000 of the evaluation, and 12,500 for each level.
        let expected = [201, 201, 201, 201, 201, 201, 400];
        assert_eq!(statuses, expected, "on {}", api.store);
        // A flag that hashes one attribute adds few steps, so it is still accepted.
        let rule = json!({"fractional": [{"var": "email"}, ["on", 1]]});
        let new = json!({"key": "small", "definition": definition(&rule)});
        let answer = api.admin("POST", FLAGS, &new).await;
        assert_eq!(answer.status, 201, "{answer:?} on {}", api.store);
    }
}

#[tokio::test]
async fn existing_flags_that_cost_too_much_still_evaluate_but_cannot_grow() {
    let api = Api::on_postgres().await;
    let stack = api.stack();
    stack.database.add_key(EXAMPLE_KEY).await;
    stack
        .database
        .add_heavy_flags(200, &definition(&list_rule()), &list_evaluator())
        .await;
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list().anonymous()).await;
    assert_eq!(answer.status, 200);
    let values = answer.json();
    for number in 0..200 {
        assert_eq!(values[format!("heavy-{number}")], true, "{number}");
    }
    let evaluate = stack.function("evaluate-flags").await;
    let context = json!({"targetingKey": "alice", "plan": "pro"});
    let answer = evaluate.call(&Event::evaluate_all(&context)).await;
    let evaluated = answer.json();
    let items = evaluated["flags"].as_array().expect("flags");
    assert_eq!(items.len(), 200 + 3);
    for item in items {
        assert!(item.get("errorCode").is_none(), "{item}");
    }

    let new = json!({"key": "new", "definition": definition(&list_rule())});
    let message = fields(&api.admin("POST", FLAGS, &new).await)["definition"].to_string();
    assert!(message.contains("steps"), "{message}");
    let first = format!("{FLAGS}/heavy-0");
    let same = json!({"enabled": false, "definition": definition(&list_rule())});
    assert_eq!(api.admin_if("*", "PATCH", &first, &same).await.status, 200);
    let simple = json!({"key": "simple"});
    let answer = api.admin("POST", FLAGS, &simple).await;
    // Even a simple flag takes a step, and none is left.
    assert_eq!(answer.status, 400, "{answer:?}");
    let export = api
        .read("/api/admin/environments/production/export")
        .await
        .json();
    let answer = api.admin_if("*", "POST", IMPORT, &export).await;
    assert_eq!(
        answer.status, 200,
        "an unchanged import was rejected: {answer:?}"
    );
    let fewer = file(150, &list_rule(), &list_evaluator());
    let answer = api.admin_if("*", "POST", IMPORT, &fewer).await;
    assert_eq!(
        answer.status, 200,
        "a smaller import, still above the limit, was rejected: {answer:?}"
    );
}

#[tokio::test]
async fn the_cost_of_a_context_is_bounded() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    // Ordinary flags: each searches the groups of the caller.
    let rule =
        json!({"if": [{"some": [{"var": "groups"}, {"==": [{"var": ""}, "beta"]}]}, "on", "off"]});
    stack
        .database
        .add_heavy_flags(2_000, &definition(&rule), &Map::new())
        .await;
    let evaluate = stack.function("evaluate-flags").await;
    let groups = |count: usize| {
        let groups: Vec<String> = (0..count).map(|number| format!("g{number}")).collect();
        json!({"targetingKey": "alice", "groups": groups})
    };
    let failures = |answer: &Response| {
        let body = answer.json();
        let items = body["flags"].as_array().expect("flags").clone();
        let failed: Vec<Value> = items
            .into_iter()
            .filter(|item| item.get("errorCode").is_some())
            .collect();
        failed
    };
    let answer = evaluate.call(&Event::evaluate_all(&groups(50))).await;
    assert_eq!(failures(&answer), Vec::<Value>::new(), "some flags failed");
    let answer = evaluate.call(&Event::evaluate_all(&groups(8_000))).await;
    assert_eq!(answer.status, 200);
    let failed = failures(&answer);
    assert!(failed.len() > 1_000, "{} failed", failed.len());
    for item in &failed {
        assert_eq!(item["errorCode"], "GENERAL", "{item}");
        let details = item["errorDetails"].to_string();
        assert!(details.contains("evaluate single flags"), "{item}");
    }
    // A request for a single flag may use all steps of a request for it.
    let evaluate = stack.function("evaluate-flag").await;
    let answer = evaluate
        .call(&Event::evaluate("heavy-1999", &groups(8_000)))
        .await;
    assert_eq!(answer.json()["variant"], "off", "{answer:?}");
}

/// The API on both kinds of store, with at least the flag `checkout`, and this many flags that have this rule.
async fn both_kinds_with(flags: usize, rule: &Value) -> [Api; 2] {
    let postgres = Api::on_postgres().await;
    postgres
        .stack()
        .database
        .add_heavy_flags(
            i32::try_from(flags).expect("few"),
            &definition(rule),
            &Map::new(),
        )
        .await;
    let mut file = file(flags, rule, &Map::new());
    file["flags"]["checkout"] = json!({"state": "ENABLED", "rolloutPercentage": 50});
    [postgres, Api::on_file_with(&file).await]
}

#[tokio::test]
async fn ten_thousand_ordinary_flags_are_within_every_limit() {
    let rule = json!({"if": [
        {"and": [{"in": [{"var": "country"}, ["DE", "FR", "ES", "IT"]]}, {">=": [{"var": "user.age"}, 18]}]},
        "on",
        {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on",
            {"fractional": [["on", 10], ["off", 90]]}]}
    ]});
    for api in both_kinds_with(9_998, &rule).await {
        let change = json!({"definition": definition(&rule)});
        let answer = api
            .admin_if("*", "PATCH", &format!("{FLAGS}/checkout"), &change)
            .await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
        let new = json!({"key": "new", "definition": definition(&rule)});
        let answer = api.admin("POST", FLAGS, &new).await;
        assert_eq!(answer.status, 201, "{answer:?} on {}", api.store);
        let list = api.get("/api/config/flags").await.json();
        assert!(
            list.as_object().is_some_and(|list| list.len() >= 10_000),
            "on {}",
            api.store
        );
    }
}

#[tokio::test]
async fn the_values_of_an_environment_are_limited() {
    let numbers: Vec<u32> = vec![0; 4_000];
    let list = json!({"if": [{"in": [{"var": "n"}, numbers]}, "on"]});
    // 123 lists of 4,000 numbers leave room for one more.
    for api in both_kinds_with(123, &list).await {
        // Each 64 bytes of a text count as a value.
        let text = json!({"if": [{"==": [{"var": "n"}, "x".repeat(2_000_000)]}, "on"]});
        for (name, rule) in [("list", &list), ("text", &text)] {
            let mut accepted = 0;
            let mut refused = false;
            for number in 0..3 {
                let key = format!("{name}-{number}");
                let new = json!({"key": key, "definition": definition(rule)});
                let answer = api.admin("POST", FLAGS, &new).await;
                if answer.status == 400 {
                    let message = fields(&answer)["definition"].to_string();
                    for word in [key.as_str(), "values", "500000", "heavy-0"] {
                        assert!(
                            message.contains(word),
                            "no {word} in {message} on {}",
                            api.store
                        );
                    }
                    refused = true;
                    break;
                }
                assert_eq!(answer.status, 201, "{answer:?} on {}", api.store);
                let path = format!("{FLAGS}/{key}");
                let answer = api.admin_if("*", "DELETE", &path, &Value::Null).await;
                assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
                let path = format!("{path}/restore");
                let answer = api.admin_if("*", "POST", &path, &Value::Null).await;
                assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
                accepted += 1;
            }
            assert!(refused, "on {}", api.store);
            assert_eq!(
                accepted,
                usize::from(name == "list"),
                "{name} on {}",
                api.store
            );
        }
        let mut flag = definition(&list);
        flag["state"] = json!("ENABLED");
        let file = json!({"flags": {"one-more": flag, "another": flag}});
        let answer = api
            .admin_if("*", "POST", &format!("{IMPORT}?mode=merge"), &file)
            .await;
        let message = fields(&answer)["/flags"].to_string();
        for word in ["values", "500000", "heavy-0"] {
            assert!(
                message.contains(word),
                "no {word} in {message} on {}",
                api.store
            );
        }
    }
}

#[tokio::test]
async fn unknown_fields_of_imported_flags_count_as_values() {
    let numbers: Vec<u32> = vec![0; 4_000];
    let mut typed = definition(&json!({"if": [true, "on"]}));
    typed["state"] = json!("ENABLED");
    typed["note"] = json!(numbers);
    let simple = json!({"state": "ENABLED", "rolloutPercentage": 5, "note": numbers});
    // 123 lists of 4,000 numbers leave room for one more.
    let flags: Map<String, Value> = (0..123)
        .map(|number| {
            let flag = if number % 2 == 0 { &typed } else { &simple };
            (format!("noted-{number}"), flag.clone())
        })
        .collect();
    let list = json!({"if": [{"in": [{"var": "n"}, numbers]}, "on"]});
    for api in Api::of_both_kinds().await {
        let path = format!("{IMPORT}?mode=merge");
        let file = json!({ "flags": flags });
        let answer = api.admin_if("*", "POST", &path, &file).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
        let mut statuses = Vec::new();
        for key in ["first", "second"] {
            let new = json!({"key": key, "definition": definition(&list)});
            statuses.push(api.admin("POST", FLAGS, &new).await.status);
        }
        assert_eq!(statuses, [201, 400], "on {}", api.store);
    }
}

#[tokio::test]
async fn a_body_with_too_many_values_is_rejected_before_it_is_parsed() {
    for api in Api::of_both_kinds().await {
        let mut body = String::from("{\"flags\": [");
        for _ in 0..700_000 {
            body.push_str("{},");
        }
        write!(body, "{{}}]}}").expect("a text");
        for path in [IMPORT, FLAGS, &format!("{FLAGS}/checkout/users")] {
            let answer = api.admin_text(path, &body).await;
            assert_eq!(answer.status, 400, "{path} on {}", api.store);
            let message = answer.json()["details"]["formErrors"].to_string();
            assert!(
                message.contains("600000"),
                "{message} {path} on {}",
                api.store
            );
        }
    }
}

#[tokio::test]
async fn an_edit_of_the_file_that_costs_too_much_changes_nothing() {
    let api = Api::on_file_with(&file(10, &list_rule(), &list_evaluator())).await;
    let path = api.local().folder().join("flags.json");
    assert_eq!(api.get("/api/config/flags").await.json()["heavy-9"], true);
    std::fs::write(&path, file(60, &list_rule(), &list_evaluator()).to_string()).expect("an edit");
    let answer = api.read(FLAGS).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let message = answer.json()["message"].to_string();
    for word in ["/flags", "5000000", "heavy-0"] {
        assert!(message.contains(word), "no {word} in {message}");
    }
    let unchanged = api.get("/api/config/flags").await.json();
    assert_eq!(
        (&unchanged["heavy-9"], &unchanged["heavy-10"]),
        (&json!(true), &Value::Null)
    );
    std::fs::write(&path, file(12, &list_rule(), &list_evaluator()).to_string()).expect("an edit");
    assert_eq!(api.get("/api/config/flags").await.json()["heavy-11"], true);

    // Flags that exceed a limit at the start keep working, and can be made smaller.
    let api = Api::on_file_with(&file(60, &list_rule(), &list_evaluator())).await;
    assert_eq!(api.get("/api/config/flags").await.json()["heavy-59"], true);
    let path = api.local().folder().join("flags.json");
    std::fs::write(&path, file(55, &list_rule(), &list_evaluator()).to_string()).expect("an edit");
    assert_eq!(api.read(FLAGS).await.status, 200);
    std::fs::write(&path, file(56, &list_rule(), &list_evaluator()).to_string()).expect("an edit");
    assert_eq!(api.read(FLAGS).await.status, 503);
}
