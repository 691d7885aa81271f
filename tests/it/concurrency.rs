//! Concurrent requests, in one process and in several.

use std::time::Duration;

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::redis::KEY;
use pennon_tests::stack::{Stack, database_loads, percentage, was_quick};
use pennon_tests::topology::Topology;
use pennon_tests::wire::Mode;
use pennon_tests::{eventually, join_all};
use serde_json::json;

async fn requests_in_flight_share_at_most_ten_connections(on: Topology) {
    let stack = Stack::start_on(on).await;
    let environment = stack.environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment.push(("REDIS_POOL_SIZE", "50"));
    // On a busy machine a command may exceed its timeout. The pool is then replaced, but the old one keeps its
    // connections until its last command has ended. This test is about a pool without failures.
    eventually("no pool is replaced", async || {
        let local = Local::start(&environment).await;
        let most = [
            most_connections(&stack, &local, 50).await,
            most_connections(&stack, &local, 100).await,
        ];
        if local.log().contains("Redis connected anew") {
            return false;
        }
        assert!(most.iter().all(|most| *most <= 10), "{most:?} connections");
        if !on.is_cluster() {
            assert_eq!(most, [10, 10], "not all connections are used");
        }
        true
    })
    .await;
}

/// The maximum number of connections to Redis that a server has with this many requests in flight.
async fn most_connections(stack: &Stack, local: &Local, in_flight: usize) -> usize {
    let mut most = 0;
    for _ in 0..5 {
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..in_flight {
            let client = local.clone_client();
            requests.spawn(async move {
                for _ in 0..5 {
                    let answer = client.get("/api/config/flags/checkout").await;
                    assert_eq!(percentage(&answer), 50);
                }
            });
        }
        while !requests.is_empty() {
            most = most.max(stack.redis.count_clients().await);
            let _done = requests.try_join_next().map(|done| done.expect("no panic"));
        }
    }
    most
}

async fn a_concurrent_function_shares_one_load_among_its_requests(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack
        .function_with("get-flag", &[("AWS_LAMBDA_MAX_CONCURRENCY", "32")])
        .await;
    let event = Event::get("checkout");
    eventually("32 requests that are all quick", async || {
        stack.redis.command(&["DEL", KEY]);
        let before = database_loads(&get);
        let calls: Vec<_> = (0..32).map(|_| get.call(&event)).collect();
        for answer in join_all(calls).await {
            assert_eq!(percentage(&answer), 50);
        }
        let loads = database_loads(&get) - before;
        if !was_quick(&get, 32) {
            return false;
        }
        assert_eq!(loads, 1, "32 requests did not share one load");
        true
    })
    .await;
}

async fn a_cold_environment_costs_the_database_one_load_however_many_instances_ask(on: Topology) {
    let stack = Stack::start_on(on).await;
    let mut instances: Vec<Function> = Vec::new();
    for _ in 0..10 {
        instances.push(stack.function("get-flag").await);
    }
    let event = Event::get("checkout");
    let mut quick_rounds = 0;
    eventually("three rounds in which all are quick", async || {
        stack.redis.command(&["DEL", KEY]);
        let before: u64 = instances.iter().map(database_loads).sum();
        let calls: Vec<_> = instances
            .iter()
            .map(|instance| instance.call(&event))
            .collect();
        for answer in join_all(calls).await {
            assert_eq!(percentage(&answer), 50);
        }
        let loads: u64 = instances.iter().map(database_loads).sum::<u64>() - before;
        if instances.iter().all(|instance| was_quick(instance, 1)) {
            assert_eq!(loads, 1, "ten instances did not share one load");
            quick_rounds += 1;
        }
        quick_rounds == 3
    })
    .await;
}

async fn without_redis_and_postgresql_only_the_probing_request_waits(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_timeouts();
    let get = stack
        .function_with(
            "get-flag",
            &[
                ("AWS_LAMBDA_MAX_CONCURRENCY", "8"),
                ("DATABASE_CONNECT_TIMEOUT_MS", "2000"),
            ],
        )
        .await;
    let event = Event::get("checkout");
    assert_eq!(percentage(&get.call(&event).await), 50);
    stack.redis.set(Mode::Refuse).await;
    stack.database_wire.set(Mode::Hang).await;
    // This request opens the breaker; later ones probe.
    assert_eq!(get.call(&event).await.source(), "stale");
    let waits = |lines: &[serde_json::Value]| {
        let times = lines.iter().filter_map(|line| line["duration"].as_f64());
        times.filter(|&duration| duration > 1_500.0).count()
    };
    eventually("a probe among many", async || {
        // Long enough for some rounds outside the pause after a probe.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = get.requests().len();
        let calls: Vec<_> = (0..8).map(|_| get.call(&event)).collect();
        for answer in join_all(calls).await {
            assert_eq!((percentage(&answer), answer.source()), (50, "stale"));
        }
        let waited = waits(&get.requests()[before..]);
        assert!(waited <= 1, "{waited} of 8 requests waited for one probe");
        waited == 1
    })
    .await;
}

on_every_redis!(
    requests_in_flight_share_at_most_ten_connections,
    a_concurrent_function_shares_one_load_among_its_requests,
    a_cold_environment_costs_the_database_one_load_however_many_instances_ask,
    without_redis_and_postgresql_only_the_probing_request_waits,
);

#[tokio::test]
async fn concurrent_changes_succeed_whatever_the_default_isolation_level_of_the_database_is() {
    let stack = Stack::start().await;
    for level in ["serializable", "repeatable read"] {
        let set = format!(
            "do $$ begin execute format('alter database %I set default_transaction_isolation
             to ''{level}''', current_database()); end $$"
        );
        let done = stack.database.sql().batch_execute(&set).await;
        done.expect("a default");
        let instances = [
            stack.function("update-flag").await,
            stack.function("update-flag").await,
        ];
        let changes = instances.iter().map(async |update| {
            for percentage in 0..25 {
                let body = json!({ "rolloutPercentage": percentage });
                let answer = update.call(&Event::update("checkout", &body)).await;
                assert_eq!(answer.status, 200, "{level}: {answer:?}");
            }
        });
        join_all(changes).await;
    }
}
