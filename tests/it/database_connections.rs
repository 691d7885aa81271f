//! The number of connections to PostgreSQL, and the behaviour of instances when no connection is free.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::{Database, connect};
use pennon_tests::stack::{Stack, percentage, set_percentage};
use pennon_tests::wire::{BlackHole, Mode};
use pennon_tests::{eventually, join_all};
use tokio::net::TcpStream;
use tokio_postgres::Client;

/// The number of connections of functions to this database, queried on a connection of its own that is never in a
/// transaction: within one, PostgreSQL keeps returning the activity of the first query.
async fn connections(watch: &Client) -> i64 {
    let query = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'pennon'";
    watch.query_one(query, &[]).await.expect("a count").get(0)
}

/// The output of a load, and the largest number of connections to this port that functions had at one moment of it. 0
/// on systems other than Linux.
async fn most_connections<T>(port: u16, load: impl Future<Output = T>) -> (usize, T) {
    // A connection of the test shows that the table is read correctly.
    let own = TcpStream::connect(("127.0.0.1", port)).await;
    let _open = own.expect("connects");
    let before = established(port).await;
    assert_eq!(before, usize::from(cfg!(target_os = "linux")));
    let mut most = before;
    let mut load = pin!(load);
    loop {
        tokio::select! {
            output = &mut load => return (most - before, output),
            now = established(port) => most = most.max(now),
        }
    }
}

/// The number of established connections to this port at one moment. PostgreSQL still counts a connection for a moment
/// after the client has closed it, so only the kernel's table shows how many an instance has at the same time.
///
/// While the table is read, connections end and others begin, so one reading may contain both. Those in two readings
/// were all established between the two.
async fn established(port: u16) -> usize {
    let count = tokio::task::spawn_blocking(move || {
        let before = inodes_of_established(port);
        let after = inodes_of_established(port);
        after.intersection(&before).count()
    });
    count.await.expect("a count")
}

/// The inodes of established connections to this port. Empty on systems without the table. The format:
/// <https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html>
fn inodes_of_established(port: u16) -> HashSet<String> {
    const ESTABLISHED: &str = "01";
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect());
    rows.filter_map(|row: Vec<&str>| match row[..] {
        [_, _, address, ESTABLISHED, _, _, _, _, _, inode, ..] if address.ends_with(&remote) => {
            Some(inode.to_owned())
        }
        _ => None,
    })
    .collect()
}

async fn watch(database: &Database) -> Client {
    connect(&database.url()).await.expect("connects")
}

async fn assert_no_connections(watch: &Client, after: &str) {
    eventually(
        &format!("no connection is left after {after}"),
        async || connections(watch).await == 0,
    )
    .await;
}

async fn instances(stack: &Stack, name: &str, count: usize) -> Vec<Function> {
    let mut instances = Vec::new();
    for _ in 0..count {
        instances.push(stack.function(name).await);
    }
    instances
}

/// Freezes instances. A frozen instance cannot close a connection that is still open after its response.
fn freeze(instances: &[Function]) {
    for instance in instances {
        instance.process().freeze();
    }
}

#[tokio::test]
async fn requests_leave_no_connection_behind_in_frozen_instances() {
    let stack = Stack::start().await;
    let watch = watch(&stack.database).await;
    for (function, event) in [
        ("get-flag", Event::get("checkout").query("environment=zz")),
        ("list-flags", Event::list().query("environment=zz")),
        ("get-flag", Event::get("checkout")),
        ("health", Event::load("health")),
        ("health", Event::load("health-ready")),
        ("manage-flags", Event::admin("GET", "/api/admin/flags", "")),
        (
            "update-flag",
            Event::update("checkout", &serde_json::json!({"rolloutPercentage": 7})),
        ),
        // Rejected in the middle of a transaction.
        (
            "update-flag",
            Event::update("missing", &serde_json::json!({"rolloutPercentage": 7})),
        ),
    ] {
        let instances = instances(&stack, function, 5).await;
        for instance in &instances {
            let answer = instance.call(&event).await;
            assert!(answer.status < 500, "{answer:?}");
        }
        freeze(&instances);
        assert_no_connections(&watch, function).await;
    }
}

#[tokio::test]
async fn events_leave_no_connection_behind_in_frozen_instances() {
    let stack = Stack::start().await;
    let watch = watch(&stack.database).await;
    for name in ["reconcile", "migrate", "count-evaluations"] {
        let instances = instances(&stack, name, 2).await;
        for instance in &instances {
            instance
                .invoke(Event::load(name).value())
                .await
                .expect("an outcome");
        }
        freeze(&instances);
        assert_no_connections(&watch, name).await;
    }
}

#[tokio::test]
async fn without_redis_there_are_never_more_connections_than_instances() {
    const INSTANCES: usize = 8;
    let mut stack = Stack::start().await;
    let readers = instances(&stack, "get-flag", INSTANCES).await;
    let event = Event::get("checkout");
    for reader in &readers {
        assert_eq!(percentage(&reader.call(&event).await), 50);
    }
    stack.redis.kill();
    let watch = watch(&stack.database).await;
    let load = join_all(readers.iter().map(async |reader| {
        for _ in 0..25 {
            assert_eq!(percentage(&reader.call(&event).await), 50);
        }
    }));
    let (most, _) = most_connections(stack.database_wire.port(), load).await;
    freeze(&readers);
    assert!(most <= INSTANCES, "{most} for {INSTANCES} instances");
    assert_no_connections(&watch, "the load").await;
}

#[tokio::test]
async fn one_instance_with_many_requests_at_once_uses_one_connection() {
    let stack = Stack::start().await;
    stack.redis.set(Mode::Refuse).await;
    let get = stack
        .function_with("get-flag", &[("AWS_LAMBDA_MAX_CONCURRENCY", "16")])
        .await;
    let watch = watch(&stack.database).await;
    let (known, unknown) = (
        Event::get("checkout"),
        Event::get("checkout").query("environment=zz"),
    );
    let calls = (0..16).map(|number| get.call(if number % 2 == 0 { &known } else { &unknown }));
    let (most, answers) = most_connections(stack.database_wire.port(), join_all(calls)).await;
    assert!(answers.iter().all(|answer| answer.status < 500));
    assert!(most <= 1, "{most} connections");
    assert_no_connections(&watch, "many requests").await;
}

/// Creates a login that may have this many connections at the same time, and returns its URL.
async fn login_with_limit(stack: &Stack, limit: u32) -> String {
    let name = format!("limited_{}", stack.database.name());
    stack
        .database
        .sql()
        .batch_execute(&format!(
            "create role {name} login connection limit {limit};
             grant all on all tables in schema public to {name}"
        ))
        .await
        .expect("a login");
    stack
        .database_url()
        .replace("//pennon@", &format!("//{name}@"))
}

/// Opens the only connection of a login, once the server has closed the previous one.
async fn take_the_only_connection(url: &str) -> Client {
    let mut taken = None;
    eventually("the only connection is free", async || {
        taken = connect(url).await.ok();
        taken.is_some()
    })
    .await;
    taken.expect("a connection")
}

#[tokio::test]
async fn at_the_connection_limit_a_warm_instance_answers_from_memory() {
    let stack = Stack::start().await;
    let url = login_with_limit(&stack, 1).await;
    let limited = [("DATABASE_URL", url.as_str())];
    let get = stack.function_with("get-flag", &limited).await;
    let event = Event::get("checkout");
    assert_eq!(percentage(&get.call(&event).await), 50);
    stack.redis.set(Mode::Refuse).await;
    let taken = take_the_only_connection(&url).await;
    for _ in 0..3 {
        let answer = get.call(&event).await;
        assert_eq!(percentage(&answer), 50);
        assert_eq!(answer.source(), "stale");
    }
    drop(taken);
    set_percentage(&stack.function("update-flag").await, "checkout", 7).await;
    eventually("the database answers again", async || {
        percentage(&get.call(&event).await) == 7
    })
    .await;
}

#[tokio::test]
async fn at_the_connection_limit_a_cold_instance_waits_and_then_answers_503() {
    let stack = Stack::start().await;
    stack.redis.set(Mode::Refuse).await;
    let url = login_with_limit(&stack, 1).await;
    let taken = take_the_only_connection(&url).await;
    let limited = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_TIMEOUT_MS", "1000"),
    ];
    let get = stack.function_with("get-flag", &limited).await;
    let event = Event::get("checkout");
    let started = Instant::now();
    let answer = get.call(&event).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(500), "it waited {waited:?}");
    // An instance that is waiting when a connection becomes free gets it.
    let cold = stack
        .function_with(
            "get-flag",
            &[
                ("DATABASE_URL", url.as_str()),
                ("DATABASE_TIMEOUT_MS", "10000"),
            ],
        )
        .await;
    let free = async {
        eventually("it has been refused", async || {
            cold.log().contains("waits for a connection")
        })
        .await;
        drop(taken);
    };
    let (answer, ()) = tokio::join!(cold.call(&event), free);
    assert_eq!(percentage(&answer), 50);
}

#[tokio::test]
async fn health_queries_the_database_once_in_ten_seconds() {
    let stack = Stack::start().await;
    let health = stack.function("health").await;
    let body = health.call(&Event::load("health")).await.json();
    assert_eq!(body["status"], "healthy");
    let before = stack.database_wire.requests();
    for name in ["health", "health-ready", "health"] {
        let answer = health.call(&Event::load(name)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(stack.database_wire.requests(), before);
    stack.database_wire.set(Mode::Refuse).await;
    eventually("the outage is seen", async || {
        health.call(&Event::load("health-ready")).await.status == 503
    })
    .await;
}

#[tokio::test]
async fn a_silent_address_does_not_keep_the_next_one_from_being_tried() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let hole = BlackHole::open();
    let url = format!(
        "postgres:///{}?user=pennon&host=127.0.0.1&host=127.0.0.1&port={},{}&sslmode=disable",
        database.name(),
        hole.port(),
        database.port()
    );
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_CONNECT_TIMEOUT_MS", "4000"),
        ("DATABASE_TIMEOUT_MS", "10000"),
    ];
    let get = Function::start("get-flag", &settings).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(answer.status, 200, "{}", get.log());
}
