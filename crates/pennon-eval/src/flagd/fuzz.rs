//! Fuzz tests: example files with random edits ([`pennon_fuzz::json`]) are read, written and read again.

use pennon_fuzz::{for_all, json};
use serde_json::{Value, json};

use super::read::MAX_KEPT_FIELDS;
use super::{Form, Mode, read, write};
use crate::Settings;

fn examples() -> [Value; 3] {
    [
        json!({
            "$schema": "https://flagd.dev/schema/v0/flags.json",
            "flags": {
                "a": {"state": "ENABLED", "variants": {"x": 1, "y": 2.0}, "defaultVariant": "x",
                    "metadata": {"pennon.salt": "s", "pennon.bucketing": "sha256", "owner": "us"}},
                "b": {"state": "DISABLED", "variants": {"on": true, "off": false}, "other": [1],
                    "targeting": {"if": [{"$ref": "ours"}, "on", {"fractional": [["on", 1], ["off", 2]]}]}},
                "c": {"state": "ENABLED", "variants": {"o": {"deep": [1, null]}}, "targeting": {}},
            },
            "$evaluators": {"ours": {"ends_with": [{"var": "email"}, "@ours.com"]}},
            "metadata": {"version": "3", "pennon.fractional": "v2", "pennon.bucketing": "sha256"},
        }),
        json!({"flags": [
            {"key": "s", "state": "ENABLED", "rolloutPercentage": 30, "salt": "pepper",
                "bucketing": "fractional", "description": "d", "overrides": {"alice": "include", "bob": {"variant": "x"}}},
            {"key": "t", "state": "ENABLED", "variants": {"a": "x"}, "defaultVariant": null},
        ], "description": "ours"}),
        json!({"flags": {"m": {"state": "ENABLED", "variants": {"on": true, "off": false},
            "defaultVariant": "off", "metadata": {"pennon.rolloutPercentage": 5,
            "pennon.description": "old", "pennon.overrides": {"a": "exclude"}}}}}),
    ]
}

#[test]
fn a_written_file_is_read_as_the_same_flags_in_both_forms() {
    for_all(&json(examples()), |file| {
        for mode in [Mode::Replace, Mode::Merge] {
            let Ok(read_once) = read(&file, &Settings::default(), mode) else {
                continue;
            };
            assert!(read_once.kept.len() <= MAX_KEPT_FIELDS);
            for form in [Form::Export, Form::Local] {
                let written = write(&read_once.flags, &read_once.settings, form);
                let again = read(&written, &Settings::default(), mode);
                let again = again.unwrap_or_else(|why| panic!("{why:?} in {written}"));
                assert_eq!(again.settings, read_once.settings, "{form:?} {written}");
                let mut flags = read_once.flags.clone();
                // An export has no overrides.
                if form == Form::Export {
                    for flag in flags.values_mut() {
                        flag.overrides.clear();
                    }
                }
                assert_eq!(again.flags, flags, "{form:?} {written}");
                assert_eq!(write(&again.flags, &again.settings, form), written);
            }
        }
    });
}

#[test]
fn violations_have_pointers_and_a_bounded_size() {
    for_all(&json(examples()), |file| {
        if let Err(problems) = read(&file, &Settings::default(), Mode::Replace) {
            let problems = problems.into_list();
            assert!(!problems.is_empty());
            let size: usize = problems
                .iter()
                .map(|one| one.pointer.len() + one.message.len())
                .sum();
            assert!(size < 4 * 1024 * 1024, "{size} bytes of problems");
            for problem in problems {
                assert!(
                    problem.pointer.is_empty() || problem.pointer.starts_with('/'),
                    "{}",
                    problem.pointer
                );
            }
        }
    });
}
