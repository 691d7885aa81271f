//! Usage of flags, and flags that can probably be removed.

use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey};

use super::FlagService;
use crate::environment::Environment;
use crate::error::Error;
use crate::request_context::RequestContext;
use crate::store::{DayCount, FlagQuery, FlagRecord, Page, Usage};

const DAY: Duration = Duration::from_hours(24);

/// Why a flag is considered stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It was not evaluated.
    NotEvaluated,
    /// All callers get the same value, and the flag was not changed: the value can move into the code.
    SameForEveryone,
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
}

impl FlagService {
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
            page: Page {
                number: 1,
                size: u32::MAX,
            },
        };
        let reading = self.read(environment, context).await?;
        let records = self.store.list_flags(environment, &everything).await?;
        let usage = self.store.usage(environment).await?;
        let since = SystemTime::now() - DAY * days;
        let before = |time: Option<SystemTime>| time.is_none_or(|time| time < since);
        let mut stale = Vec::new();
        for (key, record) in records.items {
            let usage = usage.get(&key).copied().unwrap_or_default();
            let mut reasons = Vec::new();
            if before(usage.last_evaluated_at) && before(record.created_at) {
                reasons.push(Stale::NotEvaluated);
            }
            let flag = reading.snapshot.flags.get(&key);
            if flag.is_some_and(is_same_for_everyone) && before(record.updated_at) {
                reasons.push(Stale::SameForEveryone);
            }
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
        })
    }
}

/// Whether every caller gets the same value.
fn is_same_for_everyone(flag: &Flag) -> bool {
    if !flag.enabled {
        return true;
    }
    let decided = match &flag.definition {
        Some(definition) => definition.targeting.is_none(),
        None => [0, 100].contains(&flag.rollout_percentage.percent()),
    };
    decided && flag.overrides.is_empty()
}
