//! The two routes under `/api/config` that an existing service serves to anyone: access to them, and the
//! flags that they return.

use std::collections::BTreeSet;

use pennon_core::http::ENDPOINTS;
use pennon_tests::event::Event;
use pennon_tests::issuer::{Issuer, SigningKey};
use pennon_tests::local::{ADMIN_TOKEN, Local};
use pennon_tests::process::new_folder;
use pennon_tests::response::Response;
use pennon_tests::routes::paths_for;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const LIST: &str = "/api/config/flags";

/// A local server with a server-only flag, a flag for everyone, a server key and a client key. `staging` has a
/// server-only flag too.
struct Site {
    store: &'static str,
    local: Local,
    _stack: Option<Stack>,
    server_key: Key,
    client_key: Key,
}

struct Key {
    id: String,
    text: String,
}

impl Site {
    /// A server on PostgreSQL and Redis, and one on a file.
    async fn of_both_kinds(routes: &str) -> [Self; 2] {
        let setting = ("PUBLIC_CONFIG_ROUTES", routes);
        let stack = Stack::start().await;
        let (redis, database) = (stack.redis_url(), stack.database_url());
        let urls = [
            ("REDIS_URL", redis.as_str()),
            ("DATABASE_URL", database.as_str()),
        ];
        let on_postgres = Local::start(&[urls[0], urls[1], setting]).await;
        let on_file = Local::start_in(new_folder("public"), &[setting]).await;
        [
            Self::with_flags("PostgreSQL", on_postgres, Some(stack)).await,
            Self::with_flags("a file", on_file, None).await,
        ]
    }

    async fn with_flags(store: &'static str, local: Local, stack: Option<Stack>) -> Self {
        let made = json!({"environment": "staging"}).to_string();
        let made = local.admin("POST", "/api/admin/environments", &made).await;
        assert!(matches!(made.status, 201 | 409), "{store}: {made:?}");
        for (environment, key, is_secret) in [
            ("production", "secret", true),
            ("production", "shown", false),
            ("staging", "secret", true),
        ] {
            let body = json!({"key": key, "enabled": true, "definition": {
                "variants": {"on": true, "off": false}, "defaultVariant": "on",
                "metadata": {"serverOnly": is_secret}
            }});
            let path = format!("/api/admin/flags?environment={environment}");
            let made = local.admin("POST", &path, &body.to_string()).await;
            assert_eq!(made.status, 201, "{store}: {made:?}");
        }
        let [server_key, client_key] = [
            new_key(&local, "server").await,
            new_key(&local, "client").await,
        ];
        Self {
            store,
            local,
            _stack: stack,
            server_key,
            client_key,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.local.send(method, path, headers, "").await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", path, headers).await
    }
}

async fn new_key(local: &Local, kind: &str) -> Key {
    new_key_in(local, "production", kind).await
}

async fn new_key_in(local: &Local, environment: &str, kind: &str) -> Key {
    let body = json!({"kind": kind, "name": "of a test"}).to_string();
    let path = format!("/api/admin/keys?environment={environment}");
    let made = local.admin("POST", &path, &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let text = |name: &str| made.json()[name].as_str().expect("a text").to_owned();
    Key {
        id: text("id"),
        text: text("key"),
    }
}

/// The paths of the two routes, with and without `/api`, for each of these flags.
fn public_config_paths(flags: &[&str]) -> BTreeSet<String> {
    let endpoints = ENDPOINTS.iter().filter(|it| it.is_public_config());
    let paths = endpoints.flat_map(|it| flags.iter().flat_map(|flag| paths_for(it, flag)));
    let paths: BTreeSet<String> = paths.collect();
    assert_eq!(paths.len(), 2 + 2 * flags.len(), "{paths:?}");
    paths
}

fn has_flag(answer: &Response, flag: &str) -> bool {
    assert_eq!(answer.status, 200, "{answer:?}");
    !answer.json()[flag].is_null()
}

#[tokio::test]
async fn the_etag_of_one_environment_does_not_match_with_the_key_of_another() {
    let [_, mut site] = Site::of_both_kinds("key").await;
    let staging = new_key_in(&site.local, "staging", "server").await.text;
    // When the local server reads its file at the start, all environments get the same revision.
    site.local.restart().await;
    let listed = site.local.admin("GET", "/api/admin/environments", "").await;
    let listed = listed.json()["environments"].clone();
    assert_eq!(listed[0]["revision"], listed[1]["revision"], "{listed}");
    let production = &site.server_key.text;
    for (method, path, body) in [
        ("GET", LIST, ""),
        ("GET", "/api/config/flags/secret", ""),
        ("POST", "/ofrep/v1/evaluate/flags", r#"{"context": {}}"#),
    ] {
        let first = [("x-api-key", production.as_str())];
        let answer = site.local.send(method, path, &first, body).await;
        let tag = answer.header("etag").expect("an ETag").to_owned();
        for (key, status) in [(production, 304), (&staging, 200)] {
            let headers = [("x-api-key", key.as_str()), ("if-none-match", &tag)];
            let answer = site.local.send(method, path, &headers, body).await;
            assert_eq!(answer.status, status, "{path} {answer:?}");
        }
    }
}

#[tokio::test]
async fn public_config_routes_return_server_only_flags_to_server_keys_alone() {
    for site in Site::of_both_kinds("open").await {
        let store = site.store;
        let (server, client) = (&site.server_key.text, &site.client_key.text);
        let bearer = format!("Bearer {server}");
        let other = format!("pennon_server_production_{}", "o".repeat(43));
        for headers in [
            &[][..],
            &[("x-api-key", client.as_str())],
            &[("x-api-key", "nonsense")],
            &[("x-api-key", other.as_str())],
        ] {
            let list = site.get(LIST, headers).await;
            assert!(!has_flag(&list, "secret"), "{store}: {headers:?} {list:?}");
            assert!(has_flag(&list, "shown"), "{store}: {headers:?} {list:?}");
            for tag in ["\"x\"", "*", list.header("etag").expect("a tag")] {
                let headers = [headers, &[("if-none-match", tag)]].concat();
                let hidden = site.get(&format!("{LIST}/secret"), &headers).await;
                let unknown = site.get(&format!("{LIST}/nobody"), &headers).await;
                assert_eq!(hidden.status, 404, "{store}: {hidden:?}");
                assert_eq!(
                    hidden.body.replace("secret", "nobody"),
                    unknown.body,
                    "{store}"
                );
                let header_names =
                    |answer: &Response| answer.headers.keys().cloned().collect::<Vec<_>>();
                assert_eq!(header_names(&hidden), header_names(&unknown), "{store}");
            }
            let head = site.ask("HEAD", &format!("{LIST}/secret"), headers).await;
            assert_eq!(head.status, 404, "{store}");
        }
        for header in [("x-api-key", server.as_str()), ("authorization", &bearer)] {
            let list = site.get(LIST, &[header]).await;
            assert!(has_flag(&list, "secret"), "{store}: {list:?}");
            assert_eq!(list.header("vary"), Some("Authorization, X-API-Key"));
            let one = site.get(&format!("{LIST}/secret"), &[header]).await;
            assert_eq!(one.json()["key"], "secret", "{store}");
            // The ETag of a caller without a key does not match.
            let plain = site.get(LIST, &[]).await;
            let tag = plain.header("etag").expect("a tag");
            let with_both = site.get(LIST, &[header, ("if-none-match", tag)]).await;
            assert_eq!(with_both.status, 200, "{store}");
            let tag = list.header("etag").expect("a tag");
            let again = site.get(LIST, &[header, ("if-none-match", tag)]).await;
            assert_eq!(again.status, 304, "{store}");
            let without = site.get(LIST, &[("if-none-match", tag)]).await;
            assert_eq!(without.status, 200, "{store}");
        }
        // A server key reveals server-only flags of its own environment only.
        let staging = site
            .get(
                "/api/config/flags/secret?environment=staging",
                &[("x-api-key", server)],
            )
            .await;
        assert_eq!(staging.status, 404, "{store}");
        let admin = site.local.admin("GET", "/api/admin/flags/secret", "").await;
        assert_eq!(admin.status, 200, "{store}");
    }
}

#[tokio::test]
async fn a_flag_without_server_only_inherits_it_from_its_environment() {
    for site in Site::of_both_kinds("open").await {
        let body = json!({"key": "plain", "enabled": true}).to_string();
        site.local.admin("POST", "/api/admin/flags", &body).await;
        let path = "/api/admin/environments/production/settings";
        let headers = [
            ("authorization", format!("Bearer {ADMIN_TOKEN}")),
            ("if-match", "*".to_owned()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let body = json!({"metadata": {"serverOnly": true}}).to_string();
        let set = site.local.send("PUT", path, &headers, &body).await;
        assert_eq!(set.status, 200, "{set:?}");
        let list = site.get(LIST, &[]).await;
        assert_eq!(list.json(), json!({"shown": true}), "{}", site.store);
        let list = site
            .get(LIST, &[("x-api-key", &site.server_key.text)])
            .await;
        assert!(
            has_flag(&list, "plain") && has_flag(&list, "secret"),
            "{list:?}"
        );
        let client = &site.client_key.text;
        let context = r#"{"context": {"targetingKey": "a"}}"#;
        let all = site
            .local
            .evaluate("/ofrep/v1/evaluate/flags", client, context)
            .await;
        assert!(!all.body.contains("plain"), "{all:?}");
    }
}

#[tokio::test]
async fn with_key_the_paths_require_an_api_key_that_selects_the_environment() {
    for site in Site::of_both_kinds("key").await {
        let store = site.store;
        let (server, client) = (site.server_key.text.as_str(), site.client_key.text.as_str());
        let one = format!("{LIST}/shown");
        let unknown = format!("pennon_client_production_{}", "x".repeat(43));
        let list = site.get(LIST, &[("x-api-key", client)]).await;
        let tag = list.header("etag").expect("a tag").to_owned();
        for path in public_config_paths(&["shown", "nobody"]) {
            let path = path.as_str();
            for method in ["GET", "HEAD"] {
                for headers in [
                    &[][..],
                    &[("if-none-match", "*")],
                    &[("if-none-match", tag.as_str())],
                    &[("x-api-key", unknown.as_str()), ("if-none-match", "*")],
                    &[("x-api-key", "nonsense")],
                    &[("authorization", "Bearer nonsense")],
                ] {
                    let refused = site.ask(method, path, headers).await;
                    assert_eq!(refused.status, 401, "{store}: {method} {path} {headers:?}");
                    assert!(refused.header("etag").is_none(), "{store}: {refused:?}");
                    if method == "GET" {
                        assert_eq!(refused.json()["error"], "Unauthorized", "{store}");
                    }
                }
            }
        }
        let bearer = format!("Bearer {client}");
        for header in [("x-api-key", client), ("authorization", &bearer)] {
            for environment in ["", "?environment=production", "?environment="] {
                let list = site.get(&format!("{LIST}{environment}"), &[header]).await;
                assert!(
                    has_flag(&list, "shown") && !has_flag(&list, "secret"),
                    "{store}"
                );
                let found = site.get(&format!("{one}{environment}"), &[header]).await;
                assert_eq!(found.json()["key"], "shown", "{store}");
            }
            for path in [LIST, &one] {
                let other = format!("{path}?environment=staging");
                let refused = site.get(&other, &[header]).await;
                assert_eq!(refused.status, 403, "{store}: {refused:?}");
                let bad = format!("{path}?environment=no%20name");
                assert_eq!(site.get(&bad, &[header]).await.status, 400, "{store}");
                let tag = site.get(path, &[header]).await;
                let tag = tag.header("etag").expect("a tag").to_owned();
                let unchanged = site.get(path, &[header, ("if-none-match", &tag)]).await;
                assert_eq!(unchanged.status, 304, "{store}");
                let head = site.ask("HEAD", path, &[header]).await;
                assert_eq!(
                    (head.status, head.header("etag")),
                    (200, Some(&*tag)),
                    "{store}"
                );
                assert_eq!(head.body, "");
            }
            let hidden = site.get(&format!("{LIST}/secret"), &[header]).await;
            assert_eq!(hidden.status, 404, "{store}");
        }
        let list = site.get(LIST, &[("x-api-key", server)]).await;
        assert!(has_flag(&list, "secret"), "{store}");
        let found = site
            .get(&format!("{LIST}/secret"), &[("x-api-key", server)])
            .await;
        assert_eq!(found.status, 200, "{store}");
        // An admin's token identifies a user; it is not a key.
        let admin = site.local.admin("GET", LIST, "").await;
        assert_eq!(admin.status, 401, "{store}");
        let path = format!("/api/admin/keys/{}", site.client_key.id);
        let revoked = site.local.admin("DELETE", &path, "").await;
        assert!(matches!(revoked.status, 200 | 204), "{store}: {revoked:?}");
        let headers = [("x-api-key", client), ("if-none-match", tag.as_str())];
        assert_eq!(site.get(LIST, &headers).await.status, 401, "{store}");
    }
}

#[tokio::test]
async fn with_off_or_an_invalid_value_the_paths_are_unknown() {
    for routes in ["off", "opne"] {
        for site in Site::of_both_kinds(routes).await {
            let key = [
                ("x-api-key", site.server_key.text.as_str()),
                ("if-none-match", "*"),
            ];
            for path in public_config_paths(&["shown"]) {
                let path = path.as_str();
                for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
                    for headers in [&[][..], &key] {
                        let closed = site.ask(method, path, headers).await;
                        let unknown = site.ask(method, "/api/nothing", headers).await;
                        let place = format!("{routes} on {}: {method} {path}", site.store);
                        assert_eq!(closed.status, unknown.status, "{place}");
                        assert_eq!(closed.body, unknown.body, "{place}");
                        let header_names = |answer: &Response| {
                            let headers = answer.headers.keys();
                            headers.cloned().collect::<Vec<_>>()
                        };
                        assert_eq!(header_names(&closed), header_names(&unknown), "{place}");
                    }
                }
                assert_eq!(site.get(path, &[]).await.status, 404);
            }
            let is_logged = site.local.log().contains("PUBLIC_CONFIG_ROUTES must be");
            assert_eq!(is_logged, routes == "opne", "{}", site.local.log());
        }
    }
}

/// The setting applies behind a gateway and at a function URL.
#[tokio::test]
async fn functions_apply_the_setting_of_the_public_routes() {
    let stack = Stack::start().await;
    let client = "pennon_client_production_".to_owned() + &"c".repeat(43);
    stack.database.add_key(&client).await;
    let at_url = |path: &str| Event::list().at_function_url(path);
    for routes in ["open", "key", "off", "Key"] {
        let setting = [("PUBLIC_CONFIG_ROUTES", routes)];
        let list = stack.function_with("list-flags", &setting).await;
        let get = stack.function_with("get-flag", &setting).await;
        let not_found = stack.function_with("not-found", &setting).await;
        let (without, with) = match routes {
            "open" => (200, 200),
            "key" => (401, 200),
            _ => (404, 404),
        };
        for (function, event) in [
            (&list, Event::list()),
            (&list, at_url("/api/config/flags")),
            (&list, at_url("/config/flags").method("HEAD")),
            (&get, Event::get("search")),
            (&get, at_url("/api/config/flags/search")),
        ] {
            let answer = function.call(&event).await;
            assert_eq!(answer.status, without, "{routes}: {event:?} {answer:?}");
            let answer = function
                .call(&event.clone().header("x-api-key", &client))
                .await;
            assert_eq!(answer.status, with, "{routes}: {event:?} {answer:?}");
            if with == 404 {
                assert!(
                    answer
                        .headers
                        .keys()
                        .all(|name| !name.starts_with("x-cache"))
                );
            }
        }
        // A method without a gateway route.
        let post = Event::load("not-found")
            .method("POST")
            .path("/api/config/flags", None);
        let answer = not_found.call(&post).await;
        let expected = if with == 404 { 404 } else { 405 };
        assert_eq!(answer.status, expected, "{routes}: {answer:?}");
        let is_logged = list.log().contains("PUBLIC_CONFIG_ROUTES must be");
        assert_eq!(is_logged, routes == "Key");
    }
}

#[tokio::test]
async fn a_bearer_token_names_the_user_when_the_key_is_in_x_api_key() {
    let stack = Stack::start().await;
    let client = "pennon_client_production_".to_owned() + &"c".repeat(43);
    stack.database.add_key(&client).await;
    let key = SigningKey::p256();
    let issuer = Issuer::start(&[key.public("k1")]).await;
    let setting = [("PUBLIC_CONFIG_ROUTES", "key")];
    let environment = [&issuer.environment()[..], &setting].concat();
    let list = stack.function_with("list-flags", &environment).await;
    let header = json!({"alg": key.algorithm(), "kid": "k1", "typ": "JWT"});
    // This user is outside the 50 % that get `checkout`; a caller without a user gets it.
    let token = key.sign(&header, &issuer.claims("user-118"));
    let bearer = format!("Bearer {token}");
    let event = Event::list().header("authorization", &bearer);
    assert_eq!(list.call(&event).await.status, 401, "a token was accepted");
    let answer = list.call(&event.header("x-api-key", &client)).await;
    assert_eq!(answer.json()["checkout"], false, "{answer:?}");
    let answer = list.call(&Event::list().api_key(&client)).await;
    assert_eq!(answer.json()["checkout"], true, "{answer:?}");
}

#[tokio::test]
async fn a_hidden_flag_is_neither_returned_nor_counted() {
    let stack = Stack::start().await;
    let hidden = json!({"variants": {"on": true}, "defaultVariant": "on",
        "metadata": {"serverOnly": true}});
    stack.database.add_typed_flag("hidden", &hidden).await;
    let list = stack.function("list-flags").await;
    let answer = list.call(&Event::list()).await;
    assert_eq!(answer.json()["search"], true);
    let line = list.last_request().to_string();
    assert!(
        line.contains("search") && !line.contains("hidden"),
        "{line}"
    );
}

#[tokio::test]
async fn errors_reveal_nothing_of_the_rule_to_a_client_key() {
    let (stack, keys) = with_keys().await;
    let rule = |rule: Value| json!({"variants": {"a": 1}, "targeting": rule});
    let computed = rule(json!({"cat": ["hush-", {"var": "plan"}]}));
    stack.database.add_typed_flag("computed", &computed).await;
    let unreadable = rule(json!({"hush-hush": 1}));
    stack
        .database
        .add_typed_flag("unreadable", &unreadable)
        .await;
    let one = stack.function("evaluate-flag").await;
    let all = stack.function("evaluate-flags").await;
    let context = json!({"targetingKey": "alice", "plan": "gold"});
    for (flag, code) in [("computed", "GENERAL"), ("unreadable", "PARSE_ERROR")] {
        let event = Event::evaluate(flag, &context);
        for key in &keys {
            let is_server = *key == keys[0];
            let answer = one.call(&event.clone().api_key(key)).await;
            assert_eq!(answer.json()["errorCode"], code, "{answer:?}");
            assert_ne!(answer.json()["errorDetails"], "", "{answer:?}");
            assert_eq!(answer.body.contains("hush"), is_server, "{answer:?}");
            let bulk = all.call(&Event::evaluate_all(&context).api_key(key)).await;
            assert!(bulk.body.contains(code), "{bulk:?}");
            assert_eq!(bulk.body.contains("hush"), is_server, "{bulk:?}");
        }
    }
}

/// Whether a caller with this key sees the flag, for each route that returns flags.
async fn sees(stack: &Stack, key: Option<&str>, flag: &str) -> Vec<bool> {
    let with_key = |event: Event| match key {
        Some(key) => event.api_key(key),
        None => event,
    };
    let list = stack.function("list-flags").await;
    let get = stack.function("get-flag").await;
    let listed = list.call(&with_key(Event::list())).await;
    let got = get.call(&with_key(Event::get(flag))).await;
    assert!(matches!(got.status, 200 | 404), "{got:?}");
    assert_eq!(listed.status, 200, "{listed:?}");
    let mut seen = vec![listed.body.contains(flag), got.status == 200];
    if key.is_some() {
        let context = json!({"targetingKey": "alice"});
        let one = stack.function("evaluate-flag").await;
        let all = stack.function("evaluate-flags").await;
        let one = one.call(&with_key(Event::evaluate(flag, &context))).await;
        let all = all.call(&with_key(Event::evaluate_all(&context))).await;
        assert_eq!(all.status, 200, "{all:?}");
        let found = one.json()["errorCode"] != "FLAG_NOT_FOUND";
        assert_eq!(found, one.status != 404, "{one:?}");
        seen.extend([found, all.body.contains(flag)]);
    }
    seen
}

async fn with_keys() -> (Stack, [String; 2]) {
    let stack = Stack::start().await;
    let keys =
        ["server", "client"].map(|kind| format!("pennon_{kind}_production_{}", "k".repeat(43)));
    for key in &keys {
        stack.database.add_key(key).await;
    }
    (stack, keys)
}

#[tokio::test]
async fn while_settings_are_unreadable_only_server_keys_and_admins_see_the_flags() {
    let (stack, [server, client]) = with_keys().await;
    let shown = json!({"variants": {"on": true, "off": false}, "defaultVariant": "on",
                       "metadata": {"serverOnly": false}});
    stack
        .database
        .add_typed_flag("explicitly-shown", &shown)
        .await;
    let settings = |text: &str| {
        format!(
            "insert into pennon_environment_settings (environment, settings)
               values ('production', '{text}')
             on conflict (environment) do update set settings = excluded.settings"
        )
    };
    for text in [
        r#"{"metadata": {"serverOnly": true}, "fractional": "v9"}"#,
        "[]",
        "null",
        r#"{"metadata": 1}"#,
        r#"{"bucketing": "other"}"#,
    ] {
        let statement = settings(text);
        stack
            .database
            .sql()
            .batch_execute(&statement)
            .await
            .expect("settings");
        stack.redis.command(&["FLUSHALL"]);
        for flag in ["search", "explicitly-shown"] {
            assert_eq!(sees(&stack, None, flag).await, [false; 2], "{text} {flag}");
            let by_client = sees(&stack, Some(&client), flag).await;
            assert_eq!(by_client, [false; 4], "{text} {flag}");
            let by_server = sees(&stack, Some(&server), flag).await;
            assert_eq!(by_server, [true; 4], "{text} {flag}");
        }
        let manage = stack.function("manage-flags").await;
        let event = Event::admin("GET", "/api/admin/flags/search", "");
        assert_eq!(manage.call(&event).await.status, 200, "{text}");
    }
    let statement = settings("{}");
    stack
        .database
        .sql()
        .batch_execute(&statement)
        .await
        .expect("settings");
    stack.redis.command(&["FLUSHALL"]);
    assert_eq!(
        sees(&stack, Some(&client), "explicitly-shown").await,
        [true; 4]
    );
}

#[tokio::test]
async fn a_flag_with_an_invalid_server_only_value_is_hidden() {
    let (stack, [server, client]) = with_keys().await;
    // A readable and an unreadable definition with the same metadata.
    let with = |metadata: &str| {
        let readable = format!(
            r#"{{"variants": {{"on": true, "off": false}}, "defaultVariant": "on", "metadata": {metadata}}}"#
        );
        [
            readable,
            format!(r#"{{"variants": 1, "metadata": {metadata}}}"#),
        ]
    };
    // Definitions, and whether callers without a server key see a flag with this definition.
    let mut cases: Vec<(String, bool)> = Vec::new();
    for (value, is_shown) in [
        ("false", true),
        ("true", false),
        ("\"true\"", false),
        ("\"false\"", false),
        ("1", false),
        ("0", false),
        ("null", false),
        ("{}", false),
    ] {
        let both = with(&format!(r#"{{"serverOnly": {value}}}"#));
        cases.extend(both.map(|text| (text, is_shown)));
    }
    cases.extend(with(r#"{"owner": "us"}"#).map(|text| (text, true)));
    cases.extend(
        ["[]", "null", "5", "\"x\"", r#"{"metadata": 2}"#].map(|text| (text.to_owned(), false)),
    );
    cases.push((r#"{"variants": []}"#.to_owned(), true));
    for (number, (text, is_shown)) in cases.iter().enumerate() {
        let flag = format!("flag-{number}");
        let insert = "insert into feature_flags (flag_key, enabled, rollout_percentage, definition)
                      values ($1, true, 100, $2::text::json)";
        stack
            .database
            .sql()
            .execute(insert, &[&flag, text])
            .await
            .expect("a flag");
        stack.redis.command(&["FLUSHALL"]);
        // The list contains boolean flags only, so flags with unreadable definitions are missing.
        let listed = text.contains("\"on\"");
        let seen = |is_visible: bool| [is_visible && listed, is_visible, is_visible, is_visible];
        let anonymous = sees(&stack, None, &flag).await;
        assert_eq!(anonymous, seen(*is_shown)[..2], "{text}");
        assert_eq!(
            sees(&stack, Some(&client), &flag).await,
            seen(*is_shown),
            "{text}"
        );
        assert_eq!(
            sees(&stack, Some(&server), &flag).await,
            seen(true),
            "{text}"
        );
        let admin = Event::admin("GET", &format!("/api/admin/flags/{flag}"), "");
        let admin = stack.function("manage-flags").await.call(&admin).await;
        assert_eq!(admin.status, 200, "{text}: {admin:?}");
        assert_eq!(
            admin.json()["broken"].is_object(),
            !listed,
            "{text}: {admin:?}"
        );
    }
}

#[tokio::test]
async fn a_key_and_another_environment_in_the_query_are_rejected() {
    let (stack, [_, client]) = with_keys().await;
    let setting = [("PUBLIC_CONFIG_ROUTES", "key")];
    let list = stack.function_with("list-flags", &setting).await;
    let get = stack.function_with("get-flag", &setting).await;
    for (query, status) in [
        ("environment=production&environment=staging", 403),
        ("environment=&environment=staging", 403),
        ("environment=staging&environment=production", 403),
        ("environment=production&environment=production", 200),
        ("environment=production&environment=", 200),
    ] {
        let event = Event::list().query(query).api_key(&client);
        assert_eq!(list.call(&event).await.status, status, "{query}");
        let event = Event::get("search").query(query).api_key(&client);
        assert_eq!(get.call(&event).await.status, status, "{query}");
    }
}
