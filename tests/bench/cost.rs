//! The cost of a read, by the number of flags, compared with one `HGET` of Redis in the same run; the database loads
//! that an invalidation causes; and the memory of an entry in Redis.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench cost`; `COST_ONLY=memory` measures memory alone.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::process::Command;
use std::time::Instant;

use pennon_tests::event::Event;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{Stack, database_loads};
use pennon_tests::statistics::Times;

const REQUESTS: usize = 4_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let only = std::env::var("COST_ONLY").unwrap_or_default();
    assert!(["", "memory"].contains(&only.as_str()), "COST_ONLY={only}");
    if only.is_empty() {
        reads().await;
        invalidations().await;
    }
    memory().await;
}

/// Measures reads, by the number of flags.
async fn reads() {
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
}

/// Counts the database loads that invalidations cause.
async fn invalidations() {
    let stack = Stack::start().await.with_default_timeouts();
    let mut instances: Vec<Function> = Vec::new();
    for _ in 0..10 {
        instances.push(stack.function("get-flag").await);
    }
    let event = Event::get("checkout");
    let loads = || instances.iter().map(database_loads).sum::<u64>();
    let before = loads();
    for _ in 0..50 {
        stack.redis.command(&["DEL", KEY]);
        join_all(instances.iter().map(|instance| instance.call(&event))).await;
    }
    println!(
        "database loads per invalidation, 10 instances reading at once: {:.2}",
        (loads() - before) as f64 / 50.0
    );
}

/// Simple flags with a description of 40 characters.
const SIMPLE: &str = "
    insert into feature_flags (flag_key, enabled, rollout_percentage, description)
    select 'flag-' || n, true, n % 101, rpad('The new checkout for customers', 40, '.')
    from generate_series(4, $1::int) as n";
/// Flags with variants and a targeting rule: a definition of about 330 bytes.
const TYPED: &str = r#"
    insert into feature_flags (flag_key, enabled, rollout_percentage, description, definition)
    select 'flag-' || n, true, 0, rpad('The new checkout for customers', 40, '.'), json_build_object(
        'variants', json_build_object('control', 'control', 'first', 'first', 'second', 'second'),
        'defaultVariant', 'control',
        'targeting', '{"if": [{"and": [{"ends_with": [{"var": "email"}, "@example.com"]},
            {"in": [{"var": "country"}, ["DE", "AT", "CH"]]}]}, "first",
            {"fractional": [["control", 50], ["second", 50]]}]}'::json)
    from generate_series(4, $1::int) as n"#;

/// Measures the memory of an entry, by the number of flags: `MEMORY USAGE <key> SAMPLES 0`, which counts every field.
async fn memory() {
    println!(
        "{:>6} {:>24} {:>24}",
        "flags", "simple", "with variants and a rule"
    );
    for flags in [100, 1_000, 10_000] {
        print!("{flags:6}");
        for insert in [SIMPLE, TYPED] {
            let stack = Stack::start().await.with_default_timeouts();
            let inserted = stack.database.sql().execute(insert, &[&flags]).await;
            inserted.expect("flags");
            let list = stack.function("list-flags").await;
            list.call(&Event::list()).await;
            let usage = stack
                .redis
                .command(&["MEMORY", "USAGE", KEY, "SAMPLES", "0"]);
            let Resp::Number(bytes) = usage else {
                panic!("MEMORY USAGE returned no number: {usage:?}");
            };
            let bytes = bytes as f64;
            print!(
                " {:9.1} kB {:7.0} each",
                bytes / 1e3,
                bytes / f64::from(flags)
            );
        }
        println!();
    }
}

async fn median(local: &Local, path: &str) -> f64 {
    let mut times = Times::default();
    for _ in 0..REQUESTS {
        let sent = Instant::now();
        let answer = local.get(path).await;
        times.add(sent.elapsed());
        assert_eq!(answer.status, 200, "{path}");
    }
    times.percentile(50)
}

/// The median of `HGET` with one request in flight, as redis-benchmark measures it.
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
