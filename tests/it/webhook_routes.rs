//! The routes of webhooks, and the code in their documentation.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::SystemTime;

use pennon_core::config::Secret;
use pennon_core::webhooks::{Destination, Format, Message, Sender};
use pennon_tests::TIME_LIMIT;
use pennon_tests::api::Api;
use pennon_tests::process::{find_program, new_folder};
use pennon_tests::receiver::Receiver;
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://hooks.example.com:8443/secret-path?token=secret-query";

/// The first block of code of a language in docs/webhooks.md.
fn documented(language: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/webhooks.md");
    let page = std::fs::read_to_string(path).expect("a page");
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .expect("a block");
    rest.split("```").next().expect("code").to_owned()
}

#[tokio::test]
async fn the_documented_code_accepts_our_signature_and_no_other() {
    let receiver = Receiver::start().await;
    let sender = Sender::anywhere(Some(&Receiver::authority_file())).expect("a sender");
    let destination = Destination {
        url: Secret::new(receiver.url()),
        secret: Secret::new(SECRET),
    };
    let events = [json!({ "id": "17", "action": "flag.update", "actor": "Zoë" })];
    let message = Message::new(&destination, Format::Json, &events, SystemTime::now());
    assert_eq!(sender.send(message, TIME_LIMIT).await, Ok(()));
    let received = receiver.received().remove(0);
    let body = &received.body;
    let headers: BTreeMap<_, _> = received.headers.iter().cloned().collect();
    let with = |name: &str, value: &str| {
        let mut changed = headers.clone();
        changed.insert(name.to_owned(), value.to_owned());
        changed
    };
    let without = |name: &str| {
        let mut changed = headers.clone();
        changed.remove(name);
        changed
    };
    let mut calls = vec![
        json!([SECRET, headers, body]),
        json!([SECRET, headers, format!("{body} ")]),
        json!(["whsec_AAAA", headers, body]),
        json!([SECRET, with("webhook-timestamp", "1614265330"), body]),
    ];
    // Anyone can send these. A receiver in Node that throws on one of them ends.
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        calls.push(json!([SECRET, without(name), body]));
        for malformed in ["", "x", "v1,é", &"9".repeat(5000)] {
            calls.push(json!([SECRET, with(name, malformed), body]));
        }
    }
    let mut expected = vec![false; calls.len()];
    expected[0] = true;
    let node = "\nimport { readFileSync } from 'node:fs';
        const calls = JSON.parse(readFileSync(process.argv[2]));
        console.log(JSON.stringify(
          calls.map(([secret, headers, body]) => verify(secret, headers, Buffer.from(body)))));";
    let python = "\nimport json, sys
calls = json.load(open(sys.argv[1]))
print(json.dumps([verify(secret, headers, body.encode()) for secret, headers, body in calls]))";
    for (language, program, driver, name) in [
        ("js", "node", node, "verify.mjs"),
        ("python", "python3", python, "verify.py"),
    ] {
        let folder = new_folder("verify");
        let (code, data) = (folder.join(name), folder.join("input.json"));
        std::fs::write(&code, documented(language) + driver).expect("writes");
        std::fs::write(&data, json!(calls).to_string()).expect("writes");
        let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin");
        let program = find_program(program, &[tools], "Run `scripts/tools`, which installs it.");
        let output = Command::new(program)
            .arg(code)
            .arg(data)
            .output()
            .expect("runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        let verdicts: Vec<bool> =
            serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(verdicts, expected, "{language}");
        std::fs::remove_dir_all(folder).expect("removes");
    }
}

async fn created(api: &Api, name: &str) -> Value {
    let body = json!({ "name": name, "url": URL });
    let answer = api.admin("POST", "/api/admin/webhooks", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_webhook_is_created_listed_enabled_and_deleted() {
    let api = Api::on_postgres().await;
    let body = json!({ "name": "chat", "url": URL, "format": "slack" });
    let answer = api.admin("POST", "/api/admin/webhooks", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut webhook = answer.json();
    let fields = webhook.as_object_mut().expect("an object");
    let secret = fields.shift_remove("secret").expect("a secret");
    assert!(secret.as_str().expect("a text").starts_with("whsec_"));
    let path = format!(
        "/api/admin/webhooks/{}",
        webhook["id"].as_str().expect("an id")
    );
    assert_eq!(webhook["origin"], "https://hooks.example.com:8443");
    assert_eq!(webhook["format"], "slack");
    assert_eq!(webhook["disabled"], Value::Null);

    let other = created(&api, "deployments").await;
    assert_eq!(other["format"], "json");
    let list = api.read("/api/admin/webhooks").await.json();
    let names: Vec<&Value> = list["webhooks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|webhook| &webhook["name"])
        .collect();
    assert_eq!(names, ["deployments", "chat"]);
    assert_eq!(list["webhooks"][1], webhook);
    let elsewhere = api.read("/api/admin/webhooks?environment=staging").await;
    assert_eq!(elsewhere.json(), json!({ "webhooks": [] }));

    let enable = format!("{path}/enable");
    let answer = api.admin("POST", &enable, &Value::Null).await;
    assert_eq!(answer.status, 428, "{answer:?}");
    let answer = api.admin_if("\"7\"", "POST", &enable, &Value::Null).await;
    assert_eq!(answer.status, 412, "{answer:?}");
    let answer = api.admin_if("\"1\"", "POST", &enable, &Value::Null).await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")));
    assert_eq!(answer.json()["revision"], 2);

    let answer = api.admin("DELETE", &path, &Value::Null).await;
    assert_eq!(answer.status, 428, "{answer:?}");
    let answer = api.admin_if("\"1\"", "DELETE", &path, &Value::Null).await;
    assert_eq!(answer.status, 412, "{answer:?}");
    let answer = api.admin_if("\"2\"", "DELETE", &path, &Value::Null).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    for (method, path) in [("DELETE", &path), ("POST", &enable)] {
        let answer = api.admin_if("*", method, path, &Value::Null).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    let list = api.read("/api/admin/webhooks").await.json();
    assert_eq!(list["webhooks"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_unreadable_webhook_can_be_deleted() {
    let api = Api::on_postgres().await;
    let webhook = created(&api, "deployments").await;
    let path = format!(
        "/api/admin/webhooks/{}",
        webhook["id"].as_str().expect("an id")
    );
    let sql = api.stack().database.sql();
    sql.batch_execute("update pennon_webhooks set webhook = '{}'")
        .await
        .expect("unreadable");
    let list = api.read("/api/admin/webhooks").await.json();
    let listed = &list["webhooks"][0];
    assert_eq!(listed["id"], webhook["id"], "{list}");
    assert!(listed["broken"].is_string(), "{list}");
    let enabled = api
        .admin_if("*", "POST", &format!("{path}/enable"), &Value::Null)
        .await;
    assert_eq!(enabled.status, 409, "{enabled:?}");
    // Nobody can know its revision.
    for tag in ["\"0\"", "\"1\""] {
        let deleted = api.admin_if(tag, "DELETE", &path, &Value::Null).await;
        assert_eq!(deleted.status, 412, "{tag}: {deleted:?}");
    }
    let deleted = api.admin_if("*", "DELETE", &path, &Value::Null).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let rest = "select from pennon_webhooks union all select from pennon_outbox";
    let rest = sql.query(rest, &[]).await.expect("rows");
    assert_eq!(rest.len(), 0);
    let audit = api.read("/api/admin/environments/production/audit").await;
    assert_eq!(audit.json()["entries"][0]["action"], "webhook.delete");
}

#[tokio::test]
async fn neither_the_list_nor_the_audit_shows_a_secret() {
    let api = Api::on_postgres().await;
    let webhook = created(&api, "deployments").await;
    let secret = webhook["secret"].as_str().expect("a secret");
    let path = format!(
        "/api/admin/webhooks/{}",
        webhook["id"].as_str().expect("an id")
    );
    let enable = format!("{path}/enable");
    let enabled = api.admin_if("*", "POST", &enable, &Value::Null).await;
    let list = api.read("/api/admin/webhooks").await;
    let deleted = api.admin_if("*", "DELETE", &path, &Value::Null).await;
    assert_eq!((enabled.status, deleted.status), (200, 204));
    let audit = api.read("/api/admin/environments/production/audit").await;
    let entries = audit.json();
    let actions: Vec<&Value> = entries["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .take(3)
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(
        actions,
        ["webhook.delete", "webhook.enable", "webhook.create"],
        "{entries}"
    );
    for answer in [&enabled, &list, &audit] {
        for word in [secret, "secret-path", "secret-query"] {
            assert!(!answer.body.contains(word), "{word}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_invalid_webhook_is_rejected() {
    let api = Api::on_postgres().await;
    for (body, field) in [
        (json!({ "url": URL }), "name"),
        (json!({ "name": "", "url": URL }), "name"),
        (json!({ "name": "\u{200b} ", "url": URL }), "name"),
        (json!({ "name": "a" }), "url"),
        (json!({ "name": "a", "url": 5 }), "url"),
        (json!({ "name": "a", "url": "hooks.example.com" }), "url"),
        (
            json!({ "name": "a", "url": "http://hooks.example.com/" }),
            "url",
        ),
        (json!({ "name": "a", "url": "https://10.0.0.1/" }), "url"),
        (
            json!({ "name": "a", "url": "https://[fd00:ec2::254]/" }),
            "url",
        ),
        (
            json!({ "name": "a", "url": "https://me@example.com/" }),
            "url",
        ),
        (
            json!({ "name": "a", "url": "https://example.com/".to_owned() + &"x".repeat(2000) }),
            "url",
        ),
        (
            json!({ "name": "a", "url": URL, "format": "xml" }),
            "format",
        ),
        (
            json!({ "name": "a", "url": URL, "secret": "own" }),
            "secret",
        ),
    ] {
        let answer = api.admin("POST", "/api/admin/webhooks", &body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let errors = &answer.json()["details"]["fieldErrors"];
        assert!(errors[field].is_array(), "{body}: {answer:?}");
    }
    let path = "/api/admin/webhooks?environment=nowhere";
    let answer = api
        .admin("POST", path, &json!({ "name": "a", "url": URL }))
        .await;
    assert_eq!(answer.status, 404, "{answer:?}");
    for at in 0..20 {
        created(&api, &format!("webhook {at}")).await;
    }
    let body = json!({ "name": "one more", "url": URL });
    let answer = api.admin("POST", "/api/admin/webhooks", &body).await;
    assert_eq!(answer.status, 409, "{answer:?}");
}

#[tokio::test]
async fn a_file_store_rejects_webhooks() {
    let api = Api::on_file().await;
    let body = json!({ "name": "deployments", "url": URL });
    let answer = api.admin("POST", "/api/admin/webhooks", &body).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("set DATABASE_URL"), "{answer:?}");
    let list = api.read("/api/admin/webhooks").await;
    assert_eq!(list.json(), json!({ "webhooks": [] }));
}
