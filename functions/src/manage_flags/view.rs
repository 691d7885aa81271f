//! The JSON of a flag on admin routes: all but its overrides, which have their own route.

use lambda_http::http::StatusCode;
use pennon_core::eval::FlagKey;
use pennon_core::http::{self, ETag, Response};
use pennon_core::service::Changed;
use pennon_core::store::FlagRecord;
use serde_json::{Value, json};

/// The body.
pub(crate) fn flag(key: &FlagKey, record: &FlagRecord) -> Value {
    let flag = &record.flag;
    let unreadable = flag
        .definition
        .as_ref()
        .and_then(|definition| definition.unreadable.as_ref());
    let mut body = json!({
        "key": key,
        "enabled": flag.enabled,
        "rolloutPercentage": flag.rollout_percentage.percent(),
        "description": flag.description,
        "salt": flag.salt,
        "bucketing": flag.bucketing,
        "definition": flag.definition.as_ref().filter(|_| unreadable.is_none()),
        "archivedAt": record.archived_at.map(http::timestamp),
        "revision": record.revision,
        "createdAt": record.created_at.map(http::timestamp),
        "updatedAt": record.updated_at.map(http::timestamp),
    });
    // The stored text, so that an editor can repair it by a PATCH of the definition.
    if let Some(unreadable) = unreadable {
        body["broken"] = json!({ "reason": unreadable.reason, "definition": unreadable.text });
    }
    body
}

/// The response, with the revision as its `ETag`.
pub(crate) fn answer(status: StatusCode, key: &FlagKey, record: &FlagRecord) -> Response {
    let mut body = [flag(key, record)];
    // Only SQL can store a definition that is larger than a response.
    http::omit_large_fields(&mut body, &["definition", "broken"]);
    let [body] = body;
    let response = http::json(status, &body);
    http::with_header(response, "etag", ETag::of_record(record.revision).as_str())
}

/// The response to a change.
pub(crate) fn changed(
    status: StatusCode,
    key: &FlagKey,
    changed: &Changed<FlagRecord>,
) -> Response {
    let response = answer(status, key, &changed.value);
    http::with_invalidation(response, changed.invalidated)
}
