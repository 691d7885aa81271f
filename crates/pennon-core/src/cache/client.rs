//! The connections to one Redis server. No other file uses fred.
//!
//! [`Connections::send`] sends one command once and returns the reply or the failure. Retries, breakers and
//! reconnecting belong to `executor`. `cluster` chooses the server of a cluster, because fred's own cluster client
//! stops every shard when one primary dies, and stops permanently at the first ASK.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fred::bytes_utils::Str;
use fred::clients::{Client, Pipeline, Pool as FredPool};
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{
    Config as FredConfig, Options, ReconnectPolicy, Server, ServerConfig, TlsConfig, TlsConnector,
};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::sync::broadcast::Receiver;

use super::address::Address;
use super::entry::{HEADER, SUMMARY};
use super::url::RedisUrl;
use crate::config::CacheConfig;
use crate::id::unique_id;
use crate::tls;

/// A command to Redis.
#[derive(Debug)]
pub(super) enum Command<'a> {
    /// Fields of the entry at this key: a list of their values.
    Fields { key: &'a str, names: Names<'a> },
    /// The whole entry at this key, or a lease to fill it. Every attempt has its own lease id, so that an attempt
    /// that is delayed in the network does not renew the lease of another one. All attempts of one reader
    /// have its id, so that a reader that lost the reply does not wait for its own fill grace period.
    Read {
        key: &'a str,
        reader: &'a str,
        lease: Duration,
        fill_grace_period: Duration,
    },
    /// A script of the protocol, on this key.
    Run {
        script: Script,
        key: &'a str,
        arguments: &'a [String],
    },
    /// `PING`, to check that the server answers.
    Ping,
    /// `CLUSTER SLOTS`: the nodes of the cluster and the slots that each of them serves.
    Slots,
}

/// Names of fields.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names<'a> {
    /// [`HEADER`]: a short reply, and all that most requests read.
    Header,
    /// [`SUMMARY`]: the settings, and the digests of all flags.
    Summary,
    /// Fields of flags.
    Flags(&'a [String]),
}

impl Command<'_> {
    /// The key that the command reads or writes.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Fields { key, .. } | Self::Read { key, .. } | Self::Run { key, .. } => Some(key),
            Self::Ping | Self::Slots => None,
        }
    }

    /// Whether it is an invalidation. Invalidations are sent even while the breaker is open: readers depend on
    /// them, and changes are rare.
    pub(super) fn is_invalidation(&self) -> bool {
        match self {
            Self::Run { script, .. } => match script {
                Script::BeginWrite | Script::EndWrite => true,
                Script::Fill | Script::Discard => false,
            },
            Self::Fields { .. } | Self::Read { .. } | Self::Ping | Self::Slots => false,
        }
    }

    /// Whether it is the invalidation after a commit.
    pub(super) fn ends_a_write(&self) -> bool {
        matches!(
            self,
            Self::Run {
                script: Script::EndWrite,
                ..
            }
        )
    }

    /// The name of the command and its arguments.
    fn words(&self) -> (&'static str, Vec<Value>) {
        match self {
            Self::Fields { key, names } => {
                let mut words: Vec<Value> = Vec::with_capacity(16);
                words.push((*key).into());
                match names {
                    Names::Header => words.extend(HEADER.map(Value::from_static_str)),
                    Names::Summary => words.extend(SUMMARY.map(Value::from_static_str)),
                    Names::Flags(names) => {
                        words.extend(names.iter().map(|name| Value::from(name.as_str())));
                    }
                }
                ("HMGET", words)
            }
            Self::Read {
                key,
                reader,
                lease,
                fill_grace_period,
            } => {
                let arguments = vec![
                    READ.into(),
                    Value::Integer(1),
                    (*key).into(),
                    unique_id().into(),
                    lease.as_millis().to_string().into(),
                    fill_grace_period.as_millis().to_string().into(),
                    (*reader).into(),
                ];
                ("EVAL", arguments)
            }
            Self::Run {
                script,
                key,
                arguments,
            } => {
                let mut words = Vec::with_capacity(3 + arguments.len());
                words.extend([script.text().into(), Value::Integer(1), (*key).into()]);
                words.extend(arguments.iter().map(|word| word.as_str().into()));
                ("EVAL", words)
            }
            Self::Ping => ("PING", Vec::new()),
            Self::Slots => ("CLUSTER", vec!["SLOTS".into()]),
        }
    }
}

/// Commands to send in one pipeline with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CommandOptions {
    pub(super) before: Before,
    /// Send `WAIT` after the command. The reply is then a list: the reply of the command, and the number of
    /// replicas that have acknowledged it.
    pub(super) wait: bool,
}

/// The command to send before another command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Before {
    #[default]
    Nothing,
    /// `READONLY`: a replica answers instead of redirecting to its primary. Sent before every command, because a
    /// new connection starts without this mode.
    ReadOnly,
    /// `ASKING`: a node that imports the slot answers although it does not own the slot yet.
    Asking,
}

const READ: &str = include_str!("scripts/read.lua");
/// How long an invalidation waits for the acknowledgement of a replica, so that it survives a primary that
/// dies right after it. A replica without lag acknowledges within a millisecond; waiting longer for a lagging
/// one would delay all other commands on this connection.
const REPLICATION_TIMEOUT: Duration = Duration::from_millis(50);
/// The additional time of a command that waits for a replica. An idle Redis checks timeouts ten times a
/// second, so `WAIT` may return 100 ms late.
pub(super) const REPLICATION_MARGIN: Duration =
    REPLICATION_TIMEOUT.saturating_add(Duration::from_millis(100));

/// The scripts of the protocol, except that of [`Command::Read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Fill,
    BeginWrite,
    EndWrite,
    Discard,
}

impl Script {
    /// The source. It is sent every time, because a restart of Redis removes loaded scripts, and scripts run only
    /// on misses and writes.
    fn text(self) -> &'static str {
        match self {
            Self::Fill => include_str!("scripts/fill.lua"),
            Self::BeginWrite => include_str!("scripts/begin_write.lua"),
            Self::EndWrite => include_str!("scripts/end_write.lua"),
            Self::Discard => include_str!("scripts/discard.lua"),
        }
    }
}

/// A text in a reply: a part of the received bytes, without a copy.
pub(super) type Text = Str;

/// A reply of Redis.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Nothing,
    Number(i64),
    Text(Text),
    List(Vec<Reply>),
    /// The key holds something that is not a hash.
    WrongType,
    /// Bytes that are not UTF-8, or a type of reply that none of the commands has.
    Malformed,
}

impl Reply {
    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nothing | Self::Number(_) | Self::List(_) | Self::WrongType | Self::Malformed => {
                None
            }
        }
    }
}

/// Why there is no usable reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No reply in time. The connection may be dead.
    TimedOut,
    /// There is no connection.
    NotConnected(String),
    /// An error reply (OOM, LOADING, READONLY, NOAUTH, …), or a setting with which no connection is possible.
    Refused(String),
    /// Another node of the cluster serves this key.
    Moved(Address),
    /// Another node of the cluster imports the slot of this key and may have the key already.
    Ask(Address),
}

impl Failure {
    /// A short name for logs.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::NotConnected(_) => "not_connected",
            Self::Refused(_) => "refused",
            Self::Moved(_) | Self::Ask(_) => "redirected",
        }
    }

    /// Classifies an error reply.
    fn of_reply(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let address = |text: &str| Address::parse(text);
        match words.as_slice() {
            ["MOVED", _slot, to] => address(to).map(Self::Moved),
            ["ASK", _slot, to] => address(to).map(Self::Ask),
            _ => None,
        }
        .unwrap_or_else(|| Self::Refused(text.to_owned()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut => formatter.write_str("no reply in time"),
            Self::NotConnected(why) => write!(formatter, "not connected: {why}"),
            Self::Refused(why) => write!(formatter, "refused: {why}"),
            Self::Moved(to) | Self::Ask(to) => write!(
                formatter,
                "redirected to {to}: the URL of a cluster must begin with redis-cluster:// or \
                 rediss-cluster://, or be in REDIS_CLUSTER_URL"
            ),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::TimedOut {
            Self::TimedOut
        } else {
            Self::NotConnected(error.to_string())
        }
    }
}

impl From<FredError> for Failure {
    fn from(error: FredError) -> Self {
        match error.kind() {
            ErrorKind::Timeout => Self::TimedOut,
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Tls
            | ErrorKind::Protocol
            | ErrorKind::Parse
            | ErrorKind::Backpressure => Self::NotConnected(error.to_string()),
            ErrorKind::Config
            | ErrorKind::Auth
            | ErrorKind::InvalidCommand
            | ErrorKind::InvalidArgument
            | ErrorKind::Url
            | ErrorKind::Unknown
            | ErrorKind::Cluster
            | ErrorKind::Sentinel
            | ErrorKind::NotFound => Self::of_reply(error.details()),
        }
    }
}

/// Connections to one Redis server, and their tasks. Dropping it closes the connections and stops the tasks.
pub(super) struct Connections {
    pool: FredPool,
    tasks: Vec<ConnectHandle>,
    /// For each connection, fred's events: one for each time that fred has replaced it after a loss.
    replaced: Mutex<Vec<Receiver<Server>>>,
}

impl Drop for Connections {
    fn drop(&mut self) {
        // fred's `quit` can block for seconds and dropping its pool leaks these tasks.
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connections {
    /// Opens all connections concurrently.
    ///
    /// # Errors
    /// [`Failure`] if a connection is not established `within` this time.
    pub(super) async fn open(
        url: &RedisUrl,
        address: &Address,
        config: &CacheConfig,
        within: Duration,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + within;
        let server = server(address, deadline).await?;
        let pool = build(url, server, config)?;
        let tasks = pool.connect_pool();
        let connections = Self {
            pool,
            tasks,
            replaced: Mutex::default(),
        };
        let connected = connections.pool.wait_for_connect();
        match tokio::time::timeout_at(deadline.into(), connected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => return Err(Failure::TimedOut),
        }
        // After the first connection, which causes an event too.
        let clients = connections.pool.clients().iter();
        *connections.lock_replaced() = clients.map(EventInterface::reconnect_rx).collect();
        Ok(connections)
    }

    /// Whether fred has replaced a connection since the last call.
    pub(super) fn were_replaced(&self) -> bool {
        let mut receivers = self.lock_replaced();
        let mut were_replaced = false;
        for receiver in &mut *receivers {
            if !receiver.is_empty() {
                were_replaced = true;
                *receiver = receiver.resubscribe();
            }
        }
        were_replaced
    }

    fn lock_replaced(&self) -> std::sync::MutexGuard<'_, Vec<Receiver<Server>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command once and waits at most `within` for the reply.
    pub(super) async fn send(
        &self,
        command: &Command<'_>,
        options: CommandOptions,
        within: Duration,
    ) -> Result<Reply, Failure> {
        // fred treats a timeout of zero as no timeout.
        let for_fred = Options {
            timeout: Some(within.max(Duration::from_millis(1))),
            fail_fast: true,
            max_attempts: Some(1),
            ..Options::default()
        };
        let client: &Client = self.pool.next();
        let client = client.with_options(&for_fred);
        let (name, words) = command.words();
        if options == CommandOptions::default() {
            return reply_of(client.custom(custom(name), words).await);
        }
        // A pipeline is written as a whole, so that no command of another request gets in between.
        let pipeline = Pipeline::from(client);
        let before = match options.before {
            Before::Nothing => None,
            Before::ReadOnly => Some("READONLY"),
            Before::Asking => Some("ASKING"),
        };
        if let Some(word) = before {
            queue(&pipeline, word, Vec::new()).await?;
        }
        queue(&pipeline, name, words).await?;
        if !options.wait {
            return reply_of(pipeline.last().await);
        }
        let wait = vec![
            Value::Integer(1),
            Value::Integer(i64::try_from(REPLICATION_TIMEOUT.as_millis()).unwrap_or(1)),
        ];
        queue(&pipeline, "WAIT", wait).await?;
        // On a timeout or a lost connection this is one error for the whole pipeline, so it is checked before the reply
        // to `before` is dropped.
        let replies = pipeline.try_all::<Value>().await.into_iter().map(reply_of);
        let replies = replies.collect::<Result<Vec<Reply>, _>>()?;
        let replies = replies.into_iter().skip(before.iter().len());
        Ok(Reply::List(replies.collect()))
    }

    /// Whether a connection has stopped reconnecting.
    pub(super) fn are_dead(&self) -> bool {
        self.tasks.iter().any(ConnectHandle::is_finished)
    }

    /// How many connections are open right now.
    pub(super) fn count(&self) -> usize {
        self.pool
            .clients()
            .iter()
            .map(|client| client.active_connections().len())
            .sum()
    }
}

/// A command by name. Its hash slot is irrelevant, because fred knows one server only.
fn custom(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

async fn queue<C: ClientLike>(
    pipeline: &Pipeline<C>,
    name: &'static str,
    words: Vec<Value>,
) -> Result<(), Failure> {
    let _queued: Value = pipeline.custom(custom(name), words).await?;
    Ok(())
}

fn reply_of(answer: Result<Value, FredError>) -> Result<Reply, Failure> {
    match answer {
        Ok(value) => Ok(value.into()),
        Err(error) if error.details().starts_with("WRONGTYPE") => Ok(Reply::WrongType),
        Err(error) => Err(error.into()),
    }
}

/// The server to connect to: a reachable IP address, and the host name that its certificate must have.
async fn server(address: &Address, deadline: Instant) -> Result<ServerConfig, Failure> {
    let ip = address.reach(deadline).await?;
    let host = if ip.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip.to_string()
    };
    let name = Some(address.host().to_owned());
    Ok(ServerConfig::Centralized {
        server: Server::new_with_tls(host, address.port(), name),
    })
}

fn build(url: &RedisUrl, server: ServerConfig, config: &CacheConfig) -> Result<FredPool, Failure> {
    let fred_config = FredConfig {
        server,
        username: url.username.clone(),
        password: url
            .password
            .as_ref()
            .map(|secret| secret.expose().to_owned()),
        database: (!url.cluster && url.database > 0).then_some(url.database),
        tls: tls_config(url, config)?,
        ..FredConfig::default()
    };
    // Unlimited attempts: with a limit, the client would stop reconnecting after a long outage. The executor limits the
    // time. The default jitter costs up to 100 ms.
    let mut reconnect = ReconnectPolicy::new_exponential(0, 5, 250, 2);
    reconnect.set_jitter(5);
    let mut builder = Builder::from_config(fred_config);
    builder
        .set_policy(reconnect)
        .with_performance_config(|performance| {
            // Applies to fred's own commands; `send` sets a timeout for each of ours.
            performance.default_command_timeout = Duration::from_millis(250);
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = config.connect_timeout;
            connection.internal_command_timeout = config.connect_timeout;
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
            // The executor handles LOADING and READONLY.
            connection.reconnect_errors = Vec::new();
        });
    // The setting is for a single node. In a cluster, an instance has one connection to each node in use.
    let size = if url.cluster { 1 } else { config.pool_size };
    Ok(builder.build_pool(size)?)
}

fn tls_config(url: &RedisUrl, config: &CacheConfig) -> Result<Option<TlsConfig>, Failure> {
    if !url.tls {
        return Ok(None);
    }
    let authorities = match &config.ca_file {
        Some(path) => tls::Authorities::File(path),
        None => tls::Authorities::Public,
    };
    let client_config = tls::client_config(&authorities).map_err(Failure::Refused)?;
    let connector: TlsConnector = client_config.into();
    Ok(Some(connector.into()))
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::Integer(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Bytes(bytes) => Text::from_inner(bytes).map_or(Self::Malformed, Self::Text),
            Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            Value::Boolean(_) | Value::Double(_) | Value::Queued | Value::Map(_) => Self::Malformed,
        }
    }
}
