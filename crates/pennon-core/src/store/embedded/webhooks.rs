//! The file store has no webhooks, because it has no outbox: its journal would have to record every delivery.

use std::time::{Duration, SystemTime};

use super::{EmbeddedStore, Transaction};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::LeasedWebhook;
use crate::webhooks::{Destination, UnreadableWebhook, Webhook};

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl EmbeddedStore {
    pub(in crate::store) fn list_webhooks(
        &self,
        _environment: &Environment,
    ) -> Result<Vec<Result<Webhook, UnreadableWebhook>>, Error> {
        Ok(Vec::new())
    }
}

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl Transaction {
    pub(in crate::store) fn count_webhooks(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    pub(in crate::store) fn webhook(
        &mut self,
        _id: &str,
    ) -> Result<Option<Result<Webhook, UnreadableWebhook>>, Error> {
        Ok(None)
    }

    pub(in crate::store) fn insert_webhook(
        &mut self,
        _webhook: &Webhook,
        _destination: &Destination,
    ) -> Result<(), Error> {
        Err(Error::Conflict(
            "Webhooks need PostgreSQL: set DATABASE_URL".to_owned(),
        ))
    }

    pub(in crate::store) fn write_webhook(
        &mut self,
        _webhook: &Webhook,
        _lease: Option<SystemTime>,
    ) -> Result<bool, Error> {
        Ok(false)
    }

    pub(in crate::store) fn lease_webhook(
        &mut self,
        _lease: Duration,
    ) -> Result<Option<LeasedWebhook>, Error> {
        Ok(None)
    }

    pub(in crate::store) fn delete_webhook(&mut self, _id: &str) -> Result<(), Error> {
        Ok(())
    }
}
