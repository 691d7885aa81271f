//! Limits of keys, variant names, descriptions and salts.

use pennon_eval::FlagKey;

use crate::counts::MAX_VARIANT_LENGTH;

/// The longest key of a new flag, in characters. PostgreSQL's index takes at most 2700 bytes, and a
/// character has at most four.
const MAX_KEY_LENGTH: usize = 255;
/// The longest description, in characters.
const MAX_DESCRIPTION_LENGTH: usize = 500;
/// The longest salt, in characters. A salt only has to be unique.
const MAX_SALT_LENGTH: usize = 100;
/// Path segments with another meaning: the report of stale flags, and the segments that HTTP clients resolve
/// before they send a request.
const RESERVED: [&str; 3] = ["stale", ".", ".."];
/// API Gateway decodes a path before it looks for the route, so `/` ends a segment however it was
/// written; `?` and `#` end the path, `%` is decoded twice by some clients, and `\` is `/` to browsers.
const PATH_CHARACTERS: [char; 5] = ['/', '\\', '?', '#', '%'];
/// The general categories Cf (format), Zl and Zp (line and paragraph separators) of Unicode 16.0, from
/// `DerivedGeneralCategory.txt`, and the property `Default_Ignorable_Code_Point`, from
/// `DerivedCoreProperties.txt`: direction overrides, zero-width characters, fillers, variation selectors,
/// tags. Most are invisible, so keys that differ only in them look the same.
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
/// Characters that look like a space but are not white space in Unicode: the Braille pattern without dots, two blank
/// hieroglyphs and the musical null notehead.
const BLANKS: [char; 4] = ['\u{2800}', '\u{13441}', '\u{13442}', '\u{1d159}'];

/// Whether a character looks like a space: Unicode white space, and [`BLANKS`].
pub(crate) fn is_blank(character: char) -> bool {
    character.is_whitespace() || BLANKS.contains(&character)
}

/// Parses the key of a new flag.
///
/// # Errors
/// The rule that the key breaks.
pub fn new_key(text: &str) -> Result<FlagKey, String> {
    let length = text.chars().count();
    if !(1..=MAX_KEY_LENGTH).contains(&length) {
        return Err(format!(
            "Must have 1 to {MAX_KEY_LENGTH} characters (got {length})"
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
    // Spaces at the ends of a key cannot be seen in a list.
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
    if RESERVED.contains(&text) {
        return Err(
            r#"Must not be "stale", "." or "..", which mean something else in a path"#.to_owned(),
        );
    }
    FlagKey::parse(text).map_err(|error| error.to_string())
}

pub(super) fn check_variant_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if !(1..=MAX_VARIANT_LENGTH).contains(&length) {
        return Err(format!(
            "The name of a variant must have 1 to {MAX_VARIANT_LENGTH} characters (got {length})"
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

/// The code point of a character, which may be invisible.
fn code_point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

/// Checks a description.
///
/// # Errors
/// The rule that the description breaks.
pub fn check_description(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > MAX_DESCRIPTION_LENGTH {
        return Err("Must be at most 500 characters");
    }
    no_nul(text)
}

/// Checks a salt.
///
/// # Errors
/// The rule that the salt breaks.
pub fn check_salt(text: &str) -> Result<(), &'static str> {
    if !(1..=MAX_SALT_LENGTH).contains(&text.chars().count()) {
        return Err("Must have 1 to 100 characters");
    }
    no_nul(text)
}

/// PostgreSQL cannot store NUL in a text.
fn no_nul(text: &str) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("Must not contain a NUL character");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_new_key_is_visible_and_valid_in_a_path() {
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
            ("\u{13442}a", "begin or end with a space"),
            ("a\u{13441}", "begin or end with a space"),
            ("\u{1d159}", "begin or end with a space"),
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
            let error = new_key(bad).expect_err(bad);
            assert!(error.contains(rule), "{bad:?}: {error}");
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
}
