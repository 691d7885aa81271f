//! Whether the database answers, for health checks, without letting anyone who asks use it up.

use std::time::{Duration, Instant};

use super::{FlagService, Scope};
use crate::store::Store;

/// Anyone may ask for `/health`, as often as they like. An instance passes that on to PostgreSQL once in
/// this time, and answers what it found then.
const BETWEEN_CHECKS: Duration = Duration::from_secs(10);

/// What a check of the database found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseCheck {
    /// Why it did not answer, or could not be read: a sentence for the log, without secrets.
    pub failure: Option<String>,
    /// How much of what is stored cannot be read, over all environments. 0 when that cannot be found out.
    pub unreadable_rows: usize,
}

/// The last check of this instance, and when it was made.
pub(super) type LastCheck = tokio::sync::Mutex<Option<(Instant, DatabaseCheck)>>;

impl FlagService {
    /// Whether the database answers within that time, and whether it can be read. PostgreSQL is asked once
    /// in ten seconds; in between the answer is that of the last check. A file is looked at every time.
    pub async fn check_database(&self, scope: &Scope, within: Duration) -> DatabaseCheck {
        match &self.store {
            Store::Postgres(_) => {
                let mut last = self.last_check.lock().await;
                if let Some((at, check)) = &*last
                    && at.elapsed() < BETWEEN_CHECKS
                {
                    return check.clone();
                }
                let at = Instant::now();
                let check = self.check_now(scope, within).await;
                *last = Some((at, check.clone()));
                check
            }
            Store::Embedded(_) | Store::Absent(_) => self.check_now(scope, within).await,
        }
    }

    async fn check_now(&self, scope: &Scope, within: Duration) -> DatabaseCheck {
        let failure = self.store.ping(within).await.err();
        let outcome = match failure {
            None => self
                .unreadable_rows(scope)
                .await
                .map_err(|error| error.to_string()),
            Some(why) => Err(why),
        };
        DatabaseCheck {
            unreadable_rows: *outcome.as_ref().unwrap_or(&0),
            failure: outcome.err(),
        }
    }
}
