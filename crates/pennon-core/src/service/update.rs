//! Updates of existing flags.

use std::collections::BTreeMap;
use std::sync::Arc;

use pennon_eval::{Bucketing, Definition, Flag, FlagKey, Rollout, Ruleset, UserId, Violation};
use serde_json::Value;

use super::FlagService;
use super::change::{Changed, Expected, prefer_validation_error, settings_for, state_of};
use super::ramps::{follow_unchanged_flag, supersede_ramps};
use super::settings::{MovedUsers, moved_users};
use super::validate::{
    check_limits_with_flag, reject_ineffective_schedules, reject_removal_of_used_variants,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::limits::{NO_EFFECT, check_definition};
use crate::request_context::RequestContext;
use crate::store::{Action, FlagRecord, Transaction};

/// The fields that an update changes. `None` keeps the current value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Whether the flag is on.
    pub enabled: Option<bool>,
    /// The rollout percentage.
    pub rollout_percentage: Option<Rollout>,
    /// The description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// The salt of the hash of user ids; `Some(None)` removes it.
    pub salt: Option<Option<String>>,
    /// The hash that orders the users; `Some(None)` selects that of the environment.
    pub bucketing: Option<Option<Bucketing>>,
    /// Unvalidated variants and targeting; `Some(None)` turns the flag into a simple flag.
    pub definition: Option<Option<Value>>,
}

impl Change {
    /// Whether a request with this change must send `If-Match`: only if it changes fields that the existing service
    /// (docs/migration.md) lacks. Clients of that service send neither these fields nor `If-Match`.
    #[must_use]
    pub fn needs_if_match(&self) -> bool {
        self.salt.is_some() || self.bucketing.is_some() || self.definition.is_some()
    }

    /// Validates the change without the flag and its environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a definition that is invalid in every environment.
    pub(super) fn check_alone(&self) -> Result<(), Error> {
        match &self.definition {
            None | Some(None) => Ok(()),
            Some(Some(text)) => Definition::validate(text, &settings_for(text))
                .map(|_valid| ())
                .map_err(definition_errors),
        }
    }

    /// Applies the change, with its validated definition.
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
        if let Some(bucketing) = self.bucketing {
            flag.bucketing = bucketing;
        }
        if self.definition.is_some() {
            flag.definition = definition;
        }
    }
}

impl FlagService {
    /// Changes a flag and invalidates the cache.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid or too large definition, or a field without effect; [`Error::FlagNotFound`];
    /// [`Error::PreconditionFailed`]; [`Error::Conflict`] if an override names a removed variant, a schedule would lose
    /// its effect, or a rollback of the flag is not acknowledged and the change does more than switch the flag off;
    /// [`Error::Unavailable`] if the store does not answer.
    pub async fn update(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<FlagRecord>, Error> {
        let started = self.begin(environment, &actor.id).await;
        let mut transaction =
            started.map_err(|error| prefer_validation_error(error, || change.check_alone()))?;
        let (before, flag) =
            check_update(&mut transaction, environment, key, change, expected).await?;
        // Written even if nothing differs: clients of the existing service expect a new time of the last update.
        let after = transaction.write_flag(key, &flag, false).await?;
        follow_unchanged_flag(&mut transaction, key, &before, &after).await?;
        let (from, to) = (state_of(&before), state_of(&after));
        transaction
            .add_audit_entry(Some(key), Action::UpdateFlag, Some(from), Some(to))
            .await?;
        self.finish(transaction, environment, after, context).await
    }

    /// Counts the users for whom a change of a simple flag changes its value. Nothing is changed.
    ///
    /// # Errors
    /// As for [`Self::update`]; [`Error::Invalid`] if the flag has a definition, whose rule may need more of a user
    /// than their id.
    pub async fn compare_update(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
        expected: &Expected,
        actor: &Actor,
        users: &[UserId],
    ) -> Result<MovedUsers, Error> {
        let checked = self.rolled_back(environment, actor, async |transaction| {
            check_update(transaction, environment, key, change, expected).await
        });
        let (before, after) = checked
            .await
            .map_err(|error| prefer_validation_error(error, || change.check_alone()))?;
        let before = before.flag;
        if before.definition.is_some() || after.definition.is_some() {
            let error = "Counts users of simple flags only; this flag has a definition";
            return Err(Error::invalid_field("dryRun", error));
        }
        let snapshot = self.complete_snapshot(environment).await?;
        // Another request may have deleted the flag meanwhile.
        let found = snapshot.flags.get(key);
        let found = found.ok_or_else(|| Error::FlagNotFound(key.to_string()))?;
        let compile = |flag: Flag| {
            let overrides = found.overrides.clone();
            let flag = Arc::new(Flag { overrides, ..flag });
            let flags = BTreeMap::from([(key.clone(), flag)]);
            Ruleset::compile(&flags, &snapshot.settings, snapshot.defaults)
        };
        let (before, after) = (compile(before), compile(after));
        let mut moved = moved_users([key.clone()], &before, &after, users);
        moved
            .pop()
            .ok_or_else(|| Error::Internal("the compared flag is missing".to_owned()))
    }
}

/// Checks a change of a flag, and ends the ramps that it supersedes. Returns the present flag and the new one.
async fn check_update(
    transaction: &mut Transaction,
    environment: &Environment,
    key: &FlagKey,
    change: &Change,
    expected: &Expected,
) -> Result<(FlagRecord, Flag), Error> {
    // Locks the flag before the settings, the same order as all changes. Errors of the request take precedence over a
    // missing flag.
    let found = transaction.flag(key).await?;
    let known = found.as_ref().map(|record| &record.flag);
    let definition = checked_definition(transaction, change, known).await?;
    let before = require_in_use(found, key)?;
    expected.check(before.revision)?;
    let mut flag = before.flag.clone();
    change.apply(&mut flag, definition);
    reject_ineffective_fields(change, &flag)?;
    let changes = [(key, &before.flag, &flag)];
    reject_ineffective_schedules(transaction, &changes).await?;
    reject_removal_of_used_variants(transaction, &changes).await?;
    supersede_ramps(transaction, &changes, Action::UpdateFlag).await?;
    check_limits_with_flag(transaction, environment, (key, Some(&before), &flag)).await?;
    Ok((before, flag))
}

/// Rejects a flag that does not exist or is archived.
pub(super) fn require_in_use(
    found: Option<FlagRecord>,
    key: &FlagKey,
) -> Result<FlagRecord, Error> {
    found
        .filter(|record| record.archived_at.is_none())
        .ok_or_else(|| Error::FlagNotFound(key.to_string()))
}

/// The definition of a change, validated against the settings of its environment and the limits. Values that the
/// flag already has may exceed the limits.
pub(super) async fn checked_definition(
    transaction: &mut Transaction,
    change: &Change,
    before: Option<&Flag>,
) -> Result<Option<Definition>, Error> {
    let Some(Some(text)) = &change.definition else {
        return Ok(None);
    };
    let settings = transaction.settings().await?.settings;
    let definition = Definition::validate(text, &settings).map_err(definition_errors)?;
    let known = before.and_then(|flag| flag.definition.as_ref());
    let mut problems = check_definition(&definition, known);
    problems.extend(definition.lint(&settings));
    if problems.is_empty() {
        Ok(Some(definition))
    } else {
        Err(definition_errors(problems))
    }
}

/// Violations of a definition as errors of the field `definition`.
pub(super) fn definition_errors(problems: Vec<Violation>) -> Error {
    let mut errors = FieldErrors::default();
    for found in problems {
        errors.add(&format!("definition{}", found.pointer), found.message);
    }
    Error::Invalid(errors)
}

/// Rejects a rollout percentage, a salt or a bucketing for a typed flag, on which they have no effect.
///
/// # Errors
/// [`Error::Invalid`] with the fields.
pub(super) fn reject_ineffective_fields(change: &Change, after: &Flag) -> Result<(), Error> {
    let mut errors = FieldErrors::default();
    if after.definition.is_some() {
        if change.rollout_percentage.is_some() {
            errors.add("rolloutPercentage", NO_EFFECT);
        }
        if matches!(change.salt, Some(Some(_))) {
            errors.add("salt", NO_EFFECT);
        }
        if matches!(change.bucketing, Some(Some(_))) {
            errors.add("bucketing", NO_EFFECT);
        }
    }
    errors.into_result()
}
