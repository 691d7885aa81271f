//! Shortens texts in a log line, and escapes control characters.
//!
//! Callers choose paths, keys, ids and header values, and errors may quote them. None of these forges another line.

use std::borrow::Cow;

/// Limit on a text in a log line, in bytes as JSON without the quotation marks. Most errors are shorter.
pub const MAX_TEXT_LENGTH: usize = 600;

/// Limit on a name in the line of a request, in bytes: a flag key, a path, a node.
pub(super) const MAX_NAME_LENGTH: usize = 200;
/// Limit on the name of an ignored field and on a method, in bytes.
pub(super) const MAX_IGNORED_LENGTH: usize = 40;

/// Replaces the end of a truncated text.
const ELLIPSIS: &str = "…";

/// Truncates a text to this many bytes, as counted in JSON, where a control character takes up to six bytes.
pub(super) fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    // The usual case: nothing needs an escape.
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.len() <= limit && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut size = 0;
    // The end of the longest prefix that fits together with the ellipsis.
    let mut fits = 0;
    for (index, character) in text.char_indices() {
        if size + ELLIPSIS.len() <= limit {
            fits = index;
        }
        size += match character {
            '"' | '\\' => 2,
            '\u{0}'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        if size > limit {
            let mut shortened = text[..fits].to_owned();
            shortened.push_str(ELLIPSIS);
            return Cow::Owned(shortened);
        }
    }
    Cow::Borrowed(text)
}

/// Truncates like [`shorten`], then escapes control characters, which could end the line or clear the screen. The result
/// may be longer than the limit.
pub(super) fn visible(text: &str, limit: usize) -> String {
    let mut visible = String::new();
    for character in shorten(text, limit).chars() {
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
    fn a_text_in_a_log_line_never_exceeds_its_limit() {
        for text in [
            "a".repeat(10_000),
            "\u{0}\u{1}".repeat(10_000),
            "\"\\".repeat(10_000),
            "ä€😀".repeat(10_000),
        ] {
            for limit in [10, 64, 600] {
                let shortened = shorten(&text, limit);
                let json = serde_json::to_string(&*shortened).expect("JSON");
                // Without the two quotation marks.
                assert!(json.len() - 2 <= limit, "{limit} {json}");
                assert!(json.len() + 8 > limit, "{limit} {json}");
                assert!(shortened.ends_with(ELLIPSIS));
            }
        }
        for text in ["", "a", "ä€😀", "\"quoted\""] {
            assert_eq!(shorten(text, 24), text);
        }
        assert_eq!(shorten("aaaaaaaaaa", 10), "aaaaaaaaaa");
        assert_eq!(shorten("aaaaaaaaaaa", 10), "aaaaaaa…");
        // Short, but with escapes longer than the limit.
        assert_eq!(shorten("\0\0\0\0", 20), "\0\0…");
        assert_eq!(shorten("\"\"\"\"\"\"", 11), "\"\"\"\"…");
    }

    #[test]
    fn a_caller_can_neither_forge_a_line_nor_clear_the_screen() {
        let hostile = "GET\n500 \u{1b}[2J\r\u{9b}";
        assert_eq!(visible(hostile, 100), "GET\\n500 \\u{1b}[2J\\r\\u{9b}");
    }
}
