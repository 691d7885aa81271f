//! Limits of names, texts and sizes, for every way by which a flag is created or changed: the routes of
//! single flags, imports, and files. Flags that exist from before a limit keep what they have.

use std::collections::BTreeMap;

use pennon_eval::{
    Definition, EVALUATION_STEPS, Evaluators, Flag, FlagKey, REQUEST_STEPS, Settings, Violation,
    pointer_step,
};
use serde_json::{Map, Value};

use super::update::Change;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::ofrep::{BulkSize, FlagSums};
use crate::server_only::SERVER_ONLY;
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
/// How many values the flags in use of an environment and its settings may have, see [`Flag::size`]. An
/// instance keeps two or three forms of each, and those of the revision before while it reads another one.
const MOST_VALUES: usize = 500_000;
/// Of flags that take too much together, so many are named.
const MOST_LARGEST: usize = 10;
/// Paths with another meaning: the report of stale flags, and the segments that HTTP clients resolve
/// before they send a request.
const OTHER_PATHS: [&str; 3] = ["stale", ".", ".."];
/// API Gateway decodes a path before it looks for the route, so `/` ends a segment however it was
/// written; `?` and `#` end the path, `%` is decoded twice by some clients, and `\` is `/` to browsers.
const PATH_CHARACTERS: [char; 5] = ['/', '\\', '?', '#', '%'];
/// The general categories Cf (format), Zl and Zp (line and paragraph separators) of Unicode 16.0, from
/// `DerivedGeneralCategory.txt`, and the property `Default_Ignorable_Code_Point`, from
/// `DerivedCoreProperties.txt`: direction overrides, zero-width characters, fillers, variation selectors,
/// tags. Two keys that differ in them only look the same.
const INVISIBLE: [(char, char); 26] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];
/// A character without any dot: it looks like a space, and Unicode does not count it as one.
const BLANK_BRAILLE: char = '\u{2800}';

/// Whether a character looks like a space: all white space of Unicode, and one more.
pub(crate) fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == BLANK_BRAILLE
}

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
            "Must not contain format characters or others that are invisible, such as zero-width \
             characters and direction overrides (found {})",
            code_point(found)
        ));
    }
    // In a list, none of them can be seen at the end of a key.
    if text.trim_matches(is_blank) != text {
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
pub(crate) fn check_flag(key: &FlagKey, flag: &Flag, before: Option<&Flag>) -> Vec<Violation> {
    let at = |at: &str, problem: String| Violation {
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
) -> Vec<Violation> {
    let mut problems = Vec::new();
    for name in definition.variants.keys() {
        let known = before.is_some_and(|before| before.variants.contains_key(name));
        if !known && let Err(problem) = check_variant_name(name) {
            let at = format!("/variants/{}", pointer_step(name));
            problems.push(Violation { at, problem });
        }
    }
    for (name, value) in &definition.variants {
        let size = json_size(value);
        if size > LARGEST_VARIANT && size > known_variant(before, name).map_or(0, json_size) {
            let at = format!("/variants/{}", pointer_step(name));
            let problem = format!("Must have at most {LARGEST_VARIANT} bytes as JSON (got {size})");
            problems.push(Violation { at, problem });
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
pub(crate) fn check_metadata(metadata: &Map<String, Value>) -> Option<Violation> {
    if metadata.get(SERVER_ONLY)?.is_boolean() {
        return None;
    }
    Some(Violation {
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
    let mut complaints = FieldErrors::default();
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

/// What all flags in use of an environment take together, or one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Bytes of the answer with all flags.
    Bytes,
    /// Values that an instance keeps in memory.
    Values,
    /// Steps of evaluating all flags, for a caller of whom nothing but the id is known.
    Steps,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Bytes, Self::Values, Self::Steps];

    fn most(self) -> usize {
        match self {
            Self::Bytes => LARGEST_BULK,
            Self::Values => MOST_VALUES,
            Self::Steps => usize::try_from(REQUEST_STEPS).unwrap_or(usize::MAX),
        }
    }

    /// Why it is too much.
    fn complaint(self, environment: &str, total: usize, largest: &str) -> String {
        let most = self.most();
        match self {
            Self::Bytes => format!(
                "The answer with all flags of '{environment}' could have {total} bytes, more than {most}; \
                 make variants smaller, or archive flags. Most bytes take {largest}"
            ),
            Self::Values => format!(
                "The flags of '{environment}' and its settings would have {total} values, more than {most}; \
                 make definitions smaller, or archive flags. Most values take {largest}"
            ),
            Self::Steps => format!(
                "To evaluate all flags of '{environment}' would take up to {total} steps, more than {most}; \
                 make rules simpler, or archive flags. Most steps take {largest}"
            ),
        }
    }
}

/// Measures flags in an environment with certain settings.
struct Scale<'s> {
    bulk: BulkSize,
    settings: &'s Settings,
    evaluators: Evaluators<'s>,
}

impl<'s> Scale<'s> {
    fn with(settings: &'s Settings) -> Self {
        Self {
            bulk: BulkSize::with(settings),
            settings,
            evaluators: Evaluators::of(settings),
        }
    }

    fn of_flag(&self, measure: Measure, key: &FlagKey, flag: &Flag) -> usize {
        match measure {
            Measure::Bytes => self.bulk.of_flag(key, flag),
            Measure::Values => flag.size(),
            Measure::Steps => usize::try_from(flag.cost(&self.evaluators)).unwrap_or(usize::MAX),
        }
    }

    /// What is there beside the flags.
    fn around(&self, measure: Measure) -> usize {
        match measure {
            Measure::Bytes => self.bulk.around(),
            Measure::Values => self.settings.size(),
            Measure::Steps => 0,
        }
    }

    fn of_all<'a>(
        &self,
        measure: Measure,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> usize {
        let sizes = flags.map(|(key, flag)| self.of_flag(measure, key, flag));
        sizes.fold(self.around(measure), usize::saturating_add)
    }

    /// What flags take of which only sums are known. It is never less than [`Self::of_all`].
    fn at_most(&self, measure: Measure, sums: FlagSums) -> usize {
        match measure {
            Measure::Bytes => self.bulk.at_most(sums),
            // Texts count by their length as well, see `Flag::size`.
            Measure::Values => {
                self.settings.size()
                    + sums.simple
                    + sums.typed
                    + sums.values
                    + sums.definitions / 64
            }
            // An operator is a step or two, and its operands may have to be converted.
            Measure::Steps => {
                let costly = usize::try_from(EVALUATION_STEPS).unwrap_or(usize::MAX);
                sums.costly.saturating_mul(costly)
                    + sums.simple
                    + sums.typed
                    + sums.values.saturating_mul(10)
                    + sums.definitions / 4
            }
        }
    }

    /// The flags that take the most, in words.
    fn largest<'a>(
        &self,
        measure: Measure,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> String {
        let mut sizes: Vec<(usize, &FlagKey)> = flags
            .map(|(key, flag)| (self.of_flag(measure, key, flag), key))
            .collect();
        // Equal ones by their keys.
        sizes.sort_by(|(a, key_a), (b, key_b)| b.cmp(a).then_with(|| key_a.cmp(key_b)));
        let told = sizes.iter().take(MOST_LARGEST);
        let told: Vec<String> = told
            .map(|(size, key)| format!("'{key}' ({size})"))
            .collect();
        match sizes.len().saturating_sub(told.len()) {
            0 => told.join(", "),
            more => format!("{} and {more} other flags", told.join(", ")),
        }
    }
}

/// Refuses a flag with which all flags of its environment together take too much: of the answer with all
/// of them, of the memory of an instance, or of the work of a request. A flag that takes no more than
/// before is never refused.
///
/// The sums of the other flags follow from one statement; only where they leave room for doubt are the
/// flags themselves measured.
///
/// # Errors
/// [`Error::Invalid`] that names the flag, those that take the most, the size and the limit.
pub(super) async fn must_fit(
    open: &mut Transaction,
    environment: &Environment,
    (key, before, after): (&FlagKey, Option<&FlagRecord>, &Flag),
) -> Result<(), Error> {
    let before = before.filter(|record| record.archived_at.is_none());
    if before.is_some_and(|record| record.flag.definition == after.definition) {
        return Ok(());
    }
    let settings = open.settings().await?.settings;
    let scale = Scale::with(&settings);
    let grown: Vec<(Measure, usize)> = Measure::ALL
        .into_iter()
        .map(|measure| (measure, scale.of_flag(measure, key, after)))
        .filter(|(measure, becomes)| {
            let was = before.map(|record| scale.of_flag(*measure, key, &record.flag));
            was.is_none_or(|was| *becomes > was)
        })
        .collect();
    if grown.is_empty() {
        return Ok(());
    }
    // Nobody adds to what is summed now until this is committed.
    open.environment_revision().await?;
    let others = open.sums_without(key).await?;
    let doubtful: Vec<(Measure, usize)> = grown
        .into_iter()
        .filter(|(measure, becomes)| {
            scale.at_most(*measure, others).saturating_add(*becomes) > measure.most()
        })
        .collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    let flags = open.flags_in_use().await?;
    let all = || {
        let others = flags.iter().filter(|(name, _)| *name != key);
        let others = others.map(|(name, record)| (name, &record.flag));
        others.chain([(key, after)])
    };
    let field = if after.definition.is_some() {
        "definition"
    } else {
        "key"
    };
    for (measure, becomes) in doubtful {
        let total = scale.of_all(measure, all());
        if total > measure.most() {
            let largest = scale.largest(measure, all());
            let complaint = measure.complaint(environment.as_str(), total, &largest);
            let with = format!("With '{key}', which takes up to {becomes}: {complaint}");
            return Err(Error::invalid_field(field, with));
        }
    }
    Ok(())
}

/// Refuses flags and settings as a whole when together they take too much, and more than before.
///
/// # Errors
/// [`Error::Invalid`] about the first of these fields, for the size of the answer, or about the second one;
/// it names the flags that take the most, the size and the limit.
pub(super) fn must_fit_together<'a>(
    (field_of_bytes, field): (&str, &str),
    environment: &Environment,
    before: (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
    after: (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
) -> Result<(), Error> {
    match too_much(&Measure::ALL, environment.as_str(), Some(before), after) {
        None => Ok(()),
        Some((Measure::Bytes, complaint)) => Err(Error::invalid_field(field_of_bytes, complaint)),
        Some((Measure::Values | Measure::Steps, complaint)) => {
            Err(Error::invalid_field(field, complaint))
        }
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
    let (scale, measure) = (Scale::with(settings), Measure::Bytes);
    let total = scale.of_all(measure, flags.clone());
    (total > measure.most().max(known)).then(|| {
        let largest = scale.largest(measure, flags);
        (total, measure.complaint(environment, total, &largest))
    })
}

/// Why flags and settings of an environment take too much memory or work, when together they do, and more
/// than before.
pub(crate) fn check_together(
    environment: &str,
    before: Option<(&BTreeMap<FlagKey, Flag>, &Settings)>,
    after: (&BTreeMap<FlagKey, Flag>, &Settings),
) -> Option<String> {
    let before = before.map(|(flags, settings)| (flags.iter(), settings));
    let measures = &[Measure::Values, Measure::Steps];
    let found = too_much(measures, environment, before, (after.0.iter(), after.1));
    found.map(|(_, complaint)| complaint)
}

fn too_much<'a>(
    measures: &[Measure],
    environment: &str,
    before: Option<(
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    )>,
    (flags, settings): (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
) -> Option<(Measure, String)> {
    let scale = Scale::with(settings);
    let before = before.map(|(flags, settings)| (flags, Scale::with(settings)));
    measures.iter().copied().find_map(|measure| {
        let total = scale.of_all(measure, flags.clone());
        let was = || {
            let before = before.as_ref();
            before.map_or(0, |(flags, scale)| scale.of_all(measure, flags.clone()))
        };
        (total > measure.most() && total > was()).then(|| {
            let largest = scale.largest(measure, flags.clone());
            (measure, measure.complaint(environment, total, &largest))
        })
    })
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

pub(crate) fn is_invisible(character: char) -> bool {
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
            ("\u{3164}", "(found U+3164)"),
            ("a\u{34f}", "(found U+034F)"),
            ("a\u{fe0f}b", "(found U+FE0F)"),
            ("\u{180b}", "(found U+180B)"),
            ("\u{180f}", "(found U+180F)"),
            ("a\u{17b4}", "(found U+17B4)"),
            ("\u{ffa0}", "(found U+FFA0)"),
            ("\u{115f}\u{1160}", "(found U+115F)"),
            ("a\u{e0100}", "(found U+E0100)"),
            ("a\u{e01ef}", "(found U+E01EF)"),
            ("a\u{2065}", "(found U+2065)"),
            ("\u{2800}", "begin or end with a space"),
            ("a\u{2800}", "begin or end with a space"),
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
