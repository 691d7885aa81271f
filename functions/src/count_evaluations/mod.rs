//! Adds the evaluation counts of log lines to the database. Subscriptions of CloudWatch Logs deliver the lines.

mod batch;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::store::CountedBatch;
use serde_json::{Value, json};

pub use batch::Batch;

/// Adds a batch of log lines to the counts. The database remembers the ids of batches, because CloudWatch may
/// deliver one twice. `lost` is the number of evaluations whose counts the database rejects.
///
/// # Errors
/// [`Error::Internal`] for an event that is not a batch; [`Error::Unavailable`] if the database does not answer, so
/// that Lambda retries.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let batch = Batch::read(&event).map_err(Error::Internal)?;
    let counted = if batch.counts.is_empty() {
        CountedBatch {
            is_new: true,
            lost: 0,
        }
    } else {
        let store = app.service.store();
        store.count(&batch.id, &batch.counts, batch.until).await?
    };
    let evaluations = if counted.is_new {
        batch.counts.total().saturating_sub(counted.lost)
    } else {
        0
    };
    let mut outcome = json!({
        "lines": batch.lines,
        "evaluations": evaluations,
        "again": !counted.is_new,
    });
    if counted.lost > 0 {
        outcome["lost"] = json!(counted.lost);
    }
    Ok(outcome)
}
