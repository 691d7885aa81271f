//! 50 and 100 requests in flight to one process: their times, and the number of connections to Redis. Fails if a
//! response is not 200, or a figure exceeds a limit of `pennon_tests::limits`.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench load`

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::process::ExitCode;
use std::time::Instant;

use pennon_tests::limits::{CONNECTIONS, Limit, MEAN, P95, Verdict};
use pennon_tests::local::Local;
use pennon_tests::stack::Stack;
use pennon_tests::statistics::Times;

const REQUESTS_EACH: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let stack = Stack::start().await;
    let mut verdict = Verdict::default();
    println!("in flight  requests  mean ms  p95 ms  longest  not 200  connections to Redis");
    for pool in [1_u32, 10] {
        let local = Local::start(&[
            ("REDIS_URL", &stack.redis.direct_url()),
            ("DATABASE_URL", &stack.database.url()),
            ("REDIS_POOL_SIZE", &pool.to_string()),
            ("RUST_LOG", "warn"),
        ])
        .await;
        for in_flight in [50, 100] {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..in_flight {
                let client = local.clone_client();
                clients.spawn(async move {
                    let mut times = Vec::new();
                    for _ in 0..REQUESTS_EACH {
                        let sent = Instant::now();
                        let answer = client.get("/api/config/flags/checkout").await;
                        times.push((sent.elapsed(), answer.status));
                    }
                    times
                });
            }
            let mut connections = 0;
            let mut times = Times::default();
            let mut bad = 0;
            while let Some(done) = clients.join_next().await {
                connections = connections.max(stack.redis.count_clients().await);
                for (time, status) in done.expect("no panic") {
                    times.add(time);
                    bad += usize::from(status != 200);
                }
            }
            println!(
                "{in_flight:9}  {:8}  {:7.1}  {:6.1}  {:7.1}  {bad:7}  {connections}",
                times.count(),
                times.mean(),
                times.percentile(95),
                times.longest()
            );
            let run = format!("{in_flight} in flight, REDIS_POOL_SIZE={pool}");
            verdict.require(bad == 0, &format!("{run}: {bad} answers were not 200"));
            verdict.limit(MEAN, times.mean(), &run);
            verdict.limit(P95, times.percentile(95), &run);
            let of_pool = Limit {
                most: pool.into(),
                ..CONNECTIONS
            };
            verdict.limit(of_pool, connections as f64, &run);
        }
    }
    println!("{}", verdict.report());
    verdict.exit_code()
}
