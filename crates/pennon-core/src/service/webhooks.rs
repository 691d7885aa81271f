//! Creating, enabling and deleting webhooks. They are not part of a snapshot, so the cache is not involved.

use std::time::SystemTime;

use serde_json::{Value, json};
use url::Url;

use super::FlagService;
use super::change::Expected;
use super::validate::require_environment_in;
use crate::auth::Actor;
use crate::config::Secret;
use crate::environment::Environment;
use crate::error::Error;
use crate::id::unique_id;
use crate::store::{Action, Transaction};
use crate::webhooks::{Destination, Format, UnreadableWebhook, Webhook, new_secret};

/// Limit on the webhooks of an environment. Every change writes an event for each of them.
const MAX_WEBHOOKS: u64 = 20;

/// The webhook to create.
#[derive(Debug)]
pub struct WantedWebhook {
    /// Its purpose, for admins.
    pub name: String,
    /// Its URL, which [`crate::webhooks::Reach::accepts`] has accepted.
    pub url: Url,
    /// The format of the body.
    pub format: Format,
}

/// A webhook that was just created.
#[derive(Debug)]
pub struct NewWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// The key of its signatures. Only the response to its creation shows it.
    pub secret: Secret,
}

impl FlagService {
    /// Creates a webhook.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown environment, [`Error::Conflict`] if it has too many webhooks or the
    /// store is a file; [`Error::Unavailable`].
    pub async fn create_webhook(
        &self,
        environment: &Environment,
        wanted: WantedWebhook,
        actor: &Actor,
    ) -> Result<NewWebhook, Error> {
        let secret = new_secret()?;
        let mut transaction = self.begin(environment, &actor.id).await?;
        // Locks the environment, so that concurrent requests cannot exceed the limit.
        require_environment_in(&mut transaction, environment).await?;
        if transaction.count_webhooks().await? >= MAX_WEBHOOKS {
            return Err(Error::Conflict(format!(
                "An environment can have {MAX_WEBHOOKS} webhooks; delete one first"
            )));
        }
        let webhook = Webhook {
            id: unique_id(),
            name: wanted.name,
            origin: wanted.url.origin().ascii_serialization(),
            format: wanted.format,
            created_at: SystemTime::now(),
            created_by: actor.id.clone(),
            revision: 1,
            disabled: None,
            delivered_at: None,
            outage: None,
        };
        let destination = Destination {
            url: Secret::new(wanted.url),
            secret,
        };
        transaction.insert_webhook(&webhook, &destination).await?;
        transaction
            .add_audit_entry(None, Action::CreateWebhook, None, Some(state_of(&webhook)))
            .await?;
        transaction.commit().await?;
        Ok(NewWebhook {
            webhook,
            secret: destination.secret,
        })
    }

    /// Enables a disabled webhook and clears its failures. It receives the events that were kept meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`]; [`Error::Conflict`] if it is unreadable;
    /// [`Error::Unavailable`].
    pub async fn enable_webhook(
        &self,
        environment: &Environment,
        id: &str,
        expected: &Expected,
        actor: &Actor,
    ) -> Result<Webhook, Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let webhook = find_webhook(&mut transaction, id).await?;
        let mut webhook = webhook.map_err(|UnreadableWebhook { .. }| {
            Error::Conflict(
                "The stored webhook is unreadable; delete it and create it again".to_owned(),
            )
        })?;
        expected.check(webhook.revision)?;
        let before = state_of(&webhook);
        webhook.enable();
        transaction.write_webhook(&webhook, None).await?;
        let after = Some(state_of(&webhook));
        transaction
            .add_audit_entry(None, Action::EnableWebhook, Some(before), after)
            .await?;
        transaction.commit().await?;
        Ok(webhook)
    }

    /// Deletes a webhook and its secret. If it is unreadable, its revision is unknown, and only [`Expected::Any`]
    /// deletes it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`]; [`Error::Unavailable`].
    pub async fn delete_webhook(
        &self,
        environment: &Environment,
        id: &str,
        expected: &Expected,
        actor: &Actor,
    ) -> Result<(), Error> {
        let mut transaction = self.begin(environment, &actor.id).await?;
        let webhook = find_webhook(&mut transaction, id).await?;
        let before = match &webhook {
            Ok(webhook) => {
                expected.check(webhook.revision)?;
                state_of(webhook)
            }
            Err(UnreadableWebhook { id }) => {
                expected.check_without_revision()?;
                json!({ "id": id })
            }
        };
        transaction.delete_webhook(id).await?;
        transaction
            .add_audit_entry(None, Action::DeleteWebhook, Some(before), None)
            .await?;
        transaction.commit().await
    }
}

/// The webhook with this id. Locks the environment before the webhook, the same order as its creation.
pub(super) async fn find_webhook(
    transaction: &mut Transaction,
    id: &str,
) -> Result<Result<Webhook, UnreadableWebhook>, Error> {
    transaction.lock_revision().await?;
    let found = transaction.webhook(id).await?;
    found.ok_or_else(|| Error::NotFound("Webhook".to_owned()))
}

/// A webhook as the audit stores it: without its secret and without the path of its URL.
pub(super) fn state_of(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "name": webhook.name,
        "origin": webhook.origin,
        "format": webhook.format,
        "disabled": webhook.disabled.is_some(),
    })
}
