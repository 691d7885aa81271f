//! The table of revocation times in docs/operations.md has the numbers of the code and of the template.

use std::path::Path;

use pennon_core::config::Config;
use pennon_core::token::{KEYS_MAX_AGE, KEYS_REFRESH_AGE, SKEW};
use serde_json::Value;

use crate::template::parse;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(path).expect("a file")
}

/// The last column of the row that begins with this text.
fn window(row: &str) -> String {
    let manual = read("docs/operations.md");
    let table = manual.split("### Revoke access").nth(1).expect("a table");
    let begin = format!("| {row}");
    let line = table.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no row {row}"));
    let last = line.trim_end_matches(" |").rsplit(" | ").next();
    last.expect("a column").to_owned()
}

/// Checks that the row has these durations. `0 s` is not found in `60 s`.
#[track_caller]
fn require_in_row(row: &str, words: &[String]) {
    let window = window(row);
    for word in words {
        let mut places = window.match_indices(word.as_str());
        let is_found = places.any(|(at, _)| {
            !window[..at].ends_with(|last: char| last.is_ascii_digit() || last == '.')
        });
        assert!(is_found, "{row}: {word} is not in {window:?}");
    }
}

#[test]
fn the_table_of_revocation_windows_has_the_numbers_of_code_and_template() {
    let template = parse(&read("template.yaml"));
    let client = &template["Resources"]["UserPoolClient"]["Properties"];
    let number = |value: &Value| value.as_i64().expect("a number");
    let units = &client["TokenValidityUnits"];
    assert_eq!(units["AccessToken"], "minutes");
    assert_eq!(units["IdToken"], "minutes");
    assert_eq!(units["RefreshToken"], "hours");
    let access = format!("{} min", number(&client["AccessTokenValidity"]));
    assert_eq!(client["AccessTokenValidity"], client["IdTokenValidity"]);
    let refresh = format!("{} h", number(&client["RefreshTokenValidity"]));
    let grace = number(&client["RefreshTokenRotation"]["RetryGracePeriodSeconds"]);

    require_in_row("An admin, editor or viewer:", std::slice::from_ref(&access));
    require_in_row("An admin's session", &["0 s".to_owned(), access]);
    require_in_row("A refresh token", &[format!("{grace} s"), refresh]);
    require_in_row("A user's token", &[format!("{} s", SKEW.as_secs())]);
    let (age, last) = (
        KEYS_REFRESH_AGE.as_secs() / 60,
        KEYS_MAX_AGE.as_secs() / 3_600,
    );
    require_in_row(
        "A signing key",
        &[format!("{age} min"), format!("{last} h")],
    );

    let (config, _) = Config::from_lookup(|_| None);
    assert!(config.snapshot_max_age.is_zero());
    let ttl = config.cache.ttl.as_secs();
    let schedule = &template["Resources"]["ReconcileFunction"]["Properties"]["Events"];
    let schedule = schedule.as_object().expect("events").values();
    let minute = |event: &Value| event["Properties"]["ScheduleExpression"] == "rate(1 minute)";
    assert!(schedule.into_iter().any(minute));
    let replicas = read("crates/pennon-core/src/cache/cluster/replica_reads.rs");
    assert!(replicas.contains("const MAX_AGE: Duration = Duration::from_millis(500);"));
    let words = ["0 s", "0.5 s", "60 s"].map(str::to_owned);
    require_in_row("An API key", &words);
    require_in_row("An API key", &[format!("({ttl} s)")]);
}
