//! Environments: created, set, and made to be read anew by everyone.

use pennon_eval::{FractionalVersion, Settings};
use serde_json::json;

use super::change::{Changed, Expected, to_json};
use super::validate::{broken_by, in_use, must_exist, must_fit_together};
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::limits::check_metadata;
use crate::store::{Action, FlagRecords, SettingsRecord};

impl FlagService {
    /// Creates an environment.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one of this name.
    pub async fn create_environment(
        &self,
        environment: &Environment,
        fractional: FractionalVersion,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<SettingsRecord>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        if open.environment_revision().await?.is_some() {
            return Err(Error::Conflict(format!(
                "There is an environment '{environment}' already"
            )));
        }
        let settings = Settings {
            fractional,
            ..Settings::default()
        };
        let after = open.write_settings(&settings).await?;
        let state = to_json(&after.settings)?;
        open.note(None, Action::CreateEnvironment, None, Some(state))
            .await?;
        let listing = Environment::listing();
        let invalidated = self
            .commit_in(open, &[environment, &listing], scope)
            .await?;
        Ok(Changed {
            value: after,
            invalidated,
        })
    }

    /// The settings of an environment that there is.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an environment.
    pub async fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        self.must_be_known(environment).await?;
        self.store.settings(environment).await
    }

    /// Replaces the settings of an environment, unless a flag in use needs what they no longer hold.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an environment; [`Error::PreconditionFailed`]; [`Error::Invalid`] with
    /// the places in flags that would break.
    pub async fn change_settings(
        &self,
        environment: &Environment,
        settings: &Settings,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<SettingsRecord>, Error> {
        must_make_sense(settings)?;
        let mut open = self.begin(environment, &admin.id).await?;
        must_exist(&mut open, environment).await?;
        let flags = open.flags().await?;
        let before = open.settings().await?;
        must_break_nothing(&flags, &before.settings, settings)?;
        expected.check(before.revision)?;
        let settings = Settings {
            // Of the file that it was imported from; nobody sees it here.
            other: before.settings.other.clone(),
            ..settings.clone()
        };
        must_fit_together(
            ("metadata", "evaluators"),
            environment,
            (in_use(&flags), &before.settings),
            (in_use(&flags), &settings),
        )?;
        let after = open.write_settings(&settings).await?;
        open.note(
            None,
            Action::ChangeSettings,
            Some(to_json(&before.settings)?),
            Some(to_json(&after.settings)?),
        )
        .await?;
        self.finish(open, environment, after, scope).await
    }

    /// Makes everyone read an environment anew: its revision rises, and Redis is told, as if something
    /// had changed.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an environment.
    pub async fn purge(
        &self,
        environment: &Environment,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<()>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        must_exist(&mut open, environment).await?;
        open.raise_revision().await?;
        open.note(None, Action::Purge, None, None).await?;
        self.finish(open, environment, (), scope).await
    }

    /// Refuses an environment that there is not.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn must_be_known(&self, environment: &Environment) -> Result<(), Error> {
        let known = self.store.environments().await?;
        let is_known = known.iter().any(|(name, _)| name == environment);
        if is_known || *environment == Environment::production() {
            Ok(())
        } else {
            Err(Error::NotFound(format!("Environment '{environment}'")))
        }
    }
}

/// Refuses settings that cannot be those of any environment.
fn must_make_sense(settings: &Settings) -> Result<(), Error> {
    let body = json!({"evaluators": settings.evaluators, "metadata": settings.metadata});
    let mut problems = Settings::validate(&body).err().unwrap_or_default();
    problems.extend(check_metadata(&settings.metadata));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::from_violations(problems))
    }
}

/// Refuses settings that break a flag in use, or an evaluator that worked: every definition must still
/// be one, since an evaluator that a flag names cannot go, and no rule may choose a variant that does
/// not exist. What is broken already is not the fault of the change.
fn must_break_nothing(
    flags: &FlagRecords,
    before: &Settings,
    after: &Settings,
) -> Result<(), Error> {
    let mut complaints = FieldErrors::default();
    let known = before.lint();
    for found in after.lint() {
        if !known.contains(&found) {
            complaints.add(&format!("/evaluators{}", found.at), found.problem);
        }
    }
    let broken = broken_by(in_use(flags), before, after)?;
    for (key, found) in broken.errors.into_iter().chain(broken.warnings) {
        complaints.add(&format!("flags/{key}{}", found.at), found.problem);
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}
