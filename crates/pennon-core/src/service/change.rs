//! The common path of all changes: a transaction, and the cache invalidation around its commit.

use std::collections::BTreeSet;

use pennon_eval::{Flag, Settings};
use serde_json::{Value, json};
use tracing::error;

use super::FlagService;
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::request_context::RequestContext;
use crate::store::{FlagRecord, Transaction};

/// The result of a change.
#[derive(Debug)]
pub struct Changed<T> {
    /// The new state.
    pub value: T,
    /// Whether Redis confirmed the invalidation. `None` without Redis, where every instance reads the revision
    /// from the database, and if a ramp changes but its flag does not.
    pub invalidated: Option<bool>,
}

/// The state that a caller wants to replace (`If-Match`). Prevents a caller from overwriting a change that they
/// have not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// There is no `If-Match`.
    Unspecified,
    /// Any state.
    Any,
    /// One of these revisions.
    OneOf(Vec<i64>),
}

impl Expected {
    /// Checks the current state.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] if the revision is not one that the caller named.
    pub fn check(&self, revision: i64) -> Result<(), Error> {
        match self {
            Self::Unspecified | Self::Any => Ok(()),
            Self::OneOf(revisions) if revisions.contains(&revision) => Ok(()),
            Self::OneOf(_) => Err(Error::PreconditionFailed),
        }
    }

    /// Checks a state without a revision, such as a deleted flag: no revision that the caller named can be its own.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] if the caller named revisions.
    pub(super) fn check_without_revision(&self) -> Result<(), Error> {
        match self {
            Self::Unspecified | Self::Any => Ok(()),
            Self::OneOf(_) => Err(Error::PreconditionFailed),
        }
    }

    /// Rejects a request without `If-Match`.
    ///
    /// # Errors
    /// [`Error::PreconditionRequired`].
    pub fn require_if_match(&self) -> Result<(), Error> {
        match self {
            Self::Unspecified => Err(Error::PreconditionRequired),
            Self::Any | Self::OneOf(_) => Ok(()),
        }
    }
}

/// Validates the request if the store is unavailable, and prefers a validation error to the outage: the caller
/// should not retry a request that can never succeed.
pub(super) fn prefer_validation_error(
    error: Error,
    check: impl FnOnce() -> Result<(), Error>,
) -> Error {
    let is_outage = matches!(error, Error::Unavailable(_) | Error::StoreFile(_));
    match is_outage.then(check) {
        Some(Err(invalid)) => invalid,
        Some(Ok(())) | None => error,
    }
}

/// Placeholder settings that define every evaluator a rule or a file refers to. With them, rules can be validated
/// without the settings of their environment.
pub(super) fn settings_for(rules: &Value) -> Settings {
    let mut settings = Settings::default();
    for name in evaluators_in(rules) {
        let anything = json!({ "var": "anything" });
        settings.evaluators.insert(name.to_owned(), anything);
    }
    settings
}

/// The names of the evaluators that a rule or a file refers to.
pub(super) fn evaluators_in(rules: &Value) -> BTreeSet<&str> {
    fn collect<'a>(value: &'a Value, names: &mut BTreeSet<&'a str>) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get("$ref")
                    && !name.is_empty()
                {
                    names.insert(name);
                }
                fields.values().for_each(|value| collect(value, names));
            }
        }
    }
    let mut names = BTreeSet::new();
    collect(rules, &mut names);
    names
}

impl FlagService {
    /// Begins a transaction in an environment.
    pub(super) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        self.store.begin(environment, actor).await
    }

    /// Runs `work` in a transaction that is rolled back before this returns, also after an error. A transaction that is
    /// dropped instead may hold its locks until after the response, because it ends when its connection is closed. If
    /// PostgreSQL has not answered, it is dropped all the same: a rollback would only wait once more.
    pub(super) async fn rolled_back<T>(
        &self,
        environment: &Environment,
        actor: &Actor,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let result = work(&mut transaction).await;
        if !matches!(result, Err(Error::Unavailable(_))) {
            transaction.rollback().await;
        }
        result
    }

    /// Commits and invalidates the cache. Returns whether Redis confirmed the invalidation; `None` without Redis.
    pub(super) async fn commit(
        &self,
        transaction: Transaction,
        environment: &Environment,
        context: &RequestContext,
    ) -> Result<Option<bool>, Error> {
        self.commit_entries(transaction, &[environment], context)
            .await
    }

    /// Commits a change that affects several cache entries. The first is the environment's; another may be the list of
    /// all environments ([`Environment::listing`]).
    pub(super) async fn commit_entries(
        &self,
        transaction: Transaction,
        entries: &[&Environment],
        context: &RequestContext,
    ) -> Result<Option<bool>, Error> {
        let Some(cache) = &self.cache else {
            transaction.commit().await?;
            return Ok(None);
        };
        let for_barriers = context.with_half_budget();
        let mut barriers = Vec::with_capacity(entries.len());
        for entry in entries {
            barriers.push(cache.begin_write(entry, &for_barriers).await);
        }
        context.budget.give_back(&for_barriers.budget);
        let committed = transaction.commit().await;
        let mut confirmed = true;
        for (entry, barrier) in entries.iter().zip(barriers) {
            confirmed &= if committed.is_ok() {
                cache.end_write(entry, barrier, context).await
            } else {
                // The change may be committed already, or later if PostgreSQL has delayed the commit. So the barrier is
                // set again, whether Redis has confirmed it or not, and stays until it expires: without it, readers
                // could fill the old state just before the commit takes effect.
                cache.begin_write_again(entry, context).await
            };
        }
        context.trace.invalidated(confirmed);
        if !confirmed {
            report_unconfirmed(entries, committed.is_ok(), context);
        }
        committed?;
        Ok(Some(confirmed))
    }
}

/// A value as JSON for the audit.
pub(super) fn to_json(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Internal(error.to_string()))
}

/// A flag as the audit stores it: all that an editor can set except overrides, so that a flag can be reverted.
pub(super) fn state_of(record: &FlagRecord) -> Value {
    state_as(&record.flag, record.archived_at.is_some())
}

/// Like [`state_of`], for a flag without a record.
pub(super) fn state_as(flag: &Flag, archived: bool) -> Value {
    let mut state = serde_json::to_value(flag).unwrap_or_default();
    if let (Some(fields), true) = (state.as_object_mut(), archived) {
        fields.insert("archived".to_owned(), json!(true));
    }
    state
}

/// Parses the result of [`state_of`].
pub(super) fn from_audit(state: &Value) -> Option<AuditedFlag> {
    let mut fields = state.as_object()?.clone();
    // The audit stores overrides as a list of complete records.
    let overrides = fields.shift_remove(OVERRIDES);
    let overrides = overrides.as_ref().and_then(Value::as_array);
    let archived = fields.shift_remove("archived") == Some(Value::Bool(true));
    let mut flag: Flag = serde_json::from_value(Value::Object(fields)).ok()?;
    flag.overrides.clear();
    Some(AuditedFlag {
        flag,
        archived,
        overrides: overrides.into_iter().flatten().cloned().collect(),
    })
}

/// A flag from an audit entry.
pub(super) struct AuditedFlag {
    /// Without its overrides.
    pub(super) flag: Flag,
    /// Whether it was archived.
    pub(super) archived: bool,
    /// Its overrides; only the entries of a deletion and of a recreation have them.
    pub(super) overrides: Vec<Value>,
}

/// The field of an audit entry with a list of overrides: of a deleted or recreated flag, or of a bulk change.
pub(super) const OVERRIDES: &str = "overrides";

fn report_unconfirmed(entries: &[&Environment], is_committed: bool, context: &RequestContext) {
    let change = if is_committed {
        "the change is committed"
    } else {
        "the change may be committed"
    };
    error!(
        domain = "config",
        cache_invalidated = 0,
        environment = entries.first().map_or("", |entry| entry.as_str()),
        flag_key = context.trace.facts().flag_key.unwrap_or_default(),
        "{change}, but Redis did not confirm the invalidation; other instances may serve the old state until \
         reconcile removes the entry or it expires"
    );
}
