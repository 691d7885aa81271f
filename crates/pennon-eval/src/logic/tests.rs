//! Rules and what they choose.

use serde_json::{Value, json};

use super::evaluators::Evaluators;
use super::{Choice, compile};
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
    match rule.choose("flag", &context, 1_700_000_000, u64::MAX).0 {
        Ok(Choice::None) => Ok(None),
        Ok(Choice::Named(name)) => Ok(Some(name.to_string())),
        Err(stop) => Err(stop.to_string()),
    }
}

#[test]
fn operators_answer_as_json_logic_says() {
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
fn what_cannot_be_understood_is_found_when_the_rule_is_compiled() {
    let fault = |rule: Value| choose(&rule, json!({})).expect_err("a fault");
    assert_eq!(
        fault(json!({"if": [{"a/b~": 1}]})),
        "/if/0/a~1b~0: there is no operator 'a/b~'"
    );
    assert_eq!(
        fault(json!({"and": [{"$ref": "gone"}]})),
        "/and/0/$ref: there is no evaluator 'gone'"
    );
}

#[test]
fn evaluators_stand_for_what_they_name() {
    let rule = json!({"if": [{"$ref": "ours"}, "on", "off"]});
    let email = |email: &str| choose(&rule, json!({"email": email}));
    assert_eq!(email("me@ours.com"), Ok(Some("on".to_owned())));
    assert_eq!(email("me@theirs.com"), Ok(Some("off".to_owned())));
}

#[test]
fn no_rule_takes_more_than_its_bounds() {
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!({"!": deep});
    }
    let fault = choose(&deep, json!({})).expect_err("too deep");
    assert!(fault.ends_with("nested deeper than 64 levels"), "{fault}");

    let wide = json!({"in": [1, vec![0; 60_000]]});
    let fault = choose(&wide, json!({})).expect_err("too large");
    assert!(fault.contains("more than 50000 values"), "{fault}");

    let items = json!({"items": vec![1; 1_000]});
    let twice = json!([{"var": "accumulator"}, {"var": "accumulator"}]);
    for (body, expected) in [
        (json!({"cat": twice.clone()}), "more work"),
        (json!({"merge": twice.clone()}), "more work"),
        (twice, "nested too deep"),
        (json!({"var": ""}), "nested too deep"),
    ] {
        let rule = json!({"reduce": [{"var": "items"}, body, "seed"]});
        let stopped = choose(&rule, items.clone()).expect_err("too much");
        assert!(stopped.contains(expected), "{rule}: {stopped}");
    }

    let squares = json!({"map": [{"var": "items"}, {"in": [2, {"var": "x"}]}]});
    assert!(choose(&squares, items.clone()).is_ok());
}

/// Random rules of every operator, over constants, evaluators and what is known of a caller.
struct Rules(u64);

impl Rules {
    fn below(&mut self, most: usize) -> usize {
        // Constants of Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }

    fn constant(&mut self) -> Value {
        match self.below(7) {
            0 => json!(null),
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(100)),
            3 => json!("x".repeat(self.below(100))),
            4 => json!([1, "two", [3, "x".repeat(self.below(40))]]),
            5 => json!(vec!["a"; self.below(20)]),
            _ => json!("a.b.0"),
        }
    }

    fn rule(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return self.constant();
        }
        let mut next = || self.rule(depth - 1);
        let (a, b, c) = (next(), next(), next());
        match self.below(34) {
            0 => json!({"var": "targetingKey"}),
            1 => json!({"var": ""}),
            2 => json!({"var": ["plan", a]}),
            3 => json!({"var": a}),
            4 => json!({"$ref": "list"}),
            5 => json!({"$ref": "text"}),
            6 => json!({"$ref": "walk"}),
            7 => json!({"missing": [a, b]}),
            8 => json!({"missing_some": [a, b]}),
            9 => json!({"if": [a, b, c]}),
            10 => json!({"and": [a, b]}),
            11 => json!({"or": [a, b]}),
            12 => json!({"!": [a]}),
            13 => json!({"==": [a, b]}),
            14 => json!({"===": [a, b]}),
            15 => json!({"<": [a, b, c]}),
            16 => json!({"+": [a, b]}),
            17 => json!({"-": [a, b]}),
            18 => json!({"max": [a, b]}),
            19 => json!({"map": [a, b]}),
            20 => json!({"filter": [a, b]}),
            21 => json!({"all": [a, b]}),
            22 => json!({"some": [a, b]}),
            23 => json!({"reduce": [a, b, c]}),
            24 => json!({"merge": [a, b, c]}),
            25 => json!({"in": [a, b]}),
            26 => json!({"cat": [a, b, c]}),
            27 => json!({"substr": [a, b, c]}),
            28 => json!({"starts_with": [a, b]}),
            29 => json!({"sem_ver": [a, "<", b]}),
            30 => json!({"fractional": [a, ["on", 1], [b, 2]]}),
            31 => json!({"fractional": [[a, b], c]}),
            32 => json!({"map": [{"$ref": "list"}, a]}),
            _ => json!([a, b]),
        }
    }
}

#[test]
fn an_evaluation_takes_no_more_than_was_said_of_its_rule() {
    let list: Vec<Value> = (0..30)
        .map(|number| json!([number, "y".repeat(number)]))
        .collect();
    let evaluators = json!({
        "list": {"merge": [list, {"var": "targetingKey"}]},
        "text": {"cat": ["z".repeat(200), {"var": "targetingKey"}]},
        "walk": {"map": [{"$ref": "list"}, {"cat": [{"var": ""}, {"var": "1"}]}]},
    });
    let settings = Settings {
        evaluators: evaluators.as_object().cloned().expect("an object"),
        ..Settings::default()
    };
    let mut rules = Rules(20_261_128);
    let (mut compiled, mut close) = (0, 0);
    for number in 0..20_000 {
        let depth = 1 + number % 5;
        let rule = rules.rule(depth);
        let evaluators = Evaluators::of(&settings);
        let Ok(ready) = compile(&rule, &evaluators) else {
            continue;
        };
        compiled += 1;
        for context in [json!({}), json!({"targetingKey": "user-123"})] {
            let context = Context::parse(context).expect("a context");
            let (_choice, taken) = ready.choose("flag", &context, 0, u64::MAX);
            assert!(taken <= ready.cost, "{taken} of {}: {rule}", ready.cost);
            close += usize::from(taken * 4 >= ready.cost);
        }
    }
    assert!(compiled > 15_000, "{compiled}");
    // It is a bound, and seldom far off.
    assert!(close > compiled / 2, "{close} of {compiled}");
}
