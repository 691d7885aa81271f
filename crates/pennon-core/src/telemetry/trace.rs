//! The facts about one request that its log line and metrics report.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::text::{LONGEST_IGNORED, LONGEST_NAME, shorten};

/// How many ignored fields a line names at most.
const MOST_IGNORED: usize = 10;

/// How the cache took part in a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// It had the answer, or said that what the instance holds is current.
    Hit,
    /// It had none.
    Miss,
    /// It could not be asked.
    Unavailable,
}

/// What happened during one request, collected while it happens.
#[derive(Debug, Default)]
pub struct Trace {
    facts: Mutex<Facts>,
}

/// What happened during one request.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The cache's part, when the request read flags.
    pub cache: Option<CacheOutcome>,
    /// The entry had been there and ran out.
    pub expired: bool,
    /// Whether Redis confirmed the invalidation of a change, where there was a change and a cache.
    pub invalidated: Option<bool>,
    /// Neither cache nor database answered; the answer is from before.
    pub stale: bool,
    /// The flag that was asked for.
    pub flag_key: Option<String>,
    /// What kind of failure the request met, whether or not it was answered.
    pub error_type: Option<&'static str>,
    /// The node of Redis that answered last, or failed to.
    pub node_id: Option<String>,
    /// Names in the body that mean nothing to us.
    pub ignored_fields: Vec<String>,
    /// The environment that was asked for does not exist.
    pub unknown_environment: bool,
    /// Attempts at Redis that failed.
    pub connection_errors: u32,
    /// Cache entries that were not authentic.
    pub forged_entries: u32,
    pub(super) retries: u32,
    pub(super) database_loads: u32,
    pub(super) fills_refused: u32,
    pub(super) unreadable_rows: usize,
}

impl Trace {
    /// The request read flags, and the cache took this part.
    pub fn cache(&self, outcome: CacheOutcome) {
        self.lock().cache = Some(outcome);
    }

    /// The environment that was asked for does not exist.
    pub fn unknown_environment(&self) {
        self.lock().unknown_environment = true;
    }

    /// The entry had been there and ran out.
    pub fn expired(&self) {
        self.lock().expired = true;
    }

    /// Records whether Redis confirmed the invalidation of a change.
    pub fn invalidated(&self, told: bool) {
        self.lock().invalidated = Some(told);
    }

    /// The answer is from before.
    pub fn stale(&self) {
        self.lock().stale = true;
    }

    /// So many items of the environment that was read cannot be read. Of several environments, the most.
    pub fn unreadable_rows(&self, count: usize) {
        let mut facts = self.lock();
        facts.unreadable_rows = facts.unreadable_rows.max(count);
    }

    /// The flag that the request is about.
    pub fn flag_key(&self, key: &str) {
        self.lock().flag_key = Some(shorten(key, LONGEST_NAME).into_owned());
    }

    /// This node of Redis answered, or failed to.
    pub fn node(&self, address: String) {
        self.lock().node_id = Some(address);
    }

    /// Names in the body that mean nothing to us.
    pub fn ignored_fields(&self, names: &[String]) {
        let names = names.iter().take(MOST_IGNORED);
        let names = names.map(|name| shorten(name, LONGEST_IGNORED).into_owned());
        self.lock().ignored_fields = names.collect();
    }

    /// The request failed in this way.
    pub fn failed(&self, error_type: &'static str) {
        self.lock().error_type = Some(error_type);
    }

    /// The cache failed in this way. A failure of the request itself is the better word.
    pub fn cache_failed(&self, error_type: &'static str) {
        self.lock().error_type.get_or_insert(error_type);
    }

    /// An attempt at Redis failed.
    pub fn connection_error(&self) {
        self.lock().connection_errors += 1;
    }

    /// An attempt at Redis is made again.
    pub fn retried(&self) {
        self.lock().retries += 1;
    }

    /// The database was asked for a snapshot.
    pub fn database_load(&self) {
        self.lock().database_loads += 1;
    }

    /// A fill came too late.
    pub fn fill_refused(&self) {
        self.lock().fills_refused += 1;
    }

    /// A cache entry was not authentic, and was dropped.
    pub fn forged_entry(&self) {
        self.lock().forged_entries += 1;
    }

    /// All of it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
