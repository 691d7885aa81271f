//! A cluster of one shard, in which no majority can depose a primary.

use std::time::{Duration, Instant};

use pennon_tests::cluster::{Cluster, Deployment, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::response::Response;
use pennon_tests::stack::{percentage, raise_percentage_until_confirmed, set_percentage};

#[tokio::test]
async fn a_promoted_replica_that_was_behind_is_not_trusted() {
    let mut deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let get = deployment.function("get-flag", &[]).await;
    let update = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&get).await;
    set_percentage(&update, "checkout", 50).await;
    deployment.wait_for_cache(&get).await;
    eventually("the replica has the entry", async || {
        has_entry(&deployment, 1)
    })
    .await;
    deployment.cluster.stop_replication_to(1).await;
    let changed = raise_percentage_until_confirmed(&update, "checkout", 7).await;
    assert!(has_entry(&deployment, 1), "the old entry is gone");
    deployment.cluster.nodes[0].kill();
    deployment.cluster.take_over_by(1);
    eventually("the other replica knows the new primary", async || {
        deployment.cluster.try_primary() == Some(1)
    })
    .await;
    // The new primary's entry equals the snapshot in memory of `get`; both are out of date.
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&answer), changed);
    assert!(get.has_logged("Redis reconnected to new primary"));
}

#[tokio::test]
async fn writers_leave_an_isolated_primary_at_once_and_readers_within_a_minute() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let cluster = &deployment.cluster;
    let reader = deployment.function("get-flag", &[]).await;
    let writer = deployment.function("update-flag", &[]).await;
    deployment.wait_for_cache(&reader).await;
    set_percentage(&writer, "checkout", 10).await;
    deployment.wait_for_cache(&reader).await;
    isolate_primary(cluster).await;
    // The replicas have left the old primary, so none confirms an invalidation. The writer leaves the old primary after
    // this change, or after a later one if a busy machine delays the answers of the other nodes by 100 ms.
    let mut percent = 10;
    eventually("a change that the new primary confirms", async || {
        percent = percent % 100 + 1;
        let answer = set_percentage(&writer, "checkout", percent).await;
        let confirmed = is_confirmed(&answer);
        let line = writer.last_request();
        assert!(
            !confirmed || line["node_id"] == cluster.address(1),
            "{line}"
        );
        // Lets the reader fill the old primary's entry with this value, so that it serves a stale entry later.
        if !confirmed {
            reader.call(&Event::get("checkout")).await;
        }
        confirmed
    })
    .await;
    // A reader refreshes its slot map once a minute.
    let changed = Instant::now();
    while percentage(&reader.call(&Event::get("checkout")).await) != percent {
        assert!(
            changed.elapsed() < Duration::from_secs(75),
            "the reader still uses the old primary"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reader.has_logged("Redis reconnected to new primary"));
}

#[tokio::test]
async fn an_isolated_primary_does_not_confirm_changes_alone() {
    let deployment = Deployment::on_cluster(Shape::ONE_SHARD).await;
    let cluster = &deployment.cluster;
    let writer = deployment.function("update-flag", &[]).await;
    set_percentage(&writer, "checkout", 10).await;
    isolate_primary(cluster).await;
    // Only the isolated primary answers, and it reports that it has no replicas.
    for other in [1, 2] {
        cluster.nodes[other].freeze();
    }
    for percent in [11, 12, 13] {
        let answer = set_percentage(&writer, "checkout", percent).await;
        assert!(!is_confirmed(&answer), "{}", writer.last_request());
    }
    for other in [1, 2] {
        cluster.nodes[other].thaw();
    }
    eventually("the new primary confirms", async || {
        is_confirmed(&set_percentage(&writer, "checkout", 14).await)
    })
    .await;
    assert_eq!(writer.last_request()["node_id"], cluster.address(1));
}

/// Makes node 1 the primary without the knowledge of node 0, the old primary. Node 0 no longer receives the messages of
/// the others and still considers itself the primary. Clients still reach it.
async fn isolate_primary(cluster: &Cluster) {
    for other in [1, 2] {
        let answer = cluster.nodes[0].command(&["CLUSTER", "FORGET", cluster.id(other)]);
        assert_eq!(answer, Resp::Text("OK".to_owned()));
    }
    cluster.take_over_by(1);
    eventually("the other replica follows", async || {
        matches!(cluster.nodes[1].command(&["INFO", "replication"]),
            Resp::Text(text) if text.contains("role:master") && text.contains("connected_slaves:1"))
    })
    .await;
    let Resp::List(role) = cluster.nodes[0].command(&["ROLE"]) else {
        panic!("ROLE did not answer with a list");
    };
    assert_eq!(
        role[0],
        Resp::Text("master".to_owned()),
        "node 0 has noticed the takeover"
    );
}

fn is_confirmed(answer: &Response) -> bool {
    match answer.header("x-cache-invalidated") {
        Some("true") => true,
        Some("false") => false,
        other => panic!("{other:?}"),
    }
}

/// Whether a node has the entry. `READONLY` lets a replica answer itself.
fn has_entry(deployment: &Deployment, node: usize) -> bool {
    let node = &deployment.cluster.nodes[node];
    node.commands(&[&["READONLY"], &["HEXISTS", KEY, "__rev"]]) == Resp::Number(1)
}
