//! A PostgreSQL URL, or the document that RDS keeps in Secrets Manager.

use serde::Deserialize;
use tokio_postgres::Config;

/// Where PostgreSQL is, and how its certificate is checked.
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
    /// Encrypted, certificate and host name checked, against the authorities in this PEM file, or
    /// against Amazon's own when absent.
    VerifyFull(Option<String>),
    /// In the clear, because the URL says `sslmode=disable`.
    Disable,
}

/// Why a text is no database URL. Says what is wrong without repeating the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected postgres://user:password@host:port/database?sslmode=verify-full")]
pub struct InvalidDatabaseUrl(&'static str);

/// What RDS writes into a secret that it manages or rotates.
#[derive(Deserialize)]
struct RdsSecret {
    username: String,
    password: String,
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    #[serde(default = "default_database")]
    dbname: String,
}

fn default_port() -> u16 {
    5432
}

fn default_database() -> String {
    "postgres".to_owned()
}

impl DatabaseUrl {
    /// Parses `postgres://…`, or the JSON document of an RDS secret.
    ///
    /// `sslmode=disable` is the only way to an unprotected connection; every other mode, and none,
    /// means `verify-full`. `sslrootcert` names a PEM file with the authorities.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`] with the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::from_rds_secret(text);
        }
        let mut url =
            url::Url::parse(text).map_err(|_| InvalidDatabaseUrl("it is not a URL at all"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(InvalidDatabaseUrl("the scheme is not postgres"));
        }
        let mut ca_file = None;
        let mut disabled = false;
        let mut others = Vec::new();
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("sslmode", "disable") => disabled = true,
                ("sslmode", "prefer" | "require" | "verify-ca" | "verify-full") => {}
                ("sslmode", _) => return Err(InvalidDatabaseUrl("sslmode is unknown")),
                ("sslrootcert", path) => ca_file = Some(path.to_owned()),
                (name, value) => others.push((name.to_owned(), value.to_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let config: Config = url
            .as_str()
            .parse()
            .map_err(|_| InvalidDatabaseUrl("a part of it is not understood"))?;
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

    fn from_rds_secret(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let secret: RdsSecret = serde_json::from_str(text).map_err(|_| {
            InvalidDatabaseUrl("the JSON document has no username, password and host")
        })?;
        let mut config = Config::new();
        config
            .host(&secret.host)
            .port(secret.port)
            .user(&secret.username)
            .password(&secret.password)
            .dbname(&secret.dbname);
        Ok(Self {
            config,
            tls: TlsMode::VerifyFull(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::Host;

    #[test]
    fn certificates_are_checked_unless_the_url_says_disable() {
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
            let url = DatabaseUrl::parse(&format!("postgres://u:p@db/x{parameters}"))
                .expect("a good URL");
            assert_eq!(url.tls, expected, "{parameters}");
        }
    }

    #[test]
    fn parts_are_decoded_and_other_parameters_survive() {
        let url = DatabaseUrl::parse(
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
    fn the_document_of_an_rds_secret_is_understood() {
        let url = DatabaseUrl::parse(
            r#"{"engine":"postgres","username":"u","password":"p@/:","host":"db.example","port":5432,"dbname":"flags"}"#,
        )
        .expect("a good document");
        assert_eq!(url.config.get_hosts(), [Host::Tcp("db.example".to_owned())]);
        assert_eq!(url.config.get_password(), Some(&b"p@/:"[..]));
        assert_eq!(url.tls, TlsMode::VerifyFull(None));
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
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
            let error = DatabaseUrl::parse(text).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let url = DatabaseUrl::parse("postgres://u:hunter2@db/x").expect("a good URL");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
