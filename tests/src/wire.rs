//! A TCP proxy between a function and a real server, which a test can cut, delay and corrupt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::rng::Rng;

/// How the proxy behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// All bytes pass.
    Open,
    /// Refuses connections, and closes open ones.
    Refuse,
    /// Accepts connections and keeps them open, but no bytes pass.
    Hang,
    /// Answers every command of the cache protocol by these bytes and does not forward it; other commands pass.
    Answer(Vec<u8>),
    /// Cuts every reply, and its connection, after this many bytes.
    CutReply(usize),
    /// Cuts the connection at this many reads with commands of the cache protocol; then all bytes pass.
    FailFirst(usize),
    /// Delays replies.
    Delay(Duration),
    /// Forwards replies in pieces of 1 kB, with a pause before each.
    SlowReplies(Duration),
    /// Forwards requests of more than `SHORT_REQUEST` bytes in such pieces; shorter requests and replies pass.
    SlowRequests(Duration),
    /// Some requests of the cache protocol that contain a text lose their connection.
    Lose {
        /// The text.
        text: &'static str,
        /// How many of a hundred such requests lose their connection.
        percent: u32,
        /// How many of a hundred lost requests arrive, so that only the reply is lost.
        arriving_percent: u32,
    },
    /// In requests of the cache protocol, replaces the first text of each pair by the second, which has the same
    /// length. Removing a check from a script in this way shows what the check prevents.
    Replace(&'static [(&'static str, &'static str)]),
}

impl Mode {
    /// The pause before each piece of a request of this length.
    fn pause_in_request(&self, length: usize) -> Duration {
        if let Self::SlowRequests(pause) = self
            && length > SHORT_REQUEST
        {
            return *pause;
        }
        Duration::ZERO
    }
}

/// Requests up to this size pass at once in [`Mode::SlowRequests`].
const SHORT_REQUEST: usize = 8 * 1024;

/// A proxy to one server.
pub struct Wire {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    requests: Arc<AtomicUsize>,
    commands: Arc<Mutex<Vec<Instant>>>,
    /// Raised by [`make_half_open`](Self::make_half_open). Connections from before the last call forward no requests.
    era: Arc<AtomicUsize>,
}

/// The listener of a wire, whose port is known before the wire exists.
pub struct WireListener {
    listener: std::net::TcpListener,
    server_port: u16,
}

impl WireListener {
    /// Binds a port for a wire to the server on this port.
    pub fn to(server_port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        Self {
            listener,
            server_port,
        }
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }
}

impl Wire {
    /// Creates an open wire to a port on this machine.
    pub fn to(port: u16) -> Self {
        Self::on(WireListener::to(port))
    }

    /// Creates an open wire that uses this listener.
    pub fn on(reserved: WireListener) -> Self {
        let port = reserved.server_port;
        reserved.listener.set_nonblocking(true).expect("it can");
        let listener = TcpListener::from_std(reserved.listener).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (mode, watcher) = watch::channel(Mode::Open);
        let requests = Arc::new(AtomicUsize::new(0));
        let commands = Arc::default();
        let era = Arc::new(AtomicUsize::new(0));
        let backend = Backend {
            port,
            mode: mode.clone(),
            failures: Arc::new(Mutex::new(0)),
            requests: requests.clone(),
            commands: Arc::clone(&commands),
            era: era.clone(),
            rng: Rng::new(u64::from(port)),
        };
        tokio::spawn(listen(Some(listener), address, backend, watcher));
        Self {
            address,
            mode,
            requests,
            commands,
            era,
        }
    }

    /// Drops all further requests on existing connections without closing them, as after a firewall has forgotten
    /// these. New connections work.
    pub fn make_half_open(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
    }

    /// How many chunks of requests have arrived.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// When each command of the cache protocol arrived. A command that is sent twice counts twice.
    pub fn commands(&self) -> Vec<Instant> {
        self.commands.lock().expect("not poisoned").clone()
    }

    /// The port to connect to instead of the server's.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether all bytes pass.
    pub fn is_open(&self) -> bool {
        *self.mode.borrow() == Mode::Open
    }

    /// Sets the mode. When this returns, the port is closed or open accordingly; bytes that were read before may still pass.
    pub async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode.clone());
        // In mode Refuse the port is closed: wait until it is, or until it is open again.
        crate::eventually("the wire switches", async || {
            TcpStream::connect(self.address).await.is_ok() == (mode != Mode::Refuse)
        })
        .await;
    }
}

/// The server behind a wire, and the state that its connections share.
#[derive(Clone)]
struct Backend {
    port: u16,
    mode: watch::Sender<Mode>,
    failures: Arc<Mutex<usize>>,
    requests: Arc<AtomicUsize>,
    commands: Arc<Mutex<Vec<Instant>>>,
    era: Arc<AtomicUsize>,
    rng: Rng,
}

impl Backend {
    /// Records that this many commands have arrived.
    fn note(&self, commands: usize) {
        let mut arrivals = self.commands.lock().expect("not poisoned");
        arrivals.extend(std::iter::repeat_n(Instant::now(), commands));
    }
}

async fn listen(
    mut listener: Option<TcpListener>,
    address: SocketAddr,
    backend: Backend,
    mut watcher: watch::Receiver<Mode>,
) {
    let mut reserved = None;
    loop {
        if *watcher.borrow_and_update() == Mode::Refuse {
            drop(listener.take());
            reserved = reserved.or_else(|| reserve(address).ok());
        } else if listener.is_none() {
            listener = match reserved.take() {
                Some(socket) => open(socket).ok(),
                None => TcpListener::bind(address).await.ok(),
            };
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watcher.changed() => {
                if changed.is_err() {
                    return;
                }
                *backend.failures.lock().expect("not poisoned") = 0;
            }
            client = accepted => {
                if let Ok((client, _)) = client {
                    tokio::spawn(forward(client, backend.clone()));
                }
            }
        }
    }
}

/// Keeps an address while connections to it are refused: otherwise the system could give its port to another test.
fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections that were just closed may still use the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // Nobody else may bind it.
    socket.set_reuseaddr(false)?;
    Ok(socket)
}

fn open(socket: TcpSocket) -> std::io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.listen(1024)
}

/// Forwards one connection until one side closes it or the mode does.
async fn forward(client: TcpStream, backend: Backend) {
    let mut mode = backend.mode.subscribe();
    let Ok(server) = TcpStream::connect(("127.0.0.1", backend.port)).await else {
        return;
    };
    // Otherwise a small write may wait 40 ms for a delayed acknowledgement.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let era = backend.era.load(Ordering::Relaxed);
    let mut request = vec![0; 64 * 1024];
    let mut reply = vec![0; 64 * 1024];
    loop {
        let now = mode.borrow_and_update().clone();
        if now == Mode::Refuse {
            return;
        }
        let hangs = now == Mode::Hang;
        tokio::select! {
            // Otherwise bytes that have arrived could be handled in the old mode.
            biased;
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() == Mode::Refuse {
                    return;
                }
            }
            read = from_client.read(&mut request), if !hangs => {
                let Ok(length @ 1..) = read else { return };
                if era != backend.era.load(Ordering::Relaxed) {
                    continue;
                }
                let bytes = &request[..length];
                backend.requests.fetch_add(1, Ordering::Relaxed);
                let commands = count_commands(bytes);
                if commands > 0 {
                    backend.note(commands);
                    if let Mode::Answer(answer) = &now {
                        if to_client.write_all(&answer.repeat(commands)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    if let Mode::Lose {
                        text,
                        percent,
                        arriving_percent,
                    } = now
                        && String::from_utf8_lossy(bytes).contains(text)
                        && backend.rng.roll(100) < percent
                    {
                        if backend.rng.roll(100) < arriving_percent {
                            let _lost_anyway = to_server.write_all(bytes).await;
                        }
                        return;
                    }
                    if let Mode::Replace(pairs) = now {
                        let changed = replace_texts(bytes, pairs);
                        if to_server.write_all(&changed).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    if let Mode::FailFirst(limit) = now {
                        let mut failed = backend.failures.lock().expect("not poisoned");
                        *failed += 1;
                        if *failed >= limit {
                            backend.mode.send_replace(Mode::Open);
                        }
                        return;
                    }
                }
                let pause = now.pause_in_request(length);
                if write_slowly(&mut to_server, bytes, pause).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut reply), if !hangs => {
                let Ok(length @ 1..) = read else { return };
                let mut bytes = &reply[..length];
                let mut pause = Duration::ZERO;
                match &now {
                    Mode::CutReply(limit) => bytes = &bytes[..length.min(*limit)],
                    Mode::Delay(time) => tokio::time::sleep(*time).await,
                    Mode::SlowReplies(time) => pause = *time,
                    Mode::Open
                    | Mode::SlowRequests(_)
                    | Mode::Refuse
                    | Mode::Hang
                    | Mode::Answer(_)
                    | Mode::FailFirst(_)
                    | Mode::Lose { .. }
                    | Mode::Replace(_) => {}
                }
                if write_slowly(&mut to_client, bytes, pause).await.is_err() || matches!(now, Mode::CutReply(_)) {
                    return;
                }
            }
        }
    }
}

/// Writes in pieces of 1 kB with a pause before each, or at once if the pause is zero.
async fn write_slowly(
    to: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
    pause: Duration,
) -> std::io::Result<()> {
    if pause.is_zero() {
        return to.write_all(bytes).await;
    }
    for piece in bytes.chunks(1_000) {
        tokio::time::sleep(pause).await;
        to.write_all(piece).await?;
    }
    Ok(())
}

fn replace_texts(bytes: &[u8], pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for (from, to) in pairs {
        assert_eq!(from.len(), to.len(), "{from:?} and {to:?} differ in length");
        let places: Vec<usize> = (0..=changed.len().saturating_sub(from.len()))
            .filter(|at| changed[*at..].starts_with(from.as_bytes()))
            .collect();
        for at in places {
            changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    changed
}

/// How many commands of the cache protocol, `HMGET` and `EVAL`, begin in these bytes.
fn count_commands(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    text.matches("\r\nHMGET\r\n").count() + text.matches("\r\nEVAL\r\n").count()
}

/// A server that answers every request with this text, or not at all if it is empty. Returns its port.
pub async fn answering(text: &'static str) -> u16 {
    answering_in_turn(vec![text.to_owned()]).await
}

/// Like [`answering`], with a text for each request; the last one is repeated.
pub async fn answering_in_turn(texts: Vec<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let texts = Arc::new(texts);
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (texts, requests) = (Arc::clone(&texts), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    let turn = requests.fetch_add(1, Ordering::Relaxed);
                    let text = &texts[turn.min(texts.len() - 1)];
                    if !text.is_empty() && stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A port that neither accepts nor refuses connections: a listener whose queue is full drops SYN packets, like a
/// security group without a rule.
pub struct BlackHole {
    listener: std::net::TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

impl BlackHole {
    /// Creates one.
    pub fn open() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        // Fill the queue until connections are no longer accepted.
        let mut waiting = Vec::new();
        loop {
            let timeout = Duration::from_millis(200);
            match std::net::TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => waiting.push(stream),
                Err(_full) => break,
            }
        }
        Self {
            listener,
            _waiting: waiting,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }
}
