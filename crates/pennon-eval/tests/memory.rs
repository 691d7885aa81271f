//! Measures the memory of compiled rules with the allocator of this program. The allocator counts for the whole
//! process, so this file has only one test.

use std::collections::BTreeMap;

use peak_alloc::PeakAlloc;
use pennon_eval::flagd::{self, Mode};
use pennon_eval::{Context, EvaluationDefaults, Ruleset, Settings};
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs `work`. Returns its result and the peak of allocated bytes, beyond those that were already allocated.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (result, ALLOCATOR.peak_usage() - before)
}

/// A file with this many flags, all with the same rule, and with these evaluators.
fn file(flags: usize, rule: &Value, evaluators: &Map<String, Value>) -> Value {
    let flag = json!({
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": rule,
    });
    let flags: BTreeMap<String, &Value> = (0..flags)
        .map(|number| (format!("flag-{number}"), &flag))
        .collect();
    json!({ "flags": flags, "$evaluators": evaluators })
}

/// Evaluators `e0` to `e{levels}`. Each but the first refers several times to the previous one.
fn doubling(first: Value, levels: usize, repeat: impl Fn(Value) -> Value) -> Map<String, Value> {
    let mut evaluators = Map::new();
    evaluators.insert("e0".to_owned(), first);
    for level in 1..=levels {
        let before = json!({"$ref": format!("e{}", level - 1)});
        evaluators.insert(format!("e{level}"), repeat(before));
    }
    evaluators
}

/// Files below 50 kB, each with a name. They needed hundreds of megabytes before evaluators were shared.
fn bombs() -> Vec<(&'static str, Value)> {
    let leaf = || json!({"==": [{"var": "email"}, "x"]});
    let of = |level: usize| json!({"$ref": format!("e{level}")});
    let and = doubling(leaf(), 12, |e| json!({"and": [e, e]}));
    let conditions = doubling(leaf(), 8, |e| json!({"if": [e, e, e]}));
    let texts = doubling(
        json!({"cat": ["x".repeat(500), ""]}),
        10,
        |e| json!({"cat": [e, e]}),
    );
    let lists = doubling(
        json!({"merge": [["a", "b"], "c"]}),
        12,
        |e| json!({"merge": [e, e]}),
    );
    vec![
        (
            "conditions that double",
            file(200, &json!({"if": [of(12), "on", "off"]}), &and),
        ),
        (
            "conditions that triple",
            file(200, &json!({"if": [of(8), "on", "off"]}), &conditions),
        ),
        (
            "a text that doubles",
            file(
                200,
                &json!({"if": [{"==": [{"var": "a"}, of(10)]}, "on"]}),
                &texts,
            ),
        ),
        (
            "a text that each flag adds to",
            file(
                200,
                &json!({"if": [{"==": [{"var": "a"}, {"cat": [of(10), "y"]}]}, "on"]}),
                &texts,
            ),
        ),
        (
            "a path that doubles",
            file(200, &json!({"if": [{"var": of(10)}, "on"]}), &texts),
        ),
        (
            "a list that doubles",
            file(
                200,
                &json!({"if": [{"in": [{"var": "a"}, of(12)]}, "on"]}),
                &lists,
            ),
        ),
        (
            "a list that each flag adds to",
            file(
                200,
                &json!({"if": [{"in": [{"var": "a"}, {"merge": [of(12), "z"]}]}, "on"]}),
                &lists,
            ),
        ),
    ]
}

#[test]
fn small_files_whose_rules_would_expand_take_little_memory() {
    for (name, file) in bombs() {
        let size = file.to_string().len();
        let (read, reading) =
            measured(|| flagd::read(&file, &Settings::default(), Mode::Replace).expect(name));
        let (rules, compiling) =
            measured(|| Ruleset::compile(&read.flags, &read.settings, EvaluationDefaults::New));
        let context = Context::default();
        let ((), evaluating) = measured(|| {
            for key in read.flags.keys() {
                assert!(rules.evaluate(key.as_str(), &context, 0).is_ok(), "{name}");
            }
        });
        println!(
            "{name}: {size} bytes, {reading} to read, {compiling} to compile, {evaluating} to evaluate"
        );
        assert!(size < 50_000, "{name} has {size} bytes");
        for (what, most) in [
            ("read", reading),
            ("compile", compiling),
            ("evaluate", evaluating),
        ] {
            assert!(most < 32_000_000, "{name}: {most} bytes to {what}");
        }
    }
}
