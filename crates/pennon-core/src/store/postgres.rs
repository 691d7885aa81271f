//! Flags in PostgreSQL: the only home of tokio-postgres and deadpool, with `migrations`,
//! `postgres_pool` and `postgres_url` beside it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use pennon_eval::{Flag, FlagKey, Override, Rollout};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::postgres_pool::Connections;
use super::{Change, Fresh, migrations};
use crate::breaker::{Breaker, Permit};
use crate::config::DatabaseConfig;
use crate::environment::Environment;
use crate::error::Error;
use crate::secrets::Secrets;
use crate::snapshot::{Revision, Snapshot};

/// One row per flag, or one row without a flag when the environment has none or is unchanged. The
/// whole is one statement and so one consistent read, and one round trip.
const SNAPSHOT: &str = "
    select coalesce(known.revision, 0) as revision, flag.flag_key, flag.enabled,
           flag.rollout_percentage, flag.description, named.users, named.kinds
    from (select $1::text as environment) as wanted
    left join pennon_environments as known using (environment)
    left join feature_flags as flag
      on flag.environment = wanted.environment and known.revision is distinct from $2::bigint
    left join lateral (
      select array_agg(user_id) as users, array_agg(override_type) as kinds
      from feature_flag_user_overrides where flag_id = flag.id
    ) as named on true";

const UPDATE: &str = "
    update feature_flags
    set enabled = coalesce($3, enabled),
        rollout_percentage = coalesce($4, rollout_percentage),
        description = coalesce($5, description),
        updated_at = now() at time zone 'utc'
    where flag_key = $1 and environment = $2
    returning enabled, rollout_percentage, description";

/// Flags in a PostgreSQL database.
pub struct PostgresStore {
    connections: Connections,
    operation_timeout: Duration,
    reads: Breaker,
}

impl PostgresStore {
    /// Finds out where the database is, and connects when it is first needed.
    pub async fn open(config: &DatabaseConfig, secrets: &Arc<Secrets>) -> Self {
        Self {
            connections: Connections::find(config, secrets).await,
            operation_timeout: config.operation_timeout,
            reads: Breaker::default(),
        }
    }

    pub(super) async fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        self.guarded(self.load(environment, known)).await
    }

    pub(super) async fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        self.guarded(self.list_environments()).await
    }

    pub(super) async fn begin(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
    ) -> Result<Option<PendingChange>, Error> {
        self.in_time(self.start(environment, key, change)).await
    }

    pub(super) async fn migrate(&self) -> Result<usize, Error> {
        let client = self.connections.get().await?;
        // A step may well take longer than a request.
        client
            .batch_execute("set statement_timeout = 0")
            .await
            .map_err(|error| unavailable(&error))?;
        let outcome = migrations::run(&client).await;
        // The connection goes, and its settings with it.
        drop(Object::take(client));
        outcome.map_err(|error| Error::Internal(format!("migration failed: {}", chain(&error))))
    }

    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let ping = async {
            let client = match self.connections.get().await {
                Ok(client) => client,
                Err(Error::Unavailable(why)) => return Err(why),
                Err(other) => return Err(other.to_string()),
            };
            client
                .batch_execute("select 1")
                .await
                .map_err(|error| chain(&error))
        };
        tokio::time::timeout(within, ping)
            .await
            .unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
    }

    async fn load(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        let client = self.connections.get().await?;
        let known_revision = known.map(|revision| revision.0);
        let rows = client
            .query_typed(
                SNAPSHOT,
                &[
                    (&environment.as_str(), Type::TEXT),
                    (&known_revision, Type::INT8),
                ],
            )
            .await
            .map_err(|error| unavailable(&error))?;
        let first = rows
            .first()
            .ok_or_else(|| Error::Internal("the snapshot query gave no row".to_owned()))?;
        let revision = Revision(first.get("revision"));
        if known == Some(revision) {
            return Ok(Fresh::Unchanged);
        }
        let mut flags = BTreeMap::new();
        for row in &rows {
            let Some(text) = row.get::<_, Option<String>>("flag_key") else {
                continue;
            };
            // A row with an empty key can be made by SQL only, and no request can ask for it.
            if let Ok(key) = FlagKey::parse(text) {
                flags.insert(key, flag(row)?);
            }
        }
        Ok(Fresh::Changed(Snapshot { revision, flags }))
    }

    async fn list_environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        let client = self.connections.get().await?;
        let rows = client
            .query_typed(
                "select environment, revision from pennon_environments order by environment",
                &[],
            )
            .await
            .map_err(|error| unavailable(&error))?;
        // A name that no request can ask for is no environment to us.
        let environments = rows.iter().filter_map(|row| {
            let name = Environment::parse(row.get("environment")).ok()?;
            Some((name, Revision(row.get("revision"))))
        });
        Ok(environments.collect())
    }

    async fn start(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
    ) -> Result<Option<PendingChange>, Error> {
        let transaction = Transaction(Some(Box::new(self.connections.get().await?)));
        let client = transaction.client()?;
        client
            .batch_execute("begin")
            .await
            .map_err(|error| unavailable(&error))?;
        let percentage = change
            .rollout_percentage
            .map(|rollout| i32::from(rollout.percent()));
        let rows = client
            .query_typed(
                UPDATE,
                &[
                    (&key.as_str(), Type::TEXT),
                    (&environment.as_str(), Type::TEXT),
                    (&change.enabled, Type::BOOL),
                    (&percentage, Type::INT4),
                    (&change.description, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let flag = plain_flag(row)?;
        Ok(Some(PendingChange {
            transaction,
            flag,
            within: self.operation_timeout,
        }))
    }

    /// A read, past the breaker and in time.
    async fn guarded<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.reads.permit(Instant::now()) == Permit::Refused {
            return Err(Error::Unavailable(
                "the database did not answer a moment ago".to_owned(),
            ));
        }
        let outcome = self.in_time(read).await;
        match &outcome {
            Err(Error::Unavailable(_)) => self.reads.failed(Instant::now()),
            Ok(_) | Err(_) => {
                self.reads.succeeded();
            }
        }
        outcome
    }

    /// Gives up when the client waits longer than the database should take. A connection that is
    /// given up on is not used again: dropping the future drops it in the middle of a query, and
    /// the check before its next use would wait behind that query.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.operation_timeout, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                self.connections.forget_idle();
                Err(Error::Unavailable(
                    "the database did not answer in time".to_owned(),
                ))
            }
        }
    }
}

/// A connection that may be in the middle of a transaction. Unless the transaction has ended, it
/// does not go back to the pool: dropped, it is closed, and the database takes back what was not
/// committed.
struct Transaction(Option<Box<Object>>);

impl Transaction {
    fn client(&self) -> Result<&Object, Error> {
        let client = self.0.as_deref();
        client.ok_or_else(|| Error::Internal("a transaction was used after its end".to_owned()))
    }

    /// Commits, and gives the connection back to the pool.
    async fn commit(mut self) -> Result<(), Error> {
        let committed = self.client()?.batch_execute("commit").await;
        committed.map_err(|error| unavailable(&error))?;
        drop(self.0.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(*client));
        }
    }
}

/// A change that waits for its commit.
pub struct PendingChange {
    transaction: Transaction,
    flag: Flag,
    within: Duration,
}

impl PendingChange {
    pub(super) async fn commit(self) -> Result<Flag, Error> {
        match tokio::time::timeout(self.within, self.transaction.commit()).await {
            Ok(Ok(())) => Ok(self.flag),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(Error::Unavailable(
                "the database did not confirm the commit in time".to_owned(),
            )),
        }
    }
}

/// A flag from a row of [`SNAPSHOT`].
fn flag(row: &Row) -> Result<Flag, Error> {
    let users: Option<Vec<String>> = row.get("users");
    let kinds: Option<Vec<String>> = row.get("kinds");
    let mut overrides = BTreeMap::new();
    for (user, kind) in users.into_iter().flatten().zip(kinds.into_iter().flatten()) {
        let kind = match kind.as_str() {
            "include" => Override::Include,
            "exclude" => Override::Exclude,
            _ => return Err(Error::Internal("an override of an unknown type".to_owned())),
        };
        overrides.insert(user, kind);
    }
    Ok(Flag {
        overrides,
        ..plain_flag(row)?
    })
}

/// A flag without its overrides.
fn plain_flag(row: &Row) -> Result<Flag, Error> {
    let percentage: i32 = row.get("rollout_percentage");
    let rollout_percentage = Rollout::parse(i64::from(percentage))
        .map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Flag {
        enabled: row.get("enabled"),
        rollout_percentage,
        description: row.get("description"),
        overrides: BTreeMap::new(),
    })
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::Unavailable(format!("database: {}", chain(error)))
}

/// An error with its causes. PostgreSQL's own texts name tables and hosts, never a password.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
