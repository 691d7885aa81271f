//! The test cases in the table of `docs/reliability.md` that belong to no other file: a cold start, two fills at once,
//! a large environment. Also checks that the tests which this document and the threat model name exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::join_all;
use pennon_tests::redis::{KEY, Resp};
use pennon_tests::stack::{Stack, database_loads, percentage, set_percentage};
use pennon_tests::topology::Topology;
use pennon_tests::wire::Mode;

async fn a_cold_start_with_an_empty_cache_reads_the_database_and_fills_the_cache(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    assert!(get.has_logged(on.success()));
    assert_eq!(stack.redis.command(&["DBSIZE"]), Resp::Number(0));
    let answer = get.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "database"));
    assert_eq!(answer.header("x-cache-hit"), Some("false"));
    let line = get.last_request();
    assert_eq!(line["cold_start"], 1, "{line}");
    assert_eq!(line["cache_miss"], 1, "{line}");
    assert_eq!(line["cache_unavailable"], 0, "{line}");
    assert!(stack.redis.has_entry(), "the first request filled nothing");

    let next = stack.function("get-flag").await;
    let answer = next.call(&Event::get("checkout")).await;
    assert_eq!((percentage(&answer), answer.source()), (50, "redis"));
    assert_eq!(database_loads(&next), 0);
}

async fn two_instances_that_fill_at_once_leave_a_complete_and_current_entry(on: Topology) {
    let stack = Stack::start_on(on).await;
    let instances = [
        stack.function("get-flag").await,
        stack.function("get-flag").await,
    ];
    let update = stack.function("update-flag").await;
    let event = Event::get("checkout");
    for instance in &instances {
        assert_eq!(percentage(&instance.call(&event).await), 50);
    }
    let loads = || instances.iter().map(database_loads).sum::<u64>();
    let mut percent = 0;
    // An instance waits 170 ms for the fill of the other one. The database now takes 250 ms, so both load. An instance
    // that begins late finds the filled entry and does not load: try again.
    eventually("both instances load at once", async || {
        percent += 1;
        set_percentage(&update, "checkout", percent).await;
        let delay = Mode::Delay(Duration::from_millis(250));
        stack.database_wire.set(delay).await;
        let before = loads();
        let calls = instances.iter().map(|instance| instance.call(&event));
        for answer in join_all(calls).await {
            assert_eq!(percentage(&answer), percent);
        }
        stack.database_wire.set(Mode::Open).await;
        // Whichever instance filled last, the entry is complete and current, and it expires.
        eventually("the entry is there", async || {
            for instance in &instances {
                assert_eq!(percentage(&instance.call(&event).await), percent);
            }
            stack.redis.has_entry()
        })
        .await;
        let fields = stack.redis.fields();
        let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let whole = [
            "__env", "__exp", "__fmt", "__idx", "__imac", "__inst", "__mac", "__rev", "__sum",
            "checkout", "export", "search",
        ];
        assert_eq!(names, BTreeSet::from(whole));
        let revision = stack.database.revision("production").await.to_string();
        assert!(fields.contains(&("__rev".to_owned(), revision)));
        let Resp::Number(ttl) = stack.redis.command(&["PTTL", KEY]) else {
            panic!("PTTL did not answer with a number");
        };
        assert!(ttl > 0 && ttl <= 300_000, "{ttl}");
        for instance in &instances {
            let answer = instance.call(&event).await;
            assert_eq!((percentage(&answer), answer.source()), (percent, "memory"));
        }
        loads() - before >= 2
    })
    .await;
}

async fn environments_of_more_than_a_hundred_flags_are_cached_and_changed(on: Topology) {
    for more in [100, 1_000] {
        let stack = Stack::start_on(on).await;
        let insert = format!(
            "insert into feature_flags (flag_key, enabled, rollout_percentage)
             select 'flag-' || n, true, n % 101 from generate_series(1, {more}) as n"
        );
        let sql = stack.database.sql();
        sql.batch_execute(&insert).await.expect("flags");
        let list = stack.function("list-flags").await;
        let get = stack.function("get-flag").await;
        let update = stack.function("update-flag").await;
        let answer = list.call(&Event::list()).await;
        let flags = answer.json();
        assert_eq!((answer.status, answer.source()), (200, "database"));
        assert_eq!(flags.as_object().map(serde_json::Map::len), Some(more + 3));
        // On a busy machine, encoding may leave too little of the budget for the fill. A later request then fills.
        eventually("the entry is there", async || {
            let filled = stack.redis.has_entry();
            if !filled {
                list.call(&Event::list()).await;
            }
            filled
        })
        .await;
        let fields = i64::try_from(more + 12).expect("a number");
        assert_eq!(
            stack.redis.command(&["HLEN", KEY]),
            Resp::Number(fields),
            "expected: a field for each flag, five of the header, the settings, the format, the index and its MAC"
        );
        let last = format!("flag-{more}");
        let expected = i64::try_from(more % 101).expect("a number");
        let answer = get.call(&Event::get(&last)).await;
        assert_eq!((percentage(&answer), answer.source()), (expected, "redis"));
        assert_eq!(database_loads(&get), 0);

        set_percentage(&update, &last, 7).await;
        assert_eq!(percentage(&get.call(&Event::get(&last)).await), 7);
        let answer = list.call(&Event::list()).await;
        assert_eq!(
            answer.json().as_object().map(serde_json::Map::len),
            Some(more + 3)
        );
        let answer = list.call(&Event::list()).await;
        assert_eq!(answer.source(), "memory");
    }
}

/// The source text of the integration tests, and of the functions, because documents also name unit tests of functions.
fn sources() -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![tests.join("it"), tests.join("../functions/src")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).expect("text"));
            }
        }
    }
    text
}

#[test]
fn every_test_that_reliability_md_or_the_threat_model_names_exists() {
    let reliability = read("reliability.md");
    let rows = reliability.lines().filter(|line| line.starts_with('|'));
    require_tests_in(&rows.collect::<Vec<_>>());
    let model = read("threat-model.md");
    require_tests_in(&model.lines().collect::<Vec<_>>());
}

fn read(document: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    std::fs::read_to_string(folder.join(document)).expect("text")
}

/// Checks that every test named in these lines exists. A test name is a word in backticks with an underscore and
/// without capital letters.
fn require_tests_in(lines: &[&str]) {
    let sources = sources();
    let is_name = |text: &&str| {
        text.contains('_')
            && text
                .chars()
                .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')
    };
    let names: BTreeSet<&str> = lines
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(is_name)
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let missing: Vec<&&str> = names
        .iter()
        // The macro `planted!` of `tests/it/template` defines tests as `name: ...`, without `fn`.
        .filter(|name| {
            !sources.contains(&format!("fn {name}("))
                && !sources.contains(&format!("    {name}:\n"))
        })
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

on_every_redis!(
    a_cold_start_with_an_empty_cache_reads_the_database_and_fills_the_cache,
    two_instances_that_fill_at_once_leave_a_complete_and_current_entry,
    environments_of_more_than_a_hundred_flags_are_cached_and_changed,
);
