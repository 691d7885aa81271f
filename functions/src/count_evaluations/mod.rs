//! Adds up how often which variant was given, from the log.
//!
//! Fed by subscriptions of CloudWatch Logs to the lines that tell of evaluations.

mod batch;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::store::CountedBatch;
use serde_json::{Value, json};

pub use batch::Batch;

/// Adds a batch of log lines to the counts, once: the database remembers which batches it has counted,
/// and CloudWatch may hand over the same one again. `lost` are evaluations whose counts the database
/// refuses.
///
/// # Errors
/// [`Error::Internal`] for an event that is no batch, [`Error::Unavailable`] when the database does not
/// answer; then Lambda tries again.
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
