//! `POST /v1/evaluation-counts`: the evaluations that a program outside of this service has counted.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::counts::{Counts, MAX_VARIANT_LENGTH, PostedCounts, day};
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::json::quote;
use pennon_core::eval::{Flag, FlagKey, Violations};
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::ofrep;
use pennon_core::snapshot::Snapshot;
use serde_json::{Map, Value, json};

/// Limit on a body. Its counts become part of one log line, and CloudWatch accepts events of 1 MB.
const MAX_BODY_SIZE: usize = 240_000;
/// Limit on the id of a batch. A UUID has 36 characters.
const MAX_ID_LENGTH: usize = 64;
/// Valid counts: the largest is more than an instance evaluates in a day, and far below an overflow of the sum.
const COUNT: RangeInclusive<u64> = 1..=1_000_000_000;
/// An instance may be frozen until after midnight, and its clock may be ahead. The database remembers the ids of
/// batches for longer than a batch is accepted.
const TOLERANCE: Duration = Duration::from_hours(24);

/// Counts a batch, once for its id. Flags that the environment does not have, and names that are no variants of a flag,
/// are ignored, so that a key cannot create rows for invented names. The last evaluations of a variant that was removed
/// meanwhile are ignored too, like those of a flag that was deleted. So are those of a variant with a name that cannot
/// be counted: the program did not choose the name, and an error would cost it the other counts of its batch.
///
/// On Lambda, the counts are written to the log line of this request, like the evaluations of the service itself, and
/// `count-evaluations` adds them to the database. So this function needs no permission to write.
///
/// # Errors
/// Those of [`ofrep::admit_to_sync`]; [`Error::TooLarge`]; [`Error::OtherEnvironment`] for counts of another
/// environment than that of the key; [`Error::Invalid`]; without a log for counts, [`Error::Unavailable`] if the store
/// does not answer.
pub(super) async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let client = ofrep::admit_to_sync(&app, &request).await?;
    let now = SystemTime::now();
    let snapshot = &client.reading.snapshot;
    let Posted {
        batch,
        counts,
        ignored,
    } = parse(request.body(), &client.environment, snapshot, now)?;
    let evaluations = counts.total();
    if counts.is_empty() {
        // The database need not remember the id.
    } else if app.log_writer.reports_counts() {
        let posted = PostedCounts { batch, counts };
        request.context().trace.posted(posted);
    } else {
        let store = app.service.store();
        store.count(&batch, &counts, now).await?;
    }
    let body = json!({ "evaluations": evaluations, "ignored": ignored });
    Ok(http::json(StatusCode::ACCEPTED, &body))
}

/// A valid body.
#[derive(Debug, PartialEq, Eq)]
struct Posted {
    /// The id under which the database remembers the batch. It contains the environment, so that a key cannot use up
    /// ids of other environments.
    batch: String,
    counts: Counts,
    /// The number of evaluations of unknown flags and variants, and of variants that cannot be counted.
    ignored: u64,
}

fn parse(
    body: &[u8],
    environment: &Environment,
    snapshot: &Snapshot,
    now: SystemTime,
) -> Result<Posted, Error> {
    let limit = MAX_BODY_SIZE;
    if body.len() > limit {
        return Err(Error::TooLarge { limit });
    }
    let mut fields = Fields::parse(body)?;
    let batch = fields.text("batch", 1..=MAX_ID_LENGTH);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if batch.as_ref().is_some_and(|id| !id.bytes().all(is_plain)) {
        let error = "Must have only letters, digits and '-'";
        fields.errors.add("batch", error);
    }
    fields.require("batch", batch.as_ref());
    let given = fields.value("counts");
    fields.require("counts", given.as_ref());
    fields.reject_rest();
    let days = [now - TOLERANCE, now, now + TOLERANCE].map(day);
    let mut counts = Counts::default();
    let mut ignored = 0;
    let given = given.unwrap_or_else(|| json!({}));
    let mut environments = given.as_object().into_iter().flat_map(Map::keys);
    if environments.any(|name| name != environment.as_str()) {
        return Err(Error::OtherEnvironment);
    }
    let mut errors = Violations::default();
    errors.at("counts", |errors| {
        each_member(&given, errors, |name, of_days, errors| {
            each_member(of_days, errors, |day, flags, errors| {
                if days.iter().all(|valid| valid != day) {
                    let [first, _, last] = &days;
                    let error = format!("Must be a date in UTC from {first} to {last}");
                    errors.add_at("", error);
                }
                each_member(flags, errors, |flag, variants, errors| {
                    let key = FlagKey::parse(flag).ok();
                    let flag_of_key = key.and_then(|key| snapshot.flags.get(&key));
                    each_member(variants, errors, |variant, count, errors| {
                        let is_counted = is_countable(variant)
                            && flag_of_key.is_some_and(|flag| has_variant(flag, variant));
                        match parse_count(count) {
                            Ok(count) if is_counted => counts.add(name, day, flag, variant, count),
                            Ok(count) => ignored += count,
                            Err(error) => errors.add_at("", error),
                        }
                    });
                });
            });
        });
    });
    fields.errors.add_violations(errors);
    fields.finish()?;
    Ok(Posted {
        batch: format!("{environment}:{}", batch.unwrap_or_default()),
        counts,
        ignored,
    })
}

/// Whether an evaluation of the flag can have this variant. An empty name means that the application used its default.
fn has_variant(flag: &Flag, variant: &str) -> bool {
    variant.is_empty()
        || match &flag.definition {
            Some(definition) => definition.variants.contains_key(variant),
            None => variant == "on" || variant == "off",
        }
}

/// Whether the database can hold the name of the variant. The name of a variant that is older than the limits, or was
/// written by SQL, may be too long or contain a NUL character.
fn is_countable(variant: &str) -> bool {
    variant.chars().count() <= MAX_VARIANT_LENGTH && !variant.contains('\0')
}

fn parse_count(count: &Value) -> Result<u64, String> {
    let valid = count.as_u64().filter(|count| COUNT.contains(count));
    valid.ok_or_else(|| {
        let (min, max) = (COUNT.start(), COUNT.end());
        let got = quote(count);
        format!("Must be an integer from {min} to {max} (got {got})")
    })
}

/// Calls a function with the name and value of each member of an object. Adds an error if the value is not an object.
fn each_member(
    value: &Value,
    errors: &mut Violations,
    mut work: impl FnMut(&str, &Value, &mut Violations),
) {
    let Some(object) = value.as_object() else {
        let got = quote(value);
        return errors.add_at("", format!("Expected an object (got {got})"));
    };
    for (name, value) in object {
        errors.inside(name, |errors| work(name, value, errors));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29, noon.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_953_600)
    }

    fn parse_body(body: &[u8]) -> Result<Posted, Error> {
        let key = |text: &str| FlagKey::parse(text).expect("a key");
        let typed: Flag = serde_json::from_value(json!({
            "definition": {"variants": {
                "red": 1, "blue": 2, "nul\u{0}": 3,
                ("é".repeat(255)): 4, ("é".repeat(256)): 5,
            }},
        }))
        .expect("a flag");
        let snapshot = Snapshot {
            flags: [
                (key("size"), Arc::default()),
                (key("colour"), Arc::new(typed)),
            ]
            .into(),
            ..Snapshot::empty()
        };
        parse(body, &Environment::production(), &snapshot, now())
    }

    fn parse_json(body: &Value) -> Result<Posted, Error> {
        parse_body(body.to_string().as_bytes())
    }

    fn of_days(days: &Value) -> Value {
        json!({ "batch": "b-1", "counts": { "production": days } })
    }

    #[test]
    fn known_flags_are_counted_and_unknown_ones_ignored() {
        let body = of_days(&json!({
            "2026-11-28": {"size": {"on": 1}},
            "2026-11-29": {"size": {"on": 2, "": 1_000_000_000}, "gone": {"on": 4}, "": {"x": 8}},
            "2026-11-30": {"size": {"on": 16}},
        }));
        let posted = parse_json(&body).expect("valid");
        assert_eq!(posted.batch, "production:b-1");
        assert_eq!(posted.ignored, 12);
        assert_eq!(
            serde_json::to_value(&posted.counts).expect("JSON"),
            json!({"production": {
                "2026-11-28": {"size": {"on": 1}},
                "2026-11-29": {"size": {"on": 2, "": 1_000_000_000}},
                "2026-11-30": {"size": {"on": 16}},
            }})
        );
        for empty in [json!({}), json!({"2026-11-29": {"size": {}}})] {
            let posted = parse_json(&of_days(&empty)).expect("valid");
            assert!(posted.counts.is_empty());
        }
    }

    #[test]
    fn a_key_cannot_create_rows_for_invented_variants() {
        let body = of_days(&json!({"2026-11-29": {
            "size": {"on": 1, "off": 2, "": 4, "red": 8},
            "colour": {"red": 1, "blue": 2, "": 4, "on": 8, "removed": 16},
        }}));
        let posted = parse_json(&body).expect("valid");
        assert_eq!(posted.ignored, 32);
        assert_eq!(
            serde_json::to_value(&posted.counts).expect("JSON"),
            json!({"production": {"2026-11-29": {
                "size": {"on": 1, "off": 2, "": 4},
                "colour": {"red": 1, "blue": 2, "": 4},
            }}})
        );
    }

    #[test]
    fn a_variant_that_cannot_be_counted_does_not_affect_other_counts() {
        let longest = "é".repeat(255);
        let body = of_days(&json!({"2026-11-29": {
            "size": {"on": 1},
            "colour": {"red": 2, (longest.clone()): 4, ("é".repeat(256)): 8, "nul\u{0}": 16},
        }}));
        let posted = parse_json(&body).expect("valid");
        assert_eq!(posted.ignored, 24);
        assert_eq!(
            serde_json::to_value(&posted.counts).expect("JSON"),
            json!({"production": {"2026-11-29": {
                "size": {"on": 1},
                "colour": {"red": 2, (longest): 4},
            }}})
        );
    }

    #[test]
    fn an_invalid_body_is_rejected_with_the_position_of_each_error() {
        let today = |flags: Value| of_days(&json!({ "2026-11-29": flags }));
        for (body, place, error) in [
            (json!({"counts": {}}), "batch", "Required"),
            (json!({"batch": "", "counts": {}}), "batch", "1 to 64"),
            (
                json!({"batch": "a b", "counts": {}}),
                "batch",
                "only letters",
            ),
            (json!({"batch": "b-1"}), "counts", "Required"),
            (
                json!({"batch": "b-1", "counts": 5}),
                "counts",
                "Expected an object (got 5)",
            ),
            (
                json!({"batch": "b-1", "counts": {}, "day": 1}),
                "day",
                "Unknown field",
            ),
            (
                of_days(&json!([])),
                "counts/production",
                "Expected an object (got an array)",
            ),
            (
                of_days(&json!({"2026-11-27": {}})),
                "counts/production/2026-11-27",
                "from 2026-11-28 to 2026-11-30",
            ),
            (
                of_days(&json!({"2026-12-01": {}})),
                "counts/production/2026-12-01",
                "from 2026-11-28",
            ),
            (
                of_days(&json!({"today/now": {}})),
                "counts/production/today~1now",
                "a date in UTC",
            ),
            (
                today(json!({"size": 1})),
                "counts/production/2026-11-29/size",
                "Expected an object",
            ),
            (
                today(json!({"size": {"on": 0}})),
                "counts/production/2026-11-29/size/on",
                "from 1 to 1000000000 (got 0)",
            ),
            (
                today(json!({"gone": {"on": -1}})),
                "counts/production/2026-11-29/gone/on",
                "(got -1)",
            ),
            (
                today(json!({"size": {"on": 1.5}})),
                "counts/production/2026-11-29/size/on",
                "an integer",
            ),
            (
                today(json!({"size": {"on": 1_000_000_001}})),
                "counts/production/2026-11-29/size/on",
                "an integer",
            ),
        ] {
            match parse_json(&body) {
                Err(Error::Invalid(errors)) => {
                    assert_eq!(errors.form, Vec::<String>::new(), "{body}");
                    let found: Vec<_> = errors.fields.into_iter().collect();
                    assert_eq!(found.len(), 1, "{body}: {found:?}");
                    assert_eq!(found[0].0, place, "{body}");
                    assert!(found[0].1[0].contains(error), "{body}: {found:?}");
                }
                other => panic!("{body} gave {other:?}"),
            }
        }
        let many: Map<String, Value> = (0..100).map(|n| (format!("v{n}"), json!(0))).collect();
        let Err(Error::Invalid(errors)) = parse_json(&today(json!({"x".repeat(50_000): many})))
        else {
            panic!("accepted");
        };
        assert_eq!(errors.form, ["50 more are not listed"]);
        assert!(errors.fields.keys().all(|place| place.len() < 5_000));
        let other = json!({"batch": "b", "counts": {"staging": {}}});
        assert_eq!(parse_json(&other), Err(Error::OtherEnvironment));
        let limit = MAX_BODY_SIZE;
        let large = vec![b' '; limit + 1];
        assert_eq!(parse_body(&large), Err(Error::TooLarge { limit }));
    }
}
