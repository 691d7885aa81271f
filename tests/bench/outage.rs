//! Constant load while Redis and PostgreSQL are refused, hung, frozen, killed and restarted. Measures each phase. Fails
//! if a response is an error or, unless both are unavailable, exceeds a limit of `pennon_tests::limits`.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench outage`; `OUTAGE_SECONDS` sets the length of a phase
//! (5).

#![expect(clippy::print_stdout, reason = "a benchmark")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::limits::{OUTAGE, Verdict};
use pennon_tests::setting;
use pennon_tests::stack::Stack;
use pennon_tests::statistics::Times;
use pennon_tests::wire::Mode;
use serde_json::json;

/// The time between two requests.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);

struct Routes {
    get: Function,
    list: Function,
    update: Function,
}

#[derive(Clone, Copy, PartialEq)]
enum Available {
    /// PostgreSQL works: no request may fail.
    Database,
    /// PostgreSQL is unavailable: no read may fail; there are no updates.
    RedisOnly,
    /// Both are unavailable: no read may fail, but its time has no limit.
    None,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let length = Duration::from_secs(setting("OUTAGE_SECONDS", 5));
    let mut stack = Stack::start().await.with_default_timeouts();
    let routes = Routes {
        get: stack.function("get-flag").await,
        list: stack.function("list-flags").await,
        update: stack.function("update-flag").await,
    };
    println!(
        "{:34} {:>6} {:>9} {:>9} {:>9} {:>9} {:>5} {:>6}",
        "phase", "reads", "p50 ms", "p95 ms", "longest", "update", "hits", "failed"
    );
    let mut verdict = Verdict::default();
    let mut phase = async |title: &str, available: Available| {
        measure(&routes, title, length, available, &mut verdict).await;
    };
    phase("no fault", Available::Database).await;
    stack.redis.set(Mode::Refuse).await;
    phase("Redis refused", Available::Database).await;
    stack.redis.set(Mode::Open).await;
    phase("Redis back", Available::Database).await;
    stack.redis.set(Mode::Hang).await;
    phase("Redis hung", Available::Database).await;
    stack.redis.set(Mode::Open).await;
    phase("Redis back", Available::Database).await;
    stack.redis.freeze();
    phase("Redis frozen", Available::Database).await;
    stack.redis.thaw();
    phase("Redis thawed", Available::Database).await;
    stack.redis.kill();
    phase("Redis killed", Available::Database).await;
    stack.redis.restart().await;
    phase("Redis started, empty", Available::Database).await;
    stack.database_wire.set(Mode::Refuse).await;
    phase("PostgreSQL refused", Available::RedisOnly).await;
    stack.database_wire.set(Mode::Hang).await;
    phase("PostgreSQL hung", Available::RedisOnly).await;
    stack.database_wire.set(Mode::Open).await;
    phase("PostgreSQL back", Available::Database).await;
    stack.redis.set(Mode::Refuse).await;
    stack.database_wire.set(Mode::Refuse).await;
    phase("both refused", Available::None).await;
    stack.redis.set(Mode::Hang).await;
    stack.database_wire.set(Mode::Hang).await;
    phase("both hung", Available::None).await;
    stack.redis.set(Mode::Open).await;
    stack.database_wire.set(Mode::Open).await;
    phase("both back", Available::Database).await;
    println!("{}", verdict.report());
    verdict.exit_code()
}

async fn measure(
    routes: &Routes,
    title: &str,
    length: Duration,
    available: Available,
    verdict: &mut Verdict,
) {
    let mut reads = Times::default();
    let mut updates = Times::default();
    let mut hits = 0;
    let mut failures = 0;
    let mut percent = 0;
    let started = Instant::now();
    while started.elapsed() < length {
        for (function, event) in [
            (&routes.get, Event::get("checkout")),
            (&routes.list, Event::list()),
        ] {
            let sent = Instant::now();
            let answer = function.call(&event).await;
            let took = sent.elapsed();
            reads.add(took);
            failures += usize::from(answer.status != 200);
            hits += usize::from(answer.header("x-cache-hit") == Some("true"));
            tokio::time::sleep(REQUEST_INTERVAL).await;
        }
        percent = (percent + 1) % 100;
        if reads.count() % 20 == 0 && available == Available::Database {
            let body = json!({ "rolloutPercentage": percent });
            let sent = Instant::now();
            let answer = routes.update.call(&Event::update("checkout", &body)).await;
            updates.add(sent.elapsed());
            failures += usize::from(answer.status != 200);
        }
    }
    if available == Available::Database {
        // The last request may have been an update: fill the cache before the next phase.
        routes.get.call(&Event::get("checkout")).await;
        routes.list.call(&Event::list()).await;
    }
    println!(
        "{title:34} {:6} {:9.2} {:9.2} {:9.1} {:9.1} {:4} % {failures:6}",
        reads.count(),
        reads.percentile(50),
        reads.percentile(95),
        reads.longest(),
        updates.longest(),
        100 * hits / reads.count(),
    );
    verdict.require(
        failures == 0,
        &format!("{title}: {failures} answers were not 200"),
    );
    if available != Available::None {
        verdict.limit(OUTAGE, reads.longest(), &format!("{title}, reads"));
        verdict.limit(OUTAGE, updates.longest(), &format!("{title}, updates"));
    }
}
