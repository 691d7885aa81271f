//! The log line of a request.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::json;

use super::logging::LogStyle;
use super::metrics::Metric;
use super::text::{MAX_IGNORED_LENGTH, MAX_NAME_LENGTH, shorten, visible};
use super::trace::{CacheOutcome, Facts};
use crate::counts::Counts;
use crate::key_uses::LastUses;
use crate::timestamp::unix_millis;

/// Limit on a request id, in bytes.
const MAX_ID_LENGTH: usize = 64;
/// The dimension of the metric of forged entries: any function of the installation may find one.
const INSTALLATION: &str = "Installation";
/// The number of evaluations in a line. The filter of the log subscription matches this field.
const EVALUATED: &str = "evaluated";
/// Minimum time before an instance declares an unchanged number of connections as a metric again.
const GAUGE_INTERVAL: Duration = Duration::from_secs(60);

thread_local! {
    /// The last line. The next one reuses its memory.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes the log lines of an instance.
#[derive(Debug, Clone)]
pub struct LogWriter {
    /// The format of the lines.
    pub style: LogStyle,
    /// The function's name, a dimension of every metric except that of forged entries.
    pub function: String,
    /// The function's version, which distinguishes a canary's metrics.
    pub version: String,
    /// `INSTALLATION_ID`, the dimension of the metric of forged entries.
    pub installation: String,
    /// Limits how often the number of connections is declared as a metric.
    pub reported_connections: ReportedConnections,
}

/// The number of connections that was last declared as a metric, and when. The number rarely changes, and every
/// declaration costs bytes.
#[derive(Debug, Clone, Default)]
pub struct ReportedConnections(Arc<Mutex<Option<(usize, Instant)>>>);

impl ReportedConnections {
    /// Whether to declare the number now: it has changed, or was last declared a minute ago. If so, records it as
    /// declared.
    fn is_due(&self, connections: usize) -> bool {
        let mut declared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_recent = declared.is_some_and(|(number, at)| {
            number == connections && now.duration_since(at) < GAUGE_INTERVAL
        });
        if !is_recent {
            *declared = Some((connections, now));
        }
        !is_recent
    }
}

/// The contents of the log line of a request.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// The method in a JSON line: omitted if the path has only one method.
    pub reported_method: Option<&'a str>,
    /// The path of the route, without ids: see `http::Request::path_template`.
    pub path: &'a str,
    /// The status of the response.
    pub status: u16,
    /// The id, which is also in the response.
    pub request_id: &'a str,
    /// The time from arrival to response.
    pub duration: Duration,
    /// Whether this is the first request of the instance.
    pub cold_start: bool,
    /// Connections to Redis.
    pub connections: usize,
    /// Whether the breaker of Redis is open.
    pub breaker_open: bool,
    /// Whether Redis is a cluster; reads then also log `cluster_unavailable`.
    pub cluster: bool,
    /// The facts about the request.
    pub facts: &'a Facts,
    /// Evaluations of this request and earlier ones to report now. `None` if the line has posted counts.
    pub evaluations: Option<Counts>,
    /// Uses of API keys that have not been logged yet.
    pub key_uses: LastUses,
    /// Forged cache entries that were found since the last line.
    pub forged_entries: u32,
}

impl LogWriter {
    /// Whether evaluations are counted from the log. Lines for people do not contain the counts.
    #[must_use]
    pub fn reports_counts(&self) -> bool {
        match self.style {
            LogStyle::Json => true,
            LogStyle::Human => false,
        }
    }

    /// Writes the line of a request.
    pub fn write(&self, line: &RequestLine<'_>) {
        write_line(|buffer| match self.style {
            LogStyle::Json => self.json(line, buffer),
            LogStyle::Human => buffer.extend_from_slice(human(line).as_bytes()),
        });
    }

    /// Writes counts that do not fit into the line of a request.
    pub fn write_counts(&self, counts: &Counts) {
        write_line(|buffer| {
            let mut fields = Object::begin(buffer);
            fields.text("domain", "config");
            fields.counts(counts);
            fields.end();
        });
    }

    /// Writes the metric of forged entries outside of a request, such as in a scheduled run. It has no unit, as in the
    /// lines of requests: the behaviour of an alarm on a metric with several units is undefined.
    pub fn write_forged_entries(&self, value: u32) {
        let metric = Metric::ForgedEntries;
        let mut line = json!({
            "level": "INFO",
            "message": format!("{}: {value}", metric.name()),
            "domain": "config",
            "Function": self.function,
            INSTALLATION: self.installation,
            "_aws": {
                "Timestamp": unix_millis(SystemTime::now()),
                "CloudWatchMetrics": [{
                    "Namespace": Metric::NAMESPACE,
                    "Dimensions": [[INSTALLATION]],
                    "Metrics": [{ "Name": metric.name() }],
                }],
            },
        });
        line[metric.name()] = json!(value);
        // A failure to log must not fail the run.
        let _unwritten = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Appends the JSON of a line. Written field by field: as a tree of values, the line would cost several times as
    /// many instructions as everything else that a request for one flag needs.
    fn json(&self, line: &RequestLine<'_>, output: &mut Vec<u8>) {
        let facts = line.facts;
        let milliseconds = (line.duration.as_secs_f64() * 1e6).round() / 1e3;
        let mut fields = Object::begin(output);
        fields.text("domain", "config");
        if let Some(method) = line.reported_method {
            fields.text("method", &shorten(method, MAX_IGNORED_LENGTH));
        }
        fields.text("path", &shorten(line.path, MAX_NAME_LENGTH));
        fields.number("status", line.status.into());
        fields.text("request_id", &shorten(line.request_id, MAX_ID_LENGTH));
        fields.put("duration", &milliseconds);
        fields.flag("cold_start", line.cold_start);
        fields.text("Function", &self.function);
        fields.text("Version", &self.version);
        if let Some(key) = &facts.flag_key {
            fields.text("flag_key", &shorten(key, MAX_NAME_LENGTH));
        }
        if let Some(node) = &facts.node_id {
            fields.text("node_id", &shorten(node, MAX_NAME_LENGTH));
        }
        if let Some(kind) = facts.error_type {
            fields.text("error.type", kind);
        }
        if let Some(why) = &facts.token_error {
            fields.text("token_error", why);
        }
        if let Some(why) = &facts.issuer_error {
            fields.text("issuer_error", why);
        }
        if !facts.ignored_fields.is_empty() {
            fields.put("ignored_fields", &facts.ignored_fields);
        }
        if let Some(confirmed) = facts.invalidated {
            fields.flag("cache_invalidated", confirmed);
        }
        if facts.expired {
            fields.flag("cache_expired", true);
        }
        if facts.stale {
            fields.flag("stale", true);
        }
        if let Some(outcome) = facts.cache {
            let unavailable = outcome == CacheOutcome::Unavailable;
            fields.flag("cache_hit", outcome == CacheOutcome::Hit);
            fields.flag("cache_miss", outcome == CacheOutcome::Miss);
            fields.flag("cache_unavailable", unavailable);
            if line.cluster {
                fields.flag("cluster_unavailable", unavailable);
            }
        }
        fields.put(Metric::ActiveConnections.name(), &line.connections);
        let posted = facts.posted.as_ref();
        if let Some(posted) = posted {
            fields.text("batch", &posted.batch);
        }
        match posted.map(|it| &it.counts).or(line.evaluations.as_ref()) {
            Some(counts) => fields.counts(counts),
            None if line.key_uses.is_empty() => {}
            None => fields.number(EVALUATED, 0),
        }
        if !line.key_uses.is_empty() {
            fields.put("api_keys", &line.key_uses.keys().collect::<Vec<_>>());
        }
        let mut metrics = metrics(line);
        for (metric, value) in &metrics {
            match value {
                MetricValue::Latency => fields.put(metric.name(), &milliseconds),
                MetricValue::Count(count) => fields.number(metric.name(), *count),
            }
        }
        if line.forged_entries > 0 {
            fields.text(INSTALLATION, &self.installation);
        }
        if self.reported_connections.is_due(line.connections) {
            // This value is not written: `active_connections` is a field of every line.
            metrics.push((Metric::ActiveConnections, MetricValue::Count(0)));
        }
        let output = fields.value_of("_aws");
        let mut aws = Object::begin(output);
        aws.number("Timestamp", unix_millis(SystemTime::now()));
        write_directives(&metrics, facts, aws.value_of("CloudWatchMetrics"));
        aws.end();
        fields.end();
    }
}

/// Writes a line. A failure to log must not fail the request.
fn write_line(append: impl FnOnce(&mut Vec<u8>)) {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        append(buffer);
        buffer.push(b'\n');
        // One write, so that no other line comes between.
        let _unwritten = std::io::stdout().lock().write_all(buffer);
    });
}

/// Appends the directives that declare metrics.
fn write_directives(metrics: &[(Metric, MetricValue)], facts: &Facts, output: &mut Vec<u8>) {
    const OF_FUNCTION: &str = r#"[["Function"]]"#;
    const BY_VERSION: &str = r#"[["Function"],["Function","Version"]]"#;
    const OF_INSTALLATION: &str = r#"[["Installation"]]"#;
    let dimensions_of = |metric: Metric| {
        // The canary alarms of latency only cover functions that read flags.
        let is_by_version = Metric::BY_VERSION.contains(&metric)
            && (metric != Metric::ResponseLatency || facts.cache.is_some());
        if metric == Metric::ForgedEntries {
            OF_INSTALLATION
        } else if is_by_version {
            BY_VERSION
        } else {
            OF_FUNCTION
        }
    };
    output.push(b'[');
    let mut is_first = true;
    for dimensions in [BY_VERSION, OF_FUNCTION, OF_INSTALLATION] {
        let mut selected = metrics
            .iter()
            .map(|(metric, _)| *metric)
            .filter(|metric| dimensions_of(*metric) == dimensions)
            .peekable();
        if selected.peek().is_none() {
            continue;
        }
        if !is_first {
            output.push(b',');
        }
        is_first = false;
        let mut directive = Object::begin(output);
        directive.text("Namespace", Metric::NAMESPACE);
        let output = directive.value_of("Dimensions");
        output.extend_from_slice(dimensions.as_bytes());
        let output = directive.value_of("Metrics");
        output.push(b'[');
        while let Some(metric) = selected.next() {
            let mut definition = Object::begin(output);
            definition.text("Name", metric.name());
            if let Some(unit) = metric.unit() {
                definition.text("Unit", unit);
            }
            definition.end();
            if selected.peek().is_some() {
                output.push(b',');
            }
        }
        output.push(b']');
        directive.end();
    }
    output.push(b']');
}

/// A JSON object that is being written.
struct Object<'o> {
    output: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    fn begin(output: &'o mut Vec<u8>) -> Self {
        output.push(b'{');
        Self {
            output,
            is_empty: true,
        }
    }

    /// Begins a field, whose value the caller appends. Names are ours and need no escapes.
    fn value_of(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.output.push(b',');
        }
        self.is_empty = false;
        self.output.push(b'"');
        self.output.extend_from_slice(name.as_bytes());
        self.output.extend_from_slice(b"\":");
        self.output
    }

    fn put(&mut self, name: &'static str, value: &impl Serialize) {
        let output = self.value_of(name);
        let begin = output.len();
        // The serialisation of numbers and texts does not fail.
        if serde_json::to_writer(&mut *output, value).is_err() {
            output.truncate(begin);
            output.extend_from_slice(b"null");
        }
    }

    /// A text, escaped: clients choose some of them.
    fn text(&mut self, name: &'static str, text: &str) {
        self.put(name, &text);
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.put(name, &number);
    }

    fn counts(&mut self, counts: &Counts) {
        self.number(EVALUATED, counts.total());
        self.put("evaluations", counts);
    }

    /// 1 or 0, so that an average is a rate.
    fn flag(&mut self, name: &'static str, yes: bool) {
        let digit = if yes { b'1' } else { b'0' };
        self.value_of(name).push(digit);
    }

    fn end(self) {
        self.output.push(b'}');
    }
}

/// The value of a metric of a request.
#[derive(Debug, Clone, Copy)]
enum MetricValue {
    /// The time of the request.
    Latency,
    /// A count, or 1 for true.
    Count(u64),
}

/// The metrics of this request. Counts of zero are omitted: sums stay the same, averages cover only the requests
/// concerned, and each metric costs bytes of every line and 0.30 USD a month per function that writes it. Only the
/// hit rate of a read and the retries after a connection error can be zero.
fn metrics(line: &RequestLine<'_>) -> Vec<(Metric, MetricValue)> {
    use MetricValue::Count;
    let facts = line.facts;
    let mut metrics = vec![(Metric::ResponseLatency, MetricValue::Latency)];
    if let Some(outcome) = facts.cache {
        let is_hit = u64::from(outcome == CacheOutcome::Hit);
        metrics.push((Metric::CacheHitRate, Count(is_hit)));
    }
    let unreadable = u64::try_from(facts.unreadable_rows).unwrap_or(u64::MAX);
    for (metric, count) in [
        (Metric::ServerErrors, u64::from(line.status >= 500)),
        (
            Metric::CacheMisses,
            u64::from(facts.cache == Some(CacheOutcome::Miss)),
        ),
        (
            Metric::CacheUnavailable,
            u64::from(facts.cache == Some(CacheOutcome::Unavailable)),
        ),
        (
            Metric::RedisConnectionErrors,
            facts.connection_errors.into(),
        ),
        (Metric::BreakerOpen, u64::from(line.breaker_open)),
        (Metric::DatabaseLoads, facts.database_loads.into()),
        (Metric::StaleAnswers, u64::from(facts.stale)),
        (Metric::FillsRefused, facts.fills_refused.into()),
        (Metric::UnreadableRows, unreadable),
    ] {
        if count > 0 {
            metrics.push((metric, Count(count)));
        }
    }
    if facts.connection_errors > 0 {
        metrics.push((Metric::RedisRetries, Count(facts.retries.into())));
    }
    if line.forged_entries > 0 {
        metrics.push((Metric::ForgedEntries, Count(line.forged_entries.into())));
    }
    metrics
}

/// The line of a request for people.
fn human(line: &RequestLine<'_>) -> String {
    let facts = line.facts;
    let mut text = format!(
        "{:5} {} {} {:.1} ms",
        visible(line.method, MAX_IGNORED_LENGTH),
        visible(line.path, MAX_NAME_LENGTH),
        line.status,
        line.duration.as_secs_f64() * 1e3
    );
    if let Some(key) = &facts.flag_key {
        text.push_str(", ");
        text.push_str(&visible(key, MAX_NAME_LENGTH));
    }
    match facts.cache {
        Some(CacheOutcome::Hit) => text.push_str(", cache hit"),
        Some(CacheOutcome::Miss) => text.push_str(", cache miss"),
        Some(CacheOutcome::Unavailable) => text.push_str(", cache unavailable"),
        None => {}
    }
    if facts.stale {
        text.push_str(", stale");
    }
    if facts.invalidated == Some(false) {
        text.push_str(", cache not invalidated");
    }
    if let Some(kind) = facts.error_type {
        text.push_str(", ");
        text.push_str(kind);
    }
    for (what, error) in [
        (", token rejected: ", &facts.token_error),
        (", no keys of the issuer: ", &facts.issuer_error),
    ] {
        if let Some(error) = error {
            text.push_str(what);
            text.push_str(&visible(error, MAX_NAME_LENGTH));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::telemetry::Trace;

    fn line(facts: &Facts) -> RequestLine<'_> {
        RequestLine {
            method: "GET",
            reported_method: None,
            path: "/api/config/flags",
            status: 200,
            request_id: "r-1",
            duration: Duration::from_micros(1_234),
            cold_start: true,
            connections: 1,
            breaker_open: false,
            cluster: false,
            facts,
            evaluations: None,
            key_uses: LastUses::new(),
            forged_entries: 0,
        }
    }

    /// The line as text, which must be one JSON object without a line break or a name that occurs twice.
    fn text(writer: &LogWriter, line: &RequestLine<'_>) -> String {
        let mut text = Vec::new();
        writer.json(line, &mut text);
        let (_, duplicates) = pennon_eval::json::read(&text).expect("JSON");
        assert!(duplicates.is_empty(), "{duplicates:?}");
        assert!(!text.contains(&b'\n'));
        String::from_utf8(text).expect("UTF-8")
    }

    fn parsed(writer: &LogWriter, line: &RequestLine<'_>) -> Value {
        serde_json::from_str(&text(writer, line)).expect("JSON")
    }

    fn writer() -> LogWriter {
        LogWriter {
            style: LogStyle::Json,
            function: "list-flags".to_owned(),
            version: "7".to_owned(),
            installation: "arn:stack".to_owned(),
            reported_connections: ReportedConnections::default(),
        }
    }

    /// The names of the metrics in the directives of a line, and whether each is also written by version.
    fn metric_names(document: &Value) -> Vec<(bool, &str)> {
        let directives = document["_aws"]["CloudWatchMetrics"].as_array();
        let mut names = Vec::new();
        for directive in directives.expect("a list") {
            assert_eq!(directive["Namespace"], "Pennon");
            let dimensions = &directive["Dimensions"];
            let by_version = *dimensions == json!([["Function"], ["Function", "Version"]]);
            let of_installation = *dimensions == json!([["Installation"]]);
            assert!(by_version || of_installation || *dimensions == json!([["Function"]]));
            for definition in directive["Metrics"].as_array().expect("a list") {
                let name = definition["Name"].as_str().expect("a name");
                assert!(document[name].is_number(), "{name}");
                assert_eq!(of_installation, name == "forged_entries", "{name}");
                assert!(!of_installation || document["Installation"] == "arn:stack");
                names.push((by_version, name));
            }
        }
        assert!(document["Function"].is_string() && document["Version"].is_string());
        names
    }

    #[test]
    fn every_metric_that_applies_is_declared_and_its_value_is_a_field() {
        let mut seen = Vec::new();
        for outcome in [
            CacheOutcome::Hit,
            CacheOutcome::Miss,
            CacheOutcome::Unavailable,
        ] {
            let trace = Trace::default();
            trace.cache(outcome);
            trace.unreadable_rows(1);
            trace.connection_error();
            trace.retried();
            trace.database_load();
            trace.fill_refused();
            trace.stale();
            let facts = trace.facts();
            let line = RequestLine {
                status: 503,
                breaker_open: true,
                forged_entries: 1,
                ..line(&facts)
            };
            let document = parsed(&writer(), &line);
            seen.extend(
                metric_names(&document)
                    .into_iter()
                    .map(|(by, name)| (by, name.to_owned())),
            );
        }
        for metric in Metric::ALL {
            let expected = (
                Metric::BY_VERSION.contains(&metric),
                metric.name().to_owned(),
            );
            assert!(seen.contains(&expected), "{metric:?}");
        }
    }

    #[test]
    fn a_line_omits_metrics_that_are_zero_or_unchanged() {
        let trace = Trace::default();
        trace.cache(CacheOutcome::Hit);
        let facts = trace.facts();
        let writer = writer();
        let names = |document: &Value| {
            let names = metric_names(document).into_iter();
            names.map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
        };
        let first = parsed(&writer, &line(&facts));
        let hit = ["response_latency", "cache_hit_rate"];
        assert_eq!(
            names(&first),
            ["response_latency", "cache_hit_rate", "active_connections"]
        );
        // The number of connections is only declared again after a change or a minute.
        assert_eq!(names(&parsed(&writer, &line(&facts))), hit);
        let more = RequestLine {
            connections: 2,
            ..line(&facts)
        };
        assert_eq!(names(&parsed(&writer, &more)).len(), 3);
        assert_eq!(names(&parsed(&writer, &more)), hit);
        assert_eq!(parsed(&writer, &more)["active_connections"], 2);
        // The latency of requests without a read is not written by version.
        let facts = Facts::default();
        let document = parsed(&writer, &line(&facts));
        assert!(metric_names(&document).contains(&(false, "response_latency")));
    }

    #[test]
    fn the_size_of_a_line_is_bounded_whatever_the_caller_sends() {
        for filling in ["x", "\u{0}", "\"", "😀"] {
            let long = filling.repeat(100_000);
            let trace = Trace::default();
            trace.cache(CacheOutcome::Miss);
            trace.flag_key(&long);
            trace.node(long.as_str().into());
            trace.ignored_fields(&vec![long.clone(); 1_000]);
            trace.token_rejected(&long);
            trace.issuer_failed(&long);
            let facts = trace.facts();
            let line = RequestLine {
                method: &long,
                reported_method: Some(&long),
                path: &long,
                request_id: &long,
                ..line(&facts)
            };
            let text = text(&writer(), &line);
            assert!(text.len() < 2_500, "{} bytes of {filling:?}", text.len());
            assert!(human(&line).len() < 2_500);
        }
    }

    #[test]
    fn outcomes_are_numbers_so_that_an_average_is_a_rate() {
        for (outcome, expected) in [
            (CacheOutcome::Hit, [1, 0, 0]),
            (CacheOutcome::Miss, [0, 1, 0]),
            (CacheOutcome::Unavailable, [0, 0, 1]),
        ] {
            let trace = Trace::default();
            trace.cache(outcome);
            let facts = trace.facts();
            let document = parsed(&writer(), &line(&facts));
            let names = ["cache_hit", "cache_miss", "cache_unavailable"];
            for (name, value) in names.into_iter().zip(expected) {
                assert_eq!(document[name], value, "{name} of {outcome:?}");
            }
            assert_eq!(document["duration"], 1.234);
            assert_eq!(document["cold_start"], 1);
        }
        let facts = Facts::default();
        let document = parsed(&writer(), &line(&facts));
        assert!(document.get("cache_hit").is_none(), "a hit without a read");
        assert!(document.get("cache_hit_rate").is_none());
    }
}
