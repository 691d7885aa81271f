//! The test harness: real servers, the compiled functions, and TCP proxies ("wires") between them that a test
//! can cut.
//!
//! No two tests share a Redis process or a PostgreSQL database. Services of AWS are simulated, in [`aws`],
//! [`cloudwatch`], [`event_bus`], [`extension`], [`lambda`] and [`secrets`]; so are an issuer of tokens, in [`issuer`],
//! and a receiver of webhooks, in [`receiver`]. [`wire`] injects network faults.

// A harness may panic, as a test may.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "test harness"
)]

pub mod api;
pub mod aws;
pub mod binaries;
pub mod browser;
pub mod certificates;
pub mod clients;
pub mod cloudwatch;
pub mod cluster;
pub mod event;
pub mod event_bus;
pub mod expensive_flags;
pub mod extension;
pub mod flag_generator;
pub mod issuer;
pub mod lambda;
pub mod limits;
pub mod load;
pub mod local;
pub mod plot;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod redis;
pub mod reference_engine;
pub mod response;
pub mod rng;
pub mod routes;
pub mod secrets;
pub mod sign_in;
pub mod stack;
pub mod statistics;
pub mod topology;
pub mod webhook_function;
pub mod wire;

use std::str::FromStr;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The usual time limit of a wait. It ends tests that hang, and is so long that tests pass on a slow machine.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A number from an environment variable.
///
/// # Panics
/// If the variable is set to anything else.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a valid number: {text}")),
        Err(_unset) => default,
    }
}

/// Waits until a condition holds. Checks less often the longer it waits, because many conditions send requests.
///
/// # Panics
/// If it does not hold within [`TIME_LIMIT`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        let waited = began.elapsed();
        assert!(waited < TIME_LIMIT, "not in time: {what}");
        let pause = waited / 20;
        tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Runs futures concurrently and returns their results in order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outcomes: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, outcome) in running.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *outcome = Some(ready);
            }
        }
        if outcomes.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
