//! The format of `flags.json`: a flagd file with production at its top level and the other environments under
//! `environments`. docs/local.md describes the extensions of flagd's schema.

use std::collections::BTreeMap;
use std::path::Path;

use pennon_eval::flagd::{self, Form, Mode, RESERVED_SETTINGS_METADATA};
use pennon_eval::json::{self, JsonError};
use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Settings};
use pennon_eval::{Violation, Violations, pointer_step};
use serde_json::{Map, Value};

use super::line::line_of;
use super::old_format::is_old;
use super::state::{Exemptions, State};
use crate::environment::Environment;
use crate::limits::{Measure, NO_EFFECT, check_flag, check_metadata, first_exceeded};
use crate::store::record::ScheduleRecord;

/// The field with all environments except production.
const ENVIRONMENTS: &str = "environments";
/// The field with the evaluation defaults.
const DEFAULTS: &str = "evaluationDefaults";
/// The field of a flag with its overrides by user.
const OVERRIDES: &str = "overrides";
/// Limit on the length of a user id in an override, in characters.
const MAX_USER_LENGTH: usize = 255;

/// The contents of `flags.json`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contents {
    pub(super) defaults: EvaluationDefaults,
    /// Always includes production.
    pub(super) environments: BTreeMap<String, FlagSet>,
}

/// The flags in use and the settings of an environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FlagSet {
    pub(super) flags: BTreeMap<FlagKey, Flag>,
    pub(super) settings: Settings,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            // A file without the field was created with the new defaults.
            defaults: EvaluationDefaults::New,
            environments: [(Environment::production().to_string(), FlagSet::default())].into(),
        }
    }
}

impl Contents {
    /// The flag in use with this key.
    pub(super) fn flag(&self, environment: &str, key: &FlagKey) -> Option<&Flag> {
        self.environments.get(environment)?.flags.get(key)
    }

    pub(super) fn flag_mut(&mut self, environment: &str, key: &FlagKey) -> Option<&mut Flag> {
        self.environments.get_mut(environment)?.flags.get_mut(key)
    }

    /// An environment, which is created if necessary.
    pub(super) fn environment_mut(&mut self, environment: &str) -> &mut FlagSet {
        self.environments.entry(environment.to_owned()).or_default()
    }

    /// Parses the text of a file, and adds data of its flags from the state.
    ///
    /// # Errors
    /// A message with the path and all violations, each with its line and pointer.
    pub(super) fn parse(text: &str, state: &State, path: &Path) -> Result<Self, String> {
        Self::parse_after(None, text, state, path)
    }

    /// Parses the text after an edit of the contents `before`. An environment that exceeds a limit on all its flags
    /// must not have grown. Without `before`, an exceeded limit is only logged.
    ///
    /// # Errors
    /// A message with the path and all violations, each with its line and pointer.
    pub(super) fn parse_after(
        before: Option<&Self>,
        text: &str,
        state: &State,
        path: &Path,
    ) -> Result<Self, String> {
        let value = match json::parse(text.as_bytes()) {
            Ok(value) => value,
            Err(JsonError::Syntax(error)) => return Err(invalid_file(path, &error)),
            Err(JsonError::Duplicates(violations)) => {
                return Err(with_lines(&violations, text, path));
            }
        };
        let read = Self::of_value(&value, state);
        let read = read.map_err(|violations| with_lines(&violations, text, path))?;
        let violations = read.exceeded_limits(before);
        if violations.is_empty() {
            return Ok(read);
        }
        if before.is_some() {
            return Err(with_lines(&violations, text, path));
        }
        for found in violations.into_list() {
            tracing::warn!(at = found.pointer, "in flags.json: {}", found.message);
        }
        Ok(read)
    }

    /// The limits that environments exceed: with contents before, only those of environments that have grown.
    fn exceeded_limits(&self, before: Option<&Self>) -> Violations {
        let found = self.environments.iter().filter_map(|(name, set)| {
            let before = before.map(|before| before.environments.get(name));
            let empty = FlagSet::default();
            let before = before.map(|before| before.unwrap_or(&empty));
            let before = before.map(|before| (before.flags.iter(), &before.settings));
            let after = (set.flags.iter(), &set.settings);
            let (_, why) = first_exceeded(&Measure::ALL, name, before, after)?;
            let at = if *name == *Environment::production().as_str() {
                "/flags".to_owned()
            } else {
                format!("/{ENVIRONMENTS}/{}/flags", pointer_step(name))
            };
            Some(violation(&at, why))
        });
        found.collect()
    }

    fn of_value(value: &Value, state: &State) -> Result<Self, Violations> {
        let mut contents = Self::default();
        let mut violations = Violations::default();
        let Some(fields) = value.as_object() else {
            violations.add_at("", "must be an object");
            return Err(violations);
        };
        if is_old(value) {
            let why = "has the format of earlier versions, without /flags at the top; it is converted \
                       when the server starts";
            violations.add_at("", why);
            return Err(violations);
        }
        let mut production = fields.clone();
        if let Some(value) = production.shift_remove(DEFAULTS) {
            match value.as_str().and_then(EvaluationDefaults::named) {
                Some(defaults) => contents.defaults = defaults,
                None => violations.add_at(
                    &format!("/{DEFAULTS}"),
                    format!(
                        "must be \"existing\" or \"new\" (got {})",
                        json::quote(&value)
                    ),
                ),
            }
        }
        let others = production.shift_remove(ENVIRONMENTS);
        let name = Environment::production();
        contents.add(
            name.as_str(),
            &Value::Object(production),
            "",
            state,
            &mut violations,
        );
        match &others {
            None => {}
            Some(Value::Object(others)) => {
                for (name, value) in others {
                    let place = format!("/{ENVIRONMENTS}/{}", pointer_step(name));
                    match Environment::parse(name) {
                        Err(error) => violations.add_at(&place, error.to_string()),
                        Ok(environment) if environment == Environment::production() => {
                            let why = "the flags of production belong to the top level of the file";
                            violations.add_at(&place, why);
                        }
                        Ok(_) => contents.add(name, value, &place, state, &mut violations),
                    }
                }
            }
            Some(_) => violations.add_at(&format!("/{ENVIRONMENTS}"), "must be an object"),
        }
        violations.into_result(contents)
    }

    /// Parses an environment and adds it. `place` is its pointer in the file.
    fn add(
        &mut self,
        name: &str,
        value: &Value,
        place: &str,
        state: &State,
        violations: &mut Violations,
    ) {
        let inside = |found: Violation| Violation {
            pointer: format!("{place}{}", found.pointer),
            ..found
        };
        let mut file = match flagd::read(value, &Settings::default(), Mode::Replace) {
            Ok(file) => file,
            Err(found) => return violations.at(place, |violations| violations.append(found)),
        };
        for found in file.warnings.drain(..).map(inside) {
            tracing::warn!(at = found.pointer, "in flags.json: {}", found.message);
        }
        for at in file.kept.drain(..) {
            tracing::warn!(
                at = format!("{place}{at}"),
                "in flags.json: unknown field, kept unchanged"
            );
        }
        let mut flags = std::mem::take(&mut file.flags);
        let state = state.of(name);
        for (key, flag) in &mut flags {
            let at = format!("{place}{}", file.pointer_to(key));
            let details = state.and_then(|state| state.flags.get(key));
            let details = details.cloned().unwrap_or_default();
            if !details.exempt {
                let schedules = state.into_iter().flat_map(|state| state.schedules.values());
                let found = flag_violations(key, flag, schedules);
                violations.extend(found.into_iter().map(|found| Violation {
                    pointer: format!("{at}{}", found.pointer),
                    ..found
                }));
            }
            if flag.definition.is_some() {
                for (name, is_set) in [
                    ("salt", flag.salt.is_some()),
                    ("bucketing", flag.bucketing.is_some()),
                ] {
                    if is_set {
                        let why = "has no effect on a flag with variants";
                        violations.add_at(&format!("{at}/metadata/pennon.{name}"), why);
                    }
                }
                flag.rollout_percentage = details.rollout_percentage;
                flag.salt = details.salt;
                flag.bucketing = details.bucketing;
            }
        }
        let settings = file.settings;
        let set = FlagSet { flags, settings };
        if state.is_none_or(|state| !state.exemptions.exempt) {
            violations.extend(set.metadata_violation().map(inside));
        }
        self.environments.insert(name.to_owned(), set);
    }

    /// The text of a file with these contents.
    pub(super) fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut file = Map::new();
        match self.defaults {
            EvaluationDefaults::Existing => {
                file.insert(DEFAULTS.to_owned(), self.defaults.name().into());
            }
            // A file with an unreadable value is rejected when it is read.
            EvaluationDefaults::New | EvaluationDefaults::Unreadable => {}
        }
        let mut others = Map::new();
        let production = Environment::production();
        for (name, set) in &self.environments {
            let fields = set.to_fields();
            if name == production.as_str() {
                // `$schema` comes first, where editors look for it.
                let defaults = std::mem::replace(&mut file, fields);
                file.extend(defaults);
            } else {
                others.insert(name.clone(), Value::Object(fields));
            }
        }
        if !others.is_empty() {
            file.insert(ENVIRONMENTS.to_owned(), Value::Object(others));
        }
        let mut text = serde_json::to_string_pretty(&file)?;
        text.push('\n');
        Ok(text)
    }
}

impl FlagSet {
    /// The rule of the API that the metadata of the environment violates.
    fn metadata_violation(&self) -> Option<Violation> {
        check_metadata(&self.settings.metadata, &RESERVED_SETTINGS_METADATA)
    }

    /// The rules that an environment from an earlier version violates, and from which it becomes exempt.
    pub(super) fn exemptions(&self) -> Exemptions {
        Exemptions {
            exempt: self.metadata_violation().is_some(),
        }
    }

    fn to_fields(&self) -> Map<String, Value> {
        let mut flags = self.flags.clone();
        for flag in flags.values_mut().filter(|flag| flag.definition.is_some()) {
            // They have no effect on a typed flag. The state keeps them.
            flag.salt = None;
            flag.bucketing = None;
        }
        match flagd::write(&flags, &self.settings, Form::Local) {
            Value::Object(fields) => fields,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        }
    }
}

/// The rules of the API that a flag violates by itself, by its overrides or by its schedules. Pointers are relative to
/// the flag.
pub(super) fn flag_violations<'a>(
    key: &FlagKey,
    flag: &Flag,
    schedules: impl Iterator<Item = &'a ScheduleRecord>,
) -> Vec<Violation> {
    let mut found = check_flag(key, flag, None);
    for about_key in found.iter_mut().filter(|found| found.pointer.is_empty()) {
        about_key.message = format!("the key: {}", about_key.message);
    }
    if flag.definition.is_some() {
        let ineffective = schedules.filter(|schedule| {
            schedule.flag_key == *key && schedule.is_open() && schedule.sets_rollout_percentage()
        });
        found.extend(ineffective.map(|schedule| {
            let id = &schedule.id;
            let why =
                format!("schedule '{id}' plans a rollout percentage. {NO_EFFECT}; cancel it first");
            violation("/variants", why)
        }));
    }
    for (user, kind) in &flag.overrides {
        let place = format!("/{OVERRIDES}/{}", pointer_step(user));
        if !(1..=MAX_USER_LENGTH).contains(&user.chars().count()) || user.contains('\0') {
            let why = format!("a user id has 1 to {MAX_USER_LENGTH} characters, and no NUL");
            found.push(violation(&place, why));
        }
        match kind {
            Override::Include | Override::Exclude => {}
            Override::Unreadable => {
                found.push(violation(&place, "must be include, exclude or a variant"));
            }
            Override::Variant(variant) => {
                let definition = flag.definition.as_ref();
                if definition.is_none_or(|known| !known.variants.contains_key(variant)) {
                    found.push(violation(
                        &place,
                        format!("there is no variant '{variant}'"),
                    ));
                }
            }
        }
    }
    found
}

fn violation(pointer: &str, message: impl Into<String>) -> Violation {
    Violation {
        pointer: pointer.to_owned(),
        message: message.into(),
    }
}

/// The message about an invalid file.
pub(super) fn invalid_file(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} is invalid: {error}", path.display())
}

/// The message about the violations in a file, each with its line.
fn with_lines(violations: &Violations, text: &str, path: &Path) -> String {
    let all = violations.summary(|found| {
        let line = line_of(text, &found.pointer);
        let line = line.map_or(String::new(), |line| format!("line {line}, "));
        let place = if found.pointer.is_empty() {
            "the file"
        } else {
            &found.pointer
        };
        format!("{line}{place}: {}", found.message)
    });
    invalid_file(path, &all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_names_ten_violations_and_counts_the_others() {
        let flags: Map<String, Value> = (0..60)
            .map(|number| {
                (
                    format!("flag-{number}"),
                    json!({"state": "ON", "rolloutPercentage": 5}),
                )
            })
            .collect();
        let text = json!({ "flags": flags }).to_string();
        let read = Contents::parse(&text, &State::default(), Path::new("flags.json"));
        let message = read.expect_err("violations");
        assert!(message.ends_with("; and 50 more"), "{message}");
        let twice = text.replace("{\"state\":", "{\"state\":\"ON\",\"state\":");
        let read = Contents::parse(&twice, &State::default(), Path::new("flags.json"));
        let message = read.expect_err("duplicate keys");
        assert!(message.ends_with("; and 50 more"), "{message}");
    }
}
