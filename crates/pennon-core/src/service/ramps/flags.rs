//! What ramps do to their flags.

use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey};
use serde_json::{Value, json};

use crate::error::Error;
use crate::ramp::{NotRampable, OnAlarm, Ramp, RampState, Share};
use crate::service::change::{from_audit, state_of};
use crate::service::validate::Step;
use crate::store::{Action, FlagRecord, Transaction};

/// Refuses to change flags that a ramp has taken back, until an admin acknowledges that. They can be
/// switched off, and archived.
///
/// # Errors
/// [`Error::Conflict`] that names the ramp.
pub(in crate::service) async fn must_not_be_rolled_back(
    open: &mut Transaction,
    changes: &[Step<'_>],
) -> Result<(), Error> {
    let raised = changes.iter().filter(|(_, before, after)| {
        let off = Flag {
            enabled: false,
            ..(*before).clone()
        };
        **after != **before && **after != off
    });
    let keys: Vec<&FlagKey> = raised.map(|(key, ..)| *key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let ramps = open.open_ramps(&keys).await?;
    match ramps.iter().find(|(_, ramp)| ramp.blocks_changes()) {
        None => Ok(()),
        Some((key, ramp)) => Err(Error::Conflict(format!(
            "Ramp {} of '{key}' was rolled back ({}); acknowledge that before you change the flag. It can \
             be switched off",
            ramp.id,
            ramp.reason.as_deref().unwrap_or("by an admin")
        ))),
    }
}

/// Ends a ramp whose flag somebody else has changed. Returns whether that is so.
pub(super) async fn settle(
    open: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    found: Option<&FlagRecord>,
) -> Result<bool, Error> {
    if !ramp.state.is_live() || !is_foreign(ramp, found) {
        return Ok(false);
    }
    let by = open.last_change(key).await?;
    let own = format!("ramp:{}", ramp.id);
    let (who, how) = match by.filter(|(who, _)| *who != own) {
        Some((who, action)) => (who.clone(), format!("{who} changed the flag ({action})")),
        None => (own, "the flag was changed without the API".to_owned()),
    };
    let before = summary_of(ramp);
    ramp.due_at = None;
    ramp.enter(RampState::Superseded, Some(how), &who, SystemTime::now());
    ramp.version += 1;
    let after = summary_of(ramp);
    open.note(Some(key), Action::ChangeRamp, Some(before), Some(after))
        .await?;
    open.write_ramp(key, ramp).await?;
    Ok(true)
}

/// Whether the flag is not as the ramp has left it.
pub(super) fn is_foreign(ramp: &Ramp, found: Option<&FlagRecord>) -> bool {
    found.is_none_or(|it| it.archived_at.is_some() || it.revision != ramp.flag_revision)
}

/// Begins the next step.
pub(super) async fn advance(
    open: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    before: &FlagRecord,
    evaluations: u64,
    actor: &str,
) -> Result<(), Error> {
    if let Some(step) = ramp.next_step() {
        let percent = step.percent;
        let mut flag = before.flag.clone();
        let share =
            Share::of(&flag, ramp.plan.variants.as_ref()).map_err(|why| not_rampable(&why))?;
        share
            .set(&mut flag, percent)
            .map_err(|why| not_rampable(&why))?;
        let after = write(open, key, before, &flag, Action::RampStep).await?;
        ramp.flag_revision = after.revision;
    }
    ramp.advance(evaluations, actor, SystemTime::now());
    Ok(())
}

/// Takes the flag back.
pub(super) async fn roll_back(
    open: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    before: &FlagRecord,
    to: OnAlarm,
    why: Option<String>,
    actor: &str,
) -> Result<(), Error> {
    if ramp.step > 0 {
        let flag = lowered(ramp, &before.flag, to)?;
        let after = write(open, key, before, &flag, Action::RampRollback).await?;
        ramp.flag_revision = after.revision;
        if let Ok(share) = Share::of(&after.flag, ramp.plan.variants.as_ref()) {
            ramp.percent = share.percent();
        }
    }
    ramp.due_at = None;
    ramp.enter(RampState::RolledBack, why, actor, SystemTime::now());
    Ok(())
}

async fn write(
    open: &mut Transaction,
    key: &FlagKey,
    before: &FlagRecord,
    flag: &Flag,
    action: Action,
) -> Result<FlagRecord, Error> {
    let after = open.write_flag(key, flag, false).await?;
    let (from, to) = (state_of(before), state_of(&after));
    open.note(Some(key), action, Some(from), Some(to)).await?;
    Ok(after)
}

/// The flag as a rollback leaves it. Whatever is stored of the ramp, nobody gets the flag by it who did
/// not have it before.
///
/// # Errors
/// [`Error::Internal`] when it would raise the share, switch the flag on, or change anything else.
fn lowered(ramp: &Ramp, before: &Flag, to: OnAlarm) -> Result<Flag, Error> {
    let mut after = before.clone();
    match to {
        OnAlarm::Off => after.enabled = false,
        OnAlarm::Previous if ramp.step > 1 => {
            let share =
                Share::of(before, ramp.plan.variants.as_ref()).map_err(|why| not_rampable(&why))?;
            let percent = ramp.previous_percent();
            share
                .set(&mut after, percent)
                .map_err(|why| not_rampable(&why))?;
        }
        OnAlarm::Previous | OnAlarm::Start => {
            let start = from_audit(&ramp.start)
                .ok_or_else(|| Error::Internal("the start of a ramp is no flag".to_owned()))?;
            after.rollout_percentage = start.flag.rollout_percentage;
            let rule = start.flag.definition.and_then(|it| it.targeting);
            if let Some(definition) = &mut after.definition {
                definition.targeting = rule;
            }
        }
        OnAlarm::Pause => {}
    }
    let pair = ramp.plan.variants.as_ref();
    let is_lower = match (Share::of(before, pair), Share::of(&after, pair)) {
        (Ok(before), Ok(after)) => before.is_at_least(&after),
        (Err(_), _) | (_, Err(_)) => !after.enabled,
    };
    let is_switched_on = after.enabled && !before.enabled;
    if is_lower && !is_switched_on {
        Ok(after)
    } else {
        Err(Error::Internal(
            "a rollback of a ramp would raise the share of its flag".to_owned(),
        ))
    }
}

/// A ramp as the audit keeps it.
pub(super) fn summary_of(ramp: &Ramp) -> Value {
    json!({
        "id": ramp.id,
        "state": ramp.state,
        "step": ramp.step,
        "percent": ramp.percent,
        "reason": ramp.reason,
    })
}

/// A state in the API's words.
pub(super) fn name_of(state: RampState) -> &'static str {
    match state {
        RampState::Pending => "pending",
        RampState::Baking => "baking",
        RampState::Holding => "holding",
        RampState::Paused => "paused",
        RampState::Completed => "completed",
        RampState::RolledBack => "rolledBack",
        RampState::Superseded => "superseded",
        RampState::Cancelled => "cancelled",
    }
}

pub(super) fn not_rampable(why: &NotRampable) -> Error {
    Error::Conflict(format!("This flag cannot be ramped: {why}"))
}
