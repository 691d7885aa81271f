//! The time of a cold start: from exec to the first request for an event, and to the first response, compared with a
//! function that does nothing, in alternating starts. Then ten concurrent cold starts. Fails if a start exceeds a limit
//! of `pennon_tests::limits`.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench cold_start`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pennon_tests::binaries::binary;
use pennon_tests::certificates::Certificates;
use pennon_tests::event::Event;
use pennon_tests::join_all;
use pennon_tests::lambda::RuntimeApi;
use pennon_tests::limits::{COLD_RESPONSE, COLD_START, Verdict};
use pennon_tests::postgres::{Server, connect, migrate};
use pennon_tests::redis::Redis;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::Stack;
use pennon_tests::statistics::milliseconds;
use pennon_tests::wire::BlackHole;

const RUNS: usize = 20;
/// Concurrent cold starts, as after a burst of requests.
const AT_ONCE: usize = 10;

/// The times of one start.
struct Start {
    /// From exec to the first request for an event.
    asked: Duration,
    /// From exec to the first response.
    answered: Duration,
}

/// The case in which Redis holds no entry, so that the first request also connects to PostgreSQL.
const EMPTY_CACHE: &str = "get-flag, secrets, TLS, cache empty";

const PASSWORD: &str = "secret";

/// The program without Pennon, which the functions are compared with.
const HELLO_WORLD: &str = "hello-world";

async fn start(name: &str, environment: &[(String, String)]) -> Start {
    let runtime = RuntimeApi::start().await;
    let program = match name {
        HELLO_WORLD => HELLO_WORLD,
        _ => "pennon-functions",
    };
    let mut command = Command::new(binary(program));
    command
        .env_clear()
        .envs(runtime.environment(name))
        .envs(environment.iter().cloned())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let event = Event::get("checkout");
    let started = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let response = runtime.invoke(event.value()).await.expect("an answer");
    let answered = started.elapsed();
    response.expect("a response");
    let asked = runtime.first_poll().expect("it asked") - started;
    child.kill().expect("it ends");
    child.wait().expect("it ends");
    Start { asked, answered }
}

/// Redis and PostgreSQL whose connections are encrypted, as in AWS.
struct Encrypted {
    redis: Redis,
    redis_port: u16,
    server: Server,
    certificates: Certificates,
}

impl Encrypted {
    /// Starts both, with a flag in PostgreSQL.
    async fn start() -> Self {
        let certificates = Certificates::create();
        let (redis, redis_port) = Redis::start_encrypted(&certificates, PASSWORD);
        let server = Server::start_encrypted(&certificates).await;
        let url = server.url("postgres");
        migrate(&url).await;
        connect(&url)
            .await
            .expect("connects")
            .batch_execute(
                "insert into feature_flags (flag_key, enabled) values ('checkout', true)",
            )
            .await
            .expect("a flag");
        Self {
            redis,
            redis_port,
            server,
            certificates,
        }
    }

    /// The variables of a function that finds both URLs in secrets, without the endpoint and credentials of Secrets
    /// Manager.
    async fn environment(&self, manager: &SecretsManager) -> Vec<(String, String)> {
        let authority = self.certificates.file("ca.pem");
        let redis = format!("rediss://:{PASSWORD}@127.0.0.1:{}", self.redis_port);
        let database = format!(
            "postgres://pennon@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={authority}",
            self.server.port()
        );
        let redis = manager.create("encrypted-redis", &redis).await;
        let database = manager.create("encrypted-database", &database).await;
        vec![
            ("REDIS_SECRET_ARN".to_owned(), redis),
            ("DATABASE_SECRET_ARN".to_owned(), database),
            ("REDIS_CA_FILE".to_owned(), authority),
        ]
    }
}

/// Lets functions with these variables read a recording of the secrets that the variables name, because the time that
/// moto takes would count as theirs.
async fn record_secrets(manager: &SecretsManager, all: [&mut Vec<(String, String)>; 2]) {
    let variables = all.iter().flat_map(|variables| variables.iter());
    let secrets = variables.filter(|(name, _)| name.ends_with("_SECRET_ARN"));
    let arns: Vec<&str> = secrets.map(|(_, arn)| arn.as_str()).collect();
    let recorded = manager.record(&arns).await;
    for variables in all {
        variables.extend(recorded.environment());
    }
}

/// The median and the longest, in milliseconds.
fn summary(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let longest = times.last().copied().unwrap_or_default();
    (milliseconds(times[times.len() / 2]), milliseconds(longest))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let stack = Stack::start().await.with_default_timeouts();
    let manager = SecretsManager::start().await;
    let hole = BlackHole::open();
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
    let encrypted = Encrypted::start().await;
    let mut with_tls = encrypted.environment(&manager).await;
    record_secrets(&manager, [&mut with_secrets, &mut with_tls]).await;
    let scenarios = [
        (HELLO_WORLD, HELLO_WORLD, Vec::new()),
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
        (
            "get-flag, secrets, TLS, Redis up",
            "get-flag",
            with_tls.clone(),
        ),
        (EMPTY_CACHE, "get-flag", with_tls),
    ];
    // The first start of each case fills the cache and the file cache; it does not count.
    let mut times: Vec<(Vec<Duration>, Vec<Duration>)> = vec![Default::default(); scenarios.len()];
    for run in 0..=RUNS {
        for ((title, function, environment), (asked, answered)) in scenarios.iter().zip(&mut times)
        {
            if *title == EMPTY_CACHE {
                encrypted.redis.command(&["FLUSHALL"]);
            }
            let start = start(function, environment).await;
            if run > 0 {
                asked.push(start.asked);
                answered.push(start.answered);
            }
        }
    }
    println!(
        "median and longest of {RUNS} alternating starts, ms (and the median as a multiple of hello-world)"
    );
    println!(
        "{:36} {:>27} {:>27}",
        "", "first event request", "first response"
    );
    let mut verdict = Verdict::default();
    let mut base = None;
    for ((title, function, _), (asked, answered)) in scenarios.iter().zip(times) {
        let ((asked, last_asked), (answered, last_answered)) = (summary(asked), summary(answered));
        let (base_asked, base_answered) = *base.get_or_insert((asked, answered));
        println!(
            "{title:36} {asked:9.1} {last_asked:7.1} ({:5.1} x) {answered:9.1} {last_answered:7.1} ({:5.1} x)",
            asked / base_asked,
            answered / base_answered
        );
        if *function != HELLO_WORLD {
            verdict.limit(COLD_START, last_asked, title);
            verdict.limit(COLD_RESPONSE, last_answered, title);
        }
    }
    println!("{AT_ONCE} starts at once, the longest");
    for (title, function, environment) in scenarios.iter().skip(1) {
        if *title == EMPTY_CACHE {
            encrypted.redis.command(&["FLUSHALL"]);
        }
        let starts = join_all((0..AT_ONCE).map(|_| start(function, environment))).await;
        let (asked, answered) = starts.iter().map(|one| (one.asked, one.answered)).unzip();
        let ((_, last_asked), (_, last_answered)) = (summary(asked), summary(answered));
        println!(
            "{title:36} {:>9} {last_asked:7.1} {:>9} {:>9} {last_answered:7.1}",
            "", "", ""
        );
        let title = format!("{AT_ONCE} at once: {title}");
        verdict.limit(COLD_START, last_asked, &title);
        verdict.limit(COLD_RESPONSE, last_answered, &title);
    }
    println!("{}", verdict.report());
    verdict.exit_code()
}
