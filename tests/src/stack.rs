//! A whole deployment in miniature: Redis, PostgreSQL, wires to both, and functions.

use serde_json::Value;

use crate::answer::Answer;
use crate::event::Event;
use crate::fleet::{Fleet, Topology};
use crate::lambda::Function;
use crate::postgres::Database;
use crate::wire::Wire;

/// Redis, PostgreSQL and wires to both.
pub struct Stack {
    /// The cache, and the wires to it.
    pub redis: Fleet,
    /// The database, with a few flags in it.
    pub database: Database,
    /// The wire to it.
    pub database_wire: Wire,
}

impl Stack {
    /// A deployment with the flags `checkout` (on, 50 %), `search` (on, 100 %) and `export` (off), and
    /// a single Redis.
    pub async fn start() -> Self {
        Self::start_on(Topology::Single).await
    }

    /// The same with a Redis in that shape.
    pub async fn start_on(topology: Topology) -> Self {
        Self::start_with(Fleet::start(topology).await).await
    }

    /// The same with a Redis of one's choice.
    pub async fn start_with(redis: Fleet) -> Self {
        let database = Database::create().await;
        database.add_flag("checkout", true, 50).await;
        database.add_flag("search", true, 100).await;
        database.add_flag("export", false, 100).await;
        Self {
            database_wire: Wire::to(database.port()),
            redis,
            database,
        }
    }

    /// Starts a function that reaches both by their wires.
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
        Function::start(name, &environment).await
    }

    /// What a function needs to reach both by their wires.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.redis.environment();
        environment.push(("DATABASE_URL".to_owned(), self.database_url()));
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
pub fn percentage(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["rolloutPercentage"]
        .as_i64()
        .expect("a percentage")
}

/// Sets a percentage and returns the answer.
pub async fn set_percentage(update: &Function, key: &str, percentage: i64) -> Answer {
    let body = serde_json::json!({ "rolloutPercentage": percentage });
    let answer = update.call(&Event::update(key, &body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// How often a function has asked the database for a snapshot.
pub fn database_loads(function: &Function) -> u64 {
    function
        .requests()
        .iter()
        .filter_map(|line| line.get("database_loads").and_then(Value::as_u64))
        .sum()
}
