//! The local server: what a newcomer meets first.

use pennon_tests::eventually;
use pennon_tests::local::Local;
use pennon_tests::process::new_folder;
use pennon_tests::stack::{Stack, percentage};
use serde_json::json;

#[tokio::test]
async fn it_starts_with_sample_flags_in_a_file_and_says_what_to_try() {
    let local = Local::start(&[]).await;
    let flags = local.get("/api/config/flags").await;
    assert_eq!(flags.status, 200);
    assert!(
        flags
            .json()
            .as_object()
            .is_some_and(|flags| flags.len() >= 3)
    );
    let log = local.log();
    assert!(log.contains(local.base()), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log:?}");
    assert!(log.contains("curl"), "{log}");
    assert!(
        !log.contains(pennon_tests::local::ADMIN_TOKEN),
        "a token that was given is not told"
    );
}

#[tokio::test]
async fn a_flag_is_turned_up_and_down_and_the_file_keeps_it() {
    let local = Local::start(&[]).await;
    let url = "/api/admin/flags/new-checkout";
    assert_eq!(
        percentage(&local.patch(url, r#"{"rolloutPercentage":60}"#).await),
        60
    );
    let state = local.get("/api/config/flags/new-checkout").await;
    assert_eq!(percentage(&state), 60);
    assert_eq!(
        percentage(&local.patch(url, r#"{"rolloutPercentage":0}"#).await),
        0
    );
    let text = std::fs::read_to_string(local.folder().join("flags.json")).expect("a file");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(file["production"]["new-checkout"]["rolloutPercentage"], 0);
}

#[tokio::test]
async fn an_edit_of_the_file_shows_and_a_mistake_in_it_loses_nothing() {
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    let write = |percent: u32| {
        std::fs::write(
            &path,
            json!({"production": {"mine": {"enabled": true, "rolloutPercentage": percent}}})
                .to_string(),
        )
        .expect("writes");
    };
    write(5);
    let local = Local::start_in(folder, &[]).await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 5);
    write(66);
    eventually("the edit shows", async || {
        percentage(&local.get("/api/config/flags/mine").await) == 66
    })
    .await;
    std::fs::write(&path, "{ \"production\": { oops").expect("writes");
    let answer = local.get("/api/config/flags/mine").await;
    assert_eq!((percentage(&answer), answer.source()), (66, "stale"));
    let answer = local.patch("/api/admin/flags/mine", "{}").await;
    assert_eq!(answer.status, 503, "and the mistake is not overwritten");
    assert!(
        local.log().contains("is not as it should be"),
        "{}",
        local.log()
    );
    write(7);
    eventually("the mended file shows", async || {
        percentage(&local.get("/api/config/flags/mine").await) == 7
    })
    .await;
}

#[tokio::test]
async fn every_route_answers_with_and_without_its_prefix() {
    let local = Local::start(&[]).await;
    for path in [
        "/api/config/flags",
        "/config/flags",
        "/api/config/flags/dark-mode",
        "/config/flags/dark-mode",
        "/health",
        "/api/health",
        "/health/live",
        "/api/health/ready",
    ] {
        assert_eq!(local.get(path).await.status, 200, "{path}");
    }
    for path in ["/api/admin/flags/dark-mode", "/admin/flags/dark-mode"] {
        assert_eq!(local.patch(path, "{}").await.status, 200, "{path}");
    }
    for (path, status) in [
        ("/", 200),
        ("/api", 200),
        ("/x", 404),
        ("/api/admin/x", 401),
    ] {
        assert_eq!(local.get(path).await.status, status, "{path}");
    }
    let deleted = local
        .send("DELETE", "/api/config/flags/dark-mode", &[], "")
        .await;
    assert_eq!(
        (deleted.status, deleted.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    let lost = local.get("/x/config/flags").await;
    assert_eq!(
        (lost.status, lost.json()),
        (404, json!({"error": "Not found"}))
    );
}

#[tokio::test]
async fn the_admin_token_is_needed_and_nothing_else_will_do() {
    let local = Local::start(&[]).await;
    let path = "/api/admin/flags/dark-mode";
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer ")],
        &[("authorization", pennon_tests::local::ADMIN_TOKEN)],
    ] {
        let answer = local
            .send("PATCH", path, headers, r#"{"enabled":false}"#)
            .await;
        assert_eq!(answer.status, 401, "{headers:?}");
    }
    assert_eq!(
        local.get("/api/config/flags/dark-mode").await.json()["enabled"],
        true
    );
}

#[tokio::test]
async fn a_user_can_be_named_and_paths_are_decoded() {
    let local = Local::start(&[]).await;
    let alice = local.get("/api/config/flags?userId=alice").await.json();
    assert_eq!(alice["beta-search"], true, "included by name");
    let nobody = local.get("/api/config/flags").await.json();
    assert_eq!(nobody["beta-search"], false);
    assert_eq!(local.get("/api/config/flags/dark%2Dmode").await.status, 200);
    assert_eq!(local.get("/api/config/flags/%00").await.status, 400);
    assert_eq!(local.get("/api/config/flags/%FF%FE").await.status, 404);
}

#[tokio::test]
async fn a_body_too_large_is_413_and_the_server_lives() {
    let local = Local::start(&[]).await;
    let answer = local
        .patch("/api/admin/flags/dark-mode", &"x".repeat(4_000_001))
        .await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("4000000 bytes"), "{}", answer.body);
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    let answer = local
        .patch("/api/admin/flags/dark-mode", &"x".repeat(3_900_000))
        .await;
    assert_eq!(answer.status, 400, "no larger than that, and no JSON");
    assert!(answer.body.contains("line 1 column 1"), "{}", answer.body);
    assert_eq!(local.get("/health").await.status, 200);
}

#[tokio::test]
async fn with_urls_it_migrates_the_database_and_uses_the_cache() {
    let stack = Stack::start().await;
    let empty = pennon_tests::postgres::Database::create_empty().await;
    let local = Local::start(&[
        ("DATABASE_URL", &empty.url()),
        ("REDIS_URL", &stack.redis.url()),
    ])
    .await;
    assert_eq!(local.get("/api/config/flags").await.body, "{}");
    empty.add_flag("mine", true, 10).await;
    stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
    let answer = local.get("/api/config/flags/mine").await;
    assert_eq!((percentage(&answer), answer.source()), (10, "database"));
    assert_eq!(local.get("/api/config/flags/mine").await.source(), "memory");
    let health = local.get("/health").await.json();
    assert_eq!(
        health["services"],
        json!({"database": "healthy", "cache": "healthy"})
    );
}
