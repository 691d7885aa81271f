//! What is seen from outside: log lines, and metrics in the same lines.
//!
//! Every request writes one line. On Lambda it is JSON and also a document in CloudWatch's embedded
//! metric format, so that metrics cost no call and no agent; elsewhere it is a sentence. The format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::process_environment;
use crate::counts::Counts;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// One JSON object a line, for CloudWatch.
    Json,
    /// For a person at a terminal.
    Human,
}

/// Starts logging. Call once per process. The level comes from `AWS_LAMBDA_LOG_LEVEL` or
/// `RUST_LOG`; without either it is INFO.
pub fn start_logging(style: LogStyle) {
    let level = process_environment("AWS_LAMBDA_LOG_LEVEL")
        .or_else(|| process_environment("RUST_LOG"))
        .unwrap_or_else(|| "info".to_owned());
    // fred and the Lambda runtime tell of things that we tell ourselves, with better words.
    let directives = format!(
        "{},fred=off,lambda_runtime=error",
        level.to_ascii_lowercase()
    );
    let filter = EnvFilter::builder().parse_lossy(directives);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        // Colours are for terminals; in a file they are letters in the way.
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stdout);
    // A second call finds a subscriber in place; the first one stays.
    let _already_started = match style {
        LogStyle::Json => builder
            .json()
            .flatten_event(true)
            .map_event_format(WithDomain)
            .try_init(),
        LogStyle::Human => builder.without_time().compact().try_init(),
    };
}

/// Adds `"domain":"config"` to JSON lines of libraries, such as the Lambda runtime's about a failed
/// event: saved queries and the operators' own begin with `filter domain = "config"`.
struct WithDomain<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithDomain<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if event.metadata().fields().field("domain").is_some() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"domain\":\"config\",{rest}"),
            None => writer.write_str(&line),
        }
    }
}

/// Every metric, by its name in namespace `Pennon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// 1 when the cache had the answer, 0 when not; the average is the hit rate.
    CacheHitRate,
    /// Reads that the cache answered.
    CacheHits,
    /// Reads that the cache had no entry for.
    CacheMisses,
    /// Reads for which the cache could not be asked.
    CacheUnavailable,
    /// Attempts that failed on the way to Redis or back.
    RedisConnectionErrors,
    /// Attempts made again.
    RedisRetries,
    /// 1 while reads are kept from a Redis that does not answer.
    BreakerOpen,
    /// Connections that this instance has open to Redis.
    ActiveConnections,
    /// Snapshots that were asked of the database.
    DatabaseLoads,
    /// Answers from what was known before, with cache and database both gone.
    StaleAnswers,
    /// Fills that came too late: the entry had been invalidated meanwhile.
    FillsRefused,
    /// Flags, overrides, settings and API keys of the environment that cannot be read. Written while there
    /// are any, so that it costs nothing otherwise.
    UnreadableRows,
    /// Cache entries that were not authentic, and were dropped. Written while there are any.
    ForgedEntries,
    /// From the request's arrival at the handler to its answer.
    ResponseLatency,
    /// Answers with a status of 500 or more.
    ServerErrors,
}

impl Metric {
    /// All of them, for whoever checks a template or a dashboard.
    pub const ALL: [Self; 15] = [
        Self::CacheHitRate,
        Self::CacheHits,
        Self::CacheMisses,
        Self::CacheUnavailable,
        Self::RedisConnectionErrors,
        Self::RedisRetries,
        Self::BreakerOpen,
        Self::ActiveConnections,
        Self::DatabaseLoads,
        Self::StaleAnswers,
        Self::FillsRefused,
        Self::UnreadableRows,
        Self::ForgedEntries,
        Self::ResponseLatency,
        Self::ServerErrors,
    ];

    /// Those that the alarms of a canary look at: written for each version of a function as well, which makes each of
    /// them a second metric on the bill.
    pub const BY_VERSION: [Self; 3] = [
        Self::CacheHitRate,
        Self::ResponseLatency,
        Self::ServerErrors,
    ];

    /// Whether CloudWatch is told of this value. A metric costs 0.30 USD a month in each function that writes it, so
    /// one that counts what seldom happens is left out while there is nothing to count: sums and maxima stay the same.
    /// An average needs its zeros.
    fn is_told(self, value: &Value) -> bool {
        match self {
            Self::CacheHitRate | Self::ResponseLatency => true,
            Self::CacheHits
            | Self::CacheMisses
            | Self::CacheUnavailable
            | Self::RedisConnectionErrors
            | Self::RedisRetries
            | Self::BreakerOpen
            | Self::ActiveConnections
            | Self::DatabaseLoads
            | Self::StaleAnswers
            | Self::FillsRefused
            | Self::UnreadableRows
            | Self::ForgedEntries
            | Self::ServerErrors => value.as_u64() != Some(0),
        }
    }

    /// Where CloudWatch files them.
    pub const NAMESPACE: &'static str = "Pennon";

    /// The name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheHitRate => "cache_hit_rate",
            Self::CacheHits => "cache_hits",
            Self::CacheMisses => "cache_misses",
            Self::CacheUnavailable => "cache_unavailable_reads",
            Self::RedisConnectionErrors => "redis_connection_errors",
            Self::RedisRetries => "redis_retries",
            Self::BreakerOpen => "breaker_open",
            Self::ActiveConnections => "active_connections",
            Self::DatabaseLoads => "database_loads",
            Self::StaleAnswers => "stale_answers",
            Self::FillsRefused => "fills_refused",
            Self::UnreadableRows => "unreadable_rows",
            Self::ForgedEntries => "forged_entries",
            Self::ResponseLatency => "response_latency",
            Self::ServerErrors => "server_errors",
        }
    }

    /// The unit in CloudWatch.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::ResponseLatency => "Milliseconds",
            Self::CacheHitRate => "None",
            Self::CacheHits
            | Self::CacheMisses
            | Self::CacheUnavailable
            | Self::RedisConnectionErrors
            | Self::RedisRetries
            | Self::BreakerOpen
            | Self::ActiveConnections
            | Self::DatabaseLoads
            | Self::StaleAnswers
            | Self::FillsRefused
            | Self::UnreadableRows
            | Self::ForgedEntries
            | Self::ServerErrors => "Count",
        }
    }
}

/// How the cache took part in a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// It had the answer, or said that what the instance holds is current.
    Hit,
    /// It had none.
    Miss,
    /// It could not be asked.
    Unavailable,
}

/// What happened during one request, collected while it happens.
#[derive(Debug, Default)]
pub struct Trace {
    facts: Mutex<Facts>,
}

/// What happened during one request.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The cache's part, when the request read flags.
    pub cache: Option<CacheOutcome>,
    /// The entry had been there and ran out.
    pub expired: bool,
    /// Whether the cache was told of a change, when there was one.
    pub invalidated: Option<bool>,
    /// Neither cache nor database answered; the answer is from before.
    pub stale: bool,
    /// The flag that was asked for.
    pub flag_key: Option<String>,
    /// What kind of failure the request met, whether or not it was answered.
    pub error_type: Option<&'static str>,
    /// The node of Redis that answered last, or failed to.
    pub node_id: Option<String>,
    /// Names in the body that mean nothing to us.
    pub ignored_fields: Vec<String>,
    /// The environment that was asked for does not exist.
    pub unknown_environment: bool,
    /// Attempts at Redis that failed.
    pub connection_errors: u32,
    /// Cache entries that were not authentic.
    pub forged_entries: u32,
    retries: u32,
    database_loads: u32,
    fills_refused: u32,
    unreadable_rows: usize,
}

impl Trace {
    /// The request read flags, and the cache took this part.
    pub fn cache(&self, outcome: CacheOutcome) {
        self.lock().cache = Some(outcome);
    }

    /// The environment that was asked for does not exist.
    pub fn unknown_environment(&self) {
        self.lock().unknown_environment = true;
    }

    /// The entry had been there and ran out.
    pub fn expired(&self) {
        self.lock().expired = true;
    }

    /// Whether the cache was told of a change.
    pub fn invalidated(&self, told: bool) {
        self.lock().invalidated = Some(told);
    }

    /// The answer is from before.
    pub fn stale(&self) {
        self.lock().stale = true;
    }

    /// So many items of the environment that was read cannot be read. Of several environments, the most.
    pub fn unreadable_rows(&self, count: usize) {
        let mut facts = self.lock();
        facts.unreadable_rows = facts.unreadable_rows.max(count);
    }

    /// The flag that the request is about.
    pub fn flag_key(&self, key: &str) {
        self.lock().flag_key = Some(key.to_owned());
    }

    /// This node of Redis answered, or failed to.
    pub fn node(&self, address: String) {
        self.lock().node_id = Some(address);
    }

    /// Names in the body that mean nothing to us.
    pub fn ignored_fields(&self, names: &[String]) {
        let names = names.iter().take(20);
        self.lock().ignored_fields = names.map(|name| name.chars().take(64).collect()).collect();
    }

    /// The request failed in this way.
    pub fn failed(&self, error_type: &'static str) {
        self.lock().error_type = Some(error_type);
    }

    /// The cache failed in this way. A failure of the request itself is the better word.
    pub fn cache_failed(&self, error_type: &'static str) {
        self.lock().error_type.get_or_insert(error_type);
    }

    /// An attempt at Redis failed.
    pub fn connection_error(&self) {
        self.lock().connection_errors += 1;
    }

    /// An attempt at Redis is made again.
    pub fn retried(&self) {
        self.lock().retries += 1;
    }

    /// The database was asked for a snapshot.
    pub fn database_load(&self) {
        self.lock().database_loads += 1;
    }

    /// A fill came too late.
    pub fn fill_refused(&self) {
        self.lock().fills_refused += 1;
    }

    /// A cache entry was not authentic, and was dropped.
    pub fn forged_entry(&self) {
        self.lock().forged_entries += 1;
    }

    /// All of it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What does not change between the requests of an instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// How its lines look.
    pub style: LogStyle,
    /// The function's name, a dimension of every metric.
    pub function: String,
    /// The function's version, so that a canary's figures can be told from the rest.
    pub version: String,
}

/// One request as its line tells it.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it was asked for.
    pub path: &'a str,
    /// The answer's status.
    pub status: u16,
    /// The id that the answer carries too.
    pub request_id: &'a str,
    /// From arrival to answer.
    pub duration: Duration,
    /// The first request of this instance.
    pub cold_start: bool,
    /// Connections to Redis.
    pub connections: usize,
    /// Reads are being kept from Redis.
    pub breaker_open: bool,
    /// Which shape Redis has: adds `cluster_unavailable` to reads that could not ask it.
    pub cluster: bool,
    /// What happened.
    pub facts: &'a Facts,
    /// Evaluations that have not been told yet, this request's or earlier ones'.
    pub evaluations: Option<Counts>,
}

impl Instance {
    /// Whether evaluations are counted from its lines. A person who reads lines gets none of that.
    #[must_use]
    pub fn tells_counts(&self) -> bool {
        match self.style {
            LogStyle::Json => true,
            LogStyle::Human => false,
        }
    }

    /// Writes the line of a request.
    pub fn write(&self, line: &RequestLine<'_>) {
        let text = match self.style {
            LogStyle::Json => self.json(line).to_string(),
            LogStyle::Human => human(line),
        };
        // A log that cannot be written must not fail the request it tells of.
        let _unwritten = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Writes one metric of what no request did, such as a scheduled run.
    pub fn write_metric(&self, metric: Metric, value: u32) {
        let mut line = json!({
            "level": "INFO",
            "message": format!("{}: {value}", metric.name()),
            "domain": "config",
            "Function": self.function,
            "_aws": {
                "Timestamp": unix_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": Metric::NAMESPACE,
                    "Dimensions": [["Function"]],
                    "Metrics": [{ "Name": metric.name(), "Unit": metric.unit() }],
                }],
            },
        });
        line[metric.name()] = json!(value);
        // A log that cannot be written must not fail what it tells of.
        let _unwritten = writeln!(std::io::stdout().lock(), "{line}");
    }

    fn json(&self, line: &RequestLine<'_>) -> Value {
        let facts = line.facts;
        let number = |yes: bool| u8::from(yes);
        let milliseconds = (line.duration.as_secs_f64() * 1e6).round() / 1e3;
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        put("level", json!("INFO"));
        put(
            "message",
            json!(format!("{} {} {}", line.method, line.path, line.status)),
        );
        put("domain", json!("config"));
        put("method", json!(line.method));
        put("path", json!(line.path));
        put("status", json!(line.status));
        put("request_id", json!(line.request_id));
        put("duration", json!(milliseconds));
        put("cold_start", json!(number(line.cold_start)));
        put("Function", json!(self.function));
        put("Version", json!(self.version));
        if let Some(key) = &facts.flag_key {
            put("flag_key", json!(key));
        }
        if let Some(node) = &facts.node_id {
            put("node_id", json!(node));
        }
        if let Some(kind) = facts.error_type {
            put("error.type", json!(kind));
        }
        if !facts.ignored_fields.is_empty() {
            put("ignored_fields", json!(facts.ignored_fields));
        }
        if let Some(told) = facts.invalidated {
            put("cache_invalidated", json!(number(told)));
        }
        if facts.expired {
            put("cache_expired", json!(1));
        }
        if facts.stale {
            put("stale", json!(1));
        }
        if let Some(outcome) = facts.cache {
            let unavailable = outcome == CacheOutcome::Unavailable;
            put("cache_hit", json!(number(outcome == CacheOutcome::Hit)));
            put("cache_miss", json!(number(outcome == CacheOutcome::Miss)));
            put("cache_unavailable", json!(number(unavailable)));
            if line.cluster {
                put("cluster_unavailable", json!(number(unavailable)));
            }
        }
        if let Some(counts) = &line.evaluations {
            // The number is what the subscription to the log looks for.
            put("evaluated", json!(counts.total()));
            put("evaluations", json!(counts));
        }
        let mut definitions = Vec::new();
        let mut by_version = Vec::new();
        for (metric, value) in metrics(line, milliseconds) {
            if metric.is_told(&value) {
                let definition = json!({ "Name": metric.name(), "Unit": metric.unit() });
                if Metric::BY_VERSION.contains(&metric) {
                    by_version.push(definition.clone());
                }
                definitions.push(definition);
            }
            put(metric.name(), value);
        }
        let directive = |dimensions: &[&str], metrics: Vec<Value>| json!({ "Namespace": Metric::NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics });
        put(
            "_aws",
            json!({
                "Timestamp": unix_millis(),
                "CloudWatchMetrics": [
                    directive(&["Function"], definitions),
                    directive(&["Function", "Version"], by_version),
                ],
            }),
        );
        Value::Object(fields)
    }
}

/// The metrics that have a value for this request. Rates of what did not happen are left out, so
/// that an average is over those requests that it is about.
fn metrics(line: &RequestLine<'_>, milliseconds: f64) -> Vec<(Metric, Value)> {
    let facts = line.facts;
    let mut metrics = vec![
        (Metric::ResponseLatency, json!(milliseconds)),
        (Metric::ServerErrors, json!(u8::from(line.status >= 500))),
        (
            Metric::RedisConnectionErrors,
            json!(facts.connection_errors),
        ),
        (Metric::RedisRetries, json!(facts.retries)),
        (Metric::ActiveConnections, json!(line.connections)),
        (Metric::BreakerOpen, json!(u8::from(line.breaker_open))),
        (Metric::DatabaseLoads, json!(facts.database_loads)),
        (Metric::StaleAnswers, json!(u8::from(facts.stale))),
        (Metric::FillsRefused, json!(facts.fills_refused)),
    ];
    if let Some(outcome) = facts.cache {
        let count = |wanted: CacheOutcome| json!(u8::from(outcome == wanted));
        metrics.push((Metric::CacheHitRate, count(CacheOutcome::Hit)));
        metrics.push((Metric::CacheHits, count(CacheOutcome::Hit)));
        metrics.push((Metric::CacheMisses, count(CacheOutcome::Miss)));
        metrics.push((Metric::CacheUnavailable, count(CacheOutcome::Unavailable)));
    }
    if facts.unreadable_rows > 0 {
        metrics.push((Metric::UnreadableRows, json!(facts.unreadable_rows)));
    }
    if facts.forged_entries > 0 {
        metrics.push((Metric::ForgedEntries, json!(facts.forged_entries)));
    }
    metrics
}

fn human(line: &RequestLine<'_>) -> String {
    let facts = line.facts;
    let mut text = format!(
        "{:5} {} {} {:.1} ms",
        line.method,
        line.path,
        line.status,
        line.duration.as_secs_f64() * 1e3
    );
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
    text
}

fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(facts: &Facts) -> RequestLine<'_> {
        RequestLine {
            method: "GET",
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
        }
    }

    fn instance() -> Instance {
        Instance {
            style: LogStyle::Json,
            function: "list-flags".to_owned(),
            version: "7".to_owned(),
        }
    }

    /// The dimensions and the names of the metrics of a line.
    fn told(document: &Value) -> Vec<(Vec<String>, String)> {
        let texts = |values: &Value| -> Vec<String> {
            let values = values.as_array().expect("a list").iter();
            values
                .map(|it| it.as_str().expect("a text").to_owned())
                .collect()
        };
        let mut found = Vec::new();
        for directive in document["_aws"]["CloudWatchMetrics"]
            .as_array()
            .expect("a list")
        {
            assert_eq!(directive["Namespace"], "Pennon");
            for definition in directive["Metrics"].as_array().expect("a list") {
                let name = definition["Name"].as_str().expect("a name");
                assert!(document[name].is_number(), "{name}");
                for set in directive["Dimensions"].as_array().expect("a list") {
                    for dimension in texts(set) {
                        assert!(document[&dimension].is_string(), "{dimension}");
                    }
                    found.push((texts(set), name.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn every_metric_is_told_by_function_and_those_of_a_canary_by_version() {
        let mut found = Vec::new();
        for outcome in [
            CacheOutcome::Hit,
            CacheOutcome::Miss,
            CacheOutcome::Unavailable,
        ] {
            let trace = Trace::default();
            trace.cache(outcome);
            trace.unreadable_rows(1);
            trace.forged_entry();
            trace.connection_error();
            trace.retried();
            trace.database_load();
            trace.fill_refused();
            trace.stale();
            let facts = trace.facts();
            let line = RequestLine {
                status: 503,
                breaker_open: true,
                ..line(&facts)
            };
            found.extend(told(&instance().json(&line)));
        }
        for metric in Metric::ALL {
            let is_told = |dimensions: &[&str]| {
                found
                    .iter()
                    .any(|(of, name)| of == dimensions && name == metric.name())
            };
            assert!(is_told(&["Function"]), "{metric:?}");
            let by_version = Metric::BY_VERSION.contains(&metric);
            assert_eq!(is_told(&["Function", "Version"]), by_version, "{metric:?}");
        }
    }

    #[test]
    fn a_read_that_nothing_happened_to_costs_few_metrics() {
        let trace = Trace::default();
        trace.cache(CacheOutcome::Hit);
        let facts = trace.facts();
        let line = RequestLine {
            connections: 0,
            ..line(&facts)
        };
        let document = instance().json(&line);
        let names: Vec<String> = told(&document).into_iter().map(|(_, name)| name).collect();
        let wanted = [
            "response_latency",
            "cache_hit_rate",
            "cache_hits",
            "response_latency",
            "cache_hit_rate",
        ];
        assert_eq!(names, wanted);
        // What is not told as a metric can be searched for all the same.
        assert_eq!(document["redis_connection_errors"], 0);
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
            let document = instance().json(&line(&facts));
            let names = ["cache_hit", "cache_miss", "cache_unavailable"];
            for (name, value) in names.into_iter().zip(expected) {
                assert_eq!(document[name], value, "{name} of {outcome:?}");
            }
            assert_eq!(document["duration"], 1.234);
            assert_eq!(document["cold_start"], 1);
        }
        let facts = Facts::default();
        let document = instance().json(&line(&facts));
        assert!(document.get("cache_hit").is_none(), "nothing was read");
        assert!(document.get("cache_hit_rate").is_none());
    }
}
