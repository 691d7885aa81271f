//! The states of CloudWatch alarms, which guard ramps.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::aws::Aws;

/// Limit on one call of CloudWatch.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit on the time after which no further call of a run begins: `reconcile` needs the rest for the ramps.
const CALLS_TIMEOUT: Duration = Duration::from_secs(15);
/// The value of `CLOUDWATCH_ENDPOINT` in a network from which CloudWatch cannot be reached.
const NONE: &str = "none";
/// Limit on the names of one call.
const NAMES_PER_CALL: usize = 100;
/// The evaluation of a composite alarm, whose parts are unknown, and the minimum for any other: metrics arrive minutes
/// late.
pub const MIN_WINDOW: Duration = Duration::from_secs(5 * 60);
/// The longest evaluation that CloudWatch supports, in seconds: a week.
const MAX_WINDOW: u64 = 7 * 24 * 3600;

/// The source of the states of alarms.
pub enum Alarms {
    /// Amazon CloudWatch, or a server with the same API.
    CloudWatch {
        /// Signs calls.
        aws: Box<Aws>,
        /// `CLOUDWATCH_ENDPOINT`; the region's endpoint if it is not set.
        endpoint: Option<String>,
    },
    /// Alarms in the memory of the local server, which has a route to set them.
    Local(Mutex<BTreeMap<String, AlarmState>>),
    /// CloudWatch cannot be reached, for this reason.
    Absent(String),
}

/// The state of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmState {
    /// `OK`
    Ok,
    /// `ALARM`
    Alarm,
    /// `INSUFFICIENT_DATA`
    InsufficientData,
}

impl AlarmState {
    /// Parses CloudWatch's name of a state.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "OK" => Some(Self::Ok),
            "ALARM" => Some(Self::Alarm),
            "INSUFFICIENT_DATA" => Some(Self::InsufficientData),
            _ => None,
        }
    }

    /// CloudWatch's name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Its ARN; an alarm of the local server has none.
    pub arn: Option<String>,
    /// Its state.
    pub state: AlarmState,
    /// The length of its evaluation: period times number of periods.
    pub window: Duration,
    /// Whether it invokes a function when it enters `ALARM`.
    pub invokes_function: bool,
}

/// The alarms that were found.
#[derive(Debug, Default)]
pub struct Described {
    /// By their names.
    pub alarms: BTreeMap<String, Alarm>,
    /// Why some names were not looked up. If this is set, the state of an alarm that is missing above is unknown.
    pub failure: Option<String>,
}

impl Alarms {
    /// CloudWatch, with the role of this function.
    #[must_use]
    pub fn cloud_watch(endpoint: Option<&str>) -> Self {
        if endpoint == Some(NONE) {
            return Self::Absent("CLOUDWATCH_ENDPOINT is none".to_owned());
        }
        match Aws::from_process() {
            Ok(aws) => Self::CloudWatch {
                aws: Box::new(aws),
                endpoint: endpoint.map(ToOwned::to_owned),
            },
            Err(why) => Self::Absent(why),
        }
    }

    /// The alarms with these names. Without a failure, a name that is missing has no alarm. A failed call does not
    /// affect the names of other calls.
    pub async fn find(&self, names: &[&str]) -> Described {
        match self {
            Self::CloudWatch { aws, endpoint } => {
                let mut found = Described::default();
                let started = Instant::now();
                for names in names.chunks(NAMES_PER_CALL) {
                    if started.elapsed() > CALLS_TIMEOUT {
                        found.failure = Some("no time was left for all alarms".to_owned());
                        break;
                    }
                    let answer = aws.describe_alarms(endpoint.as_deref(), names, CALL_TIMEOUT);
                    match answer.await {
                        Ok(answer) => found.alarms.extend(alarms_in(&answer)),
                        Err(why) => found.failure = Some(why.to_string()),
                    }
                }
                found
            }
            Self::Local(alarms) => {
                let alarms = alarms.lock().unwrap_or_else(PoisonError::into_inner);
                let known = names.iter().map(|name| {
                    let alarm = Alarm {
                        // Otherwise the console could not start a ramp with a guard without a curl command.
                        state: alarms.get(*name).copied().unwrap_or(AlarmState::Ok),
                        arn: None,
                        window: MIN_WINDOW,
                        invokes_function: true,
                    };
                    ((*name).to_owned(), alarm)
                });
                Described {
                    alarms: known.collect(),
                    failure: None,
                }
            }
            Self::Absent(why) => Described {
                failure: Some(why.clone()),
                ..Described::default()
            },
        }
    }

    /// Why CloudWatch cannot be reached from here.
    #[must_use]
    pub fn absent(&self) -> Option<&str> {
        match self {
            Self::Absent(why) => Some(why),
            Self::CloudWatch { .. } | Self::Local(_) => None,
        }
    }

    /// Sets the state of an alarm of the local server. Returns `false` if alarms are read from CloudWatch.
    pub fn set(&self, name: &str, state: AlarmState) -> bool {
        match self {
            Self::Local(alarms) => {
                let mut alarms = alarms.lock().unwrap_or_else(PoisonError::into_inner);
                alarms.insert(name.to_owned(), state);
                true
            }
            Self::CloudWatch { .. } | Self::Absent(_) => false,
        }
    }
}

/// The alarms in a response to `DescribeAlarms`. An unknown state counts as `INSUFFICIENT_DATA`.
fn alarms_in(answer: &Value) -> BTreeMap<String, Alarm> {
    let kinds = ["MetricAlarms", "CompositeAlarms"].into_iter();
    let all = kinds
        .filter_map(|kind| answer.get(kind)?.as_array())
        .flatten();
    let alarm = |alarm: &Value| {
        let text = |name: &str| Some(alarm.get(name)?.as_str()?.to_owned());
        let is_function = |action: &Value| {
            let arn = action.as_str();
            arn.and_then(|arn| arn.split(':').nth(2)) == Some("lambda")
        };
        let name = text("AlarmName")?;
        let state = alarm.get("StateValue").and_then(Value::as_str);
        let acts = alarm.get("ActionsEnabled").and_then(Value::as_bool);
        let actions = alarm.get("AlarmActions").and_then(Value::as_array);
        Some((
            name,
            Alarm {
                state: state
                    .and_then(AlarmState::parse)
                    .unwrap_or(AlarmState::InsufficientData),
                window: window_of(alarm),
                arn: text("AlarmArn"),
                invokes_function: acts.unwrap_or(true)
                    && actions.is_some_and(|it| it.iter().any(is_function)),
            },
        ))
    };
    all.filter_map(alarm).collect()
}

/// The length of the evaluation of an alarm, from the event that CloudWatch sends to a function.
#[must_use]
pub fn window_of_event(event: &Value) -> Duration {
    let configuration = event.pointer("/alarmData/configuration");
    let metrics = configuration.and_then(|it| it.get("metrics")?.as_array());
    let periods = metrics.into_iter().flatten().filter_map(|metric| {
        let period = metric
            .get("period")
            .or_else(|| metric.pointer("/metricStat/period"))?;
        period.as_u64()
    });
    // The event does not say how many periods are evaluated.
    window(periods.max(), 3)
}

/// The length of the evaluation of an alarm. An alarm on a formula has a period in each of its metrics.
fn window_of(alarm: &Value) -> Duration {
    let metrics = alarm.get("Metrics").and_then(Value::as_array);
    let of_metrics = metrics.into_iter().flatten().filter_map(|metric| {
        let own = metric.get("Period").and_then(Value::as_u64);
        own.or_else(|| metric.pointer("/MetricStat/Period")?.as_u64())
    });
    let own = alarm.get("Period").and_then(Value::as_u64);
    let period = own.into_iter().chain(of_metrics).max();
    let periods = alarm.get("EvaluationPeriods").and_then(Value::as_u64);
    window(period, periods.unwrap_or(1))
}

/// The length of that many periods, within the bounds of an evaluation.
fn window(period: Option<u64>, periods: u64) -> Duration {
    let seconds = period.unwrap_or(0).saturating_mul(periods);
    Duration::from_secs(seconds.min(MAX_WINDOW)).max(MIN_WINDOW)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metric_and_composite_alarms_are_read_alike() {
        let arn = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:parts";
        let function = "arn:aws:lambda:us-east-1:123456789012:function:pennon-guard:live";
        let answer = json!({
            "MetricAlarms": [
                {"AlarmName": "errors", "StateValue": "OK", "Period": 300, "EvaluationPeriods": 3,
                 "AlarmActions": ["arn:aws:sns:us-east-1:1:topic"]},
                {"AlarmName": "rate", "StateValue": "new", "EvaluationPeriods": 2, "Metrics": [
                    {"MetricStat": {"Period": 60}}, {"Period": 900}]},
                {"AlarmName": "muted", "StateValue": "OK", "ActionsEnabled": false,
                 "AlarmActions": [function], "Period": 10, "EvaluationPeriods": 1},
                {"StateValue": "OK"},
            ],
            "CompositeAlarms": [{"AlarmName": "parts", "AlarmArn": arn, "StateValue": "ALARM",
                "AlarmRule": "ALARM(errors)", "AlarmActions": [function]}],
        });
        let alarm = |state, seconds, invokes_function| Alarm {
            arn: None,
            state,
            window: Duration::from_secs(seconds),
            invokes_function,
        };
        let composite = Alarm {
            arn: Some(arn.to_owned()),
            ..alarm(AlarmState::Alarm, 300, true)
        };
        let wanted = [
            ("errors", alarm(AlarmState::Ok, 900, false)),
            ("muted", alarm(AlarmState::Ok, 300, false)),
            ("parts", composite),
            ("rate", alarm(AlarmState::InsufficientData, 1_800, false)),
        ];
        let wanted = wanted.map(|(name, alarm)| (name.to_owned(), alarm));
        assert_eq!(alarms_in(&answer), wanted.into());
    }
}
