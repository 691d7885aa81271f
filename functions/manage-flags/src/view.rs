//! A flag as admins see it: everything but its overrides, which have a route of their own.

use lambda_http::http::StatusCode;
use pennon_core::eval::FlagKey;
use pennon_core::http::{self, ETag, Response};
use pennon_core::service::Changed;
use pennon_core::store::FlagRecord;
use serde_json::{Value, json};

/// The body.
pub(crate) fn definition(key: &FlagKey, record: &FlagRecord) -> Value {
    let flag = &record.flag;
    json!({
        "key": key,
        "enabled": flag.enabled,
        "rolloutPercentage": flag.rollout_percentage.percent(),
        "description": flag.description,
        "salt": flag.salt,
        "definition": flag.definition,
        "archivedAt": record.archived_at.map(http::timestamp),
        "revision": record.revision,
        "createdAt": record.created_at.map(http::timestamp),
        "updatedAt": record.updated_at.map(http::timestamp),
    })
}

/// The answer, with the revision as its tag.
pub(crate) fn answer(status: StatusCode, key: &FlagKey, record: &FlagRecord) -> Response {
    let response = http::json(status, &definition(key, record));
    http::with_header(response, "etag", ETag::of_record(record.revision).as_str())
}

/// The answer to a change.
pub(crate) fn changed(
    status: StatusCode,
    key: &FlagKey,
    changed: &Changed<FlagRecord>,
) -> Response {
    let response = answer(status, key, &changed.value);
    http::with_invalidation(response, changed.invalidated)
}
