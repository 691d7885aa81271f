//! `GET /v1/flags`, with the requests that flagd and its in-process providers send.

use std::collections::BTreeMap;

use pennon_eval::document::Document;
use pennon_tests::event::{EXAMPLE_KEY, Event, SYNC_KEY};
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::response::Response;
use pennon_tests::stack::{Stack, database_loads, set_percentage};
use pennon_tests::wire::Mode;
use serde_json::json;

/// A request with these headers only.
fn request(headers: &[(&str, &str)]) -> Event {
    let mut event = Event::load("sync-flags");
    event.value_mut()["headers"] = json!({});
    for (name, value) in headers {
        event = event.header(name, value);
    }
    event
}

/// The request of flagd, `core/pkg/sync/http/http_sync.go`: two `Accept` headers, which the gateway joins, and
/// `authHeader` as it is. Go's client adds the others.
fn flagd(auth_header: &str, tag: Option<&str>) -> Event {
    let event = request(&[
        ("accept", "application/json,application/yaml"),
        ("accept-encoding", "gzip"),
        ("authorization", auth_header),
        ("user-agent", "Go-http-client/1.1"),
    ]);
    match tag {
        Some(tag) => event.header("if-none-match", tag),
        None => event,
    }
}

/// The request of `flagd-http-connector` for Java and Go, with `useHttpCache`: the configured headers, and the
/// validators of the last response.
fn connector(key: &str, last: Option<&Response>) -> Event {
    let event = request(&[
        ("x-api-key", key),
        ("user-agent", "Java-http-client/21.0.5"),
    ]);
    match last {
        Some(last) => event
            .header("if-none-match", last.header("etag").expect("an ETag"))
            .header(
                "if-modified-since",
                last.header("last-modified").expect("a time"),
            ),
        None => event,
    }
}

async fn stack() -> Stack {
    let stack = Stack::start().await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    stack
}

async fn answered(function: &Function, event: &Event) -> Response {
    let answer = function.call(event).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[tokio::test]
async fn flagd_and_its_connectors_get_the_document_once_per_change() {
    let stack = stack().await;
    let sync = stack.function("sync-flags").await;
    let bearer = format!("Bearer {SYNC_KEY}");
    let mut tags = Vec::new();
    for first in [
        flagd(SYNC_KEY, None),
        flagd(&bearer, None),
        connector(SYNC_KEY, None),
    ] {
        let answer = answered(&sync, &first).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let document = answer.json();
        let search = json!({
            "state": "ENABLED", "variants": {"off": false, "on": true}, "defaultVariant": "on",
        });
        assert_eq!(document["flags"]["search"], search);
        assert_eq!(document["metadata"]["pennon.fractional"], "v3");
        // The stack has the tables of an existing service, whose rollouts order users by SHA-256. Engines cannot
        // compute that, so only Pennon evaluates the flag with a percentage.
        assert_eq!(document["metadata"]["pennon.remoteOnly"], "checkout");
        assert_eq!(document["flags"].get("checkout"), None);
        let modified = stack.database.revision("production").await / 1_000;
        let modified = pennon_core::http::http_date(modified);
        assert_eq!(answer.header("last-modified"), Some(modified.as_str()));
        assert_eq!(
            answer.header("vary"),
            Some("Accept, Authorization, X-API-Key")
        );
        tags.push(answer.header("etag").expect("an ETag").to_owned());
    }
    let tag = tags.pop().expect("a tag");
    assert!(tags.iter().all(|other| *other == tag), "{tags:?}");
    assert!(tag.starts_with('"'), "weak: {tag}");

    let last = answered(&sync, &connector(SYNC_KEY, None)).await;
    let loads = database_loads(&sync);
    for again in [
        flagd(SYNC_KEY, Some(&tag)),
        connector(SYNC_KEY, Some(&last)),
        connector(SYNC_KEY, Some(&last)).method("HEAD"),
    ] {
        let answer = sync.call(&again).await;
        assert_eq!((answer.status, answer.body.as_str()), (304, ""));
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
        assert_eq!(answer.source(), "memory", "the flags were read again");
    }
    assert_eq!(database_loads(&sync), loads);

    // A comparison of `If-Modified-Since` would miss a change within the same second.
    let update = stack.function("update-flag").await;
    set_percentage(&update, "search", 0).await;
    for changed in [
        flagd(SYNC_KEY, Some(&tag)),
        connector(SYNC_KEY, Some(&last)),
    ] {
        let answer = answered(&sync, &changed).await;
        assert_eq!(answer.json()["flags"]["search"]["defaultVariant"], "off");
        assert_ne!(answer.header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test]
async fn the_native_document_has_its_own_tag_and_the_flags_as_stored() {
    let stack = stack().await;
    let sync = stack.function("sync-flags").await;
    let event = connector(SYNC_KEY, None);
    let native = event.clone().header("accept", Document::CONTENT_TYPE);
    let answer = answered(&sync, &native).await;
    assert_eq!(answer.header("content-type"), Some(Document::CONTENT_TYPE));
    let document = Document::parse(answer.body.as_bytes()).expect("a document");
    let revision = stack.database.revision("production").await;
    assert_eq!(document.revision, revision);
    assert_eq!(document.environment, "production");
    let percentages: BTreeMap<&str, u8> = document
        .flags
        .iter()
        .map(|(key, flag)| (key.as_str(), flag.rollout_percentage.percent()))
        .collect();
    assert_eq!(
        percentages,
        BTreeMap::from([("checkout", 50), ("export", 100), ("search", 100)])
    );
    let tag = answer.header("etag").expect("an ETag").to_owned();
    let of_flagd = sync.call(&event.header("if-none-match", &tag)).await;
    assert_eq!(of_flagd.status, 200, "the tag of the other format matched");
    let again = sync.call(&native.header("if-none-match", &tag)).await;
    assert_eq!(again.status, 304);
}

#[tokio::test]
async fn only_a_sync_key_reads_rules_and_it_can_do_nothing_else() {
    let stack = stack().await;
    let client = format!("pennon_client_production_{}", "c".repeat(43));
    let staging = format!("pennon_sync_staging_{}", "s".repeat(43));
    stack.database.add_key(&client).await;
    let hidden =
        json!({"variants": {"on": true}, "defaultVariant": "on", "metadata": {"serverOnly": true}});
    stack.database.add_typed_flag("hidden", &hidden).await;
    let environments = stack.function("manage-environments").await;
    let create = Event::admin(
        "POST",
        "/api/admin/environments",
        r#"{"environment": "staging"}"#,
    );
    assert_eq!(environments.call(&create).await.status, 201);
    stack.database.add_key(&staging).await;

    let sync = stack.function("sync-flags").await;
    let of_path = |environment: &str, key: &str| {
        let parameters = [("environment", environment)];
        let event = Event::by_route("GET", "/v1/flags/{environment}", "", &parameters);
        event.anonymous().header("x-api-key", key)
    };
    for (event, status, text) in [
        (connector(EXAMPLE_KEY, None), 403, "kind sync"),
        (connector(&client, None), 403, "kind sync"),
        (connector("pennon_sync_production_x", None), 401, "API key"),
        (
            connector(&SYNC_KEY.replace("-00", "-01"), None),
            401,
            "API key",
        ),
        (flagd("Basic abc", None), 401, "API key"),
        (request(&[]), 401, "API key"),
        (of_path("production", EXAMPLE_KEY), 403, "kind sync"),
        (of_path("staging", SYNC_KEY), 403, "another environment"),
        (of_path("production", &staging), 403, "another environment"),
        (
            connector(SYNC_KEY, None).query("environment=staging"),
            403,
            "another environment",
        ),
        (of_path("production", SYNC_KEY), 200, "search"),
        (of_path("staging", &staging), 200, "flags"),
        (connector(&staging, None), 200, "flags"),
    ] {
        let answer = sync.call(&event).await;
        assert_eq!(answer.status, status, "{:?}: {answer:?}", event.value());
        assert!(answer.body.contains(text), "{answer:?}");
        if status != 200 {
            assert!(!answer.body.contains("search"), "{answer:?}");
        }
    }

    let context = json!({"targetingKey": "alice"});
    for (name, event) in [
        ("evaluate-flag", Event::evaluate("search", &context)),
        ("evaluate-flags", Event::evaluate_all(&context)),
    ] {
        let function = stack.function(name).await;
        let answer = function.call(&event.api_key(SYNC_KEY)).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("/v1/flags"), "{answer:?}");
    }
    // An open route ignores a sync key.
    let list = stack.function("list-flags").await;
    let listed = list
        .call(&Event::list().anonymous().api_key(SYNC_KEY))
        .await;
    assert_eq!((listed.status, listed.json().get("hidden")), (200, None));
    let answer = answered(&sync, &connector(SYNC_KEY, None)).await;
    assert!(answer.body.contains("hidden"), "hidden from the sync key");
}

#[tokio::test]
async fn without_both_stores_a_warm_instance_serves_its_last_document_as_stale() {
    let stack = Stack::start().await.with_default_timeouts();
    stack.database.add_key(SYNC_KEY).await;
    let sync = stack.function("sync-flags").await;
    let first = answered(&sync, &connector(SYNC_KEY, None)).await;
    stack.redis.set(Mode::Refuse).await;
    stack.database_wire.set(Mode::Refuse).await;
    let answer = answered(&sync, &connector(SYNC_KEY, None)).await;
    assert_eq!(answer.source(), "stale");
    assert_eq!(answer.body, first.body);
    let again = sync.call(&connector(SYNC_KEY, Some(&first))).await;
    assert_eq!((again.status, again.source()), (304, "stale"));
}

#[tokio::test]
async fn a_document_above_the_limit_after_compression_is_413_and_names_the_largest_flags() {
    let stack = stack().await;
    let database = &stack.database;
    let add = async |name: &str, texts: &mut dyn FnMut(usize) -> String| {
        for number in 0..8 {
            let definition =
                json!({"variants": {"on": texts(800_000 + number)}, "defaultVariant": "on"});
            let key = format!("{name}-{number}");
            database.add_typed_flag(&key, &definition).await;
        }
    };
    add("large", &mut |length| "x".repeat(length)).await;
    let sync = stack.function("sync-flags").await;
    let both = ["application/json", Document::CONTENT_TYPE];
    for accept in both {
        let event = connector(SYNC_KEY, None).header("accept", accept);
        let message = too_large(&sync.call(&event).await);
        assert!(message.contains("accept gzip"), "{message}");
        assert!(message.contains("large-7 (800"), "{message}");
        assert!(!message.contains("large-0"), "{message}");
        for coding in ["gzip", "zstd"] {
            let event = event.clone().header("accept-encoding", coding);
            let answer = answered(&sync, &event).await;
            assert_eq!(answer.header("content-encoding"), Some(coding));
            assert_eq!(answer.header("content-type"), Some(accept));
            assert!(answer.body.len() > 6_400_000, "{}", answer.body.len());
            let vary = "Accept, Authorization, X-API-Key, Accept-Encoding";
            assert_eq!(answer.header("vary"), Some(vary));
        }
    }

    // Compression leaves three quarters of these bytes, and base64 adds a third to that: the document stays too large.
    let delete = "delete from feature_flags where flag_key like 'large-%'";
    database.sql().batch_execute(delete).await.expect("deleted");
    let mut random = fastrand::Rng::with_seed(1);
    add("random", &mut |length| {
        std::iter::repeat_with(|| random.alphanumeric())
            .take(length)
            .collect()
    })
    .await;
    // A change by SQL reaches the cache with the purge.
    let purge = Event::admin("POST", "/api/admin/environments/production/purge", "");
    let environments = stack.function("manage-environments").await;
    let purged = environments.call(&purge).await;
    assert!(matches!(purged.status, 200 | 204), "{purged:?}");
    for accept in both {
        let event = connector(SYNC_KEY, None).header("accept", accept);
        let event = event.header("accept-encoding", "gzip");
        let message = too_large(&sync.call(&event).await);
        assert!(message.contains("in base64"), "{message}");
        assert!(message.contains("random-7 (800"), "{message}");
    }
}

/// The message of a response with 413.
fn too_large(answer: &Response) -> String {
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(answer.header("content-encoding"), None);
    let message = answer.json()["message"].clone();
    message.as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn the_local_server_accepts_its_own_key_without_a_scheme_as_flagd_sends_it() {
    let local = Local::start(&[("PENNON_API_KEY", EXAMPLE_KEY)]).await;
    for (header, status) in [
        (EXAMPLE_KEY.to_owned(), 200),
        (format!("Bearer {EXAMPLE_KEY}"), 200),
        (SYNC_KEY.to_owned(), 401),
    ] {
        let headers = [("authorization", header.as_str())];
        let answer = local.send("GET", "/v1/flags", &headers, "").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    // Routes that evaluate flags require the scheme.
    let headers = [("authorization", EXAMPLE_KEY)];
    let path = "/ofrep/v1/evaluate/flags";
    let answer = local.send("POST", path, &headers, "{}").await;
    assert_eq!(answer.status, 401, "{answer:?}");
}
