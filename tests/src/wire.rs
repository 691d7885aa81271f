//! A TCP connection that a test can cut, delay and corrupt, between a function and a real server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::rng::Rng;

/// How the wire behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Open,
    /// Refuses connections, and closes those that are open.
    Refuse,
    /// Connections are made and kept, and nothing passes.
    Hang,
    /// Every reply to a command of the cache protocol is these bytes; other commands pass.
    Answer(Vec<u8>),
    /// Every reply is cut off after so many bytes, and the connection with it.
    CutReply(usize),
    /// So many commands of the cache protocol are answered by a cut connection; then it opens.
    FailFirst(usize),
    /// Replies come late.
    Delay(Duration),
    /// So many of a hundred messages that hold this text take their connection down: half of them
    /// before they arrive, half after, so that only the reply is lost.
    Lose {
        /// The text.
        text: &'static str,
        /// How many of a hundred.
        percent: u32,
    },
    /// In requests, the first text of a pair is replaced by the second, which is as long. That is
    /// how a run shows what a script's check is good for: by taking it out on the way.
    Forge(&'static [(&'static str, &'static str)]),
}

/// A wire to one server.
pub struct Wire {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    requests: Arc<AtomicUsize>,
    commands: Arc<Mutex<Vec<Instant>>>,
    era: Arc<AtomicUsize>,
}

/// The end of a wire whose port is known before the wire is laid.
pub struct Plug {
    listener: std::net::TcpListener,
    behind: u16,
}

impl Plug {
    /// A plug for a server on that port.
    pub fn to(behind: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { listener, behind }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }
}

impl Wire {
    /// Lays an open wire to a port on this machine.
    pub fn to(port: u16) -> Self {
        Self::on(Plug::to(port))
    }

    /// Lays an open wire that begins at this plug.
    pub fn on(plug: Plug) -> Self {
        let port = plug.behind;
        plug.listener.set_nonblocking(true).expect("it can");
        let listener = TcpListener::from_std(plug.listener).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (mode, watcher) = watch::channel(Mode::Open);
        let requests = Arc::new(AtomicUsize::new(0));
        let commands = Arc::default();
        let era = Arc::new(AtomicUsize::new(0));
        let far_end = FarEnd {
            port,
            switch: mode.clone(),
            failures: Arc::new(Mutex::new(0)),
            requests: requests.clone(),
            commands: Arc::clone(&commands),
            era: era.clone(),
            rng: Rng::new(u64::from(port)),
        };
        tokio::spawn(listen(Some(listener), address, far_end, watcher));
        Self {
            address,
            mode,
            requests,
            commands,
            era,
        }
    }

    /// From now on nothing passes on the connections that exist, and they stay open; new ones are as
    /// good as before. That is what is left of a connection when a firewall has forgotten it.
    pub fn abandon(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
    }

    /// How many pieces of requests have come in so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// When each command of the cache protocol arrived, from the first one on. A command that is sent
    /// again arrives again.
    pub fn commands(&self) -> Vec<Instant> {
        self.commands.lock().expect("not poisoned").clone()
    }

    /// Where to connect instead.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        *self.mode.borrow() == Mode::Open
    }

    /// Behaves like this from now on, and does so when this returns.
    pub async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode.clone());
        // Refusing means that the port is closed: wait until it is, or is open again.
        crate::eventually("the wire switches", async || {
            TcpStream::connect(self.address).await.is_ok() == (mode != Mode::Refuse)
        })
        .await;
    }
}

/// Where a wire leads, and what its connections share.
#[derive(Clone)]
struct FarEnd {
    port: u16,
    switch: watch::Sender<Mode>,
    failures: Arc<Mutex<usize>>,
    requests: Arc<AtomicUsize>,
    commands: Arc<Mutex<Vec<Instant>>>,
    era: Arc<AtomicUsize>,
    rng: Rng,
}

impl FarEnd {
    /// So many commands arrive right now.
    fn note(&self, commands: usize) {
        let mut arrivals = self.commands.lock().expect("not poisoned");
        arrivals.extend(std::iter::repeat_n(Instant::now(), commands));
    }
}

async fn listen(
    mut listener: Option<TcpListener>,
    address: SocketAddr,
    far_end: FarEnd,
    mut watcher: watch::Receiver<Mode>,
) {
    loop {
        if *watcher.borrow_and_update() == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
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
                *far_end.failures.lock().expect("not poisoned") = 0;
            }
            client = accepted => {
                if let Ok((client, _)) = client {
                    tokio::spawn(carry(client, far_end.clone()));
                }
            }
        }
    }
}

/// Carries one connection until one side ends it or the mode does.
async fn carry(client: TcpStream, far_end: FarEnd) {
    let mut mode = far_end.switch.subscribe();
    let Ok(server) = TcpStream::connect(("127.0.0.1", far_end.port)).await else {
        return;
    };
    // Otherwise a small write waits for the acknowledgement of the one before, which comes 40 ms late.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let era = far_end.era.load(Ordering::Relaxed);
    let mut request = vec![0; 64 * 1024];
    let mut reply = vec![0; 64 * 1024];
    loop {
        let now = mode.borrow_and_update().clone();
        let hangs = now == Mode::Hang;
        tokio::select! {
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() == Mode::Refuse {
                    return;
                }
            }
            read = from_client.read(&mut request), if !hangs => {
                let Ok(length @ 1..) = read else { return };
                if era != far_end.era.load(Ordering::Relaxed) {
                    continue;
                }
                let bytes = &request[..length];
                far_end.requests.fetch_add(1, Ordering::Relaxed);
                let commands = count_commands(bytes);
                if commands > 0 {
                    far_end.note(commands);
                    if let Mode::Answer(answer) = &now {
                        if to_client.write_all(&answer.repeat(commands)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    if let Mode::Lose { text, percent } = now
                        && String::from_utf8_lossy(bytes).contains(text)
                        && far_end.rng.roll(100) < percent
                    {
                        if far_end.rng.roll(2) == 0 {
                            let _lost_anyway = to_server.write_all(bytes).await;
                        }
                        return;
                    }
                    if let Mode::Forge(pairs) = now {
                        let forged = forge(bytes, pairs);
                        if to_server.write_all(&forged).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    if let Mode::FailFirst(limit) = now {
                        let mut failed = far_end.failures.lock().expect("not poisoned");
                        *failed += 1;
                        if *failed >= limit {
                            far_end.switch.send_replace(Mode::Open);
                        }
                        return;
                    }
                }
                if to_server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut reply), if !hangs => {
                let Ok(length @ 1..) = read else { return };
                let mut bytes = &reply[..length];
                match &now {
                    Mode::CutReply(limit) => bytes = &bytes[..length.min(*limit)],
                    Mode::Delay(time) => tokio::time::sleep(*time).await,
                    Mode::Open
                    | Mode::Refuse
                    | Mode::Hang
                    | Mode::Answer(_)
                    | Mode::FailFirst(_)
                    | Mode::Lose { .. }
                    | Mode::Forge(_) => {}
                }
                if to_client.write_all(bytes).await.is_err() || matches!(now, Mode::CutReply(_)) {
                    return;
                }
            }
        }
    }
}

fn forge(bytes: &[u8], pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut forged = bytes.to_vec();
    for (from, to) in pairs {
        assert_eq!(from.len(), to.len(), "the protocol counts bytes");
        let places: Vec<usize> = (0..forged.len().saturating_sub(from.len()))
            .filter(|at| forged[*at..].starts_with(from.as_bytes()))
            .collect();
        for at in places {
            forged[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    forged
}

/// How many commands of the cache protocol begin in these bytes.
fn count_commands(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    text.matches("\r\nHMGET\r\n").count() + text.matches("\r\nEVAL\r\n").count()
}

/// A port where every connection gets this text after its first bytes, or silence for "".
pub async fn answering(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    if !text.is_empty() && stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A port that accepts no connection and refuses none: a listener whose queue is full drops SYN
/// packets, as a wrong security group does.
pub struct BlackHole {
    listener: std::net::TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

impl BlackHole {
    /// Makes one.
    pub fn dig() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        // Fill the queue until connections stop coming through.
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

    /// Where not to connect.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }
}
