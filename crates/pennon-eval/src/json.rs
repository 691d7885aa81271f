//! JSON without duplicate keys.
//!
//! `serde_json` silently keeps the last of two equal keys, so a flag that was pasted twice would lose one of its
//! two definitions.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::violation::Violations;

/// Why a text was rejected.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON; the error has line and column.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// Objects contain duplicate keys. Each violation has the JSON pointer to one.
    #[error("duplicate keys")]
    Duplicates(Violations),
}

/// Parses JSON without duplicate keys. Values, their order and the form of numbers are those of `serde_json`. Lists,
/// and objects with one field, have no spare capacity, unlike those of `serde_json`, which saves a third of the memory
/// of a file of rules.
///
/// # Errors
/// [`JsonError`]: the text is not JSON, or an object contains a key twice.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let (value, duplicates) = read(text)?;
    if duplicates.is_empty() {
        Ok(value)
    } else {
        Err(JsonError::Duplicates(duplicates))
    }
}

/// Parses JSON with the last of equal keys, and returns a violation for each duplicate key.
///
/// # Errors
/// If the text is not JSON.
pub fn read(text: &[u8]) -> Result<(Value, Violations), serde_json::Error> {
    let mut duplicates = Violations::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Node(&mut duplicates).deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, duplicates))
}

/// The longest value that an error message quotes, in bytes.
const MAX_QUOTED_LENGTH: usize = 40;

/// An invalid value for an error message: the value itself, or its type if it is long, an array or an object.
#[must_use]
pub fn quote(value: &Value) -> String {
    let (text, kind) = match value {
        Value::Null | Value::Bool(_) => return value.to_string(),
        Value::Number(_) => (value.to_string(), "a long number"),
        // The JSON of a string is never shorter than the string.
        Value::String(text) if text.len() > MAX_QUOTED_LENGTH => return "a long string".to_owned(),
        Value::String(_) => (value.to_string(), "a long string"),
        Value::Array(_) => return "an array".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
    };
    if text.len() > MAX_QUOTED_LENGTH {
        kind.to_owned()
    } else {
        text
    }
}

/// Counts the values in JSON without parsing it: each value takes many times its length in memory. For a text
/// that is not JSON the result has no meaning.
#[must_use]
pub fn count_values(text: &[u8]) -> usize {
    let mut values = 1;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // A comma precedes each value except the first of a list or object.
            b',' => values += 1,
            b'[' | b'{' => {
                let next = bytes.clone().find(|byte| !byte.is_ascii_whitespace());
                values += usize::from(!matches!(next, Some(b']' | b'}')));
            }
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    values
}

/// Parses one value and collects its duplicate keys.
struct Node<'p>(&'p mut Violations);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let step = items.len().to_string();
            let item = self
                .0
                .inside(&step, |problems| list.next_element_seed(Node(problems)))?;
            let Some(item) = item else {
                items.shrink_to_fit();
                return Ok(Value::Array(items));
            };
            items.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        // Most objects of a rule have one field, and an empty map allocates four at once.
        let mut fields = Map::with_capacity(1);
        while let Some(name) = map.next_key::<String>()? {
            let value = self.0.inside(&name, |problems| {
                if fields.contains_key(&name) {
                    problems.add("this key occurs more than once in its object");
                }
                map.next_value_seed(Node(problems))
            })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_values_are_quoted() {
        for (json, quoted) in [
            ("140", "140"),
            ("10.5", "10.5"),
            ("\"10\"", "\"10\""),
            ("null", "null"),
            ("true", "true"),
            ("[1]", "an array"),
            ("{\"a\": 1}", "an object"),
        ] {
            let value = parse(json.as_bytes()).expect(json);
            assert_eq!(quote(&value), quoted);
        }
        for long in ["x".repeat(41), "\u{1}".repeat(30)] {
            assert_eq!(quote(&Value::String(long)), "a long string");
        }
    }

    #[test]
    fn json_is_parsed_as_by_serde_json() {
        for text in [
            r#"{"a": [1, -2, 3.5, 2.0, 1e3, 18446744073709551615, true, null, "ü\n\u0000"], "b": {}}"#,
            "[]",
            "\"a\"",
            " 1 ",
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            let read = parse(text.as_bytes()).expect("JSON");
            assert_eq!(read.to_string(), expected.to_string());
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        for bad in [
            "",
            "{",
            "{} {}",
            "[1,]",
            "{\"a\": 1e999}",
            "\u{feff}{}",
            &deep,
        ] {
            assert!(
                matches!(parse(bad.as_bytes()), Err(JsonError::Syntax(_))),
                "{bad}"
            );
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn values_are_counted_without_parsing() {
        for (text, count) in [
            ("1", 1),
            (r#""a,[{\",[" "#, 1),
            ("[1,2,3]", 4),
            (r#"{"a":1,"b":{"c":[]}}"#, 4),
            (r#"{"a,b":"c\\","d":[{},{ },[ 1 ]]}"#, 7),
            ("[", 2),
            ("\"", 1),
        ] {
            assert_eq!(count_values(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn every_duplicate_key_is_reported_with_its_pointer() {
        let text = r#"{"flags": {"a/b": {}, "a/b": {"variants": {"x": 1, "x": 1}}},
            "list": [{}, {"y": 1, "\u0079": 2}], "flags": {}}"#;
        let Err(JsonError::Duplicates(found)) = parse(text.as_bytes()) else {
            panic!("duplicates");
        };
        let found = found.into_list();
        let places: Vec<&str> = found.iter().map(|found| found.pointer.as_str()).collect();
        assert_eq!(
            places,
            [
                "/flags/a~1b",
                "/flags/a~1b/variants/x",
                "/list/1/y",
                "/flags"
            ]
        );
        let (last, twice) = read(br#"{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}"#).expect("JSON");
        assert_eq!(last.to_string(), r#"{"a":3,"b":{"c":2}}"#);
        assert_eq!(twice.count(), 2);
    }
}
