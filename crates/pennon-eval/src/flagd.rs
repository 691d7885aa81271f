//! Whole environments as flagd files, in and out.
//!
//! A flag that flagd knows comes in and goes out unchanged. What flagd does not know (rollouts,
//! overrides, salts, descriptions) travels in the flag's metadata, in fields that begin with
//! `pennon.`; flagd and its SDKs pass over them. A simple flag goes out as a boolean flag that gives as
//! many callers `true`, if not the same ones.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::problem::{Problem, Problems};
use crate::{Definition, Flag, FlagKey, FractionalVersion, Override, Rollout, Settings, validate};

/// Says that the flag is a simple one, and its rollout percentage.
const ROLLOUT: &str = "pennon.rolloutPercentage";
const SALT: &str = "pennon.salt";
const DESCRIPTION: &str = "pennon.description";
/// A text that holds JSON, since metadata is flat.
const OVERRIDES: &str = "pennon.overrides";
/// In the metadata of the file: the version of `fractional`, unless it is the newest.
const FRACTIONAL: &str = "pennon.fractional";

/// The fields of a flag that are no part of its definition.
const STATE: &str = "state";

/// Reads a flagd file.
///
/// # Errors
/// Everything that is wrong with it. Then nothing of it should be taken over.
pub fn read(file: &Value) -> Result<(BTreeMap<FlagKey, Flag>, Settings), Vec<Problem>> {
    let mut problems = Problems::default();
    let mut settings = Settings::default();
    let mut flags = BTreeMap::new();
    let Some(fields) = problems.object(file) else {
        return problems.or((flags, settings));
    };
    for (name, value) in fields {
        problems.inside(name, |problems| match name.as_str() {
            "flags" => {}
            "$evaluators" => {
                let evaluators = problems.object(value);
                settings.evaluators = evaluators.cloned().unwrap_or_default();
            }
            "metadata" => settings.metadata = problems.flat(value),
            _ => {
                settings.other.insert(name.clone(), value.clone());
            }
        });
    }
    read_set_metadata(&mut settings, &mut problems);
    problems.inside("$evaluators", |problems| {
        validate::evaluators(&settings, problems);
    });
    match fields.get("flags") {
        Some(value) => problems.inside("flags", |problems| {
            for (name, value) in problems.object(value).into_iter().flatten() {
                problems.inside(name, |problems| match FlagKey::parse(name.as_str()) {
                    Ok(key) => {
                        flags.insert(key, read_flag(value, &settings, problems));
                    }
                    Err(error) => problems.add(error.to_string()),
                });
            }
        }),
        None => problems.add_at("/flags", "must be there"),
    }
    problems.or((flags, settings))
}

fn read_set_metadata(settings: &mut Settings, problems: &mut Problems) {
    problems.inside("metadata", |problems| {
        for name in ["flagSetId", "version"] {
            if settings
                .metadata
                .get(name)
                .is_some_and(|value| !value.is_string())
            {
                problems.inside(name, |problems| problems.add("must be a string"));
            }
        }
        let version = settings.metadata.shift_remove(FRACTIONAL);
        settings.fractional = match version.as_ref().map(Value::as_str) {
            None | Some(Some("v3")) => FractionalVersion::V3,
            Some(Some("v2")) => FractionalVersion::V2,
            Some(Some(_) | None) => {
                problems.inside(FRACTIONAL, |problems| {
                    problems.add("must be \"v2\" or \"v3\"");
                });
                FractionalVersion::V3
            }
        };
    });
}

fn read_flag(value: &Value, settings: &Settings, problems: &mut Problems) -> Flag {
    let mut definition = Definition::read(value, &[STATE], settings, problems);
    let mut flag = Flag {
        enabled: match value.get(STATE).and_then(Value::as_str) {
            Some("ENABLED") => true,
            Some("DISABLED") => false,
            Some(_) | None => {
                problems.add_at("/state", "must be ENABLED or DISABLED");
                false
            }
        },
        ..Flag::default()
    };
    let rollout = problems.inside("metadata", |problems| {
        read_own(&mut definition.metadata, &mut flag, problems)
    });
    let Some(rollout) = rollout else {
        flag.definition = Some(definition);
        return flag;
    };
    flag.rollout_percentage = rollout;
    if definition == simple(&flag) {
        return flag;
    }
    let place = "/metadata/pennon.rolloutPercentage";
    problems.add_at(
        place,
        "stands beside variants, targeting or metadata that do not belong to it; take it away to make \
         the flag a typed one",
    );
    flag
}

/// Takes what is ours out of a flag's metadata; answers the rollout if there is one.
fn read_own(
    metadata: &mut Map<String, Value>,
    flag: &mut Flag,
    problems: &mut Problems,
) -> Option<Rollout> {
    flag.salt = read_text(metadata, SALT, problems);
    flag.description = read_text(metadata, DESCRIPTION, problems);
    if let Some(text) = read_text(metadata, OVERRIDES, problems) {
        match serde_json::from_str::<BTreeMap<String, Override>>(&text) {
            Ok(overrides) => flag.overrides = overrides,
            Err(error) => problems.inside(OVERRIDES, |problems| problems.add(error.to_string())),
        }
    }
    let rollout = metadata.shift_remove(ROLLOUT)?;
    let parsed = rollout
        .as_i64()
        .and_then(|percent| Rollout::parse(percent).ok());
    if parsed.is_none() {
        problems.inside(ROLLOUT, |problems| {
            problems.add("must be a whole number from 0 to 100");
        });
    }
    parsed
}

fn read_text(
    metadata: &mut Map<String, Value>,
    name: &str,
    problems: &mut Problems,
) -> Option<String> {
    match metadata.shift_remove(name)? {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            problems.inside(name, |problems| problems.add("must be a string"));
            None
        }
    }
}

/// What a simple flag is in flagd's terms: as many callers get `true`, placed by flagd's hash.
fn simple(flag: &Flag) -> Definition {
    let percent = flag.rollout_percentage.percent();
    let is_on = percent == 100;
    Definition {
        variants: [("on", true), ("off", false)]
            .into_iter()
            .map(|(name, on)| (name.to_owned(), on.into()))
            .collect(),
        default_variant: Some(if is_on { "on" } else { "off" }.to_owned()),
        targeting: (1..100)
            .contains(&percent)
            .then(|| json!({"fractional": [["on", percent], ["off", 100 - percent]]})),
        metadata: Map::new(),
    }
}

/// Writes an environment as a flagd file.
#[must_use]
pub fn write(flags: &BTreeMap<FlagKey, Flag>, settings: &Settings) -> Value {
    let flags: Map<String, Value> = flags
        .iter()
        .map(|(key, flag)| (key.to_string(), write_flag(flag)))
        .collect();
    let mut metadata = settings.metadata.clone();
    match settings.fractional {
        FractionalVersion::V2 => {
            metadata.insert(FRACTIONAL.to_owned(), "v2".into());
        }
        FractionalVersion::V3 => {}
    }
    let mut file = settings.other.clone();
    file.insert("flags".to_owned(), Value::Object(flags));
    if !settings.evaluators.is_empty() {
        let evaluators = settings.evaluators.clone();
        file.insert("$evaluators".to_owned(), Value::Object(evaluators));
    }
    if !metadata.is_empty() {
        file.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Value::Object(file)
}

fn write_flag(flag: &Flag) -> Value {
    let definition = match &flag.definition {
        Some(definition) => Cow::Borrowed(definition),
        None => Cow::Owned(simple(flag)),
    };
    let mut fields = Map::new();
    let state = if flag.enabled { "ENABLED" } else { "DISABLED" };
    fields.insert(STATE.to_owned(), state.into());
    let variants = definition.variants.clone();
    fields.insert("variants".to_owned(), Value::Object(variants));
    if let Some(name) = &definition.default_variant {
        fields.insert("defaultVariant".to_owned(), name.as_str().into());
    }
    if let Some(targeting) = &definition.targeting {
        fields.insert("targeting".to_owned(), targeting.clone());
    }
    let mut metadata = definition.metadata.clone();
    if flag.definition.is_none() {
        let percent = flag.rollout_percentage.percent();
        metadata.insert(ROLLOUT.to_owned(), percent.into());
    }
    for (name, text) in [(SALT, &flag.salt), (DESCRIPTION, &flag.description)] {
        if let Some(text) = text {
            metadata.insert(name.to_owned(), text.as_str().into());
        }
    }
    if !flag.overrides.is_empty() {
        let overrides = json!(flag.overrides).to_string();
        metadata.insert(OVERRIDES.to_owned(), overrides.into());
    }
    if !metadata.is_empty() {
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_flagd_file_goes_out_as_it_came_in() {
        let (flags, settings) = read(&file()).expect("a flagd file");
        assert_eq!(flags.len(), 3);
        let written = write(&flags, &settings);
        assert_eq!(written, file());
        assert!(written.to_string().contains("\"y\":2.0"));
    }

    #[test]
    fn what_flagd_does_not_know_comes_back_as_it_went_out() {
        let mut flags = BTreeMap::new();
        for percent in [0, 30, 100] {
            let flag = Flag {
                enabled: percent != 30,
                rollout_percentage: Rollout::parse(percent).expect("in range"),
                description: Some("for \"us\"".to_owned()),
                salt: (percent == 30).then(|| "salt".to_owned()),
                overrides: [
                    ("alice".to_owned(), Override::Exclude),
                    ("bob".to_owned(), Override::Variant("x".to_owned())),
                ]
                .into(),
                definition: None,
            };
            let key = FlagKey::parse(format!("simple-{percent}")).expect("a key");
            flags.insert(key, flag.clone());
            let key = FlagKey::parse(format!("typed-{percent}")).expect("a key");
            let definition = Some(Definition {
                variants: [("x".to_owned(), json!("y"))].into_iter().collect(),
                ..Definition::default()
            });
            flags.insert(
                key,
                Flag {
                    definition,
                    rollout_percentage: Rollout::default(),
                    ..flag
                },
            );
        }
        let settings = Settings {
            fractional: FractionalVersion::V2,
            ..Settings::default()
        };
        let written = write(&flags, &settings);
        assert_eq!(read(&written), Ok((flags, settings)));
    }

    #[test]
    fn every_fault_of_a_file_is_named_with_its_place() {
        let mut file = file();
        file["flags"]["a"]["variants"]["y"] = json!("2");
        file["flags"]["a"]["defaultVariant"] = json!("z");
        file["flags"]["b"]["state"] = json!("off");
        file["flags"]["b"]["targeting"]["if"][0]["$ref"] = json!("theirs");
        file["flags"]["c"]["variants"] = json!({});
        file["flags"]["d/e"] = json!({"state": "ENABLED", "variants": {"a": 1}, "more": 1,
            "targeting": {"sem_ver": ["1", "=", {"var": "v"}]}, "metadata": {"pennon.salt": 1}});
        file["$evaluators"]["ours"] = json!({"fractional": [["a", -1], ["b", {"vra": "w"}], "c"]});
        let places: Vec<String> = read(&file)
            .expect_err("faults")
            .into_iter()
            .map(|problem| format!("{} {}", problem.at, problem.problem))
            .collect();
        assert_eq!(
            places,
            [
                "/$evaluators/ours/fractional/0/1 must be a whole number, 0 or more",
                "/$evaluators/ours/fractional/1/1/vra there is no operator 'vra'",
                "/$evaluators/ours/fractional/2 must be a list of 1 to 2",
                "/flags/a/variants/y must be a number, as the variants before",
                "/flags/a/defaultVariant there is no variant 'z'",
                "/flags/b/targeting/if/0/$ref there is no evaluator 'theirs'",
                "/flags/b/state must be ENABLED or DISABLED",
                "/flags/c/variants must have a variant",
                "/flags/d~1e/more there is no such field",
                "/flags/d~1e/targeting/sem_ver/0 must be a version (semver.org) or a var",
                "/flags/d~1e/metadata/pennon.salt must be a string",
            ]
        );
    }

    #[test]
    fn a_simple_flag_that_was_changed_as_a_typed_one_is_not_taken() {
        let flags = BTreeMap::from([(FlagKey::parse("a").expect("a key"), Flag::default())]);
        let mut file = write(&flags, &Settings::default());
        file["flags"]["a"]["defaultVariant"] = json!("on");
        let problems = read(&file).expect_err("a contradiction");
        assert_eq!(problems[0].at, "/flags/a/metadata/pennon.rolloutPercentage");
    }
}
