//! The files of the local server: manual edits with common mistakes, concurrent writes, crashes, and the conversion of
//! files of earlier versions.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pennon_tests::binaries::binary;
use pennon_tests::local::{HttpClient, Local};
use pennon_tests::process::{free_port, new_folder, output_within};
use pennon_tests::redis::Redis;
use pennon_tests::stack::{LONG_CACHE_TIMEOUTS, percentage};
use pennon_tests::{TIME_LIMIT, eventually};
use serde_json::{Value, json};

const MINE: &str = "/api/admin/flags/mine";

fn good() -> String {
    json!({"flags": {"mine": {"state": "ENABLED", "rolloutPercentage": 5}}}).to_string()
}

/// Starts a server with a valid file.
async fn server() -> (Local, PathBuf) {
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    std::fs::write(&path, good()).expect("writes");
    (Local::start_in(folder, &[]).await, path)
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

/// The names of the entries of a folder, except the server's log.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name != "log")
        .collect();
    names.sort();
    names
}

/// Starts another server on a file and waits until it exits.
fn try_to_start(flags: &Path) -> Output {
    let mut command = Command::new(binary("pennon-local"));
    command
        .env_clear()
        .env("PENNON_LISTEN", format!("127.0.0.1:{}", free_port()))
        .env("PENNON_FLAGS_FILE", flags);
    output_within(&mut command, TIME_LIMIT)
}

/// What a program has printed, to both streams.
fn printed(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The text of a file, and words of its error message.
type Mistake = (String, &'static [&'static str]);

fn flag(fields: &str) -> String {
    format!("{{\"flags\": {{\n\"mine\": {{{fields}}}}}}}")
}

fn typed(fields: &str) -> String {
    flag(&format!(
        r#""state": "ENABLED", "variants": {{"a": 1, "b": 2}}, {fields}"#
    ))
}

fn named(key: &str) -> String {
    format!(
        "{{\"flags\": {{\n{}: {{\"state\": \"ENABLED\", \"rolloutPercentage\": 5}}}}}}",
        json!(key)
    )
}

fn mistakes_in_flags() -> Vec<Mistake> {
    let long = "x".repeat(501);
    vec![
        (
            flag(r#""state": "ENABLED", "rollout": 5"#),
            &["/flags/mine"],
        ),
        (
            flag(r#""state": "on", "rolloutPercentage": 5"#),
            &["/flags/mine/state"],
        ),
        (flag(r#""rolloutPercentage": 5"#), &["/flags/mine/state"]),
        (
            flag(r#""state": "ENABLED", "variants": {}"#),
            &["/flags/mine/variants"],
        ),
        (
            flag(r#""state": "ENABLED", "rolloutPercentage": 101"#),
            &["/flags/mine/rolloutPercentage", "0 to 100"],
        ),
        (
            flag(&format!(
                r#""state": "ENABLED", "rolloutPercentage": 1, "description": "{long}""#
            )),
            &["/flags/mine", "500 characters"],
        ),
        (
            flag(r#""state": "ENABLED", "rolloutPercentage": 1, "salt": """#),
            &["/flags/mine/salt", "1 to 100 characters"],
        ),
        (
            flag(r#""state": "ENABLED", "rolloutPercentage": 1, "overrides": {"alice": "on"}"#),
            &["/flags/mine/overrides"],
        ),
        (
            flag(
                r#""state": "ENABLED", "rolloutPercentage": 1, "overrides": {"al": {"variant": "a"}}"#,
            ),
            &["/flags/mine/overrides/al", "no variant 'a'"],
        ),
        (
            typed(r#""defaultVariant": "c""#),
            &["/flags/mine/defaultVariant", "'c'"],
        ),
        (
            typed(r#""targeting": {"iff": [true, "a", "b"]}"#),
            &["/flags/mine/targeting/iff", "operator"],
        ),
        (
            typed(r#""overrides": {"alice": {"variant": "c"}}"#),
            &["no variant 'c'"],
        ),
        (
            typed(r#""metadata": {"pennon.salt": "s"}"#),
            &["pennon.salt: has no effect"],
        ),
        (
            "{\"flags\": {\n\"mine\": {\"state\": \"ENABLED\", \"variants\": {\"a\\u0000\": 1}}}}"
                .to_owned(),
            &["/flags/mine/variants", "control characters"],
        ),
    ]
}

fn mistakes_around_flags() -> Vec<Mistake> {
    vec![
        (named("a/b"), &["/flags/a~1b", "(found /)"]),
        (named(" mine"), &["/flags/ mine", "space"]),
        (named("mi\u{202e}ne"), &["format characters"]),
        (named("stale"), &["/flags/stale"]),
        (named(&"k".repeat(256)), &["1 to 255 characters"]),
        (named(""), &["must not be empty"]),
        (
            "{\"flags\": {\n\"mine\": {}, \"mine\": {}}}".to_owned(),
            &["/flags/mine: "],
        ),
        ("{\n\"flags\": {}, \"flags\": {}}".to_owned(), &["/flags: "]),
        (
            flag(r#""state": "ENABLED", "variants": {"a": {"b": 1, "b": 2}}"#),
            &["/flags/mine/variants/a/b: "],
        ),
        (
            "{\"flags\": {},\n\"environments\": {\"pro duction\": {\"flags\": {}}}}".to_owned(),
            &["/environments/pro duction", "20 letters"],
        ),
        (
            "{\"flags\": {},\n\"environments\": {\"production\": {\"flags\": {}}}}".to_owned(),
            &["/environments/production", "top level"],
        ),
        (
            "{\"flags\": {},\n\"metadata\": {\"serverOnly\": \"yes\"}}".to_owned(),
            &["/metadata/serverOnly", "true or false"],
        ),
        (
            "{\"flags\": {},\n\"environments\": {\"a\": {\"flags\": {}, \"metadata\": {\"serverOnly\": 1}}}}"
                .to_owned(),
            &["/environments/a/metadata/serverOnly", "true or false"],
        ),
        (
            flag(r#""state": "ENABLED", "variants": {"a": 1}, "metadata": {"serverOnly": null}"#),
            &["/flags/mine/metadata/serverOnly"],
        ),
        (large(), &["/flags: ", "5500000", "'large-"]),
        (
            format!(
                "{{\"flags\": {{}},\n\"environments\": {{\"a\": {}}}}}",
                large().replace('\n', "")
            ),
            &["/environments/a/flags: ", "5500000"],
        ),
        (
            format!("{{\n\"flags\": {{\"v\": {}}}}}", variant(&"x".repeat(256_000))),
            &["/flags/v/variants/a", "256000"],
        ),
        (
            "{\"flags\": {},\n\"environments\": []}".to_owned(),
            &["/environments", "object"],
        ),
        (
            "{\"flags\": {},\n\"environments\": {\"a\": {\"flags\": {\"b\": {\"state\": 1}}}}}"
                .to_owned(),
            &["/environments/a/flags/b/state"],
        ),
        (
            "{\"flags\": {},\n\"evaluationDefaults\": \"old\"}".to_owned(),
            &["/evaluationDefaults", "existing"],
        ),
        (
            "{\"flags\": {\n\"mine\": oops".to_owned(),
            &["expected value"],
        ),
    ]
}

fn variant(text: &str) -> String {
    json!({"state": "ENABLED", "variants": {"a": text}, "defaultVariant": "a"}).to_string()
}

/// Flags that together exceed the maximum size of a response.
fn large() -> String {
    let flags: Vec<String> = (0..23)
        .map(|number| format!("\"large-{number}\": {}", variant(&"x".repeat(250_000))))
        .collect();
    format!("{{\n\"flags\": {{{}}}}}", flags.join(", "))
}

#[tokio::test]
async fn an_edit_cannot_add_variants_to_a_flag_with_a_scheduled_percentage() {
    let (local, path) = server().await;
    let body = r#"{"scheduledAt": "2099-01-01T00:00Z", "updates": {"rolloutPercentage": 7}}"#;
    let url = format!("{MINE}/schedule");
    let scheduled = local.admin("POST", &url, body).await;
    assert_eq!(scheduled.status, 201, "{scheduled:?}");
    std::fs::write(&path, typed(r#""defaultVariant": "a""#)).expect("writes");
    let answer = local.patch(MINE, "{}").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let id = scheduled.json()["id"].as_str().expect("an id").to_owned();
    for word in [&*id, "line 2, /flags/mine/variants", "no effect"] {
        assert!(
            answer.body.to_lowercase().contains(word),
            "{word} in {}",
            answer.body
        );
    }
    let health = local.get("/health").await.json();
    assert!(health["message"].to_string().contains(&id), "{health}");
    std::fs::write(&path, good()).expect("writes");
    let cancelled = local.admin("DELETE", &format!("{url}/{id}"), "").await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    std::fs::write(&path, typed(r#""defaultVariant": "a""#)).expect("writes");
    assert_eq!(local.get("/health").await.json()["status"], "healthy");
}

/// Waits until the file is accepted. A rejected file stays rejected, so a health check that fails once for another
/// reason, such as its time limit, does not matter here.
async fn becomes_healthy(local: &Local, after: &str) {
    eventually(&format!("the file is accepted after {after}"), async || {
        local.get("/health").await.json()["status"] == "healthy"
    })
    .await;
}

#[tokio::test]
async fn a_file_above_a_limit_is_accepted_at_the_start_and_may_not_grow() {
    let flag = |text: String| json!({"enabled": true, "definition": {"variants": {"a": text}, "defaultVariant": "a"}});
    let flags: serde_json::Map<String, Value> = (0..23)
        .map(|number| (format!("large-{number}"), flag("x".repeat(250_000))))
        .collect();
    let old = json!({
        "production": flags,
        "$pennon": {"production": {"settings": {"metadata": {"serverOnly": "no"}}}},
    });
    for text in [old.to_string(), large()] {
        let folder = new_folder("large");
        let path = folder.join("flags.json");
        std::fs::write(&path, text).expect("writes");
        let mut local = Local::start_in(folder, &[]).await;
        for _ in 0..2 {
            becomes_healthy(&local, "the start").await;
            assert!(local.log().contains("5500000"), "{}", local.log());
            local.restart().await;
        }
        let mut file = read_json(&path);
        file["flags"]["large-0"]["description"] = json!("edited");
        std::fs::write(&path, file.to_string()).expect("writes");
        becomes_healthy(&local, "an edit of equal size").await;
        let grown = |mut file: Value| {
            file["flags"]["more"] = json!({"state": "ENABLED", "rolloutPercentage": 5});
            file.to_string()
        };
        std::fs::write(&path, grown(file.clone())).expect("writes");
        let health = local.get("/health").await.json();
        let message = health["message"].to_string();
        assert!(message.contains("5500000"), "{health}");
        // Once it has become smaller, it may not grow to its former size.
        let flags = file["flags"].as_object_mut().expect("flags");
        let large = flags.remove("large-0").expect("a flag");
        std::fs::write(&path, file.to_string()).expect("writes");
        becomes_healthy(&local, "the removal of a flag").await;
        file["flags"]["large-0"] = large;
        std::fs::write(&path, file.to_string()).expect("writes");
        let health = local.get("/health").await.json();
        let message = health["message"].to_string();
        assert!(message.contains("5500000"), "{health}");
    }
}

/// The flags that can probably be removed, and why.
async fn stale(local: &Local) -> Vec<(String, Value)> {
    let found = local
        .admin("GET", "/api/admin/flags/stale", "")
        .await
        .json();
    let flags = found["flags"].as_array().expect("a list");
    let reasons = flags.iter().map(|flag| {
        let key = flag["key"].as_str().expect("a key").to_owned();
        (key, flag["reasons"].clone())
    });
    reasons.collect()
}

#[tokio::test]
async fn an_edit_of_the_file_sets_the_times_of_flags_that_it_adds_or_changes() {
    let folder = new_folder("edited");
    let path = folder.join("flags.json");
    let flags = |percentages: &[(&str, u8)]| {
        let flags = percentages.iter().map(|(key, percentage)| {
            let flag = json!({"state": "ENABLED", "rolloutPercentage": percentage});
            ((*key).to_owned(), flag)
        });
        json!({"flags": flags.collect::<serde_json::Map<_, _>>()}).to_string()
    };
    let old = "2020-01-01T00:00:00.000Z";
    let records: Vec<Value> = ["old", "edited", "overridden", "gone"]
        .iter()
        .map(|key| {
            let times = json!({"createdAt": old, "updatedAt": old});
            json!({"flag": {"environment": "production", "key": key, "note": times}})
        })
        .collect();
    let state = json!({"records": records});
    let header = json!({"format": 1, "about": "a test"});
    std::fs::write(
        folder.join("flags.json.state"),
        format!("{header}\n{state}\n"),
    )
    .expect("writes");
    let start = [
        ("edited", 0),
        ("gone", 0),
        ("new", 0),
        ("old", 0),
        ("overridden", 5),
    ];
    std::fs::write(&path, flags(&start)).expect("writes");
    let mut local = Local::start_in(folder, &[]).await;
    let (both, unused) = (
        json!(["notEvaluated", "sameForEveryone"]),
        json!(["notEvaluated"]),
    );
    let expect = |flags: &[(&str, &Value)]| -> Vec<(String, Value)> {
        let flags = flags.iter();
        flags
            .map(|(key, reasons)| ((*key).to_owned(), (*reasons).clone()))
            .collect()
    };
    let at_start = expect(&[
        ("edited", &both),
        ("gone", &both),
        ("old", &both),
        ("overridden", &unused),
    ]);
    assert_eq!(stale(&local).await, at_start);
    local.restart().await;
    assert_eq!(stale(&local).await, at_start);

    let without = [("edited", 100), ("new", 0), ("old", 0), ("overridden", 5)];
    std::fs::write(&path, flags(&without)).expect("writes");
    let after = expect(&[("edited", &unused), ("old", &both), ("overridden", &unused)]);
    assert_eq!(stale(&local).await, after);
    let mut again: Value = serde_json::from_str(&flags(&[
        ("edited", 100),
        ("gone", 0),
        ("new", 0),
        ("old", 0),
        ("overridden", 5),
    ]))
    .expect("JSON");
    again["flags"]["overridden"]["overrides"] = json!({"alice": "include"});
    std::fs::write(&path, again.to_string()).expect("writes");
    assert_eq!(
        stale(&local).await,
        after,
        "a flag that was added again is not treated as new"
    );
    local.restart().await;
    assert_eq!(stale(&local).await, after);
    let read = async |key: &str| {
        let url = format!("/api/admin/flags/{key}");
        let flag = local.admin("GET", &url, "").await.json();
        let time = |name: &str| flag[name].as_str().expect("a time").to_owned();
        (time("createdAt"), time("updatedAt"))
    };
    for (key, is_old) in [
        ("old", (true, true)),
        ("edited", (true, false)),
        ("overridden", (true, true)),
        ("gone", (false, false)),
        ("new", (false, false)),
    ] {
        let (created, updated) = read(key).await;
        assert_eq!((created == old, updated == old), is_old, "{key}");
    }
}

#[tokio::test]
async fn a_flag_that_an_edit_removed_leaves_nothing_to_a_later_flag_with_its_key() {
    for stopped in [false, true] {
        let folder = new_folder("removed");
        let path = folder.join("flags.json");
        let note =
            json!({"exempt": true, "rolloutPercentage": 30, "salt": "old", "bucketing": "sha256"});
        let record = json!({"flag": {"environment": "production", "key": "mine", "note": note}});
        let header = json!({"format": 1, "about": "a test"});
        let state = json!({"records": [record]});
        let state = format!("{header}\n{state}\n");
        std::fs::write(folder.join("flags.json.state"), state).expect("writes");
        let violating = typed(r#""overrides": {"alice": {"variant": "c"}}"#);
        std::fs::write(&path, &violating).expect("writes");
        let mut local = Local::start_in(folder, &[]).await;
        assert_eq!(local.get("/health").await.json()["status"], "healthy");
        if stopped {
            local.kill();
        }
        std::fs::write(&path, r#"{"flags": {}}"#).expect("writes");
        if stopped {
            local.restart().await;
        }
        assert_eq!(local.admin("GET", MINE, "").await.status, 404);

        std::fs::write(&path, violating).expect("writes");
        let health = local.get("/health").await.json();
        let message = health["message"].to_string();
        assert!(message.contains("no variant 'c'"), "{health}");
        std::fs::write(&path, typed(r#""defaultVariant": "a""#)).expect("writes");
        let token = format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN);
        let headers = [("authorization", token.as_str()), ("if-match", "*")];
        let body = r#"{"definition": null}"#;
        let simple = local.send("PATCH", MINE, &headers, body).await;
        assert_eq!(simple.status, 200, "{simple:?}");
        let flag = simple.json();
        assert_ne!(flag["rolloutPercentage"], 30, "{flag}");
        for name in ["salt", "bucketing"] {
            assert_eq!(flag[name], Value::Null, "{flag}");
        }
    }
}

#[tokio::test]
async fn an_override_that_an_edit_removed_leaves_nothing_to_a_later_one_of_its_user() {
    let with_users = |users: &[&str]| {
        let users = users
            .iter()
            .map(|user| ((*user).to_owned(), "include".into()));
        let users: serde_json::Map<String, Value> = users.collect();
        flag(&format!(
            r#""state": "ENABLED", "rolloutPercentage": 5, "overrides": {}"#,
            json!(users)
        ))
    };
    let (local, path) = server().await;
    let url = format!("{MINE}/users");
    for user in ["alice", "bob"] {
        let body = json!({"userId": user, "overrideType": "include", "reason": "tries it out"});
        let set = local.admin("POST", &url, &body.to_string()).await;
        assert!(set.status < 300, "{set:?}");
    }
    for users in [vec!["bob"], vec!["alice", "bob"]] {
        std::fs::write(&path, with_users(&users)).expect("writes");
        let list = local.admin("GET", &url, "").await.json();
        assert_eq!(list["includes"].as_array().map(Vec::len), Some(users.len()));
    }
    let list = local.admin("GET", &url, "").await.json();
    for one in list["includes"].as_array().expect("a list") {
        let reason = if one["userId"] == "bob" {
            json!("tries it out")
        } else {
            Value::Null
        };
        assert_eq!(one["reason"], reason, "{list}");
        assert_eq!(one["createdBy"].is_null(), reason.is_null(), "{list}");
        assert_eq!(one["createdAt"].is_null(), reason.is_null(), "{list}");
    }
}

#[tokio::test]
async fn an_archived_flag_keeps_who_set_its_overrides_while_the_file_has_a_flag_with_its_key() {
    let (local, path) = server().await;
    let users = format!("{MINE}/users");
    let alice = r#"{"userId": "alice", "overrideType": "include", "reason": "tries it out"}"#;
    let set = local.admin("POST", &users, alice).await;
    assert!(set.status < 300, "{set:?}");
    let before = local.admin("GET", &users, "").await.json();
    let token = format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN);
    let headers = [("authorization", token.as_str()), ("if-match", "*")];
    let archived = local.send("DELETE", MINE, &headers, "").await;
    assert_eq!(archived.status, 200, "{archived:?}");
    for (file, status) in [(good().as_str(), 200), (r#"{"flags": {}}"#, 404)] {
        std::fs::write(&path, file).expect("writes");
        let read = local.get("/api/config/flags/mine").await;
        assert_eq!(read.status, status, "{read:?}");
    }
    let restore = format!("{MINE}/restore");
    let restored = local.send("POST", &restore, &headers, "").await;
    assert_eq!(restored.status, 200, "{restored:?}");
    assert_eq!(local.admin("GET", &users, "").await.json(), before);
}

#[tokio::test]
async fn invalid_edits_are_rejected_and_stay_in_the_file() {
    let (local, path) = server().await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 5);
    let mistakes = mistakes_in_flags().into_iter();
    for (text, words) in mistakes.chain(mistakes_around_flags()) {
        std::fs::write(&path, &text).expect("writes");
        let logged = local.log().len();
        let answer = local.patch(MINE, "{}").await;
        assert_eq!(answer.status, 503, "{text} {answer:?}");
        let message = answer.json()["message"].as_str().expect("text").to_owned();
        for word in words.iter().chain(&["flags.json", "line 2"]) {
            assert!(message.contains(word), "{word} in {message}");
        }
        let kept = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(kept, text, "the server changed the rejected file");
        let log = local.log();
        assert!(log[logged..].contains(words[0]), "{text}: {log}");
        let known = local.get("/api/config/flags/mine").await;
        assert_eq!(
            percentage(&known),
            5,
            "an invalid edit changed the flags in effect"
        );
    }
    for (text, word) in [
        ("[]", "object"),
        ("", "EOF"),
        (r#"{"flag": {}}"#, "/flags"),
        (r#"{"production": {"mine": {"enabled": true}}}"#, "start"),
    ] {
        std::fs::write(&path, text).expect("writes");
        let answer = local.patch(MINE, "{}").await;
        assert_eq!(answer.status, 503, "{text}");
        assert!(answer.body.contains(word), "{word} in {}", answer.body);
    }
    std::fs::write(&path, good()).expect("writes");
    assert_eq!(local.patch(MINE, "{}").await.status, 200);
}

#[tokio::test]
async fn the_warnings_about_an_invalid_edit_are_logged_once() {
    let (local, path) = server().await;
    let invalid = r#"{"flags": {"mine": {"state": "ENABLED", "owner": "me", "variants": {"on": true},
        "defaultVariant": "on", "overrides": {"alice": {"variant": "off"}}}}}"#;
    std::fs::write(&path, invalid).expect("writes");
    for _ in 0..3 {
        let answer = local.patch(MINE, "{}").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            answer.body.contains("there is no variant 'off'"),
            "{answer:?}"
        );
    }
    assert_eq!(
        local.log().matches("unknown field").count(),
        1,
        "{}",
        local.log()
    );
}

#[tokio::test]
async fn an_unreadable_file_makes_the_store_unhealthy() {
    let (local, path) = server().await;
    assert_eq!(local.get("/health/ready").await.status, 200);
    std::fs::write(&path, "{ \"flags\": { oops").expect("writes");
    let health = local.get("/health").await;
    assert_eq!(health.status, 200);
    let body = health.json();
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["services"]["database"], "unhealthy");
    let why = body["message"].as_str().expect("why");
    assert!(
        why.contains("flags.json") && why.contains("line 1"),
        "{why}"
    );
    let ready = local.get("/health/ready").await;
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (503, Some("not_ready"))
    );
    let list = local.admin("GET", "/api/admin/flags", "").await;
    assert_eq!(list.status, 503);
    assert!(list.body.contains("flags.json"), "{}", list.body);
    // Readers get the flags from before the mistake.
    let read = local.get("/api/config/flags/mine").await;
    assert_eq!((read.status, percentage(&read)), (200, 5), "{read:?}");
    std::fs::remove_file(&path).expect("removes");
    assert_eq!(local.get("/health/ready").await.status, 503);
    std::fs::write(&path, good()).expect("writes");
    eventually("the corrected file is read", async || {
        local.get("/health/ready").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn an_edit_waits_while_the_state_file_cannot_be_written() {
    let (local, path) = server().await;
    let mine = async || percentage(&local.get("/api/config/flags/mine").await);
    assert_eq!(mine().await, 5);
    let state = path.with_file_name("flags.json.state");
    let kept = path.with_file_name("kept");
    std::fs::rename(&state, &kept).expect("renames");
    std::fs::create_dir(&state).expect("a folder");
    let edited = good().replace("\"rolloutPercentage\":5", "\"rolloutPercentage\":60");
    std::fs::write(&path, &edited).expect("writes");
    let read = local.get("/api/config/flags/mine").await;
    assert_eq!(
        (read.status, percentage(&read), read.source()),
        (200, 5, "stale")
    );
    let health = local.get("/health").await.json();
    assert_eq!(health["status"], "degraded");
    let why = health["message"].as_str().expect("why");
    assert!(why.contains("flags.json.state"), "{why}");
    std::fs::remove_dir(&state).expect("removes");
    std::fs::rename(&kept, &state).expect("renames");
    assert_eq!(mine().await, 60);
    assert_eq!(local.get("/health").await.json()["status"], "healthy");
}

#[tokio::test]
async fn evaluations_and_uses_of_keys_are_counted_while_the_file_is_invalid() {
    let (local, path) = server().await;
    let create = r#"{"kind": "client", "name": "page"}"#;
    let made = local.admin("POST", "/api/admin/keys", create).await.json();
    let key = made["key"].as_str().expect("a key");
    std::fs::write(&path, "{ \"flags\": { oops").expect("writes");
    let evaluate = "/ofrep/v1/evaluate/flags/mine";
    let body = r#"{"context": {"targetingKey": "alice"}}"#;
    assert_eq!(local.evaluate(evaluate, key, body).await.status, 200);
    eventually("both are stored", async || {
        let state = std::fs::read_to_string(path.with_file_name("flags.json.state"));
        let state = state.expect("a file");
        state.contains("\"counts\"") && state.contains("\"keyUses\"")
    })
    .await;
    std::fs::write(&path, good()).expect("writes");
    let usage = local.admin("GET", &format!("{MINE}/usage"), "").await;
    assert_eq!(usage.json()["evaluations"], 1, "{usage:?}");
    let listed = local.admin("GET", "/api/admin/keys", "").await.json();
    assert!(listed["keys"][0]["lastUsedOn"].is_string(), "{listed}");
}

#[tokio::test]
async fn a_mistake_at_the_start_is_reported_and_nothing_is_written() {
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    for (text, words) in [
        (
            "{\"flags\": {\n\"a/b\": {\"state\": \"ENABLED\", \"rolloutPercentage\": 5}}}",
            ["line 2", "/flags/a~1b"],
        ),
        (
            "{\"flags\": {\n\"a\": {}, \"a\": {}}}",
            ["line 2", "/flags/a: "],
        ),
        (
            "{\"production\": {\n\"mine\": {\"enabled\": true, \"rollout\": 5}}}",
            ["line 2", "'mine' of 'production'"],
        ),
        (
            "{\"production\": {\n\"mine\": {\"definition\": {\"variants\": {\"a\": []}}}}}",
            ["/flags/mine/variants/a", "must be a boolean"],
        ),
    ] {
        std::fs::write(&path, text).expect("writes");
        let output = try_to_start(&path);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in words.iter().chain(&["flags.json"]) {
            assert!(
                printed(&output).contains(word),
                "{word} in {}",
                printed(&output)
            );
        }
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
        assert!(!folder.join("flags.json.bak").exists());
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_file_does_not_start_under_any_path() {
    let (mut local, path) = server().await;
    let links = new_folder("links");
    symlink(&path, links.join("a.json")).expect("a link");
    symlink("a.json", links.join("b.json")).expect("a link");
    symlink(local.folder(), links.join("folder")).expect("a link");
    let paths = [
        path.clone(),
        links.join("a.json"),
        links.join("b.json"),
        links.join("folder/flags.json"),
        links.join("./folder/./flags.json"),
    ];
    for other in &paths {
        let output = try_to_start(other);
        assert_eq!(output.status.code(), Some(1), "{}", other.display());
        let printed = printed(&output);
        assert!(printed.contains("another Pennon server"), "{printed}");
        assert!(printed.contains("flags.json"), "{printed}");
        assert!(printed.contains("(process "), "{printed}");
    }
    // A write replaces the file, but not the lock.
    assert_eq!(
        local.patch(MINE, r#"{"rolloutPercentage":6}"#).await.status,
        200
    );
    assert_eq!(try_to_start(&path).status.code(), Some(1));
    // The lock of a process ends with the process, even after SIGKILL.
    local.restart().await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 6);
}

#[tokio::test]
async fn a_write_keeps_links_mode_and_owner_and_leaves_no_temporary_file() {
    let folder = new_folder("flags");
    std::fs::create_dir(folder.join("real")).expect("a folder");
    let target = folder.join("real/mine.json");
    std::fs::write(&target, good()).expect("writes");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    // Only root may change a file's owner.
    let _not_root = chown(&target, Some(12_345), Some(23_456));
    let before = target.metadata().expect("a file");
    symlink("real/mine.json", folder.join("flags.json")).expect("a link");
    let mut local = Local::start_in(folder.clone(), &[]).await;
    for percent in [6, 7] {
        let body = json!({"rolloutPercentage": percent}).to_string();
        assert_eq!(local.patch(MINE, &body).await.status, 200);
        let link = folder
            .join("flags.json")
            .symlink_metadata()
            .expect("a link");
        assert!(link.is_symlink());
        assert_eq!(
            read_json(&target)["flags"]["mine"]["rolloutPercentage"],
            percent
        );
        let after = target.metadata().expect("a file");
        assert_eq!(after.mode(), before.mode());
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_eq!(
            names(&folder.join("real")),
            ["mine.json", "mine.json.lock", "mine.json.state"]
        );
        assert_eq!(names(&folder), ["flags.json", "real"]);
    }
    assert_eq!(mode(&folder.join("real/mine.json.state")), 0o600);
    // A changed link is reported, not followed.
    std::fs::write(folder.join("other.json"), good()).expect("writes");
    std::fs::remove_file(folder.join("flags.json")).expect("removes");
    symlink("other.json", folder.join("flags.json")).expect("a link");
    let answer = local.patch(MINE, "{}").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("other.json"), "{}", answer.body);
    local.restart().await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 5);
}

/// An editor that reads the file and overwrites it a moment later, without checking for changes.
fn add_by_hand(path: &Path, number: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else {
        return false;
    };
    let mut file: Value = serde_json::from_str(&text).expect("a write is never half a file");
    file["flags"][format!("hand-{number}")] = json!({"state": "ENABLED", "rolloutPercentage": 1});
    let new = path.with_file_name("edited");
    std::fs::write(&new, file.to_string()).expect("writes");
    std::fs::rename(new, path).expect("renames");
    true
}

#[tokio::test]
async fn no_edit_by_hand_is_lost_to_a_change_that_is_written_at_the_same_moment() {
    let (local, path) = server().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (client, stop) = (local.clone_client(), stop.clone());
        writers.spawn(async move {
            let authorization = format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN);
            let headers = [("authorization", authorization.as_str())];
            let mut percent = 0;
            while !stop.load(Ordering::Relaxed) {
                percent = (percent + 1) % 100;
                let body = json!({"rolloutPercentage": percent}).to_string();
                let answer = client.send("PATCH", MINE, &headers, &body).await;
                match answer.status {
                    200 => {}
                    503 => assert!(answer.body.contains("edited"), "{}", answer.body),
                    status => panic!("{status} {}", answer.body),
                }
            }
        });
    }
    let edited = path.clone();
    let numbers = tokio::task::spawn_blocking(move || {
        (0..300)
            .filter(|number| add_by_hand(&edited, *number))
            .collect::<Vec<u32>>()
    });
    let numbers = numbers.await.expect("no panic");
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
    let folder = local.folder();
    let mut kept: Vec<Value> = names(folder)
        .iter()
        .filter(|name| name.starts_with("flags.json.conflict"))
        .map(|name| read_json(&folder.join(name)))
        .collect();
    let conflicts = kept.len();
    kept.push(read_json(&path));
    let log = local.log();
    assert_eq!(
        log.matches("the edited file is kept beside it").count(),
        conflicts
    );
    assert!(numbers.len() > 250);
    for number in numbers {
        let key = format!("hand-{number}");
        assert!(
            kept.iter().any(|file| file["flags"].get(&key).is_some()),
            "{key} is in none of {} files",
            kept.len()
        );
    }
}

#[tokio::test]
async fn a_server_killed_during_writes_keeps_every_acknowledged_change() {
    let (mut local, path) = server().await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    for round in 1..=8_u64 {
        // A client without connections to the previous process.
        let client = HttpClient::of(local.base().to_owned());
        let seen = acknowledged.clone();
        let writer = tokio::spawn(async move {
            let authorization = format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN);
            let headers = [("authorization", authorization.as_str())];
            let mut number = seen.load(Ordering::Relaxed);
            loop {
                number += 1;
                let body = json!({"description": number.to_string()}).to_string();
                let request = client.try_send("PATCH", MINE, &headers, &body);
                match request.await {
                    Some(answer) if answer.status == 200 => seen.store(number, Ordering::Relaxed),
                    Some(answer) => panic!("{answer:?}"),
                    None => break,
                }
            }
        });
        let wanted = acknowledged.load(Ordering::Relaxed) + 5 + round;
        eventually("some changes are made", async || {
            acknowledged.load(Ordering::Relaxed) >= wanted
        })
        .await;
        local.kill();
        writer.await.expect("no panic");
        local.restart().await;
        let known = acknowledged.load(Ordering::Relaxed);
        let flag = local.admin("GET", MINE, "").await.json();
        let there: u64 = flag["description"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        // The last change may have been made although its response was lost.
        assert!(
            there == known || there == known + 1,
            "{there} after {known}"
        );
        acknowledged.store(there, Ordering::Relaxed);
        let audit = local
            .admin("GET", "/api/admin/flags/mine/audit", "")
            .await
            .json();
        assert_eq!(
            audit["pagination"]["total"], there,
            "the audit does not contain each change once"
        );
        let newest = &audit["entries"][0]["after"]["description"];
        assert_eq!(newest, &flag["description"], "the two files differ");
        let left = names(local.folder());
        assert_eq!(left, ["flags.json", "flags.json.lock", "flags.json.state"]);
        assert!(read_json(&path).is_object());
    }
}

#[tokio::test]
async fn state_survives_a_restart_and_only_its_owner_can_read_it() {
    let (mut local, path) = server().await;
    let made = local
        .admin(
            "POST",
            "/api/admin/keys",
            r#"{"kind": "server", "name": "shop"}"#,
        )
        .await;
    let key = made.json()["key"].as_str().expect("a key").to_owned();
    let user = json!({"userId": "bob", "overrideType": "include", "reason": "tries it out"});
    let url = "/api/admin/flags/mine/users";
    assert_eq!(
        local.admin("POST", url, &user.to_string()).await.status,
        201
    );
    let plan = json!({"scheduledAt": "2100-01-01T00:00:00Z", "updates": {"enabled": false}});
    let schedule = "/api/admin/flags/mine/schedule";
    assert_eq!(
        local
            .admin("POST", schedule, &plan.to_string())
            .await
            .status,
        201
    );
    let gone = json!({"key": "gone", "enabled": true, "definition": {"variants": {"a": 1}}});
    assert_eq!(
        local
            .admin("POST", "/api/admin/flags", &gone.to_string())
            .await
            .status,
        201
    );
    let headers = [
        (
            "authorization",
            &*format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN),
        ),
        ("if-match", "*"),
    ];
    let archived = local
        .send("DELETE", "/api/admin/flags/gone", &headers, "")
        .await;
    assert_eq!(archived.status, 200, "{archived:?}");
    let context = r#"{"context": {"targetingKey": "bob"}}"#;
    let evaluate = "/ofrep/v1/evaluate/flags/mine";
    assert_eq!(local.evaluate(evaluate, &key, context).await.status, 200);
    let usage = "/api/admin/flags/mine/usage";
    eventually("the evaluation is counted", async || {
        local
            .admin("GET", usage, "")
            .await
            .body
            .contains("\"count\":1")
    })
    .await;
    let questions = [
        "/api/admin/keys",
        url,
        schedule,
        usage,
        "/api/admin/flags?archived=true",
        "/api/admin/environments/production/audit",
        MINE,
    ];
    let mut before = Vec::new();
    for question in questions {
        before.push(local.admin("GET", question, "").await.json());
    }
    local.restart().await;
    for (question, before) in questions.iter().zip(before) {
        let after = local.admin("GET", question, "").await.json();
        assert_eq!(after, before, "{question}");
    }
    assert_eq!(
        local.evaluate(evaluate, &key, context).await.json()["value"],
        true
    );
    let state = path.with_file_name("flags.json.state");
    assert_eq!(mode(&state), 0o600);
    let text = std::fs::read_to_string(&path).expect("a file");
    for word in ["gone", "2100", "tries it out", "shop"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    assert!(text.contains("bob"));
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    local.restart().await;
    assert_eq!(mode(&state), 0o600);
}

#[tokio::test]
async fn a_typed_flag_keeps_its_salt_and_bucketing_in_a_restart() {
    let (mut local, _path) = server().await;
    let token = format!("Bearer {}", pennon_tests::local::ADMIN_TOKEN);
    let headers = [("authorization", token.as_str()), ("if-match", "*")];
    let simple = json!({"rolloutPercentage": 10, "salt": "pepper", "bucketing": "sha256"});
    let typed = json!({"definition": {"variants": {"a": true}}});
    let change = async |local: &Local, body: &Value| {
        let changed = local.send("PATCH", MINE, &headers, &body.to_string()).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    change(&local, &simple).await;
    change(&local, &typed).await;
    local.restart().await;
    change(&local, &json!({"definition": null})).await;
    let flag = local.admin("GET", MINE, "").await.json();
    for (name, value) in simple.as_object().expect("an object") {
        assert_eq!(&flag[name], value, "{name} in {flag}");
    }
}

/// A state file with this number of audit entries.
fn state_with(entries: u32) -> String {
    let mut text = json!({"format": 1, "about": "a test"}).to_string();
    for id in 1..=entries {
        let state = json!({"enabled": true, "rolloutPercentage": id % 100, "description": null});
        let entry = json!({"id": id, "environment": "production", "flagKey": "mine",
            "action": "flag.update", "actor": "me", "at": "2026-01-01T00:00:00.000Z",
            "before": state, "after": state});
        text.push('\n');
        text.push_str(&json!({"records": [{"audit": entry}]}).to_string());
    }
    text.push('\n');
    text
}

/// The bytes that a process has read and written so far.
fn transferred(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some(number("rchar:")? + number("wchar:")?)
}

#[tokio::test]
async fn a_long_audit_is_kept_completely_and_does_not_slow_down_writes() {
    let mut costs = Vec::new();
    for entries in [10, 10_000] {
        let folder = new_folder("flags");
        std::fs::write(folder.join("flags.json"), good()).expect("writes");
        std::fs::write(folder.join("flags.json.state"), state_with(entries)).expect("writes");
        let local = Local::start_in(folder, &[]).await;
        let audit = "/api/admin/flags/mine/audit?pageSize=1";
        let total = local.admin("GET", audit, "").await.json()["pagination"]["total"].clone();
        assert_eq!(total, entries);
        let before = transferred(local.pid());
        for percent in 10..30 {
            let body = json!({"rolloutPercentage": percent}).to_string();
            assert_eq!(local.patch(MINE, &body).await.status, 200);
        }
        let after = transferred(local.pid());
        let answer = local.admin("GET", audit, "").await.json();
        assert_eq!(answer["pagination"]["total"], entries + 20);
        assert_eq!(answer["entries"][0]["id"], entries + 20);
        // Systems without /proc skip the measurement.
        costs.extend(before.zip(after).map(|(before, after)| after - before));
    }
    if let [few, many] = costs[..] {
        assert!(many * 2 <= few * 3, "{many} bytes instead of {few}");
        assert!(few > 1_000, "the measurement of {few} bytes is wrong");
    }
}

/// A file in the format of version 0.1, with every field.
fn old_file() -> Value {
    let hash = "0".repeat(64);
    json!({
        "production": {
            "half": {"enabled": true, "rolloutPercentage": 50, "description": "Half",
                "overrides": {"alice": "include", "bob": "exclude"}},
            "salted": {"enabled": true, "rolloutPercentage": 50, "salt": "s"},
            "off": {"enabled": false, "rolloutPercentage": 100, "description": null},
            "bare": {},
            "a/b ": {"enabled": true, "rolloutPercentage": 100, "description": "x".repeat(600)},
            "typed": {"enabled": true, "rolloutPercentage": 7, "salt": "kept", "definition": {
                "variants": {"red": "#c00", "blue": "#00c"}, "defaultVariant": "red",
                "targeting": {"if": [{"$ref": "gold"}, "blue"]}, "metadata": {"team": "shop"}},
                "overrides": {"carol": {"variant": "blue"}}},
        },
        "staging": {"half": {"enabled": true, "rolloutPercentage": 100}},
        "empty": {},
        "$pennon": {
            "production": {
                "settings": {"evaluators": {"gold": {"==": [{"var": "tier"}, "gold"]}},
                    "fractional": "v2", "metadata": {"owner": "us"}},
                "keys": {(&hash): {"id": "k1", "kind": "client", "name": "page",
                    "createdAt": "2026-01-01T00:00:00.000Z"}},
                "archived": {"gone": {"archivedAt": "2026-02-01T00:00:00.000Z",
                    "flag": {"enabled": false, "rolloutPercentage": 3}}},
                "times": {"half": {"createdAt": "2026-01-02T00:00:00.000Z", "updatedAt": null}},
                "overrides": {"half": {"alice": {"reason": "tries it out", "createdBy": "me",
                    "createdAt": "2026-01-03T00:00:00.000Z"}}},
                "schedules": [{"id": "s1", "flagKey": "half", "status": "pending",
                    "scheduledAt": "2100-01-01T00:00:00.000Z", "updates": {"enabled": false}}],
                "audit": [{"id": 4, "environment": "production", "flagKey": "half",
                    "action": "flag.update", "actor": "me", "at": "2026-01-04T00:00:00.000Z",
                    "before": null, "after": {"enabled": true, "rolloutPercentage": 50}}],
            },
            "staging": {"audit": [{"id": 3, "environment": "staging", "flagKey": null,
                "action": "environment.create", "actor": "me", "at": "2026-01-01T00:00:00.000Z",
                "before": null, "after": null}]},
        },
    })
}

#[tokio::test]
async fn an_old_file_is_converted_once_and_changes_no_result() {
    let old = old_file();
    let folder = new_folder("old");
    let (path, backup) = (folder.join("flags.json"), folder.join("flags.json.bak"));
    let text = serde_json::to_string_pretty(&old).expect("JSON");
    std::fs::write(&path, &text).expect("writes");
    std::fs::write(&backup, "an older backup").expect("writes");
    let mut local = Local::start_in(folder.clone(), &[]).await;
    let second = folder.join("flags.json.bak.2");
    assert_eq!(std::fs::read_to_string(&second).expect("a file"), text);
    assert_eq!(
        std::fs::read_to_string(&backup).expect("a file"),
        "an older backup"
    );
    let file = read_json(&path);
    assert_eq!(file["evaluationDefaults"], "existing");
    assert_eq!(
        file["flags"]["half"]["overrides"],
        json!({"alice": "include", "bob": "exclude"})
    );
    assert_eq!(
        file["environments"]["staging"]["flags"]["half"]["rolloutPercentage"],
        100
    );
    assert_eq!(file["environments"]["empty"], json!({"flags": {}}));
    let names_of_all = names(&folder);
    for _ in 0..2 {
        // By SHA-256, user-8 has bucket 49 in every flag without a salt.
        for (question, key, value) in [
            ("?userId=alice", "half", true),
            ("?userId=bob", "half", false),
            ("?userId=user-8", "half", true),
            ("", "half", true),
            ("", "a/b ", true),
            ("", "off", false),
            ("", "bare", false),
            ("?environment=staging", "half", true),
        ] {
            let flags = local
                .get(&format!("/api/config/flags{question}"))
                .await
                .json();
            assert_eq!(flags[key], value, "{key} {question}");
        }
        for (context, value) in [
            (json!({"targetingKey": "dave"}), "#c00"),
            (json!({"targetingKey": "dave", "tier": "gold"}), "#00c"),
            (json!({"targetingKey": "carol"}), "#00c"),
        ] {
            let body = json!({"context": context}).to_string();
            let path = "/ofrep/v1/evaluate/flags/typed";
            let answer = local
                .evaluate(path, pennon_tests::local::API_KEY, &body)
                .await;
            assert_eq!(answer.json()["value"], value, "{context} {answer:?}");
        }
        let read = async |path: &str| local.admin("GET", path, "").await.json();
        let typed = read("/api/admin/flags/typed").await;
        assert_eq!(
            (&typed["rolloutPercentage"], &typed["salt"]),
            (&json!(7), &json!("kept"))
        );
        let half = read("/api/admin/flags/half").await;
        assert_eq!(half["createdAt"], "2026-01-02T00:00:00.000Z");
        let users = read("/api/admin/flags/half/users").await;
        assert_eq!(users["includes"][0]["reason"], "tries it out");
        assert_eq!(read("/api/admin/flags/half/schedule").await[0]["id"], "s1");
        assert_eq!(
            read("/api/admin/flags?archived=true").await["flags"][0]["key"],
            "gone"
        );
        assert_eq!(read("/api/admin/keys").await["keys"][0]["id"], "k1");
        let settings = read("/api/admin/environments/production/settings").await;
        assert_eq!(settings["fractional"], "v2");
        assert_eq!(settings["metadata"], json!({"owner": "us"}));
        let audit = read("/api/admin/flags/half/audit").await;
        assert_eq!(audit["entries"][0]["id"], 4);
        local.restart().await;
        assert_eq!(names(&folder), names_of_all, "the file was converted again");
    }
    // Flags that violate the current rules keep working, and other flags can be changed.
    let url = "/api/admin/flags/half";
    assert_eq!(
        local.patch(url, r#"{"rolloutPercentage":51}"#).await.status,
        200
    );
    local.restart().await;
    assert_eq!(local.get("/api/config/flags").await.json()["a/b "], true);
    let audit = local
        .admin("GET", "/api/admin/flags/half/audit", "")
        .await
        .json();
    assert_eq!(audit["entries"][0]["id"], 5);
}

#[tokio::test]
async fn unreadable_bytes_of_the_state_file_are_kept_and_reported_until_the_copy_is_removed() {
    let mut local = Local::start(&[]).await;
    let state = local.folder().join("flags.json.state");
    let copy = local.folder().join("flags.json.state.unreadable");
    let whole = std::fs::read(&state).expect("a file");
    let torn = b"{\"records\":[{\"audi".as_slice();
    for (content, unreadable) in [([whole.as_slice(), torn].concat(), torn), (Vec::new(), b"")] {
        local.kill();
        std::fs::write(&state, content).expect("writes");
        local.restart().await;
        assert_eq!(std::fs::read(&copy).expect("a copy"), unreadable);
        assert!(local.log().contains("flags.json.state.unreadable"));
        for _ in 0..2 {
            let health = local.get("/health").await.json();
            assert_eq!(health["status"], "degraded", "{health}");
            let message = health["message"].as_str().expect("a reason");
            assert!(message.contains("flags.json.state.unreadable"), "{health}");
            local.restart().await;
        }
        std::fs::remove_file(&copy).expect("removed");
        assert_eq!(local.get("/health").await.json()["status"], "healthy");
    }
}

/// Reads a flag until the response comes from memory and Redis has confirmed it. Each response must have this
/// percentage.
async fn read_until_cached(local: &Local, expected: i64) {
    eventually("an entry in Redis", async || {
        let answer = local.get("/api/config/flags/mine").await;
        assert_eq!(percentage(&answer), expected);
        answer.source() == "memory"
    })
    .await;
}

#[tokio::test]
async fn an_edit_applies_from_the_next_request_on_with_redis_too() {
    const STAGING: &str = "/api/config/flags/mine?environment=staging";
    let redis = Redis::start();
    let url = redis.url();
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    let edit = |percent: u8, environments: &str| {
        let flags = json!({"mine": {"state": "ENABLED", "rolloutPercentage": percent}}).to_string();
        let text = format!(r#"{{"flags": {flags}, "environments": {environments}}}"#);
        std::fs::write(&path, text).expect("writes");
    };
    edit(5, "{}");
    let mut environment = vec![("REDIS_URL", url.as_str())];
    environment.extend(LONG_CACHE_TIMEOUTS);
    let mut local = Local::start_in(folder, &environment).await;
    read_until_cached(&local, 5).await;
    assert_eq!(local.get(STAGING).await.status, 404);

    let staging =
        r#"{"staging": {"flags": {"mine": {"state": "ENABLED", "rolloutPercentage": 100}}}}"#;
    edit(6, staging);
    assert_eq!(percentage(&local.get(STAGING).await), 100);
    read_until_cached(&local, 6).await;

    // An edit while no server runs. The entry in Redis remains.
    local.kill();
    edit(7, staging);
    assert!(redis.has_entry());
    local.restart().await;
    read_until_cached(&local, 7).await;
}
