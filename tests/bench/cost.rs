//! What a read costs, by the number of flags, as a ratio to what Redis itself takes for the same
//! question in the same run, and what an invalidation costs the database.
//!
//! `cargo bench --profile driver -p pennon-tests --bench cost`

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::process::Command;
use std::time::Instant;

use pennon_tests::event::Event;
use pennon_tests::figures::Times;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::redis::KEY;
use pennon_tests::side_by_side;
use pennon_tests::stack::{Stack, database_loads};

const REQUESTS: usize = 4_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!(
        "{:>6} {:>12} {:>12} {:>12} {:>12} {:>16} {:>10}",
        "flags", "HGET alone", "HTTP alone", "one flag", "list", "(flag-HTTP)/HGET", "list/flag"
    );
    let mut first = None;
    for flags in [10_usize, 100, 1_000, 10_000] {
        let stack = Stack::start().await;
        let insert = format!(
            "insert into feature_flags (flag_key, enabled, rollout_percentage)
             select 'flag-' || n, true, n % 101 from generate_series(1, {}) as n",
            flags - 3
        );
        stack
            .database
            .sql()
            .batch_execute(&insert)
            .await
            .expect("flags");
        let local = Local::start(&[
            ("REDIS_URL", &stack.redis.direct_url()),
            ("DATABASE_URL", &stack.database.url()),
            ("RUST_LOG", "warn"),
        ])
        .await;
        local.get("/api/config/flags").await;
        let http = median(&local, "/health/live").await;
        let one = median(&local, "/api/config/flags/checkout").await;
        let list = median(&local, "/api/config/flags?userId=alice").await;
        let hget = redis_benchmark(&stack);
        println!(
            "{flags:6} {hget:9.3} ms {http:9.3} ms {one:9.3} ms {list:9.3} ms {:14.2} x {:8.1} x",
            (one - http) / hget,
            list / one
        );
        let first = *first.get_or_insert(one);
        if flags == 10_000 {
            println!("one flag of 10,000 is {:.2} x one flag of 10", one / first);
        }
    }

    let stack = Stack::start().await;
    let mut instances: Vec<Function> = Vec::new();
    for _ in 0..10 {
        instances.push(stack.function("get-flag").await);
    }
    let event = Event::get("checkout");
    let loads = || instances.iter().map(database_loads).sum::<u64>();
    let before = loads();
    for _ in 0..50 {
        stack.redis.command(&["DEL", KEY]);
        side_by_side(instances.iter().map(|instance| instance.call(&event))).await;
    }
    println!(
        "database loads per invalidation, 10 instances asking at once: {:.2}",
        (loads() - before) as f64 / 50.0
    );
}

async fn median(local: &Local, path: &str) -> f64 {
    let mut times = Times::default();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        let answer = local.get(path).await;
        times.add(asked.elapsed());
        assert_eq!(answer.status, 200, "{path}");
    }
    times.percentile(50)
}

/// The median of HGET with one request in flight, as redis-benchmark measures it.
fn redis_benchmark(stack: &Stack) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", &stack.redis.port().to_string()])
        .args(["-c", "1", "-n", "20000", "--csv", "HGET", KEY, "__rev"])
        .output()
        .expect("redis-benchmark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().nth(1).expect("a row");
    let median = row.split(',').nth(4).expect("p50_latency_ms");
    median.trim_matches('"').parse().expect("a number")
}
