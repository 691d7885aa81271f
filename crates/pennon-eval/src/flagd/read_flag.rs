//! Parses a flag of a flagd file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fields::{
    BUCKETING, DESCRIPTION, KEY, META_BUCKETING, META_DESCRIPTION, META_OVERRIDES, META_PREFIX,
    META_ROLLOUT, META_SALT, OVERRIDES, ROLLOUT, SALT, STATE,
};
use super::simple::boolean_definition;
use crate::logic::evaluators::Evaluators;
use crate::violation::Violations;
use crate::{Bucketing, Definition, Flag, Override, Rollout, validate};

/// Parses a flag. `keep` records the JSON pointers of fields without a meaning in Pennon for `File::kept`.
pub(super) fn read_flag(
    value: &Value,
    is_item: bool,
    evaluators: &Evaluators<'_>,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) -> Flag {
    let mut flag = Flag::default();
    let Some(fields) = problems.object(value) else {
        return flag;
    };
    let mut rollout = None;
    let mut salt = None;
    let mut bucketing = None;
    let mut definition =
        Definition::read(
            fields,
            evaluators,
            problems,
            |name, value, problems| match (name, value) {
                (KEY, _) if is_item => {}
                (STATE, _) | (DESCRIPTION, Value::Null) => {}
                (DESCRIPTION, Value::String(text)) => flag.description = Some(text.clone()),
                (ROLLOUT, value) => rollout = read_rollout(value, problems),
                (SALT, value) => salt = read_text(value, problems),
                (BUCKETING, value) => bucketing = validate::bucketing(value, problems),
                (OVERRIDES, value) => match BTreeMap::<String, Override>::deserialize(value) {
                    Ok(overrides) => flag.overrides = overrides,
                    Err(error) => problems.add(error.to_string()),
                },
                (name, value) => {
                    flag.other.insert(name.to_owned(), value.clone());
                    keep(problems);
                }
            },
        );
    problems.inside(STATE, |problems| match fields.get(STATE) {
        None => problems.add("is required: ENABLED or DISABLED"),
        Some(state) => match state.as_str() {
            Some("ENABLED") => flag.enabled = true,
            Some("DISABLED") => {}
            Some(_) | None => problems.add_wrong("ENABLED or DISABLED", state),
        },
    });
    let metadata = &mut definition.metadata;
    let own = problems.inside("metadata", |problems| take_own(metadata, problems, keep));
    let description = flag.description.take();
    flag.description = merge(DESCRIPTION, description, own.description, problems);
    let in_metadata = own.rollout.is_some();
    let rollout = merge(ROLLOUT, rollout, own.rollout, problems);
    let simple_only = [(SALT, salt.is_some()), (BUCKETING, bucketing.is_some())];
    flag.salt = merge(SALT, salt, own.salt, problems);
    flag.bucketing = merge(BUCKETING, bucketing, own.bucketing, problems);
    if let Some(rollout) = rollout {
        flag.rollout_percentage = rollout;
        // Earlier versions did not write the salt into the rule.
        let is_simple = [flag.salt.as_deref(), None]
            .into_iter()
            .any(|salt| definition == boolean_definition(rollout, salt));
        if definition != Definition::default() && !is_simple {
            let at = if in_metadata {
                "/metadata/pennon.rolloutPercentage"
            } else {
                "/rolloutPercentage"
            };
            problems.add_at(
                at,
                "contradicts the variants, targeting or metadata of the flag; remove it to make the flag a \
                 typed one",
            );
        }
    } else {
        if fields.contains_key("variants") {
            for (name, _) in simple_only.into_iter().filter(|(_, is_set)| *is_set) {
                let why = "has no effect on a flag with variants, only with rolloutPercentage";
                problems.add_at(&format!("/{name}"), why);
            }
        } else if !fields.contains_key(ROLLOUT) {
            let why = "is required, or rolloutPercentage for a simple flag";
            problems.add_at("/variants", why);
        }
        flag.definition = Some(definition);
    }
    flag
}

/// The fields of Pennon in the metadata of a flag.
#[derive(Default)]
struct OwnFields {
    rollout: Option<Rollout>,
    salt: Option<String>,
    bucketing: Option<Bucketing>,
    description: Option<String>,
}

/// Removes the fields of Pennon from the metadata of a flag and parses them.
fn take_own(
    metadata: &mut Map<String, Value>,
    problems: &mut Violations,
    keep: &mut impl FnMut(&Violations),
) -> OwnFields {
    let mut own = OwnFields::default();
    metadata.retain(|name, value| {
        problems.inside(name, |problems| match name.as_str() {
            META_ROLLOUT => own.rollout = read_rollout(value, problems),
            META_SALT => own.salt = read_text(value, problems),
            META_BUCKETING => own.bucketing = validate::bucketing(value, problems),
            META_DESCRIPTION => own.description = read_text(value, problems),
            META_OVERRIDES => problems.add(
                "overrides are not part of a flagd file; set them with POST \
                 /api/admin/flags/{flagKey}/users",
            ),
            name => {
                if name.starts_with(META_PREFIX) {
                    keep(problems);
                }
            }
        });
        ![
            META_ROLLOUT,
            META_SALT,
            META_BUCKETING,
            META_DESCRIPTION,
            META_OVERRIDES,
        ]
        .contains(&name.as_str())
    });
    own
}

/// The value of a field that the flag and its metadata may both have. Different values are a violation.
fn merge<T: PartialEq>(
    field: &str,
    of_flag: Option<T>,
    of_metadata: Option<T>,
    problems: &mut Violations,
) -> Option<T> {
    if let (Some(one), Some(other)) = (&of_flag, &of_metadata)
        && one != other
    {
        let at = format!("/metadata/{META_PREFIX}{field}");
        problems.add_at(&at, format!("contradicts the field {field} of the flag"));
    }
    of_flag.or(of_metadata)
}

fn read_rollout(value: &Value, problems: &mut Violations) -> Option<Rollout> {
    // Also accepts 10.0 and 1e1.
    let percent = (0..=100_u8).find(|percent| value.as_f64() == Some(f64::from(*percent)));
    let rollout = percent.and_then(|percent| Rollout::parse(percent.into()).ok());
    if rollout.is_none() {
        problems.add_wrong("an integer from 0 to 100", value);
    }
    rollout
}

fn read_text(value: &Value, problems: &mut Violations) -> Option<String> {
    let text = value.as_str().map(str::to_owned);
    if text.is_none() {
        problems.add("must be a string");
    }
    text
}
