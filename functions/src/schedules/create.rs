//! `POST /api/admin/flags/{flagKey}/schedule`: schedules a change.

use std::time::SystemTime;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::timestamp;
use serde_json::{Value, json};

use super::view;

pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let Schedule {
        at,
        updates,
        ignored,
    } = parse(request.body())?;
    let created = app
        .service
        .create_schedule(&environment, &key, at, &updates, actor)
        .await?;
    let response = http::json(StatusCode::CREATED, &view::schedule(&created));
    Ok(http::with_ignored_fields(response, &ignored, request))
}

/// A parsed body.
struct Schedule {
    at: SystemTime,
    updates: Value,
    /// Names of fields that are ignored.
    ignored: Vec<String>,
}

/// Parses `scheduledAt`, and `updates` with `enabled`, `rolloutPercentage` or both.
fn parse(body: &[u8]) -> Result<Schedule, Error> {
    let mut fields = Fields::parse_for_existing_clients(body, &[])?;
    let at = fields.text("scheduledAt", 0..=64);
    fields.require("scheduledAt", at.as_ref());
    let at = at.and_then(|text| {
        let at = timestamp::parse(&text);
        if at.is_none_or(|at| at <= SystemTime::now()) {
            let error = "Expected a time in the future, ISO 8601 with Z or an offset, such as \
                 2027-01-01T09:00+02:00";
            fields.errors.add("scheduledAt", error);
        }
        at
    });
    let updates = fields.take("updates", |value| {
        let updates = value.as_object().cloned();
        updates.ok_or("Expected an object")
    });
    let mut ignored: Vec<String> = fields.take_rest().keys().cloned().collect();
    let mut wanted = serde_json::Map::new();
    if let Some(updates) = updates {
        let mut inner = Fields::of_object(updates);
        let change = http::take_change(&mut inner);
        // A schedule cannot change these fields of a flag.
        let others = [
            ("description", change.description.is_some()),
            ("salt", change.salt.is_some()),
            ("bucketing", change.bucketing.is_some()),
            ("definition", change.definition.is_some()),
        ];
        let others = others.into_iter().filter(|(_, given)| *given);
        let names = inner.take_rest().keys().cloned().collect::<Vec<String>>();
        let names = others.map(|(name, _)| name.to_owned()).chain(names);
        ignored.extend(names.map(|name| format!("updates.{name}")));
        for (name, errors) in inner.errors.fields {
            for error in errors {
                fields.errors.add("updates", format!("{name}: {error}"));
            }
        }
        if let Some(enabled) = change.enabled {
            wanted.insert("enabled".to_owned(), json!(enabled));
        }
        if let Some(rollout) = change.rollout_percentage {
            let percentage = json!(rollout.percent());
            wanted.insert("rolloutPercentage".to_owned(), percentage);
        }
    }
    if wanted.is_empty() && !fields.errors.fields.contains_key("updates") {
        let error = "Expected enabled, rolloutPercentage or both";
        fields.errors.add("updates", error);
    }
    fields.finish()?;
    Ok(Schedule {
        at: at.unwrap_or(SystemTime::UNIX_EPOCH),
        updates: Value::Object(wanted),
        ignored,
    })
}
