//! Constant load on clusters that lose nodes, are replaced node by node, or are migrated to and from. Counts errors and
//! stale reads, and measures how long the cache is unavailable and what it costs to wait for a replica's confirmation.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench failover` ends with a minute of failovers, drawn into
//! `docs/failover.svg`, and another one with 100 concurrent requests. `FAILOVER_MINUTES` makes both longer (10) or
//! skips them (0); `FAILOVER_ONLY` names one scenario to run. Fails if a guarantee is violated, a figure exceeds a limit
//! of `pennon_tests::limits`, or nothing was checked.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use pennon_tests::cluster::{Cluster, Deployment, Shape};
use pennon_tests::lambda::Function;
use pennon_tests::limits::{FAILED_OPERATIONS, MEAN, OUTAGE, P95, Verdict};
use pennon_tests::load::{Load, Reader, Record, Sample};
use pennon_tests::plot::Plot;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::Stack;
use pennon_tests::statistics::{Times, milliseconds};
use pennon_tests::{eventually, setting};

const READ_INTERVAL: Duration = Duration::from_millis(8);
const CHANGE_INTERVAL: Duration = Duration::from_millis(250);
/// Concurrent requests, spread over all readers, and the time from one burst to the next.
const PARALLEL: usize = 100;
const BURST_INTERVAL: Duration = Duration::from_millis(200);
/// With concurrent requests: a change every second, so that most bursts find a warm cache.
const PARALLEL_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// How much later a change may be visible through a replica.
const LAG: Duration = Duration::from_millis(500);
/// The nodes' `cluster-node-timeout`.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// The time until the control plane of a cluster of one shard replaces a lost primary.
const CONTROL_PLANE: Duration = Duration::from_secs(3);

const SIX_NODES: Shape = Shape {
    node_timeout: NODE_TIMEOUT,
    ..Shape::SIX_NODES
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Graceful,
    Killed,
    Frozen,
    Zone,
    ReplicaKilled,
    ReplicaFrozen,
    AllDown,
    AllFrozen,
    Rolling,
    Minority,
}

impl Scenario {
    const ALL: [Self; 10] = [
        Self::Graceful,
        Self::Killed,
        Self::Frozen,
        Self::Zone,
        Self::ReplicaKilled,
        Self::ReplicaFrozen,
        Self::AllDown,
        Self::AllFrozen,
        Self::Rolling,
        Self::Minority,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Graceful => "CLUSTER FAILOVER, twice",
            Self::Killed => "primary killed",
            Self::Frozen => "one shard: primary frozen, TAKEOVER",
            Self::Zone => "zone lost: a primary, another's replica",
            Self::ReplicaKilled => "one shard: a replica killed",
            Self::ReplicaFrozen => "one shard: a replica frozen",
            Self::AllDown => "all nodes down for 5 s",
            Self::AllFrozen => "all nodes frozen for 5 s",
            Self::Rolling => "every node replaced in turn",
            Self::Minority => "primary in a minority for 5 s",
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Frozen | Self::ReplicaKilled | Self::ReplicaFrozen => Shape::ONE_SHARD,
            Self::Graceful
            | Self::Killed
            | Self::Zone
            | Self::AllDown
            | Self::AllFrozen
            | Self::Rolling
            | Self::Minority => SIX_NODES,
        }
    }

    /// Whether this many of all cache operations may fail.
    fn may_fail(self, failed: usize, all: usize) -> bool {
        match self {
            Self::Graceful | Self::ReplicaKilled | Self::ReplicaFrozen => failed == 0,
            Self::Rolling => failed * 100 < all,
            Self::Killed
            | Self::Frozen
            | Self::Zone
            | Self::AllDown
            | Self::AllFrozen
            | Self::Minority => true,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let only = std::env::var("FAILOVER_ONLY").unwrap_or_default();
    let minutes = setting("FAILOVER_MINUTES", 1.0);
    let is_wanted = |name: &str| only.is_empty() || name.eq_ignore_ascii_case(&only);
    let mut verdict = Verdict::default();
    println!(
        "{:40} {:>8} {:>5} {:>6} {:>7} {:>11} {:>11} {:>8} {:>6}",
        "event", "requests", "5xx", "stale", "failed", "event s", "back s", "longest", "hits"
    );
    for scenario in Scenario::ALL {
        if is_wanted(&format!("{scenario:?}")) {
            run(scenario, &mut verdict).await;
        }
    }
    if is_wanted("move") {
        move_to_cluster_and_back(&mut verdict).await;
    }
    if is_wanted("wait") {
        measure_confirmation(&mut verdict).await;
    }
    let length = Duration::from_secs_f64(minutes * 60.0);
    for (name, kind) in [("minutes", Kind::OneByOne), ("parallel", Kind::Parallel)] {
        if is_wanted(name) && minutes > 0.0 {
            long_run(length, kind, &mut verdict).await;
        }
    }
    println!("{}", verdict.report());
    verdict.exit_code()
}

/// How readers send their requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    OneByOne,
    Parallel,
}

/// Starts two functions that read primaries, two that read replicas, and one that writes.
async fn start_load(deployment: &Deployment, kind: Kind) -> Load {
    const READERS: usize = 4;
    let each = PARALLEL / READERS;
    let concurrency = each.to_string();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let reads_replicas = number % 2 == 1;
        let mut more = Vec::new();
        if reads_replicas {
            more.push(("REDIS_REPLICA_READS", "true"));
        }
        if kind == Kind::Parallel {
            more.push(("AWS_LAMBDA_MAX_CONCURRENCY", concurrency.as_str()));
        }
        readers.push(Reader {
            function: deployment.function("get-flag", &more).await,
            lag: if reads_replicas { LAG } else { Duration::ZERO },
        });
    }
    let writer = deployment.function("update-flag", &[]).await;
    let load = match kind {
        Kind::OneByOne => Load::start(readers, writer, READ_INTERVAL, CHANGE_INTERVAL),
        Kind::Parallel => Load::start_bursts(
            readers,
            writer,
            each,
            BURST_INTERVAL,
            PARALLEL_CHANGE_INTERVAL,
        ),
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    load
}

/// Checks the guarantees that hold in every scenario.
fn check(title: &str, record: &Record, verdict: &mut Verdict) {
    let (errors, stale) = (record.errors(), record.stale());
    verdict.require(errors == 0, &format!("{title}: {errors} errors"));
    verdict.require(stale == 0, &format!("{title}: {stale} stale responses"));
    verdict.limit(OUTAGE, milliseconds(record.longest()), title);
}

async fn run(scenario: Scenario, verdict: &mut Verdict) {
    let mut deployment = Deployment::on_cluster(scenario.shape()).await;
    let load = start_load(&deployment, Kind::OneByOne).await;
    let started = Instant::now();
    cause(scenario, &mut deployment.cluster).await;
    let event = (started.elapsed(), SystemTime::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let record = load.finish().await;
    let failed = record.failed_cache_operations().len();
    report(scenario.title(), &record, Some(event));
    check(scenario.title(), &record, verdict);
    verdict.require(
        scenario.may_fail(failed, record.samples.len()),
        &format!("{}: {failed} cache operations failed", scenario.title()),
    );
}

/// Causes the event, and returns when the cluster works again.
async fn cause(scenario: Scenario, cluster: &mut Cluster) {
    let primary = cluster.primary();
    match scenario {
        Scenario::Graceful => {
            for _ in 0..2 {
                fail_over(cluster, cluster.primary()).await;
            }
        }
        Scenario::Killed => {
            cluster.nodes[primary].kill();
            wait_for_another_primary(cluster, primary).await;
        }
        Scenario::Frozen => {
            cluster.nodes[primary].freeze();
            tokio::time::sleep(CONTROL_PLANE).await;
            cluster.take_over_by(1);
        }
        Scenario::Zone => {
            let other = cluster.replicas_of((primary + 1) % 3)[0];
            cluster.nodes[primary].kill();
            cluster.nodes[other].kill();
            wait_for_another_primary(cluster, primary).await;
        }
        Scenario::ReplicaKilled => cluster.nodes[1].kill(),
        Scenario::ReplicaFrozen => cluster.nodes[1].freeze(),
        Scenario::AllDown => {
            for node in &mut cluster.nodes {
                node.kill();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            for node in &mut cluster.nodes {
                node.restart();
            }
            cluster.wait().await;
        }
        Scenario::AllFrozen => {
            for node in &cluster.nodes {
                node.freeze();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            for node in &cluster.nodes {
                node.thaw();
            }
            cluster.wait().await;
        }
        Scenario::Rolling => {
            for node in 0..cluster.nodes.len() {
                if !cluster.replicas_of(node).is_empty() {
                    fail_over(cluster, node).await;
                }
                cluster.nodes[node].kill();
                cluster.nodes[node].restart();
                cluster.wait().await;
            }
        }
        Scenario::Minority => {
            let own = [primary, cluster.replicas_of(primary)[0]];
            let others = (0..6).filter(|node| !own.contains(node));
            for node in others.clone() {
                cluster.nodes[node].freeze();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            for node in others {
                cluster.nodes[node].thaw();
            }
            cluster.wait().await;
        }
    }
}

/// Performs a planned failover to a replica.
async fn fail_over(cluster: &Cluster, primary: usize) {
    let replica = cluster.replicas_of(primary)[0];
    cluster.fail_over_to(replica);
    eventually("the old primary is a replica", async || {
        cluster.replicas_of(replica).contains(&primary)
    })
    .await;
    cluster.wait().await;
}

async fn wait_for_another_primary(cluster: &Cluster, old: usize) {
    eventually("another node is the primary", async || {
        cluster.try_primary().is_some_and(|new| new != old)
    })
    .await;
}

fn report(title: &str, record: &Record, event: Option<(Duration, SystemTime)>) {
    let reads: Vec<&Sample> = record
        .samples
        .iter()
        .filter(|one| one.invalidated.is_none())
        .collect();
    let hits = reads.iter().filter(|sample| sample.hit).count();
    let (event, back) = event.map_or((String::new(), String::new()), |(duration, end)| {
        let back = record.recovered_after(end);
        (
            format!("{:.2}", duration.as_secs_f64()),
            format!("{:.2}", back.as_secs_f64()),
        )
    });
    println!(
        "{title:40} {:8} {:5} {:6} {:7} {event:>11} {back:>11} {:5.0} ms {:4.1} %",
        record.samples.len(),
        record.errors(),
        record.stale(),
        record.failed_cache_operations().len(),
        milliseconds(record.longest()),
        100.0 * hits as f64 / reads.len() as f64,
    );
}

/// Moves from a single Redis to a cluster and back by changes of the secret.
async fn move_to_cluster_and_back(verdict: &mut Verdict) {
    let stack = Stack::start().await.with_default_timeouts();
    let cluster = Cluster::start_and_wait(SIX_NODES).await;
    let manager = SecretsManager::start().await;
    let (single, clustered) = (stack.redis.direct_url(), cluster.url());
    let arn = manager.create("redis", &single).await;
    let environment = [
        ("REDIS_SECRET_ARN", arn.as_str()),
        ("DATABASE_URL", &stack.database_url()),
        ("REDIS_SECRET_REFRESH_SECONDS", "1"),
    ];
    let mut readers = Vec::new();
    for _ in 0..4 {
        let function = manager.function("get-flag", &environment).await;
        let lag = Duration::ZERO;
        readers.push(Reader { function, lag });
    }
    let writer = manager.function("update-flag", &environment).await;
    let load = Load::start(readers, writer, READ_INTERVAL, CHANGE_INTERVAL);
    let started = Instant::now();
    for (from, to) in [(&single, &clustered), (&clustered, &single)] {
        for text in [format!("{from} {to}"), format!("{to} {from}"), to.clone()] {
            manager.change(&arn, &text).await;
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
    }
    let took = started.elapsed();
    let record = load.finish().await;
    report("single, cluster, single by the secret", &record, None);
    let readers = record.readers.iter();
    let switches: Vec<f64> = readers.flat_map(switch_times).collect();
    println!(
        "{:40} six changes of the secret in {:.1} s, {} switches of {} readers, longest {:.0} ms",
        "",
        took.as_secs_f64(),
        switches.len(),
        record.readers.len(),
        switches.iter().copied().fold(0.0, f64::max)
    );
    let title = "move";
    check(title, &record, verdict);
    let failed = record.failed_cache_operations().len();
    verdict.require(
        failed == 0,
        &format!("{title}: {failed} cache operations failed"),
    );
    verdict.require(
        !switches.is_empty(),
        &format!("{title}: no reader switched to another Redis"),
    );
}

/// The durations of all switches, from the request for the secret until the new Redis is connected.
fn switch_times(function: &Function) -> Vec<f64> {
    let lines = function.lines();
    let is_switch = |line: &&serde_json::Value| {
        let message = line["message"].as_str();
        message.is_some_and(|text| text.starts_with("the secret names another Redis"))
    };
    let times = lines.iter().filter(is_switch);
    times.filter_map(|line| line["duration"].as_f64()).collect()
}

/// Compares updates on a shard without replicas, which wait for no confirmation, with updates on one with two.
async fn measure_confirmation(verdict: &mut Verdict) {
    for replicas in [0, 2] {
        let deployment = Deployment::on_cluster(Shape {
            replicas,
            ..Shape::ONE_SHARD
        })
        .await;
        let update = deployment.function("update-flag", &[]).await;
        let mut times = Times::default();
        let mut unconfirmed = 0;
        for value in 0..500 {
            let body = serde_json::json!({ "description": value.to_string() });
            let event = pennon_tests::event::Event::update("checkout", &body);
            let started = Instant::now();
            let answer = update.call(&event).await;
            if value >= 100 {
                times.add(started.elapsed());
            }
            unconfirmed += usize::from(answer.header("x-cache-invalidated") != Some("true"));
        }
        verdict.require(
            unconfirmed == 0,
            &format!("{replicas} replicas: {unconfirmed} updates were not confirmed"),
        );
        println!(
            "an update of a shard with {replicas} replicas: median {:.2} ms, 95 % below {:.2} ms",
            times.percentile(50),
            times.percentile(95)
        );
    }
}

/// Performs planned failovers, and kills a primary halfway.
async fn long_run(length: Duration, kind: Kind, verdict: &mut Verdict) {
    let mut deployment = Deployment::on_cluster(SIX_NODES).await;
    let load = start_load(&deployment, kind).await;
    let started = Instant::now();
    let mut marks = Vec::new();
    let turns = 8;
    let every = length / turns;
    for turn in 0..turns {
        let due = every * turn + every / 2;
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        let cluster = &mut deployment.cluster;
        let primary = cluster.primary();
        if turn == turns / 2 {
            marks.push((started.elapsed(), "primary killed".to_owned()));
            cluster.nodes[primary].kill();
            wait_for_another_primary(cluster, primary).await;
            cluster.nodes[primary].restart();
            cluster.wait().await;
        } else {
            marks.push((started.elapsed(), "failover".to_owned()));
            fail_over(cluster, primary).await;
        }
    }
    tokio::time::sleep(length.saturating_sub(started.elapsed())).await;
    let length = started.elapsed();
    let record = load.finish().await;
    let parallel = match kind {
        Kind::OneByOne => String::new(),
        Kind::Parallel => format!(", {PARALLEL} at once"),
    };
    let title = format!(
        "{:.0} s with {} failovers{parallel}",
        length.as_secs_f64(),
        marks.len()
    );
    report(&title, &record, None);
    let failed = record.failed_cache_operations().len();
    let share = failed as f64 / record.samples.len() as f64;
    let times = record.read_times();
    println!(
        "{:40} {:.2} % of all cache operations failed; reads: mean {:.1} ms, p50 {:.1} ms, p95 {:.1} ms",
        "",
        100.0 * share,
        times.mean(),
        times.percentile(50),
        times.percentile(95)
    );
    check(&title, &record, verdict);
    // The one unplanned failover takes seconds: less than 1 % of ten minutes, but more of a shorter run.
    if length >= Duration::from_secs(600) {
        verdict.limit(FAILED_OPERATIONS, 100.0 * share, &title);
    }
    match kind {
        Kind::OneByOne => draw(&record, started, length, marks, share),
        Kind::Parallel => {
            verdict.limit(MEAN, times.mean(), &title);
            verdict.limit(P95, times.percentile(95), &title);
        }
    }
}

fn draw(
    record: &Record,
    started: Instant,
    length: Duration,
    marks: Vec<(Duration, String)>,
    failed_share: f64,
) {
    let bins = 240_u32;
    let width = length / bins;
    let mut line = Vec::new();
    for bin in 0..bins {
        let (from, to) = (started + width * bin, started + width * (bin + 1));
        let reads = record.samples.iter();
        let reads = reads
            .filter(|one| one.invalidated.is_none() && one.started >= from && one.started < to);
        let (mut all, mut hits) = (0_u32, 0_u32);
        for sample in reads {
            all += 1;
            hits += u32::from(sample.hit);
        }
        if all > 0 {
            line.push((width * bin, f64::from(hits) / f64::from(all)));
        }
    }
    let plot = Plot {
        title: format!(
            "Hit rate of {} functions, {} requests, {} errors, {:.2} % of cache operations failed",
            record.readers.len(),
            record.samples.len(),
            record.errors(),
            100.0 * failed_share
        ),
        length,
        line,
        marks,
        most: 100.0,
        unit: " %",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/failover.svg");
    std::fs::write(&path, plot.svg()).expect("the plot is written");
    println!("drawn into docs/failover.svg");
}
