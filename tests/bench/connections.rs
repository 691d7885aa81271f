//! Sixty warm instances use a PostgreSQL that accepts forty connections. Under load, Redis is killed and restarted, and
//! ten instances start in between; the last five get their first request while other clients use every connection.
//! Fails if a warm instance responds with an error, if a cold one responds with anything but 200 or 503 with
//! `Retry-After`, if the last five are not refused, if instances use the cache again too late, or if a connection stays
//! open.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench connections`; `CONNECTIONS_SECONDS` is the length of
//! a phase (10), `CONNECTIONS_PAUSE_MS` the pause between two requests of an instance (200), and `CONNECTIONS_DELAY_MS`
//! the delay of PostgreSQL (100): connections are open for as long as on an overloaded database, but this machine,
//! which runs everything, stays idle.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::limits::{CONNECTIONS_CLOSED, RECOVERY, Verdict};
use pennon_tests::plot::Plot;
use pennon_tests::postgres::{Server, connect, migrate};
use pennon_tests::response::Response;
use pennon_tests::statistics::{Times, milliseconds};
use pennon_tests::topology::{Topology, WiredRedis};
use pennon_tests::wire::{Mode, Wire};
use pennon_tests::{eventually, join_all, setting};
use tokio_postgres::Client;

const WARM: usize = 60;
const COLD: usize = 10;
/// Cold instances whose first request arrives while other clients use every connection.
const REFUSED: usize = 5;
/// The server's `max_connections`. Three of them are for superusers, which functions are not.
const CONNECTIONS: u32 = 40;
const DATABASE: &str = "flags";

/// One response.
struct Sample {
    at: Duration,
    took: Duration,
    status: u16,
    retry_after: bool,
    stale: bool,
    hit: bool,
}

/// The times of the phases, shared by all tasks.
struct Clock {
    started: Instant,
    length: Duration,
    killed: Cell<Duration>,
    back: Cell<Duration>,
    is_over: Cell<bool>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let length = Duration::from_secs(setting("CONNECTIONS_SECONDS", 10));
    let pause = Duration::from_millis(setting("CONNECTIONS_PAUSE_MS", 200));
    let server = Server::start(&[&format!("max_connections={CONNECTIONS}")], |_| {}).await;
    let admin = prepare(&server).await;
    let mut redis = WiredRedis::start(Topology::Single).await;
    let mut environment = redis.environment();
    let wire = Wire::to(server.port());
    let url = server.url(DATABASE).replace("//pennon@", "//functions@");
    let url = url.replace(
        &format!(":{}/", server.port()),
        &format!(":{}/", wire.port()),
    );
    environment.push(("DATABASE_URL".to_owned(), url));
    let warm = start(&environment, WARM).await;
    for instance in &warm {
        let answer = instance.call(&Event::get("checkout")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let delay = Duration::from_millis(setting("CONNECTIONS_DELAY_MS", 100));
    wire.set(Mode::Delay(delay)).await;

    let clock = Clock {
        started: Instant::now(),
        length,
        killed: Cell::default(),
        back: Cell::default(),
        is_over: Cell::new(false),
    };
    let connections = RefCell::new(Vec::new());
    let load = join_all(
        warm.iter()
            .map(|instance| send_until_over(instance, &clock, pause)),
    );
    let phases = async {
        tokio::time::sleep(length).await;
        redis.kill();
        clock.killed.set(clock.started.elapsed());
        let cold = async {
            // The warm instances use the connections, but each only for a moment.
            let served = start(&environment, COLD - REFUSED).await;
            let mut samples = join_all(served.iter().map(|it| call(it, &clock))).await;
            let refused = start(&environment, REFUSED).await;
            let _others = use_every_connection(&server, &admin).await;
            samples.extend(join_all(refused.iter().map(|it| call(it, &clock))).await);
            samples
        };
        let (cold, ()) = tokio::join!(cold, tokio::time::sleep(length));
        redis.restart().await;
        clock.back.set(clock.started.elapsed());
        tokio::time::sleep(length).await;
        clock.is_over.set(true);
        cold
    };
    let (samples, cold, ()) = tokio::join!(load, phases, watch(&admin, &clock, &connections));
    let samples: Vec<Sample> = samples.into_iter().flatten().collect();
    for instance in &warm {
        instance.process().freeze();
    }
    let frozen = Instant::now();
    eventually("connections closed", async || count(&admin).await == 0).await;
    let closed = frozen.elapsed();
    report(&clock, &samples, &cold, &connections.borrow(), closed)
}

/// Creates a database with a flag, and a login for functions that is not a superuser.
async fn prepare(server: &Server) -> Client {
    let admin = connect(&server.url("postgres")).await.expect("connects");
    admin
        .batch_execute(&format!("create database {DATABASE}"))
        .await
        .expect("a database");
    migrate(&server.url(DATABASE)).await;
    let flags = connect(&server.url(DATABASE)).await.expect("connects");
    flags
        .batch_execute(
            "create role functions login;
             create role others login;
             grant all on all tables in schema public to functions;
             insert into feature_flags (flag_key, enabled, rollout_percentage)
             values ('checkout', true, 50)",
        )
        .await
        .expect("a login and a flag");
    admin
}

/// Opens connections until no function has one or can get one. They are closed when they are dropped.
async fn use_every_connection(server: &Server, admin: &Client) -> Vec<Client> {
    let url = server.url(DATABASE).replace("//pennon@", "//others@");
    let mut clients = Vec::new();
    // Warm instances close theirs after each request.
    eventually("other clients use every connection", async || {
        while let Ok(client) = connect(&url).await {
            clients.push(client);
        }
        count(admin).await == 0
    })
    .await;
    clients
}

/// Starts instances, ten at a time.
async fn start(environment: &[(String, String)], count: usize) -> Vec<Function> {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut instances = Vec::new();
    while instances.len() < count {
        let some = instances.len()..count.min(instances.len() + 10);
        let some = some.map(|_| Function::start("get-flag", &environment));
        instances.extend(join_all(some).await);
    }
    instances
}

async fn call(instance: &Function, clock: &Clock) -> Sample {
    let sent = Instant::now();
    let answer: Response = instance.call(&Event::get("checkout")).await;
    Sample {
        at: sent.duration_since(clock.started),
        took: sent.elapsed(),
        status: answer.status,
        retry_after: answer.header("retry-after").is_some(),
        stale: answer.source() == "stale",
        hit: answer.header("x-cache-hit") == Some("true"),
    }
}

async fn send_until_over(instance: &Function, clock: &Clock, pause: Duration) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !clock.is_over.get() {
        samples.push(call(instance, clock).await);
        tokio::time::sleep(pause).await;
    }
    samples
}

async fn count(admin: &Client) -> i64 {
    let query = "select count(*) from pg_stat_activity where usename = 'functions'";
    admin.query_one(query, &[]).await.expect("a count").get(0)
}

async fn watch(admin: &Client, clock: &Clock, connections: &RefCell<Vec<(Duration, i64)>>) {
    while !clock.is_over.get() {
        let now = count(admin).await;
        connections
            .borrow_mut()
            .push((clock.started.elapsed(), now));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn report(
    clock: &Clock,
    samples: &[Sample],
    cold: &[Sample],
    connections: &[(Duration, i64)],
    closed: Duration,
) -> ExitCode {
    let mut verdict = Verdict::default();
    let (killed, back) = (clock.killed.get(), clock.back.get());
    println!(
        "{WARM} warm instances, {COLD} cold ones, {CONNECTIONS} connections\n\
         {:16} {:>8} {:>8} {:>8} {:>9} {:>6} {:>6} {:>6} {:>12}",
        "phase",
        "requests",
        "p50 ms",
        "p95 ms",
        "longest",
        "hits",
        "stale",
        "failed",
        "connections"
    );
    let end = back + clock.length * 2;
    for (title, from, to) in [
        ("no fault", Duration::ZERO, killed),
        ("Redis killed", killed, back),
        ("Redis is back", back, end),
    ] {
        let mut times = Times::default();
        let during: Vec<&Sample> = samples
            .iter()
            .filter(|sample| sample.at >= from && sample.at < to)
            .collect();
        for sample in &during {
            times.add(sample.took);
        }
        let share = |of: usize| 100.0 * of as f64 / during.len().max(1) as f64;
        let failed = during.iter().filter(|sample| sample.status != 200).count();
        let most = connections
            .iter()
            .filter(|(at, _)| *at >= from && *at < to)
            .map(|(_, count)| *count)
            .max();
        println!(
            "{title:16} {:8} {:8.1} {:8.1} {:9.1} {:5.1}% {:5.1}% {failed:6} {:12}",
            times.count(),
            times.percentile(50),
            times.percentile(95),
            times.longest(),
            share(during.iter().filter(|sample| sample.hit).count()),
            share(during.iter().filter(|sample| sample.stale).count()),
            most.unwrap_or_default(),
        );
        verdict.require(
            failed == 0,
            &format!("{title}: {failed} answers of warm instances were not 200"),
        );
    }

    let served = cold.iter().filter(|sample| sample.status == 200).count();
    let is_refused = |sample: &Sample| sample.status == 503 && sample.retry_after;
    let refused = cold.iter().filter(|sample| is_refused(sample)).count();
    let longest = cold.iter().map(|sample| sample.took).max();
    println!(
        "cold starts while Redis is down: {served} answered with 200, {refused} with 503 and Retry-After; \
         the slowest after {:.0} ms",
        milliseconds(longest.unwrap_or_default())
    );
    verdict.require(
        served + refused == COLD,
        "a cold instance answered neither 200 nor 503 with Retry-After",
    );
    // The first ones may be refused too, because the warm instances use the connections.
    verdict.require(
        cold[COLD - REFUSED..].iter().all(is_refused),
        "a cold instance was not refused although other clients used every connection",
    );

    // An instance is considered recovered from the first of its uninterrupted hits on.
    let without = samples
        .iter()
        .filter(|sample| sample.at >= back && !sample.hit);
    let last = without.map(|sample| sample.at + sample.took).max();
    let recovery = milliseconds(last.unwrap_or(back).saturating_sub(back));
    println!("all instances used the cache again after {recovery:.0} ms");
    verdict.limit(RECOVERY, recovery, "Redis is back");
    let gone = milliseconds(closed);
    println!("no connection was open {gone:.0} ms after the instances were frozen");
    verdict.limit(CONNECTIONS_CLOSED, gone, "after the load");

    let most = f64::from(CONNECTIONS);
    let plot = Plot {
        title: format!("Connections to a PostgreSQL that takes {CONNECTIONS}, by {WARM} instances"),
        length: connections.last().map_or(end, |(at, _)| *at),
        line: connections
            .iter()
            .map(|(at, count)| (*at, *count as f64 / most))
            .collect(),
        marks: vec![
            (killed, "Redis killed".to_owned()),
            (back, "Redis back".to_owned()),
        ],
        most,
        unit: "",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/connections.svg");
    std::fs::write(&path, plot.svg()).expect("a file");
    println!("{}", verdict.report());
    verdict.exit_code()
}
