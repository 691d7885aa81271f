//! Hostile rules and contexts must not panic, stall or overflow the stack.

#![expect(clippy::expect_used, reason = "a test may panic")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pennon_eval::{
    Context, Definition, EvaluationDefaults, Flag, FlagKey, FractionalVersion, Ruleset, Settings,
};
use serde_json::{Map, Value, json};

fn compile(flags: &BTreeMap<FlagKey, Flag>, settings: &Settings) -> Ruleset {
    Ruleset::compile(flags, settings, EvaluationDefaults::New)
}

fn pick<'a, T>(rng: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

const OPERATORS: &[&str] = &[
    "var",
    "missing",
    "missing_some",
    "if",
    "?:",
    "==",
    "===",
    "!=",
    "!==",
    "!",
    "!!",
    "or",
    "and",
    "<",
    "<=",
    ">",
    ">=",
    "max",
    "min",
    "+",
    "-",
    "*",
    "/",
    "%",
    "map",
    "filter",
    "reduce",
    "all",
    "none",
    "some",
    "merge",
    "in",
    "cat",
    "substr",
    "log",
    "starts_with",
    "ends_with",
    "sem_ver",
    "fractional",
    "$ref",
    "unknown",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "list",
    "list.0",
    "list.length",
    "user.name",
    "accumulator",
    "current",
    "targetingKey",
    "$flagd.flagKey",
    "$flagd",
    "1",
    "-0",
    "1e999",
    "0x",
    "Infinity",
    "1.2.3-a.01",
    "~",
    "^",
    "ü😀",
    "..",
    "\0",
    "99999999999999999999",
];

fn scalar(rng: &mut fastrand::Rng) -> Value {
    match rng.usize(..9) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(i64::MIN),
        3 => json!(u64::MAX),
        4 => json!(*pick(
            rng,
            &[-0.0, 1e308, -1e308, 5e-324, 0.1, 2_147_483_648.0]
        )),
        5 => json!(rng.usize(..5)),
        6 => json!(-1),
        _ => json!(*pick(rng, TEXTS)),
    }
}

fn data(rng: &mut fastrand::Rng, depth: usize) -> Value {
    match rng.usize(..if depth == 0 { 1 } else { 4 }) {
        0 | 1 => scalar(rng),
        2 => (0..rng.usize(..5)).map(|_| data(rng, depth - 1)).collect(),
        _ => {
            let fields = (0..rng.usize(..12)).map(|_| {
                let name = (*pick(rng, TEXTS)).to_owned();
                (name, data(rng, depth - 1))
            });
            Value::Object(fields.collect())
        }
    }
}

fn rule(rng: &mut fastrand::Rng, depth: usize) -> Value {
    if depth == 0 {
        return if rng.usize(..3) == 0 {
            data(rng, 2)
        } else {
            json!({"var": *pick(rng, TEXTS)})
        };
    }
    match rng.usize(..12) {
        0 => scalar(rng),
        1 => (0..rng.usize(..4)).map(|_| rule(rng, depth - 1)).collect(),
        2 => data(rng, 2),
        _ => {
            let operator = (*pick(rng, OPERATORS)).to_owned();
            let arguments = match rng.usize(..8) {
                0 => rule(rng, depth - 1),
                count => (0..count.min(4)).map(|_| rule(rng, depth - 1)).collect(),
            };
            Value::Object([(operator, arguments)].into_iter().collect())
        }
    }
}

fn flag(targeting: Value) -> BTreeMap<FlagKey, Flag> {
    let definition = Definition {
        variants: Map::from_iter([("a".to_owned(), json!(1))]),
        targeting: Some(targeting),
        ..Definition::default()
    };
    let flag = Flag {
        enabled: true,
        definition: Some(definition),
        ..Flag::default()
    };
    [(FlagKey::parse("flag").expect("a key"), flag)].into()
}

#[test]
fn no_rule_or_context_causes_a_panic() {
    let (evaluations, results) = (Cell::new(0), Cell::new(0));
    pennon_fuzz::for_all(&pennon_fuzz::seeds(), |seed| {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let settings = Settings {
            evaluators: Map::from_iter([("a".to_owned(), rule(rng, 2))]),
            fractional: *pick(rng, &[FractionalVersion::V2, FractionalVersion::V3]),
            ..Settings::default()
        };
        let depth = 1 + rng.usize(..5);
        let targeting = rule(rng, depth);
        let definition = json!({"variants": {"a": 1}, "targeting": targeting});
        let checked = Definition::validate(&definition, &settings);
        let rules = compile(&flag(targeting.clone()), &settings);
        for _ in 0..3 {
            let mut attributes = Map::new();
            attributes.insert("list".to_owned(), data(rng, 3));
            attributes.insert("user".to_owned(), data(rng, 3));
            attributes.insert("targetingKey".to_owned(), json!("someone"));
            let context = Context::parse(Value::Object(attributes)).expect("a context");
            let result = rules.evaluate("flag", &context, 1_700_000_000);
            let is_parse_error = matches!(result, Err(pennon_eval::EvaluationError::Parse(_)));
            assert!(
                !(is_parse_error && checked.is_ok()),
                "valid, but does not compile: {targeting}"
            );
            evaluations.set(evaluations.get() + 1);
            results.set(results.get() + u32::from(result.is_ok()));
        }
    });
    let (evaluations, results) = (evaluations.get(), results.get());
    assert!(
        results > evaluations / 15,
        "only {results} of {evaluations} had a result"
    );
}

#[test]
fn a_rule_that_would_run_for_hours_fails_soon() {
    let numbers: Vec<usize> = (0..2_000).collect();
    let lists = json!({"list": numbers});
    let doubled = json!({"reduce": [{"var": "list"},
        {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "x"]});
    let merged = json!({"reduce": [{"var": "list"},
        {"merge": [{"var": "accumulator"}, {"var": "accumulator"}]}, [1]]});
    let nested = json!({"reduce": [{"var": "list"},
        [{"var": "accumulator"}, {"var": "accumulator"}], 1]});
    let searched = json!({"map": [{"var": "list"}, {"in": [-1, numbers]}]});
    for rule in [doubled, merged, nested, searched] {
        let rules = compile(&flag(rule.clone()), &Settings::default());
        let context = Context::parse(lists.clone()).expect("a context");
        let started = Instant::now();
        let result = rules.evaluate("flag", &context, 0);
        assert!(
            matches!(result, Err(pennon_eval::EvaluationError::General(_))),
            "{rule}"
        );
        // It takes milliseconds, even without optimisation; the limit only catches a hang.
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?} for {rule}",
            started.elapsed()
        );
    }
}

#[test]
fn a_rule_that_refers_to_itself_does_not_compile() {
    let twice = json!([{"$ref": "a"}, {"$ref": "a"}]);
    let wide = json!({"or": [{"$ref": "b"}, {"$ref": "b"}, {"$ref": "b"}, {"$ref": "b"}]});
    for evaluators in [
        json!({"a": {"$ref": "a"}}),
        json!({"a": twice}),
        json!({"a": wide, "b": {"or": [{"$ref": "a"}, {"$ref": "a"}]}}),
    ] {
        let settings = Settings {
            evaluators: evaluators.as_object().expect("an object").clone(),
            ..Settings::default()
        };
        let rule = json!({"!": {"$ref": "a"}});
        let definition = json!({"variants": {"a": 1}, "targeting": rule});
        let problems = Definition::validate(&definition, &settings).expect_err("endless");
        assert_eq!(problems[0].pointer, "/targeting/!/$ref", "{problems:?}");
        let rules = compile(&flag(rule), &settings);
        let result = rules.evaluate("flag", &Context::default(), 0);
        assert!(matches!(
            result,
            Err(pennon_eval::EvaluationError::Parse(_))
        ));
    }
}

#[test]
fn the_deepest_rule_that_compiles_runs_on_a_small_stack() {
    // `var` and its constant argument are two of the 64 levels that a rule may have.
    let mut rule = json!({"var": "list"});
    for _ in 0..62 {
        rule = json!({"!": [rule]});
    }
    let definition = json!({"variants": {"a": 1}, "targeting": rule});
    Definition::validate(&definition, &Settings::default()).expect("within the limits");
    let rules = compile(&flag(rule), &Settings::default());
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let run = move || rules.evaluate("flag", &Context::default(), 0).is_err();
    let thread = small.spawn(run).expect("a thread");
    assert!(
        thread.join().expect("no overflow"),
        "the rule selected a variant, but none is named 'false'"
    );
}
