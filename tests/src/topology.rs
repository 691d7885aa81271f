//! The Redis of a deployment in each supported topology, behind wires. A test that must hold on every
//! topology takes one as its parameter.

use std::sync::Mutex;
use std::time::Instant;

use crate::certificates::Certificates;
use crate::cluster::{Cluster, PASSWORD, Shape};
use crate::process::free_port;
use crate::redis::{Redis, Resp};
use crate::wire::{Mode, Wire};

/// How many servers there are, and whether they are secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Three primaries.
    Cluster,
    /// One server, encrypted and with a password.
    SecuredSingle,
    /// Three primaries, encrypted and with a password: what ElastiCache is.
    SecuredCluster,
}

impl Topology {
    /// Whether there are several nodes.
    pub fn is_cluster(self) -> bool {
        match self {
            Self::Single | Self::SecuredSingle => false,
            Self::Cluster | Self::SecuredCluster => true,
        }
    }

    /// The log line of a function that has connected.
    pub fn success(self) -> &'static str {
        if self.is_cluster() {
            "Connected to Redis Cluster"
        } else {
            "Redis connected"
        }
    }

    /// The log line of a function that cannot reach Redis.
    pub fn failure(self) -> &'static str {
        if self.is_cluster() {
            "Redis Cluster unavailable, falling back to database"
        } else {
            "Redis connection failed, using fallback"
        }
    }
}

/// One or several servers, and a wire to each.
pub struct WiredRedis {
    nodes: Nodes,
    wires: Vec<Wire>,
    secured: bool,
}

enum Nodes {
    Single(Redis),
    Cluster(Cluster),
}

impl WiredRedis {
    /// Starts servers in that shape.
    pub async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single => Self::of(Redis::start()),
            Topology::SecuredSingle => {
                let certificates = Certificates::shared();
                let port = free_port();
                let redis = Redis::start_with(&[
                    "--tls-port",
                    &port.to_string(),
                    "--tls-cert-file",
                    &certificates.file("server.pem"),
                    "--tls-key-file",
                    &certificates.file("server.key"),
                    "--tls-ca-cert-file",
                    &certificates.file("ca.pem"),
                    "--tls-auth-clients",
                    "no",
                    "--requirepass",
                    PASSWORD,
                ]);
                Self {
                    nodes: Nodes::Single(redis.with_password(PASSWORD)),
                    wires: vec![Wire::to(port)],
                    secured: true,
                }
            }
            Topology::Cluster => Self::cluster(Shape::WIRED).await,
            Topology::SecuredCluster => {
                Self::cluster(Shape {
                    secured: true,
                    ..Shape::WIRED
                })
                .await
            }
        }
    }

    /// This single server.
    pub fn of(redis: Redis) -> Self {
        let wires = vec![Wire::to(redis.port())];
        let nodes = Nodes::Single(redis);
        Self {
            nodes,
            wires,
            secured: false,
        }
    }

    async fn cluster(shape: Shape) -> Self {
        let mut cluster = reserved(shape);
        cluster.wait().await;
        let wires = cluster.wires();
        Self {
            nodes: Nodes::Cluster(cluster),
            wires,
            secured: shape.secured,
        }
    }

    /// Its URL, by the wire.
    pub fn url(&self) -> String {
        let scheme = match (&self.nodes, self.secured) {
            (Nodes::Single(_), false) => "redis://",
            (Nodes::Single(_), true) => "rediss://",
            (Nodes::Cluster(_), false) => "redis-cluster://",
            (Nodes::Cluster(_), true) => "rediss-cluster://",
        };
        let login = if self.secured {
            format!(":{PASSWORD}@")
        } else {
            String::new()
        };
        format!("{scheme}{login}127.0.0.1:{}", self.wires[0].port())
    }

    /// Where the server that has production's entry listens itself, for one that is in the clear.
    pub fn port(&self) -> u16 {
        self.home().port()
    }

    /// The URL of a single server without its wire.
    pub fn direct_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The variables by which a function finds and trusts it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("REDIS_URL".to_owned(), self.url())];
        if self.secured {
            let file = Certificates::shared().file("ca.pem");
            environment.push(("REDIS_CA_FILE".to_owned(), file));
        }
        environment
    }

    /// Every wire behaves like this from now on.
    pub async fn set(&self, mode: Mode) {
        for wire in &self.wires {
            wire.set(mode.clone()).await;
        }
    }

    /// The log line of a function that cannot reach Redis.
    pub fn failure(&self) -> &'static str {
        match &self.nodes {
            Nodes::Single(_) => Topology::Single.failure(),
            Nodes::Cluster(_) => Topology::Cluster.failure(),
        }
    }

    /// Whether clients can reach it.
    pub fn is_reachable(&self) -> bool {
        self.wires.iter().all(Wire::is_open) && self.servers().iter().all(Redis::runs)
    }

    /// When each command of the cache protocol arrived at any of the wires, in order.
    pub fn commands(&self) -> Vec<Instant> {
        let mut arrivals: Vec<Instant> = self.wires.iter().flat_map(Wire::commands).collect();
        arrivals.sort();
        arrivals
    }

    /// See [`Wire::abandon`].
    pub fn abandon(&self) {
        for wire in &self.wires {
            wire.abandon();
        }
    }

    /// SIGKILL to every server.
    pub fn kill(&mut self) {
        for redis in self.servers_mut() {
            redis.kill();
        }
    }

    /// Starts them again. Of a cluster, waits until it works.
    pub async fn restart(&mut self) {
        for redis in self.servers_mut() {
            redis.restart();
        }
        if let Nodes::Cluster(cluster) = &self.nodes {
            cluster.wait().await;
        }
    }

    /// SIGSTOP to every server.
    pub fn freeze(&self) {
        for redis in self.servers() {
            redis.freeze();
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        for redis in self.servers() {
            redis.thaw();
        }
    }

    /// Runs a command where production is.
    pub fn command(&self, words: &[&str]) -> Resp {
        self.home().command(words)
    }

    /// See [`Redis::fields`].
    pub fn fields(&self) -> Vec<(String, String)> {
        self.home().fields()
    }

    /// See [`Redis::has_entry`].
    pub fn has_entry(&self) -> bool {
        self.home().has_entry()
    }

    /// How often a command has run where production is.
    pub fn calls(&self, command: &str) -> u64 {
        self.home().calls(command)
    }

    /// How many connections others have to all servers.
    pub async fn count_clients(&self) -> usize {
        let mut count = 0;
        for redis in self.servers() {
            count += redis.count_clients().await;
        }
        count
    }

    /// The server that has production's entry. Which one that is does not change here.
    fn home(&self) -> &Redis {
        self.servers().last().expect("a server")
    }

    fn servers(&self) -> &[Redis] {
        match &self.nodes {
            Nodes::Single(redis) => std::slice::from_ref(redis),
            Nodes::Cluster(cluster) => &cluster.nodes,
        }
    }

    fn servers_mut(&mut self) -> &mut [Redis] {
        match &mut self.nodes {
            Nodes::Single(redis) => std::slice::from_mut(redis),
            Nodes::Cluster(cluster) => &mut cluster.nodes,
        }
    }
}

/// How many clusters of a shape wait for a test.
const AHEAD: usize = 4;

/// A cluster that was started before it was needed: its nodes wait two seconds before they answer,
/// and waiting costs nothing while other tests run.
fn reserved(shape: Shape) -> Cluster {
    static PLAIN: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());
    static SECURED: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());
    let reserve = if shape.secured { &SECURED } else { &PLAIN };
    let ready = |reserve: &Mutex<Vec<Cluster>>| {
        let mut clusters = reserve.lock().expect("not poisoned");
        (!clusters.is_empty()).then(|| clusters.remove(0))
    };
    let cluster = ready(reserve);
    // As many ahead as tests of a second each use up in two seconds.
    let missing = AHEAD.saturating_sub(reserve.lock().expect("not poisoned").len());
    for _ in 0..missing {
        tokio::task::spawn_blocking(move || {
            let cluster = Cluster::start(shape);
            reserve.lock().expect("not poisoned").push(cluster);
        });
    }
    match cluster {
        Some(cluster) => cluster,
        None => Cluster::start(shape),
    }
}
