//! Takes ramps back when an alarm rings. CloudWatch invokes this function itself, as an action of the
//! alarm, and calls again when it fails. It can only lower the share of users who get a flag.

use std::sync::Arc;
use std::time::SystemTime;

use pennon_core::alarms::window_of_event;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::service::RingingAlarm;
use pennon_core::timestamp;
use serde_json::{Value, json};

/// Takes back what the alarm of this event guards, if the event says that it rings.
///
/// # Errors
/// [`Error::Invalid`] for an event that is none of an alarm; [`Error::Unavailable`] when the store does not
/// answer.
pub async fn handle(app: Arc<App>, event: Value) -> Result<Value, Error> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let (Some(name), Some(state)) = (text("/alarmData/alarmName"), text("/alarmData/state/value"))
    else {
        return Err(Error::invalid_form(
            "Expected the event of a CloudWatch alarm, with alarmData.alarmName and alarmData.state.value",
        ));
    };
    if state != "ALARM" {
        return Ok(json!({ "state": state, "rolledBack": 0 }));
    }
    let alarm = RingingAlarm {
        name,
        arn: text("/alarmArn"),
        at: text("/alarmData/state/timestamp")
            .and_then(timestamp::parse)
            .unwrap_or_else(SystemTime::now),
        window: window_of_event(&event),
    };
    let budget = app.config.cache.request_budget;
    let rolled_back = app.service.ring_alarm(alarm, budget).await?;
    tracing::info!(
        domain = "config",
        alarm = name,
        rolled_back,
        "an alarm rings"
    );
    Ok(json!({ "state": state, "rolledBack": rolled_back }))
}
