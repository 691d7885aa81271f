//! Rolls ramps back, or pauses them, when an alarm fires. CloudWatch invokes this function as an action of the alarm,
//! and Lambda repeats a failed invocation. This function never raises a share of users or switches a flag on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::service::AlarmEvent;
use pennon_core::timestamp;
use serde_json::{Value, json};

/// The time limit for change events, which are sent after the rollbacks.
const PUBLISH_BUDGET: Duration = Duration::from_secs(1);

/// Rolls back or pauses the ramps that the alarm of this event guards, if the alarm has entered `ALARM`.
///
/// # Errors
/// [`Error::Invalid`] for any other event; [`Error::Unavailable`] if the store does not answer; the error of a ramp
/// that could not be checked.
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
    let alarm = AlarmEvent {
        name,
        arn: text("/alarmArn"),
        at: text("/alarmData/state/timestamp")
            .and_then(timestamp::parse)
            .unwrap_or_else(SystemTime::now),
    };
    let budget = app.config.cache.request_budget;
    let rolled_back = app.service.handle_alarm(alarm, budget).await;
    // Before an error is returned: the other ramps may have been rolled back.
    if let Some(bus) = app.bus() {
        app.service.publish_after_change(bus, PUBLISH_BUDGET).await;
    }
    let rolled_back = rolled_back?;
    tracing::info!(
        domain = "config",
        alarm = name,
        rolled_back,
        "an alarm has fired"
    );
    Ok(json!({ "state": state, "rolledBack": rolled_back }))
}
