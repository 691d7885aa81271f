//! Alarms, dashboard and saved queries: all required alarms exist, and only metrics and log fields that the code writes
//! are used.

use std::collections::BTreeSet;

use pennon_core::telemetry::Metric;
use pennon_tests::event::Event;
use pennon_tests::stack::{Stack as Servers, set_percentage};
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

use super::rollout::{RATED, metrics};
use super::stack::{Function, Stack, list, reference, target, text};
use super::{Mistake, Problems, planted};

/// Fields of our log lines that a query may use.
/// `every_field_that_a_saved_query_may_use_is_written_by_a_function` shows that they are written.
const LOG_FIELDS: [&str; 23] = [
    "Function",
    "Version",
    "breaker_open",
    "cache_hit",
    "cache_invalidated",
    "cache_miss",
    "cache_unavailable",
    "cold_start",
    "domain",
    "duration",
    "error",
    "error.type",
    "flag_key",
    "level",
    "message",
    "node_id",
    "path",
    "redis_connection_errors",
    "redis_retries",
    "request_id",
    "stale",
    "stale_answers",
    "status",
];
/// Fields that CloudWatch adds to every line, and fields of flow logs.
const CLOUDWATCH_FIELDS: [&str; 5] = ["@timestamp", "action", "srcAddr", "dstAddr", "dstPort"];

/// Functions with routes that use Redis, but that no alarm about Redis counts, because an alarm can have at most ten
/// metrics. `health` pings without counting, `schedules` only stores what `reconcile` applies, `ramps` gets the fewest
/// calls, and clients of `sync-flags` keep their document while it fails.
const UNCOUNTED: [&str; 4] = ["health", "schedules", "ramps", "sync-flags"];
/// Metrics about reads, and metrics about Redis.
const OF_READS: [&str; 5] = [
    "cache_hit_rate",
    "cache_misses",
    "response_latency",
    "stale_answers",
    "unreadable_rows",
];
const OF_REDIS: [&str; 2] = ["active_connections", "redis_connection_errors"];

/// The dashboard's metrics of every cache node, with their statistics. Only nodes of the cluster have `ReplicationLag`.
const NODE_PANELS: [(&str, &str); 5] = [
    ("DatabaseMemoryUsagePercentage", "Maximum"),
    ("EngineCPUUtilization", "Average"),
    ("HashBasedCmds", "Sum"),
    // The role of a node: 1 for the primary, 0 for a replica, no value from a node that is down.
    ("IsMaster", "Maximum"),
    ("ReplicationLag", "Maximum"),
];
/// Saved queries about reads, and what each must compute.
const READ_QUERIES: [(&str, &str); 3] = [
    ("HitRateQuery", "avg(cache_hit) * 100 as hits"),
    ("HitRateByNodeQuery", "by node_id"),
    (
        "CacheAvailabilityQuery",
        "(count(*) - sum(cache_unavailable)) * 100 / count(*) as available_percent",
    ),
];

/// A required alarm: its name, its metric, the statistic, the comparison, the threshold, and the caches that need it.
struct RequiredAlarm(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Value,
    Cache,
);

#[derive(Clone, Copy, PartialEq)]
enum Cache {
    Always,
    Any,
    Single,
    Cluster,
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn required_alarms() -> Vec<RequiredAlarm> {
    use Cache::{Always, Any, Cluster, Single};
    let above = "GreaterThanThreshold";
    let below = "LessThanThreshold";
    vec![
        RequiredAlarm(
            "replication lag > 0.5 s",
            "ReplicationLag",
            "Maximum",
            above,
            json!(0.5),
            Cluster,
        ),
        RequiredAlarm(
            "hit rate < 80 %",
            "cache_hit_rate",
            "Sum",
            below,
            json!(80),
            Always,
        ),
        RequiredAlarm(
            "miss rate > 20 %",
            "cache_misses",
            "Sum",
            above,
            json!(20),
            Always,
        ),
        RequiredAlarm(
            "Redis thread > 75 % (single)",
            "EngineCPUUtilization",
            "Average",
            above,
            json!(75),
            Single,
        ),
        RequiredAlarm(
            "Redis thread > 75 % (cluster)",
            "EngineCPUUtilization",
            "Average",
            above,
            json!(75),
            Cluster,
        ),
        RequiredAlarm(
            "CPU of two cores > 45 % (single)",
            "CPUUtilization",
            "Average",
            above,
            json!(45),
            Single,
        ),
        RequiredAlarm(
            "CPU of two cores > 45 % (cluster)",
            "CPUUtilization",
            "Average",
            above,
            json!(45),
            Cluster,
        ),
        RequiredAlarm(
            "connection errors > 5 a minute",
            "redis_connection_errors",
            "Sum",
            above,
            json!(5),
            Any,
        ),
        RequiredAlarm(
            "connections > 8",
            "active_connections",
            "Maximum",
            above,
            json!(8),
            Any,
        ),
        RequiredAlarm(
            "p95 > 200 ms",
            "response_latency",
            "p95",
            above,
            json!(200),
            Always,
        ),
        RequiredAlarm(
            "stale answers",
            "stale_answers",
            "Sum",
            above,
            json!(0),
            Always,
        ),
        RequiredAlarm(
            "unreadable rows",
            "unreadable_rows",
            "Maximum",
            above,
            json!(0),
            Always,
        ),
        RequiredAlarm(
            "forged entries",
            "forged_entries",
            "Sum",
            above,
            json!(0),
            Any,
        ),
    ]
}

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let canaries: BTreeSet<String> = stack
        .functions()
        .iter()
        .flat_map(|it| list(&it.properties["DeploymentPreference"]["Alarms"]).to_vec())
        .map(|it| target(&it).to_owned())
        .collect();
    for (id, alarm) in stack.of_type("AWS::CloudWatch::Alarm") {
        check_alarm(stack, id, alarm, problems);
        if !canaries.contains(id) {
            check_coverage(stack, id, alarm, problems);
        }
        let is_exempt = canaries.contains(id) || id == "CacheChargesAlarm";
        let ends = !list(&alarm["OKActions"]).is_empty();
        problems.unless(
            is_exempt || ends,
            id,
            "no notification when it returns to OK",
        );
    }
    check_required_alarms(stack, &canaries, problems);
    check_dashboard(stack, problems);
    check_queries(stack, problems);
}

fn check_alarm(stack: &Stack, id: &str, alarm: &Value, problems: &mut Problems) {
    let notifies = alarm["AlarmActions"] == json!([reference("AlarmTopic")]);
    problems.unless(notifies, id, "notifies nobody");
    problems.unless(
        alarm["TreatMissingData"].is_string(),
        id,
        "without TreatMissingData",
    );
    problems.unless(
        alarm["AlarmDescription"].is_string(),
        id,
        "has no description",
    );
    for metric in metrics(alarm) {
        check_metric(stack, id, &metric, problems);
    }
    // Metric math: every id in an expression exists, and one result is returned.
    let queries = list(&alarm["Metrics"]);
    let ids: BTreeSet<&str> = queries.iter().map(|it| text(&it["Id"])).collect();
    for query in queries {
        for word in words(text(&query["Expression"])) {
            let is_function = word.chars().all(|letter| letter.is_ascii_uppercase());
            let known = ids.contains(word) || is_function;
            problems.unless(known, id, format!("{word} in its expression is not an id"));
        }
    }
    let used: BTreeSet<&str> = queries
        .iter()
        .flat_map(|it| words(text(&it["Expression"])))
        .collect();
    let retrieved = queries.iter().filter(|it| !it["MetricStat"].is_null());
    let retrieved: Vec<&str> = retrieved.map(|it| text(&it["Id"])).collect();
    for id_of_metric in &retrieved {
        let counted = used.contains(id_of_metric);
        problems.unless(counted, id, format!("{id_of_metric} is in no expression"));
    }
    // CloudWatch may evaluate a period before its data arrives. FILL then supplies the value, and an alarm that
    // requires every period keeps its state.
    let fills = queries
        .iter()
        .any(|it| text(&it["Expression"]).contains("FILL("));
    let periods = alarm["EvaluationPeriods"].as_u64().unwrap_or(0);
    let needed = alarm["DatapointsToAlarm"].as_u64().unwrap_or(periods);
    problems.unless(
        !fills || needed < periods,
        id,
        "FILL decides for the newest period",
    );
    // CloudWatch accepts at most ten.
    problems.unless(retrieved.len() <= 10, id, "more than ten metrics");
    let returned = queries
        .iter()
        .filter(|it| it["ReturnData"] != false)
        .count();
    problems.unless(queries.is_empty() || returned == 1, id, "not one result");
}

/// The functions that write a metric.
fn writers_of<'a>(stack: &'a Stack, metric: &str) -> Vec<&'a Function> {
    let mut functions: Vec<&Function> = stack.functions().iter().map(AsRef::as_ref).collect();
    functions.retain(|function| {
        let uses_redis = function.has_route
            && function.properties["Environment"]["Variables"]["REDIS_SECRET_ARN"] != ""
            && !UNCOUNTED.contains(&function.handler.as_str());
        let reads = RATED.contains(&function.handler.as_str());
        (OF_REDIS.contains(&metric) && uses_redis) || (OF_READS.contains(&metric) && reads)
    });
    functions
}

/// Checks that an alarm of the service covers every function of its metrics.
fn check_coverage(stack: &Stack, id: &str, alarm: &Value, problems: &mut Problems) {
    let found = metrics(alarm);
    for name in OF_READS.into_iter().chain(OF_REDIS) {
        let of: BTreeSet<&str> = found
            .iter()
            .filter(|it| it["Namespace"] == Metric::NAMESPACE && it["MetricName"] == name)
            .map(|it| target(&it["Dimensions"][0]["Value"]))
            .collect();
        if of.is_empty() {
            continue;
        }
        for function in writers_of(stack, name) {
            let counted = of.contains(function.id.as_str());
            let handler = &function.handler;
            problems.unless(counted, id, format!("{name} without {handler}"));
        }
    }
}

/// Checks that a metric exists with the dimensions with which it is written.
fn check_metric(stack: &Stack, id: &str, metric: &Value, problems: &mut Problems) {
    if metric["Namespace"] != Metric::NAMESPACE {
        return;
    }
    let name = text(&metric["MetricName"]);
    let found = Metric::ALL.iter().find(|metric| metric.name() == name);
    problems.unless(
        found.is_some(),
        id,
        format!("no code writes the metric {name}"),
    );
    let dimensions: Vec<&str> = list(&metric["Dimensions"])
        .iter()
        .map(|it| text(&it["Name"]))
        .collect();
    let by_version = Metric::BY_VERSION
        .iter()
        .any(|metric| metric.name() == name);
    let of_installation = name == Metric::ForgedEntries.name();
    let written = match dimensions.as_slice() {
        ["Installation"] => of_installation,
        ["Function"] => !of_installation,
        other => by_version && other == ["Function", "Version"],
    };
    problems.unless(
        written,
        id,
        format!("{name} is not written under {dimensions:?}"),
    );
    let value = &metric["Dimensions"][0]["Value"];
    if of_installation {
        // The value of INSTALLATION_ID in every function.
        let own = *value == reference("AWS::StackId");
        problems.unless(own, id, format!("{name} of another installation"));
        return;
    }
    let function = target(value);
    let known = stack.get(function)["Type"] == "AWS::Serverless::Function";
    problems.unless(known, id, format!("{function} is not a function"));
}

fn words(expression: &str) -> Vec<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    expression
        .split(|letter| !is_part(letter))
        .filter(|word| word.starts_with(|letter: char| letter.is_ascii_alphabetic()))
        .collect()
}

fn check_required_alarms(stack: &Stack, canaries: &BTreeSet<String>, problems: &mut Problems) {
    let mode = stack.profile["CacheMode"];
    let alarms = stack
        .of_type("AWS::CloudWatch::Alarm")
        .filter(|(id, _)| !canaries.contains(*id));
    let alarms: Vec<_> = alarms.map(|(_, alarm)| (alarm, metrics(alarm))).collect();
    for RequiredAlarm(name, metric, statistic, operator, threshold, cache) in required_alarms() {
        let (needed, part) = match cache {
            Cache::Always => (true, ""),
            Cache::Any => (mode != "none", ""),
            Cache::Single => (!["none", "cluster"].contains(&mode), "${SingleCache}"),
            Cache::Cluster => (!["none", "single"].contains(&mode), "${ClusterCache}"),
        };
        let mut of_metric = alarms
            .iter()
            .filter(|(_, found)| found.iter().any(|it| it["MetricName"] == metric));
        let met = of_metric.any(|(alarm, found)| {
            let of_part = found.iter().any(|it| it.to_string().contains(part));
            let counted = alarm["Statistic"] == statistic
                || list(&alarm["Metrics"])
                    .iter()
                    .any(|it| it["MetricStat"]["Stat"] == statistic);
            let by_minute = !name.ends_with("a minute") || is_by_minute(alarm);
            of_part
                && counted
                && by_minute
                && alarm["ComparisonOperator"] == operator
                && alarm["Threshold"] == threshold
        });
        problems.unless(met || !needed, "alarms", format!("none for {name}"));
    }
    // No other alarm detects that `reconcile`, which repairs lost invalidations, does not run at all.
    let fires = stack.get("ReconcileAlarm")["Properties"]["TreatMissingData"] == "breaching";
    problems.unless(fires, "ReconcileAlarm", "silent when it does not run");
}

/// Whether all metrics of an alarm are counted by the minute.
fn is_by_minute(alarm: &Value) -> bool {
    let metrics = list(&alarm["Metrics"]).iter();
    let periods = metrics.map(|it| &it["MetricStat"]["Period"]);
    let mut periods = periods
        .chain([&alarm["Period"]])
        .filter(|it| !it.is_null())
        .peekable();
    periods.peek().is_some() && periods.all(|period| *period == 60)
}

#[test]
fn an_alarm_is_by_minute_only_if_all_its_periods_have_60_seconds() {
    let metric = |period: u32| json!({"MetricStat": {"Period": period}});
    for (alarm, expected) in [
        (json!({"Period": 60}), true),
        (json!({"Period": 3600}), false),
        (
            json!({"Metrics": [{"Expression": "a + b"}, metric(60), metric(60)]}),
            true,
        ),
        (json!({"Metrics": [metric(60), metric(3600)]}), false),
        (json!({"Metrics": [{"Expression": "a"}]}), false),
    ] {
        assert_eq!(is_by_minute(&alarm), expected, "{alarm}");
    }
}

fn check_dashboard(stack: &Stack, problems: &mut Problems) {
    let Some((id, properties)) = stack.of_type("AWS::CloudWatch::Dashboard").next() else {
        problems.add("Dashboard", "not there");
        return;
    };
    let body = &properties["DashboardBody"]["Fn::Sub"];
    let mut json_text = text(&body[0]).to_owned();
    for (name, value) in body[1].as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| target(value).to_owned(), str::to_owned);
        json_text = json_text.replace(&format!("${{{name}}}"), &value);
    }
    let json_text = json_text.replace("${HttpApi}", "HttpApi");
    let parsed: Value = match serde_json::from_str(&json_text) {
        Ok(parsed) => parsed,
        Err(error) => {
            problems.add(id, format!("its body is not JSON: {error}"));
            return;
        }
    };
    problems.unless(!json_text.contains("${"), id, "an unused placeholder");
    let mut shown = BTreeSet::new();
    for widget in list(&parsed["widgets"]) {
        let right = widget["x"].as_u64().unwrap_or(99) + widget["width"].as_u64().unwrap_or(99);
        problems.unless(right <= 24, id, "a widget beyond the edge");
        let properties = &widget["properties"];
        let title = text(&properties["title"]);
        problems.unless(
            !properties["region"].is_null(),
            id,
            format!("{title}: no region"),
        );
        for metric in list(&properties["metrics"]) {
            if metric[0] == "AWS/ElastiCache" {
                let panel = format!("{}, {}", text(&metric[1]), text(&properties["stat"]));
                shown.insert((panel, text(&metric[3]).to_owned()));
            } else if metric[0] == Metric::NAMESPACE {
                let stat = metric[metric.as_array().map_or(0, Vec::len) - 1]["stat"].clone();
                let stat = if stat.is_null() {
                    properties["stat"].clone()
                } else {
                    stat
                };
                let panel = format!("{}, {}", text(&metric[1]), text(&stat));
                shown.insert((panel, text(&metric[3]).to_owned()));
                let named = json!({ "Namespace": "Pennon", "MetricName": metric[1],
                    "Dimensions": [{ "Name": metric[2], "Value": reference(text(&metric[3])) }] });
                check_metric(stack, id, &named, problems);
            } else if let Some(expression) = metric[0]["expression"].as_str() {
                let part = |begin: &str| {
                    let rest = expression.split(begin).nth(1).unwrap_or_default();
                    rest.split('"').next().unwrap_or_default()
                };
                let name = part("MetricName=\"");
                let function = part(" Function=\"").to_owned();
                shown.insert((format!("{name} by version"), function));
                let exists = Metric::ALL.iter().any(|metric| metric.name() == name);
                problems.unless(exists, id, format!("no code writes the metric {name}"));
                let by_version = expression.starts_with("SEARCH('{Pennon,Function,Version} ")
                    && (!exists || Metric::BY_VERSION.iter().any(|it| it.name() == name));
                problems.unless(by_version, id, format!("{name} is not shown by version"));
            }
        }
    }
    for panel in [
        "cache_hit_rate, Average",
        "response_latency, p95",
        "stale_answers, Sum",
        "redis_connection_errors, Sum",
        "active_connections, Maximum",
        "server_errors by version",
        "cache_hit_rate by version",
        "response_latency by version",
    ] {
        let metric = panel.split([',', ' ']).next().unwrap_or_default();
        // 5xx must be shown for the functions whose latency must be shown.
        let about = if metric == "server_errors" {
            "response_latency"
        } else {
            metric
        };
        for function in writers_of(stack, about) {
            let there = shown.contains(&(panel.to_owned(), function.id.clone()));
            let handler = &function.handler;
            problems.unless(there, id, format!("does not show {panel}, of {handler}"));
        }
    }
    check_node_panels(stack, id, &shown, problems);
}

/// Checks that the dashboard shows every existing cache node.
fn check_node_panels(
    stack: &Stack,
    id: &str,
    shown: &BTreeSet<(String, String)>,
    problems: &mut Problems,
) {
    let single = ["SingleCache-001"];
    let cluster = [
        "ClusterCache-0001-001",
        "ClusterCache-0001-002",
        "ClusterCache-0001-003",
    ];
    for (metric, statistic) in NODE_PANELS {
        let mut nodes: Vec<&str> = Vec::new();
        if !stack.get("SingleCache").is_null() && metric != "ReplicationLag" {
            nodes.extend(single);
        }
        if !stack.get("ClusterCache").is_null() {
            nodes.extend(cluster);
        }
        for node in nodes {
            let panel = format!("{metric}, {statistic}");
            let there = shown.contains(&(panel.clone(), node.to_owned()));
            problems.unless(there, id, format!("does not show {panel}, of {node}"));
        }
    }
}

/// Whether a word is a name that the query defines, or a function or keyword of the query language.
fn is_language(query: &str, word: &str) -> bool {
    let words = [
        "fields",
        "filter",
        "stats",
        "sort",
        "limit",
        "by",
        "as",
        "and",
        "or",
        "desc",
        "asc",
        "ispresent",
        "avg",
        "pct",
        "max",
        "min",
        "sum",
        "count",
        "bin",
    ];
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let defined = query.split(" as ").skip(1);
    let mut defined = defined.filter_map(|rest| rest.split(|letter| !is_part(letter)).next());
    words.contains(&word) || defined.any(|name| name == word)
}

/// The fields that a query uses.
fn fields(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut quoted = false;
    let mut rest = String::new();
    // Strings are not fields, but `error.type` in backticks is one. The `5m` of `bin(5m)` is none: it begins with a
    // digit.
    for part in query.split('"') {
        if !quoted {
            rest.push_str(part);
            rest.push(' ');
        }
        quoted = !quoted;
    }
    for (number, part) in rest.split('`').enumerate() {
        if number % 2 == 1 {
            found.insert(part.to_owned());
            continue;
        }
        let is_part =
            |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '@';
        let words = part.split(|letter| !is_part(letter));
        let words = words
            .filter(|it| it.starts_with(|first: char| first.is_ascii_alphabetic() || first == '@'));
        found.extend(
            words
                .filter(|word| !is_language(query, word))
                .map(str::to_owned),
        );
    }
    found
}

fn check_queries(stack: &Stack, problems: &mut Problems) {
    for (id, query) in stack.of_type("AWS::Logs::QueryDefinition") {
        for group in list(&query["LogGroupNames"]) {
            let exists = stack.get(target(group))["Type"] == "AWS::Logs::LogGroup";
            problems.unless(exists, id, format!("{} is not a log group", target(group)));
        }
        for field in fields(text(&query["QueryString"])) {
            let field = field.as_str();
            let known = LOG_FIELDS.contains(&field) || CLOUDWATCH_FIELDS.contains(&field);
            problems.unless(known, id, format!("no line has the field {field}"));
        }
    }
    for (id, computes) in READ_QUERIES {
        let query = &stack.get(id)["Properties"];
        let right = text(&query["QueryString"]).contains(computes);
        problems.unless(right, id, format!("does not compute {computes}"));
        for function in writers_of(stack, "cache_hit_rate") {
            let group = &function.properties["LoggingConfig"]["LogGroup"];
            let is_queried = list(&query["LogGroupNames"]).contains(group);
            let handler = &function.handler;
            problems.unless(is_queried, id, format!("does not query {handler}"));
        }
    }
    let asked = &stack.get("RedisTroubleQuery")["Properties"]["LogGroupNames"];
    for function in writers_of(stack, "redis_connection_errors") {
        let group = &function.properties["LoggingConfig"]["LogGroup"];
        let handler = &function.handler;
        problems.unless(
            list(asked).contains(group),
            "RedisTroubleQuery",
            format!("does not query {handler}"),
        );
    }
}

#[tokio::test]
async fn every_field_that_a_saved_query_may_use_is_written_by_a_function() {
    let servers = Servers::start().await;
    let (get, list_flags) = (
        servers.function("get-flag").await,
        servers.function("list-flags").await,
    );
    let update = servers.function("update-flag").await;
    get.call(&Event::get("checkout")).await;
    list_flags.call(&Event::list()).await;
    set_percentage(&update, "checkout", 60).await;
    servers.redis.set(Mode::Refuse).await;
    servers.database_wire.set(Mode::Refuse).await;
    get.call(&Event::get("checkout")).await;
    let cold_instance = servers.function("get-flag").await;
    cold_instance.call(&Event::get("checkout")).await;
    let mut written = BTreeSet::new();
    for function in [&get, &list_flags, &update, &cold_instance] {
        for line in function.lines() {
            written.extend(line.as_object().expect("an object").keys().cloned());
        }
    }
    for field in LOG_FIELDS {
        assert!(
            written.contains(field),
            "{field} is in no line: {written:?}"
        );
    }
}

planted! {
    a_metric_that_no_code_writes:
        [Mistake("StaleAnswersAlarm", "MetricName: stale_answers", "MetricName: stale_reads")]
        => "StaleAnswersAlarm: no code writes the metric stale_reads",
           "StaleAnswersAlarm: stale_answers without get-flag";
    a_metric_under_a_dimension_that_it_does_not_have:
        [Mistake("StaleAnswersAlarm", "{Name: Function, Value", "{Name: FunctionName, Value")]
        => "StaleAnswersAlarm: stale_answers is not written under [\"FunctionName\"]";
    a_metric_by_version_that_is_not_written_by_version:
        [Mistake("HealthCanaryServerErrorsAlarm", "MetricName: server_errors", "MetricName: stale_answers")]
        => "HealthCanaryServerErrorsAlarm: stale_answers is not written under [\"Function\", \"Version\"]",
           "HealthFunction: no alarm for a version that answered 5xx 3 times";
    an_expression_with_an_unknown_id:
        [Mistake("StaleAnswersAlarm", "FILL(list, 0)", "FILL(lists, 0)")]
        => "StaleAnswersAlarm: list is in no expression",
           "StaleAnswersAlarm: lists in its expression is not an id";
    a_read_that_the_miss_rate_omits:
        [Mistake("MissRateAlarm", "MetricName: cache_misses,\n            Dimensions: [{Name: Function, Value: !Ref EvaluateFlagsFunction}]", "MetricName: cache_misses,\n            Dimensions: [{Name: Function, Value: !Ref EvaluateFlagFunction}]")]
        => "MissRateAlarm: cache_misses without evaluate-flags";
    reads_by_which_the_miss_rate_does_not_divide:
        [Mistake("MissRateAlarm", " + FILL(evaluateAllReads, 0)", "")]
        => "MissRateAlarm: evaluateAllReads is in no expression";
    a_function_whose_redis_errors_are_not_counted:
        [Mistake("ConnectionErrorsAlarm", "Value: !Ref ManageKeysFunction", "Value: !Ref ManageFlagsFunction")]
        => "ConnectionErrorsAlarm: redis_connection_errors without manage-keys";
    a_function_whose_connections_are_not_counted:
        [Mistake("ActiveConnectionsAlarm", "Value: !Ref EvaluateFlagFunction", "Value: !Ref EvaluateFlagsFunction")]
        => "ActiveConnectionsAlarm: active_connections without evaluate-flag";
    more_metrics_than_an_alarm_takes:
        [Mistake("ConnectionErrorsAlarm", "        - Id: get\n", "        - {Id: get, ReturnData: false, MetricStat: {Stat: Sum, Period: 60, Metric: {Namespace: AWS/Lambda, MetricName: Errors}}}\n        - Id: get\n")]
        => "ConnectionErrorsAlarm: more than ten metrics";
    an_alarm_with_two_results:
        [Mistake("StaleAnswersAlarm", "          ReturnData: false\n", "")]
        => "StaleAnswersAlarm: not one result";
    a_read_whose_unreadable_rows_are_not_counted:
        [Mistake("UnreadableRowsAlarm", "MetricName: unreadable_rows,\n            Dimensions: [{Name: Function, Value: !Ref GetFlagFunction}]", "MetricName: unreadable_rows,\n            Dimensions: [{Name: Function, Value: !Ref ListFlagsFunction}]")]
        => "UnreadableRowsAlarm: unreadable_rows without get-flag";
    forged_entries_of_one_function:
        [Mistake("CacheForgedEntriesAlarm", "[{Name: Installation, Value: !Ref AWS::StackId}]", "[{Name: Function, Value: !Ref GetFlagFunction}]")]
        => "CacheForgedEntriesAlarm: forged_entries is not written under [\"Function\"]",
           "CacheForgedEntriesAlarm: forged_entries of another installation";
    forged_entries_of_another_installation:
        [Mistake("CacheForgedEntriesAlarm", "Value: !Ref AWS::StackId", "Value: !Ref AWS::StackName")]
        => "CacheForgedEntriesAlarm: forged_entries of another installation";
    an_alarm_that_notifies_nobody:
        [Mistake("ApiErrorsAlarm", "      AlarmActions: [!Ref AlarmTopic]\n", "")]
        => "ApiErrorsAlarm: notifies nobody";
    an_alarm_whose_end_notifies_nobody:
        [Mistake("DatabaseStorageAlarm", "      OKActions: [!Ref AlarmTopic]\n", "")]
        => "DatabaseStorageAlarm: no notification when it returns to OK";
    an_alarm_that_is_undecided_without_data:
        [Mistake("ApiErrorsAlarm", "      TreatMissingData: notBreaching\n", "")]
        => "ApiErrorsAlarm: without TreatMissingData";
    a_reconciliation_that_stops_without_an_alarm:
        [Mistake("ReconcileAlarm", "TreatMissingData: breaching", "TreatMissingData: notBreaching")]
        => "ReconcileAlarm: silent when it does not run";
    an_alarm_that_sticks_to_its_state:
        [Mistake("ConnectionErrorsAlarm", "DatapointsToAlarm: 1", "DatapointsToAlarm: 3")]
        => "ConnectionErrorsAlarm: FILL decides for the newest period";
    a_canary_alarm_that_keeps_its_state:
        [Mistake("GetFlagCanaryErrorRateAlarm", "      DatapointsToAlarm: 1\n", "")]
        => "GetFlagCanaryErrorRateAlarm: FILL decides for the newest period";
    a_threshold_of_the_replication_lag_in_milliseconds:
        [Mistake("ClusterCacheLagAlarm", "Threshold: 0.5", "Threshold: 500")]
        => "alarms: none for replication lag > 0.5 s";
    a_lower_threshold_of_the_hit_rate:
        [Mistake("HitRateAlarm", "Threshold: 80", "Threshold: 60")]
        => "alarms: none for hit rate < 80 %";
    a_higher_threshold_of_the_miss_rate:
        [Mistake("MissRateAlarm", "Threshold: 20", "Threshold: 40")]
        => "alarms: none for miss rate > 20 %";
    a_higher_threshold_of_the_cpu_of_the_cluster:
        [Mistake("ClusterCacheEngineCpuAlarm", "Threshold: 75", "Threshold: 95")]
        => "alarms: none for Redis thread > 75 % (cluster)";
    a_higher_threshold_of_the_cpu_of_the_single_node:
        [Mistake("SingleCacheEngineCpuAlarm", "Threshold: 75", "Threshold: 95")]
        => "alarms: none for Redis thread > 75 % (single)";
    connection_errors_that_are_counted_by_the_hour:
        [Mistake("ConnectionErrorsAlarm", "Period: 60", "Period: 3600")]
        => "alarms: none for connection errors > 5 a minute";
    a_higher_threshold_of_connections:
        [Mistake("ActiveConnectionsAlarm", "Threshold: 8", "Threshold: 10")]
        => "alarms: none for connections > 8";
    a_higher_threshold_of_the_latency:
        [Mistake("LatencyAlarm", "Threshold: 200", "Threshold: 2000")]
        => "alarms: none for p95 > 200 ms";
    a_dashboard_that_is_not_json:
        [Mistake("Dashboard", "\"type\": \"metric\", \"properties\"", "\"type\": \"metric\" \"properties\"")]
        => "Dashboard: its body is not JSON: expected `,` or `}` at line 2 column 60";
    a_dashboard_of_a_metric_that_no_code_writes:
        [Mistake("Dashboard", "[\"Pennon\", \"fills_refused\", \"Function\", \"${Get}\"", "[\"Pennon\", \"fills_late\", \"Function\", \"${Get}\"")]
        => "Dashboard: no code writes the metric fills_late";
    a_search_for_a_metric_that_no_code_writes:
        [Mistake("Dashboard", "MetricName=\\\"server_errors\\\"", "MetricName=\\\"errors\\\"")]
        => "Dashboard: does not show server_errors by version, of get-flag",
           "Dashboard: no code writes the metric errors";
    a_search_by_version_for_a_metric_without_one:
        [Mistake("Dashboard", "MetricName=\\\"server_errors\\\"", "MetricName=\\\"stale_answers\\\"")]
        => "Dashboard: does not show server_errors by version, of get-flag",
           "Dashboard: stale_answers is not shown by version";
    a_read_that_the_dashboard_does_not_show:
        [Mistake("Dashboard", "[\"Pennon\", \"cache_hit_rate\", \"Function\", \"${EvaluateAll}\"", "[\"Pennon\", \"cache_hit_rate\", \"Function\", \"${EvaluateOne}\"")]
        => "Dashboard: does not show cache_hit_rate, Average, of evaluate-flags";
    a_read_that_the_dashboard_does_not_show_by_version:
        [Mistake("Dashboard", "MetricName=\\\"response_latency\\\" Function=\\\"${EvaluateOne}\\\"", "MetricName=\\\"response_latency\\\" Function=\\\"${Get}\\\"")]
        => "Dashboard: does not show response_latency by version, of evaluate-flag";
    a_dashboard_with_an_unused_placeholder:
        [Mistake("Dashboard", "\"label\": \"errors, get-flag\"", "\"label\": \"errors, ${Getter}\"")]
        => "Dashboard: an unused placeholder";
    a_query_for_a_field_that_no_line_has:
        [Mistake("HitRateQuery", "avg(cache_hit)", "avg(cache_hits_total)")]
        => "HitRateQuery: does not compute avg(cache_hit) * 100 as hits",
           "HitRateQuery: no line has the field cache_hits_total";
    a_query_of_an_unknown_log_group:
        [Mistake("LatencyQuery", "!Ref UpdateFlagLogs", "!Ref UpdateLogs")]
        => "LatencyQuery: UpdateLogs is not a log group";
    a_query_about_redis_that_omits_a_writer:
        [Mistake("RedisTroubleQuery", "!Ref ManageFlagsLogs, ", "")]
        => "RedisTroubleQuery: does not query manage-flags";
    a_dashboard_without_the_replication_lag_of_a_node:
        [Mistake("Dashboard", "              [\"AWS/ElastiCache\", \"ReplicationLag\", \"CacheClusterId\", \"${Cluster}-0001-002\"],\n", "")]
        => "Dashboard: does not show ReplicationLag, Maximum, of ClusterCache-0001-002";
    a_dashboard_without_the_engine_cpu_of_a_node:
        [Mistake("Dashboard", "              [\"AWS/ElastiCache\", \"EngineCPUUtilization\", \"CacheClusterId\", \"${Single}-001\"],\n", "")]
        => "Dashboard: does not show EngineCPUUtilization, Average, of SingleCache-001";
    a_dashboard_without_the_memory_of_a_node:
        [Mistake("Dashboard", "              [\"AWS/ElastiCache\", \"DatabaseMemoryUsagePercentage\", \"CacheClusterId\", \"${Cluster}-0001-001\"],\n", "")]
        => "Dashboard: does not show DatabaseMemoryUsagePercentage, Maximum, of ClusterCache-0001-001";
    a_dashboard_without_the_status_of_a_node:
        [Mistake("Dashboard", "              [\"AWS/ElastiCache\", \"IsMaster\", \"CacheClusterId\", \"${Single}-001\"],\n", "")]
        => "Dashboard: does not show IsMaster, Maximum, of SingleCache-001";
    a_dashboard_that_does_not_show_how_reads_are_spread:
        [Mistake("Dashboard", "              [\"AWS/ElastiCache\", \"HashBasedCmds\", \"CacheClusterId\", \"${Cluster}-0001-002\"],\n", "")]
        => "Dashboard: does not show HashBasedCmds, Sum, of ClusterCache-0001-002";
    a_hit_rate_that_is_not_grouped_by_node:
        [Mistake("HitRateByNodeQuery", "by node_id", "by Function")]
        => "HitRateByNodeQuery: does not compute by node_id";
    a_hit_rate_by_node_that_omits_a_read:
        [Mistake("HitRateByNodeQuery", ", !Ref EvaluateFlagsLogs", "")]
        => "HitRateByNodeQuery: does not query evaluate-flags";
    no_query_for_the_availability_of_the_cache:
        [Mistake("CacheAvailabilityQuery", super::GONE, "")]
        => "CacheAvailabilityQuery: does not compute (count(*) - sum(cache_unavailable)) * 100 / count(*) as available_percent",
           "CacheAvailabilityQuery: does not query evaluate-flag", "CacheAvailabilityQuery: does not query evaluate-flags",
           "CacheAvailabilityQuery: does not query get-flag", "CacheAvailabilityQuery: does not query list-flags";
}
