//! Copying flags from one environment to another.
//!
//! The flags are read in a transaction of the source, which is never committed, and written in one of the target. So an
//! instance needs one connection at a time, and no transaction waits for rows of two environments.

use std::collections::{BTreeMap, BTreeSet};

use pennon_eval::{Bucketing, Definition, EvaluationDefaults, Evaluators, Flag, FlagKey};
use pennon_eval::{Settings, Summary, Violation, Violations};
use serde_json::{Value, json};

use super::FlagService;
use super::change::{Changed, Expected, evaluators_in, state_as, to_json};
use super::import::{Difference, difference_of_flags, is_unchanged, write_flags};
use super::ramps::{require_acknowledged, supersede_ramps};
use super::validate::{
    check_limits_of_environment, in_use, reject_ineffective_schedules,
    reject_removal_of_used_variants, require_known,
};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::check_flag;
use crate::request_context::RequestContext;
use crate::server_only;
use crate::store::{Action, EnvironmentState, FlagRecords, SettingsRecord, Transaction};

/// The field of an audit entry that names the environment from which a flag was copied.
const COPIED_FROM: &str = "copiedFrom";

/// A flag to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagToCopy {
    /// The key of the flag in both environments.
    pub key: FlagKey,
    /// The state in the target that the copy may replace; `None` if the target must not have the flag.
    pub replaces: Option<Expected>,
}

/// Flags to copy, and their environment.
#[derive(Debug, Clone, Copy)]
pub struct FlagsToCopy<'a> {
    /// The environment that has the flags.
    pub from: &'a Environment,
    /// The flags, each once.
    pub flags: &'a [FlagToCopy],
}

impl FlagService {
    /// The differences that a copy would make.
    ///
    /// # Errors
    /// As for [`Self::copy_flags`].
    pub async fn compare_copy(
        &self,
        environment: &Environment,
        copy: FlagsToCopy<'_>,
        actor: &Actor,
    ) -> Result<Difference, Error> {
        let source = self.read_source(copy, actor).await?;
        let compared = self
            .rolled_back(environment, actor, async |transaction| {
                compare(transaction, environment, copy, &source).await
            })
            .await?;
        Ok(compared.difference)
    }

    /// Copies flags in one transaction: all that an editor can set, except overrides, which stay as they are in both
    /// environments. An archived flag of the target is restored.
    ///
    /// # Errors
    /// [`Error::NotFound`] for unknown environments, and flags that the source lacks; [`Error::ItemsChanged`] with the
    /// flags whose state in the target is not the expected one; [`Error::Conflict`] with the flags that are archived or
    /// unreadable in the source, would mean something else in the target, or whose schedules, overrides or ramps there
    /// forbid the change; [`Error::Invalid`] above a limit.
    pub async fn copy_flags(
        &self,
        environment: &Environment,
        copy: FlagsToCopy<'_>,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<Difference>, Error> {
        let source = self.read_source(copy, actor).await?;
        let mut transaction = self.begin(environment, &actor.id).await?;
        let Compared {
            current,
            difference,
        } = compare(&mut transaction, environment, copy, &source).await?;
        let changed: Vec<(&FlagKey, Flag, bool)> = source
            .flags
            .iter()
            .filter(|(key, flag)| !is_unchanged(current.get(*key), flag))
            .map(|(key, flag)| (key, flag.clone(), false))
            .collect();
        let audited = |flag: &Flag, archived: bool| {
            let mut state = state_as(flag, archived);
            state[COPIED_FROM] = json!(copy.from.as_str());
            state
        };
        write_flags(
            &mut transaction,
            &current,
            &changed,
            (Action::CopyFlag, &audited),
            actor,
        )
        .await?;
        self.finish(transaction, environment, difference, context)
            .await
    }

    async fn read_source(
        &self,
        copy: FlagsToCopy<'_>,
        actor: &Actor,
    ) -> Result<SourceFlags, Error> {
        let defaults = self.store.evaluation_defaults().await?;
        let EnvironmentState {
            revision,
            flags: mut records,
            settings: SettingsRecord { settings, .. },
        } = self
            .rolled_back(copy.from, actor, async |transaction| {
                transaction.read_environment().await
            })
            .await?;
        require_known(copy.from, revision)?;
        let place = format!("in '{}'", copy.from);
        let mut missing = Summary::default();
        let mut unusable = Summary::default();
        let mut flags = BTreeMap::new();
        for FlagToCopy { key, .. } in copy.flags {
            match records.remove(key) {
                None => missing.add(format!("'{key}'")),
                Some(record) if record.archived_at.is_some() => {
                    unusable.add(format!("'{key}' is archived"));
                }
                Some(record) if is_unreadable(&record.flag) => {
                    unusable.add(format!("the definition of '{key}' is unreadable"));
                }
                Some(record) => {
                    flags.insert(key.clone(), record.flag);
                }
            }
        }
        if missing.count() > 0 {
            let flags = if missing.count() == 1 {
                "Flag"
            } else {
                "Flags"
            };
            let names = missing.join(", ");
            return Err(Error::NotFound(format!("{flags} {names} {place}")));
        }
        if unusable.count() == 0 {
            Ok(SourceFlags {
                flags,
                settings,
                defaults,
            })
        } else {
            let why = format!("Nothing was copied: {place}, {}", unusable.join("; "));
            Err(Error::Conflict(why))
        }
    }
}

/// Flags of the source, and all that determines what they mean there.
struct SourceFlags {
    flags: BTreeMap<FlagKey, Flag>,
    settings: Settings,
    defaults: EvaluationDefaults,
}

/// A comparison of flags with those of the target.
struct Compared {
    current: FlagRecords,
    difference: Difference,
}

async fn compare(
    transaction: &mut Transaction,
    environment: &Environment,
    copy: FlagsToCopy<'_>,
    source: &SourceFlags,
) -> Result<Compared, Error> {
    let EnvironmentState {
        revision,
        flags: current,
        settings: SettingsRecord { settings, .. },
    } = transaction.lock_environment().await?;
    require_known(environment, revision)?;
    check_expected(environment, copy, &current)?;
    let changed: Vec<(&FlagKey, &Flag)> = source
        .flags
        .iter()
        .filter(|(key, flag)| !is_unchanged(current.get(*key), flag))
        .collect();
    let target = Target {
        environment,
        settings: &settings,
    };
    check_meaning(&changed, copy.from, source, target)?;
    let changes: Vec<_> = changed
        .iter()
        .filter_map(|(key, flag)| Some((*key, &current.get(*key)?.flag, *flag)))
        .collect();
    reject_ineffective_schedules(transaction, &changes).await?;
    reject_removal_of_used_variants(transaction, &changes).await?;
    supersede_ramps(transaction, &changes, Action::CopyFlag).await?;
    let keys = source.flags.keys();
    let created: Vec<&FlagKey> = keys.filter(|key| !current.contains_key(*key)).collect();
    require_acknowledged(transaction, &created).await?;
    let pointers: BTreeMap<&FlagKey, String> = copy
        .flags
        .iter()
        .enumerate()
        .map(|(index, flag)| (&flag.key, format!("flags/{index}")))
        .collect();
    check_limits(&changed, &current, &pointers)?;
    let others = in_use(&current).filter(|(key, _)| !source.flags.contains_key(*key));
    check_limits_of_environment(
        ("flags", "flags"),
        environment,
        (in_use(&current), &settings),
        (others.chain(source.flags.iter()), &settings),
    )?;
    let mut difference = difference_of_flags(&current, &source.flags)?;
    let warnings = warnings(&changed, &current, &pointers, copy.from, source, target);
    difference.warnings = warnings.into_list();
    Ok(Compared {
        current,
        difference,
    })
}

/// The environment that receives the flags.
#[derive(Clone, Copy)]
struct Target<'a> {
    environment: &'a Environment,
    settings: &'a Settings,
}

/// Rejects the copy if a flag of the target has another state than the caller expects.
fn check_expected(
    environment: &Environment,
    copy: FlagsToCopy<'_>,
    current: &FlagRecords,
) -> Result<(), Error> {
    let mut changed = Summary::default();
    for FlagToCopy { key, replaces } in copy.flags {
        match (replaces, current.get(key)) {
            (None, None) | (Some(Expected::Any | Expected::Unspecified), _) => {}
            (None, Some(_)) => changed.add(format!("'{key}' exists")),
            (Some(Expected::OneOf(_)), None) => changed.add(format!("'{key}' does not exist")),
            (Some(expected @ Expected::OneOf(_)), Some(record)) => {
                if expected.check(record.revision).is_err() {
                    changed.add(format!("'{key}' has changed"));
                }
            }
        }
    }
    if changed.count() == 0 {
        return Ok(());
    }
    Err(Error::ItemsChanged(format!(
        "Nothing was copied, because '{environment}' is not as you have read it: {}. Compare the environments again",
        changed.join(", ")
    )))
}

/// Rejects flags whose rules would mean something else in the target, or nothing.
fn check_meaning(
    changed: &[(&FlagKey, &Flag)],
    from: &Environment,
    source: &SourceFlags,
    target: Target<'_>,
) -> Result<(), Error> {
    let Target {
        environment,
        settings,
    } = target;
    for (name, settings) in [(from, &source.settings), (environment, settings)] {
        if let Some(unreadable) = &settings.unreadable {
            return Err(Error::Conflict(format!(
                "Nothing was copied: the settings of '{name}' are unreadable ({}), so the rules that refer to them cannot \
                 be compared; replace the settings first",
                unreadable.reason
            )));
        }
    }
    let evaluators = Evaluators::of(settings);
    let mut conflicts = Summary::default();
    for (key, flag) in changed {
        let Some(definition) = &flag.definition else {
            continue;
        };
        let mut has_other_evaluators = false;
        for name in evaluators_of(definition, &source.settings) {
            let state = match settings.evaluators.get(name) {
                None => "lacks",
                Some(found) if Some(found) != source.settings.evaluators.get(name) => {
                    "defines differently"
                }
                Some(_) => continue,
            };
            has_other_evaluators = true;
            let conflict =
                format!("'{key}' uses the evaluator '{name}', which '{environment}' {state}");
            conflicts.add(conflict);
        }
        if has_other_evaluators {
            continue;
        }
        if let Err(problems) = Definition::validate_with(&to_json(definition)?, &evaluators) {
            let problems = problems.summary(|found| format!("{} {}", found.pointer, found.message));
            conflicts.add(format!("the definition of '{key}' is invalid: {problems}"));
        }
    }
    if conflicts.count() == 0 {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "Nothing was copied: {}. Correct this, or copy without these flags",
        conflicts.join("; ")
    )))
}

/// Applies the limits of the routes; values that the target already has may stay.
fn check_limits(
    changed: &[(&FlagKey, &Flag)],
    current: &FlagRecords,
    pointers: &BTreeMap<&FlagKey, String>,
) -> Result<(), Error> {
    let mut errors = Violations::default();
    for (key, flag) in changed {
        let before = current.get(*key).map(|record| &record.flag);
        for found in check_flag(key, flag, before) {
            let pointer = format!("{}{}", pointers[key], found.pointer);
            errors.add_at(&pointer, format!("'{key}': {}", found.message));
        }
    }
    errors.into_result(()).map_err(Error::from_violations)
}

/// Warnings about changed flags: that they select other users or have more viewers than in the source, that their
/// rollout moves to other users of the target, or that parts of their rule have no effect.
fn warnings(
    changed: &[(&FlagKey, &Flag)],
    current: &FlagRecords,
    pointers: &BTreeMap<&FlagKey, String>,
    from: &Environment,
    source: &SourceFlags,
    target: Target<'_>,
) -> Violations {
    let Target {
        environment,
        settings,
    } = target;
    let evaluators = Evaluators::of(settings);
    let has_other_fractional = source.settings.fractional != settings.fractional;
    let mut warnings = Violations::default();
    for (key, flag) in changed {
        let bucketings = [&source.settings, settings].map(|it| flag.bucketing(it, source.defaults));
        let mut add = |pointer: &str, message: String| {
            let pointer = format!("/{}{pointer}", pointers[key]);
            warnings.add_at(&pointer, format!("'{key}': {message}"));
        };
        let selects_other_users = match &flag.definition {
            Some(definition) => has_other_fractional && uses_fractional(definition, settings),
            None => {
                is_partial(flag)
                    && (bucketings[0] != bucketings[1]
                        || has_other_fractional && bucketings[1] == Some(Bucketing::Fractional))
            }
        };
        if selects_other_users {
            add(
                "",
                format!(
                    "selects other users than in '{from}', because the settings of '{environment}' have another \
                     bucketing or fractional"
                ),
            );
        }
        let before = current.get(*key).map(|record| &record.flag);
        if let Some(before) = before
            && is_partial(before)
            && is_partial(flag)
        {
            let message = || format!("the rollout in '{environment}' moves to other users");
            if before.salt != flag.salt {
                add("/salt", message());
            }
            if before.bucketing(settings, source.defaults) != bucketings[1] {
                add("/bucketing", message());
            }
        }
        if server_only::hides(flag, &source.settings) && !server_only::hides(flag, settings) {
            let message = format!(
                "is visible to everyone in '{environment}', but in '{from}' only to callers with a server key"
            );
            add("", message);
        }
        if let Some(definition) = &flag.definition {
            let found = definition.lint_with(&evaluators);
            warnings.at(&format!("/{}/definition", pointers[key]), |warnings| {
                warnings.append(found.map(|found| Violation {
                    message: format!("'{key}': {}", found.message),
                    ..found
                }));
            });
        }
    }
    warnings
}

/// Whether this is a simple flag with a rollout from 1 to 99 %, enabled or not.
fn is_partial(flag: &Flag) -> bool {
    flag.definition.is_none() && (1..100).contains(&flag.rollout_percentage.percent())
}

fn is_unreadable(flag: &Flag) -> bool {
    let definition = flag.definition.as_ref();
    definition.is_some_and(|definition| definition.unreadable.is_some())
}

/// The names of the evaluators that a rule refers to, directly and through others.
fn evaluators_of<'a>(definition: &'a Definition, settings: &'a Settings) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let mut rules: Vec<&Value> = definition.targeting.iter().collect();
    while let Some(rule) = rules.pop() {
        for name in evaluators_in(rule) {
            if names.insert(name) {
                rules.extend(settings.evaluators.get(name));
            }
        }
    }
    names
}

/// Whether a rule, or an evaluator that it refers to, contains `fractional`.
fn uses_fractional(definition: &Definition, settings: &Settings) -> bool {
    fn contains(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            Value::Array(items) => items.iter().any(contains),
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| name == "fractional" || contains(value)),
        }
    }
    let names = evaluators_of(definition, settings);
    let evaluators = names
        .into_iter()
        .filter_map(|name| settings.evaluators.get(name));
    definition.targeting.iter().chain(evaluators).any(contains)
}
