//! Scheduled changes.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use pennon_eval::json::quote;
use pennon_eval::{FlagKey, Rollout};
use serde_json::{Map, Value};
use tracing::{error, info};

use super::FlagService;
use super::change::state_of;
use super::ramps::{follow_unchanged_flag, supersede_ramps};
use super::update::{Change, require_in_use};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::NO_EFFECT;
use crate::request_context::RequestContext;
use crate::store::{Action, DueSchedule, ScheduleRecord, ScheduleStatus, Transaction};

/// Limit on the changes of one run; the next run, a minute later, applies the others.
const MAX_PER_RUN: u32 = 100;
/// A schedule that is overdue by more than this is abandoned, because the change would surprise the editor.
/// This also covers the schedules of an existing service, which never applied any.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);
/// The pause before the first retry of a failed schedule; it doubles with each retry.
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedulesRun {
    /// Changes that were applied.
    pub applied: usize,
    /// Changes that failed for a reason that a retry may resolve, including changes without a retry left.
    pub postponed: usize,
    /// Changes that no retry can apply, for example because the flag is archived or the change is late by more
    /// than a day.
    pub failed: usize,
    /// Changes for which no time was left.
    pub left: usize,
}

/// Why a change was not applied.
enum Failure {
    /// A permanent failure.
    Permanent(String),
    /// A failure that a retry may resolve.
    Temporary(Error),
}

impl FlagService {
    /// Schedules a change of a flag.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Invalid`] for a rollout percentage of a flag with a definition;
    /// [`Error::Unavailable`].
    pub async fn create_schedule(
        &self,
        environment: &Environment,
        key: &FlagKey,
        at: SystemTime,
        updates: &Value,
        actor: &Actor,
    ) -> Result<ScheduleRecord, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let record = require_in_use(transaction.flag(key).await?, key)?;
        if record.flag.definition.is_some() && updates.get("rolloutPercentage").is_some() {
            let message = format!("rolloutPercentage: {NO_EFFECT}");
            return Err(Error::invalid_field("updates", message));
        }
        let schedule = transaction.insert_schedule(key, at, updates).await?;
        let state = serde_json::to_value(&schedule).ok();
        transaction
            .add_audit_entry(Some(key), Action::CreateSchedule, None, state)
            .await?;
        // Readers do not see schedules, so the cache stays valid.
        transaction.commit().await?;
        Ok(schedule)
    }

    /// Cancels a schedule.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::NotFound`]; [`Error::InvalidState`] if it was applied or
    /// has failed permanently.
    pub async fn cancel_schedule(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: &str,
        actor: &Actor,
    ) -> Result<ScheduleRecord, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        require_in_use(transaction.flag(key).await?, key)?;
        let Some(before) = transaction.schedule(key, id).await? else {
            return Err(Error::NotFound(format!("Schedule '{id}'")));
        };
        if before.status == ScheduleStatus::Cancelled {
            transaction.rollback().await;
            return Ok(before);
        }
        if !before.is_open() {
            return Err(Error::InvalidState(
                "The schedule was applied or has failed permanently".to_owned(),
            ));
        }
        let after = cancel(&mut transaction, before, actor).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Applies due schedules. Begins none after `within`: if someone else's transaction locks a flag, its first
    /// schedule waits for the time limit of a statement. Concurrent runs apply different ones.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the due schedules cannot be read.
    pub async fn run_schedules(
        &self,
        budget: Duration,
        within: Duration,
    ) -> Result<SchedulesRun, Error> {
        let mut run = SchedulesRun::default();
        let started = Instant::now();
        let due_schedules = self.store.due_schedules(MAX_PER_RUN).await?;
        let mut unavailable = HashSet::new();
        for due in &due_schedules {
            // Waiting for the lock of this flag again would take the time of others.
            if unavailable.contains(&(&due.environment, &due.key)) {
                run.postponed += 1;
                continue;
            }
            if started.elapsed() > within {
                run.left += 1;
                continue;
            }
            let context = RequestContext::begin(budget);
            match self.apply(due, &context).await {
                Ok(true) => {
                    run.applied += 1;
                    info!(
                        domain = "config",
                        environment = due.environment.as_str(),
                        flag_key = due.key.as_str(),
                        schedule = due.id,
                        "scheduled change applied"
                    );
                }
                // Another run is applying it, or it was cancelled.
                Ok(false) => {}
                Err(failure) => {
                    match failure {
                        Failure::Permanent(_) => run.failed += 1,
                        Failure::Temporary(_) => run.postponed += 1,
                    }
                    if failure.is_unavailable() {
                        unavailable.insert((&due.environment, &due.key));
                    }
                    self.record_failure(due, &failure).await;
                }
            }
        }
        Ok(run)
    }

    async fn apply(&self, due: &DueSchedule, context: &RequestContext) -> Result<bool, Failure> {
        let (environment, key) = (&due.environment, &due.key);
        context.trace.flag_key(key.as_str());
        let mut transaction = self.begin(environment, &actor(due)).await?;
        // Locks the flag before its schedule, the same order as all changes.
        let found = transaction.flag(key).await?;
        let Some(schedule) = still_due(&mut transaction, due).await? else {
            transaction.rollback().await;
            return Ok(false);
        };
        if let Some(why) = &schedule.unreadable {
            return Err(Failure::Permanent(format!(
                "the schedule is unreadable: {why}"
            )));
        }
        let late = SystemTime::now().duration_since(schedule.scheduled_at);
        if late.unwrap_or_default() > MAX_DELAY {
            let why = "it was not applied within a day of its time";
            return Err(Failure::Permanent(why.to_owned()));
        }
        let change = change_in(&schedule.updates).map_err(Failure::Permanent)?;
        let Ok(before) = require_in_use(found, key) else {
            return Err(Failure::Permanent("the flag is archived".to_owned()));
        };
        if before.flag.definition.is_some() && change.rollout_percentage.is_some() {
            let why = "the flag has a definition, on which a rollout percentage has no effect";
            return Err(Failure::Permanent(why.to_owned()));
        }
        let mut flag = before.flag.clone();
        change.apply(&mut flag, None);
        let changes = [(key, &before.flag, &flag)];
        match supersede_ramps(&mut transaction, &changes, Action::ScheduledUpdate).await {
            Ok(()) => {}
            // The ramp was rolled back. A retry would apply the change at a random time after an editor has
            // acknowledged that, and would fail `reconcile` every minute until then.
            Err(Error::Conflict(why)) => return Err(Failure::Permanent(why)),
            Err(why) => return Err(why.into()),
        }
        let after = transaction.write_flag(key, &flag, false).await?;
        follow_unchanged_flag(&mut transaction, key, &before, &after).await?;
        let (from, to) = (state_of(&before), state_of(&after));
        transaction
            .add_audit_entry(Some(key), Action::ScheduledUpdate, Some(from), Some(to))
            .await?;
        let made = ScheduleRecord {
            status: ScheduleStatus::Applied,
            applied_at: Some(SystemTime::now()),
            next_retry_at: None,
            ..schedule
        };
        transaction.write_schedule(&made).await?;
        self.commit(transaction, environment, context).await?;
        Ok(true)
    }

    /// Records a failure, unless the store was unavailable. If it is not recorded, the schedule is unchanged and the
    /// next run finds it again.
    async fn record_failure(&self, due: &DueSchedule, failure: &Failure) {
        let (why, permanent) = match failure {
            Failure::Permanent(why) => (why.clone(), true),
            Failure::Temporary(why) => (why.to_string(), false),
        };
        error!(
            domain = "config",
            environment = due.environment.as_str(),
            flag_key = due.key.as_str(),
            schedule = due.id,
            permanent,
            error = why,
            "scheduled change failed"
        );
        if failure.is_unavailable() {
            return;
        }
        if let Err(again) = self.write_failure(due, &why, permanent).await {
            error!(domain = "config", error = %again, "the failure of a scheduled change could not be recorded");
        }
    }

    async fn write_failure(
        &self,
        due: &DueSchedule,
        why: &str,
        permanent: bool,
    ) -> Result<(), Error> {
        let mut transaction = self.begin(&due.environment, &actor(due)).await?;
        transaction.flag(&due.key).await?;
        let Some(before) = still_due(&mut transaction, due).await? else {
            transaction.rollback().await;
            return Ok(());
        };
        let tried = before.retry_count.saturating_add(1);
        let is_last = permanent || tried > before.max_retries;
        let wait =
            FIRST_RETRY * 2_u32.saturating_pow(u32::try_from(before.retry_count).unwrap_or(0));
        let after = ScheduleRecord {
            status: if is_last {
                ScheduleStatus::Failed
            } else {
                ScheduleStatus::Pending
            },
            // Clients see the error only once it is final.
            error_message: is_last.then(|| why.to_owned()),
            last_error: Some(why.to_owned()),
            retry_count: if is_last { before.retry_count } else { tried },
            next_retry_at: (!is_last).then(|| SystemTime::now() + wait),
            ..before.clone()
        };
        transaction.write_schedule(&after).await?;
        if is_last {
            let states = [&before, &after].map(|state| serde_json::to_value(state).ok());
            let [before, now] = states;
            transaction
                .add_audit_entry(Some(&due.key), Action::FailSchedule, before, now)
                .await?;
        }
        transaction.commit().await
    }
}

impl Failure {
    /// The flag is locked, or the store does not answer. Recording the failure would only wait too.
    fn is_unavailable(&self) -> bool {
        matches!(self, Self::Temporary(Error::Unavailable(_)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Temporary(error)
    }
}

/// Cancels all pending schedules of flags that are archived or restored.
pub(super) async fn cancel_schedules(
    transaction: &mut Transaction,
    keys: &[&FlagKey],
    actor: &Actor,
) -> Result<(), Error> {
    for before in transaction.schedules(keys).await? {
        if before.is_open() {
            cancel(transaction, before, actor).await?;
        }
    }
    Ok(())
}

async fn cancel(
    transaction: &mut Transaction,
    before: ScheduleRecord,
    actor: &Actor,
) -> Result<ScheduleRecord, Error> {
    let after = before.cancelled(&actor.id);
    transaction.write_schedule(&after).await?;
    let states = [&before, &after].map(|state| serde_json::to_value(state).ok());
    let [before, now] = states;
    transaction
        .add_audit_entry(Some(&after.flag_key), Action::CancelSchedule, before, now)
        .await?;
    Ok(after)
}

/// Parses the `updates` of a schedule.
///
/// # Errors
/// A sentence that names the invalid field.
pub(super) fn change_in(updates: &Value) -> Result<Change, String> {
    let nothing = Map::new();
    let fields = updates.as_object().unwrap_or(&nothing);
    let mut change = Change::default();
    if let Some(enabled) = fields.get("enabled") {
        let enabled = enabled.as_bool();
        change.enabled = Some(enabled.ok_or("updates.enabled must be true or false")?);
    }
    if let Some(percentage) = fields.get("rolloutPercentage") {
        let rollout = percentage.as_i64().map(Rollout::parse).and_then(Result::ok);
        let rollout = rollout.ok_or_else(|| {
            let got = quote(percentage);
            format!("updates.rolloutPercentage must be an integer from 0 to 100 (got {got})")
        })?;
        change.rollout_percentage = Some(rollout);
    }
    if change == Change::default() {
        return Err("updates must contain enabled or rolloutPercentage".to_owned());
    }
    Ok(change)
}

/// Locks the schedule, if it still exists, is still due and no other run holds it.
async fn still_due(
    transaction: &mut Transaction,
    due: &DueSchedule,
) -> Result<Option<ScheduleRecord>, Error> {
    let found = transaction.try_lock_schedule(&due.key, &due.id).await?;
    Ok(found.filter(|schedule| schedule.is_due(SystemTime::now())))
}

/// The actor in the audit.
fn actor(due: &DueSchedule) -> String {
    format!("schedule:{}", due.id)
}
