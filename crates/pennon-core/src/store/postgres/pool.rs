//! Connections to PostgreSQL. A request opens one when it needs it, reuses it, and closes it before the response.
//!
//! Lambda freezes an instance between requests. A connection of a frozen instance is unused but counts against the
//! limit of the server, so a hundred instances that each needed the database once would exhaust it. A process that is
//! never frozen keeps its connections.
//!
//! Connections have no session settings. Behind PgBouncer or RDS Proxy in transaction mode, each transaction may run on
//! another server connection, so a session setting would be lost or apply to another client; PgBouncer also rejects
//! most settings in the startup message. Each transaction sets its limits: see `transaction` and
//! `PostgresStore::query`.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::error::{chain, is_about_login, is_temporary};
use super::server::{Server, ServerSource};
use crate::config::{DatabaseConfig, SecretSource};
use crate::error::Error;
use crate::installation::Installation;
use crate::secrets::Secrets;
use crate::store::Waiting;

/// A connection that was idle longer is checked before use, because network devices drop idle connections. Under load,
/// where the check would cost most, connections are idle for less.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// Limit on the check, which takes one round trip.
const CHECK_TIMEOUT: Duration = Duration::from_millis(150);
/// Limit on closing a connection, which takes one write to a socket. After it, the socket is closed by force.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// The first and the longest pause between attempts to connect to a server without a free connection. Even a rejected
/// attempt costs the server a process.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// The connection pool.
pub(super) struct Connections {
    config: DatabaseConfig,
    main: ServerSource,
    fallback: Option<ServerSource>,
    pool: Arc<Pool>,
}

/// The shared state of all connections of an instance.
struct Pool {
    idle: Mutex<Vec<OpenConnection>>,
    /// One permit per request that uses the database. Other requests wait.
    requests: Arc<Semaphore>,
    /// One permit per socket, as many as for requests. A socket holds its permit until it is closed, so the limit holds
    /// even while connections with a new login replace the old ones.
    sockets: Arc<Semaphore>,
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
    /// No server is known, or it rejects the user or the password.
    Login(String),
    /// The server accepts no connection now: it has none left, is starting, or fails over.
    Temporary(String),
    /// Another failure.
    Other(Error),
}

impl Connections {
    /// Reads the address of the database. Does not connect, because an instance with a warm cache needs no connection.
    /// An unreadable or invalid URL is logged.
    pub(super) async fn new(
        config: &DatabaseConfig,
        secrets: &Arc<Secrets>,
        installation: &Arc<Installation>,
    ) -> Self {
        let source = |config| ServerSource::new(config, secrets, installation);
        let main = source(config.clone());
        let _logged = main.server().await;
        let fallback = config.fallback_secret.clone().map(|arn| {
            source(DatabaseConfig {
                url: SecretSource::SecretArn(arn),
                ..config.clone()
            })
        });
        Self {
            config: config.clone(),
            main,
            fallback,
            pool: Arc::new(Pool {
                idle: Mutex::default(),
                requests: Arc::new(Semaphore::new(config.pool_size)),
                sockets: Arc::new(Semaphore::new(config.pool_size)),
            }),
        }
    }

    /// Returns an idle or new connection.
    ///
    /// With [`Waiting::UntilTimeout`], retries while the server accepts no connection. It stops after nine tenths of
    /// the operation timeout, so that the caller gets the server's error instead of a timeout.
    pub(super) async fn get(&self, waiting: Waiting) -> Result<Connection, Error> {
        let last_attempt = Instant::now() + self.config.operation_timeout * 9 / 10;
        let permit = self.pool.requests.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| Error::Internal(closed.to_string()))?;
        let mut pause = FIRST_PAUSE;
        loop {
            // Boxed, because connecting is rare, and its future would make those of all callers ten times as large.
            let opening: BoxFuture<'_, Result<OpenConnection, ConnectError>> =
                Box::pin(self.open());
            let why = match opening.await {
                Ok(open) => {
                    return Ok(Connection {
                        open,
                        pool: self.pool.clone(),
                        permit,
                    });
                }
                Err(ConnectError::Temporary(why))
                    if waiting == Waiting::UntilTimeout
                        && Instant::now() + pause < last_attempt =>
                {
                    why
                }
                Err(error) => return Err(error.into()),
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(domain = "config", error = %why, "the request waits for a connection to the database");
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
        let idle = std::mem::take(&mut *self.pool.idle());
        for open in idle {
            open.close().await;
        }
        // Lets the tasks of dropped connections run, which close their sockets.
        tokio::task::yield_now().await;
    }

    /// Returns a connection with the main login or, while that cannot be used, with the fallback login. If neither can be
    /// used, returns why the main login cannot.
    async fn open(&self) -> Result<OpenConnection, ConnectError> {
        let opened = self.open_from(&self.main).await;
        let (Err(ConnectError::Login(_)), Some(fallback)) = (&opened, &self.fallback) else {
            return opened;
        };
        match self.open_from(fallback).await {
            Err(ConnectError::Login(_)) => opened,
            outcome => outcome,
        }
    }

    /// Returns an idle connection to the server of a source, or opens one. The loop ends, because a source that was just
    /// read is not read again for some seconds.
    async fn open_from(&self, source: &ServerSource) -> Result<OpenConnection, ConnectError> {
        loop {
            let server = source.server().await.map_err(ConnectError::Login)?;
            if let Some(open) = self.idle(&server).await {
                return Ok(open);
            }
            match self.connect(&server).await {
                Err(ConnectError::Login(why)) => source.reject(&server, why).await,
                outcome => return outcome,
            }
        }
    }

    /// An idle connection to this server that still works. Closes those to other servers, which would occupy sockets.
    async fn idle(&self, server: &Arc<Server>) -> Option<OpenConnection> {
        loop {
            let open = self.pool.idle().pop()?;
            if open.client.is_closed() || !Arc::ptr_eq(&open.server, server) {
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

    async fn connect(&self, server: &Arc<Server>) -> Result<OpenConnection, ConnectError> {
        let permit = self.pool.sockets.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| Error::Internal(closed.to_string()))?;
        let tls = server.connector().map_err(Error::Internal)?;
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
            Ok(Err(error)) => Err(ConnectError::of(&error)),
            Err(_elapsed) => Err(ConnectError::Temporary(
                "database: no connection in time".to_owned(),
            )),
        }
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<OpenConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
        pool.idle().push(open);
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

impl ConnectError {
    fn of(error: &tokio_postgres::Error) -> Self {
        let why = explain(error);
        if is_about_login(error) {
            Self::Login(why)
        } else if is_temporary(error) {
            Self::Temporary(why)
        } else {
            Self::Other(Error::Unavailable(why))
        }
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Login(why) | ConnectError::Temporary(why) => Self::Unavailable(why),
            ConnectError::Other(error) => error,
        }
    }
}

/// Describes the error of an attempt to connect. A local server usually has no TLS, so the text names the setting that
/// disables it.
fn explain(error: &tokio_postgres::Error) -> String {
    let text = chain(error);
    if text.ends_with("server does not support TLS") {
        format!(
            "database: {text}; for a local database without TLS add ?sslmode=disable to the URL"
        )
    } else {
        format!("database: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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

    #[tokio::test]
    async fn a_request_that_waited_for_another_one_fails_soon_after_it() {
        let (config, _) = Config::from_lookup(|name| match name {
            // Connections to this port are refused.
            "DATABASE_URL" => {
                Some("postgres://pennon@127.0.0.1:1/pennon?sslmode=disable".to_owned())
            }
            "DATABASE_POOL_SIZE" => Some("1".to_owned()),
            "DATABASE_TIMEOUT_MS" => Some("2000".to_owned()),
            _ => None,
        });
        let (secrets, installation) = (Arc::default(), Arc::default());
        let connections = Connections::new(&config.database, &secrets, &installation).await;
        let timed = async || {
            assert!(connections.get(Waiting::UntilTimeout).await.is_err());
            Instant::now()
        };
        let (first, second) = tokio::join!(timed(), timed());
        assert!(second < first + Duration::from_secs(1));
    }
}
