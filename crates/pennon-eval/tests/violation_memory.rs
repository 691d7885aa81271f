//! Measures the memory of violations with the allocator of this program. The allocator counts for the whole process, so
//! this file has only one test.

use std::collections::BTreeMap;

use peak_alloc::PeakAlloc;
use pennon_eval::flagd::{self, Mode};
use pennon_eval::{Definition, Settings, json};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs `work`. Returns the peak of allocated bytes, beyond those that were already allocated.
fn measured(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work();
    ALLOCATOR.peak_usage() - before
}

/// A rule with this many results that name no variant.
fn wrong_results(count: usize) -> Value {
    let branches =
        (0..count).flat_map(|number| [json!({"var": "a"}), json!(format!("wrong-{number}"))]);
    json!({"if": branches.collect::<Vec<_>>()})
}

#[test]
fn violations_take_little_memory_however_long_a_name_is_and_however_many_there_are() {
    // A pointer has two characters for each of these.
    let name = "~".repeat(1_000_000);
    let duplicates = (0..50).map(|number| format!(r#""a{number}":1,"a{number}":1"#));
    let duplicates = duplicates.collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"{name}":{{{duplicates}}}}}"#);

    let evaluators = |rule: Value| Settings {
        evaluators: [(name.clone(), rule)].into_iter().collect(),
        ..Settings::default()
    };
    let version = json!({"sem_ver": ["1.0.0", "wrong", "1.0.0"]});
    let relations = evaluators(json!({"and": vec![version; 50]}));
    let relations = json!({"evaluators": relations.evaluators});
    let results = evaluators(wrong_results(50));
    let variants = json!({"on": true});
    let definition = json!({"variants": variants, "targeting": {"$ref": name}});
    let definition = Definition::validate(&definition, &results).expect("valid");

    let flag = json!({"state": "ENABLED", "variants": variants, "targeting": {"$ref": "a"}});
    let flags: BTreeMap<String, &Value> = (0..2_000)
        .map(|number| (format!("flag-{number}"), &flag))
        .collect();
    let long = "x".repeat(4_000);
    let flags =
        json!({"flags": flags, "$evaluators": {"a": {"$ref": long}, long: wrong_results(50)}});
    let unreadable = json!({"flags": {}, "pennon.unreadable": {"flags": vec!["a"; 200_000]}});
    let flag = json!({"state": "ENABLED", "variants": variants, "targeting": wrong_results(50)});
    let below_key = json!({"flags": {name.clone(): flag}});
    let kept: BTreeMap<String, Value> = (0..100)
        .map(|number| (format!("field-{number}"), json!(1)))
        .chain(
            [
                ("state", json!("ENABLED")),
                ("variants", variants.clone()),
                ("targeting", wrong_results(1)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
        .collect();
    let kept = json!({"flags": {name.clone(): kept}});
    let read = |file: &Value| {
        let read = flagd::read(file, &Settings::default(), Mode::Replace).expect("valid");
        assert!(!read.warnings.is_empty());
    };

    let peaks = [
        (
            "duplicate keys below a long name",
            measured(|| assert!(json::parse(body.as_bytes()).is_err())),
        ),
        (
            "violations in an evaluator with a long name",
            measured(|| assert!(Settings::validate(&relations).is_err())),
        ),
        (
            "messages with the long name of an evaluator",
            measured(|| assert!(!definition.lint(&results).is_empty())),
        ),
        ("warnings about many flags", measured(|| read(&flags))),
        (
            "warnings about a flag with a long key",
            measured(|| read(&below_key)),
        ),
        (
            "unknown fields of a flag with a long key",
            measured(|| read(&kept)),
        ),
        (
            "warnings about many unreadable flags",
            measured(|| read(&unreadable)),
        ),
    ];
    assert!(
        peaks.iter().all(|(_, peak)| *peak < 24_000_000),
        "{peaks:#?}"
    );
}
