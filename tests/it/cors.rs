//! Cross-origin access: public routes for every origin by default, admin routes for named origins only. Errors have
//! the same headers as other responses.

use pennon_core::http::ENDPOINTS;
use pennon_tests::api::Api;
use pennon_tests::browser::{Blocked, Page};
use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::lambda::Function;
use pennon_tests::local::{ADMIN_TOKEN, API_KEY, Local};
use pennon_tests::response::Response;
use pennon_tests::routes::{authorization_for, path_for, paths_for};
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::json;

const SHOP: &str = "https://shop.example";
const DESK: &str = "https://desk.example:8443";
const NAMED: [(&str, &str); 2] = [
    ("CORS_ORIGINS", "https://shop.example,http://localhost:3000"),
    ("ADMIN_CORS_ORIGINS", DESK),
];

/// Origins that are not allowed, most of which resemble `https://shop.example`.
const HOSTILE: [&str; 16] = [
    "null",
    "*",
    "https://shop.example.evil.example",
    "https://evil.example/https://shop.example",
    "https://evilshop.example",
    "https://a.shop.example",
    "https://shop.exampl",
    "https://shop.examplee",
    "https://SHOP.example",
    "HTTPS://shop.example",
    "http://shop.example",
    "https://shop.example:443",
    "https://shop.example:8443",
    "https://shop.example/",
    "https://shop.example,http://localhost:3000",
    "https://shop.example https://evil.example",
];

/// The allowed origin, whether the response varies by origin, and whether it has any CORS header.
fn cors_headers(answer: &Response) -> (Option<&str>, bool, bool) {
    let any = answer
        .headers
        .keys()
        .any(|name| name.starts_with("access-control-"));
    (
        answer.header("access-control-allow-origin"),
        answer
            .header("vary")
            .is_some_and(|vary| vary.split(", ").any(|name| name == "Origin")),
        any,
    )
}

#[tokio::test]
async fn by_default_every_origin_reads_public_routes_and_none_reads_admin_routes() {
    for api in Api::of_both_kinds().await {
        for endpoint in ENDPOINTS {
            for path in paths_for(endpoint, "checkout") {
                let token = authorization_for(endpoint);
                for origin in [None, Some("null"), Some(SHOP), Some("https://evil.example")] {
                    for token in [None, Some(token.as_str())] {
                        for method in [endpoint.method, "OPTIONS", "TRACE"] {
                            // Without a token, so that nothing is deleted that later requests need.
                            let token =
                                token.filter(|_| !endpoint.is_admin() || method != "DELETE");
                            let mut headers = Vec::new();
                            headers.extend(origin.map(|it| ("origin", it)));
                            headers.extend(token.map(|it| ("authorization", it)));
                            let answer = api.local().send(method, &path, &headers, "{}").await;
                            let wanted = if endpoint.is_admin() {
                                (None, false, false)
                            } else {
                                (Some("*"), false, true)
                            };
                            let place = format!("{method} {path} by {origin:?} on {}", api.store);
                            assert_eq!(cors_headers(&answer), wanted, "{place}: {answer:?}");
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn with_named_origins_only_their_pages_read_responses_and_vary_is_set() {
    let local = Local::start(&NAMED).await;
    for endpoint in ENDPOINTS {
        let path = path_for(endpoint.path, "checkout");
        let own = if endpoint.is_admin() { DESK } else { SHOP };
        let other = if endpoint.is_admin() { SHOP } else { DESK };
        for method in [endpoint.method, "OPTIONS"] {
            let ask = async |origin: Option<&str>| {
                let headers: Vec<_> = origin.map(|it| ("origin", it)).into_iter().collect();
                local.send(method, &path, &headers, "{}").await
            };
            let answer = ask(Some(own)).await;
            assert_eq!(
                cors_headers(&answer),
                (Some(own), true, true),
                "{method} {path}"
            );
            let strangers = HOSTILE.into_iter().chain([other]).map(Some).chain([None]);
            for origin in strangers {
                let answer = ask(origin).await;
                let place = format!("{method} {path} by {origin:?}: {answer:?}");
                assert_eq!(cors_headers(&answer), (None, true, false), "{place}");
            }
        }
    }
    let page = [("origin", "http://localhost:3000")];
    let answer = local.send("GET", "/health", &page, "").await;
    assert_eq!(cors_headers(&answer), (Some(page[0].1), true, true));
    // A request with two `Origin` headers matches no origin.
    let two = [("origin", SHOP), ("origin", SHOP)];
    let answer = local.send("GET", "/health", &two, "").await;
    assert_eq!(cors_headers(&answer), (None, true, false));
}

#[tokio::test]
async fn functions_behind_a_gateway_send_the_same_headers_as_the_local_server() {
    let stack = Stack::start().await;
    let names = ENDPOINTS.iter().map(|endpoint| endpoint.function);
    let names: std::collections::BTreeSet<&str> = names.collect();
    for name in names {
        let function = stack.function_with(name, &NAMED).await;
        for endpoint in ENDPOINTS.iter().filter(|it| it.function == name) {
            let own = if endpoint.is_admin() { DESK } else { SHOP };
            for base in ["", "/flags"] {
                let values = [
                    ("flagKey", "checkout"),
                    ("userId", "u"),
                    ("id", "i"),
                    ("keyId", "k"),
                    ("webhookId", "w"),
                    ("environment", "production"),
                ];
                let named =
                    |(name, _): &&(&str, &str)| endpoint.path.contains(&format!("{{{name}}}"));
                let values: Vec<_> = values.iter().filter(named).copied().collect();
                // Without credentials: 401 on admin routes and for SDKs, which pages must be able to read.
                let event = Event::by_route(endpoint.method, endpoint.path, base, &values);
                let event = event.anonymous().without_header("authorization");
                let place = format!("{} {base}{}", endpoint.method, endpoint.path);
                let answer = function.call(&event.clone().header("origin", own)).await;
                assert_eq!(
                    cors_headers(&answer),
                    (Some(own), true, true),
                    "{place}: {answer:?}"
                );
                let exposed = answer.header("access-control-expose-headers");
                let exposed = exposed.expect("exposed");
                for header in ["ETag", "Retry-After", "X-Request-Id"] {
                    assert!(exposed.contains(header), "{place}: {exposed}");
                }
                let unknown = exposed.contains("X-Unknown-Environment");
                assert_eq!(unknown, !endpoint.is_admin(), "{place}: {exposed}");
                for origin in HOSTILE {
                    let answer = function.call(&event.clone().header("origin", origin)).await;
                    assert_eq!(
                        cors_headers(&answer),
                        (None, true, false),
                        "{place} by {origin}"
                    );
                }
                assert_eq!(
                    cors_headers(&function.call(&event).await),
                    (None, true, false)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_preflight_of_an_admin_path_needs_no_token_and_is_answered_behind_a_base_path() {
    let closed = Function::start("not-found", &[]).await;
    let open = Function::start("not-found", &NAMED).await;
    let preflight = |template: &str, rest: &str, base: &str, origin: &str| {
        Event::by_route("OPTIONS", template, base, &[("proxy", rest)])
            .anonymous()
            .without_header("authorization")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,if-match")
    };
    for template in ["/api/admin/{proxy+}", "/admin/{proxy+}"] {
        for base in ["", "/flags", "/flags/v1"] {
            let ask = |origin: &str| preflight(template, "flags/checkout", base, origin);
            let answer = open.call(&ask(DESK)).await;
            let place = format!("{base}{template}: {answer:?}");
            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{place}");
            let headers = ["authorization".to_owned(), "if-match".to_owned()];
            let page = Page { origin: DESK };
            assert_eq!(
                page.check_preflight(&answer, "PATCH", &headers),
                Ok(()),
                "{place}"
            );
            assert_eq!(
                answer.header("access-control-max-age"),
                Some("7200"),
                "{place}"
            );
            let methods = "PATCH, POST, GET, HEAD, DELETE, OPTIONS";
            assert_eq!(answer.header("allow"), Some(methods), "{place}");
            for (function, origin, varies) in [(&open, SHOP, true), (&closed, DESK, false)] {
                let answer = function.call(&ask(origin)).await;
                assert_eq!(answer.status, 204, "{place}");
                assert_eq!(
                    cors_headers(&answer),
                    (None, varies, false),
                    "{place}: {answer:?}"
                );
                assert_eq!(answer.header("allow"), Some(methods), "{place}");
            }
            let answer = open.call(&preflight(template, "nothing", base, DESK)).await;
            assert_eq!(answer.status, 401, "{place}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_preflight_names_the_methods_and_headers_of_its_path_and_no_others() {
    let local = Local::start(&NAMED).await;
    let desk = Page { origin: DESK };
    let shop = Page { origin: SHOP };
    let list = "/api/config/flags";
    let bulk = "/ofrep/v1/evaluate/flags";
    let flag = "/api/admin/flags/checkout";
    for (page, path, method, headers, outcome) in [
        (
            shop,
            list,
            "GET",
            &["if-none-match", "x-api-key"][..],
            Ok(()),
        ),
        (
            shop,
            list,
            "GET",
            &["authorization", "content-type"],
            Ok(()),
        ),
        (shop, list, "DELETE", &[], Err(Blocked::Method)),
        (
            shop,
            list,
            "GET",
            &["if-match"],
            Err(Blocked::Header("if-match".to_owned())),
        ),
        (
            shop,
            list,
            "GET",
            &["cookie"],
            Err(Blocked::Header("cookie".to_owned())),
        ),
        (
            shop,
            bulk,
            "POST",
            &["content-type", "if-none-match", "x-api-key"],
            Ok(()),
        ),
        (shop, bulk, "PATCH", &[], Err(Blocked::Method)),
        (shop, flag, "PATCH", &[], Err(Blocked::Origin)),
        (desk, list, "GET", &[], Err(Blocked::Origin)),
        (
            desk,
            flag,
            "PATCH",
            &["authorization", "content-type", "if-match"],
            Ok(()),
        ),
        (desk, flag, "DELETE", &["authorization", "if-match"], Ok(())),
        (desk, flag, "PUT", &[], Err(Blocked::Method)),
        (
            desk,
            flag,
            "GET",
            &["x-api-key"],
            Err(Blocked::Header("x-api-key".to_owned())),
        ),
        (
            desk,
            "/api/admin/flags/checkout/users",
            "PUT",
            &["authorization"],
            Ok(()),
        ),
        (
            shop,
            "/nowhere",
            "GET",
            &[],
            Err(Blocked::PreflightStatus(404)),
        ),
    ] {
        let request_headers = [
            ("origin", page.origin),
            ("access-control-request-method", method),
        ];
        let answer = local.send("OPTIONS", path, &request_headers, "").await;
        let headers: Vec<String> = headers.iter().map(|&it| it.to_owned()).collect();
        let found = page.check_preflight(&answer, method, &headers);
        assert_eq!(found, outcome, "{method} {path}: {answer:?}");
    }
}

/// A page must be able to read why it got no flags. Without these headers an error is a network error to it.
#[tokio::test]
async fn pages_can_read_errors_and_their_headers() {
    let local = Local::start(&[("PENNON_EVALUATIONS_PER_SECOND", "0.05")]).await;
    let client = local.clone_client();
    let page = Page { origin: SHOP };
    let key = ("x-api-key", API_KEY);
    let json = ("content-type", "application/json");
    let bulk = "/ofrep/v1/evaluate/flags";
    let list = "/api/config/flags";
    for (method, path, headers, body, status, header) in [
        ("GET", list, &[][..], "", 200, "etag"),
        (
            "GET",
            "/api/config/flags?environment=zz",
            &[],
            "",
            200,
            "x-unknown-environment",
        ),
        (
            "GET",
            "/api/config/flags?mode=x",
            &[],
            "",
            200,
            "x-ignored-parameters",
        ),
        ("GET", list, &[("if-none-match", "*")], "", 304, "etag"),
        (
            "GET",
            "/api/config/flags?environment=a%20b",
            &[],
            "",
            400,
            "content-type",
        ),
        ("POST", bulk, &[json], "{}", 401, "www-authenticate"),
        (
            "GET",
            "/api/config/flags/no-such-flag",
            &[],
            "",
            404,
            "content-type",
        ),
        ("POST", list, &[], "", 405, "allow"),
        ("GET", "/nowhere", &[], "", 404, "content-type"),
        // This server allows one request to this path in 20 seconds: the one above.
        (
            "POST",
            bulk,
            &[key, json],
            "{\"context\":{}}",
            429,
            "retry-after",
        ),
    ] {
        let answer = page.fetch(&client, method, path, headers, body).await;
        let answer = answer.unwrap_or_else(|blocked| panic!("{method} {path}: {blocked:?}"));
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(
            answer.header(header).is_some(),
            "{method} {path}: {answer:?}"
        );
    }
    let large = "x".repeat(4_100_000);
    let answer = page.fetch(&client, "POST", bulk, &[key], &large).await;
    assert_eq!(answer.map(|it| it.status), Ok(413));
    // Pages cannot use an admin route, even with a token.
    let token = format!("Bearer {ADMIN_TOKEN}");
    let token = [("authorization", token.as_str())];
    let answer = page
        .fetch(&client, "GET", "/api/admin/flags", &token, "")
        .await;
    assert_eq!(answer.map(|it| it.status), Err(Blocked::Origin));
    // Not even with a request without a preflight.
    let answer = page
        .fetch(&client, "GET", "/api/admin/flags", &[], "")
        .await;
    assert_eq!(answer.map(|it| it.status), Err(Blocked::Origin));
}

#[tokio::test]
async fn a_named_origin_manages_flags_from_a_page() {
    let local = Local::start(&NAMED).await;
    let client = local.clone_client();
    let page = Page { origin: DESK };
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [
        ("authorization", token.as_str()),
        ("content-type", "application/json"),
    ];
    let body = json!({"key": "from-a-page", "enabled": true}).to_string();
    let made = page
        .fetch(&client, "POST", "/api/admin/flags", &headers, &body)
        .await;
    let made = made.expect("allowed");
    assert_eq!(made.status, 201, "{made:?}");
    let tag = made.header("etag").expect("exposed").to_owned();
    let path = "/api/admin/flags/from-a-page";
    let mut with_tag = headers.to_vec();
    with_tag.push(("if-match", &tag));
    for status in [200, 412] {
        let changed = page
            .fetch(&client, "PATCH", path, &with_tag, "{\"enabled\":false}")
            .await;
        let changed = changed.expect("allowed");
        assert_eq!(changed.status, status, "{changed:?}");
    }
    let gone = page.fetch(&client, "DELETE", path, &headers, "").await;
    assert_eq!(gone.map(|it| it.status), Ok(428));
    let stranger = Page {
        origin: "https://desk.example",
    };
    let refused = stranger.fetch(&client, "DELETE", path, &headers, "").await;
    assert_eq!(refused.map(|it| it.status), Err(Blocked::Origin));
}

#[tokio::test]
async fn pages_can_read_that_the_service_is_down_or_broken() {
    let stack = Stack::start().await;
    let function = stack.function("evaluate-flags").await;
    let event = || Event::evaluate_all(&json!({"targetingKey": "alice"})).header("origin", SHOP);
    let page = Page { origin: SHOP };
    stack.database.add_key(EXAMPLE_KEY).await;
    let sql = stack.database.sql();
    sql.batch_execute("alter table feature_flags rename to feature_flags_elsewhere")
        .await
        .expect("a table without its name");
    let answer = function.call(&event()).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(page.check_origin(&answer), Ok(()), "{answer:?}");

    let get = stack.function("get-flag").await;
    stack.redis.set(Mode::Refuse).await;
    stack.database_wire.set(Mode::Refuse).await;
    let answer = get
        .call(&Event::get("checkout").header("origin", SHOP))
        .await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(page.check_origin(&answer), Ok(()), "{answer:?}");
    let exposed = answer.header("access-control-expose-headers");
    assert!(
        exposed.is_some_and(|it| it.contains("Retry-After")),
        "{answer:?}"
    );
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

#[tokio::test]
async fn an_invalid_origin_in_a_setting_is_logged_and_allows_nothing() {
    let local = Local::start(&[
        (
            "CORS_ORIGINS",
            "*,https://shop.example/,https://good.example",
        ),
        ("ADMIN_CORS_ORIGINS", "*, null, http://desk.example"),
    ])
    .await;
    for origin in [
        SHOP,
        "https://good.example",
        "null",
        "https://desk.example",
        "http://desk.example",
    ] {
        let headers = [("origin", origin)];
        let public = local.send("GET", "/health", &headers, "").await;
        let good = (origin == "https://good.example").then_some(origin);
        assert_eq!(
            public.header("access-control-allow-origin"),
            good,
            "{origin}"
        );
        let admin = local.send("GET", "/api/admin/flags", &headers, "").await;
        assert_eq!(cors_headers(&admin), (None, false, false), "{origin}");
    }
    let log = local.log();
    for message in [
        "CORS_ORIGINS: \"*\" is not a valid origin: * cannot be combined with others",
        "browsers write it as https://shop.example",
        "ADMIN_CORS_ORIGINS: \"*\" is not a valid origin: admin routes are never open to all origins",
        "ADMIN_CORS_ORIGINS: \"null\" is not a valid origin",
        "admin routes accept only https:// origins",
    ] {
        assert!(log.contains(message), "{message}: {log}");
    }
}
