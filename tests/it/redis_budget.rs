//! A request spends at most its budget of 400 ms on Redis. A slow transfer that ends within the budget succeeds.

use std::time::Duration;

use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::redis::KEY;
use pennon_tests::stack::{Stack, percentage, set_percentage};
use pennon_tests::topology::Topology;
use pennon_tests::wire::Mode;

/// The overrides of an entry of 1.3 MB.
const MANY_OVERRIDES: u32 = 40_000;
/// With this pause before each kilobyte, the transfer of [`MANY_OVERRIDES`] would take 13 s.
const PAUSE: Duration = Duration::from_millis(10);
/// The overrides of an entry of 64 kB.
const SOME_OVERRIDES: u32 = 2_000;
/// With this pause before each kilobyte, the transfer of [`SOME_OVERRIDES`] takes 200 to 300 ms. That is longer than
/// one attempt or one probe of most commands may take, but within the budget.
const SHORT_PAUSE: Duration = Duration::from_millis(3);
/// The limit on the duration of a request, in milliseconds. The transfer of the whole entry takes longer: a request
/// that waits for it must fail the test, but one on a busy machine must not.
const MAX_DURATION_MS: f64 = 10_000.0;

async fn stack_with_overrides(on: Topology, count: u32) -> Stack {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let sql = stack.database.sql();
    let overrides = format!(
        "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
         select id, 'user-00000000-' || number, 'include'
         from feature_flags, generate_series(1, {count}) as number where flag_key = 'checkout'"
    );
    sql.batch_execute(&overrides).await.expect("overrides");
    stack
}

/// How often the function has encoded the entry, to fill it.
fn fills(get: &Function) -> usize {
    let lines = get.lines();
    let large = lines
        .iter()
        .filter(|line| line["message"] == "Large cache payload");
    large.count()
}

#[tokio::test]
async fn a_large_entry_that_arrives_slowly_is_given_up_when_the_budget_ends() {
    let stack = stack_with_overrides(Topology::Single, MANY_OVERRIDES).await;
    eventually("an instance fills the entry in time", async || {
        let get = stack.function("get-flag").await;
        get.call(&Event::get("checkout")).await;
        stack.redis.has_entry()
    })
    .await;
    eventually("an instance fetches the entry", async || {
        let get = stack.function("get-flag").await;
        stack.redis.set(Mode::SlowReplies(PAUSE)).await;
        let before = stack.redis.commands().len();
        let answer = get.call(&Event::get("checkout")).await;
        let commands = stack.redis.commands().len() - before;
        stack.redis.set(Mode::Open).await;

        assert_eq!((percentage(&answer), answer.source()), (50, "database"));
        let line = get.last_request();
        assert_eq!(line["cache_unavailable"], 1, "{line}");
        assert_eq!(line["database_loads"], 1, "{line}");
        let duration = line["duration"].as_f64().expect("a time");
        assert!(duration < MAX_DURATION_MS, "{line}");
        assert_eq!(fills(&get), 0, "filled an entry that exists");
        if line["error.type"] != "timeout" || line["redis_retries"] != 0 {
            // On a busy machine the function may not be connected yet, or the header may arrive too late.
            return false;
        }
        assert_eq!(commands, 2, "not one read of header and entry each: {line}");
        let lines = get.lines();
        let stopped = lines
            .iter()
            .find(|line| line["message"] == "Redis retries stopped by the time budget")
            .expect("a line");
        assert_eq!(stopped["retries"], 0, "{stopped}");
        assert_eq!(stopped["budget_left_ms"], 0, "{stopped}");
        true
    })
    .await;
}

#[tokio::test]
async fn a_large_fill_that_is_too_slow_is_not_tried_again_by_the_next_requests() {
    let stack = stack_with_overrides(Topology::Single, MANY_OVERRIDES).await;
    stack.redis.set(Mode::SlowRequests(PAUSE)).await;
    let mut get = stack.function("get-flag").await;
    eventually("an instance tries to fill the entry", async || {
        if fills(&get) == 0 {
            get = stack.function("get-flag").await;
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!((percentage(&answer), answer.source()), (50, "database"));
            let line = get.last_request();
            assert!(
                line["duration"].as_f64().expect("a time") < MAX_DURATION_MS,
                "{line}"
            );
        }
        fills(&get) == 1
    })
    .await;
    eventually("a request misses the entry", async || {
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (50, "database"));
        get.last_request()["cache_miss"] == 1
    })
    .await;
    assert_eq!(fills(&get), 1, "{}", get.log());
    assert!(!stack.redis.has_entry());
}

async fn a_changed_flag_that_takes_longer_than_one_attempt_is_fetched_within_the_budget(
    on: Topology,
) {
    let stack = stack_with_overrides(on, SOME_OVERRIDES).await;
    let update = stack.function("update-flag").await;
    let filler = stack.function("get-flag").await;
    let event = Event::get("checkout");
    let mut percent = 50;
    eventually("a warm instance fetches the changed flag", async || {
        filler.call(&event).await;
        let get = stack.function("get-flag").await;
        if get.call(&event).await.source() != "redis" {
            return false;
        }
        percent = 101 - percent;
        set_percentage(&update, "checkout", percent).await;
        filler.call(&event).await;
        stack.redis.set(Mode::SlowReplies(SHORT_PAUSE)).await;
        let answer = get.call(&event).await;
        stack.redis.set(Mode::Open).await;
        assert_eq!(percentage(&answer), percent);
        answer.source() == "redis" && get.last_request()["redis_connection_errors"] == 0
    })
    .await;
}

async fn a_fill_that_takes_longer_than_other_probes_succeeds_after_a_failed_one(on: Topology) {
    let stack = stack_with_overrides(on, SOME_OVERRIDES).await;
    let get = stack.function("get-flag").await;
    stack.redis.set(Mode::SlowRequests(PAUSE)).await;
    eventually("a fill fails", async || {
        get.call(&Event::get("checkout")).await;
        get.has_logged(stack.redis.failure())
    })
    .await;
    stack.redis.set(Mode::SlowRequests(SHORT_PAUSE)).await;
    eventually("a fill succeeds", async || {
        // A fill that the function has given up may arrive later. It needs its lease, which `DEL` removes.
        stack.redis.command(&["DEL", KEY]);
        get.call(&Event::get("checkout")).await;
        get.last_request()["redis_connection_errors"] == 0 && stack.redis.has_entry()
    })
    .await;
}

on_every_redis!(
    a_changed_flag_that_takes_longer_than_one_attempt_is_fetched_within_the_budget,
    a_fill_that_takes_longer_than_other_probes_succeeds_after_a_failed_one,
);
