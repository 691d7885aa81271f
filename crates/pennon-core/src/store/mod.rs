//! The source of truth for flags: PostgreSQL, or files for local use.
//!
//! [`Store`] reads; all changes use a [`Transaction`]. Stores only read and write records; `service` validates and
//! decides about changes.

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
    Action, AuditEntry, AuditedChange, Backlog, CountedBatch, DayCount, DueSchedule,
    EnvironmentRecord, EnvironmentState, FlagOverview, FlagOverviews, FlagQuery, FlagRecord,
    FlagRecords, HourCount, KeyRecord, LeasedWebhook, NewState, OverridePage, OverrideRecord, Page,
    PageRequest, ScheduleRecord, ScheduleStatus, SettingsRecord, Usage,
};
pub use transaction::Transaction;
pub(crate) use transaction::unreadable_ramp;

use crate::counts::Counts;
use crate::environment::Environment;
use crate::error::Error;
use crate::key_uses::LastUses;
use crate::ramp::{FlagRamp, Ramp};
use crate::snapshot::{Revision, Snapshot};
use crate::webhooks::{UnreadableWebhook, Webhook};

/// The database ends a transaction that idles longer than this. It limits how late the database accepts a commit, which
/// the TTL of a write barrier in the cache depends on.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Undelivered events are removed after this time, so that an outage of a destination does not fill the database. The
/// audit keeps their content.
pub const EVENT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The largest number of undelivered events of a destination. The oldest ones beyond it are removed.
pub const MAX_BACKLOG: u32 = 100_000;

/// The store of flags.
pub enum Store {
    /// PostgreSQL.
    Postgres(Box<PostgresStore>),
    /// Files that people can edit, cached in memory.
    Embedded(EmbeddedStore),
    /// No database is configured, for this reason. All calls fail, but an instance with a warm cache serves reads.
    Absent(String),
}

/// A snapshot, unless the caller already has the current one.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, out of here")]
pub enum SnapshotUpdate {
    /// The environment is still at the revision that the caller named.
    Unchanged,
    /// The environment has changed; holds its current state.
    Changed(Snapshot),
}

/// Whether a read waits while the database accepts no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For most of `DATABASE_TIMEOUT_MS`: the caller has nothing to fall back to.
    UntilTimeout,
    /// Fail at once: the caller has an older snapshot or an entry of the cache, or only checks the database.
    Never,
}

/// The result of `migrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The number of steps applied.
    pub applied: usize,
    /// The defaults of the installation. [`EvaluationDefaults::Unreadable`] if the stored row cannot be read and the
    /// event did not name them.
    pub defaults: EvaluationDefaults,
    /// The state of the database roles.
    pub roles: RolesState,
}

/// Calls a method of the configured store; fails without one.
macro_rules! dispatch {
    ($store:expr, $kept:ident => $call:expr) => {
        match $store {
            Store::Postgres($kept) => $call.await,
            Store::Embedded($kept) => $call,
            Store::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    };
}

/// A method that can return an [`Error`] returns [`Error::Unavailable`] if the store does not answer in time.
#[expect(clippy::missing_errors_doc, reason = "stated once for all methods")]
impl Store {
    /// The state of an environment in one consistent read, unless it still has the revision `known`.
    pub async fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
        waiting: Waiting,
    ) -> Result<SnapshotUpdate, Error> {
        match self {
            Self::Postgres(store) => store.snapshot(environment, known, waiting).await,
            Self::Embedded(store) => store.snapshot(environment, known),
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Whether the data is in the memory of this process, where a read costs no query.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Postgres(_) | Self::Absent(_) => false,
        }
    }

    /// Whether an entry of the cache with this revision is out of date, if the store knows that without a query. Only
    /// the file store does; an edit of the file invalidates no cache.
    #[must_use]
    pub fn contradicts(&self, environment: &Environment, cached: Revision) -> bool {
        match self {
            Self::Embedded(store) => store.revision(environment) != cached,
            Self::Postgres(_) | Self::Absent(_) => false,
        }
    }

    /// All environments by name, with their revisions.
    pub async fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        dispatch!(self, store => store.environments())
    }

    /// All environments, with the details that the admin API returns.
    pub async fn list_environments(&self) -> Result<Vec<EnvironmentRecord>, Error> {
        dispatch!(self, store => store.list_environments())
    }

    /// The installation's defaults for settings that an environment does not set.
    pub async fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        dispatch!(self, store => store.evaluation_defaults())
    }

    /// The settings of an environment, or the defaults if none are stored.
    pub async fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        dispatch!(self, store => store.settings(environment))
    }

    /// A flag, archived or not.
    pub async fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        dispatch!(self, store => store.find_flag(environment, key))
    }

    /// The flags that match a query, by key.
    pub async fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Page<(FlagKey, FlagRecord)>, Error> {
        dispatch!(self, store => store.list_flags(environment, query))
    }

    /// All flags of an environment, with the other data that lists show: one query in PostgreSQL.
    pub async fn flag_overviews(&self, environment: &Environment) -> Result<FlagOverviews, Error> {
        dispatch!(self, store => store.flag_overviews(environment))
    }

    /// The overrides of a flag; `None` if the flag does not exist or is archived.
    pub async fn list_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        page: PageRequest,
    ) -> Result<Option<OverridePage>, Error> {
        dispatch!(self, store => store.list_overrides(environment, key, page))
    }

    /// The audit of a flag, or of a whole environment, newest first.
    pub async fn list_audit(
        &self,
        environment: &Environment,
        key: Option<&FlagKey>,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Error> {
        dispatch!(self, store => store.list_audit(environment, key, page))
    }

    /// One entry of a flag's audit.
    pub async fn find_audit(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: i64,
    ) -> Result<Option<AuditEntry>, Error> {
        dispatch!(self, store => store.find_audit(environment, key, id))
    }

    /// The API keys of an environment, revoked ones included, newest first.
    pub async fn list_keys(&self, environment: &Environment) -> Result<Vec<KeyRecord>, Error> {
        dispatch!(self, store => store.list_keys(environment))
    }

    /// Adds the evaluation counts of a batch that ends at `until`. A batch that was added before is ignored. Counts
    /// that the store rejects are lost; the others are added.
    pub async fn count(
        &self,
        batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        dispatch!(self, store => store.count(batch, counts, until))
    }

    /// Stores the days on which API keys were last used. Earlier days than the stored ones are ignored.
    pub async fn record_key_uses(&self, uses: &LastUses) -> Result<(), Error> {
        dispatch!(self, store => store.record_key_uses(uses))
    }

    /// The number of evaluations and the time of the last one, by flag. Flags without evaluations are omitted.
    pub async fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        dispatch!(self, store => store.usage(environment))
    }

    /// The counts of a flag by day and variant, newest first, for this many days.
    pub async fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        dispatch!(self, store => store.day_counts(environment, key, days))
    }

    /// The counts of a flag by hour and variant, newest first, of the present hour and this many earlier ones. A file
    /// store may lose some of them at a restart.
    pub async fn hour_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        earlier_hours: u32,
    ) -> Result<Vec<HourCount>, Error> {
        dispatch!(self, store => store.hour_counts(environment, key, earlier_hours))
    }

    /// The schedules of a flag in the order of their times; `None` if the flag does not exist or is archived.
    pub async fn list_schedules(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<Vec<ScheduleRecord>>, Error> {
        dispatch!(self, store => store.list_schedules(environment, key))
    }

    /// Ramps that are baking or holding, those first whose last check is oldest.
    pub async fn watched_ramps(&self, limit: u32) -> Result<Vec<FlagRamp>, Error> {
        dispatch!(self, store => store.watched_ramps(limit))
    }

    /// The webhooks of an environment, newest first.
    pub async fn list_webhooks(
        &self,
        environment: &Environment,
    ) -> Result<Vec<Result<Webhook, UnreadableWebhook>>, Error> {
        dispatch!(self, store => store.list_webhooks(environment))
    }

    /// The open ramps with a guard of one of these names. The guard's ARN may belong to another alarm with the same
    /// name.
    pub async fn open_ramps_guarded_by(&self, alarms: &[&str]) -> Result<Vec<FlagRamp>, Error> {
        dispatch!(self, store => store.open_ramps_guarded_by(alarms))
    }

    /// Actor and [`Action`] of the newest audit entry in which the flag or one of its ramps changed.
    pub async fn last_change(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<(String, String)>, Error> {
        dispatch!(self, store => store.last_change(environment, key))
    }

    /// The ramps of a flag, newest first. `None` stands for an unreadable ramp.
    pub async fn list_ramps(
        &self,
        environment: &Environment,
        key: &FlagKey,
        limit: u32,
    ) -> Result<Vec<Option<Ramp>>, Error> {
        dispatch!(self, store => store.list_ramps(environment, key, limit))
    }

    /// The number of evaluations of a flag since the beginning of the hour of `time`. A store without hourly counts
    /// returns all evaluations, so only the difference of two results is meaningful.
    pub async fn evaluation_counter(
        &self,
        environment: &Environment,
        key: &FlagKey,
        time: SystemTime,
    ) -> Result<u64, Error> {
        dispatch!(self, store => store.evaluation_counter(environment, key, time))
    }

    /// Due schedules up to a limit, the oldest first.
    pub async fn due_schedules(&self, limit: u32) -> Result<Vec<DueSchedule>, Error> {
        dispatch!(self, store => store.due_schedules(limit))
    }

    /// The undelivered change events of the event bus.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        dispatch!(self, store => store.backlog())
    }

    /// Removes events beyond [`EVENT_RETENTION`] and [`MAX_BACKLOG`], and those for a bus that is no longer configured
    /// or a webhook that no longer exists. Returns how many were removed.
    pub async fn expire_events(&self, has_bus: bool) -> Result<u64, Error> {
        dispatch!(self, store => store.expire_events(has_bus))
    }

    /// Begins a transaction in an environment. The audit names this actor.
    pub async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        match self {
            Self::Postgres(store) => {
                let started = store.begin(environment, actor).await?;
                Ok(Transaction::Postgres(started))
            }
            Self::Embedded(store) => {
                let started = store.begin(environment, actor).await?;
                Ok(Transaction::Embedded(started))
            }
            Self::Absent(why) => Err(Error::Unavailable(why.clone())),
        }
    }

    /// Closes unused connections, unless the process keeps them. Must be called before every response: Lambda may
    /// freeze the instance right after it, and an open connection would count against the limit of the database.
    pub async fn end_of_request(&self) {
        match self {
            Self::Postgres(store) => store.end_of_request().await,
            Self::Embedded(_) | Self::Absent(_) => {}
        }
    }

    /// Whether the store was unavailable for a read, and since then no read was answered and no transaction has begun.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        match self {
            Self::Postgres(store) => store.is_failing(),
            Self::Embedded(_) => false,
            Self::Absent(_) => true,
        }
    }

    /// Whether responses may contain the reason of a failure: yes for a file on the caller's own machine. Messages of a
    /// database are only logged.
    #[must_use]
    pub fn exposes_failure_reasons(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Postgres(_) | Self::Absent(_) => false,
        }
    }

    /// Why part of the state file was not read at the start. PostgreSQL reports unreadable rows instead.
    #[must_use]
    pub fn unreadable_state(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => store.unreadable_state(),
            Self::Postgres(_) | Self::Absent(_) => None,
        }
    }

    /// Migrates the tables and decides the evaluation defaults of the installation, once. Without `wanted`, an existing
    /// installation gets [`EvaluationDefaults::Existing`]. Then creates the roles whose secrets are configured; with
    /// `rotate`, all roles get new passwords. Fails with [`Error::InvalidState`] if other defaults were decided and
    /// flags exist, with [`Error::Internal`] if a step fails.
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

    /// Checks whether the store answers. The error is for the log, without secrets.
    pub async fn ping(&self, within: Duration) -> Result<(), String> {
        match self {
            Self::Postgres(store) => store.ping(within).await,
            Self::Embedded(store) => store.check(),
            Self::Absent(why) => Err(why.clone()),
        }
    }
}
