//! API keys in the state file. Only their hashes are stored.

use std::time::SystemTime;

use super::state::Record;
use super::{EmbeddedStore, Transaction};
use crate::counts::day;
use crate::environment::Environment;
use crate::error::Error;
use crate::id::unique_id;
use crate::key_kind::KeyKind;
use crate::key_uses::LastUses;
use crate::store::KeyRecord;

impl EmbeddedStore {
    pub(in crate::store) fn list_keys(
        &self,
        environment: &Environment,
    ) -> Result<Vec<KeyRecord>, Error> {
        let inner = self.lock_current()?;
        let state = inner.data.state.of(environment.as_str());
        let mut keys: Vec<KeyRecord> = state
            .into_iter()
            .flat_map(|state| state.keys.values().cloned())
            .collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        for key in &mut keys {
            key.last_used_on = inner.history.key_uses.get(&key.id).cloned();
        }
        Ok(keys)
    }

    pub(in crate::store) fn record_key_uses(&self, uses: &LastUses) -> Result<(), Error> {
        let days = uses.iter().map(|(id, at)| (id.clone(), day(*at)));
        let record = Record::KeyUses {
            days: days.collect(),
        };
        // Also while `flags.json` is invalid, because these uses are stored nowhere else yet.
        let mut inner = self.lock_last_valid();
        inner.append_unsynced(record)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signatures as for a database, where each call can fail"
)]
impl Transaction {
    pub(in crate::store) fn keys(&mut self) -> Result<Vec<KeyRecord>, Error> {
        let state = self.state().of(self.environment());
        let keys = state.into_iter().flat_map(|state| state.keys.values());
        Ok(keys.cloned().collect())
    }

    pub(in crate::store) fn insert_key(
        &mut self,
        hash: &str,
        kind: KeyKind,
        name: &str,
    ) -> Result<KeyRecord, Error> {
        let record = KeyRecord {
            id: unique_id(),
            kind,
            unreadable: false,
            name: name.to_owned(),
            created_at: Some(SystemTime::now()),
            created_by: Some(self.actor().to_owned()),
            revoked_at: None,
            last_used_on: None,
        };
        self.put_key(hash.to_owned(), record.clone());
        Ok(record)
    }

    pub(in crate::store) fn revoke_key(&mut self, id: &str) -> Result<KeyRecord, Error> {
        let state = self.state().of(self.environment());
        let mut keys = state.into_iter().flat_map(|state| &state.keys);
        let found = keys.find(|(_, key)| key.id == id && key.revoked_at.is_none());
        let Some((hash, key)) = found else {
            return Err(Error::NotFound("Key".to_owned()));
        };
        let (hash, mut key) = (hash.clone(), key.clone());
        key.revoked_at = Some(SystemTime::now());
        self.put_key(hash, key.clone());
        Ok(key)
    }

    fn put_key(&mut self, hash: String, key: KeyRecord) {
        let environment = self.environment().to_owned();
        self.apply(Record::Key {
            environment,
            hash,
            key,
        });
    }
}
