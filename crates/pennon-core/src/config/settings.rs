//! The settings and what each of them means.

use std::time::Duration;

use super::origins::CorsConfig;
use super::secret::Secret;

/// Where a connection URL comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlSource {
    /// It is in the environment.
    Plain(Secret),
    /// It is the value of this Secrets Manager secret.
    SecretArn(String),
    /// Nothing names one: run without.
    None,
}

/// How the Redis cache is reached and how much time it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// `REDIS_SECRET_ARN`, else `REDIS_CLUSTER_URL` or `REDIS_URL_CLUSTER`, else `REDIS_URL`.
    pub url: UrlSource,
    /// The URL came under a cluster name, so that `redis://` means a cluster too.
    pub cluster: bool,
    /// `CACHE_MAC_SECRET_ARN`, else `CACHE_MAC_KEY`: the key that authenticates entries, so that nobody who
    /// can write to Redis can forge one. Without it no entry is read or filled.
    pub mac_key: UrlSource,
    /// `REDIS_CA_FILE`: a PEM file with the authorities of a `rediss://` server. Without it the
    /// public ones count, which is right for ElastiCache.
    pub ca_file: Option<String>,
    /// `REDIS_POOL_SIZE`, 1 to 10. One connection carries any number of requests at once, so more
    /// than one only helps when replies are large.
    pub pool_size: usize,
    /// `REDIS_REPLICA_READS=true`: in a cluster, replicas answer most reads. It spares the primary, and
    /// a change may be seen half a second late.
    pub replica_reads: bool,
    /// `CACHE_KEY_PREFIX`, empty by default: what the keys of this installation begin with, where several
    /// share a Redis. At most 64 of letters, digits and `-_:.`.
    pub key_prefix: String,
    /// `REDIS_SECRET_REFRESH_SECONDS`: how often an instance in use looks whether the secret names
    /// another Redis, and whether there is another key for entries.
    pub secret_refresh: Duration,
    /// `CACHE_TTL_SECONDS`, how long an entry lives. 300 is what the service being replaced used.
    pub ttl: Duration,
    /// `CACHE_CONNECT_TIMEOUT_MS`, at most 2,000: one attempt to connect.
    pub connect_timeout: Duration,
    /// `CACHE_OPERATION_TIMEOUT_MS`: one attempt of one operation.
    pub operation_timeout: Duration,
    /// `CACHE_BUDGET_MS`, at most 500: all that one request spends on the cache, retries included.
    /// The default leaves the database room to answer within half a second.
    pub request_budget: Duration,
}

impl CacheConfig {
    /// Whether there should be a Redis at all.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.url != UrlSource::None
    }
}

/// Where PostgreSQL is, as far as the document in the secret does not say: the secret of a master user
/// that RDS manages holds a user name and a password only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseAddress {
    /// `DATABASE_HOST`.
    pub host: Option<String>,
    /// `DATABASE_PORT`, 5432 by default.
    pub port: Option<u16>,
    /// `DATABASE_NAME`, `postgres` by default.
    pub name: Option<String>,
}

/// The secrets of the roles that `migrate` creates in the database; no other function reads these settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolesConfig {
    /// `DATABASE_READ_SECRET_ARN`: the secret of functions that only read.
    pub read_secret: Option<String>,
    /// `DATABASE_WRITE_SECRET_ARN`: the secret of functions that change flags.
    pub write_secret: Option<String>,
    /// `DATABASE_COUNT_SECRET_ARN`: the secret of the function that adds up evaluations.
    pub count_secret: Option<String>,
    /// `DATABASE_ROLE_HOST`: the host that these secrets name, a proxy before the database. Without it, the
    /// host that `migrate` itself uses.
    pub host: Option<String>,
    /// `DATABASE_IDLE_SESSION_SECONDS`: after so long the server closes an idle connection of these roles. 0
    /// for never, which is right behind a pooler: it keeps idle connections on purpose.
    pub idle_session: Duration,
}

/// How PostgreSQL is reached and how much time it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// `DATABASE_SECRET_ARN`, else `DATABASE_URL`.
    pub url: UrlSource,
    /// `DATABASE_FALLBACK_SECRET_ARN`: the secret to use as long as the one above has no value, or names a
    /// login that the database refuses. For the time in which an installation with one login gets roles.
    pub fallback_secret: Option<String>,
    /// What `migrate` knows of roles.
    pub roles: RolesConfig,
    /// What a secret without a host leaves to settings.
    pub elsewhere: DatabaseAddress,
    /// `DATABASE_POOL_SIZE`, 1 to 10: the most connections at once. 1 on Lambda, where an instance serves
    /// one request at a time; 4 elsewhere.
    pub pool_size: usize,
    /// Whether connections stay open between requests: not on Lambda, where nobody could use those of a
    /// frozen instance.
    pub keep_connections: bool,
    /// `DATABASE_CONNECT_TIMEOUT_MS`: one connection, TLS and authentication included.
    pub connect_timeout: Duration,
    /// `DATABASE_TIMEOUT_MS`: one read or one change, as PostgreSQL and as the client count it.
    pub operation_timeout: Duration,
    /// Whether a change writes an event into the outbox: `EVENT_BUS_NAME` is set.
    pub outbox: bool,
}

/// Who may use `GET /api/config/flags` and `GET /api/config/flags/{flagKey}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicConfigRoutes {
    /// Anyone, as in an existing service with these tables.
    Open,
    /// Holders of an API key, which decides the environment.
    Key,
    /// Nobody: the routes do not exist.
    Off,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// `ADMIN_CLAIM`: the claim of a verified token that lists its groups.
    pub admin_claim: String,
    /// `TRUST_USER_ID_PARAMETER=true`: public routes take the user from `?userId=`. For local use;
    /// on the internet anyone could ask as anyone.
    pub trust_user_id_parameter: bool,
    /// `PUBLIC_CONFIG_ROUTES`: `open`, `key` or `off`. Any other value is `off`, so that a typing error
    /// opens nothing.
    pub public_config: PublicConfigRoutes,
}

/// Whose tokens say who asks, on routes where API Gateway checks none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// `JWT_ISSUER`: the OpenID Connect issuer, an `https://` URL, exactly as tokens write it.
    pub issuer: String,
    /// `JWT_AUDIENCE`: the audiences or client ids, with commas between them.
    pub audiences: Vec<String>,
    /// `JWT_CA_FILE`: a PEM file with the authorities of the issuer's server. Without it the public
    /// ones count.
    pub ca_file: Option<String>,
}

/// What the check before a rollout needs; no other function reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutConfig {
    /// `MIGRATE_FUNCTION_ARN`: the version of `migrate` that knows the tables of this release.
    pub migrate_function: Option<String>,
    /// `HEALTH_FUNCTION_ARN`: the version of `health` that is about to get traffic.
    pub health_function: Option<String>,
    /// `HEALTH_PATIENCE_MS`: how long `migrate` is asked for, and then how long that version has to
    /// become healthy. One that was published just now may have to wait for its network.
    pub patience: Duration,
}

/// All settings of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The Redis cache.
    pub cache: CacheConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// Identity.
    pub auth: AuthConfig,
    /// Which web pages may read answers.
    pub cors: CorsConfig,
    /// Tokens of callers; without it, a caller of a public route is anonymous.
    pub tokens: Option<TokenConfig>,
    /// The check before a rollout.
    pub rollout: RolloutConfig,
    /// `SNAPSHOT_MAX_AGE_MS`: how long an instance may answer from its snapshot without asking
    /// whether it is still current. 0, the default, asks every time.
    pub snapshot_max_age: Duration,
    /// `INSTALLATION_ID`: what tells this installation from others that use the same Redis. Without it,
    /// the address and the name of the database do.
    pub installation: Option<String>,
    /// `CLOUDWATCH_ENDPOINT`: where the alarms of ramps are read, instead of the region's own endpoint;
    /// `none` where functions have no way to CloudWatch.
    pub cloudwatch_endpoint: Option<String>,
    /// `EVENT_BUS_NAME`: the name or the ARN of the event bus that receives change events. Without it none are
    /// sent.
    pub event_bus: Option<String>,
    /// `STAGE`: which deployment this is (`production`, `staging`), for people who read /health.
    pub stage: String,
}
