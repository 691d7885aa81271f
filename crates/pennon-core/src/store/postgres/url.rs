//! Parses PostgreSQL URLs, and the JSON documents that RDS writes to Secrets Manager.

use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::config::DatabaseAddress;

/// The address of PostgreSQL, the login, and the protection of the connection.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    /// Host, port, user, password, database. Its `Debug` hides the password.
    pub config: Config,
    /// How the connection is protected.
    pub tls: TlsMode,
}

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypted; certificate and host name are verified, with the authorities in this PEM file or, without one, with
    /// those of Amazon RDS.
    VerifyFull(Option<String>),
    /// Unencrypted, because the URL contains `sslmode=disable`.
    Disable,
}

/// Why a URL is invalid. Does not repeat the URL, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected postgres://user:password@host:port/database?sslmode=verify-full")]
pub struct InvalidDatabaseUrl(&'static str);

/// The document in a secret that RDS manages or rotates.
#[derive(Deserialize)]
struct RdsSecret {
    username: String,
    password: String,
    host: Option<String>,
    port: Option<Port>,
    dbname: Option<String>,
}

/// A port, as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

const DEFAULT_PORT: u16 = 5432;
/// The database that every PostgreSQL server has.
const DEFAULT_DATABASE: &str = "postgres";

impl DatabaseUrl {
    /// Parses `postgres://…`, or the JSON document of an RDS secret. `settings` supplies parts that the document omits.
    ///
    /// Every part of the URL may be percent-encoded. A `+` is a plus, not a space.
    ///
    /// Only `sslmode=disable` gives an unencrypted connection. `prefer`, `require` and `verify-ca` mean `verify-full`,
    /// as does no mode; other modes are rejected. `sslrootcert` names a PEM file with the authorities.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`] with the invalid part.
    pub fn parse(text: &str, settings: &DatabaseAddress) -> Result<Self, InvalidDatabaseUrl> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::from_rds_secret(text, settings);
        }
        let mut url = url::Url::parse(text).map_err(|_| InvalidDatabaseUrl("it is not a URL"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(InvalidDatabaseUrl("the scheme is not postgres"));
        }
        let mut ca_file = None;
        let mut mode = None;
        // Not parsed as a web form, where a `+` is a space. Other parameters stay as they are.
        let mut others = Vec::new();
        let query = url.query().unwrap_or_default().to_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let known = match name.as_str() {
                "sslmode" => &mut mode,
                "sslrootcert" => &mut ca_file,
                _ => {
                    others.push(pair);
                    continue;
                }
            };
            if known
                .replace(value.clone())
                .is_some_and(|other| other != value)
            {
                return Err(InvalidDatabaseUrl(
                    "sslmode or sslrootcert occurs twice, with different values",
                ));
            }
        }
        let disabled = match mode.as_deref() {
            Some("disable") => true,
            None | Some("prefer" | "require" | "verify-ca" | "verify-full") => false,
            Some(_) => return Err(InvalidDatabaseUrl("sslmode is unknown")),
        };
        let others = others.join("&");
        url.set_query((!others.is_empty()).then_some(others.as_str()));
        let config: Config = url
            .as_str()
            .parse()
            .map_err(|_| InvalidDatabaseUrl("a part of it cannot be parsed"))?;
        if config.get_hosts().is_empty() {
            return Err(InvalidDatabaseUrl("the host is missing"));
        }
        if config.get_user().is_none() {
            return Err(InvalidDatabaseUrl("the user is missing"));
        }
        let tls = if disabled {
            TlsMode::Disable
        } else {
            TlsMode::VerifyFull(ca_file)
        };
        Ok(Self { config, tls })
    }

    fn from_rds_secret(text: &str, settings: &DatabaseAddress) -> Result<Self, InvalidDatabaseUrl> {
        let secret: RdsSecret = serde_json::from_str(text).map_err(|_| {
            InvalidDatabaseUrl(
                "the JSON document has no username or password, or its port is invalid",
            )
        })?;
        let host = secret.host.as_ref().filter(|host| !host.trim().is_empty());
        let host = host.or(settings.host.as_ref()).ok_or(InvalidDatabaseUrl(
            "the JSON document has no host; set DATABASE_HOST to the address of the database",
        ))?;
        let port = match secret.port {
            Some(Port::Number(port)) => Some(port),
            Some(Port::Text(text)) => {
                let port = text.trim().parse();
                Some(port.map_err(|_| {
                    InvalidDatabaseUrl("the port of the JSON document is not a number up to 65535")
                })?)
            }
            None => settings.port,
        };
        let name = secret.dbname.filter(|name| !name.is_empty());
        let name = name.as_ref().or(settings.name.as_ref());
        let mut config = Config::new();
        config
            .host(host.trim())
            .port(port.unwrap_or(DEFAULT_PORT))
            .user(&secret.username)
            .password(&secret.password)
            .dbname(name.map_or(DEFAULT_DATABASE, String::as_str));
        Ok(Self {
            config,
            tls: TlsMode::VerifyFull(None),
        })
    }

    /// The document or URL with another login, for the same database. The result contains the address and the name of
    /// the database explicitly, even if the original takes them from settings or from the user name. `host` replaces
    /// the host, for a proxy in front of the database.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`] with the invalid part.
    pub fn with_login(
        text: &str,
        settings: &DatabaseAddress,
        host: Option<&str>,
        (user, password): (&str, &str),
    ) -> Result<String, InvalidDatabaseUrl> {
        let parsed = Self::parse(text, settings)?.config;
        let name = parsed.get_dbname().or(parsed.get_user());
        let name = name.unwrap_or(DEFAULT_DATABASE);
        let text = text.trim();
        if text.starts_with('{') {
            let own = parsed.get_hosts().iter().find_map(|host| match host {
                Host::Tcp(name) => Some(name.as_str()),
                Host::Unix(_) => None,
            });
            let port = parsed.get_ports().first();
            let document = serde_json::json!({
                "engine": "postgres",
                "username": user,
                "password": password,
                "host": host.or(own),
                "port": port.copied().unwrap_or(DEFAULT_PORT),
                "dbname": name,
            });
            return Ok(document.to_string());
        }
        let invalid = InvalidDatabaseUrl("a part of it cannot be parsed");
        let mut url = url::Url::parse(text).map_err(|_| invalid.clone())?;
        // The setters encode all other characters, but take a `%` for an encoded one.
        let encoded = |text: &str| text.replace('%', "%25");
        let changed = url
            .set_username(&encoded(user))
            .and_then(|()| url.set_password(Some(&encoded(password))))
            .and_then(|()| host.map_or(Ok(()), |host| url.set_host(Some(host)).map_err(|_| ())));
        changed.map_err(|()| invalid)?;
        url.set_path(&encoded(name));
        // Parameters override the parts before the path, or add hosts to them.
        let replaced: &[&str] = match host {
            Some(_) => &["user", "password", "host", "hostaddr", "port"],
            None => &["user", "password"],
        };
        let query = url.query().unwrap_or_default().to_owned();
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let name = decode(pair.split('=').next().unwrap_or_default())?;
            if !replaced.contains(&name.as_str()) {
                kept.push(pair);
            }
        }
        let kept = kept.join("&");
        url.set_query((!kept.is_empty()).then_some(kept.as_str()));
        Ok(url.into())
    }

    /// Hosts, ports and the name of the database. Normalised: URLs that differ only in spelling, password or `sslmode`
    /// have the same address.
    #[must_use]
    pub fn address(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        let hosts: Vec<String> = hosts
            .map(|(at, host)| {
                let port = ports.get(at).or(ports.first()).copied();
                let host = match host {
                    Host::Tcp(name) => name.trim_end_matches('.').to_ascii_lowercase(),
                    Host::Unix(path) => path.display().to_string(),
                };
                format!("{host}:{}", port.unwrap_or(DEFAULT_PORT))
            })
            .collect();
        // PostgreSQL's default for the name of the database is the name of the user.
        let name = self.config.get_dbname().or(self.config.get_user());
        format!("{}/{}", hosts.join(","), name.unwrap_or(DEFAULT_DATABASE))
    }
}

/// Percent-decodes a name or a value of the query.
fn decode(text: &str) -> Result<String, InvalidDatabaseUrl> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| InvalidDatabaseUrl("a parameter is not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
        DatabaseUrl::parse(text, &DatabaseAddress::default())
    }

    #[test]
    fn certificates_are_verified_unless_sslmode_is_disable() {
        let checked = TlsMode::VerifyFull(None);
        let table = [
            ("", checked.clone()),
            ("?sslmode=require", checked.clone()),
            ("?sslmode=verify-full", checked.clone()),
            ("?sslmode=prefer", checked),
            ("?sslmode=disable", TlsMode::Disable),
            (
                "?sslmode=verify-full&sslrootcert=/ca.pem",
                TlsMode::VerifyFull(Some("/ca.pem".to_owned())),
            ),
        ];
        for (parameters, expected) in table {
            let url = parse(&format!("postgres://u:p@db/x{parameters}")).expect("a good URL");
            assert_eq!(url.tls, expected, "{parameters}");
        }
    }

    #[test]
    fn parts_are_decoded_and_other_parameters_are_kept() {
        let url = parse(
            "postgresql://us%40er:p%2Fw%3A@db.example:5433/flags?sslmode=disable&application_name=x",
        )
        .expect("a good URL");
        assert_eq!(url.config.get_user(), Some("us@er"));
        assert_eq!(url.config.get_password(), Some(&b"p/w:"[..]));
        assert_eq!(url.config.get_ports(), [5433]);
        assert_eq!(url.config.get_dbname(), Some("flags"));
        assert_eq!(url.config.get_application_name(), Some("x"));
    }

    #[test]
    fn the_document_of_an_rds_secret_is_parsed() {
        let url = parse(
            r#"{"engine":"postgres","username":"u","password":"p@/:","host":"db.example","port":5432,"dbname":"flags"}"#,
        )
        .expect("a good document");
        assert_eq!(url.config.get_hosts(), [Host::Tcp("db.example".to_owned())]);
        assert_eq!(url.config.get_password(), Some(&b"p@/:"[..]));
        assert_eq!(url.tls, TlsMode::VerifyFull(None));
    }

    #[test]
    fn a_port_may_be_text_and_missing_parts_come_from_settings() {
        let settings = DatabaseAddress {
            host: Some("setting.example".to_owned()),
            port: Some(6000),
            name: Some("setting".to_owned()),
        };
        for (document, address) in [
            (
                r#"{"username":"u","password":"p","host":"db.example","port":"5433","dbname":"flags"}"#,
                "db.example:5433/flags",
            ),
            (
                r#"{"username":"u","password":"p","host":"","dbname":""}"#,
                "setting.example:6000/setting",
            ),
            (
                r#"{"username":"u","password":"p"}"#,
                "setting.example:6000/setting",
            ),
            (
                r#"{"username":"u","password":"p","host":"DB","port":5432}"#,
                "db:5432/setting",
            ),
        ] {
            let url = DatabaseUrl::parse(document, &settings).expect(document);
            assert_eq!(url.address(), address);
        }
        let error = parse(r#"{"username":"u","password":"p"}"#).expect_err("no host");
        assert!(error.to_string().contains("DATABASE_HOST"), "{error}");
        for port in ["\"x\"", "\"65536\"", "65536", "-1", "true"] {
            let document = format!(r#"{{"username":"u","password":"p","host":"h","port":{port}}}"#);
            let error = parse(&document).expect_err(port);
            assert!(error.to_string().contains("port"), "{error}");
        }
    }

    #[test]
    fn a_plus_stays_a_plus_and_an_encoded_space_becomes_a_space() {
        let url = parse(
            "postgres://a+b%20c:p+w%20d@db/my+flags%20x?application_name=My%20App+1\
             &options=-c%20search_path%3Dpublic",
        )
        .expect("a good URL");
        let config = &url.config;
        assert_eq!(config.get_user(), Some("a+b c"));
        assert_eq!(config.get_password(), Some(&b"p+w d"[..]));
        assert_eq!(config.get_dbname(), Some("my+flags x"));
        assert_eq!(config.get_application_name(), Some("My App+1"));
        assert_eq!(config.get_options(), Some("-c search_path=public"));
        let url = parse("postgres://u:p@db/x?sslrootcert=/a+b%20c.pem").expect("a good URL");
        assert_eq!(url.tls, TlsMode::VerifyFull(Some("/a+b c.pem".to_owned())));
    }

    #[test]
    fn contradictory_tls_settings_are_rejected() {
        for query in [
            "sslmode=disable&sslmode=verify-full",
            "sslmode=require&sslmode=disable",
            "ssl%6dode=require&sslmode=disable",
            "sslmode=require&sslmode=verify-full",
            "sslrootcert=/a&sslrootcert=/b",
            "sslmode=",
        ] {
            assert!(
                parse(&format!("postgres://u:p@db/x?{query}")).is_err(),
                "{query}"
            );
        }
        let twice = parse("postgres://u:p@db/x?sslmode=disable&sslmode=disable");
        assert_eq!(twice.expect("no contradiction").tls, TlsMode::Disable);
    }

    #[test]
    fn the_same_database_has_the_same_address() {
        for text in [
            "postgres://u:p@DB.example/flags",
            "postgresql://other:secret@db.example.:5432/flags?sslmode=disable",
            "postgres://u:p@db.example:5432/fl%61gs?application_name=x",
            r#"{"username":"u","password":"p","host":"Db.Example","dbname":"flags"}"#,
        ] {
            let url = parse(text).expect(text);
            assert_eq!(url.address(), "db.example:5432/flags", "{text}");
        }
        for text in [
            "postgres://u:p@db.example:5433/flags",
            "postgres://u:p@db.example/other",
        ] {
            assert_ne!(parse(text).expect(text).address(), "db.example:5432/flags");
        }
    }

    #[test]
    fn invalid_urls_are_rejected_without_repeating_them() {
        for text in [
            "",
            "hunter2",
            "mysql://u:hunter2@db/x",
            "postgres://u:hunter2@/x",
            "postgres://db/hunter2",
            "postgres://u:hunter2@db/x?sslmode=maybe",
            "postgres://u:hunter2@db/x?nonsense=1",
            r#"{"password":"hunter2"}"#,
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let url = parse("postgres://u:hunter2@db/x").expect("a good URL");
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn a_url_with_another_login_has_the_same_address() {
        let settings = DatabaseAddress {
            host: Some("db.example".to_owned()),
            port: Some(5433),
            name: Some("flags".to_owned()),
        };
        for text in [
            "postgres://u%40:p%2Fw@db.example:5433/fl%20ags?sslmode=disable&options=-c%20x%3Dy",
            "postgres://u:p@db.example:5433",
            "postgres://u:p@db.example:5433/a%2541",
            "postgres://db.example/flags?user=u&sslmode=disable&%70assword=p",
            "postgres://u:p@db.example/flags?host=other.example&port=5433&hostaddr=10.0.0.1,10.0.0.2",
            r#"{"username":"u","password":"p"}"#,
            r#"{"username":"u","password":"p","host":"h","port":"7","dbname":"d"}"#,
        ] {
            let login = ("r%41_a", "secret%41");
            let other = DatabaseUrl::with_login(text, &settings, None, login).expect("a document");
            let before = DatabaseUrl::parse(text, &settings).expect("good");
            let after = DatabaseUrl::parse(&other, &DatabaseAddress::default()).expect("good");
            assert_eq!(after.address(), before.address(), "{text}");
            assert_eq!(after.tls, before.tls);
            assert_eq!(after.config.get_options(), before.config.get_options());
            assert_eq!(after.config.get_user(), Some(login.0));
            assert_eq!(after.config.get_password(), Some(login.1.as_bytes()));
            let proxied = DatabaseUrl::with_login(text, &settings, Some("proxy"), login);
            let proxied = DatabaseUrl::parse(&proxied.expect("good"), &settings).expect("good");
            assert_eq!(proxied.config.get_hosts(), [Host::Tcp("proxy".to_owned())]);
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn certificates_are_verified_unless_disabled_and_no_error_repeats_a_password() {
        let examples = [
            "postgres://u:hunter2@db.example:5432/flags?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgresql://us%40er:hunter2@db/x?sslmode=disable&application_name=a%20b",
            "postgres://u:hunter2@db/x?sslmode=",
            "postgres://u:hunter2@[::1]/x?options=-c%20search_path%3Da&connect_timeout=5",
            r#"{"username":"u","password":"hunter2","host":"db.example","port":"5432","dbname":"x"}"#,
        ];
        let words = &[
            "sslmode=",
            "disable",
            "require",
            "verify-full",
            "&",
            "?",
            "=",
            "%",
            "%64",
            "%00",
            "%FF",
            ":",
            "@",
            "/",
            ",",
            "host=",
            "{",
            "}",
            "\"",
            "\"port\":",
            "null",
            "-1",
            "hunter2",
            "hostaddr=",
            "\\",
        ];
        for_all(&text(examples, words), |text| {
            match DatabaseUrl::parse(&text, &DatabaseAddress::default()) {
                Ok(url) => {
                    let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
                    let disabled = decoded.contains("sslmode=disable");
                    assert!(disabled || url.tls != TlsMode::Disable, "{:?}", url.tls);
                    assert!(!url.config.get_hosts().is_empty());
                    assert!(url.config.get_user().is_some());
                    assert!(!url.address().is_empty());
                    // A mutation may have moved the word to another part.
                    let is_password = text.matches("hunter2").count() == 1
                        && url.config.get_password() == Some(b"hunter2");
                    let shown = format!("{url:?}");
                    assert!(!is_password || !shown.contains("hunter2"), "{shown}");
                }
                Err(error) => assert!(!error.to_string().contains("hunter2"), "{error}"),
            }
        });
    }
}
