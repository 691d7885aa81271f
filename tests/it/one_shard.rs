//! A cluster of one shard, in which no majority can depose a primary.

use std::time::{Duration, Instant};

use pennon_tests::cluster::{Deployment, Shape};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{percentage, set_percentage};

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
    let answer = set_percentage(&update, "checkout", 7).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    assert!(has_entry(&deployment, 1), "from before");
    deployment.cluster.nodes[0].kill();
    deployment.cluster.take_over_by(1);
    eventually("the other replica knows", async || {
        deployment.cluster.try_primary() == Some(1)
    })
    .await;
    // Its entry equals the snapshot in memory, and both are out of date.
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&answer), 7);
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
    // It no longer receives the others' messages and still considers itself the primary; clients still reach it.
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
        panic!("ROLE answers with a list");
    };
    assert_eq!(role[0], Resp::Text("master".to_owned()), "it knows nothing");
    // Its replicas have left it, so none confirms an invalidation. The writer leaves it after this change, or after the
    // next one if the missing confirmation is noticed too late.
    let mut percent = 10;
    eventually("a change that the new primary confirms", async || {
        // A busy machine may need any number of changes.
        percent = percent % 100 + 1;
        let answer = set_percentage(&writer, "checkout", percent).await;
        let confirmed = answer.header("x-cache-invalidated") == Some("true");
        let line = writer.last_request();
        let by_the_new_one = line["node_id"] == cluster.address(1);
        // The other nodes have 100 ms to name the primary. If a busy machine delays all of them, in this or an earlier
        // request, the writer keeps using the old primary.
        let requests = writer.requests();
        let times = requests.iter().filter_map(|line| line["duration"].as_f64());
        let took = times.fold(0.0, f64::max);
        assert!(!confirmed || by_the_new_one || took >= 100.0, "{line}");
        // The reader may fill the old primary's entry with this value.
        if !(confirmed && by_the_new_one) {
            reader.call(&Event::get("checkout")).await;
        }
        confirmed && by_the_new_one
    })
    .await;
    // A reader refreshes its slot map once a minute.
    let changed = Instant::now();
    while percentage(&reader.call(&Event::get("checkout")).await) != percent {
        assert!(changed.elapsed() < Duration::from_secs(75), "still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reader.has_logged("Redis reconnected to new primary"));
}

/// Whether a node has an entry, read as from a replica.
fn has_entry(deployment: &Deployment, node: usize) -> bool {
    let node = &deployment.cluster.nodes[node];
    node.commands(&[&["READONLY"], &["HEXISTS", KEY, "__rev"]]) == Resp::Number(1)
}
