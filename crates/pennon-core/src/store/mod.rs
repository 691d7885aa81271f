//! Where flags live: PostgreSQL, or a file for local use.
//!
//! Reads are questions to [`Store`]; every change goes through a [`Transaction`]. Both kinds of store
//! only keep and give back; what a change means is decided in `service`, once for both.

mod embedded;
mod postgres;
mod record;
mod transaction;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::{EvaluationDefaults, FlagKey};

pub use embedded::EmbeddedStore;
pub use postgres::{DatabaseUrl, InvalidDatabaseUrl, PostgresStore, RolesState};
pub use record::{
    Action, AuditEntry, AuditStep, CountedBatch, DayCount, DueSchedule, EnvironmentRecord,
    FlagQuery, FlagRecord, FlagRecords, KeyRecord, NewState, OverridePage, OverrideRecord, Page,
    Paged, ScheduleRecord, ScheduleStatus, SettingsRecord, Usage,
};
pub use transaction::Transaction;

use crate::counts::Counts;
use crate::environment::Environment;
use crate::error::Error;
use crate::ramp::{Ramp, RampPlace};
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

/// A snapshot, unless the caller already has it.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, out of here")]
pub enum Fresh {
    /// The environment is still at the revision that the caller named.
    Unchanged,
    /// It is not; here is what it is now.
    Changed(Snapshot),
}

/// Whether a read waits for a database that takes no connection at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Until its time limit, `DATABASE_TIMEOUT_MS`: the caller has no other answer.
    UntilTimeout,
    /// Not at all: the caller has an answer, if an older one.
    Never,
}

/// What `migrate` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// How many steps had not run before.
    pub applied: usize,
    /// Which defaults the installation has. [`EvaluationDefaults::Unreadable`] when a row that was decided
    /// before cannot be read and nobody has said what it was.
    pub defaults: EvaluationDefaults,
    /// Which logins functions have.
    pub roles: RolesState,
}

/// Asks whichever store there is. All questions fail alike where there is none.
macro_rules! ask {
    ($store:expr, $kept:ident => $question:expr) => {
        match $store {
            Store::Postgres($kept) => $question.await,
            Store::Embedded($kept) => $question,
            Store::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    };
}

/// Every question fails with [`Error::Unavailable`] when the store does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
impl Store {
    /// The state of an environment, or that it has not changed since `known`, in one consistent read.
    pub async fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
        waiting: Waiting,
    ) -> Result<Fresh, Error> {
        match self {
            Self::Postgres(store) => store.snapshot(environment, known, waiting).await,
            Self::Embedded(store) => store.snapshot(environment, known),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Every environment that there is, by name, with its revision.
    pub async fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        ask!(self, store => store.environments())
    }

    /// The same with what admins want to know of each.
    pub async fn list_environments(&self) -> Result<Vec<EnvironmentRecord>, Error> {
        ask!(self, store => store.list_environments())
    }

    /// What the installation answers where the settings of an environment leave it open.
    pub async fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        ask!(self, store => store.evaluation_defaults())
    }

    /// The settings of an environment; the defaults when nobody has set any.
    pub async fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        ask!(self, store => store.settings(environment))
    }

    /// A flag, archived or not.
    pub async fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        ask!(self, store => store.find_flag(environment, key))
    }

    /// Flags by key.
    pub async fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Paged<(FlagKey, FlagRecord)>, Error> {
        ask!(self, store => store.list_flags(environment, query))
    }

    /// The overrides of a flag; `None` when there is no such flag in use.
    pub async fn list_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        page: Page,
    ) -> Result<Option<OverridePage>, Error> {
        ask!(self, store => store.list_overrides(environment, key, page))
    }

    /// The audit of a flag, or of a whole environment, newest first.
    pub async fn list_audit(
        &self,
        environment: &Environment,
        key: Option<&FlagKey>,
        page: Page,
    ) -> Result<Paged<AuditEntry>, Error> {
        ask!(self, store => store.list_audit(environment, key, page))
    }

    /// One entry of a flag's audit.
    pub async fn find_audit(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: i64,
    ) -> Result<Option<AuditEntry>, Error> {
        ask!(self, store => store.find_audit(environment, key, id))
    }

    /// The API keys of an environment, revoked ones included, newest first.
    pub async fn list_keys(&self, environment: &Environment) -> Result<Vec<KeyRecord>, Error> {
        ask!(self, store => store.list_keys(environment))
    }

    /// Adds evaluations that happened until then. A batch that was added before adds nothing. A count
    /// that the store refuses is lost, the others are not.
    pub async fn count(
        &self,
        batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        ask!(self, store => store.count(batch, counts, until))
    }

    /// How often, and when last, the flags of an environment were evaluated. A flag that never was is
    /// left out.
    pub async fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        ask!(self, store => store.usage(environment))
    }

    /// How often each variant of a flag was given, by day, newest first, for so many days.
    pub async fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        ask!(self, store => store.day_counts(environment, key, days))
    }

    /// The schedules of a flag by the time they are for; `None` when there is no such flag in use.
    pub async fn list_schedules(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<Vec<ScheduleRecord>>, Error> {
        ask!(self, store => store.list_schedules(environment, key))
    }

    /// Ramps that the engine looks at, those first that it has not looked at for longest.
    pub async fn watched_ramps(&self, most: u32) -> Result<Vec<RampPlace>, Error> {
        ask!(self, store => store.watched_ramps(most))
    }

    /// The ramps of a flag, newest first.
    pub async fn list_ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
        most: u32,
    ) -> Result<Vec<Ramp>, Error> {
        ask!(self, store => store.list_ramps(environment, key, most))
    }

    /// Evaluations of a flag from the beginning of the hour of `time` on, or a number that rises with
    /// them: only the difference between two answers has a meaning.
    pub async fn evaluations_since(
        &self,
        environment: &Environment,
        key: &FlagKey,
        time: SystemTime,
    ) -> Result<u64, Error> {
        ask!(self, store => store.evaluations_since(environment, key, time))
    }

    /// Schedules that are to be made now, at most so many, the oldest first.
    pub async fn due_schedules(&self, most: u32) -> Result<Vec<DueSchedule>, Error> {
        ask!(self, store => store.due_schedules(most))
    }

    /// Begins to change an environment, on behalf of that actor.
    pub async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        match self {
            Self::Postgres(store) => {
                let begun = store.begin(environment, actor).await?;
                Ok(Transaction::Postgres(begun))
            }
            Self::Embedded(store) => {
                let begun = store.begin(environment, actor).await?;
                Ok(Transaction::Embedded(begun))
            }
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// To be called before a request is answered, whatever became of it: on Lambda the instance may be
    /// frozen right after, and a connection that is still open then counts against the limit of the
    /// database. Closes those that nobody uses, unless the process keeps them.
    pub async fn end_of_request(&self) {
        match self {
            Self::Postgres(store) => store.end_of_request().await,
            Self::Embedded(_) | Self::Absent(_) => {}
        }
    }

    /// Whether the last read failed and none has succeeded since.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        match self {
            Self::Postgres(store) => store.is_failing(),
            Self::Embedded(_) => false,
            Self::Absent(_) => true,
        }
    }

    /// Whether callers may read why it does not answer: of a file on their own machine, with the place of a
    /// mistake in it. What a database says stays in the log.
    #[must_use]
    pub fn may_tell_why(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Postgres(_) | Self::Absent(_) => false,
        }
    }

    /// Why part of the stored state was not read at the start. PostgreSQL reports unreadable rows instead.
    #[must_use]
    pub fn unreadable_state(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => store.unreadable_state(),
            Self::Postgres(_) | Self::Absent(_) => None,
        }
    }

    /// Brings the tables to the newest version, and decides which evaluation defaults the installation
    /// has, once. Without `wanted`, tables that were there before have [`EvaluationDefaults::Existing`].
    /// Fails with [`Error::InvalidState`] when others were decided and there are flags, with
    /// [`Error::Internal`] when a step fails. Then it creates the roles whose secrets are configured, and
    /// with `rotate` gives all of them new passwords.
    pub async fn migrate(
        &self,
        wanted: Option<EvaluationDefaults>,
        rotate: bool,
    ) -> Result<Migrated, Error> {
        match self {
            Self::Postgres(store) => store.migrate(wanted, rotate).await,
            Self::Embedded(store) => Ok(Migrated {
                applied: 0,
                defaults: store.evaluation_defaults()?,
                roles: RolesState::OneLogin,
            }),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Whether the store answers, for a health check. The error is a sentence for the log, without
    /// secrets.
    pub async fn ping(&self, within: Duration) -> Result<(), String> {
        match self {
            Self::Postgres(store) => store.ping(within).await,
            Self::Embedded(store) => store.check(),
            Self::Absent(why) => Err(why.clone()),
        }
    }
}
