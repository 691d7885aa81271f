//! Ramps: creating and steering them, and the engine that `reconcile` runs every minute.
//!
//! A ramp changes its flag by the same path as an admin: the flag's row is locked, then the ramp's; the
//! audit says `ramp:<id>`. The ramp knows the revision that its own last change gave the flag. Another
//! revision means that somebody else has changed it, and then the ramp never writes again.

mod flags;
mod guards;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::FlagKey;
use tracing::{error, info, warn};

pub(super) use self::flags::must_not_be_rolled_back;
use self::flags::{advance, is_foreign, name_of, not_rampable, roll_back, settle, summary_of};
use self::guards::{Known, guard_states, must_be_ok};
use super::FlagService;
use super::change::{Changed, Expected, state_of};
use super::update::live;
use crate::alarms::Alarms;
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::Error;
use crate::id::unique_id;
use crate::ramp::{
    Decision, Guard, MAX_TRANSITIONS, Observed, OnAlarm, Plan, Ramp, RampPlace, RampState, Share,
    decide,
};
use crate::request_context::RequestContext;
use crate::store::Action;

/// As many ramps are looked at in one run, those first that were not looked at for longest.
const MAX_PER_RUN: u32 = 500;
/// As many ramps of a flag are listed, newest first.
const MAX_LISTED: u32 = 100;

/// What an admin does with a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RampAction {
    /// Stops the steps; the flag stays as it is.
    Pause,
    /// Goes on; the present step bakes again.
    Resume,
    /// Begins the next step now, whatever it waits for, and grants its approval.
    Advance,
    /// Takes the flag back to where the ramp began.
    RollBack,
    /// Allows changes of a flag again that was rolled back by an alarm.
    Acknowledge,
    /// Ends the ramp; the flag stays as it is.
    Cancel,
}

/// What a run of the engine did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RampsRun {
    /// Ramps that were looked at.
    pub checked: usize,
    /// Steps that began, and ramps that completed.
    pub advanced: usize,
    /// Flags that were taken back.
    pub rolled_back: usize,
    /// Ramps that could not be looked at; the next run does.
    pub failed: usize,
}

impl FlagService {
    /// Creates a ramp and begins its first step, unless that needs an approval.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::PreconditionFailed`]; [`Error::Conflict`] when the flag is off, has
    /// another ramp, cannot be ramped, or a guard is not OK; [`Error::Unavailable`] when CloudWatch or the
    /// store does not answer.
    #[expect(clippy::too_many_arguments, reason = "a request, and what it needs")]
    pub async fn create_ramp(
        &self,
        environment: &Environment,
        key: &FlagKey,
        plan: Plan,
        expected: &Expected,
        admin: &Admin,
        alarms: &Alarms,
        scope: &RequestContext,
    ) -> Result<Changed<Ramp>, Error> {
        must_be_ok(&plan.guards, alarms).await?;
        let evaluations = self
            .evaluations(environment, key, SystemTime::now())
            .await?;
        let mut open = self.begin(environment, &admin.id).await?;
        let before = live(open.flag(key).await?, key)?;
        expected.check(before.revision)?;
        if let Some(mut other) = open.open_ramp(key).await?
            && !settle(&mut open, key, &mut other, Some(&before)).await?
        {
            return Err(Error::Conflict(if other.blocks_changes() {
                format!("Ramp {} was rolled back; acknowledge that first", other.id)
            } else {
                format!("Ramp {} of this flag is still live", other.id)
            }));
        }
        if !before.flag.enabled {
            return Err(Error::Conflict(
                "The flag is off, and a ramp does not switch it on; switch it on first, with a rollout of \
                 0 % if nobody is to get it yet"
                    .to_owned(),
            ));
        }
        let share =
            Share::of(&before.flag, plan.variants.as_ref()).map_err(|why| not_rampable(&why))?;
        if let (Some(first), Some(last)) = (plan.steps.first(), plan.steps.last()) {
            share
                .check_growth(first.percent, last.percent)
                .map_err(|why| not_rampable(&why))?;
        }
        let waits = plan.steps.first().is_some_and(|step| step.approval);
        let now = SystemTime::now();
        let mut ramp = Ramp {
            id: unique_id(),
            version: 1,
            plan,
            state: RampState::Pending,
            reason: None,
            step: 0,
            start: state_of(&before),
            start_percent: share.percent(),
            percent: share.percent(),
            flag_revision: before.revision,
            step_began_at: None,
            evaluations_before: 0,
            due_at: None,
            checked_at: None,
            approved: false,
            acknowledged_by: None,
            created_by: admin.id.clone(),
            created_at: now,
            transitions: Vec::new(),
        };
        let reason = waits.then(|| "the first step needs an approval".to_owned());
        ramp.enter(RampState::Pending, reason, &admin.id, now);
        let summary = summary_of(&ramp);
        open.note(Some(key), Action::CreateRamp, None, Some(summary))
            .await?;
        if waits {
            open.write_ramp(key, &ramp).await?;
            open.commit().await?;
            return Ok(Changed {
                value: ramp,
                invalidated: None,
            });
        }
        advance(&mut open, key, &mut ramp, &before, evaluations, &admin.id).await?;
        open.write_ramp(key, &ramp).await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: ramp,
            invalidated,
        })
    }

    /// Does what an admin wants with the flag's ramp.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::NotFound`] without a ramp, [`Error::PreconditionFailed`];
    /// [`Error::InvalidState`] when its state does not allow it; [`Error::Conflict`] when the flag was
    /// changed meanwhile, or a guard is not OK.
    #[expect(clippy::too_many_arguments, reason = "a request, and what it needs")]
    pub async fn steer_ramp(
        &self,
        environment: &Environment,
        key: &FlagKey,
        action: RampAction,
        expected: &Expected,
        admin: &Admin,
        alarms: &Alarms,
        scope: &RequestContext,
    ) -> Result<Changed<Ramp>, Error> {
        if action == RampAction::Advance {
            let ramps = self.store.list_ramps(environment, key, 1).await?;
            if let Some(ramp) = ramps.first().filter(|ramp| ramp.state.is_live()) {
                must_be_ok(&ramp.plan.guards, alarms).await?;
            }
        }
        let evaluations = self
            .evaluations(environment, key, SystemTime::now())
            .await?;
        let mut open = self.begin(environment, &admin.id).await?;
        let found = live(open.flag(key).await?, key)?;
        let Some(mut ramp) = open.open_ramp(key).await? else {
            return Err(Error::NotFound(format!("A live ramp of '{key}'")));
        };
        expected.check(ramp.version)?;
        if settle(&mut open, key, &mut ramp, Some(&found)).await? {
            let why = ramp.reason.unwrap_or_default();
            open.commit().await?;
            return Err(Error::Conflict(format!("The ramp is superseded: {why}")));
        }
        let (before, now) = (summary_of(&ramp), SystemTime::now());
        let mut flag_changes = false;
        let who = &admin.id;
        match (action, ramp.state) {
            (RampAction::Pause, RampState::Pending | RampState::Baking | RampState::Holding) => {
                ramp.enter(RampState::Paused, None, who, now);
            }
            (RampAction::Resume, RampState::Paused) if ramp.step == 0 => {
                ramp.enter(RampState::Pending, None, who, now);
            }
            (RampAction::Resume, RampState::Paused) => {
                ramp.bake_again(now);
                ramp.enter(RampState::Baking, None, who, now);
            }
            (RampAction::Advance, RampState::Pending | RampState::Baking | RampState::Holding) => {
                flag_changes = ramp.next_step().is_some();
                advance(&mut open, key, &mut ramp, &found, evaluations, who).await?;
            }
            (RampAction::RollBack, state) if state.is_live() => {
                flag_changes = ramp.step > 0;
                let to = OnAlarm::Start;
                roll_back(&mut open, key, &mut ramp, &found, to, None, who).await?;
                ramp.acknowledged_by = Some(who.clone());
            }
            (RampAction::Acknowledge, RampState::RolledBack) => {
                ramp.acknowledged_by = Some(who.clone());
                let why = "acknowledged".to_owned();
                ramp.enter(RampState::RolledBack, Some(why), who, now);
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
                    "The ramp is {}, which does not allow this",
                    name_of(state)
                )));
            }
        }
        if !flag_changes {
            let after = summary_of(&ramp);
            open.note(Some(key), Action::ChangeRamp, Some(before), Some(after))
                .await?;
        }
        ramp.version += 1;
        open.write_ramp(key, &ramp).await?;
        let invalidated = if flag_changes {
            self.commit(open, environment, scope).await?
        } else {
            open.commit().await?;
            None
        };
        Ok(Changed {
            value: ramp,
            invalidated,
        })
    }

    /// The ramps of a flag, newest first. One whose flag was changed by somebody else is shown as
    /// superseded, also before the engine has seen that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer.
    pub async fn ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Vec<Ramp>, Error> {
        let mut ramps = self.store.list_ramps(environment, key, MAX_LISTED).await?;
        if let Some(newest) = ramps.first_mut().filter(|ramp| ramp.state.is_live()) {
            let found = self.store.find_flag(environment, key).await?;
            if is_foreign(newest, found.as_ref()) {
                newest.state = RampState::Superseded;
                newest.reason = Some("the flag was changed by somebody else".to_owned());
                newest.due_at = None;
            }
        }
        Ok(ramps)
    }

    /// Looks at every ramp that is baking or holding, and does what is due. Several runs at once look at
    /// different ramps.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not list the ramps.
    pub async fn run_ramps(&self, alarms: &Alarms, budget: Duration) -> Result<RampsRun, Error> {
        let mut run = RampsRun::default();
        let places = self.store.watched_ramps(MAX_PER_RUN).await?;
        let guards = places.iter().flat_map(|place| &place.ramp.plan.guards);
        let mut names: Vec<&str> = guards.map(Guard::name).collect();
        names.sort_unstable();
        names.dedup();
        let described = if names.is_empty() {
            Ok(BTreeMap::new())
        } else {
            alarms.find(&names).await
        };
        if let Err(why) = &described {
            warn!(domain = "config", error = %why, "CloudWatch did not answer; guarded ramps hold");
        }
        for place in &places {
            run.checked += 1;
            match self
                .check_ramp(place, &places, &Known::Described(&described), budget)
                .await
            {
                Ok(Some(Decision::Advance)) => run.advanced += 1,
                Ok(Some(Decision::RollBack(..))) => run.rolled_back += 1,
                Ok(_) => {}
                Err(why) => {
                    run.failed += 1;
                    report_failure(place, &why);
                }
            }
        }
        Ok(run)
    }

    /// Does what a ringing alarm asks for with every ramp that it guards. Returns how many flags were
    /// taken back. A call that is repeated finds nothing left to do. It never raises a share or switches
    /// a flag on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer, or some flag could not be taken back: CloudWatch
    /// then calls again.
    pub async fn ring_alarm(
        &self,
        alarm: &str,
        rang_at: SystemTime,
        window: Duration,
        budget: Duration,
    ) -> Result<usize, Error> {
        let places = self.store.watched_ramps(MAX_PER_RUN).await?;
        let guarded = places.iter().filter(|place| {
            let guards = &place.ramp.plan.guards;
            // A call from before the ramp: a ramp begins only while its guards are OK.
            guards.iter().any(|guard| guard.name() == alarm) && place.ramp.created_at <= rang_at
        });
        let (mut taken_back, mut failure) = (0, None);
        for place in guarded {
            let known = Known::Rings(alarm, window);
            match self.check_ramp(place, &places, &known, budget).await {
                Ok(Some(Decision::RollBack(..))) => taken_back += 1,
                Ok(_) => {}
                Err(why) => {
                    report_failure(place, &why);
                    failure = Some(why);
                }
            }
        }
        failure.map_or(Ok(taken_back), Err)
    }

    /// Looks at one ramp. Returns what was done with it, if anything.
    async fn check_ramp(
        &self,
        place: &RampPlace,
        all: &[RampPlace],
        known: &Known<'_>,
        budget: Duration,
    ) -> Result<Option<Decision>, Error> {
        let scope = RequestContext::begin(budget);
        let (environment, key) = (&place.environment, &place.key);
        scope.trace.flag_key(key.as_str());
        let began = place.ramp.step_began_at.unwrap_or(place.ramp.created_at);
        let counted = self.evaluations(environment, key, began).await?;
        let now = SystemTime::now();
        let from_now = self.evaluations(environment, key, now).await?;
        let actor = match known {
            Known::Described(_) => format!("ramp:{}", place.ramp.id),
            Known::Rings(alarm, _) => format!("alarm:{alarm}"),
        };
        let mut open = self.begin(environment, &actor).await?;
        let found = open.flag(key).await?;
        let claimed = open.claim_ramp(key, &place.ramp.id).await?;
        // Another run has it, or somebody has paused or ended it meanwhile.
        let Some(mut ramp) = claimed.filter(|ramp| ramp.state.is_watched()) else {
            return Ok(None);
        };
        if settle(&mut open, key, &mut ramp, found.as_ref()).await? {
            open.commit().await?;
            return Ok(None);
        }
        let before = live(found, key)?;
        let guards = guard_states(&ramp, all, known);
        let mut decision = decide(
            &ramp,
            Observed {
                now,
                guards: &guards,
                evaluations: counted.saturating_sub(ramp.evaluations_before),
            },
        );
        if ramp.transitions.len() >= MAX_TRANSITIONS && matches!(decision, Decision::Hold(_)) {
            decision = Decision::Pause("its state has changed too often".to_owned());
        }
        // An alarm that has called decides nothing but what alarms do.
        let is_for_alarms = matches!(decision, Decision::RollBack(..) | Decision::Pause(_));
        if matches!(known, Known::Rings(..)) && !is_for_alarms {
            return Ok(None);
        }
        let old = summary_of(&ramp);
        let is_change = ramp.is_changed_by(&decision);
        ramp.checked_at = Some(now);
        let mut flag_changes = false;
        match &decision {
            Decision::Bake if is_change => ramp.enter(RampState::Baking, None, &actor, now),
            Decision::Hold(why) if is_change => {
                ramp.enter(RampState::Holding, Some(why.clone()), &actor, now);
            }
            Decision::Bake | Decision::Hold(_) => {}
            Decision::BakeAgain(why) => {
                ramp.bake_again(now);
                ramp.enter(RampState::Holding, Some(why.clone()), &actor, now);
            }
            Decision::Pause(why) => ramp.enter(RampState::Paused, Some(why.clone()), &actor, now),
            Decision::Advance => {
                flag_changes = ramp.next_step().is_some();
                advance(&mut open, key, &mut ramp, &before, from_now, &actor).await?;
            }
            Decision::RollBack(to, why) => {
                flag_changes = true;
                let why = Some(why.clone());
                roll_back(&mut open, key, &mut ramp, &before, *to, why, &actor).await?;
            }
        }
        if is_change {
            ramp.version += 1;
            if !flag_changes {
                let new = summary_of(&ramp);
                open.note(Some(key), Action::ChangeRamp, Some(old), Some(new))
                    .await?;
            }
            info!(
                domain = "config",
                environment = environment.as_str(),
                flag_key = key.as_str(),
                ramp = ramp.id,
                state = name_of(ramp.state),
                percent = ramp.percent,
                reason = ramp.reason.as_deref().unwrap_or_default(),
                "a ramp changed its state"
            );
        }
        open.write_ramp(key, &ramp).await?;
        if flag_changes {
            self.commit(open, environment, &scope).await?;
        } else {
            open.commit().await?;
        }
        Ok(is_change.then_some(decision))
    }

    async fn evaluations(
        &self,
        environment: &Environment,
        key: &FlagKey,
        since: SystemTime,
    ) -> Result<u64, Error> {
        self.store.evaluations_since(environment, key, since).await
    }
}

fn report_failure(place: &RampPlace, why: &Error) {
    error!(
        domain = "config",
        environment = place.environment.as_str(),
        flag_key = place.key.as_str(),
        ramp = place.ramp.id,
        error = %why,
        "a ramp could not be checked"
    );
}
