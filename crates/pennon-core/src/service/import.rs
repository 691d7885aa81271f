//! Export and import of an environment as a flagd file.

use std::collections::BTreeMap;

use pennon_eval::flagd::{self, File, Form, Mode};
use pennon_eval::{Flag, FlagKey, Settings, Violation, Violations, pointer_step};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::FlagService;
use super::change::{
    Changed, Expected, prefer_validation_error, settings_for, state_as, state_of, to_json,
};
use super::ramps::{require_acknowledged, supersede_ramps, supersede_ramps_of_archived};
use super::schedules::cancel_schedules;
use super::validate::{
    broken_by, check_limits_of_environment, in_use, reject_ineffective_schedules,
    reject_removal_of_used_variants, require_known,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::{check_flag, check_metadata};
use crate::request_context::RequestContext;
use crate::snapshot::Revision;
use crate::store::{
    Action, AuditedChange, EnvironmentState, FlagRecord, FlagRecords, NewState, SettingsRecord,
    Transaction,
};

/// Limit on the flags of a file or a copy. They are written in one transaction, within the function's timeout of ten
/// seconds. Few services have more than 500 flags.
pub const MAX_FLAGS: usize = 5_000;

/// The differences that an import or a copy makes.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    /// New flags.
    pub created: Vec<FlagDifference>,
    /// Existing flags that change, and archived flags that are restored.
    pub changed: Vec<FlagDifference>,
    /// Flags in use that the import archives.
    pub archived: Vec<FlagDifference>,
    /// The number of unchanged flags.
    pub unchanged: usize,
    /// The settings, if they change.
    pub settings: Option<SettingsDifference>,
    /// JSON pointers to fields of the file that Pennon keeps for the export and does not use.
    pub kept: Vec<String>,
    /// Parts that have no effect, fail, or work differently than expected. Each has a JSON pointer into the request,
    /// even for a flag that the request lacks. One without a pointer says what is not listed or was not checked.
    pub warnings: Vec<Violation>,
}

/// One flag before and after, as JSON text: a parsed rule takes fifty times as much memory.
#[derive(Debug, Clone, Serialize)]
pub struct FlagDifference {
    /// The key of the flag.
    pub key: FlagKey,
    /// The current state, if the flag exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<RawValue>>,
    /// The new state, unless the flag becomes archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<RawValue>>,
}

/// Settings before and after. A response that would be too large omits both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingsDifference {
    /// The current settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The new settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A file to import, and the mode.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The file, as JSON without duplicate keys.
    pub file: &'a Value,
    /// The effect on flags that the file lacks: [`Mode::Replace`] archives them, [`Mode::Merge`] keeps them.
    pub mode: Mode,
}

impl FlagService {
    /// All flags in use and the settings as a file, and the revision of the environment. While the environment has this
    /// revision, importing the file makes no difference.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown environment.
    pub async fn export(
        &self,
        environment: &Environment,
        actor: &Actor,
    ) -> Result<(Value, Revision), Error> {
        self.require_environment(environment).await?;
        // A snapshot lacks fields that evaluation does not need.
        let state = self
            .rolled_back(environment, actor, async |transaction| {
                transaction.read_environment().await
            })
            .await?;
        let flags = in_use(&state.flags).map(|(key, flag)| (key.clone(), flag.clone()));
        let settings = &state.settings.settings;
        let file = flagd::write(&flags.collect(), settings, Form::Export);
        Ok((file, state.revision.unwrap_or(Revision::NONE)))
    }

    /// The differences that an import would make, and the revision that they are relative to.
    ///
    /// # Errors
    /// As for [`Self::import`], without [`Error::PreconditionFailed`].
    pub async fn compare_import(
        &self,
        environment: &Environment,
        import: Import<'_>,
        actor: &Actor,
    ) -> Result<(Difference, Revision), Error> {
        let compared = self.rolled_back(environment, actor, async |transaction| {
            compare(transaction, environment, import).await
        });
        let compared = compared
            .await
            .map_err(|error| prefer_error_of_file(error, import))?;
        Ok((compared.difference, compared.revision))
    }

    /// Imports a file in one transaction. Archived flags in the file are restored; with [`Mode::Replace`], flags that
    /// the file lacks are archived. Overrides stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] with JSON pointers into the file; [`Error::NotFound`]; [`Error::PreconditionFailed`] if the
    /// environment has changed since the comparison; [`Error::Conflict`] if a schedule would lose its effect, an
    /// override names a removed variant, a ramp has rolled a flag back, or unreadable settings would change.
    pub async fn import(
        &self,
        environment: &Environment,
        import: Import<'_>,
        expected: &Expected,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<Difference>, Error> {
        let started = async {
            let mut transaction = self.begin(environment, &actor.id).await?;
            let compared = compare(&mut transaction, environment, import).await?;
            Ok::<_, Error>((transaction, compared))
        };
        let (mut transaction, compared) = started
            .await
            .map_err(|error| prefer_error_of_file(error, import))?;
        let Compared {
            current,
            file,
            difference,
            revision,
        } = compared;
        expected.check(revision.0)?;
        write(&mut transaction, &current, &file, import.mode, actor).await?;
        if let Some(SettingsDifference { before, after }) = &difference.settings {
            transaction.write_settings(&file.settings).await?;
            let (before, after) = (before.clone(), after.clone());
            transaction
                .add_audit_entry(None, Action::ChangeSettings, before, after)
                .await?;
        }
        self.finish(transaction, environment, difference, context)
            .await
    }
}

/// Errors of the file take precedence over an outage of the store.
fn prefer_error_of_file(error: Error, import: Import<'_>) -> Error {
    prefer_validation_error(error, || {
        read_file(import, &settings_for(import.file)).map(|_valid| ())
    })
}

/// Parses a file for an environment with these settings.
fn parse_file(import: Import<'_>, current: &Settings) -> Result<File, Error> {
    let file = read_file(import, current)?;
    // Reserved names are not checked: no file can set one, and a merge has to keep one that an earlier version stored.
    if let Some(found) = check_metadata(&file.settings.metadata, &[])
        && file.settings.metadata != current.metadata
    {
        return Err(Error::from_violations(Violations::from_iter([found])));
    }
    Ok(file)
}

/// Parses a file, with the checks that need no flags of the environment.
fn read_file(import: Import<'_>, current: &Settings) -> Result<File, Error> {
    let file = flagd::read(import.file, current, import.mode).map_err(Error::from_violations)?;
    let mut errors = Violations::default();
    let count = file.flags.len();
    if count > MAX_FLAGS {
        let message = format!("Must have at most {MAX_FLAGS} flags (got {count})");
        errors.add_at("/flags", message);
    }
    for (key, flag) in &file.flags {
        if !flag.overrides.is_empty() {
            errors.add_at(
                &format!("{}/overrides", file.pointer_to(key)),
                "An import cannot set overrides; use PUT /api/admin/flags/{flagKey}/users",
            );
        }
    }
    errors.into_result(file).map_err(Error::from_violations)
}

/// A comparison of an environment and a file.
struct Compared {
    current: FlagRecords,
    file: File,
    difference: Difference,
    revision: Revision,
}

async fn compare(
    transaction: &mut Transaction,
    environment: &Environment,
    import: Import<'_>,
) -> Result<Compared, Error> {
    let EnvironmentState {
        revision,
        flags: current,
        settings: SettingsRecord { settings, .. },
    } = transaction.lock_environment().await?;
    let mut file = parse_file(import, &settings)?;
    keep_rollout_percentages(&current, &mut file);
    let mut warnings = check_file_limits(&current, &file, import.file)?;
    // Errors of the file take precedence over a missing environment.
    require_known(environment, revision)?;
    if let Some(unreadable) = &settings.unreadable
        && file.settings != settings
    {
        return Err(Error::Conflict(format!(
            "The settings of '{environment}' are unreadable ({}), so those of the file cannot be added to \
             them; replace the settings first",
            unreadable.reason
        )));
    }
    let changes: Vec<_> = file
        .flags
        .iter()
        .filter(|(key, flag)| !is_unchanged(current.get(*key), flag))
        .filter_map(|(key, flag)| Some((key, &current.get(key)?.flag, flag)))
        .collect();
    reject_ineffective_schedules(transaction, &changes).await?;
    reject_removal_of_used_variants(transaction, &changes).await?;
    supersede_ramps(transaction, &changes, Action::ImportFlag).await?;
    let keys = file.flags.keys();
    let created: Vec<&FlagKey> = keys.filter(|key| !current.contains_key(*key)).collect();
    require_acknowledged(transaction, &created).await?;
    // Flags in use that are not in the file and stay in use.
    let remaining: Vec<(&FlagKey, &Flag)> = match import.mode {
        Mode::Replace => in_use(&current)
            .filter(|(key, _)| !file.flags.contains_key(*key) && file.unreadable.contains(*key))
            .collect(),
        Mode::Merge => in_use(&current)
            .filter(|(key, _)| !file.flags.contains_key(*key))
            .collect(),
    };
    let remaining_flags = remaining.iter().copied();
    let broken = broken_by(remaining_flags, &settings, &file.settings, not_in_file)?;
    broken
        .errors
        .into_result(())
        .map_err(Error::from_violations)?;
    warnings.append(broken.warnings);
    check_limits_of_environment(
        ("/flags", "/flags"),
        environment,
        (in_use(&current), &settings),
        (
            remaining.iter().copied().chain(file.flags.iter()),
            &file.settings,
        ),
    )?;
    let mut difference = difference(&settings, &current, &file, import.mode)?;
    difference.kept.clone_from(&file.kept);
    difference.warnings.clone_from(&file.warnings);
    difference.warnings.append(&mut warnings.into_list());
    Ok(Compared {
        current,
        file,
        difference,
        revision: revision.unwrap_or(Revision::NONE),
    })
}

/// A violation in a flag that is not in the file: the settings in the file break it.
fn not_in_file(key: &FlagKey, found: Violation) -> Violation {
    let Violation { pointer, message } = found;
    Violation {
        pointer: format!("/flags/{}{pointer}", pointer_step(key.as_str())),
        message: format!(
            "{message} (the file does not contain this flag, but the file's settings change what the flag refers to)"
        ),
    }
}

/// Keeps the rollout percentages of typed flags (flags with a definition), which have no effect and are not part of a
/// file.
fn keep_rollout_percentages(current: &FlagRecords, file: &mut File) {
    for (key, flag) in &mut file.flags {
        if flag.definition.is_some()
            && let Some(before) = current.get(key)
            && before.flag.definition.is_some()
        {
            flag.rollout_percentage = before.flag.rollout_percentage;
        }
    }
}

/// Whether a flag is in use and equals the new one.
pub(super) fn is_unchanged(before: Option<&FlagRecord>, flag: &Flag) -> bool {
    before.is_some_and(|record| record.archived_at.is_none() && record.flag == *flag)
}

/// Whether the import archives a flag that is in use. An unreadable flag is missing from an export; importing that
/// export must not archive it.
fn is_removed(key: &FlagKey, record: &FlagRecord, file: &File, mode: Mode) -> bool {
    match mode {
        Mode::Replace => {
            record.archived_at.is_none()
                && !file.flags.contains_key(key)
                && !file.unreadable.contains(key)
        }
        Mode::Merge => false,
    }
}

fn to_text(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Internal(error.to_string()))
}

fn difference(
    settings: &Settings,
    current: &FlagRecords,
    file: &File,
    mode: Mode,
) -> Result<Difference, Error> {
    let mut difference = difference_of_flags(current, &file.flags)?;
    for (key, record) in current {
        if is_removed(key, record, file, mode) {
            difference.archived.push(FlagDifference {
                key: key.clone(),
                before: Some(to_text(&state_of(record))?),
                after: None,
            });
        }
    }
    if *settings != file.settings {
        difference.settings = Some(SettingsDifference {
            before: Some(to_json(settings)?),
            after: Some(to_json(&file.settings)?),
        });
    }
    Ok(difference)
}

/// Which of these flags are new and which change.
pub(super) fn difference_of_flags(
    current: &FlagRecords,
    flags: &BTreeMap<FlagKey, Flag>,
) -> Result<Difference, Error> {
    let mut difference = Difference::default();
    for (key, flag) in flags {
        let before = current.get(key);
        if is_unchanged(before, flag) {
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
            before: before
                .map(|record| to_text(&state_of(record)))
                .transpose()?,
            after: Some(to_text(flag)?),
        });
    }
    Ok(difference)
}

/// Applies the limits of the flag routes to new flags and to changed descriptions, salts and definitions. Unchanged
/// values may exceed them. A salt or bucketing without an effect is a warning.
fn check_file_limits(
    current: &FlagRecords,
    file: &File,
    source: &Value,
) -> Result<Violations, Error> {
    let mut errors = Violations::default();
    let mut warnings = Violations::default();
    for (key, flag) in &file.flags {
        let place = file.pointer_to(key);
        let fields = source.pointer(&place);
        // `name` can be a field of the flag in the file, or `pennon.<name>` in the flag's metadata.
        let place_of = |name: &str| {
            if fields.is_some_and(|fields| fields.get(name).is_some()) {
                format!("/{name}")
            } else {
                format!("/metadata/pennon.{name}")
            }
        };
        let before = current.get(key).map(|record| &record.flag);
        errors.at(&place, |errors| {
            for found in check_flag(key, flag, before) {
                let pointer = match found.pointer.as_str() {
                    "/description" => place_of("description"),
                    "/salt" => place_of("salt"),
                    _ => found.pointer,
                };
                errors.add_at(&pointer, found.message);
            }
        });
        let has_new_salt =
            flag.salt.is_some() && before.is_none_or(|before| before.salt != flag.salt);
        let has_new_bucketing = flag.bucketing.is_some()
            && before.is_none_or(|before| before.bucketing != flag.bucketing);
        for (name, is_new) in [("salt", has_new_salt), ("bucketing", has_new_bucketing)] {
            if flag.definition.is_some() && is_new {
                let pointer = format!("{place}{}", place_of(name));
                warnings.add_at(&pointer, "has no effect on a flag with variants");
            }
        }
    }
    errors.into_result(warnings).map_err(Error::from_violations)
}

/// Writes the flags that differ, and their audit entries.
async fn write(
    transaction: &mut Transaction,
    current: &FlagRecords,
    file: &File,
    mode: Mode,
    actor: &Actor,
) -> Result<(), Error> {
    let changed = file
        .flags
        .iter()
        .filter(|(key, flag)| !is_unchanged(current.get(*key), flag))
        .map(|(key, flag)| (key, flag.clone(), false));
    let archived = current
        .iter()
        .filter(|(key, record)| is_removed(key, record, file, mode))
        .map(|(key, record)| {
            let off = Flag {
                enabled: false,
                ..record.flag.clone()
            };
            (key, off, true)
        });
    let all: Vec<(&FlagKey, Flag, bool)> = changed.chain(archived).collect();
    write_flags(
        transaction,
        current,
        &all,
        (Action::ImportFlag, &state_as),
        actor,
    )
    .await
}

/// The action of a change, and the audited state of a flag, which depends on whether it is archived.
pub(super) type Audited<'a> = (Action, &'a (dyn Fn(&Flag, bool) -> Value + Sync));

/// Writes flags and their audit entries. The boolean beside a flag says whether it is archived. Archiving or restoring
/// a flag also cancels its schedules and supersedes its ramps.
pub(super) async fn write_flags(
    transaction: &mut Transaction,
    current: &FlagRecords,
    all: &[(&FlagKey, Flag, bool)],
    (action, audited): Audited<'_>,
    actor: &Actor,
) -> Result<(), Error> {
    let states: Vec<NewState<'_>> = all
        .iter()
        .map(|(key, flag, archived)| NewState {
            key,
            flag,
            archived: *archived,
        })
        .collect();
    transaction.put_flags(&states).await?;
    let changes = all.iter().map(|(key, flag, archived)| AuditedChange {
        key: (*key).clone(),
        before: current.get(*key).map(state_of),
        after: Some(audited(flag, *archived)),
    });
    transaction.add_audit_entries(action, changes).await?;
    // Flags that become archived, and restored ones: earlier versions of Pennon did not cancel the schedules of a flag
    // when they archived it.
    let was_archived = |key: &FlagKey| {
        let record = current.get(key);
        record.is_some_and(|record| record.archived_at.is_some())
    };
    let affected: Vec<&FlagKey> = all
        .iter()
        .filter(|(key, _, archived)| *archived || was_archived(key))
        .map(|(key, _, _)| *key)
        .collect();
    if affected.is_empty() {
        return Ok(());
    }
    supersede_ramps_of_archived(transaction, &affected, action).await?;
    cancel_schedules(transaction, &affected, actor).await
}
