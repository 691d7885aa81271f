//! Many readers and writers, real functions in processes of their own, in a world where everything
//! that can come between does: slow and frozen readers, slow databases, operators' DELs, expiry, and
//! a fifth of all invalidations lost on the wire. A read that began after a change was committed and
//! answered must not return the older value.
//!
//! `cargo bench --profile driver -p pennon-tests --bench race` runs it three times: as it is, with each attempt
//! to invalidate lost in one case of five; then with whole invalidations lost, every attempt of them,
//! after one update in five; and with the check of the lease taken out of the fill script on its way to
//! Redis, where it has to find stale reads.
//! `RACE_READS` sets the number of reads (100000), `RACE_SEED` the seed.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::redis::KEY;
use pennon_tests::rng::Rng;
use pennon_tests::stack::Stack;
use pennon_tests::wire::{Mode, Wire};
use serde_json::json;

const READERS: usize = 8;
const WRITERS: usize = 3;
/// What takes the check out: any lease will do, and none as well.
const NO_CHECK: &[(&str, &str)] = &[
    ("~= 'hash' then return 0", "== 'none' then local x "),
    ("if deadline <= clock", "if deadline == clock"),
];
/// Text that occurs only in the scripts that begin and end a write, and only in the one that ends it.
const INVALIDATION: &str = "local barriers = {";
const END_WRITE: &str = "local barriers = {}";

/// What goes wrong beside delays, freezes and DELs.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// Each attempt to begin or to end a write is lost in one case of five.
    AttemptsLost,
    /// After one update in five, nothing of the invalidation arrives. The barrier before the commit has
    /// to keep readers right.
    InvalidationsLost,
    /// The guard is off.
    LeaseUnchecked,
}

/// What is promised of one flag, and what was seen.
#[derive(Default)]
struct Promise {
    /// The newest value that every reader must see: its update was answered with
    /// `X-Cache-Invalidated: true`, or at least the barrier before its commit had arrived.
    visible: AtomicU64,
}

#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
    updates: AtomicU64,
    untold: AtomicU64,
    errors: AtomicU64,
    over: AtomicBool,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let reads = setting("RACE_READS", 100_000);
    let seed = setting("RACE_SEED", 20_261_121);
    println!("{READERS} readers, {WRITERS} writers, {reads} reads, seed {seed}");
    let guarded = run("unmodified", reads, seed, Trouble::AttemptsLost).await;
    let marked = run(
        "whole invalidations lost",
        reads / 10,
        seed,
        Trouble::InvalidationsLost,
    )
    .await;
    let unguarded = run(
        "without the lease check",
        reads / 5,
        seed,
        Trouble::LeaseUnchecked,
    )
    .await;
    if guarded == 0 && marked == 0 && unguarded > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Gives the number of stale reads.
async fn run(title: &str, reads: u64, seed: u64, trouble: Trouble) -> u64 {
    let stack = Rc::new(Stack::start().await);
    let rng = Rng::new(seed);
    for writer in 0..WRITERS {
        stack.database.add_flag(&flag(writer), true, 100).await;
    }
    let promises: Rc<Vec<Promise>> = Rc::new((0..WRITERS).map(|_| Promise::default()).collect());
    let tally = Rc::new(Tally::default());
    let began = Instant::now();
    let local = tokio::task::LocalSet::new();
    for writer in 0..WRITERS {
        local.spawn_local(write(
            stack.clone(),
            writer,
            promises.clone(),
            tally.clone(),
            rng.clone(),
            trouble,
        ));
    }
    for _ in 0..READERS {
        local.spawn_local(read(
            stack.clone(),
            reads,
            promises.clone(),
            tally.clone(),
            rng.clone(),
            trouble == Trouble::LeaseUnchecked,
        ));
    }
    local.spawn_local(operate(stack.clone(), tally.clone(), rng.clone()));
    local.await;

    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let (read, stale) = (count(&tally.reads), count(&tally.stale));
    println!(
        "{title}: {read} reads in {:.0} s, {:.1} % hits, {} updates of which {} unconfirmed, \
         {} errors, {stale} stale reads",
        began.elapsed().as_secs_f64(),
        100.0 * tally.hits.load(Ordering::Relaxed) as f64 / read as f64,
        count(&tally.updates),
        count(&tally.untold),
        count(&tally.errors),
    );
    stale + count(&tally.errors)
}

fn flag(writer: usize) -> String {
    format!("raced-{writer}")
}

/// A function on wires of its own, with the settings of this run.
async fn function(stack: &Stack, name: &str) -> (Function, Wire, Wire) {
    let redis = Wire::to(stack.redis.port());
    let database = Wire::to(stack.database.port());
    let redis_url = format!("redis://127.0.0.1:{}", redis.port());
    let database_url = stack.database.url_by(database.port());
    let environment = [
        ("REDIS_URL", redis_url.as_str()),
        ("DATABASE_URL", database_url.as_str()),
        ("CACHE_TTL_SECONDS", "2"),
        ("AWS_LAMBDA_LOG_LEVEL", "error"),
    ];
    let function = Function::start(name, &environment).await;
    (function, redis, database)
}

/// Sets one flag to 1, 2, 3, …, on a wire that loses invalidations.
async fn write(
    stack: Rc<Stack>,
    writer: usize,
    promises: Rc<Vec<Promise>>,
    tally: Rc<Tally>,
    rng: Rng,
    trouble: Trouble,
) {
    let (update, redis, database) = function(&stack, "update-flag").await;
    let attempts_lost = Mode::Lose {
        text: INVALIDATION,
        percent: 20,
    };
    redis.set(attempts_lost).await;
    let key = flag(writer);
    let mut value = 0_u64;
    while !tally.over.load(Ordering::Relaxed) {
        value += 1;
        let event = Event::update(&key, &json!({ "description": value.to_string() }));
        // A slow database stretches the time between the mark and the commit; a frozen writer too.
        let slow = if rng.roll(4) == 0 { 30 } else { 0 };
        database
            .set(Mode::Delay(rng.pause(Duration::from_millis(slow))))
            .await;
        if trouble == Trouble::InvalidationsLost {
            let lost = Mode::Lose {
                text: END_WRITE,
                percent: 100,
            };
            let is_lost = rng.roll(5) == 0;
            redis.set(if is_lost { lost } else { Mode::Open }).await;
        }
        let call = update.call(&event);
        let answer = if rng.roll(10) == 0 {
            let freeze = async {
                tokio::time::sleep(rng.pause(Duration::from_millis(20))).await;
                update.process().freeze();
                tokio::time::sleep(rng.pause(Duration::from_millis(200))).await;
                update.process().thaw();
            };
            tokio::join!(call, freeze).0
        } else {
            call.await
        };
        if answer.status != 200 {
            tally.errors.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        tally.updates.fetch_add(1, Ordering::Relaxed);
        let is_told = answer.header("x-cache-invalidated") == Some("true");
        if !is_told {
            tally.untold.fetch_add(1, Ordering::Relaxed);
        }
        if is_told || trouble == Trouble::InvalidationsLost {
            promises[writer].visible.store(value, Ordering::Relaxed);
        }
        tokio::time::sleep(rng.pause(Duration::from_millis(60))).await;
    }
}

/// Reads one flag after the other and holds each answer against what was promised when it began.
async fn read(
    stack: Rc<Stack>,
    reads: u64,
    promises: Rc<Vec<Promise>>,
    tally: Rc<Tally>,
    rng: Rng,
    forged: bool,
) {
    let (get, redis, database) = function(&stack, "get-flag").await;
    if forged {
        redis.set(Mode::Forge(NO_CHECK)).await;
    }
    let mut until_trouble = 20;
    while !tally.over.load(Ordering::Relaxed) {
        let writer = usize::try_from(rng.roll(3)).expect("small");
        let event = Event::get(&flag(writer));
        until_trouble -= 1;
        let trouble = until_trouble == 0;
        if trouble {
            until_trouble = 20 + rng.roll(150);
            database
                .set(Mode::Delay(rng.pause(Duration::from_millis(40))))
                .await;
        }
        let promised = promises[writer].visible.load(Ordering::Relaxed);
        let call = get.call(&event);
        let answer = if trouble && rng.roll(3) == 0 {
            let freeze = async {
                tokio::time::sleep(rng.pause(Duration::from_millis(10))).await;
                get.process().freeze();
                tokio::time::sleep(rng.pause(Duration::from_millis(300))).await;
                get.process().thaw();
            };
            tokio::join!(call, freeze).0
        } else {
            call.await
        };
        if answer.status != 200 || answer.source() == "stale" {
            tally.errors.fetch_add(1, Ordering::Relaxed);
            println!("{answer:?}");
            continue;
        }
        let description = &answer.json()["description"];
        let seen: u64 = if description.is_null() {
            0
        } else {
            let number = description.as_str().and_then(|text| text.parse().ok());
            number.expect("a number")
        };
        if seen < promised {
            tally.stale.fetch_add(1, Ordering::Relaxed);
        }
        if answer.header("x-cache-hit") == Some("true") {
            tally.hits.fetch_add(1, Ordering::Relaxed);
        }
        if tally.reads.fetch_add(1, Ordering::Relaxed) + 1 >= reads {
            tally.over.store(true, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

/// An operator who deletes the entry now and then, and the schedule that reconciles.
async fn operate(stack: Rc<Stack>, tally: Rc<Tally>, rng: Rng) {
    let reconcile = stack.function("reconcile").await;
    while !tally.over.load(Ordering::Relaxed) {
        tokio::time::sleep(rng.pause(Duration::from_millis(100))).await;
        stack.redis.command(&["DEL", KEY]);
        if rng.roll(16) == 0 {
            let reconciled = reconcile.invoke(&json!({})).await;
            reconciled.expect("it reconciles");
        }
    }
}
