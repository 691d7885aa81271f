//! Redis is not trusted: someone who can write to it can change no response for longer than the TTL of an entry.

use std::time::Duration;

use pennon_tests::event::{EXAMPLE_KEY, Event, SYNC_KEY};
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{Stack, database_loads, percentage, set_percentage};
use pennon_tests::topology::Topology;
use serde_json::{Value, json};

type Fields = Vec<(String, String)>;

/// Overwrites fields of an entry, as an attacker would.
fn forge(stack: &Stack, fields: &[(&str, &str)]) {
    for (field, value) in fields {
        stack.redis.command(&["HSET", KEY, field, value]);
    }
}

/// Writes a recorded entry, without a TTL.
fn replay(stack: &Stack, key: &str, fields: &Fields) {
    stack.redis.command(&["DEL", key]);
    let mut words = vec!["HSET", key];
    words.extend(
        fields
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
    );
    stack.redis.command(&words);
}

/// The JSON of the flag `checkout` with another percentage.
fn forged_flag(stack: &Stack) -> String {
    let fields = stack.redis.fields();
    let (_, flag) = fields
        .iter()
        .find(|(name, _)| name == "checkout")
        .expect("the flag");
    let mut flag: Value = serde_json::from_str(flag).expect("JSON");
    flag["rolloutPercentage"] = json!(99);
    flag.to_string()
}

async fn checkout(function: &Function) -> i64 {
    percentage(&function.call(&Event::get("checkout")).await)
}

/// Starts an instance and reads with it, which fills the cache or reads the entry.
async fn start_and_read(stack: &Stack) -> Function {
    let get = stack.function("get-flag").await;
    checkout(&get).await;
    get
}

/// Whether a function has reported a forged entry, in a log line and in the metric of the alarm, which never has a
/// unit.
fn has_reported(function: &Function) -> bool {
    let lines = function.lines();
    let logged = lines
        .iter()
        .filter(|line| line["error.type"] == "forged_entry" && line["level"] == "ERROR");
    let counted = lines.iter().filter(|line| {
        let directives = line["_aws"]["CloudWatchMetrics"].as_array();
        directives.into_iter().flatten().any(|directive| {
            directive["Dimensions"] == json!([["Installation"]])
                && directive["Metrics"] == json!([{ "Name": "forged_entries" }])
                && line["Installation"].is_string()
        })
    });
    let counted: u64 = counted
        .map(|line| line["forged_entries"].as_u64().expect("a number"))
        .sum();
    assert_eq!(logged.count() as u64, counted, "{}", function.log());
    counted > 0
}

async fn a_forged_entry_is_a_miss_that_is_reported_and_repaired(on: Topology) {
    let stack = Stack::start_on(on).await;
    let warm = start_and_read(&stack).await;
    let forged = forged_flag(&stack);
    forge(&stack, &[("checkout", &forged)]);
    let fresh = stack.function("get-flag").await;
    let answer = fresh.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    assert!(has_reported(&fresh), "{}", fresh.log());
    assert!(
        !stack
            .redis
            .fields()
            .contains(&("checkout".to_owned(), forged))
    );
    // The request that found the forged entry has replaced it.
    let next = stack.function("get-flag").await;
    let answer = next.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
    assert_eq!(database_loads(&next), 0);
    assert!(!has_reported(&next));
    assert_eq!(checkout(&warm).await, 50);
}

async fn a_forged_entry_does_not_survive_a_flush_or_a_reconciliation(on: Topology) {
    let stack = Stack::start_on(on).await;
    start_and_read(&stack).await;
    let forged = forged_flag(&stack);
    forge(&stack, &[("checkout", &forged)]);
    let reader = stack.function("get-flag").await;
    checkout(&reader).await;
    forge(&stack, &[("checkout", &forged)]);
    let reconcile = stack.function("reconcile").await;
    reconcile.invoke(&json!({})).await.expect("reconciles");
    assert!(
        !stack
            .redis
            .fields()
            .contains(&("checkout".to_owned(), forged))
    );
    stack.redis.command(&["FLUSHALL"]);
    for function in [&reader, &stack.function("get-flag").await] {
        assert_eq!(checkout(function).await, 50);
    }
}

async fn reconciling_compares_what_an_entry_holds(on: Topology) {
    let stack = Stack::start_on(on).await;
    let reconcile = stack.function("reconcile").await;
    let run = async || reconcile.invoke(&json!({})).await.expect("reconciles");
    run().await;
    assert_eq!(run().await["repaired"], 0);
    let forged = forged_flag(&stack);
    forge(&stack, &[("checkout", &forged)]);
    let done = run().await;
    assert_eq!((&done["repaired"], &done["warmed"]), (&json!(1), &json!(1)));
    assert!(has_reported(&reconcile), "{}", reconcile.log());
    assert_eq!(run().await["repaired"], 0);
    assert_eq!(checkout(&stack.function("get-flag").await).await, 50);
}

#[tokio::test]
async fn every_function_that_reads_the_cache_counts_forged_entries_for_the_alarm() {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    let warm = stack.function("get-flag").await;
    for (name, event) in [
        ("get-flag", Event::get("checkout")),
        ("list-flags", Event::list()),
        ("evaluate-flag", Event::load("evaluate-flag")),
        ("evaluate-flags", Event::load("evaluate-flags")),
        ("health", Event::load("health")),
        ("sync-flags", Event::load("sync-flags")),
        ("manage-flags", Event::load("manage-flags-explain")),
        ("report-usage", Event::load("report-usage")),
        ("reconcile", Event::load("reconcile")),
    ] {
        stack.redis.command(&["DEL", KEY]);
        assert_eq!(checkout(&warm).await, 50);
        let finder = stack.function(name).await;
        forge(&stack, &[("checkout", &forged_flag(&stack))]);
        let answer = finder.invoke(event.value()).await;
        assert!(answer.is_ok(), "{name}: {answer:?}");
        assert!(has_reported(&finder), "{name}: {}", finder.log());
    }
}

#[tokio::test]
async fn the_log_says_whether_a_forged_entry_was_removed() {
    let stack = Stack::start().await;
    start_and_read(&stack).await;
    forge(&stack, &[("checkout", &forged_flag(&stack))]);
    for (right, removed) in [("-pexpire", false), ("+pexpire", true)] {
        stack.redis.command(&["ACL", "SETUSER", "default", right]);
        let get = start_and_read(&stack).await;
        let lines = get.lines();
        let reported = lines
            .iter()
            .filter(|line| line["error.type"] == "forged_entry");
        let said: Vec<&Value> = reported.map(|line| &line["removed"]).collect();
        assert!(!said.is_empty(), "{right}: {}", get.log());
        assert!(said.iter().all(|it| **it == removed), "{right}: {said:?}");
    }
    assert!(!has_reported(&start_and_read(&stack).await));
}

async fn a_forged_api_key_is_rejected(on: Topology) {
    let stack = Stack::start_on(on).await;
    start_and_read(&stack).await;
    let key = "pennon_server_production_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let hash = stack
        .database
        .sql()
        .query_one(
            "select encode(sha256(convert_to($1, 'utf8')), 'hex')",
            &[&key],
        )
        .await
        .expect("a hash");
    let hash: String = hash.get(0);
    let fields = stack.redis.fields();
    let (_, common) = fields
        .iter()
        .find(|(name, _)| name == "__env")
        .expect("common fields");
    let mut common: Value = serde_json::from_str(common).expect("JSON");
    common["keys"][hash] = json!({"id": "forged", "kind": "server"});
    forge(&stack, &[("__env", &common.to_string())]);
    let evaluate = stack.function("evaluate-flag").await;
    let event = Event::evaluate("search", &json!({"targetingKey": "alice"})).api_key(key);
    for _ in 0..3 {
        assert_eq!(evaluate.call(&event).await.status, 401);
    }
    assert!(has_reported(&evaluate));
}

async fn no_field_of_an_entry_can_be_changed_or_removed_or_added(on: Topology) {
    let stack = Stack::start_on(on).await;
    start_and_read(&stack).await;
    let entry = stack.redis.fields();
    let mut forgeries: Vec<(String, Fields)> = Vec::new();
    for (at, (name, _)) in entry.iter().enumerate() {
        // An entry of another installation is left in place, if its TTL is as Pennon sets it.
        if name == "__inst" {
            continue;
        }
        let mut changed = entry.clone();
        // Change the last character.
        let value = &mut changed[at].1;
        let last = value.pop().expect("a value");
        value.push(if last == '0' { '1' } else { '0' });
        forgeries.push((format!("{name} changed"), changed));
        let mut removed = entry.clone();
        removed.remove(at);
        forgeries.push((format!("{name} removed"), removed));
    }
    let added = ("export2".to_owned(), r#"{"enabled":true}"#.to_owned());
    forgeries.push(("added".to_owned(), [entry.clone(), vec![added]].concat()));
    for (what, fields) in forgeries {
        let warm = start_and_read(&stack).await;
        replay(&stack, KEY, &fields);
        let fresh = stack.function("get-flag").await;
        let answer = fresh.call(&Event::get("checkout")).await;
        assert_eq!(
            (percentage(&answer), answer.source()),
            (50, "database"),
            "{what}"
        );
        let other = fresh.call(&Event::get("export2")).await;
        assert_eq!(other.status, 404, "{what}");
        assert_eq!(checkout(&warm).await, 50, "{what}");
        let Resp::Number(ttl) = stack.redis.command(&["PTTL", KEY]) else {
            panic!("a number");
        };
        assert!(ttl > 0, "{what}: the TTL is {ttl}");
    }
}

async fn fields_of_two_entries_do_not_combine_into_a_valid_entry(on: Topology) {
    let stack = Stack::start_on(on).await;
    let reader = start_and_read(&stack).await;
    let old = stack.redis.fields();
    let update = stack.function("update-flag").await;
    set_percentage(&update, "checkout", 7).await;
    assert_eq!(checkout(&reader).await, 7);
    let new = stack.redis.fields();
    for (name, value) in &old {
        if new.contains(&(name.clone(), value.clone())) {
            continue;
        }
        replay(&stack, KEY, &new);
        forge(&stack, &[(name, value)]);
        let fresh = stack.function("get-flag").await;
        let answer = fresh.call(&Event::get("checkout")).await;
        assert_eq!(
            (percentage(&answer), answer.source()),
            (7, "database"),
            "{name}"
        );
        assert_eq!(checkout(&reader).await, 7, "{name}");
    }
}

async fn an_absurd_revision_does_not_win_over_the_database(on: Topology) {
    let stack = Stack::start_on(on).await;
    let update = stack.function("update-flag").await;
    let warm = start_and_read(&stack).await;
    for revision in [
        "9007199254740992",
        "9223372036854775807",
        "-1",
        "0",
        "1e300",
    ] {
        let fresh = stack.function("get-flag").await;
        forge(&stack, &[("__rev", revision)]);
        for function in [&warm, &fresh] {
            assert_eq!(checkout(function).await, 50, "{revision}");
        }
        let old = stack.redis.fields();
        for percent in [8, 50] {
            let answer = set_percentage(&update, "checkout", percent).await;
            assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
            for function in [&warm, &fresh] {
                assert_eq!(checkout(function).await, percent, "{revision}");
                let again = function.call(&Event::get("checkout")).await;
                assert_eq!(again.source(), "memory", "{revision}");
            }
            // The state before the change, with the forged revision.
            let unaware = stack.function("get-flag").await;
            for function in [&warm, &fresh, &unaware] {
                replay(&stack, KEY, &old);
                forge(&stack, &[("__rev", revision)]);
                assert_eq!(checkout(function).await, percent, "{revision}");
            }
        }
    }
}

async fn a_replayed_entry_ends_at_its_expiry(on: Topology) {
    let stack = Stack::start_on(on).await;
    let short = [("CACHE_TTL_SECONDS", "3")];
    let warm = stack.function_with("get-flag", &short).await;
    assert_eq!(checkout(&warm).await, 50);
    let old = stack.redis.fields();
    let update = stack.function_with("update-flag", &short).await;
    set_percentage(&update, "checkout", 7).await;
    assert_eq!(checkout(&warm).await, 7);
    replay(&stack, KEY, &old);
    // An instance rejects an older revision, and removes the entry.
    assert_eq!(checkout(&warm).await, 7);
    let fresh = stack.function_with("get-flag", &short).await;
    eventually("the old entry ends", async || {
        // Restored after each removal, and without a TTL.
        replay(&stack, KEY, &old);
        tokio::time::sleep(Duration::from_millis(50)).await;
        checkout(&fresh).await == 7
    })
    .await;
    for _ in 0..5 {
        replay(&stack, KEY, &old);
        assert_eq!(checkout(&fresh).await, 7);
        assert_eq!(checkout(&warm).await, 7);
        let unaware = stack.function_with("get-flag", &short).await;
        assert_eq!(checkout(&unaware).await, 7);
    }
}

async fn an_entry_that_is_replayed_repeatedly_is_trusted_no_longer_than_its_ttl(on: Topology) {
    let stack = Stack::start_on(on).await;
    let short = [("CACHE_TTL_SECONDS", "3")];
    let get = stack.function_with("get-flag", &short).await;
    assert_eq!(checkout(&get).await, 50);
    let old = stack.redis.fields();
    let update = stack.function_with("update-flag", &short).await;
    set_percentage(&update, "checkout", 7).await;
    eventually("the replayed entry is no longer trusted", async || {
        replay(&stack, KEY, &old);
        tokio::time::sleep(Duration::from_millis(50)).await;
        checkout(&get).await == 7
    })
    .await;
    // Without the flags, the settings and the keys, which a warm instance does not read.
    set_percentage(&update, "checkout", 8).await;
    let header = old
        .into_iter()
        .filter(|(name, _)| name.starts_with("__") && name != "__env")
        .collect();
    eventually("the replayed header is no longer trusted", async || {
        replay(&stack, KEY, &header);
        tokio::time::sleep(Duration::from_millis(50)).await;
        checkout(&get).await == 8
    })
    .await;
}

async fn an_entry_older_than_five_minutes_is_compared_with_the_database_once(on: Topology) {
    let stack = Stack::start_on(on).await;
    let short = stack
        .function_with("get-flag", &[("CACHE_TTL_SECONDS", "60")])
        .await;
    assert_eq!(checkout(&short).await, 50);
    // By its TTL, this instance takes the entry for nearly an hour old.
    let long = stack
        .function_with("get-flag", &[("CACHE_TTL_SECONDS", "3600")])
        .await;
    for _ in 0..3 {
        assert_eq!(checkout(&long).await, 50);
        assert_eq!(database_loads(&long), 1);
    }
}

async fn an_entry_with_a_longer_ttl_than_that_of_the_instance_is_compared_with_the_database_once(
    on: Topology,
) {
    let stack = Stack::start_on(on).await;
    for (ttl, loads) in [("3600", 1), ("60", 1), ("3600", 0)] {
        let get = stack
            .function_with("get-flag", &[("CACHE_TTL_SECONDS", ttl)])
            .await;
        for _ in 0..3 {
            assert_eq!(checkout(&get).await, 50);
            assert_eq!(database_loads(&get), loads, "{ttl}");
        }
    }
}

#[tokio::test]
async fn a_forged_flag_is_not_fetched_as_a_change() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    for (percent, field) in [
        (10, "checkout"),
        (11, "__idx"),
        (12, "__imac"),
        (13, "__env"),
    ] {
        // Both hold the flags before the change, and the first one fills the entry after it.
        let (first, second) = (start_and_read(&stack).await, start_and_read(&stack).await);
        set_percentage(&update, "checkout", percent).await;
        assert_eq!(checkout(&first).await, percent);
        let forged = match field {
            "checkout" => forged_flag(&stack),
            _ => "{}".to_owned(),
        };
        forge(&stack, &[(field, &forged)]);
        assert_eq!(checkout(&second).await, percent, "{field}");
        assert!(has_reported(&second), "{field}");
        let next = start_and_read(&stack).await;
        assert_eq!(checkout(&next).await, percent, "{field}: not repaired");
    }
}

#[tokio::test]
async fn an_entry_of_another_environment_or_installation_is_rejected() {
    let stack = Stack::start().await;
    let sql = stack.database.sql();
    sql.batch_execute(
        "insert into feature_flags (flag_key, enabled, rollout_percentage, environment)
         values ('checkout', true, 20, 'staging')",
    )
    .await
    .expect("a flag");
    let staging = Event::get("checkout").query("environment=staging");
    let key = "feature_flags:staging";
    let get = start_and_read(&stack).await;
    assert_eq!(percentage(&get.call(&staging).await), 20);
    let production = stack.redis.fields();
    // With its own revision, and with that of staging.
    let Resp::Text(revision) = stack.redis.command(&["HGET", key, "__rev"]) else {
        panic!("a revision");
    };
    for forged in [None, Some(revision.as_str())] {
        replay(&stack, key, &production);
        if let Some(revision) = forged {
            stack.redis.command(&["HSET", key, "__rev", revision]);
        }
        let fresh = stack.function("get-flag").await;
        assert_eq!(percentage(&fresh.call(&staging).await), 20);
        assert_eq!(percentage(&get.call(&staging).await), 20);
    }

    let ours = production
        .iter()
        .find(|(name, _)| name == "__inst")
        .expect("an installation");
    stack.redis.command(&["DEL", KEY]);
    let other = pennon_tests::postgres::Database::create().await;
    other.add_flag("checkout", true, 3).await;
    let url = other.url();
    let theirs = [("INSTALLATION_ID", "theirs"), ("DATABASE_URL", &url)];
    let get = stack.function_with("get-flag", &theirs).await;
    assert_eq!(checkout(&get).await, 3);
    forge(&stack, &[("__inst", &ours.1)]);
    assert_eq!(checkout(&stack.function("get-flag").await).await, 50);
}

async fn an_entry_of_another_installation_is_kept_only_with_a_ttl_that_pennon_sets(on: Topology) {
    const LIST: &str = "feature_flags:.environments";
    let stack = Stack::start_on(on).await;
    start_and_read(&stack).await;
    let unknown = Event::list().query("environment=zz");
    stack.function("list-flags").await.call(&unknown).await;
    let day = 24 * 60 * 60 * 1_000;
    let forge = |key: &str, ttl: u64| {
        stack.redis.command(&["HSET", key, "__inst", "theirs"]);
        let ttl = ttl.to_string();
        let set = stack.redis.command(&["PEXPIRE", key, &ttl]);
        assert_eq!(set, Resp::Number(1), "{key} does not exist");
    };
    forge(KEY, day);
    let get = stack.function("get-flag").await;
    assert_eq!(checkout(&get).await, 50);
    assert!(!has_reported(&get));
    forge(KEY, day + 60_000);
    assert_eq!(checkout(&get).await, 50);
    assert!(has_reported(&get));
    let answer = stack
        .function("get-flag")
        .await
        .call(&Event::get("checkout"))
        .await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));

    forge(LIST, 70_000);
    let list = stack.function("list-flags").await;
    list.call(&unknown).await;
    assert!(has_reported(&list));
}

async fn an_entry_that_is_not_signed_is_a_miss(on: Topology) {
    let stack = Stack::start_on(on).await;
    let warm = start_and_read(&stack).await;
    // As a version without signatures fills it.
    let mut fields = stack.redis.fields();
    let known = ["__rev", "__inst", "__env"];
    fields.retain(|(name, _)| !name.starts_with("__") || known.contains(&name.as_str()));
    let forged = forged_flag(&stack);
    replay(&stack, KEY, &fields);
    forge(&stack, &[("checkout", &forged)]);
    let fresh = stack.function("get-flag").await;
    let answer = fresh.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    assert_eq!(checkout(&warm).await, 50);
    let next = stack.function("get-flag").await;
    let answer = next.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
}

async fn a_forged_barrier_or_lease_does_not_keep_the_cache_empty(on: Topology) {
    let stack = Stack::start_on(on).await;
    let late = "99999999999999";
    let mut many = vec!["HSET".to_owned(), KEY.to_owned()];
    for number in 0..100 {
        many.extend([format!("__l:{number}"), late.to_owned()]);
    }
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for command in [
        &["HSET", KEY, "__b:somebody", late][..],
        &["HSET", KEY, "__grace", "99999999999999 somebody"],
        &many,
    ] {
        stack.redis.command(&["DEL", KEY]);
        stack.redis.command(command);
        let first = stack.function("get-flag").await;
        assert_eq!(checkout(&first).await, 50);
        let second = stack.function("get-flag").await;
        let answer = second.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
        let Resp::Number(ttl) = stack.redis.command(&["PTTL", KEY]) else {
            panic!("a number");
        };
        assert!(ttl > 0, "the TTL is {ttl}");
    }
}

async fn without_a_mac_key_redis_is_neither_read_nor_filled_but_still_invalidated(on: Topology) {
    let stack = Stack::start_on(on).await;
    for key in ["", "too-short"] {
        let environment = [("CACHE_MAC_KEY", key)];
        let get = stack.function_with("get-flag", &environment).await;
        let update = stack.function_with("update-flag", &environment).await;
        let other = stack.function("get-flag").await;
        for percent in [20, 30] {
            let answer = set_percentage(&update, "checkout", percent).await;
            assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
            assert_eq!(checkout(&get).await, percent);
            assert!(!stack.redis.has_entry());
            assert_eq!(checkout(&other).await, percent, "the change is not seen");
        }
        let reports = get.lines();
        let reports = reports
            .iter()
            .filter(|line| line["error.type"] == "no_cache_mac_key");
        assert_eq!(reports.count(), 1, "{}", get.log());
        assert!(!get.log().contains("too-short"));
        let health = stack.function_with("health", &environment).await;
        let answer = health.call(&Event::load("health")).await;
        assert_eq!(answer.json()["services"]["cache"], "unhealthy");
    }
}

async fn instances_with_different_mac_keys_never_serve_each_others_entries(on: Topology) {
    let stack = Stack::start_on(on).await;
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    let both = format!("{old} {new}");
    let start = async |key: &str| {
        stack
            .function_with("get-flag", &[("CACHE_MAC_KEY", key)])
            .await
    };
    let first = start(&old).await;
    assert_eq!(checkout(&first).await, 50);
    // An instance with both keys accepts entries by either.
    let answer = start(&both).await.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
    let other = start(&new).await;
    let answer = other.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    let answer = start(&both).await.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
    let answer = first.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    for function in [&first, &other] {
        assert!(!function.log().contains(&old) && !function.log().contains(&new));
    }
}

on_every_redis!(
    a_forged_entry_is_a_miss_that_is_reported_and_repaired,
    a_forged_entry_does_not_survive_a_flush_or_a_reconciliation,
    reconciling_compares_what_an_entry_holds,
    a_forged_api_key_is_rejected,
    no_field_of_an_entry_can_be_changed_or_removed_or_added,
    fields_of_two_entries_do_not_combine_into_a_valid_entry,
    an_absurd_revision_does_not_win_over_the_database,
    a_replayed_entry_ends_at_its_expiry,
    an_entry_that_is_replayed_repeatedly_is_trusted_no_longer_than_its_ttl,
    an_entry_older_than_five_minutes_is_compared_with_the_database_once,
    an_entry_with_a_longer_ttl_than_that_of_the_instance_is_compared_with_the_database_once,
    an_entry_of_another_installation_is_kept_only_with_a_ttl_that_pennon_sets,
    an_entry_that_is_not_signed_is_a_miss,
    a_forged_barrier_or_lease_does_not_keep_the_cache_empty,
    without_a_mac_key_redis_is_neither_read_nor_filled_but_still_invalidated,
    instances_with_different_mac_keys_never_serve_each_others_entries,
);
