//! Limits the length of every text in a log line, and escapes control characters.
//!
//! A caller chooses paths, keys, ids, header values and the parts of errors that repeat them. None of these
//! makes a field longer than [`LONGEST_TEXT`] or looks like another line.

use std::borrow::Cow;

/// The most bytes that a text takes in a line, as JSON without its quotation marks. Errors that name a
/// node, a place in a file or a rule are shorter.
pub const LONGEST_TEXT: usize = 600;

/// The most bytes of a name in the line of a request: a flag's key, a path, a node.
pub(super) const LONGEST_NAME: usize = 200;
/// The most bytes of the name of an ignored field, and of a method.
pub(super) const LONGEST_IGNORED: usize = 40;

/// What stands in the place of the rest of a text.
const REST: &str = "…";

/// A text for a log line, in this many bytes at most as it stands in JSON. Control characters count as
/// the six bytes that they take there.
pub(super) fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    let mut size = 0;
    // Up to here there is room for the sign of what is left out, too.
    let mut fits = 0;
    for (index, character) in text.char_indices() {
        if size + REST.len() <= most {
            fits = index;
        }
        size += match character {
            '"' | '\\' => 2,
            '\u{0}'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        if size > most {
            let mut shortened = text[..fits].to_owned();
            shortened.push_str(REST);
            return Cow::Owned(shortened);
        }
    }
    Cow::Borrowed(text)
}

/// The same for a line that a person reads, where a control character could end the line or clear the
/// screen.
pub(super) fn visible(text: &str, most: usize) -> String {
    let mut visible = String::new();
    for character in shorten(text, most).chars() {
        if character.is_control() {
            visible.extend(character.escape_default());
        } else {
            visible.push(character);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_no_more_room_in_a_line_than_it_may() {
        for text in [
            "a".repeat(10_000),
            "\u{0}\u{1}".repeat(10_000),
            "\"\\".repeat(10_000),
            "ä€😀".repeat(10_000),
        ] {
            for most in [10, 64, 600] {
                let shortened = shorten(&text, most);
                let json = serde_json::to_string(&*shortened).expect("JSON");
                // Its quotation marks are not of the text.
                assert!(json.len() - 2 <= most, "{most} {json}");
                assert!(json.len() + 8 > most, "{most} {json}");
                assert!(shortened.ends_with(REST));
            }
        }
        for text in ["", "a", "ä€😀", "\"quoted\""] {
            assert_eq!(shorten(text, 24), text);
        }
        assert_eq!(shorten("aaaaaaaaaa", 10), "aaaaaaaaaa");
        assert_eq!(shorten("aaaaaaaaaaa", 10), "aaaaaaa…");
    }

    #[test]
    fn nothing_that_a_caller_sends_begins_another_line_or_clears_the_screen() {
        let hostile = "GET\n500 \u{1b}[2J\r\u{9b}";
        assert_eq!(visible(hostile, 100), "GET\\n500 \\u{1b}[2J\\r\\u{9b}");
    }
}
