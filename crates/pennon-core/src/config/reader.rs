//! Reads the settings from variables.

use std::num::IntErrorKind;
use std::time::Duration;

use super::address::parse_issuer;
use super::origins::{CorsConfig, Origins, parse_admin_origin, parse_origin};
use super::process::process_environment;
use super::secret::Secret;
use super::settings::{
    AuthConfig, CacheConfig, Config, ConsoleConfig, DatabaseAddress, DatabaseConfig,
    PreTrafficConfig, PublicConfigRoutes, RolesConfig, SecretSource, TokenConfig,
};

/// An invalid setting, and the value used instead. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning(pub String);

impl Config {
    /// Reads the settings from the environment of this process.
    #[must_use]
    pub fn from_process() -> (Self, Vec<ConfigWarning>) {
        Self::from_lookup(process_environment)
    }

    /// Reads the settings from a lookup function.
    #[must_use]
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> (Self, Vec<ConfigWarning>) {
        let mut from = Reader {
            lookup,
            warnings: Vec::new(),
        };
        let (cache_url, cluster) = from.cache_url();
        let on_lambda = from.text("AWS_LAMBDA_RUNTIME_API").is_some();
        let config = Self {
            cache: CacheConfig {
                url: cache_url,
                cluster,
                mac_key: from.secret("CACHE_MAC_SECRET_ARN", "CACHE_MAC_KEY"),
                ca_file: from.text("REDIS_CA_FILE"),
                pool_size: from.size("REDIS_POOL_SIZE", 1, 10),
                replica_reads: from.boolean("REDIS_REPLICA_READS"),
                key_prefix: from.key_prefix("CACHE_KEY_PREFIX"),
                secret_refresh: Duration::from_secs(from.number(
                    "REDIS_SECRET_REFRESH_SECONDS",
                    300,
                    1..=86_400,
                )),
                ttl: Duration::from_secs(from.number(
                    "CACHE_TTL_SECONDS",
                    300,
                    1..=CacheConfig::MAX_TTL.as_secs(),
                )),
                connect_timeout: from.millis("CACHE_CONNECT_TIMEOUT_MS", 200, 1..=2_000),
                operation_timeout: from.millis("CACHE_OPERATION_TIMEOUT_MS", 100, 1..=500),
                request_budget: from.millis("CACHE_BUDGET_MS", 400, 1..=500),
            },
            database: DatabaseConfig {
                url: from.secret("DATABASE_SECRET_ARN", "DATABASE_URL"),
                fallback_secret: from.text("DATABASE_FALLBACK_SECRET_ARN"),
                roles: RolesConfig {
                    read_secret: from.text("DATABASE_READ_SECRET_ARN"),
                    write_secret: from.text("DATABASE_WRITE_SECRET_ARN"),
                    count_secret: from.text("DATABASE_COUNT_SECRET_ARN"),
                    host: from.text("DATABASE_ROLE_HOST"),
                    idle_session: Duration::from_secs(from.number(
                        "DATABASE_IDLE_SESSION_SECONDS",
                        60,
                        0..=86_400,
                    )),
                },
                address: DatabaseAddress {
                    host: from.text("DATABASE_HOST"),
                    port: from.port("DATABASE_PORT"),
                    name: from.text("DATABASE_NAME"),
                },
                pool_size: from.size("DATABASE_POOL_SIZE", if on_lambda { 1 } else { 4 }, 10),
                keep_connections: !on_lambda,
                connect_timeout: from.millis("DATABASE_CONNECT_TIMEOUT_MS", 1_000, 1..=10_000),
                operation_timeout: from.millis("DATABASE_TIMEOUT_MS", 2_000, 1..=20_000),
                has_event_bus: from.text("EVENT_BUS_NAME").is_some(),
            },
            auth: AuthConfig {
                admin_claim: from
                    .text("ADMIN_CLAIM")
                    .unwrap_or_else(|| "cognito:groups".to_owned()),
                trust_user_id_parameter: from.boolean("TRUST_USER_ID_PARAMETER"),
                public_config: from.public_config(),
            },
            cors: from.cors(),
            tokens: from.tokens(),
            console: ConsoleConfig {
                client_id: from.text("CONSOLE_CLIENT_ID"),
                scope: from
                    .text("CONSOLE_SCOPE")
                    .unwrap_or_else(|| "openid".to_owned()),
                audience: from.text("CONSOLE_AUDIENCE"),
            },
            pre_traffic: PreTrafficConfig {
                migrate_function: from.text("MIGRATE_FUNCTION_ARN"),
                health_function: from.text("HEALTH_FUNCTION_ARN"),
                retry_limit: from.millis("PRE_TRAFFIC_RETRY_LIMIT_MS", 35_000, 0..=35_000),
            },
            snapshot_max_age: from.millis("SNAPSHOT_MAX_AGE_MS", 0, 0..=3_600_000),
            installation: from.text("INSTALLATION_ID"),
            cloudwatch_endpoint: from.text("CLOUDWATCH_ENDPOINT"),
            event_bus: from.text("EVENT_BUS_NAME"),
            send_webhooks_function: from.text("SEND_WEBHOOKS_FUNCTION_ARN"),
            stage: from
                .text("STAGE")
                .unwrap_or_else(|| "production".to_owned()),
        };
        (config, from.warnings)
    }
}

/// Reads settings and collects warnings.
struct Reader<L> {
    lookup: L,
    warnings: Vec<ConfigWarning>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    /// A variable that is set and not empty. The template sets unused variables to an empty text.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    fn secret(&self, arn_name: &str, plain_name: &str) -> SecretSource {
        if let Some(arn) = self.text(arn_name) {
            SecretSource::SecretArn(arn)
        } else if let Some(value) = self.text(plain_name) {
            SecretSource::Plain(Secret::new(value))
        } else {
            SecretSource::None
        }
    }

    fn cache_url(&self) -> (SecretSource, bool) {
        for name in ["REDIS_CLUSTER_URL", "REDIS_URL_CLUSTER"] {
            match self.secret("REDIS_SECRET_ARN", name) {
                found @ SecretSource::Plain(_) => return (found, true),
                SecretSource::SecretArn(_) | SecretSource::None => {}
            }
        }
        (self.secret("REDIS_SECRET_ARN", "REDIS_URL"), false)
    }

    fn tokens(&mut self) -> Option<TokenConfig> {
        let issuer = self.text("JWT_ISSUER")?;
        let audiences = self.text("JWT_AUDIENCE").unwrap_or_default();
        let audiences: Vec<String> = audiences
            .split(',')
            .map(str::trim)
            .filter(|audience| !audience.is_empty())
            .map(str::to_owned)
            .collect();
        let mistake = if let Err(why) = parse_issuer(&issuer) {
            format!("JWT_ISSUER is not a valid issuer URL: {why}")
        } else if audiences.is_empty() {
            "JWT_ISSUER is set, but JWT_AUDIENCE is not".to_owned()
        } else {
            let ca_file = self.text("JWT_CA_FILE");
            return Some(TokenConfig {
                issuer,
                audiences,
                ca_file,
            });
        };
        self.warnings.push(ConfigWarning(format!(
            "{mistake}; callers of public routes are anonymous"
        )));
        None
    }

    fn cors(&mut self) -> CorsConfig {
        let public = match self.text("CORS_ORIGINS").as_deref().map(str::trim) {
            None | Some("*") => Origins::Any,
            Some(_) => Origins::Named(self.origins("CORS_ORIGINS", parse_origin)),
        };
        let admin = self.origins("ADMIN_CORS_ORIGINS", parse_admin_origin);
        CorsConfig { public, admin }
    }

    /// The valid origins of a list. Invalid ones are skipped, so that a mistyped origin allows no page.
    fn origins(&mut self, name: &str, parse: fn(&str) -> Result<String, String>) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let mut origins = Vec::new();
        let items = text.split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            let parsed = match (item, name) {
                ("*", "CORS_ORIGINS") => Err("* cannot be combined with others".to_owned()),
                ("*", _) => Err("admin routes are never open to all origins".to_owned()),
                (item, _) => parse(item),
            };
            match parsed {
                Ok(origin) => origins.push(origin),
                Err(why) => self.warnings.push(ConfigWarning(format!(
                    "{name}: {item:?} is not a valid origin: {why}; its pages cannot read responses"
                ))),
            }
        }
        origins
    }

    fn number(&mut self, name: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(text) = self.text(name) else {
            return default;
        };
        let parsed = match text.trim().parse::<u64>() {
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(u64::MAX),
            parsed => parsed,
        };
        match parsed {
            Ok(value) if range.contains(&value) => value,
            Ok(value) => {
                let nearest = value.clamp(*range.start(), *range.end());
                self.warnings.push(ConfigWarning(format!(
                    "{name}={} is outside {} to {}; using {nearest}",
                    text.trim(),
                    range.start(),
                    range.end()
                )));
                nearest
            }
            Err(_) => {
                self.warnings.push(ConfigWarning(format!(
                    "{name} must be an integer from {} to {} (got '{text}'); using {default}",
                    range.start(),
                    range.end()
                )));
                default
            }
        }
    }

    fn millis(
        &mut self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_millis(self.number(name, default, range))
    }

    fn size(&mut self, name: &str, default: u64, limit: u64) -> usize {
        usize::try_from(self.number(name, default, 1..=limit)).unwrap_or(1)
    }

    fn public_config(&mut self) -> PublicConfigRoutes {
        let text = self.text("PUBLIC_CONFIG_ROUTES");
        match text.as_deref().map(str::trim) {
            None | Some("open") => PublicConfigRoutes::Open,
            Some("key") => PublicConfigRoutes::Key,
            Some("off") => PublicConfigRoutes::Off,
            Some(other) => {
                self.warnings.push(ConfigWarning(format!(
                    "PUBLIC_CONFIG_ROUTES must be open, key or off (got '{other}'); using off"
                )));
                PublicConfigRoutes::Off
            }
        }
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        let text = self.text(name)?;
        let port = text.trim().parse().ok().filter(|port| *port != 0);
        if port.is_none() {
            self.warnings.push(ConfigWarning(format!(
                "{name} must be a port from 1 to 65535 (got '{text}'); ignoring it"
            )));
        }
        port
    }

    /// The prefix of all keys. A brace would move the key to another slot of a cluster; other characters are rejected
    /// to keep keys readable.
    fn key_prefix(&mut self, name: &str) -> String {
        let text = self.text(name).unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
        if text.len() <= 64 && text.bytes().all(allowed) {
            return text;
        }
        self.warnings.push(ConfigWarning(format!(
            "{name} must be at most 64 letters, digits, '-', '_', ':' or '.'; using no prefix"
        )));
        String::new()
    }

    fn boolean(&mut self, name: &str) -> bool {
        match self.text(name).as_deref().map(str::trim) {
            Some("true" | "1") => true,
            None | Some("false" | "0") => false,
            Some(other) => {
                self.warnings.push(ConfigWarning(format!(
                    "{name} must be true or false (got '{other}'); using false"
                )));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Config, Vec<ConfigWarning>) {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::from_lookup(move |wanted| {
            pairs
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn an_empty_environment_has_defaults_and_no_warnings() {
        let (config, warnings) = read(&[]);
        assert_eq!(warnings, []);
        assert_eq!(config.cache.url, SecretSource::None);
        assert_eq!(config.cache.pool_size, 1);
        assert_eq!(config.cache.ttl, Duration::from_secs(300));
        assert!(!config.auth.trust_user_id_parameter);
    }

    #[test]
    fn an_invalid_value_does_not_open_the_public_config_routes() {
        for (text, routes, warnings) in [
            ("", PublicConfigRoutes::Open, 0),
            ("open", PublicConfigRoutes::Open, 0),
            (" key ", PublicConfigRoutes::Key, 0),
            ("off", PublicConfigRoutes::Off, 0),
            ("Open", PublicConfigRoutes::Off, 1),
            ("opne", PublicConfigRoutes::Off, 1),
            ("true", PublicConfigRoutes::Off, 1),
        ] {
            let (config, found) = read(&[("PUBLIC_CONFIG_ROUTES", text)]);
            assert_eq!(config.auth.public_config, routes, "{text}");
            assert_eq!(found.len(), warnings, "{text}");
        }
    }

    #[test]
    fn the_pool_has_at_least_one_and_at_most_ten_connections() {
        for (value, size) in [("0", 1), ("1", 1), ("10", 10), ("50", 10)] {
            let (config, warnings) = read(&[("REDIS_POOL_SIZE", value)]);
            assert_eq!(config.cache.pool_size, size);
            assert_eq!(warnings.is_empty(), value == size.to_string());
        }
    }

    #[test]
    fn the_time_for_the_cache_is_bounded_whatever_the_settings() {
        let (config, warnings) = read(&[
            ("CACHE_CONNECT_TIMEOUT_MS", "99999999999999999999"),
            ("CACHE_OPERATION_TIMEOUT_MS", "501"),
            ("CACHE_BUDGET_MS", "5000"),
        ]);
        assert_eq!(config.cache.connect_timeout, Duration::from_secs(2));
        assert_eq!(config.cache.operation_timeout, Duration::from_millis(500));
        assert_eq!(config.cache.request_budget, Duration::from_millis(500));
        assert_eq!(warnings.len(), 3);
    }

    #[test]
    fn a_secret_arn_takes_precedence_over_urls_and_a_cluster_url_over_a_plain_one() {
        let (config, _) = read(&[
            ("REDIS_SECRET_ARN", "arn:x"),
            ("REDIS_URL", "redis://a"),
            ("REDIS_CLUSTER_URL", "redis://b"),
        ]);
        assert_eq!(
            config.cache.url,
            SecretSource::SecretArn("arn:x".to_owned())
        );
        assert!(!config.cache.cluster);
        for name in ["REDIS_CLUSTER_URL", "REDIS_URL_CLUSTER"] {
            let (config, _) = read(&[("REDIS_URL", "redis://a"), (name, "redis://b")]);
            assert_eq!(
                config.cache.url,
                SecretSource::Plain(Secret::new("redis://b")),
                "{name}"
            );
            assert!(config.cache.cluster);
        }
        let (config, _) = read(&[("REDIS_SECRET_ARN", " "), ("REDIS_URL", "redis://a")]);
        assert_eq!(
            config.cache.url,
            SecretSource::Plain(Secret::new("redis://a"))
        );
    }

    #[test]
    fn an_invalid_value_is_reported_and_the_default_stays() {
        let (config, warnings) = read(&[
            ("CACHE_TTL_SECONDS", "five"),
            ("TRUST_USER_ID_PARAMETER", "maybe"),
        ]);
        assert_eq!(config.cache.ttl, Duration::from_secs(300));
        assert!(!config.auth.trust_user_id_parameter);
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn tokens_are_checked_only_with_a_safe_issuer_and_an_audience() {
        let issuer = ("JWT_ISSUER", "https://issuer.example/");
        let (config, warnings) = read(&[issuer, ("JWT_AUDIENCE", "a, b,")]);
        let tokens = config.tokens.expect("tokens");
        assert_eq!(tokens.issuer, "https://issuer.example/");
        assert_eq!(tokens.audiences, ["a", "b"]);
        assert_eq!(warnings, []);
        for wrong in [
            vec![issuer],
            vec![issuer, ("JWT_AUDIENCE", " , ")],
            vec![
                ("JWT_ISSUER", "http://issuer.example/"),
                ("JWT_AUDIENCE", "a"),
            ],
            vec![
                ("JWT_ISSUER", "http://localhost.example/"),
                ("JWT_AUDIENCE", "a"),
            ],
        ] {
            let (config, warnings) = read(&wrong);
            assert_eq!(config.tokens, None, "{wrong:?}");
            assert_eq!(warnings.len(), 1, "{wrong:?}");
        }
        assert_eq!(read(&[("JWT_AUDIENCE", "a")]).0.tokens, None);
    }

    #[test]
    fn an_invalid_key_prefix_is_not_used() {
        for good in ["", "staging:", "a-b_c.d:", &"x".repeat(64)] {
            let (config, warnings) = read(&[("CACHE_KEY_PREFIX", good)]);
            assert_eq!(config.cache.key_prefix, good);
            assert_eq!(warnings, []);
        }
        for bad in ["{tag}", "a b", "ä", "a\n", &"x".repeat(65)] {
            let (config, warnings) = read(&[("CACHE_KEY_PREFIX", bad)]);
            assert_eq!(config.cache.key_prefix, "", "{bad}");
            assert_eq!(warnings.len(), 1, "{bad}");
        }
    }

    #[test]
    fn an_invalid_port_is_ignored() {
        for (text, port) in [
            ("5433", Some(5433)),
            ("0", None),
            ("65536", None),
            ("x", None),
        ] {
            let (config, warnings) = read(&[("DATABASE_PORT", text)]);
            assert_eq!(config.database.address.port, port, "{text}");
            assert_eq!(warnings.is_empty(), port.is_some(), "{text}");
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        let (config, _) = read(&[
            ("REDIS_URL", "redis://:hunter2@cache"),
            ("CACHE_MAC_KEY", "hunter2"),
            ("DATABASE_URL", "postgres://u:hunter2@db/x"),
        ]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
