//! The Redis of a deployment in each supported topology, behind wires. A test that must pass on every topology takes
//! one as its parameter.

use std::sync::Mutex;
use std::time::Instant;

use crate::certificates::Certificates;
use crate::cluster::{Cluster, PASSWORD, Shape};
use crate::redis::{Redis, Resp};
use crate::wire::{Mode, Wire};

/// How many servers there are, and whether they use TLS and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Three primaries.
    Cluster,
    /// One server with TLS and a password.
    SecuredSingle,
    /// Three primaries with TLS and a password, as on ElastiCache.
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

    /// The log message of a function that has connected.
    pub fn success(self) -> &'static str {
        if self.is_cluster() {
            "Connected to Redis Cluster"
        } else {
            "Redis connected"
        }
    }

    /// The log message of a function that cannot reach Redis.
    pub fn failure(self) -> &'static str {
        if self.is_cluster() {
            "Redis Cluster unavailable, falling back to database"
        } else {
            "Redis connection failed, using fallback"
        }
    }
}

/// One or several servers, with a wire to each.
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
    /// Starts servers in this topology.
    pub async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single => Self::of(Redis::start()),
            Topology::SecuredSingle => {
                let (redis, port) = Redis::start_encrypted(Certificates::shared(), PASSWORD);
                Self {
                    nodes: Nodes::Single(redis),
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

    /// Uses this single server.
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
        let mut cluster = take_prestarted(shape);
        cluster.wait().await;
        let wires = cluster.wires();
        Self {
            nodes: Nodes::Cluster(cluster),
            wires,
            secured: shape.secured,
        }
    }

    /// Its URL through the wire.
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

    /// The port of the server with production's entry, without its wire; for unencrypted servers.
    pub fn port(&self) -> u16 {
        self.production_node().port()
    }

    /// The URL of a single server without its wire.
    pub fn direct_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The variables with which a function connects and verifies certificates.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("REDIS_URL".to_owned(), self.url())];
        if self.secured {
            let file = Certificates::shared().file("ca.pem");
            environment.push(("REDIS_CA_FILE".to_owned(), file));
        }
        environment
    }

    /// Sets the mode of every wire.
    pub async fn set(&self, mode: Mode) {
        for wire in &self.wires {
            wire.set(mode.clone()).await;
        }
    }

    /// The log message of a function that cannot reach Redis.
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

    /// When each command of the cache protocol arrived at any wire, in order.
    pub fn commands(&self) -> Vec<Instant> {
        let mut arrivals: Vec<Instant> = self.wires.iter().flat_map(Wire::commands).collect();
        arrivals.sort();
        arrivals
    }

    /// See [`Wire::make_half_open`].
    pub fn make_half_open(&self) {
        for wire in &self.wires {
            wire.make_half_open();
        }
    }

    /// SIGKILL to every server.
    pub fn kill(&mut self) {
        for redis in self.servers_mut() {
            redis.kill();
        }
    }

    /// Starts all servers again, and waits until a cluster works.
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

    /// Executes a command on the server with production's entry.
    pub fn command(&self, words: &[&str]) -> Resp {
        self.production_node().command(words)
    }

    /// See [`Redis::fields`].
    pub fn fields(&self) -> Vec<(String, String)> {
        self.production_node().fields()
    }

    /// See [`Redis::has_entry`].
    pub fn has_entry(&self) -> bool {
        self.production_node().has_entry()
    }

    /// How often the server with production's entry has executed a command.
    pub fn calls(&self, command: &str) -> u64 {
        self.production_node().calls(command)
    }

    /// The number of client connections to all servers.
    pub async fn count_clients(&self) -> usize {
        let mut count = 0;
        for redis in self.servers() {
            count += redis.count_clients().await;
        }
        count
    }

    /// The server with the entry of the environment `production`: its slot (16114) belongs to the last primary. Tests
    /// that take a `Topology` start no failover, so this does not change.
    fn production_node(&self) -> &Redis {
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

/// A new cluster needs two seconds and a test about one, so concurrent tests use up to this many clusters before new
/// ones are ready.
const PRESTARTED: usize = 4;

/// The clusters of one shape that are started in advance.
struct Reserve {
    /// The oldest first.
    started: Vec<Cluster>,
    /// How many are starting.
    starting: usize,
}

impl Reserve {
    const EMPTY: Self = Self {
        started: Vec::new(),
        starting: 0,
    };

    /// Takes the oldest cluster, if there is one, and says how many must be started.
    fn take(&mut self) -> (Option<Cluster>, usize) {
        let oldest = (!self.started.is_empty()).then(|| self.started.remove(0));
        let missing = PRESTARTED.saturating_sub(self.started.len() + self.starting);
        self.starting += missing;
        (oldest, missing)
    }
}

/// Counts a cluster as starting until this is dropped: as soon as the cluster has started or its test has ended.
struct Starting(&'static Mutex<Reserve>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned").starting -= 1;
    }
}

/// Takes a cluster that was started in advance, or starts one if there is none. The nodes of a cluster need two seconds
/// before they accept commands; this time passes while other tests run.
fn take_prestarted(shape: Shape) -> Cluster {
    static PLAIN: Mutex<Reserve> = Mutex::new(Reserve::EMPTY);
    static SECURED: Mutex<Reserve> = Mutex::new(Reserve::EMPTY);
    let reserve = if shape.secured { &SECURED } else { &PLAIN };
    let (cluster, missing) = reserve.lock().expect("not poisoned").take();
    for _ in 0..missing {
        let starting = Starting(reserve);
        tokio::task::spawn_blocking(move || {
            let cluster = Cluster::start(shape);
            reserve.lock().expect("not poisoned").started.push(cluster);
            drop(starting);
        });
    }
    match cluster {
        Some(cluster) => cluster,
        None => Cluster::start(shape),
    }
}
