//! The documented limits of what benchmarks measure. A benchmark that exceeds a limit prints it and exits with an
//! error.
//!
//! An environment variable with the name of a limit overrides it, to see a benchmark fail or to run one on debug
//! builds: `LIMIT_P95_MS=0.001 cargo bench --locked …`.

use std::process::ExitCode;

/// A limit on a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The environment variable that overrides the value.
    pub name: &'static str,
    /// The maximum.
    pub most: f64,
    /// What is limited.
    pub description: &'static str,
}

/// From exec until the function requests its first event: it has connected to Redis, or given up.
pub const COLD_START: Limit = Limit {
    name: "LIMIT_COLD_START_MS",
    most: 500.0,
    description: "time from exec until the function has connected to Redis or stopped trying",
};
/// From exec to the first response.
pub const COLD_RESPONSE: Limit = Limit {
    name: "LIMIT_COLD_RESPONSE_MS",
    most: 700.0,
    description: "time from exec to the first response",
};
/// The mean of many concurrent requests.
pub const MEAN: Limit = Limit {
    name: "LIMIT_MEAN_MS",
    most: 50.0,
    description: "the average under load",
};
/// The 95th percentile of many concurrent requests.
pub const P95: Limit = Limit {
    name: "LIMIT_P95_MS",
    most: 50.0,
    description: "the 95th percentile under load",
};
/// Connections of one process to Redis.
pub const CONNECTIONS: Limit = Limit {
    name: "LIMIT_CONNECTIONS",
    most: 10.0,
    description: "connections of one process to Redis",
};
/// Any request while at least one of Redis and PostgreSQL is available, including the first one of an outage.
pub const OUTAGE: Limit = Limit {
    name: "LIMIT_OUTAGE_MS",
    most: 500.0,
    description: "the longest request while at least one of Redis and PostgreSQL is available",
};
/// An evaluation by the extension, as a multiple of an empty handler of the same HTTP library.
pub const EXTENSION_RATIO: Limit = Limit {
    name: "LIMIT_EXTENSION_RATIO",
    most: 1.2,
    description: "an evaluation by the extension, as a multiple of an empty response",
};
/// The resident memory of the extension with 1,000 flags.
pub const EXTENSION_MEMORY: Limit = Limit {
    name: "LIMIT_EXTENSION_MB",
    most: 15.0,
    description: "the memory of the extension with 1,000 flags",
};
/// From exec until the extension requests its first event, without the time that the service takes to send the flags.
pub const EXTENSION_COLD_START: Limit = Limit {
    name: "LIMIT_EXTENSION_COLD_START_MS",
    most: 10.0,
    description: "what the extension adds to a cold start apart from the fetch",
};
/// From the return of Redis until every instance uses it again.
pub const RECOVERY: Limit = Limit {
    name: "LIMIT_RECOVERY_MS",
    most: 5_000.0,
    description: "time from the return of Redis until every instance uses it again",
};
/// From the freeze of all instances, after their last response, until no connection to PostgreSQL is open.
pub const CONNECTIONS_CLOSED: Limit = Limit {
    name: "LIMIT_CONNECTIONS_CLOSED_MS",
    most: 1_000.0,
    description: "time from the freeze of all instances until no connection to PostgreSQL is open",
};
/// The peak memory of a function with 512 MB, with the most expensive flags that the API accepts and with more
/// expensive ones, created before the API had limits.
pub const MEMORY: Limit = Limit {
    name: "LIMIT_MEMORY_MB",
    most: 420.0,
    description: "megabytes that a function has taken at most",
};
/// The mean time of a read of the most expensive flags that the API accepts.
pub const EXPENSIVE_READ: Limit = Limit {
    name: "LIMIT_EXPENSIVE_READ_MS",
    most: 250.0,
    description: "the mean time of a read of the most expensive flags that the API accepts",
};
/// From the invocation of `guard` by an alarm to the last read of the ramped-up value, at 100 requests per second.
pub const ROLLBACK: Limit = Limit {
    name: "LIMIT_ROLLBACK_MS",
    most: 1_000.0,
    description: "time from the invocation of guard to the last read of the ramped-up value, 99th percentile",
};
/// The percentage of cache operations that fail in ten minutes of load with failovers.
pub const FAILED_OPERATIONS: Limit = Limit {
    name: "LIMIT_FAILED_PERCENT",
    most: 1.0,
    description: "cache operations that failed, in per cent",
};

/// Collects the results of checks.
#[derive(Debug, Default)]
pub struct Verdict {
    checked: usize,
    failures: Vec<String>,
}

impl Verdict {
    /// Compares a measurement with its limit.
    ///
    /// # Panics
    /// If the environment variable of the limit is not a number.
    pub fn limit(&mut self, limit: Limit, measured: f64, of: &str) {
        let most = crate::setting(limit.name, limit.most);
        let failure = format!(
            "{of}: {measured:.3} exceeds {most} ({}: {})",
            limit.name, limit.description
        );
        self.require(measured <= most, &failure);
    }

    /// Records a failure unless the condition holds.
    pub fn require(&mut self, holds: bool, otherwise: &str) {
        self.checked += 1;
        if !holds {
            self.failures.push(otherwise.to_owned());
        }
    }

    /// The text to print at the end, a line for each failure.
    pub fn report(&self) -> String {
        let mut report = format!("{} checks, {} failed", self.checked, self.failures.len());
        for failure in &self.failures {
            report.push_str("\nFAILED ");
            report.push_str(failure);
        }
        report
    }

    /// An error if any check failed, or if nothing was checked, for example because the name of a scenario is
    /// misspelled.
    pub fn exit_code(&self) -> ExitCode {
        if self.checked > 0 && self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
