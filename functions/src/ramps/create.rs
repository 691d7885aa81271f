//! `POST /api/admin/flags/{flagKey}/ramp`: starts a ramp.

use std::ops::RangeInclusive;

use lambda_http::http::StatusCode;
use pennon_core::alarms::MAX_NAME;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::eval::Violations;
use pennon_core::http::{Fields, Request, Response};
use pennon_core::ramp::{Guard, OnAlarm, OnMissing, Plan, Step, VariantPair, alarm_name};
use serde_json::Value;

use super::view;

/// Limit on the steps of a ramp.
const MAX_STEPS: usize = 50;
/// Limit on the guards of a ramp.
const MAX_GUARDS: usize = 10;
/// Limit on a bake, in seconds: 30 days.
const MAX_BAKE: u64 = 30 * 24 * 3600;

pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let plan = parse(request.body())?;
    let expected = request.expected()?;
    expected.require_if_match()?;
    let (alarms, context) = (app.alarms(), request.context());
    let created = app
        .service
        .create_ramp(&environment, &key, plan, &expected, actor, alarms, context)
        .await?;
    Ok(view::answer(StatusCode::CREATED, &key, &created))
}

fn parse(body: &[u8]) -> Result<Plan, Error> {
    let mut fields = Fields::parse(body)?;
    let steps = objects(&mut fields, "steps", 1..=MAX_STEPS, step);
    fields.require("steps", steps.as_ref());
    let steps = steps.unwrap_or_default();
    for pair in steps.windows(2) {
        if let [before, after] = pair
            && after.percent <= before.percent
        {
            let (before, after) = (before.percent, after.percent);
            let message =
                format!("Percentages must grow from step to step (got {after} after {before})");
            fields.errors.add("steps", message);
        }
    }
    let guards = objects(&mut fields, "guards", 0..=MAX_GUARDS, guard).unwrap_or_default();
    let mut names: Vec<&str> = guards.iter().map(Guard::name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        let message = "Must not name an alarm twice";
        fields.errors.add("guards", message);
    }
    let on_alarm = fields.take_or_null("onAlarm", |value| match value.as_str() {
        Some("previous") => Ok(OnAlarm::Previous),
        Some("start") => Ok(OnAlarm::Start),
        Some("off") => Ok(OnAlarm::Off),
        Some("pause") => Ok(OnAlarm::Pause),
        Some(_) | None => Err("Must be previous, start, off or pause"),
    });
    let (from, to) = (fields.text("from", 1..=255), fields.text("to", 1..=255));
    if from.is_some() {
        fields.require("to", to.as_ref());
    }
    if to.is_some() {
        fields.require("from", from.as_ref());
    }
    fields.reject_rest();
    fields.finish()?;
    Ok(Plan {
        steps,
        guards,
        on_alarm: on_alarm.unwrap_or(OnAlarm::Start),
        variants: from.zip(to).map(|(from, to)| VariantPair { from, to }),
    })
}

/// Parses a list of objects. Errors are reported by place, such as `steps/0/percent`.
fn objects<T>(
    fields: &mut Fields,
    name: &str,
    length: RangeInclusive<usize>,
    parse: impl Fn(&mut Fields) -> Option<T>,
) -> Option<Vec<T>> {
    let items = fields.take_or_null(name, |value| {
        let (min, max) = (length.start(), length.end());
        match value.as_array() {
            None => Err("Expected a list".to_owned()),
            Some(items) if length.contains(&items.len()) => Ok(items.clone()),
            Some(items) => Err(format!(
                "Must have {min} to {max} entries (got {})",
                items.len()
            )),
        }
    })?;
    let mut parsed = Vec::with_capacity(items.len());
    let mut errors = Violations::default();
    for (number, item) in items.into_iter().enumerate() {
        let place = format!("{name}/{number}");
        let Value::Object(item) = item else {
            errors.add_at(&place, "Expected an object");
            continue;
        };
        let mut inner = Fields::of_object(item);
        parsed.extend(parse(&mut inner));
        inner.reject_rest();
        inner.errors.add_to(&place, &mut errors);
    }
    fields.errors.add_violations(errors);
    Some(parsed)
}

fn step(fields: &mut Fields) -> Option<Step> {
    let percent = integer(fields, "percent", 1..=100);
    fields.require("percent", percent.as_ref());
    let bake = integer(fields, "bakeSeconds", 1..=MAX_BAKE);
    fields.require("bakeSeconds", bake.as_ref());
    let min_evaluations = integer(fields, "minEvaluations", 1..=1_000_000_000_000);
    let approval = fields.take_or_null("approval", |value| {
        value.as_bool().ok_or("Expected a boolean")
    });
    Some(Step {
        percent: u8::try_from(percent?).ok()?,
        bake_seconds: u32::try_from(bake?).ok()?,
        min_evaluations,
        approval: approval.unwrap_or(false),
    })
}

fn guard(fields: &mut Fields) -> Option<Guard> {
    let alarm = fields.take("alarm", |value| {
        let alarm = value.as_str().ok_or("Expected a string")?;
        require_alarm(alarm).map(|()| alarm.to_owned())
    });
    fields.require("alarm", alarm.as_ref());
    let on_missing = fields.take_or_null("onMissing", |value| match value.as_str() {
        Some("hold") => Ok(OnMissing::Hold),
        Some("rollback") => Ok(OnMissing::Rollback),
        Some("ignore") => Ok(OnMissing::Ignore),
        Some(_) | None => Err("Must be hold, rollback or ignore"),
    });
    Some(Guard {
        alarm: alarm?,
        on_missing: on_missing.unwrap_or(OnMissing::Hold),
    })
}

/// Rejects a text that cannot be the name or ARN of an alarm.
fn require_alarm(alarm: &str) -> Result<(), String> {
    let name = alarm_name(alarm);
    let is_plain = !alarm.chars().any(char::is_control);
    if name.is_empty() || name.chars().count() > MAX_NAME || !is_plain {
        return Err(format!(
            "Must be the name or ARN of a CloudWatch alarm, with a name of 1 to {MAX_NAME} characters"
        ));
    }
    let mut parts = alarm.splitn(7, ':');
    let kind = (parts.nth(2), parts.nth(2));
    if alarm.starts_with("arn:") && kind != (Some("cloudwatch"), Some("alarm")) {
        return Err("Must be the ARN of an alarm".to_owned());
    }
    Ok(())
}

fn integer(fields: &mut Fields, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
    fields.take_or_null(name, |value| {
        let number = value.as_u64().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            format!("Must be an integer from {min} to {max} (got {value})")
        })
    })
}
