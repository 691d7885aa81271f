//! A ramp raises the share of users that get a flag, step by step, while CloudWatch alarms watch it.
//!
//! This module does no I/O. It has the model, and decides what happens next (`decide`). `service/ramps` reads and
//! writes ramps and flags, and reads alarms from CloudWatch. The part of `service/ramps` that runs by itself is called
//! the engine: in `reconcile` every minute, and in `guard` when an alarm fires.

mod decide;
mod share;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use pennon_eval::FlagKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use decide::{Decision, GuardState, MAX_CHECK_GAP, Observed, decide};
pub use share::{NotRampable, Share};

use crate::environment::Environment;

/// A ramp of one flag in one environment, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ramp {
    /// Its id.
    pub id: String,
    /// Rises with every transition after its creation, and with no other write; the API's `ETag`. A new ramp begins
    /// with a random number; earlier versions of Pennon began with 1 or with the time in milliseconds.
    pub version: i64,
    /// The plan, as the editor requested it.
    pub plan: Plan,
    /// Its state.
    pub state: RampState,
    /// Why it is pending or holds, was paused or has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many steps have begun. 0 while it is pending.
    pub step: usize,
    /// The flag before the first step, as the audit stores it.
    pub start: Value,
    /// The percentage before the first step.
    pub start_percent: u8,
    /// The percentage that the ramp has set last.
    pub percent: u8,
    /// The flag's revision that the ramp expects. Another revision means that someone else has changed the flag.
    pub flag_revision: i64,
    /// When the current step began.
    #[serde(default, with = "crate::timestamp::optional")]
    pub step_began_at: Option<SystemTime>,
    /// Evaluations of the flag in the hour in which the current step began, before it began.
    #[serde(default)]
    pub evaluations_before: u64,
    /// When the bake of the current step ends.
    #[serde(default, with = "crate::timestamp::optional")]
    pub due_at: Option<SystemTime>,
    /// When the engine last checked it and knew the states of its guards.
    #[serde(default, with = "crate::timestamp::optional")]
    pub checked_at: Option<SystemTime>,
    /// The largest number of evaluations that the engine has counted since the current step began. Counts are deleted
    /// after 14 days, so a later number may be smaller.
    #[serde(default)]
    pub evaluations: u64,
    /// Guards whose alarm has no action that invokes a function, so that the ramp reacts to it only when `reconcile`
    /// runs, every minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_guards: Vec<String>,
    /// The evaluation interval of each guard's alarm in seconds, by [`Guard::alarm`]. The event of an alarm does
    /// not say how many periods the alarm evaluates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alarm_windows: BTreeMap<String, u64>,
    /// The editor who has acknowledged the rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// The editor who created it.
    pub created_by: String,
    /// When it was created.
    #[serde(with = "crate::timestamp::required")]
    pub created_at: SystemTime,
    /// Every change of its state, oldest first.
    pub transitions: Vec<Transition>,
}

/// The plan of a ramp, as a request contains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The steps, with rising percentages.
    pub steps: Vec<Step>,
    /// The alarms that guard it.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// What happens when an alarm fires.
    pub on_alarm: OnAlarm,
    /// For a flag with variants: the two between which weight moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<VariantPair>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The share of all users that get the flag, or the variant, from this step on.
    pub percent: u8,
    /// How long the step is watched before the next one.
    pub bake_seconds: u32,
    /// The evaluations of the flag that the step needs before the next one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_evaluations: Option<u64>,
    /// Whether an editor must approve the step before it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

impl Step {
    /// See [`Self::bake_seconds`].
    #[must_use]
    pub fn bake(&self) -> Duration {
        Duration::from_secs(u64::from(self.bake_seconds))
    }
}

/// The beginning of a step.
///
/// Both fields are of the same moment, because evaluations are counted by the hour: if they were counted at the end of
/// one hour and the step began in the next, the count of the first hour would be subtracted from that of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepStart {
    /// When.
    pub at: SystemTime,
    /// Evaluations of the flag in the hour of this time, before it.
    pub evaluations_before: u64,
}

/// A CloudWatch alarm that guards a ramp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The alarm's name or ARN.
    pub alarm: String,
    /// What happens while it has no data or does not exist.
    pub on_missing: OnMissing,
}

impl Guard {
    /// The alarm's name: `arn:aws:cloudwatch:<region>:<account>:alarm:<name>` ends with it.
    #[must_use]
    pub fn name(&self) -> &str {
        alarm_name(&self.alarm)
    }

    /// Whether this is the alarm with this name and ARN. Of two ARNs all parts must be equal, so an alarm with the same
    /// name in another region or account does not match.
    #[must_use]
    pub fn is(&self, name: &str, arn: Option<&str>) -> bool {
        match arn {
            Some(arn) if self.alarm.starts_with("arn:") => self.alarm == arn,
            Some(_) | None => self.name() == name,
        }
    }
}

/// The name in an alarm's ARN; a name is returned as it is.
#[must_use]
pub fn alarm_name(alarm: &str) -> &str {
    if !alarm.starts_with("arn:") {
        return alarm;
    }
    // A name may itself contain colons.
    alarm.splitn(7, ':').nth(6).unwrap_or(alarm)
}

/// What a ramp does while an alarm has no data (`INSUFFICIENT_DATA`) or does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMissing {
    /// No step begins.
    Hold,
    /// The same as in `ALARM`.
    Rollback,
    /// The same as in `OK`.
    Ignore,
}

/// What a ramp does when an alarm fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnAlarm {
    /// Returns to the percentage before the current step.
    Previous,
    /// Returns to the state before the ramp.
    Start,
    /// Switches the flag off.
    Off,
    /// Pauses. The flag keeps its share.
    Pause,
}

/// Two variants of a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantPair {
    /// The one that loses users.
    pub from: String,
    /// The one that gains them.
    pub to: String,
}

/// The state of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RampState {
    /// The first step needs an approval.
    Pending,
    /// A step bakes: alarms and time are watched.
    Baking,
    /// The next step waits; [`Ramp::reason`] says for what.
    Holding,
    /// An editor or an alarm has stopped the steps. The flag keeps its share.
    Paused,
    /// The last step has baked.
    Completed,
    /// The flag was rolled back. After an alarm, most changes of it are rejected until an editor acknowledges that.
    RolledBack,
    /// Someone else has changed the flag. Their change stays.
    Superseded,
    /// An editor has ended it. The flag keeps its share.
    Cancelled,
}

impl fmt::Display for RampState {
    /// Writes the name that the API uses.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

impl RampState {
    /// Whether the engine checks it.
    #[must_use]
    pub fn is_watched(self) -> bool {
        match self {
            Self::Baking | Self::Holding => true,
            Self::Pending
            | Self::Paused
            | Self::Completed
            | Self::RolledBack
            | Self::Superseded
            | Self::Cancelled => false,
        }
    }

    /// Whether it may still change the flag. A flag has one such ramp at most.
    #[must_use]
    pub fn is_live(self) -> bool {
        self.is_watched() || matches!(self, Self::Pending | Self::Paused)
    }
}

/// A change of a ramp's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When.
    #[serde(with = "crate::timestamp::required")]
    pub at: SystemTime,
    /// The new state.
    pub state: RampState,
    /// How many steps had begun by then.
    pub step: usize,
    /// The percentage from then on.
    pub percent: u8,
    /// The actor: an editor's `sub`, `ramp:<id>` for `reconcile`, or `alarm:<name>` for `guard`. For a
    /// superseded ramp, the actor who changed the flag.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The longest evaluation interval of an alarm that CloudWatch supports: a week.
pub const MAX_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// Limit on the transitions of a ramp, which is then paused. An alarm that loses its data again and again would
/// otherwise make the ramp grow without bound.
pub const MAX_TRANSITIONS: usize = 1_000;

/// Why a ramp is pending.
pub(crate) const FIRST_STEP_NEEDS_APPROVAL: &str = "the first step needs an approval";

impl Ramp {
    /// Whether it blocks changes of the flag: it was rolled back, and no editor has acknowledged that.
    #[must_use]
    pub fn blocks_changes(&self) -> bool {
        self.state == RampState::RolledBack && self.acknowledged_by.is_none()
    }

    /// Whether its flag can have no other ramp.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.is_live() || self.blocks_changes()
    }

    /// The evaluation interval of this guard's alarm, if it is known. At most [`MAX_WINDOW`], whatever the row says:
    /// a point in time minus a much longer duration panics.
    #[must_use]
    pub fn alarm_window(&self, guard: &Guard) -> Option<Duration> {
        let seconds = self.alarm_windows.get(&guard.alarm)?;
        Some(Duration::from_secs(*seconds).min(MAX_WINDOW))
    }

    /// The step that bakes.
    #[must_use]
    pub fn current_step(&self) -> Option<&Step> {
        self.step
            .checked_sub(1)
            .and_then(|at| self.plan.steps.get(at))
    }

    /// The step after the current one.
    #[must_use]
    pub fn next_step(&self) -> Option<&Step> {
        self.plan.steps.get(self.step)
    }

    /// The percentage before the current step.
    #[must_use]
    pub fn previous_percent(&self) -> u8 {
        let before = self.step.checked_sub(2);
        before
            .and_then(|at| self.plan.steps.get(at))
            .map_or(self.start_percent, |step| step.percent)
    }

    /// Enters a state and records the transition.
    pub fn enter(
        &mut self,
        state: RampState,
        reason: Option<String>,
        actor: &str,
        now: SystemTime,
    ) {
        self.state = state;
        self.reason.clone_from(&reason);
        self.transitions.push(Transition {
            at: now,
            state,
            step: self.step,
            percent: self.percent,
            actor: actor.to_owned(),
            reason,
        });
    }

    /// Whether it was baking or holding at this time. An event of another time does not concern it: a step begins only
    /// while its guards are OK, and `reconcile` reads their present state within a minute.
    #[must_use]
    pub fn was_watched_at(&self, at: SystemTime) -> bool {
        let mut since = self.transitions.iter().rev();
        since
            .find(|transition| transition.at <= at)
            .is_some_and(|transition| transition.state.is_watched())
    }

    /// Whether this alarm has stopped it at this time or later, by its event or by `reconcile`.
    #[must_use]
    pub fn was_stopped_by(&self, alarm: &str, since: SystemTime) -> bool {
        let reason = decide::in_alarm(alarm);
        self.transitions.iter().any(|transition| {
            let is_stop = matches!(transition.state, RampState::Paused | RampState::RolledBack);
            let why = transition.reason.as_deref().unwrap_or_default();
            is_stop && transition.at >= since && why.starts_with(&reason)
        })
    }

    /// Begins the next step, or completes the ramp after the last one.
    pub fn advance(&mut self, start: StepStart, actor: &str) {
        let Some(step) = self.next_step() else {
            self.due_at = None;
            self.enter(RampState::Completed, None, actor, start.at);
            return;
        };
        let (percent, bake) = (step.percent, step.bake());
        self.step += 1;
        self.percent = percent;
        self.evaluations = 0;
        self.evaluations_before = start.evaluations_before;
        self.step_began_at = Some(start.at);
        self.bake_from(start.at, bake);
        self.enter(RampState::Baking, None, actor, start.at);
    }

    /// Bakes the current step again in full, from now on.
    pub fn bake_again(&mut self, now: SystemTime) {
        if let Some(bake) = self.current_step().map(Step::bake) {
            self.bake_from(now, bake);
        }
    }

    fn bake_from(&mut self, now: SystemTime, bake: Duration) {
        self.due_at = Some(now + bake);
        self.checked_at = Some(now);
    }
}

/// A ramp and its flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagRamp {
    /// The environment of its flag.
    pub environment: Environment,
    /// Its flag.
    pub key: FlagKey,
    /// The ramp.
    pub ramp: Ramp,
}
