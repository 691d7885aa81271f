//! Connections to PostgreSQL. A request opens one when it needs it, reuses it, and closes it before the response. If
//! the server rejects the login, or the last read of the secret failed, the secret is read again.
//!
//! Lambda freezes an instance between requests. A connection of a frozen instance is unused but counts against the
//! limit of the server, so a hundred instances that each needed the database once would exhaust it. A process that is
//! never frozen keeps its connections.
//!
//! Connections have no session settings. Behind PgBouncer or RDS Proxy in transaction mode, each transaction may run on
//! another server connection, so a session setting would be lost or apply to another client; PgBouncer also rejects
//! most settings in the startup message. Each transaction sets its limits: see `transaction` and
//! `PostgresStore::query`.

use std::io::Read;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{chain, is_about_login, is_lost, is_temporary, unavailable};
use super::url::{DatabaseUrl, TlsMode};
use crate::config::{DatabaseConfig, SecretSource};
use crate::error::Error;
use crate::installation::Installation;
use crate::moment::Moment;
use crate::secrets::Secrets;
use crate::store::Waiting;
use crate::tls;

/// The authorities that sign the certificates of RDS and of RDS Proxy, as AWS publishes them, as a gzip stream.
const RDS_AUTHORITIES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rds.pem.gz"));
/// A connection that was idle longer is checked before use, because network devices drop idle connections. Under load,
/// where the check would cost most, connections are idle for less.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// Limit on the check, which takes one round trip.
const CHECK_TIMEOUT: Duration = Duration::from_millis(150);
/// Limit on closing a connection, which takes one write to a socket. After it, the socket is closed by force.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// The pause between two reads of a secret whose login is rejected, and between two attempts with a rejected login
/// beside a fallback. A rotation ends within seconds; more reads would only use up the account's quota, and each
/// attempt costs the server a process.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// The first and the longest pause between attempts to connect to a server without a free connection. Even a rejected
/// attempt costs the server a process.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// The connection pool.
pub(super) struct Connections {
    config: DatabaseConfig,
    secrets: Arc<Secrets>,
    installation: Arc<Installation>,
    pool: Arc<Pool>,
    /// Held while the secret is read.
    reading: tokio::sync::Mutex<()>,
}

/// The shared state of all connections of an instance.
struct Pool {
    state: Mutex<State>,
    /// One permit per request that uses the database. Other requests wait.
    requests: Arc<Semaphore>,
    /// One permit per socket, as many as for requests. A socket holds its permit until it is closed, so the limit holds
    /// even while connections with a new secret replace the old ones.
    sockets: Arc<Semaphore>,
}

struct State {
    /// The server, or why it cannot be used.
    server: Result<Arc<Server>, String>,
    /// The server with the fallback login, if `server` cannot be used and the fallback was needed.
    fallback: Option<Arc<Server>>,
    /// When the address was last read, from the secret or the settings.
    read: Moment,
    /// Idle connections to `server` or, while that cannot be used, to `fallback`.
    idle: Vec<OpenConnection>,
}

/// The address, the login and the TLS settings of a server.
struct Server {
    config: tokio_postgres::Config,
    encryption: Encryption,
}

/// How connections to a server are encrypted.
enum Encryption {
    None,
    /// The server's certificate is signed by an authority of RDS.
    Rds,
    /// It is signed by an authority of a file.
    Own(MakeRustlsConnect),
}

/// An open connection.
struct OpenConnection {
    client: Client,
    socket: Socket,
    server: Arc<Server>,
    last_used: Instant,
}

/// The task that drives a connection. Dropping it closes the socket.
struct Socket(JoinHandle<()>);

/// A connection in use. Dropping it closes it; [`give_back`](Self::give_back) keeps it open.
pub(super) struct Connection {
    open: OpenConnection,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

/// Why there is no connection.
enum ConnectError {
    /// The server accepts no connection now: it has none left, is starting, or fails over.
    Temporary(Error),
    /// A retry would fail too.
    Permanent(Error),
}

/// Why one attempt with one login failed.
enum AttemptError {
    /// The server rejects the user or the password.
    Login(Error),
    Other(ConnectError),
}

impl Connections {
    /// Reads the address of the database. Does not connect, because an instance with a warm cache needs no connection.
    /// An unreadable or invalid URL is logged.
    pub(super) async fn new(
        config: &DatabaseConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
    ) -> Self {
        let server = find_server(config, secrets, installation).await;
        if let Err(why) = &server {
            tracing::error!(domain = "config", error = %why, "no address for the database");
        }
        Self {
            config: config.clone(),
            secrets: secrets.clone(),
            installation: installation.clone(),
            pool: Arc::new(Pool {
                state: Mutex::new(State {
                    server,
                    fallback: None,
                    read: Moment::now(),
                    idle: Vec::new(),
                }),
                requests: Arc::new(Semaphore::new(config.pool_size)),
                sockets: Arc::new(Semaphore::new(config.pool_size)),
            }),
            reading: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns an idle or new connection.
    ///
    /// With [`Waiting::UntilTimeout`], retries while the server accepts no connection. It stops after nine tenths of
    /// the operation timeout, so that the caller gets the server's error instead of a timeout.
    pub(super) async fn get(&self, waiting: Waiting) -> Result<Connection, Error> {
        let permit = self.pool.requests.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| Error::Internal(closed.to_string()))?;
        let last_attempt = Instant::now() + self.config.operation_timeout * 9 / 10;
        let mut pause = FIRST_PAUSE;
        loop {
            // Boxed, because connecting is rare, and its future would make those of all callers ten times as large.
            let opening: BoxFuture<'_, Result<OpenConnection, ConnectError>> =
                Box::pin(self.open());
            let error = match opening.await {
                Ok(open) => {
                    return Ok(Connection {
                        open,
                        pool: self.pool.clone(),
                        permit,
                    });
                }
                Err(ConnectError::Temporary(error))
                    if waiting == Waiting::UntilTimeout
                        && Instant::now() + pause < last_attempt =>
                {
                    error
                }
                Err(ConnectError::Temporary(error) | ConnectError::Permanent(error)) => {
                    return Err(error);
                }
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(domain = "config", error = %error, "the request waits for a connection to the database");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Closes unused connections and waits until they are closed, because Lambda may freeze the instance right after.
    /// Does nothing if the process keeps connections.
    pub(super) async fn end_of_request(&self) {
        if self.config.keep_connections {
            return;
        }
        let idle = std::mem::take(&mut self.pool.lock().idle);
        for open in idle {
            open.close().await;
        }
        // Lets the tasks of dropped connections run, which close their sockets.
        tokio::task::yield_now().await;
    }

    /// Returns an idle connection or opens one. If the server rejects the login, reads the secret again, and then tries
    /// the fallback login.
    async fn open(&self) -> Result<OpenConnection, ConnectError> {
        self.pool.leave_fallback();
        if let Some(open) = self.idle().await {
            return Ok(open);
        }
        let why = match self.pool.server() {
            Ok(server) => match self.connect(&server).await {
                Ok(open) => return Ok(open),
                Err(AttemptError::Login(error)) => ConnectError::Permanent(error),
                Err(AttemptError::Other(error)) => return Err(error),
            },
            Err(why) => ConnectError::Permanent(Error::Unavailable(why)),
        };
        let why = match self.read_again().await {
            None => why,
            Some(server) => match self.connect(&server).await {
                Ok(open) => return Ok(open),
                // A run of `migrate` may be changing the login.
                Err(AttemptError::Login(error)) => ConnectError::Temporary(error),
                Err(AttemptError::Other(error)) => return Err(error),
            },
        };
        match self.fallback().await {
            None => Err(why),
            Some(server) => self
                .connect(&server)
                .await
                .map_err(AttemptError::into_connect_error),
        }
    }

    /// The server with the fallback login, which is used while the login in the secret does not work.
    async fn fallback(&self) -> Option<Arc<Server>> {
        let arn = self.config.fallback_secret.as_ref()?;
        {
            let mut state = self.pool.lock();
            if state.server.is_ok() {
                // Requests skip the rejected login until the address is read again.
                state.server = Err("the server rejects the login".to_owned());
            }
            if let Some(known) = &state.fallback {
                return Some(known.clone());
            }
        }
        let config = DatabaseConfig {
            url: SecretSource::SecretArn(arn.clone()),
            ..self.config.clone()
        };
        match find_server(&config, &self.secrets, &self.installation).await {
            Ok(server) => {
                tracing::warn!(
                    domain = "config",
                    "the database's login is missing or rejected; using DATABASE_FALLBACK_SECRET_ARN"
                );
                self.pool.lock().fallback = Some(server.clone());
                Some(server)
            }
            Err(why) => {
                tracing::error!(domain = "config", error = %why, "no address for the database");
                None
            }
        }
    }

    /// An idle connection that still works.
    async fn idle(&self) -> Option<OpenConnection> {
        loop {
            let open = self.pool.lock().idle.pop()?;
            if open.client.is_closed() {
                continue;
            }
            if open.last_used.elapsed() < IDLE_LIMIT {
                return Some(open);
            }
            let check = open.client.batch_execute("select 1");
            if matches!(tokio::time::timeout(CHECK_TIMEOUT, check).await, Ok(Ok(()))) {
                return Some(open);
            }
        }
    }

    async fn connect(&self, server: &Arc<Server>) -> Result<OpenConnection, AttemptError> {
        let permit = self.pool.sockets.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| {
            AttemptError::Other(ConnectError::Permanent(Error::Internal(closed.to_string())))
        })?;
        let tls = server.connector().map_err(|error| {
            AttemptError::Other(ConnectError::Permanent(Error::Internal(error)))
        })?;
        let connecting = async {
            let config = &server.config;
            let (client, socket) = match tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, Socket::spawn(connection, permit))
                }
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await?;
                    (client, Socket::spawn(connection, permit))
                }
            };
            Ok(OpenConnection {
                client,
                socket,
                server: server.clone(),
                last_used: Instant::now(),
            })
        };
        match tokio::time::timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(error)) => Err(AttemptError::of(&error)),
            Err(_elapsed) => Err(AttemptError::Other(ConnectError::Temporary(
                Error::Unavailable("database: no connection in time".to_owned()),
            ))),
        }
    }

    /// Reads the secret again and returns the server in it. `None` if it was read less than [`REREAD_INTERVAL`] ago, or
    /// cannot be read. If another request has read it meanwhile, returns that request's result. A plain URL never
    /// changes, but beside a fallback its rejected login is tried again this way.
    async fn read_again(&self) -> Option<Arc<Server>> {
        match &self.config.url {
            SecretSource::SecretArn(_) => {}
            SecretSource::Plain(_) if self.config.fallback_secret.is_some() => {}
            SecretSource::Plain(_) | SecretSource::None => return None,
        }
        let waited_from = Moment::now();
        let _reading = self.reading.lock().await;
        {
            let mut state = self.pool.lock();
            if !waited_from.is_since(state.read) {
                // Another request has read it while this one waited for the lock.
                return state.server.as_ref().ok().cloned();
            }
            if state.read.age() < REREAD_INTERVAL {
                return None;
            }
            // Set before the read, so that reads that time out count too.
            state.read = Moment::now();
        }
        match find_server(&self.config, &self.secrets, &self.installation).await {
            Ok(server) => {
                tracing::info!(
                    domain = "config",
                    "the address of the database was read again"
                );
                let mut state = self.pool.lock();
                state.server = Ok(server.clone());
                state.fallback = None;
                state.idle.clear();
                Some(server)
            }
            Err(why) => {
                tracing::error!(domain = "config", error = %why, "no address for the database");
                None
            }
        }
    }
}

impl Pool {
    fn server(&self) -> Result<Arc<Server>, String> {
        self.lock().server.clone()
    }

    /// Closes idle connections with the fallback login when the rejected one may be tried again. A process that keeps
    /// its connections would otherwise use them for ever.
    fn leave_fallback(&self) {
        let mut state = self.lock();
        if state.server.is_err() && state.read.age() >= REREAD_INTERVAL {
            state.idle.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Keeps the connection open for the next use, in this request or, if the process keeps connections, in another
    /// one. No statement may be running on it.
    pub(super) fn give_back(self) {
        let Self {
            mut open,
            pool,
            permit,
        } = self;
        open.last_used = Instant::now();
        {
            let mut state = pool.lock();
            let current = state.server.as_ref().ok().or(state.fallback.as_ref());
            let is_current = current.is_some_and(|server| Arc::ptr_eq(server, &open.server));
            if is_current && !open.client.is_closed() {
                state.idle.push(open);
            }
        }
        // Released after the connection is idle, so that the next request finds it.
        drop(permit);
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.open.client
    }
}

impl OpenConnection {
    /// Closes the connection and waits until the socket is closed.
    async fn close(self) {
        let Self {
            client, mut socket, ..
        } = self;
        // The task sends the termination message once the client is dropped.
        drop(client);
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut socket.0)
            .await
            .is_err()
        {
            tracing::warn!(
                domain = "config",
                "a connection to the database was closed by force"
            );
        }
    }
}

impl Socket {
    /// Starts the task of a connection. The permit is released when the socket is closed.
    fn spawn<S, T>(
        connection: tokio_postgres::Connection<S, T>,
        permit: OwnedSemaphorePermit,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(domain = "config", error = %error, "a connection to the database ended");
            }
            drop(permit);
        }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AttemptError {
    fn into_connect_error(self) -> ConnectError {
        match self {
            Self::Login(error) => ConnectError::Permanent(error),
            Self::Other(error) => error,
        }
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        let answer = explain(error);
        match error.code() {
            Some(code) if is_about_login(code) => Self::Login(answer),
            Some(code) if is_temporary(code) => Self::Other(ConnectError::Temporary(answer)),
            None if is_lost(error) => Self::Other(ConnectError::Temporary(answer)),
            Some(_) | None => Self::Other(ConnectError::Permanent(answer)),
        }
    }
}

/// The error of an attempt to connect. A local server usually has no TLS, so the message names the setting that
/// disables it.
fn explain(error: &tokio_postgres::Error) -> Error {
    let text = chain(error);
    if text.ends_with("server does not support TLS") {
        Error::Unavailable(format!(
            "database: {text}; for a local database without TLS add ?sslmode=disable to the URL"
        ))
    } else {
        unavailable(error)
    }
}

async fn find_server(
    config: &DatabaseConfig,
    secrets: &Secrets,
    installation: &Installation,
) -> Result<Arc<Server>, String> {
    let Some(url) = secrets.resolve(&config.url).await? else {
        // Not an error in itself: some functions need no database.
        return Err("set DATABASE_URL or DATABASE_SECRET_ARN".to_owned());
    };
    let url =
        DatabaseUrl::parse(url.expose(), &config.address).map_err(|invalid| match &config.url {
            SecretSource::SecretArn(arn) => format!("Invalid URL in secret {arn}: {invalid}"),
            SecretSource::Plain(_) | SecretSource::None => {
                format!("Invalid DATABASE_URL: {invalid}")
            }
        })?;
    installation.derive(&url.address());
    Server::new(&url, config).map(Arc::new)
}

impl Server {
    fn new(url: &DatabaseUrl, config: &DatabaseConfig) -> Result<Self, String> {
        let mut connect = url.config.clone();
        connect
            .connect_timeout(config.connect_timeout)
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
                        Encryption::Own(MakeRustlsConnect::new(config))
                    }
                    None => Encryption::Rds,
                }
            }
        };
        Ok(Self {
            config: connect,
            encryption,
        })
    }

    /// `None` for an unencrypted connection.
    fn connector(&self) -> Result<Option<MakeRustlsConnect>, String> {
        match &self.encryption {
            Encryption::None => Ok(None),
            Encryption::Rds => rds_connector().map(Some),
            Encryption::Own(connector) => Ok(Some(connector.clone())),
        }
    }
}

/// Verifies the certificates of RDS. The authorities are parsed for the first connection, because an instance with a
/// warm cache needs none.
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
    use crate::config::Config;

    #[test]
    fn the_certificates_of_rds_are_readable() {
        assert_eq!(rds_connector().err(), None);
    }

    #[tokio::test]
    async fn the_error_stays_the_same_while_neither_login_can_be_used() {
        // This process has no credentials of AWS, so no secret can be read.
        let (config, _) = Config::from_lookup(|name| match name {
            "DATABASE_URL" => Some("nonsense".to_owned()),
            "DATABASE_FALLBACK_SECRET_ARN" => Some("arn".to_owned()),
            _ => None,
        });
        let (secrets, installation) = (Arc::default(), Arc::default());
        let connections = Connections::new(&config.database, &secrets, &installation).await;
        for _ in 0..2 {
            let error = connections
                .get(Waiting::Never)
                .await
                .err()
                .expect("no connection");
            assert!(error.to_string().contains("DATABASE_URL"), "{error}");
        }
    }
}
