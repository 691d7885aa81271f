//! Creating environments, changing their settings, and purging their cache entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use pennon_eval::flagd::RESERVED_SETTINGS_METADATA;
use pennon_eval::{
    Context, Flag, FlagKey, FractionalVersion, Ruleset, Settings, UserId, Violation, Violations,
    pointer_step,
};
use serde_json::json;

use super::FlagService;
use super::change::{Changed, Expected, to_json};
use super::validate::{
    broken_by, check_limits_of_environment, in_use, require_environment_in, require_known,
    unknown_environment,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::check_metadata;
use crate::request_context::RequestContext;
use crate::snapshot::Snapshot;
use crate::store::{
    Action, EnvironmentState, FlagRecords, SettingsRecord, SnapshotUpdate, Transaction, Waiting,
};

/// Limit on the evaluations of a dry run, users times flags: a second of one processor.
const MAX_EVALUATIONS: usize = 5_000_000;

/// The users for whom a change changes the value of a simple flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedUsers {
    /// The flag.
    pub key: FlagKey,
    /// The number of users for whom it would be turned on.
    pub on: usize,
    /// The number of users for whom it would be turned off.
    pub off: usize,
}

impl FlagService {
    /// Creates an environment.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the name is taken.
    pub async fn create_environment(
        &self,
        environment: &Environment,
        fractional: FractionalVersion,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<SettingsRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let settings = Settings {
            fractional,
            ..Settings::default()
        };
        let Some(after) = transaction.insert_environment(&settings).await? else {
            return Err(Error::Conflict(format!(
                "Environment '{environment}' already exists"
            )));
        };
        let state = to_json(&after.settings)?;
        transaction
            .add_audit_entry(None, Action::CreateEnvironment, None, Some(state))
            .await?;
        let listing = Environment::listing();
        let invalidated = self
            .commit_entries(transaction, &[environment, &listing], context)
            .await?;
        Ok(Changed {
            value: after,
            invalidated,
        })
    }

    /// The settings of an environment.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an environment that does not exist.
    pub async fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        self.require_environment(environment).await?;
        self.store.settings(environment).await
    }

    /// Replaces the settings of an environment, unless that breaks a flag in use.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an environment that does not exist; [`Error::PreconditionFailed`]; [`Error::Invalid`]
    /// with the parts of flags that would break.
    pub async fn change_settings(
        &self,
        environment: &Environment,
        settings: &Settings,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<SettingsRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let (before, settings) =
            check_change(&mut transaction, environment, settings, expected).await?;
        let after = transaction.write_settings(&settings).await?;
        transaction
            .add_audit_entry(
                None,
                Action::ChangeSettings,
                Some(to_json(&before.settings)?),
                Some(to_json(&after.settings)?),
            )
            .await?;
        self.finish(transaction, environment, after, context).await
    }

    /// The simple flags whose value a change of settings would change for some of these users. Nothing is changed.
    ///
    /// Flags with a definition are not compared: a rule may need more of a user than their id.
    ///
    /// # Errors
    /// As for [`Self::change_settings`]; [`Error::Invalid`] for too many users.
    pub async fn compare_settings(
        &self,
        environment: &Environment,
        settings: &Settings,
        expected: &Expected,
        actor: &Actor,
        users: &[UserId],
    ) -> Result<Vec<MovedUsers>, Error> {
        let (_, settings) = self
            .rolled_back(environment, actor, async |transaction| {
                check_change(transaction, environment, settings, expected).await
            })
            .await?;
        // Read with overrides, because settings do not move a user who has one.
        let snapshot = self.complete_snapshot(environment).await?;
        users_moved_by(&snapshot, &settings, users)
    }

    /// The flags of an environment with their overrides, from the store.
    pub(super) async fn complete_snapshot(
        &self,
        environment: &Environment,
    ) -> Result<Snapshot, Error> {
        let update = self
            .store
            .snapshot(environment, None, Waiting::UntilTimeout);
        match update.await? {
            SnapshotUpdate::Changed(snapshot) => Ok(snapshot),
            SnapshotUpdate::Unchanged => Err(Error::Internal(
                "the store answered \"unchanged\" to a read that named no revision".to_owned(),
            )),
        }
    }

    /// Raises the revision of an environment and invalidates its cache entry, so that all instances read it
    /// again.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an environment that does not exist.
    pub async fn purge(
        &self,
        environment: &Environment,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<()>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        require_environment_in(&mut transaction, environment).await?;
        transaction.raise_revision().await?;
        transaction
            .add_audit_entry(None, Action::Purge, None, None)
            .await?;
        self.finish(transaction, environment, (), context).await
    }

    /// Rejects an environment that does not exist. Production always exists.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn require_environment(&self, environment: &Environment) -> Result<(), Error> {
        let known = self.store.environments().await?;
        let is_known = known.iter().any(|(name, _)| name == environment);
        if is_known || *environment == Environment::production() {
            Ok(())
        } else {
            Err(unknown_environment(environment))
        }
    }
}

/// Checks new settings of an environment. Returns the present ones, and the new ones as they will be stored.
async fn check_change(
    transaction: &mut Transaction,
    environment: &Environment,
    settings: &Settings,
    expected: &Expected,
) -> Result<(SettingsRecord, Settings), Error> {
    check_settings(settings)?;
    let EnvironmentState {
        revision,
        flags,
        settings: before,
    } = transaction.lock_environment().await?;
    require_known(environment, revision)?;
    reject_breaking_settings(&flags, &before.settings, settings)?;
    expected.check(before.revision)?;
    let settings = Settings {
        // Fields of an imported file that the route for settings does not show.
        other: before.settings.other.clone(),
        ..settings.clone()
    };
    check_limits_of_environment(
        ("metadata", "evaluators"),
        environment,
        (in_use(&flags), &before.settings),
        (in_use(&flags), &settings),
    )?;
    Ok((before, settings))
}

/// Evaluates the simple flags for each user with the present and with other settings.
fn users_moved_by(
    snapshot: &Snapshot,
    settings: &Settings,
    users: &[UserId],
) -> Result<Vec<MovedUsers>, Error> {
    let simple = snapshot
        .flags
        .iter()
        .filter(|(_, flag)| flag.definition.is_none());
    let flags: BTreeMap<FlagKey, Arc<Flag>> = simple
        .map(|(key, flag)| (key.clone(), Arc::clone(flag)))
        .collect();
    let most = MAX_EVALUATIONS / flags.len().max(1);
    if users.len() > most {
        return Err(Error::invalid_field(
            "users",
            format!(
                "Must have at most {most} entries for the {} simple flags of this environment (got {})",
                flags.len(),
                users.len()
            ),
        ));
    }
    let compile = |settings: &Settings| Ruleset::compile(&flags, settings, snapshot.defaults);
    let (before, after) = (compile(&snapshot.settings), compile(settings));
    let mut moved = moved_users(flags.into_keys(), &before, &after, users);
    moved.retain(|moved| moved.on + moved.off > 0);
    Ok(moved)
}

/// Evaluates simple flags for each user before and after a change. `keys` are all flags of both rulesets, in order.
pub(super) fn moved_users(
    keys: impl IntoIterator<Item = FlagKey>,
    before: &Ruleset,
    after: &Ruleset,
    users: &[UserId],
) -> Vec<MovedUsers> {
    let mut moved: Vec<MovedUsers> = keys
        .into_iter()
        .map(|key| MovedUsers { key, on: 0, off: 0 })
        .collect();
    for user in users {
        let context = Context::of(Some(user));
        for (position, moved) in moved.iter_mut().enumerate() {
            let is_on = |rules: &Ruleset| rules.is_on_at(position, &context, 0) == Some(true);
            match (is_on(before), is_on(after)) {
                (false, true) => moved.on += 1,
                (true, false) => moved.off += 1,
                (true, true) | (false, false) => {}
            }
        }
    }
    moved
}

/// Rejects settings that are invalid in any environment.
fn check_settings(settings: &Settings) -> Result<(), Error> {
    let body = json!({"evaluators": settings.evaluators, "metadata": settings.metadata});
    let mut problems = Settings::validate(&body).err().unwrap_or_default();
    problems.extend(check_metadata(
        &settings.metadata,
        &RESERVED_SETTINGS_METADATA,
    ));
    problems.into_result(()).map_err(Error::from_violations)
}

/// Rejects settings that break a flag in use or an evaluator: a definition may lose an evaluator that it refers
/// to, or a rule may choose a variant that does not exist. Problems that exist already are ignored.
fn reject_breaking_settings(
    flags: &FlagRecords,
    before: &Settings,
    after: &Settings,
) -> Result<(), Error> {
    let mut problems = Violations::default();
    let new = after.lint().without(&before.lint());
    problems.at("/evaluators", |problems| problems.append(new));
    let broken = broken_by(in_use(flags), before, after, |key, found| Violation {
        pointer: format!("flags/{}{}", pointer_step(key.as_str()), found.pointer),
        ..found
    })?;
    problems.append(broken.errors);
    problems.append(broken.warnings);
    problems.into_result(()).map_err(Error::from_violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_with_too_many_users_for_the_flags_is_rejected() {
        let user = UserId::parse("alice").expect("an id");
        let users = vec![user; 10_000];
        for (flags, is_accepted) in [(1, true), (501, false)] {
            let flags = (0..flags).map(|number| {
                let key = FlagKey::parse(format!("flag-{number}")).expect("a key");
                (key, Arc::default())
            });
            let snapshot = Snapshot {
                flags: flags.collect(),
                ..Snapshot::empty()
            };
            let moved = users_moved_by(&snapshot, &Settings::default(), &users);
            match moved {
                Ok(moved) => assert!(is_accepted && moved.is_empty()),
                Err(error) => {
                    assert!(!is_accepted);
                    assert!(
                        format!("{error:?}").contains("at most 9980 entries"),
                        "{error:?}"
                    );
                }
            }
        }
    }
}
