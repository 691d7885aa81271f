//! Decides which flags are hidden from client keys and from callers without a key or role: those whose metadata, or
//! else that of their environment, has `"serverOnly": true`, and those for which this cannot be determined.
//!
//! The API accepts only booleans. Any other value was written by SQL and may have been meant to hide the flag, so it
//! does.

use std::fmt;

use pennon_eval::{Flag, Settings};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The name in the metadata of a flag or an environment.
pub(crate) const SERVER_ONLY: &str = "serverOnly";

/// The value of the field. Of several fields with the same name in an unreadable text, the greatest value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ServerOnly {
    Missing,
    Visible,
    Hidden,
}

/// Whether a flag is hidden from client keys and from callers without a key or role. As with all metadata, a flag
/// without the field inherits that of its environment.
pub(crate) fn hides(flag: &Flag, settings: &Settings) -> bool {
    if settings.unreadable.is_some() {
        return true;
    }
    let of_flag = match &flag.definition {
        None => ServerOnly::Missing,
        Some(definition) => match &definition.unreadable {
            None => value_of(definition.metadata.get(SERVER_ONLY)),
            Some(unreadable) => in_unreadable(&unreadable.text),
        },
    };
    match of_flag {
        ServerOnly::Missing => value_of(settings.metadata.get(SERVER_ONLY)) == ServerOnly::Hidden,
        ServerOnly::Visible => false,
        ServerOnly::Hidden => true,
    }
}

fn value_of(value: Option<&Value>) -> ServerOnly {
    match value {
        None => ServerOnly::Missing,
        Some(Value::Bool(false)) => ServerOnly::Visible,
        Some(_) => ServerOnly::Hidden,
    }
}

/// Reads the field from a definition that is not valid. The flag is hidden if the text is not a JSON object, or if its
/// `metadata` is not one.
fn in_unreadable(text: &str) -> ServerOnly {
    serde_json::from_str(text).map_or(ServerOnly::Hidden, |Document(server_only)| server_only)
}

/// A document of which only `metadata` is parsed.
struct Document(ServerOnly);

struct Metadata(ServerOnly);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let metadata = Field::<Metadata> {
            name: "metadata",
            to_server_only: |Metadata(server_only)| server_only,
        };
        deserializer.deserialize_map(metadata).map(Self)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let server_only = Field::<Value> {
            name: SERVER_ONLY,
            to_server_only: |value| value_of(Some(&value)),
        };
        deserializer.deserialize_map(server_only).map(Self)
    }
}

/// Reads the fields with this name from an object, and skips the others.
struct Field<T> {
    name: &'static str,
    to_server_only: fn(T) -> ServerOnly,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Field<T> {
    type Value = ServerOnly;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ServerOnly, A::Error> {
        let mut found = ServerOnly::Missing;
        while let Some(name) = fields.next_key::<String>()? {
            if name == self.name {
                found = found.max((self.to_server_only)(fields.next_value()?));
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_document_hides_the_flag_unless_the_field_is_false_or_missing() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(500), "]".repeat(500));
        for (text, expected) in [
            (r#"{"variants": 1}"#, ServerOnly::Missing),
            (r#"{"variants": 1, "metadata": {}}"#, ServerOnly::Missing),
            (r#"{"variants": 1e999}"#, ServerOnly::Missing),
            (&deep, ServerOnly::Missing),
            (
                r#"{"a": 1, "metadata": {"serverOnly": false}}"#,
                ServerOnly::Visible,
            ),
            (r#"{"metadata": {"serverOnly": true}}"#, ServerOnly::Hidden),
            (
                r#"{"metadata": {"serverOnly": "true"}}"#,
                ServerOnly::Hidden,
            ),
            (
                r#"{"metadata": {"serverOnly": "false"}}"#,
                ServerOnly::Hidden,
            ),
            (r#"{"metadata": {"serverOnly": null}}"#, ServerOnly::Hidden),
            (r#"{"metadata": {"serverOnly": 0}}"#, ServerOnly::Hidden),
            (
                r#"{"metadata": {"serverOnly": [false]}}"#,
                ServerOnly::Hidden,
            ),
            (
                r#"{"metadata": {"server\u004fnly": true}}"#,
                ServerOnly::Hidden,
            ),
            (
                r#"{"metadata": {"serverOnly": true, "serverOnly": false}}"#,
                ServerOnly::Hidden,
            ),
            (
                r#"{"metadata": {"serverOnly": true}, "metadata": {}}"#,
                ServerOnly::Hidden,
            ),
            (r#"{"metadata": null}"#, ServerOnly::Hidden),
            (r#"{"metadata": 2}"#, ServerOnly::Hidden),
            (r#"{"metadata": []}"#, ServerOnly::Hidden),
            ("null", ServerOnly::Hidden),
            ("[]", ServerOnly::Hidden),
            ("[{}]", ServerOnly::Hidden),
            ("\"x\"", ServerOnly::Hidden),
            ("", ServerOnly::Hidden),
            (r#"{"variants": "#, ServerOnly::Hidden),
        ] {
            assert_eq!(in_unreadable(text), expected, "{text}");
        }
    }
}
