//! API keys: shown once, stored as hashes, and rejected by every instance once revoked.

use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

async fn create(keys: &Function, kind: &str) -> Value {
    let body = json!({"kind": kind, "name": "shop"}).to_string();
    let answer = keys.call(&Event::load("manage-keys").body(&body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    answer.json()
}

async fn revoke(keys: &Function, id: &Value) -> Response {
    let id = id.as_str().expect("an id");
    let event = Event::load("manage-keys-revoke").parameter("keyId", id);
    keys.call(&event).await
}

fn alice(key: &Value) -> Event {
    Event::evaluate("search", &json!({"targetingKey": "alice"}))
        .api_key(key.as_str().expect("a key"))
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    let stack = Stack::start().await;
    let keys = stack.function("manage-keys").await;
    let evaluate = stack.function("evaluate-flag").await;
    for kind in ["server", "client"] {
        let made = create(&keys, kind).await;
        let key = made["key"].as_str().expect("a key").to_owned();
        assert!(
            key.starts_with(&format!("pennon_{kind}_production_")),
            "{key}"
        );
        let answer = evaluate.call(&alice(&made["key"])).await;
        assert_eq!(answer.json()["value"], true, "{answer:?}");

        let listed = keys.call(&Event::load("manage-keys-list")).await;
        assert_eq!(listed.status, 200);
        let newest = &listed.json()["keys"][0];
        let mut known = made.clone();
        known.as_object_mut().expect("an object").remove("key");
        assert_eq!(
            newest, &known,
            "the list differs from the response to the creation"
        );
        assert_eq!(known["name"], "shop");
        assert_eq!(known["kind"], kind);
        assert_eq!(known["environment"], "production");
        assert_eq!(known["revokedAt"], Value::Null);
        assert!(!listed.body.contains(&key));

        let row = stack
            .database
            .sql()
            .query_one(
                "select hash = encode(sha256(convert_to($1, 'utf8')), 'hex'), row_to_json(k)::text,
                        (select json_agg(a)::text from pennon_audit a)
                 from pennon_api_keys k where id::text = $2",
                &[&key, &made["id"].as_str()],
            )
            .await
            .expect("a row");
        assert!(row.get::<_, bool>(0));
        for text in [row.get::<_, String>(1), row.get(2)] {
            assert!(!text.contains(&key), "{text}");
        }
        assert!(row.get::<_, String>(2).contains("key.create"));
        assert!(!keys.log().contains(&key), "the key is in the log");
        assert!(!evaluate.log().contains(&key));
    }
}

#[tokio::test]
async fn every_instance_rejects_a_revoked_key_from_its_next_read() {
    let stack = Stack::start().await;
    let keys = stack.function("manage-keys").await;
    let made = create(&keys, "server").await;
    let other = create(&keys, "server").await;
    let instances = [
        stack.function("evaluate-flag").await,
        stack.function("evaluate-flag").await,
    ];
    let event = alice(&made["key"]);
    for instance in &instances {
        assert_eq!(instance.call(&event).await.status, 200);
        assert_eq!(instance.call(&event).await.source(), "memory");
    }
    let answer = revoke(&keys, &made["id"]).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (204, ""),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    for instance in &instances {
        assert_eq!(instance.call(&event).await.status, 401);
        assert_eq!(instance.call(&alice(&other["key"])).await.status, 200);
    }
    assert_eq!(
        revoke(&keys, &made["id"]).await.status,
        404,
        "a revoked key was revoked again"
    );
    let listed = keys.call(&Event::load("manage-keys-list")).await.json();
    let entry = &listed["keys"][1];
    assert_eq!(entry["id"], made["id"]);
    assert!(entry["revokedAt"].is_string(), "{entry}");
    // The id is a UUID, so its case does not matter.
    let upper = other["id"].as_str().map(str::to_uppercase);
    assert_eq!(revoke(&keys, &json!(upper)).await.status, 204);
}

#[tokio::test]
async fn only_admins_manage_keys() {
    let stack = Stack::start().await;
    let keys = stack.function("manage-keys").await;
    let made = create(&keys, "server").await;
    let id = made["id"].as_str().expect("an id");
    for event in [
        Event::load("manage-keys"),
        Event::load("manage-keys-list"),
        Event::load("manage-keys-revoke").parameter("keyId", id),
    ] {
        for (event, status) in [
            (event.clone().anonymous(), 401),
            // A key grants no admin rights.
            (
                event
                    .clone()
                    .anonymous()
                    .api_key(made["key"].as_str().expect("a key")),
                401,
            ),
            (event.clone().user("u-1", "[users]"), 403),
        ] {
            assert_eq!(keys.call(&event).await.status, status, "{event:?}");
        }
    }
    let evaluate = stack.function("evaluate-flag").await;
    assert_eq!(
        evaluate.call(&alice(&made["key"])).await.status,
        200,
        "the key was revoked"
    );
}

#[tokio::test]
async fn every_mistake_in_a_request_for_a_key_is_reported() {
    let stack = Stack::start().await;
    let keys = stack.function("manage-keys").await;
    let event = Event::load("manage-keys");
    for (body, fields) in [
        ("{}", &["kind", "name"][..]),
        (r#"{"kind":"admin","name":"x"}"#, &["kind"]),
        (r#"{"kind":5,"name":"x"}"#, &["kind"]),
        (r#"{"kind":"server","name":""}"#, &["name"]),
        (r#"{"kind":"server","name":" "}"#, &["name"]),
        (r#"{"kind":"server","name":"\u200b\u3000\n"}"#, &["name"]),
        (r#"{"kind":"server","name":7}"#, &["name"]),
        (r#"{"kind":"server","name":"a\u0000b"}"#, &["name"]),
        (r#"{"kind":"server","name":"x","expires":1}"#, &["expires"]),
        ("[]", &[]),
        ("{", &[]),
    ] {
        let answer = keys.call(&event.clone().body(body)).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let details = answer.json()["details"].clone();
        for field in fields {
            let errors = details["fieldErrors"][field].as_array();
            assert_eq!(errors.map(Vec::len), Some(1), "{body}: {details}");
        }
        if fields.is_empty() {
            let errors = details["formErrors"].as_array().expect("a list");
            assert!(!errors.is_empty(), "{body}: {details}");
        }
    }
    let nowhere = event.clone().query("environment=nowhere");
    assert_eq!(keys.call(&nowhere).await.status, 404);
    let bad = event.query("environment=a%20b");
    assert_eq!(keys.call(&bad).await.status, 400);
    for id in ["x", "", "00000000-0000-4000-8000-000000000000", "a\0b"] {
        let answer = revoke(&keys, &json!(id)).await;
        assert!([400, 404].contains(&answer.status), "{id:?}: {answer:?}");
    }
    let environments = stack
        .database
        .sql()
        .query_one("select count(*) from pennon_environments", &[])
        .await
        .expect("a row");
    assert_eq!(
        environments.get::<_, i64>(0),
        1,
        "a rejected request created an environment"
    );
}

#[tokio::test]
async fn an_environment_has_a_hundred_keys_at_most() {
    let stack = Stack::start().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into pennon_api_keys (environment, kind, name, hash, created_by)
             select 'production', 'server', 'x', encode(sha256(n::text::bytea), 'hex'), 'test'
             from generate_series(1, 100) as n",
        )
        .await
        .expect("keys");
    let keys = stack.function("manage-keys").await;
    let answer = keys.call(&Event::load("manage-keys")).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    let listed = keys.call(&Event::load("manage-keys-list")).await.json();
    assert_eq!(revoke(&keys, &listed["keys"][7]["id"]).await.status, 204);
    create(&keys, "server").await;
}

#[tokio::test]
async fn the_local_server_creates_keys_and_keeps_them_in_its_file() {
    let local = Local::start(&[]).await;
    let body = json!({"kind": "client", "name": "page"}).to_string();
    let made = local.admin("POST", "/api/admin/keys", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.json()["key"].as_str().expect("a key").to_owned();
    let path = "/ofrep/v1/evaluate/flags/dark-mode";
    let context = r#"{"context":{"targetingKey":"alice"}}"#;
    assert_eq!(
        local.evaluate(path, &key, context).await.json()["value"],
        true
    );
    for name in ["flags.json", "flags.json.state"] {
        let file = std::fs::read_to_string(local.folder().join(name)).expect("a file");
        assert!(!file.contains(&key), "{name}");
    }
    let id = made.json()["id"].as_str().expect("an id").to_uppercase();
    let gone = local
        .admin("DELETE", &format!("/api/admin/keys/{id}"), "")
        .await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(local.evaluate(path, &key, context).await.status, 401);
    let listed = local.admin("GET", "/admin/keys", "").await.json();
    assert!(listed["keys"][0]["revokedAt"].is_string(), "{listed}");
}
