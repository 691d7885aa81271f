//! API keys: made, listed, revoked. A change to a key is a change to its environment, so a key that is
//! revoked opens nothing from the next read of every instance on.

use serde_json::{Value, json};

use super::change::Changed;
use super::{FlagService, Scope};
use crate::api_key::{KeyText, kind_name};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::KeyKind;
use crate::store::{Action, KeyRecord};

/// More than any environment has programs. All live hashes travel with the environment's flags, and
/// every request compares with all of them.
const MOST_KEYS: usize = 100;

/// A key that has just been made: the only time that its text can be shown.
#[derive(Debug)]
pub struct NewKey {
    /// What stays known of it.
    pub record: KeyRecord,
    /// The key.
    pub text: KeyText,
}

impl FlagService {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an environment that does not exist, [`Error::Conflict`] where there are
    /// too many keys; [`Error::Unavailable`].
    pub async fn create_key(
        &self,
        environment: &Environment,
        kind: KeyKind,
        name: &str,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<NewKey>, Error> {
        let text = KeyText::generate(kind, environment)?;
        let mut open = self.begin(environment, &admin.id).await?;
        // Locks the environment: the number of keys is the number of keys until the commit.
        if open.environment_revision().await?.is_none() {
            return Err(Error::NotFound(format!("Environment '{environment}'")));
        }
        let keys = open.keys().await?;
        let live = keys.iter().filter(|key| key.revoked_at.is_none()).count();
        if live >= MOST_KEYS {
            let why = format!("There are {live} keys already; revoke those that nobody uses");
            return Err(Error::Conflict(why));
        }
        let record = open.insert_key(&text.hash(), kind, name).await?;
        open.note(None, Action::CreateKey, None, Some(state_of(&record)))
            .await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: NewKey { record, text },
            invalidated,
        })
    }

    /// Revokes a key, for good.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a key that is not there, or is revoked; [`Error::Unavailable`].
    pub async fn revoke_key(
        &self,
        environment: &Environment,
        id: &str,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<KeyRecord>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let record = open.revoke_key(id).await?;
        open.note(None, Action::RevokeKey, Some(state_of(&record)), None)
            .await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: record,
            invalidated,
        })
    }
}

/// A key as the audit keeps it: no hash, which only those who check need.
fn state_of(record: &KeyRecord) -> Value {
    json!({ "id": record.id, "kind": kind_name(record.kind), "name": record.name })
}
