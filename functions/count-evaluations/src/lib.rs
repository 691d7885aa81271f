//! Adds up how often which variant was given, from the log.
//!
//! Fed by subscriptions of CloudWatch Logs to the lines that tell of evaluations.

mod batch;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

pub use batch::Batch;

/// Adds a batch of log lines to the counts, once: the database remembers which batches it has counted,
/// and CloudWatch may hand over the same one again.
///
/// # Errors
/// [`Error::Internal`] for an event that is no batch, [`Error::Unavailable`] when the database does not
/// answer; then Lambda tries again.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let batch = Batch::read(&event).map_err(Error::Internal)?;
    let is_new = batch.counts.is_empty()
        || app
            .service
            .store()
            .count(&batch.id, &batch.counts, batch.until)
            .await?;
    Ok(json!({
        "lines": batch.lines,
        "evaluations": if is_new { batch.counts.total() } else { 0 },
        "again": !is_new,
    }))
}
