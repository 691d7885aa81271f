//! Flagd files: whole environments in and out, and `flags.json` of the local server.
//!
//! A flag that flagd knows comes in and goes out unchanged. What flagd does not know (rollouts and
//! salts) is in the flag's metadata, in fields that begin with `pennon.`; flagd and its SDKs ignore
//! them. A simple flag is exported as a boolean flag that gives as many callers `true`, if not the same
//! ones. A file may also give a simple flag in a short form, which flagd does not read: without
//! `variants`, and with `rolloutPercentage`.

mod warnings;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::json::quote;
use crate::logic::evaluators::Evaluators;
use crate::violation::{Violation, Violations, pointer_step};
use crate::{Definition, Flag, FlagKey, FractionalVersion, Override, Rollout, Settings, validate};

pub use write::write;

use write::simple;

/// Fields of a flag: some of flagd's, and those of the short form of a simple flag.
const STATE: &str = "state";
const KEY: &str = "key";
const DESCRIPTION: &str = "description";
const ROLLOUT: &str = "rolloutPercentage";
const SALT: &str = "salt";
const OVERRIDES: &str = "overrides";

/// Metadata of a flag: marks a simple flag, and is its rollout percentage.
const META_ROLLOUT: &str = "pennon.rolloutPercentage";
const META_SALT: &str = "pennon.salt";
/// Written by earlier versions, which did not know that a flagd file may have a `description`.
const META_DESCRIPTION: &str = "pennon.description";
const META_OVERRIDES: &str = "pennon.overrides";
/// Metadata of the file: the version of `fractional`.
const META_FRACTIONAL: &str = "pennon.fractional";
/// Metadata of the file: settings that override the defaults of the installation.
const META_ANONYMOUS: &str = "pennon.anonymousRollout";
const META_BUCKETING: &str = "pennon.bucketing";
const META_PREFIX: &str = "pennon.";

/// Top-level fields of `flags.json`. The local server takes them out before it reads the rest here; in
/// any other file they would be kept and then mean something in `flags.json`.
const LOCAL_FIELDS: [&str; 2] = ["environments", "evaluationDefaults"];

/// Top-level field of an export: what the environment has and no file can hold, because it cannot be read.
/// `flags` lists keys, `settings` is true when the settings are missing. An import leaves both as they are.
const UNREADABLE: &str = "pennon.unreadable";

/// More than anyone would read, and a bound on the answer to a hostile file.
const MOST_KEPT: usize = 1_000;

/// What happens to settings that the environment has and the file does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The evaluators of the file replace those of the environment, and so does its metadata. Where the
    /// file has no evaluators or no metadata, those of the environment stay.
    #[default]
    Replace,
    /// Evaluators and metadata of the file are added to those of the environment, by name.
    Merge,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For flagd and for imports: simple flags as boolean flags with metadata; no overrides, which are
    /// names of people and do not belong into a file that is passed around.
    Exchange,
    /// For `flags.json`: simple flags in their short form, and overrides.
    Local,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Its flags. Overrides come only from the field `overrides`.
    pub flags: BTreeMap<FlagKey, Flag>,
    /// The settings of the environment with those of the file.
    pub settings: Settings,
    /// JSON pointers to fields that are kept for the export and mean nothing to Pennon; at most 1,000,
    /// and then a warning says how many more there are.
    pub kept: Vec<String>,
    /// Parts that can be kept and cannot work: a rule that chooses a variant which does not exist, a
    /// `fractional` that places nobody.
    pub warnings: Vec<Violation>,
    /// Flags that were unreadable when the file was exported, and that it does not hold for this reason.
    pub unreadable: BTreeSet<FlagKey>,
    /// Where flags are that have no pointer of their own: those of an array.
    items: BTreeMap<FlagKey, usize>,
}

impl File {
    /// The JSON pointer to a flag of the file.
    #[must_use]
    pub fn pointer_to(&self, key: &FlagKey) -> String {
        match self.items.get(key) {
            Some(index) => format!("/flags/{index}"),
            None => format!("/flags/{}", pointer_step(key.as_str())),
        }
    }
}

/// Reads a file into an environment with these settings.
///
/// # Errors
/// Everything that is wrong with it. Then nothing of it should be taken over.
pub fn read(file: &Value, current: &Settings, mode: Mode) -> Result<File, Vec<Violation>> {
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
    let mut left_out = Vec::new();
    if let Some(fields) = reader.problems.object(file) {
        let given = reader.settings(fields, &mut read.settings, mode);
        let settings = read.settings.clone();
        let evaluators = Evaluators::of(&settings);
        reader.problems.inside("$evaluators", |problems| {
            validate::evaluators(&evaluators, problems);
        });
        match fields.get("flags") {
            Some(flags) => reader.flags(flags, &evaluators, &mut read),
            None => reader.problems.add_at("/flags", "must be there"),
        }
        if let Some(listed) = fields.get(UNREADABLE) {
            left_out = reader.unreadable(listed, &mut read);
        }
        if reader.problems.is_empty() {
            read.warnings = left_out;
            read.warnings
                .append(&mut warnings::of(&read, given, &evaluators));
        }
    }
    if reader.more_kept > 0 {
        let problem = format!("{} more fields were kept than are listed", reader.more_kept);
        let at = String::new();
        read.warnings.push(Violation { at, problem });
    }
    read.kept = reader.kept;
    reader.problems.or(read)
}

struct Reader {
    problems: Violations,
    kept: Vec<String>,
    more_kept: usize,
}

impl Reader {
    /// Reads what a file says about the settings of its environment, and answers with its evaluators.
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
        let mut given = None;
        for (name, value) in fields {
            problems.inside(name, |problems| match name.as_str() {
                "flags" | UNREADABLE => {}
                "$evaluators" => {
                    given = problems.object(value);
                    let evaluators = given.cloned().unwrap_or_default();
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
        given
    }

    /// Reads what an export could not hold, and answers with a warning for each part that the file still
    /// lacks.
    fn unreadable(&mut self, listed: &Value, read: &mut File) -> Vec<Violation> {
        let mut warnings = Vec::new();
        self.problems.inside(UNREADABLE, |problems| {
            for (name, value) in problems.object(listed).into_iter().flatten() {
                problems.inside(name, |problems| match (name.as_str(), value) {
                    ("settings", Value::Bool(false)) => {}
                    ("settings", Value::Bool(true)) => warnings.push(Violation {
                        at: problems.pointer().to_owned(),
                        problem: "the settings were unreadable when this file was exported, so it does \
                                  not hold them"
                            .to_owned(),
                    }),
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
                                warnings.push(Violation {
                                    at: problems.pointer().to_owned(),
                                    problem: format!(
                                        "the flag '{key}' was unreadable when this file was exported, so \
                                         it does not hold the flag; an import leaves the flag as it is"
                                    ),
                                });
                                read.unreadable.insert(key);
                            });
                        }
                    }
                    _ => problems.add("must be flags, a list of keys, or settings, true or false"),
                });
            }
        });
        warnings
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
                let why = format!("an earlier flag has the key '{key}' as well");
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
    if kept.len() < MOST_KEPT {
        kept.push(pointer.to_owned());
    } else {
        *more_kept += 1;
    }
}

fn put(into: &mut Map<String, Value>, given: Map<String, Value>, mode: Mode) {
    match mode {
        Mode::Replace => *into = given,
        Mode::Merge => {
            for (name, value) in given {
                into.insert(name, value);
            }
        }
    }
}

/// Reads the metadata of a file: settings of Pennon each by themselves, and the metadata of the
/// environment, unless there is nothing but settings of Pennon.
fn read_file_metadata(
    value: &Value,
    settings: &mut Settings,
    mode: Mode,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) {
    let mut metadata = validate::set_metadata(value, problems);
    let given = metadata.len();
    if let Some(version) = metadata.shift_remove(META_FRACTIONAL) {
        match version.as_str() {
            Some("v2") => settings.fractional = FractionalVersion::V2,
            Some("v3") => settings.fractional = FractionalVersion::V3,
            Some(_) | None => problems.inside(META_FRACTIONAL, |problems| {
                problems.add("must be \"v2\" or \"v3\"");
            }),
        }
    }
    if let Some(anonymous) = metadata.shift_remove(META_ANONYMOUS) {
        problems.inside(META_ANONYMOUS, |problems| {
            let given = validate::anonymous_rollout(&anonymous, problems);
            settings.anonymous_rollout = given.or(settings.anonymous_rollout);
        });
    }
    if let Some(bucketing) = metadata.shift_remove(META_BUCKETING) {
        problems.inside(META_BUCKETING, |problems| {
            let given = validate::bucketing(&bucketing, problems);
            settings.bucketing = given.or(settings.bucketing);
        });
    }
    for name in metadata.keys() {
        if name.starts_with(META_PREFIX) {
            problems.inside(name, |problems| keep(problems));
        }
    }
    if !metadata.is_empty() || given == 0 {
        put(&mut settings.metadata, metadata, mode);
    }
}

fn read_flag(
    value: &Value,
    is_item: bool,
    evaluators: &Evaluators<'_>,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) -> Flag {
    let mut flag = Flag::default();
    let Some(fields) = problems.object(value) else {
        return flag;
    };
    let mut rollout = None;
    let mut salt = None;
    let mut definition =
        Definition::read(
            fields,
            evaluators,
            problems,
            |name, value, problems| match (name, value) {
                (KEY, _) if is_item => {}
                (STATE, _) | (DESCRIPTION, Value::Null) => {}
                (DESCRIPTION, Value::String(text)) => flag.description = Some(text.clone()),
                (ROLLOUT, value) => rollout = read_rollout(value, problems),
                (SALT, value) => salt = read_text(value, problems),
                (OVERRIDES, value) => match BTreeMap::<String, Override>::deserialize(value) {
                    Ok(overrides) => flag.overrides = overrides,
                    Err(error) => problems.add(error.to_string()),
                },
                (name, value) => {
                    flag.other.insert(name.to_owned(), value.clone());
                    keep(problems);
                }
            },
        );
    match fields.get(STATE).and_then(Value::as_str) {
        Some("ENABLED") => flag.enabled = true,
        Some("DISABLED") => {}
        Some(_) | None => problems.add_at("/state", "must be ENABLED or DISABLED"),
    }
    let metadata = &mut definition.metadata;
    let own = problems.inside("metadata", |problems| read_own(metadata, problems, keep));
    let description = flag.description.take();
    flag.description = agree(DESCRIPTION, description, own.description, problems);
    let in_metadata = own.rollout.is_some();
    let rollout = agree(ROLLOUT, rollout, own.rollout, problems);
    let has_salt = salt.is_some();
    flag.salt = agree(SALT, salt, own.salt, problems);
    if let Some(rollout) = rollout {
        flag.rollout_percentage = rollout;
        // Earlier versions wrote a flag with a salt like one without.
        let is_simple = [flag.salt.as_deref(), None]
            .into_iter()
            .any(|salt| definition == simple(rollout, salt));
        if definition != Definition::default() && !is_simple {
            let at = if in_metadata {
                "/metadata/pennon.rolloutPercentage"
            } else {
                "/rolloutPercentage"
            };
            problems.add_at(
                at,
                "stands beside variants, targeting or metadata that do not belong to it; remove it to \
                 make the flag a typed one",
            );
        }
    } else {
        if !fields.contains_key("variants") && !fields.contains_key(ROLLOUT) {
            let why = "must be there, or rolloutPercentage instead for a simple flag";
            problems.add_at("/variants", why);
        }
        if has_salt {
            let why = "has no effect on a flag with variants; it belongs to rolloutPercentage";
            problems.add_at("/salt", why);
        }
        flag.definition = Some(definition);
    }
    flag
}

/// What of Pennon a flag has in its metadata.
#[derive(Default)]
struct Own {
    rollout: Option<Rollout>,
    salt: Option<String>,
    description: Option<String>,
}

/// Takes what is ours out of a flag's metadata.
fn read_own(
    metadata: &mut Map<String, Value>,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) -> Own {
    let mut own = Own::default();
    metadata.retain(|name, value| {
        problems.inside(name, |problems| match name.as_str() {
            META_ROLLOUT => own.rollout = read_rollout(value, problems),
            META_SALT => own.salt = read_text(value, problems),
            META_DESCRIPTION => own.description = read_text(value, problems),
            META_OVERRIDES => problems.add(
                "overrides are not part of a flagd file; set them with POST \
                 /api/admin/flags/{flagKey}/users",
            ),
            name => {
                if name.starts_with(META_PREFIX) {
                    keep(problems);
                }
            }
        });
        ![META_ROLLOUT, META_SALT, META_DESCRIPTION, META_OVERRIDES].contains(&name.as_str())
    });
    own
}

/// The value of a field that a flag and its metadata may both have.
fn agree<T: PartialEq>(
    field: &str,
    of_flag: Option<T>,
    of_metadata: Option<T>,
    problems: &mut Violations,
) -> Option<T> {
    if let (Some(one), Some(other)) = (&of_flag, &of_metadata)
        && one != other
    {
        let at = format!("/metadata/{META_PREFIX}{field}");
        problems.add_at(&at, format!("contradicts the field {field} of the flag"));
    }
    of_flag.or(of_metadata)
}

fn read_rollout(value: &Value, problems: &mut Violations) -> Option<Rollout> {
    // 10.0 and 1e1 are whole as well.
    let percent = (0..=100_u8).find(|percent| value.as_f64() == Some(f64::from(*percent)));
    let rollout = percent.and_then(|percent| Rollout::parse(percent.into()).ok());
    if rollout.is_none() {
        let value = quote(value);
        problems.add(format!("must be an integer from 0 to 100 (got {value})"));
    }
    rollout
}

fn read_text(value: &Value, problems: &mut Violations) -> Option<String> {
    let text = value.as_str().map(str::to_owned);
    if text.is_none() {
        problems.add("must be a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Bucketing;

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
        read(file, &Settings::default(), Mode::Replace)
    }

    fn places(problems: &[Violation]) -> Vec<String> {
        let place = |problem: &Violation| format!("{} {}", problem.at, problem.problem);
        problems.iter().map(place).collect()
    }

    fn faults(file: &Value) -> Vec<String> {
        places(&read_new(file).expect_err("faults"))
    }

    fn key(text: &str) -> FlagKey {
        FlagKey::parse(text).expect("a key")
    }

    #[test]
    fn a_flagd_file_goes_out_as_it_came_in() {
        let read = read_new(&file()).expect("a flagd file");
        assert_eq!(read.flags.len(), 3);
        let written = write(&read.flags, &read.settings, Form::Exchange);
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
        let exported = write(&flags, &settings, Form::Exchange);
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
        let local = write(&flags, &settings, Form::Local);
        assert!(local["flags"]["simple-30"].get("variants").is_none());
        let read = read_new(&local).expect("a local file");
        assert_eq!((read.flags, read.settings), (flags, settings));
        assert!(!exported.to_string().contains("alice"), "names of people");
    }

    #[test]
    fn a_salted_flag_that_an_earlier_version_exported_is_still_a_simple_one() {
        let flag = Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(30).expect("in range"),
            salt: Some("salt".to_owned()),
            ..Flag::default()
        };
        let flags = BTreeMap::from([(key("a"), flag)]);
        let mut exported = write(&flags, &Settings::default(), Form::Exchange);
        let by = exported.pointer("/flags/a/targeting/if/1/fractional/0/cat/0");
        assert_eq!(by, Some(&json!("salt")));
        exported["flags"]["a"]["targeting"] = json!({"fractional": [["on", 30], ["off", 70]]});
        assert_eq!(read_new(&exported).expect("an export").flags, flags);
    }

    #[test]
    fn settings_for_rollouts_are_checked_and_stay_when_a_file_does_not_have_them() {
        let current = Settings {
            anonymous_rollout: Some(true),
            bucketing: Some(Bucketing::Sha256),
            ..Settings::default()
        };
        let file = |metadata: Value| json!({"flags": {}, "metadata": metadata});
        let kept = read(&json!({"flags": {}}), &current, Mode::Replace).expect("a file");
        assert_eq!(kept.settings, current);
        let others =
            file(json!({"pennon.anonymousRollout": false, "pennon.bucketing": "fractional"}));
        let changed = read(&others, &current, Mode::Replace)
            .expect("a file")
            .settings;
        assert_eq!(changed.anonymous_rollout, Some(false));
        assert_eq!(changed.bucketing, Some(Bucketing::Fractional));
        assert_eq!(changed.metadata, Map::new());
        let bad = file(json!({"pennon.anonymousRollout": "no", "pennon.bucketing": "md5"}));
        let problems = read(&bad, &current, Mode::Replace).expect_err("faults");
        let places: Vec<&str> = problems.iter().map(|found| found.at.as_str()).collect();
        assert_eq!(
            places,
            [
                "/metadata/pennon.anonymousRollout",
                "/metadata/pennon.bucketing"
            ]
        );
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
            faults(&json!({"flags": [named, wrong, state, number, 8]})),
            [
                "/flags/1/key an earlier flag has the key 'a' as well",
                "/flags/1/variants must have a variant",
                "/flags/2/key must be the key of the flag, a string",
                "/flags/3/key must be the key of the flag, a string",
                "/flags/4 must be an object",
            ]
        );
        for none in [json!("a"), json!(null)] {
            let why = "/flags must be an object, or an array of objects with a key";
            assert_eq!(faults(&json!({"flags": none})), [why]);
        }
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
            "targeting": {"sem_ver": ["1", "=", {"var": "v"}]},
            "metadata": {"pennon.salt": 1, "pennon.overrides": "{}"}});
        file["$evaluators"]["ours"] = json!({"fractional": [["a", -1], ["b", {"vra": "w"}], "c"]});
        file["environments"] = json!({});
        assert_eq!(
            faults(&file),
            [
                "/environments belongs to flags.json of the local server; a file for one environment \
                 has its flags at the top level",
                "/$evaluators/ours/fractional/0/1 must be a whole number, 0 or more",
                "/$evaluators/ours/fractional/1/1/vra there is no operator 'vra'",
                "/$evaluators/ours/fractional/2 must be a list of 1 to 2",
                "/flags/a/variants/y must be a number, as the variants before",
                "/flags/a/defaultVariant there is no variant 'z'",
                "/flags/b/targeting/if/0/$ref there is no evaluator 'theirs'",
                "/flags/b/state must be ENABLED or DISABLED",
                "/flags/c/variants must have a variant",
                "/flags/d~1e/targeting/sem_ver/0 must be a version (semver.org) or a var",
                "/flags/d~1e/metadata/pennon.salt must be a string",
                "/flags/d~1e/metadata/pennon.overrides overrides are not part of a flagd file; set \
                 them with POST /api/admin/flags/{flagKey}/users",
            ]
        );
    }

    #[test]
    fn a_simple_flag_that_was_changed_as_a_typed_one_is_not_taken() {
        let flags = BTreeMap::from([(key("a"), Flag::default())]);
        let mut file = write(&flags, &Settings::default(), Form::Exchange);
        file["flags"]["a"]["defaultVariant"] = json!("on");
        let problems = read_new(&file).expect_err("a contradiction");
        assert_eq!(problems[0].at, "/flags/a/metadata/pennon.rolloutPercentage");
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
            (json!({"variants": {"a": 1}}), "/rolloutPercentage stands"),
            (json!({"targeting": {}}), "/rolloutPercentage stands"),
            (json!({"metadata": {"a": 1}}), "/rolloutPercentage stands"),
            (json!({"state": null}), "/state must"),
        ] {
            let found = faults(&twice(more.clone()));
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
            assert_eq!(faults(&json!({"flags": {"a": flag}})).len(), 1, "{flag}");
        }
    }

    #[test]
    fn what_a_flagd_file_says_beyond_pennon_is_kept() {
        let mut file = file();
        file["$comment"] = json!("x");
        file["flags"]["a"]["owner"] = json!({"team": 1});
        file["flags"]["b"]["key"] = json!("another");
        file["flags"]["b"]["metadata"]["pennon.new"] = json!(true);
        file["flags"]["c"]["description"] = json!(["a", "list"]);
        file["metadata"]["pennon.newer"] = json!(1);
        let read = read_new(&file).expect("a flagd file");
        assert_eq!(write(&read.flags, &read.settings, Form::Exchange), file);
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
            places(&read.warnings),
            [" 1007 more fields were kept than are listed"]
        );
    }

    #[test]
    fn a_setting_that_the_file_does_not_contain_stays() {
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
            assert_eq!(after(version, mode), expected, "the metadata stays");
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
            places(&read.warnings),
            [
                "/$evaluators/none/fractional all weights are 0, so nobody gets a variant",
                "/flags/a/targeting/if/2 names no variant: there is no 'z'",
                "/flags/c/targeting/$ref the evaluator 'none': all weights are 0, so nobody gets a \
                 variant",
            ]
        );
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json};
    use serde_json::json;

    use super::*;

    fn examples() -> [Value; 3] {
        [
            json!({
                "$schema": "https://flagd.dev/schema/v0/flags.json",
                "flags": {
                    "a": {"state": "ENABLED", "variants": {"x": 1, "y": 2.0}, "defaultVariant": "x",
                        "metadata": {"pennon.salt": "s", "owner": "us"}},
                    "b": {"state": "DISABLED", "variants": {"on": true, "off": false}, "other": [1],
                        "targeting": {"if": [{"$ref": "ours"}, "on", {"fractional": [["on", 1], ["off", 2]]}]}},
                    "c": {"state": "ENABLED", "variants": {"o": {"deep": [1, null]}}, "targeting": {}},
                },
                "$evaluators": {"ours": {"ends_with": [{"var": "email"}, "@ours.com"]}},
                "metadata": {"version": "3", "pennon.fractional": "v2", "pennon.bucketing": "sha256"},
            }),
            json!({"flags": [
                {"key": "s", "state": "ENABLED", "rolloutPercentage": 30, "salt": "pepper",
                    "description": "d", "overrides": {"alice": "include", "bob": {"variant": "x"}}},
                {"key": "t", "state": "ENABLED", "variants": {"a": "x"}, "defaultVariant": null},
            ], "description": "ours"}),
            json!({"flags": {"m": {"state": "ENABLED", "variants": {"on": true, "off": false},
                "defaultVariant": "off", "metadata": {"pennon.rolloutPercentage": 5,
                "pennon.description": "old", "pennon.overrides": {"a": "exclude"}}}}}),
        ]
    }

    #[test]
    fn what_was_read_and_written_reads_the_same_again_in_both_forms() {
        for_all(&json(examples()), |file| {
            for mode in [Mode::Replace, Mode::Merge] {
                let Ok(read_once) = read(&file, &Settings::default(), mode) else {
                    continue;
                };
                assert!(read_once.kept.len() <= MOST_KEPT);
                for form in [Form::Exchange, Form::Local] {
                    let written = write(&read_once.flags, &read_once.settings, form);
                    let again = read(&written, &Settings::default(), mode);
                    let again = again.unwrap_or_else(|why| panic!("{why:?} in {written}"));
                    assert_eq!(again.settings, read_once.settings, "{form:?} {written}");
                    let mut flags = read_once.flags.clone();
                    if form == Form::Exchange {
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
    fn what_is_wrong_with_a_file_is_told_with_places_and_not_without_end() {
        for_all(&json(examples()), |file| {
            if let Err(problems) = read(&file, &Settings::default(), Mode::Replace) {
                assert!(!problems.is_empty());
                let size: usize = problems
                    .iter()
                    .map(|one| one.at.len() + one.problem.len())
                    .sum();
                assert!(size < 4 * 1024 * 1024, "{size} bytes of problems");
                for problem in problems {
                    assert!(
                        problem.at.is_empty() || problem.at.starts_with('/'),
                        "{}",
                        problem.at
                    );
                }
            }
        });
    }
}
