//! A whole environment as a file for flagd, in and out.

use std::collections::BTreeMap;

use pennon_eval::{Flag, FlagKey, Settings, flagd};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Changed, Expected, state_of};
use super::flags::must_exist;
use super::settings::json_of;
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Complaints, Error};
use crate::snapshot::{Revision, Snapshot};
use crate::store::{Action, FlagRecords, Fresh, Transaction};

/// What an import makes different.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// Flags that were not there.
    pub created: Vec<FlagDifference>,
    /// Flags that were another way, or archived.
    pub changed: Vec<FlagDifference>,
    /// Flags in use that the file does not hold.
    pub archived: Vec<FlagDifference>,
    /// How many flags stay as they are.
    pub unchanged: usize,
    /// The settings, when they become others.
    pub settings: Option<SettingsDifference>,
}

/// One flag before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlagDifference {
    /// Which.
    pub key: FlagKey,
    /// What it is, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it becomes, unless it is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Settings before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingsDifference {
    /// What they are.
    pub before: Value,
    /// What they become.
    pub after: Value,
}

/// A file, understood.
struct File {
    flags: BTreeMap<FlagKey, Flag>,
    settings: Settings,
}

impl FlagService {
    /// All flags in use and the settings, as a file that imports unchanged, and the revision that it is
    /// the state of.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an environment.
    pub async fn export(&self, environment: &Environment) -> Result<(Value, Revision), Error> {
        self.must_be_known(environment).await?;
        let snapshot = match self.store.snapshot(environment, None).await? {
            Fresh::Changed(snapshot) => snapshot,
            Fresh::Unchanged => Snapshot::empty(),
        };
        let Snapshot {
            revision,
            mut flags,
            settings,
            ..
        } = snapshot;
        // Overrides are names of people. They stay where they are: a file is passed around.
        for flag in flags.values_mut() {
            flag.overrides.clear();
        }
        Ok((flagd::write(&flags, &settings), revision))
    }

    /// What an import would make different, and at which revision.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the places in the file; [`Error::NotFound`].
    pub async fn compare(
        &self,
        environment: &Environment,
        file: &Value,
        admin: &Admin,
    ) -> Result<(Difference, Revision), Error> {
        let file = understand(file)?;
        let mut open = self.begin(environment, &admin.id).await?;
        let compared = compare(&mut open, environment, &file).await?;
        Ok((compared.difference, compared.revision))
    }

    /// Makes an environment what a file says, all at once: flags that the file does not hold are
    /// archived, archived ones that it holds come back. Overrides stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the places in the file; [`Error::NotFound`]; [`Error::Changed`] when the
    /// environment is no longer at the revision of the comparison.
    pub async fn import(
        &self,
        environment: &Environment,
        file: &Value,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<Difference>, Error> {
        let file = understand(file)?;
        let mut open = self.begin(environment, &admin.id).await?;
        let Compared {
            there,
            difference,
            revision,
        } = compare(&mut open, environment, &file).await?;
        expected.check(revision.0)?;
        for (key, flag) in &file.flags {
            put(&mut open, &there, key, flag).await?;
        }
        for FlagDifference { key, .. } in &difference.archived {
            let Some(before) = there.get(key) else {
                continue;
            };
            let mut flag = before.flag.clone();
            flag.enabled = false;
            let after = open.write_flag(key, &flag, true).await?;
            let (before, after) = (state_of(before), state_of(&after));
            open.note(Some(key), Action::ImportFlag, Some(before), Some(after))
                .await?;
        }
        if let Some(SettingsDifference { before, after }) = &difference.settings {
            open.write_settings(&file.settings).await?;
            let (before, after) = (before.clone(), after.clone());
            open.note(None, Action::ChangeSettings, Some(before), Some(after))
                .await?;
        }
        self.finish(open, environment, difference, scope).await
    }
}

/// Takes JSON as a file for flagd.
fn understand(file: &Value) -> Result<File, Error> {
    let mut complaints = Complaints::default();
    match flagd::read(file) {
        Ok((flags, settings)) => {
            for (key, flag) in &flags {
                if !flag.overrides.is_empty() {
                    let place = format!("/flags/{key}/metadata/pennon.overrides");
                    complaints.add(
                        &place,
                        "An import sets no overrides; they have their own route",
                    );
                }
            }
            if complaints.is_empty() {
                return Ok(File { flags, settings });
            }
        }
        Err(problems) => {
            for found in problems {
                if found.at.is_empty() {
                    complaints.form.push(found.problem);
                } else {
                    complaints.add(&found.at, found.problem);
                }
            }
        }
    }
    Err(Error::Invalid(complaints))
}

/// Settings that are none in a file are none at all.
pub(super) fn must_make_sense(settings: &Settings) -> Result<(), Error> {
    let file = json!({
        "flags": {},
        "$evaluators": settings.evaluators,
        "metadata": settings.metadata,
    });
    understand(&file).map(|_understood| ())
}

/// An environment beside a file.
struct Compared {
    there: FlagRecords,
    difference: Difference,
    revision: Revision,
}

async fn compare(
    open: &mut Transaction,
    environment: &Environment,
    file: &File,
) -> Result<Compared, Error> {
    must_exist(open, environment).await?;
    let there = open.flags().await?;
    let difference = difference(open, &there, file).await?;
    let revision = open.environment_revision().await?;
    Ok(Compared {
        there,
        difference,
        revision: revision.unwrap_or(Revision::NONE),
    })
}

async fn difference(
    open: &mut Transaction,
    there: &FlagRecords,
    file: &File,
) -> Result<Difference, Error> {
    let mut difference = Difference::default();
    for (key, flag) in &file.flags {
        let before = there.get(key);
        let stays =
            before.is_some_and(|record| record.archived_at.is_none() && record.flag == *flag);
        if stays {
            difference.unchanged += 1;
            continue;
        }
        let list = if before.is_some() {
            &mut difference.changed
        } else {
            &mut difference.created
        };
        list.push(FlagDifference {
            key: key.clone(),
            before: before.map(state_of),
            after: Some(json_of(flag)?),
        });
    }
    for (key, record) in there {
        if record.archived_at.is_none() && !file.flags.contains_key(key) {
            difference.archived.push(FlagDifference {
                key: key.clone(),
                before: Some(state_of(record)),
                after: None,
            });
        }
    }
    let settings = open.settings().await?.settings;
    if settings != file.settings {
        difference.settings = Some(SettingsDifference {
            before: json_of(&settings)?,
            after: json_of(&file.settings)?,
        });
    }
    Ok(difference)
}

async fn put(
    open: &mut Transaction,
    there: &FlagRecords,
    key: &FlagKey,
    flag: &Flag,
) -> Result<(), Error> {
    let before = there.get(key);
    let after = match before {
        Some(record) if record.archived_at.is_none() && record.flag == *flag => return Ok(()),
        Some(_) => open.write_flag(key, flag, false).await?,
        None => open.insert_flag(key, flag).await?,
    };
    open.note(
        Some(key),
        Action::ImportFlag,
        before.map(state_of),
        Some(state_of(&after)),
    )
    .await
}
