//! API keys in the file: their hashes, and what admins know of them.

use std::time::SystemTime;

use super::{EmbeddedStore, Transaction};
use crate::environment::Environment;
use crate::error::Error;
use crate::http::unique_id;
use crate::snapshot::KeyKind;
use crate::store::KeyRecord;

impl EmbeddedStore {
    pub(in crate::store) fn list_keys(
        &self,
        environment: &Environment,
    ) -> Result<Vec<KeyRecord>, Error> {
        let inner = self.current()?;
        let beside = inner.contents.beside.get(environment.as_str());
        let mut keys: Vec<KeyRecord> = beside
            .into_iter()
            .flat_map(|beside| beside.keys.values().cloned())
            .collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        Ok(keys)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the same steps as in a database, where each can fail"
)]
impl Transaction {
    pub(in crate::store) fn keys(&mut self) -> Result<Vec<KeyRecord>, Error> {
        Ok(self.beside().keys.values().cloned().collect())
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
            name: name.to_owned(),
            created_at: Some(SystemTime::now()),
            created_by: Some(self.actor().to_owned()),
            revoked_at: None,
        };
        self.beside().keys.insert(hash.to_owned(), record.clone());
        Ok(record)
    }

    pub(in crate::store) fn revoke_key(&mut self, id: &str) -> Result<KeyRecord, Error> {
        let mut keys = self.beside().keys.values_mut();
        let key = keys
            .find(|key| key.id == id && key.revoked_at.is_none())
            .ok_or_else(|| Error::NotFound("Key".to_owned()))?;
        key.revoked_at = Some(SystemTime::now());
        Ok(key.clone())
    }
}
