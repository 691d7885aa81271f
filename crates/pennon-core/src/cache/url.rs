//! Parses Redis URLs. fred's own parser accepts any scheme, such as `http://`. From `redis://password@host` it would
//! read a user name without a password, and connect without a login.

use crate::config::Secret;

/// The address of Redis, the login, and how to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether Redis is a cluster. Its other nodes are discovered through this one.
    pub cluster: bool,
    /// Whether the connection is encrypted and the certificate verified.
    pub tls: bool,
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// A TCP port.
    pub port: u16,
    /// An ACL user; without one, the default user.
    pub username: Option<String>,
    /// A password or an authentication token.
    pub password: Option<Secret>,
    /// The database number; 0 in a cluster.
    pub database: u8,
}

/// Why a URL is invalid. Does not repeat the URL, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected redis[s]://[user][:password]@host:port/db or redis[s]-cluster://…")]
pub struct InvalidRedisUrl(&'static str);

impl RedisUrl {
    /// Parses `redis[s]://[user][:password]@host:port/db` or `redis[s]-cluster://…`.
    ///
    /// User and password may be percent-encoded. The default port is 6379, the default database 0. `is_cluster` is set
    /// for a URL that names a cluster whatever its scheme is.
    ///
    /// # Errors
    /// [`InvalidRedisUrl`], which says what is invalid.
    pub fn parse(text: &str, is_cluster: bool) -> Result<Self, InvalidRedisUrl> {
        let url = url::Url::parse(text.trim()).map_err(|_| InvalidRedisUrl("it is not a URL"))?;
        let (tls, has_cluster_scheme) = match url.scheme() {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis-cluster" => (false, true),
            "rediss-cluster" => (true, true),
            _ => return Err(InvalidRedisUrl("the scheme is unknown")),
        };
        let cluster = is_cluster || has_cluster_scheme;
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => host.trim_matches(['[', ']']).to_owned(),
            Some(_) | None => return Err(InvalidRedisUrl("the host is missing")),
        };
        let username = decode(url.username())?;
        let password = url.password().map(decode).transpose()?.flatten();
        if username.is_some() && password.is_none() {
            return Err(InvalidRedisUrl(
                "there is a user but no password (a password alone is written :password@)",
            ));
        }
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number
                .parse::<u8>()
                .map_err(|_| InvalidRedisUrl("the database is not a number from 0 to 255"))?,
        };
        if cluster && database != 0 {
            return Err(InvalidRedisUrl("a cluster has database 0 only"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidRedisUrl("parameters are not supported"));
        }
        Ok(Self {
            cluster,
            tls,
            host,
            port: url.port().unwrap_or(6379),
            username,
            password: password.map(Secret::new),
            database,
        })
    }
}

/// Percent-decodes the user or the password. An empty one counts as absent.
fn decode(part: &str) -> Result<Option<String>, InvalidRedisUrl> {
    if part.is_empty() {
        return Ok(None);
    }
    let bytes = percent_encoding::percent_decode_str(part).collect::<Vec<u8>>();
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| InvalidRedisUrl("user or password is not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: u16) -> RedisUrl {
        RedisUrl {
            cluster: false,
            tls: false,
            host: host.to_owned(),
            port,
            username: None,
            password: None,
            database: 0,
        }
    }

    #[test]
    fn valid_urls_are_parsed() {
        let secret = |text: &str| Some(Secret::new(text));
        let table = [
            ("redis://localhost:6379", url("localhost", 6379)),
            (" redis://localhost\n", url("localhost", 6379)),
            (
                "redis://cache:7000/5",
                RedisUrl {
                    database: 5,
                    ..url("cache", 7000)
                },
            ),
            (
                "redis://:pw@cache",
                RedisUrl {
                    password: secret("pw"),
                    ..url("cache", 6379)
                },
            ),
            (
                "rediss://app:p%40ss%2Fw%3Ard%25@cache:6380/",
                RedisUrl {
                    tls: true,
                    username: Some("app".to_owned()),
                    password: secret("p@ss/w:rd%"),
                    ..url("cache", 6380)
                },
            ),
            (
                "redis-cluster://node:7000",
                RedisUrl {
                    cluster: true,
                    ..url("node", 7000)
                },
            ),
            (
                "rediss-cluster://:t@x.clustercfg.use1.cache.amazonaws.com:6379",
                RedisUrl {
                    cluster: true,
                    tls: true,
                    password: secret("t"),
                    ..url("x.clustercfg.use1.cache.amazonaws.com", 6379)
                },
            ),
            ("redis://[::1]:6379", url("::1", 6379)),
        ];
        for (text, expected) in table {
            assert_eq!(RedisUrl::parse(text, false), Ok(expected), "{text}");
        }
        let cluster = RedisUrl {
            cluster: true,
            ..url("node", 7000)
        };
        assert_eq!(RedisUrl::parse("redis://node:7000", true), Ok(cluster));
    }

    #[test]
    fn invalid_urls_are_rejected_without_repeating_them() {
        let bad = [
            "",
            "localhost:6379",
            "http://:hunter2@cache",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@cache",
            "redis://:hunter2@cache:notaport",
            "redis://:hunter2@cache:99999",
            "redis://:hunter2@cache/one",
            "redis://:hunter2@cache/256",
            "redis-cluster://:hunter2@cache/1",
            "redis://:hunter2@cache?family=6",
            "redis://:hunter2%FF@cache",
            "hunter2",
        ];
        for text in bad {
            let error = RedisUrl::parse(text, false).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        RedisUrl::parse("redis://node:7000/5", true).expect_err("a cluster has no database 5");
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn the_scheme_decides_about_encryption_and_no_error_repeats_the_password() {
        let examples = [
            "redis://127.0.0.1:6379",
            "rediss://:hunter2@cache.example:6380/3",
            "redis-cluster://user:hunter2@[::1]:7000",
            "rediss-cluster://us%40er:hunter2@cache.example",
        ];
        let words = &[
            "redis", "rediss", "-cluster", "://", ":", "@", "/", "[", "]", "%", "%00", "%FF", "?",
            "#", "\\", "\t", "ä", "hunter2", "65536",
        ];
        for_all(&text(examples, words), |text| {
            match RedisUrl::parse(&text, false) {
                Ok(url) => {
                    // A URL parser removes tabs and line ends, and control characters at both ends.
                    let text = text.replace(['\t', '\n', '\r'], "");
                    let scheme = text
                        .trim()
                        .trim_start_matches(|first| first <= ' ')
                        .split(':')
                        .next()
                        .unwrap_or_default()
                        .to_ascii_lowercase();
                    assert_eq!(url.tls, scheme.starts_with("rediss"), "{scheme}");
                    assert_eq!(url.cluster, scheme.ends_with("-cluster"), "{scheme}");
                    assert!(!url.host.is_empty());
                    assert!(url.username.is_none() || url.password.is_some());
                    assert!(!url.cluster || url.database == 0);
                    let shown = format!("{:?}", url.password);
                    assert!(!shown.contains("hunter2"), "{shown}");
                }
                Err(error) => assert!(!error.to_string().contains("hunter2"), "{error}"),
            }
        });
    }
}
