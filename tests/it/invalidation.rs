//! Invalidation: the races between reads, fills and commits that can make a cache stale, one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pennon_core::cache::{Cache, Fill, Found, Lookup};
use pennon_core::config::Config;
use pennon_core::environment::Environment;
use pennon_core::installation::Installation;
use pennon_core::request_context::RequestContext;
use pennon_core::secrets::Secrets;
use pennon_core::snapshot::{Revision, Snapshot};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::{INSTALLATION, MAC_KEY};
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{Stack, percentage, set_percentage};
use pennon_tests::topology::{Topology, WiredRedis};
use pennon_tests::wire::Mode;
use serde_json::json;

/// One instance's cache, whose steps a test executes in any order.
struct Instance {
    cache: Cache,
    environment: Environment,
    context: RequestContext,
}

impl Instance {
    async fn of(redis: &WiredRedis) -> Self {
        // The tests order the commands, so no timeout may interfere on a busy machine.
        let mut environment = redis.environment();
        let more = [
            ("CACHE_CONNECT_TIMEOUT_MS", "2000"),
            ("CACHE_OPERATION_TIMEOUT_MS", "500"),
            ("CACHE_MAC_KEY", MAC_KEY),
        ];
        environment.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (config, _) = Config::from_lookup(|wanted| {
            let mut found = environment.iter().filter(|(name, _)| name == wanted);
            found.next().map(|(_, value)| value.clone())
        });
        let secrets = Arc::new(Secrets::default());
        let installation = Arc::new(Installation::named(Some(INSTALLATION)));
        let within = Duration::from_secs(5);
        let cache = Cache::open(&config.cache, &secrets, &installation, within).await;
        Self {
            cache: cache.expect("it is configured"),
            environment: Environment::production(),
            context: RequestContext::begin(Duration::from_secs(60)),
        }
    }

    async fn read(&self) -> Found {
        self.cache.read(&self.environment, &self.context).await
    }

    async fn fill(&self, found: Found, revision: i64) -> bool {
        let Found::Lease(lease) = found else {
            panic!("no lease but {found:?}");
        };
        self.cache
            .fill(&self.environment, lease, &snapshot(revision), &self.context)
            .await
            == Fill::Stored
    }

    async fn begin_write(&self) -> pennon_core::cache::WriteBarrier {
        self.cache
            .begin_write(&self.environment, &self.context)
            .await
    }

    async fn end_write(&self, barrier: pennon_core::cache::WriteBarrier) -> bool {
        self.cache
            .end_write(&self.environment, barrier, &self.context)
            .await
    }

    async fn revision(&self) -> Lookup<Revision> {
        let found = self.cache.revision(&self.environment, &self.context).await;
        match found {
            Lookup::Hit(seen) => Lookup::Hit(seen.revision),
            Lookup::Miss => Lookup::Miss,
            Lookup::Unusable => Lookup::Unusable,
            Lookup::Unavailable => Lookup::Unavailable,
        }
    }
}

fn snapshot(revision: i64) -> Snapshot {
    Snapshot {
        revision: Revision(revision),
        ..Snapshot::empty()
    }
}

async fn a_fill_from_before_a_commit_is_rejected(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let lease = reader.read().await;
    let barrier = writer.begin_write().await;
    assert!(writer.end_write(barrier).await);
    assert!(!reader.fill(lease, 1).await, "a stale fill was stored");
    assert_eq!(reader.revision().await, Lookup::Miss);
    let lease = reader.read().await;
    assert!(reader.fill(lease, 2).await, "a current fill was rejected");
    assert_eq!(reader.revision().await, Lookup::Hit(Revision(2)));
}

async fn no_reader_gets_a_lease_during_a_write(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let barrier = writer.begin_write().await;
    assert!(matches!(reader.read().await, Found::FillForbidden));
    writer.end_write(barrier).await;
    assert!(matches!(reader.read().await, Found::Lease(_)));
}

async fn the_end_of_one_write_does_not_end_another(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, one, other) = (
        Instance::of(&redis).await,
        Instance::of(&redis).await,
        Instance::of(&redis).await,
    );
    let first = one.begin_write().await;
    let second = other.begin_write().await;
    one.end_write(first).await;
    assert!(
        matches!(reader.read().await, Found::FillForbidden),
        "a fill is allowed during the other write"
    );
    other.end_write(second).await;
    assert!(matches!(reader.read().await, Found::Lease(_)));
}

async fn a_lost_end_of_a_write_causes_misses_but_no_stale_reads(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let lease = reader.read().await;
    assert!(reader.fill(lease, 1).await);
    let barrier = writer.begin_write().await;
    drop(barrier);
    assert_eq!(reader.revision().await, Lookup::Miss);
    assert!(matches!(reader.read().await, Found::FillForbidden));
    let Resp::Number(ttl) = redis.command(&["PTTL", KEY]) else {
        panic!("a number");
    };
    assert!(ttl > 0 && ttl <= 15_000, "the TTL of the barrier is {ttl}");
}

async fn an_operators_del_deletes_leases(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let reader = Instance::of(&redis).await;
    let lease = reader.read().await;
    redis.command(&["DEL", KEY]);
    assert!(!reader.fill(lease, 1).await);
}

async fn flushing_or_overwriting_the_key_deletes_leases(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let reader = Instance::of(&redis).await;
    let lease = reader.read().await;
    redis.command(&["FLUSHALL"]);
    assert!(!reader.fill(lease, 1).await);
    let lease = reader.read().await;
    redis.command(&["SET", KEY, "the existing service was here"]);
    assert!(!reader.fill(lease, 1).await);
    assert_eq!(
        redis.command(&["GET", KEY]),
        Resp::Text("the existing service was here".to_owned())
    );
}

async fn one_reader_loads_while_others_wait_and_a_dead_reader_blocks_none(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (first, second) = (Instance::of(&redis).await, Instance::of(&redis).await);
    // On a busy machine the grace period of 150 ms may pass before the second reader has read.
    eventually(
        "the second reads within the grace period of the first",
        async || {
            redis.command(&["DEL", KEY]);
            let started = Instant::now();
            let lease = first.read().await;
            let found = second.read().await;
            if started.elapsed() > Duration::from_millis(140) {
                return false;
            }
            assert!(matches!(found, Found::FillInProgress), "{found:?}");
            assert!(first.fill(lease, 1).await);
            assert!(matches!(second.read().await, Found::Entry(..)));
            true
        },
    )
    .await;

    redis.command(&["DEL", KEY]);
    let _dead = first.read().await;
    eventually("another gets a lease", async || {
        matches!(second.read().await, Found::Lease(_))
    })
    .await;
}

async fn an_expired_lease_fills_nothing(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let reader = Instance::of(&redis).await;
    let lease = reader.read().await;
    // As after five seconds: every deadline in the hash is in the past.
    for (field, _) in redis.fields() {
        redis.command(&["HSET", KEY, &field, "1"]);
    }
    assert!(!reader.fill(lease, 1).await);
}

async fn a_reader_of_a_large_environment_never_sees_a_part_of_it(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage)
             select 'flag-' || n, true, 100 from generate_series(1, 5000) as n",
        )
        .await
        .expect("flags");
    let filler = stack.function("list-flags").await;
    let reader = Instance::of(&stack.redis).await;
    let mut fills = 0;
    // On a busy machine, a fill of this size may be given up.
    eventually("five fills", async || {
        stack.redis.command(&["DEL", KEY]);
        let event = Event::list();
        let mut fill = std::pin::pin!(filler.call(&event));
        loop {
            tokio::select! {
                biased;
                _ = &mut fill => break,
                found = reader.cache.revision(&reader.environment, &reader.context) => {
                    if matches!(found, Lookup::Hit(_)) {
                        assert_eq!(stack.redis.command(&["HLEN", KEY]), Resp::Number(5_012));
                    }
                }
            }
        }
        if stack.redis.has_entry() {
            assert_eq!(stack.redis.command(&["HLEN", KEY]), Resp::Number(5_012));
            fills += 1;
        }
        fills == 5
    })
    .await;
}

async fn a_reader_that_was_frozen_between_load_and_fill_cannot_fill_stale_flags(on: Topology) {
    let stack = Stack::start_on(on).await;
    let slow = stack.function("get-flag").await;
    let update = stack.function("update-flag").await;
    for percent in 1..6 {
        stack.redis.command(&["DEL", KEY]);
        // The reader's load is slow, so that it is frozen between its lease and its fill.
        stack
            .database_wire
            .set(Mode::Delay(Duration::from_millis(50)))
            .await;
        let event = Event::get("checkout");
        let (answer, ()) = tokio::join!(slow.call(&event), async {
            eventually("the reader has its lease", async || {
                stack.redis.command(&["EXISTS", KEY]) == Resp::Number(1)
            })
            .await;
            slow.process().freeze();
            stack.database_wire.set(Mode::Open).await;
            set_percentage(&update, "checkout", percent).await;
            slow.process().thaw();
        });
        assert_eq!(answer.status, 200);
        let other = stack.function("get-flag").await;
        assert_eq!(
            percentage(&other.call(&Event::get("checkout")).await),
            percent
        );
        assert_eq!(
            percentage(&slow.call(&Event::get("checkout")).await),
            percent
        );
    }
}

async fn a_response_reports_an_unconfirmed_invalidation(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    let update = stack.function("update-flag").await;
    stack.redis.set(Mode::Refuse).await;
    let answer = set_percentage(&update, "checkout", 5).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
    assert_eq!(update.last_request()["cache_invalidated"], 0);
    assert!(stack.redis.has_entry(), "the old entry is gone");
    stack.redis.set(Mode::Open).await;
}

/// Every invalidation after a commit is lost before it reaches Redis.
fn lost_end_of_a_write() -> Mode {
    Mode::Lose {
        text: "-- After a commit",
        percent: 100,
        arriving_percent: 0,
    }
}

async fn a_change_is_seen_even_when_the_invalidation_after_its_commit_is_lost(on: Topology) {
    let stack = Stack::start_on(on).await;
    let update = stack.function("update-flag").await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    stack.redis.set(lost_end_of_a_write()).await;
    for percent in 1..4 {
        let answer = set_percentage(&update, "checkout", percent).await;
        // Redis did not confirm the invalidation, and a restart would lose the barrier, so the response says `false`.
        assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
        assert!(!stack.redis.has_entry());
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent);
    }
}

/// A trigger that holds each commit of a change while the test holds a lock.
const HOLD_COMMITS: &str = "
    create function wait() returns trigger language plpgsql as
        'begin perform pg_advisory_xact_lock(1); return null; end';
    create constraint trigger wait after update on feature_flags
        deferrable initially deferred for each row execute function wait()";

async fn no_reader_fills_the_old_state_while_postgresql_may_still_commit_a_change(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    let sql = stack.database.sql();
    sql.batch_execute(HOLD_COMMITS).await.expect("a trigger");
    let lost = |arriving_percent| Mode::Lose {
        text: "-- Before a commit",
        percent: 100,
        arriving_percent,
    };
    // Before the commit, Redis confirms no barrier, and executes every command to set one or none; or it confirms one,
    // which expires. In the last case it confirms none after the commit either.
    for (mode, then, case) in [
        (lost(100), Mode::Open, "executed, not confirmed"),
        (lost(0), Mode::Open, "not executed"),
        (Mode::Open, Mode::Open, "expired"),
        (Mode::Open, lost(0), "not set again"),
    ] {
        let is_set_again = then == Mode::Open;
        stack.redis.command(&["DEL", KEY]);
        let before = percentage(&get.call(&Event::get("checkout")).await);
        let after = before - 1;
        let update = stack.function("update-flag").await;
        let lock = "select pg_advisory_lock(1)";
        sql.batch_execute(lock).await.expect("a lock");
        stack.redis.set(mode).await;
        let event = Event::update("checkout", &json!({ "rolloutPercentage": after }));
        let interference = async {
            eventually("the commit waits", async || {
                let waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted
                      and database = (select oid from pg_database where datname = current_database())";
                let found = sql.query_opt(waiting, &[]).await;
                found.expect("the locks").is_some()
            })
            .await;
            stack.redis.set(then).await;
            if case == "expired" {
                stack.redis.command(&["DEL", KEY]);
            }
            stack.database_wire.set(Mode::Refuse).await;
        };
        let (answer, ()) = tokio::join!(update.call(&event), interference);
        assert_eq!(answer.status, 503, "the outcome is known: {answer:?}");
        let reported = &update.last_request()["cache_invalidated"];
        assert_eq!(*reported, u8::from(is_set_again), "{case}");
        stack.database_wire.set(Mode::Open).await;
        if !is_set_again {
            break;
        }
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), before, "an uncommitted change is read");
        assert!(!stack.redis.has_entry(), "filled after a barrier: {case}");
        let unlock = "select pg_advisory_unlock(1)";
        sql.batch_execute(unlock).await.expect("it continues");
        eventually("the change is visible", async || {
            let answer = get.call(&Event::get("checkout")).await;
            percentage(&answer) == after
        })
        .await;
    }
}

/// An operator deletes the barrier before the commit, and a reader fills the entry with the old state. If the
/// invalidation after the commit is lost too, only `reconcile` ends the old state; therefore the response says `false`.
async fn a_deleted_barrier_and_a_lost_invalidation_leave_an_old_entry_until_reconcile(
    on: Topology,
) {
    let stack = Stack::start_on(on).await;
    let update = stack.function("update-flag").await;
    let get = stack.function("get-flag").await;
    let reconcile = stack.function("reconcile").await;
    let sql = stack.database.sql();
    sql.batch_execute(HOLD_COMMITS).await.expect("a trigger");
    for (invalidation, is_confirmed) in [(Mode::Open, true), (lost_end_of_a_write(), false)] {
        let before = percentage(&get.call(&Event::get("checkout")).await);
        let after = before - 1;
        sql.batch_execute("select pg_advisory_lock(1)")
            .await
            .expect("a lock");
        stack.redis.set(invalidation).await;
        let change = set_percentage(&update, "checkout", after);
        let interference = async {
            eventually("the barrier is set", async || {
                !stack.redis.has_entry() && stack.redis.command(&["EXISTS", KEY]) == Resp::Number(1)
            })
            .await;
            stack.redis.command(&["DEL", KEY]);
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), before, "an uncommitted change is read");
            assert!(stack.redis.has_entry(), "no entry was filled");
            sql.batch_execute("select pg_advisory_unlock(1)")
                .await
                .expect("the commit continues");
        };
        let (answer, ()) = tokio::join!(change, interference);
        let confirmed = if is_confirmed { "true" } else { "false" };
        assert_eq!(answer.header("x-cache-invalidated"), Some(confirmed));
        let seen = percentage(&get.call(&Event::get("checkout")).await);
        assert_eq!(seen, if is_confirmed { after } else { before });
        stack.redis.set(Mode::Open).await;
        reconcile.invoke(&json!({})).await.expect("it reconciles");
        let seen = percentage(&get.call(&Event::get("checkout")).await);
        assert_eq!(seen, after);
    }
}

async fn reconciling_repairs_stale_entries_and_warms_missing_ones(on: Topology) {
    let stack = Stack::start_on(on).await;
    let reconcile = stack.function("reconcile").await;
    let run = || async { reconcile.invoke(&json!({})).await.expect("reconciles") };
    assert_eq!(
        run().await,
        json!({"applied": 0, "environments": 1, "repaired": 0, "warmed": 1})
    );
    assert_eq!(
        run().await,
        json!({"applied": 0, "environments": 1, "repaired": 0, "warmed": 0})
    );

    // A change by SQL does not invalidate Redis.
    stack
        .database
        .sql()
        .batch_execute(
            "update feature_flags set rollout_percentage = 6 where flag_key = 'checkout'",
        )
        .await
        .expect("a change by SQL");
    let get = stack.function("get-flag").await;
    assert_eq!(
        percentage(&get.call(&Event::get("checkout")).await),
        50,
        "the instance has seen a change by SQL"
    );
    assert_eq!(
        run().await,
        json!({"applied": 0, "environments": 1, "repaired": 1, "warmed": 1})
    );
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (6, "redis"));

    stack.redis.set(Mode::Refuse).await;
    assert!(
        reconcile.invoke(&json!({})).await.is_err(),
        "reconcile reports success without Redis"
    );
}

/// Replaces the table of flags by a view that takes a minute for the flags of one environment.
const SLOW_ENVIRONMENT: &str = "
    insert into feature_flags (flag_key, environment) values ('checkout', 'a-load-test');
    alter table feature_flags rename to all_flags;
    create function is_read(environment text) returns boolean cost 10000 language plpgsql as $$
      begin
        if environment = 'a-load-test' then perform pg_sleep(60); end if;
        return true;
      end $$;
    create view feature_flags as select * from all_flags where is_read(environment)";

#[tokio::test]
async fn an_environment_that_cannot_be_read_does_not_keep_reconcile_from_others() {
    let stack = Stack::start().await;
    let sql = stack.database.sql();
    sql.batch_execute(SLOW_ENVIRONMENT).await.expect("a view");
    let timeout = [("DATABASE_TIMEOUT_MS", "2000")];
    let reconcile = stack.function_with("reconcile", &timeout).await;
    eventually("the entry of production is filled", async || {
        let failed = reconcile.invoke(&json!({})).await;
        failed.expect_err("one environment cannot be read");
        stack.redis.has_entry()
    })
    .await;
    let lines = reconcile.lines();
    let mut found = lines
        .iter()
        .filter(|line| line["message"] == "an environment could not be compared with the cache");
    assert!(found.all(|line| line["environment"] == "a-load-test"));
    assert!(reconcile.has_logged("an environment could not be compared with the cache"));
}

async fn an_instance_that_noticed_an_outage_distrusts_entries_from_before_it(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    let update = stack.function("update-flag").await;
    stack.redis.set(Mode::Refuse).await;
    get.call(&Event::get("search")).await;
    let answer = set_percentage(&update, "checkout", 4).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
    stack.redis.set(Mode::Open).await;
    assert!(stack.redis.has_entry(), "the old entry is gone");
    eventually("the entry is in the cache again", async || {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 4);
        get.last_request()["cache_hit"] == 1
    })
    .await;
}

async fn an_entry_older_than_a_known_revision_is_rejected(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    let old: Vec<(String, String)> = stack.redis.fields();
    let update = stack.function("update-flag").await;
    set_percentage(&update, "checkout", 3).await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 3);
    // As after a restart from a snapshot on disk, or a failover to a replica that was behind.
    stack.redis.command(&["DEL", KEY]);
    for (field, value) in &old {
        stack.redis.command(&["HSET", KEY, field, value]);
    }
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 3);
    let fresh = stack.function("get-flag").await;
    assert_eq!(
        percentage(&fresh.call(&Event::get("checkout")).await),
        3,
        "a new instance used the old entry"
    );
}

async fn a_barrier_that_arrives_after_its_write_has_ended_is_not_set(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    // The writer's first attempt does not arrive.
    redis.set(Mode::FailFirst(1)).await;
    let barrier = writer.begin_write().await;
    assert!(barrier.is_set());
    let fields = redis.fields();
    let id = fields
        .iter()
        .find_map(|(name, _)| name.strip_prefix("__b:"));
    let script = include_str!("../../crates/pennon-core/src/cache/scripts/begin_write.lua");
    let now = unix_millis().to_string();
    let late = [
        "EVAL",
        script,
        "1",
        KEY,
        id.expect("a barrier"),
        "15000",
        &now,
        "60000",
    ];
    assert!(writer.end_write(barrier).await);
    assert_eq!(redis.command(&late), Resp::Number(1));
    let lease = reader.read().await;
    assert!(reader.fill(lease, 1).await, "the late barrier is set");
    assert_eq!(redis.command(&late), Resp::Number(1));
    assert_eq!(reader.revision().await, Lookup::Hit(Revision(1)));
    // Nor is the late barrier set after a change by another writer.
    let barrier = writer.begin_write().await;
    assert!(writer.end_write(barrier).await);
    assert_eq!(redis.command(&late), Resp::Number(1));
    assert!(matches!(reader.read().await, Found::Lease(_)));
}

/// The time of this machine.
fn unix_millis() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis()
}

async fn a_barrier_that_was_queued_in_a_hung_redis_is_not_set(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let lease = reader.read().await;
    assert!(reader.fill(lease, 1).await);
    let script = include_str!("../../crates/pennon-core/src/cache/scripts/begin_write.lua");
    let attempt = |age: u128| {
        let sent = (unix_millis() - age).to_string();
        let id = "who-gave-up";
        redis.command(&["EVAL", script, "1", KEY, id, "15000", &sent, "2000"])
    };
    assert_eq!(attempt(3_000), Resp::Number(0));
    assert!(!redis.has_entry(), "the late command kept the entry");
    assert!(matches!(reader.read().await, Found::Lease(_)));
    // The late command keeps the barriers of other writers.
    let barrier = writer.begin_write().await;
    assert!(barrier.is_set());
    assert_eq!(attempt(3_000), Resp::Number(0));
    assert!(matches!(reader.read().await, Found::FillForbidden));
    assert!(writer.end_write(barrier).await);
    // It also keeps the barrier that another attempt of its own writer has set.
    assert_eq!(attempt(0), Resp::Number(1));
    assert_eq!(attempt(3_000), Resp::Number(0));
    assert!(matches!(reader.read().await, Found::FillForbidden));
}

async fn a_reader_whose_reply_was_lost_is_not_kept_out_by_its_own_grace_period(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let reader = Instance::of(&redis).await;
    redis.set(Mode::CutReply(0)).await;
    let (found, ()) = tokio::join!(reader.read(), async {
        eventually("the reader has taken a lease", async || {
            redis.command(&["EXISTS", KEY]) == Resp::Number(1)
        })
        .await;
        redis.set(Mode::Open).await;
    });
    assert!(matches!(found, Found::Lease(_)), "{found:?}");
}

/// Adds fields to the entry, as somebody with access to Redis can.
fn set_fields(redis: &WiredRedis, fields: &[(String, String)]) {
    let pairs = fields.iter().flat_map(|(name, value)| [name, value]);
    let pairs = pairs.map(String::as_str);
    let command: Vec<&str> = ["HSET", KEY].into_iter().chain(pairs).collect();
    redis.command(&command);
}

/// The TTL of the hash in milliseconds; -1 if the hash has none, -2 if there is no hash.
fn ttl(redis: &WiredRedis) -> i64 {
    let Resp::Number(ttl) = redis.command(&["PTTL", KEY]) else {
        panic!("a number");
    };
    ttl
}

async fn a_forged_deadline_is_neither_kept_nor_prevents_a_write(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let soon = unix_millis() + 10_000;
    for forged in [
        "1e300".to_owned(),
        "inf".to_owned(),
        "nan".to_owned(),
        "-1".to_owned(),
        "99999999999999".to_owned(),
        "9".repeat(400),
        format!("{soon}.5"),
        format!("{soon:#x}"),
        format!(" {soon}"),
    ] {
        for name in ["__b:forger", "__d:forger"] {
            let case = format!("{name} {forged}");
            let set = || set_fields(&redis, &[(name.to_owned(), forged.clone())]);
            set();
            let barrier = writer.begin_write().await;
            assert!(barrier.is_set(), "{case}");
            assert!((1..=15_000).contains(&ttl(&redis)), "{case}");
            set();
            assert!(writer.end_write(barrier).await, "{case}");
            assert_eq!(ttl(&redis), -2, "{case}: a field is left");
            let lease = reader.read().await;
            assert!(reader.fill(lease, 1).await, "{case}");
            set();
            let discarded = writer
                .cache
                .discard(&writer.environment, Revision(1), &writer.context)
                .await;
            assert!(discarded, "{case}");
            assert_eq!(ttl(&redis), -2, "{case}: a field is left");
        }
    }
}

async fn thousands_of_barriers_are_kept_until_they_expire(on: Topology) {
    let redis = WiredRedis::start(on).await;
    let (reader, writer) = (Instance::of(&redis).await, Instance::of(&redis).await);
    let soon = (unix_millis() + 10_000).to_string();
    let barriers: Vec<_> = (0..5_000)
        .map(|number| (format!("__b:{number}"), soon.clone()))
        .collect();
    let kept = || {
        let ttl = ttl(&redis);
        assert!(ttl > 0 && ttl <= 15_000, "{ttl}");
        redis.fields().len()
    };
    let lease = reader.read().await;
    assert!(reader.fill(lease, 1).await);
    set_fields(&redis, &barriers);
    let discarded = writer
        .cache
        .discard(&writer.environment, Revision(1), &writer.context)
        .await;
    assert!(discarded);
    assert_eq!(kept(), 5_000);
    let barrier = writer.begin_write().await;
    assert!(barrier.is_set());
    assert_eq!(kept(), 5_001);
    assert!(writer.end_write(barrier).await);
    assert_eq!(kept(), 5_000);
}

#[tokio::test]
async fn reconciling_fills_a_missing_entry_whatever_age_of_a_snapshot_is_allowed() {
    let stack = Stack::start().await;
    let settings = [("SNAPSHOT_MAX_AGE_MS", "3600000")];
    let reconcile = stack.function_with("reconcile", &settings).await;
    for _ in 0..2 {
        let done = reconcile.invoke(&json!({})).await.expect("reconciles");
        assert_eq!(done["warmed"], 1, "{done}");
        assert!(stack.redis.has_entry());
        stack.redis.command(&["DEL", KEY]);
    }
}

#[tokio::test]
async fn reconciling_counts_only_filled_entries_as_warmed() {
    let stack = Stack::start().await;
    let writer = Instance::of(&stack.redis).await;
    let reconcile = stack.function("reconcile").await;
    let _commits_for_a_while = writer.begin_write().await;
    let done = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(
        done,
        json!({"applied": 0, "environments": 1, "repaired": 0, "warmed": 0}),
        "an entry was filled during a write"
    );
    assert!(!stack.redis.has_entry());
}

on_every_redis!(
    a_fill_from_before_a_commit_is_rejected,
    no_reader_gets_a_lease_during_a_write,
    the_end_of_one_write_does_not_end_another,
    a_lost_end_of_a_write_causes_misses_but_no_stale_reads,
    an_operators_del_deletes_leases,
    flushing_or_overwriting_the_key_deletes_leases,
    one_reader_loads_while_others_wait_and_a_dead_reader_blocks_none,
    an_expired_lease_fills_nothing,
    a_reader_of_a_large_environment_never_sees_a_part_of_it,
    a_reader_that_was_frozen_between_load_and_fill_cannot_fill_stale_flags,
    a_response_reports_an_unconfirmed_invalidation,
    reconciling_repairs_stale_entries_and_warms_missing_ones,
    an_instance_that_noticed_an_outage_distrusts_entries_from_before_it,
    an_entry_older_than_a_known_revision_is_rejected,
    a_forged_deadline_is_neither_kept_nor_prevents_a_write,
    thousands_of_barriers_are_kept_until_they_expire,
);

on_readable_redis!(
    no_reader_fills_the_old_state_while_postgresql_may_still_commit_a_change,
    a_change_is_seen_even_when_the_invalidation_after_its_commit_is_lost,
    a_deleted_barrier_and_a_lost_invalidation_leave_an_old_entry_until_reconcile,
    a_barrier_that_arrives_after_its_write_has_ended_is_not_set,
    a_barrier_that_was_queued_in_a_hung_redis_is_not_set,
    a_reader_whose_reply_was_lost_is_not_kept_out_by_its_own_grace_period,
);
