//! Changing a flag: the store first, and the cache told before and after the commit.

use pennon_eval::{Flag, FlagKey};
use tracing::error;

use super::{FlagService, Scope};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::Change;

/// What became of a change.
#[derive(Debug)]
pub struct Updated {
    /// The flag from now on.
    pub flag: Flag,
    /// Whether every instance reads it from now on. `None` without a shared cache, where every
    /// instance asks the database anyway.
    pub invalidated: Option<bool>,
}

impl FlagService {
    /// Changes a flag, tells the cache, and says whether it could be told.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Unavailable`] when the store does not answer.
    pub async fn update(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
        scope: &Scope,
    ) -> Result<Updated, Error> {
        let Some(pending) = self.store.begin(environment, key, change).await? else {
            return Err(Error::FlagNotFound(key.to_string()));
        };
        let Some(cache) = &self.cache else {
            return Ok(Updated {
                flag: pending.commit().await?,
                invalidated: None,
            });
        };
        let first_half = scope.budget.half();
        let mark = cache.block(environment, &first_half, &scope.trace).await;
        scope.budget.give_back(&first_half);
        let flag = match pending.commit().await {
            Ok(flag) => flag,
            // The outcome is unknown. A mark that is set stays, and runs out after the commit can no
            // longer happen; without one, what may be wrong by now is dropped.
            Err(error) => {
                if !mark.is_set() {
                    cache
                        .unblock(environment, mark, &scope.budget, &scope.trace)
                        .await;
                }
                return Err(error);
            }
        };
        let told = cache
            .unblock(environment, mark, &scope.budget, &scope.trace)
            .await;
        scope.trace.invalidated(told);
        if !told {
            report_untold(environment, key);
        }
        Ok(Updated {
            flag,
            invalidated: Some(told),
        })
    }
}

fn report_untold(environment: &Environment, key: &FlagKey) {
    error!(
        domain = "config",
        cache_invalidated = 0,
        environment = environment.as_str(),
        flag_key = key.as_str(),
        "the change is committed but Redis could not be told; \
         other instances may serve the old value until it is reconciled or expires"
    );
}
