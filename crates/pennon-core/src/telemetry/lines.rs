//! The one place through which every text gets into a log line, and how lines of single events look.
//!
//! A caller chooses paths, keys, ids, header values and whatever an error repeats of them. None of that
//! makes a line longer than [`LONGEST_TEXT`] for each of its few fields, nor looks like another line.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::{CacheOutcome, LONGEST_IGNORED, LONGEST_NAME, RequestLine};
use crate::timestamp::timestamp;

/// The most bytes that a text takes in a line, as JSON without its quotation marks. Errors that name a
/// node, a place in a file or a rule are shorter.
pub const LONGEST_TEXT: usize = 600;

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

/// Writes an event as one JSON object: time, level, domain, and its fields. Libraries' events, such as the
/// Lambda runtime's about a failed one, have no domain of their own: saved queries and the operators' own
/// begin with `filter domain = "config"`.
pub(super) struct JsonEvents;

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), timestamp(SystemTime::now()).into());
        line.insert(
            "level".to_owned(),
            event.metadata().level().to_string().into(),
        );
        line.insert("domain".to_owned(), "config".into());
        event.record(&mut Fields(&mut line));
        let line = serde_json::to_string(&line).map_err(|_error| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Collects the fields of an event.
struct Fields<'l>(&'l mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // What the crate `log` says about where a line was written.
        if !name.starts_with("log.") {
            self.0.insert(name.replace("r#", ""), value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, shorten(value, LONGEST_TEXT).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, shorten(&format!("{value:?}"), LONGEST_TEXT).into());
    }
}

/// How the fields of an event look to a person: the message, and names with values.
pub(super) fn human_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let text = visible(&format!("{value:?}"), LONGEST_TEXT);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{}={text}", name.replace("r#", "")),
        }
    })
    .delimited(" ")
}

/// The line of a request for a person.
pub(super) fn human(line: &RequestLine<'_>) -> String {
    let facts = line.facts;
    let mut text = format!(
        "{:5} {} {} {:.1} ms",
        visible(line.method, LONGEST_IGNORED),
        visible(line.path, LONGEST_NAME),
        line.status,
        line.duration.as_secs_f64() * 1e3
    );
    if let Some(key) = &facts.flag_key {
        text.push_str(", ");
        text.push_str(&visible(key, LONGEST_NAME));
    }
    match facts.cache {
        Some(CacheOutcome::Hit) => text.push_str(", cache hit"),
        Some(CacheOutcome::Miss) => text.push_str(", cache miss"),
        Some(CacheOutcome::Unavailable) => text.push_str(", cache unavailable"),
        None => {}
    }
    if facts.stale {
        text.push_str(", stale");
    }
    if facts.invalidated == Some(false) {
        text.push_str(", cache not invalidated");
    }
    if let Some(kind) = facts.error_type {
        text.push_str(", ");
        text.push_str(kind);
    }
    text
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
