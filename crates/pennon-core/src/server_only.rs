//! Which flags are for holders of a server key and admins only, by `serverOnly` in their metadata.
//!
//! Closed by default: only a missing field or `false` shows a flag. Writes accept nothing but a boolean, so
//! another value, or a definition that cannot be read, comes from SQL, and whoever wrote it may have meant to
//! hide the flag.

use std::fmt;

use pennon_eval::{Flag, Settings};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The name in the metadata of a flag or an environment.
pub(crate) const SERVER_ONLY: &str = "serverOnly";

/// What metadata says. Of two fields with the same name the greater counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stated {
    Nothing,
    Shown,
    Hidden,
}

/// Whether a flag is hidden from everyone but holders of a server key and admins. A flag whose metadata does
/// not have the field has that of the metadata of its environment, as all metadata.
pub(crate) fn hides(flag: &Flag, settings: &Settings) -> bool {
    if settings.unreadable.is_some() {
        return true;
    }
    let own = match &flag.definition {
        None => Stated::Nothing,
        Some(definition) => match &definition.unreadable {
            None => stated(definition.metadata.get(SERVER_ONLY)),
            Some(unreadable) => in_unreadable(&unreadable.text),
        },
    };
    match own {
        Stated::Nothing => stated(settings.metadata.get(SERVER_ONLY)) == Stated::Hidden,
        Stated::Shown => false,
        Stated::Hidden => true,
    }
}

fn stated(value: Option<&Value>) -> Stated {
    match value {
        None => Stated::Nothing,
        Some(Value::Bool(false)) => Stated::Shown,
        Some(_) => Stated::Hidden,
    }
}

/// What a document says that is no definition: it may still be an object with metadata. Everything else
/// hides the flag, since nobody can tell.
fn in_unreadable(text: &str) -> Stated {
    serde_json::from_str(text).map_or(Stated::Hidden, |Document(stated)| stated)
}

/// Only `metadata` of a document is read; everything else in it may be of any form.
struct Document(Stated);

struct Metadata(Stated);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let metadata = Field::<Metadata> {
            name: "metadata",
            stated: |Metadata(stated)| stated,
        };
        deserializer.deserialize_map(metadata).map(Self)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let server_only = Field::<Value> {
            name: SERVER_ONLY,
            stated: |value| stated(Some(&value)),
        };
        deserializer.deserialize_map(server_only).map(Self)
    }
}

/// Reads the fields with one name of an object, and skips the others.
struct Field<T> {
    name: &'static str,
    stated: fn(T) -> Stated,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Field<T> {
    type Value = Stated;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Stated, A::Error> {
        let mut found = Stated::Nothing;
        while let Some(name) = fields.next_key::<String>()? {
            if name == self.name {
                found = found.max((self.stated)(fields.next_value()?));
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
    fn an_unreadable_document_shows_a_flag_only_if_it_says_so_or_is_silent() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(500), "]".repeat(500));
        for (text, expected) in [
            (r#"{"variants": 1}"#, Stated::Nothing),
            (r#"{"variants": 1, "metadata": {}}"#, Stated::Nothing),
            (r#"{"variants": 1e999}"#, Stated::Nothing),
            (&deep, Stated::Nothing),
            (
                r#"{"a": 1, "metadata": {"serverOnly": false}}"#,
                Stated::Shown,
            ),
            (r#"{"metadata": {"serverOnly": true}}"#, Stated::Hidden),
            (r#"{"metadata": {"serverOnly": "true"}}"#, Stated::Hidden),
            (r#"{"metadata": {"serverOnly": "false"}}"#, Stated::Hidden),
            (r#"{"metadata": {"serverOnly": null}}"#, Stated::Hidden),
            (r#"{"metadata": {"serverOnly": 0}}"#, Stated::Hidden),
            (r#"{"metadata": {"serverOnly": [false]}}"#, Stated::Hidden),
            (r#"{"metadata": {"server\u004fnly": true}}"#, Stated::Hidden),
            (
                r#"{"metadata": {"serverOnly": true, "serverOnly": false}}"#,
                Stated::Hidden,
            ),
            (
                r#"{"metadata": {"serverOnly": true}, "metadata": {}}"#,
                Stated::Hidden,
            ),
            (r#"{"metadata": null}"#, Stated::Hidden),
            (r#"{"metadata": 2}"#, Stated::Hidden),
            (r#"{"metadata": []}"#, Stated::Hidden),
            ("null", Stated::Hidden),
            ("[]", Stated::Hidden),
            ("[{}]", Stated::Hidden),
            ("\"x\"", Stated::Hidden),
            ("", Stated::Hidden),
            (r#"{"variants": "#, Stated::Hidden),
        ] {
            assert_eq!(in_unreadable(text), expected, "{text}");
        }
    }
}
