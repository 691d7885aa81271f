//! A whole environment as a file for flagd, in and out.

use pennon_eval::flagd::{self, File, Form, Mode};
use pennon_eval::{Flag, FlagKey, Settings, Violation, pointer_step};
use serde::Serialize;
use serde_json::Value;

use super::change::{
    Changed, Expected, prefer_validation_error, settings_for, state_as, state_of, to_json,
};
use super::ramps::must_not_be_rolled_back;
use super::schedules::call_all_off;
use super::validate::{
    broken_by, in_use, must_fit_together, must_leave_no_plan_without_effect, must_stay_where_named,
    require_environment_in,
};
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::limits::{check_flag, check_metadata};
use crate::snapshot::Revision;
use crate::store::{Action, AuditStep, FlagRecord, FlagRecords, NewState, Transaction};

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
    /// JSON pointers to fields of the file that are kept for the export and mean nothing to Pennon.
    pub kept: Vec<String>,
    /// Parts of the file that are imported and cannot work, each with a JSON pointer.
    pub warnings: Vec<Violation>,
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

/// A file to import, and how.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The file, as JSON without duplicate keys.
    pub file: &'a Value,
    /// What happens to what the environment has and the file does not: with [`Mode::Replace`] flags are
    /// archived, with [`Mode::Merge`] everything stays.
    pub mode: Mode,
}

impl FlagService {
    /// All flags in use and the settings, as a file that imports unchanged, and the revision that it is
    /// the state of.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such an environment.
    pub async fn export(
        &self,
        environment: &Environment,
        admin: &Admin,
    ) -> Result<(Value, Revision), Error> {
        self.require_environment(environment).await?;
        // A snapshot is not enough: it lacks what evaluation does not need. Nothing is committed.
        let mut open = self.begin(environment, &admin.id).await?;
        let revision = open.environment_revision().await?;
        let records = open.flags().await?;
        let settings = open.settings().await?.settings;
        let flags = in_use(&records).map(|(key, flag)| (key.clone(), flag.clone()));
        let file = flagd::write(&flags.collect(), &settings, Form::Exchange);
        Ok((file, revision.unwrap_or(Revision::NONE)))
    }

    /// What an import would make different, and at which revision.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the places in the file; [`Error::NotFound`].
    pub async fn compare(
        &self,
        environment: &Environment,
        import: Import<'_>,
        admin: &Admin,
    ) -> Result<(Difference, Revision), Error> {
        let (_open, compared) = self.begin_import(environment, import, admin).await?;
        Ok((compared.difference, compared.revision))
    }

    /// Makes an environment what a file says, all at once: archived flags that it holds come back, and
    /// with [`Mode::Replace`] flags that it does not hold are archived. Overrides stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the places in the file; [`Error::NotFound`]; [`Error::PreconditionFailed`] when the
    /// environment is no longer at the revision of the comparison.
    pub async fn import(
        &self,
        environment: &Environment,
        import: Import<'_>,
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<Difference>, Error> {
        let (mut open, compared) = self.begin_import(environment, import, admin).await?;
        let Compared {
            there,
            file,
            difference,
            revision,
        } = compared;
        expected.check(revision.0)?;
        put(&mut open, &there, &file, import.mode, admin).await?;
        if let Some(SettingsDifference { before, after }) = &difference.settings {
            open.write_settings(&file.settings).await?;
            let (before, after) = (before.clone(), after.clone());
            open.note(None, Action::ChangeSettings, Some(before), Some(after))
                .await?;
        }
        self.finish(open, environment, difference, scope).await
    }
}

impl FlagService {
    /// Begins a change, and compares. Also while the store does not answer, what is wrong with the file is
    /// said first.
    async fn begin_import(
        &self,
        environment: &Environment,
        import: Import<'_>,
        admin: &Admin,
    ) -> Result<(Transaction, Compared), Error> {
        let begun = async {
            let mut open = self.begin(environment, &admin.id).await?;
            let compared = compare(&mut open, environment, import).await?;
            Ok::<_, Error>((open, compared))
        };
        begun.await.map_err(|error| {
            prefer_validation_error(error, || {
                read_file(import, &settings_for(import.file)).map(|_valid| ())
            })
        })
    }
}

/// Reads a file into an environment with these settings.
fn understand(import: Import<'_>, current: &Settings) -> Result<File, Error> {
    let file = read_file(import, current)?;
    if let Some(found) = check_metadata(&file.settings.metadata)
        && file.settings.metadata != current.metadata
    {
        return Err(Error::from_violations(vec![found]));
    }
    Ok(file)
}

/// The same, but for what depends on what the environment has had before.
fn read_file(import: Import<'_>, current: &Settings) -> Result<File, Error> {
    let file = flagd::read(import.file, current, import.mode).map_err(Error::from_violations)?;
    let mut complaints = FieldErrors::default();
    for (key, flag) in &file.flags {
        if !flag.overrides.is_empty() {
            complaints.add(
                &format!("{}/overrides", file.pointer_to(key)),
                "An import sets no overrides; they have their own route",
            );
        }
    }
    let count = file.flags.len();
    if count > MOST_FLAGS {
        let complaint = format!("A file holds at most {MOST_FLAGS} flags; here are {count}");
        complaints.add("/flags", complaint);
    }
    if complaints.is_empty() {
        Ok(file)
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// An environment beside a file.
struct Compared {
    there: FlagRecords,
    file: File,
    difference: Difference,
    revision: Revision,
}

async fn compare(
    open: &mut Transaction,
    environment: &Environment,
    import: Import<'_>,
) -> Result<Compared, Error> {
    // First the environment and then its flags, so that none comes into being meanwhile; but what is
    // wrong with the file is said before what is missing.
    let exists = require_environment_in(open, environment).await;
    let there = open.flags().await?;
    let settings = open.settings().await?.settings;
    let mut file = understand(import, &settings)?;
    keep_what_no_file_says(&there, &mut file);
    must_keep_the_rules(&there, &mut file, import.file)?;
    exists?;
    if let Some(unreadable) = &settings.unreadable
        && file.settings != settings
    {
        return Err(Error::Conflict(format!(
            "The settings of '{environment}' are unreadable ({}), so those of the file cannot be added to \
             them; replace the settings first",
            unreadable.reason
        )));
    }
    let steps: Vec<_> = file
        .flags
        .iter()
        .filter_map(|(key, flag)| Some((key, &there.get(key)?.flag, flag)))
        .collect();
    must_leave_no_plan_without_effect(open, &steps).await?;
    must_stay_where_named(open, &steps).await?;
    must_not_be_rolled_back(open, &steps).await?;
    let others: Vec<(&FlagKey, &Flag)> = match import.mode {
        Mode::Replace => in_use(&there)
            .filter(|(key, _)| !file.flags.contains_key(*key) && file.unreadable.contains(*key))
            .collect(),
        Mode::Merge => in_use(&there)
            .filter(|(key, _)| !file.flags.contains_key(*key))
            .collect(),
    };
    let broken = broken_by(others.iter().copied(), &settings, &file.settings)?;
    if !broken.errors.is_empty() {
        return Err(Error::from_violations(
            broken.errors.into_iter().map(not_in_file).collect(),
        ));
    }
    must_fit_together(
        ("/flags", "/flags"),
        environment,
        (in_use(&there), &settings),
        (
            others.iter().copied().chain(file.flags.iter()),
            &file.settings,
        ),
    )?;
    let mut difference = difference(&settings, &there, &file, import.mode)?;
    difference.kept.clone_from(&file.kept);
    difference.warnings.clone_from(&file.warnings);
    let warnings = broken.warnings.into_iter().map(not_in_file);
    difference.warnings.extend(warnings);
    difference.warnings.truncate(MOST_COMPLAINTS);
    let revision = open.environment_revision().await?;
    Ok(Compared {
        there,
        file,
        difference,
        revision: revision.unwrap_or(Revision::NONE),
    })
}

/// A flag of the environment that the settings of the file break.
fn not_in_file((key, found): (FlagKey, Violation)) -> Violation {
    Violation {
        at: format!("/flags/{}{}", pointer_step(key.as_str()), found.at),
        problem: format!(
            "{} (the file does not have this flag, but it changes what the flag refers to)",
            found.problem
        ),
    }
}

/// A percentage that a typed flag has from before is in no file, since it has no effect.
fn keep_what_no_file_says(there: &FlagRecords, file: &mut File) {
    for (key, flag) in &mut file.flags {
        if flag.definition.is_some()
            && let Some(before) = there.get(key)
            && before.flag.definition.is_some()
        {
            flag.rollout_percentage = before.flag.rollout_percentage;
        }
    }
}

/// Whether a flag is already what the file says.
fn stays(before: Option<&FlagRecord>, flag: &Flag) -> bool {
    before.is_some_and(|record| record.archived_at.is_none() && record.flag == *flag)
}

/// Whether a flag is in use, and the import takes it out of use. An export could not hold a flag that was
/// unreadable, and importing it must not take that flag for one that was removed.
fn goes(key: &FlagKey, record: &FlagRecord, file: &File, mode: Mode) -> bool {
    match mode {
        Mode::Replace => {
            record.archived_at.is_none()
                && !file.flags.contains_key(key)
                && !file.unreadable.contains(key)
        }
        Mode::Merge => false,
    }
}

fn difference(
    settings: &Settings,
    there: &FlagRecords,
    file: &File,
    mode: Mode,
) -> Result<Difference, Error> {
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
            after: Some(to_json(flag)?),
        });
    }
    for (key, record) in there {
        if goes(key, record, file, mode) {
            difference.archived.push(FlagDifference {
                key: key.clone(),
                before: Some(state_of(record)),
                after: None,
            });
        }
    }
    if *settings != file.settings {
        difference.settings = Some(SettingsDifference {
            before: to_json(settings)?,
            after: to_json(&file.settings)?,
        });
    }
    Ok(difference)
}

/// New flags and new texts must be such as their own routes take. What is there from before these rules
/// may stay. A salt that has no effect is only worth a warning.
fn must_keep_the_rules(there: &FlagRecords, file: &mut File, source: &Value) -> Result<(), Error> {
    let mut complaints = FieldErrors::default();
    let mut warnings = Vec::new();
    for (key, flag) in &file.flags {
        if complaints.fields.len() >= MOST_COMPLAINTS {
            break;
        }
        let place = file.pointer_to(key);
        // A text may be a field of the flag, or in its metadata.
        let place_of = |name: &str| {
            let field = format!("{place}/{name}");
            if source.pointer(&field).is_some() {
                field
            } else {
                format!("{place}/metadata/pennon.{name}")
            }
        };
        let before = there.get(key).map(|record| &record.flag);
        for found in check_flag(key, flag, before) {
            let at = match found.at.as_str() {
                "/description" => place_of("description"),
                "/salt" => place_of("salt"),
                at => format!("{place}{at}"),
            };
            complaints.add(&at, found.problem);
        }
        if flag.definition.is_some()
            && flag.salt.is_some()
            && before.is_none_or(|before| before.salt != flag.salt)
        {
            warnings.push(Violation {
                at: place_of("salt"),
                problem: "has no effect on a flag with variants".to_owned(),
            });
        }
    }
    if complaints.is_empty() {
        file.warnings.append(&mut warnings);
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}

/// Writes what is different, and tells of it.
async fn put(
    open: &mut Transaction,
    there: &FlagRecords,
    file: &File,
    mode: Mode,
    admin: &Admin,
) -> Result<(), Error> {
    let live = file
        .flags
        .iter()
        .filter(|(key, flag)| !stays(there.get(*key), flag))
        .map(|(key, flag)| (key, flag.clone(), false));
    let gone = there
        .iter()
        .filter(|(key, record)| goes(key, record, file, mode))
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
