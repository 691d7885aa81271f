//! Creating, archiving, restoring, reverting and deleting flags.

use pennon_eval::flagd::RESERVED_FLAG_METADATA;
use pennon_eval::{Definition, Flag, FlagKey};
use serde_json::{Value, json};

use super::FlagService;
use super::change::{
    Changed, Expected, OVERRIDES, from_audit, prefer_validation_error, state_of, to_json,
};
use super::overrides::{
    accepts_override, check_revert_to, delete_override, override_in, override_state,
    revert_overrides, write_override,
};
use super::ramps::{
    follow_unchanged_flag, require_acknowledged, supersede_ramps, supersede_ramps_of_archived,
};
use super::schedules::cancel_schedules;
use super::update::{
    Change, checked_definition, definition_errors, reject_ineffective_fields, require_in_use,
};
use super::validate::{
    check_limits_with_flag, reject_ineffective_schedules, reject_removal_of_used_variants,
    require_environment_in,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::check_metadata;
use crate::request_context::RequestContext;
use crate::store::{Action, AuditEntry, FlagRecord, OverrideRecord, Transaction};

/// The state in an audit entry to which a flag is reverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The state before the change.
    Before,
    /// The state after the change.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InUse,
    Archived,
}

impl FlagService {
    /// Creates a flag in an existing environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid definition or above a limit; [`Error::NotFound`] for an unknown environment;
    /// [`Error::Conflict`] if the key is taken, also by an archived flag, or a ramp has rolled back a deleted flag with
    /// this key.
    pub async fn create_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        wanted: &Change,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<FlagRecord>, Error> {
        let started = self.begin(environment, &actor.id).await;
        let mut transaction =
            started.map_err(|error| prefer_validation_error(error, || wanted.check_alone()))?;
        let found = transaction.flag(key).await?;
        let definition = checked_definition(&mut transaction, wanted, None).await?;
        let mut flag = Flag::default();
        wanted.apply(&mut flag, definition);
        reject_ineffective_fields(wanted, &flag)?;
        if found.is_none() {
            check_limits_with_flag(&mut transaction, environment, (key, None, &flag)).await?;
        }
        require_environment_in(&mut transaction, environment).await?;
        if let Some(there) = found {
            let state = if there.archived_at.is_some() {
                "archived; restore it, or delete it permanently first"
            } else {
                "in use"
            };
            return Err(Error::Conflict(format!(
                "Flag '{key}' already exists and is {state}"
            )));
        }
        require_acknowledged(&mut transaction, &[key]).await?;
        let after = transaction.insert_flag(key, &flag).await?;
        transaction
            .add_audit_entry(Some(key), Action::CreateFlag, None, Some(state_of(&after)))
            .await?;
        self.finish(transaction, environment, after, context).await
    }

    /// Archives a flag. It is also switched off, because an existing service on the same tables has no other way to
    /// hide it. Its pending schedules are cancelled, so that it stays off after a restore.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] if it is already archived; [`Error::PreconditionFailed`].
    pub async fn archive_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<FlagRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let otherwise = "is already archived; ?permanently=true deletes it";
        let before =
            find_in_state(&mut transaction, key, State::InUse, expected, otherwise).await?;
        let mut flag = before.flag.clone();
        flag.enabled = false;
        supersede_ramps_of_archived(&mut transaction, &[key], Action::ArchiveFlag).await?;
        let after = transaction.write_flag(key, &flag, true).await?;
        audit_change(&mut transaction, key, Action::ArchiveFlag, &before, &after).await?;
        cancel_schedules(&mut transaction, &[key], actor).await?;
        self.finish(transaction, environment, after, context).await
    }

    /// Restores an archived flag, which stays off.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] when it is not archived; [`Error::PreconditionFailed`];
    /// [`Error::Invalid`] if its definition refers to a removed evaluator, or a limit would be exceeded.
    pub async fn restore_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<FlagRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let otherwise = "is not archived";
        let before =
            find_in_state(&mut transaction, key, State::Archived, expected, otherwise).await?;
        if let Some(definition) = &before.flag.definition {
            validate_stored(&mut transaction, definition).await?;
        }
        check_limits_with_flag(
            &mut transaction,
            environment,
            (key, Some(&before), &before.flag),
        )
        .await?;
        let after = transaction.write_flag(key, &before.flag, false).await?;
        audit_change(&mut transaction, key, Action::RestoreFlag, &before, &after).await?;
        // Earlier versions did not cancel the schedules of a flag when they archived it.
        cancel_schedules(&mut transaction, &[key], actor).await?;
        self.finish(transaction, environment, after, context).await
    }

    /// Deletes an archived flag, its overrides and its schedules. The audit keeps the flag and its overrides.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] when it is not archived, or a ramp has rolled it back;
    /// [`Error::PreconditionFailed`].
    pub async fn delete_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<()>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let otherwise = "is in use; archive it before you delete it permanently";
        let before =
            find_in_state(&mut transaction, key, State::Archived, expected, otherwise).await?;
        require_acknowledged(&mut transaction, &[key]).await?;
        let mut state = state_of(&before);
        let overrides = transaction.overrides(key).await?;
        if !overrides.is_empty() {
            let overrides: Vec<Value> = overrides.iter().map(override_state).collect();
            state[OVERRIDES] = json!(overrides);
        }
        transaction.delete_flag(key).await?;
        transaction
            .add_audit_entry(Some(key), Action::DeleteFlag, Some(state), None)
            .await?;
        self.finish(transaction, environment, (), context).await
    }

    /// Reverts a flag, or the overrides that the entry is about, to an earlier state. A deleted flag is created again,
    /// with the overrides that the entry contains. The overrides of an existing flag stay as they are.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown entry; [`Error::Conflict`] if the entry holds no usable state, if a present
    /// override names a variant that the flag did not have, if the override in the entry names one that it no longer
    /// has, if the definition in the entry has metadata that is reserved for files, if a schedule would lose its
    /// effect, or if a ramp has rolled the flag back; [`Error::PreconditionFailed`]; [`Error::Invalid`] if the
    /// definition refers to a removed evaluator or a limit would be exceeded; [`Error::RateLimited`] for an override.
    pub async fn revert_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        to: (i64, Side),
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<FlagRecord>, Error> {
        let (id, side) = to;
        let entry = self.store.find_audit(environment, key, id).await?;
        let Some(entry) = entry else {
            return Err(Error::NotFound(format!("Audit entry {id} of '{key}'")));
        };
        if let Some(why) = &entry.unreadable {
            return Err(Error::Conflict(format!("Entry {id} is unreadable: {why}")));
        }
        let mut transaction = self.begin(environment, &actor.id).await?;
        let after = if entry.action.starts_with("override.") {
            revert_override(&mut transaction, key, &entry, side, expected).await?
        } else if entry.action.starts_with("overrides.") {
            let record = require_in_use(transaction.flag(key).await?, key)?;
            expected.check(record.revision)?;
            let sides = (side.of(&entry), side.other().of(&entry));
            revert_overrides(&mut transaction, key, &record.flag, sides).await?;
            record
        } else if entry.action.starts_with("flag.") {
            revert_whole(
                &mut transaction,
                environment,
                key,
                &entry,
                side,
                expected,
                actor,
            )
            .await?
        } else {
            let what = &entry.action;
            return Err(Error::Conflict(format!(
                "Entry {id} is about {what} and holds no state of '{key}'"
            )));
        };
        self.finish(transaction, environment, after, context).await
    }

    /// Commits, and returns the value with the outcome of the invalidation.
    pub(super) async fn finish<T>(
        &self,
        transaction: Transaction,
        environment: &Environment,
        value: T,
        context: &RequestContext,
    ) -> Result<Changed<T>, Error> {
        let invalidated = self.commit(transaction, environment, context).await?;
        Ok(Changed { value, invalidated })
    }
}

async fn revert_whole(
    transaction: &mut Transaction,
    environment: &Environment,
    key: &FlagKey,
    entry: &AuditEntry,
    side: Side,
    expected: &Expected,
    actor: &Actor,
) -> Result<FlagRecord, Error> {
    let Some(target) = side.of(entry).and_then(from_audit) else {
        let id = entry.id;
        let when = match side {
            Side::Before => "before",
            Side::After => "after",
        };
        return Err(Error::Conflict(format!(
            "Entry {id} holds no state of '{key}' {when} the change"
        )));
    };
    let before = transaction.flag(key).await?;
    if let Some(definition) = &target.flag.definition {
        validate_stored(transaction, definition).await?;
        let known = before.as_ref().and_then(|it| it.flag.definition.as_ref());
        if known != Some(definition)
            && let Some(found) = check_metadata(&definition.metadata, &RESERVED_FLAG_METADATA)
        {
            return Err(Error::Conflict(format!(
                "Entry {} holds a definition that an earlier version accepted: {} {}",
                entry.id, found.pointer, found.message
            )));
        }
    }
    if let Some(before) = &before {
        expected.check(before.revision)?;
        let changes = [(key, &before.flag, &target.flag)];
        reject_ineffective_schedules(transaction, &changes).await?;
        reject_removal_of_used_variants(transaction, &changes).await?;
        supersede_ramps(transaction, &changes, Action::RevertFlag).await?;
    } else {
        // A caller who names a revision has seen the flag, and has not seen its deletion.
        expected.check_without_revision()?;
    }
    if !target.archived {
        check_limits_with_flag(
            transaction,
            environment,
            (key, before.as_ref(), &target.flag),
        )
        .await?;
    }
    if before.is_none() {
        require_acknowledged(transaction, &[key]).await?;
        transaction.insert_flag(key, &target.flag).await?;
    }
    let after = transaction
        .write_flag(key, &target.flag, target.archived)
        .await?;
    if let Some(before) = &before {
        follow_unchanged_flag(transaction, key, before, &after).await?;
    }
    let mut state = state_of(&after);
    if before.is_none() && !target.overrides.is_empty() {
        state[OVERRIDES] =
            restore_overrides(transaction, key, &target.flag, &target.overrides).await?;
    }
    let was = before.as_ref().map(state_of);
    transaction
        .add_audit_entry(Some(key), Action::RevertFlag, was, Some(state))
        .await?;
    // Also if the flag leaves the archive: see `restore_flag`.
    let was_archived = before.is_some_and(|before| before.archived_at.is_some());
    if target.archived || was_archived {
        cancel_schedules(transaction, &[key], actor).await?;
    }
    Ok(after)
}

/// Restores the overrides of a deleted flag and returns their states. Unreadable overrides and those of unknown
/// variants are omitted, because they would give their users an error.
async fn restore_overrides(
    transaction: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    overrides: &[Value],
) -> Result<Value, Error> {
    let wanted: Vec<OverrideRecord> = overrides
        .iter()
        .filter_map(override_in)
        .filter(|wanted| accepts_override(flag, &wanted.kind))
        .collect();
    let restored = transaction.put_overrides(key, &wanted).await?;
    Ok(restored.iter().map(override_state).collect())
}

async fn revert_override(
    transaction: &mut Transaction,
    key: &FlagKey,
    entry: &AuditEntry,
    side: Side,
    expected: &Expected,
) -> Result<FlagRecord, Error> {
    let record = require_in_use(transaction.flag(key).await?, key)?;
    expected.check(record.revision)?;
    let about = entry.after.as_ref().or(entry.before.as_ref());
    let user = about.and_then(|state| state["userId"].as_str());
    let Some(user) = user else {
        return Err(Error::Internal(
            "an audit entry of an override has no user".to_owned(),
        ));
    };
    let Some(state) = side.of(entry) else {
        delete_override(transaction, key, &record.flag, user).await?;
        return Ok(record);
    };
    let Some(wanted) = override_in(state) else {
        return Err(Error::Internal(
            "an audit entry of an override has no override".to_owned(),
        ));
    };
    check_revert_to(&wanted, &record.flag)?;
    write_override(transaction, key, &record.flag, &wanted).await?;
    Ok(record)
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Before => Self::After,
            Self::After => Self::Before,
        }
    }

    fn of(self, entry: &AuditEntry) -> Option<&Value> {
        match self {
            Self::Before => entry.before.as_ref(),
            Self::After => entry.after.as_ref(),
        }
    }
}

async fn audit_change(
    transaction: &mut Transaction,
    key: &FlagKey,
    action: Action,
    before: &FlagRecord,
    after: &FlagRecord,
) -> Result<(), Error> {
    let (before, after) = (state_of(before), state_of(after));
    transaction
        .add_audit_entry(Some(key), action, Some(before), Some(after))
        .await
}

/// Finds a flag and requires a state and a revision. `otherwise` completes the error for the other state.
async fn find_in_state(
    transaction: &mut Transaction,
    key: &FlagKey,
    wanted: State,
    expected: &Expected,
    otherwise: &str,
) -> Result<FlagRecord, Error> {
    let found = transaction.flag(key).await?;
    let record = found.ok_or_else(|| Error::FlagNotFound(key.to_string()))?;
    let is_archived = record.archived_at.is_some();
    if is_archived != (wanted == State::Archived) {
        return Err(Error::Conflict(format!("Flag '{key}' {otherwise}")));
    }
    expected.check(record.revision)?;
    Ok(record)
}

/// Validates a stored definition, which may refer to a removed evaluator.
async fn validate_stored(
    transaction: &mut Transaction,
    definition: &Definition,
) -> Result<(), Error> {
    // An unreadable definition is restored unchanged, so that an editor can repair it.
    if definition.unreadable.is_some() {
        return Ok(());
    }
    let settings = transaction.settings().await?.settings;
    Definition::validate(&to_json(definition)?, &settings)
        .map(|_valid| ())
        .map_err(definition_errors)
}
