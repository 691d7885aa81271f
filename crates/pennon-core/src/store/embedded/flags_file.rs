//! `flags.json`: a flagd file, with production at its top level and the other environments under
//! `environments`. What it may say beyond flagd's schema is in docs/local.md.

use std::collections::BTreeMap;
use std::path::Path;

use pennon_eval::flagd::{self, Form, Mode};
use pennon_eval::json::{self, JsonError};
use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Settings, Violation, pointer_step};
use serde_json::{Map, Value};

use super::line::line_of;
use super::old_form::is_old;
use super::state::{EnvironmentNote, State};
use crate::environment::Environment;
use crate::limits::{NO_EFFECT, check_flag, check_metadata, check_together, too_large};
use crate::store::record::ScheduleRecord;

/// The fields that flagd's files do not have: the environments but production, and how questions are
/// answered that a flag leaves open.
const ENVIRONMENTS: &str = "environments";
const DEFAULTS: &str = "evaluationDefaults";
/// Of a flag: users who are decided by name.
const OVERRIDES: &str = "overrides";
/// The longest user id in an override, in characters.
const LONGEST_USER: usize = 255;
/// As many mistakes are told; whoever mends them sees the others.
const MOST_TOLD: usize = 10;

/// What `flags.json` says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contents {
    pub(super) defaults: EvaluationDefaults,
    /// Production is always among them.
    pub(super) environments: BTreeMap<String, FlagSet>,
}

/// The flags in use of an environment, and what holds for all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FlagSet {
    pub(super) flags: BTreeMap<FlagKey, Flag>,
    pub(super) settings: Settings,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            // A file that does not say is a new one.
            defaults: EvaluationDefaults::New,
            environments: [(Environment::production().to_string(), FlagSet::default())].into(),
        }
    }
}

impl Contents {
    /// The flag in use under this key.
    pub(super) fn flag(&self, environment: &str, key: &FlagKey) -> Option<&Flag> {
        self.environments.get(environment)?.flags.get(key)
    }

    pub(super) fn flag_mut(&mut self, environment: &str, key: &FlagKey) -> Option<&mut Flag> {
        self.environments.get_mut(environment)?.flags.get_mut(key)
    }

    /// An environment, which thereby exists.
    pub(super) fn of(&mut self, environment: &str) -> &mut FlagSet {
        self.environments.entry(environment.to_owned()).or_default()
    }

    /// Reads the text of a file. What the state knows of its flags beside is added.
    ///
    /// # Errors
    /// A sentence that names the file and every mistake with its place.
    pub(super) fn parse(text: &str, state: &State, path: &Path) -> Result<Self, String> {
        Self::parse_after(None, text, state, path)
    }

    /// Reads the text of a file that was this before. What takes too much, of memory or of the time of a
    /// request, must not grow; in a file that is read for the first time it is only worth a warning.
    ///
    /// # Errors
    /// A sentence that names the file and every mistake with its place.
    pub(super) fn parse_after(
        before: Option<&Self>,
        text: &str,
        state: &State,
        path: &Path,
    ) -> Result<Self, String> {
        let value = match json::parse(text.as_bytes()) {
            Ok(value) => value,
            Err(JsonError::Syntax(error)) => return Err(not_right(path, &error)),
            Err(JsonError::Duplicates(twice)) => return Err(told(&twice, text, path)),
        };
        let read = Self::of_value(&value, state);
        let read = read.map_err(|mistakes| told(&mistakes, text, path))?;
        let mistakes = read.take_too_much(before);
        if mistakes.is_empty() {
            return Ok(read);
        }
        if before.is_some() {
            return Err(told(&mistakes, text, path));
        }
        for found in mistakes {
            tracing::warn!(at = found.pointer, "in flags.json: {}", found.message);
        }
        Ok(read)
    }

    /// Environments whose flags take too much together, and more than before.
    fn take_too_much(&self, before: Option<&Self>) -> Vec<Violation> {
        let found = self.environments.iter().filter_map(|(name, set)| {
            let before = before.map(|before| before.environments.get(name));
            let empty = FlagSet::default();
            let before = before.map(|before| before.unwrap_or(&empty));
            let before = before.map(|before| (&before.flags, &before.settings));
            let why = check_together(name, before, (&set.flags, &set.settings))?;
            let at = if *name == *Environment::production().as_str() {
                "/flags".to_owned()
            } else {
                format!("/{ENVIRONMENTS}/{}/flags", pointer_step(name))
            };
            Some(problem(&at, why))
        });
        found.collect()
    }

    fn of_value(value: &Value, state: &State) -> Result<Self, Vec<Violation>> {
        let mut contents = Self::default();
        let mut mistakes = Vec::new();
        let Some(fields) = value.as_object() else {
            return Err(vec![problem("", "must be an object")]);
        };
        if is_old(value) {
            let why = "has the form of earlier versions, without /flags at the top; it is converted \
                       when the server starts";
            return Err(vec![problem("", why)]);
        }
        let mut production = fields.clone();
        if let Some(value) = production.shift_remove(DEFAULTS) {
            match value.as_str().and_then(EvaluationDefaults::named) {
                Some(defaults) => contents.defaults = defaults,
                None => mistakes.push(problem(
                    &format!("/{DEFAULTS}"),
                    "must be \"existing\" or \"new\"",
                )),
            }
        }
        let others = production.shift_remove(ENVIRONMENTS);
        let name = Environment::production();
        contents.add(
            name.as_str(),
            &Value::Object(production),
            "",
            state,
            &mut mistakes,
        );
        match &others {
            None => {}
            Some(Value::Object(others)) => {
                for (name, value) in others {
                    let place = format!("/{ENVIRONMENTS}/{}", pointer_step(name));
                    match Environment::parse(name) {
                        Err(error) => mistakes.push(problem(&place, error.to_string())),
                        Ok(environment) if environment == Environment::production() => {
                            let why = "the flags of production stand at the top level of the file";
                            mistakes.push(problem(&place, why));
                        }
                        Ok(_) => contents.add(name, value, &place, state, &mut mistakes),
                    }
                }
            }
            Some(_) => mistakes.push(problem(&format!("/{ENVIRONMENTS}"), "must be an object")),
        }
        if mistakes.is_empty() {
            Ok(contents)
        } else {
            Err(mistakes)
        }
    }

    fn add(
        &mut self,
        name: &str,
        value: &Value,
        place: &str,
        state: &State,
        mistakes: &mut Vec<Violation>,
    ) {
        let inside = |found: Violation| Violation {
            pointer: format!("{place}{}", found.pointer),
            ..found
        };
        let mut file = match flagd::read(value, &Settings::default(), Mode::Replace) {
            Ok(file) => file,
            Err(found) => return mistakes.extend(found.into_iter().map(inside)),
        };
        for found in file.warnings.drain(..).map(inside) {
            tracing::warn!(at = found.pointer, "in flags.json: {}", found.message);
        }
        for at in file.kept.drain(..) {
            tracing::warn!(
                at = format!("{place}{at}"),
                "in flags.json: kept and not understood"
            );
        }
        let mut flags = std::mem::take(&mut file.flags);
        let aside = state.of(name);
        for (key, flag) in &mut flags {
            let at = format!("{place}{}", file.pointer_to(key));
            let note = state.note(name, key).cloned().unwrap_or_default();
            if !note.exempt {
                let schedules = aside.into_iter().flat_map(|aside| aside.schedules.values());
                let found = broken_rules(key, flag, schedules);
                mistakes.extend(found.into_iter().map(|found| Violation {
                    pointer: format!("{at}{}", found.pointer),
                    ..found
                }));
            }
            if flag.definition.is_some() {
                if flag.salt.is_some() {
                    let why = "has no effect on a flag with variants";
                    mistakes.push(problem(&format!("{at}/metadata/pennon.salt"), why));
                }
                flag.rollout_percentage = note.rollout_percentage;
                flag.salt = note.salt;
            }
        }
        let settings = file.settings;
        let set = FlagSet { flags, settings };
        let known = aside.map(|aside| aside.note.clone()).unwrap_or_default();
        let inside = set.broken_rules(name, &known).into_iter().map(inside);
        mistakes.extend(inside);
        self.environments.insert(name.to_owned(), set);
    }

    /// The text of a file that says this.
    pub(super) fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut file = Map::new();
        match self.defaults {
            EvaluationDefaults::Existing => {
                file.insert(DEFAULTS.to_owned(), self.defaults.name().into());
            }
            // A file that says something else is not read at all.
            EvaluationDefaults::New | EvaluationDefaults::Unreadable => {}
        }
        let mut others = Map::new();
        let production = Environment::production();
        for (name, set) in &self.environments {
            let fields = set.to_fields();
            if name == production.as_str() {
                // `$schema` belongs to the top, where editors look for it.
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
    /// What the routes of the API would refuse of the flags and settings as a whole, with places in the
    /// environment. What is known from before a rule may stay.
    fn broken_rules(&self, name: &str, known: &EnvironmentNote) -> Vec<Violation> {
        let mut found = Vec::new();
        if !known.exempt {
            found.extend(check_metadata(&self.settings.metadata));
        }
        if let Some((_, why)) = too_large(name, self.flags.iter(), &self.settings, known.bulk_size)
        {
            found.push(problem("/flags", why));
        }
        found
    }

    /// What it has from before today's rules, when it is taken over from an earlier version.
    pub(super) fn note(&self, name: &str) -> EnvironmentNote {
        let size = too_large(name, self.flags.iter(), &self.settings, 0);
        EnvironmentNote {
            bulk_size: size.map_or(0, |(total, _)| total),
            exempt: check_metadata(&self.settings.metadata).is_some(),
        }
    }

    fn to_fields(&self) -> Map<String, Value> {
        let mut flags = self.flags.clone();
        for flag in flags.values_mut().filter(|flag| flag.definition.is_some()) {
            // It has no effect there, and is in the state.
            flag.salt = None;
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

/// What the routes of the API would refuse of a new flag, with places in the flag: of the flag itself, of
/// its overrides, and because of what is planned for it.
pub(super) fn broken_rules<'a>(
    key: &FlagKey,
    flag: &Flag,
    schedules: impl Iterator<Item = &'a ScheduleRecord>,
) -> Vec<Violation> {
    let mut found = check_flag(key, flag, None);
    for about_key in found.iter_mut().filter(|found| found.pointer.is_empty()) {
        about_key.message = format!("the key: {}", about_key.message);
    }
    if flag.definition.is_some() {
        let planned = schedules.filter(|schedule| {
            schedule.flag_key == *key && schedule.is_open() && schedule.sets_rollout_percentage()
        });
        found.extend(planned.map(|schedule| {
            let id = &schedule.id;
            let why =
                format!("schedule '{id}' plans a rollout percentage. {NO_EFFECT}; cancel it first");
            problem("/variants", why)
        }));
    }
    for (user, kind) in &flag.overrides {
        let place = format!("/{OVERRIDES}/{}", pointer_step(user));
        if !(1..=LONGEST_USER).contains(&user.chars().count()) || user.contains('\0') {
            let why = format!("a user id has 1 to {LONGEST_USER} characters, and no NUL");
            found.push(problem(&place, why));
        }
        match kind {
            Override::Include | Override::Exclude => {}
            Override::Unreadable => {
                found.push(problem(&place, "must be include, exclude or a variant"));
            }
            Override::Variant(variant) => {
                let definition = flag.definition.as_ref();
                if definition.is_none_or(|known| !known.variants.contains_key(variant)) {
                    found.push(problem(&place, format!("there is no variant '{variant}'")));
                }
            }
        }
    }
    found
}

fn problem(pointer: &str, message: impl Into<String>) -> Violation {
    Violation {
        pointer: pointer.to_owned(),
        message: message.into(),
    }
}

/// A sentence about a file that cannot be taken as it is.
pub(super) fn not_right(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} is invalid: {error}", path.display())
}

/// The same about its mistakes, each with its line.
fn told(mistakes: &[Violation], text: &str, path: &Path) -> String {
    let tell = |found: &Violation| {
        let line = line_of(text, &found.pointer);
        let line = line.map_or(String::new(), |line| format!("line {line}, "));
        let place = if found.pointer.is_empty() {
            "the file"
        } else {
            &found.pointer
        };
        format!("{line}{place}: {}", found.message)
    };
    let mut all: Vec<String> = mistakes.iter().take(MOST_TOLD).map(tell).collect();
    if mistakes.len() > MOST_TOLD {
        all.push(format!("and {} more", mistakes.len() - MOST_TOLD));
    }
    not_right(path, &all.join("; "))
}
