//! Webhooks.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tracing::error;

use super::statement::{Parameter, count};
use super::{PostgresStore, Transaction};
use crate::config::Secret;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::LeasedWebhook;
use crate::webhooks::{Destination, UnreadableWebhook, Webhook};

impl PostgresStore {
    pub(in crate::store) async fn list_webhooks(
        &self,
        environment: &Environment,
    ) -> Result<Vec<Result<Webhook, UnreadableWebhook>>, Error> {
        let statement = "
            select id, webhook::text as webhook from pennon_webhooks
            where environment = $1 order by created_at desc, id";
        let rows = self
            .rows(statement, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        Ok(rows.iter().map(webhook_of).collect())
    }
}

impl Transaction {
    pub(in crate::store) async fn count_webhooks(&mut self) -> Result<u64, Error> {
        let statement = "select count(*) as count from pennon_webhooks where environment = $1";
        let parameters: [Parameter<'_>; 1] = [(&self.environment(), Type::TEXT)];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.first().map_or(0, |row| count(row, "count")))
    }

    pub(in crate::store) async fn webhook(
        &mut self,
        id: &str,
    ) -> Result<Option<Result<Webhook, UnreadableWebhook>>, Error> {
        let statement = "
            select id, webhook::text as webhook from pennon_webhooks
            where id = $1 and environment = $2 for update";
        let parameters: [Parameter<'_>; 2] = [(&id, Type::TEXT), (&self.environment(), Type::TEXT)];
        let rows = self.rows(statement, &parameters).await?;
        Ok(rows.first().map(webhook_of))
    }

    pub(in crate::store) async fn insert_webhook(
        &mut self,
        webhook: &Webhook,
        destination: &Destination,
    ) -> Result<(), Error> {
        let statement = "
            with webhook as (
              insert into pennon_webhooks (id, environment, enabled, webhook)
              values ($1, $2, $6, $3::json) returning id)
            insert into pennon_webhook_destinations (webhook_id, url, secret)
            select id, $4, $5 from webhook";
        let parameters: [Parameter<'_>; 6] = [
            (&webhook.id, Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&text_of(webhook)?, Type::TEXT),
            (&destination.url.expose(), Type::TEXT),
            (&destination.secret.expose(), Type::TEXT),
            (&webhook.disabled.is_none(), Type::BOOL),
        ];
        self.rows(statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn write_webhook(
        &mut self,
        webhook: &Webhook,
        lease: Option<SystemTime>,
    ) -> Result<bool, Error> {
        let statement = "
            update pennon_webhooks set webhook = $3::json, enabled = $4, due_at = $5
            where id = $1 and environment = $2 and ($6::timestamptz is null or due_at = $6)
            returning id";
        let parameters: [Parameter<'_>; 6] = [
            (&webhook.id, Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&text_of(webhook)?, Type::TEXT),
            (&webhook.disabled.is_none(), Type::BOOL),
            (&webhook.due_at(SystemTime::now()), Type::TIMESTAMPTZ),
            (&lease, Type::TIMESTAMPTZ),
        ];
        Ok(!self.rows(statement, &parameters).await?.is_empty())
    }

    pub(in crate::store) async fn lease_webhook(
        &mut self,
        lease: Duration,
    ) -> Result<Option<LeasedWebhook>, Error> {
        let statement = "
            with due as (
              select id from pennon_webhooks as known
              where enabled and due_at <= now()
                and exists (select from pennon_outbox where destination = known.id)
              order by due_at, id limit 1
              for update skip locked
            )
            update pennon_webhooks as leased set due_at = now() + make_interval(secs => $1)
            from due left join pennon_webhook_destinations as receiver on receiver.webhook_id = due.id
            where leased.id = due.id
            returning leased.id, leased.environment, leased.webhook::text as webhook, leased.due_at,
              receiver.url, receiver.secret";
        loop {
            let rows = self
                .rows(statement, &[(&lease.as_secs_f64(), Type::FLOAT8)])
                .await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            // An unreadable webhook is logged and stays leased in this transaction, so the statement finds another one.
            let environment = Environment::parse(row.get("environment"));
            if let (Ok(environment), Ok(webhook), Some(destination)) =
                (environment, webhook_of(row), destination_of(row))
            {
                return Ok(Some(LeasedWebhook {
                    environment,
                    webhook,
                    destination,
                    until: row.get("due_at"),
                }));
            }
        }
    }

    pub(in crate::store) async fn delete_webhook(&mut self, id: &str) -> Result<(), Error> {
        let statement = "
            with undelivered as (delete from pennon_outbox where destination = $1 and environment = $2)
            delete from pennon_webhooks where id = $1 and environment = $2";
        let parameters: [Parameter<'_>; 2] = [(&id, Type::TEXT), (&self.environment(), Type::TEXT)];
        self.rows(statement, &parameters).await?;
        Ok(())
    }
}

fn text_of(webhook: &Webhook) -> Result<String, Error> {
    serde_json::to_string(webhook).map_err(|error| Error::Internal(error.to_string()))
}

/// A stored webhook. An unreadable one is logged, and does not affect the others.
fn webhook_of(row: &Row) -> Result<Webhook, UnreadableWebhook> {
    serde_json::from_str(row.get("webhook")).map_err(|why| {
        let id: String = row.get("id");
        error!(domain = "config", webhook = id, error = %why, "a stored webhook is unreadable");
        UnreadableWebhook { id }
    })
}

/// The destination of a webhook. Only SQL can remove it.
fn destination_of(row: &Row) -> Option<Destination> {
    let text = |column| row.get::<_, Option<String>>(column).map(Secret::new);
    let Some((url, secret)) = text("url").zip(text("secret")) else {
        let id: &str = row.get("id");
        error!(
            domain = "config",
            webhook = id,
            "a stored webhook has no destination"
        );
        return None;
    };
    Some(Destination { url, secret })
}
