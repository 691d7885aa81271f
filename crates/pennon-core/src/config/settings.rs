//! The settings. docs/configuration.md lists their variables and defaults.

use std::time::Duration;

use super::origins::CorsConfig;
use super::secret::Secret;

/// Where a secret setting, such as a connection URL or the MAC key, comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The value itself, from a variable.
    Plain(Secret),
    /// The value of the Secrets Manager secret with this ARN.
    SecretArn(String),
    /// Not configured.
    None,
}

impl SecretSource {
    /// Its name for the log: the secret, or this variable.
    #[must_use]
    pub fn name(&self, variable: &str) -> String {
        match self {
            Self::SecretArn(arn) => format!("secret {arn}"),
            Self::Plain(_) | Self::None => variable.to_owned(),
        }
    }
}

/// The connection to Redis and its time limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// `REDIS_SECRET_ARN`, else `REDIS_CLUSTER_URL` or `REDIS_URL_CLUSTER`, else `REDIS_URL`.
    pub url: SecretSource,
    /// The URL is from `REDIS_CLUSTER_URL` or `REDIS_URL_CLUSTER`, so it names a cluster even if its scheme is
    /// `redis://` and not `redis-cluster://`.
    pub cluster: bool,
    /// `CACHE_MAC_SECRET_ARN`, else `CACHE_MAC_KEY`: the key that authenticates entries, so that write access to
    /// Redis does not suffice to forge one. Without it, entries are neither read nor filled.
    pub mac_key: SecretSource,
    /// `REDIS_CA_FILE`: a PEM file with the authorities of a `rediss://` server. Without it, the public
    /// authorities are trusted, as ElastiCache requires.
    pub ca_file: Option<String>,
    /// `REDIS_POOL_SIZE`, 1 to 10. One connection carries many requests at once, so more connections only help if
    /// replies are large.
    pub pool_size: usize,
    /// `REDIS_REPLICA_READS=true`: in a cluster, replicas answer most reads. This relieves the primary, but an
    /// instance may see a change half a second late.
    pub replica_reads: bool,
    /// `CACHE_KEY_PREFIX`, empty by default: the prefix of all keys, for installations that share a Redis. At most
    /// 64 letters, digits and `-_:.`.
    pub key_prefix: String,
    /// `REDIS_SECRET_REFRESH_SECONDS`: how often an instance reads the secrets of Redis and of the MAC key again.
    pub secret_refresh: Duration,
    /// `CACHE_TTL_SECONDS`, at most [`Self::MAX_TTL`]: the TTL of an entry. The existing service uses 300.
    pub ttl: Duration,
    /// `CACHE_CONNECT_TIMEOUT_MS`, at most 2,000: one attempt to connect.
    pub connect_timeout: Duration,
    /// `CACHE_OPERATION_TIMEOUT_MS`: one attempt of one operation that transfers no flags.
    pub operation_timeout: Duration,
    /// `CACHE_BUDGET_MS`, at most 500: the time that one request may spend on the cache, including retries. With the
    /// default, 400, a request that falls back to PostgreSQL can still be answered within half a second.
    pub request_budget: Duration,
}

impl CacheConfig {
    /// The largest `CACHE_TTL_SECONDS`.
    pub const MAX_TTL: Duration = Duration::from_secs(86_400);

    /// Whether Redis is configured.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.url != SecretSource::None
    }
}

/// The address of PostgreSQL, for secrets that do not contain it: secrets that RDS manages contain only a user name
/// and a password.
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
    /// `DATABASE_COUNT_SECRET_ARN`: the secret of the function that counts evaluations.
    pub count_secret: Option<String>,
    /// `DATABASE_ROLE_HOST`: the host to write into these secrets, such as a proxy. By default, the host that
    /// `migrate` itself uses.
    pub host: Option<String>,
    /// `DATABASE_IDLE_SESSION_SECONDS`: the server closes connections of these roles that are idle for this long.
    /// 0 disables this, for poolers, which keep idle connections.
    pub idle_session: Duration,
}

/// The connection to PostgreSQL and its time limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// `DATABASE_SECRET_ARN`, else `DATABASE_URL`.
    pub url: SecretSource,
    /// `DATABASE_FALLBACK_SECRET_ARN`: the secret to use while that of `url` has no value, or while the database
    /// rejects the login in it. An installation needs it while it moves from one login for all functions to one login
    /// per role.
    pub fallback_secret: Option<String>,
    /// The roles that `migrate` creates.
    pub roles: RolesConfig,
    /// The address, for secrets without a host.
    pub address: DatabaseAddress,
    /// `DATABASE_POOL_SIZE`, 1 to 10: the maximum number of connections. By default 1 on Lambda, where an instance
    /// usually serves one request at a time, and 4 elsewhere.
    pub pool_size: usize,
    /// Whether connections stay open between requests. Not on Lambda, where a frozen instance would occupy
    /// connections that others need.
    pub keep_connections: bool,
    /// `DATABASE_CONNECT_TIMEOUT_MS`: one attempt to connect, including TLS and authentication.
    pub connect_timeout: Duration,
    /// `DATABASE_TIMEOUT_MS`: one read; in a change, the beginning of the transaction and each statement. PostgreSQL
    /// and the client both enforce it.
    pub operation_timeout: Duration,
    /// Whether a change writes an event for the event bus: `EVENT_BUS_NAME` is set.
    pub has_event_bus: bool,
}

/// Who may call `GET /api/config/flags` and `GET /api/config/flags/{flagKey}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicConfigRoutes {
    /// Anyone, because clients of a service that Pennon replaces send no key.
    Open,
    /// Holders of an API key, which determines the environment.
    Key,
    /// Nobody: the routes do not exist.
    Off,
}

/// Authentication and authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// `ADMIN_CLAIM`: the claim of a verified token that lists its groups.
    pub admin_claim: String,
    /// `TRUST_USER_ID_PARAMETER=true`: public routes take the user from `?userId=`. Only for local use: it lets
    /// every caller act as any user.
    pub trust_user_id_parameter: bool,
    /// `PUBLIC_CONFIG_ROUTES`: `open`, `key` or `off`. Any other value counts as `off`, so that a mistyped value
    /// does not open the routes.
    pub public_config: PublicConfigRoutes,
}

/// The tokens that functions verify themselves, on routes without an authorizer in API Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// `JWT_ISSUER`: the URL of the OpenID Connect issuer, exactly as in the claim `iss`.
    pub issuer: String,
    /// `JWT_AUDIENCE`: the accepted audiences or client ids, separated by commas.
    pub audiences: Vec<String>,
    /// `JWT_CA_FILE`: a PEM file with the authorities of the issuer's server. By default, the public authorities
    /// are trusted.
    pub ca_file: Option<String>,
}

/// How people sign in to the console; only the function `console` and the local server use these settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// `CONSOLE_CLIENT_ID`: the public client of the issuer `JWT_ISSUER` with which the console signs people in.
    /// Without it the console asks for a token.
    pub client_id: Option<String>,
    /// `CONSOLE_SCOPE`, `openid` by default: the scope of a sign-in.
    pub scope: String,
    /// `CONSOLE_AUDIENCE`: the audience of a sign-in, for issuers that need the parameter `audience`.
    pub audience: Option<String>,
}

/// The settings of `pre-traffic`; no other function reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreTrafficConfig {
    /// `MIGRATE_FUNCTION_ARN`: the version of `migrate` of this release.
    pub migrate_function: Option<String>,
    /// `HEALTH_FUNCTION_ARN`: the version of `health` of this release.
    pub health_function: Option<String>,
    /// `PRE_TRAFFIC_RETRY_LIMIT_MS`: for how long `health` is retried after any failure, and `migrate` after a
    /// transient one. A newly published version may have to wait for its network interface.
    pub retry_limit: Duration,
}

/// All settings of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The Redis cache.
    pub cache: CacheConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// Authentication and authorization.
    pub auth: AuthConfig,
    /// The web origins that may read responses.
    pub cors: CorsConfig,
    /// Tokens of callers. Without it, callers of public routes are anonymous.
    pub tokens: Option<TokenConfig>,
    /// Signing in to the console.
    pub console: ConsoleConfig,
    /// The check of a release before it gets traffic.
    pub pre_traffic: PreTrafficConfig,
    /// `SNAPSHOT_MAX_AGE_MS`: how long an instance may answer from its snapshot without checking that it is
    /// current. 0, the default, checks at every request.
    pub snapshot_max_age: Duration,
    /// `INSTALLATION_ID`: distinguishes this installation from others on the same Redis. By default, the address
    /// and the name of the database do, or the path and the id of the flag file.
    pub installation: Option<String>,
    /// `CLOUDWATCH_ENDPOINT`: the endpoint that the alarms of ramps are read from, instead of that of the region;
    /// `none` if functions cannot reach CloudWatch.
    pub cloudwatch_endpoint: Option<String>,
    /// `EVENT_BUS_NAME`: the name or the ARN of the event bus that receives change events. Without it none are
    /// sent.
    pub event_bus: Option<String>,
    /// `SEND_WEBHOOKS_FUNCTION_ARN`: the alias of the function that sends requests to webhooks; `none` if functions
    /// cannot reach Lambda.
    pub send_webhooks_function: Option<String>,
    /// `STAGE`: the name of the deployment (`production`, `staging`), which `/health` shows.
    pub stage: String,
}
