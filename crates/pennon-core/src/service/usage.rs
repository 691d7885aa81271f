//! Usage of flags, and flags that can probably be removed.

use std::time::{Duration, SystemTime};

use pennon_eval::{Bucketing, Flag, FlagKey};
use serde_json::Value;

use super::FlagService;
use super::validate::unknown_environment;
use crate::environment::Environment;
use crate::error::Error;
use crate::request_context::RequestContext;
use crate::server_only;
use crate::snapshot::Revision;
use crate::store::{DayCount, FlagOverview, FlagQuery, FlagRecord, HourCount, PageRequest, Usage};

const DAY: Duration = Duration::from_hours(24);
/// The default period. A flag that was not changed or not evaluated for a month is probably not waiting for a release.
pub const STALE_AFTER_DAYS: u32 = 30;

/// Why a flag is considered stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It was not evaluated.
    NotEvaluated,
    /// All callers get the same value, and the flag was not changed: the value can move into the code.
    SameForEveryone,
}

impl Stale {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEvaluated => "notEvaluated",
            Self::SameForEveryone => "sameForEveryone",
        }
    }
}

/// A flag that can probably be removed.
#[derive(Debug)]
pub struct StaleFlag {
    /// The key of the flag.
    pub key: FlagKey,
    /// At least one reason.
    pub reasons: Vec<Stale>,
    /// Its usage.
    pub usage: Usage,
    /// The flag.
    pub record: FlagRecord,
}

/// The usage of a flag.
#[derive(Debug)]
pub struct FlagUsage {
    /// The usage since counting began.
    pub usage: Usage,
    /// Counts by day and variant.
    pub days: Vec<DayCount>,
    /// Counts by hour and variant, of the present hour and the 23 before it.
    pub hours: Vec<HourCount>,
}

/// All flags of an environment, and what they have in common.
#[derive(Debug)]
pub struct Overviews {
    /// The revision of the environment.
    pub revision: Revision,
    /// The hash that orders the users of its simple flags; `None` if it depends on unreadable settings or defaults.
    pub bucketing: Option<Bucketing>,
    /// All flags, archived ones included, by key.
    pub flags: Vec<Overview>,
}

/// A flag in a list of all flags.
#[derive(Debug)]
pub struct Overview {
    /// The stored flag.
    pub stored: FlagOverview,
    /// Whether it is hidden from client keys and from callers without a key or role.
    pub server_only: bool,
    /// Why it can probably be removed, judged by the last 30 days.
    pub stale: Vec<Stale>,
}

impl Overview {
    /// The type of the flag's values: `boolean`, `string`, `number`, `object`, or `unreadable`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let Some(definition) = &self.stored.record.flag.definition else {
            return "boolean";
        };
        match definition.variants.values().next() {
            Some(Value::Bool(_)) => "boolean",
            Some(Value::String(_)) => "string",
            Some(Value::Number(_)) => "number",
            Some(Value::Object(_)) => "object",
            Some(Value::Null | Value::Array(_)) | None => "unreadable",
        }
    }
}

impl FlagService {
    /// All flags of an environment. Takes three queries for any number of flags.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown environment.
    pub async fn overviews(&self, environment: &Environment) -> Result<Overviews, Error> {
        let found = self.store.flag_overviews(environment).await?;
        if found.revision.is_none() && *environment != Environment::production() {
            return Err(unknown_environment(environment));
        }
        let settings = self.store.settings(environment).await?.settings;
        let defaults = self.store.evaluation_defaults().await?;
        let since = SystemTime::now() - DAY * STALE_AFTER_DAYS;
        let flags = found.flags.into_iter().map(|stored| Overview {
            server_only: server_only::hides(&stored.record.flag, &settings),
            stale: if stored.record.archived_at.is_some() {
                Vec::new()
            } else {
                let has_overrides = stored.overrides > 0;
                reasons(
                    &stored.record,
                    has_overrides,
                    stored.last_evaluated_at,
                    since,
                )
            },
            stored,
        });
        Ok(Overviews {
            revision: found.revision.unwrap_or(Revision::NONE),
            bucketing: settings
                .bucketing(defaults)
                .filter(|_| settings.unreadable.is_none()),
            flags: flags.collect(),
        })
    }

    /// The flags that were not evaluated, or had the same value for all callers, for this many days. A flag
    /// younger than that is never stale.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store does not answer.
    pub async fn stale_flags(
        &self,
        environment: &Environment,
        days: u32,
        context: &RequestContext,
    ) -> Result<Vec<StaleFlag>, Error> {
        let everything = FlagQuery {
            search: String::new(),
            archived: false,
            page: PageRequest {
                number: 1,
                size: u32::MAX,
            },
        };
        let reading = self.read(environment, context).await?;
        let records = self.store.list_flags(environment, &everything).await?;
        let usage = self.store.usage(environment).await?;
        let since = SystemTime::now() - DAY * days;
        let mut stale = Vec::new();
        for (key, record) in records.items {
            let usage = usage.get(&key).copied().unwrap_or_default();
            let flag = reading.snapshot.flags.get(&key);
            let has_overrides = flag.is_none_or(|flag| !flag.overrides.is_empty());
            let reasons = reasons(&record, has_overrides, usage.last_evaluated_at, since);
            if !reasons.is_empty() {
                stale.push(StaleFlag {
                    key,
                    reasons,
                    usage,
                    record,
                });
            }
        }
        Ok(stale)
    }

    /// The usage of a flag. A deleted flag may still have counts.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`] if there is neither a flag nor a count with this key;
    /// [`Error::Unavailable`] if the store does not answer.
    pub async fn flag_usage(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<FlagUsage, Error> {
        let usage = self.store.usage(environment).await?.remove(key);
        let flag = self.store.find_flag(environment, key).await?;
        if usage.is_none() && flag.is_none() {
            return Err(Error::FlagNotFound(key.to_string()));
        }
        Ok(FlagUsage {
            usage: usage.unwrap_or_default(),
            days: self.store.day_counts(environment, key, days).await?,
            hours: self.store.hour_counts(environment, key, 23).await?,
        })
    }
}

/// Why a flag that is not archived is considered stale: it was not evaluated since this time, or it was not changed since
/// then and has one value.
fn reasons(
    record: &FlagRecord,
    has_overrides: bool,
    last_evaluated_at: Option<SystemTime>,
    since: SystemTime,
) -> Vec<Stale> {
    let before = |time: SystemTime| time < since;
    let mut reasons = Vec::new();
    if last_evaluated_at.is_none_or(before) && record.created_at.is_some_and(before) {
        reasons.push(Stale::NotEvaluated);
    }
    if is_same_for_everyone(&record.flag, has_overrides) && record.updated_at.is_some_and(before) {
        reasons.push(Stale::SameForEveryone);
    }
    reasons
}

/// Whether every caller gets the same value.
fn is_same_for_everyone(flag: &Flag, has_overrides: bool) -> bool {
    if !flag.enabled {
        return true;
    }
    let decided = match &flag.definition {
        Some(definition) => definition.rule().is_none(),
        None => [0, 100].contains(&flag.rollout_percentage.percent()),
    };
    decided && !has_overrides
}
