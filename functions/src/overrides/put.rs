//! `PUT /api/admin/flags/{flagKey}/users`: sets the overrides of a flag in bulk, as one change.

use std::collections::HashMap;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::eval::Violations;
use pennon_core::http::{self, ETag, Fields, Request, Response};
use pennon_core::service::{NewOverride, PutMode};
use serde_json::{Value, json};

use super::set::take_override;

/// Limit on the overrides of one request. They are written in one statement and one audit entry; larger groups of
/// users are better served by a targeting rule.
const MAX_OVERRIDES: usize = 10_000;

/// Replaces all overrides of the flag, or, with `?mode=merge`, only those of the users in the body.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let mode = match request.query("mode") {
        None | Some("replace") => PutMode::Replace,
        Some("merge") => PutMode::Merge,
        Some(other) => {
            let error = format!("Must be replace or merge (got '{other}')");
            return Err(Error::invalid_field("mode", error));
        }
    };
    let wanted = parse(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let changed = app
        .service
        .put_overrides(
            &environment,
            &key,
            (mode, wanted),
            &expected,
            actor,
            request.context(),
        )
        .await?;
    let done = changed.value;
    let body = json!({
        "created": done.created,
        "changed": done.changed,
        "removed": done.removed,
        "unchanged": done.unchanged,
        "total": done.total,
    });
    let response = http::json(StatusCode::OK, &body);
    let tag = ETag::of_record(done.revision);
    let response = http::with_header(response, "etag", tag.as_str());
    Ok(http::with_invalidation(response, changed.invalidated))
}

/// Parses `overrides`, a list of bodies of `POST`. `createdBy` and `createdAt` are accepted and ignored, so that the
/// readable entries of a list can be sent back.
fn parse(body: &[u8]) -> Result<Vec<NewOverride>, Error> {
    let mut fields = Fields::parse(body)?;
    let list = fields.take("overrides", |value| match value.as_array() {
        Some(list) if list.len() > MAX_OVERRIDES => Err(format!(
            "Must have at most {MAX_OVERRIDES} entries (got {})",
            list.len()
        )),
        Some(list) => Ok(list.clone()),
        None => Err("Expected a list".to_owned()),
    });
    fields.require("overrides", list.as_ref());
    fields.reject_rest();
    fields.finish()?;

    let mut errors = Violations::default();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut wanted = Vec::new();
    for (number, entry) in list.into_iter().flatten().enumerate() {
        let pointer = format!("overrides/{number}");
        let Value::Object(entry) = entry else {
            errors.add_at(&pointer, "Expected an object");
            continue;
        };
        let mut fields = Fields::of_object(entry);
        let one = take_override(&mut fields);
        for ignored in ["createdBy", "createdAt"] {
            fields.value(ignored);
        }
        fields.reject_rest();
        fields.errors.add_to(&pointer, &mut errors);
        if let Some(first) = seen.insert(one.user_id.clone(), number)
            && !one.user_id.is_empty()
        {
            let error = format!("The user has another entry, overrides/{first}");
            errors.add_at(&format!("{pointer}/userId"), error);
        }
        wanted.push(one);
    }
    errors.into_result(wanted).map_err(Error::from_violations)
}
