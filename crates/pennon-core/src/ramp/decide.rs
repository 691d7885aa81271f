//! Decides what happens to a ramp next.

use std::time::{Duration, SystemTime};

use super::{MAX_TRANSITIONS, OnAlarm, OnMissing, Ramp, RampState};

/// `reconcile` checks a ramp every minute. After a longer gap between two checks, because `reconcile` did not run or
/// CloudWatch did not answer, the bake begins again. Otherwise, after an outage, a bake without checks would count, and
/// several steps would begin one right after the other.
pub const MAX_CHECK_GAP: Duration = Duration::from_secs(5 * 60);

/// The state of one of the ramp's guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardState {
    /// The alarm is OK.
    Ok,
    /// The alarm is in `ALARM`.
    Alarm {
        /// Its evaluation interval (period × evaluation periods): a cause of the alarm may be that old.
        window: Duration,
        /// When it entered `ALARM`; unknown if CloudWatch does not say so.
        fired_at: Option<SystemTime>,
        /// See [`Ramp::shares_alarm`].
        shared: bool,
    },
    /// The alarm has no data or does not exist; the text says which: `has no data` or `does not exist`.
    Missing(&'static str),
    /// CloudWatch did not answer.
    Unknown,
}

/// The facts that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The time.
    pub now: SystemTime,
    /// The states of the ramp's guards, in their order.
    pub guards: &'a [GuardState],
    /// Evaluations of the flag since the current step began.
    pub evaluations: u64,
}

/// What to do with a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the step continues to bake.
    Bake,
    /// Begin no step, for a reason.
    Hold(String),
    /// Bake the current step again in full, for a reason.
    BakeAgain(String),
    /// Begin the next step, or complete the ramp.
    Advance,
    /// Roll the flag back, as the plan's `onAlarm` says. Never [`OnAlarm::Pause`]: the decision is then
    /// [`Self::Pause`].
    RollBack(OnAlarm, String),
    /// Pause, for a reason.
    Pause(String),
}

/// Decides about a ramp that is baking or holding. Alarms that roll back or pause come first, then outages of
/// CloudWatch, gaps between checks, missing alarms that hold, the bake time, evaluations and approvals.
#[must_use]
pub fn decide(ramp: &Ramp, observed: Observed<'_>) -> Decision {
    let guards = || std::iter::zip(&ramp.plan.guards, observed.guards);
    let alarms = guards().filter_map(|(guard, state)| {
        let name = guard.name();
        match state {
            GuardState::Alarm {
                window,
                fired_at,
                shared,
            } => {
                // Not the time of the check, which may be minutes later.
                let fired_at = fired_at.unwrap_or(observed.now);
                Some(on_alarm(ramp, fired_at, name, *window, *shared))
            }
            GuardState::Missing(what) if guard.on_missing == OnMissing::Rollback => {
                Some(roll_back(ramp, format!("alarm '{name}' {what}")))
            }
            GuardState::Ok | GuardState::Missing(_) | GuardState::Unknown => None,
        }
    });
    // A guard that pauses must not keep another one from rolling back.
    let is_pause = |decision: &Decision| matches!(decision, Decision::Pause(_));
    if let Some(decision) = alarms.min_by_key(is_pause) {
        return decision;
    }
    // Before gaps between checks: an outage of CloudWatch is such a gap, and the step would bake again every few
    // minutes.
    if let Some((guard, _)) = guards().find(|(_, state)| **state == GuardState::Unknown) {
        let name = guard.name();
        return Decision::Hold(format!("CloudWatch did not answer about alarm '{name}'"));
    }
    if let Some(why) = untrusted_bake(ramp, observed.now) {
        return Decision::BakeAgain(why);
    }
    for (guard, state) in guards() {
        if let GuardState::Missing(what) = state
            && guard.on_missing == OnMissing::Hold
        {
            let name = guard.name();
            return Decision::Hold(format!("alarm '{name}' {what}"));
        }
    }
    if ramp.due_at.is_some_and(|due| observed.now < due) {
        return Decision::Bake;
    }
    let wanted = ramp.current_step().and_then(|step| step.min_evaluations);
    if let Some(wanted) = wanted
        && observed.evaluations < wanted
    {
        return Decision::Hold(format!("the step needs {wanted} evaluations"));
    }
    let needs_approval = ramp.next_step().is_some_and(|step| step.approval);
    if needs_approval {
        return Decision::Hold("the next step needs an approval".to_owned());
    }
    Decision::Advance
}

/// Why the bake cannot be trusted: the gap between two checks was too long, or the clock was set back.
fn untrusted_bake(ramp: &Ramp, now: SystemTime) -> Option<String> {
    let checked = ramp.checked_at?;
    let bake = ramp.current_step()?.bake();
    // The bake was watched until its end; only evaluations or an approval are missing.
    let was_over = ramp.due_at.is_some_and(|due| due <= checked);
    match now.duration_since(checked) {
        Ok(since) if since > MAX_CHECK_GAP && !was_over => Some(format!(
            "the step was not watched for {} s, and bakes again",
            since.as_secs()
        )),
        Ok(_) => None,
        // Without this, the bake would take longer by as much as the clock was ahead.
        Err(_) => ramp
            .due_at
            .and_then(|due| due.duration_since(now).ok())
            .is_some_and(|left| left > bake + MAX_CHECK_GAP)
            .then(|| "the clock was set back, and the step bakes again".to_owned()),
    }
}

/// Several ramps may share an alarm. Only ramps that advanced within the alarm's evaluation interval before it fired
/// can be the cause; the others pause, and an editor decides.
fn on_alarm(
    ramp: &Ramp,
    fired_at: SystemTime,
    name: &str,
    window: Duration,
    shared: bool,
) -> Decision {
    let why = in_alarm(name);
    let advanced = ramp
        .step_began_at
        .and_then(|at| fired_at.duration_since(at).ok());
    // A start after the alarm means that it fired while the step began, or that the clock was set back.
    let advanced_recently = advanced.is_none_or(|since| since <= window);
    if shared && !advanced_recently {
        return Decision::Pause(format!(
            "{why}; other ramps have the same guard, and this one did not advance within the alarm's \
             evaluation interval of {} s",
            window.as_secs()
        ));
    }
    roll_back(ramp, why)
}

/// The beginning of the reason of every rollback and pause by an alarm that fires.
pub(super) fn in_alarm(name: &str) -> String {
    format!("alarm '{name}' is in ALARM")
}

fn roll_back(ramp: &Ramp, why: String) -> Decision {
    match ramp.plan.on_alarm {
        OnAlarm::Pause => Decision::Pause(why),
        to @ (OnAlarm::Previous | OnAlarm::Start | OnAlarm::Off) => Decision::RollBack(to, why),
    }
}

impl Ramp {
    /// Whether the alarm with this name and ARN is one of its guards.
    #[must_use]
    pub fn is_guarded_by(&self, name: &str, arn: Option<&str>) -> bool {
        self.plan.guards.iter().any(|guard| guard.is(name, arn))
    }

    /// Whether another ramp has this guard, and is watched or was stopped by the alarm: at `since` or later, and not
    /// before this ramp was last started or resumed. Stopped ramps must count: if the checks of two ramps belong to
    /// different runs, the second run would otherwise find only one ramp, and roll it back.
    #[must_use]
    pub fn shares_alarm(
        &self,
        other: &Self,
        name: &str,
        arn: Option<&str>,
        since: SystemTime,
    ) -> bool {
        let newest_first = self.transitions.iter().rev();
        let watched = newest_first.take_while(|transition| transition.state.is_watched());
        let since = watched.last().map_or(since, |first| first.at.max(since));
        other.id != self.id
            && other.is_guarded_by(name, arn)
            && (other.state.is_watched() || other.was_stopped_by(name, since))
    }

    /// Whether a decision changes the ramp.
    #[must_use]
    pub fn is_changed_by(&self, decision: &Decision) -> bool {
        match decision {
            Decision::Bake => self.state != RampState::Baking,
            Decision::Hold(why) => {
                self.state != RampState::Holding || self.reason.as_ref() != Some(why)
            }
            Decision::BakeAgain(_)
            | Decision::Advance
            | Decision::RollBack(..)
            | Decision::Pause(_) => true,
        }
    }

    /// Whether a decision changes the flag. Completing the ramp does not.
    #[must_use]
    pub fn changes_flag(&self, decision: &Decision) -> bool {
        match decision {
            Decision::Advance => self.next_step().is_some(),
            Decision::RollBack(..) => true,
            Decision::Bake | Decision::Hold(_) | Decision::BakeAgain(_) | Decision::Pause(_) => {
                false
            }
        }
    }

    /// The decision. A pause instead of [`Decision::Hold`] or [`Decision::BakeAgain`] if the ramp has reached
    /// [`MAX_TRANSITIONS`].
    #[must_use]
    pub fn within_bounds(&self, decision: Decision) -> Decision {
        let repeats = matches!(decision, Decision::Hold(_) | Decision::BakeAgain(_));
        if repeats && self.transitions.len() >= MAX_TRANSITIONS {
            Decision::Pause("its state has changed too often".to_owned())
        } else {
            decision
        }
    }

    /// Applies a decision to the ramp. Does nothing for [`Decision::Advance`] and [`Decision::RollBack`], which the
    /// service applies because they may change the flag.
    pub fn apply(&mut self, decision: &Decision, actor: &str, now: SystemTime) {
        match decision {
            Decision::Bake => self.enter(RampState::Baking, None, actor, now),
            Decision::Hold(why) => self.enter(RampState::Holding, Some(why.clone()), actor, now),
            Decision::BakeAgain(why) => {
                self.bake_again(now);
                self.enter(RampState::Holding, Some(why.clone()), actor, now);
            }
            Decision::Pause(why) => self.enter(RampState::Paused, Some(why.clone()), actor, now),
            Decision::Advance | Decision::RollBack(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::{Guard, Plan, Step, StepStart};
    use super::*;

    const BAKE: u32 = 600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// A ramp with two guards and two steps; the first step began at 0.
    fn ramp() -> Ramp {
        let step = |percent| Step {
            percent,
            bake_seconds: BAKE,
            min_evaluations: None,
            approval: false,
        };
        let guard = |alarm: &str| Guard {
            alarm: alarm.to_owned(),
            on_missing: OnMissing::Hold,
        };
        let mut ramp = Ramp {
            id: "r".to_owned(),
            version: 1,
            plan: Plan {
                steps: vec![step(10), step(50)],
                guards: vec![guard("one"), guard("two")],
                on_alarm: OnAlarm::Start,
                variants: None,
            },
            state: RampState::Pending,
            reason: None,
            step: 0,
            start: json!({}),
            start_percent: 0,
            percent: 0,
            flag_revision: 1,
            step_began_at: None,
            evaluations_before: 0,
            due_at: None,
            checked_at: None,
            evaluations: 0,
            silent_guards: Vec::new(),
            alarm_windows: BTreeMap::new(),
            acknowledged_by: None,
            created_by: "a".to_owned(),
            created_at: at(0),
            transitions: Vec::new(),
        };
        let start = StepStart {
            at: at(0),
            evaluations_before: 0,
        };
        ramp.advance(start, "a");
        ramp
    }

    fn decided(ramp: &Ramp, now: SystemTime, guards: &[GuardState]) -> Decision {
        decide(
            ramp,
            Observed {
                now,
                guards,
                evaluations: 0,
            },
        )
    }

    fn ramp_checked(at_second: u64) -> Ramp {
        Ramp {
            checked_at: Some(at(at_second)),
            ..ramp()
        }
    }

    const OK: [GuardState; 2] = [GuardState::Ok, GuardState::Ok];

    fn alarm(shared: bool) -> GuardState {
        GuardState::Alarm {
            window: Duration::from_secs(300),
            fired_at: None,
            shared,
        }
    }

    #[test]
    fn a_step_ends_when_it_is_due_and_was_watched() {
        assert_eq!(decided(&ramp_checked(540), at(599), &OK), Decision::Bake);
        assert_eq!(decided(&ramp_checked(540), at(600), &OK), Decision::Advance);
    }

    #[test]
    fn a_step_that_waits_after_its_bake_does_not_bake_again() {
        let mut ramp = ramp_checked(600);
        ramp.plan.steps[1].approval = true;
        let waits = Decision::Hold("the next step needs an approval".to_owned());
        assert_eq!(decided(&ramp, at(600 + 3_600), &OK), waits);
        ramp.checked_at = Some(at(599));
        let decision = decided(&ramp, at(600 + 3_600), &OK);
        assert!(matches!(decision, Decision::BakeAgain(_)), "{decision:?}");
    }

    #[test]
    fn a_clock_that_jumps_forwards_bakes_the_step_again() {
        for jump in [301, 3_600, 30 * 24 * 3600] {
            let mut ramp = ramp_checked(60);
            let decision = decided(&ramp, at(60 + jump), &OK);
            assert!(matches!(decision, Decision::BakeAgain(_)), "{decision:?}");
            ramp.bake_again(at(60 + jump));
            assert_eq!(decided(&ramp, at(120 + jump), &OK), Decision::Bake);
        }
    }

    #[test]
    fn a_ramp_whose_clock_is_set_back_neither_advances_nor_holds_for_ever() {
        let hour = 3_600;
        let mut ramp = ramp();
        ramp.step_began_at = Some(at(hour));
        ramp.bake_again(at(hour));
        // A few seconds are the skew of two instances.
        assert_eq!(decided(&ramp, at(hour - 5), &OK), Decision::Bake);
        let decision = decided(&ramp, at(0), &OK);
        assert!(matches!(decision, Decision::BakeAgain(_)), "{decision:?}");
        ramp.bake_again(at(0));
        assert_eq!(ramp.due_at, Some(at(u64::from(BAKE))));
        // The step seems to have begun in the future, so the alarm may be about it.
        let decision = decided(&ramp, at(0), &[alarm(true), GuardState::Ok]);
        assert!(matches!(decision, Decision::RollBack(..)), "{decision:?}");
    }

    #[test]
    fn a_guard_that_pauses_does_not_hide_one_that_rolls_back() {
        let ramp = ramp_checked(540);
        let pause = decided(&ramp, at(550), &[alarm(true), GuardState::Ok]);
        assert!(matches!(pause, Decision::Pause(_)), "{pause:?}");
        for guards in [[alarm(true), alarm(false)], [alarm(false), alarm(true)]] {
            let decision = decided(&ramp, at(550), &guards);
            assert!(matches!(decision, Decision::RollBack(..)), "{decision:?}");
        }
        let recent = decided(&ramp, at(300), &[alarm(true), GuardState::Ok]);
        assert!(matches!(recent, Decision::RollBack(..)), "{recent:?}");
    }

    #[test]
    fn the_evaluation_interval_ends_when_the_alarm_fires_and_not_when_it_is_checked() {
        for (fired_at, is_cause) in [(300, true), (301, false), (0, true)] {
            let alarm = GuardState::Alarm {
                window: Duration::from_secs(300),
                fired_at: Some(at(fired_at)),
                shared: true,
            };
            let decision = decided(&ramp_checked(0), at(9_000), &[alarm, GuardState::Ok]);
            let is_rolled_back = matches!(decision, Decision::RollBack(..));
            assert_eq!(is_rolled_back, is_cause, "{fired_at}: {decision:?}");
        }
    }

    #[test]
    fn an_alarm_is_shared_with_ramps_that_are_watched_or_that_it_has_stopped() {
        let since = at(100);
        // This ramp was resumed at 150, and holds since 300.
        let mut resumed = ramp();
        resumed.enter(RampState::Paused, None, "a", at(50));
        resumed.enter(RampState::Baking, None, "a", at(150));
        resumed.enter(RampState::Holding, None, "a", at(300));
        let other = || Ramp {
            id: "other".to_owned(),
            ..ramp()
        };
        let stopped = |state, by: &str, seconds| {
            let mut other = other();
            other.enter(state, Some(by.to_owned()), "a", at(seconds));
            other
        };
        let (one, two) = (in_alarm("one"), in_alarm("two"));
        let mut cancelled = stopped(RampState::Paused, &one, 200);
        cancelled.enter(RampState::Cancelled, None, "a", at(210));
        let mut unguarded = other();
        unguarded.plan.guards.remove(0);
        let arn_in = |region: &str| format!("arn:aws:cloudwatch:{region}:1:alarm:one");
        let arn = arn_in("eu-west-1");
        let guarded_in = |region: &str| {
            let mut other = other();
            other.plan.guards[0].alarm = arn_in(region);
            other
        };
        for (name, other, is_shared) in [
            ("watched", other(), true),
            ("the same ramp", ramp(), false),
            ("without the guard", unguarded, false),
            ("guarded by the ARN", guarded_in("eu-west-1"), true),
            (
                "guarded by the same name in another region",
                guarded_in("us-east-1"),
                false,
            ),
            (
                "rolled back",
                stopped(RampState::RolledBack, &one, 200),
                true,
            ),
            ("paused", stopped(RampState::Paused, &one, 150), true),
            ("cancelled after the stop", cancelled, true),
            (
                "before the start",
                stopped(RampState::Paused, &one, 149),
                false,
            ),
            (
                "by another alarm",
                stopped(RampState::Paused, &two, 200),
                false,
            ),
            ("by an editor", stopped(RampState::Paused, "", 200), false),
        ] {
            assert_eq!(
                resumed.shares_alarm(&other, "one", Some(&arn), since),
                is_shared,
                "{name}"
            );
        }
        // This ramp began at 0.
        for (seconds, is_shared) in [(99, false), (100, true)] {
            let other = stopped(RampState::RolledBack, &one, seconds);
            assert_eq!(
                ramp().shares_alarm(&other, "one", None, since),
                is_shared,
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_stored_evaluation_interval_counts_as_a_week_at_most() {
        let mut ramp = ramp();
        for (stored, seconds) in [(300, 300), (u64::MAX, 7 * 24 * 3_600)] {
            ramp.alarm_windows.insert("one".to_owned(), stored);
            let window = ramp.alarm_window(&ramp.plan.guards[0]);
            assert_eq!(window, Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn an_alarm_decides_before_a_gap_between_checks_and_before_missing_or_unknown_alarms() {
        for other in [GuardState::Unknown, GuardState::Missing("has no data")] {
            let decision = decided(&ramp_checked(0), at(9_000), &[other, alarm(false)]);
            assert!(matches!(decision, Decision::RollBack(..)), "{decision:?}");
        }
        let unknown = [GuardState::Ok, GuardState::Unknown];
        for (checked_at, now) in [(0, 60), (540, 601), (0, 9_000)] {
            let decision = decided(&ramp_checked(checked_at), at(now), &unknown);
            assert!(matches!(decision, Decision::Hold(_)), "{decision:?}");
        }
    }

    #[test]
    fn after_the_bake_a_step_waits_for_evaluations_and_then_for_an_approval() {
        let mut ramp = ramp_checked(540);
        ramp.plan.steps[0].min_evaluations = Some(5);
        ramp.plan.steps[1].approval = true;
        let observed = |evaluations| Observed {
            now: at(600),
            guards: &OK,
            evaluations,
        };
        let few = Decision::Hold("the step needs 5 evaluations".to_owned());
        assert_eq!(decide(&ramp, observed(4)), few);
        let approval = Decision::Hold("the next step needs an approval".to_owned());
        assert_eq!(decide(&ramp, observed(5)), approval);
    }
}
