//! The extension with 1,000 flags: the time of an evaluation as a ratio to an empty handler of the same HTTP library in
//! the same run, its memory, and what it adds to a cold start. Fails above the limits in `tests/src/limits.rs`.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench extension`

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::process::{Command, ExitCode};
use std::time::Instant;

use pennon_eval::document::Document;
use pennon_tests::binaries::binary;
use pennon_tests::extension::{Behaviour, Extension, ExtensionsApi, FlagSource, SYNC_KEY, path_of};
use pennon_tests::limits::{EXTENSION_COLD_START, EXTENSION_MEMORY, EXTENSION_RATIO, Verdict};
use pennon_tests::local::HttpClient;
use pennon_tests::process::{Process, free_port, new_folder};
use pennon_tests::statistics::Times;
use serde_json::{Map, Value, json};

const FLAGS: usize = 1_000;
/// The extension and the empty handler take turns, with this many requests per turn, so that noise of the machine
/// affects both.
const BLOCK: usize = 200;
const BLOCKS: usize = 50;
const COLD_STARTS: usize = 30;

/// Half of the flags are simple, half have a rule.
fn document() -> Value {
    let flags: Map<String, Value> = (0..FLAGS)
        .map(|number| {
            let flag = if number % 2 == 0 {
                json!({"enabled": true, "rolloutPercentage": 50})
            } else {
                json!({"enabled": true, "definition": {
                    "variants": {"on": true, "off": false},
                    "defaultVariant": "off",
                    "targeting": {"if": [
                        {"in": [{"var": "country"}, ["DE", "FR"]]}, "on",
                        {"fractional": [["on", 20], ["off", 80]]},
                    ]},
                }})
            };
            (format!("flag-{number}"), flag)
        })
        .collect();
    json!({
        "revision": 1, "environment": "production", "settings": {}, "defaults": "new", "flags": flags,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let folder = new_folder("extension");
    let source = FlagSource::start(Behaviour::Serve(document())).await;
    // The measured times include the extension's checks for newer flags, as in production.
    let extension = Extension::start(&source.url(), &folder, &[]).await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary("empty-handler"));
    command.arg(&address);
    let _empty = Process::start(&command, &folder.join("empty"), None);
    let empty = HttpClient::of(format!("http://{address}"));
    pennon_tests::eventually("the empty handler listens", async || {
        tokio::net::TcpStream::connect(&address).await.is_ok()
    })
    .await;

    let mut verdict = Verdict::default();
    for (what, key) in [("simple", "flag-500"), ("rule", "flag-501")] {
        let body = json!({"context": {"targetingKey": "alice", "country": "AT"}}).to_string();
        // An error might be faster than an evaluation.
        let checked = extension.send(&path_of(key), &[], &body).await;
        let variant = &checked.json()["variant"];
        let is_evaluated = checked.status == 200 && (variant == "on" || variant == "off");
        assert!(is_evaluated, "{checked:?}");
        let (mut with, mut without) = (Times::default(), Times::default());
        for _ in 0..BLOCKS {
            for _ in 0..BLOCK {
                let begun = Instant::now();
                let response = extension.send(&path_of(key), &[], &body).await;
                with.add(begun.elapsed());
                assert_eq!(response.body, checked.body);
            }
            for _ in 0..BLOCK {
                let begun = Instant::now();
                let response = empty.send("POST", &path_of(key), &[], &body).await;
                without.add(begun.elapsed());
                assert_eq!(response.status, 200, "{response:?}");
            }
        }
        let (with, without) = (with.percentile(50), without.percentile(50));
        println!(
            "{what}: {with:.4} ms, empty handler {without:.4} ms, ratio {:.2}",
            with / without
        );
        verdict.limit(EXTENSION_RATIO, with / without, what);
    }

    let memory = extension.process().memory("VmRSS:") as f64 / 1e6;
    println!("memory with {FLAGS} flags: {memory:.1} MB");
    verdict.limit(EXTENSION_MEMORY, memory, "memory");

    let warm = HttpClient::of(source.url());
    let accept = [("x-api-key", SYNC_KEY), ("accept", Document::CONTENT_TYPE)];
    let (mut starts, mut fetches) = (Times::default(), Times::default());
    for _ in 0..COLD_STARTS {
        let lambda = ExtensionsApi::start().await;
        let begun = Instant::now();
        let mut child = Command::new(binary("pennon-extension"))
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", lambda.address())
            .env("PENNON_URL", source.url())
            .env("PENNON_SYNC_KEY", SYNC_KEY)
            .env("PENNON_PORT", free_port().to_string())
            .env("TMPDIR", new_folder("cold"))
            .spawn()
            .expect("starts");
        lambda.wait_for_requests(1).await;
        let first = lambda.seen().first_request.expect("requested");
        starts.add(first - begun);
        child.kill().expect("killed");
        child.wait().expect("ended");
        // Measured separately and subtracted below: the time that any client would wait for the service's response.
        let begun = Instant::now();
        let response = warm.send("GET", "/v1/flags", &accept, "").await;
        fetches.add(begun.elapsed());
        assert_eq!(response.status, 200, "{response:?}");
    }
    let (start, fetch) = (starts.percentile(50), fetches.percentile(50));
    let added = start - fetch;
    println!(
        "cold start with {FLAGS} flags: p50 {start:.1} ms (longest {:.1} ms); a fetch by a warm client takes {fetch:.1} ms \
         of it, the rest {added:.1} ms",
        starts.longest()
    );
    verdict.limit(EXTENSION_COLD_START, added, "cold start");
    println!("{}", verdict.report());
    verdict.exit_code()
}
