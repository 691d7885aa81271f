//! What is seen from outside: log lines, and metrics in the same lines.
//!
//! Every request writes one line. On Lambda it is JSON and also a document in CloudWatch's embedded
//! metric format, so that metrics cost no call and no agent; elsewhere it is a sentence. The format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

mod lines;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing_subscriber::EnvFilter;

use crate::config::process_environment;
use crate::counts::Counts;
pub use lines::LONGEST_TEXT;
use lines::{JsonEvents, human, human_fields, shorten};

/// The most bytes that the id of a request takes in its line. Those of the gateway have 16.
const LONGEST_ID: usize = 64;
/// The most bytes that a name takes in the line of a request: a flag's key, a path, a node.
const LONGEST_NAME: usize = 200;
/// Of fields that were ignored, so many are named, with so many bytes each.
const MOST_IGNORED: usize = 10;
const LONGEST_IGNORED: usize = 40;
/// So long an instance does not repeat how many connections it has, while they are as many.
const GAUGE_INTERVAL: Duration = Duration::from_secs(60);

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
        LogStyle::Json => builder.event_format(JsonEvents).try_init(),
        LogStyle::Human => builder
            .without_time()
            .compact()
            .fmt_fields(human_fields())
            .try_init(),
    };
}

/// Every metric, by its name in namespace `Pennon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// 1 when the cache had the answer, 0 when not; the average is the hit rate, the sum are the hits.
    CacheHitRate,
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
    pub const ALL: [Self; 14] = [
        Self::CacheHitRate,
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

    /// Where CloudWatch files them.
    pub const NAMESPACE: &'static str = "Pennon";

    /// The name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheHitRate => "cache_hit_rate",
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
            Self::CacheMisses
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
        self.lock().flag_key = Some(shorten(key, LONGEST_NAME).into_owned());
    }

    /// This node of Redis answered, or failed to.
    pub fn node(&self, address: String) {
        self.lock().node_id = Some(address);
    }

    /// Names in the body that mean nothing to us.
    pub fn ignored_fields(&self, names: &[String]) {
        let names = names.iter().take(MOST_IGNORED);
        let names = names.map(|name| shorten(name, LONGEST_IGNORED).into_owned());
        self.lock().ignored_fields = names.collect();
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
    /// How many connections its last line told of, and when.
    pub told_connections: ToldConnections,
}

/// How many connections the last line of an instance told of, and when. They hardly ever change, and every
/// metric of a line costs bytes of each.
#[derive(Debug, Clone, Default)]
pub struct ToldConnections(Arc<Mutex<Option<(usize, Instant)>>>);

impl ToldConnections {
    /// Whether this line has to tell: they are others, or it is a minute ago.
    fn are_due(&self, connections: usize) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_known = told.is_some_and(|(known, at)| {
            known == connections && now.duration_since(at) < GAUGE_INTERVAL
        });
        if !is_known {
            *told = Some((connections, now));
        }
        !is_known
    }
}

/// One request as its line tells it.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a str,
    /// What a JSON line says of it: nothing where the path has this method only.
    pub told_method: Option<&'a str>,
    /// The path of the route, with names in the place of ids: see `http::Request::shape`.
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
        let name = |text: &str| json!(shorten(text, LONGEST_NAME));
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        put("domain", json!("config"));
        if let Some(method) = line.told_method {
            put("method", json!(shorten(method, LONGEST_IGNORED)));
        }
        put("path", name(line.path));
        put("status", json!(line.status));
        put("request_id", json!(shorten(line.request_id, LONGEST_ID)));
        put("duration", json!(milliseconds));
        put("cold_start", json!(number(line.cold_start)));
        put("Function", json!(self.function));
        put("Version", json!(self.version));
        if let Some(key) = &facts.flag_key {
            put("flag_key", name(key));
        }
        if let Some(node) = &facts.node_id {
            put("node_id", name(node));
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
        put(Metric::ActiveConnections.name(), json!(line.connections));
        if let Some(counts) = &line.evaluations {
            // The number is what the subscription to the log looks for.
            put("evaluated", json!(counts.total()));
            put("evaluations", json!(counts));
        }
        let mut told: Vec<(Metric, Value)> = metrics(line, milliseconds);
        if self.told_connections.are_due(line.connections) {
            told.push((Metric::ActiveConnections, json!(line.connections)));
        }
        let mut directives = Vec::new();
        let by_version = |metric: Metric| {
            // Only alarms about reads look at how long a version takes.
            Metric::BY_VERSION.contains(&metric)
                && (metric != Metric::ResponseLatency || facts.cache.is_some())
        };
        for (is_by_version, dimensions) in [
            (true, json!([["Function"], ["Function", "Version"]])),
            (false, json!([["Function"]])),
        ] {
            let these = told
                .iter()
                .map(|(metric, _)| *metric)
                .filter(|metric| by_version(*metric) == is_by_version);
            let these: Vec<Value> = these.map(definition).collect();
            if !these.is_empty() {
                directives.push(json!({
                    "Namespace": Metric::NAMESPACE,
                    "Dimensions": dimensions,
                    "Metrics": these,
                }));
            }
        }
        for (metric, value) in told {
            put(metric.name(), value);
        }
        put(
            "_aws",
            json!({ "Timestamp": unix_millis(), "CloudWatchMetrics": directives }),
        );
        Value::Object(fields)
    }
}

/// A metric in the directive of a line. A number without a unit is a count.
fn definition(metric: Metric) -> Value {
    match metric.unit() {
        "Milliseconds" => json!({ "Name": metric.name(), "Unit": metric.unit() }),
        _count => json!({ "Name": metric.name() }),
    }
}

/// The metrics that have something to say about this request. What did not happen is left out: a sum is
/// the same without zeros, an average is over those requests that it is about, and each metric costs
/// bytes of every line, and 0.30 USD a month in each function that writes it.
fn metrics(line: &RequestLine<'_>, milliseconds: f64) -> Vec<(Metric, Value)> {
    let facts = line.facts;
    let mut metrics = vec![(Metric::ResponseLatency, json!(milliseconds))];
    if let Some(outcome) = facts.cache {
        let is_hit = u8::from(outcome == CacheOutcome::Hit);
        metrics.push((Metric::CacheHitRate, json!(is_hit)));
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
            metrics.push((metric, json!(count)));
        }
    }
    if facts.connection_errors > 0 {
        metrics.push((Metric::RedisRetries, json!(facts.retries)));
    }
    if facts.forged_entries > 0 {
        metrics.push((Metric::ForgedEntries, json!(facts.forged_entries)));
    }
    metrics
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
            told_method: None,
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
            told_connections: ToldConnections::default(),
        }
    }

    /// The names of the metrics in the directives of a line, by whether they are told by version.
    fn told(document: &Value) -> Vec<(bool, &str)> {
        let directives = document["_aws"]["CloudWatchMetrics"].as_array();
        let mut told = Vec::new();
        for directive in directives.expect("a list") {
            assert_eq!(directive["Namespace"], "Pennon");
            let by_version =
                directive["Dimensions"] == json!([["Function"], ["Function", "Version"]]);
            assert!(by_version || directive["Dimensions"] == json!([["Function"]]));
            for definition in directive["Metrics"].as_array().expect("a list") {
                let name = definition["Name"].as_str().expect("a name");
                assert!(document[name].is_number(), "{name}");
                told.push((by_version, name));
            }
        }
        assert!(document["Function"].is_string() && document["Version"].is_string());
        told
    }

    #[test]
    fn every_metric_is_told_when_it_has_something_to_say_and_its_value_is_a_field() {
        let mut seen = Vec::new();
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
            let document = instance().json(&line);
            seen.extend(
                told(&document)
                    .into_iter()
                    .map(|(by, name)| (by, name.to_owned())),
            );
        }
        for metric in Metric::ALL {
            let as_said = (
                Metric::BY_VERSION.contains(&metric),
                metric.name().to_owned(),
            );
            assert!(seen.contains(&as_said), "{metric:?}");
        }
    }

    #[test]
    fn a_line_tells_nothing_of_what_did_not_happen() {
        let trace = Trace::default();
        trace.cache(CacheOutcome::Hit);
        let facts = trace.facts();
        let instance = instance();
        let names = |document: &Value| {
            let told = told(document).into_iter();
            told.map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
        };
        let first = instance.json(&line(&facts));
        let hit = ["response_latency", "cache_hit_rate"];
        assert_eq!(
            names(&first),
            ["response_latency", "cache_hit_rate", "active_connections"]
        );
        // The number of connections is told again when it is another one.
        assert_eq!(names(&instance.json(&line(&facts))), hit);
        let more = RequestLine {
            connections: 2,
            ..line(&facts)
        };
        assert_eq!(names(&instance.json(&more)).len(), 3);
        assert_eq!(names(&instance.json(&more)), hit);
        assert_eq!(instance.json(&more)["active_connections"], 2);
        // Of what reads nothing, nobody asks how long a version takes.
        let facts = Facts::default();
        let document = instance.json(&line(&facts));
        assert!(told(&document).contains(&(false, "response_latency")));
    }

    #[test]
    fn a_line_has_a_largest_size_whatever_the_caller_sends() {
        for filling in ["x", "\u{0}", "\"", "😀"] {
            let long = filling.repeat(100_000);
            let trace = Trace::default();
            trace.cache(CacheOutcome::Miss);
            trace.flag_key(&long);
            trace.node(long.clone());
            trace.ignored_fields(&vec![long.clone(); 1_000]);
            let facts = trace.facts();
            let line = RequestLine {
                method: &long,
                told_method: Some(&long),
                path: &long,
                request_id: &long,
                ..line(&facts)
            };
            let text = instance().json(&line).to_string();
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
