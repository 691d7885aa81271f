//! Transactions: begin, commit and the execution of statements.

use std::time::Duration;

use tokio_postgres::Row;

use super::error::{Failure, StatementError};
use super::pool::Connection;
use super::statement::Parameter;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::COMMIT_TIMEOUT;

/// An open transaction. Dropping it without `commit` or `rollback` closes its connection, so that the database rolls it
/// back.
pub struct Transaction {
    /// `None` once it has ended.
    client: Option<Box<Connection>>,
    environment: Environment,
    actor: String,
    /// Limit on the time of a statement.
    within: Duration,
    /// Whether changes write events for the event bus into the outbox.
    has_bus: bool,
}

impl Transaction {
    pub(super) async fn begin(
        client: Connection,
        environment: &Environment,
        actor: &str,
        within: Duration,
        has_bus: bool,
    ) -> Result<Self, Error> {
        let open = Self {
            client: Some(Box::new(client)),
            environment: environment.clone(),
            actor: actor.to_owned(),
            within,
            has_bus,
        };
        // Settings of the transaction, because a pooler gives the connection to another client after it. The isolation
        // level is that for which the locks are written: with a higher default of the database, a change that waited
        // for a lock would fail. The last setting ends a transaction that is not committed in time; see
        // `COMMIT_TIMEOUT`.
        let begin = format!(
            "begin isolation level read committed;
             set local statement_timeout = {};
             set local idle_in_transaction_session_timeout = {}",
            within.as_millis(),
            COMMIT_TIMEOUT.as_millis()
        );
        let started = open.client()?.batch_execute(&begin).await;
        started.map_err(|error| Failure::of(&error).error)?;
        Ok(open)
    }

    pub(in crate::store) async fn commit(mut self) -> Result<(), Error> {
        let commit = self.client()?.batch_execute("commit");
        match tokio::time::timeout(self.within, commit).await {
            Ok(Ok(())) => {
                if let Some(client) = self.client.take() {
                    client.give_back();
                }
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::of(&error).error),
            Err(_elapsed) => Err(Error::Unavailable(
                "the database did not confirm the commit in time".to_owned(),
            )),
        }
    }

    /// Rolls back. Closes the connection if PostgreSQL does not confirm that.
    pub(in crate::store) async fn rollback(mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let done = tokio::time::timeout(self.within, client.batch_execute("rollback")).await;
        if matches!(done, Ok(Ok(()))) {
            client.give_back();
        }
    }

    fn client(&self) -> Result<&Connection, Error> {
        let client = self.client.as_deref();
        client.ok_or_else(|| Error::Internal("a transaction was used after its commit".to_owned()))
    }

    pub(super) fn environment(&self) -> &str {
        self.environment.as_str()
    }

    pub(in crate::store) fn actor(&self) -> &str {
        &self.actor
    }

    pub(super) fn has_bus(&self) -> bool {
        self.has_bus
    }

    /// Runs a statement within the time limit.
    pub(super) async fn rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        self.try_rows(statement, parameters)
            .await
            .map_err(|error| match error {
                StatementError::Constraint(code) => {
                    Error::Internal(format!("a statement was rejected: {}", code.code()))
                }
                StatementError::Other(error) => error,
            })
    }

    /// Like [`Self::rows`], but returns the code of a violated constraint.
    pub(super) async fn try_rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StatementError> {
        let client = self.client().map_err(StatementError::Other)?;
        let query = client.query_typed(statement, parameters);
        match tokio::time::timeout(self.within, query).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => match error.code() {
                // Class 23: integrity constraint violation.
                Some(code) if code.code().starts_with("23") => {
                    Err(StatementError::Constraint(code.clone()))
                }
                Some(_) | None => Err(StatementError::Other(Failure::of(&error).error)),
            },
            Err(_elapsed) => Err(StatementError::Other(Error::Unavailable(
                "the database did not answer in time".to_owned(),
            ))),
        }
    }
}
