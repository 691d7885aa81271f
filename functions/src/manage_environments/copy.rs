//! `POST /api/admin/environments/{environment}/copy`: copies flags from another environment.

use std::collections::HashMap;

use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::json::quote;
use pennon_core::eval::{FlagKey, Violations};
use pennon_core::http::{self, ETag, Fields, Request, Response};
use pennon_core::service::{Expected, FlagToCopy, FlagsToCopy, MAX_FLAGS};
use serde_json::Value;

use super::import::answer;

/// With `?dryRun=true` it returns only the differences.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let dry_run = request.boolean("dryRun")?;
    let (from, flags) = parse(request.body(), &environment)?;
    let copy = FlagsToCopy {
        from: &from,
        flags: &flags,
    };
    if dry_run {
        let difference = app.service.compare_copy(&environment, copy, actor).await?;
        return Ok(answer(&environment, true, difference));
    }
    let changed = app
        .service
        .copy_flags(&environment, copy, actor, request.context())
        .await?;
    let response = answer(&environment, false, changed.value);
    Ok(http::with_invalidation(response, changed.invalidated))
}

/// Parses `from` and `flags`.
fn parse(body: &[u8], target: &Environment) -> Result<(Environment, Vec<FlagToCopy>), Error> {
    let mut fields = Fields::parse(body)?;
    let from = fields.take("from", |value| {
        let name = value.as_str().ok_or("Expected a string")?;
        let from = Environment::parse(name).map_err(|error| error.to_string())?;
        if from == *target {
            return Err(format!("Must not be '{target}' itself"));
        }
        Ok(from)
    });
    fields.require("from", from.as_ref());
    let list = fields.take("flags", |value| match value {
        Value::Array(list) if (1..=MAX_FLAGS).contains(&list.len()) => Ok(list.clone()),
        Value::Array(list) => Err(format!(
            "Must have 1 to {MAX_FLAGS} entries (got {})",
            list.len()
        )),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err("Expected a list".to_owned())
        }
    });
    fields.require("flags", list.as_ref());
    fields.reject_rest();
    let mut errors = fields.errors;
    let (flags, found) = take_flags(list.unwrap_or_default());
    errors.add_violations(found);
    errors.into_result()?;
    let from = from.ok_or_else(|| Error::Internal("from was not checked".to_owned()))?;
    Ok((from, flags))
}

fn take_flags(list: Vec<Value>) -> (Vec<FlagToCopy>, Violations) {
    let mut errors = Violations::default();
    let mut seen: HashMap<FlagKey, usize> = HashMap::new();
    let mut flags = Vec::new();
    for (number, entry) in list.into_iter().enumerate() {
        let pointer = format!("flags/{number}");
        let Value::Object(entry) = entry else {
            errors.add_at(&pointer, "Expected an object");
            continue;
        };
        let mut fields = Fields::of_object(entry);
        let key = fields.take("flagKey", |value| {
            let text = value.as_str().ok_or("Expected a string")?;
            FlagKey::parse(text).map_err(|error| error.to_string())
        });
        fields.require("flagKey", key.as_ref());
        let replaces = fields.take("ifMatch", |value| {
            if value.is_null() {
                return Ok(None);
            }
            let text = value.as_str();
            if text == Some("*") {
                return Ok(Some(Expected::Any));
            }
            match text.and_then(ETag::parse_record) {
                Some(revision) => Ok(Some(Expected::OneOf(vec![revision]))),
                None => Err(format!(
                    "Expected the ETag of the flag in the target, such as \"\\\"123\\\"\", \"*\" for any state, or null \
                     if it must not exist (got {})",
                    quote(value)
                )),
            }
        });
        fields.require("ifMatch", replaces.as_ref());
        fields.reject_rest();
        fields.errors.add_to(&pointer, &mut errors);
        let (Some(key), Some(replaces)) = (key, replaces) else {
            continue;
        };
        if let Some(first) = seen.insert(key.clone(), number) {
            let error = format!("The flag has another entry, flags/{first}");
            errors.add_at(&format!("{pointer}/flagKey"), error);
        }
        flags.push(FlagToCopy { key, replaces });
    }
    (flags, errors)
}
