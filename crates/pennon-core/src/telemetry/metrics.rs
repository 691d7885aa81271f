//! The metrics, with their names and units in CloudWatch.

/// A metric in the namespace `Pennon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// 1 for a cache hit, otherwise 0: the average is the hit rate, the sum is the number of hits.
    CacheHitRate,
    /// Reads without a usable cache entry.
    CacheMisses,
    /// Reads for which Redis was unavailable.
    CacheUnavailable,
    /// Failed attempts to use Redis.
    RedisConnectionErrors,
    /// Retries.
    RedisRetries,
    /// 1 while the breaker of Redis is open.
    BreakerOpen,
    /// Open connections from this instance to Redis.
    ActiveConnections,
    /// Snapshots read from PostgreSQL.
    DatabaseLoads,
    /// Responses with flags that neither Redis nor PostgreSQL could confirm.
    StaleAnswers,
    /// Fills that Redis rejected because their lease had expired, or a change or another fill had deleted it.
    FillsRefused,
    /// Unreadable settings, flags and API keys of the environment, flags with unreadable overrides, and unreadable
    /// evaluation defaults of the installation. Only written if there are any, so that the metric costs nothing otherwise.
    UnreadableRows,
    /// Cache entries that are not authentic. Only written if there are any, and per installation instead of per
    /// function: one alarm then covers every function.
    ForgedEntries,
    /// The time from the arrival of a request to its response.
    ResponseLatency,
    /// Responses with a status of 500 or more.
    ServerErrors,
}

impl Metric {
    /// All metrics, for tests that compare them with the template and its dashboard.
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

    /// The metrics of canary alarms. They are also written with the dimension `Version`, which costs a second metric
    /// each. The latency has this dimension only in the lines of requests that read flags.
    pub const BY_VERSION: [Self; 3] = [
        Self::CacheHitRate,
        Self::ResponseLatency,
        Self::ServerErrors,
    ];

    /// The namespace in CloudWatch.
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

    /// The unit in CloudWatch. Only the latency has one: a unit costs bytes in every line.
    #[must_use]
    pub fn unit(self) -> Option<&'static str> {
        match self {
            Self::ResponseLatency => Some("Milliseconds"),
            Self::CacheHitRate
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
            | Self::ServerErrors => None,
        }
    }
}
