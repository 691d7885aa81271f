//! The Lambda extension: evaluates as the service does, and stays current across freezes and failures.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use pennon_core::counts::day;
use pennon_eval::document::Document;
use pennon_eval::{EvaluationDefaults, Settings, flagd};
use pennon_tests::api::Api;
use pennon_tests::eventually;
use pennon_tests::extension::{Behaviour, Extension, FlagSource, path_of};
use pennon_tests::local::{API_KEY, Local};
use pennon_tests::process::new_folder;
use serde_json::{Value, json};

/// Evaluations check the flags each time, and wait longer than the service takes on a busy machine.
const ALWAYS_FRESH: [(&str, &str); 2] =
    [("PENNON_MAX_AGE_SECONDS", "0"), ("PENNON_WAIT_MS", "5000")];
/// Evaluations check the flags each time, and do not wait for a service that hangs.
const IMPATIENT: [(&str, &str); 2] = [("PENNON_MAX_AGE_SECONDS", "0"), ("PENNON_WAIT_MS", "1")];

/// A document with one flag, whose value is the revision.
fn document(revision: i64) -> Value {
    json!({
        "revision": revision,
        "environment": "production",
        "settings": {},
        "defaults": "new",
        "flags": {"size": {
            "enabled": true,
            "definition": {"variants": {"now": revision}, "defaultVariant": "now"},
        }},
    })
}

fn serve(revision: i64) -> Behaviour {
    Behaviour::Serve(document(revision))
}

fn flags(bucketing: &str) -> Value {
    json!({
        "$evaluators": {"pro": {"==": [{"var": "plan"}, "pro"]}},
        "metadata": {"team": "web", "pennon.bucketing": bucketing, "pennon.fractional": "v2"},
        "flags": {
            "half": {"state": "ENABLED", "rolloutPercentage": 50, "overrides": {"u1": "include", "u2": "exclude"}},
            "salted": {"state": "ENABLED", "rolloutPercentage": 25, "salt": "pepper"},
            "sha256": {"state": "ENABLED", "rolloutPercentage": 50, "bucketing": "sha256"},
            "fractional": {"state": "ENABLED", "rolloutPercentage": 50, "bucketing": "fractional"},
            "off": {"state": "DISABLED", "rolloutPercentage": 100},
            "a bü": {"state": "ENABLED", "rolloutPercentage": 100},
            "typed": {
                "state": "ENABLED",
                "variants": {"a": {"z": 1.5, "y": [null, "x"]}, "b": {}},
                "defaultVariant": "b",
                "targeting": {"if": [{"$ref": "pro"}, "a", null]},
                "metadata": {"owner": "\"us\""},
            },
            "split": {
                "state": "ENABLED",
                "variants": {"x": "1", "y": "2"},
                "defaultVariant": "x",
                "targeting": {"fractional": [["x", 30], ["y", 70]]},
            },
            "wrong": {
                "state": "ENABLED",
                "variants": {"x": 1},
                "defaultVariant": "x",
                "targeting": {"var": "variant"},
            },
            "none": {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": null},
        },
    })
}

#[tokio::test]
async fn an_extension_responds_byte_for_byte_as_the_service() {
    for bucketing in ["sha256", "fractional"] {
        let file = flags(bucketing);
        let folder = new_folder("extension");
        std::fs::write(folder.join("flags.json"), file.to_string()).expect("written");
        let local = Local::start_in(folder.clone(), &[]).await;
        let read = flagd::read(&file, &Settings::default(), flagd::Mode::Replace);
        let read = read.unwrap_or_else(|problems| panic!("{problems:?}"));
        let context = json!({"context": {"targetingKey": "u"}}).to_string();
        let tag = local.evaluate(&path_of(""), API_KEY, &context).await;
        let tag = tag.header("etag").expect("a tag").to_owned();
        let revision = tag.split('-').nth(2).and_then(|text| text.parse().ok());
        let document = Document {
            revision: revision.expect("a revision"),
            environment: Cow::Borrowed("production"),
            settings: Cow::Owned(read.settings),
            defaults: EvaluationDefaults::New,
            flags: Cow::Owned(read.flags),
            own_bucketing: true,
        };
        let source = FlagSource::start(Behaviour::Serve(json!(document))).await;
        let extension = Extension::start(&source.url(), &folder, &[]).await;

        let mut bodies: Vec<String> = (0..20)
            .map(|user| json!({"context": {"targetingKey": format!("u{user}"), "plan": "pro"}}))
            .chain([
                json!({"context": {}}),
                json!({"context": {"targetingKey": ""}}),
                json!({"context": {"targetingKey": 1}}),
                json!({"context": {"targetingKey": "a", "variant": "missing"}}),
                json!({"context": {"variant": 7}}),
                json!({"context": []}),
                json!({}),
            ])
            .map(|body| body.to_string())
            .collect();
        bodies.extend(["", "{", r#"{"context":{"a":1,"a":2}}"#].map(str::to_owned));
        bodies.push(json!({"context": {"long": "x".repeat(70_000)}}).to_string());
        let keys = [
            "",
            "half",
            "salted",
            "sha256",
            "fractional",
            "off",
            "a bü",
            "typed",
            "split",
            "wrong",
            "none",
            "no",
        ];
        for key in keys {
            for body in &bodies {
                let expected = local.evaluate(&path_of(key), API_KEY, body).await;
                let found = extension.evaluate(key, body).await;
                let place = format!("{bucketing} {key} {}", &body[..body.len().min(80)]);
                assert_eq!(found.status, expected.status, "{place}");
                assert_eq!(found.body, expected.body, "{place}");
                for header in ["content-type", "etag", "cache-control", "x-cache-hit"] {
                    assert_eq!(found.header(header), expected.header(header), "{place}");
                }
            }
        }
        let current = [("if-none-match", tag.as_str())];
        let unchanged = extension.send(&path_of(""), &current, &context).await;
        assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""));
        for (method, path) in [
            ("GET", "/ofrep/v1/evaluate/flags"),
            ("POST", "/ofrep/v1/evaluate/flags/"),
            ("POST", "/ofrep/v1/evaluate/flags/a/b"),
        ] {
            let expected = local.send(method, path, &[], "").await;
            let found = extension.request(method, path).await;
            assert_eq!(found.status, expected.status, "{method} {path}");
            assert_eq!(found.body, expected.body, "{method} {path}");
        }
        for query in [
            "environment=production",
            "environment=",
            "environment=staging",
            "environment=a%20b",
            "environment=production&environment=staging",
            "userId=u",
            "flagConfigEtag=1&flagConfigLastModified=2",
            "x=1",
            "=1",
            "",
        ] {
            for key in ["", "half", "no"] {
                let path = format!("{}?{query}", path_of(key));
                let expected = local.evaluate(&path, API_KEY, &context).await;
                let found = extension.send(&path, &[], &context).await;
                assert_eq!(found.status, expected.status, "{path}");
                assert_eq!(found.body, expected.body, "{path}");
            }
        }
        let fetched = source.requests().len();
        assert_eq!(fetched, 1, "more than one document was fetched");
    }
}

#[tokio::test]
async fn a_change_is_seen_within_the_maximum_age_also_after_a_freeze() {
    let source = FlagSource::start(serve(1)).await;
    let folder = new_folder("extension");
    let settings = [("PENNON_MAX_AGE_SECONDS", "1"), ("PENNON_WAIT_MS", "5000")];
    let extension = Extension::start(&source.url(), &folder, &settings).await;
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(1), false)
    );
    for revision in 2..4 {
        extension.process().freeze();
        source.set(serve(revision));
        // The maximum age passes while the process is frozen.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        extension.process().thaw();
        assert_eq!(
            extension.value_and_staleness("size").await,
            (json!(revision), false)
        );
    }
    // Younger flags are not checked.
    let requests = source.requests().len();
    for _ in 0..20 {
        extension.value_and_staleness("size").await;
    }
    assert!(source.requests().len() <= requests + 1);

    let extension = Extension::start(&source.url(), &folder, &ALWAYS_FRESH).await;
    for revision in 4..8 {
        source.set(serve(revision));
        assert_eq!(
            extension.value_and_staleness("size").await,
            (json!(revision), false)
        );
    }
    let before = source.not_modified();
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(7), false)
    );
    assert_eq!(source.not_modified(), before + 1);
}

#[tokio::test]
async fn without_the_service_an_instance_starts_and_serves_the_last_document() {
    let folder = new_folder("extension");
    for behaviour in [Behaviour::Hang, Behaviour::Answer(500, vec![], vec![])] {
        let source = FlagSource::start(behaviour.clone()).await;
        let extension = Extension::start(&source.url(), &folder, &IMPATIENT).await;
        if let Behaviour::Hang = behaviour {
            eventually("the request is given up", async || {
                source.given_up().is_some()
            })
            .await;
            let started = extension.lambda().seen().first_request;
            assert!(
                started < source.given_up(),
                "the start waited for the request"
            );
        }
        for (key, body) in [
            ("", json!({"errorCode": "PROVIDER_NOT_READY"})),
            (
                "size",
                json!({"errorCode": "PROVIDER_NOT_READY", "key": "size"}),
            ),
        ] {
            let response = extension.evaluate(key, r#"{"context":{}}"#).await;
            assert_eq!(response.status, 503, "{response:?}");
            let mut found = response.json();
            found
                .as_object_mut()
                .expect("an object")
                .remove("errorDetails");
            assert_eq!(found, body);
        }
        // The first invocation may wait for an earlier check that fails; a later one fetches the flags.
        source.set(serve(7));
        eventually("the flags arrive", async || {
            extension.lambda().invoke();
            extension.evaluate("size", r#"{"context":{}}"#).await.status == 200
        })
        .await;
        assert_eq!(extension.value_and_staleness("size").await.0, json!(7));

        // Another process in the same instance, as after a failed invocation.
        eventually("the document is stored", async || {
            stored_document(&folder).is_some()
        })
        .await;
        let file = stored_document(&folder).expect("a file");
        source.set(Behaviour::Hang);
        let next = Extension::start(&source.url(), &folder, &IMPATIENT).await;
        assert_eq!(next.value_and_staleness("size").await, (json!(7), true));
        // A document that was changed is not used.
        let stored = std::fs::read_to_string(&file).expect("a file");
        std::fs::write(&file, stored.replace(":7", ":8")).expect("written");
        let next = Extension::start(&source.url(), &folder, &IMPATIENT).await;
        assert_eq!(next.evaluate("size", r#"{"context":{}}"#).await.status, 503);
    }
}

#[tokio::test]
async fn an_unusable_document_never_replaces_the_flags() {
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(5)).await;
    let extension = Extension::start(&source.url(), &folder, &ALWAYS_FRESH).await;
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(5), false)
    );
    let with = |name: &str, value: Value| {
        let mut document = document(9);
        document[name] = value;
        document.to_string().into_bytes()
    };
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let padding = vec![b' '; 1 << 20];
    for _ in 0..40 {
        bomb.write_all(&padding).expect("compressed");
    }
    bomb.write_all(&with("revision", json!(9)))
        .expect("compressed");
    let gzip = vec![("content-encoding", "gzip")];
    let cases = [
        (
            200,
            vec![],
            document(4).to_string().into_bytes(),
            "revision 4, older than 5",
        ),
        (
            200,
            vec![],
            with("environment", json!("staging")),
            "environment staging",
        ),
        (200, vec![], with("segments", json!({})), "unknown field"),
        (
            200,
            vec![],
            with("flags", json!({"": {}})),
            "cannot be used",
        ),
        (200, vec![], b"{".to_vec(), "cannot be used"),
        (
            200,
            vec![("content-type", "application/json")],
            with("a", json!(1)),
            "content type",
        ),
        (
            200,
            gzip.clone(),
            bomb.finish().expect("compressed"),
            "larger than",
        ),
        (200, gzip, b"not gzip".to_vec(), "decompressed"),
        (
            200,
            vec![("content-encoding", "br")],
            b"x".to_vec(),
            "encoding: br",
        ),
        (200, vec![], vec![b' '; 7 << 20], "length limit exceeded"),
        (403, vec![], vec![], "403"),
        (500, vec![], vec![], "500"),
    ];
    for (status, headers, body, reason) in cases {
        source.set(Behaviour::Answer(status, headers, body));
        let logged = extension.log().len();
        assert_eq!(
            extension.value_and_staleness("size").await,
            (json!(5), true),
            "{reason}"
        );
        let log = extension.log();
        assert!(log[logged..].contains(reason), "{reason}: {log}");
    }
    // The service has no connection to its database.
    let stale = vec![("x-cache-source", "stale")];
    source.set(Behaviour::Answer(
        200,
        stale,
        document(6).to_string().into_bytes(),
    ));
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(6), true)
    );
    source.set(serve(9));
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(9), false)
    );
}

/// The file in which an extension keeps its last document.
fn stored_document(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).expect("a folder");
    let mut paths = files.map(|file| file.expect("a file").path());
    paths.find(|path| path.extension().is_some_and(|it| it == "flags"))
}

#[tokio::test]
async fn a_revoked_key_ends_evaluations_and_removes_the_stored_document() {
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(1)).await;
    let extension = Extension::start(&source.url(), &folder, &ALWAYS_FRESH).await;
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(1), false)
    );
    let file = stored_document(&folder).expect("a file");
    source.set(Behaviour::Answer(401, vec![], vec![]));
    let response = extension.evaluate("size", r#"{"context":{}}"#).await;
    assert_eq!(
        (response.status, response.json()["key"].clone()),
        (401, json!("size"))
    );
    // Requests to the extension need no key.
    let details = response.json()["errorDetails"].clone();
    let details = details.as_str().expect("a text");
    assert!(details.contains("PENNON_SYNC_KEY"), "{details}");
    assert!(!details.contains("X-API-Key"), "{details}");
    assert!(!file.exists());
    assert!(
        !extension.log().contains("pennon_sync"),
        "{}",
        extension.log()
    );
    source.set(serve(1));
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(1), false)
    );
}

#[tokio::test]
async fn lambda_can_freeze_the_instance_only_after_the_check_of_an_invocation() {
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(1)).await;
    let extension = Extension::start(&source.url(), &folder, &IMPATIENT).await;
    assert_eq!(
        extension.lambda().seen().registrations,
        ["pennon-extension"]
    );
    source.set(Behaviour::Hang);
    let checks = source.requests().len();
    extension.lambda().invoke();
    eventually("a check begins", async || source.requests().len() > checks).await;
    // The evaluation does not wait for the check.
    assert_eq!(
        extension.value_and_staleness("size").await,
        (json!(1), true)
    );
    extension.lambda().wait_for_requests(2).await;
    assert!(
        extension.log().contains("no response within"),
        "{}",
        extension.log()
    );
    source.set(serve(2));
    extension.lambda().invoke();
    extension.lambda().wait_for_requests(3).await;
    // The check of the invocation has fetched the change, so this evaluation has it although its own check hangs.
    source.set(Behaviour::Hang);
    assert_eq!(extension.value_and_staleness("size").await.0, json!(2));
}

#[tokio::test]
async fn evaluations_are_sent_once_at_shutdown_and_again_with_the_same_id_after_a_failure() {
    let total = |counts: &Value| -> u64 {
        let days = counts["counts"]["production"].as_object().expect("days");
        let of_day = |day: &Value| day["size"]["now"].as_u64().expect("a count");
        days.values().map(of_day).sum()
    };
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(1)).await;
    let extension = Extension::start(&source.url(), &folder, &[]).await;
    for _ in 0..3 {
        extension.value_and_staleness("size").await;
    }
    extension.evaluate("", r#"{"context":{}}"#).await;
    // Neither is counted, because no variant is served.
    extension.evaluate("missing", r#"{"context":{}}"#).await;
    extension.evaluate("size", "{").await;
    assert_eq!(source.counts(), Vec::<Value>::new());
    extension.lambda().shut_down();
    eventually("the counts arrive", async || !source.counts().is_empty()).await;
    assert_eq!(total(&source.counts()[0]), 4);

    // The service adds the counts, and its response is lost.
    let interval = [("PENNON_COUNT_SECONDS", "0")];
    let extension = Extension::start(&source.url(), &folder, &interval).await;
    source.set_counts_status(500);
    extension.value_and_staleness("size").await;
    extension.lambda().invoke();
    eventually("the batch arrives", async || source.counts().len() == 2).await;
    extension.lambda().wait_for_requests(2).await;
    extension.value_and_staleness("size").await;
    source.set_counts_status(200);
    extension.lambda().shut_down();
    eventually("all batches arrive", async || source.counts().len() == 4).await;
    let counts = source.counts();
    assert_eq!(counts[1], counts[2], "the batch was not repeated");
    assert_ne!(counts[2]["batch"], counts[3]["batch"]);
    assert_eq!((total(&counts[2]), total(&counts[3])), (1, 1));
}

#[tokio::test]
async fn counts_of_many_flags_are_sent_in_parts() {
    let flags: serde_json::Map<String, Value> = (0..4_000)
        .map(|number| {
            (
                format!("a-flag-with-a-long-name-{number}"),
                json!({"enabled": true}),
            )
        })
        .collect();
    let mut many = document(1);
    many["flags"] = flags.into();
    let source = FlagSource::start(Behaviour::Serve(many)).await;
    let folder = new_folder("extension");
    let extension = Extension::start(&source.url(), &folder, &[]).await;
    extension.evaluate("", r#"{"context":{}}"#).await;
    extension.lambda().shut_down();
    eventually("all parts arrive", async || {
        let counts = source.counts();
        let parts = counts.iter().map(|part| &part["counts"]["production"]);
        let flags = parts.flat_map(|days| days.as_object().expect("days").values());
        let flags: usize = flags
            .map(|flags| flags.as_object().map_or(0, serde_json::Map::len))
            .sum();
        assert!(counts.iter().all(|part| part.to_string().len() < 240_000));
        flags == 4_000 && counts.len() > 1
    })
    .await;
}

#[tokio::test]
async fn the_evaluations_of_an_extension_are_in_the_usage_of_the_service_once() {
    for api in Api::of_both_kinds().await {
        let local = api.local();
        let key = [("PENNON_SYNC_KEY", API_KEY)];
        let extension = Extension::start(local.base(), &new_folder("extension"), &key).await;
        for _ in 0..3 {
            assert_eq!(
                extension.value_and_staleness("search").await,
                (json!(true), false)
            );
        }
        extension.lambda().shut_down();
        let usage = async || {
            let usage = api.read("/api/admin/flags/search/usage").await.json();
            usage["evaluations"].as_u64()
        };
        eventually("the evaluations are counted", async || {
            usage().await == Some(3)
        })
        .await;

        // A response is lost, so the batch is sent again.
        let today = day(SystemTime::now());
        let counts = json!({"production": {today: {"search": {"on": 4}}}});
        let body = json!({"batch": "b-1", "counts": counts}).to_string();
        for _ in 0..2 {
            let headers = [("x-api-key", API_KEY)];
            let answer = local
                .send("POST", "/v1/evaluation-counts", &headers, &body)
                .await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        assert_eq!(usage().await, Some(7), "{}", api.store);
    }
}

#[tokio::test]
async fn wrong_settings_fail_the_initialisation_with_the_name_of_the_variable() {
    let folder = new_folder("extension");
    for (url, setting, name) in [
        (
            "http://flags.example.com",
            ("PENNON_WAIT_MS", ""),
            "PENNON_URL",
        ),
        (
            "https://x.example",
            ("PENNON_SYNC_KEY", ""),
            "PENNON_SYNC_KEY",
        ),
        (
            "https://x.example",
            ("PENNON_MAX_AGE_SECONDS", "x"),
            "PENNON_MAX_AGE_SECONDS",
        ),
    ] {
        let (phase, kind, body) = Extension::fail_to_start(url, &folder, &[setting]).await;
        assert_eq!(
            (phase.as_str(), kind.as_str()),
            ("init", "Extension.InvalidConfiguration")
        );
        let message = body["errorMessage"].as_str().expect("a message");
        assert!(message.contains(name), "{message}");
    }
}

#[tokio::test]
async fn a_sidecar_checks_without_requests_and_sends_counts_when_it_ends() {
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(1)).await;
    let settings = [("PENNON_MAX_AGE_SECONDS", "2")];
    let sidecar = Extension::start_sidecar(&source.url(), &folder, &settings).await;
    eventually("two checks by the timer", async || {
        source.requests().len() >= 2
    })
    .await;
    assert_eq!(sidecar.value_and_staleness("size").await.0, json!(1));
    sidecar.process().terminate();
    eventually("the counts arrive", async || source.counts().len() == 1).await;
}

#[tokio::test]
async fn a_sidecar_that_rarely_checks_repeats_a_failed_check_soon() {
    let source = FlagSource::start(Behaviour::Answer(503, Vec::new(), Vec::new())).await;
    let settings = [("PENNON_MAX_AGE_SECONDS", "86400")];
    let folder = new_folder("extension");
    let sidecar = Extension::start_sidecar(&source.url(), &folder, &settings).await;
    eventually("the first check fails", async || {
        !source.requests().is_empty()
    })
    .await;
    source.set(serve(1));
    let failed = source.requests().len();
    eventually("the check is repeated", async || {
        source.requests().len() > failed
    })
    .await;
    assert_eq!(sidecar.value_and_staleness("size").await, (json!(1), false));
}

#[tokio::test]
async fn a_sidecar_that_rarely_checks_still_sends_counts_in_their_own_interval() {
    let folder = new_folder("extension");
    let source = FlagSource::start(serve(1)).await;
    let settings = [
        ("PENNON_MAX_AGE_SECONDS", "3600"),
        ("PENNON_COUNT_SECONDS", "1"),
    ];
    let sidecar = Extension::start_sidecar(&source.url(), &folder, &settings).await;
    eventually("the flags are fetched", async || {
        !source.requests().is_empty()
    })
    .await;
    for sent in 1..=2 {
        sidecar.value_and_staleness("size").await;
        eventually("the counts arrive", async || source.counts().len() == sent).await;
    }
}

#[tokio::test]
async fn a_malformed_chunked_body_is_400() {
    let source = FlagSource::start(serve(1)).await;
    let extension = Extension::start(&source.url(), &new_folder("extension"), &[]).await;
    let path = format!("POST {}", path_of("size"));
    let response = crate::local_server::send_malformed_body(extension.address(), &path);
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(response.contains("errorDetails"), "{response}");
}
