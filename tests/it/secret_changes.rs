//! Changes of the secret with the Redis URL, to another Redis, to a cluster, to an invalid value and back, during
//! requests and without a deployment.

use std::time::{Duration, Instant};

use pennon_tests::cluster::{Cluster, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::load::{Load, Reader};
use pennon_tests::redis::Redis;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::{
    LONG_CACHE_TIMEOUTS, LONG_DATABASE_TIMEOUTS, Stack, percentage, set_percentage,
};
use pennon_tests::wire::{Mode, Wire};
use serde_json::json;

/// Instances read the secret every second instead of every five minutes.
const REFRESH: (&str, &str) = ("REDIS_SECRET_REFRESH_SECONDS", "1");

/// For the test of a whole move. An instance that reads the secret every second might not receive it in time on a busy
/// machine, and would then use PostgreSQL.
const SLOWER_REFRESH: (&str, &str) = ("REDIS_SECRET_REFRESH_SECONDS", "5");

async fn function(manager: &SecretsManager, name: &str, arn: &str, database: &str) -> Function {
    function_with(manager, name, arn, database, REFRESH).await
}

async fn function_with(
    manager: &SecretsManager,
    name: &str,
    arn: &str,
    database: &str,
    refresh: (&str, &str),
) -> Function {
    let environment = [
        ("REDIS_SECRET_ARN", arn),
        ("DATABASE_URL", database),
        refresh,
    ];
    let environment = [
        &environment[..],
        &LONG_CACHE_TIMEOUTS,
        &LONG_DATABASE_TIMEOUTS,
    ]
    .concat();
    manager.function(name, &environment).await
}

/// Waits until every instance in use has read the secret again.
async fn wait_for_secret_refresh() {
    tokio::time::sleep(Duration::from_millis(6_000)).await;
}

#[tokio::test]
async fn a_cache_moves_to_a_cluster_and_back_without_an_error_or_an_old_value() {
    let stack = Stack::start().await;
    let cluster = Cluster::start_and_wait(Shape::SIX_NODES).await;
    let manager = SecretsManager::start().await;
    let (single, clustered) = (stack.redis.direct_url(), cluster.url());
    let arn = manager.create("redis", &single).await;
    let database = stack.database_url();
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Reader {
            function: function_with(&manager, "get-flag", &arn, &database, SLOWER_REFRESH).await,
            lag: Duration::ZERO,
        });
    }
    let writer = function_with(&manager, "update-flag", &arn, &database, SLOWER_REFRESH).await;
    let [between_reads, between_changes] = [15, 100].map(Duration::from_millis);
    let load = Load::start(readers, writer, between_reads, between_changes);
    let primary = cluster.primary();
    for (from, to, step) in [
        (&single, &clustered, "there"),
        (&clustered, &single, "back"),
    ] {
        // A change invalidates both caches before the first instance reads the new one, and until no instance reads
        // the old one.
        for text in [format!("{from}\n{to}"), format!("{to}\n{from}"), to.clone()] {
            manager.change(&arn, &text).await;
            wait_for_secret_refresh().await;
        }
        let on_single = stack.redis.count_clients().await;
        let on_cluster = cluster.nodes[primary].count_clients().await;
        let expected = if step == "there" { (0, 4) } else { (4, 0) };
        assert_eq!((on_single, on_cluster), expected, "connections, {step}");
    }
    let record = load.finish().await;
    assert_eq!((record.errors(), record.stale()), (0, 0));
    let failed = record.failed_cache_operations();
    assert!(failed.is_empty(), "{failed:#?}");
    for function in &record.readers {
        let switches = function
            .log()
            .matches("the secret names another Redis")
            .count();
        assert_eq!(switches, 6, "not one switch for each change of the secret");
    }
}

#[tokio::test]
async fn a_late_redis_secret_is_read_in_a_later_request() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let get = function(&manager, "get-flag", "late", &stack.database_url()).await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert_eq!(get.last_request()["cache_unavailable"], 1);
    manager.create("late", &stack.redis_url()).await;
    eventually("the secret that came late is read", async || {
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), 50);
        answer.source() == "memory"
    })
    .await;
}

#[tokio::test]
async fn an_instance_without_redis_reads_the_secret_again_at_intervals() {
    let mut stack = Stack::start().await;
    let other = Redis::start();
    let manager = SecretsManager::start().await;
    let arn = manager.create("redis", &stack.redis_url()).await;
    // The secret is read every second while Redis is unavailable, otherwise every 30 s.
    let environment = [
        ("REDIS_SECRET_ARN", arn.as_str()),
        ("DATABASE_URL", &stack.database_url()),
        ("REDIS_SECRET_REFRESH_SECONDS", "30"),
    ];
    let get = manager.function("get-flag", &environment).await;
    get.call(&Event::get("checkout")).await;
    stack.redis.kill();
    let (started, calls) = (Instant::now(), manager.log().matches("POST").count());
    while started.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    }
    let calls = manager.log().matches("POST").count() - calls;
    assert!((1..=3).contains(&calls), "{calls} calls in 2.5 s");
    manager.change(&arn, &other.url()).await;
    eventually("on the other Redis", async || {
        get.call(&Event::get("checkout")).await.source() == "memory"
    })
    .await;
    assert!(other.has_entry());
}

#[tokio::test]
async fn a_secret_that_names_no_redis_changes_nothing() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let arn = manager.create("redis", &stack.redis_url()).await;
    let get = function(&manager, "get-flag", &arn, &stack.database_url()).await;
    for (text, word) in [
        ("redis://:hunter2@127.0.0.1:1", "keeping the previous one"),
        ("hunter2", "Invalid URL in secret"),
    ] {
        get.call(&Event::get("checkout")).await;
        manager.change(&arn, text).await;
        eventually("the new secret has been read", async || {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!((percentage(&answer), answer.status), (50, 200));
            get.log().contains(word)
        })
        .await;
        assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
    }
    assert!(
        !get.log().contains("hunter2"),
        "a part of the secret is in the log"
    );
}

#[tokio::test]
async fn an_instance_that_moved_compares_entries_with_the_database() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let database = stack.database_url();
    let update = stack.function("update-flag").await;
    // Only the request that moves the instance to the other Redis tests the comparison. On a busy machine, a later
    // request may move the instance; then the test tries again.
    for attempt in 1..=20_u8 {
        set_percentage(&update, "checkout", 50).await;
        let other = Redis::start();
        let arn = manager
            .create(&format!("redis-{attempt}"), &stack.redis_url())
            .await;
        let get = function(&manager, "get-flag", &arn, &database).await;
        // Both caches and the instance have the same entry, and only one cache is invalidated.
        let elsewhere = stack
            .function_with("get-flag", &[("REDIS_URL", &other.url())])
            .await;
        elsewhere.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        set_percentage(&update, "checkout", 3).await;
        manager.change(&arn, &other.url()).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 3);
        if get.log().contains("the secret names another Redis") {
            return;
        }
    }
    panic!("in no attempt did the compared request move the instance");
}

/// An instance that is idle while the cache moves from one Redis to another, and then reads the secret through a wire.
struct IdleDuringMove {
    idle: Function,
    wire: Wire,
    moved_to: Redis,
    stack: Stack,
    _manager: SecretsManager,
}

impl IdleDuringMove {
    /// Starts the instance and moves the cache, whose old Redis keeps running. The wire then has this mode.
    async fn start(name: &str, mode: Mode) -> Self {
        let stack = Stack::start().await;
        let moved_to = Redis::start();
        let manager = SecretsManager::start().await;
        let arn = manager.create("redis", &stack.redis_url()).await;
        let (wire, endpoint) = manager.behind_a_wire();
        let database = stack.database_url();
        let environment = [
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint.as_str()),
            ("REDIS_SECRET_ARN", &arn),
            ("DATABASE_URL", &database),
            REFRESH,
        ];
        let environment = [
            &environment[..],
            &LONG_CACHE_TIMEOUTS,
            &LONG_DATABASE_TIMEOUTS,
        ]
        .concat();
        let idle = manager.function(name, &environment).await;
        let read = Event::get("checkout");
        stack.function("get-flag").await.call(&read).await;
        if name == "get-flag" {
            assert_eq!(idle.call(&read).await.source(), "redis");
        }
        manager.change(&arn, &moved_to.url()).await;
        wire.set(mode).await;
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        Self {
            idle,
            wire,
            moved_to,
            stack,
            _manager: manager,
        }
    }

    /// Starts a function that uses the new Redis.
    async fn moved(&self, name: &str) -> Function {
        let url = self.moved_to.url();
        self.stack.function_with(name, &[("REDIS_URL", &url)]).await
    }
}

#[tokio::test]
async fn an_instance_that_was_idle_during_a_move_does_not_read_the_old_cache() {
    let slow = Mode::Delay(Duration::from_secs(1));
    let moved = IdleDuringMove::start("get-flag", slow).await;
    let update = moved.moved("update-flag").await;
    let answer = set_percentage(&update, "checkout", 7).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    for _ in 0..3 {
        let answer = moved.idle.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), 7);
    }
    moved.wire.set(Mode::Open).await;
    eventually("on the new Redis", async || {
        let answer = moved.idle.call(&Event::get("checkout")).await;
        answer.source() == "memory" && moved.moved_to.has_entry()
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_was_idle_during_a_move_confirms_no_change_in_the_old_cache_only() {
    // The secret arrives during the change, or too late for it.
    for delay in [200, 3_000].map(Duration::from_millis) {
        let moved = IdleDuringMove::start("update-flag", Mode::Delay(delay)).await;
        let get = moved.moved("get-flag").await;
        for _ in 0..2 {
            get.call(&Event::get("checkout")).await;
        }
        let answer = set_percentage(&moved.idle, "checkout", 7).await;
        let confirmed = answer.header("x-cache-invalidated");
        let seen = percentage(&get.call(&Event::get("checkout")).await);
        assert!(
            seen == 7 || confirmed == Some("false"),
            "{delay:?}: {seen} % after {confirmed:?}"
        );
        assert!(
            delay < Duration::from_secs(1) || confirmed == Some("false"),
            "{delay:?}: {confirmed:?}"
        );
    }
}

#[tokio::test]
async fn an_instance_that_cannot_read_the_secret_compares_entries_and_confirms_no_change() {
    let moved = IdleDuringMove::start("get-flag", Mode::Refuse).await;
    let update = moved.moved("update-flag").await;
    set_percentage(&update, "checkout", 7).await;
    let answer = moved.idle.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&answer), 7);
    eventually("the known Redis is used", async || {
        let answer = moved.idle.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), 7);
        answer.source() == "memory"
    })
    .await;

    let moved = IdleDuringMove::start("update-flag", Mode::Refuse).await;
    let answer = set_percentage(&moved.idle, "checkout", 7).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
}

#[tokio::test]
async fn reconcile_moves_from_a_dead_redis_to_the_one_that_the_secret_names() {
    let mut stack = Stack::start().await;
    let other = Redis::start();
    let manager = SecretsManager::start().await;
    let arn = manager.create("redis", &stack.redis_url()).await;
    let reconcile = function(&manager, "reconcile", &arn, &stack.database_url()).await;
    reconcile.invoke(&json!({})).await.expect("reconciles");
    stack.redis.kill();
    manager.change(&arn, &other.url()).await;
    eventually("reconcile has filled the other Redis", async || {
        // `reconcile` fails until it has read the new secret.
        let _outcome = reconcile.invoke(&json!({})).await;
        other.has_entry()
    })
    .await;
}

#[tokio::test]
async fn a_mac_key_that_is_replaced_in_steps_makes_no_entry_look_forged() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let (old, new) = ("o".repeat(64), "n".repeat(64));
    let arn = manager.create("cache-mac", &old).await;
    let (redis, database) = (stack.redis_url(), stack.database_url());
    let environment = [
        ("CACHE_MAC_SECRET_ARN", arn.as_str()),
        ("REDIS_URL", &redis),
        ("DATABASE_URL", &database),
        REFRESH,
    ];
    let readers = [
        manager.function("get-flag", &environment).await,
        manager.function("get-flag", &environment).await,
    ];
    let update = manager.function("update-flag", &environment).await;
    let mut percent = 0;
    let changes = |function: &Function| {
        let log = function.log();
        log.matches("the key of cache entries has changed").count()
    };
    for (done, text) in [format!("{old} {new}"), format!("{new} {old}"), new]
        .into_iter()
        .enumerate()
    {
        manager.change(&arn, &text).await;
        // The instances read the secret at different times.
        eventually("every instance has the changed key", async || {
            percent = percent % 90 + 1;
            set_percentage(&update, "checkout", percent).await;
            for reader in &readers {
                assert_eq!(
                    percentage(&reader.call(&Event::get("checkout")).await),
                    percent
                );
            }
            let mut functions = readers.iter().chain([&update]);
            functions.all(|function| changes(function) == done + 1)
        })
        .await;
    }
    for reader in &readers {
        let log = reader.log();
        assert!(!log.contains("forged_entry"), "{log}");
        assert!(!log.contains(&old) && !log.contains("nnnn"));
        let answer = reader.call(&Event::get("checkout")).await;
        assert_eq!(answer.source(), "memory");
    }
}

#[tokio::test]
async fn a_mac_key_that_is_replaced_in_one_step_is_read_again_after_a_mismatch() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let arn = manager.create("cache-mac", &"o".repeat(64)).await;
    let (redis, database) = (stack.redis_url(), stack.database_url());
    // The secret is read every 3 s after an entry with an invalid MAC, otherwise every 90 s. `eventually` waits 60 s.
    let environment = [
        ("CACHE_MAC_SECRET_ARN", arn.as_str()),
        ("REDIS_URL", &redis),
        ("DATABASE_URL", &database),
        ("REDIS_SECRET_REFRESH_SECONDS", "90"),
    ];
    let old = manager.function("get-flag", &environment).await;
    old.call(&Event::get("checkout")).await;
    manager.change(&arn, &"n".repeat(64)).await;
    let new = manager.function("get-flag", &environment).await;
    eventually("both have the new key", async || {
        for function in [&old, &new] {
            let answer = function.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), 50);
        }
        old.has_logged("the key of cache entries has changed; using the new one")
    })
    .await;
    let fresh = manager.function("get-flag", &environment).await;
    eventually("one entry for all", async || {
        for function in [&old, &new] {
            function.call(&Event::get("checkout")).await;
        }
        fresh.call(&Event::get("checkout")).await.source() == "memory"
    })
    .await;
}
