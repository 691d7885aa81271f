//! Creating environments, changing their settings, and purging their cache entries.

use pennon_eval::{FractionalVersion, Settings};
use serde_json::json;

use super::FlagService;
use super::change::{Changed, Expected, to_json};
use super::validate::{
    broken_by, check_limits_of_environment, in_use, require_environment_in, unknown_environment,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::limits::check_metadata;
use crate::request_context::RequestContext;
use crate::store::{Action, FlagRecords, SettingsRecord};

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
        if transaction.environment_revision().await?.is_some() {
            return Err(Error::Conflict(format!(
                "Environment '{environment}' already exists"
            )));
        }
        let settings = Settings {
            fractional,
            ..Settings::default()
        };
        let after = transaction.write_settings(&settings).await?;
        let state = to_json(&after.settings)?;
        transaction
            .add_audit_entry(None, Action::CreateEnvironment, None, Some(state))
            .await?;
        let listing = Environment::listing();
        let invalidated = self
            .commit_in(transaction, &[environment, &listing], context)
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
        check_settings(settings)?;
        let mut transaction = self.begin(environment, &actor.id).await?;
        require_environment_in(&mut transaction, environment).await?;
        let flags = transaction.flags().await?;
        let before = transaction.settings().await?;
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

/// Rejects settings that are invalid in any environment.
fn check_settings(settings: &Settings) -> Result<(), Error> {
    let body = json!({"evaluators": settings.evaluators, "metadata": settings.metadata});
    let mut problems = Settings::validate(&body).err().unwrap_or_default();
    problems.extend(check_metadata(&settings.metadata));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::from_violations(problems))
    }
}

/// Rejects settings that break a flag in use or an evaluator: a definition may lose an evaluator that it refers
/// to, or a rule may choose a variant that does not exist. Flags that are already broken are ignored.
fn reject_breaking_settings(
    flags: &FlagRecords,
    before: &Settings,
    after: &Settings,
) -> Result<(), Error> {
    let mut errors = FieldErrors::default();
    let known = before.lint();
    for found in after.lint() {
        if !known.contains(&found) {
            errors.add(&format!("/evaluators{}", found.pointer), found.message);
        }
    }
    let broken = broken_by(in_use(flags), before, after)?;
    for (key, found) in broken.errors.into_iter().chain(broken.warnings) {
        errors.add(&format!("flags/{key}{}", found.pointer), found.message);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(errors))
    }
}
