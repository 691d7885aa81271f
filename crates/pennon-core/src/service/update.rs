//! Changing a flag that is there.

use pennon_eval::{Definition, Flag, FlagKey, Rollout, Violation};
use serde_json::Value;

use super::change::{Changed, Expected, prefer_validation_error, settings_for, state_of};
use super::ramps::must_not_be_rolled_back;
use super::validate::{must_fit, must_leave_no_plan_without_effect, must_stay_where_named};
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::limits::{NO_EFFECT, check_definition};
use crate::store::{Action, FlagRecord, Transaction};

/// What an admin wants to be different. `None` keeps what is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// On or off.
    pub enabled: Option<bool>,
    /// How many.
    pub rollout_percentage: Option<Rollout>,
    /// What for; `None` inside takes the description away.
    pub description: Option<Option<String>>,
    /// What goes into the hash before a user's id; `Some(None)` for nothing.
    pub salt: Option<Option<String>>,
    /// Variants and targeting, still to be checked; `Some(None)` makes a plain switch of the flag.
    pub definition: Option<Option<Value>>,
}

impl Change {
    /// Whether it touches what an existing service did not know. Its clients cannot name the
    /// state that they want to replace; everybody else must.
    #[must_use]
    pub fn is_typed(&self) -> bool {
        self.salt.is_some() || self.definition.is_some()
    }

    /// Checks what can be checked without the flag and its environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a definition that is none in any environment.
    pub(super) fn check_alone(&self) -> Result<(), Error> {
        match &self.definition {
            None | Some(None) => Ok(()),
            Some(Some(text)) => Definition::validate(text, &settings_for(text))
                .map(|_valid| ())
                .map_err(in_definition),
        }
    }

    /// Makes the change. The definition is the one of this change, checked.
    pub(super) fn apply(&self, flag: &mut Flag, definition: Option<Definition>) {
        if let Some(enabled) = self.enabled {
            flag.enabled = enabled;
        }
        if let Some(rollout) = self.rollout_percentage {
            flag.rollout_percentage = rollout;
        }
        if let Some(description) = &self.description {
            flag.description.clone_from(description);
        }
        if let Some(salt) = &self.salt {
            flag.salt.clone_from(salt);
        }
        if self.definition.is_some() {
            flag.definition = definition;
        }
    }
}

impl FlagService {
    /// Changes a flag, tells the cache, and says whether it could be told.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a definition that is none or too large, [`Error::FlagNotFound`], [`Error::PreconditionFailed`];
    /// [`Error::Conflict`] when an override names a variant that would be gone, or a schedule would have
    /// no effect any more; [`Error::Unavailable`] when the store does not answer.
    pub async fn update(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<FlagRecord>, Error> {
        let begun = self.begin(environment, &admin.id).await;
        let mut open =
            begun.map_err(|error| prefer_validation_error(error, || change.check_alone()))?;
        // First the flag and then the settings, as everyone locks them; but what is wrong with the
        // request is said before what is missing.
        let found = open.flag(key).await?;
        let known = found.as_ref().map(|record| &record.flag);
        let definition = definition_in(&mut open, change, known).await?;
        let before = live(found, key)?;
        expected.check(before.revision)?;
        let mut flag = before.flag.clone();
        change.apply(&mut flag, definition);
        must_have_an_effect(change, &flag)?;
        must_leave_no_plan_without_effect(&mut open, &[(key, &before.flag, &flag)]).await?;
        must_stay_where_named(&mut open, &[(key, &before.flag, &flag)]).await?;
        must_not_be_rolled_back(&mut open, &[(key, &before.flag, &flag)]).await?;
        must_fit(&mut open, environment, (key, Some(&before), &flag)).await?;
        let after = open.write_flag(key, &flag, false).await?;
        let (from, to) = (state_of(&before), state_of(&after));
        open.note(Some(key), Action::UpdateFlag, Some(from), Some(to))
            .await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: after,
            invalidated,
        })
    }
}

/// A flag that is in use.
pub(super) fn live(found: Option<FlagRecord>, key: &FlagKey) -> Result<FlagRecord, Error> {
    found
        .filter(|record| record.archived_at.is_none())
        .ok_or_else(|| Error::FlagNotFound(key.to_string()))
}

/// The definition of a change, checked against the settings of its environment and against the limits,
/// but for what the flag already has.
pub(super) async fn definition_in(
    open: &mut Transaction,
    change: &Change,
    before: Option<&Flag>,
) -> Result<Option<Definition>, Error> {
    let Some(Some(text)) = &change.definition else {
        return Ok(None);
    };
    let settings = open.settings().await?.settings;
    let definition = Definition::validate(text, &settings).map_err(in_definition)?;
    let known = before.and_then(|flag| flag.definition.as_ref());
    let mut problems = check_definition(&definition, known);
    problems.extend(definition.lint(&settings));
    if problems.is_empty() {
        Ok(Some(definition))
    } else {
        Err(in_definition(problems))
    }
}

/// Violations of a definition, as the complaints about the field that it is in.
pub(super) fn in_definition(problems: Vec<Violation>) -> Error {
    let mut complaints = FieldErrors::default();
    for found in problems {
        complaints.add(&format!("definition{}", found.at), found.problem);
    }
    Error::Invalid(complaints)
}

/// Refuses what a change asks of a flag and what would have no effect: a definition decides by its
/// targeting alone.
///
/// # Errors
/// [`Error::Invalid`] with the fields.
pub(super) fn must_have_an_effect(change: &Change, after: &Flag) -> Result<(), Error> {
    let mut complaints = FieldErrors::default();
    if after.definition.is_some() {
        if change.rollout_percentage.is_some() {
            complaints.add("rolloutPercentage", NO_EFFECT);
        }
        if matches!(change.salt, Some(Some(_))) {
            complaints.add("salt", NO_EFFECT);
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}
