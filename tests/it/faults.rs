//! Failures of Redis and of the database: which responses stay the same, which are stale, and which are 503.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pennon_core::http::{Authorization, ENDPOINTS};
use pennon_tests::event::{EXAMPLE_KEY, Event, SYNC_KEY};
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::redis::{KEY, Redis};
use pennon_tests::response::Response;
use pennon_tests::stack::{Stack, percentage, set_percentage};
use pennon_tests::topology::{Topology, WiredRedis};
use pennon_tests::{eventually, wire::Mode};
use serde_json::{Value, json};

/// A limit that the requests of these tests never reach on their own. It detects requests that wait for a hung server:
/// they would never end.
const MAX_DURATION: Duration = Duration::from_secs(5);

/// The functions of three routes, on the same wires.
struct Routes {
    list: Function,
    get: Function,
    update: Function,
}

impl Routes {
    async fn start(stack: &Stack) -> Self {
        Self {
            list: stack.function("list-flags").await,
            get: stack.function("get-flag").await,
            update: stack.function("update-flag").await,
        }
    }

    /// Calls the three routes and checks the responses. `percent` must differ from the previous one.
    async fn check(&self, percent: i64, when: &str) {
        let started = Instant::now();
        let updated = set_percentage(&self.update, "checkout", percent).await;
        assert_eq!(percentage(&updated), percent, "{when}");
        let single = self.get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&single), percent, "{when}");
        let list = self.list.call(&Event::list().user("user-18", "[]")).await;
        assert_eq!(list.status, 200, "{when}: {list:?}");
        let flags = list.json();
        for (key, on) in [
            ("checkout", percent > 0),
            ("export", false),
            ("search", true),
        ] {
            assert_eq!(flags[key], on, "{key}, {when}: user-18 has bucket 0");
        }
        assert!(
            started.elapsed() < MAX_DURATION,
            "{when}: {:?}",
            started.elapsed()
        );
    }
}

/// Every function of the route table, on the same wires.
struct EveryRoute {
    functions: BTreeMap<&'static str, Function>,
    rounds: u32,
}

impl EveryRoute {
    async fn start(stack: &Stack) -> Self {
        stack.database.add_key(EXAMPLE_KEY).await;
        stack.database.add_key(SYNC_KEY).await;
        let mut functions = BTreeMap::new();
        for endpoint in ENDPOINTS {
            if !functions.contains_key(endpoint.function) {
                functions.insert(endpoint.function, stack.function(endpoint.function).await);
            }
        }
        Self {
            functions,
            rounds: 0,
        }
    }

    /// Calls every route once, in the order of the table, and expects the same statuses as without a fault. Each
    /// round creates, archives and restores its own flag, and creates and revokes a key.
    async fn check(&mut self, when: &str) {
        self.rounds += 1;
        let flag = format!("made-{}", self.rounds);
        let environment = format!("made-{}", self.rounds);
        let mut made = String::new();
        for endpoint in ENDPOINTS {
            let (method, path) = (endpoint.method, endpoint.path);
            let (body, expected) = request(method, path, &flag, &environment);
            let is_sync = endpoint.authorization == Authorization::SyncKey;
            let environment = if is_sync {
                "production"
            } else {
                environment.as_str()
            };
            // Only the flag of this round is archived and restored.
            let key = match (method, path) {
                ("GET" | "DELETE", "/api/admin/flags/{flagKey}")
                | (_, "/api/admin/flags/{flagKey}/restore" | "/api/admin/flags/{flagKey}/revert") => {
                    flag.as_str()
                }
                _ => "search",
            };
            let parameters = [
                ("flagKey", key),
                ("userId", "alice"),
                ("id", made.as_str()),
                ("keyId", made.as_str()),
                ("webhookId", "none"),
                ("environment", environment),
            ];
            let event = Event::by_route(method, path, "", &parameters)
                .body(&body.to_string())
                .header("if-match", "*");
            let event = if endpoint.is_ofrep() {
                event.anonymous().api_key(EXAMPLE_KEY)
            } else if is_sync {
                event.anonymous().api_key(SYNC_KEY)
            } else {
                event
            };
            let started = Instant::now();
            let answer = self.functions[endpoint.function].call(&event).await;
            let what = format!("{method} {path}, {when}");
            assert_eq!(answer.status, expected, "{what}: {answer:?}");
            assert!(
                started.elapsed() < MAX_DURATION,
                "{what}: {:?}",
                started.elapsed()
            );
            match path {
                "/ofrep/v1/evaluate/flags/{flagKey}" => assert_eq!(answer.json()["value"], true),
                "/ofrep/v1/evaluate/flags" => {
                    let search = json!({"key": "search", "value": true, "reason": "STATIC", "variant": "on"});
                    let flags = answer.json()["flags"].clone();
                    let flags = flags.as_array().expect("flags");
                    assert!(flags.contains(&search), "{what}: {flags:?}");
                }
                _ if method == "POST"
                    && (path.ends_with("/schedule") || path.ends_with("/keys")) =>
                {
                    let id = answer.json()["id"].clone();
                    id.as_str().expect("an id").clone_into(&mut made);
                }
                _ => {}
            }
        }
    }
}

/// The body of a request to a route, and the expected status.
fn request(method: &str, path: &str, flag: &str, environment: &str) -> (Value, u16) {
    let last = path.rsplit('/').next().unwrap_or_default();
    match (method, path) {
        ("POST", "/api/admin/flags") => (json!({"key": flag, "enabled": true}), 201),
        ("POST", "/api/admin/environments") => (json!({"environment": environment}), 201),
        ("POST", "/api/admin/keys") => (json!({"kind": "client", "name": "a test"}), 201),
        ("DELETE", "/api/admin/flags/{flagKey}" | "/api/admin/flags/{flagKey}/schedule/{id}") => {
            (Value::Null, 200)
        }
        // `webhook_delivery` tests webhooks; here these routes must only respond as without a fault.
        ("POST", "/api/admin/webhooks") => (json!({}), 400),
        ("POST" | "DELETE", _) if path.starts_with("/api/admin/webhooks/") => (json!({}), 404),
        ("DELETE", _) => (Value::Null, 204),
        ("PUT", _) if last == "users" => (
            json!({"overrides": [{"userId": "alice", "overrideType": "include"}]}),
            200,
        ),
        ("POST", _) if path.starts_with("/ofrep/") || last == "explain" => {
            (json!({"context": {"targetingKey": "alice"}}), 200)
        }
        ("POST", _) if last == "users" => {
            (json!({"userId": "alice", "overrideType": "include"}), 201)
        }
        ("POST", _) if last == "schedule" => {
            let body = json!({"scheduledAt": "2099-01-01T00:00Z", "updates": {"enabled": true}});
            (body, 201)
        }
        // `ramps` tests ramps; here these routes must only respond as without a fault.
        ("POST", _) if last == "ramp" => (json!({"steps": []}), 400),
        ("GET", _) if last == "ramp" => (Value::Null, 404),
        ("POST", _) if path.contains("/ramp/") => (json!({}), 404),
        ("POST", _) if last == "revert" => (json!({"auditId": i64::MAX}), 404),
        ("POST", _) if last == "copy" => {
            let flags = json!([{"flagKey": "search", "ifMatch": "*"}]);
            (json!({"from": "production", "flags": flags}), 200)
        }
        ("POST", "/v1/evaluation-counts") => (json!({"batch": "b-1", "counts": {}}), 202),
        ("POST", _) if last == "import" => (json!({"flags": {}}), 200),
        ("GET" | "POST" | "PATCH" | "PUT", _) => (json!({}), 200),
        other => panic!("no request for {other:?}"),
    }
}

async fn redis_faults_on_the_wire_never_become_errors(on: Topology) {
    let answer = |text: &str| Mode::Answer(format!("-{text}\r\n").into_bytes());
    let faults = [
        ("refused", Mode::Refuse),
        ("hangs", Mode::Hang),
        ("reset in the middle of a reply", Mode::CutReply(3)),
        ("garbage", Mode::Answer(b"!?&\r\n".to_vec())),
        ("a reply of another kind", Mode::Answer(b":1\r\n".to_vec())),
        (
            "OOM",
            answer("OOM command not allowed when used memory > 'maxmemory'."),
        ),
        ("NOAUTH", answer("NOAUTH Authentication required.")),
        (
            "READONLY",
            answer("READONLY You can't write against a read only replica."),
        ),
        (
            "LOADING",
            answer("LOADING Redis is loading the dataset in memory"),
        ),
        ("MOVED", answer("MOVED 16114 127.0.0.1:1")),
        ("an unknown error", answer("ERR what?")),
    ];
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let routes = Routes::start(&stack).await;
    let mut every_route = EveryRoute::start(&stack).await;
    let mut percent = 0;
    let mut next = || {
        percent += 1;
        percent
    };
    routes.check(next(), "before anything fails").await;
    every_route.check("before anything fails").await;
    for (name, fault) in faults {
        stack.redis.set(fault).await;
        for round in ["first", "second", "third"] {
            routes
                .check(next(), &format!("{name}, {round} request"))
                .await;
        }
        every_route.check(name).await;
        stack.redis.set(Mode::Open).await;
        // The entry may still have the value from before the unconfirmed update. Instances that have seen the outage
        // compare it with the database.
        routes.check(next(), &format!("{name}, healed")).await;
        eventually(&format!("{name}: the cache answers"), async || {
            let answer = routes.get.call(&Event::get("checkout")).await;
            assert_eq!(answer.status, 200);
            answer.header("x-cache-hit") == Some("true") && answer.source() == "memory"
        })
        .await;
    }
}

async fn a_restarted_redis_is_used_again(on: Topology) {
    let mut stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let routes = Routes::start(&stack).await;
    routes.check(1, "warm").await;
    stack.redis.kill();
    routes.check(2, "killed").await;
    let line = routes.get.last_request();
    assert_eq!(line["cache_unavailable"], 1, "{line}");
    assert_eq!(line["cache_hit"], 0);
    assert!(routes.get.has_logged(on.failure()));
    if on.is_cluster() {
        assert_eq!(line["cluster_unavailable"], 1, "{line}");
    }
    stack.redis.restart().await;
    eventually("a read stores the entry again", async || {
        assert_eq!(
            percentage(&routes.get.call(&Event::get("checkout")).await),
            2
        );
        stack.redis.has_entry()
    })
    .await;
}

async fn a_frozen_redis_costs_bounded_time_and_recovers(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let routes = Routes::start(&stack).await;
    routes.check(1, "warm").await;
    stack.redis.freeze();
    routes.check(2, "frozen").await;
    routes.check(3, "still frozen").await;
    stack.redis.thaw();
    eventually("the cache answers again", async || {
        let answer = routes.get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), 3, "an entry from before the freeze");
        answer.source() == "memory"
    })
    .await;
}

async fn only_the_first_requests_of_an_outage_are_slow(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    stack.redis.set(Mode::Refuse).await;
    for _ in 0..50 {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    }
    let tried = get
        .requests()
        .iter()
        .filter(|line| {
            line["redis_connection_errors"]
                .as_u64()
                .is_some_and(|errors| errors > 0)
        })
        .count();
    assert!(tried >= 1, "no request tried Redis");
    assert!(tried < 10, "{tried} of 50 requests tried");
    assert_eq!(get.last_request()["breaker_open"], 1);
}

async fn a_short_failure_is_retried_and_hidden_from_callers(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let get = stack.function("get-flag").await;
    for failures in [1, 2, 3] {
        // On a busy machine the budget may end before the failure does. The log must then say so, and the test tries
        // again.
        eventually(&format!("{failures} failures are hidden"), async || {
            stack.redis.set(Mode::Open).await;
            wait_for_cache(&get).await;
            let (before, lines) = (stack.redis.commands().len(), get.lines().len());
            stack.redis.set(Mode::FailFirst(failures)).await;
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), 50);
            let gaps = gaps(&stack, before);
            let lines = &get.lines()[lines..];
            let logged = |message: &str| lines.iter().any(|line| line["message"] == message);
            if answer.source() != "memory" {
                // Either no further retry fits, or the last attempt used the rest of the budget.
                let took = get.last_request()["duration"].as_f64().expect("a time");
                assert!(
                    logged("Redis retries stopped by the time budget") || took >= 400.0,
                    "{lines:#?}"
                );
                return false;
            }
            assert_eq!(answer.header("x-cache-hit"), Some("true"));
            assert_eq!(get.last_request()["redis_retries"], failures);
            assert!(logged(&format!("Redis retry attempt {failures}/3")));
            // A cut connection is replaced immediately. If the new one is cut too, the next retry waits 200 ms, and the
            // last one for what the budget has left, at least 50 ms.
            assert_eq!(gaps.len(), failures);
            let least = [0, 200, 50].map(Duration::from_millis);
            for (gap, least) in gaps.iter().zip(least) {
                assert!(*gap >= least, "{gaps:?}");
            }
            true
        })
        .await;
    }
}

async fn wait_for_cache(get: &Function) {
    eventually("the cache answers", async || {
        get.call(&Event::get("checkout")).await.source() == "memory"
    })
    .await;
}

/// The times between attempts that have arrived at Redis, without the first `before` attempts.
fn gaps(stack: &Stack, before: usize) -> Vec<Duration> {
    let attempts = &stack.redis.commands()[before..];
    attempts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The wire measures the pauses. The whole pause lies between the arrivals of two attempts, so a slow machine can only
/// make the gap longer.
async fn retries_wait_100_then_200_milliseconds_then_for_what_the_budget_has_left(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    for budget in [400, 500] {
        let settings = [("CACHE_BUDGET_MS", budget.to_string())];
        let settings = settings
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let get = stack.function_with("get-flag", &settings).await;
        // On a busy machine the budget may end early. The log must then say so, and the test tries again.
        eventually("a request makes all three retries", async || {
            wait_for_cache(&get).await;
            let before = stack.redis.commands().len();
            let lines = get.lines().len();
            let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
            stack.redis.set(Mode::Answer(loading.to_vec())).await;
            let answer = get.call(&Event::get("checkout")).await;
            let gaps = gaps(&stack, before);
            stack.redis.set(Mode::Open).await;

            assert_eq!((percentage(&answer), answer.source()), (50, "database"));
            let retries = get.last_request()["redis_retries"].clone();
            assert_eq!(retries, gaps.len(), "{gaps:?}");
            let least = [100, 200, 50].map(Duration::from_millis);
            assert!(gaps.len() <= least.len(), "{gaps:?}");
            for (gap, least) in gaps.iter().zip(least) {
                assert!(*gap >= least, "{gaps:?}");
            }
            let lines = &get.lines()[lines..];
            let logged = |message: &str| lines.iter().find(|line| line["message"] == message);
            for number in 1..=3 {
                let attempt = logged(&format!("Redis retry attempt {number}/3"));
                assert_eq!(
                    attempt.is_some(),
                    number <= gaps.len(),
                    "{number}: {gaps:?}"
                );
            }
            let stopped = logged("Redis retries stopped by the time budget");
            assert_eq!(stopped.is_some(), gaps.len() < 3, "{lines:#?}");
            if let Some(stopped) = stopped {
                assert_eq!(stopped["retries"], gaps.len());
                assert_eq!(stopped["retries_allowed"], 3);
            }
            gaps.len() == 3
        })
        .await;
    }
}

async fn a_budget_without_room_for_a_pause_allows_no_retry(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let get = stack
        .function_with("get-flag", &[("CACHE_BUDGET_MS", "90")])
        .await;
    wait_for_cache(&get).await;
    let before = stack.redis.commands().len();
    let busy = b"-LOADING Redis is loading the dataset in memory\r\n";
    stack.redis.set(Mode::Answer(busy.to_vec())).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    assert_eq!(gaps(&stack, before), Vec::<Duration>::new());
    assert!(get.has_logged("Redis retries stopped by the time budget"));
    assert!(!get.log().contains("Redis retry attempt"), "{}", get.log());
}

async fn a_full_redis_serves_its_entries_and_the_database_the_rest(on: Topology) {
    for policy in ["noeviction", "allkeys-lru"] {
        let stack = Stack::start_on(on).await;
        stack
            .redis
            .command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let routes = Routes::start(&stack).await;
        routes.check(1, policy).await;
        // Another program's key fills the memory.
        stack.redis.command(&[
            "SET",
            "{feature_flags:production}filler",
            &"x".repeat(1_000_000),
        ]);
        stack.redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
        if policy == "noeviction" {
            for _ in 0..3 {
                let answer = routes.get.call(&Event::get("checkout")).await;
                assert_eq!((percentage(&answer), answer.source()), (1, "memory"));
            }
        }
        for percent in 2..6 {
            routes.check(percent, policy).await;
        }
        let logged = routes.get.log();
        assert!(!logged.contains("\"status\":500"), "{logged}");
    }
}

#[tokio::test]
async fn a_redis_with_another_password_counts_as_unavailable() {
    let redis = Redis::start_with(&["--requirepass", "right"]);
    let stack = Stack::start_with(WiredRedis::of(redis)).await;
    let redis_url = stack.redis.url();
    let with_password =
        |password: &str| redis_url.replace("redis://", &format!("redis://:{password}@"));
    for (url, source) in [
        (redis_url.clone(), "database"),
        (with_password("wrong"), "database"),
        (with_password("right"), "memory"),
    ] {
        let get = stack
            .function_with("get-flag", &[("REDIS_URL", &url)])
            .await;
        get.call(&Event::get("checkout")).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (50, source));
        assert!(!get.log().contains("wrong"), "a password in the log");
    }
}

async fn a_warm_instance_answers_without_redis_and_postgresql(on: Topology) {
    let mut stack = Stack::start_on(on).await.with_default_timeouts();
    let get = stack.function("get-flag").await;
    let list = stack.function("list-flags").await;
    let update = stack.function("update-flag").await;
    get.call(&Event::get("checkout")).await;
    list.call(&Event::list()).await;
    stack.redis.kill();
    for mode in [Mode::Refuse, Mode::Hang] {
        stack.database_wire.set(mode.clone()).await;
        for _ in 0..3 {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(percentage(&answer), 50, "{mode:?}");
            assert_eq!(answer.source(), "stale");
            assert_eq!(answer.header("x-cache-hit"), Some("false"));
            let answer = list.call(&Event::list()).await;
            assert_eq!((answer.status, answer.source()), (200, "stale"));
        }
        assert_eq!(get.last_request()["stale_answers"], 1);
        let answer = update.call(&Event::update("checkout", &json!({}))).await;
        assert_unavailable(&answer);
    }
    stack.database_wire.set(Mode::Open).await;
    eventually("the database answers again", async || {
        get.call(&Event::get("checkout")).await.source() == "database"
    })
    .await;
}

async fn flags_that_were_not_compared_with_the_database_after_an_outage_stay_stale(on: Topology) {
    let stack = Stack::start_on(on).await;
    let recent = [("SNAPSHOT_MAX_AGE_MS", "5000")];
    let get = stack.function_with("get-flag", &recent).await;
    get.call(&Event::get("checkout")).await;
    let update = stack.function("update-flag").await;
    set_percentage(&update, "checkout", 7).await;
    let other = stack.function("list-flags").await;
    eventually("Redis has the change", async || {
        other.call(&Event::list()).await;
        stack.redis.has_entry()
    })
    .await;
    // The instance must compare the entry with the database after an outage.
    stack.redis.set(Mode::Refuse).await;
    stack.redis.set(Mode::Open).await;
    stack.database_wire.set(Mode::Refuse).await;
    eventually("the instance has the unconfirmed entry", async || {
        let answer = get.call(&Event::get("checkout")).await;
        (percentage(&answer), answer.source()) == (7, "stale")
    })
    .await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (7, "stale"));
}

async fn a_cold_instance_answers_503_with_retry_after(on: Topology) {
    let mut stack = Stack::start_on(on).await;
    stack.redis.kill();
    stack.database_wire.set(Mode::Refuse).await;
    let get = stack.function("get-flag").await;
    let list = stack.function("list-flags").await;
    assert_unavailable(&get.call(&Event::get("checkout")).await);
    assert_unavailable(&list.call(&Event::list()).await);
    stack.database_wire.set(Mode::Open).await;
    eventually("the database answers", async || {
        get.call(&Event::get("checkout")).await.status == 200
    })
    .await;
}

fn assert_unavailable(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["error"], "Service unavailable");
}

async fn a_database_fault_is_hidden_while_the_cache_is_warm(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    let list = stack.function("list-flags").await;
    get.call(&Event::get("checkout")).await;
    for mode in [Mode::Refuse, Mode::Hang, Mode::CutReply(1)] {
        stack.database_wire.set(mode.clone()).await;
        for _ in 0..3 {
            let answer = get.call(&Event::get("checkout")).await;
            assert_eq!(
                (percentage(&answer), answer.source()),
                (50, "memory"),
                "{mode:?}"
            );
            assert_eq!(list.call(&Event::list()).await.status, 200);
        }
    }
}

async fn a_thawed_instance_whose_connections_are_closed_still_answers(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    for _ in 0..3 {
        get.process().freeze();
        stack.redis.set(Mode::Refuse).await;
        stack.redis.set(Mode::Open).await;
        get.process().thaw();
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), 50);
        assert_eq!(answer.source(), "memory", "the first request missed Redis");
    }
}

async fn a_thawed_instance_whose_connections_are_half_open_still_answers(on: Topology) {
    let stack = Stack::start_on(on).await.with_default_cache_timeouts();
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    get.process().freeze();
    // The other end is gone without closing: packets of the old connections get no reply.
    stack.redis.make_half_open();
    stack.database_wire.make_half_open();
    // Connections that were idle for less than a second are assumed to be alive.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    get.process().thaw();
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "memory"));
    let update = stack.function("update-flag").await;
    set_percentage(&update, "checkout", 51).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (51, "database"));
}

on_every_redis!(
    a_restarted_redis_is_used_again,
    a_frozen_redis_costs_bounded_time_and_recovers,
    only_the_first_requests_of_an_outage_are_slow,
    a_full_redis_serves_its_entries_and_the_database_the_rest,
    a_warm_instance_answers_without_redis_and_postgresql,
    flags_that_were_not_compared_with_the_database_after_an_outage_stay_stale,
    a_cold_instance_answers_503_with_retry_after,
    a_database_fault_is_hidden_while_the_cache_is_warm,
    a_thawed_instance_whose_connections_are_closed_still_answers,
    a_thawed_instance_whose_connections_are_half_open_still_answers,
);

on_readable_redis!(
    redis_faults_on_the_wire_never_become_errors,
    a_short_failure_is_retried_and_hidden_from_callers,
    retries_wait_100_then_200_milliseconds_then_for_what_the_budget_has_left,
    a_budget_without_room_for_a_pause_allows_no_retry,
);

#[tokio::test]
async fn a_key_that_a_stale_snapshot_lacks_is_answered_with_503_because_it_may_be_new() {
    let mut stack = Stack::start().await.with_default_timeouts();
    stack.database.add_key(SYNC_KEY).await;
    let sync = stack.function("sync-flags").await;
    let read = |key: &str| Event::by_route("GET", "/v1/flags", "", &[]).header("x-api-key", key);
    let newer = SYNC_KEY.replace("nothing", "a-door-");
    assert_eq!(sync.call(&read(SYNC_KEY)).await.status, 200);
    assert_eq!(sync.call(&read(&newer)).await.status, 401);
    stack.redis.kill();
    stack.database_wire.set(Mode::Refuse).await;
    let known = sync.call(&read(SYNC_KEY)).await;
    assert_eq!((known.status, known.source()), (200, "stale"));
    assert_unavailable(&sync.call(&read(&newer)).await);
}

#[tokio::test]
async fn a_change_ends_the_pause_in_which_no_read_queries_the_database() {
    let stack = Stack::start().await;
    let local = Local::start(&[
        ("REDIS_URL", &stack.redis.url()),
        ("DATABASE_URL", &stack.database_url()),
    ])
    .await;
    let flag = "/api/config/flags/checkout";
    assert_eq!(percentage(&local.get(flag).await), 50);
    stack.database_wire.set(Mode::Refuse).await;
    stack.redis.command(&["DEL", KEY]);
    eventually("reads are stale", async || {
        local.get(flag).await.source() == "stale"
    })
    .await;
    stack.database_wire.set(Mode::Open).await;
    let changed = local
        .patch("/api/admin/flags/checkout", r#"{"rolloutPercentage": 7}"#)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let read = local.get(flag).await;
    assert_eq!((percentage(&read), read.source()), (7, "database"));
}
