//! Tests of rules and the variants that they select.

use serde_json::{Value, json};

use super::bucket::HashedKey;
use super::evaluators::Evaluators;
use super::{Choice, Input, Run, compile};
use crate::{Context, FractionalVersion, Settings};

fn choose(rule: &Value, context: Value) -> Result<Option<String>, String> {
    choose_with(rule, context, FractionalVersion::V3)
}

fn choose_with(
    rule: &Value,
    context: Value,
    fractional: FractionalVersion,
) -> Result<Option<String>, String> {
    let settings = Settings {
        fractional,
        evaluators: [(
            "ours".to_owned(),
            json!({"ends_with": [{"var": "email"}, "@ours.com"]}),
        )]
        .into_iter()
        .collect(),
        ..Settings::default()
    };
    let evaluators = Evaluators::of(&settings);
    let rule = compile(rule, &evaluators)
        .map_err(|error| format!("{}: {}", error.pointer, error.message))?;
    let context = Context::parse(context).expect("a context");
    let input = Input {
        context: &context,
        flag: "flag",
        hashed_key: &HashedKey::new(fractional, "flag"),
        now: 1_700_000_000,
    };
    match rule.choose(input, &mut Run::for_request(u64::MAX, None)) {
        Ok(Choice::None | Choice::Variant(_)) => Ok(None),
        Ok(Choice::Named(name)) => Ok(Some(name.to_string())),
        Err(stop) => Err(stop.to_string()),
    }
}

#[test]
fn operators_have_the_results_of_flagds_engines() {
    let context = json!({
        "a": 1, "b": "two", "list": [1, 2, 3], "user": {"age": 30, "tags": ["x", "y"]},
        "empty": "", "nothing": null
    });
    let table = [
        (json!({"var": "b"}), Some("two")),
        (json!({"var": ["user.tags.1"]}), Some("y")),
        (json!({"var": ["nothing", "default"]}), Some("default")),
        (json!({"var": "list.length"}), Some("3")),
        (json!({"var": "$flagd.flagKey"}), Some("flag")),
        (json!({"var": "$flagd.timestamp"}), Some("1700000000")),
        (
            json!({"missing": ["a", "empty", "nothing", "z"]}),
            Some("empty,nothing,z"),
        ),
        (json!({"missing_some": [1, ["a", "z"]]}), Some("")),
        (json!({"missing_some": [2, ["a", "z"]]}), Some("z")),
        (
            json!({"if": [{"<": [0, {"var": "a"}, 2]}, "in", "out"]}),
            Some("in"),
        ),
        (json!({"?:": [false, 1, {"==": [1, 1.0]}, 2]}), Some("2")),
        (json!({"==": [{"var": "a"}, "1"]}), Some("true")),
        (json!({"===": [{"var": "a"}, "1"]}), Some("false")),
        (json!({"!": {"var": "list"}}), Some("false")),
        (json!({"+": [{"var": "a"}, "2", 3]}), Some("6")),
        (json!({"-": {"var": "a"}}), Some("-1")),
        (json!({"%": [-5, 3]}), Some("-2")),
        (json!({"/": [1, 4]}), Some("0.25")),
        (json!({"max": [1, {"var": "user.age"}]}), Some("30")),
        (
            json!({"map": [{"var": "list"}, {"*": [{"var": ""}, 2]}]}),
            Some("2,4,6"),
        ),
        (
            json!({"filter": [{"var": "list"}, {">": [{"var": ""}, 1]}]}),
            Some("2,3"),
        ),
        (
            json!({"reduce": [{"var": "list"},
                {"+": [{"var": "current"}, {"var": "accumulator"}]}, 10]}),
            Some("16"),
        ),
        (json!({"all": [[], true]}), Some("false")),
        (json!({"none": [[], true]}), Some("true")),
        (
            json!({"some": [{"var": "list"}, {"==": [{"var": ""}, 2]}]}),
            Some("true"),
        ),
        (json!({"merge": [1, [2, [3]], []]}), Some("1,2,3")),
        (json!({"in": ["w", {"var": "b"}]}), Some("true")),
        (json!({"in": ["1", {"var": "list"}]}), Some("false")),
        (
            json!({"cat": ["a", 1, true, null, 2.0, [1, null]]}),
            Some("a1truenull21,"),
        ),
        (json!({"cat": [{"var": "nothing"}, null]}), Some("nullnull")),
        (json!({"+": ["12abc", null, true]}), Some("13")),
        (json!({"substr": ["pennon", -3, 2]}), Some("no")),
        (json!({"substr": ["pennon", 1, -1]}), Some("enno")),
        (json!({"log": {"var": "b"}}), Some("two")),
        (json!({"starts_with": [{"var": "b"}, "t"]}), Some("true")),
        (json!({"starts_with": [{"var": "a"}, "t"]}), None),
        (json!({"sem_ver": ["v1.2", "~", "1.2.9"]}), Some("true")),
        (json!({"sem_ver": ["x", "=", "1.2.9"]}), None),
        (json!({"a": 1, "b": 2}), Some("[object Object]")),
    ];
    for (rule, expected) in table {
        assert_eq!(
            choose(&rule, context.clone()),
            Ok(expected.map(str::to_owned)),
            "{rule}"
        );
    }
}

#[test]
fn a_computed_path_leads_to_the_same_value_as_a_fixed_one() {
    let context = json!({
        "a": {"": {"b": "two dots"}, "b": "one dot"}, "": "no name", "text": "größe", "list": ["x", {"y": "z"}],
        "$flagd": {"flagKey": "of the caller"}
    });
    let table = [
        ("", Some("[object Object]")),
        (".", None),
        ("a.b", Some("one dot")),
        ("a..b", Some("two dots")),
        ("a.c.d", None),
        ("text.2", Some("ö")),
        ("text.length", Some("5")),
        ("list.0.0", Some("x")),
        ("list.1.y", Some("z")),
        ("list.01", None),
        ("$flagd", None),
        ("$flagd.flagKey", Some("flag")),
        ("$flagd.flagKey.length", Some("4")),
        ("$flagd.timestamp", Some("1700000000")),
        ("$flagd.timestamp.x", None),
        ("$flagd.other", None),
    ];
    for (path, expected) in table {
        let expected = Ok(expected.map(str::to_owned));
        let computed = json!({"if": [{"var": "text"}, path]});
        for path in [json!(path), computed] {
            let rule = json!({"var": path});
            assert_eq!(choose(&rule, context.clone()), expected, "{rule}");
        }
    }
}

#[test]
fn an_attribute_is_found_whatever_the_number_of_attributes() {
    for number in [1, 8, 9, 24, 25, 100] {
        let name = |number: usize| format!("attribute{number}");
        let context: serde_json::Map<_, _> = (0..number).map(|n| (name(n), json!(n))).collect();
        for (attribute, expected) in [(0, true), (number - 1, true), (number, false)] {
            let rule = json!({"==": [{"var": name(attribute)}, attribute]});
            let rule = json!({"if": [rule, "found", "not found"]});
            let expected = if expected { "found" } else { "not found" };
            let found = choose(&rule, json!(context));
            assert_eq!(found, Ok(Some(expected.to_owned())), "{rule} of {number}");
        }
    }
}

#[test]
fn unknown_names_are_reported_when_the_rule_is_compiled() {
    let error = |rule: Value| choose(&rule, json!({})).expect_err("an error");
    assert_eq!(
        error(json!({"if": [{"a/b~": 1}]})),
        "/if/0/a~1b~0: there is no operator 'a/b~'"
    );
    assert_eq!(
        error(json!({"and": [{"$ref": "gone"}]})),
        "/and/0/$ref: there is no evaluator 'gone'"
    );
}

#[test]
fn a_reference_has_the_result_of_its_evaluator() {
    let rule = json!({"if": [{"$ref": "ours"}, "on", "off"]});
    let email = |email: &str| choose(&rule, json!({"email": email}));
    assert_eq!(email("me@ours.com"), Ok(Some("on".to_owned())));
    assert_eq!(email("me@theirs.com"), Ok(Some("off".to_owned())));
}

#[test]
fn rules_beyond_the_limits_fail() {
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!({"!": deep});
    }
    let error = choose(&deep, json!({})).expect_err("too deep");
    assert!(error.ends_with("nested deeper than 64 levels"), "{error}");

    let wide = json!({"in": [1, vec![0; 60_000]]});
    let error = choose(&wide, json!({})).expect_err("too large");
    assert!(error.contains("more than 50000 values"), "{error}");

    let items = json!({"items": vec![1; 1_000]});
    let twice = json!([{"var": "accumulator"}, {"var": "accumulator"}]);
    for (body, expected) in [
        (json!({"cat": twice.clone()}), "more steps"),
        (json!({"merge": twice.clone()}), "more steps"),
        (twice, "nested too deeply"),
        (json!({"var": ""}), "nested too deeply"),
    ] {
        let rule = json!({"reduce": [{"var": "items"}, body, "seed"]});
        let stopped = choose(&rule, items.clone()).expect_err("too much");
        assert!(stopped.contains(expected), "{rule}: {stopped}");
    }

    let within = json!({"map": [{"var": "items"}, {"in": [2, {"var": "x"}]}]});
    assert!(choose(&within, items.clone()).is_ok());
}

#[test]
fn the_estimate_covers_every_step_of_an_evaluation() {
    let settings = Settings::default();
    let long = "x".repeat(400);
    let items = |text: &str| vec![text.to_owned(); 100];
    let table = [
        // A list as a path is converted to a string, which is then parsed and followed.
        json!({"var": [items(&"x".repeat(47))]}),
        json!({"var": [vec![1.234_567_890_123_456_7e-6; 100]]}),
        // A comparison peeks at its operands before it evaluates them.
        json!({"==": [{"var": long}, {"var": long}]}),
        json!({"<": [{"var": long}, {"var": long}]}),
        json!({"all": [["a"], {"starts_with": [{"var": long}, {"var": long}]}]}),
        json!({"all": [["a"], {"in": [{"var": long}, ["a", "b"]]}]}),
        // The characters of an item are counted.
        json!({"all": [items(&long), {"var": "length"}]}),
        json!({"all": [items(&long), {"var": ["length", 1]}]}),
        json!({"all": [items(&long), {"var": {"cat": ["length", {"missing": []}]}}]}),
        json!({"all": [items(&long), {"!": {"missing": ["length", "0"]}}]}),
        json!({"all": [items(&long), {"!": {"missing": ["length", {"var": "length"}]}}]}),
        json!({"all": [items(&long), {"!": {"missing_some": [1, ["length", {"var": "0"}]]}}]}),
    ];
    let context = Context::parse(json!({"targetingKey": "user-123"})).expect("a context");
    let mut too_low = Vec::new();
    for rule in table {
        let compiled = compile(&rule, &Evaluators::of(&settings)).expect("a rule");
        let input = Input {
            context: &context,
            flag: "flag",
            hashed_key: &HashedKey::new(settings.fractional, "flag"),
            now: 0,
        };
        let mut run = Run::for_request(u64::MAX, None);
        let (choice, steps) = (compiled.choose(input, &mut run), run.steps());
        assert!(choice.is_ok(), "{rule}: {choice:?}");
        if steps > compiled.cost {
            too_low.push(format!(
                "{steps} of {}: {:.80}",
                compiled.cost,
                rule.to_string()
            ));
        }
    }
    assert!(too_low.is_empty(), "too low:\n{}", too_low.join("\n"));
}
