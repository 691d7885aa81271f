//! Brings the database to the newest version. Invoked by the deploy command, or by hand; no route
//! leads here.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

/// Runs the migrations that have not run and says how many those were.
///
/// # Errors
/// When the database cannot be reached or a step fails; the steps before it stay.
pub async fn handle(app: Arc<App>) -> Result<Value, Error> {
    let applied = app.service.store().migrate().await?;
    tracing::info!(domain = "config", applied, "database migrated");
    Ok(json!({ "applied": applied }))
}
