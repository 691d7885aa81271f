//! The actions of editors on ramps.

use std::time::SystemTime;

use pennon_eval::FlagKey;

use super::flags::{advance, roll_back, summary_of, supersede_if_changed};
use super::guards::{MissingAlarms, require_ok};
use crate::alarms::Alarms;
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::ramp::{
    FIRST_STEP_NEEDS_APPROVAL, MAX_TRANSITIONS, OnAlarm, Ramp, RampState, StepStart,
};
use crate::request_context::RequestContext;
use crate::service::FlagService;
use crate::service::change::{Changed, Expected};
use crate::service::update::require_in_use;
use crate::store::Action;

/// An action of an editor on a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RampAction {
    /// Stops the steps. The flag keeps its share.
    Pause,
    /// Continues. The current step bakes again in full.
    Resume,
    /// Begins the next step now, whatever it waits for, and grants its approval.
    Advance,
    /// Rolls the flag back to its share before the ramp.
    RollBack,
    /// Allows changes of the flag again, after an alarm has rolled it back.
    Acknowledge,
    /// Ends the ramp. The flag keeps its share.
    Cancel,
}

impl FlagService {
    /// Applies an action of an editor to the flag's ramp, which must be live, or rolled back and not acknowledged.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::NotFound`] without a ramp, [`Error::PreconditionFailed`];
    /// [`Error::InvalidState`] if the newest ramp has ended, or its state does not allow the action;
    /// [`Error::Conflict`] if someone else has changed the flag, or the ramp while its guards were read, if a guard is
    /// not OK, or if the ramp has changed its state too often to be resumed.
    #[expect(clippy::too_many_arguments, reason = "a request and its context")]
    pub async fn apply_ramp_action(
        &self,
        environment: &Environment,
        key: &FlagKey,
        action: RampAction,
        expected: &Expected,
        actor: &Actor,
        alarms: &Alarms,
        context: &RequestContext,
    ) -> Result<Changed<Ramp>, Error> {
        let prepared = if action == RampAction::Advance {
            self.prepare_advance(environment, key, expected, alarms)
                .await?
        } else {
            None
        };
        let mut transaction = self.begin(environment, &actor.id).await?;
        let found = transaction.flag(key).await?;
        let Some(mut ramp) = transaction.open_ramp(key).await? else {
            require_in_use(found, key)?;
            transaction.rollback().await;
            return Err(self.no_open_ramp(environment, key, expected).await);
        };
        expected.check(ramp.version)?;
        if supersede_if_changed(&mut transaction, key, &mut ramp, found.as_ref()).await? {
            let why = ramp.reason.unwrap_or_default();
            transaction.commit().await?;
            return Err(Error::Conflict(format!("The ramp is superseded: {why}")));
        }
        let (before, now) = (summary_of(&ramp), SystemTime::now());
        let mut flag_changes = false;
        let who = &actor.id;
        match (action, ramp.state) {
            (RampAction::Pause, RampState::Pending | RampState::Baking | RampState::Holding) => {
                ramp.enter(RampState::Paused, None, who, now);
            }
            (RampAction::Resume, RampState::Paused)
                if ramp.transitions.len() >= MAX_TRANSITIONS =>
            {
                return Err(Error::Conflict(
                    "The state of this ramp has changed too often; cancel it and start another one"
                        .to_owned(),
                ));
            }
            (RampAction::Resume, RampState::Paused) if ramp.step == 0 => {
                let why = FIRST_STEP_NEEDS_APPROVAL.to_owned();
                ramp.enter(RampState::Pending, Some(why), who, now);
            }
            (RampAction::Resume, RampState::Paused) => {
                ramp.bake_again(now);
                ramp.enter(RampState::Baking, None, who, now);
            }
            (RampAction::Advance, RampState::Pending | RampState::Baking | RampState::Holding) => {
                let start = start_of(&ramp, prepared)?;
                flag_changes = ramp.next_step().is_some();
                let before = require_in_use(found, key)?;
                advance(&mut transaction, key, &mut ramp, &before, start, who).await?;
            }
            (RampAction::RollBack, state) if state.is_live() => {
                flag_changes = ramp.step > 0;
                let (before, target) = (require_in_use(found, key)?, OnAlarm::Start);
                roll_back(&mut transaction, key, &mut ramp, &before, target, None, who).await?;
                ramp.acknowledged_by = Some(who.clone());
            }
            // Also if the flag was archived since, or deleted without the API.
            (RampAction::Acknowledge, RampState::RolledBack) => {
                ramp.acknowledged_by = Some(who.clone());
                // The ramp keeps the reason of the rollback.
                let reason = ramp.reason.clone();
                let why = "acknowledged".to_owned();
                ramp.enter(RampState::RolledBack, Some(why), who, now);
                ramp.reason = reason;
            }
            (RampAction::Cancel, state) if state.is_live() => {
                ramp.due_at = None;
                ramp.enter(RampState::Cancelled, None, who, now);
            }
            (
                RampAction::Pause
                | RampAction::Resume
                | RampAction::Advance
                | RampAction::RollBack
                | RampAction::Acknowledge
                | RampAction::Cancel,
                state,
            ) => {
                return Err(Error::InvalidState(format!(
                    "The ramp is {state}, which does not allow this"
                )));
            }
        }
        if !flag_changes {
            let after = summary_of(&ramp);
            transaction
                .add_audit_entry(Some(key), Action::ChangeRamp, Some(before), Some(after))
                .await?;
        }
        ramp.version += 1;
        transaction.write_ramp(key, &ramp).await?;
        let invalidated = if flag_changes {
            self.commit(transaction, environment, context).await?
        } else {
            transaction.commit().await?;
            None
        };
        Ok(Changed {
            value: ramp,
            invalidated,
        })
    }

    /// Why an action on the newest ramp of a flag without an open ramp is impossible.
    async fn no_open_ramp(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
    ) -> Error {
        let ended = match self.ramps(environment, key).await {
            Ok(ramps) => ramps.into_iter().next(),
            Err(error) => return error,
        };
        let Some(Ramp { version, state, .. }) = ended else {
            return Error::NotFound(format!("A ramp of '{key}'"));
        };
        let changed = expected.check(version).err();
        changed.unwrap_or_else(|| Error::InvalidState(format!("The ramp has ended: it is {state}")))
    }

    /// Checks the guards of the flag's live ramp, if it has one. Returns the ramp's version and the beginning of its next
    /// step.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`]; [`Error::Conflict`] if a guard is not OK.
    async fn prepare_advance(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        alarms: &Alarms,
    ) -> Result<Option<(i64, StepStart)>, Error> {
        let at = SystemTime::now();
        let ramps = self.store.list_ramps(environment, key, 1).await?;
        let newest = ramps.into_iter().flatten().next();
        let Some(ramp) = newest.filter(|ramp| ramp.state.is_live()) else {
            return Ok(None);
        };
        expected.check(ramp.version)?;
        require_ok(&ramp.plan.guards, alarms, MissingAlarms::FollowGuard).await?;
        let start = self.step_start(ramp.next_step(), environment, key, at);
        Ok(Some((ramp.version, start.await?)))
    }
}

/// The beginning of the next step as it was prepared before the transaction. With `If-Match: *`, the ramp may now be
/// another one or in another step, so that its guards were not checked.
///
/// # Errors
/// [`Error::Conflict`] if the ramp has another version than the prepared one.
fn start_of(ramp: &Ramp, prepared: Option<(i64, StepStart)>) -> Result<StepStart, Error> {
    match prepared {
        Some((version, start)) if version == ramp.version => Ok(start),
        Some(_) | None => Err(Error::Conflict(
            "The ramp has changed at the same time; read it, and advance it again".to_owned(),
        )),
    }
}
