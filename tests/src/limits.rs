//! The times and numbers that are promised, in one place. A benchmark that measures more than a limit
//! allows prints which one and exits with an error.
//!
//! Every limit can be set by an environment variable of its name, to see a benchmark fail or to run
//! one on debug builds: `LIMIT_P95_MS=0.001 cargo bench …`.

use std::process::ExitCode;

/// A promise with a number in it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The environment variable that replaces the number.
    pub name: &'static str,
    /// The most that is allowed.
    pub most: f64,
    /// The documented promise.
    pub promise: &'static str,
}

/// From the start of the process until it asks for work: Redis is connected or was given up.
pub const COLD_START: Limit = Limit {
    name: "LIMIT_COLD_START_MS",
    most: 500.0,
    promise: "every cold start has connected to Redis or given it up",
};
/// From the start of the process to its first response.
pub const COLD_RESPONSE: Limit = Limit {
    name: "LIMIT_COLD_RESPONSE_MS",
    most: 700.0,
    promise: "every cold start has answered its first request",
};
/// The mean of many requests at once.
pub const MEAN: Limit = Limit {
    name: "LIMIT_MEAN_MS",
    most: 50.0,
    promise: "the average under load",
};
/// The 95th percentile of many requests at once.
pub const P95: Limit = Limit {
    name: "LIMIT_P95_MS",
    most: 50.0,
    promise: "the 95th percentile under load",
};
/// Connections of one process to Redis.
pub const CONNECTIONS: Limit = Limit {
    name: "LIMIT_CONNECTIONS",
    most: 10.0,
    promise: "connections of one process to Redis",
};
/// Any request while Redis or a part of it is gone, the first one included.
pub const OUTAGE: Limit = Limit {
    name: "LIMIT_OUTAGE_MS",
    most: 500.0,
    promise: "the longest request while Redis or PostgreSQL works",
};
/// From the return of a Redis until every instance uses it again.
pub const RECOVERY: Limit = Limit {
    name: "LIMIT_RECOVERY_MS",
    most: 5_000.0,
    promise: "every instance uses a Redis that is back",
};
/// From the last answer until no connection to PostgreSQL is left.
pub const LEFT_CONNECTIONS: Limit = Limit {
    name: "LIMIT_LEFT_CONNECTIONS_MS",
    most: 1_000.0,
    promise: "no connection to PostgreSQL is left after the last answer",
};
/// The memory that a function has had at most, whatever its flags are, of the 512 MB that it has.
pub const MEMORY: Limit = Limit {
    name: "LIMIT_MEMORY_MB",
    most: 420.0,
    promise: "megabytes that a function has taken at most",
};
/// A read of flags that are within the bounds, whatever they are.
pub const DEAREST_READ: Limit = Limit {
    name: "LIMIT_DEAREST_READ_MS",
    most: 250.0,
    promise: "the average read of flags that may be written",
};
/// From the alarm of a ramp to the last read of the ramped-up value, at 100 requests per second.
pub const ROLLBACK: Limit = Limit {
    name: "LIMIT_ROLLBACK_MS",
    most: 1_000.0,
    promise: "no read returns the ramped-up value any more, 99th percentile",
};
/// Cache operations that fail in ten minutes of load with failovers, of a hundred.
pub const FAILED_OPERATIONS: Limit = Limit {
    name: "LIMIT_FAILED_PERCENT",
    most: 1.0,
    promise: "cache operations that failed, in per cent",
};

/// Collects what was measured against limits, and other things that must hold.
#[derive(Debug, Default)]
pub struct Verdict {
    checked: usize,
    failures: Vec<String>,
}

impl Verdict {
    /// Compares a measurement with its limit.
    ///
    /// # Panics
    /// When the environment variable of the limit is not a number.
    pub fn limit(&mut self, limit: Limit, measured: f64, of: &str) {
        let most = match std::env::var(limit.name) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("{} is not a number: {text}", limit.name)),
            Err(_) => limit.most,
        };
        let failure = format!(
            "{of}: {measured:.3} exceeds {most} ({}: {})",
            limit.name, limit.promise
        );
        self.require(measured <= most, &failure);
    }

    /// Notes a failure unless something holds.
    pub fn require(&mut self, holds: bool, otherwise: &str) {
        self.checked += 1;
        if !holds {
            self.failures.push(otherwise.to_owned());
        }
    }

    /// What to print at the end, a line for each failure.
    pub fn report(&self) -> String {
        let mut report = format!("{} checks, {} failed", self.checked, self.failures.len());
        for failure in &self.failures {
            report.push_str("\nFAILED ");
            report.push_str(failure);
        }
        report
    }

    /// An error when anything failed.
    pub fn exit_code(&self) -> ExitCode {
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
