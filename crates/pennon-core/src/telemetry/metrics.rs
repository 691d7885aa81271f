//! The metrics: their names and units in CloudWatch.

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
