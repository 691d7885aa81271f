//! The alarms that guard ramps.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tracing::warn;

use super::AlarmEvent;
use crate::alarms::{Alarm, AlarmState, Alarms, Described};
use crate::error::Error;
use crate::ramp::{FlagRamp, Guard, GuardState, MAX_WINDOW, OnMissing, Ramp};

/// Limit on the time to read the alarms of a ramp for a response. CloudWatch usually answers within a tenth of it.
const SHOW_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a guard's alarm in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GuardAlarmState {
    /// `OK`
    Ok,
    /// `ALARM`
    Alarm,
    /// The alarm has no data.
    InsufficientData,
    /// There is no such alarm.
    Missing,
    /// CloudWatch did not answer in time, or cannot be reached.
    Unknown,
}

/// The states of the alarms of these guards, in their order. Never fails, because a ramp must stay readable while
/// CloudWatch is unavailable.
pub async fn fetch_alarm_states(guards: &[Guard], alarms: &Alarms) -> Vec<GuardAlarmState> {
    if guards.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = guards.iter().map(Guard::name).collect();
    let found = tokio::time::timeout(SHOW_TIMEOUT, alarms.find(&names)).await;
    let found = found.unwrap_or_else(|_elapsed| Described {
        failure: Some("CloudWatch did not answer in time".to_owned()),
        ..Described::default()
    });
    if let (Some(why), None) = (&found.failure, alarms.absent()) {
        warn!(domain = "config", error = %why, "the alarms of a ramp cannot be shown");
    }
    let shown = guards.iter().map(|guard| match alarm_of(guard, &found) {
        None if found.failure.is_some() => GuardAlarmState::Unknown,
        None => GuardAlarmState::Missing,
        Some(alarm) => match alarm.state {
            AlarmState::Ok => GuardAlarmState::Ok,
            AlarmState::Alarm => GuardAlarmState::Alarm,
            AlarmState::InsufficientData => GuardAlarmState::InsufficientData,
        },
    });
    shown.collect()
}

/// Where the states of alarms come from.
pub(super) enum AlarmSource<'a> {
    /// `DescribeAlarms`.
    Described(&'a Described),
    /// The event of an alarm that has entered `ALARM`. Other alarms count as `OK`.
    Event(AlarmEvent<'a>),
}

impl AlarmSource<'_> {
    /// Stores what CloudWatch says about the alarms of a ramp: see [`Ramp::silent_guards`] and
    /// [`Ramp::alarm_windows`]. Returns whether the ramp has changed.
    pub(super) fn update_alarms(&self, ramp: &mut Ramp) -> bool {
        let described = match self {
            Self::Described(described) if described.failure.is_none() => described,
            Self::Described(_) | Self::Event(_) => return false,
        };
        let before = (ramp.silent_guards.clone(), ramp.alarm_windows.clone());
        ramp.silent_guards.clear();
        for guard in &ramp.plan.guards {
            let Some(alarm) = alarm_of(guard, described) else {
                continue;
            };
            if !alarm.invokes_function {
                ramp.silent_guards.push(guard.alarm.clone());
            }
            let seconds = alarm.window.as_secs();
            ramp.alarm_windows.insert(guard.alarm.clone(), seconds);
        }
        before != (ramp.silent_guards.clone(), ramp.alarm_windows.clone())
    }
}

/// The states of a ramp's guards, in their order. `all` are the open ramps that may have the same guards.
pub(super) fn guard_states(
    ramp: &Ramp,
    all: &[FlagRamp],
    source: &AlarmSource<'_>,
) -> Vec<GuardState> {
    let state_of = |guard: &Guard| {
        let in_alarm = |window: Duration, fired_at: Option<SystemTime>, arn: Option<&str>| {
            let since = fired_at.unwrap_or_else(SystemTime::now) - window;
            let share = |other: &FlagRamp| ramp.shares_alarm(&other.ramp, guard.name(), arn, since);
            GuardState::Alarm {
                window,
                fired_at,
                shared: all.iter().any(share),
            }
        };
        let described = match source {
            AlarmSource::Event(alarm) if guard.is(alarm.name, alarm.arn) => {
                // Unknown if an earlier version has created the ramp and `reconcile` has not run since. With a window
                // that is too long, ramps that advanced long ago are rolled back too.
                let window = ramp.alarm_window(guard).unwrap_or(MAX_WINDOW);
                return in_alarm(window, Some(alarm.at), alarm.arn);
            }
            AlarmSource::Event(_) => return GuardState::Ok,
            AlarmSource::Described(described) => *described,
        };
        match alarm_of(guard, described) {
            None if described.failure.is_some() => GuardState::Unknown,
            None => GuardState::Missing("does not exist"),
            Some(alarm) => match alarm.state {
                AlarmState::Ok => GuardState::Ok,
                AlarmState::InsufficientData => GuardState::Missing("has no data"),
                AlarmState::Alarm => {
                    let window = ramp.alarm_window(guard).unwrap_or(alarm.window);
                    in_alarm(window, alarm.since, alarm.arn.as_deref())
                }
            },
        }
    };
    ramp.plan.guards.iter().map(state_of).collect()
}

fn alarm_of<'a>(guard: &Guard, described: &'a Described) -> Option<&'a Alarm> {
    let alarm = described.alarms.get(guard.name());
    alarm.filter(|alarm| guard.is(guard.name(), alarm.arn.as_deref()))
}

/// Whether a share may rise while an alarm has no data or does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingAlarms {
    /// The share must not rise.
    Reject,
    /// The share may rise if the guard has `onMissing: ignore`.
    FollowGuard,
}

/// Rejects a request that would raise a share while a guard is not OK.
///
/// # Errors
/// [`Error::Conflict`] that names the guards, or if CloudWatch cannot be reached from here at all;
/// [`Error::Unavailable`] if CloudWatch does not answer.
pub(super) async fn require_ok(
    guards: &[Guard],
    alarms: &Alarms,
    missing: MissingAlarms,
) -> Result<Described, Error> {
    if guards.is_empty() {
        return Ok(Described::default());
    }
    if let Some(why) = alarms.absent() {
        return Err(Error::Conflict(format!(
            "A ramp with guards needs CloudWatch, which cannot be reached from here: {why}"
        )));
    }
    let names: Vec<&str> = guards.iter().map(Guard::name).collect();
    let found = alarms.find(&names).await;
    if let Some(why) = &found.failure {
        warn!(domain = "config", error = %why, "CloudWatch did not answer");
        return Err(Error::Unavailable(
            "CloudWatch did not answer about the ramp's guards".to_owned(),
        ));
    }
    let not_ok = guards.iter().filter_map(|guard| {
        let name = &guard.alarm;
        let may_miss =
            missing == MissingAlarms::FollowGuard && guard.on_missing == OnMissing::Ignore;
        match alarm_of(guard, &found) {
            None if may_miss => None,
            None => Some(format!("alarm '{name}' does not exist")),
            Some(alarm) => match alarm.state {
                AlarmState::Ok => None,
                AlarmState::InsufficientData if may_miss => None,
                AlarmState::Alarm | AlarmState::InsufficientData => {
                    Some(format!("alarm '{name}' is in {}", alarm.state.name()))
                }
            },
        }
    });
    let not_ok: Vec<String> = not_ok.collect();
    if not_ok.is_empty() {
        return Ok(found);
    }
    Err(Error::Conflict(format!(
        "A ramp advances only while its guards are OK: {}",
        not_ok.join(", ")
    )))
}
