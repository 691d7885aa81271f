//! A flag file has no outbox: it serves a single developer, and its journal would have to record every delivery.
//! The local server warns of this at its start if `EVENT_BUS_NAME` is set.

use super::EmbeddedStore;
use super::transaction::Transaction;
use crate::error::Error;
use crate::events::ChangeEvent;
use crate::store::Backlog;

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl EmbeddedStore {
    pub(in crate::store) fn backlog(&self) -> Result<Backlog, Error> {
        Ok(Backlog::default())
    }

    pub(in crate::store) fn expire_events(&self, _has_bus: bool) -> Result<u64, Error> {
        Ok(0)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl Transaction {
    pub(in crate::store) fn claim_events(
        &mut self,
        _limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        Ok(Vec::new())
    }

    pub(in crate::store) fn next_events(
        &mut self,
        _webhook_id: &str,
        _limit: u32,
    ) -> Result<Vec<ChangeEvent>, Error> {
        Ok(Vec::new())
    }

    pub(in crate::store) fn remove_events(
        &mut self,
        _webhook_id: &str,
        _delivered: &[i64],
    ) -> Result<(), Error> {
        Ok(())
    }

    pub(in crate::store) fn settle_events(
        &mut self,
        _delivered: &[i64],
        _rejected: &[i64],
    ) -> Result<(), Error> {
        Ok(())
    }
}
