//! Parses a flagd file into the flags and settings of an environment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{KEY, LOCAL_FIELDS, UNREADABLE};
use super::file::{File, Mode};
use super::read_flag::read_flag;
use super::read_settings::{put, read_file_metadata};
use super::warnings;
use crate::logic::evaluators::Evaluators;
use crate::violation::{Violation, Violations, pointer_step, truncate_text};
use crate::{FlagKey, Settings, validate};

/// Limit on listed fields, which bounds the response to a hostile file.
pub(super) const MAX_KEPT_FIELDS: usize = 1_000;

/// Parses a file for an environment with the settings `current`.
///
/// # Errors
/// The violations.
pub fn read(file: &Value, current: &Settings, mode: Mode) -> Result<File, Violations> {
    let mut reader = Reader {
        problems: Violations::default(),
        kept: Vec::new(),
        more_kept: 0,
    };
    let mut read = File {
        flags: BTreeMap::new(),
        settings: current.clone(),
        kept: Vec::new(),
        warnings: Vec::new(),
        unreadable: BTreeSet::new(),
        items: BTreeMap::new(),
    };
    let mut missing = Violations::default();
    if let Some(fields) = reader.problems.object(file) {
        let file_evaluators = reader.settings(fields, &mut read.settings, mode);
        let settings = read.settings.clone();
        let evaluators = Evaluators::of(&settings);
        // An evaluator that the file lacks is checked only if it was valid before: it may refer to an evaluator of the
        // file that breaks it.
        let before = Evaluators::of(current);
        let was_valid = |name: &str| {
            let mut problems = Violations::default();
            validate::evaluator(name, &before, &mut problems);
            problems.is_empty()
        };
        let is_in_file = |name: &str| file_evaluators.is_some_and(|own| own.contains_key(name));
        reader.problems.inside("$evaluators", |problems| {
            for name in settings.evaluators.keys() {
                if is_in_file(name) || was_valid(name) {
                    validate::evaluator(name, &evaluators, problems);
                }
            }
        });
        match fields.get("flags") {
            Some(flags) => reader.flags(flags, &evaluators, &mut read),
            None => reader.problems.add_at("/flags", "is required"),
        }
        if let Some(listed) = fields.get(UNREADABLE) {
            reader.unreadable(listed, &mut read, &mut missing);
        }
        if reader.problems.is_empty() {
            read.warnings = warnings::with_lint(missing, &read, file_evaluators, &evaluators);
        }
    }
    if reader.more_kept > 0 {
        read.warnings.push(Violation {
            pointer: String::new(),
            message: format!(
                "{} more fields were kept but are not listed",
                reader.more_kept
            ),
        });
    }
    read.kept = reader.kept;
    reader.problems.into_result(read)
}

struct Reader {
    problems: Violations,
    kept: Vec<String>,
    more_kept: usize,
}

impl Reader {
    /// Parses the settings in a file. Returns the evaluators that the file contains.
    fn settings<'v>(
        &mut self,
        fields: &'v Map<String, Value>,
        settings: &mut Settings,
        mode: Mode,
    ) -> Option<&'v Map<String, Value>> {
        let Self {
            problems,
            kept,
            more_kept,
        } = self;
        let mut file_evaluators = None;
        for (name, value) in fields {
            problems.inside(name, |problems| match name.as_str() {
                "flags" | UNREADABLE => {}
                "$evaluators" => {
                    file_evaluators = problems.object(value);
                    let evaluators = file_evaluators.cloned().unwrap_or_default();
                    put(&mut settings.evaluators, evaluators, mode);
                }
                "metadata" => {
                    let mut keep =
                        |problems: &Violations| keep(problems.pointer(), kept, more_kept);
                    read_file_metadata(value, settings, mode, problems, &mut keep);
                }
                name if LOCAL_FIELDS.contains(&name) => problems.add(
                    "belongs to flags.json of the local server; a file for one environment has its flags \
                     at the top level",
                ),
                _ => {
                    settings.other.insert(name.clone(), value.clone());
                    keep(problems.pointer(), kept, more_kept);
                }
            });
        }
        file_evaluators
    }

    /// Parses the list of parts that the export omitted because they were unreadable. Adds a warning for the settings,
    /// and for each flag that the file still lacks, up to 50 in all.
    fn unreadable(&mut self, listed: &Value, read: &mut File, warnings: &mut Violations) {
        self.problems.inside(UNREADABLE, |problems| {
            for (name, value) in problems.object(listed).into_iter().flatten() {
                problems.inside(name, |problems| match (name.as_str(), value) {
                    ("settings", Value::Bool(false)) => {}
                    ("settings", Value::Bool(true)) => warnings.add_at(
                        problems.pointer(),
                        "the settings were unreadable when this file was exported, so it does not contain them",
                    ),
                    ("flags", Value::Array(keys)) => {
                        for (index, key) in keys.iter().enumerate() {
                            problems.inside(&index.to_string(), |problems| {
                                let key = key.as_str().and_then(|text| FlagKey::parse(text).ok());
                                let Some(key) = key else {
                                    return problems.add("must be the key of a flag");
                                };
                                if read.flags.contains_key(&key) {
                                    return;
                                }
                                warnings.add_at(
                                    problems.pointer(),
                                    format!(
                                        "the flag '{key}' was unreadable when this file was exported, so \
                                         it does not contain the flag; an import does not change it"
                                    ),
                                );
                                read.unreadable.insert(key);
                            });
                        }
                    }
                    _ => problems.add("must have only flags, a list of keys, and settings, a boolean"),
                });
            }
        });
    }

    fn flags(&mut self, flags: &Value, evaluators: &Evaluators<'_>, read: &mut File) {
        match flags {
            Value::Object(flags) => {
                for (name, flag) in flags {
                    let at = format!("/flags/{}", pointer_step(name));
                    self.flag(&at, name, flag, (None, evaluators), read);
                }
            }
            Value::Array(flags) => {
                for (index, flag) in flags.iter().enumerate() {
                    let at = format!("/flags/{index}");
                    match flag.get(KEY).map(Value::as_str) {
                        Some(Some(name)) => {
                            self.flag(&at, name, flag, (Some(index), evaluators), read);
                        }
                        None if !flag.is_object() => {
                            self.problems.add_at(&at, "must be an object");
                        }
                        None | Some(None) => {
                            let at = format!("{at}/{KEY}");
                            self.problems
                                .add_at(&at, "must be the key of the flag, a string");
                        }
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let why = "must be an object, or an array of objects with a key";
                self.problems.add_at("/flags", why);
            }
        }
    }

    /// Parses the flag at a place in the file. `item` is its index if the file has an array of flags.
    fn flag(
        &mut self,
        at: &str,
        name: &str,
        value: &Value,
        (item, evaluators): (Option<usize>, &Evaluators<'_>),
        read: &mut File,
    ) {
        let Self {
            problems,
            kept,
            more_kept,
        } = self;
        problems.at(at, |problems| {
            let key = match FlagKey::parse(name) {
                Ok(key) => key,
                Err(error) => return problems.add(error.to_string()),
            };
            if let Some(index) = item
                && read.items.insert(key.clone(), index).is_some()
            {
                let why = format!("an earlier flag has the same key '{key}'");
                problems.add_at("/key", why);
            }
            let mut keep = |problems: &Violations| keep(problems.pointer(), kept, more_kept);
            let is_item = item.is_some();
            let flag = read_flag(value, is_item, evaluators, problems, &mut keep);
            read.flags.insert(key, flag);
        });
    }
}

fn keep(pointer: &str, kept: &mut Vec<String>, more_kept: &mut usize) {
    if kept.len() < MAX_KEPT_FIELDS {
        // The key of the flag may have megabytes.
        kept.push(truncate_text(pointer));
    } else {
        *more_kept += 1;
    }
}
