//! The cluster for development: `scripts/redis-cluster` and the compose file.

use std::path::Path;
use std::process::{Command, Output};

use pennon_tests::TIME_LIMIT;
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::Database;
use pennon_tests::process::output_within;
use pennon_tests::redis::Redis;
use pennon_tests::stack::percentage;
use serde_json::json;

/// A cluster started by `scripts/redis-cluster`, and stopped when this is dropped.
struct Started {
    first: u16,
}

impl Started {
    fn on(first: u16) -> (Self, Output) {
        let started = Self { first };
        let output = started.run("start");
        (started, output)
    }

    fn run(&self, command: &str) -> Output {
        run(command, self.first)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.run("stop");
    }
}

/// The output of `scripts/redis-cluster` with this command and first port.
fn run(command: &str, first: u16) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/redis-cluster");
    let mut program = Command::new(script);
    output_within(program.args([command, &first.to_string()]), 3 * TIME_LIMIT)
}

/// The first of six consecutive free ports whose bus ports, 10,000 above, are free too. `free_port` returns none of
/// them, and none is an ephemeral port (from 32,768 on Linux).
fn free_ports() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut firsts = (20_000..22_700).step_by(6);
    firsts
        .find(|first| (*first..first + 6).all(|port| is_free(port) && is_free(port + 10_000)))
        .expect("six free ports")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn one_command_starts_a_cluster_of_six_local_processes() {
    let (cluster, output) = Started::on(free_ports());
    let printed = text(&output);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(printed.matches("  primary").count(), 3, "{printed}");
    assert_eq!(printed.matches("  replica of ").count(), 3, "{printed}");
    let url = format!("redis-cluster://127.0.0.1:{}", cluster.first);
    assert!(printed.contains(&format!("REDIS_URL={url}\n")), "{printed}");
    assert_eq!(text(&cluster.run("status")), printed);

    let database = Database::create().await;
    database.add_flag("checkout", true, 50).await;
    let environment = [("REDIS_URL", url), ("DATABASE_URL", database.url())];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let get = Function::start("get-flag", &environment).await;
    assert!(get.has_logged("Connected to Redis Cluster"));
    get.call(&Event::get("checkout")).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "memory"));

    assert!(cluster.run("stop").status.success());
    assert!(!cluster.run("status").status.success(), "still running");
}

#[test]
fn stop_fails_if_a_redis_that_the_script_has_not_started_still_answers() {
    let other = Redis::start();
    let output = run("stop", other.port());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = format!("still answers on port {}\n", other.port());
    assert!(String::from_utf8_lossy(&output.stderr).ends_with(&expected));
}

#[test]
fn an_invalid_port_is_rejected_and_an_unknown_command_prints_the_valid_ones() {
    assert_eq!(run("start", 80).status.code(), Some(2));
    for port in [80, 7_000] {
        let unknown = run("help", port);
        assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
        let usage = text(&unknown);
        for command in ["start", "status", "stop"] {
            let line = format!("scripts/redis-cluster {command} [first port]");
            assert!(usage.contains(&line), "{usage}");
        }
    }
}

#[test]
fn compose_has_redis_postgresql_and_a_cluster_of_six_nodes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose.yaml");
    let compose = crate::template::parse(&std::fs::read_to_string(path).expect("text"));
    let services = &compose["services"];
    let redis = &services["redis"];
    assert_eq!(redis["image"], "redis:7.2-alpine");
    assert_eq!(redis["ports"], json!(["127.0.0.1:6379:6379"]));
    assert_eq!(redis["volumes"], json!(["./data/redis:/data"]));
    let kept = redis["command"].as_str().expect("a command");
    assert!(
        kept.contains("--appendonly yes"),
        "a restart loses the keys: {kept}"
    );
    assert!(redis["healthcheck"]["test"].is_string());
    assert_eq!(
        services["postgres"]["ports"],
        json!(["127.0.0.1:5432:5432"])
    );

    let network = &services["redis-cluster-network"];
    assert_eq!(network["ports"], json!(["127.0.0.1:7000-7005:7000-7005"]));
    let init = &services["redis-cluster-init"];
    let making = init["command"].as_str().expect("a command");
    assert!(making.contains("--cluster-replicas 1"), "{making}");
    for number in 0..6 {
        let name = format!("redis-cluster-{number}");
        let (node, port) = (&services[&name], format!("{}", 7_000 + number));
        assert_eq!(node["environment"]["NODE_PORT"], port);
        // The other nodes differ from the first one in their ports only.
        let common = if number == 0 { node } else { &node["<<"] };
        assert_eq!(common["network_mode"], "service:redis-cluster-network");
        assert_eq!(common["profiles"], json!(["cluster"]));
        let command = common["command"].as_str().expect("a command");
        assert!(command.contains("--cluster-enabled yes"), "{command}");
        let healthy = json!({"condition": "service_healthy"});
        assert_eq!(init["depends_on"][&name], healthy, "{name} is not awaited");
        assert!(making.contains(&format!("127.0.0.1:{port}")), "{making}");
    }
}
