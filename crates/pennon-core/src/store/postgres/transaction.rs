//! An open transaction, and what all its steps have in common.

use std::time::Duration;

use tokio_postgres::Row;

use super::error::Failure;
use super::flags::Refused;
use super::pool::Connection;
use super::statement::Parameter;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::COMMIT_WITHIN;

/// An open transaction. Unless it has been committed, its connection is closed when it is dropped, and the
/// database rolls everything back.
pub struct Transaction {
    /// `None` once it is committed.
    client: Option<Box<Connection>>,
    environment: Environment,
    actor: String,
    within: Duration,
    /// Whether changes write events into the outbox.
    outbox: bool,
}

impl Transaction {
    pub(super) async fn begin(
        client: Connection,
        environment: &Environment,
        actor: &str,
        within: Duration,
        outbox: bool,
    ) -> Result<Self, Error> {
        let open = Self {
            client: Some(Box::new(client)),
            environment: environment.clone(),
            actor: actor.to_owned(),
            within,
            outbox,
        };
        // Limits of this transaction alone: a pooler hands the connection to somebody else after it. The
        // second one ends a transaction whose commit does not come; see `COMMIT_WITHIN`.
        let begin = format!(
            "begin;
             set local statement_timeout = {};
             set local idle_in_transaction_session_timeout = {}",
            within.as_millis(),
            COMMIT_WITHIN.as_millis()
        );
        let begun = open.client()?.batch_execute(&begin).await;
        begun.map_err(|error| Failure::of(&error).error)?;
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

    fn client(&self) -> Result<&Connection, Error> {
        let client = self.client.as_deref();
        client.ok_or_else(|| Error::Internal("a transaction was used after its end".to_owned()))
    }

    pub(super) fn environment(&self) -> &str {
        self.environment.as_str()
    }

    pub(in crate::store) fn actor(&self) -> &str {
        &self.actor
    }

    pub(super) fn has_outbox(&self) -> bool {
        self.outbox
    }

    /// The rows that a statement leads to, in time.
    pub(super) async fn rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        self.try_rows(statement, parameters)
            .await
            .map_err(|refused| match refused {
                Refused::ByDatabase(code) => {
                    Error::Internal(format!("a statement was refused: {}", code.code()))
                }
                Refused::Otherwise(error) => error,
            })
    }

    /// The same, with the reason when the data is refused.
    pub(super) async fn try_rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Refused> {
        let client = self.client().map_err(Refused::Otherwise)?;
        let query = client.query_typed(statement, parameters);
        match tokio::time::timeout(self.within, query).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => match error.code() {
                // Class 23: a constraint is in the way.
                Some(code) if code.code().starts_with("23") => {
                    Err(Refused::ByDatabase(code.clone()))
                }
                Some(_) | None => Err(Refused::Otherwise(Failure::of(&error).error)),
            },
            Err(_elapsed) => Err(Refused::Otherwise(Error::Unavailable(
                "the database did not answer in time".to_owned(),
            ))),
        }
    }
}
