//! Checks of a change against other data: other flags, settings, overrides and schedules.

use std::collections::BTreeMap;

use pennon_eval::{
    Definition, Evaluators, Flag, FlagKey, Settings, Summary, Violation, Violations,
};

use super::change::to_json;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::{FlagMeter, Measure, first_exceeded};
use crate::snapshot::Revision;
use crate::store::{FlagRecord, FlagRecords, ScheduleRecord, Transaction};

/// One flag before and after a change.
pub(super) type FlagChange<'a> = (&'a FlagKey, &'a Flag, &'a Flag);

/// Locks the environment and rejects one that does not exist. Production always exists, but a new database has no row
/// for it that could be locked, so this adds one.
pub(super) async fn require_environment_in(
    transaction: &mut Transaction,
    environment: &Environment,
) -> Result<(), Error> {
    let revision = transaction.lock_revision().await?;
    require_known(environment, revision)?;
    if revision.is_none() {
        transaction.raise_revision().await?;
    }
    Ok(())
}

/// Rejects an environment that does not exist, which has no revision. Production always exists.
pub(super) fn require_known(
    environment: &Environment,
    revision: Option<Revision>,
) -> Result<(), Error> {
    if revision.is_some() || *environment == Environment::production() {
        Ok(())
    } else {
        Err(unknown_environment(environment))
    }
}

pub(super) fn unknown_environment(environment: &Environment) -> Error {
    Error::NotFound(format!("Environment '{environment}'"))
}

/// Rejects changes that remove a variant which an override names: its users would get an error.
///
/// # Errors
/// [`Error::Conflict`] that names flags and variants, and how many users have each.
pub(super) async fn reject_removal_of_used_variants(
    transaction: &mut Transaction,
    changes: &[FlagChange<'_>],
) -> Result<(), Error> {
    let after: BTreeMap<&FlagKey, Option<&Definition>> = changes
        .iter()
        .filter(|(_, before, after)| loses_a_variant(before, after))
        .map(|(key, _, after)| (*key, after.definition.as_ref()))
        .collect();
    if after.is_empty() {
        return Ok(());
    }
    let keys: Vec<&FlagKey> = after.keys().copied().collect();
    let mut conflicts = Summary::default();
    for (key, variant, users) in transaction.variants_in_overrides(&keys).await? {
        let kept = after.get(&key).copied().flatten();
        if kept.is_some_and(|kept| kept.variants.contains_key(&variant)) {
            continue;
        }
        let have = if users == 1 { "user has" } else { "users have" };
        let conflict = format!("{users} {have} the variant '{variant}' of '{key}' by an override");
        conflicts.add(conflict);
    }
    if conflicts.count() == 0 {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "{}; change or remove those overrides before you remove the variant",
        conflicts.join("; ")
    )))
}

fn loses_a_variant(before: &Flag, after: &Flag) -> bool {
    let Some(before) = &before.definition else {
        return false;
    };
    let after = after.definition.as_ref();
    // Overrides may name variants of a definition that cannot be read.
    if before.unreadable.is_some() && after.is_none_or(|after| after.unreadable.is_none()) {
        return true;
    }
    before
        .variants
        .keys()
        .any(|name| after.is_none_or(|after| !after.variants.contains_key(name)))
}

/// Rejects a definition for a flag with a scheduled rollout percentage, which would have no effect on it.
///
/// # Errors
/// [`Error::Conflict`] that names flags and schedules.
pub(super) async fn reject_ineffective_schedules(
    transaction: &mut Transaction,
    changes: &[FlagChange<'_>],
) -> Result<(), Error> {
    let become_typed = changes
        .iter()
        .filter(|(_, before, after)| before.definition.is_none() && after.definition.is_some());
    let keys: Vec<&FlagKey> = become_typed.map(|(key, _, _)| *key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut schedules = Summary::default();
    for schedule in transaction.schedules(&keys).await? {
        if schedule.is_open() && schedule.sets_rollout_percentage() {
            let ScheduleRecord { id, flag_key, .. } = schedule;
            schedules.add(format!("schedule '{id}' of '{flag_key}'"));
        }
    }
    if schedules.count() == 0 {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "A rollout percentage has no effect on a flag with a definition, and a schedule sets one: {}; cancel \
         it before you add the definition",
        schedules.join("; ")
    )))
}

/// Rejects a flag that takes its environment over a limit: of the response with all flags, of the memory
/// of an instance, or of the work of a request. A flag that does not grow is never rejected.
///
/// One statement reads sums over the other flags. The flags themselves are measured only if the sums do not
/// rule out a violation.
///
/// # Errors
/// [`Error::Invalid`] that names the flag, what takes the most, the size and the limit.
pub(super) async fn check_limits_with_flag(
    transaction: &mut Transaction,
    environment: &Environment,
    (key, before, after): (&FlagKey, Option<&FlagRecord>, &Flag),
) -> Result<(), Error> {
    let before = before.filter(|record| record.archived_at.is_none());
    if before.is_some_and(|record| record.flag.definition == after.definition) {
        return Ok(());
    }
    let settings = transaction.settings().await?.settings;
    let meter = FlagMeter::with(&settings);
    let grown: Vec<(Measure, usize)> = Measure::ALL
        .into_iter()
        .map(|measure| (measure, meter.of_flag(measure, key, after)))
        .filter(|(measure, becomes)| {
            let was = before.map(|record| meter.of_flag(*measure, key, &record.flag));
            was.is_none_or(|was| *becomes > was)
        })
        .collect();
    if grown.is_empty() {
        return Ok(());
    }
    // Locks the environment, so that the sums stay true until the commit.
    transaction.lock_revision().await?;
    let others = transaction.sums_without(key).await?;
    let doubtful: Vec<(Measure, usize)> = grown
        .into_iter()
        .filter(|(measure, becomes)| {
            meter.at_most(*measure, others).saturating_add(*becomes) > measure.limit()
        })
        .collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    let flags = transaction.flags_in_use().await?;
    let all = || {
        let others = flags.iter().filter(|(name, _)| *name != key);
        let others = others.map(|(name, record)| (name, &record.flag));
        others.chain([(key, after)])
    };
    let field = if after.definition.is_some() {
        "definition"
    } else {
        "key"
    };
    for (measure, becomes) in doubtful {
        let total = meter.of_all(measure, all());
        if total > measure.limit() {
            let message = meter.message(measure, environment.as_str(), total, all());
            let with = format!("With '{key}', which takes up to {becomes}: {message}");
            return Err(Error::invalid_field(field, with));
        }
    }
    Ok(())
}

/// Rejects flags and settings that together exceed a limit and grow.
///
/// # Errors
/// [`Error::Invalid`] that names what takes the most, the size and the limit. It is about the field
/// `field_of_bytes` if the response with all flags would be too large, otherwise about `field`.
pub(super) fn check_limits_of_environment<'a>(
    (field_of_bytes, field): (&str, &str),
    environment: &Environment,
    before: (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
    after: (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
) -> Result<(), Error> {
    match first_exceeded(&Measure::ALL, environment.as_str(), Some(before), after) {
        None => Ok(()),
        Some((Measure::Bytes, message)) => Err(Error::invalid_field(field_of_bytes, message)),
        Some((Measure::Values | Measure::Steps, message)) => {
            Err(Error::invalid_field(field, message))
        }
    }
}

/// Flags that new settings break.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// Definitions that become invalid.
    pub(super) errors: Violations,
    /// Rules that stop working.
    pub(super) warnings: Violations,
}

/// Finds flags that a change of the settings breaks. Problems that exist before the change are left out. `in_request`
/// converts the pointer of a violation, which is relative to the flag, to one into the request.
pub(super) fn broken_by<'a>(
    flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    before: &Settings,
    after: &Settings,
    in_request: impl Fn(&FlagKey, Violation) -> Violation,
) -> Result<Broken, Error> {
    let mut broken = Broken::default();
    if before.evaluators == after.evaluators && before.fractional == after.fractional {
        return Ok(broken);
    }
    let before = &Evaluators::of(before);
    let after = &Evaluators::of(after);
    for (key, flag) in flags {
        let Some(definition) = &flag.definition else {
            continue;
        };
        let text = to_json(definition)?;
        if let Err(problems) = Definition::validate_with(&text, after) {
            let known = Definition::validate_with(&text, before)
                .err()
                .unwrap_or_default();
            let new = problems.without(&known);
            broken
                .errors
                .append(new.map(|found| in_request(key, found)));
            continue;
        }
        let warnings = definition.lint_with(after);
        if !warnings.is_empty() {
            let new = warnings.without(&definition.lint_with(before));
            broken
                .warnings
                .append(new.map(|found| in_request(key, found)));
        }
    }
    Ok(broken)
}

/// Flags that are not archived. Archived flags are checked when they are restored.
pub(super) fn in_use(flags: &FlagRecords) -> impl Iterator<Item = (&FlagKey, &Flag)> + Clone {
    let in_use = flags
        .iter()
        .filter(|(_, record)| record.archived_at.is_none());
    in_use.map(|(key, record)| (key, &record.flag))
}
