//! A snapshot of Redis, restored into new nodes: its entries are used, and stale ones are detected within the usual
//! limits.

use pennon_tests::cluster::{Cluster, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::process::free_port;
use pennon_tests::redis::{KEY, Redis, Resp};
use pennon_tests::stack::{Stack, database_loads, percentage, set_percentage};
use pennon_tests::topology::WiredRedis;
use serde_json::json;

/// A new node with the current data of another one.
fn restored_from(redis: &Redis) -> Redis {
    assert_eq!(redis.command(&["SAVE"]), Resp::Text("OK".to_owned()));
    let mut new = Redis::prepare(free_port(), &[]);
    std::fs::copy(redis.snapshot(), new.snapshot()).expect("copies");
    new.restart();
    new
}

#[tokio::test]
async fn entries_of_a_restored_snapshot_are_used() {
    let old = Redis::start();
    let stack = Stack::start().await;
    let get = stack
        .function_with("get-flag", &[("REDIS_URL", &old.url())])
        .await;
    get.call(&Event::get("checkout")).await;
    let new = restored_from(&old);
    let mut saved = old.fields();
    let mut restored = new.fields();
    saved.sort();
    restored.sort();
    assert_eq!(restored, saved, "a restored field differs");
    let Resp::Number(ttl) = new.command(&["PTTL", KEY]) else {
        panic!("a number");
    };
    assert!(ttl > 0 && ttl <= 300_000, "{ttl}");

    let nowhere = "postgres://u:p@127.0.0.1:1/x?sslmode=disable";
    let single = [
        ("REDIS_URL", new.url()),
        ("DATABASE_URL", nowhere.to_owned()),
    ];
    // The same snapshot in the nodes of a cluster.
    let cluster = Cluster::start_from(Shape::ONE_SHARD, Some(&old.snapshot()));
    cluster.wait().await;
    let clustered = [("REDIS_URL", cluster.url()), single[1].clone()];
    for environment in [single, clustered] {
        let environment = environment
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let reader = stack.function_with("get-flag", &environment).await;
        let answer = reader.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
        assert_eq!(database_loads(&reader), 0);
    }
}

#[tokio::test]
async fn changes_since_the_snapshot_are_detected() {
    let old = Redis::start();
    let stack = Stack::start().await;
    let on_old = [("REDIS_URL", old.url())];
    let on_old = on_old
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let get = stack.function_with("get-flag", &on_old).await;
    let update = stack.function_with("update-flag", &on_old).await;
    get.call(&Event::get("checkout")).await;
    let new = restored_from(&old);
    set_percentage(&update, "checkout", 7).await;

    // `reconcile` finds entries that are older than PostgreSQL: immediately if an operator runs it after a restore,
    // otherwise within a minute.
    let restored = Stack::start_with(WiredRedis::of(new)).await;
    let environment = [("DATABASE_URL", stack.database_url())];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let reconcile = restored.function_with("reconcile", &environment).await;
    let done = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(
        done,
        json!({"applied": 0, "environments": 1, "repaired": 1, "warmed": 1})
    );
    let fresh = restored.function_with("get-flag", &environment).await;
    let answer = fresh.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (7, "redis"));
}

#[tokio::test]
async fn entries_of_a_snapshot_expire_on_time() {
    let old = Redis::start();
    let stack = Stack::start().await;
    let environment = [
        ("REDIS_URL", old.url()),
        ("CACHE_TTL_SECONDS", "1".to_owned()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let get = stack.function_with("get-flag", &environment).await;
    get.call(&Event::get("checkout")).await;
    assert!(old.has_entry());
    old.command(&["SAVE"]);
    eventually("the entry expires", async || !old.has_entry()).await;
    // The snapshot contains the absolute expiry time, not the remaining TTL.
    let mut new = Redis::prepare(free_port(), &[]);
    std::fs::copy(old.snapshot(), new.snapshot()).expect("copies");
    new.restart();
    assert_eq!(new.command(&["EXISTS", KEY]), Resp::Number(0));
}

/// The client library connects anew by itself, so no command fails.
#[tokio::test]
async fn an_old_snapshot_that_a_crashed_redis_loads_is_detected() {
    let mut redis = Redis::start();
    let stack = Stack::start().await;
    let url = redis.url();
    let environment = [("REDIS_URL", url.as_str())];
    let get = stack.function_with("get-flag", &environment).await;
    let update = stack.function_with("update-flag", &environment).await;
    get.call(&Event::get("checkout")).await;
    redis.command(&["SAVE"]);
    set_percentage(&update, "checkout", 7).await;
    redis.kill();
    redis.restart();
    assert!(redis.has_entry(), "Redis has not loaded the entry");
    eventually("both instances have connected anew", async || {
        let Resp::Text(clients) = redis.command(&["CLIENT", "LIST"]) else {
            panic!("a text");
        };
        clients.lines().count() > 2
    })
    .await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 7);
}

/// The first command fails, and is repeated over a new connection, which leads to a server with an older entry.
#[tokio::test]
async fn an_old_entry_behind_a_replaced_connection_is_detected() {
    let stack = Stack::start().await.with_default_cache_timeouts();
    let get = stack.function("get-flag").await;
    let update = stack.function("update-flag").await;
    get.call(&Event::get("checkout")).await;
    stack.redis.command(&["COPY", KEY, "old"]);
    set_percentage(&update, "checkout", 7).await;
    stack.redis.make_half_open();
    stack.redis.command(&["COPY", "old", KEY, "REPLACE"]);
    assert!(stack.redis.has_entry(), "the old entry is missing");
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 7);
}
