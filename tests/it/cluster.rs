//! Behaviour that only a cluster has: discovery, replicas, slot migration, and the cases in which fred's own cluster
//! client failed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pennon_tests::cluster::{Cluster, Deployment, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::postgres::Database;
use pennon_tests::redis::{KEY, Redis, Resp};
use pennon_tests::stack::{Stack, percentage, raise_percentage_until_confirmed, set_percentage};
use pennon_tests::wire::Mode;

/// The slot of `KEY`.
const SLOT: &str = "16114";
const REPLICAS: &[(&str, &str)] = &[("REDIS_REPLICA_READS", "true")];

/// The number of reads without the cache, and of changes whose invalidation Redis did not confirm.
fn failures(function: &Function) -> usize {
    let mut requests = function.requests();
    requests.retain(|line| line["cache_unavailable"] == 1 || line["cache_invalidated"] == 0);
    requests.len()
}

#[tokio::test]
async fn one_node_is_enough_to_find_the_others() {
    let deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let get = deployment.function("get-flag", &[]).await;
    assert!(get.has_logged("Connected to Redis Cluster"));
    get.call(&Event::get("checkout")).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "memory"));
    let primary = deployment.cluster.primary();
    assert_ne!(primary, 0, "the URL names the primary");
    assert!(deployment.cluster.nodes[primary].has_entry());
    let line = get.last_request();
    assert_eq!(
        line["node_id"],
        deployment.cluster.address(primary),
        "{line}"
    );
    assert_eq!(line["active_connections"], 1, "connections to other nodes");
}

#[tokio::test]
async fn a_bad_configuration_endpoint_is_logged_and_the_database_answers() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let database = deployment.database.url();
    let lonely = Redis::start();
    for url in [
        // A Redis without cluster mode, a closed port, an unknown name.
        format!("redis-cluster://127.0.0.1:{}", lonely.port()),
        "redis-cluster://127.0.0.1:1".to_owned(),
        "redis-cluster://no-such-host.invalid:6379".to_owned(),
    ] {
        let environment = [("REDIS_URL", url.as_str()), ("DATABASE_URL", &database)];
        let get = Function::start("get-flag", &environment).await;
        for _ in 0..3 {
            assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        }
        assert!(
            get.has_logged("Redis Cluster unavailable, falling back to database"),
            "{url}: {}",
            get.log()
        );
        assert_eq!(get.last_request()["cluster_unavailable"], 1, "{url}");
    }
    // The reverse: the URL of a single server leads to a cluster.
    let url = deployment
        .cluster
        .url_of(2)
        .replace("redis-cluster", "redis");
    let environment = [("REDIS_URL", url.as_str()), ("DATABASE_URL", &database)];
    let get = Function::start("get-flag", &environment).await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    let advice = "the URL of a cluster must begin with redis-cluster://";
    assert!(get.log().contains(advice), "{}", get.log());
}

#[tokio::test]
async fn replicas_serve_reads_if_configured() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let get = deployment.function("get-flag", REPLICAS).await;
    deployment.wait_for_cache(&get).await;
    // On a busy machine a replica may respond too late, and is then not read for five seconds. Such a round does not
    // show how reads are spread, so it is repeated. A replica that was late before the first round counts too.
    let mut rounds = 0;
    let mut seen = 0;
    let reads = loop {
        let before = deployment.cluster.calls("hmget");
        let mut all_from_memory = true;
        for _ in 0..200 {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), 50);
            all_from_memory &= answer.source() == "memory";
        }
        let after = deployment.cluster.calls("hmget");
        let lines = get.requests();
        let late = lines[seen..]
            .iter()
            .any(|line| line["redis_connection_errors"] != 0);
        seen = lines.len();
        if !late {
            assert!(all_from_memory, "{}", get.log());
            let reads = after
                .iter()
                .zip(&before)
                .map(|(after, before)| after - before);
            break reads.collect::<Vec<u64>>();
        }
        rounds += 1;
        assert!(rounds < 20, "a replica was late in every round");
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    let primary = deployment.cluster.primary();
    let on_replicas = reads.iter().sum::<u64>() - reads[primary];
    assert!(on_replicas >= 100, "{reads:?}, the primary is {primary}");
    for (node, reads) in reads.iter().enumerate() {
        assert!(
            node == primary || *reads >= 40,
            "replica {node} had only {reads} reads"
        );
    }
    // The saved query `hit-rate-by-node` groups by this field.
    let named: BTreeSet<String> = get
        .requests()
        .iter()
        .filter_map(|line| line["node_id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(named.len(), 3, "{named:?}");
}

#[tokio::test]
async fn replicas_serve_no_reads_unless_configured() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let get = deployment.function("get-flag", &[]).await;
    for _ in 0..50 {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    }
    for replica in deployment.cluster.replicas_of(0) {
        assert_eq!(deployment.cluster.nodes[replica].calls("hmget"), 0);
    }
}

/// The template may set `REDIS_REPLICA_READS` in every cache mode.
#[tokio::test]
async fn the_replica_reads_setting_has_no_effect_on_a_single_node() {
    let stack = Stack::start().await;
    let get = stack.function_with("get-flag", REPLICAS).await;
    let update = stack.function_with("update-flag", REPLICAS).await;
    get.call(&Event::get("checkout")).await;
    for percent in 0..20 {
        set_percentage(&update, "checkout", percent).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent, "not seen at once");
        let before = stack.redis.calls("hmget");
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (percent, "memory"));
        assert_eq!(stack.redis.calls("hmget"), before + 1, "not one HMGET");
    }
    assert_eq!(failures(&get), 0);
    assert_eq!(get.last_request()["active_connections"], 1);
}

/// Changes a flag while a replica lags. Returns the deployment, a local server on it, and the number of reads that did
/// not see the change.
async fn change_during_a_lag_spike() -> (Deployment, Local, usize) {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let local = Local::start(&[
        ("REDIS_URL", &deployment.cluster.url()),
        ("DATABASE_URL", &deployment.database.url()),
        ("REDIS_REPLICA_READS", "true"),
    ])
    .await;
    let update = deployment.function("update-flag", &[]).await;
    // Replicas are read in turn, so one more read of `even` makes the two instances read different replicas.
    let even = deployment.function("get-flag", REPLICAS).await;
    let odd = deployment.function("get-flag", REPLICAS).await;
    let event = Event::get("checkout");
    let path = "/api/config/flags/checkout";
    for _ in 0..4 {
        deployment.wait_for_cache(&even).await;
        deployment.wait_for_cache(&odd).await;
        local.get(path).await;
    }
    deployment.cluster.stop_replication_to(1).await;

    let lag = Duration::from_millis(500);
    tokio::time::sleep(lag).await;
    // The first read of each instance asks the primary, the others ask replicas.
    for (get, reads) in [(&even, 5), (&odd, 4)] {
        for _ in 0..reads {
            assert_eq!(percentage(&get.call(&event).await), 50);
        }
    }
    let changed = raise_percentage_until_confirmed(&update, "checkout", 1).await;
    let invalidated = Instant::now();
    let mut stale = 0;
    let mut seen = [false; 2];
    while invalidated.elapsed() < 2 * lag {
        for (get, seen) in [&even, &odd].into_iter().zip(&mut seen) {
            let started = invalidated.elapsed();
            let is_new = percentage(&get.call(&event).await) == changed;
            assert!(
                is_new || started < lag,
                "stale {started:?} after the change"
            );
            assert!(is_new || !*seen, "back to the value before");
            *seen |= is_new;
            stale += usize::from(!is_new);
        }
    }
    (deployment, local, stale)
}

#[tokio::test]
async fn a_lag_spike_delays_a_change_by_half_a_second_at_most_and_the_writer_sees_it_at_once() {
    // After a pause on a busy machine, instances may read the primary or another replica than planned, and see the
    // change at once. Such a round does not show how long a change can be delayed, so it is repeated.
    let mut rounds = 0;
    let (_deployment, local) = loop {
        let (deployment, local, stale) = change_during_a_lag_spike().await;
        if stale > 0 {
            break (deployment, local);
        }
        rounds += 1;
        assert!(rounds < 5, "no read reached the lagging replica");
    };
    let path = "/api/config/flags/checkout";
    // The writer sees its change immediately. On a busy machine, the other replica may confirm some changes too late.
    let mut confirmed = 0;
    for percent in 10..30 {
        local.get(path).await;
        let body = format!("{{\"rolloutPercentage\":{percent}}}");
        let answer = local.patch("/api/admin/flags/checkout", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        confirmed += i32::from(answer.header("x-cache-invalidated") == Some("true"));
        for _ in 0..4 {
            assert_eq!(percentage(&local.get(path).await), percent);
        }
    }
    assert!(confirmed > 10, "{confirmed} of 20 changes");
}

#[tokio::test]
async fn the_first_read_of_a_replica_does_not_cause_a_connection_storm() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let received = |cluster: &Cluster| -> u64 {
        cluster
            .nodes
            .iter()
            .map(|node| {
                let response = node.command(&["INFO", "stats"]);
                let Resp::Text(text) = response else {
                    panic!("{response:?}");
                };
                text.lines()
                    .find_map(|line| line.strip_prefix("total_connections_received:"))
                    .and_then(|number| number.parse::<u64>().ok())
                    .expect("a number")
            })
            .sum()
    };
    eventually("an instance that no replica kept waiting", async || {
        let before = received(&deployment.cluster);
        let get = deployment.function("get-flag", REPLICAS).await;
        for _ in 0..200 {
            assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        }
        let made = received(&deployment.cluster) - before;
        // A replica that responds late on a busy machine is not read for a while, and its connection is closed.
        let late = |line: &serde_json::Value| line["redis_connection_errors"] != 0;
        if get.requests().iter().any(late) {
            return false;
        }
        // Three of the function, three of this test, and a few for discovery.
        assert!(made < 12, "{made} connections");
        assert_eq!(get.last_request()["active_connections"], 3);
        true
    })
    .await;
}

#[tokio::test]
async fn a_dead_replica_causes_no_error() {
    let mut deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let get = deployment.function("get-flag", REPLICAS).await;
    let update = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&get).await;
    deployment.cluster.nodes[1].kill();
    let mut percent = 0;
    for _ in 0..20 {
        percent = raise_percentage_until_confirmed(&update, "checkout", percent + 1).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent);
        assert_eq!(get.last_request()["cache_unavailable"], 0);
    }
    // On a busy machine, the other replica may confirm some changes too late.
    let unconfirmed = percent - 20;
    assert!(unconfirmed <= 10, "{unconfirmed} changes, {}", update.log());
    // An instance that starts while a replica is dead.
    let fresh = deployment.function("get-flag", REPLICAS).await;
    for _ in 0..20 {
        let answer = fresh.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent);
        assert_eq!(fresh.last_request()["cache_unavailable"], 0);
    }
}

#[tokio::test]
async fn a_frozen_replica_causes_no_error() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let get = deployment.function("get-flag", REPLICAS).await;
    let update = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&get).await;
    deployment.cluster.nodes[2].freeze();
    let mut percent = 0;
    for _ in 0..20 {
        percent = raise_percentage_until_confirmed(&update, "checkout", percent + 1).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent);
        assert_eq!(get.last_request()["cache_unavailable"], 0);
    }
    // On a busy machine, the other replica may confirm some changes too late.
    let unconfirmed = percent - 20;
    assert!(unconfirmed <= 10, "{unconfirmed} changes, {}", update.log());
}

#[tokio::test]
async fn a_dead_primary_affects_only_its_own_shard() {
    let mut deployment = Deployment::on_cluster(Shape {
        replicas: 0,
        ..Shape::SIX_NODES
    })
    .await;
    // The second node serves `staging`, the last one `production`.
    deployment
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
             values ('checkout', true, 7, 'staging')",
        )
        .await
        .expect("a flag");
    // By default nodes reject all commands once slots are missing.
    for node in &deployment.cluster.nodes {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let get = deployment.function("get-flag", &[]).await;
    let staging = Event::get("checkout").query("environment=staging");
    eventually("the entry of staging is stored", async || {
        get.call(&staging).await;
        let entry = ["HEXISTS", "feature_flags:staging", "__rev"];
        deployment.cluster.nodes[1].command(&entry) == Resp::Number(1)
    })
    .await;
    deployment.wait_for_cache(&get).await;
    let primary = deployment.cluster.primary();
    assert_ne!(primary, 1);
    deployment.cluster.nodes[primary].kill();
    for _ in 0..20 {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        let answer = get.call(&staging).await;
        assert_eq!((percentage(&answer), answer.source()), (7, "memory"));
        assert_eq!(get.last_request()["redis_connection_errors"], 0);
    }
}

/// Begins the migration of production's slot. The key moves when it is next created.
fn migrate(cluster: &Cluster, from: usize, to: usize) {
    let (source, destination) = (cluster.id(from), cluster.id(to));
    cluster.nodes[to].command(&["CLUSTER", "SETSLOT", SLOT, "IMPORTING", source]);
    cluster.nodes[from].command(&["CLUSTER", "SETSLOT", SLOT, "MIGRATING", destination]);
}

/// Whether the key has left this node, from which its slot migrates.
fn has_migrated(from: &Redis) -> bool {
    let answer = from.command(&["HGET", KEY, "__rev"]);
    matches!(&answer, Resp::Error(text) if text.starts_with("ASK"))
}

#[tokio::test]
async fn a_lost_invalidation_on_a_node_that_imports_the_slot_is_a_connection_error() {
    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let mut cluster = Cluster::start(Shape {
        replicas: 1,
        ..Shape::WIRED
    });
    let wires = cluster.wires();
    cluster.wait().await;
    let deployment = Deployment { cluster, database };
    let get = deployment.function("get-flag", &[]).await;
    let update = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&get).await;
    let (from, to) = (deployment.cluster.primary(), 0);
    migrate(&deployment.cluster, from, to);
    let confirmed = raise_percentage_until_confirmed(&update, "checkout", 1).await;
    assert!(has_migrated(&deployment.cluster.nodes[from]));
    let lost = Mode::Lose {
        text: "-- After a commit",
        percent: 100,
        arriving_percent: 0,
    };
    wires[to].set(lost).await;
    let answer = set_percentage(&update, "checkout", confirmed + 1).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
    let line = update.last_request();
    assert_ne!(line["redis_connection_errors"], 0, "{line}");
    wires[to].set(Mode::Open).await;
    let read = get.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&read), confirmed + 1);
}

#[tokio::test]
async fn a_migrating_slot_is_followed() {
    let deployment = Deployment::on_cluster(Shape {
        replicas: 0,
        ..Shape::SIX_NODES
    })
    .await;
    let get = deployment.function("get-flag", &[]).await;
    let update = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&get).await;
    let nodes = &deployment.cluster.nodes;
    let (from, to) = (deployment.cluster.primary(), 0);
    migrate(&deployment.cluster, from, to);
    // The key is still on the old node. After a change it is on the new one, and the old node answers ASK.
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    for percent in 1..6 {
        set_percentage(&update, "checkout", percent).await;
        for _ in 0..3 {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), percent);
        }
        assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
    }
    assert!(!nodes[from].has_entry(), "the key is on the old node");
    assert!(has_migrated(&nodes[from]));
    for node in nodes {
        let owner = deployment.cluster.id(to);
        node.command(&["CLUSTER", "SETSLOT", SLOT, "NODE", owner]);
    }
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (5, "memory"));
    assert!(nodes[to].has_entry());
    // If the key migrates between two commands of a script, the script fails and is retried on the new node.
    assert_eq!((failures(&get), failures(&update)), (0, 0));
}

#[tokio::test]
async fn a_replica_that_is_added_later_is_used() {
    // The slot map is refreshed by the failover, and then contains the new replica.
    let mut deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    deployment.cluster.nodes[2].kill();
    let get = deployment.function("get-flag", REPLICAS).await;
    deployment.wait_for_cache(&get).await;
    deployment.cluster.nodes[2].restart();
    deployment.cluster.wait().await;
    deployment.cluster.fail_over_to(1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while deployment.cluster.nodes[2].calls("hmget") == 0 {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        assert!(Instant::now() < deadline, "the new replica was never used");
    }
}

#[tokio::test]
async fn a_new_replica_confirms_the_next_change() {
    let mut deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let primary = deployment.cluster.primary();
    let replica = deployment.cluster.replicas_of(primary)[0];
    deployment.cluster.nodes[replica].kill();
    let address = deployment.cluster.address(replica);
    let (_, port) = address.split_once(':').expect("a port");
    eventually("no node reports the replica", async || {
        let nodes = &deployment.cluster.nodes;
        let mut running = nodes.iter().filter(|node| node.runs());
        running.all(|node| {
            let slots = node.command(&["CLUSTER", "SLOTS"]);
            !format!("{slots:?}").contains(&format!("Number({port})"))
        })
    })
    .await;
    let update = deployment.function("update-flag", &[]).await;
    let confirmations = |cluster: &Cluster| cluster.nodes[primary].calls("wait");
    let answer = set_percentage(&update, "checkout", 1).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    assert_eq!(confirmations(&deployment.cluster), 0, "WAIT was sent");
    deployment.cluster.nodes[replica].restart();
    deployment.cluster.wait().await;
    let attempts = raise_percentage_until_confirmed(&update, "checkout", 2).await - 1;
    let waits = i64::try_from(confirmations(&deployment.cluster)).expect("few");
    assert!(waits >= attempts, "{waits} for {attempts} changes");
}
