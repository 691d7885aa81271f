//! A real Redis Cluster of local processes, with the commands of an operator and the faults of an outage.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::event::Event;
use crate::lambda::Function;
use crate::postgres::Database;
use crate::process::free_port;
use crate::redis::{Redis, Resp};
use crate::wire::{Wire, WireListener};

/// The password of secured clusters and servers.
pub const PASSWORD: &str = "s3cret";

/// The topology and the settings of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The number of primaries, which share the slots.
    pub shards: usize,
    /// The number of replicas of each primary.
    pub replicas: usize,
    /// The time without a reply after which nodes consider another node failed.
    pub node_timeout: Duration,
    /// Whether connections use TLS and a password.
    pub secured: bool,
    /// Whether nodes announce the addresses of wires instead of their own.
    pub wired: bool,
}

impl Shape {
    /// Three primaries with a replica each, as `scripts/redis-cluster` starts.
    pub const SIX_NODES: Self = Self {
        shards: 3,
        replicas: 1,
        node_timeout: Duration::from_millis(1_000),
        secured: false,
        wired: false,
    };
    /// One primary with two replicas, as in production. When the primary fails, no primary is left to elect a replica:
    /// see [`Cluster::take_over_by`].
    pub const ONE_SHARD: Self = Self {
        shards: 1,
        replicas: 2,
        // No test depends on failure detection by the nodes.
        node_timeout: Duration::from_secs(15),
        ..Self::SIX_NODES
    };
    /// Three primaries behind wires.
    pub const WIRED: Self = Self {
        replicas: 0,
        node_timeout: Duration::from_secs(15),
        wired: true,
        ..Self::SIX_NODES
    };
}

/// A cluster for one test.
pub struct Cluster {
    /// The nodes: the primaries, then the first replica of each primary, and so on.
    pub nodes: Vec<Redis>,
    ids: Vec<String>,
    shape: Shape,
    /// The ports at which clients reach the nodes.
    announced_ports: Vec<u16>,
    wire_listeners: Vec<WireListener>,
}

impl Cluster {
    /// Starts the nodes with their cluster state on disk, as after a restart. They accept commands after they have been
    /// in contact for two seconds; see [`Cluster::wait`].
    pub fn start(shape: Shape) -> Self {
        Self::start_from(shape, None)
    }

    /// Starts the nodes, each primary with the data of this RDB snapshot.
    pub fn start_from(shape: Shape, snapshot: Option<&Path>) -> Self {
        let count = shape.shards * (1 + shape.replicas);
        let ids: Vec<String> = (0..count)
            .map(|number| format!("{:040x}", number + 1))
            .collect();
        let ports: Vec<[u16; 3]> = (0..count)
            .map(|_| [free_port(), free_port(), free_port()])
            .collect();
        let mut wire_listeners = Vec::new();
        let announced_ports: Vec<u16> = ports
            .iter()
            .map(|[plain, _, tls]| {
                let behind = if shape.secured { *tls } else { *plain };
                if !shape.wired {
                    return behind;
                }
                let listener = WireListener::to(behind);
                let announced_port = listener.port();
                wire_listeners.push(listener);
                announced_port
            })
            .collect();
        let nodes = (0..count)
            .map(|own| {
                let [plain, bus, tls] = ports[own];
                let arguments = arguments(&shape, bus, tls, announced_ports[own]);
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let mut node = Redis::prepare(plain, &words);
                if shape.secured {
                    node = node.with_password(PASSWORD);
                }
                let state = nodes_conf(&shape, own, &ids, &ports, &announced_ports);
                std::fs::write(node.folder().join("nodes.conf"), state).expect("writes");
                if let (Some(snapshot), true) = (snapshot, own < shape.shards) {
                    std::fs::copy(snapshot, node.snapshot()).expect("copies");
                }
                node.restart();
                node
            })
            .collect();
        Self {
            nodes,
            ids,
            shape,
            announced_ports,
            wire_listeners,
        }
    }

    /// Starts a cluster and waits until all of its nodes agree that it works.
    pub async fn start_and_wait(shape: Shape) -> Self {
        let cluster = Self::start(shape);
        cluster.wait().await;
        cluster
    }

    /// Waits until every running node reports `cluster_state:ok` and announces all running nodes to clients. A node
    /// announces a replica after the replica's first successful synchronisation.
    pub async fn wait(&self) {
        crate::eventually("the cluster works", async || {
            self.nodes.iter().filter(|node| node.runs()).all(|node| {
                reply_contains(node, &["CLUSTER", "INFO"], "cluster_state:ok")
                    && self.lists_all_nodes(node)
            })
        })
        .await;
    }

    fn lists_all_nodes(&self, node: &Redis) -> bool {
        let running = self.nodes.iter().zip(&self.announced_ports);
        let mut running = running.filter(|(node, _)| node.runs());
        match node.try_command(&["CLUSTER", "SLOTS"]) {
            Some(slots) => {
                let slots = format!("{slots:?}");
                let names = |port: u16| slots.contains(&format!("Number({port})"));
                // Valkey announces unencrypted ports to a client without TLS, such as this one.
                running.all(|(node, announced_port)| names(*announced_port) || names(node.port()))
            }
            None => false,
        }
    }

    /// Takes the wires between clients and nodes, if the shape has any.
    pub fn wires(&mut self) -> Vec<Wire> {
        std::mem::take(&mut self.wire_listeners)
            .into_iter()
            .map(Wire::on)
            .collect()
    }

    /// The URL of one node, from which clients discover the others.
    pub fn url_of(&self, node: usize) -> String {
        let announced_port = self.announced_ports[node];
        if self.shape.secured {
            format!("rediss-cluster://:{PASSWORD}@127.0.0.1:{announced_port}")
        } else {
            format!("redis-cluster://127.0.0.1:{announced_port}")
        }
    }

    /// The URL of node 0. With three shards, node 0 does not have production's entry; with one shard, it has the entry
    /// until a failover.
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// The index of the node with production's entry, according to most nodes.
    pub fn primary(&self) -> usize {
        self.try_primary().expect("a primary")
    }

    /// The index of the node with production's entry; `None` while no running node knows it.
    pub fn try_primary(&self) -> Option<usize> {
        let mut votes = vec![0; self.nodes.len()];
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let Some(Resp::Text(table)) = node.try_command(&["CLUSTER", "NODES"]) else {
                continue;
            };
            if let Some(line) = table.lines().find(|line| serves_production(line)) {
                let id = line.split(' ').next().unwrap_or_default();
                if let Some(number) = self.ids.iter().position(|known| known == id) {
                    votes[number] += 1;
                }
            }
        }
        let most = votes.iter().max().copied().filter(|most| *most > 0)?;
        votes.iter().position(|votes| *votes == most)
    }

    /// The indices of a node's replicas.
    pub fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let Resp::Text(table) = self.nodes[primary].command(&["CLUSTER", "NODES"]) else {
            panic!("CLUSTER NODES answers with text");
        };
        let follows = |line: &&str| line.split(' ').nth(3) == Some(&self.ids[primary]);
        table
            .lines()
            .filter(follows)
            .filter_map(|line| {
                let id = line.split(' ').next()?;
                self.ids.iter().position(|known| known == id)
            })
            .collect()
    }

    /// Starts a planned failover, in which replica and primary exchange roles without data loss. Does not wait for its
    /// end.
    pub fn fail_over_to(&self, replica: usize) {
        let answer = self.nodes[replica].command(&["CLUSTER", "FAILOVER"]);
        assert_eq!(answer, Resp::Text("OK".to_owned()));
    }

    /// Promotes a replica without an election, as ElastiCache's control plane does for a cluster of one shard.
    pub fn take_over_by(&self, replica: usize) {
        let answer = self.nodes[replica].command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        assert_eq!(answer, Resp::Text("OK".to_owned()));
    }

    /// Stops replication to one replica of the first node by making its login fail. The other replicas keep
    /// replicating, and this one keeps serving reads. New connections to the primary then need a password.
    pub async fn stop_replication_to(&self, replica: usize) {
        for (number, node) in self.nodes.iter().enumerate().skip(1) {
            let word = if number == replica { "wrong" } else { "right" };
            node.command(&["CONFIG", "SET", "masterauth", word]);
        }
        self.nodes[0].command(&["CONFIG", "SET", "requirepass", "right"]);
        let login = ["AUTH", "right"];
        self.nodes[0].commands(&[&login, &["CLIENT", "KILL", "TYPE", "REPLICA"]]);
        crate::eventually("all replicas but one are back", async || {
            let follows =
                |node: &Redis| reply_contains(node, &["INFO", "replication"], "link_status:up");
            let mut nodes = self.nodes.iter().enumerate().skip(1);
            nodes.all(|(number, node)| follows(node) == (number != replica))
        })
        .await;
    }

    /// The id of a node in `CLUSTER NODES`.
    pub fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// The address at which clients reach a node.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.announced_ports[node])
    }

    /// How often each node has executed a command; 0 for a node that does not run.
    pub fn calls(&self, command: &str) -> Vec<u64> {
        self.nodes
            .iter()
            .map(|node| if node.runs() { node.calls(command) } else { 0 })
            .collect()
    }
}

/// A cluster, a database with the flag `checkout` (on, 50 %), and functions that use both.
pub struct Deployment {
    /// The cache.
    pub cluster: Cluster,
    /// The database.
    pub database: Database,
}

impl Deployment {
    /// Starts a deployment on a cluster of this shape.
    pub async fn on_cluster(shape: Shape) -> Self {
        let database = Database::create().await;
        database.add_flag("checkout", true, 50).await;
        Self {
            cluster: Cluster::start_and_wait(shape).await,
            database,
        }
    }

    /// Starts a function that knows one node of the cluster, with additional variables.
    pub async fn function(&self, name: &str, more: &[(&str, &str)]) -> Function {
        let (redis, database) = (self.cluster.url(), self.database.url());
        let own = [("REDIS_URL", redis.as_str()), ("DATABASE_URL", &database)];
        Function::start(name, &[&own[..], more].concat()).await
    }

    /// Reads until the cache answers.
    pub async fn wait_for_cache(&self, get: &Function) {
        crate::eventually("the cache answers", async || {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.header("x-cache-hit") == Some("true")
        })
        .await;
    }
}

/// Whether a line of `CLUSTER NODES` describes the primary of production's slot.
fn serves_production(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    words.iter().skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&16_114),
            _ => false,
        }
    })
}

fn reply_contains(node: &Redis, command: &[&str], wanted: &str) -> bool {
    matches!(node.try_command(command), Some(Resp::Text(text)) if text.contains(wanted))
}

fn arguments(shape: &Shape, bus: u16, tls: u16, announced_port: u16) -> Vec<String> {
    let timeout = shape.node_timeout.as_millis();
    let mut text = format!(
        "--cluster-enabled yes --cluster-port {bus} --cluster-node-timeout {timeout} \
         --cluster-announce-ip 127.0.0.1 --repl-diskless-sync-delay 0 --repl-ping-replica-period 1 \
         --cluster-replica-validity-factor 0"
    );
    if shape.secured {
        let certificates = Certificates::shared();
        write!(
            text,
            " --tls-port {tls} --tls-cluster yes --tls-auth-clients no --tls-replication yes \
             --cluster-announce-tls-port {announced_port} --requirepass {PASSWORD} --masterauth {PASSWORD} \
             --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {}",
            certificates.file("server.pem"),
            certificates.file("server.key"),
            certificates.file("ca.pem")
        )
        .expect("it fits");
    } else {
        write!(text, " --cluster-announce-port {announced_port}").expect("it fits");
    }
    text.split(' ').map(str::to_owned).collect()
}

/// The contents of nodes.conf, in which a node stores the cluster state.
fn nodes_conf(
    shape: &Shape,
    own: usize,
    ids: &[String],
    ports: &[[u16; 3]],
    announced_ports: &[u16],
) -> String {
    let mut text = String::new();
    for (number, id) in ids.iter().enumerate() {
        let shard = number % shape.shards;
        let myself = if number == own { "myself," } else { "" };
        let ([_, bus, _], announced_port) = (ports[number], announced_ports[number]);
        let (role, slots) = if number < shape.shards {
            let first = shard * 16_384 / shape.shards;
            let last = (shard + 1) * 16_384 / shape.shards - 1;
            ("master -".to_owned(), format!(" {first}-{last}"))
        } else {
            (format!("slave {}", ids[shard]), String::new())
        };
        let epoch = shard + 1;
        writeln!(
            text,
            "{id} 127.0.0.1:{announced_port}@{bus} {myself}{role} 0 0 {epoch} connected{slots}"
        )
        .expect("it fits");
    }
    writeln!(text, "vars currentEpoch {} lastVoteEpoch 0", shape.shards).expect("it fits");
    text
}
