//! `GET /api/admin/environments/{environment}/flags`: all flags of an environment at once, without their definitions.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::Bucketing;
use pennon_core::http::{self, ETag, Request, Response, timestamp};
use pennon_core::service::{Overview, Overviews};
use serde_json::{Value, json};

/// The `ETag` covers the body, because counts, ramps and schedules change without the revision.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let found = app.service.overviews(&environment).await?;
    let mut response = answer(&environment, &found, true);
    if http::size_above_limit(&response).is_some() {
        response = answer(&environment, &found, false);
    }
    let tag = ETag::of(found.revision, &environment).with_body(response.body());
    if request.has_current(&tag) {
        return Ok(http::not_modified(&tag));
    }
    Ok(http::with_header(response, "etag", tag.as_str()))
}

/// Without descriptions, ten thousand flags fit into a response.
fn answer(environment: &Environment, found: &Overviews, with_descriptions: bool) -> Response {
    let flags = found.flags.iter();
    let flags: Vec<Value> = flags
        .map(|flag| overview(flag, found.bucketing, with_descriptions))
        .collect();
    let body = json!({
        "environment": environment.as_str(),
        "revision": found.revision.0,
        "flags": flags,
    });
    http::json(StatusCode::OK, &body)
}

fn overview(flag: &Overview, bucketing: Option<Bucketing>, with_description: bool) -> Value {
    let stored = &flag.stored;
    let record = &stored.record;
    let definition = record.flag.definition.as_ref();
    let ramp = stored.ramp.as_ref().map(|ramp| {
        json!({
            "state": ramp.state,
            "step": ramp.step,
            "percent": ramp.percent,
            "reason": ramp.reason,
        })
    });
    let schedule = stored.next_schedule.as_ref();
    let description = record.flag.description.as_ref();
    json!({
        "key": stored.key,
        "description": description.filter(|_| with_description),
        "type": flag.kind(),
        "enabled": record.flag.enabled,
        "rolloutPercentage": record.flag.rollout_percentage.percent(),
        "bucketing": record.flag.bucketing.or(bucketing).filter(|_| definition.is_none()),
        "variants": definition.map_or(2, |definition| definition.variants.len()),
        "hasDefinition": definition.is_some(),
        "hasTargeting": definition.is_some_and(|definition| definition.rule().is_some()),
        "defaultVariant": definition.and_then(|definition| definition.default_variant.as_ref()),
        "serverOnly": flag.server_only,
        "archived": record.archived_at.is_some(),
        "updatedAt": record.updated_at.map(timestamp),
        "revision": record.revision,
        "overrides": stored.overrides,
        "lastEvaluatedAt": stored.last_evaluated_at.map(timestamp),
        "recentEvaluations": stored.recent_evaluations,
        "stale": flag.stale.first().map(|reason| json!({ "reason": reason.name() })),
        "ramp": ramp,
        "nextSchedule": schedule.map(|(at, change)| json!({ "at": timestamp(*at), "change": change })),
    })
}
