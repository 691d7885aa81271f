//! Readers and writers, real functions in separate processes, with faults: slow and frozen readers, slow databases,
//! operators' DELs, expiry, and invalidations lost on the wire. A read that begins after a change was acknowledged must
//! not return the older value.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench race` runs it three times: with a fifth of all
//! attempts to invalidate lost; with all attempts to invalidate after the commit, including retries, lost in one update
//! in five; and with the lease check removed from the fill script on its way to Redis, which must cause stale reads. Of
//! lost attempts, half reach Redis, and only their reply is lost.
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
use pennon_tests::setting;
use pennon_tests::stack::Stack;
use pennon_tests::wire::{Mode, Wire};
use serde_json::json;

const READERS: usize = 8;
const WRITERS: usize = 3;
/// Replacements that remove the lease check: a fill succeeds with any lease or none.
const WITHOUT_LEASE_CHECK: &[(&str, &str)] = &[
    ("~= 'hash' then return 0", "== 'none' then local x "),
    ("if deadline <= clock", "if deadline == clock"),
];
/// Text that occurs only in the scripts that remove an entry.
const INVALIDATION: &str = "local new_fields = {";
/// Text that occurs only in the script that ends a write.
const END_WRITE: &str = "-- After a commit";
/// The scripts, by name. They are sent as they are, so a fault finds them by their text.
const SCRIPTS: [(&str, &str); 5] = [
    (
        "begin_write",
        include_str!("../../crates/pennon-core/src/cache/scripts/begin_write.lua"),
    ),
    (
        "discard",
        include_str!("../../crates/pennon-core/src/cache/scripts/discard.lua"),
    ),
    (
        "end_write",
        include_str!("../../crates/pennon-core/src/cache/scripts/end_write.lua"),
    ),
    (
        "fill",
        include_str!("../../crates/pennon-core/src/cache/scripts/fill.lua"),
    ),
    (
        "read",
        include_str!("../../crates/pennon-core/src/cache/scripts/read.lua"),
    ),
];

/// The faults of a run, in addition to delays, freezes and DELs.
#[derive(Clone, Copy, PartialEq)]
enum Faults {
    /// A fifth of all attempts to begin or end a write is lost.
    AttemptsLost,
    /// After the commit of one update in five, all attempts to invalidate are lost. If none has reached Redis, the
    /// barrier from before the commit must prevent stale reads until it expires. The operator deletes nothing during
    /// such an update: without barrier and invalidation reads may return the old value, and the response says `false`.
    InvalidationsLost,
    /// The lease check is removed.
    LeaseUnchecked,
}

/// The newest value of each flag that readers must see. Its update was answered with `X-Cache-Invalidated: true`, or at
/// least its barrier had been set before the commit.
type NewestValues = Vec<AtomicU64>;

#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
    updates: AtomicU64,
    unconfirmed: AtomicU64,
    errors: AtomicU64,
    /// The updates under way whose invalidation is lost.
    losing: AtomicU64,
    over: AtomicBool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    check_texts();
    let reads = setting("RACE_READS", 100_000);
    let seed = setting("RACE_SEED", 20_261_121);
    println!("{READERS} readers, {WRITERS} writers, {reads} reads, seed {seed}");
    let with_attempts_lost = run("with these faults", reads, seed, Faults::AttemptsLost).await;
    let with_invalidations_lost = run(
        "whole invalidations lost",
        reads / 10,
        seed,
        Faults::InvalidationsLost,
    )
    .await;
    let without_check = run(
        "without the lease check",
        reads / 5,
        seed,
        Faults::LeaseUnchecked,
    )
    .await;
    let is_clean = |found: Found| found.stale + found.errors == 0;
    if is_clean(with_attempts_lost) && is_clean(with_invalidations_lost) && without_check.stale > 0
    {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Without a script that contains its text, a fault would never happen, and its run would show nothing.
fn check_texts() {
    let with = |text: &str| -> Vec<&str> {
        let found = SCRIPTS.iter().filter(|(_, script)| script.contains(text));
        found.map(|(name, _)| *name).collect()
    };
    assert_eq!(with(INVALIDATION), ["begin_write", "discard", "end_write"]);
    assert_eq!(with(END_WRITE), ["end_write"]);
    for (text, _) in WITHOUT_LEASE_CHECK {
        assert!(with(text).contains(&"fill"), "{text}");
    }
}

/// What a run has found.
#[derive(Clone, Copy)]
struct Found {
    stale: u64,
    errors: u64,
}

async fn run(title: &str, reads: u64, seed: u64, faults: Faults) -> Found {
    let stack = Rc::new(Stack::start().await);
    let rng = Rng::new(seed);
    for writer in 0..WRITERS {
        stack.database.add_flag(&flag(writer), true, 100).await;
    }
    let newest: Rc<NewestValues> = Rc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let tally = Rc::new(Tally::default());
    let started = Instant::now();
    let local = tokio::task::LocalSet::new();
    for writer in 0..WRITERS {
        local.spawn_local(write(
            stack.clone(),
            writer,
            newest.clone(),
            tally.clone(),
            rng.clone(),
            faults,
        ));
    }
    for _ in 0..READERS {
        local.spawn_local(read(
            stack.clone(),
            reads,
            newest.clone(),
            tally.clone(),
            rng.clone(),
            faults == Faults::LeaseUnchecked,
        ));
    }
    local.spawn_local(operate(stack.clone(), tally.clone(), rng.clone()));
    local.await;

    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let (read, stale) = (count(&tally.reads), count(&tally.stale));
    let errors = count(&tally.errors);
    println!(
        "{title}: {read} reads in {:.0} s, {:.1} % hits, {} updates of which {} unconfirmed, \
         {errors} errors, {stale} stale reads",
        started.elapsed().as_secs_f64(),
        100.0 * tally.hits.load(Ordering::Relaxed) as f64 / read as f64,
        count(&tally.updates),
        count(&tally.unconfirmed),
    );
    Found { stale, errors }
}

fn flag(writer: usize) -> String {
    format!("raced-{writer}")
}

/// A function with its own wires and the settings of this run.
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

/// Sets one flag to 1, 2, 3, …, through a wire that loses invalidations.
async fn write(
    stack: Rc<Stack>,
    writer: usize,
    newest: Rc<NewestValues>,
    tally: Rc<Tally>,
    rng: Rng,
    faults: Faults,
) {
    let (update, redis, database) = function(&stack, "update-flag").await;
    let attempts_lost = Mode::Lose {
        text: INVALIDATION,
        percent: 20,
        arriving_percent: 50,
    };
    redis.set(attempts_lost).await;
    let key = flag(writer);
    let mut value = 0_u64;
    while !tally.over.load(Ordering::Relaxed) {
        value += 1;
        let event = Event::update(&key, &json!({ "description": value.to_string() }));
        // A slow database or a frozen writer lengthens the time between the barrier and the commit.
        let slow = if rng.roll(4) == 0 { 30 } else { 0 };
        database
            .set(Mode::Delay(rng.pause(Duration::from_millis(slow))))
            .await;
        let is_lost = faults == Faults::InvalidationsLost && rng.roll(5) == 0;
        if faults == Faults::InvalidationsLost {
            let lost = Mode::Lose {
                text: END_WRITE,
                percent: 100,
                arriving_percent: 50,
            };
            redis.set(if is_lost { lost } else { Mode::Open }).await;
        }
        tally
            .losing
            .fetch_add(u64::from(is_lost), Ordering::Relaxed);
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
        tally
            .losing
            .fetch_sub(u64::from(is_lost), Ordering::Relaxed);
        if answer.status != 200 {
            tally.errors.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        tally.updates.fetch_add(1, Ordering::Relaxed);
        let is_confirmed = answer.header("x-cache-invalidated") == Some("true");
        if !is_confirmed {
            tally.unconfirmed.fetch_add(1, Ordering::Relaxed);
        }
        if is_confirmed || faults == Faults::InvalidationsLost {
            newest[writer].store(value, Ordering::Relaxed);
        }
        tokio::time::sleep(rng.pause(Duration::from_millis(60))).await;
    }
}

/// Reads the flags, and compares each response with the values that were acknowledged when its request began.
async fn read(
    stack: Rc<Stack>,
    reads: u64,
    newest: Rc<NewestValues>,
    tally: Rc<Tally>,
    rng: Rng,
    without_lease_check: bool,
) {
    let (get, redis, database) = function(&stack, "get-flag").await;
    if without_lease_check {
        redis.set(Mode::Replace(WITHOUT_LEASE_CHECK)).await;
    }
    let mut until_fault = 20;
    while !tally.over.load(Ordering::Relaxed) {
        let writer = rng.roll(u32::try_from(WRITERS).expect("few"));
        let writer = usize::try_from(writer).expect("small");
        let event = Event::get(&flag(writer));
        until_fault -= 1;
        let has_fault = until_fault == 0;
        if has_fault {
            until_fault = 20 + rng.roll(150);
            database
                .set(Mode::Delay(rng.pause(Duration::from_millis(40))))
                .await;
        }
        let acknowledged = newest[writer].load(Ordering::Relaxed);
        let call = get.call(&event);
        let answer = if has_fault && rng.roll(3) == 0 {
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
        // Errors too: otherwise a run in which every read fails would never end.
        if tally.reads.fetch_add(1, Ordering::Relaxed) + 1 >= reads {
            tally.over.store(true, Ordering::Relaxed);
        }
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
        if seen < acknowledged {
            tally.stale.fetch_add(1, Ordering::Relaxed);
        }
        if answer.header("x-cache-hit") == Some("true") {
            tally.hits.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

/// Deletes the entry at random times, as an operator does, and runs `reconcile`.
async fn operate(stack: Rc<Stack>, tally: Rc<Tally>, rng: Rng) {
    let reconcile = stack.function("reconcile").await;
    while !tally.over.load(Ordering::Relaxed) {
        tokio::time::sleep(rng.pause(Duration::from_millis(100))).await;
        if tally.losing.load(Ordering::Relaxed) == 0 {
            stack.redis.command(&["DEL", KEY]);
        }
        if rng.roll(16) == 0 {
            let reconciled = reconcile.invoke(&json!({})).await;
            reconciled.expect("it reconciles");
        }
    }
}
