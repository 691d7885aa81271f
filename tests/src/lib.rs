//! What the tests stand on: real servers, the real function binaries, and wires between them that a
//! test can cut.
//!
//! Every test gets a Redis process and a PostgreSQL database of its own. Nothing here stands in for
//! a server, but for AWS's own control plane in [`aws`]; [`wire`] only misbehaves like a network.

// A harness may stop at the first surprise, as a test may.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "test harness"
)]

pub mod answer;
pub mod api;
pub mod aws;
pub mod binaries;
pub mod browser;
pub mod certificates;
pub mod clients;
pub mod cluster;
pub mod event;
pub mod figures;
pub mod flag_generator;
pub mod fleet;
pub mod issuer;
pub mod lambda;
pub mod limits;
pub mod load;
pub mod local;
pub mod plot;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod reference_engine;
pub mod rng;
pub mod routes;
pub mod secrets;
pub mod sign_in;
pub mod stack;
pub mod wire;

use std::task::Poll;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Far above what it takes, so that a slow
/// machine fails no test; a test that waits waits for a condition.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs futures side by side and gives what they give, in their order.
pub async fn side_by_side<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
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
