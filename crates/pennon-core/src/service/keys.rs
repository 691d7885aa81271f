//! Creating and revoking API keys. A change of a key is a change of its environment, so each instance rejects a
//! revoked key from its next read on.

use serde_json::{Value, json};

use super::FlagService;
use super::change::Changed;
use super::validate::require_environment_in;
use crate::api_key::{KeyText, kind_name};
use crate::auth::Actor;
use crate::environment::Environment;
use crate::error::Error;
use crate::key_kind::KeyKind;
use crate::request_context::RequestContext;
use crate::store::{Action, KeyRecord};

/// Limit on the active keys of an environment, far above the number of its clients. The hashes of all active keys are
/// part of the snapshot, and the key of every request is compared with all of them.
const MAX_KEYS: usize = 100;

/// A new key. Its text is shown only once.
#[derive(Debug)]
pub struct NewKey {
    /// The stored record.
    pub record: KeyRecord,
    /// The text of the key.
    pub text: KeyText,
}

impl FlagService {
    /// Creates a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an environment that does not exist, [`Error::Conflict`] if the
    /// environment has too many keys; [`Error::Unavailable`].
    pub async fn create_key(
        &self,
        environment: &Environment,
        kind: KeyKind,
        name: &str,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<NewKey>, Error> {
        let text = KeyText::generate(kind, environment)?;
        let mut transaction = self.begin(environment, &actor.id).await?;
        // Locks the environment, so that a concurrent request cannot exceed the limit.
        require_environment_in(&mut transaction, environment).await?;
        let keys = transaction.keys().await?;
        let active = keys.iter().filter(|key| key.revoked_at.is_none()).count();
        if active >= MAX_KEYS {
            let why =
                format!("The environment has {active} keys, the maximum; revoke unused keys first");
            return Err(Error::Conflict(why));
        }
        let record = transaction.insert_key(&text.hash(), kind, name).await?;
        transaction
            .add_audit_entry(None, Action::CreateKey, None, Some(state_of(&record)))
            .await?;
        let new = NewKey { record, text };
        self.finish(transaction, environment, new, context).await
    }

    /// Revokes a key permanently.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a key that does not exist or is already revoked; [`Error::Unavailable`].
    pub async fn revoke_key(
        &self,
        environment: &Environment,
        id: &str,
        actor: &Actor,
        context: &RequestContext,
    ) -> Result<Changed<KeyRecord>, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let record = transaction.revoke_key(id).await?;
        transaction
            .add_audit_entry(None, Action::RevokeKey, Some(state_of(&record)), None)
            .await?;
        self.finish(transaction, environment, record, context).await
    }
}

/// A key as the audit stores it, without its hash.
fn state_of(record: &KeyRecord) -> Value {
    json!({ "id": record.id, "kind": kind_name(record.kind), "name": record.name })
}
