//! Connections to PostgreSQL: opened when first needed, used again within a request, and closed before it
//! is answered. They are opened with what the secret says now when its password was rotated, or the
//! secret could not be read before.
//!
//! Lambda freezes an instance between requests. A connection that stays open then belongs to nobody and
//! still counts against the limit of the server: a hundred instances that each needed the database once
//! would keep everybody else out. A server that runs all the time keeps its connections instead.
//!
//! A connection is opened without settings of its own. Behind PgBouncer or RDS Proxy in transaction mode
//! each transaction may run on another server connection, so a setting of the session would be lost, or
//! reach another client of the pooler; PgBouncer also refuses most settings in the startup message.
//! Limits are set by each transaction, see `transaction` and `PostgresStore::query`.

use std::io::ErrorKind;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{chain, unavailable};
use super::url::{DatabaseUrl, TlsMode};
use crate::config::{DatabaseConfig, UrlSource};
use crate::error::Error;
use crate::installation::Installation;
use crate::secrets::Secrets;
use crate::store::Waiting;
use crate::tls;

/// The authorities that sign the certificates of RDS and of RDS Proxy, as AWS publishes them.
const RDS_AUTHORITIES: &[u8] = include_bytes!("../../../certs/rds.pem");
/// A connection that was idle longer is checked before use, because network devices drop idle connections. Under load,
/// where the check would cost most, connections are idle for less.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// Limit on the check, which takes one round trip.
const CHECK_WITHIN: Duration = Duration::from_millis(150);
/// Limit on closing a connection, which takes one write to a socket. After it, the socket is closed by force.
const CLOSE_WITHIN: Duration = Duration::from_millis(100);
/// The pause between two reads of a secret whose login is rejected. A rotation ends within seconds, and more reads
/// would only use up the account's quota.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The pauses between attempts to connect to a server that has no connection left: the first and the
/// longest. Even an attempt that is refused costs the server a process.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The connection pool.
pub(super) struct Connections {
    config: DatabaseConfig,
    secrets: Arc<Secrets>,
    installation: Arc<Installation>,
    pool: Arc<Pool>,
    /// Held while the secret is read.
    reading: tokio::sync::Mutex<()>,
}

/// What all connections of an instance have in common.
struct Pool {
    state: Mutex<State>,
    /// One permit per request that uses the database. Others wait for their turn.
    turns: Arc<Semaphore>,
    /// One permit per socket, as many as turns. A socket keeps its permit until it is closed, so there are
    /// never more than that, not even while one secret replaces another.
    sockets: Arc<Semaphore>,
}

struct State {
    /// Where the server is, or why that is not known.
    server: Result<Arc<Server>, String>,
    /// The server with the login to use while the one above is not known, once that is needed.
    fallback: Option<Arc<Server>>,
    /// When the secret was last read.
    read: Instant,
    /// Idle connections to the server above.
    idle: Vec<Open>,
}

/// Where to connect, and how.
struct Server {
    config: tokio_postgres::Config,
    /// `None` for a connection in the clear.
    tls: Option<MakeRustlsConnect>,
}

/// An open connection.
struct Open {
    client: Client,
    socket: Socket,
    server: Arc<Server>,
    last_used: Instant,
}

/// The task that drives a connection. Dropped, it closes the socket.
struct Socket(JoinHandle<()>);

/// A connection in use. Dropped, it is closed; [`give_back`](Self::give_back) keeps it.
pub(super) struct Connection {
    open: Open,
    pool: Arc<Pool>,
    turn: OwnedSemaphorePermit,
}

/// Why there is no connection.
enum Refused {
    /// The server takes none at the moment: it has no connection left, starts, or fails over.
    ForNow(Error),
    /// The next attempt would end the same way.
    ForGood(Error),
}

/// The same for one attempt with one login.
enum Failed {
    /// The server wants another password, or another user, than the secret said.
    Login(Error),
    Other(Refused),
}

impl Connections {
    /// Finds out where the database is. Nothing is connected: an instance with a warm cache never
    /// needs to. A URL that cannot be read or understood is a log line.
    pub(super) async fn find(
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
                    read: Instant::now(),
                    idle: Vec::new(),
                }),
                turns: Arc::new(Semaphore::new(config.pool_size)),
                sockets: Arc::new(Semaphore::new(config.pool_size)),
            }),
            reading: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns an idle or new connection.
    ///
    /// With [`Waiting::UntilTimeout`] it tries again while the server takes no connection, for nine tenths of
    /// the time that an operation has: the caller, who limits that, gets the server's reason.
    pub(super) async fn get(&self, waiting: Waiting) -> Result<Connection, Error> {
        let turn = self.pool.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|closed| Error::Internal(closed.to_string()))?;
        let last_attempt = Instant::now() + self.config.operation_timeout * 9 / 10;
        let mut pause = FIRST_PAUSE;
        loop {
            // Connecting is rare, and its future is ten times as large as those of all that may need it.
            let opening: BoxFuture<'_, Result<Open, Refused>> = Box::pin(self.open());
            let error = match opening.await {
                Ok(open) => {
                    return Ok(Connection {
                        open,
                        pool: self.pool.clone(),
                        turn,
                    });
                }
                Err(Refused::ForNow(error))
                    if waiting == Waiting::UntilTimeout
                        && Instant::now() + pause < last_attempt =>
                {
                    error
                }
                Err(Refused::ForNow(error) | Refused::ForGood(error)) => return Err(error),
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(domain = "config", error = %error, "the request waits for a connection to the database");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
        // Connections that were dropped in the middle of something are closed by their tasks, which run now.
        tokio::task::yield_now().await;
    }

    /// An idle connection or a new one, by a secret that was read again when the server refuses the login.
    async fn open(&self) -> Result<Open, Refused> {
        if let Some(open) = self.idle().await {
            return Ok(open);
        }
        let why = match self.pool.server() {
            Ok(server) => match self.connect(&server).await {
                Ok(open) => return Ok(open),
                Err(Failed::Login(error)) => Refused::ForGood(error),
                Err(Failed::Other(refused)) => return Err(refused),
            },
            Err(why) => Refused::ForGood(Error::Unavailable(why)),
        };
        let why = match self.read_again().await {
            None => why,
            Some(server) => match self.connect(&server).await {
                Ok(open) => return Ok(open),
                // Another run of `migrate` may be about to change the login.
                Err(Failed::Login(error)) => Refused::ForNow(error),
                Err(Failed::Other(refused)) => return Err(refused),
            },
        };
        match self.fallback().await {
            None => Err(why),
            Some(server) => self.connect(&server).await.map_err(Failed::into_refused),
        }
    }

    /// The server with the login of the fallback, which is used as long as the secret names none that works.
    async fn fallback(&self) -> Option<Arc<Server>> {
        let arn = self.config.fallback_secret.as_ref()?;
        {
            let mut state = self.pool.lock();
            // Not to be tried by every request: each would cost the server a process.
            state.server = Err("the login that the secret names is refused".to_owned());
            if let Some(known) = &state.fallback {
                return Some(known.clone());
            }
        }
        let config = DatabaseConfig {
            url: UrlSource::SecretArn(arn.clone()),
            ..self.config.clone()
        };
        match find_server(&config, &self.secrets, &self.installation).await {
            Ok(server) => {
                tracing::warn!(
                    domain = "config",
                    "the database's role has no login yet; using DATABASE_FALLBACK_SECRET_ARN"
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
    async fn idle(&self) -> Option<Open> {
        loop {
            let open = self.pool.lock().idle.pop()?;
            if open.client.is_closed() {
                continue;
            }
            if open.last_used.elapsed() < IDLE_LIMIT {
                return Some(open);
            }
            let check = open.client.batch_execute("select 1");
            if matches!(tokio::time::timeout(CHECK_WITHIN, check).await, Ok(Ok(()))) {
                return Some(open);
            }
        }
    }

    async fn connect(&self, server: &Arc<Server>) -> Result<Open, Failed> {
        let permit = self.pool.sockets.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| {
            Failed::Other(Refused::ForGood(Error::Internal(closed.to_string())))
        })?;
        let connecting = async {
            let config = &server.config;
            let (client, socket) = match &server.tls {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, Socket::open(connection, permit))
                }
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    (client, Socket::open(connection, permit))
                }
            };
            Ok(Open {
                client,
                socket,
                server: server.clone(),
                last_used: Instant::now(),
            })
        };
        match tokio::time::timeout(self.config.connect_timeout, connecting).await {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(error)) => Err(Failed::of(&error)),
            Err(_elapsed) => Err(Failed::Other(Refused::ForNow(Error::Unavailable(
                "database: no connection in time".to_owned(),
            )))),
        }
    }

    /// Where the server is by what the secret says now, if there is a secret and it may be read again.
    async fn read_again(&self) -> Option<Arc<Server>> {
        match &self.config.url {
            UrlSource::SecretArn(_) => {}
            UrlSource::Plain(_) | UrlSource::None => return None,
        }
        let waited_from = Instant::now();
        let _reading = self.reading.lock().await;
        {
            let mut state = self.pool.lock();
            if state.read > waited_from {
                // Another request has read it while this one waited.
                return state.server.as_ref().ok().cloned();
            }
            if state.read.elapsed() < READ_AGAIN_AFTER {
                return None;
            }
            // Noted first: a request that gives up on the answer has read it all the same.
            state.read = Instant::now();
        }
        match find_server(&self.config, &self.secrets, &self.installation).await {
            Ok(server) => {
                tracing::info!(domain = "config", "the database's secret was read again");
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Keeps the connection for the next use, in this request or, where connections are kept, in another.
    /// Nothing may be under way on it.
    pub(super) fn give_back(self) {
        let Self {
            mut open,
            pool,
            turn,
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
        // The next request finds the connection.
        drop(turn);
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.open.client
    }
}

impl Open {
    /// Ends the connection and waits until the socket is closed.
    async fn close(self) {
        let Self {
            client, mut socket, ..
        } = self;
        // The task sends the termination message once the client is dropped.
        drop(client);
        if tokio::time::timeout(CLOSE_WITHIN, &mut socket.0)
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
    /// Drives a connection until it ends. The permit ends with the socket.
    fn open<S, T>(
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

impl Failed {
    fn into_refused(self) -> Refused {
        match self {
            Self::Login(error) => Refused::ForGood(error),
            Self::Other(refused) => refused,
        }
    }

    fn of(error: &tokio_postgres::Error) -> Self {
        let answer = explain(error);
        match error.code() {
            Some(code) if is_about_login(code) => Self::Login(answer),
            Some(code) if takes_none_now(code) => Self::Other(Refused::ForNow(answer)),
            None if is_lost(error) => Self::Other(Refused::ForNow(answer)),
            Some(_) | None => Self::Other(Refused::ForGood(answer)),
        }
    }
}

/// What an attempt to connect is answered with. A server on one's own machine usually has no TLS, so the message names
/// the setting for it.
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

/// Whether the server wants another password, or another user.
fn is_about_login(code: &SqlState) -> bool {
    [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    ]
    .contains(code)
}

/// Whether the server, or a pooler before it, takes no connection at the moment: too many of them (class
/// 53), it starts or shuts down (class 57), the server behind the pooler is away (class 08).
fn takes_none_now(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    ["08", "53", "57"].contains(&class)
}

/// Whether nobody listened, or the connection was lost before it stood: a server that starts again or
/// fails over does that.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error);
    let kind = cause
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    error.is_closed()
        || matches!(
            kind,
            Some(
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
            )
        )
}

async fn find_server(
    config: &DatabaseConfig,
    secrets: &Secrets,
    installation: &Installation,
) -> Result<Arc<Server>, String> {
    let Some(url) = secrets.resolve(&config.url).await? else {
        // No log line comes of this: a function that reads no flags needs no database.
        return Err("set DATABASE_URL or DATABASE_SECRET_ARN".to_owned());
    };
    let url = DatabaseUrl::parse(url.expose(), &config.elsewhere)
        .map_err(|invalid| format!("Invalid DATABASE_URL: {invalid}"))?;
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
        let tls = match &url.tls {
            TlsMode::Disable => None,
            TlsMode::VerifyFull(ca_file) => {
                connect.ssl_mode(tokio_postgres::config::SslMode::Require);
                let authorities = match ca_file {
                    Some(path) => tls::Authorities::File(path),
                    None => tls::Authorities::Pem(RDS_AUTHORITIES),
                };
                Some(MakeRustlsConnect::new(tls::client_config(&authorities)?))
            }
        };
        Ok(Self {
            config: connect,
            tls,
        })
    }
}
