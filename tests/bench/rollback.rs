//! How long a ramp's value is still served after its alarm: from the invocation of `guard` by the alarm to
//! the last read that returned the ramped-up percentage, at 100 requests per second, over a single Redis,
//! a cluster, and without Redis. It fails if the 99th percentile exceeds what `pennon_tests::limits` allows,
//! a read is not answered with 200, or there are at most 90 reads per second.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench rollback`; `ROLLBACKS` sets the rollbacks of a row
//! (100).
//!
//! Each rollback has another percentage than the 48 before it, so that a late read of an earlier one is not missed. In
//! every other row `guard` is cold: CloudWatch invokes it rarely.

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use pennon_tests::cloudwatch::{CloudWatch, GUARD_FUNCTION_ARN};
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::limits::{ROLLBACK, Verdict};
use pennon_tests::rng::Rng;
use pennon_tests::stack::Stack;
use pennon_tests::statistics::Times;
use pennon_tests::topology::Topology;
use pennon_tests::{eventually, setting};
use serde_json::{Value, json};

const READ_INTERVAL: Duration = Duration::from_millis(10);
const READERS: usize = 4;
/// The time between the answer of `guard` and the next ramp. Reads continue.
const PAUSE_AFTER_GUARD: Duration = Duration::from_millis(200);
/// The percentages that ramps set in turn; the flag is at 50 before each.
const FIRST_PERCENTAGE: usize = 51;
const PERCENTAGES: usize = 49;
const ALARM: &str = "errors";

/// The reads of all readers.
struct Seen {
    /// By percentage: when the last read that returned it ended.
    last: RefCell<Vec<Option<Instant>>>,
    reads: Cell<usize>,
    failures: Cell<usize>,
    over: Cell<bool>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let rollbacks = setting("ROLLBACKS", 100_usize);
    let alarms = CloudWatch::start().await;
    alarms.add(ALARM, &[GUARD_FUNCTION_ARN]).await;
    println!(
        "cache         guard  rollbacks  reads/s    p50 ms    p99 ms   longest  guard p50 ms  failed"
    );
    let mut verdict = Verdict::default();
    for (title, topology) in [
        ("single Redis", Some(Topology::Single)),
        ("cluster", Some(Topology::Cluster)),
        ("no Redis", None),
    ] {
        let stack = Stack::start_on(topology.unwrap_or(Topology::Single)).await;
        let stack = stack.with_default_timeouts();
        let mut environment = alarms.environment();
        if topology.is_none() {
            environment.push(("REDIS_URL".to_owned(), String::new()));
        }
        let local = tokio::task::LocalSet::new();
        for is_cold in [false, true] {
            let row = measure(&stack, &environment, rollbacks, is_cold);
            let row = local.run_until(row).await;
            let kind = if is_cold { "cold" } else { "warm" };
            println!(
                "{title:12} {kind:>6} {:10} {:8.1} {:9.1} {:9.1} {:9.1} {:13.1} {:7}",
                row.times.count(),
                row.rate,
                row.times.percentile(50),
                row.times.percentile(99),
                row.times.longest(),
                row.guard.percentile(50),
                row.failures,
            );
            let of = format!("{title}, guard {kind}");
            let problem = format!("{of}: {} reads were not answered with 200", row.failures);
            verdict.require(row.failures == 0, &problem);
            let problem = format!("{of}: {:.1} reads per second", row.rate);
            verdict.require(row.rate > 90.0, &problem);
            verdict.limit(ROLLBACK, row.times.percentile(99), &of);
        }
    }
    println!("{}", verdict.report());
    verdict.exit_code()
}

struct Row {
    /// From the alarm to the end of the last read that returned the ramped-up percentage.
    times: Times,
    /// From the alarm to the answer of `guard`.
    guard: Times,
    rate: f64,
    failures: usize,
}

async fn measure(
    stack: &Stack,
    environment: &[(String, String)],
    rollbacks: usize,
    is_cold: bool,
) -> Row {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let start = async |name: &str| stack.function_with(name, &environment).await;
    let ramps = start("ramps").await;
    let warm_guard = start("guard").await;
    let seen = Rc::new(Seen {
        last: RefCell::new(vec![None; 101]),
        reads: Cell::new(0),
        failures: Cell::new(0),
        over: Cell::new(false),
    });
    let mut readers = Vec::new();
    for number in 0..READERS {
        let function = start("get-flag").await;
        let begin = READ_INTERVAL * u32::try_from(number).expect("a few");
        readers.push(tokio::task::spawn_local(read(
            function,
            begin,
            seen.clone(),
        )));
    }
    let rng = Rng::new(1);
    let started = Instant::now();
    let (mut times, mut guard) = (Times::default(), Times::default());
    // The alarms whose percentages were not used again yet.
    let mut alarms = [None; 101];
    for number in 0..rollbacks {
        let percent = FIRST_PERCENTAGE + number % PERCENTAGES;
        times.extend(seen.last_read_after(percent, &mut alarms));
        let before = seen.last.borrow()[percent];
        create(&ramps, percent).await;
        eventually("a reader sees the ramp", async || {
            seen.last.borrow()[percent] > before
        })
        .await;
        tokio::time::sleep(rng.pause(4 * READ_INTERVAL)).await;
        let event = alarm_event();
        let alarm = Instant::now();
        let answer = if is_cold {
            let cold = start("guard").await;
            cold.invoke(&event).await
        } else {
            warm_guard.invoke(&event).await
        };
        guard.add(alarm.elapsed());
        alarms[percent] = Some(alarm);
        let done = json!({"state": "ALARM", "rolledBack": 1});
        assert_eq!(answer, Ok(done), "no rollback");
        tokio::time::sleep(PAUSE_AFTER_GUARD).await;
        send(&ramps, "/acknowledge", "", 200).await;
    }
    for percent in 0..alarms.len() {
        times.extend(seen.last_read_after(percent, &mut alarms));
    }
    let rate = seen.reads.get() as f64 / started.elapsed().as_secs_f64();
    seen.over.set(true);
    for reader in readers {
        reader.await.expect("no panic");
    }
    Row {
        times,
        guard,
        rate,
        failures: seen.failures.get(),
    }
}

impl Seen {
    /// How long after its alarm a percentage was still read, unless it was counted before.
    fn last_read_after(&self, percent: usize, alarms: &mut [Option<Instant>]) -> Option<Duration> {
        let alarm = alarms[percent].take()?;
        let last = self.last.borrow()[percent].expect("the ramp was read");
        Some(last.saturating_duration_since(alarm))
    }
}

/// Reads the flag every 40 ms, one of four readers.
async fn read(function: Function, begin: Duration, seen: Rc<Seen>) {
    let event = Event::get("checkout");
    tokio::time::sleep(begin).await;
    let readers = u32::try_from(READERS).expect("a few");
    let mut ticks = tokio::time::interval(READ_INTERVAL * readers);
    while !seen.over.get() {
        ticks.tick().await;
        let answer = function.call(&event).await;
        seen.reads.set(seen.reads.get() + 1);
        if answer.status == 200 {
            let percent = answer.json()["rolloutPercentage"].as_u64();
            let percent = percent.and_then(|it| usize::try_from(it).ok());
            seen.last.borrow_mut()[percent.expect("a percentage")] = Some(Instant::now());
        } else {
            seen.failures.set(seen.failures.get() + 1);
        }
    }
}

async fn create(ramps: &Function, percent: usize) {
    let plan = json!({
        "steps": [{"percent": percent, "bakeSeconds": 3_600}, {"percent": 100, "bakeSeconds": 3_600}],
        "guards": [{"alarm": ALARM}],
    });
    send(ramps, "", &plan.to_string(), 201).await;
}

async fn send(ramps: &Function, action: &str, body: &str, status: u16) {
    let path = format!("/api/admin/flags/checkout/ramp{action}");
    let event = Event::admin("POST", &path, body).header("if-match", "*");
    let answer = ramps.call(&event).await;
    assert_eq!(answer.status, status, "{answer:?}");
}

/// The event in `events/guard.json`, for this alarm and now.
fn alarm_event() -> Value {
    let now = pennon_core::http::timestamp(SystemTime::now()).replace('Z', "+0000");
    let mut event = Event::load("guard").value().clone();
    event["alarmArn"] = json!(format!(
        "arn:aws:cloudwatch:us-east-1:123456789012:alarm:{ALARM}"
    ));
    event["alarmData"]["alarmName"] = json!(ALARM);
    event["alarmData"]["state"]["timestamp"] = json!(now);
    event
}
