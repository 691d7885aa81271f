//! What every change has in common: a transaction, and the cache told before and after its commit.

use pennon_eval::{Flag, Settings};
use serde_json::{Value, json};
use tracing::error;

use super::{FlagService, Scope};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{FlagRecord, Transaction};

/// What became of a change.
#[derive(Debug)]
pub struct Changed<T> {
    /// What there is from now on.
    pub value: T,
    /// Whether every instance reads it from now on. `None` without a shared cache, where every
    /// instance asks the database anyway.
    pub invalidated: Option<bool>,
}

/// Which state a caller wants to change (`If-Match`), so that nobody overwrites unseen what somebody
/// else has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The caller does not say.
    Unsaid,
    /// Whatever it is.
    Any,
    /// One of these revisions.
    OneOf(Vec<i64>),
}

impl Expected {
    /// Checks the state that is there.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when it is another than the caller knows.
    pub fn check(&self, revision: i64) -> Result<(), Error> {
        match self {
            Self::Unsaid | Self::Any => Ok(()),
            Self::OneOf(revisions) if revisions.contains(&revision) => Ok(()),
            Self::OneOf(_) => Err(Error::PreconditionFailed),
        }
    }

    /// Insists that the caller says something.
    ///
    /// # Errors
    /// [`Error::PreconditionRequired`] when it does not.
    pub fn must_be_said(&self) -> Result<(), Error> {
        match self {
            Self::Unsaid => Err(Error::PreconditionRequired),
            Self::Any | Self::OneOf(_) => Ok(()),
        }
    }
}

/// What to answer when a change cannot be made because the store does not answer: what is wrong with the
/// request, if that can be told without the store. The same request would fail later as well.
pub(super) fn or_mistake(error: Error, check: impl FnOnce() -> Result<(), Error>) -> Error {
    let is_outage = matches!(error, Error::Unavailable(_) | Error::StoreFile(_));
    match is_outage.then(check) {
        Some(Err(mistake)) => mistake,
        Some(Ok(())) | None => error,
    }
}

/// Settings in which a rule, or a file of rules, finds every evaluator that it refers to: for what can be
/// told of it without the settings of its environment.
pub(super) fn settings_for(rules: &Value) -> Settings {
    fn collect(value: &Value, settings: &mut Settings) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => items.iter().for_each(|item| collect(item, settings)),
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get("$ref")
                    && !name.is_empty()
                {
                    let anything = json!({ "var": "anything" });
                    settings.evaluators.insert(name.clone(), anything);
                }
                fields.values().for_each(|value| collect(value, settings));
            }
        }
    }
    let mut settings = Settings::default();
    collect(rules, &mut settings);
    settings
}

impl FlagService {
    /// Begins to change an environment.
    pub(super) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        self.store.begin(environment, actor).await
    }

    /// Commits and invalidates the cache. Returns whether the invalidation was confirmed.
    pub(super) async fn commit(
        &self,
        open: Transaction,
        environment: &Environment,
        scope: &Scope,
    ) -> Result<Option<bool>, Error> {
        self.commit_in(open, &[environment], scope).await
    }

    /// The same for a change that affects several entries; the first is that of the environment itself.
    pub(super) async fn commit_in(
        &self,
        open: Transaction,
        places: &[&Environment],
        scope: &Scope,
    ) -> Result<Option<bool>, Error> {
        let Some(cache) = &self.cache else {
            open.commit().await?;
            return Ok(None);
        };
        let first_half = scope.budget.half();
        let mut barriers = Vec::with_capacity(places.len());
        for place in places {
            barriers.push(cache.begin_write(place, &first_half, &scope.trace).await);
        }
        scope.budget.give_back(&first_half);
        let committed = open.commit().await;
        let mut confirmed = true;
        for (place, barrier) in places.iter().zip(barriers) {
            // After an error the outcome is unknown. A confirmed barrier stays, and expires after the commit
            // can no longer happen; without one, the entry is removed, since it may be out of date.
            if committed.is_ok() || !barrier.is_set() {
                confirmed &= cache
                    .end_write(place, barrier, &scope.budget, &scope.trace)
                    .await;
            }
        }
        committed?;
        scope.trace.invalidated(confirmed);
        if !confirmed {
            report_unconfirmed(places, scope);
        }
        Ok(Some(confirmed))
    }
}

/// A value as the audit stores it.
pub(super) fn to_json(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Internal(error.to_string()))
}

/// A flag as the audit keeps it: all that an admin can set, so that it can be put back.
pub(super) fn state_of(record: &FlagRecord) -> Value {
    state_as(&record.flag, record.archived_at.is_some())
}

/// The same of a flag that is archived, or not.
pub(super) fn state_as(flag: &Flag, archived: bool) -> Value {
    let mut state = serde_json::to_value(flag).unwrap_or_default();
    if let (Some(fields), true) = (state.as_object_mut(), archived) {
        fields.insert("archived".to_owned(), json!(true));
    }
    state
}

/// The other way round.
pub(super) fn from_audit(state: &Value) -> Option<Kept> {
    let mut fields = state.as_object()?.clone();
    // They stand there as a list, with all that is known of each.
    let overrides = fields.shift_remove(OVERRIDES);
    let overrides = overrides.as_ref().and_then(Value::as_array);
    let archived = fields.shift_remove("archived") == Some(Value::Bool(true));
    let mut flag: Flag = serde_json::from_value(Value::Object(fields)).ok()?;
    flag.overrides.clear();
    Some(Kept {
        flag,
        archived,
        overrides: overrides.into_iter().flatten().cloned().collect(),
    })
}

/// A flag as an entry of the audit has it.
pub(super) struct Kept {
    /// Without its overrides.
    pub(super) flag: Flag,
    /// Whether it was out of use.
    pub(super) archived: bool,
    /// Its overrides, in the entry of its deletion.
    pub(super) overrides: Vec<Value>,
}

/// Where they stand in an entry about several overrides: of a flag that goes or comes back with them, or
/// of a change of many at once.
pub(super) const OVERRIDES: &str = "overrides";

fn report_unconfirmed(places: &[&Environment], scope: &Scope) {
    error!(
        domain = "config",
        cache_invalidated = 0,
        environment = places.first().map_or("", |place| place.as_str()),
        flag_key = scope.trace.facts().flag_key.unwrap_or_default(),
        "the change is committed but Redis could not be told; \
         other instances may serve the old value until it is reconciled or expires"
    );
}
