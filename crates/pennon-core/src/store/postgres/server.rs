//! The servers that settings and secrets name.
//!
//! A server that rejects the login is not used again: the secret or setting is read again. The login may have been
//! rotated, or `migrate` or an administrator may have created it since.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flate2::read::GzDecoder;
use tokio::sync::Mutex;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{DatabaseUrl, TlsMode};
use crate::config::DatabaseConfig;
use crate::installation::Installation;
use crate::moment::Moment;
use crate::secrets::Secrets;
use crate::tls;

/// The authorities that sign the certificates of RDS and of RDS Proxy, as AWS publishes them, as a gzip stream.
const RDS_AUTHORITIES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rds.pem.gz"));
/// The time from one read of a source without a usable login to the next. A rotation ends within seconds; more reads
/// would only use up the account's quota, and each attempt with a rejected login costs the server a process.
const READ_INTERVAL: Duration = Duration::from_secs(5);
/// Each address of the server must accept the connection within the time limit of the attempt divided by this number.
/// Otherwise a silent address would use up the time of those after it. The login needs at least three more round trips.
const CONNECT_PARTS: u32 = 4;

/// A secret or setting that names a server.
pub(super) struct ServerSource {
    config: DatabaseConfig,
    secrets: Arc<Secrets>,
    installation: Arc<Installation>,
    /// Locked during a read, so that other requests wait for its result.
    last_read: Mutex<LastRead>,
}

struct LastRead {
    /// When it began.
    began: Option<Moment>,
    /// The server, or why there is none or it cannot be used.
    server: Result<Arc<Server>, String>,
}

/// The address, the login and the TLS settings of a server.
pub(super) struct Server {
    pub(super) config: tokio_postgres::Config,
    encryption: Encryption,
}

/// How connections to a server are encrypted.
enum Encryption {
    None,
    /// The server's certificate is signed by an authority of RDS.
    RdsAuthorities,
    /// It is signed by an authority in the file `sslrootcert`.
    CaFile(MakeRustlsConnect),
}

impl ServerSource {
    /// The secret or setting in `config.url`. It is not read yet.
    pub(super) fn new(
        config: DatabaseConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
    ) -> Self {
        Self {
            config,
            secrets: secrets.clone(),
            installation: installation.clone(),
            last_read: Mutex::new(LastRead {
                began: None,
                server: Err(String::new()),
            }),
        }
    }

    /// The server, or why there is none that can be used. Without one, reads the source if the last read began
    /// [`READ_INTERVAL`] ago or earlier, and logs the result.
    pub(super) async fn server(&self) -> Result<Arc<Server>, String> {
        let mut last = self.last_read.lock().await;
        let is_due = last.began.is_none_or(|began| began.age() >= READ_INTERVAL);
        if last.server.is_err() && is_due {
            // Set before the read, so that reads that time out count too.
            last.began = Some(Moment::now());
            last.server = self.read().await;
            match &last.server {
                Ok(_) => tracing::info!(
                    domain = "config",
                    "the address of the database was read from {}",
                    self.name()
                ),
                Err(why) => {
                    tracing::error!(domain = "config", error = %why, "no address for the database");
                }
            }
        }
        last.server.clone()
    }

    /// Stops using a server that rejects its login, unless another request has already replaced it.
    pub(super) async fn reject(&self, rejected: &Arc<Server>, why: String) {
        let mut last = self.last_read.lock().await;
        if matches!(&last.server, Ok(server) if Arc::ptr_eq(server, rejected)) {
            tracing::warn!(domain = "config", error = %why, "the login in {} is rejected", self.name());
            last.server = Err(why);
        }
    }

    async fn read(&self) -> Result<Arc<Server>, String> {
        let url = self.secrets.resolve(&self.config.url).await?;
        let url = url.ok_or("set DATABASE_URL or DATABASE_SECRET_ARN")?;
        let url = DatabaseUrl::parse(url.expose(), &self.config.address)
            .map_err(|invalid| format!("Invalid URL in {}: {invalid}", self.name()))?;
        self.installation.derive(&url.address());
        Server::new(&url, &self.config).map(Arc::new)
    }

    /// Its name for the log.
    fn name(&self) -> String {
        self.config.url.name("DATABASE_URL")
    }
}

impl Server {
    fn new(url: &DatabaseUrl, config: &DatabaseConfig) -> Result<Self, String> {
        let mut connect = url.config.clone();
        connect
            .connect_timeout(config.connect_timeout / CONNECT_PARTS)
            .tcp_user_timeout(config.operation_timeout);
        if connect.get_application_name().is_none() {
            connect.application_name("pennon");
        }
        let encryption = match &url.tls {
            TlsMode::Disable => Encryption::None,
            TlsMode::VerifyFull(ca_file) => {
                connect.ssl_mode(tokio_postgres::config::SslMode::Require);
                match ca_file {
                    Some(path) => {
                        let config = tls::client_config(&tls::Authorities::File(path))?;
                        Encryption::CaFile(MakeRustlsConnect::new(config))
                    }
                    None => Encryption::RdsAuthorities,
                }
            }
        };
        Ok(Self {
            config: connect,
            encryption,
        })
    }

    /// `None` for an unencrypted connection.
    pub(super) fn connector(&self) -> Result<Option<MakeRustlsConnect>, String> {
        match &self.encryption {
            Encryption::None => Ok(None),
            Encryption::RdsAuthorities => rds_connector().map(Some),
            Encryption::CaFile(connector) => Ok(Some(connector.clone())),
        }
    }
}

/// The connector that trusts the authorities of RDS. They are parsed for the first connection, because an instance with
/// a warm cache needs none.
fn rds_connector() -> Result<MakeRustlsConnect, String> {
    static CONNECTOR: OnceLock<Result<MakeRustlsConnect, String>> = OnceLock::new();
    let create = || {
        let mut text = Vec::new();
        GzDecoder::new(RDS_AUTHORITIES)
            .read_to_end(&mut text)
            .map_err(|error| format!("the certificates of RDS: {error}"))?;
        let config = tls::client_config(&tls::Authorities::Pem(&text))?;
        Ok(MakeRustlsConnect::new(config))
    };
    CONNECTOR.get_or_init(create).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificates_of_rds_are_readable() {
        assert_eq!(rds_connector().err(), None);
    }
}
