//! The life of a flag: created, archived, restored, put back to an earlier state, deleted for good.

use pennon_eval::{Definition, Flag, FlagKey};
use serde_json::{Value, json};

use super::change::{Changed, Expected, OVERRIDES, from_audit, prefer_validation_error, state_of};
use super::overrides::{
    must_have, must_not_be_too_many, override_in, override_state, put_back_at_once,
};
use super::ramps::must_not_be_rolled_back;
use super::schedules::call_all_off;
use super::update::{Change, definition_in, in_definition, live, must_have_an_effect};
use super::validate::{
    must_fit, must_leave_no_plan_without_effect, must_stay_where_named, require_environment_in,
};
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{Action, AuditEntry, FlagRecord, OverrideRecord, Transaction};

/// Which side of an audit entry a flag is put back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// As it was before that change.
    Before,
    /// As it was after that change.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InUse,
    Archived,
}

impl FlagService {
    /// Creates a flag in an environment that there is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a definition that is none; [`Error::NotFound`] without such an
    /// environment; [`Error::Conflict`] when there is a flag under this key, archived or not.
    pub async fn create_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        wanted: &Change,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<FlagRecord>, Error> {
        let begun = self.begin(environment, &admin.id).await;
        let mut open =
            begun.map_err(|error| prefer_validation_error(error, || wanted.check_alone()))?;
        let found = open.flag(key).await?;
        let definition = definition_in(&mut open, wanted, None).await?;
        let mut flag = Flag::default();
        wanted.apply(&mut flag, definition);
        must_have_an_effect(wanted, &flag)?;
        if found.is_none() {
            must_fit(&mut open, environment, (key, None, &flag)).await?;
        }
        require_environment_in(&mut open, environment).await?;
        if let Some(there) = found {
            let state = if there.archived_at.is_some() {
                "archived; restore it, or delete it for good first"
            } else {
                "in use"
            };
            return Err(Error::Conflict(format!("There is a flag '{key}', {state}")));
        }
        let after = open.insert_flag(key, &flag).await?;
        open.note(Some(key), Action::CreateFlag, None, Some(state_of(&after)))
            .await?;
        self.finish(open, environment, after, scope).await
    }

    /// Takes a flag out of use. It is switched off as well: an existing service, which may still
    /// run, knows no other way to keep it from its users. What is planned for it is called off, so that
    /// nothing switches it on when it comes back.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] when it is archived already; [`Error::PreconditionFailed`].
    pub async fn archive_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<FlagRecord>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let otherwise = "is archived already; ?permanently=true deletes it for good";
        let before = must_be(&mut open, key, State::InUse, expected, otherwise).await?;
        let mut flag = before.flag.clone();
        flag.enabled = false;
        let after = open.write_flag(key, &flag, true).await?;
        note_change(&mut open, key, Action::ArchiveFlag, &before, &after).await?;
        call_all_off(&mut open, &[key], admin).await?;
        self.finish(open, environment, after, scope).await
    }

    /// Takes an archived flag back into use, switched off.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] when it is not archived; [`Error::PreconditionFailed`];
    /// [`Error::Invalid`] when its definition names what is no longer there.
    pub async fn restore_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<FlagRecord>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let otherwise = "is not archived";
        let before = must_be(&mut open, key, State::Archived, expected, otherwise).await?;
        if let Some(definition) = &before.flag.definition {
            must_still_be_valid(&mut open, definition).await?;
        }
        must_fit(&mut open, environment, (key, Some(&before), &before.flag)).await?;
        let after = open.write_flag(key, &before.flag, false).await?;
        note_change(&mut open, key, Action::RestoreFlag, &before, &after).await?;
        // Planned before archiving called plans off.
        call_all_off(&mut open, &[key], admin).await?;
        self.finish(open, environment, after, scope).await
    }

    /// Deletes an archived flag, its overrides and its schedules. The audit keeps what they were.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Conflict`] when it is not archived; [`Error::PreconditionFailed`].
    pub async fn delete_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<()>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let otherwise = "is in use; archive it before it is deleted for good";
        let before = must_be(&mut open, key, State::Archived, expected, otherwise).await?;
        let mut state = state_of(&before);
        let overrides = open.overrides(key).await?;
        if !overrides.is_empty() {
            let overrides: Vec<Value> = overrides.iter().map(override_state).collect();
            state[OVERRIDES] = json!(overrides);
        }
        open.delete_flag(key).await?;
        open.note(Some(key), Action::DeleteFlag, Some(state), None)
            .await?;
        self.finish(open, environment, (), scope).await
    }

    /// Puts a flag, or the overrides that the entry is about, back to what it was then. A flag that
    /// was deleted for good comes into being again: from the entry of its deletion with its overrides,
    /// from another one without. The overrides of a flag that is there stay as they are.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an entry; [`Error::Conflict`] when there was no flag at that
    /// time, or when an override names a variant that it did not have; [`Error::PreconditionFailed`];
    /// [`Error::Invalid`] when its definition names what is no longer there; [`Error::RateLimited`] for an
    /// override.
    pub async fn revert_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
        to: (i64, Side),
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<FlagRecord>, Error> {
        let (id, side) = to;
        let entry = self.store.find_audit(environment, key, id).await?;
        let Some(entry) = entry else {
            return Err(Error::NotFound(format!("Audit entry {id} of '{key}'")));
        };
        if let Some(why) = &entry.unreadable {
            return Err(Error::Conflict(format!("Entry {id} is unreadable: {why}")));
        }
        let mut open = self.begin(environment, &admin.id).await?;
        let after = if entry.action.starts_with("override.") {
            revert_override(&mut open, key, &entry, side, expected).await?
        } else if entry.action.starts_with("overrides.") {
            let record = live(open.flag(key).await?, key)?;
            expected.check(record.revision)?;
            let sides = (side.of(&entry), side.other().of(&entry));
            put_back_at_once(&mut open, key, &record.flag, sides).await?;
            record
        } else if entry.action.starts_with("flag.") {
            revert_whole(&mut open, environment, key, &entry, side, expected, admin).await?
        } else {
            let what = &entry.action;
            return Err(Error::Conflict(format!(
                "Entry {id} tells of {what} and holds no state of '{key}'"
            )));
        };
        self.finish(open, environment, after, scope).await
    }

    /// Commits, and answers with that.
    pub(super) async fn finish<T>(
        &self,
        open: Transaction,
        environment: &Environment,
        value: T,
        scope: &Scope,
    ) -> Result<Changed<T>, Error> {
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed { value, invalidated })
    }
}

async fn revert_whole(
    open: &mut Transaction,
    environment: &Environment,
    key: &FlagKey,
    entry: &AuditEntry,
    side: Side,
    expected: &Expected,
    admin: &Admin,
) -> Result<FlagRecord, Error> {
    let Some(kept) = side.of(entry).and_then(from_audit) else {
        let id = entry.id;
        return Err(Error::Conflict(format!(
            "Entry {id} holds no state of '{key}' on that side"
        )));
    };
    let before = open.flag(key).await?;
    if let Some(definition) = &kept.flag.definition {
        must_still_be_valid(open, definition).await?;
    }
    if let Some(before) = &before {
        expected.check(before.revision)?;
        let step = [(key, &before.flag, &kept.flag)];
        must_leave_no_plan_without_effect(open, &step).await?;
        must_stay_where_named(open, &step).await?;
        must_not_be_rolled_back(open, &step).await?;
    }
    if !kept.archived {
        must_fit(open, environment, (key, before.as_ref(), &kept.flag)).await?;
    }
    if before.is_none() {
        open.insert_flag(key, &kept.flag).await?;
    }
    let after = open.write_flag(key, &kept.flag, kept.archived).await?;
    let mut state = state_of(&after);
    if before.is_none() && !kept.overrides.is_empty() {
        state[OVERRIDES] = put_back(open, key, &kept.flag, &kept.overrides).await?;
    }
    let was = before.as_ref().map(state_of);
    open.note(Some(key), Action::RevertFlag, was, Some(state))
        .await?;
    if kept.archived {
        call_all_off(open, &[key], admin).await?;
    }
    Ok(after)
}

/// Gives a flag that comes back the overrides that went with it, and answers with them. One of a variant
/// that the flag did not have was of no use to its user, and stays away.
async fn put_back(
    open: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    overrides: &[Value],
) -> Result<Value, Error> {
    let wanted: Vec<OverrideRecord> = overrides
        .iter()
        .filter_map(override_in)
        .filter(|wanted| must_have(flag, &wanted.kind).is_ok())
        .collect();
    let back = open.put_overrides(key, &wanted).await?;
    Ok(back.iter().map(override_state).collect())
}

async fn revert_override(
    open: &mut Transaction,
    key: &FlagKey,
    entry: &AuditEntry,
    side: Side,
    expected: &Expected,
) -> Result<FlagRecord, Error> {
    let record = live(open.flag(key).await?, key)?;
    expected.check(record.revision)?;
    let about = entry.after.as_ref().or(entry.before.as_ref());
    let user = about.and_then(|state| state["userId"].as_str());
    let Some(user) = user else {
        return Err(Error::Internal(
            "an override's entry without a user".to_owned(),
        ));
    };
    let before = open.find_override(key, user).await?;
    let before_state = before.as_ref().map(override_state);
    let Some(state) = side.of(entry) else {
        if before.is_some() {
            open.delete_overrides(key, &[user]).await?;
            open.note(Some(key), Action::DeleteOverride, before_state, None)
                .await?;
        }
        return Ok(record);
    };
    let Some(wanted) = override_in(state) else {
        return Err(Error::Internal(
            "an override's entry without its override".to_owned(),
        ));
    };
    must_have(&record.flag, &wanted.kind)?;
    must_not_be_too_many(open, key).await?;
    let after = open.put_override(key, &wanted).await?;
    open.note(
        Some(key),
        Action::SetOverride,
        before_state,
        Some(override_state(&after)),
    )
    .await?;
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

async fn note_change(
    open: &mut Transaction,
    key: &FlagKey,
    action: Action,
    before: &FlagRecord,
    after: &FlagRecord,
) -> Result<(), Error> {
    let (before, after) = (state_of(before), state_of(after));
    open.note(Some(key), action, Some(before), Some(after))
        .await
}

/// A flag that is in the wanted state, at the expected revision; a conflict says what it is otherwise.
async fn must_be(
    open: &mut Transaction,
    key: &FlagKey,
    wanted: State,
    expected: &Expected,
    otherwise: &str,
) -> Result<FlagRecord, Error> {
    let found = open.flag(key).await?;
    let record = found.ok_or_else(|| Error::FlagNotFound(key.to_string()))?;
    let is_archived = record.archived_at.is_some();
    if is_archived != (wanted == State::Archived) {
        return Err(Error::Conflict(format!("Flag '{key}' {otherwise}")));
    }
    expected.check(record.revision)?;
    Ok(record)
}

/// A definition from the past may name an evaluator that is gone.
async fn must_still_be_valid(open: &mut Transaction, definition: &Definition) -> Result<(), Error> {
    // What could not be read before comes back as it was, to be repaired.
    if definition.unreadable.is_some() {
        return Ok(());
    }
    let settings = open.settings().await?.settings;
    let text =
        serde_json::to_value(definition).map_err(|error| Error::Internal(error.to_string()))?;
    Definition::validate(&text, &settings)
        .map(|_valid| ())
        .map_err(in_definition)
}
