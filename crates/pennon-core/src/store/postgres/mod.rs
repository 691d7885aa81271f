//! The store in PostgreSQL. No other module uses tokio-postgres. This file limits the time of reads, and `transaction`
//! that of changes; the statements are in one file per noun.

mod audit;
mod counts;
mod environments;
mod error;
mod flags;
mod installation;
mod keys;
mod migrations;
mod outbox;
mod overrides;
mod overview;
mod pool;
mod ramps;
mod roles;
mod schedules;
mod server;
mod snapshot;
mod statement;
mod transaction;
mod url;
mod webhooks;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join3;
use pennon_eval::EvaluationDefaults;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

pub use roles::RolesState;
pub(super) use transaction::Transaction;
pub use url::{DatabaseUrl, InvalidDatabaseUrl};

use error::{Failure, chain};
use installation::MigrationError;
use pool::Connections;
use statement::Parameter;

use super::{Migrated, Waiting};
use crate::breaker::{Breaker, Permit};
use crate::config::DatabaseConfig;
use crate::environment::Environment;
use crate::error::Error;
use crate::installation::Installation;
use crate::secrets::Secrets;

/// Flags in a PostgreSQL database.
pub struct PostgresStore {
    connections: Connections,
    config: DatabaseConfig,
    secrets: Arc<Secrets>,
    operation_timeout: Duration,
    reads: Breaker,
    /// By environment, the unreadable rows that are already logged.
    reported: Mutex<HashMap<Environment, HashSet<u64>>>,
}

impl PostgresStore {
    /// Reads the address of the database. Connects only when a connection is needed.
    pub async fn open(
        config: &DatabaseConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
    ) -> Self {
        Self {
            connections: Connections::new(config, secrets, installation).await,
            config: config.clone(),
            secrets: secrets.clone(),
            operation_timeout: config.operation_timeout,
            reads: Breaker::default(),
            reported: Mutex::default(),
        }
    }

    /// Closes idle connections, unless the process keeps them.
    pub(super) async fn end_of_request(&self) {
        self.connections.end_of_request().await;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.reads.is_open()
    }

    pub(super) async fn begin(
        &self,
        environment: &Environment,
        actor: &str,
    ) -> Result<Transaction, Error> {
        let begin = async {
            let client = self.connections.get(Waiting::UntilTimeout).await?;
            let (within, has_bus) = (self.operation_timeout, self.config.has_event_bus);
            Transaction::begin(client, environment, actor, within, has_bus).await
        };
        let begun = self.in_time(begin).await?;
        // Otherwise reads right after this change could still be refused, and be stale.
        self.reads.succeeded();
        Ok(begun)
    }

    pub(super) async fn migrate(
        &self,
        wanted: Option<EvaluationDefaults>,
        rotate: bool,
    ) -> Result<Migrated, Error> {
        let connect = self.connections.get(Waiting::UntilTimeout);
        let client = self.in_time(connect).await?;
        let outcome = migrations::run(&client, wanted).await;
        // A failure leaves a transaction open. It ends when the connection is dropped.
        let (applied, defaults) = outcome.map_err(|error| match error {
            MigrationError::Database(error) => {
                Error::Internal(format!("migration failed: {}", chain(&error)))
            }
            decided @ MigrationError::DefaultsDecided(_) => {
                Error::InvalidState(decided.to_string())
            }
        })?;
        let roles = roles::ensure(&client, &self.secrets, &self.config, rotate).await?;
        Ok(Migrated {
            applied,
            defaults,
            roles,
        })
    }

    pub(super) async fn ping(&self, within: Duration) -> Result<(), String> {
        let ping = async {
            let client = match self.connections.get(Waiting::Never).await {
                Ok(client) => client,
                Err(Error::Unavailable(why)) => return Err(why),
                Err(other) => return Err(other.to_string()),
            };
            let answer = client.batch_execute("select 1").await;
            client.give_back();
            answer.map_err(|error| chain(&error))
        };
        tokio::time::timeout(within, ping)
            .await
            .unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
    }

    /// Runs a query within the time limit, unless the breaker rejects it.
    async fn rows(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        self.guarded(async {
            let client = self.connections.get(Waiting::UntilTimeout).await?;
            let rows = self.query(&client, statement, parameters).await;
            client.give_back();
            rows.map_err(|error| Failure::of(&error))
        })
        .await
    }

    /// Runs one statement in its own transaction, which limits the time on the server too: otherwise a statement would
    /// run on after the client has given up, and occupy the connection. The limit is a setting of the transaction, so a
    /// pooler does not lose it or apply it to other clients.
    async fn query(
        &self,
        client: &Client,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let begin = format!(
            "begin isolation level read committed; set local statement_timeout = {}",
            self.operation_timeout.as_millis()
        );
        // All three are sent before the first reply: one round trip. `join3` polls them in this order, and the first
        // poll sends the message.
        let (started, rows, committed) = join3(
            client.batch_execute(&begin),
            client.query_typed(statement, parameters),
            client.batch_execute("commit"),
        )
        .await;
        started?;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// Whether a statement failed because `migrate` has not run this step yet, according to the list of applied steps.
    /// In a database that has run the step, a missing table or column is an error: a read without it would show flags
    /// that settings or definitions hide.
    async fn is_before(&self, step: i32, client: &Client, error: &tokio_postgres::Error) -> bool {
        let missing = [SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_TABLE];
        if !error.code().is_some_and(|code| missing.contains(code)) {
            return false;
        }
        let statement = "select max(step) as step from pennon_migrations";
        let Ok(rows) = self.query(client, statement, &[]).await else {
            return false;
        };
        let last: Option<i32> = rows.first().and_then(|row| row.get("step"));
        last.is_some_and(|last| last < step)
    }

    /// Runs a read within the time limit, unless the breaker rejects it.
    async fn guarded<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Error> {
        if self.reads.permit(Instant::now()) == Permit::Refused {
            return Err(Error::Unavailable(
                "the database did not answer a moment ago".to_owned(),
            ));
        }
        let outcome = self.in_time(read).await;
        match &outcome {
            Err(failure) if failure.is_outage => self.reads.failed(Instant::now()),
            Ok(_) | Err(_) => {
                self.reads.succeeded();
            }
        }
        outcome.map_err(|failure| failure.error)
    }

    /// Limits the time of an operation. A timeout drops the future and its connection, which closes the connection.
    async fn in_time<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.operation_timeout, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let why = "the database did not answer in time".to_owned();
                Err(Error::Unavailable(why).into())
            }
        }
    }
}
