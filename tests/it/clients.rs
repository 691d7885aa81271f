//! The published OpenFeature clients, as programs, with the local server.

use pennon_tests::clients::{Client, Evaluation, WebClient};
use pennon_tests::eventually;
use pennon_tests::local::{API_KEY, Local};
use pennon_tests::process::new_folder;
use serde_json::{Value, json};

/// A server with all kinds of flags.
async fn server(environment: &[(&str, &str)]) -> Local {
    let typed = |definition: Value| json!({"enabled": true, "definition": definition});
    let one = |value: Value| typed(json!({"variants": {"a": value}, "defaultVariant": "a"}));
    let flags = json!({"production": {
        "on": {"enabled": true, "rolloutPercentage": 100},
        "off": {"enabled": false, "rolloutPercentage": 100},
        "half": {"enabled": true, "rolloutPercentage": 50},
        "text": one(json!("hello")),
        "whole": one(json!(7)),
        "float": one(json!(2.0)),
        "object": one(json!({"color": "blue", "sizes": [1, 2.5], "deep": {"yes": true}})),
        "code-default": typed(json!({"variants": {"a": "x"}, "defaultVariant": null})),
        "by-plan": typed(json!({
            "variants": {"lots": 100, "few": 3}, "defaultVariant": "few",
            "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "lots"]},
        })),
    }});
    let folder = new_folder("clients");
    std::fs::write(folder.join("flags.json"), flags.to_string()).expect("writes");
    Local::start_in(folder, environment).await
}

fn ask(kind: &'static str, key: &'static str, fallback: Value) -> Evaluation {
    Evaluation {
        kind,
        key,
        fallback,
        // user-8 has bucket 49.
        context: json!({"targetingKey": "user-8"}),
    }
}

fn with(evaluation: Evaluation, context: Value) -> Evaluation {
    Evaluation {
        context,
        ..evaluation
    }
}

#[tokio::test]
async fn every_client_gets_every_kind_of_value() {
    let local = server(&[]).await;
    let object = json!({"color": "blue", "sizes": [1, 2.5], "deep": {"yes": true}});
    let pro = json!({"targetingKey": "user-8", "plan": "pro"});
    let table = [
        (
            ask("boolean", "on", json!(false)),
            json!(true),
            "on",
            "STATIC",
        ),
        (
            ask("boolean", "off", json!(true)),
            json!(false),
            "off",
            "DISABLED",
        ),
        (
            ask("boolean", "half", json!(false)),
            json!(true),
            "on",
            "SPLIT",
        ),
        (
            ask("string", "text", json!("no")),
            json!("hello"),
            "a",
            "STATIC",
        ),
        (ask("integer", "whole", json!(1)), json!(7), "a", "STATIC"),
        (ask("float", "float", json!(1.5)), json!(2.0), "a", "STATIC"),
        (ask("object", "object", json!({})), object, "a", "STATIC"),
        (
            ask("integer", "by-plan", json!(1)),
            json!(3),
            "few",
            "DEFAULT",
        ),
        (
            with(ask("integer", "by-plan", json!(1)), pro),
            json!(100),
            "lots",
            "TARGETING_MATCH",
        ),
    ];
    let evaluations: Vec<Evaluation> = table.iter().map(|row| row.0.clone()).collect();
    for client in Client::ALL {
        let base = local.base();
        // A base URL may end with a slash.
        for base in [base.to_owned(), format!("{base}/")] {
            let answers = client.evaluate(&base, API_KEY, &evaluations).await;
            for (answer, (evaluation, value, variant, reason)) in answers.iter().zip(&table) {
                let message = format!("{client:?} about {}: {answer}", evaluation.key);
                assert_eq!(answer["value"].as_f64(), value.as_f64(), "{message}");
                if !value.is_number() {
                    assert_eq!(&answer["value"], value, "{message}");
                }
                assert_eq!(answer["variant"], *variant, "{message}");
                assert!(answer["errorCode"].is_null(), "{message}");
                // The Rust client does not return the reason.
                if client != Client::Rust {
                    assert_eq!(answer["reason"], *reason, "{message}");
                }
            }
        }
    }
}

/// For a response without a value, the Node and the Python client return the application's default. The Rust client
/// returns an error, upon which the application uses its default.
#[tokio::test]
async fn the_code_default_reaches_the_application() {
    let local = server(&[]).await;
    let evaluation = [ask("string", "code-default", json!("mine"))];
    for client in Client::ALL {
        let answers = client.evaluate(local.base(), API_KEY, &evaluation).await;
        let answer = &answers[0];
        match client {
            Client::Node => assert_eq!(answer["value"], "mine", "{answer}"),
            Client::Python => {
                assert_eq!(answer["value"], "mine", "{answer}");
                assert_eq!(answer["reason"], "DEFAULT");
                assert!(answer["errorCode"].is_null(), "{answer}");
            }
            Client::Rust => assert_eq!(answer["errorCode"], "ParseError", "{answer}"),
        }
    }
}

#[tokio::test]
async fn every_client_gets_the_error_code_of_a_missing_value() {
    let local = server(&[]).await;
    let evaluations = [
        ask("boolean", "no-such-flag", json!(true)),
        ask("boolean", "text", json!(true)),
        with(ask("boolean", "half", json!(true)), json!({})),
    ];
    for client in Client::ALL {
        let answers = client.evaluate(local.base(), API_KEY, &evaluations).await;
        // The Rust client has its own error texts, and reports every 400 as an invalid context.
        let expected = match client {
            Client::Node | Client::Python => {
                ["FLAG_NOT_FOUND", "TYPE_MISMATCH", "TARGETING_KEY_MISSING"]
            }
            Client::Rust => ["FlagNotFound", "ParseError", "InvalidContext"],
        };
        for (answer, code) in answers.iter().zip(expected) {
            assert_eq!(answer["errorCode"], code, "{client:?}: {answer}");
            if client != Client::Rust {
                assert_eq!(answer["value"], true, "not the default: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn every_client_is_rejected_without_a_valid_key() {
    let local = server(&[]).await;
    let evaluations = [ask("boolean", "off", json!(true))];
    let unknown = format!("pennon_server_production_{}", "x".repeat(43));
    for client in Client::ALL {
        for key in ["nonsense", &unknown] {
            let answers = client.evaluate(local.base(), key, &evaluations).await;
            let answer = &answers[0];
            match client {
                Client::Node | Client::Python => {
                    assert_eq!(answer["value"], true, "{client:?}: {answer}");
                    assert_eq!(answer["errorCode"], "GENERAL", "{client:?}: {answer}");
                }
                Client::Rust => {
                    let code = answer["errorCode"].as_str().expect("a code");
                    assert!(code.contains("authentication"), "{answer}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_client_waits_for_the_retry_after_of_a_429() {
    for client in Client::ALL {
        // One request in twenty seconds is allowed: the second is rejected, and clients do not send the third.
        let local = server(&[("PENNON_EVALUATIONS_PER_SECOND", "0.05")]).await;
        let evaluation = ask("boolean", "on", json!(false));
        let evaluations = [evaluation.clone(), evaluation.clone(), evaluation];
        let answers = client.evaluate(local.base(), API_KEY, &evaluations).await;
        assert_eq!(answers[0]["value"], true, "{client:?}: {}", answers[0]);
        for answer in &answers[1..] {
            let code = answer["errorCode"].as_str().unwrap_or_default();
            assert!(
                code.to_uppercase().contains("GENERAL"),
                "{client:?}: {answer}"
            );
        }
        let message = answers[2]["errorMessage"].as_str().unwrap_or_default();
        let paused = match client {
            Client::Node | Client::Python => "paused due to TooManyRequests",
            Client::Rust => "Please wait before making another request",
        };
        assert!(message.contains(paused), "{client:?}: {message}");
        let log = local.log();
        let statuses: Vec<bool> = log
            .lines()
            .filter(|line| line.contains("/ofrep/v1/evaluate/flags/{flagKey}"))
            .map(|line| line.contains(" 429 "))
            .collect();
        assert_eq!(
            statuses,
            [false, true],
            "{client:?}: expected one admitted and one rejected request\n{log}"
        );
    }
}

fn web_job(local: &Local, more: &Value) -> Value {
    let mut job = json!({
        "base": local.base(),
        "headers": {"Authorization": format!("Bearer {API_KEY}")},
        "context": {"targetingKey": "user-8"},
        "poll": 0,
        "changes": 0,
        "evaluations": [
            {"type": "boolean", "key": "on", "fallback": false},
            {"type": "boolean", "key": "off", "fallback": true},
            {"type": "string", "key": "text", "fallback": "no"},
            {"type": "integer", "key": "whole", "fallback": 1},
            {"type": "float", "key": "float", "fallback": 1.5},
            {"type": "object", "key": "object", "fallback": {}},
            {"type": "string", "key": "code-default", "fallback": "mine"},
            {"type": "boolean", "key": "no-such-flag", "fallback": true},
            {"type": "boolean", "key": "text", "fallback": true},
            {"type": "boolean", "key": "half", "fallback": false},
            {"type": "integer", "key": "by-plan", "fallback": 1},
        ],
    });
    for (name, value) in more.as_object().expect("an object") {
        job[name] = value.clone();
    }
    job
}

#[tokio::test]
async fn the_web_client_gets_all_flags_at_once() {
    let local = server(&[]).await;
    for base in [local.base().to_owned(), format!("{}/", local.base())] {
        let mut web = WebClient::start(&web_job(&local, &json!({"base": base})));
        let message = web.next_message().await;
        assert_eq!(message["what"], "ready", "{message}");
        let results = message["results"].as_array().expect("a list");
        let values: Vec<&Value> = results.iter().map(|result| &result["value"]).collect();
        assert_eq!(
            json!(values),
            json!([
                true, false, "hello", 7, 2,
                {"color": "blue", "sizes": [1, 2.5], "deep": {"yes": true}},
                "mine", true, true, true, 3
            ])
        );
        let codes: Vec<&Value> = results.iter().map(|result| &result["errorCode"]).collect();
        assert_eq!(codes[7], "FLAG_NOT_FOUND");
        assert_eq!(codes[8], "TYPE_MISMATCH");
        assert!(codes[..7].iter().all(|code| code.is_null()), "{message}");
        assert_eq!(results[1]["reason"], "DISABLED");
        assert_eq!(results[6]["reason"], "DEFAULT");
        assert_eq!(message["exchanges"][0]["status"], 200);
    }
}

#[tokio::test]
async fn the_web_client_without_a_targeting_key_gets_flags_that_need_none() {
    let local = server(&[]).await;
    let mut web = WebClient::start(&web_job(&local, &json!({"context": {}})));
    let message = web.next_message().await;
    assert_eq!(message["results"][0]["value"], true, "{message}");
    assert_eq!(
        message["results"][9]["value"], false,
        "not the application's default: {message}"
    );
    assert_eq!(
        message["results"][9]["errorCode"], "TARGETING_KEY_MISSING",
        "{message}"
    );
}

#[tokio::test]
async fn the_web_client_polls_by_etag_and_sees_a_change() {
    let local = server(&[]).await;
    let job = json!({
        "poll": 50,
        "changes": 1,
        "nextContext": {"targetingKey": "user-8", "plan": "pro"},
    });
    let mut web = WebClient::start(&web_job(&local, &job));
    let first = web.next_message().await;
    assert_eq!(first["what"], "ready", "{first}");
    let polls = || local.log().matches("/ofrep/v1/evaluate/flags 304").count();
    eventually("it has polled without a change", async || polls() >= 2).await;
    let off = local
        .patch("/api/admin/flags/on", r#"{"enabled":false}"#)
        .await;
    assert_eq!(off.status, 200, "{off:?}");
    let second = web.next_message().await;
    assert_eq!(second["what"]["changed"], json!(["on"]), "{second}");
    assert_eq!(second["results"][0]["value"], false, "{second}");
    let exchanges = second["exchanges"].as_array().expect("a list");
    let unchanged: Vec<&Value> = exchanges
        .iter()
        .filter(|exchange| exchange["status"] == 304)
        .collect();
    assert!(unchanged.len() >= 2, "{second}");
    for exchange in unchanged {
        assert_eq!(exchange["sent"], exchange["etag"], "another tag was sent");
    }
    // The targeting key is the same, so the client sends its old tag; the server must not answer 304.
    let third = web.next_message().await;
    assert_eq!(third["what"], "another context", "{third}");
    assert_eq!(third["results"][10]["value"], 100, "{third}");
}

#[tokio::test]
async fn the_web_client_is_rejected_without_a_valid_key_and_waits_after_a_429() {
    let local = server(&[]).await;
    let wrong = json!({"headers": {"X-API-Key": "nonsense"}});
    let mut web = WebClient::start(&web_job(&local, &wrong));
    let message = web.next_message().await;
    assert!(message["what"]["failed"].is_string(), "{message}");
    assert_eq!(message["exchanges"][0]["status"], 401, "{message}");
    assert_eq!(
        message["results"][0]["value"], false,
        "not the application's default"
    );

    let slow = server(&[("PENNON_EVALUATIONS_PER_SECOND", "0.4")]).await;
    let job = json!({"poll": 20, "changes": 1});
    let mut web = WebClient::start(&web_job(&slow, &job));
    assert_eq!(web.next_message().await["what"], "ready");
    let off = slow
        .patch("/api/admin/flags/on", r#"{"enabled":false}"#)
        .await;
    assert_eq!(off.status, 200, "{off:?}");
    let message = web.next_message().await;
    let exchanges = message["exchanges"].as_array().expect("a list");
    let statuses: Vec<&Value> = exchanges
        .iter()
        .map(|exchange| &exchange["status"])
        .collect();
    assert_eq!(
        json!(statuses),
        json!([200, 429, 200]),
        "the client did not wait for Retry-After"
    );
}
