//! A whole deployment in miniature: Redis, PostgreSQL, wires to both, and functions.

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
    /// The database, with a few flags in it.
    pub database: Database,
    /// The wire to it.
    pub database_wire: Wire,
    limits: Vec<(&'static str, &'static str)>,
}

/// The most time for Redis that functions accept. With the default, a busy machine may make a Redis that
/// works answer too late; the function then retries, asks the database or does not fill, as it should.
/// Most tests are not about that.
pub const GENEROUS_FOR_CACHE: [(&str, &str); 3] = [
    ("CACHE_CONNECT_TIMEOUT_MS", "2000"),
    ("CACHE_OPERATION_TIMEOUT_MS", "500"),
    ("CACHE_BUDGET_MS", "500"),
];

/// The same for PostgreSQL, which answers 503 when it is too late. Less than [`crate::PATIENCE`].
pub const GENEROUS_FOR_DATABASE: [(&str, &str); 2] = [
    ("DATABASE_CONNECT_TIMEOUT_MS", "10000"),
    ("DATABASE_TIMEOUT_MS", "15000"),
];

/// Redis has half a second of a cold start. On a busy machine that may run out, and the first requests are
/// then answered without a cache.
const MOST_COLD_STARTS: usize = 20;

impl Stack {
    /// A deployment with the flags `checkout` (on, 50 %), `search` (on, 100 %) and `export` (off), and
    /// a single Redis. Its functions have generous limits of time.
    pub async fn start() -> Self {
        Self::start_on(Topology::Single).await
    }

    /// The same with a Redis in that shape.
    pub async fn start_on(topology: Topology) -> Self {
        Self::start_with(WiredRedis::start(topology).await).await
    }

    /// The same on this Redis.
    pub async fn start_with(redis: WiredRedis) -> Self {
        let database = Database::create().await;
        database.add_flag("checkout", true, 50).await;
        database.add_flag("search", true, 100).await;
        database.add_flag("export", false, 100).await;
        Self {
            database_wire: Wire::to(database.port()),
            redis,
            database,
            limits: [&GENEROUS_FOR_CACHE[..], &GENEROUS_FOR_DATABASE].concat(),
        }
    }

    /// The same with the limits of time that functions have by default: for benchmarks, and for tests of
    /// what happens when something does not answer.
    pub fn with_default_limits(mut self) -> Self {
        self.limits.clear();
        self
    }

    /// The same for Redis only: for tests in which PostgreSQL has to answer in its place.
    pub fn with_default_cache_limits(mut self) -> Self {
        self.limits = GENEROUS_FOR_DATABASE.to_vec();
        self
    }

    /// Starts a function that reaches both by their wires, and that has connected to Redis unless a fault or
    /// a variable keeps it from that.
    pub async fn function(&self, name: &str) -> Function {
        self.function_with(name, &[]).await
    }

    /// The same with more variables, or with others.
    pub async fn function_with(&self, name: &str, more: &[(&str, &str)]) -> Function {
        let environment = self.environment();
        let own = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        let environment: Vec<_> = own.chain(more.iter().copied()).collect();
        for _ in 0..MOST_COLD_STARTS {
            let function = Function::start(name, &environment).await;
            let ran_out = function.has_logged(self.redis.failure());
            if !ran_out || !self.must_connect(more) {
                return function;
            }
        }
        panic!("no cold start of {name} has connected to Redis");
    }

    /// Whether a cold start that does not reach Redis in its time is one of a machine that is busy, and of
    /// no interest.
    fn must_connect(&self, more: &[(&str, &str)]) -> bool {
        let is_elsewhere = more.iter().any(|(name, _)| name.starts_with("REDIS"));
        let is_about_faults = !self.limits.contains(&GENEROUS_FOR_CACHE[0]);
        !is_elsewhere && !is_about_faults && self.redis.is_reachable()
    }

    /// The variables by which a function reaches both through their wires, and its limits.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.redis.environment();
        environment.push(("DATABASE_URL".to_owned(), self.database_url()));
        let limits = self.limits.iter();
        environment.extend(limits.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        environment
    }

    /// Redis by its wire.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The database by its wire.
    pub fn database_url(&self) -> String {
        self.database.url_by(self.database_wire.port())
    }
}

/// The `rolloutPercentage` in an answer of `get-flag` or `update-flag`.
pub fn percentage(answer: &Response) -> i64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["rolloutPercentage"]
        .as_i64()
        .expect("a percentage")
}

/// Sets a percentage and returns the answer.
pub async fn set_percentage(update: &Function, key: &str, percentage: i64) -> Response {
    let body = serde_json::json!({ "rolloutPercentage": percentage });
    let answer = update.call(&Event::update(key, &body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// Sets percentages, from this one upwards, until Redis has confirmed one, and gives that one. A replica
/// that a busy machine keeps from confirming within 50 ms, or a node that it makes too late, is no reason
/// for an error: the answer says `false`, and promises nothing.
pub async fn set_confirmed_percentage(update: &Function, key: &str, first: i64) -> i64 {
    let mut last = first - 1;
    eventually("Redis confirms a change", async || {
        last += 1;
        let lines = update.lines().len();
        let answer = set_percentage(update, key, last).await;
        let confirmed = answer.header("x-cache-invalidated") == Some("true");
        let lines = &update.lines()[lines..];
        let reason = lines.iter().any(|line| {
            line["message"] == "no replica has confirmed an invalidation"
                || line["redis_connection_errors"] != 0
                    && line["redis_connection_errors"] != Value::Null
        });
        assert!(
            confirmed || reason,
            "not confirmed for no reason: {lines:#?}"
        );
        confirmed
    })
    .await;
    last
}

/// How often a function has asked the database for a snapshot.
pub fn database_loads(function: &Function) -> u64 {
    function
        .requests()
        .iter()
        .filter_map(|line| line.get("database_loads").and_then(Value::as_u64))
        .sum()
}

/// Whether the last requests of a function, that many, came nowhere near the limits after which it stops
/// waiting for Redis, or for the instance that fills it. Only of such requests is it certain who asks
/// what: on a busy machine, a reader that has waited long enough rightly loads by itself.
pub fn was_quick(function: &Function, requests: usize) -> bool {
    let lines = function.requests();
    let lines = &lines[lines.len() - requests..];
    lines.iter().all(|line| {
        let took = line["duration"].as_f64().expect("a time");
        took < 100.0 && line["cache_unavailable"] == 0 && line["redis_connection_errors"] == 0
    })
}
