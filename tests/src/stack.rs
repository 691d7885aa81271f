//! A complete deployment: Redis, PostgreSQL, wires to both, and functions.

use serde_json::Value;

use crate::event::Event;
use crate::eventually;
use crate::lambda::Function;
use crate::postgres::Database;
use crate::response::Response;
use crate::topology::{Topology, WiredRedis};
use crate::wire::Wire;

/// Redis, PostgreSQL and wires to both.
pub struct Stack {
    /// The cache, and the wires to it.
    pub redis: WiredRedis,
    /// The database, with a few flags.
    pub database: Database,
    /// The wire to the database.
    pub database_wire: Wire,
    timeouts: Vec<(&'static str, &'static str)>,
}

/// Longer timeouts for Redis. With the defaults, a healthy Redis on a busy machine may respond too late; the function
/// then correctly retries, reads the database or does not fill the cache, which most tests do not expect.
pub const LONG_CACHE_TIMEOUTS: [(&str, &str); 3] = [
    ("CACHE_CONNECT_TIMEOUT_MS", "2000"),
    ("CACHE_OPERATION_TIMEOUT_MS", "500"),
    ("CACHE_BUDGET_MS", "500"),
];

/// Longer timeouts for PostgreSQL, below [`crate::TIME_LIMIT`].
pub const LONG_DATABASE_TIMEOUTS: [(&str, &str); 2] = [
    ("DATABASE_CONNECT_TIMEOUT_MS", "10000"),
    ("DATABASE_TIMEOUT_MS", "15000"),
];

/// How many cold starts are tried until one connects to Redis. A cold start waits half a second for Redis, which may
/// not be enough on a busy machine; the first requests then do not use the cache.
const MAX_COLD_STARTS: usize = 20;

impl Stack {
    /// Starts a deployment with the flags `checkout` (on, 50 %), `search` (on, 100 %) and `export` (off), and a single
    /// Redis. Its functions have long timeouts.
    pub async fn start() -> Self {
        Self::start_on(Topology::Single).await
    }

    /// Starts a deployment on this topology.
    pub async fn start_on(topology: Topology) -> Self {
        Self::start_with(WiredRedis::start(topology).await).await
    }

    /// Starts a deployment on this Redis.
    pub async fn start_with(redis: WiredRedis) -> Self {
        let database = Database::create().await;
        database.add_flag("checkout", true, 50).await;
        database.add_flag("search", true, 100).await;
        database.add_flag("export", false, 100).await;
        Self {
            database_wire: Wire::to(database.port()),
            redis,
            database,
            timeouts: [&LONG_CACHE_TIMEOUTS[..], &LONG_DATABASE_TIMEOUTS].concat(),
        }
    }

    /// Uses the default timeouts: for benchmarks, and for tests of servers that do not respond.
    pub fn with_default_timeouts(mut self) -> Self {
        self.timeouts.clear();
        self
    }

    /// Uses the default timeouts for Redis only: for tests in which PostgreSQL answers in its place.
    pub fn with_default_cache_timeouts(mut self) -> Self {
        self.timeouts = LONG_DATABASE_TIMEOUTS.to_vec();
        self
    }

    /// Starts a function that uses Redis and PostgreSQL through their wires, and has connected to Redis unless a fault
    /// or a variable prevents that.
    pub async fn function(&self, name: &str) -> Function {
        self.function_with(name, &[]).await
    }

    /// Starts a function with additional or overridden variables.
    pub async fn function_with(&self, name: &str, more: &[(&str, &str)]) -> Function {
        let environment = self.environment();
        let own = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = own.chain(more.iter().copied()).collect();
        for _ in 0..MAX_COLD_STARTS {
            let function = Function::start(name, &environment).await;
            let timed_out = function.has_logged(self.redis.failure());
            if !timed_out || !self.must_connect(more) {
                return function;
            }
        }
        panic!("no cold start of {name} has connected to Redis");
    }

    /// Whether a cold start without a connection to Redis can only be due to a busy machine.
    fn must_connect(&self, more: &[(&str, &str)]) -> bool {
        let is_elsewhere = more.iter().any(|(name, _)| name.starts_with("REDIS"));
        let has_default_cache_timeouts = !self.timeouts.contains(&LONG_CACHE_TIMEOUTS[0]);
        !is_elsewhere && !has_default_cache_timeouts && self.redis.is_reachable()
    }

    /// The variables of a function: Redis and PostgreSQL through their wires, and timeouts.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.redis.environment();
        environment.push(("DATABASE_URL".to_owned(), self.database_url()));
        let timeouts = self.timeouts.iter();
        environment.extend(timeouts.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        environment
    }

    /// The URL of Redis through its wire.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The URL of the database through its wire.
    pub fn database_url(&self) -> String {
        self.database.url_by(self.database_wire.port())
    }
}

/// The `rolloutPercentage` in a response of `get-flag` or `update-flag`.
pub fn percentage(answer: &Response) -> i64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["rolloutPercentage"]
        .as_i64()
        .expect("a percentage")
}

/// Sets a percentage and returns the response.
pub async fn set_percentage(update: &Function, key: &str, percentage: i64) -> Response {
    let body = serde_json::json!({ "rolloutPercentage": percentage });
    let answer = update.call(&Event::update(key, &body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// Sets percentages from `first` upwards until Redis has confirmed one, and returns it.
pub async fn raise_percentage_until_confirmed(update: &Function, key: &str, first: i64) -> i64 {
    let body = |percentage| serde_json::json!({ "rolloutPercentage": percentage });
    let (attempts, _) = change_until_confirmed(update, |attempt| {
        Event::update(key, &body(first - 1 + attempt))
    })
    .await;
    first - 1 + attempts
}

/// Makes changes until Redis has confirmed one, and returns the number of attempts and the last response. `event` gets
/// the number of an attempt, from 1. On a busy machine a replica may not confirm within 50 ms, or a node may respond
/// too late; the response then correctly says `false`.
pub async fn change_until_confirmed(
    function: &Function,
    event: impl Fn(i64) -> Event,
) -> (i64, Response) {
    let mut attempts = 0;
    let mut last = None;
    eventually("Redis confirms a change", async || {
        attempts += 1;
        let lines = function.lines().len();
        let answer = function.call(&event(attempts)).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let confirmed = answer.header("x-cache-invalidated") == Some("true");
        last = Some(answer);
        let lines = &function.lines()[lines..];
        let is_explained = lines.iter().any(|line| {
            line["message"] == "no replica has confirmed an invalidation"
                || line["redis_connection_errors"] != 0
                    && line["redis_connection_errors"] != Value::Null
        });
        assert!(
            confirmed || is_explained,
            "unconfirmed, and no line has the reason: {lines:#?}"
        );
        confirmed
    })
    .await;
    (attempts, last.expect("an attempt"))
}

/// How often a function has loaded a snapshot from the database.
pub fn database_loads(function: &Function) -> u64 {
    function
        .requests()
        .iter()
        .filter_map(|line| line.get("database_loads").and_then(Value::as_u64))
        .sum()
}

/// Whether the last `requests` requests of a function were far from the limits after which it stops waiting for
/// Redis, or for another instance's fill. On a busy machine a reader that has waited long enough correctly loads by
/// itself, so only quick requests prove who loads.
pub fn was_quick(function: &Function, requests: usize) -> bool {
    let lines = function.requests();
    let lines = &lines[lines.len() - requests..];
    lines.iter().all(|line| {
        let took = line["duration"].as_f64().expect("a time");
        took < 100.0 && line["cache_unavailable"] == 0 && line["redis_connection_errors"] == 0
    })
}
