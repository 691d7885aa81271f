//! A ramp raises the share of users that get a flag, step by step, while CloudWatch alarms watch it.
//!
//! This module is pure: the model, and what happens next ([`decide`]). `service/ramps` reads and writes
//! ramps and flags, and asks CloudWatch.

mod decide;
mod share;

use std::time::{Duration, SystemTime};

use pennon_eval::FlagKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use decide::{Decision, GuardState, LATE_AFTER, Observed, decide};
pub use share::{NotRampable, Share};

use crate::environment::Environment;

/// A ramp of one flag in one environment, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ramp {
    /// Its id.
    pub id: String,
    /// Rises with every change of the ramp; the API's `ETag`.
    pub version: i64,
    /// What the admin asked for.
    pub plan: Plan,
    /// Where it stands.
    pub state: RampState,
    /// Why it holds, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many steps have begun. 0 while it is pending.
    pub step: usize,
    /// The flag before the first step, as the audit keeps it.
    pub start: Value,
    /// The percentage before the first step.
    pub start_percent: u8,
    /// The percentage that the ramp has set last.
    pub percent: u8,
    /// The flag's revision that the ramp expects. Another one means that somebody has changed the flag.
    pub flag_revision: i64,
    /// When the present step began.
    #[serde(default, with = "crate::timestamp::optional")]
    pub step_began_at: Option<SystemTime>,
    /// Evaluations of the flag in the hour in which the present step began, up to that moment.
    #[serde(default)]
    pub evaluations_before: u64,
    /// When its bake ends.
    #[serde(default, with = "crate::timestamp::optional")]
    pub due_at: Option<SystemTime>,
    /// When the engine looked at it last.
    #[serde(default, with = "crate::timestamp::optional")]
    pub checked_at: Option<SystemTime>,
    /// The most evaluations that the engine has counted since the present step began. Hours are deleted
    /// after 14 days, so that a later count may be lower.
    #[serde(default)]
    pub evaluations: u64,
    /// Guards whose alarm invokes no function. Only the engine notices them, once a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_guards: Vec<String>,
    /// Who has acknowledged a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// The admin who created it.
    pub created_by: String,
    /// When that was.
    #[serde(with = "crate::timestamp::required")]
    pub created_at: SystemTime,
    /// Every change of its state, oldest first.
    pub transitions: Vec<Transition>,
}

/// What an admin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The steps, with rising percentages.
    pub steps: Vec<Step>,
    /// The alarms that watch it.
    #[serde(default)]
    pub guards: Vec<Guard>,
    /// What an alarm does.
    pub on_alarm: OnAlarm,
    /// For a flag with variants, between which of them weight moves.
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
    /// How many evaluations of the flag it takes at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_evaluations: Option<u64>,
    /// Whether an admin must allow the step before it begins.
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

/// A CloudWatch alarm that watches a ramp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The alarm's name or ARN.
    pub alarm: String,
    /// What happens while it has no data, or does not exist.
    pub on_missing: OnMissing,
}

impl Guard {
    /// The alarm's name: `arn:aws:cloudwatch:<region>:<account>:alarm:<name>` ends with it.
    #[must_use]
    pub fn name(&self) -> &str {
        alarm_name(&self.alarm)
    }

    /// Whether this is the alarm with this name and ARN. A guard that is an ARN never matches an alarm of
    /// the same name in another region or account.
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
    /// As if the alarm rang.
    Rollback,
    /// Nothing.
    Ignore,
}

/// What a ramp does when an alarm rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnAlarm {
    /// Returns to the percentage before the present step.
    Previous,
    /// Returns to the state before the ramp.
    Start,
    /// Switches the flag off.
    Off,
    /// Pauses and leaves the flag as it is.
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

/// Where a ramp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RampState {
    /// Its first step waits for an approval.
    Pending,
    /// A step is being watched.
    Baking,
    /// The next step waits for something that [`Ramp::reason`] names.
    Holding,
    /// An admin or an alarm has stopped it; the flag stays as it is.
    Paused,
    /// The last step has been watched to its end.
    Completed,
    /// The flag has been taken back. Until an admin acknowledges that, it can only be switched off.
    RolledBack,
    /// Somebody has changed the flag, and that change stays.
    Superseded,
    /// An admin has ended it; the flag stays as it is.
    Cancelled,
}

impl RampState {
    /// Whether the engine looks at it.
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
    /// To which state.
    pub state: RampState,
    /// How many steps had begun then.
    pub step: usize,
    /// The percentage from then on.
    pub percent: u8,
    /// Who: an admin's `sub`, `ramp:<id>` for the engine, `alarm:<name>`.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A ramp has this many transitions at most. An alarm without data that comes and goes would otherwise
/// make it grow without bound; it is paused instead.
pub const MAX_TRANSITIONS: usize = 1_000;

impl Ramp {
    /// Whether it blocks changes of the flag: it was rolled back and nobody has acknowledged that.
    #[must_use]
    pub fn blocks_changes(&self) -> bool {
        self.state == RampState::RolledBack && self.acknowledged_by.is_none()
    }

    /// Whether a flag can have no other ramp beside it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.is_live() || self.blocks_changes()
    }

    /// The step that is being watched.
    #[must_use]
    pub fn present_step(&self) -> Option<&Step> {
        self.step
            .checked_sub(1)
            .and_then(|at| self.plan.steps.get(at))
    }

    /// The step after it.
    #[must_use]
    pub fn next_step(&self) -> Option<&Step> {
        self.plan.steps.get(self.step)
    }

    /// The percentage before the present step.
    #[must_use]
    pub fn previous_percent(&self) -> u8 {
        let before = self.step.checked_sub(2);
        before
            .and_then(|at| self.plan.steps.get(at))
            .map_or(self.start_percent, |step| step.percent)
    }

    /// Enters a state. The same state with the same reason is no transition.
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

    /// Begins the next step, or completes when there is none.
    pub fn advance(&mut self, evaluations_before: u64, actor: &str, now: SystemTime) {
        let Some(step) = self.next_step() else {
            self.due_at = None;
            self.enter(RampState::Completed, None, actor, now);
            return;
        };
        let (percent, bake) = (step.percent, step.bake());
        self.step += 1;
        self.percent = percent;
        self.evaluations = 0;
        self.evaluations_before = evaluations_before;
        self.step_began_at = Some(now);
        self.bake_from(now, bake);
        self.enter(RampState::Baking, None, actor, now);
    }

    /// Watches the present step from now on for its whole length.
    pub fn bake_again(&mut self, now: SystemTime) {
        if let Some(bake) = self.present_step().map(Step::bake) {
            self.bake_from(now, bake);
        }
    }

    fn bake_from(&mut self, now: SystemTime, bake: Duration) {
        self.due_at = Some(now + bake);
        self.checked_at = Some(now);
    }
}

/// Where a ramp is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RampPlace {
    /// The environment of its flag.
    pub environment: Environment,
    /// Its flag.
    pub key: FlagKey,
    /// The ramp.
    pub ramp: Ramp,
}
