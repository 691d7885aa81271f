//! A whole environment as a file for flagd, in and out.

use std::collections::BTreeMap;

use pennon_eval::{Flag, FlagKey, Settings, flagd, pointer_step};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Changed, Expected, state_as, state_of};
use super::flags::must_exist;
use super::limits::{
    check_definition, check_description, check_metadata, check_salt, must_fit_together, new_key,
};
use super::schedules::{call_all_off, must_leave_no_plan_without_effect};
use super::settings::{in_use, json_of};
use super::variants::must_stay_where_named;
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Complaints, Error};
use crate::snapshot::{Revision, Snapshot};
use crate::store::{Action, AuditStep, FlagRecord, FlagRecords, Fresh, NewState, Transaction};

/// A file holds no more flags: they are written in one transaction, within the ten seconds that a
/// function has. Few services have a tenth of them.
const MOST_FLAGS: usize = 5_000;

/// More complaints than anyone would read, and a bound on the answer to a hostile file.
const MOST_COMPLAINTS: usize = 50;

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
        put(&mut open, &there, &file, admin).await?;
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
                    complaints.add(
                        &place_of(key, "pennon.overrides"),
                        "An import sets no overrides; they have their own route",
                    );
                }
            }
            if let Some(found) = check_metadata(&settings.metadata) {
                complaints.add(&found.at, found.problem);
            }
            let count = flags.len();
            if count > MOST_FLAGS {
                let complaint =
                    format!("A file holds at most {MOST_FLAGS} flags; here are {count}");
                complaints.add("/flags", complaint);
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
    // First the environment and then its flags, so that none comes into being meanwhile; but what is
    // wrong with the file is said before what is missing.
    let exists = must_exist(open, environment).await;
    let there = open.flags().await?;
    must_keep_the_rules(&there, file)?;
    exists?;
    let steps: Vec<_> = file
        .flags
        .iter()
        .filter_map(|(key, flag)| Some((key, &there.get(key)?.flag, flag)))
        .collect();
    must_leave_no_plan_without_effect(open, &steps).await?;
    must_stay_where_named(open, &steps).await?;
    let settings = open.settings().await?.settings;
    must_fit_together(
        "/flags",
        environment,
        (in_use(&there), &settings),
        (file.flags.iter(), &file.settings),
    )?;
    let difference = difference(&settings, &there, file)?;
    let revision = open.environment_revision().await?;
    Ok(Compared {
        there,
        difference,
        revision: revision.unwrap_or(Revision::NONE),
    })
}

/// Whether a flag is already what the file says.
fn stays(before: Option<&FlagRecord>, flag: &Flag) -> bool {
    before.is_some_and(|record| record.archived_at.is_none() && record.flag == *flag)
}

/// Whether a flag is in use, and the file does not hold it.
fn goes(key: &FlagKey, record: &FlagRecord, file: &File) -> bool {
    record.archived_at.is_none() && !file.flags.contains_key(key)
}

fn difference(settings: &Settings, there: &FlagRecords, file: &File) -> Result<Difference, Error> {
    let mut difference = Difference::default();
    for (key, flag) in &file.flags {
        let before = there.get(key);
        if stays(before, flag) {
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
        if goes(key, record, file) {
            difference.archived.push(FlagDifference {
                key: key.clone(),
                before: Some(state_of(record)),
                after: None,
            });
        }
    }
    if *settings != file.settings {
        difference.settings = Some(SettingsDifference {
            before: json_of(settings)?,
            after: json_of(&file.settings)?,
        });
    }
    Ok(difference)
}

/// New flags and new texts must be such as their own routes take. What is there from before these rules
/// may stay.
fn must_keep_the_rules(there: &FlagRecords, file: &File) -> Result<(), Error> {
    let mut complaints = Complaints::default();
    for (key, flag) in &file.flags {
        if complaints.fields.len() >= MOST_COMPLAINTS {
            break;
        }
        let before = there.get(key).map(|record| &record.flag);
        if before.is_none()
            && let Err(why) = new_key(key.as_str())
        {
            complaints.add(&format!("/flags/{}", pointer_step(key.as_str())), why);
        }
        if let Some(definition) = &flag.definition {
            let known = before.and_then(|flag| flag.definition.as_ref());
            for found in check_definition(definition, known) {
                let place = format!("/flags/{}{}", pointer_step(key.as_str()), found.at);
                complaints.add(&place, found.problem);
            }
        }
        let description = (&flag.description, before.map(|flag| &flag.description));
        let salt = (&flag.salt, before.map(|flag| &flag.salt));
        for (field, (text, known), check) in [
            (
                "pennon.description",
                description,
                check_description as Check,
            ),
            ("pennon.salt", salt, check_salt),
        ] {
            if let Some(words) = text
                && known != Some(text)
                && let Err(why) = check(words)
            {
                complaints.add(&place_of(key, field), why);
            }
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// Checks a text.
type Check = fn(&str) -> Result<(), &'static str>;

/// Where in the file a field of a flag's metadata stands, as a JSON pointer.
fn place_of(key: &FlagKey, field: &str) -> String {
    format!("/flags/{}/metadata/{field}", pointer_step(key.as_str()))
}

/// Writes what is different, and tells of it.
async fn put(
    open: &mut Transaction,
    there: &FlagRecords,
    file: &File,
    admin: &Admin,
) -> Result<(), Error> {
    let live = file
        .flags
        .iter()
        .filter(|(key, flag)| !stays(there.get(*key), flag))
        .map(|(key, flag)| (key, flag.clone(), false));
    let gone = there
        .iter()
        .filter(|(key, record)| goes(key, record, file))
        .map(|(key, record)| {
            let off = Flag {
                enabled: false,
                ..record.flag.clone()
            };
            (key, off, true)
        });
    let all: Vec<(&FlagKey, Flag, bool)> = live.chain(gone).collect();
    let states: Vec<NewState<'_>> = all
        .iter()
        .map(|(key, flag, archived)| NewState {
            key,
            flag,
            archived: *archived,
        })
        .collect();
    open.put_flags(&states).await?;
    let steps = all.iter().map(|(key, flag, archived)| AuditStep {
        key: (*key).clone(),
        before: there.get(*key).map(state_of),
        after: Some(state_as(flag, *archived)),
    });
    open.note_all(Action::ImportFlag, steps.collect()).await?;
    // Of flags that go out of use; and of those that come back, should anything have been left of them.
    let was_archived = |key: &FlagKey| {
        let record = there.get(key);
        record.is_some_and(|record| record.archived_at.is_some())
    };
    let turned: Vec<&FlagKey> = all
        .iter()
        .filter(|(key, _, archived)| *archived || was_archived(key))
        .map(|(key, _, _)| *key)
        .collect();
    if turned.is_empty() {
        return Ok(());
    }
    call_all_off(open, &turned, admin).await
}
