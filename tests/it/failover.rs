//! Clusters that lose nodes while several functions read and one writes: no request fails, no read is stale, and every
//! instance uses the cache again without intervention.

use std::time::{Duration, SystemTime};

use pennon_tests::cluster::{Cluster, Deployment, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::load::{Load, Reader, Record};
use pennon_tests::redis::{Redis, Resp};
use pennon_tests::stack::{percentage, raise_percentage_until_confirmed};

/// How much later a change may be visible through a replica.
const LAG: Duration = Duration::from_millis(500);

/// Starts two functions that read only primaries, one that also reads replicas, and one that writes.
async fn load(deployment: &Deployment) -> Load {
    let replicas = [("REDIS_REPLICA_READS", "true")];
    let mut readers = Vec::new();
    for (more, lag) in [(&[][..], 0), (&[][..], 0), (&replicas[..], 1)] {
        readers.push(Reader {
            function: deployment.function("get-flag", more).await,
            lag: LAG * lag,
        });
    }
    let writer = deployment.function("update-flag", &[]).await;
    let load = Load::start(
        readers,
        writer,
        Duration::from_millis(5),
        Duration::from_millis(100),
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    load
}

/// Waits until a new instance uses the cache, gives the running ones another 2.5 s, and stops the load. No request may
/// have failed, and no read may have been stale.
async fn finish_after_recovery(deployment: &Deployment, load: Load) -> Record {
    let probe = deployment
        .function("get-flag", &[("REDIS_URL", &live_url(&deployment.cluster))])
        .await;
    deployment.wait_for_cache(&probe).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let record = load.finish().await;
    assert_eq!(record.errors(), 0, "requests failed");
    assert_eq!(record.stale(), 0, "reads were stale");
    // Without a confirmed change, no read counts as stale.
    let mut samples = record.samples.iter();
    assert!(samples.any(|sample| sample.invalidated == Some(true)));
    for function in &record.readers {
        deployment.wait_for_cache(function).await;
    }
    record
}

fn live_url(cluster: &Cluster) -> String {
    let live = cluster.nodes.iter().position(Redis::runs);
    cluster.url_of(live.expect("a node that answers"))
}

/// Waits until another node has the slot of production's entry, according to most of the nodes that answer, and returns
/// its index.
async fn new_primary(cluster: &Cluster, old: usize) -> usize {
    let mut new = old;
    eventually("another primary", async || {
        new = cluster.try_primary().unwrap_or(old);
        new != old
    })
    .await;
    new
}

fn assert_logged(record: &Record, message: &str) {
    for function in &record.readers {
        assert!(
            function.has_logged(message),
            "{message}: {}",
            function.log()
        );
    }
}

#[tokio::test]
async fn a_planned_failover_fails_no_cache_operation() {
    let deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    for _ in 0..2 {
        let old = deployment.cluster.primary();
        let replica = deployment.cluster.replicas_of(old)[0];
        deployment.cluster.fail_over_to(replica);
        assert_eq!(new_primary(&deployment.cluster, old).await, replica);
        deployment.cluster.wait().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let record = finish_after_recovery(&deployment, load).await;
    assert_logged(&record, "Redis reconnected to new primary");
    let failed = record.failed_cache_operations();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn a_killed_primary_is_replaced_by_its_replica() {
    let mut deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    let old = deployment.cluster.primary();
    deployment.cluster.nodes[old].kill();
    new_primary(&deployment.cluster, old).await;
    let promoted = SystemTime::now();
    let record = finish_after_recovery(&deployment, load).await;
    assert_logged(&record, "Redis reconnected to new primary");
    assert_logged(
        &record,
        "Redis Cluster unavailable, falling back to database",
    );
    let back = record.recovered_after(promoted);
    assert!(
        back < Duration::from_secs(2),
        "{back:?} after the promotion"
    );
    // The cluster works again after the old primary returns.
    deployment.cluster.nodes[old].restart();
    deployment.cluster.wait().await;
}

#[tokio::test]
async fn instances_leave_a_frozen_primary_within_two_seconds_of_a_takeover() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let load = load(&deployment).await;
    deployment.cluster.nodes[0].freeze();
    // The time until the control plane notices.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    deployment.cluster.take_over_by(1);
    let taken_over = SystemTime::now();
    let record = finish_after_recovery(&deployment, load).await;
    assert_logged(&record, "Redis reconnected to new primary");
    let back = record.recovered_after(taken_over);
    assert!(back < Duration::from_secs(2), "{back:?} after the takeover");
}

#[tokio::test]
async fn losing_a_zone_with_a_primary_and_a_replica_is_survived() {
    let mut deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    let old = deployment.cluster.primary();
    let other = deployment.cluster.replicas_of((old + 1) % 3)[0];
    deployment.cluster.nodes[old].kill();
    deployment.cluster.nodes[other].kill();
    new_primary(&deployment.cluster, old).await;
    let promoted = SystemTime::now();
    let record = finish_after_recovery(&deployment, load).await;
    let back = record.recovered_after(promoted);
    assert!(
        back < Duration::from_secs(2),
        "{back:?} after the promotion"
    );
}

#[tokio::test]
async fn reads_succeed_while_all_nodes_are_down_and_use_them_again_later() {
    let mut deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    for node in &mut deployment.cluster.nodes {
        node.kill();
    }
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    for node in &mut deployment.cluster.nodes {
        node.restart();
    }
    deployment.cluster.wait().await;
    let record = finish_after_recovery(&deployment, load).await;
    assert_logged(
        &record,
        "Redis Cluster unavailable, falling back to database",
    );
    let failed = record.failed_cache_operations();
    let read = failed.iter().find(|line| line["cache_unavailable"] == 1);
    let line = read.expect("a read without a cache");
    assert_eq!(
        (&line["status"], &line["cluster_unavailable"]),
        (&200.into(), &1.into())
    );
}

#[tokio::test]
async fn replacing_every_node_in_turn_fails_no_request() {
    let mut deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    for node in 0..deployment.cluster.nodes.len() {
        // As in a service window: fail over first, then replace.
        let replicas = deployment.cluster.replicas_of(node);
        if let [replica, ..] = replicas.as_slice() {
            deployment.cluster.fail_over_to(*replica);
            eventually("the node is a replica of the new primary", async || {
                deployment.cluster.replicas_of(*replica).contains(&node)
            })
            .await;
            deployment.cluster.wait().await;
        }
        deployment.cluster.nodes[node].kill();
        deployment.cluster.nodes[node].restart();
        deployment.cluster.wait().await;
    }
    let record = finish_after_recovery(&deployment, load).await;
    let failed = record.failed_cache_operations().len();
    let share = failed * 100 / record.samples.len();
    assert!(share < 1, "{failed} of {} requests", record.samples.len());
}

#[tokio::test]
async fn a_minority_refuses_commands_and_the_database_answers() {
    let deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let load = load(&deployment).await;
    let primary = deployment.cluster.primary();
    let replica = deployment.cluster.replicas_of(primary)[0];
    // The nodes that serve production run, but see only a minority of the nodes: the others are frozen.
    let others: Vec<usize> = (0..6)
        .filter(|node| ![primary, replica].contains(node))
        .collect();
    for node in &others {
        deployment.cluster.nodes[*node].freeze();
    }
    eventually("the minority gives up", async || {
        let answer = deployment.cluster.nodes[primary].command(&[
            "HGET",
            "feature_flags:production",
            "__rev",
        ]);
        matches!(answer, Resp::Error(text) if text.starts_with("CLUSTERDOWN"))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for node in &others {
        deployment.cluster.nodes[*node].thaw();
    }
    deployment.cluster.wait().await;
    let record = finish_after_recovery(&deployment, load).await;
    assert_logged(
        &record,
        "Redis Cluster unavailable, falling back to database",
    );
}

#[tokio::test]
async fn after_a_split_brain_each_shard_has_one_primary_and_no_read_is_stale() {
    let deployment = Deployment::on_cluster(Shape::SIX_NODES).await;
    let old = deployment.cluster.primary();
    // This function connects to the old primary now, and gets its next request after the partition.
    let idle = deployment.function("get-flag", &[]).await;
    deployment.wait_for_cache(&idle).await;
    let load = load(&deployment).await;
    deployment.cluster.nodes[old].freeze();
    let new = new_primary(&deployment.cluster, old).await;
    let update = deployment
        .function(
            "update-flag",
            &[("REDIS_URL", &deployment.cluster.url_of(new))],
        )
        .await;
    // The old primary resumes with the old entry, and still considers itself the primary for a moment.
    deployment.cluster.nodes[old].thaw();
    deployment.cluster.wait().await;
    let percent = raise_percentage_until_confirmed(&update, "checkout", 9).await;
    assert_eq!(
        percentage(&idle.call(&Event::get("checkout")).await),
        percent
    );
    let roles = deployment.cluster.nodes.iter().map(|node| {
        let Resp::List(role) = node.command(&["ROLE"]) else {
            panic!("ROLE answers with a list");
        };
        role[0].clone()
    });
    let primaries = roles.filter(|role| *role == Resp::Text("master".to_owned()));
    assert_eq!(primaries.count(), 3, "not one primary for each shard");
    assert_eq!(deployment.cluster.primary(), new);
    finish_after_recovery(&deployment, load).await;
}
