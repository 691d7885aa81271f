//! Ramps: creating them, the actions of editors on them, and the engine, which `reconcile` and `guard` run.
//!
//! A ramp changes its flag by the same path as an editor: the flag's row is locked, then the ramp's; the actor in
//! the audit is the editor, `ramp:<id>` or `alarm:<name>`. The ramp stores the revision that its own last change gave
//! the flag; a write without a difference updates it. Another revision means that someone else has changed the flag,
//! and then the ramp never writes again.

mod actions;
mod create;
mod flags;
mod guards;
mod run;

use std::time::SystemTime;

use pennon_eval::FlagKey;

pub use self::actions::RampAction;
use self::flags::{changed_by, is_changed_by_others};
pub(super) use self::flags::{
    follow_unchanged_flag, require_acknowledged, supersede_ramps, supersede_ramps_of_archived,
};
pub use self::guards::{GuardAlarmState, fetch_alarm_states};
pub use self::run::{AlarmEvent, RampsRun};
use super::FlagService;
use crate::environment::Environment;
use crate::error::Error;
use crate::ramp::{Ramp, RampState, Step, StepStart};
use crate::store::unreadable_ramp;

/// Limit on the ramps of a flag that are listed.
const MAX_LISTED: u32 = 100;

impl FlagService {
    /// The ramps of a flag, newest first. If someone else has changed the flag, the live ramp is shown as superseded,
    /// even before the engine has found the change. Unreadable earlier ramps are omitted.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the newest ramp is unreadable; [`Error::Unavailable`] when the store does not answer.
    pub async fn ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Vec<Ramp>, Error> {
        let stored = self.store.list_ramps(environment, key, MAX_LISTED).await?;
        if let Some(None) = stored.first() {
            return Err(unreadable_ramp(key));
        }
        let mut ramps: Vec<Ramp> = stored.into_iter().flatten().collect();
        if let Some(newest) = ramps.first_mut().filter(|ramp| ramp.state.is_live()) {
            let found = self.store.find_flag(environment, key).await?;
            if is_changed_by_others(newest, found.as_ref()) {
                let last = self.store.last_change(environment, key).await?;
                newest.state = RampState::Superseded;
                newest.reason = Some(changed_by(last).1);
                newest.due_at = None;
            }
        }
        Ok(ramps)
    }

    /// The beginning of this step, if it begins at this time. For a ramp that is not watched yet, the time must be
    /// before its guards are checked: otherwise an alarm that fires after the check would have an earlier time, and
    /// would be ignored. The counter of evaluations is read only for a step with a minimum.
    async fn step_start(
        &self,
        step: Option<&Step>,
        environment: &Environment,
        key: &FlagKey,
        at: SystemTime,
    ) -> Result<StepStart, Error> {
        let evaluations_before = if step.is_some_and(|step| step.min_evaluations.is_some()) {
            self.store.evaluation_counter(environment, key, at).await?
        } else {
            0
        };
        Ok(StepStart {
            at,
            evaluations_before,
        })
    }
}
