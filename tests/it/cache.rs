//! The contents of Redis, and when they are written.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pennon_tests::event::Event;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{
    Stack, change_until_confirmed, database_loads, percentage, raise_percentage_until_confirmed,
    set_percentage,
};
use pennon_tests::topology::Topology;
use pennon_tests::wire::Mode;
use pennon_tests::{eventually, lambda::Function};
use serde_json::json;

/// The key of the list of environments.
const LIST: &str = "feature_flags:.environments";
const ADD_STAGING: &str = "
    insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
    values ('checkout', true, 20, 'staging')";

fn time_to_live(stack: &Stack) -> i64 {
    let response = stack.redis.command(&["PTTL", KEY]);
    let Resp::Number(milliseconds) = response else {
        panic!("{response:?}");
    };
    milliseconds
}

async fn a_miss_fills_the_hash_of_its_environment_with_a_field_per_flag(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    let first = get.call(&Event::get("checkout")).await;
    assert_eq!(first.header("x-cache-hit"), Some("false"));
    assert_eq!(first.source(), "database");

    let mut fields = stack.redis.fields();
    fields.sort();
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "__env", "__exp", "__fmt", "__idx", "__imac", "__inst", "__mac", "__rev", "__sum",
            "checkout", "export", "search"
        ]
    );
    let revision = stack.database.revision("production").await.to_string();
    assert_eq!(fields[7].1, revision);
    let checkout: serde_json::Value = serde_json::from_str(&fields[9].1).expect("JSON");
    assert_eq!(checkout["enabled"], true);
    assert_eq!(checkout["rolloutPercentage"], 50);

    let ttl = time_to_live(&stack);
    assert!(ttl > 295_000 && ttl <= 300_000, "{ttl}");
    assert_eq!(
        stack.redis.command(&["KEYS", "*"]),
        Resp::List(vec![Resp::Text(KEY.to_owned())]),
        "Redis has other keys than that of the entry"
    );
}

async fn a_hit_sends_no_query_to_the_database(on: Topology) {
    let stack = Stack::start_on(on).await;
    let one = stack.function("get-flag").await;
    assert_eq!(one.call(&Event::get("checkout")).await.source(), "database");
    let again = one.call(&Event::get("search")).await;
    assert_eq!(again.source(), "memory");
    assert_eq!(again.header("x-cache-hit"), Some("true"));
    assert_eq!(database_loads(&one), 1, "the hit queried the database");

    let other = stack.function("list-flags").await;
    let answer = other.call(&Event::list()).await;
    assert_eq!(
        answer.source(),
        "redis",
        "another instance did not read the entry from Redis"
    );
    assert_eq!(answer.header("x-cache-hit"), Some("true"));
    assert_eq!(other.call(&Event::list()).await.source(), "memory");
    assert_eq!(database_loads(&other), 0);
}

async fn a_warm_cache_never_opens_a_database_connection(on: Topology) {
    let stack = Stack::start_on(on).await;
    let filler = stack.function("get-flag").await;
    filler.call(&Event::get("checkout")).await;
    let nowhere = "postgres://u:p@127.0.0.1:1/x?sslmode=disable";
    let reader = stack
        .function_with("get-flag", &[("DATABASE_URL", nowhere)])
        .await;
    for _ in 0..3 {
        assert_eq!(percentage(&reader.call(&Event::get("checkout")).await), 50);
    }
}

async fn a_warm_read_in_an_environment_of_500_flags_costs_one_command(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage)
             select 'flag-' || n, true, n % 101 from generate_series(1, 500) as n",
        )
        .await
        .expect("flags");
    let get = stack.function("get-flag").await;
    get.call(&Event::get("flag-1")).await;
    let (gets, alls, scripts) = (
        stack.redis.calls("hmget"),
        stack.redis.calls("hgetall"),
        stack.redis.calls("eval"),
    );
    for number in 1..=20 {
        let answer = get.call(&Event::get(&format!("flag-{number}"))).await;
        assert_eq!(percentage(&answer), number);
    }
    assert_eq!(stack.redis.calls("hmget"), gets + 20);
    assert_eq!(stack.redis.calls("hgetall"), alls);
    assert_eq!(stack.redis.calls("eval"), scripts);
}

async fn an_environment_without_flags_is_cached_too(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .database
        .sql()
        .batch_execute("delete from feature_flags")
        .await
        .expect("no flags");
    let list = stack.function("list-flags").await;
    assert_eq!(list.call(&Event::list()).await.body, "{}");
    assert!(stack.redis.has_entry());
    let other = stack.function("list-flags").await;
    let answer = other.call(&Event::list()).await;
    assert_eq!((answer.body.as_str(), answer.source()), ("{}", "redis"));
}

async fn unknown_environments_create_no_keys_of_their_own_and_share_queries(on: Topology) {
    let stack = Stack::start_on(on).await;
    let list = stack.function("list-flags").await;
    list.call(&Event::list()).await;
    let before = stack.database_wire.requests();
    for number in 0..200 {
        let event = Event::list().query(&format!("environment=made-up-{number}"));
        assert_eq!(list.call(&event).await.body, "{}");
    }
    let Resp::List(keys) = stack.redis.command(&["KEYS", "*"]) else {
        panic!("KEYS returned no list");
    };
    let known = [KEY, LIST].map(|key| Resp::Text(key.to_owned()));
    assert!(keys.iter().all(|key| known.contains(key)), "{keys:?}");
    assert_eq!(database_loads(&list), 1, "an unknown name loaded flags");
    let requests = stack.database_wire.requests() - before;
    assert!(
        requests < 50,
        "{requests} requests to the database for 200 names"
    );
}

async fn an_unknown_environment_opens_no_database_connection_if_redis_has_the_list(on: Topology) {
    let stack = Stack::start_on(on).await;
    let event = Event::list().query("environment=zz");
    let first = stack.function("list-flags").await;
    let answer = first.call(&event).await;
    assert_eq!(answer.header("x-unknown-environment"), Some("true"));
    let nowhere = "postgres://u:p@127.0.0.1:1/x?sslmode=disable";
    for _ in 0..3 {
        let other = stack
            .function_with("list-flags", &[("DATABASE_URL", nowhere)])
            .await;
        for name in ["zz", "yy"] {
            let event = Event::list().query(&format!("environment={name}"));
            let answer = other.call(&event).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
            assert_eq!(answer.header("x-unknown-environment"), Some("true"));
        }
    }
}

async fn an_environment_with_an_entry_is_served_without_the_list_of_environments(on: Topology) {
    let stack = Stack::start_on(on).await;
    let sql = stack.database.sql();
    sql.batch_execute(ADD_STAGING).await.expect("a flag");
    let staging = Event::get("checkout").query("environment=staging");
    stack.function("get-flag").await.call(&staging).await;
    stack.redis.command(&["DEL", LIST]);
    let before = stack.database_wire.requests();
    for _ in 0..2 {
        let other = stack.function("get-flag").await;
        let answer = other.call(&staging).await;
        assert_eq!((percentage(&answer), answer.source()), (20, "redis"));
    }
    assert_eq!(stack.database_wire.requests(), before, "a query was sent");
    let exists = stack.redis.command(&["EXISTS", LIST]);
    assert_eq!(exists, Resp::Number(0), "a read took a lease of the list");
}

/// Fails if 200 reads without Redis, of environments that the function does not know, read the list of environments more
/// than once a second.
async fn assert_few_lists(
    stack: &Stack,
    get: &Function,
    status: u16,
    environment: fn(u8) -> String,
) {
    let (began, before) = (Instant::now(), stack.database_wire.requests());
    let mut of_one = 0;
    for number in 0..200 {
        let name = environment(number);
        let event = Event::get("checkout").query(&format!("environment={name}"));
        let answer = get.call(&event).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if number == 0 {
            of_one = stack.database_wire.requests() - before;
        }
    }
    let requests = stack.database_wire.requests() - before;
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a test of seconds");
    // The same read may arrive in a few chunks more or less.
    let limit = (seconds + 1) * 2 * of_one;
    assert!(
        requests <= limit,
        "{requests} requests to the database in {seconds} s, of which the first read sent {of_one}"
    );
}

#[tokio::test]
async fn without_redis_unknown_environments_cost_one_query_a_second() {
    let stack = Stack::start().await;
    stack.redis.set(Mode::Refuse).await;
    let get = stack.function("get-flag").await;
    assert_few_lists(&stack, &get, 404, |number| format!("unknown-{number}")).await;
}

#[tokio::test]
async fn a_list_of_environments_that_cannot_be_read_costs_few_queries_and_hides_no_environment() {
    let stack = Stack::start().await;
    let sql = stack.database.sql();
    sql.batch_execute(ADD_STAGING).await.expect("a flag");
    stack.redis.set(Mode::Refuse).await;
    let get = stack.function("get-flag").await;
    let rename = "alter table pennon_environments rename to moved";
    sql.batch_execute(rename).await.expect("no list");
    let names = |number| if number % 2 == 0 { "staging" } else { "zz" }.to_owned();
    assert_few_lists(&stack, &get, 503, names).await;
    let rename = "alter table moved rename to pennon_environments";
    sql.batch_execute(rename).await.expect("the list");
    let staging = Event::get("checkout").query("environment=staging");
    eventually("the list is read again", async || {
        let answer = get.call(&staging).await;
        assert_eq!(answer.header("x-unknown-environment"), None);
        answer.status == 200 && percentage(&answer) == 20
    })
    .await;
}

async fn an_environment_created_by_the_api_is_seen_by_the_next_read_of_every_instance(
    on: Topology,
) {
    let stack = Stack::start_on(on).await;
    let manage = stack.function("manage-environments").await;
    let readers = [
        stack.function("list-flags").await,
        stack.function("list-flags").await,
    ];
    let name = |attempt: i64| format!("brand-new-{attempt}");
    let list = |attempt| Event::list().query(&format!("environment={}", name(attempt)));
    for reader in &readers {
        let answer = reader.call(&list(1)).await;
        assert_eq!(answer.header("x-unknown-environment"), Some("true"));
    }
    let (created, answer) = change_until_confirmed(&manage, |attempt| {
        let body = json!({"environment": name(attempt)}).to_string();
        Event::admin("POST", "/api/admin/environments", &body)
    })
    .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    for reader in &readers {
        let answer = reader.call(&list(created)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        assert_eq!(answer.header("x-unknown-environment"), None);
    }
}

async fn an_environment_created_by_the_api_is_seen_while_another_one_is_being_created(
    on: Topology,
) {
    let stack = Stack::start_on(on).await;
    let manage = stack.function("manage-environments").await;
    let reader = stack.function("list-flags").await;
    let list = |name: &str| Event::list().query(&format!("environment={name}"));
    // The instance has just read the list.
    let answer = reader.call(&list("brand-new-1")).await;
    assert_eq!(answer.header("x-unknown-environment"), Some("true"));
    let (created, _) = change_until_confirmed(&manage, |attempt| {
        let body = json!({"environment": format!("brand-new-{attempt}")}).to_string();
        Event::admin("POST", "/api/admin/environments", &body)
    })
    .await;
    // The barrier of a creation that has not been committed.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let deadline = since.expect("after 1970").as_millis() + 15_000;
    let barrier = ["HSET", LIST, "__b:creator", &deadline.to_string()];
    stack.redis.command(&barrier);
    let answer = reader.call(&list(&format!("brand-new-{created}"))).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    assert_eq!(answer.header("x-unknown-environment"), None);
}

#[tokio::test]
async fn a_forged_list_of_environments_is_rejected() {
    let stack = Stack::start().await;
    let first = stack.function("list-flags").await;
    let unknown = Event::list().query("environment=zz");
    first.call(&unknown).await;
    let fields = |key: &str| {
        let response = stack.redis.command(&["HGETALL", key]);
        let Resp::List(parts) = response else {
            panic!("{response:?}");
        };
        parts
    };
    let whole = fields(LIST);
    for forged in [r#"["production","zz"]"#, "[]", "{}"] {
        stack.redis.command(&["HSET", LIST, "__env", forged]);
        let list = stack.function("list-flags").await;
        let answer = list.call(&unknown).await;
        assert_eq!(answer.header("x-unknown-environment"), Some("true"));
        assert!(
            list.lines()
                .iter()
                .any(|line| line["error.type"] == "forged_entry"),
            "{}",
            list.log()
        );
        assert_eq!(fields(LIST).len(), whole.len(), "not filled again");
        assert!(!fields(LIST).contains(&Resp::Text(forged.to_owned())));
    }
    // The list of environments, stored in place of an environment's entry, is not accepted.
    let copied = stack.redis.command(&["COPY", LIST, KEY]);
    assert_eq!(copied, Resp::Number(1), "production already has an entry");
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list()).await;
    assert_eq!(answer.json()["search"], true);
}

async fn an_environment_created_by_sql_becomes_visible(on: Topology) {
    let stack = Stack::start_on(on).await;
    let list = stack.function("list-flags").await;
    let event = Event::list().query("environment=brand-new");
    assert_eq!(list.call(&event).await.body, "{}");
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
             values ('first', true, 100, 'brand-new')",
        )
        .await
        .expect("a flag");
    eventually("the new environment is listed", async || {
        list.call(&event).await.json() == json!({"first": true})
    })
    .await;
}

async fn an_entry_expires_and_is_filled_again(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack
        .function_with("get-flag", &[("CACHE_TTL_SECONDS", "1")])
        .await;
    get.call(&Event::get("checkout")).await;
    assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
    eventually("the entry expires", async || !stack.redis.has_entry()).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(answer.header("x-cache-hit"), Some("false"));
    let line = get.last_request();
    assert_eq!(
        (&line["cache_miss"], &line["cache_expired"]),
        (&json!(1), &json!(1))
    );
    assert!(stack.redis.has_entry(), "the entry was not filled again");
}

async fn a_lease_and_an_entry_have_a_ttl(on: Topology) {
    let stack = Stack::start_on(on).await;
    // An instance that ends between its lease and its fill leaves the lease, which expires.
    stack.database_wire.set(Mode::Hang).await;
    let mut killed = stack.function("get-flag").await;
    {
        let event = Event::get("checkout");
        let invocation = killed.invoke(event.value());
        tokio::select! {
            _ = invocation => panic!("a response although the database hangs"),
            () = eventually("the lease exists", async || {
                stack.redis.command(&["EXISTS", KEY]) == Resp::Number(1)
            }) => {}
        }
    }
    let ttl = time_to_live(&stack);
    assert!(ttl > 0 && ttl <= 5_000, "{ttl}");
    killed.kill();
    stack.database_wire.set(Mode::Open).await;
    let other = stack.function("get-flag").await;
    assert_eq!(percentage(&other.call(&Event::get("checkout")).await), 50);
    eventually("another instance fills the entry", async || {
        other.call(&Event::get("checkout")).await;
        stack.redis.has_entry()
    })
    .await;
    assert!(time_to_live(&stack) > 295_000);
}

async fn a_redis_string_of_the_existing_service_is_a_miss_and_is_replaced(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .redis
        .command(&["SET", KEY, r#"{"checkout":{"enabled":false}}"#]);
    let get = stack.function("get-flag").await;
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!(percentage(&answer), 50);
    assert_eq!(answer.json()["enabled"], true);
    assert_eq!(
        stack.redis.command(&["TYPE", KEY]),
        Resp::Text("hash".to_owned())
    );
    // Again, with a snapshot in memory.
    stack.redis.command(&["SET", KEY, "{}"]);
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert!(stack.redis.has_entry());
}

async fn a_hash_of_another_program_is_a_miss(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .redis
        .command(&["HSET", KEY, "checkout", r#"{"rolloutPercentage":99}"#]);
    let get = stack.function("get-flag").await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert!(stack.redis.has_entry());
}

async fn a_corrupt_entry_is_dropped_and_the_database_answers(on: Topology) {
    let stack = Stack::start_on(on).await;
    for (field, damage) in [("checkout", "{\"ena"), ("__rev", "abc"), ("search", "")] {
        let get = stack.function("get-flag").await;
        get.call(&Event::get("checkout")).await;
        stack.redis.command(&["HSET", KEY, field, damage]);
        let fresh = stack.function("get-flag").await;
        assert_eq!(percentage(&fresh.call(&Event::get("checkout")).await), 50);
        assert_eq!(percentage(&fresh.call(&Event::get("checkout")).await), 50);
        let other = stack.function("get-flag").await;
        assert_eq!(
            other.call(&Event::get("checkout")).await.source(),
            "redis",
            "{field}"
        );
    }
}

async fn an_update_is_seen_by_the_next_read_of_every_instance(on: Topology) {
    let stack = Stack::start_on(on).await;
    let update = stack.function("update-flag").await;
    let readers = [
        stack.function("get-flag").await,
        stack.function("get-flag").await,
    ];
    let mut percent = 0;
    for _ in 0..20 {
        percent = raise_percentage_until_confirmed(&update, "checkout", percent + 1).await;
        assert!(!stack.redis.has_entry(), "the update left the entry");
        assert_eq!(update.last_request()["cache_invalidated"], 1);
        for reader in &readers {
            assert_eq!(
                percentage(&reader.call(&Event::get("checkout")).await),
                percent
            );
        }
    }
    let unconfirmed = percent - 20;
    assert!(unconfirmed <= 10, "{unconfirmed} updates, {}", update.log());
}

async fn after_a_change_a_reader_fetches_only_the_flag_that_has_changed(on: Topology) {
    let stack = Stack::start_on(on).await;
    let update = stack.function("update-flag").await;
    let (first, second) = (
        stack.function("get-flag").await,
        stack.function("get-flag").await,
    );
    for reader in [&first, &second] {
        reader.call(&Event::get("checkout")).await;
    }
    for percent in 1..=5 {
        set_percentage(&update, "checkout", percent).await;
        first.call(&Event::get("checkout")).await;
        let before = (stack.redis.calls("eval"), stack.redis.calls("hmget"));
        let answer = second.call(&Event::get("checkout")).await;
        assert_eq!(percentage(&answer), percent);
        assert_eq!(answer.source(), "redis");
        let after = (stack.redis.calls("eval"), stack.redis.calls("hmget"));
        // The header, the digests, and the flag.
        assert_eq!(after, (before.0, before.1 + 3));
    }
    let answer = second.call(&Event::get("search")).await;
    assert_eq!(
        percentage(&answer),
        100,
        "an unchanged flag has a wrong value"
    );
}

async fn a_failed_update_deletes_nothing(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    let before = stack.redis.fields();
    let update = stack.function("update-flag").await;
    for event in [
        Event::update("checkout", &json!({"rolloutPercentage": 101})),
        Event::update("no-such-flag", &json!({})),
        Event::update("checkout", &json!({})).anonymous(),
    ] {
        assert_ne!(update.call(&event).await.status, 200);
        assert_eq!(stack.redis.fields(), before);
    }
    stack.database_wire.set(Mode::Refuse).await;
    let answer = update.call(&Event::update("checkout", &json!({}))).await;
    assert_eq!(answer.status, 503);
    assert_eq!(stack.redis.fields(), before);
}

async fn a_read_after_an_operators_del_sees_a_change_made_by_sql(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    get.call(&Event::get("checkout")).await;
    stack
        .database
        .sql()
        .batch_execute(
            "update feature_flags set rollout_percentage = 7 where flag_key = 'checkout'",
        )
        .await
        .expect("a change by SQL");
    stack.redis.command(&["DEL", KEY]);
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 7);
}

#[tokio::test]
async fn without_redis_every_read_is_compared_with_the_database() {
    let stack = Stack::start().await;
    let database = stack.database.url();
    let environment = [("DATABASE_URL", database.as_str())];
    let get = Function::start("get-flag", &environment).await;
    let update = Function::start("update-flag", &environment).await;
    assert_eq!(get.call(&Event::get("checkout")).await.source(), "database");
    let again = get.call(&Event::get("checkout")).await;
    assert_eq!(
        (again.source(), again.header("x-cache-hit")),
        ("memory", Some("true"))
    );
    let answer = set_percentage(&update, "checkout", 8).await;
    assert_eq!(answer.header("x-cache-invalidated"), None);
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 8);
}

async fn a_read_within_the_maximum_age_uses_memory_without_asking_redis(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack
        .function_with("get-flag", &[("SNAPSHOT_MAX_AGE_MS", "3600000")])
        .await;
    get.call(&Event::get("checkout")).await;
    let update = stack.function("update-flag").await;
    set_percentage(&update, "checkout", 9).await;
    let calls = stack.redis.calls("hmget");
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert_eq!(stack.redis.calls("hmget"), calls, "a read asked Redis");
}

async fn a_large_payload_is_stored_with_a_warning(on: Topology) {
    let stack = Stack::start_on(on).await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flags (flag_key, enabled, rollout_percentage, description)
             select 'flag-' || n, true, 100, repeat('x', 500) from generate_series(1, 10000) as n",
        )
        .await
        .expect("flags");
    // Encoding and the transfer take less than the budget, unless the machine is busy.
    eventually("an instance fills the entry in time", async || {
        let list = stack.function("list-flags").await;
        let answer = list.call(&Event::list()).await;
        assert_eq!(
            answer.json().as_object().map(serde_json::Map::len),
            Some(10_003)
        );
        assert!(list.has_logged("Large cache payload"));
        stack.redis.has_entry()
    })
    .await;
    assert_eq!(stack.redis.command(&["HLEN", KEY]), Resp::Number(10_012));
    // The transfer takes less than the budget of half a second, unless the machine is busy.
    eventually("an instance reads the entry in time", async || {
        let other = stack.function("get-flag").await;
        let answer = other.call(&Event::get("flag-9999")).await;
        assert_eq!(answer.status, 200);
        let line = other.last_request();
        let found = answer.source() == "redis";
        assert!(found || line["cache_unavailable"] == 1, "{line}");
        found
    })
    .await;
}

/// The size of production's entry in bytes.
fn entry_size(stack: &Stack) -> i32 {
    let fields = stack.redis.fields();
    let size: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    i32::try_from(size).expect("a size")
}

async fn only_an_entry_of_more_than_one_megabyte_logs_large_cache_payload(on: Topology) {
    let stack = Stack::start_on(on).await;
    let sql = stack.database.sql();
    sql.batch_execute(
        "insert into feature_flags (flag_key, enabled, rollout_percentage, description)
         select 'flag-' || n, true, 100, repeat('x', 1000) from generate_series(1, 800) as n",
    )
    .await
    .expect("flags");
    // A cold instance fills the entry again.
    let fill = async || {
        stack.redis.command(&["DEL", KEY]);
        let list = stack.function("list-flags").await;
        assert_eq!(list.call(&Event::list()).await.source(), "database");
        list
    };
    let list = fill().await;
    let room = 1_000_000 - entry_size(&stack);
    assert!(room > 0, "{room}");
    assert!(!list.has_logged("Large cache payload"), "{}", list.log());
    let lengthen = "update feature_flags set description = description || repeat('x', $1)
                    where flag_key = 'flag-1'";
    sql.execute(lengthen, &[&room]).await.expect("an update");
    let list = fill().await;
    assert_eq!(entry_size(&stack), 1_000_000);
    assert!(!list.has_logged("Large cache payload"), "{}", list.log());
    sql.execute(lengthen, &[&1_i32]).await.expect("an update");
    let list = fill().await;
    assert_eq!(entry_size(&stack), 1_000_001);
    assert!(list.has_logged("Large cache payload"), "{}", list.log());
    let lines = list.lines();
    let line = lines
        .iter()
        .find(|line| line["message"] == "Large cache payload")
        .expect("a line");
    assert_eq!(line["bytes"], 1_000_001, "{line}");
}

async fn an_incomplete_entry_is_replaced(on: Topology) {
    let stack = Stack::start_on(on).await;
    let revision = stack.database.revision("production").await.to_string();
    let flag = r#"{"enabled":true,"rolloutPercentage":1,"description":null}"#;
    // The current revision and a flag, without installation, settings and MAC.
    for (field, value) in [("__rev", revision.as_str()), ("theme", flag)] {
        stack.redis.command(&["HSET", KEY, field, value]);
    }
    stack.redis.command(&["EXPIRE", KEY, "300"]);
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list()).await;
    assert_eq!(answer.source(), "database");
    assert_eq!(
        answer.json(),
        json!({"checkout": true, "export": false, "search": true})
    );
    let names: Vec<String> = stack
        .redis
        .fields()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"__env".to_owned()), "{names:?}");
    assert!(!names.contains(&"theme".to_owned()), "{names:?}");
    let other = stack.function("list-flags").await;
    assert_eq!(other.call(&Event::list()).await.source(), "redis");
}

on_every_redis!(
    a_miss_fills_the_hash_of_its_environment_with_a_field_per_flag,
    a_hit_sends_no_query_to_the_database,
    a_warm_cache_never_opens_a_database_connection,
    a_warm_read_in_an_environment_of_500_flags_costs_one_command,
    an_environment_without_flags_is_cached_too,
    unknown_environments_create_no_keys_of_their_own_and_share_queries,
    an_unknown_environment_opens_no_database_connection_if_redis_has_the_list,
    an_environment_with_an_entry_is_served_without_the_list_of_environments,
    an_environment_created_by_the_api_is_seen_by_the_next_read_of_every_instance,
    an_environment_created_by_the_api_is_seen_while_another_one_is_being_created,
    an_environment_created_by_sql_becomes_visible,
    an_entry_expires_and_is_filled_again,
    a_lease_and_an_entry_have_a_ttl,
    a_redis_string_of_the_existing_service_is_a_miss_and_is_replaced,
    a_hash_of_another_program_is_a_miss,
    a_corrupt_entry_is_dropped_and_the_database_answers,
    an_update_is_seen_by_the_next_read_of_every_instance,
    after_a_change_a_reader_fetches_only_the_flag_that_has_changed,
    a_failed_update_deletes_nothing,
    a_read_after_an_operators_del_sees_a_change_made_by_sql,
    a_read_within_the_maximum_age_uses_memory_without_asking_redis,
    a_large_payload_is_stored_with_a_warning,
    only_an_entry_of_more_than_one_megabyte_logs_large_cache_payload,
    an_incomplete_entry_is_replaced,
);
