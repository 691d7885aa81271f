//! Parses the settings of an environment.

use pennon_eval::json::quote;
use pennon_eval::{Bucketing, FractionalVersion, Settings, UserId};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::error::Error;

/// Limit on the users of a dry run: enough to estimate a share within one percent.
const MAX_USERS: usize = 10_000;

/// Parses settings, all of which are optional. Evaluators are validated later, when the flags are known.
///
/// # Errors
/// [`Error::Invalid`] with all errors.
pub fn parse_settings(body: &[u8]) -> Result<Settings, Error> {
    take_settings(Fields::parse(body)?)
}

/// Parses settings, and the `users` for whom a dry run compares them with the present ones.
///
/// # Errors
/// [`Error::Invalid`] with all errors.
pub fn parse_settings_with_users(body: &[u8]) -> Result<(Settings, Vec<UserId>), Error> {
    let mut fields = Fields::parse(body)?;
    let users = take_users(&mut fields);
    Ok((take_settings(fields)?, users))
}

/// Takes the `users` of a dry run.
pub(super) fn take_users(fields: &mut Fields) -> Vec<UserId> {
    let users = fields.take("users", |value| {
        let list = value.as_array().ok_or("Expected a list")?;
        if list.len() > MAX_USERS {
            return Err(format!(
                "Must have at most {MAX_USERS} entries (got {})",
                list.len()
            ));
        }
        let users = list.iter().map(|user| UserId::parse(user.as_str()?));
        users.collect::<Option<Vec<UserId>>>().ok_or_else(|| {
            "Expected a list of user ids, which are strings that are not empty".to_owned()
        })
    });
    users.unwrap_or_default()
}

fn take_settings(mut fields: Fields) -> Result<Settings, Error> {
    let settings = Settings {
        evaluators: object(&mut fields, "evaluators"),
        fractional: fractional(&mut fields),
        anonymous_rollout: fields.take_or_null("anonymousRollout", |value| {
            let parsed = value.as_bool();
            parsed.ok_or_else(|| wrong("true, false or null", value))
        }),
        bucketing: fields.take_or_null("bucketing", bucketing),
        metadata: object(&mut fields, "metadata"),
        ..Settings::default()
    };
    fields.reject_rest();
    fields.finish()?;
    Ok(settings)
}

/// Takes `fractional`: `v3`, the default, or `v2`.
pub fn fractional(fields: &mut Fields) -> FractionalVersion {
    match fields.text("fractional", 0..=10).as_deref() {
        None | Some("v3") => FractionalVersion::V3,
        Some("v2") => FractionalVersion::V2,
        Some(other) => {
            let error = format!("Expected v2 or v3 (got {})", quote(&other.into()));
            fields.errors.add("fractional", error);
            FractionalVersion::V3
        }
    }
}

/// Parses the name of a bucketing, in a field that may also be null.
pub(super) fn bucketing(value: &Value) -> Result<Bucketing, String> {
    let named = value.as_str().and_then(Bucketing::named);
    named.ok_or_else(|| wrong("sha256, fractional or null", value))
}

fn wrong(expected: &str, value: &Value) -> String {
    format!("Expected {expected} (got {})", quote(value))
}

fn object(fields: &mut Fields, name: &str) -> Map<String, Value> {
    match fields.value(name) {
        None => Map::new(),
        Some(Value::Object(object)) => object,
        Some(_) => {
            fields.errors.add(name, "Expected an object");
            Map::new()
        }
    }
}
