//! Adds the evaluation counts of log lines to the database, and records which API keys were used. Subscriptions of
//! CloudWatch Logs deliver the lines.

mod batch;

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use serde_json::{Value, json};

pub use batch::{Batch, Delivery};

/// Adds the evaluations of log lines to the counts. The database remembers the ids of batches, and counts each batch
/// once: CloudWatch may deliver lines twice, and a program may repeat a `POST /v1/evaluation-counts`, whose counts
/// arrive here as a log line too. In the outcome, `again` says that a batch had been counted before, and `lost` is the
/// number of evaluations whose counts the database rejects.
///
/// # Errors
/// [`Error::Internal`] for an event that is not a delivery of CloudWatch Logs; [`Error::Unavailable`] if the database
/// does not answer, so that Lambda retries.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let delivery = Delivery::read(&event).map_err(Error::Internal)?;
    let store = app.service.store();
    let (mut evaluations, mut lost, mut again) = (0_u64, 0_u64, false);
    for Batch {
        id,
        counts,
        last_line_at,
    } in &delivery.batches
    {
        let counted = store.count(id, counts, *last_line_at).await?;
        if counted.is_new {
            let added = counts.total().saturating_sub(counted.lost);
            evaluations = evaluations.saturating_add(added);
            lost = lost.saturating_add(counted.lost);
        } else {
            again = true;
        }
    }
    if !delivery.key_uses.is_empty() {
        store.record_key_uses(&delivery.key_uses).await?;
    }
    let mut outcome = json!({
        "lines": delivery.lines,
        "evaluations": evaluations,
        "again": again,
    });
    if lost > 0 {
        outcome["lost"] = json!(lost);
    }
    Ok(outcome)
}
