//! Overrides for single users.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pennon_eval::{Flag, FlagKey, Override, Violations};
use serde_json::{Value, json};

use super::FlagService;
use super::change::{Changed, Expected, OVERRIDES};
use super::ramps::require_acknowledged;
use super::update::require_in_use;
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::request_context::RequestContext;
use crate::store::{Action, OverrideRecord, Transaction};
use crate::timestamp::{parse, timestamp};

/// Limit on additions and changes of overrides per flag within [`CHANGE_WINDOW`], over all instances. Beyond it, a
/// rollout or a targeting rule is the right tool. Removals do not count.
const MAX_CHANGES: u32 = 100;
/// See [`MAX_CHANGES`].
const CHANGE_WINDOW: Duration = Duration::from_secs(3600);

/// The error for an unknown variant.
const NO_SUCH_VARIANT: &str = "The flag has no such variant";

/// The override that an editor sets for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOverride {
    /// The id of the user.
    pub user_id: String,
    /// The kind of override.
    pub kind: Override,
    /// The reason, for other editors.
    pub reason: Option<String>,
}

impl FlagService {
    /// Sets a user's override, or replaces it.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Invalid`] for a variant that the flag does not have;
    /// [`Error::Conflict`] if a ramp has rolled the flag back; [`Error::RateLimited`]; [`Error::Unavailable`].
    pub async fn set_override(
        &self,
        environment: &Environment,
        key: &FlagKey,
        wanted: NewOverride,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<OverrideRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let record = require_in_use(transaction.flag(key).await?, key)?;
        if !accepts_override(&record.flag, &wanted.kind) {
            return Err(Error::invalid_field("variant", NO_SUCH_VARIANT));
        }
        let wanted = OverrideRecord {
            user_id: wanted.user_id,
            kind: wanted.kind,
            reason: wanted.reason,
            created_by: Some(actor.id.clone()),
            created_at: None,
        };
        let after = write_override(&mut transaction, key, &record.flag, &wanted).await?;
        self.finish(transaction, environment, after, context).await
    }

    /// Removes a user's override.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::NotFound`]; [`Error::Conflict`] if a ramp has rolled the flag back;
    /// [`Error::Unavailable`].
    pub async fn remove_override(
        &self,
        environment: &Environment,
        key: &FlagKey,
        user: &str,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<()>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let record = require_in_use(transaction.flag(key).await?, key)?;
        if !delete_override(&mut transaction, key, &record.flag, user).await? {
            return Err(Error::NotFound(format!("Override for user '{user}'")));
        }
        self.finish(transaction, environment, (), context).await
    }
}

/// Sets an override, with its audit entry. The caller checks that the flag has its variant.
///
/// # Errors
/// [`Error::RateLimited`]; [`Error::Conflict`] if a ramp has rolled the flag back.
pub(super) async fn write_override(
    transaction: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    wanted: &OverrideRecord,
) -> Result<OverrideRecord, Error> {
    check_change_rate(transaction, key).await?;
    let before = transaction.find_override(key, &wanted.user_id).await?;
    if may_give_flag(flag, before.as_ref().map(|it| &it.kind), Some(&wanted.kind)) {
        require_acknowledged(transaction, &[key]).await?;
    }
    let after = transaction.put_override(key, wanted).await?;
    let states = (before.as_ref().map(override_state), override_state(&after));
    transaction
        .add_audit_entry(Some(key), Action::SetOverride, states.0, Some(states.1))
        .await?;
    Ok(after)
}

/// Removes a user's override, with its audit entry. Returns whether there was one.
///
/// # Errors
/// [`Error::Conflict`] if a ramp has rolled the flag back.
pub(super) async fn delete_override(
    transaction: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    user: &str,
) -> Result<bool, Error> {
    let Some(before) = transaction.find_override(key, user).await? else {
        return Ok(false);
    };
    if may_give_flag(flag, Some(&before.kind), None) {
        require_acknowledged(transaction, &[key]).await?;
    }
    transaction.delete_overrides(key, &[user]).await?;
    let before = Some(override_state(&before));
    transaction
        .add_audit_entry(Some(key), Action::DeleteOverride, before, None)
        .await?;
    Ok(true)
}

/// Whether a change of an override could give the flag to its user.
fn may_give_flag(flag: &Flag, before: Option<&Override>, after: Option<&Override>) -> bool {
    if before == after {
        return false;
    }
    // In a flag with variants, an excluded user gets the default variant, which may be the one that a ramp raises.
    let only_takes_away = matches!(
        (before, after),
        (_, Some(Override::Exclude)) | (Some(Override::Include), None)
    );
    flag.definition.is_some() || !only_takes_away
}

/// Like [`may_give_flag`], for any of many overrides. `before` has the old ones of all affected users.
fn any_may_give_flag(
    flag: &Flag,
    (put, removed): (&[OverrideRecord], &[&str]),
    before: &[OverrideRecord],
) -> bool {
    let known = before.iter().map(|one| (one.user_id.as_str(), &one.kind));
    let known: BTreeMap<&str, &Override> = known.collect();
    let known = |user: &str| known.get(user).copied();
    let mut set = put.iter().map(|one| (known(&one.user_id), Some(&one.kind)));
    let mut unset = removed.iter().map(|user| (known(user), None));
    let gives = |(before, after)| may_give_flag(flag, before, after);
    set.any(gives) || unset.any(gives)
}

/// The effect on overrides that a request does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// They are removed.
    Replace,
    /// They stay.
    Merge,
}

/// The result of a bulk change of overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverridesPut {
    /// Users who had no override.
    pub created: usize,
    /// Users whose override was changed.
    pub changed: usize,
    /// Users whose override was removed.
    pub removed: usize,
    /// Users whose override was already equal.
    pub unchanged: usize,
    /// The number of overrides after the change.
    pub total: usize,
    /// The new revision of all overrides: see [`crate::store::OverridePage`].
    pub revision: i64,
}

impl FlagService {
    /// Sets the overrides of a flag for many users, each named once, as one change with one audit entry. It counts as
    /// one change toward the hourly limit, unless it only removes overrides.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Invalid`] for unknown variants, with the index of
    /// each; [`Error::PreconditionFailed`] if the overrides have changed; [`Error::Conflict`] if a ramp has rolled the
    /// flag back; [`Error::RateLimited`]; [`Error::Unavailable`].
    pub async fn put_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        (mode, wanted): (PutMode, Vec<NewOverride>),
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<OverridesPut>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let record = require_in_use(transaction.flag(key).await?, key)?;
        check_variants(&record.flag, &wanted)?;
        // Locks the overrides before their revision is compared and before the first statement that changes some of
        // them, whose trigger locks the environment.
        let known = transaction.overrides(key).await?;
        expected.check(transaction.overrides_revision(key).await?)?;
        let mut known: BTreeMap<&str, &OverrideRecord> = known
            .iter()
            .map(|one| (one.user_id.as_str(), one))
            .collect();
        let mut done = OverridesPut::default();
        let (mut put, mut before) = (Vec::new(), Vec::new());
        let had = known.len();
        for one in wanted {
            match known.remove(one.user_id.as_str()) {
                Some(same) if same.kind == one.kind && same.reason == one.reason => {
                    done.unchanged += 1;
                    continue;
                }
                Some(other) => {
                    done.changed += 1;
                    before.push(other.clone());
                }
                None => done.created += 1,
            }
            put.push(OverrideRecord {
                user_id: one.user_id,
                kind: one.kind,
                reason: one.reason,
                created_by: Some(actor.id.clone()),
                created_at: None,
            });
        }
        let removed: Vec<OverrideRecord> = match mode {
            PutMode::Replace => known.into_values().cloned().collect(),
            PutMode::Merge => Vec::new(),
        };
        done.removed = removed.len();
        done.total = had + done.created - done.removed;
        before.extend_from_slice(&removed);
        let users: Vec<&str> = removed.iter().map(|one| one.user_id.as_str()).collect();
        let flag = &record.flag;
        write_overrides(&mut transaction, key, flag, (&put, &users), &before).await?;
        done.revision = transaction.overrides_revision(key).await?;
        self.finish(transaction, environment, done, context).await
    }
}

/// Sets and removes overrides, with one audit entry that contains the old and new overrides of the affected users.
async fn write_overrides(
    transaction: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    (put, removed): (&[OverrideRecord], &[&str]),
    before: &[OverrideRecord],
) -> Result<(), Error> {
    if put.is_empty() && removed.is_empty() {
        return Ok(());
    }
    if any_may_give_flag(flag, (put, removed), before) {
        require_acknowledged(transaction, &[key]).await?;
    }
    let action = if put.is_empty() {
        Action::DeleteOverrides
    } else {
        check_change_rate(transaction, key).await?;
        Action::SetOverrides
    };
    let mut after = Vec::new();
    if !put.is_empty() {
        after = transaction.put_overrides(key, put).await?;
    }
    if !removed.is_empty() {
        transaction.delete_overrides(key, removed).await?;
    }
    let state = |records: &[OverrideRecord]| {
        let states: Vec<Value> = records.iter().map(override_state).collect();
        json!({ (OVERRIDES): states })
    };
    let (before, after) = (state(before), state(&after));
    transaction
        .add_audit_entry(Some(key), action, Some(before), Some(after))
        .await
}

/// Reverts the overrides in an audit entry of [`write_overrides`] to the side `wanted` of the entry; `other` is its
/// other side. Overrides of other users stay as they are.
///
/// # Errors
/// Those of [`check_revert_to`]; [`Error::RateLimited`]; [`Error::Conflict`] if a ramp has rolled the flag back.
pub(super) async fn revert_overrides(
    transaction: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    (wanted, other): (Option<&Value>, Option<&Value>),
) -> Result<(), Error> {
    let all = |state: Option<&Value>| -> Vec<OverrideRecord> {
        let list = state.and_then(|state| state[OVERRIDES].as_array());
        list.into_iter().flatten().filter_map(override_in).collect()
    };
    let wanted = all(wanted);
    for one in &wanted {
        check_revert_to(one, flag)?;
    }
    let known = transaction.overrides(key).await?;
    let known: BTreeMap<&str, &OverrideRecord> = known
        .iter()
        .map(|one| (one.user_id.as_str(), one))
        .collect();
    let users: BTreeSet<&str> = wanted.iter().map(|one| one.user_id.as_str()).collect();
    let other = all(other);
    let removed: Vec<&str> = other
        .iter()
        .map(|one| one.user_id.as_str())
        .filter(|user| known.contains_key(user) && !users.contains(user))
        .collect();
    let touched = users.iter().chain(&removed);
    let before: Vec<OverrideRecord> = touched
        .filter_map(|user| known.get(user).copied().cloned())
        .collect();
    write_overrides(transaction, key, flag, (&wanted, &removed), &before).await
}

/// Rejects overrides that name an unknown variant.
fn check_variants(flag: &Flag, wanted: &[NewOverride]) -> Result<(), Error> {
    let mut errors = Violations::default();
    for (number, one) in wanted.iter().enumerate() {
        if !accepts_override(flag, &one.kind) {
            let field = format!("{OVERRIDES}/{number}/variant");
            errors.add_at(&field, NO_SUCH_VARIANT);
        }
    }
    errors.into_result(()).map_err(Error::from_violations)
}

/// The JSON of an override for clients and the audit. `variant` is omitted unless the override names one.
#[must_use]
pub fn override_state(record: &OverrideRecord) -> Value {
    let mut state = json!({
        "userId": record.user_id,
        "overrideType": match record.kind {
            Override::Include | Override::Variant(_) => "include",
            Override::Exclude => "exclude",
            Override::Unreadable => "unreadable",
        },
        "reason": record.reason,
        "createdBy": record.created_by,
        "createdAt": record.created_at.map(timestamp),
    });
    if let Override::Variant(variant) = &record.kind {
        state["variant"] = json!(variant);
    }
    if record.kind == Override::Unreadable {
        state["broken"] = json!("its type is neither include nor exclude");
    }
    state
}

/// Parses the result of [`override_state`].
pub(super) fn override_in(state: &Value) -> Option<OverrideRecord> {
    let text = |name: &str| state[name].as_str().map(str::to_owned);
    Some(OverrideRecord {
        user_id: text("userId")?,
        kind: match (text("variant"), state["overrideType"].as_str()) {
            (Some(variant), _) => Override::Variant(variant),
            (None, Some("include")) => Override::Include,
            (None, Some("unreadable")) => Override::Unreadable,
            (None, _) => Override::Exclude,
        },
        reason: text("reason"),
        created_by: text("createdBy"),
        created_at: text("createdAt").and_then(|text| parse(&text)),
    })
}

/// Whether the flag can have an override of this kind: it must have the variant that the override gives.
pub(super) fn accepts_override(flag: &Flag, kind: &Override) -> bool {
    match kind {
        Override::Include | Override::Exclude => true,
        Override::Variant(variant) => {
            let definition = flag.definition.as_ref();
            definition.is_some_and(|known| known.variants.contains_key(variant))
        }
        Override::Unreadable => false,
    }
}

/// Rejects an override from an audit entry that the flag can no longer have.
///
/// # Errors
/// [`Error::Conflict`] for a variant that the flag no longer has, or an unreadable override.
pub(super) fn check_revert_to(wanted: &OverrideRecord, flag: &Flag) -> Result<(), Error> {
    if accepts_override(flag, &wanted.kind) {
        return Ok(());
    }
    Err(Error::Conflict(match &wanted.kind {
        Override::Variant(variant) => format!(
            "The override of '{}' in this entry gives the variant '{variant}', which the flag no longer has",
            wanted.user_id
        ),
        Override::Include | Override::Exclude | Override::Unreadable => {
            "The override in this entry is unreadable; set it to include or exclude".to_owned()
        }
    }))
}

/// Enforces the limit on changes. The flag is locked, so concurrent requests cannot exceed it.
async fn check_change_rate(transaction: &mut Transaction, key: &FlagKey) -> Result<(), Error> {
    let wait = transaction
        .override_change_retry_after(key, MAX_CHANGES, CHANGE_WINDOW)
        .await?;
    match wait {
        // Rounded up: a retry after a rounded-down time would fail again.
        Some(wait) => Err(Error::RateLimited {
            retry_after: wait.as_secs() + 1,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pennon_eval::Definition;

    use super::*;

    #[test]
    fn a_change_of_an_override_may_give_a_simple_flag_unless_it_excludes_or_ends_an_inclusion() {
        let variant = Override::Variant("on".to_owned());
        let states = [
            None,
            Some(&Override::Include),
            Some(&Override::Exclude),
            Some(&variant),
            Some(&Override::Unreadable),
        ];
        let simple = Flag::default();
        let typed = Flag {
            definition: Some(Definition::default()),
            ..Flag::default()
        };
        for before in states {
            for after in states {
                let is_same = before == after;
                let takes_away = after == Some(&Override::Exclude)
                    || (before, after) == (Some(&Override::Include), None);
                let gives = may_give_flag(&simple, before, after);
                assert_eq!(gives, !is_same && !takes_away, "{before:?} {after:?}");
                let gives = may_give_flag(&typed, before, after);
                assert_eq!(gives, !is_same, "{before:?} {after:?}");
            }
        }
    }
}
