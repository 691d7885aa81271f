//! Limits of names, texts and sizes, for every way by which a flag is created or changed: the routes of
//! single flags, imports, and files. Flags that exist from before a limit keep what they have.

use pennon_eval::{Definition, Flag, FlagKey, Problem, Settings, pointer_step};
use serde_json::{Map, Value};

use super::update::Change;
use crate::environment::Environment;
use crate::error::{Complaints, Error};
use crate::ofrep::BulkSize;
use crate::snapshot::SERVER_ONLY;
use crate::store::{FlagRecord, Transaction};

/// The longest key of a new flag, in characters. PostgreSQL's index takes at most 2700 bytes, and a
/// character has at most four.
const LONGEST_KEY: usize = 255;
/// The longest name of a new variant, in characters. Evaluation counts have it in an index, beside the
/// key of the flag.
const LONGEST_VARIANT_NAME: usize = 255;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;
/// The longest salt, in characters: it only has to differ from others.
const LONGEST_SALT: usize = 100;
/// The largest new value of a variant as JSON, in bytes.
const LARGEST_VARIANT: usize = 256_000;
/// The largest answer with all flags of an environment that a change may lead to, in bytes on its way out
/// of Lambda. The rest of what Lambda takes is left for what evaluations may say more in a later version.
const LARGEST_BULK: usize = 5_500_000;
/// Paths with another meaning: the report of stale flags, and the segments that HTTP clients resolve
/// before they send a request.
const OTHER_PATHS: [&str; 3] = ["stale", ".", ".."];
/// API Gateway decodes a path before it looks for the route, so `/` ends a segment however it was
/// written; `?` and `#` end the path, `%` is decoded twice by some clients, and `\` is `/` to browsers.
const PATH_CHARACTERS: [char; 5] = ['/', '\\', '?', '#', '%'];
/// The general categories Cf (format), Zl and Zp (line and paragraph separators) of Unicode 16.0, from
/// `DerivedGeneralCategory.txt`: direction overrides, zero-width characters, tags. Two keys that differ
/// in them only look the same.
const INVISIBLE: [(char, char); 22] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Why a typed flag takes neither a rollout percentage nor a salt.
pub(crate) const NO_EFFECT: &str =
    "Has no effect on a flag with a definition, whose targeting decides who gets which variant";

/// Takes a text as the key of a new flag.
///
/// # Errors
/// The rule that it breaks.
pub fn new_key(text: &str) -> Result<FlagKey, String> {
    let length = text.chars().count();
    if !(1..=LONGEST_KEY).contains(&length) {
        return Err(format!(
            "Must have 1 to {LONGEST_KEY} characters (got {length})"
        ));
    }
    no_control_characters(text)?;
    if let Some(found) = text.chars().find(|character| is_invisible(*character)) {
        return Err(format!(
            "Must not contain format characters, such as zero-width characters and direction \
             overrides (found {})",
            code_point(found)
        ));
    }
    // All white space of Unicode: in a list, none of it can be seen at the end of a key.
    if text.trim() != text {
        return Err("Must not begin or end with a space".to_owned());
    }
    if let Some(found) = text
        .chars()
        .find(|character| PATH_CHARACTERS.contains(character))
    {
        return Err(format!(
            "Must not contain any of / \\ ? # % (found {found})"
        ));
    }
    if OTHER_PATHS.contains(&text) {
        return Err("Must not be stale, . or .., which mean something else in a path".to_owned());
    }
    FlagKey::parse(text).map_err(|error| error.to_string())
}

/// What a flag must keep to, by whichever way it comes: a file that is imported or that somebody edits by
/// hand. Places are JSON pointers into the flag; the place of its key is empty. What it has in common with
/// the flag `before` is not looked at.
#[must_use]
pub(crate) fn check_flag(key: &FlagKey, flag: &Flag, before: Option<&Flag>) -> Vec<Problem> {
    let at = |at: &str, problem: String| Problem {
        at: at.to_owned(),
        problem,
    };
    let mut problems = Vec::new();
    if before.is_none()
        && let Err(why) = new_key(key.as_str())
    {
        problems.push(at("", why));
    }
    if let Some(definition) = &flag.definition {
        let known = before.and_then(|flag| flag.definition.as_ref());
        problems.extend(check_definition(definition, known));
    }
    let description = (&flag.description, before.map(|flag| &flag.description));
    let salt = (&flag.salt, before.map(|flag| &flag.salt));
    for (place, (text, known), check) in [
        ("/description", description, check_description as Check),
        ("/salt", salt, check_salt),
    ] {
        if let Some(words) = text
            && known != Some(text)
            && let Err(why) = check(words)
        {
            problems.push(at(place, why.to_owned()));
        }
    }
    problems
}

/// Checks a text.
type Check = fn(&str) -> Result<(), &'static str>;

/// What a definition must keep to beyond what flagd asks, with places in the definition. What it has in
/// common with the definition that the flag has already is not looked at.
#[must_use]
pub(super) fn check_definition(
    definition: &Definition,
    before: Option<&Definition>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in definition.variants.keys() {
        let known = before.is_some_and(|before| before.variants.contains_key(name));
        if !known && let Err(problem) = check_variant_name(name) {
            let at = format!("/variants/{}", pointer_step(name));
            problems.push(Problem { at, problem });
        }
    }
    for (name, value) in &definition.variants {
        let size = json_size(value);
        if size > LARGEST_VARIANT && size > known_variant(before, name).map_or(0, json_size) {
            let at = format!("/variants/{}", pointer_step(name));
            let problem = format!("Must have at most {LARGEST_VARIANT} bytes as JSON (got {size})");
            problems.push(Problem { at, problem });
        }
    }
    if before != Some(definition) {
        problems.extend(check_metadata(&definition.metadata));
    }
    problems
}

/// What the metadata of a flag or an environment must keep to beyond what flagd asks. `serverOnly` as a
/// text hides nothing, whatever it says.
#[must_use]
pub(crate) fn check_metadata(metadata: &Map<String, Value>) -> Option<Problem> {
    if metadata.get(SERVER_ONLY)?.is_boolean() {
        return None;
    }
    Some(Problem {
        at: format!("/metadata/{SERVER_ONLY}"),
        problem: "Must be true or false".to_owned(),
    })
}

fn known_variant<'a>(before: Option<&'a Definition>, name: &str) -> Option<&'a Value> {
    before?.variants.get(name)
}

/// The length of a value as JSON, in bytes.
fn json_size(value: &Value) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// Refuses what a change asks of a flag and what would have no effect: a definition decides by its
/// targeting alone.
///
/// # Errors
/// [`Error::Invalid`] with the fields.
pub(super) fn must_have_an_effect(change: &Change, after: &Flag) -> Result<(), Error> {
    let mut complaints = Complaints::default();
    if after.definition.is_some() {
        if change.rollout_percentage.is_some() {
            complaints.add("rolloutPercentage", NO_EFFECT);
        }
        if matches!(change.salt, Some(Some(_))) {
            complaints.add("salt", NO_EFFECT);
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// Refuses a flag that makes the answer with all flags of its environment too large. A flag that takes no
/// more of it than before is never refused.
///
/// The sums of the other flags follow from one statement; only where they leave room for doubt are the
/// flags themselves measured.
///
/// # Errors
/// [`Error::Invalid`] that names the flag, the size and the limit.
pub(super) async fn must_fit(
    open: &mut Transaction,
    environment: &Environment,
    (key, before, after): (&FlagKey, Option<&FlagRecord>, &Flag),
) -> Result<(), Error> {
    let before = before.filter(|record| record.archived_at.is_none());
    if before.is_some_and(|record| record.flag.definition == after.definition) {
        return Ok(());
    }
    let size = BulkSize::with(&open.settings().await?.settings);
    let becomes = size.of_flag(key, after);
    if before.is_some_and(|record| becomes <= size.of_flag(key, &record.flag)) {
        return Ok(());
    }
    // Nobody adds to what is summed now until this is committed.
    open.environment_revision().await?;
    let others = open.sums_without(key).await?;
    if size.at_most(others) + becomes <= LARGEST_BULK {
        return Ok(());
    }
    let flags = open.flags_in_use().await?;
    let others = flags.iter().filter(|(name, _)| *name != key);
    let total = size.of_all(others.map(|(name, record)| (name, &record.flag))) + becomes;
    if total <= LARGEST_BULK {
        return Ok(());
    }
    let field = if after.definition.is_some() {
        "definition"
    } else {
        "key"
    };
    Err(Error::invalid_field(
        field,
        format!(
            "With '{key}', which takes up to {becomes} bytes, the answer with all flags of \
             '{environment}' could have {total} bytes, more than {LARGEST_BULK}; make variants smaller, \
             or archive flags"
        ),
    ))
}

/// Refuses flags and settings as a whole when they make the answer with all flags of an environment too
/// large, and larger than before.
///
/// # Errors
/// [`Error::Invalid`] about this field, that names the largest flag, the size and the limit.
pub(super) fn must_fit_together<'a>(
    field: &str,
    environment: &Environment,
    before: (impl Iterator<Item = (&'a FlagKey, &'a Flag)>, &Settings),
    after: (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
) -> Result<(), Error> {
    let (flags, settings) = after;
    match too_large(environment.as_str(), flags, settings, 0) {
        Some((total, why)) if total > BulkSize::with(before.1).of_all(before.0) => {
            Err(Error::invalid_field(field, why))
        }
        Some(_) | None => Ok(()),
    }
}

/// How large the answer with all flags of an environment could become when that is too large, and a
/// sentence about it. An environment that had `known` bytes before the limit existed may keep them.
pub(crate) fn too_large<'a>(
    environment: &str,
    flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
    settings: &Settings,
    known: usize,
) -> Option<(usize, String)> {
    let size = BulkSize::with(settings);
    let total = size.of_all(flags.clone());
    if total <= LARGEST_BULK.max(known) {
        return None;
    }
    let sizes = flags.map(|(key, flag)| (size.of_flag(key, flag), key));
    let largest = sizes.max().map_or_else(String::new, |(bytes, key)| {
        format!("; the largest flag is '{key}' with up to {bytes} bytes")
    });
    let why = format!(
        "The answer with all flags of '{environment}' could have {total} bytes, more than \
         {LARGEST_BULK}{largest}"
    );
    Some((total, why))
}

fn check_variant_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if !(1..=LONGEST_VARIANT_NAME).contains(&length) {
        return Err(format!(
            "The name of a variant must have 1 to {LONGEST_VARIANT_NAME} characters (got {length})"
        ));
    }
    no_control_characters(name)
}

fn no_control_characters(text: &str) -> Result<(), String> {
    match text.chars().find(|character| character.is_control()) {
        Some(found) => Err(format!(
            "Must not contain control characters (found {})",
            code_point(found)
        )),
        None => Ok(()),
    }
}

fn is_invisible(character: char) -> bool {
    INVISIBLE
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&character))
}

/// A character that may not be visible, by its number.
fn code_point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

/// Checks a description.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn check_description(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > LONGEST_DESCRIPTION {
        return Err("Must be at most 500 characters");
    }
    no_nul(text)
}

/// Checks a salt.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn check_salt(text: &str) -> Result<(), &'static str> {
    if !(1..=LONGEST_SALT).contains(&text.chars().count()) {
        return Err("Must have 1 to 100 characters");
    }
    no_nul(text)
}

/// PostgreSQL keeps every character but this one.
fn no_nul(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("Must not hold a NUL character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(variants: &Value) -> Definition {
        serde_json::from_value(json!({ "variants": variants })).expect("a definition")
    }

    #[test]
    fn texts_are_measured_in_characters() {
        assert!(new_key(&"😀".repeat(255)).is_ok());
        assert!(new_key(&"😀".repeat(256)).is_err());
        assert!(check_description(&"ä".repeat(500)).is_ok());
        assert!(check_salt(&"ä".repeat(100)).is_ok());
        assert!(check_description("").is_ok());
        for bad in ["", &"s".repeat(101), "a\0"] {
            assert!(check_salt(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_new_key_can_be_seen_and_stand_in_a_path() {
        for (bad, rule) in [
            ("", "1 to 255 characters (got 0)"),
            ("\0", "control characters (found U+0000)"),
            ("a\u{7f}", "control characters (found U+007F)"),
            ("a\u{85}b", "control characters (found U+0085)"),
            ("a\u{ad}b", "format characters"),
            ("a\u{200b}b", "format characters"),
            ("a\u{200d}", "format characters"),
            ("\u{feff}a", "format characters"),
            ("a\u{202e}b", "(found U+202E)"),
            ("a\u{2066}b", "(found U+2066)"),
            ("a\u{2028}b", "(found U+2028)"),
            ("a\u{61c}b", "(found U+061C)"),
            ("a\u{1343f}b", "(found U+1343F)"),
            ("a\u{e0041}b", "(found U+E0041)"),
            (" a", "begin or end with a space"),
            ("a ", "begin or end with a space"),
            (" ", "begin or end with a space"),
            ("a\u{a0}", "begin or end with a space"),
            ("\u{3000}a", "begin or end with a space"),
            ("a/b", "(found /)"),
            ("a\\b", "(found \\)"),
            ("a?", "(found ?)"),
            ("#a", "(found #)"),
            ("a%2F", "(found %)"),
            ("stale", "stale"),
            (".", "stale"),
            ("..", "stale"),
        ] {
            let said = new_key(bad).expect_err(bad);
            assert!(said.contains(rule), "{bad:?}: {said}");
        }
        for good in [
            "Stale",
            "stale.",
            "...",
            "a b",
            "käse:😀",
            "❤\u{fe0f}",
            "__rev",
            "-",
            "a+b&c=d",
        ] {
            assert!(new_key(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_new_variant_has_a_name_that_can_be_counted_and_an_old_one_stays() {
        let long = "v".repeat(256);
        for (bad, rule) in [
            ("", "1 to 255 characters (got 0)"),
            (long.as_str(), "1 to 255 characters (got 256)"),
            ("a\0", "control characters (found U+0000)"),
            ("a\nb", "control characters (found U+000A)"),
        ] {
            let one = definition(&json!({"good": 1, (bad): 2}));
            let problems = check_definition(&one, None);
            assert_eq!(problems.len(), 1, "{bad:?}");
            assert_eq!(problems[0].at, format!("/variants/{bad}"));
            assert!(problems[0].problem.contains(rule), "{problems:?}");
            let other = definition(&json!({(bad): 3, "more": 4}));
            assert_eq!(check_definition(&other, Some(&one)), []);
        }
        let slash = check_definition(&definition(&json!({"a/\n": 1})), None);
        assert_eq!(slash[0].at, "/variants/a~1\n");
        let fine = definition(&json!({("v".repeat(255)): 1, "a/b %\u{200b}": 2}));
        assert_eq!(check_definition(&fine, None), []);
    }
}
