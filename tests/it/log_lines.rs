//! Every log line of the compiled functions has the field `domain`, by which saved queries select lines.

use std::collections::BTreeSet;

use pennon_core::http::{ENDPOINTS, PAGES};
use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES, SYNC_KEY};
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::json;

use crate::tidy;

/// Settings that cause warnings when a function starts.
const BAD_SETTINGS: [(&str, &str); 5] = [
    ("CACHE_TTL_SECONDS", "soon"),
    ("JWT_ISSUER", "https://issuer.example"),
    ("JWT_AUDIENCE", "app"),
    ("JWT_CA_FILE", "/nowhere.pem"),
    ("PRE_TRAFFIC_RETRY_LIMIT_MS", "0"),
];

/// Sends every event of a function once. A failing invocation writes log lines too.
async fn run_events(function: &Function, name: &str) {
    for (file, of, _) in REQUEST_FILES {
        if of == name {
            let _any_answer = function.invoke(Event::load(file).value()).await;
        }
    }
    // A function without a route is not invoked with a request.
    if !ENDPOINTS
        .iter()
        .chain(PAGES)
        .any(|endpoint| endpoint.function == name)
    {
        let _any_answer = function.invoke(Event::load(name).value()).await;
        // And an invalid event.
        let _error = function.invoke(&json!({"awslogs": {"data": "%%%"}})).await;
    }
}

/// The saved queries begin with `filter domain = "config"` and so omit lines without this field.
#[tokio::test]
async fn every_line_of_every_function_has_the_domain_config() {
    let stack = Stack::start().await.with_default_timeouts();
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    let mut seen = BTreeSet::new();
    let mut lines = 0;
    // `pre-traffic` tries once instead of for 35 s.
    let quick = [("PRE_TRAFFIC_RETRY_LIMIT_MS", "0")];
    let invalid_redis = [("REDIS_URL", "redis//nowhere"), quick[0]];
    let names: Vec<String> = tidy::functions().into_iter().collect();
    // Most of the time is spent waiting for servers that are cut off, so several functions wait at the same time.
    for names in names.chunks(6) {
        stack.redis.set(Mode::Open).await;
        stack.database_wire.set(Mode::Open).await;
        let settings = [&quick[..], &BAD_SETTINGS, &invalid_redis];
        let started = join_all(names.iter().map(async |name| {
            let mut functions = Vec::new();
            for settings in settings {
                let function = stack.function_with(name, settings).await;
                run_events(&function, name).await;
                functions.push(function);
            }
            functions
        }))
        .await;
        stack.redis.set(Mode::Refuse).await;
        stack.database_wire.set(Mode::Refuse).await;
        let cut_off = join_all(names.iter().zip(&started).map(async |(name, functions)| {
            let cut_off = stack.function_with(name, &quick).await;
            run_events(&cut_off, name).await;
            run_events(&functions[0], name).await;
            cut_off
        }))
        .await;
        for ((name, functions), cut_off) in names.iter().zip(&started).zip(&cut_off) {
            for function in functions.iter().chain([cut_off]) {
                for line in function.lines() {
                    assert_eq!(line["domain"], "config", "{name}: {line}");
                    lines += 1;
                    seen.insert(name.clone());
                }
            }
        }
    }
    assert_eq!(seen, tidy::functions(), "a function wrote no line");
    assert!(lines > 200, "{lines} lines");
}
