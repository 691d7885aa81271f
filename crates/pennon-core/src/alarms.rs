//! The states of CloudWatch alarms, which guard ramps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::aws::Aws;
use crate::ramp::{MAX_WINDOW, alarm_name};

/// Time limit of one call of CloudWatch.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// [`Alarms::find`] begins no further call after this time: `reconcile` needs the rest of its time for the ramps.
const CALLS_TIMEOUT: Duration = Duration::from_secs(15);
/// The value of `CLOUDWATCH_ENDPOINT` in a network from which CloudWatch cannot be reached.
const NONE: &str = "none";
/// Limit on the names of one call.
const NAMES_PER_CALL: usize = 100;
/// Limit on the characters of a name. CloudWatch rejects a whole call because of one longer name.
pub const MAX_NAME: usize = 255;
/// The rule of a composite alarm may name composite alarms. This many levels below an alarm are looked up.
const MAX_NESTING: usize = 3;
/// A shorter evaluation interval counts as this long, because metrics arrive minutes late.
const MIN_WINDOW: Duration = Duration::from_secs(5 * 60);

/// The source of the states of alarms.
pub enum Alarms {
    /// Amazon CloudWatch, or a server with the same API.
    CloudWatch {
        /// Signs calls.
        aws: Box<Aws>,
        /// `CLOUDWATCH_ENDPOINT`; the region's endpoint if it is not set.
        endpoint: Option<String>,
    },
    /// Alarms in the memory of the local server, which has a route to set them: the state, and when it began.
    Local(Mutex<BTreeMap<String, (AlarmState, SystemTime)>>),
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
    /// When it entered this state. Unknown for a server that answers without this field of CloudWatch, such as moto.
    pub since: Option<SystemTime>,
    /// Its evaluation interval: period × evaluation periods, between `MIN_WINDOW` and `MAX_WINDOW`. For a composite
    /// alarm, the longest one of the alarms in its rule.
    pub window: Duration,
    /// The names of the alarms in the rule of a composite alarm.
    parts: BTreeSet<String>,
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

    /// The alarms with these names, and those in the rules of composite alarms. Without a failure, a name that is
    /// missing has no alarm. A failed call does not affect the names of other calls.
    pub async fn find(&self, names: &[&str]) -> Described {
        let started = Instant::now();
        let mut found = self.find_listed(names, started).await;
        let mut known: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for _level in 0..MAX_NESTING {
            let parts = found.alarms.values().flat_map(|alarm| &alarm.parts);
            let new: BTreeSet<String> = parts.filter(|it| !known.contains(*it)).cloned().collect();
            if new.is_empty() {
                break;
            }
            let names: Vec<&str> = new.iter().map(String::as_str).collect();
            let more = self.find_listed(&names, started).await;
            found.alarms.extend(more.alarms);
            found.failure = found.failure.or(more.failure);
            known.extend(new);
        }
        widen(&mut found.alarms);
        found
    }

    /// The alarms with these names. No call begins when [`CALLS_TIMEOUT`] has elapsed since `started`.
    async fn find_listed(&self, names: &[&str], started: Instant) -> Described {
        match self {
            Self::CloudWatch { aws, endpoint } => {
                let mut found = Described::default();
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
                    let set = alarms.get(*name);
                    let alarm = Alarm {
                        // An alarm that was never set is OK. Otherwise a ramp with alarms could start only after a curl
                        // command.
                        state: set.map_or(AlarmState::Ok, |(state, _)| *state),
                        since: set.map(|(_, since)| *since),
                        arn: None,
                        window: MIN_WINDOW,
                        parts: BTreeSet::new(),
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
                if alarms.get(name).is_none_or(|(known, _)| *known != state) {
                    alarms.insert(name.to_owned(), (state, SystemTime::now()));
                }
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
        let since = alarm.get("StateTransitionedTimestamp");
        let acts = alarm.get("ActionsEnabled").and_then(Value::as_bool);
        let actions = alarm.get("AlarmActions").and_then(Value::as_array);
        Some((
            name,
            Alarm {
                state: state
                    .and_then(AlarmState::parse)
                    .unwrap_or(AlarmState::InsufficientData),
                since: since.and_then(time_of),
                window: window_of(alarm),
                parts: text("AlarmRule").map_or_else(BTreeSet::new, |rule| names_in(&rule)),
                arn: text("AlarmArn"),
                invokes_function: acts.unwrap_or(true)
                    && actions.is_some_and(|it| it.iter().any(is_function)),
            },
        ))
    };
    all.filter_map(alarm).collect()
}

/// The time of a timestamp in a response: seconds since 1970, with a fraction.
fn time_of(seconds: &Value) -> Option<SystemTime> {
    let since_1970 = Duration::try_from_secs_f64(seconds.as_f64()?).ok()?;
    UNIX_EPOCH.checked_add(since_1970)
}

/// The names in the rule of a composite alarm, such as `ALARM("errors") AND NOT OK(latency)`. Other words of the rule
/// may be among them, which matters only if an alarm has that name: its evaluation interval then counts too. Words with
/// a line break are not: no alarm has such a name, and CloudWatch may reject a whole call because of it.
fn names_in(rule: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut piece = String::new();
    let mut is_quoted = false;
    for letter in rule.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            // Words before a parenthesis are operators and functions.
            '(' if !is_quoted => piece.clear(),
            ')' | ',' if !is_quoted => {
                let name = alarm_name(piece.trim());
                if (1..=MAX_NAME).contains(&name.chars().count())
                    && !name.contains(char::is_control)
                {
                    names.insert(name.to_owned());
                }
                piece.clear();
            }
            letter => piece.push(letter),
        }
    }
    names
}

/// Gives each composite alarm the longest evaluation interval of the alarms in its rule.
fn widen(alarms: &mut BTreeMap<String, Alarm>) {
    for _level in 0..MAX_NESTING {
        let windows = alarms.iter().map(|(name, it)| (name.clone(), it.window));
        let windows: BTreeMap<String, Duration> = windows.collect();
        for alarm in alarms.values_mut() {
            let parts = alarm.parts.iter().filter_map(|name| windows.get(name));
            alarm.window = parts.copied().fold(alarm.window, Duration::max);
        }
    }
}

/// The evaluation interval of an alarm. An alarm on a formula has a period in each of its metrics.
fn window_of(alarm: &Value) -> Duration {
    let metrics = alarm.get("Metrics").and_then(Value::as_array);
    let of_metrics = metrics.into_iter().flatten().filter_map(|metric| {
        let own = metric.get("Period").and_then(Value::as_u64);
        own.or_else(|| metric.pointer("/MetricStat/Period")?.as_u64())
    });
    let own = alarm.get("Period").and_then(Value::as_u64);
    let period = own.into_iter().chain(of_metrics).max().unwrap_or(0);
    let periods = alarm.get("EvaluationPeriods").and_then(Value::as_u64);
    let seconds = period.saturating_mul(periods.unwrap_or(1));
    Duration::from_secs(seconds).clamp(MIN_WINDOW, MAX_WINDOW)
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
                "StateTransitionedTimestamp": 1.5, "AlarmRule": "ALARM(errors)", "AlarmActions": [function]}],
        });
        let alarm = |state, seconds, invokes_function| Alarm {
            arn: None,
            state,
            since: None,
            window: Duration::from_secs(seconds),
            parts: BTreeSet::new(),
            invokes_function,
        };
        let composite = Alarm {
            arn: Some(arn.to_owned()),
            parts: BTreeSet::from(["errors".to_owned()]),
            since: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
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

    #[test]
    fn a_composite_alarm_evaluates_as_long_as_the_alarms_in_its_rule() {
        for (rule, names) in [
            ("ALARM(errors)", &["errors"] as &[&str]),
            (
                r#"NOT (ALARM("a (b), c") AND OK( spaced name )) OR FALSE"#,
                &["a (b), c", "spaced name"],
            ),
            (
                "INSUFFICIENT_DATA(arn:aws:cloudwatch:us-east-1:1:alarm:x:y)",
                &["x:y"],
            ),
            (
                "AT_LEAST(2, ALARM, (one, \"two\"))",
                &["2", "ALARM", "one", "two"],
            ),
            ("(ALARM(errors) AND\n FALSE)", &["errors"]),
            ("ALARM()", &[]),
        ] {
            let found = names_in(rule);
            assert!(found.iter().eq(names), "{rule}: {found:?}");
        }
        assert!(names_in(&format!("ALARM({})", "a".repeat(256))).is_empty());

        let composite = |name: &str, rule: &str| json!({"AlarmName": name, "AlarmRule": rule});
        let answer = json!({
            "MetricAlarms": [{"AlarmName": "slow", "Period": 600, "EvaluationPeriods": 3}],
            "CompositeAlarms": [
                composite("service", "ALARM(part) OR ALARM(deleted)"),
                composite("part", "ALARM(slow) OR ALARM(loop)"),
                composite("loop", "ALARM(part) AND FALSE"),
                composite("empty", "FALSE"),
            ],
        });
        let mut alarms = alarms_in(&answer);
        widen(&mut alarms);
        let windows = alarms
            .iter()
            .map(|(name, it)| (name.as_str(), it.window.as_secs()));
        let wanted = [
            ("empty", 300),
            ("loop", 1_800),
            ("part", 1_800),
            ("service", 1_800),
            ("slow", 1_800),
        ];
        assert!(windows.eq(wanted), "{alarms:?}");
    }

    #[tokio::test]
    async fn an_alarm_of_the_local_server_has_the_time_at_which_it_entered_its_state() {
        let alarms = Alarms::Local(Mutex::default());
        let since = async || alarms.find(&["errors"]).await.alarms["errors"].since;
        assert_eq!(since().await, None);
        alarms.set("errors", AlarmState::Alarm);
        let fired_at = since().await;
        assert!(fired_at.is_some());
        alarms.set("errors", AlarmState::Alarm);
        assert_eq!(since().await, fired_at);
        alarms.set("errors", AlarmState::Ok);
        assert!(since().await > fired_at);
    }

    #[test]
    fn an_invalid_timestamp_is_an_unknown_time() {
        for invalid in [json!("now"), json!(-1), json!(1e300), Value::Null] {
            assert_eq!(time_of(&invalid), None, "{invalid}");
        }
    }
}
