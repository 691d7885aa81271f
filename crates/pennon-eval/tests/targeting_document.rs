//! Evaluates the examples of docs/targeting.md whose results the document states.

#![expect(clippy::panic, reason = "a test may panic")]

use pennon_eval::flagd::{self, Mode};
use pennon_eval::{Context, EvaluationDefaults, Ruleset, Settings};
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../../docs/targeting.md");
const NOW: i64 = 1_700_000_000;

/// The texts between backquotes.
fn codes(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn compile(file: &Value) -> Ruleset {
    let read = flagd::read(file, &Settings::default(), Mode::Replace);
    let read = read.unwrap_or_else(|problems| panic!("{problems:?}"));
    Ruleset::compile(&read.flags, &read.settings, EvaluationDefaults::New)
}

#[test]
fn every_example_flag_has_the_documented_results() {
    let mut checked = 0;
    for part in DOCUMENT.split("```json\n").skip(1) {
        let (file, after) = part.split_once("```").expect("the end of a block");
        let file = parse(file);
        let rules = compile(&file);
        let flags = file["flags"].as_object().expect("flags");
        let key = flags.keys().next().expect("a flag");
        let rows = after.lines().skip_while(|line| !line.starts_with("| `{"));
        for row in rows.take_while(|line| line.starts_with("| `{")) {
            let codes = codes(row);
            let context = Context::parse(parse(codes[0])).expect("a context");
            let got = rules.evaluate(key, &context, NOW).expect("a value");
            let (variant, reason) = match codes[1..] {
                [variant, reason] => (variant, reason),
                [reason] => ("", reason),
                _ => panic!("{row}"),
            };
            assert_eq!(
                (got.variant, json!(got.reason)),
                (variant, json!(reason)),
                "{row}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} rows");
}

#[test]
fn every_operator_has_the_documented_result() {
    let (_, operators) = DOCUMENT.split_once("## Operators\n").expect("a chapter");
    let (operators, _) = operators.split_once("\n## ").expect("its end");
    let context = codes(operators)[0];
    let context = Context::parse(parse(context)).expect("a context");
    let mut checked = 0;
    for row in operators.lines().filter(|line| line.starts_with("| `{")) {
        let [rule, expected] = codes(row)[..] else {
            panic!("{row}");
        };
        let rules = compile(&json!({"flags": {"flag": {
            "state": "ENABLED",
            "variants": {"null": true, expected: true},
            "defaultVariant": "null",
            "targeting": parse(rule)
        }}}));
        let got = rules.evaluate("flag", &context, NOW);
        let variant = got.map(|got| got.variant);
        assert_eq!(variant, Ok(expected), "{row}");
        checked += 1;
    }
    assert!(checked >= 35, "only {checked} rows");
}
