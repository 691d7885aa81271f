//! `POST /api/admin/flags/{flagKey}/ramp`: starts a ramp.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Admin;
use pennon_core::error::Error;
use pennon_core::http::{Fields, Request, Response};
use pennon_core::ramp::{Guard, OnAlarm, OnMissing, Plan, Step, VariantPair, alarm_name};
use serde_json::{Map, Value};

use super::view;

/// The most steps of a ramp.
const MAX_STEPS: usize = 50;
/// The most guards of a ramp.
const MAX_GUARDS: usize = 10;
/// The longest bake, in seconds: 30 days.
const MAX_BAKE: u64 = 30 * 24 * 3600;
/// The most characters of an alarm's name in CloudWatch, which otherwise rejects the whole call.
const MAX_NAME: usize = 255;

pub(crate) async fn handle(app: &App, request: &Request, admin: &Admin) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let plan = parse(request.body())?;
    let expected = request.expected()?;
    expected.require()?;
    let (alarms, scope) = (app.alarms(), request.scope());
    let created = app
        .service
        .create_ramp(&environment, &key, plan, &expected, admin, alarms, scope)
        .await?;
    Ok(view::answer(StatusCode::CREATED, &key, &created))
}

fn parse(body: &[u8]) -> Result<Plan, Error> {
    let mut fields = Fields::of(body)?;
    let steps = fields.take("steps", |value| list(value, 1..=MAX_STEPS, step));
    fields.must_have("steps", steps.as_ref());
    let steps = steps.unwrap_or_default();
    if let Some(wrong) = steps
        .windows(2)
        .find(|pair| pair.first().map(|it| it.percent) >= pair.last().map(|it| it.percent))
    {
        let message = format!(
            "percent must grow from step to step (got {} after {})",
            wrong[1].percent, wrong[0].percent
        );
        fields.errors.add("steps", message);
    }
    let guards = fields.take_or_null("guards", |value| list(value, 0..=MAX_GUARDS, guard));
    let guards = guards.unwrap_or_default();
    let mut names: Vec<&str> = guards.iter().map(Guard::name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        fields.errors.add("guards", "must not name an alarm twice");
    }
    let on_alarm = fields.take_or_null("onAlarm", |value| match value.as_str() {
        Some("previous") => Ok(OnAlarm::Previous),
        Some("start") => Ok(OnAlarm::Start),
        Some("off") => Ok(OnAlarm::Off),
        Some("pause") => Ok(OnAlarm::Pause),
        Some(_) | None => Err("must be previous, start, off or pause"),
    });
    let (from, to) = (fields.text("from", 1..=255), fields.text("to", 1..=255));
    let variants = match (from, to) {
        (Some(from), Some(to)) => Some(VariantPair { from, to }),
        (None, None) => None,
        (Some(_), None) => {
            fields.must_have::<String>("to", None);
            None
        }
        (None, Some(_)) => {
            fields.must_have::<String>("from", None);
            None
        }
    };
    fields.must_be_empty();
    fields.finish()?;
    Ok(Plan {
        steps,
        guards,
        on_alarm: on_alarm.unwrap_or(OnAlarm::Start),
        variants,
    })
}

/// Reads a list of objects; the message names the place of what is wrong.
fn list<T>(
    value: &Value,
    length: std::ops::RangeInclusive<usize>,
    read: impl Fn(Map<String, Value>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| "must be a list".to_owned())?;
    if !length.contains(&items.len()) {
        let (least, most) = (length.start(), length.end());
        return Err(format!(
            "must have {least} to {most} entries (got {})",
            items.len()
        ));
    }
    let items = items.iter().enumerate().map(|(at, item)| {
        let fields = item.as_object().cloned();
        let fields = fields.ok_or_else(|| format!("[{at}] must be an object"))?;
        read(fields).map_err(|why| format!("[{at}]{why}"))
    });
    items.collect()
}

fn step(mut fields: Map<String, Value>) -> Result<Step, String> {
    let percent = whole(&mut fields, "percent", 1..=100)?.ok_or(".percent is required")?;
    let bake = whole(&mut fields, "bakeSeconds", 1..=MAX_BAKE)?;
    let bake = bake.ok_or(".bakeSeconds is required")?;
    let min_evaluations = whole(&mut fields, "minEvaluations", 1..=1_000_000_000_000)?;
    let approval = match fields.shift_remove("approval") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(approval)) => approval,
        Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(".approval must be true or false".to_owned());
        }
    };
    must_be_empty(&fields)?;
    Ok(Step {
        percent: u8::try_from(percent).unwrap_or(100),
        bake_seconds: u32::try_from(bake).unwrap_or(u32::MAX),
        min_evaluations,
        approval,
    })
}

fn guard(mut fields: Map<String, Value>) -> Result<Guard, String> {
    let alarm = match fields.shift_remove("alarm") {
        Some(Value::String(alarm)) => alarm,
        Some(_) => return Err(".alarm must be a string".to_owned()),
        None => return Err(".alarm is required".to_owned()),
    };
    let name = alarm_name(&alarm);
    let is_plain = !alarm.chars().any(char::is_control);
    if name.is_empty() || name.chars().count() > MAX_NAME || !is_plain {
        return Err(format!(
            ".alarm must be the name or ARN of a CloudWatch alarm, a name of 1 to {MAX_NAME} characters"
        ));
    }
    let on_missing = match fields.shift_remove("onMissing") {
        None | Some(Value::Null) => OnMissing::Hold,
        Some(value) => match value.as_str() {
            Some("hold") => OnMissing::Hold,
            Some("rollback") => OnMissing::Rollback,
            Some("ignore") => OnMissing::Ignore,
            Some(_) | None => {
                return Err(".onMissing must be hold, rollback or ignore".to_owned());
            }
        },
    };
    must_be_empty(&fields)?;
    let mut parts = alarm.splitn(7, ':');
    if alarm.starts_with("arn:")
        && (parts.nth(2), parts.nth(2)) != (Some("cloudwatch"), Some("alarm"))
    {
        return Err(".alarm is an ARN of something else than an alarm".to_owned());
    }
    Ok(Guard { alarm, on_missing })
}

fn whole(
    fields: &mut Map<String, Value>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    let Some(value) = fields.shift_remove(name).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let number = value.as_u64().filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        format!(".{name} must be a whole number from {least} to {most} (got {value})")
    })
}

fn must_be_empty(fields: &Map<String, Value>) -> Result<(), String> {
    match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!(".{name} is an unknown field")),
    }
}
