//! Tests of reading and writing flagd files.

use serde_json::{Map, Value, json};

use std::collections::BTreeMap;

use super::{File, Form, Mode, read, write};
use crate::violation::{Violation, Violations};
use crate::{Bucketing, Definition, Flag, FlagKey, FractionalVersion, Override, Rollout, Settings};

fn file() -> Value {
    json!({
        "$schema": "https://flagd.dev/schema/v0/flags.json",
        "flags": {
            "a": {"state": "ENABLED", "variants": {"x": 1, "y": 2.0}, "defaultVariant": "x"},
            "b": {
                "state": "DISABLED",
                "variants": {"on": true, "off": false},
                "targeting": {"if": [{"$ref": "ours"}, "on", null]},
                "metadata": {"owner": "us", "cost": 1.0}
            },
            "c": {"state": "ENABLED", "variants": {"o": {"deep": [1, null]}}, "targeting": {}}
        },
        "$evaluators": {"ours": {"ends_with": [{"var": "email"}, "@ours.com"]}},
        "metadata": {"version": "3", "flagSetId": "ours"}
    })
}

fn read_new(file: &Value) -> Result<File, Vec<Violation>> {
    read(file, &Settings::default(), Mode::Replace).map_err(Violations::into_list)
}

fn texts(problems: &[Violation]) -> Vec<String> {
    let text = |problem: &Violation| format!("{} {}", problem.pointer, problem.message);
    problems.iter().map(text).collect()
}

fn violations(file: &Value) -> Vec<String> {
    texts(&read_new(file).expect_err("violations"))
}

fn key(text: &str) -> FlagKey {
    FlagKey::parse(text).expect("a key")
}

#[test]
fn an_imported_file_is_exported_unchanged() {
    let read = read_new(&file()).expect("a flagd file");
    assert_eq!(read.flags.len(), 3);
    let written = write(&read.flags, &read.settings, Form::Export);
    assert_eq!(written, file());
    assert!(written.to_string().contains("\"y\":2.0"));
    assert_eq!(read.kept, ["/$schema"]);
    assert_eq!(read.warnings, []);
}

#[test]
fn an_exported_or_local_file_is_read_as_the_same_flags() {
    let mut flags = BTreeMap::new();
    for percent in [0, 30, 100] {
        let flag = Flag {
            enabled: percent != 30,
            rollout_percentage: Rollout::parse(percent).expect("in range"),
            description: Some("for \"us\"".to_owned()),
            salt: (percent == 30).then(|| "salt".to_owned()),
            bucketing: (percent < 100).then_some(Bucketing::Sha256),
            other: [("owner".to_owned(), json!({"team": ["shop"]}))]
                .into_iter()
                .collect(),
            ..Flag::default()
        };
        flags.insert(key(&format!("simple-{percent}")), flag.clone());
        let definition = Some(Definition {
            variants: [("x".to_owned(), json!("y"))].into_iter().collect(),
            ..Definition::default()
        });
        flags.insert(
            key(&format!("typed-{percent}")),
            Flag {
                definition,
                rollout_percentage: Rollout::default(),
                ..flag
            },
        );
    }
    let settings = Settings {
        fractional: FractionalVersion::V2,
        anonymous_rollout: Some(false),
        bucketing: Some(Bucketing::Fractional),
        other: [("$comment".to_owned(), json!([1, null]))]
            .into_iter()
            .collect(),
        ..Settings::default()
    };
    let exported = write(&flags, &settings, Form::Export);
    let read = read_new(&exported).expect("an export");
    assert_eq!((&read.flags, &read.settings), (&flags, &settings));
    assert_eq!(read.kept.len(), 7, "{:?}", read.kept);
    for flag in flags.values_mut() {
        flag.overrides = [
            ("alice".to_owned(), Override::Exclude),
            ("bob".to_owned(), Override::Variant("x".to_owned())),
        ]
        .into();
    }
    let again = write(&flags, &settings, Form::Export);
    assert_eq!(again, exported, "an export contains overrides");
    let local = write(&flags, &settings, Form::Local);
    assert!(local["flags"]["simple-30"].get("variants").is_none());
    let read = read_new(&local).expect("a local file");
    assert_eq!((read.flags, read.settings), (flags, settings));
}

#[test]
fn a_salted_flag_exported_by_an_earlier_version_is_read_as_a_simple_flag() {
    let flag = Flag {
        enabled: true,
        rollout_percentage: Rollout::parse(30).expect("in range"),
        salt: Some("salt".to_owned()),
        ..Flag::default()
    };
    let flags = BTreeMap::from([(key("a"), flag)]);
    let mut exported = write(&flags, &Settings::default(), Form::Export);
    let by = exported.pointer("/flags/a/targeting/if/1/fractional/0/cat/0");
    assert_eq!(by, Some(&json!("salt")));
    exported["flags"]["a"]["targeting"] = json!({"fractional": [["on", 30], ["off", 70]]});
    assert_eq!(read_new(&exported).expect("an export").flags, flags);
}

#[test]
fn settings_of_rollouts_are_validated_and_stay_if_a_file_lacks_them() {
    let current = Settings {
        anonymous_rollout: Some(true),
        bucketing: Some(Bucketing::Sha256),
        ..Settings::default()
    };
    let file = |metadata: Value| json!({"flags": {}, "metadata": metadata});
    let kept = read(&json!({"flags": {}}), &current, Mode::Replace).expect("a file");
    assert_eq!(kept.settings, current);
    let others = file(json!({"pennon.anonymousRollout": false, "pennon.bucketing": "fractional"}));
    let changed = read(&others, &current, Mode::Replace)
        .expect("a file")
        .settings;
    assert_eq!(changed.anonymous_rollout, Some(false));
    assert_eq!(changed.bucketing, Some(Bucketing::Fractional));
    assert_eq!(changed.metadata, Map::new());
    let bad = file(json!({"pennon.anonymousRollout": "no", "pennon.bucketing": "md5"}));
    let problems = read(&bad, &current, Mode::Replace).expect_err("violations");
    let problems = problems.into_list();
    let places: Vec<&str> = problems
        .iter()
        .map(|found| found.pointer.as_str())
        .collect();
    assert_eq!(
        places,
        [
            "/metadata/pennon.anonymousRollout",
            "/metadata/pennon.bucketing"
        ]
    );
}

#[test]
fn the_bucketing_of_a_flag_is_validated() {
    let file = |flag: Value| json!({"flags": {"a": flag}});
    let simple = json!({"state": "ENABLED", "rolloutPercentage": 5, "bucketing": "sha256"});
    let with = |name: &str, value: Value| {
        let mut flag = simple.clone();
        flag[name] = value;
        file(flag)
    };
    let read = read_new(&with("metadata", json!({"pennon.bucketing": "sha256"}))).expect("a file");
    assert_eq!(read.flags[&key("a")].bucketing, Some(Bucketing::Sha256));
    let typed = json!({"state": "ENABLED", "variants": {"a": 1}, "bucketing": "sha256"});
    for (file, expected) in [
        (
            with("bucketing", json!("md5")),
            "/flags/a/bucketing must be",
        ),
        (with("bucketing", Value::Null), "/flags/a/bucketing must be"),
        (
            with("metadata", json!({"pennon.bucketing": "fractional"})),
            "/flags/a/metadata/pennon.bucketing contradicts the field bucketing",
        ),
        (
            file(typed),
            "/flags/a/bucketing has no effect on a flag with variants",
        ),
    ] {
        let found = violations(&file);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
}

#[test]
fn flags_may_be_an_array() {
    let mut array = file();
    let flags = array["flags"].as_object().cloned().expect("an object");
    let items = flags.into_iter().map(|(key, mut flag)| {
        flag["key"] = json!(key);
        flag
    });
    array["flags"] = items.collect();
    let mut expected = read_new(&file()).expect("an object");
    let mut read = read_new(&array).expect("an array");
    assert_eq!(read.pointer_to(&key("b")), "/flags/1");
    assert_eq!(expected.pointer_to(&key("b/c")), "/flags/b~1c");
    read.items.clear();
    expected.items.clear();
    assert_eq!(read, expected);

    let state = json!({"state": "ENABLED", "variants": {"a": 1}});
    let mut named = state.clone();
    named["key"] = json!("a");
    let mut wrong = named.clone();
    wrong["variants"] = json!({});
    let mut number = state.clone();
    number["key"] = json!(7);
    assert_eq!(
        violations(&json!({"flags": [named, wrong, state, number, 8]})),
        [
            "/flags/1/key an earlier flag has the same key 'a'",
            "/flags/1/variants must have at least one variant",
            "/flags/2/key must be the key of the flag, a string",
            "/flags/3/key must be the key of the flag, a string",
            "/flags/4 must be an object",
        ]
    );
    for none in [json!("a"), json!(null)] {
        let why = "/flags must be an object, or an array of objects with a key";
        assert_eq!(violations(&json!({"flags": none})), [why]);
    }
}

#[test]
fn every_violation_is_reported_with_its_pointer() {
    let mut file = file();
    file["flags"]["a"]["variants"]["y"] = json!("2");
    file["flags"]["a"]["defaultVariant"] = json!("z");
    file["flags"]["b"]["state"] = json!("off");
    file["flags"]["b"]["targeting"]["if"][0]["$ref"] = json!("theirs");
    file["flags"]["c"] = json!({"variants": {}});
    file["flags"]["d/e"] = json!({"state": "ENABLED", "variants": {"a": 1}, "more": 1,
        "targeting": {"sem_ver": ["1", "=", {"var": "v"}]},
        "metadata": {"pennon.salt": 1, "pennon.overrides": "{}"}});
    file["$evaluators"]["ours"] = json!({"fractional": [["a", -1], ["b", {"vra": "w"}], "c"]});
    file["environments"] = json!({});
    assert_eq!(
        violations(&file),
        [
            "/environments belongs to flags.json of the local server; a file for one environment \
             has its flags at the top level",
            "/$evaluators/ours/fractional/0/1 must be an integer of at least 0 (got -1)",
            "/$evaluators/ours/fractional/1/1/vra there is no operator 'vra'",
            "/$evaluators/ours/fractional/2 must be a list of 1 to 2 items",
            "/flags/a/variants/y must be a number, like the other variants",
            "/flags/a/defaultVariant there is no variant 'z'",
            "/flags/b/targeting/if/0/$ref there is no evaluator 'theirs'",
            "/flags/b/state must be ENABLED or DISABLED (got \"off\")",
            "/flags/c/variants must have at least one variant",
            "/flags/c/state is required: ENABLED or DISABLED",
            "/flags/d~1e/targeting/sem_ver/0 must be a version (semver.org) or a var (got \"1\")",
            "/flags/d~1e/metadata/pennon.salt must be a string",
            "/flags/d~1e/metadata/pennon.overrides overrides are not part of a flagd file; set \
             them with POST /api/admin/flags/{flagKey}/users",
        ]
    );
}

#[test]
fn an_exported_simple_flag_that_was_edited_as_a_typed_flag_is_rejected() {
    let flags = BTreeMap::from([(key("a"), Flag::default())]);
    let mut file = write(&flags, &Settings::default(), Form::Export);
    file["flags"]["a"]["defaultVariant"] = json!("on");
    let problems = read_new(&file).expect_err("a contradiction");
    assert_eq!(
        problems[0].pointer,
        "/flags/a/metadata/pennon.rolloutPercentage"
    );
}

#[test]
fn a_simple_flag_has_a_short_form() {
    let read = read_new(&json!({"flags": {"a": {
        "state": "ENABLED", "rolloutPercentage": 5.0, "salt": "s", "description": "d"
    }}}));
    let read = read.expect("a short form");
    let expected = Flag {
        enabled: true,
        rollout_percentage: Rollout::parse(5).expect("in range"),
        salt: Some("s".to_owned()),
        description: Some("d".to_owned()),
        ..Flag::default()
    };
    assert_eq!(read.flags[&key("a")], expected);
    let twice = |more: Value| {
        let mut flag = json!({"state": "ENABLED", "rolloutPercentage": 5});
        let fields = flag.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().expect("an object"));
        json!({"flags": {"a": flag}})
    };
    for (more, place) in [
        (
            json!({"metadata": {"pennon.rolloutPercentage": 6}}),
            "/metadata/pennon.rolloutPercentage contradicts",
        ),
        (
            json!({"salt": "s", "metadata": {"pennon.salt": "t"}}),
            "/metadata/pennon.salt contradicts",
        ),
        (
            json!({"description": "s", "metadata": {"pennon.description": "t"}}),
            "/metadata/pennon.description contradicts",
        ),
        (json!({"rolloutPercentage": 101}), "/rolloutPercentage must"),
        (json!({"rolloutPercentage": 5.5}), "/rolloutPercentage must"),
        (
            json!({"variants": {"a": 1}}),
            "/rolloutPercentage contradicts",
        ),
        (json!({"targeting": {}}), "/rolloutPercentage contradicts"),
        (
            json!({"metadata": {"a": 1}}),
            "/rolloutPercentage contradicts",
        ),
        (json!({"state": null}), "/state must"),
    ] {
        let found = violations(&twice(more.clone()));
        let expected = format!("/flags/a{place}");
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{more} {found:?}"
        );
    }
    let same = json!({"salt": "s", "description": "d", "metadata": {
        "pennon.rolloutPercentage": 5, "pennon.salt": "s", "pennon.description": "d"
    }});
    assert_eq!(
        read_new(&twice(same)).expect("no contradiction").flags[&key("a")],
        expected
    );
    for flag in [
        json!({"state": "ENABLED"}),
        json!({"state": "ENABLED", "variants": {"a": 1}, "salt": "s"}),
    ] {
        assert_eq!(
            violations(&json!({"flags": {"a": flag}})).len(),
            1,
            "{flag}"
        );
    }
}

#[test]
fn unknown_fields_are_kept_for_the_export() {
    let mut file = file();
    file["$comment"] = json!("x");
    file["flags"]["a"]["owner"] = json!({"team": 1});
    file["flags"]["b"]["key"] = json!("another");
    file["flags"]["b"]["metadata"]["pennon.new"] = json!(true);
    file["flags"]["c"]["description"] = json!(["a", "list"]);
    file["metadata"]["pennon.newer"] = json!(1);
    let read = read_new(&file).expect("a flagd file");
    assert_eq!(write(&read.flags, &read.settings, Form::Export), file);
    assert_eq!(
        read.kept,
        [
            "/$schema",
            "/metadata/pennon.newer",
            "/$comment",
            "/flags/a/owner",
            "/flags/b/key",
            "/flags/b/metadata/pennon.new",
            "/flags/c/description"
        ]
    );
    let many = (0..2_000).map(|number| (format!("f{number}"), json!(number)));
    file["flags"]["a"]
        .as_object_mut()
        .expect("a flag")
        .extend(many);
    let read = read_new(&file).expect("a flagd file");
    assert_eq!(read.kept.len(), 1_000);
    assert_eq!(
        texts(&read.warnings),
        [" 1007 more fields were kept but are not listed"]
    );
}

#[test]
fn settings_that_the_file_lacks_stay() {
    let object = |value: Value| value.as_object().cloned().expect("an object");
    let current = Settings {
        evaluators: object(json!({"mine": {"==": [1, 1]}, "both": {"==": [1, 1]}})),
        fractional: FractionalVersion::V2,
        metadata: object(json!({"team": "shop", "cost": 1})),
        other: object(json!({"$schema": "s", "x": 1})),
        ..Settings::default()
    };
    let after = |more: Value, mode| {
        let mut file = object(json!({"flags": {"a": {
            "state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"$ref": "both"}, "a"]}
        }}}));
        file.extend(object(more));
        let read = read(&Value::Object(file), &current, mode).expect("a file");
        read.settings
    };
    for mode in [Mode::Replace, Mode::Merge] {
        assert_eq!(after(json!({}), mode), current);
        let version = json!({"metadata": {"pennon.fractional": "v3"}});
        let expected = Settings {
            fractional: FractionalVersion::V3,
            ..current.clone()
        };
        assert_eq!(after(version, mode), expected, "the metadata changed");
        let other = after(json!({"x": 2, "y": {}}), mode).other;
        assert_eq!(other, object(json!({"$schema": "s", "x": 2, "y": {}})));
    }
    let more = json!({"$evaluators": {"both": {"==": [2, 2]}}, "metadata": {"team": "search"}});
    let replaced = after(more.clone(), Mode::Replace);
    assert_eq!(replaced.fractional, FractionalVersion::V2);
    assert_eq!(replaced.metadata, object(json!({"team": "search"})));
    assert_eq!(replaced.evaluators, object(json!({"both": {"==": [2, 2]}})));
    let merged = after(more, Mode::Merge);
    assert_eq!(merged.fractional, FractionalVersion::V2);
    assert_eq!(
        merged.metadata,
        object(json!({"team": "search", "cost": 1}))
    );
    assert_eq!(merged.evaluators.len(), 2);
    assert_eq!(merged.evaluators["both"], json!({"==": [2, 2]}));
    let emptied = after(json!({"metadata": {}}), Mode::Replace);
    assert!(emptied.metadata.is_empty());
}

#[test]
fn a_rule_that_cannot_work_is_a_warning() {
    let mut file = file();
    file["flags"]["a"]["targeting"] = json!({"if": [{"var": "x"}, "x", "z"]});
    file["flags"]["c"]["targeting"] = json!({"$ref": "none"});
    file["$evaluators"]["none"] = json!({"fractional": [["o", 0]]});
    let read = read_new(&file).expect("a flagd file");
    assert_eq!(
        texts(&read.warnings),
        [
            "/$evaluators/none/fractional all weights are 0, so nobody gets a variant",
            "/flags/a/targeting/if/2 names no variant: there is no 'z'",
            "/flags/c/targeting/$ref the evaluator 'none': all weights are 0, so nobody gets a \
             variant",
        ]
    );
}

#[test]
fn a_list_of_warnings_ends_with_how_many_are_missing() {
    let wrong = json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": {"if": [{"var": "x"}, "ghost"]}});
    let flags: Map<String, Value> = (0..60)
        .map(|number| (format!("f{number}"), wrong.clone()))
        .collect();
    let mut file = json!({ "flags": flags });
    let places = |read: &File| {
        read.warnings
            .iter()
            .filter(|it| !it.pointer.is_empty())
            .count()
    };
    let notices = |read: &File| {
        let all = read.warnings.iter().filter(|it| it.pointer.is_empty());
        all.map(|it| it.message.clone()).collect::<Vec<_>>()
    };
    let read = read_new(&file).expect("a flagd file");
    assert_eq!(places(&read), 50);
    assert_eq!(notices(&read), ["10 more are not listed"]);

    file["pennon.unreadable"] =
        json!({"flags": (0..51).map(|number| format!("lost{number}")).collect::<Vec<_>>()});
    let unknown = (0..1_001).map(|number| (format!("field{number}"), json!(number)));
    file["flags"]["f0"]
        .as_object_mut()
        .expect("a flag")
        .extend(unknown);
    let read = read_new(&file).expect("a flagd file");
    assert_eq!(places(&read), 50);
    assert_eq!(
        notices(&read),
        [
            "61 more are not listed",
            "1 more fields were kept but are not listed"
        ]
    );
    assert_eq!(read.unreadable.len(), 51);

    // More warnings than a list holds: in an evaluator, in a flag that refers to it, and in another flag.
    let many = |result: Value| {
        let branches = (0..60).flat_map(|_| [json!({"var": "x"}), result.clone()]);
        json!({"if": branches.collect::<Vec<_>>()})
    };
    let flag = |rule: Value| json!({"state": "ENABLED", "variants": {"a": 1}, "targeting": rule});
    let nested = json!({
        "$evaluators": {"none": many(json!({"fractional": [["a", 0]]}))},
        "flags": {"f": flag(json!({"$ref": "none"})), "g": flag(many(json!("ghost")))}
    });
    let read = read_new(&nested).expect("a flagd file");
    assert_eq!(places(&read), 50);
    assert_eq!(notices(&read), ["130 more are not listed"]);

    file["flags"] = json!((0..51).map(|_| json!(1)).collect::<Vec<_>>());
    let errors = read_new(&file).expect_err("violations");
    assert_eq!(errors.len(), 51);
    assert_eq!(texts(&errors[50..]), [" 1 more is not listed"]);
}

#[test]
fn an_evaluator_that_only_the_environment_has_is_rejected_only_if_the_file_breaks_it() {
    let nested =
        |levels: usize, rule: Value| (0..levels).fold(rule, |rule, _| json!({"!!": [rule]}));
    let evaluators = json!({
        // An earlier version accepted this.
        "old": {"?:": [{"var": "a"}, true, false]},
        "good": nested(40, json!({"$ref": "both"})),
        "both": {"==": [1, 1]},
    });
    let current = Settings {
        evaluators: evaluators.as_object().cloned().expect("an object"),
        ..Settings::default()
    };
    let flags = json!({"x": {"state": "ENABLED", "rolloutPercentage": 5}});
    for mode in [Mode::Replace, Mode::Merge] {
        let file = json!({ "flags": flags });
        let read = read(&file, &current, mode).expect("a flagd file");
        assert_eq!(read.settings, current);
    }
    let with = |both: Value| {
        let file = json!({"flags": flags, "$evaluators": {"both": both}});
        read(&file, &current, Mode::Merge).map_err(Violations::into_list)
    };
    assert!(with(json!({"==": [2, 2]})).is_ok());
    let found = with(nested(40, json!({"var": "a"}))).expect_err("violations");
    let place = format!(
        "/$evaluators/good{}/$ref nested deeper than 64 levels",
        "/!!/0".repeat(40)
    );
    assert_eq!(texts(&found), [place]);
    let found = with(json!({"?:": [{"var": "a"}, true, false]})).expect_err("violations");
    assert_eq!(
        texts(&found),
        ["/$evaluators/both/?: there is no operator '?:'"]
    );
}

#[test]
fn a_salt_beside_an_invalid_rollout_is_not_called_ineffective() {
    for (flag, expected) in [
        (
            json!({"rolloutPercentage": 101, "salt": "s"}),
            vec!["/flags/a/rolloutPercentage must be an integer from 0 to 100 (got 101)"],
        ),
        (
            json!({"salt": "s", "bucketing": "sha256"}),
            vec!["/flags/a/variants is required, or rolloutPercentage for a simple flag"],
        ),
        (
            json!({"variants": {"a": 1}, "salt": "s"}),
            vec![
                "/flags/a/salt has no effect on a flag with variants, only with rolloutPercentage",
            ],
        ),
    ] {
        let mut flag = flag;
        flag["state"] = json!("ENABLED");
        assert_eq!(violations(&json!({"flags": {"a": flag}})), expected);
    }
}
