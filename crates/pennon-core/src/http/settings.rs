//! Parses the settings of an environment.

use pennon_eval::{Bucketing, FractionalVersion, Settings};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::error::Error;

/// Parses settings, all of which are optional. Evaluators are validated later, when the flags are known.
///
/// # Errors
/// [`Error::Invalid`] with all errors.
pub fn parse_settings(body: &[u8]) -> Result<Settings, Error> {
    let mut fields = Fields::parse(body)?;
    let settings = Settings {
        evaluators: object(&mut fields, "evaluators"),
        fractional: fractional(&mut fields),
        anonymous_rollout: fields.take_or_null("anonymousRollout", |value| {
            value.as_bool().ok_or("Expected true, false or null")
        }),
        bucketing: fields.take_or_null("bucketing", |value| {
            let named = value.as_str().and_then(Bucketing::named);
            named.ok_or("Expected sha256, fractional or null")
        }),
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
        Some(_) => {
            fields.errors.add("fractional", "Expected v2 or v3");
            FractionalVersion::V3
        }
    }
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
