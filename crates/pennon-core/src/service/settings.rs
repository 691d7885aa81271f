//! Environments: created, set, and made to be read anew by everyone.

use pennon_eval::{Definition, Flag, FlagKey, FractionalVersion, Settings};
use serde_json::Value;

use super::change::{Changed, Expected};
use super::flags::must_exist;
use super::import::must_make_sense;
use super::limits::must_fit_together;
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Complaints, Error};
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
        let state = json_of(&after.settings)?;
        open.note(None, Action::CreateEnvironment, None, Some(state))
            .await?;
        self.finish(open, environment, after, scope).await
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
    /// [`Error::NotFound`] without such an environment; [`Error::Changed`]; [`Error::Invalid`] with
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
        must_suit_flags(&flags, settings)?;
        let before = open.settings().await?;
        expected.check(before.revision)?;
        let settings = Settings {
            // Of the file that it was imported from; nobody sees it here.
            other: before.settings.other.clone(),
            ..settings.clone()
        };
        must_fit_together(
            "metadata",
            environment,
            (in_use(&flags), &before.settings),
            (in_use(&flags), &settings),
        )?;
        let after = open.write_settings(&settings).await?;
        open.note(
            None,
            Action::ChangeSettings,
            Some(json_of(&before.settings)?),
            Some(json_of(&after.settings)?),
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

/// Every definition must still be one with these settings: an evaluator that a flag names cannot go.
pub(super) fn must_suit_flags(flags: &FlagRecords, settings: &Settings) -> Result<(), Error> {
    let mut complaints = Complaints::default();
    for (key, flag) in in_use(flags) {
        let Some(definition) = &flag.definition else {
            continue;
        };
        if let Err(problems) = Definition::validate(&json_of(definition)?, settings) {
            for found in problems {
                let place = format!("flags/{key}{}", found.at);
                complaints.add(&place, found.problem);
            }
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// Flags that are not archived. Those that are, are checked when they come back.
pub(super) fn in_use(flags: &FlagRecords) -> impl Iterator<Item = (&FlagKey, &Flag)> + Clone {
    let in_use = flags
        .iter()
        .filter(|(_, record)| record.archived_at.is_none());
    in_use.map(|(key, record)| (key, &record.flag))
}

pub(super) fn json_of(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Internal(error.to_string()))
}
