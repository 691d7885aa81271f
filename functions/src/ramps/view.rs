//! Ramps in responses.

use lambda_http::http::StatusCode;
use pennon_core::eval::FlagKey;
use pennon_core::http::{self, ETag, Response};
use pennon_core::ramp::Ramp;
use pennon_core::service::Changed;
use serde_json::{Value, json};

/// A ramp in full.
pub(crate) fn ramp(key: &FlagKey, ramp: &Ramp) -> Value {
    let mut body = json!({
        "id": ramp.id,
        "flagKey": key,
        "state": ramp.state,
        "reason": ramp.reason,
        "step": ramp.step,
        "percent": ramp.percent,
        "dueAt": ramp.due_at.map(http::timestamp),
        "steps": ramp.plan.steps,
        "guards": guards(ramp),
        "onAlarm": ramp.plan.on_alarm,
        "start": { "enabled": ramp.start["enabled"], "percent": ramp.start_percent },
        "acknowledgedBy": ramp.acknowledged_by,
        "createdBy": ramp.created_by,
        "createdAt": http::timestamp(ramp.created_at),
        "transitions": ramp.transitions,
    });
    if let Some(pair) = &ramp.plan.variants {
        body["from"] = json!(pair.from);
        body["to"] = json!(pair.to);
    }
    body
}

fn guards(ramp: &Ramp) -> Vec<Value> {
    let guards = ramp.plan.guards.iter().map(|guard| {
        let mut shown = json!(guard);
        if ramp.silent_guards.contains(&guard.alarm) {
            shown["warning"] = json!(
                "the alarm has no action that invokes a function, so the ramp reacts to it only at its next check, up \
                 to a minute later"
            );
        }
        shown
    });
    guards.collect()
}

/// A ramp in short: an element of `earlier`, the previous ramps of a flag.
pub(crate) fn outline(ramp: &Ramp) -> Value {
    // The first transition to a final state: an acknowledgement comes later.
    let end = ramp.transitions.iter().find(|it| !it.state.is_live());
    json!({
        "id": ramp.id,
        "state": ramp.state,
        "reason": ramp.reason,
        "step": ramp.step,
        "percent": ramp.percent,
        "createdBy": ramp.created_by,
        "createdAt": http::timestamp(ramp.created_at),
        "endedAt": end.map(|end| http::timestamp(end.at)),
    })
}

/// The response to a change.
pub(crate) fn changed(key: &FlagKey, changed: &Changed<Ramp>) -> Response {
    answer(StatusCode::OK, key, changed)
}

/// The response to a change, with this status.
pub(crate) fn answer(status: StatusCode, key: &FlagKey, changed: &Changed<Ramp>) -> Response {
    let response = http::json(status, &ramp(key, &changed.value));
    let tag = ETag::of_record(changed.value.version);
    let response = http::with_header(response, "etag", tag.as_str());
    http::with_invalidation(response, changed.invalidated)
}
