//! Secrets never appear in logs or responses, whatever fails. Callers without a key or with a client key never see
//! server-only flags.

use pennon_core::http::{Authorization, ENDPOINTS};
use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES};
use pennon_tests::issuer::{Issuer, SigningKey, encode};
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::redis::Redis;
use pennon_tests::response::Response;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::Stack;
use pennon_tests::topology::WiredRedis;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

use crate::tidy;

/// Passwords and tokens that occur nowhere else.
const REDIS_PASSWORD: &str = "canaryRedisPassword7Qx";
const OLD_REDIS_PASSWORD: &str = "canaryOldRedisPassword3Vd";
const DATABASE_PASSWORD: &str = "canaryDatabasePassword9Lm";
const AWS_SECRET_KEY: &str = "canaryAwsSecretKey2Jh";
const AWS_SESSION: &str = "canaryAwsSession5Rb";
const MAC_KEY: &str = "canaryMacKeyOfTheEntriesInTheCache8Wp";
const ADMIN_TOKEN_END: &str = "canaryAdminTokenSignature4Zt";

/// The level TRACE for Pennon and for the libraries that see secrets. By itself, `trace` applies to Pennon only.
const TRACE: &str = "trace,hyper=trace,rustls=trace,tokio=trace,lambda=trace,aws=trace,tower=trace,fred=trace,\
    lambda_runtime=trace,lambda_runtime::layers=trace";

/// All secrets of a test, and the forms in which a log or a response could show them.
struct Secrets(Vec<String>);

impl Secrets {
    fn of(secrets: &[&str]) -> Self {
        let with_forms = secrets.iter().flat_map(|secret| {
            // Redis and HTTP have logins of the form user:password.
            [
                (*secret).to_owned(),
                encode(secret.as_bytes()),
                encode(format!(":{secret}").as_bytes()),
            ]
        });
        Self(with_forms.collect())
    }

    fn check(&self, what: &str, text: &str) {
        for secret in &self.0 {
            if let Some(at) = text.find(secret.as_str()) {
                let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let to = text[at..].find('\n').map_or(text.len(), |end| at + end);
                panic!("{secret} in {what}: {}", &text[from..to]);
            }
        }
    }
}

async fn secured_stack() -> Stack {
    let redis = Redis::start_with(&["--requirepass", REDIS_PASSWORD]);
    Stack::start_with(WiredRedis::of(redis.with_password(REDIS_PASSWORD))).await
}

/// The URLs of Redis, of Redis with a wrong password, and of the database, which accepts any password.
fn urls(stack: &Stack) -> [String; 3] {
    let (redis, database) = (stack.redis_url(), stack.database_url());
    let of_redis = |password| redis.replacen("://", &format!("://:{password}@"), 1);
    let login = format!("pennon:{DATABASE_PASSWORD}@");
    [
        of_redis(REDIS_PASSWORD),
        of_redis(OLD_REDIS_PASSWORD),
        database.replacen("pennon@", &login, 1),
    ]
}

/// Sends all events of a function, with valid and invalid credentials in headers, and checks every response. An
/// invocation may fail.
async fn call_everything(function: &Function, name: &str, keys: &[String], planted: &Secrets) {
    let mut events = Vec::new();
    for (file, function_of_file, _status) in REQUEST_FILES {
        if function_of_file != name {
            continue;
        }
        let event = Event::load(file);
        let admin = format!("Bearer e30.e30.{ADMIN_TOKEN_END}");
        events.push(event.clone().header("authorization", &admin));
        events.push(event.clone().header("authorization", &format!("{admin}\n")));
        events.push(event.clone().header("authorization", ADMIN_TOKEN_END));
        for key in keys {
            events.push(event.clone().api_key(key));
            events.push(event.clone().anonymous().header("x-api-key", key));
            events.push(event.clone().header("x-api-key", &key[..key.len() - 1]));
        }
    }
    let mut bodies: Vec<Value> = events.iter().map(|event| event.value().clone()).collect();
    if events.is_empty() {
        bodies.push(Event::load(name).value().clone());
        bodies.push(json!({"awslogs": {"data": "%%%"}}));
    }
    for event in bodies {
        let answer = match function.invoke(&event).await {
            Ok(answer) | Err(answer) => answer,
        };
        planted.check(&format!("an answer of {name}"), &answer.to_string());
        // A new key is shown in the response, once, and never in the log.
        let body = answer["body"].as_str().unwrap_or_default();
        let made: Value = serde_json::from_str(body).unwrap_or_default();
        if let Some(key) = made["key"]
            .as_str()
            .filter(|key| key.starts_with("pennon_"))
        {
            assert!(!function.log().contains(key), "a new key in the log");
        }
    }
}

async fn start(manager: &SecretsManager, name: &str, environment: &[(&str, &str)]) -> Function {
    if name == "pre-traffic" {
        // Its calls to AWS fail, but are signed.
        let nowhere = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        Function::start(name, &[environment, &[nowhere]].concat()).await
    } else {
        manager.function(name, environment).await
    }
}

#[tokio::test]
async fn trace_logs_and_responses_hold_no_secret_whatever_fails() {
    let stack = secured_stack().await.with_default_timeouts();
    let keys = ["server", "client"].map(|kind| {
        let random = format!("canary{kind}Key").repeat(5);
        format!("pennon_{kind}_production_{}", &random[..43])
    });
    for key in &keys {
        stack.database.add_key(key).await;
    }
    let signing = SigningKey::p256();
    let issuer = Issuer::start(&[signing.public("k1")]).await;
    let header = json!({"alg": signing.algorithm(), "kid": "k1", "typ": "JWT"});
    let token = signing.sign(&header, &issuer.claims("alice"));
    let token_end = token.rsplit('.').next().expect("a signature");
    let planted = Secrets::of(&[
        REDIS_PASSWORD,
        OLD_REDIS_PASSWORD,
        DATABASE_PASSWORD,
        AWS_SECRET_KEY,
        AWS_SESSION,
        MAC_KEY,
        ADMIN_TOKEN_END,
        token_end,
        &keys[0][keys[0].len() - 43..],
        &keys[1][keys[1].len() - 43..],
    ]);

    let [redis_url, old_redis_url, database_url] = urls(&stack);
    let manager = SecretsManager::start().await;
    let redis_arn = manager.create("redis", &redis_url).await;
    let database_arn = manager.create("database", &database_url).await;
    let nonsense = format!("postgres/:{DATABASE_PASSWORD}@nowhere");
    let nonsense_arn = manager.create("nonsense", &nonsense).await;
    let document = json!({"username": "pennon", "password": DATABASE_PASSWORD}).to_string();
    let document_arn = manager.create("document", &document).await;

    let mut common = vec![
        ("AWS_LAMBDA_LOG_LEVEL", TRACE),
        ("PRE_TRAFFIC_RETRY_LIMIT_MS", "0"),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET_KEY),
        ("AWS_SESSION_TOKEN", AWS_SESSION),
        ("CACHE_MAC_KEY", MAC_KEY),
        (
            "MIGRATE_FUNCTION_ARN",
            "arn:aws:lambda:us-east-1:1:function:m:4",
        ),
        (
            "HEALTH_FUNCTION_ARN",
            "arn:aws:lambda:us-east-1:1:function:h:7",
        ),
    ];
    common.extend(issuer.environment());
    let plain = [("REDIS_URL", &*redis_url), ("DATABASE_URL", &*database_url)];
    let by_secrets = [
        ("REDIS_SECRET_ARN", &*redis_arn),
        ("DATABASE_SECRET_ARN", &*database_arn),
    ];
    let wrong = [
        ("REDIS_URL", &*old_redis_url),
        ("DATABASE_SECRET_ARN", &*document_arn),
    ];
    let unreadable = [
        ("REDIS_SECRET_ARN", &*nonsense_arn),
        ("DATABASE_URL", &*nonsense),
    ];
    let run = async |name: &String, function: &Function| {
        call_everything(function, name, &keys, &planted).await;
        if ["list-flags", "get-flag"].contains(&name.as_str()) {
            let event = Event::list().api_key(&token);
            let answer = function.call(&event).await;
            planted.check("a response to a user token", &format!("{answer:?}"));
        }
        let log = function.log();
        planted.check(&format!("the log of {name}"), &log);
        log.matches("\"level\":\"TRACE\"").count()
    };
    let mut traced = 0;
    let names: Vec<String> = tidy::functions().into_iter().collect();
    for (settings, mode) in [
        (&plain[..], Mode::Open),
        (&by_secrets, Mode::Open),
        (&wrong, Mode::Open),
        (&unreadable, Mode::Open),
        (&plain, Mode::Refuse),
        (&plain, Mode::CutReply(3)),
    ] {
        let environment = [&common[..], settings].concat();
        // Most of the time a function waits for a dependency that does not answer, so six functions are tested at the
        // same time.
        for names in names.chunks(6) {
            let started =
                join_all(names.iter().map(|name| start(&manager, name, &environment))).await;
            stack.redis.set(mode.clone()).await;
            stack.database_wire.set(mode.clone()).await;
            let runs = names.iter().zip(&started);
            traced += join_all(runs.map(|(name, function)| run(name, function)))
                .await
                .iter()
                .sum::<usize>();
            stack.redis.set(Mode::Open).await;
            stack.database_wire.set(Mode::Open).await;
        }
    }
    assert!(traced > 1_000, "{traced} lines at the level TRACE");
}

#[tokio::test]
async fn the_trace_log_of_the_local_server_holds_no_secret() {
    let stack = secured_stack().await;
    let [redis_url, _, database_url] = urls(&stack);
    let key = format!("pennon_server_production_{}", "canaryServerKey".repeat(3));
    let key = &key[..key.len() - 2];
    stack.database.add_key(key).await;
    let planted = Secrets::of(&[REDIS_PASSWORD, DATABASE_PASSWORD, &key[key.len() - 43..]]);
    let environment = [
        ("REDIS_URL", &*redis_url),
        ("DATABASE_URL", &*database_url),
        ("RUST_LOG", TRACE),
    ];
    let local = Local::start(&environment).await;
    for mode in [Mode::Open, Mode::CutReply(3), Mode::Refuse] {
        stack.redis.set(mode.clone()).await;
        stack.database_wire.set(mode).await;
        let answer = local.get("/api/config/flags").await;
        planted.check("an answer", &answer.body);
        let path = "/ofrep/v1/evaluate/flags";
        let answer = local.evaluate(path, key, "{}").await;
        planted.check("an answer", &answer.body);
    }
    planted.check("the log of the local server", &local.log());
}

#[tokio::test]
async fn no_public_route_reveals_a_server_only_flag_to_a_client_key_or_without_a_key() {
    let stack = Stack::start().await;
    let client = format!("pennon_client_production_{}", "c".repeat(43));
    stack.database.add_key(&client).await;
    let hidden = json!({
        "variants": {"on": "canaryValue", "off": "canaryOther"}, "defaultVariant": "on",
        "targeting": {"if": [{"==": [{"var": "plan"}, "canaryPlan"]}, "off", null]},
        "metadata": {"serverOnly": true, "note": "canaryNote"},
    });
    let broken = json!({
        "variants": {"on": 1}, "targeting": {"canaryOperator": []}, "metadata": {"serverOnly": true},
    });
    for (key, definition) in [("canaryFlag", &hidden), ("canaryBroken", &broken)] {
        stack.database.add_typed_flag(key, definition).await;
    }
    let context = json!({"context": {"targetingKey": "alice", "plan": "canaryPlan"}}).to_string();
    let mut routes = 0;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| !endpoint.is_admin()) {
        routes += 1;
        let function = stack.function(endpoint.function).await;
        let ask = async |method: &str, flag: &str, key: Option<&str>| {
            let event = Event::by_route(method, endpoint.path, "", &[("flagKey", flag)]);
            // With the body of an SDK, which other routes ignore.
            let event = event.anonymous().body(&context);
            let event = match key {
                Some(key) => event.api_key(key),
                None => event,
            };
            function.call(&event).await
        };
        for key in [None, Some(client.as_str())] {
            for method in [endpoint.method, "HEAD", "OPTIONS"] {
                for flag in ["canaryFlag", "canaryBroken"] {
                    let place = format!("{method} {} with {key:?}", endpoint.path);
                    let answer = ask(method, flag, key).await;
                    // An unknown flag whose key has the same length, so that `Content-Length` is the same.
                    let unknown_flag = flag.replace("canary", "nobody");
                    let unknown = ask(method, &unknown_flag, key).await;
                    let seen = |answer: &Response, flag: &str| {
                        let mut headers = answer.headers.clone();
                        // This header names the source of the flags, not whether the flag exists.
                        headers.remove("x-cache-source");
                        (answer.status, answer.body.replace(flag, "-"), headers)
                    };
                    let (found, other) = (seen(&answer, flag), seen(&unknown, &unknown_flag));
                    if endpoint.path.contains("{flagKey}") {
                        assert_eq!(found, other, "{place}");
                    }
                    assert!(!found.1.contains("canary"), "{place}: {answer:?}");
                    assert!(
                        !format!("{:?}", answer.headers).contains("canary"),
                        "{place}"
                    );
                }
            }
        }
        let log = function.log();
        assert!(
            !log.contains("canaryValue") && !log.contains("canaryNote"),
            "{log}"
        );
    }
    assert!(routes >= 8, "only {routes} routes");
}

#[tokio::test]
async fn every_route_that_needs_an_api_key_rejects_callers_without_one() {
    let stack = Stack::start().await;
    let mut routes = 0;
    let needs_key = [Authorization::ApiKey, Authorization::SyncKey];
    for endpoint in ENDPOINTS {
        if !needs_key.contains(&endpoint.authorization) {
            continue;
        }
        routes += 1;
        let function = stack.function(endpoint.function).await;
        let parameters = [("flagKey", "checkout"), ("environment", "production")];
        let admin = Event::by_route(endpoint.method, endpoint.path, "", &parameters).body("{}");
        let anonymous = admin.clone().anonymous();
        let unknown = anonymous.clone().api_key(EXAMPLE_KEY);
        for (caller, event) in [
            ("no key", anonymous),
            ("an unknown key", unknown),
            ("a token", admin),
        ] {
            let answer = function.call(&event).await;
            let place = format!("{} {} with {caller}", endpoint.method, endpoint.path);
            assert_eq!(answer.status, 401, "{place}: {answer:?}");
        }
    }
    assert!(routes >= 5, "only {routes} routes");
}
