//! The engine of ramps: `reconcile` checks them every minute, and `guard` when an alarm fires.

use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};

use super::flags::{advance, roll_back, summary_of, supersede_if_changed};
use super::guards::{AlarmSource, guard_states};
use crate::alarms::{AlarmState, Alarms, Described};
use crate::error::Error;
use crate::ramp::{Decision, FlagRamp, Guard, GuardState, Observed, Ramp, StepStart, decide};
use crate::request_context::RequestContext;
use crate::service::FlagService;
use crate::service::update::require_in_use;
use crate::store::{Action, Transaction};

/// Limit on the ramps of one run, which takes those whose last check is oldest.
const MAX_PER_RUN: u32 = 500;
/// The time of a check without effect is written at most this often. The local server checks every two seconds, and
/// would otherwise write its file as often.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// The result of a run of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RampsRun {
    /// Ramps that were checked.
    pub checked: usize,
    /// Steps that began, and ramps that completed.
    pub advanced: usize,
    /// Flags that were rolled back.
    pub rolled_back: usize,
    /// Ramps that could not be checked; the next run tries again.
    pub failed: usize,
    /// Ramps for which no time was left; a later run checks them.
    pub left: usize,
}

/// An alarm that has entered `ALARM`, as CloudWatch reports it to `guard`.
#[derive(Debug, Clone, Copy)]
pub struct AlarmEvent<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its ARN; an alarm of the local server has none.
    pub arn: Option<&'a str>,
    /// When it entered the state.
    pub at: SystemTime,
}

impl FlagService {
    /// Checks the ramps that are baking or holding, at most 500. Begins no check after `within`. Concurrent runs never
    /// change a ramp at the same time.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not list the ramps.
    pub async fn run_ramps(
        &self,
        alarms: &Alarms,
        budget: Duration,
        within: Duration,
    ) -> Result<RampsRun, Error> {
        let mut run = RampsRun::default();
        let started = Instant::now();
        let ramps = self.store.watched_ramps(MAX_PER_RUN).await?;
        let guards = ramps.iter().flat_map(|watched| &watched.ramp.plan.guards);
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
        let source = AlarmSource::Described(&described);
        let in_alarm = names.iter().copied().filter(|name| {
            let alarm = described.alarms.get(*name);
            alarm.is_some_and(|alarm| alarm.state == AlarmState::Alarm)
        });
        let in_alarm: Vec<&str> = in_alarm.collect();
        // The open ramps with these alarms, including those that this run does not check.
        let mut all = Vec::new();
        if !in_alarm.is_empty() && started.elapsed() <= within {
            let open = self.store.open_ramps_guarded_by(&in_alarm).await;
            // Without the others, a ramp may be rolled back that would be paused. If the run failed instead, the cause
            // of the alarm would keep its raised share.
            all = open.unwrap_or_else(|why| {
                warn!(domain = "config", error = %why, "the ramps that share an alarm cannot be read");
                ramps.clone()
            });
        }
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
        let mut in_order: Vec<&FlagRamp> = ramps.iter().collect();
        in_order.sort_by_cached_key(|watched| place(&guard_states(&watched.ramp, &[], &source)));
        for watched in in_order {
            if started.elapsed() > within {
                run.left += 1;
                continue;
            }
            run.checked += 1;
            match self.check_ramp(watched, &all, &source, budget).await {
                Ok(Some(Decision::Advance)) => run.advanced += 1,
                Ok(Some(Decision::RollBack(..))) => run.rolled_back += 1,
                Ok(
                    Some(
                        Decision::Bake
                        | Decision::Hold(_)
                        | Decision::BakeAgain(_)
                        | Decision::Pause(_),
                    )
                    | None,
                ) => {}
                Err(why) => {
                    run.failed += 1;
                    report_failure(watched, &why);
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

    /// Rolls back or pauses the ramps that an alarm guards, and returns how many flags were rolled back. It is
    /// idempotent, because CloudWatch may repeat an event. It never raises a share or switches a flag on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer; the error of a ramp that could not be checked, after the
    /// others were. Lambda then repeats the event.
    pub async fn handle_alarm(
        &self,
        alarm: AlarmEvent<'_>,
        budget: Duration,
    ) -> Result<usize, Error> {
        let all = self.store.open_ramps_guarded_by(&[alarm.name]).await?;
        let guarded = all.iter().filter(|FlagRamp { ramp, .. }| {
            ramp.is_guarded_by(alarm.name, alarm.arn)
                && ramp.state.is_watched()
                && ramp.was_watched_at(alarm.at)
        });
        let (mut rolled_back, mut failure) = (0, None);
        for watched in guarded {
            let source = AlarmSource::Event(alarm);
            match self.check_ramp(watched, &all, &source, budget).await {
                Ok(decision) => {
                    let is_rollback = matches!(decision, Some(Decision::RollBack(..)));
                    rolled_back += usize::from(is_rollback);
                }
                Err(why) => {
                    report_failure(watched, &why);
                    failure = Some(why);
                }
            }
        }
        failure.map_or(Ok(rolled_back), Err)
    }

    /// Checks one ramp. Returns the decision that has changed it, if any.
    async fn check_ramp(
        &self,
        watched: &FlagRamp,
        all: &[FlagRamp],
        source: &AlarmSource<'_>,
        budget: Duration,
    ) -> Result<Option<Decision>, Error> {
        let context = RequestContext::begin(budget);
        let (environment, key) = (&watched.environment, &watched.key);
        context.trace.flag_key(key.as_str());
        let (actor, by_reconcile) = match source {
            AlarmSource::Described(_) => (format!("ramp:{}", watched.ramp.id), true),
            AlarmSource::Event(alarm) => (format!("alarm:{}", alarm.name), false),
        };
        let counted = if by_reconcile {
            self.evaluations_of_step(watched).await?
        } else {
            0
        };
        let next = watched.ramp.next_step().filter(|_| by_reconcile);
        let check = Check {
            watched,
            all,
            source,
            actor: &actor,
            by_reconcile,
            counted,
            next_start: self
                .step_start(next, environment, key, SystemTime::now())
                .await?,
        };
        let mut transaction = self.begin(environment, &actor).await?;
        let Some(written) = check.decide_and_write(&mut transaction).await? else {
            // Dropping the transaction would close its connection, and the next ramp would open another one.
            transaction.rollback().await;
            return Ok(None);
        };
        if written.flag_changes {
            self.commit(transaction, environment, &context).await?;
        } else {
            transaction.commit().await?;
        }
        let Some((decision, ramp)) = written.decision else {
            return Ok(None);
        };
        report_change(watched, &ramp);
        Ok(Some(decision))
    }

    /// The counter from which the evaluations of the step are computed. Zero for a step without a minimum.
    async fn evaluations_of_step(&self, watched: &FlagRamp) -> Result<u64, Error> {
        let FlagRamp {
            environment,
            key,
            ramp,
        } = watched;
        let step = ramp.current_step();
        if step.is_none_or(|step| step.min_evaluations.is_none()) {
            return Ok(0);
        }
        let started = ramp.step_began_at.unwrap_or(ramp.created_at);
        self.store
            .evaluation_counter(environment, key, started)
            .await
    }
}

/// When a run checks a ramp with these guards: lower numbers first; of equal ones, the oldest last check first.
fn place(guards: &[GuardState]) -> u8 {
    let is_in_alarm = |state: &GuardState| matches!(state, GuardState::Alarm { .. });
    if guards.iter().any(is_in_alarm) {
        // A rollback must not wait until all other ramps have been checked.
        0
    } else if !guards.contains(&GuardState::Unknown) {
        1
    } else {
        // Most such ramps can only hold. Their last checks stay the oldest, so in an outage of CloudWatch they would be
        // checked first in every run, which would then have no time for ramps without guards.
        2
    }
}

/// A check of one ramp.
struct Check<'a> {
    watched: &'a FlagRamp,
    all: &'a [FlagRamp],
    source: &'a AlarmSource<'a>,
    actor: &'a str,
    /// Whether `reconcile` checks it, and not `guard`.
    by_reconcile: bool,
    /// The counter from which the evaluations of the step are computed. Zero if `guard` checks.
    counted: u64,
    /// The start of the next step.
    next_start: StepStart,
}

/// What a check has written.
struct Written {
    /// Whether the flag changes, and not only its ramp.
    flag_changes: bool,
    /// The decision that has changed the ramp, and the ramp after it.
    decision: Option<(Decision, Ramp)>,
}

impl Check<'_> {
    /// Decides and writes. `None` if there is nothing to commit.
    async fn decide_and_write(
        self,
        transaction: &mut Transaction,
    ) -> Result<Option<Written>, Error> {
        let Self {
            watched,
            all,
            source,
            actor,
            by_reconcile,
            counted,
            next_start,
        } = self;
        let key = &watched.key;
        let found = transaction.flag(key).await?;
        let locked = transaction.try_lock_ramp(key, &watched.ramp.id).await?;
        // Another run has locked it, or an editor has paused or ended it.
        let Some(mut ramp) = locked.filter(|ramp| ramp.state.is_watched()) else {
            return Ok(None);
        };
        // An editor may have resumed the ramp before a repeated event, or one that arrives after `reconcile` has seen
        // the alarm.
        if let AlarmSource::Event(alarm) = source
            && ramp.was_stopped_by(alarm.name, alarm.at)
        {
            return Ok(None);
        }
        // Another run or a person has changed the ramp, so the counter may belong to the step before.
        if by_reconcile && ramp.version != watched.ramp.version {
            return Ok(None);
        }
        if supersede_if_changed(transaction, key, &mut ramp, found.as_ref()).await? {
            return Ok(Some(Written {
                flag_changes: false,
                decision: None,
            }));
        }
        let before = require_in_use(found, key)?;
        let now = SystemTime::now();
        let old = summary_of(&ramp);
        let has_new_facts = source.update_alarms(&mut ramp);
        let since_start = counted.saturating_sub(ramp.evaluations_before);
        ramp.evaluations = ramp.evaluations.max(since_start);
        let guards = guard_states(&ramp, all, source);
        let decision = ramp.within_bounds(decide(
            &ramp,
            Observed {
                now,
                guards: &guards,
                evaluations: ramp.evaluations,
            },
        ));
        // An event of an alarm never begins a step.
        let stops_ramp = matches!(decision, Decision::RollBack(..) | Decision::Pause(_));
        if !by_reconcile && !stops_ramp {
            return Ok(None);
        }
        let is_change = ramp.is_changed_by(&decision);
        let is_checked_recently = ramp.checked_at.is_some_and(|checked| {
            let since = now.duration_since(checked);
            since.is_ok_and(|since| since < WRITE_INTERVAL)
        });
        // Without an answer of CloudWatch the step was not watched, and the time of the last check stays.
        let was_watched = !guards.contains(&GuardState::Unknown);
        if !is_change && !has_new_facts && (is_checked_recently || !was_watched) {
            return Ok(None);
        }
        if was_watched {
            ramp.checked_at = Some(now);
        }
        let flag_changes = ramp.changes_flag(&decision);
        match &decision {
            Decision::Advance => {
                advance(transaction, key, &mut ramp, &before, next_start, actor).await?;
            }
            Decision::RollBack(target, why) => {
                let why = Some(why.clone());
                roll_back(transaction, key, &mut ramp, &before, *target, why, actor).await?;
            }
            Decision::Bake | Decision::Hold(_) | Decision::BakeAgain(_) | Decision::Pause(_) => {
                if is_change {
                    ramp.apply(&decision, actor, now);
                }
            }
        }
        if is_change {
            ramp.version += 1;
            if !flag_changes {
                let new = summary_of(&ramp);
                transaction
                    .add_audit_entry(Some(key), Action::ChangeRamp, Some(old), Some(new))
                    .await?;
            }
        }
        transaction.write_ramp(key, &ramp).await?;
        Ok(Some(Written {
            flag_changes,
            decision: is_change.then_some((decision, ramp)),
        }))
    }
}

fn report_change(watched: &FlagRamp, ramp: &Ramp) {
    info!(
        domain = "config",
        environment = watched.environment.as_str(),
        flag_key = watched.key.as_str(),
        ramp = ramp.id,
        state = %ramp.state,
        percent = ramp.percent,
        reason = ramp.reason.as_deref().unwrap_or_default(),
        "a ramp changed its state"
    );
}

fn report_failure(watched: &FlagRamp, why: &Error) {
    error!(
        domain = "config",
        environment = watched.environment.as_str(),
        flag_key = watched.key.as_str(),
        ramp = watched.ramp.id,
        error = %why,
        "a ramp could not be checked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_handled_first_and_unknown_guards_last() {
        let alarm = GuardState::Alarm {
            window: Duration::from_secs(300),
            fired_at: None,
            shared: false,
        };
        let unknown = GuardState::Unknown;
        assert_eq!(place(&[unknown.clone(), alarm]), 0);
        for known in [GuardState::Ok, GuardState::Missing("has no data")] {
            assert_eq!(place(std::slice::from_ref(&known)), 1);
            assert_eq!(place(&[known, unknown.clone()]), 2);
        }
        assert_eq!(place(&[]), 1);
    }
}
