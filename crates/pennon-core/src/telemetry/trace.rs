//! Collects the facts about one request that its log line and metrics report.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::text::{MAX_IGNORED_LENGTH, MAX_NAME_LENGTH, shorten};
use crate::counts::PostedCounts;

/// Limit on the ignored fields that a log line lists.
const MAX_IGNORED: usize = 10;
/// Limit on the reason why a token is rejected or its issuer fails, in bytes. Anonymous requests can cause both.
const MAX_REASON_LENGTH: usize = 150;

/// The result of a read from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The cache had the entry, or confirmed the revision that the instance has.
    Hit,
    /// The cache had no usable entry.
    Miss,
    /// The cache did not answer.
    Unavailable,
}

/// Collects [`Facts`] during a request.
#[derive(Debug, Default)]
pub struct Trace {
    facts: Mutex<Facts>,
}

/// The facts about one request.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The result of the cache, if the request read flags.
    pub cache: Option<CacheOutcome>,
    /// The cache entry had expired.
    pub expired: bool,
    /// Whether Redis confirmed the invalidation, if the request changed flags and there is a cache.
    pub invalidated: Option<bool>,
    /// Neither Redis nor PostgreSQL could confirm the flags of the response.
    pub stale: bool,
    /// The requested flag.
    pub flag_key: Option<String>,
    /// The kind of failure of the request, or of the cache if the request succeeded.
    pub error_type: Option<&'static str>,
    /// The Redis node used last.
    pub node_id: Option<Arc<str>>,
    /// Unknown fields of the body.
    pub ignored_fields: Vec<String>,
    /// The requested environment does not exist.
    pub unknown_environment: bool,
    /// Failed attempts to use Redis.
    pub connection_errors: u32,
    /// Why the bearer token of a public route was rejected.
    pub token_error: Option<String>,
    /// Why the keys of the issuer could not be fetched.
    pub issuer_error: Option<String>,
    /// Counts that the caller has posted.
    pub posted: Option<PostedCounts>,
    pub(super) retries: u32,
    pub(super) database_loads: u32,
    pub(super) fills_refused: u32,
    pub(super) unreadable_rows: usize,
}

impl Trace {
    /// Records the result of a read from the cache.
    pub fn cache(&self, outcome: CacheOutcome) {
        self.lock().cache = Some(outcome);
    }

    /// Records that the requested environment does not exist.
    pub fn unknown_environment(&self) {
        self.lock().unknown_environment = true;
    }

    /// Records that the cache entry had expired.
    pub fn expired(&self) {
        self.lock().expired = true;
    }

    /// Records whether Redis confirmed the invalidation of a change.
    pub fn invalidated(&self, confirmed: bool) {
        self.lock().invalidated = Some(confirmed);
    }

    /// Records that nothing confirmed the flags of the response.
    pub fn stale(&self) {
        self.lock().stale = true;
    }

    /// Records the number of unreadable rows of an environment. If the request reads several environments, the
    /// largest number counts.
    pub fn unreadable_rows(&self, count: usize) {
        let mut facts = self.lock();
        facts.unreadable_rows = facts.unreadable_rows.max(count);
    }

    /// Records the requested flag.
    pub fn flag_key(&self, key: &str) {
        self.lock().flag_key = Some(shorten(key, MAX_NAME_LENGTH).into_owned());
    }

    /// Records the Redis node used.
    pub fn node(&self, address: Arc<str>) {
        self.lock().node_id = Some(address);
    }

    /// Records unknown fields of the body.
    pub fn ignored_fields(&self, names: &[String]) {
        let names = names.iter().take(MAX_IGNORED);
        let names = names.map(|name| shorten(name, MAX_IGNORED_LENGTH).into_owned());
        self.lock().ignored_fields = names.collect();
    }

    /// Records the kind of failure of the request.
    pub fn failed(&self, error_type: &'static str) {
        self.lock().error_type = Some(error_type);
    }

    /// Records the kind of failure of the cache, unless the request itself has failed.
    pub fn cache_failed(&self, error_type: &'static str) {
        self.lock().error_type.get_or_insert(error_type);
    }

    /// Counts a failed attempt to use Redis.
    pub fn connection_error(&self) {
        self.lock().connection_errors += 1;
    }

    /// Counts a retry.
    pub fn retried(&self) {
        self.lock().retries += 1;
    }

    /// Counts a read of a snapshot from PostgreSQL.
    pub fn database_load(&self) {
        self.lock().database_loads += 1;
    }

    /// Counts a fill that Redis rejected because its lease had expired, or a change or another fill had deleted it.
    pub fn fill_refused(&self) {
        self.lock().fills_refused += 1;
    }

    /// Records why the bearer token of a public route was rejected. The caller is then anonymous.
    pub fn token_rejected(&self, why: &str) {
        self.lock().token_error = Some(shorten(why, MAX_REASON_LENGTH).into_owned());
    }

    /// Records why the keys of the issuer could not be fetched.
    pub fn issuer_failed(&self, why: &str) {
        self.lock().issuer_error = Some(shorten(why, MAX_REASON_LENGTH).into_owned());
    }

    /// Records counts that the caller has posted. They are added from the log line.
    pub fn posted(&self, counts: PostedCounts) {
        self.lock().posted = Some(counts);
    }

    /// Takes the facts at the end of the request.
    #[must_use]
    pub fn take(&self) -> Facts {
        std::mem::take(&mut *self.lock())
    }

    /// The facts so far.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
