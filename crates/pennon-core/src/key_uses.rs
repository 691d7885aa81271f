//! Records which API keys are in use, without a database write in the request.
//!
//! An instance adds the id of a key to the log line of the first request with it in each hour. `count-evaluations`
//! receives these lines, like those with [`counts`](crate::counts), and stores the day. No day is missed, because an
//! hour does not cross midnight (UTC).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often an instance reports a key. A day must be a multiple of it.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The times at which keys were used, by the id of the key.
pub type LastUses = BTreeMap<String, SystemTime>;

/// The keys that an instance has accepted in the present interval.
#[derive(Debug, Default)]
pub struct KeyUses {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the interval since 1970.
    interval: u64,
    /// The keys used in it.
    known: BTreeSet<String>,
    /// The uses that were not taken yet.
    new: LastUses,
}

impl KeyUses {
    /// Records that a valid key was used. Its id is kept only if it is the first use in this interval.
    pub fn add(&self, id: &str, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let interval = since.as_secs() / INTERVAL.as_secs();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.interval != interval {
            inner.interval = interval;
            inner.known.clear();
        }
        if !inner.known.contains(id) {
            inner.known.insert(id.to_owned());
            inner.new.insert(id.to_owned(), at);
        }
    }

    /// Takes the uses that were not reported yet.
    #[must_use]
    pub fn take(&self) -> LastUses {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inner.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_reported_once_an_hour_and_on_every_day() {
        let uses = KeyUses::default();
        let midnight = UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 60 * 60);
        let before = midnight - Duration::from_secs(1);
        uses.add("a", before);
        uses.add("a", before);
        uses.add("b", before);
        let expected = [("a".to_owned(), before), ("b".to_owned(), before)];
        assert_eq!(uses.take(), LastUses::from(expected));
        uses.add("a", before);
        assert_eq!(uses.take(), LastUses::new(), "reported twice in an hour");
        uses.add("a", midnight);
        uses.add("a", midnight + INTERVAL - Duration::from_secs(1));
        assert_eq!(uses.take(), LastUses::from([("a".to_owned(), midnight)]));
        uses.add("a", midnight + INTERVAL);
        assert_eq!(uses.take().len(), 1, "not reported in the next hour");
    }
}
