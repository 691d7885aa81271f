//! The JSON of a schedule.

use pennon_core::http;
use pennon_core::store::ScheduleRecord;
use serde_json::{Value, json};

/// `createdBy`, `cancelledBy` and `cancelledAt` are omitted if unknown, as existing clients expect.
pub(crate) fn schedule(record: &ScheduleRecord) -> Value {
    let mut body = json!({
        "id": record.id,
        "flagKey": record.flag_key,
        "scheduledAt": http::timestamp(record.scheduled_at),
        "status": record.status,
        "updates": record.updates,
        "appliedAt": record.applied_at.map(http::timestamp),
        "errorMessage": record.error_message,
    });
    for (name, value) in [
        ("createdBy", record.created_by.clone()),
        ("cancelledBy", record.cancelled_by.clone()),
        ("cancelledAt", record.cancelled_at.map(http::timestamp)),
    ] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    if let Some(reason) = &record.unreadable {
        body["broken"] = json!({ "reason": reason });
    }
    body["createdAt"] = json!(record.created_at.map(http::timestamp));
    body
}
