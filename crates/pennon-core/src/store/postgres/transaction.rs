//! An open transaction, and what all its steps have in common.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;

use super::flags::Refused;
use super::{Parameter, unavailable};
use crate::environment::Environment;
use crate::error::Error;

/// An open transaction, on a connection that is no longer the pool's. When this is dropped, so is the
/// connection, and the database takes everything back.
pub struct Transaction {
    client: ClientWrapper,
    environment: Environment,
    actor: String,
    within: Duration,
}

impl Transaction {
    pub(super) async fn begin(
        client: ClientWrapper,
        environment: &Environment,
        actor: &str,
        within: Duration,
    ) -> Result<Self, Error> {
        client
            .batch_execute("begin")
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(Self {
            client,
            environment: environment.clone(),
            actor: actor.to_owned(),
            within,
        })
    }

    pub(in crate::store) async fn commit(self) -> Result<(), Error> {
        let commit = self.client.batch_execute("commit");
        match tokio::time::timeout(self.within, commit).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_elapsed) => Err(Error::Unavailable(
                "the database did not confirm the commit in time".to_owned(),
            )),
        }
    }

    pub(super) fn environment(&self) -> &str {
        self.environment.as_str()
    }

    pub(super) fn actor(&self) -> &str {
        &self.actor
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
        let query = self.client.query_typed(statement, parameters);
        match tokio::time::timeout(self.within, query).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => match error.code() {
                // Class 23: a constraint is in the way.
                Some(code) if code.code().starts_with("23") => {
                    Err(Refused::ByDatabase(code.clone()))
                }
                Some(_) | None => Err(Refused::Otherwise(unavailable(&error))),
            },
            Err(_elapsed) => Err(Refused::Otherwise(Error::Unavailable(
                "the database did not answer in time".to_owned(),
            ))),
        }
    }
}
