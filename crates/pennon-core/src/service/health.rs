//! Health checks of the database. They are rate-limited, because anyone may call `/health`.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::FlagService;
use crate::moment::Moment;
use crate::request_context::RequestContext;
use crate::store::Store;

/// An instance checks PostgreSQL at most once in this time and reuses the result. Otherwise callers of `/health`
/// could exhaust the connections.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The result of a check of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseCheck {
    /// Why the check failed, for the log, without secrets.
    pub failure: Option<String>,
    /// The number of unreadable items in the environments that could be read in time; 0 if the check failed.
    pub unreadable_rows: usize,
}

/// The last check of this instance, and when it was made.
pub(super) type LastCheck = tokio::sync::Mutex<Option<(Moment, DatabaseCheck)>>;

impl FlagService {
    /// Checks whether the database answers within this time and can be read. The result for PostgreSQL is kept
    /// for ten seconds; a file is checked every time.
    pub async fn check_database(
        &self,
        context: &RequestContext,
        within: Duration,
    ) -> DatabaseCheck {
        match &self.store {
            Store::Postgres(_) => {
                let mut last = self.last_check.lock().await;
                if let Some((at, check)) = &*last
                    && at.age() < CHECK_INTERVAL
                {
                    return check.clone();
                }
                let at = Moment::now();
                let check = self.check_now(context, within).await;
                *last = Some((at, check.clone()));
                check
            }
            Store::Embedded(_) | Store::Absent(_) => self.check_now(context, within).await,
        }
    }

    async fn check_now(&self, context: &RequestContext, within: Duration) -> DatabaseCheck {
        let deadline = Instant::now() + within;
        let outcome = timeout_at(deadline.into(), async {
            self.store.ping(within).await?;
            let readable = self.readable_environments().await;
            readable.map_err(|error| error.to_string())
        });
        let outcome = match outcome.await {
            Ok(Ok(environments)) => self
                .unreadable_rows(environments, context, deadline)
                .await
                .map_err(|error| error.to_string()),
            Ok(Err(why)) => Err(why),
            Err(_elapsed) => Err("no answer in time".to_owned()),
        };
        DatabaseCheck {
            unreadable_rows: *outcome.as_ref().unwrap_or(&0),
            failure: outcome.err(),
        }
    }
}
