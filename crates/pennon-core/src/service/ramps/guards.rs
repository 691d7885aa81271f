//! The alarms that guard ramps.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::warn;

use crate::alarms::{Alarm, AlarmState, Alarms, Unreachable};
use crate::error::Error;
use crate::ramp::{Guard, GuardState, Ramp, RampPlace};

/// What is known of the alarms of a run.
pub(super) enum Known<'a> {
    /// As CloudWatch described them.
    Described(&'a Result<BTreeMap<String, Alarm>, Unreachable>),
    /// CloudWatch has called `guard` because this one rings.
    Rings(&'a str, Duration),
}

/// The states of a ramp's guards, in their order.
pub(super) fn guard_states(ramp: &Ramp, all: &[RampPlace], known: &Known<'_>) -> Vec<GuardState> {
    let guards = ramp.plan.guards.iter().map(Guard::name);
    guards
        .map(|name| {
            let shared = || {
                let mut others = all.iter().filter(|other| other.ramp.id != ramp.id);
                others.any(|other| {
                    let mut guards = other.ramp.plan.guards.iter();
                    guards.any(|guard| guard.name() == name)
                })
            };
            match known {
                Known::Rings(alarm, window) if *alarm == name => GuardState::Alarm {
                    window: *window,
                    shared: shared(),
                },
                Known::Rings(..) => GuardState::Ok,
                Known::Described(Err(_)) => GuardState::Unknown,
                Known::Described(Ok(found)) => match found.get(name) {
                    None => GuardState::Missing("does not exist"),
                    Some(alarm) => match alarm.state {
                        AlarmState::Ok => GuardState::Ok,
                        AlarmState::InsufficientData => GuardState::Missing("has no data"),
                        AlarmState::Alarm => GuardState::Alarm {
                            window: alarm.window,
                            shared: shared(),
                        },
                    },
                },
            }
        })
        .collect()
}

/// Refuses to raise a share while a guard is not OK.
///
/// # Errors
/// [`Error::Conflict`] that names the guards, or when no alarm can be read here; [`Error::Unavailable`] when
/// CloudWatch does not answer.
pub(super) async fn must_be_ok(guards: &[Guard], alarms: &Alarms) -> Result<(), Error> {
    if guards.is_empty() {
        return Ok(());
    }
    if let Some(why) = alarms.absent() {
        return Err(Error::Conflict(format!(
            "This installation cannot read CloudWatch alarms ({why}); start the ramp without guards"
        )));
    }
    let names: Vec<&str> = guards.iter().map(Guard::name).collect();
    let found = alarms.find(&names).await;
    let found = found.map_err(|why| {
        warn!(domain = "config", error = %why, "CloudWatch did not answer");
        Error::Unavailable("CloudWatch did not answer about the ramp's guards".to_owned())
    })?;
    let not_ok = names.iter().filter_map(|name| match found.get(*name) {
        Some(alarm) if alarm.state == AlarmState::Ok => None,
        Some(alarm) => Some(format!("alarm '{name}' is in {}", alarm.state.name())),
        None => Some(format!("alarm '{name}' does not exist")),
    });
    let not_ok: Vec<String> = not_ok.collect();
    if not_ok.is_empty() {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "A ramp advances only while its guards are OK: {}",
        not_ok.join(", ")
    )))
}
