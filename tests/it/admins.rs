//! Admin rights come from groups that the gateway has verified, never from an ambiguous claim.

use pennon_core::http::ENDPOINTS;
use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::issuer::encode;
use pennon_tests::lambda::Function;
use pennon_tests::routes::paths_for;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const ISSUER: &str = "https://issuer.example";
const EXPIRY: u64 = 1_790_000_000;

/// The verified claims as an HTTP API passes them; `written` is the text of the roles.
fn claims(written: &str) -> Value {
    json!({ "iss": ISSUER, "sub": "u-1", "exp": EXPIRY.to_string(), "roles": written })
}

fn payload(roles: &Value) -> Value {
    json!({ "iss": ISSUER, "sub": "u-1", "exp": EXPIRY, "roles": roles })
}

fn token(payload: &Value) -> String {
    format!("Bearer e30.{}.c2ln", encode(payload.to_string().as_bytes()))
}

/// A change of a flag with these verified claims and this `Authorization` header.
fn change(claims: &Value, authorization: Option<&str>) -> Event {
    let mut event = Event::update("checkout", &json!({}));
    event.value_mut()["requestContext"]["authorizer"]["jwt"]["claims"] = claims.clone();
    match authorization {
        Some(authorization) => event.header("Authorization", authorization),
        None => event,
    }
}

#[tokio::test]
async fn every_admin_route_rejects_a_request_without_a_token() {
    for api in Api::of_both_kinds().await {
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_admin()) {
            for path in paths_for(endpoint, "checkout") {
                let answer = api.local().send(endpoint.method, &path, &[], "{}").await;
                let place = format!("{} {path} on {}", endpoint.method, api.store);
                assert_eq!(answer.status, 401, "{place}: {answer:?}");
            }
        }
        assert_eq!(api.get("/api/config/flags/checkout").await.status, 200);
    }
}

/// Starts `update-flag`, which reads the groups from the claim `roles`.
async fn by_roles(stack: &Stack) -> Function {
    let claim = [("ADMIN_CLAIM", "roles")];
    stack.function_with("update-flag", &claim).await
}

#[tokio::test]
async fn a_group_whose_name_has_a_space_is_not_two_groups() {
    let stack = Stack::start().await;
    let update = by_roles(&stack).await;
    let text = "[site admin]";
    for (authorization, status, why) in [
        (None, 403, Some("has no token to read the list from")),
        (Some(token(&payload(&json!(["site admin"])))), 403, None),
        (Some(token(&payload(&json!(["site", "admin"])))), 200, None),
        // With two tokens, it is unknown which one the gateway has verified.
        (
            Some(format!(
                "{0},{0}",
                token(&payload(&json!(["site", "admin"])))
            )),
            403,
            Some("has no token to read the list from"),
        ),
        (
            Some(token(&payload(&json!(["admin"])))),
            403,
            Some("the groups of the token in the request differ"),
        ),
        (
            Some(token(&payload(&json!([["site", "admin"]])))),
            403,
            Some("neither a string nor a list of strings"),
        ),
    ] {
        let logged = update.log().len();
        let event = change(&claims(text), authorization.as_deref());
        let answer = update.call(&event).await;
        assert_eq!(answer.status, status, "{authorization:?}: {answer:?}");
        let log = update.log();
        let lines = &log[logged..];
        assert_eq!(
            lines.contains("the caller is treated as a person without a role"),
            why.is_some(),
            "{lines}"
        );
        assert!(
            why.is_none_or(|why| lines.contains(why)),
            "no {why:?} in {lines}"
        );
        assert!(!lines.contains("e30."), "a token was logged: {lines}");
    }
}

#[tokio::test]
async fn a_claim_with_a_single_name_and_cognitos_groups_are_read_without_the_token() {
    let stack = Stack::start().await;
    let roles = by_roles(&stack).await;
    let cognito = stack.function("update-flag").await;
    for (text, by_role, by_group) in [
        ("admin", 200, 200),
        ("admins", 200, 200),
        ("[admin]", 403, 200),
        ("[users admins]", 403, 200),
        ("[[admin]]", 403, 403),
        ("[\"admin\"]", 403, 403),
        ("admin,users", 403, 403),
        ("site admin", 403, 403),
        ("[ admin]", 403, 403),
        ("", 403, 403),
    ] {
        for (function, claim, status) in [
            (&roles, "roles", by_role),
            (&cognito, "cognito:groups", by_group),
        ] {
            let event = change(&json!({"sub": "u-1", claim: text}), None);
            let answer = function.call(&event).await;
            assert_eq!(answer.status, status, "{claim} {text}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_token_other_than_the_verified_one_grants_no_admin_rights() {
    let stack = Stack::start().await;
    let update = by_roles(&stack).await;
    let admin = payload(&json!(["admin"]));
    let good = change(&claims("[admin]"), Some(&token(&admin)));
    assert_eq!(update.call(&good).await.status, 200);
    let mixed_case = change(
        &claims("[admin]"),
        Some(&token(&admin).replace("Bearer", "bEARER")),
    );
    assert_eq!(update.call(&mixed_case).await.status, 200);
    for (name, value) in [
        ("iss", json!("https://other.example")),
        ("sub", json!("u-2")),
        ("exp", json!(EXPIRY + 1)),
        ("exp", json!(EXPIRY.to_string())),
    ] {
        let mut other = admin.clone();
        other[name] = value;
        let logged = update.log().len();
        let answer = update
            .call(&change(&claims("[admin]"), Some(&token(&other))))
            .await;
        assert_eq!(answer.status, 403, "{other}");
        assert_eq!(answer.json()["error"], "Forbidden");
        let why = format!("{name} of the token in the request differs from the verified claim");
        let log = update.log();
        assert!(log[logged..].contains(&why), "{other}: {log}");
    }
    let twice = r#"{"iss":"https://issuer.example","sub":"u-1","exp":1790000000,"roles":[],"roles":["admin"]}"#;
    let twice = format!("Bearer e30.{}.c2ln", encode(twice.as_bytes()));
    let answer = update.call(&change(&claims("[admin]"), Some(&twice))).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn an_invalid_subject_is_rejected() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    for (subject, status) in [
        (json!("ä".repeat(255)), 200),
        (json!("ä".repeat(256)), 401),
        (json!(""), 401),
        (json!("  "), 401),
        (json!("a\u{0}b"), 401),
        (json!(7), 401),
        (json!(null), 401),
    ] {
        let event = change(&json!({"sub": subject, "cognito:groups": "[admin]"}), None);
        let answer = update.call(&event).await;
        assert_eq!(answer.status, status, "{subject}: {answer:?}");
    }
}

#[tokio::test]
async fn the_claims_of_a_rest_api_are_read_as_rest_apis_write_them() {
    let stack = Stack::start().await;
    let update = stack.function("update-flag").await;
    let groups = json!(["users", "admin"]);
    let payload =
        json!({ "iss": ISSUER, "sub": "u-1", "exp": 1_583_999_851, "cognito:groups": groups });
    let claims = json!({
        "iss": ISSUER, "sub": "u-1", "exp": "Thu Mar 12 07:57:31 UTC 2020",
        "cognito:groups": "users,admin",
    });
    for (authorization, status) in [
        (None, 403),
        (Some(token(&payload)), 200),
        (Some(token(&payload).replace("Bearer ", "")), 200),
    ] {
        let event = change(&claims, authorization.as_deref()).by_rest_api();
        let answer = update.call(&event).await;
        assert_eq!(answer.status, status, "{authorization:?}: {answer:?}");
    }
    let single = json!({"sub": "u-1", "cognito:groups": "admin"});
    let answer = update.call(&change(&single, None).by_rest_api()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
