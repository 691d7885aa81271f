//! Where flags live: PostgreSQL, or a file for local use.

mod embedded;
mod migrations;
mod postgres;
mod postgres_pool;
mod postgres_url;

use std::time::Duration;

use pennon_eval::{Flag, FlagKey, Rollout};

pub use embedded::EmbeddedStore;
pub use postgres::PostgresStore;
pub use postgres_url::{DatabaseUrl, InvalidDatabaseUrl};

use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{Revision, Snapshot};

/// A transaction that waits longer than this for its commit is ended by the database. It bounds how
/// late a commit can come, which the mark of a writer in the cache relies on.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// The one place of truth.
pub enum Store {
    /// PostgreSQL.
    Postgres(Box<PostgresStore>),
    /// A file in a format that people can edit, held in memory.
    Embedded(EmbeddedStore),
    /// No database is configured. Every question fails, so that an instance with a warm cache still
    /// answers.
    Absent(String),
}

/// What an admin wants to be different. `None` keeps what is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// On or off.
    pub enabled: Option<bool>,
    /// How many.
    pub rollout_percentage: Option<Rollout>,
    /// What for.
    pub description: Option<String>,
}

/// A snapshot, unless the caller already has it.
#[derive(Debug, PartialEq, Eq)]
pub enum Fresh {
    /// The environment is still at the revision that the caller named.
    Unchanged,
    /// It is not; here is what it is now.
    Changed(Snapshot),
}

/// A change that is made and not committed. Dropping it takes it back.
pub enum Pending {
    /// In a PostgreSQL transaction.
    Postgres(postgres::PendingChange),
    /// In memory.
    Embedded(embedded::PendingChange),
}

impl Store {
    /// The flags of an environment, or that they have not changed since `known`, in one consistent
    /// read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer in time.
    pub async fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        match self {
            Self::Postgres(store) => store.snapshot(environment, known).await,
            Self::Embedded(store) => store.snapshot(environment, known),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Every environment that has, or has had, a flag.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer in time.
    pub async fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        match self {
            Self::Postgres(store) => store.environments().await,
            Self::Embedded(store) => store.environments(),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Makes a change, ready to commit. `None` when there is no such flag.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer in time.
    pub async fn begin(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
    ) -> Result<Option<Pending>, Error> {
        match self {
            Self::Postgres(store) => {
                let pending = store.begin(environment, key, change).await?;
                Ok(pending.map(Pending::Postgres))
            }
            Self::Embedded(store) => {
                let pending = store.begin(environment, key, change)?;
                Ok(pending.map(Pending::Embedded))
            }
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Brings the tables to the newest version. Says how many steps that took.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be reached, [`Error::Internal`] when a step
    /// fails.
    pub async fn migrate(&self) -> Result<usize, Error> {
        match self {
            Self::Postgres(store) => store.migrate().await,
            Self::Embedded(_) => Ok(0),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Whether the store answers, for a health check.
    ///
    /// # Errors
    /// A sentence for the log, without secrets.
    pub async fn ping(&self, within: Duration) -> Result<(), String> {
        match self {
            Self::Postgres(store) => store.ping(within).await,
            Self::Embedded(_) => Ok(()),
            Self::Absent(why) => Err(why.clone()),
        }
    }
}

impl Pending {
    /// Commits. Gives the flag as it is from now on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the outcome is unknown: the commit may still happen, within
    /// [`COMMIT_WITHIN`].
    pub async fn commit(self) -> Result<Flag, Error> {
        match self {
            Self::Postgres(pending) => pending.commit().await,
            Self::Embedded(pending) => pending.commit(),
        }
    }
}
