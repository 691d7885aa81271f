//! Amazon EventBridge.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::ChangeEvent;
use crate::aws::{Aws, CallError};
use crate::breaker::{Breaker, Permit};

/// The `source` of all events.
const SOURCE: &str = "pennon";
/// The `detail-type` of all events.
const DETAIL_TYPE: &str = "Pennon Change";
/// The largest number of entries in a `PutEvents` call.
pub const MAX_ENTRIES: u32 = 10;
/// The largest size of all entries in a `PutEvents` call.
const MAX_CALL_SIZE: usize = 256 * 1024;
/// The size that EventBridge counts for the time of an entry.
const TIME_SIZE: usize = 14;

/// The event bus that receives change events.
pub struct EventBus {
    name: String,
    aws: Result<Box<Aws>, String>,
    breaker: Breaker,
}

/// The outcome for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// EventBridge accepted it.
    Accepted,
    /// EventBridge rejected it, for this reason.
    Rejected(String),
}

impl EventBus {
    /// The bus with this name or ARN, in the region of this process.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            aws: Aws::from_process().map(Box::new),
            breaker: Breaker::default(),
        }
    }

    /// Whether a request should call EventBridge. False for a moment after a failed call, so that an outage does
    /// not delay every request.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.breaker.permit(Instant::now()) != Permit::Refused
    }

    /// Sends events in one call. Returns the outcomes of those that were sent, in their order. Events that do not fit
    /// into the call or into the time are not sent.
    ///
    /// One invalid entry makes EventBridge reject the whole call. The entries are then sent one by one, so that only
    /// the invalid one is rejected.
    ///
    /// # Errors
    /// EventBridge did not answer in time, or rejected the call for another reason.
    pub async fn put(
        &self,
        events: &[ChangeEvent],
        within: Duration,
    ) -> Result<Vec<Delivery>, CallError> {
        let start = Instant::now();
        let entries = self.entries(events);
        let sent = entries.len();
        let response = self.call(entries, within).await;
        let needed = start.elapsed();
        let mut outcomes = match response {
            Err(CallError::Invalid(_)) if sent > 1 => Vec::new(),
            Err(CallError::Invalid(why)) => return Ok(vec![Delivery::Rejected(why)]),
            outcomes @ (Ok(_) | Err(CallError::Transient(_) | CallError::Permanent(_))) => {
                return outcomes;
            }
        };
        for event in events.iter().take(sent) {
            let left = within.saturating_sub(start.elapsed());
            if left < needed && !outcomes.is_empty() {
                // A call would probably end at its time limit, and open the breaker although EventBridge answers.
                break;
            }
            let entry = self.entries(std::slice::from_ref(event));
            match self.call(entry, left).await {
                Ok(outcome) => outcomes.extend(outcome),
                Err(CallError::Invalid(why)) => outcomes.push(Delivery::Rejected(why)),
                Err(error) if outcomes.is_empty() => return Err(error),
                // The next run sends the others.
                Err(CallError::Transient(_) | CallError::Permanent(_)) => break,
            }
        }
        Ok(outcomes)
    }

    async fn call(
        &self,
        entries: Vec<Value>,
        within: Duration,
    ) -> Result<Vec<Delivery>, CallError> {
        let aws = match &self.aws {
            Ok(aws) => aws,
            Err(why) => return Err(CallError::Permanent(why.clone())),
        };
        let sent = entries.len();
        let response = aws.put_events(entries, within).await;
        let outcomes = response.and_then(|response| deliveries(&response, sent));
        match &outcomes {
            Ok(_) | Err(CallError::Invalid(_)) => {
                self.breaker.succeeded();
            }
            Err(CallError::Transient(_) | CallError::Permanent(_)) => {
                self.breaker.failed(Instant::now());
            }
        }
        outcomes
    }

    /// The entries of a call: as many as fit. The first one always does, see [`super::MAX_EVENT_SIZE`].
    fn entries(&self, events: &[ChangeEvent]) -> Vec<Value> {
        let mut entries = Vec::with_capacity(events.len());
        let mut size = 0;
        for event in events {
            let detail = event.to_json().to_string();
            size += TIME_SIZE + SOURCE.len() + DETAIL_TYPE.len() + detail.len();
            if size > MAX_CALL_SIZE {
                break;
            }
            let time = event.at.duration_since(SystemTime::UNIX_EPOCH);
            entries.push(json!({
                "Source": SOURCE,
                "DetailType": DETAIL_TYPE,
                "Time": time.map_or(0, |since| since.as_secs()),
                "EventBusName": self.name,
                "Detail": detail,
            }));
        }
        entries
    }
}

/// Reads the outcomes in a response. A successful call may contain rejected entries.
fn deliveries(response: &Value, sent: usize) -> Result<Vec<Delivery>, CallError> {
    let entries = response["Entries"].as_array();
    let entries = entries.filter(|entries| entries.len() == sent);
    let entries = entries.ok_or_else(|| {
        CallError::Transient(format!(
            "the response of EventBridge does not have {sent} Entries: {response}"
        ))
    })?;
    let delivery = |entry: &Value| {
        if entry["EventId"].is_string() {
            return Delivery::Accepted;
        }
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        Delivery::Rejected(format!("{}: {}", text("ErrorCode"), text("ErrorMessage")))
    };
    Ok(entries.iter().map(delivery).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_its_own_outcome() {
        let response = json!({"FailedEntryCount": 1, "Entries": [
            {"EventId": "a"}, {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}]});
        let found = deliveries(&response, 2).ok();
        let rejected = Delivery::Rejected("ThrottlingException: slow down".to_owned());
        assert_eq!(found, Some(vec![Delivery::Accepted, rejected]));
    }

    #[test]
    fn a_response_without_an_outcome_for_each_entry_confirms_nothing() {
        for response in [
            json!({}),
            json!({"FailedEntryCount": 0, "Entries": [{"EventId": "a"}]}),
        ] {
            assert!(deliveries(&response, 2).is_err(), "{response}");
        }
    }
}
