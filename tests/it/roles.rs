//! Roles: viewers read, editors change flags of their environments, admins do everything.

use pennon_core::http::{Authorization, ENDPOINTS, Endpoint};
use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::issuer::encode;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::response::Response;
use pennon_tests::routes::{path_for, paths_for};
use serde_json::{Value, json};

/// Groups, with the rights that they give: read, change flags of production, change flags of staging, be an admin.
const GROUPS: [(&str, [bool; 4]); 6] = [
    ("viewer", [true, false, false, false]),
    ("editor:production", [true, true, false, false]),
    ("editor:staging", [true, false, true, false]),
    ("editor", [true, true, true, false]),
    ("admin", [true; 4]),
    ("admins", [true; 4]),
];

fn admin_routes() -> impl Iterator<Item = &'static Endpoint> {
    ENDPOINTS.iter().filter(|endpoint| endpoint.is_admin())
}

/// Whether a caller with these rights may call a route for this environment.
fn is_allowed(endpoint: &Endpoint, may: [bool; 4], environment: &str) -> bool {
    let [read, production, staging, admin] = may;
    match endpoint.authorization {
        Authorization::Viewer => read,
        Authorization::Editor if environment == "production" => production,
        Authorization::Editor if environment == "staging" => staging,
        Authorization::Editor => panic!("no such environment in the table: {environment}"),
        Authorization::Admin => admin,
        Authorization::Anyone
        | Authorization::PublicConfig
        | Authorization::ApiKey
        | Authorization::SyncKey => {
            panic!("no admin route: {endpoint:?}")
        }
    }
}

/// The path of a route for an environment, which is in the path or in the query.
fn in_environment(endpoint: &Endpoint, environment: &str) -> String {
    let path = path_for(endpoint.path, "checkout");
    if endpoint.query.contains(&"environment") {
        format!("{path}?environment={environment}")
    } else {
        path.replace("/production/", &format!("/{environment}/"))
    }
}

fn check(answer: &Response, is_allowed: bool, place: &str) {
    let is_refused = [401, 403].contains(&answer.status);
    assert_eq!(is_refused, !is_allowed, "{place}: {answer:?}");
    if is_refused {
        assert_eq!(answer.json()["error"], "Forbidden", "{place}");
        let message = answer.json()["message"].clone();
        let message = message.as_str().expect("a message");
        assert!(message.contains("one of the groups"), "{place}: {message}");
    }
}

/// Sends a request with the token of a role.
async fn send(local: &Local, role: &str, method: &str, path: &str, body: &str) -> Response {
    let authorization = format!("Bearer {}", local.token_of(role));
    let headers = [("authorization", authorization.as_str()), ("if-match", "*")];
    local.send(method, path, &headers, body).await
}

#[tokio::test]
async fn every_admin_route_answers_its_roles_and_no_others() {
    for api in Api::of_both_kinds().await {
        let local = api.local();
        for (role, may) in GROUPS.into_iter().filter(|(role, _)| *role != "admins") {
            let authorization = format!("Bearer {}", local.token_of(role));
            let headers = [("authorization", authorization.as_str())];
            for endpoint in admin_routes() {
                let paths = paths_for(endpoint, "checkout").into_iter();
                let by_path = paths.map(|path| ("production", path));
                let staging = ("staging", in_environment(endpoint, "staging"));
                for (environment, path) in by_path.chain([staging]) {
                    let answer = local.send(endpoint.method, &path, &headers, "{}").await;
                    let place = format!("{role}: {} {path} on {}", endpoint.method, api.store);
                    check(&answer, is_allowed(endpoint, may, environment), &place);
                }
            }
        }
    }
}

/// An event of this route by a member of these groups, as an HTTP API writes them.
fn event(endpoint: &Endpoint, groups: &str) -> Event {
    let path = path_for(endpoint.path, "checkout");
    Event::admin(endpoint.method, &path, "{}").user("u-1", groups)
}

#[tokio::test]
async fn every_function_checks_the_role_before_it_reads_anything() {
    let mut names: Vec<&str> = admin_routes().map(|endpoint| endpoint.function).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        // Without a database, every request that reads something fails with 503.
        let function = Function::start(name, &[]).await;
        for endpoint in admin_routes().filter(|endpoint| endpoint.function == name) {
            let place = format!("{} {}", endpoint.method, endpoint.path);
            let nobody = event(endpoint, "").anonymous();
            assert_eq!(function.call(&nobody).await.status, 401, "{place}");
            for groups in ["", "[]", "[users]", "[Editor]", "[editor:]", "[editor:*]"] {
                let answer = function.call(&event(endpoint, groups)).await;
                check(&answer, false, &format!("{groups}: {place}"));
            }
            for (group, may) in GROUPS {
                let place = format!("{group}: {place}");
                let event = event(endpoint, &format!("[users {group}]"));
                let answer = function.call(&event).await;
                check(&answer, is_allowed(endpoint, may, "production"), &place);
                if endpoint.query.contains(&"environment") {
                    let answer = function.call(&event.query("environment=staging")).await;
                    check(&answer, is_allowed(endpoint, may, "staging"), &place);
                }
            }
        }
    }
}

#[tokio::test]
async fn names_that_resemble_a_group_give_no_role() {
    let function = Function::start("report-usage", &[]).await;
    let many: Vec<String> = (0..10_000)
        .map(|number| format!("editors:{number}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for groups in [
        &["editor:"][..],
        &["editor:*"],
        &["Editor"],
        &["VIEWER"],
        &[" admin"],
        &["admin "],
        &["editor:production,admin"],
        &["viewer,admin"],
        &["editor:production editor"],
        &["[admin]"],
        &["\u{430}dmin", "vi\u{435}wer", "editor\u{ff1a}production"],
        &["admin\u{200b}"],
        &["editor:pr\u{43e}duction"],
        &[""],
        &many,
    ] {
        let written = format!("[{}]", groups.join(" "));
        let token = json!({"iss": "i", "sub": "u-1", "exp": 1, "cognito:groups": groups});
        let token = format!("Bearer e30.{}.c2ln", encode(token.to_string().as_bytes()));
        let event = Event::admin("GET", "/api/admin/me", "").user("u-1", &written);
        let mut with_token = event.clone().header("authorization", &token);
        let claims = &mut with_token.value_mut()["requestContext"]["authorizer"]["jwt"]["claims"];
        claims["iss"] = json!("i");
        claims["exp"] = json!("1");
        let place = written.chars().take(80).collect::<String>();
        check(&function.call(&with_token).await, false, &place);
        // Without the token, spaces separate names of Cognito's groups, which contain none.
        if groups.iter().all(|name| !name.contains(' ')) {
            check(&function.call(&event).await, false, &place);
        }
    }
}

#[tokio::test]
async fn an_editor_of_one_environment_changes_its_flags_and_nothing_else() {
    for api in Api::of_both_kinds().await {
        let local = api.local();
        let (on, flags) = (api.store, "/api/admin/flags");
        let staging = json!({"environment": "staging"});
        let created = api.admin("POST", "/api/admin/environments", &staging).await;
        assert_eq!(created.status, 201, "{on}: {created:?}");
        for (method, path, body, status) in [
            ("POST", "", r#"{"key": "banner"}"#, 201),
            ("PATCH", "/banner", r#"{"enabled": true}"#, 200),
            (
                "POST",
                "/banner/users",
                r#"{"userId": "u", "overrideType": "include"}"#,
                201,
            ),
            (
                "POST",
                "/banner/schedule",
                r#"{"scheduledAt": "2099-01-01T00:00Z", "updates": {"enabled": false}}"#,
                201,
            ),
            (
                "POST",
                "/banner/ramp",
                r#"{"steps": [{"percent": 50, "bakeSeconds": 9}]}"#,
                201,
            ),
            ("POST", "/banner/ramp/cancel", "", 200),
            ("DELETE", "/banner", "", 200),
        ] {
            let path = format!("{flags}{path}?environment=staging");
            let answer = send(local, "editor:staging", method, &path, body).await;
            assert_eq!(answer.status, status, "{method} {path} on {on}: {answer:?}");
        }
        let audit = api
            .read("/api/admin/environments/staging/audit")
            .await
            .json();
        let entries = audit["entries"].as_array().expect("entries").clone();
        assert!(entries.len() > 5, "{on}: {audit}");
        for entry in entries.iter().filter(|it| !it["flagKey"].is_null()) {
            assert_eq!(entry["actor"], "local-editor:staging", "{on}: {entry}");
        }

        let before = api
            .read("/api/admin/environments/production/audit")
            .await
            .body;
        for (query, status) in [
            ("", 403),
            ("?environment=", 403),
            ("?environment=production", 403),
            ("?environment=Staging", 403),
            ("?environment=staging2", 403),
            ("?environment=a%20b", 400),
            ("?environment=staging&environment=production", 400),
            ("?environment=production&environment=staging", 403),
            ("?environment=&environment=staging", 403),
        ] {
            let path = format!("{flags}/checkout{query}");
            let answer = send(
                local,
                "editor:staging",
                "PATCH",
                &path,
                r#"{"enabled": false}"#,
            )
            .await;
            assert_eq!(answer.status, status, "{path} on {on}: {answer:?}");
        }
        let after = api
            .read("/api/admin/environments/production/audit")
            .await
            .body;
        assert_eq!(before, after, "{on}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_missing_groups_and_not_whether_the_environment_exists() {
    for api in Api::of_both_kinds().await {
        let mut messages = Vec::new();
        for environment in ["production", "nowhere"] {
            let path = format!("/api/admin/flags/checkout?environment={environment}");
            let answer = send(api.local(), "editor:staging", "PATCH", &path, "{}").await;
            assert_eq!(answer.status, 403, "{answer:?}");
            messages.push(answer.body.replace(environment, "*"));
        }
        assert_eq!(messages[0], messages[1]);
        let groups = "editor:*, editor, admin or admins";
        assert!(messages[0].contains(groups), "{}", messages[0]);
        let purge = "/api/admin/environments/production/purge";
        let answer = send(api.local(), "editor", "POST", purge, "").await;
        assert!(answer.body.contains("the role admin"), "{answer:?}");
        assert!(!answer.body.contains("editor"), "{answer:?}");
    }
}

#[tokio::test]
async fn me_lists_the_roles_of_the_caller_and_what_they_allow() {
    let every = Value::Bool(true);
    for api in Api::of_both_kinds().await {
        for (role, edit) in [
            ("viewer", json!([])),
            ("editor:staging", json!(["staging"])),
            ("editor", every.clone()),
            ("admin", every.clone()),
        ] {
            let answer = send(api.local(), role, "GET", "/api/admin/me", "").await;
            let may = json!({"read": true, "edit": edit, "admin": role == "admin"});
            let expected = json!({"actor": format!("local-{role}"), "roles": [role], "may": may});
            assert_eq!(answer.json(), expected, "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    let function = Function::start("report-usage", &[]).await;
    let groups = "[editor:b viewer users editor:a admins editor:b editor:]";
    let event = Event::admin("GET", "/api/admin/me", "").user("u-1", groups);
    let body = function.call(&event).await.json();
    assert_eq!(
        body["roles"],
        json!(["viewer", "editor:a", "editor:b", "admin"])
    );
    let event = event.user("u-1", "[editor:b editor:a]");
    let body = function.call(&event).await.json();
    assert_eq!(body["may"]["edit"], json!(["a", "b"]));
}

#[tokio::test]
async fn a_token_of_a_role_is_valid_only_with_the_admin_token_that_issued_it() {
    let local = Local::start(&[]).await;
    let other = Local::start(&[("PENNON_ADMIN_TOKEN", "another-token")]).await;
    let token = local.token_of("viewer");
    let me = async |local: &Local, token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        local
            .send("GET", "/api/admin/me", &headers, "")
            .await
            .status
    };
    assert_eq!(me(&local, &token).await, 200);
    assert_eq!(me(&other, &token).await, 401);
    assert_eq!(me(&local, &token.replace("viewer", "admin")).await, 401);
    assert_eq!(me(&local, &token.replace("viewer", "editor")).await, 401);
    assert!(!local.log().contains(&token), "{}", local.log());
}

#[tokio::test]
async fn alarms_of_the_local_server_are_set_by_admins_only() {
    let local = Local::start(&[]).await;
    let state = r#"{"state": "OK"}"#;
    for (role, status) in [("viewer", 403), ("editor", 403), ("admin", 200)] {
        let answer = send(&local, role, "PUT", "/local/alarms/errors", state).await;
        assert_eq!(answer.status, status, "{role}: {answer:?}");
    }
}
