//! Webhooks.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tracing::error;

use super::statement::Parameter;
use super::{PostgresStore, Transaction};
use crate::environment::Environment;
use crate::error::Error;
use crate::webhooks::{Destination, Webhook};

impl PostgresStore {
    pub(in crate::store) async fn list_webhooks(
        &self,
        environment: &Environment,
    ) -> Result<Vec<Webhook>, Error> {
        let statement = "
            select id, webhook::text as webhook from pennon_webhooks
            where environment = $1 order by created_at desc, id";
        let rows = self
            .rows(statement, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        Ok(rows.iter().filter_map(webhook_of).collect())
    }
}

impl Transaction {
    pub(in crate::store) async fn webhooks(&mut self) -> Result<Vec<Webhook>, Error> {
        let statement = "
            select id, webhook::text as webhook from pennon_webhooks
            where environment = $1 order by id for update";
        let rows = self
            .rows(statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        Ok(rows.iter().filter_map(webhook_of).collect())
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

    pub(in crate::store) async fn write_webhook(&mut self, webhook: &Webhook) -> Result<(), Error> {
        let statement = "
            update pennon_webhooks set webhook = $3::json, enabled = $4, due_at = now()
            where id = $1 and environment = $2";
        let parameters: [Parameter<'_>; 4] = [
            (&webhook.id, Type::TEXT),
            (&self.environment(), Type::TEXT),
            (&text_of(webhook)?, Type::TEXT),
            (&webhook.disabled.is_none(), Type::BOOL),
        ];
        self.rows(statement, &parameters).await?;
        Ok(())
    }

    pub(in crate::store) async fn delete_webhook(&mut self, id: &str) -> Result<(), Error> {
        let statement = "delete from pennon_webhooks where id = $1 and environment = $2";
        let parameters: [Parameter<'_>; 2] = [(&id, Type::TEXT), (&self.environment(), Type::TEXT)];
        self.rows(statement, &parameters).await?;
        Ok(())
    }
}

fn text_of(webhook: &Webhook) -> Result<String, Error> {
    serde_json::to_string(webhook).map_err(|error| Error::Internal(error.to_string()))
}

/// A stored webhook. An unreadable one is logged and skipped, so that it does not affect the others.
fn webhook_of(row: &Row) -> Option<Webhook> {
    let id: &str = row.get("id");
    serde_json::from_str(row.get("webhook"))
        .inspect_err(|why| {
            error!(domain = "config", webhook = id, error = %why, "a stored webhook is unreadable");
        })
        .ok()
}
