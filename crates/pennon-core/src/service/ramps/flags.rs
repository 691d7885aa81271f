//! Changes of flags by ramps, and of ramps by changes of their flags.

use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey};
use serde_json::{Value, json};

use crate::error::Error;
use crate::ramp::{NotRampable, OnAlarm, Ramp, RampState, Share, StepStart};
use crate::service::change::{from_audit, state_of};
use crate::service::validate::FlagChange;
use crate::store::{Action, FlagRecord, Transaction};

/// Ends the live ramps of flags that are about to change; a flag that is written without a difference keeps its ramp
/// (see [`follow_unchanged_flag`]). Rejects changes of flags that a ramp has rolled back until an editor acknowledges
/// the rollback; such a flag can only be switched off or archived.
///
/// # Errors
/// [`Error::Conflict`] that names the ramp.
pub(in crate::service) async fn supersede_ramps(
    transaction: &mut Transaction,
    changes: &[FlagChange<'_>],
    action: Action,
) -> Result<(), Error> {
    let changed = || changes.iter().filter(|(_, before, after)| before != after);
    let keys: Vec<&FlagKey> = changed().map(|(key, ..)| *key).collect();
    for (key, ramp) in transaction.open_ramps(&keys).await? {
        // An unreadable ramp never changes its flag, so editors may.
        let Some(mut ramp) = ramp else { continue };
        if ramp.state.is_live() {
            supersede(transaction, &key, &mut ramp, action).await?;
        }
        let mut of_flag = changed().filter(|(changed, ..)| **changed == key);
        let more_than_off = of_flag.any(|(_, before, after)| {
            let off = Flag {
                enabled: false,
                ..(*before).clone()
            };
            **after != off
        });
        if ramp.blocks_changes() && more_than_off {
            return Err(not_acknowledged(&key, &ramp));
        }
    }
    Ok(())
}

/// Gives the live ramp of a flag the new revision if the flag was written without a difference. PostgreSQL raises the
/// revision with every write, and the ramp would take that for a change by someone else and end, with its guards.
pub(in crate::service) async fn follow_unchanged_flag(
    transaction: &mut Transaction,
    key: &FlagKey,
    before: &FlagRecord,
    after: &FlagRecord,
) -> Result<(), Error> {
    let is_unchanged =
        before.flag == after.flag && before.archived_at.is_some() == after.archived_at.is_some();
    if !is_unchanged || before.revision == after.revision {
        return Ok(());
    }
    for (_, ramp) in transaction.open_ramps(&[key]).await? {
        // Without the comparison of revisions, the ramp would miss an earlier change without the API.
        let follows = |ramp: &Ramp| ramp.state.is_live() && ramp.flag_revision == before.revision;
        if let Some(mut ramp) = ramp.filter(follows) {
            ramp.flag_revision = after.revision;
            transaction.write_ramp(key, &ramp).await?;
        }
    }
    Ok(())
}

/// Until an editor acknowledges a rollback, rejects requests that would give users the flag again: by overrides, or by
/// a new flag with the same key. Also rejects a permanent deletion, which would free the key.
///
/// # Errors
/// [`Error::Conflict`] that names the ramp.
pub(in crate::service) async fn require_acknowledged(
    transaction: &mut Transaction,
    keys: &[&FlagKey],
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let open = transaction.open_ramps(keys).await?;
    let mut readable = open
        .iter()
        .filter_map(|(key, it)| Some((key, it.as_ref()?)));
    match readable.find(|(_, ramp)| ramp.blocks_changes()) {
        Some((key, ramp)) => Err(not_acknowledged(key, ramp)),
        None => Ok(()),
    }
}

fn not_acknowledged(key: &FlagKey, ramp: &Ramp) -> Error {
    Error::Conflict(format!(
        "Ramp {} of '{key}' was rolled back ({}); acknowledge that before you change the flag. It can be \
         switched off",
        ramp.id,
        ramp.reason.as_deref().unwrap_or("by a request")
    ))
}

/// Ends the live ramps of flags that are archived.
pub(in crate::service) async fn supersede_ramps_of_archived(
    transaction: &mut Transaction,
    keys: &[&FlagKey],
    action: Action,
) -> Result<(), Error> {
    for (key, ramp) in transaction.open_ramps(keys).await? {
        if let Some(mut ramp) = ramp.filter(|ramp| ramp.state.is_live()) {
            supersede(transaction, &key, &mut ramp, action).await?;
        }
    }
    Ok(())
}

async fn supersede(
    transaction: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    action: Action,
) -> Result<(), Error> {
    let (who, how) = changed_by(Some((
        transaction.actor().to_owned(),
        action.name().to_owned(),
    )));
    end_superseded(transaction, key, ramp, &who, how).await
}

/// Ends a live ramp if its flag was changed without the API, or by a version without ramps. Returns whether it has
/// ended the ramp.
pub(super) async fn supersede_if_changed(
    transaction: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    found: Option<&FlagRecord>,
) -> Result<bool, Error> {
    if !ramp.state.is_live() || !is_changed_by_others(ramp, found) {
        return Ok(false);
    }
    let (who, how) = changed_by(transaction.last_change(key).await?);
    end_superseded(transaction, key, ramp, &who, how).await?;
    Ok(true)
}

async fn end_superseded(
    transaction: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    who: &str,
    how: String,
) -> Result<(), Error> {
    let before = summary_of(ramp);
    ramp.due_at = None;
    ramp.enter(RampState::Superseded, Some(how), who, SystemTime::now());
    ramp.version += 1;
    let after = summary_of(ramp);
    transaction
        .add_audit_entry(Some(key), Action::ChangeRamp, Some(before), Some(after))
        .await?;
    transaction.write_ramp(key, ramp).await
}

/// Who has changed the flag last, and the text that the ramp gives as its reason, from the actor and action of the
/// newest audit entry in which the flag or one of its ramps changed. If that entry is of the ramp itself, the flag was
/// changed without the API.
pub(super) fn changed_by(last: Option<(String, String)>) -> (String, String) {
    let own = [
        Action::CreateRamp,
        Action::ChangeRamp,
        Action::RampStep,
        Action::RampRollback,
    ];
    match last.filter(|(_, action)| own.iter().all(|own| own.name() != action)) {
        Some((who, action)) => {
            let how = format!("{who} changed the flag ({action})");
            (who, how)
        }
        None => (
            "unknown".to_owned(),
            "the flag was changed without the API".to_owned(),
        ),
    }
}

/// Whether someone else has changed or archived the flag since the ramp last wrote it, or has deleted it.
pub(super) fn is_changed_by_others(ramp: &Ramp, found: Option<&FlagRecord>) -> bool {
    found.is_none_or(|it| it.archived_at.is_some() || it.revision != ramp.flag_revision)
}

/// Begins the next step, or completes the ramp after the last one.
pub(super) async fn advance(
    transaction: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    before: &FlagRecord,
    start: StepStart,
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
        let after = write(transaction, key, before, &flag, Action::RampStep).await?;
        ramp.flag_revision = after.revision;
    }
    ramp.advance(start, actor);
    Ok(())
}

/// Ends the ramp, and rolls the flag back if a step has begun.
pub(super) async fn roll_back(
    transaction: &mut Transaction,
    key: &FlagKey,
    ramp: &mut Ramp,
    before: &FlagRecord,
    target: OnAlarm,
    why: Option<String>,
    actor: &str,
) -> Result<(), Error> {
    if ramp.step > 0 {
        let flag = lowered(ramp, &before.flag, target)?;
        let after = write(transaction, key, before, &flag, Action::RampRollback).await?;
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
    transaction: &mut Transaction,
    key: &FlagKey,
    before: &FlagRecord,
    flag: &Flag,
    action: Action,
) -> Result<FlagRecord, Error> {
    let after = transaction.write_flag(key, flag, false).await?;
    let (from, to) = (state_of(before), state_of(&after));
    transaction
        .add_audit_entry(Some(key), action, Some(from), Some(to))
        .await?;
    Ok(after)
}

/// The flag after a rollback. Whatever the stored ramp says, no user gets the flag who did not have it before.
///
/// # Errors
/// [`Error::Internal`] if the rollback would raise the share, switch the flag on, or move users whose variant is not
/// part of the ramp; [`Error::Conflict`] if the previous share cannot be set.
fn lowered(ramp: &Ramp, before: &Flag, target: OnAlarm) -> Result<Flag, Error> {
    let mut after = before.clone();
    match target {
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
                .ok_or_else(|| Error::Internal("the start of a ramp is not a flag".to_owned()))?;
            after.rollout_percentage = start.flag.rollout_percentage;
            let rule = start.flag.definition.and_then(|it| it.targeting);
            if let Some(definition) = &mut after.definition {
                definition.targeting = rule;
            }
        }
        // Never the target of a rollback.
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
            "a rollback of a ramp would raise the share of its flag, switch it on, or move users of other variants"
                .to_owned(),
        ))
    }
}

/// A ramp as the audit stores it.
pub(super) fn summary_of(ramp: &Ramp) -> Value {
    json!({
        "id": ramp.id,
        "state": ramp.state,
        "step": ramp.step,
        "percent": ramp.percent,
        "reason": ramp.reason,
        "acknowledgedBy": ramp.acknowledged_by,
    })
}

pub(super) fn not_rampable(why: &NotRampable) -> Error {
    Error::Conflict(format!("This flag cannot be ramped: {why}"))
}
