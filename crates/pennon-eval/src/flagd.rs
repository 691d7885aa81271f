//! A placeholder until the real one is here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Definition, Flag, FlagKey, Problem, Rollout, Settings};

/// Reads a file.
///
/// # Errors
/// What is wrong.
pub fn read(file: &Value) -> Result<(BTreeMap<FlagKey, Flag>, Settings), Vec<Problem>> {
    let wrong = |at: &str, problem: &str| {
        vec![Problem {
            at: at.to_owned(),
            problem: problem.to_owned(),
        }]
    };
    let flags = file["flags"]
        .as_object()
        .ok_or_else(|| wrong("/flags", "expected an object"))?;
    let settings = Settings {
        evaluators: file["$evaluators"].as_object().cloned().unwrap_or_default(),
        metadata: file["metadata"].as_object().cloned().unwrap_or_default(),
        ..Settings::default()
    };
    let mut read = BTreeMap::new();
    for (key, text) in flags {
        let at = format!("/flags/{key}");
        let mut definition =
            Definition::validate(text, &settings).map_err(|_| wrong(&at, "no flag"))?;
        if definition.variants.is_empty() {
            return Err(wrong(&format!("{at}/variants"), "expected variants"));
        }
        let simple = definition
            .metadata
            .remove("rollout")
            .and_then(|value| value.as_i64());
        let flag = Flag {
            enabled: text["state"] == "ENABLED",
            rollout_percentage: Rollout::parse(simple.unwrap_or(0)).unwrap_or_default(),
            definition: simple.is_none().then_some(definition),
            ..Flag::default()
        };
        read.insert(
            FlagKey::parse(key.as_str()).map_err(|_| wrong(&at, "no key"))?,
            flag,
        );
    }
    Ok((read, settings))
}

/// Writes a file.
#[must_use]
pub fn write(flags: &BTreeMap<FlagKey, Flag>, settings: &Settings) -> Value {
    let mut all = Map::new();
    for (key, flag) in flags {
        let mut text = match &flag.definition {
            Some(definition) => serde_json::to_value(definition).unwrap_or_default(),
            None => json!({"variants": {"on": true, "off": false}, "defaultVariant": "off",
                           "metadata": {"rollout": i64::from(flag.rollout_percentage)}}),
        };
        text["state"] = json!(if flag.enabled { "ENABLED" } else { "DISABLED" });
        all.insert(key.to_string(), text);
    }
    json!({"flags": all, "$evaluators": settings.evaluators, "metadata": settings.metadata})
}
