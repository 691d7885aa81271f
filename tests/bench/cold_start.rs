//! How long a cold start takes: from exec to the first request for work, and to the first response.
//! Beside it, in the same run and taking turns, a function that does nothing.
//!
//! `cargo bench --profile driver -p pennon-tests --bench cold_start`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pennon_tests::binaries::binary;
use pennon_tests::event::Event;
use pennon_tests::lambda::RuntimeApi;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::Stack;
use pennon_tests::wire::BlackHole;

const RUNS: usize = 20;

/// The two times of one start.
struct Start {
    asked: Duration,
    answered: Duration,
}

async fn start(name: &str, environment: &[(String, String)]) -> Start {
    let runtime = RuntimeApi::start().await;
    let mut command = Command::new(binary(name));
    command
        .env_clear()
        .envs(runtime.environment(name))
        .envs(environment.iter().cloned())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let event = Event::get("checkout");
    let began = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let response = runtime.invoke(event.value()).await.expect("an answer");
    let answered = began.elapsed();
    response.expect("a response");
    let asked = runtime.first_asked().expect("it asked") - began;
    child.kill().expect("it ends");
    child.wait().expect("it ends");
    Start { asked, answered }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let hole = BlackHole::dig();
    let redis = stack.redis.direct_url();
    let database = stack.database.url();
    let redis_arn = manager.create("redis", &redis).await;
    let database_arn = manager.create("database", &database).await;
    let plain = |redis: String| {
        vec![
            ("REDIS_URL".to_owned(), redis),
            ("DATABASE_URL".to_owned(), database.clone()),
        ]
    };
    let mut with_secrets = vec![
        ("REDIS_SECRET_ARN".to_owned(), redis_arn),
        ("DATABASE_SECRET_ARN".to_owned(), database_arn),
    ];
    with_secrets.extend(manager.environment());
    let scenarios = [
        ("hello-world", "hello-world", Vec::new()),
        ("get-flag, URLs, Redis up", "get-flag", plain(redis)),
        (
            "get-flag, URLs, Redis refused",
            "get-flag",
            plain("redis://127.0.0.1:1".to_owned()),
        ),
        (
            "get-flag, URLs, Redis a black hole",
            "get-flag",
            plain(format!("redis://127.0.0.1:{}", hole.port())),
        ),
        ("get-flag, secrets, Redis up", "get-flag", with_secrets),
    ];
    // The first start of each fills the cache and the file cache, and does not count.
    let mut times: Vec<(Vec<Duration>, Vec<Duration>)> = vec![Default::default(); scenarios.len()];
    for run in 0..=RUNS {
        for ((_, function, environment), (asked, answered)) in scenarios.iter().zip(&mut times) {
            let start = start(function, environment).await;
            if run > 0 {
                asked.push(start.asked);
                answered.push(start.answered);
            }
        }
    }
    println!("median of {RUNS} starts, taking turns, ms (and as a multiple of hello-world)");
    println!(
        "{:36} {:>18} {:>20}",
        "", "first asks for work", "first response"
    );
    let mut base = None;
    for ((title, _, _), (asked, answered)) in scenarios.iter().zip(times) {
        let (asked, answered) = (median(asked), median(answered));
        let (base_asked, base_answered) = *base.get_or_insert((asked, answered));
        println!(
            "{title:36} {asked:10.1} ({:4.1} x) {answered:12.1} ({:4.1} x)",
            asked / base_asked,
            answered / base_answered
        );
    }
}
