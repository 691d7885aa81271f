//! The body of an update, read field by field so that every mistake is reported at once.

use pennon_eval::Rollout;
use serde_json::{Map, Value};

use crate::error::{Complaints, Error};
use crate::service::Change;

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;
/// The longest salt, in characters: it only has to differ from others.
const LONGEST_SALT: usize = 100;

/// A change, and the names in the body that mean nothing to us.
///
/// `isEnabled` is another name of `enabled`; one of the old clients used it.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong: text that is no JSON object, a field of the
/// wrong type or out of range, a body of nothing but unknown fields.
pub fn parse_change(body: &[u8]) -> Result<(Change, Vec<String>), Error> {
    let fields: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(Error::invalid_form("Expected a JSON object")),
        Err(_) => return Err(Error::invalid_form("The body is not valid JSON")),
    };
    let mut change = Change::default();
    let mut complaints = Complaints::default();
    let mut ignored = Vec::new();
    for (name, value) in &fields {
        match name.as_str() {
            "enabled" | "isEnabled" => match (value, change.enabled) {
                (Value::Bool(wanted), Some(other)) if *wanted != other => {
                    complaints.add("isEnabled", "Contradicts enabled");
                }
                (Value::Bool(wanted), _) => change.enabled = Some(*wanted),
                _ => complaints.add(name, "Expected a boolean"),
            },
            "rolloutPercentage" => match whole_number(value).map(Rollout::parse) {
                Some(Ok(rollout)) => change.rollout_percentage = Some(rollout),
                Some(Err(_)) | None => {
                    complaints.add(name, "Expected a whole number from 0 to 100");
                }
            },
            "description" => match value {
                Value::String(text) if text.chars().count() > LONGEST_DESCRIPTION => {
                    complaints.add(name, "Must be at most 500 characters");
                }
                Value::String(text) if text.contains('\0') => {
                    complaints.add(name, "Must not hold a NUL character");
                }
                Value::String(text) => change.description = Some(text.clone()),
                _ => complaints.add(name, "Expected a string"),
            },
            "salt" => match value {
                Value::Null => change.salt = Some(None),
                Value::String(text) if text.is_empty() || text.chars().count() > LONGEST_SALT => {
                    complaints.add(name, "Must have 1 to 100 characters");
                }
                Value::String(text) if text.contains('\0') => {
                    complaints.add(name, "Must not hold a NUL character");
                }
                Value::String(text) => change.salt = Some(Some(text.clone())),
                _ => complaints.add(name, "Expected a string or null"),
            },
            "definition" => match value {
                Value::Null => change.definition = Some(None),
                Value::Object(_) => change.definition = Some(Some(value.clone())),
                _ => complaints.add(name, "Expected an object or null"),
            },
            _ => ignored.push(name.clone()),
        }
    }
    if !fields.is_empty() && ignored.len() == fields.len() {
        complaints.form.push(
            "None of these fields can be changed; known are enabled, rolloutPercentage, description, \
             salt, definition"
                .to_owned(),
        );
    }
    if complaints.is_empty() {
        Ok((change, ignored))
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// A number without a fraction, however it is written: `10`, `10.0`, `1e1`.
fn whole_number(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within ±1e9 by the check before"
    )]
    let whole = (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i64);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<(Change, Vec<String>), Error> {
        parse_change(body.as_bytes())
    }

    fn complaints(body: &str) -> Complaints {
        match parse(body) {
            Err(Error::Invalid(complaints)) => complaints,
            other => panic!("{body} gave {other:?}"),
        }
    }

    #[test]
    fn every_field_is_optional() {
        assert_eq!(parse("{}"), Ok((Change::default(), vec![])));
        let (change, ignored) =
            parse(r#"{"enabled":true,"rolloutPercentage":5,"description":""}"#).expect("good");
        assert_eq!(change.enabled, Some(true));
        assert_eq!(change.rollout_percentage, Rollout::parse(5).ok());
        assert_eq!(change.description.as_deref(), Some(""));
        assert!(ignored.is_empty());
    }

    #[test]
    fn a_whole_number_may_be_written_in_several_ways() {
        for text in ["10", "10.0", "1e1", "1E+1", "100e-1"] {
            let (change, _) = parse(&format!(r#"{{"rolloutPercentage":{text}}}"#)).expect(text);
            assert_eq!(change.rollout_percentage, Rollout::parse(10).ok(), "{text}");
        }
        let bad = ["10.5", "-1", "101", "1e300", "\"10\"", "null", "true", "[]"];
        for text in bad {
            let complaints = complaints(&format!(r#"{{"rolloutPercentage":{text}}}"#));
            assert!(
                complaints.fields.contains_key("rolloutPercentage"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_old_name_of_enabled_is_understood_unless_it_contradicts() {
        for body in [
            r#"{"isEnabled":true}"#,
            r#"{"isEnabled":true,"enabled":true}"#,
            r#"{"enabled":true,"isEnabled":true}"#,
        ] {
            assert_eq!(parse(body).expect(body).0.enabled, Some(true));
        }
        for body in [
            r#"{"isEnabled":true,"enabled":false}"#,
            r#"{"enabled":true,"isEnabled":false}"#,
        ] {
            assert!(complaints(body).fields.contains_key("isEnabled"), "{body}");
        }
    }

    #[test]
    fn a_description_has_at_most_500_characters() {
        let body = |length: usize| format!(r#"{{"description":"{}"}}"#, "ä".repeat(length));
        assert!(parse(&body(500)).is_ok());
        assert!(complaints(&body(501)).fields.contains_key("description"));
        assert!(
            complaints(r#"{"description":"a\u0000b"}"#)
                .fields
                .contains_key("description")
        );
    }

    #[test]
    fn unknown_fields_are_named_and_never_the_whole_body() {
        let (change, ignored) = parse(r#"{"enabled":false,"owner":"x","a":1}"#).expect("good");
        assert_eq!(change.enabled, Some(false));
        assert_eq!(ignored, ["owner", "a"]);
        assert!(!complaints(r#"{"owner":"x"}"#).form.is_empty());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let complaints = complaints(r#"{"enabled":"yes","rolloutPercentage":101,"description":5}"#);
        let fields: Vec<&str> = complaints.fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["description", "enabled", "rolloutPercentage"]);
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            "1",
            "{\"a\":1e999}",
            "\u{feff}{}",
        ] {
            assert!(!complaints(body).form.is_empty(), "{body:?}");
        }
        assert!(parse_change(b"{\"description\":\"\xff\"}").is_err());
    }
}
