//! Ramps: creating and steering them, and the engine that `reconcile` runs every minute.
//!
//! A ramp changes its flag by the same path as an admin: the flag's row is locked, then the ramp's; the
//! audit says `ramp:<id>`. The ramp knows the revision that its own last change gave the flag. Another
//! revision means that somebody else has changed it, and then the ramp never writes again.

mod flags;
mod guards;

use std::time::{Duration, Instant, SystemTime};

use pennon_eval::FlagKey;
use tracing::{error, info, warn};

use self::flags::{
    advance, changed_by, is_foreign, name_of, not_rampable, roll_back, settle, summary_of,
};
pub(super) use self::flags::{archive_before_ramps, change_before_ramps};
use self::guards::{Known, Missing, guard_states, must_be_ok, silent_guards};
use super::FlagService;
use super::change::{Changed, Expected, state_of};
use super::update::require_in_use;
use crate::alarms::{Alarms, Described};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::Error;
use crate::id::unique_id;
use crate::ramp::{
    Decision, Guard, GuardState, MAX_TRANSITIONS, Observed, OnAlarm, Plan, Ramp, RampPlace,
    RampState, Share, Step, decide,
};
use crate::request_context::RequestContext;
use crate::store::Action;

/// As many ramps are looked at in one run, those first that were not looked at for longest.
const MAX_PER_RUN: u32 = 500;
/// A run starts to check no further ramp after this time; `reconcile` ends after 50 s. The next run begins
/// with the ramps that are left.
const LONGEST_RUN: Duration = Duration::from_secs(25);
/// The time of the last check is written this often. The local server checks every two seconds, and
/// would otherwise write its file as often.
const BETWEEN_WRITES: Duration = Duration::from_secs(30);
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
    /// Ramps for which no time was left; the next run begins with them.
    pub left: usize,
}

/// An alarm that has entered `ALARM`, as CloudWatch says it to `guard`.
#[derive(Debug, Clone, Copy)]
pub struct RingingAlarm<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its ARN; an alarm of the local server has none.
    pub arn: Option<&'a str>,
    /// When it entered the state.
    pub at: SystemTime,
    /// How far back it looks.
    pub window: Duration,
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
        // Before the guards are checked: a guard that enters ALARM after that enters it after this.
        let now = SystemTime::now();
        let silent_guards = if plan.guards.is_empty() {
            Vec::new()
        } else {
            // Without holding a lock while CloudWatch answers.
            let found = require_in_use(self.store.find_flag(environment, key).await?, key)?;
            expected.check(found.revision)?;
            let described = must_be_ok(&plan.guards, alarms, Missing::Refuse).await?;
            silent_guards(&plan.guards, &described)
        };
        let evaluations = self
            .evaluations_for(plan.steps.first(), environment, key)
            .await?;
        let mut open = self.begin(environment, &admin.id).await?;
        let before = require_in_use(open.flag(key).await?, key)?;
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
            evaluations: 0,
            silent_guards,
            acknowledged_by: None,
            created_by: admin.id.clone(),
            created_at: now,
            transitions: Vec::new(),
        };
        let reason = waits.then(|| "the first step needs an approval".to_owned());
        ramp.enter(RampState::Pending, reason, &admin.id, now);
        let summary = summary_of(&ramp);
        open.add_audit_entry(Some(key), Action::CreateRamp, None, Some(summary))
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
        let mut evaluations = 0;
        if action == RampAction::Advance {
            let ramps = self.store.list_ramps(environment, key, 1).await?;
            if let Some(ramp) = ramps.first().filter(|ramp| ramp.state.is_live()) {
                expected.check(ramp.version)?;
                must_be_ok(&ramp.plan.guards, alarms, Missing::AsPlanned).await?;
                let next = ramp.next_step();
                evaluations = self.evaluations_for(next, environment, key).await?;
            }
        }
        let mut open = self.begin(environment, &admin.id).await?;
        let found = require_in_use(open.flag(key).await?, key)?;
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
            (RampAction::Resume, RampState::Paused)
                if ramp.transitions.len() >= MAX_TRANSITIONS =>
            {
                return Err(Error::Conflict(
                    "The state of this ramp has changed too often; cancel it and start another one"
                        .to_owned(),
                ));
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
                // The ramp still says why it was rolled back.
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
                    "The ramp is {}, which does not allow this",
                    name_of(state)
                )));
            }
        }
        if !flag_changes {
            let after = summary_of(&ramp);
            open.add_audit_entry(Some(key), Action::ChangeRamp, Some(before), Some(after))
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
                let last = self.store.last_change(environment, key).await?;
                newest.state = RampState::Superseded;
                newest.reason = Some(changed_by(last).1);
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
        let began = Instant::now();
        let places = self.store.watched_ramps(MAX_PER_RUN).await?;
        let guards = places.iter().flat_map(|place| &place.ramp.plan.guards);
        let mut names: Vec<&str> = guards.map(Guard::name).collect();
        names.sort_unstable();
        names.dedup();
        let described = if names.is_empty() {
            Described::default()
        } else {
            alarms.find(&names).await
        };
        if let Some(why) = &described.failure {
            warn!(domain = "config", error = %why, "CloudWatch did not answer; guarded ramps hold");
        }
        let known = Known::Described(&described);
        let is_silent = |name: &&str| {
            let alarm = described.alarms.get(*name);
            alarm.is_some_and(|alarm| !alarm.invokes_function)
        };
        let silent: Vec<&str> = names.iter().copied().filter(is_silent).collect();
        if !silent.is_empty() {
            warn!(
                domain = "config",
                alarms = silent.join(", "),
                "alarms that guard ramps invoke no function; ramps notice them once a minute"
            );
        }
        // A rollback must not wait until all other ramps have been checked.
        let rings = |place: &&RampPlace| {
            let states = guard_states(&place.ramp, &[], &known);
            let mut states = states.iter();
            states.any(|state| matches!(state, GuardState::Alarm { .. }))
        };
        let (urgent, others): (Vec<_>, Vec<_>) = places.iter().partition(rings);
        for place in urgent.into_iter().chain(others) {
            if began.elapsed() > LONGEST_RUN {
                run.left += 1;
                continue;
            }
            run.checked += 1;
            match self.check_ramp(place, &places, &known, budget).await {
                Ok(Some(Decision::Advance)) => run.advanced += 1,
                Ok(Some(Decision::RollBack(..))) => run.rolled_back += 1,
                Ok(_) => {}
                Err(why) => {
                    run.failed += 1;
                    report_failure(place, &why);
                }
            }
        }
        if run.left > 0 {
            let left = run.left;
            warn!(
                domain = "config",
                left, "no time was left to check all ramps"
            );
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
        alarm: RingingAlarm<'_>,
        budget: Duration,
    ) -> Result<usize, Error> {
        let mut places = self.store.ramps_guarded_by(alarm.name).await?;
        places.retain(|place| {
            let mut guards = place.ramp.plan.guards.iter();
            guards.any(|guard| guard.is(alarm.name, alarm.arn))
        });
        // A call from before the ramp: a ramp begins only while its guards are OK.
        let guarded = places.iter().filter(|it| it.ramp.created_at <= alarm.at);
        let (mut taken_back, mut failure) = (0, None);
        for place in guarded {
            let known = Known::Rings(alarm);
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
        let (actor, is_engine) = match known {
            Known::Described(_) => (format!("ramp:{}", place.ramp.id), true),
            Known::Rings(alarm) => (format!("alarm:{}", alarm.name), false),
        };
        let counted = if is_engine {
            self.evaluations_of(place).await?
        } else {
            0
        };
        let next = place.ramp.next_step().filter(|_| is_engine);
        let from_now = self.evaluations_for(next, environment, key).await?;
        let mut open = self.begin(environment, &actor).await?;
        let found = open.flag(key).await?;
        let claimed = open.claim_ramp(key, &place.ramp.id).await?;
        // Another run has it, or somebody has paused or ended it meanwhile.
        let Some(mut ramp) = claimed.filter(|ramp| ramp.state.is_watched()) else {
            return Ok(None);
        };
        // Another run has just begun a step, to which the counts above do not belong.
        if is_engine && ramp.version != place.ramp.version {
            return Ok(None);
        }
        if settle(&mut open, key, &mut ramp, found.as_ref()).await? {
            open.commit().await?;
            return Ok(None);
        }
        let before = require_in_use(found, key)?;
        let now = SystemTime::now();
        let guards = guard_states(&ramp, all, known);
        let since_start = counted.saturating_sub(ramp.evaluations_before);
        ramp.evaluations = ramp.evaluations.max(since_start);
        let decision = ramp.within_bounds(decide(
            &ramp,
            Observed {
                now: match known {
                    Known::Described(_) => now,
                    // CloudWatch may call again for hours.
                    Known::Rings(alarm) => alarm.at,
                },
                guards: &guards,
                evaluations: ramp.evaluations,
            },
        ));
        // An alarm that has called decides nothing but what alarms do.
        let is_for_alarms = matches!(decision, Decision::RollBack(..) | Decision::Pause(_));
        if !is_engine && !is_for_alarms {
            return Ok(None);
        }
        let old = summary_of(&ramp);
        let is_change = ramp.is_changed_by(&decision);
        let mut is_worth_writing = is_change;
        if let Known::Described(described) = known {
            let silent = silent_guards(&ramp.plan.guards, described);
            if described.failure.is_none() && silent != ramp.silent_guards {
                ramp.silent_guards = silent;
                is_worth_writing = true;
            }
        }
        let checked = ramp.checked_at.map(|checked| now.duration_since(checked));
        if !is_worth_writing && checked.is_some_and(|it| it.is_ok_and(|it| it < BETWEEN_WRITES)) {
            return Ok(None);
        }
        ramp.checked_at = Some(now);
        let flag_changes = ramp.moves_flag(&decision);
        match &decision {
            Decision::Advance => {
                advance(&mut open, key, &mut ramp, &before, from_now, &actor).await?;
            }
            Decision::RollBack(to, why) => {
                let why = Some(why.clone());
                roll_back(&mut open, key, &mut ramp, &before, *to, why, &actor).await?;
            }
            Decision::Bake | Decision::Hold(_) | Decision::BakeAgain(_) | Decision::Pause(_) => {
                if is_change {
                    ramp.follow(&decision, &actor, now);
                }
            }
        }
        if is_change {
            ramp.version += 1;
            if !flag_changes {
                let new = summary_of(&ramp);
                open.add_audit_entry(Some(key), Action::ChangeRamp, Some(old), Some(new))
                    .await?;
            }
        }
        open.write_ramp(key, &ramp).await?;
        if flag_changes {
            self.commit(open, environment, &scope).await?;
        } else {
            open.commit().await?;
        }
        if is_change {
            report_change(place, &ramp);
        }
        Ok(is_change.then_some(decision))
    }

    /// Evaluations since the hour in which the present step began, if that counts any.
    async fn evaluations_of(&self, place: &RampPlace) -> Result<u64, Error> {
        let RampPlace {
            environment,
            key,
            ramp,
        } = place;
        let step = ramp.present_step();
        if step.is_none_or(|step| step.min_evaluations.is_none()) {
            return Ok(0);
        }
        let began = ramp.step_began_at.unwrap_or(ramp.created_at);
        self.store.evaluations_since(environment, key, began).await
    }

    /// Evaluations of the present hour, from which a step that begins now counts. Most steps count none.
    async fn evaluations_for(
        &self,
        step: Option<&Step>,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<u64, Error> {
        if step.is_none_or(|step| step.min_evaluations.is_none()) {
            return Ok(0);
        }
        let now = SystemTime::now();
        self.store.evaluations_since(environment, key, now).await
    }
}

fn report_change(place: &RampPlace, ramp: &Ramp) {
    info!(
        domain = "config",
        environment = place.environment.as_str(),
        flag_key = place.key.as_str(),
        ramp = ramp.id,
        state = name_of(ramp.state),
        percent = ramp.percent,
        reason = ramp.reason.as_deref().unwrap_or_default(),
        "a ramp changed its state"
    );
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
