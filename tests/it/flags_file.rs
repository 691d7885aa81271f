//! A file of flags that somebody edits by hand, with the mistakes that people make.

use std::path::PathBuf;

use pennon_tests::eventually;
use pennon_tests::local::Local;
use pennon_tests::process::new_folder;
use serde_json::json;

fn good() -> String {
    json!({"production": {"mine": {"enabled": true, "rolloutPercentage": 5}}}).to_string()
}

/// A server whose file was good when it started.
async fn server() -> (Local, PathBuf) {
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    std::fs::write(&path, good()).expect("writes");
    (Local::start_in(folder, &[]).await, path)
}

#[tokio::test]
async fn what_would_be_lost_or_misunderstood_is_refused_and_stays_in_the_file() {
    let (local, path) = server().await;
    for (text, words) in [
        (
            r#"{"production": {"mine": {"enabled": true, "rollout": 5}}}"#,
            &["'mine'", "'production'", "rollout", "line 1"][..],
        ),
        (
            r#"{"production": {"mine": {"variants": {}}}}"#,
            &["'mine'", "variants"],
        ),
        (
            "{\"production\": {\n\"mine\": {\"definition\": {\"variants\": {}}}}}",
            &["'mine'", "must have a variant", "line 2"],
        ),
        (
            r#"{"production": {"mine": {"definition": {"variants": {"a": 1}, "default": "a"}}}}"#,
            &["'mine'", "default"],
        ),
        (
            r#"{"production": {"mine": {"rolloutPercentage": 101}}}"#,
            &["'mine'", "0 to 100"],
        ),
        (r#"{"pro duction": {}}"#, &["'pro duction'", "environment"]),
        (
            r#"{"production": {"": {}}}"#,
            &["'production'", "flag key is not empty"],
        ),
    ] {
        std::fs::write(&path, text).expect("writes");
        let answer = local.patch("/api/admin/flags/mine", "{}").await;
        assert_eq!(answer.status, 503, "{text} {answer:?}");
        let message = answer.json()["message"].to_string();
        for word in words.iter().chain(&["flags.json", "line"]) {
            assert!(message.contains(word), "{word} in {message}");
        }
        let kept = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(kept, text, "and nothing is written");
        assert!(local.log().contains(words[0]), "{}", local.log());
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_healthy_store() {
    let (local, path) = server().await;
    assert_eq!(local.get("/health/ready").await.status, 200);
    std::fs::write(&path, "{ \"production\": { oops").expect("writes");
    let health = local.get("/health").await;
    assert_eq!(health.status, 200);
    let body = health.json();
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["services"]["database"], "unhealthy");
    let ready = local.get("/health/ready").await;
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (503, Some("not_ready"))
    );
    let list = local.admin("GET", "/api/admin/flags", "").await;
    assert_eq!(list.status, 503);
    assert!(list.body.contains("flags.json"), "{}", list.body);
    std::fs::remove_file(&path).expect("removes");
    assert_eq!(local.get("/health/ready").await.status, 503);
    std::fs::write(&path, good()).expect("writes");
    eventually("the mended file counts", async || {
        local.get("/health/ready").await.status == 200
    })
    .await;
}
