//! Processor time per request of the route that evaluates all flags, beside a constant response of the same server and
//! beside Unleash Edge, in one run: 100 simple flags, and 100 flags with a rule.
//!
//! `UNLEASH_EDGE=<program> cargo bench --locked --profile driver -p pennon-tests --bench unleash_edge`; without the
//! variable, only Pennon is measured. `cargo install unleash-edge --version 19.15.1 --locked --root <folder>` builds
//! the program.
//!
//! Edge runs offline, with its flags in memory. Pennon is measured with its default, where each request confirms the
//! revision in Redis, and with `SNAPSHOT_MAX_AGE_MS`, where it answers from memory, as Edge does.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::process::Command;
use std::time::Duration;

use pennon_tests::eventually;
use pennon_tests::join_all;
use pennon_tests::local::{API_KEY, HttpClient, Local};
use pennon_tests::process::{Process, free_port, new_folder, processor_time_of};
use pennon_tests::stack::Stack;
use pennon_tests::statistics::milliseconds;
use serde_json::{Value, json};

const FLAGS: usize = 100;
const ROUNDS: usize = 5;
const CLIENTS: usize = 4;
const REQUESTS_PER_CLIENT: usize = 500;
const TOKEN: &str = "*:production.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const USER: &str = "alice";

/// A server under measurement.
struct Server {
    name: String,
    client: HttpClient,
    pid: u32,
    request: Request,
    used: Duration,
}

#[derive(Clone)]
struct Request {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for has_rules in [false, true] {
        compare(has_rules).await;
    }
}

async fn compare(has_rules: bool) {
    let stack = Stack::start().await;
    let sql = stack.database.sql();
    sql.batch_execute("delete from feature_flags")
        .await
        .expect("no flags");
    for n in 0..FLAGS {
        let key = format!("flag-{n}");
        if has_rules {
            stack.database.add_typed_flag(&key, &rule()).await;
        } else {
            stack.database.add_flag(&key, true, 50).await;
        }
    }
    let start = async |max_age| {
        Local::start(&[
            ("REDIS_URL", &stack.redis.direct_url()),
            ("DATABASE_URL", &stack.database.url()),
            ("SNAPSHOT_MAX_AGE_MS", max_age),
            ("RUST_LOG", "warn"),
        ])
        .await
    };
    let (confirming, from_memory) = (start("0").await, start("10000").await);
    let evaluation = Request {
        method: "POST",
        path: "/ofrep/v1/evaluate/flags",
        headers: vec![("authorization", format!("Bearer {API_KEY}"))],
        body: json!({"context": {"targetingKey": USER, "email": "alice@example.com", "country": "DE"}}).to_string(),
    };
    let constant = Request {
        method: "GET",
        path: "/health/live",
        headers: Vec::new(),
        body: String::new(),
    };
    let of = |name: &str, local: &Local, request: &Request| Server {
        name: name.to_owned(),
        client: local.clone_client(),
        pid: local.pid(),
        request: request.clone(),
        used: Duration::ZERO,
    };
    let mut servers = vec![
        of("a constant response", &confirming, &constant),
        of("all flags, confirmed in Redis", &confirming, &evaluation),
        of("all flags, from memory", &from_memory, &evaluation),
    ];
    let edge = match std::env::var("UNLEASH_EDGE") {
        Ok(program) => Some(start_edge(&program, has_rules).await),
        Err(_unset) => None,
    };
    if let Some((process, client)) = &edge {
        servers.push(Server {
            name: "Unleash Edge, all flags".to_owned(),
            client: client.clone(),
            pid: process.pid(),
            request: Request {
                method: "GET",
                path: "/api/frontend/all?userId=alice&properties[email]=alice@example.com&properties[country]=DE",
                headers: vec![("authorization", TOKEN.to_owned())],
                body: String::new(),
            },
            used: Duration::ZERO,
        });
    }
    for server in &servers[1..] {
        let answer = server.send().await;
        let flags = ["flags", "toggles"].map(|list| answer[list].as_array().map_or(0, Vec::len));
        assert_eq!(
            flags.iter().sum::<usize>(),
            FLAGS,
            "{}: {answer}",
            server.name
        );
    }
    // In turns, so that a change of the machine's load affects all of them.
    for _ in 0..ROUNDS {
        for server in &mut servers {
            server.measure().await;
        }
    }
    println!(
        "{FLAGS} flags {}",
        if has_rules {
            "with a rule"
        } else {
            "without rules"
        }
    );
    let constant = servers[0].microseconds();
    for server in &servers {
        let time = server.microseconds();
        println!(
            "{:32} {time:8.1} us  {:6.2} x constant",
            server.name,
            time / constant
        );
    }
}

/// A rule of a typed flag.
fn rule() -> Value {
    json!({
        "variants": {"control": "control", "first": "first", "second": "second"},
        "defaultVariant": "control",
        "targeting": {"if": [
            {"and": [
                {"ends_with": [{"var": "email"}, "@example.com"]},
                {"in": [{"var": "country"}, ["DE", "AT", "CH"]]}
            ]},
            "first",
            {"fractional": [["control", 50], ["second", 50]]}
        ]}
    })
}

/// Starts Edge with boolean flags of the same names. With rules, they have the conditions of [`rule`], but no variants.
async fn start_edge(program: &str, has_rules: bool) -> (Process, HttpClient) {
    let constraints = if has_rules {
        json!([
            {"contextName": "email", "operator": "STR_ENDS_WITH", "values": ["@example.com"]},
            {"contextName": "country", "operator": "IN", "values": ["DE", "AT", "CH"]}
        ])
    } else {
        json!([])
    };
    let features: Vec<Value> = (0..FLAGS)
        .map(|n| {
            let name = format!("flag-{n}");
            let parameters = json!({"rollout": "50", "stickiness": "userId", "groupId": name});
            let strategies = json!([{"name": "flexibleRollout", "parameters": parameters, "constraints": constraints}]);
            json!({"name": name, "type": "release", "enabled": true, "strategies": strategies})
        })
        .collect();
    let folder = new_folder("edge");
    let file = folder.join("features.json");
    std::fs::write(
        &file,
        json!({"version": 2, "features": features}).to_string(),
    )
    .expect("a file");
    let port = free_port().to_string();
    let mut command = Command::new(program);
    command
        .args([
            "--port",
            &port,
            "--interface",
            "127.0.0.1",
            "--workers",
            "1",
            "offline",
        ])
        .args([
            "--bootstrap-file",
            &file.display().to_string(),
            // Without a client token, it does not start.
            "--client-tokens",
            TOKEN,
            "--frontend-tokens",
            TOKEN,
        ]);
    let process = Process::start(&command, &folder.join("log"), Some(&folder));
    let address = format!("127.0.0.1:{port}");
    eventually("Unleash Edge accepts connections", async || {
        tokio::net::TcpStream::connect(&address).await.is_ok()
    })
    .await;
    (process, HttpClient::of(format!("http://{address}")))
}

impl Server {
    async fn send(&self) -> Value {
        let headers: Vec<(&str, &str)> = self
            .request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = self
            .client
            .send(
                self.request.method,
                self.request.path,
                &headers,
                &self.request.body,
            )
            .await;
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.name);
        answer.json()
    }

    async fn measure(&mut self) {
        let before = processor_time_of(self.pid);
        let clients = (0..CLIENTS).map(|_| async {
            for _ in 0..REQUESTS_PER_CLIENT {
                self.send().await;
            }
        });
        join_all(clients).await;
        self.used += processor_time_of(self.pid).saturating_sub(before);
    }

    /// Processor time per request.
    fn microseconds(&self) -> f64 {
        let requests = ROUNDS * CLIENTS * REQUESTS_PER_CLIENT;
        1e3 * milliseconds(self.used) / requests as f64
    }
}
