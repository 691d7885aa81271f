//! How flags are used, and which of them nobody needs any more.

use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey};

use super::{FlagService, Scope};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{DayCount, FlagQuery, FlagRecord, Page, Usage};

const DAY: Duration = Duration::from_hours(24);

/// Why a flag may be one that nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Nobody has asked for it.
    NotEvaluated,
    /// Everybody gets the same value, and nobody has changed that: the code can have it instead.
    SameForEveryone,
}

/// A flag that may be of no use any more.
#[derive(Debug)]
pub struct StaleFlag {
    /// Which.
    pub key: FlagKey,
    /// Why, at least one reason.
    pub reasons: Vec<Stale>,
    /// How it is used.
    pub usage: Usage,
    /// The flag.
    pub record: FlagRecord,
}

/// How a flag was used lately.
#[derive(Debug)]
pub struct FlagUsage {
    /// Since anybody counts.
    pub usage: Usage,
    /// By day and variant.
    pub days: Vec<DayCount>,
}

impl FlagService {
    /// The flags for which, for so many days, nobody has asked, or everybody got the same value. A flag
    /// that is younger is not stale, whatever happens to it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer.
    pub async fn stale_flags(
        &self,
        environment: &Environment,
        days: u32,
        scope: &Scope,
    ) -> Result<Vec<StaleFlag>, Error> {
        let everything = FlagQuery {
            search: String::new(),
            archived: false,
            page: Page {
                number: 1,
                size: u32::MAX,
            },
        };
        let reading = self.read(environment, scope).await?;
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

    /// How a flag was used. One that is gone may still have been.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`] when there is neither such a flag nor a trace of one;
    /// [`Error::Unavailable`] when the store does not answer.
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

/// Whether no caller can make a difference.
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
