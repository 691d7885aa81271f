//! Creates ramps.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::FlagKey;

use super::flags::{advance, not_rampable, summary_of, supersede_if_changed};
use super::guards::{AlarmSource, MissingAlarms, require_ok};
use crate::alarms::{Alarms, Described};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::id::{random_bytes, unique_id};
use crate::ramp::{FIRST_STEP_NEEDS_APPROVAL, Plan, Ramp, RampState, Share};
use crate::request_context::RequestContext;
use crate::service::FlagService;
use crate::service::change::{Changed, Expected, state_of};
use crate::service::update::require_in_use;
use crate::store::Action;

impl FlagService {
    /// Creates a ramp and begins its first step, unless that needs an approval.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::PreconditionFailed`]; [`Error::Conflict`] if the flag is off, has another
    /// ramp or cannot be ramped, or if a guard is not OK; [`Error::Unavailable`] if CloudWatch or the store does
    /// not answer.
    #[expect(clippy::too_many_arguments, reason = "a request and its context")]
    pub async fn create_ramp(
        &self,
        environment: &Environment,
        key: &FlagKey,
        plan: Plan,
        expected: &Expected,
        actor: &Actor,
        alarms: &Alarms,
        context: &RequestContext,
    ) -> Result<Changed<Ramp>, Error> {
        // Read before the guards are checked, so that an alarm that fires after the check has a later time.
        let now = SystemTime::now();
        let described = if plan.guards.is_empty() {
            Described::default()
        } else {
            // Before the transaction, so that no lock is held while CloudWatch answers.
            let found = require_in_use(self.store.find_flag(environment, key).await?, key)?;
            expected.check(found.revision)?;
            require_ok(&plan.guards, alarms, MissingAlarms::Reject).await?
        };
        let first = plan.steps.first();
        let start = self.step_start(first, environment, key, now).await?;
        let mut transaction = self.begin(environment, &actor.id).await?;
        let before = require_in_use(transaction.flag(key).await?, key)?;
        expected.check(before.revision)?;
        if let Some(mut other) = transaction.open_ramp(key).await?
            && !supersede_if_changed(&mut transaction, key, &mut other, Some(&before)).await?
        {
            return Err(Error::Conflict(if other.blocks_changes() {
                format!("Ramp {} was rolled back; acknowledge that first", other.id)
            } else {
                format!("Ramp {} of this flag is still live", other.id)
            }));
        }
        if !before.flag.enabled {
            return Err(Error::Conflict(
                "The flag is off, and a ramp does not switch it on. Switch it on first, with a rollout of \
                 0 % if no user should get it yet"
                    .to_owned(),
            ));
        }
        let share =
            Share::of(&before.flag, plan.variants.as_ref()).map_err(|why| not_rampable(&why))?;
        let percentages: Vec<u8> = plan.steps.iter().map(|step| step.percent).collect();
        share
            .check_steps(&percentages)
            .map_err(|why| not_rampable(&why))?;
        let needs_approval = plan.steps.first().is_some_and(|step| step.approval);
        let mut ramp = Ramp {
            id: unique_id(),
            version: first_version()?,
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
            silent_guards: Vec::new(),
            alarm_windows: BTreeMap::new(),
            acknowledged_by: None,
            created_by: actor.id.clone(),
            created_at: now,
            transitions: Vec::new(),
        };
        AlarmSource::Described(&described).update_alarms(&mut ramp);
        let reason = needs_approval.then(|| FIRST_STEP_NEEDS_APPROVAL.to_owned());
        ramp.enter(RampState::Pending, reason, &actor.id, now);
        let summary = summary_of(&ramp);
        transaction
            .add_audit_entry(Some(key), Action::CreateRamp, None, Some(summary))
            .await?;
        if needs_approval {
            transaction.write_ramp(key, &ramp).await?;
            transaction.commit().await?;
            return Ok(Changed {
                value: ramp,
                invalidated: None,
            });
        }
        advance(&mut transaction, key, &mut ramp, &before, start, &actor.id).await?;
        transaction.write_ramp(key, &ramp).await?;
        self.finish(transaction, environment, ramp, context).await
    }
}

/// The first version of a ramp: 48 random bits, so that no tag of an earlier ramp of the flag matches it. The time in
/// milliseconds is not unique: two ramps may begin within one millisecond, and a clock may be set back.
fn first_version() -> Result<i64, Error> {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes[2..])?;
    Ok(i64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ramps_that_begin_at_the_same_time_have_different_versions() {
        let versions: BTreeSet<i64> = (0..1_000)
            .map(|_| first_version().expect("random numbers"))
            .collect();
        assert_eq!(versions.len(), 1_000);
        assert!(versions.first() >= Some(&0));
    }
}
