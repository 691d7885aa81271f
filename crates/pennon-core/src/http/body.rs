//! Parses the body of an update. All errors are reported at once.

use pennon_eval::json::quote;
use pennon_eval::{Rollout, UserId};
use serde_json::Value;

use super::fields::Fields;
use super::settings::{bucketing, take_users};
use crate::error::Error;
use crate::limits::{check_description, check_salt};
use crate::service::Change;

/// The fields that clients of the existing service do not know. The last, `users`, is accepted only in a dry run.
const NEWER: [&str; 4] = ["salt", "bucketing", "definition", "users"];

/// Parses a change. Also returns the names of unknown fields, which are ignored.
///
/// # Errors
/// [`Error::Invalid`] with all errors: a body that is not a JSON object, a field with a wrong type or out of range, a
/// body with only unknown fields.
pub fn parse_change(body: &[u8]) -> Result<(Change, Vec<String>), Error> {
    let [newer @ .., _users] = &NEWER;
    parse_rest(Fields::parse_for_existing_clients(body, newer)?, false)
}

/// Parses a change, and the `users` whose values a dry run compares.
///
/// # Errors
/// As for [`parse_change`].
pub fn parse_change_with_users(body: &[u8]) -> Result<(Change, Vec<String>, Vec<UserId>), Error> {
    let mut fields = Fields::parse_for_existing_clients(body, &NEWER)?;
    let count = fields.count();
    let users = take_users(&mut fields);
    let has_users = fields.count() < count;
    let (change, ignored) = parse_rest(fields, has_users)?;
    Ok((change, ignored, users))
}

fn parse_rest(mut fields: Fields, has_users: bool) -> Result<(Change, Vec<String>), Error> {
    let count = fields.count();
    let change = take_change(&mut fields);
    let ignored: Vec<String> = fields.take_rest().keys().cloned().collect();
    if (count > 0 || has_users) && ignored.len() == count {
        fields.errors.form.push(
            "None of these fields can be changed; send enabled, rolloutPercentage, description, salt, \
             bucketing or definition"
                .to_owned(),
        );
    }
    fields.finish()?;
    Ok((change, ignored))
}

/// Takes the fields of a flag that can be changed. The definition is validated later, when the settings of its
/// environment are known.
///
/// `isEnabled` is an alias of `enabled` for existing clients.
pub fn take_change(fields: &mut Fields) -> Change {
    let mut change = Change {
        enabled: fields.take("enabled", boolean),
        ..Change::default()
    };
    if let Some(alias) = fields.take("isEnabled", boolean) {
        if change.enabled.is_some_and(|enabled| enabled != alias) {
            fields.errors.add("isEnabled", "Contradicts enabled");
        }
        change.enabled = Some(alias);
    }
    change.rollout_percentage = fields.take("rolloutPercentage", |value| {
        integer(value)
            .and_then(|number| Rollout::parse(number).ok())
            .ok_or_else(|| format!("Must be an integer from 0 to 100 (got {})", quote(value)))
    });
    change.description = fields.take("description", |value| {
        nullable(value, |value| text(value, check_description))
    });
    change.salt = fields.take("salt", |value| {
        nullable(value, |value| text(value, check_salt))
    });
    change.bucketing = fields.take("bucketing", |value| nullable(value, bucketing));
    change.definition = fields.take("definition", |value| match value {
        Value::Null => Ok(None),
        Value::Object(_) => Ok(Some(value.clone())),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("Expected an object or null")
        }
    });
    change
}

fn nullable<T, E>(
    value: &Value,
    parse: impl FnOnce(&Value) -> Result<T, E>,
) -> Result<Option<T>, E> {
    if value.is_null() {
        return Ok(None);
    }
    parse(value).map(Some)
}

fn boolean(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("Expected a boolean")
}

fn text(
    value: &Value,
    check: fn(&str) -> Result<(), &'static str>,
) -> Result<String, &'static str> {
    let text = value.as_str().ok_or("Expected a string")?;
    check(text)?;
    Ok(text.to_owned())
}

/// An integer in any notation: `10`, `10.0`, `1e1`.
fn integer(value: &Value) -> Option<i64> {
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
    use crate::error::FieldErrors;

    fn parse(body: &str) -> Result<(Change, Vec<String>), Error> {
        parse_change(body.as_bytes())
    }

    fn errors(body: &str) -> FieldErrors {
        match parse(body) {
            Err(Error::Invalid(errors)) => errors,
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
        assert_eq!(change.description, Some(Some(String::new())));
        let (change, _) = parse(r#"{"description":null}"#).expect("good");
        assert_eq!(change.description, Some(None));
        assert!(ignored.is_empty());
    }

    #[test]
    fn an_integer_may_be_written_in_several_ways() {
        for text in ["10", "10.0", "1e1", "1E+1", "100e-1"] {
            let (change, _) = parse(&format!(r#"{{"rolloutPercentage":{text}}}"#)).expect(text);
            assert_eq!(change.rollout_percentage, Rollout::parse(10).ok(), "{text}");
        }
        let bad = ["10.5", "-1", "101", "1e300", "\"10\"", "null", "true", "[]"];
        for text in bad {
            let errors = errors(&format!(r#"{{"rolloutPercentage":{text}}}"#));
            assert!(errors.fields.contains_key("rolloutPercentage"), "{text}");
            let message = format!("{:?}", errors.fields["rolloutPercentage"]);
            let named = text == "[]" || message.contains(&text.replace('"', "\\\""));
            assert!(named || text == "1e300", "{message} does not quote {text}");
        }
    }

    #[test]
    fn is_enabled_is_an_alias_of_enabled_and_must_not_contradict_it() {
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
            assert!(errors(body).fields.contains_key("isEnabled"), "{body}");
        }
    }

    #[test]
    fn a_description_has_at_most_500_characters() {
        let body = |length: usize| format!(r#"{{"description":"{}"}}"#, "ä".repeat(length));
        assert!(parse(&body(500)).is_ok());
        assert!(errors(&body(501)).fields.contains_key("description"));
        assert!(
            errors(r#"{"description":"a\u0000b"}"#)
                .fields
                .contains_key("description")
        );
    }

    #[test]
    fn unknown_fields_are_reported_and_are_an_error_if_there_are_no_others() {
        let (change, ignored) = parse(r#"{"enabled":false,"owner":"x","a":1}"#).expect("good");
        assert_eq!(change.enabled, Some(false));
        assert_eq!(ignored, ["owner", "a"]);
        assert!(!errors(r#"{"owner":"x"}"#).form.is_empty());
        let users = ["alice"].map(|id| UserId::parse(id).expect("an id"));
        let tried = parse_change_with_users(br#"{"enabled":true,"users":["alice"],"owner":"x"}"#);
        let (change, ignored, found) = tried.expect("good");
        assert_eq!((change.enabled, found), (Some(true), users.to_vec()));
        assert_eq!(ignored, ["owner"]);
        for body in [r#"{"users":["alice"]}"#, r#"{"users":[],"owner":"x"}"#] {
            assert!(parse_change_with_users(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let errors = errors(r#"{"enabled":"yes","rolloutPercentage":101,"description":5}"#);
        let fields: Vec<&str> = errors.fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["description", "enabled", "rolloutPercentage"]);
    }

    #[test]
    fn a_body_that_is_not_a_json_object_is_rejected() {
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
            assert!(!errors(body).form.is_empty(), "{body:?}");
        }
        assert!(parse_change(b"{\"description\":\"\xff\"}").is_err());
    }
}
