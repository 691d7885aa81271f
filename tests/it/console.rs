//! The web console: its pages, its files and their headers.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pennon_core::http::Query;
use pennon_tests::event::Event;
use pennon_tests::issuer::{AUDIENCE, Fault, Issuer};
use pennon_tests::lambda::Function;
use pennon_tests::local::{ADMIN_TOKEN, HttpClient, Local};
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded::Serializer;

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../console/dist");

/// The files beside the page, with their content types.
fn files() -> Vec<(String, &'static str)> {
    let entries = std::fs::read_dir(DIST).expect("the files of the console");
    let names = entries.map(|entry| entry.expect("a file").file_name().into_string());
    names
        .map(|name| name.expect("a name in UTF-8"))
        .filter(|name| name != "index.html")
        .map(|name| {
            let kind = match name.rsplit('.').next() {
                Some("css") => "text/css; charset=utf-8",
                Some("json") => "application/json",
                Some("js") => "text/javascript; charset=utf-8",
                Some("svg") => "image/svg+xml",
                _ => panic!("{name} has an unknown type"),
            };
            (name, kind)
        })
        .collect()
}

fn file(name: &str) -> String {
    let path = format!("{DIST}/{name}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Where the console is served: by the local server, or by its function behind a base path of API Gateway.
enum Console {
    Local(Box<Local>),
    Function(Function, &'static str),
}

impl Console {
    /// The local server, and the function at the root of a domain and behind a stage or a base path.
    async fn everywhere() -> [Self; 3] {
        let stack = Stack::start().await;
        [
            Self::Local(Box::new(Local::start(&[]).await)),
            Self::Function(stack.function("console").await, ""),
            Self::Function(stack.function("console").await, "/flags/v2"),
        ]
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        match self {
            Self::Local(local) => local.send(method, path, headers, "").await,
            Self::Function(function, base) => {
                let (path, query) = path.split_once('?').unwrap_or((path, ""));
                let event = match path.strip_prefix("/console/") {
                    Some(rest) => {
                        Event::by_route("ANY", "/console/{proxy+}", base, &[("proxy", rest)])
                    }
                    None => Event::by_route("ANY", path, base, &[]),
                };
                let event = event.anonymous().method(method).query(query);
                let with = |event: Event, (name, value): &(&str, &str)| event.header(name, value);
                function.call(&headers.iter().fold(event, with)).await
            }
        }
    }

    /// The `Origin` of the requests in the tests. The local server rejects every origin but its own; the function
    /// ignores it.
    fn origin(&self) -> &str {
        match self {
            Self::Local(local) => local.base(),
            Self::Function(..) => "https://evil.example",
        }
    }

    fn base(&self) -> &str {
        match self {
            Self::Local(_) => "",
            Self::Function(_, base) => base,
        }
    }
}

/// The policy of the pages, without the origin of an issuer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'; img-src 'self'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

fn assert_security_headers(answer: &Response, place: &str) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("cross-origin-opener-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name} of {place}");
    }
    let cors = answer
        .headers
        .keys()
        .find(|name| name.starts_with("access-control-"));
    assert_eq!(cors, None, "{place}");
}

#[tokio::test]
async fn every_response_of_the_console_has_the_security_headers() {
    for console in Console::everywhere().await {
        for (method, path, status) in [
            ("GET", "/console", 200),
            ("HEAD", "/console", 200),
            ("GET", "/console/", 200),
            (
                "GET",
                "/console/production/flags/new.checkout?q=a&state=b",
                200,
            ),
            ("GET", "/console/app.js", 200),
            ("GET", "/console/config.json", 200),
            ("GET", "/console/missing.js", 404),
            ("GET", "/console/.env", 404),
            ("POST", "/console", 405),
            ("DELETE", "/console/app.js", 405),
            ("OPTIONS", "/console/app.js", 204),
        ] {
            let origin = [("origin", console.origin())];
            let answer = console.send(method, path, &origin).await;
            let place = format!("{method} {}{path}: {answer:?}", console.base());
            assert_eq!(answer.status, status, "{place}");
            assert_security_headers(&answer, &place);
        }
    }
}

#[tokio::test]
async fn a_page_names_its_files_below_the_base_path_at_any_depth() {
    for console in Console::everywhere().await {
        for path in ["/console", "/console/", "/console/staging/flags/a/b/c"] {
            let answer = console.send("GET", path, &[]).await;
            let folder = format!("{}/console", console.base());
            for name in ["app.js", "app.css", "favicon.svg"] {
                let named = format!("\"{folder}/{name}\"");
                assert!(answer.body.contains(&named), "{named}: {answer:?}");
            }
            assert!(!answer.body.contains("\"./"), "{answer:?}");
            assert_eq!(
                answer.header("content-type"),
                Some("text/html; charset=utf-8")
            );
            let tag = answer.header("etag").expect("a tag");
            let again = console.send("GET", path, &[("if-none-match", tag)]).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""));
            assert_eq!(again.header("etag"), Some(tag));
        }
    }
}

#[tokio::test]
async fn files_are_compressed_and_revalidated_with_a_tag_for_each_encoding() {
    for console in Console::everywhere().await {
        let mut tags = BTreeSet::new();
        for (name, kind) in files() {
            let path = format!("/console/{name}");
            for (accepted, encoding) in [("gzip, br", Some("gzip")), ("identity", None)] {
                let accept = ("accept-encoding", accepted);
                let answer = console.send("GET", &path, &[accept]).await;
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.body, file(&name), "{path} as {encoding:?}");
                assert_eq!(answer.header("content-encoding"), encoding, "{path}");
                assert_eq!(answer.header("content-type"), Some(kind), "{path}");
                assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{path}");
                let tag = answer.header("etag").expect("a tag").to_owned();
                assert!(tag.starts_with('"'), "{tag} is not strong");
                let condition = ("if-none-match", tag.as_str());
                let again = console.send("GET", &path, &[accept, condition]).await;
                assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
                let head = console.send("HEAD", &path, &[accept]).await;
                assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
                assert_eq!(head.header("etag"), Some(tag.as_str()), "{path}");
                assert!(tags.insert(tag), "{path} has the tag of another file");
            }
        }
    }
}

#[tokio::test]
async fn the_local_server_prints_a_link_that_signs_in() {
    let folder = pennon_tests::process::new_folder("console");
    let local = Local::start_without_credentials(folder, &[]).await;
    let link = format!("{}/console#token=", local.base());
    let log = local.log();
    let token = log.split(&link).nth(1).expect("a link");
    let token = token.lines().next().expect("a token");
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let answer = local.send("GET", "/api/admin/flags", &headers, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let config = local.get("/console/config.json").await;
    assert_eq!(config.json()["mode"], "token");
}

/// A browser that signs in as the scripts of the console do.
struct SignIn {
    issuer: HttpClient,
    config: Value,
}

impl SignIn {
    async fn of(local: &Local, issuer: &Issuer) -> Self {
        let config = local.get("/console/config.json").await;
        assert_eq!(config.status, 200, "{config:?}");
        Self {
            issuer: HttpClient::of(issuer.name().to_owned()),
            config: config.json(),
        }
    }

    /// The path of an endpoint of the issuer.
    fn path(&self, endpoint: &str) -> String {
        let address = self.config[endpoint].as_str().expect("an address");
        let issuer = self.config["issuer"].as_str().expect("an issuer");
        address
            .strip_prefix(issuer)
            .expect("of the issuer")
            .to_owned()
    }

    /// The code that the issuer sends to the console.
    async fn code(&self, redirect: &str, verifier: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let state = "s".repeat(43);
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair(
                "client_id",
                self.config["clientId"].as_str().expect("a client"),
            )
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", self.config["scope"].as_str().expect("a scope"))
            .append_pair("state", &state)
            .append_pair("nonce", &"n".repeat(43))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let path = format!("{}?{}", self.path("authorizationEndpoint"), query.finish());
        let answer = self.issuer.get(&path).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = answer.header("location").expect("a redirect");
        let (page, query) = location.split_once('?').expect("a query");
        assert_eq!(page, redirect);
        let query = Query::parse(query);
        assert_eq!(query.first("state"), Some(state.as_str()));
        query.first("code").expect("a code").to_owned()
    }

    async fn tokens(&self, fields: &[(&str, &str)]) -> Response {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("client_id", AUDIENCE);
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let path = self.path("tokenEndpoint");
        self.issuer
            .send("POST", &path, &[kind], &form.finish())
            .await
    }
}

#[tokio::test]
async fn people_sign_in_at_the_issuer_and_their_groups_determine_access_to_admin_routes() {
    let issuer = Issuer::for_console(&["admins"]).await;
    let local = Local::start(&issuer.console_environment()).await;
    assert!(!local.log().contains("#token="), "{}", local.log());
    let sign_in = SignIn::of(&local, &issuer).await;
    let expected = json!({
        "mode": "oidc", "issuer": issuer.name(), "clientId": AUDIENCE,
        "authorizationEndpoint": format!("{}/authorize", issuer.name()),
        "tokenEndpoint": format!("{}/token", issuer.name()),
        "endSessionEndpoint": format!("{}/logout", issuer.name()),
        "scope": "openid", "audience": null, "production": ["production"],
    });
    assert_eq!(sign_in.config, expected);
    let redirect = format!("{}/console/callback", local.base());
    let verifier = "v".repeat(43);
    let code = sign_in.code(&redirect, &verifier).await;
    let exchange = |verifier| {
        let grant = ("grant_type", "authorization_code");
        [
            grant,
            ("code", &code),
            ("redirect_uri", &redirect),
            ("code_verifier", verifier),
        ]
    };
    let first = sign_in.tokens(&exchange(verifier.as_str())).await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = sign_in.tokens(&exchange(verifier.as_str())).await;
    assert_eq!(again.status, 400, "a code was accepted twice: {again:?}");

    let list = async |tokens: &Response, path: &str| {
        let token = tokens.json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        local.send("GET", path, &headers, "").await.status
    };
    assert_eq!(list(&first, "/api/admin/flags").await, 200);
    let refresh = first.json()["refresh_token"]
        .as_str()
        .expect("one")
        .to_owned();
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh.as_str()),
    ];
    issuer.sign_in(|it| it.groups = Some(vec!["nobody".to_owned()]));
    let second = sign_in.tokens(&refresh).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(list(&second, "/api/admin/flags").await, 403);
    let rotated = sign_in.tokens(&refresh).await;
    assert_eq!(
        rotated.status, 400,
        "a refresh token was accepted twice: {rotated:?}"
    );

    // The token of the server keeps working, and no other text does.
    for (token, status) in [(ADMIN_TOKEN, 200), ("nonsense", 401)] {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let answer = local.send("GET", "/api/admin/flags", &headers, "").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn an_expired_access_token_is_rejected() {
    let issuer = Issuer::for_console(&["admins"]).await;
    let local = Local::start(&issuer.environment()).await;
    let key = std::sync::Arc::new(pennon_tests::issuer::SigningKey::p256());
    issuer.set_keys(&[key.public("k1")]);
    let header = json!({ "alg": key.algorithm(), "kid": "k1", "typ": "JWT" });
    for (seconds, status) in [(600_i64, 200), (-600, 401)] {
        let mut claims = issuer.claims("u-1");
        claims["cognito:groups"] = json!(["admin"]);
        claims["exp"] = json!(claims["iat"].as_i64().expect("a time") + seconds);
        let authorization = format!("Bearer {}", key.sign(&header, &claims));
        let headers = [("authorization", authorization.as_str())];
        let answer = local.send("GET", "/api/admin/flags", &headers, "").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn the_policy_names_the_origin_of_the_token_endpoint() {
    let stack = Stack::start().await;
    let issuer = Issuer::for_console(&["admins"]).await;
    issuer.set_metadata(
        "token_endpoint",
        json!("https://tokens.example:8443/oauth2/token?p=1"),
    );
    let function = stack
        .function_with("console", &issuer.console_environment())
        .await;
    let page = Event::by_route("GET", "/console", "", &[]).anonymous();
    let answer = function.call(&page).await;
    let policy = answer.header("content-security-policy").expect("a policy");
    let connect = "connect-src 'self' https://tokens.example:8443;";
    assert_eq!(policy, POLICY.replace("connect-src 'self';", connect));
    // A browser that has the page also has this policy.
    let tag = answer.header("etag").expect("a tag").to_owned();
    let again = function
        .call(&page.clone().header("if-none-match", &tag))
        .await;
    assert_eq!(
        (again.status, again.header("content-security-policy")),
        (304, Some(policy))
    );
    let other = stack.function("console").await;
    let without = other.call(&page.header("if-none-match", &tag)).await;
    assert_eq!(without.status, 200, "a tag of another policy matched");
}

#[tokio::test]
async fn an_issuer_that_fails_or_cannot_be_trusted_leaves_the_page_without_a_sign_in() {
    let stack = Stack::start().await;
    for (fault, endpoint) in [
        (Some(Fault::Failing), None),
        (Some(Fault::OtherIssuer), None),
        (Some(Fault::Nonsense), None),
        (None, Some("http://tokens.example/token")),
        (None, Some("https://tokens.example;script-src/token")),
    ] {
        let issuer = Issuer::for_console(&["admins"]).await;
        issuer.set_fault(fault);
        if let Some(endpoint) = endpoint {
            issuer.set_metadata("token_endpoint", json!(endpoint));
        }
        let function = stack
            .function_with("console", &issuer.console_environment())
            .await;
        let at =
            |path| Event::by_route("GET", "/console/{proxy+}", "", &[("proxy", path)]).anonymous();
        let page = function.call(&at("production/flags")).await;
        assert_eq!(page.status, 200, "{fault:?} {page:?}");
        assert_eq!(page.header("content-security-policy"), Some(POLICY));
        let config = function.call(&at("config.json")).await;
        assert_eq!(config.status, 503, "{fault:?} {config:?}");
        assert_eq!(config.header("retry-after"), Some("10"));
        assert_security_headers(&config, "config.json");
        assert_eq!(
            issuer.fetches(),
            1,
            "{fault:?}: the failure was not remembered"
        );
    }
}

#[tokio::test]
async fn endpoints_that_were_read_once_survive_an_outage_of_the_issuer() {
    let issuer = Issuer::for_console(&["admins"]).await;
    let local = Local::start(&issuer.console_environment()).await;
    let before = local.get("/console/config.json").await;
    issuer.set_fault(Some(Fault::Failing));
    let after = local.get("/console/config.json").await;
    assert_eq!((after.status, after.body), (200, before.body));
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_console_or_admin_routes_of_the_local_server() {
    let local = Local::start(&[("ADMIN_CORS_ORIGINS", "http://localhost:3000")]).await;
    let own = local.base().trim_start_matches("http://").to_owned();
    let port = own.rsplit(':').next().expect("a port").to_owned();
    let authorization = format!("Bearer {ADMIN_TOKEN}");
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let token = [("authorization", authorization.as_str())];
        let method = if path == "/local/alarms/a" {
            "PUT"
        } else {
            "GET"
        };
        let body = r#"{"state": "OK"}"#;
        local
            .send(method, path, &[headers, &token].concat(), body)
            .await
    };
    let paths = [
        "/console",
        "/console/app.js",
        "/api/admin/flags",
        "/admin/flags",
        "/local/alarms/a",
    ];
    let same = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    for path in paths {
        for host in &same {
            let origin = format!("http://{host}");
            let headers = [("host", host.as_str()), ("origin", origin.as_str())];
            let answer = ask(path, &headers).await;
            assert_eq!(answer.status, 200, "{path} {headers:?} {answer:?}");
        }
        for (host, origin, field) in [
            (
                format!("evil.example:{port}"),
                format!("http://evil.example:{port}"),
                "Host",
            ),
            (
                "127.0.0.1.evil.example".to_owned(),
                "http://127.0.0.1.evil.example".to_owned(),
                "Host",
            ),
            (same[0].clone(), "https://evil.example".to_owned(), "Origin"),
            (same[0].clone(), "null".to_owned(), "Origin"),
        ] {
            let headers = [("host", host.as_str()), ("origin", origin.as_str())];
            let answer = ask(path, &headers).await;
            assert_eq!(answer.status, 400, "{path} {headers:?} {answer:?}");
            let errors = &answer.json()["details"]["fieldErrors"];
            assert!(errors[field].is_array(), "{path} {headers:?} {errors}");
        }
    }
    // A browser sends no Origin when it loads a page, so the console checks the Host without one. A request to an admin
    // route without an Origin is from a program, which may use any host name.
    let host = [("host", "evil.example")];
    assert_eq!(ask("/console", &host).await.status, 400);
    assert_eq!(ask("/api/admin/flags", &host).await.status, 200);
    let named = [
        ("host", same[0].as_str()),
        ("origin", "http://localhost:3000"),
    ];
    assert_eq!(ask("/api/admin/flags", &named).await.status, 200);
    // Public routes are for pages of every origin.
    let page = [
        ("host", "flags.example"),
        ("origin", "https://shop.example"),
    ];
    assert_eq!(ask("/api/config/flags", &page).await.status, 200);
}
