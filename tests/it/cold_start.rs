//! Cold starts: with and without Redis, with secrets, and with invalid settings.

use std::time::{Duration, Instant};

use pennon_tests::event::Event;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::{Server, connect, migrate};
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::{Stack, percentage};
use pennon_tests::topology::Topology;
use pennon_tests::wire::{BlackHole, Mode};
use serde_json::json;

async fn a_cold_start_connects_to_redis_before_the_first_request(on: Topology) {
    let stack = Stack::start_on(on).await;
    let get = stack.function("get-flag").await;
    assert!(get.has_logged(on.success()));
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert_eq!(get.last_request()["cold_start"], 1);
    get.call(&Event::get("checkout")).await;
    assert_eq!(get.last_request()["cold_start"], 0);
}

async fn a_cold_start_without_redis_answers_from_the_database_and_connects_later(on: Topology) {
    for mode in [Mode::Refuse, Mode::Hang] {
        let stack = Stack::start_on(on).await.with_default_cache_timeouts();
        stack.redis.set(mode.clone()).await;
        let get = stack.function("get-flag").await;
        assert!(get.has_logged(on.failure()), "{mode:?}");
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!((percentage(&answer), answer.source()), (50, "database"));
        stack.redis.set(Mode::Open).await;
        pennon_tests::eventually("connected within later requests", async || {
            get.call(&Event::get("checkout")).await.source() == "memory"
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_hangs_times_out() {
    let hole = BlackHole::open();
    let stack = Stack::start().await.with_default_cache_timeouts();
    for scheme in ["redis", "redis-cluster"] {
        let url = format!("{scheme}://127.0.0.1:{}", hole.port());
        // Without a limit, the system would try to connect for more than two minutes.
        let get = stack
            .function_with("get-flag", &[("REDIS_URL", &url)])
            .await;
        for _ in 0..3 {
            assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
            assert_eq!(get.last_request()["cache_unavailable"], 1, "{scheme}");
        }
    }
}

async fn ten_cold_starts_at_once_all_succeed(on: Topology) {
    let stack = Stack::start_on(on).await;
    let starts = (0..10).map(|_| async {
        let get = stack.function("get-flag").await;
        percentage(&get.call(&Event::get("checkout")).await)
    });
    for percent in join_all(starts).await {
        assert_eq!(percent, 50);
    }
}

#[tokio::test]
async fn an_invalid_url_is_logged_and_the_database_answers() {
    let stack = Stack::start().await;
    let database = stack.database.url();
    for (name, url, named) in [
        ("REDIS_URL", "localhost:6379", "REDIS_URL"),
        ("REDIS_URL", "http://:hunter2@x", "REDIS_URL"),
        (
            "REDIS_CLUSTER_URL",
            "redis://:hunter2@x/one",
            "REDIS_CLUSTER_URL or REDIS_URL_CLUSTER",
        ),
        (
            "REDIS_CLUSTER_URL",
            "redis://:hunter2@x/5",
            "REDIS_CLUSTER_URL or REDIS_URL_CLUSTER",
        ),
    ] {
        let get = Function::start("get-flag", &[(name, url), ("DATABASE_URL", &database)]).await;
        let message = format!("Invalid URL in {named}");
        assert!(get.has_logged(&message), "{url}: {}", get.log());
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        assert!(!get.log().contains("hunter2"));
        let health = Function::start("health", &[(name, url), ("DATABASE_URL", &database)]).await;
        let answer = health.call(&Event::load("health")).await;
        assert_eq!(answer.json()["services"]["cache"], "unhealthy");
    }
}

#[tokio::test]
async fn the_database_answers_if_the_endpoint_does_not_resolve() {
    let stack = Stack::start().await;
    for scheme in ["redis", "redis-cluster"] {
        let get = Function::start(
            "get-flag",
            &[
                (
                    "REDIS_URL",
                    &format!("{scheme}://no-such-host.invalid:6379"),
                ),
                ("DATABASE_URL", &stack.database.url()),
            ],
        )
        .await;
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    }
}

#[tokio::test]
async fn urls_come_from_secrets_manager_and_are_fetched_once() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let redis = manager.create("redis", &stack.redis_url()).await;
    let database = manager.create("database", &stack.database_url()).await;
    let environment = [
        ("REDIS_SECRET_ARN", redis.as_str()),
        ("DATABASE_SECRET_ARN", database.as_str()),
    ];
    let get = manager.function("get-flag", &environment).await;
    assert!(get.has_logged("Redis connected"));
    for _ in 0..3 {
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    }
    assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
    // moto's log has no action names; each call is one POST.
    let calls = manager.log().matches("POST").count();
    assert_eq!(calls - manager.own_calls(), 2, "not one call per secret");
    assert!(!get.log().contains("postgres://"), "a URL in the log");
}

#[tokio::test]
async fn a_missing_secret_is_logged_with_a_remedy() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let missing = "arn:aws:secretsmanager:us-east-1:123456789012:secret:nowhere-AbCdEf";
    let get = manager
        .function(
            "get-flag",
            &[
                ("REDIS_SECRET_ARN", missing),
                ("DATABASE_URL", &stack.database_url()),
            ],
        )
        .await;
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert!(
        get.log()
            .contains("does not exist or has no value; check the ARN"),
        "{}",
        get.log()
    );
}

#[tokio::test]
async fn an_invalid_secret_is_not_printed() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let nonsense = manager.create("redis", "hunter2").await;
    let get = manager
        .function(
            "get-flag",
            &[
                ("REDIS_SECRET_ARN", &nonsense),
                ("DATABASE_URL", &stack.database_url()),
            ],
        )
        .await;
    let named = format!("Invalid URL in secret {nonsense}");
    assert!(get.has_logged(&named), "{}", get.log());
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert!(!get.log().contains("hunter2"));
    let get = manager
        .function("get-flag", &[("DATABASE_SECRET_ARN", &nonsense)])
        .await;
    let log = get.log();
    assert!(log.contains(&named) && !log.contains("hunter2"), "{log}");
}

/// A function that reads the URL of Redis from a Secrets Manager at this port.
async fn with_secrets_manager_at(port: u16, stack: &Stack) -> Function {
    Function::start(
        "get-flag",
        &[
            (
                "AWS_ENDPOINT_URL_SECRETS_MANAGER",
                &format!("http://127.0.0.1:{port}"),
            ),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            (
                "REDIS_SECRET_ARN",
                "arn:aws:secretsmanager:us-east-1:1:secret:redis-AbCdEf",
            ),
            ("DATABASE_URL", &stack.database_url()),
        ],
    )
    .await
}

#[tokio::test]
async fn an_instance_works_while_secrets_manager_denies_or_does_not_answer() {
    let stack = Stack::start().await;
    let denied = pennon_tests::wire::answering(
        "HTTP/1.1 400 Bad Request\r\nx-amzn-errortype: AccessDeniedException\r\n\
         content-type: application/x-amz-json-1.1\r\ncontent-length: 34\r\n\r\n\
         {\"__type\":\"AccessDeniedException\"}",
    )
    .await;
    let silent = pennon_tests::wire::answering("").await;
    for (port, word) in [
        (denied, "is denied; grant"),
        (silent, "cannot be reached"),
        (1, "cannot be reached"),
    ] {
        let started = Instant::now();
        let get = with_secrets_manager_at(port, &stack).await;
        assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
        assert!(get.log().contains(word), "{word}: {}", get.log());
        let limit = Duration::from_secs(8);
        assert!(
            started.elapsed() < limit,
            "the cold start took {:?}",
            started.elapsed()
        );
    }
}

#[tokio::test]
async fn a_throttled_read_of_a_secret_is_repeated() {
    let stack = Stack::start().await;
    let response = |status: &str, body: &serde_json::Value| {
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let throttled = response(
        "400 Bad Request",
        &json!({"__type": "com.amazonaws.secretsmanager#ThrottlingException"}),
    );
    let found = response("200 OK", &json!({"SecretString": stack.redis_url()}));
    for (answers, connects) in [
        (vec![throttled.clone(), found.clone()], true),
        (vec![throttled.clone(), throttled, found], false),
    ] {
        let port = pennon_tests::wire::answering_in_turn(answers).await;
        let get = with_secrets_manager_at(port, &stack).await;
        assert_eq!(get.has_logged("Redis connected"), connects, "{}", get.log());
        let reason = "cannot be read: ThrottlingException";
        assert_eq!(get.log().contains(reason), !connects, "{}", get.log());
    }
}

#[tokio::test]
async fn a_secret_that_arrives_late_but_within_its_limits_is_waited_for() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let redis = manager.create("redis", &stack.redis_url()).await;
    let database = manager.create("database", &stack.database_url()).await;
    let (slow, endpoint) = manager.behind_a_wire();
    // Headers and body may arrive separately, and each is delayed: one attempt has 1.5 s.
    slow.set(Mode::Delay(Duration::from_millis(500))).await;
    let get = manager
        .function(
            "get-flag",
            &[
                ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint),
                ("REDIS_SECRET_ARN", &redis),
                ("DATABASE_SECRET_ARN", &database),
            ],
        )
        .await;
    assert!(get.has_logged("Redis connected"), "{}", get.log());
    assert_eq!(percentage(&get.call(&Event::get("checkout")).await), 50);
    assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
}

#[tokio::test]
async fn a_secret_that_arrives_too_late_is_read_in_a_later_request() {
    let stack = Stack::start().await;
    let manager = SecretsManager::start().await;
    let redis = manager.create("redis", &stack.redis_url()).await;
    let database = manager.create("database", &stack.database_url()).await;
    for (name, arn, other) in [
        (
            "REDIS_SECRET_ARN",
            &redis,
            ("DATABASE_URL", stack.database_url()),
        ),
        (
            "DATABASE_SECRET_ARN",
            &database,
            ("REDIS_URL", stack.redis_url()),
        ),
    ] {
        let (slow, endpoint) = manager.behind_a_wire();
        slow.set(Mode::Delay(Duration::from_secs(60))).await;
        stack.redis.command(&["FLUSHALL"]);
        let started = Instant::now();
        let get = manager
            .function(
                "get-flag",
                &[
                    ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint),
                    ("REDIS_SECRET_REFRESH_SECONDS", "30"),
                    (name, arn),
                    (other.0, &other.1),
                ],
            )
            .await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(8), "{name}: {took:?}");
        assert!(get.log().contains("cannot be reached"), "{}", get.log());
        let answer = get.call(&Event::get("checkout")).await;
        if name == "REDIS_SECRET_ARN" {
            assert_eq!((percentage(&answer), answer.source()), (50, "database"));
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        slow.set(Mode::Open).await;
        pennon_tests::eventually("the secret is read", async || {
            let answer = get.call(&Event::get("checkout")).await;
            answer.status == 200 && answer.source() == "memory"
        })
        .await;
        // An instance with a configured Redis answers from memory only if there is an entry with the revision.
        assert!(stack.redis.has_entry(), "{name}: {}", get.log());
        assert!(!get.log().contains("postgres://"), "a URL in the log");
    }
}

#[tokio::test]
async fn a_database_secret_that_comes_late_or_is_rotated_is_read_again() {
    // Only the login `service` needs a password.
    let server = Server::start(&[], |folder| {
        let rules = "host all service all scram-sha-256\nhost all all all trust\n";
        std::fs::write(folder.join("data/pg_hba.conf"), rules).expect("writes");
    })
    .await;
    let plain = server.url("postgres");
    migrate(&plain).await;
    let sql = connect(&plain).await.expect("connects");
    sql.batch_execute(
        "create role service superuser login password 'hunter1';
         insert into feature_flags (flag_key, enabled, rollout_percentage)
         values ('checkout', true, 1)",
    )
    .await
    .expect("a role and a flag");
    let url = |password: &str| plain.replace("//pennon@", &format!("//service:{password}@"));

    let manager = SecretsManager::start().await;
    // moto also accepts a secret's name, and the ARN is known only after its creation.
    let get = manager
        .function("get-flag", &[("DATABASE_SECRET_ARN", "late")])
        .await;
    assert_eq!(get.call(&Event::get("checkout")).await.status, 503);
    let arn = manager.create("late", &url("hunter1")).await;
    pennon_tests::eventually("the secret that came late is read", async || {
        get.call(&Event::get("checkout")).await.status == 200
    })
    .await;

    manager.change(&arn, &url("hunter2")).await;
    sql.batch_execute(
        "alter role service password 'hunter2';
         update feature_flags set rollout_percentage = 2;
         select pg_terminate_backend(pid) from pg_stat_activity where usename = 'service'",
    )
    .await
    .expect("a rotation");
    pennon_tests::eventually("the rotated password is read", async || {
        percentage(&get.call(&Event::get("checkout")).await) == 2
    })
    .await;
    assert!(!get.log().contains("hunter"), "{}", get.log());
}

on_every_redis!(
    a_cold_start_connects_to_redis_before_the_first_request,
    a_cold_start_without_redis_answers_from_the_database_and_connects_later,
    ten_cold_starts_at_once_all_succeed,
);
