//! A valid token identifies the caller of a public route; with any other token the caller is anonymous.
//!
//! The flag `checkout` is on for 50 %. user-118 has bucket 99 and does not get it; user-18 has bucket 0 and gets it.
//! Anonymous callers get it too, because the test database has `anonymousRollout: true`. So `false` for user-118 shows
//! that the function has accepted the token.

use std::process::Command;
use std::time::{Duration, Instant};

use pennon_tests::certificates::Certificates;
use pennon_tests::event::Event;
use pennon_tests::issuer::{AUDIENCE, Fault, Issuer, SigningKey, encode, now};
use pennon_tests::lambda::Function;
use pennon_tests::process::{Process, free_port};
use pennon_tests::stack::Stack;
use pennon_tests::{eventually, join_all};
use serde_json::{Value, json};

const USER: &str = "user-118";

/// A stack, and an issuer with one key.
struct Fixture {
    stack: Stack,
    key: SigningKey,
    issuer: Issuer,
}

impl Fixture {
    async fn start(key: SigningKey) -> Self {
        let issuer = Issuer::start(&[key.public("k1")]).await;
        Self {
            stack: Stack::start().await,
            key,
            issuer,
        }
    }

    async fn list_flags(&self) -> Function {
        let environment = self.issuer.environment();
        self.stack.function_with("list-flags", &environment).await
    }

    fn header(&self) -> Value {
        json!({ "alg": self.key.algorithm(), "kid": "k1", "typ": "JWT" })
    }

    /// A valid token, with the changes of a test.
    fn token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let (mut header, mut claims) = (self.header(), self.issuer.claims(USER));
        change(&mut header, &mut claims);
        self.key.sign(&header, &claims)
    }

    fn good(&self) -> String {
        self.token(|_, _| {})
    }
}

/// Whether the function has accepted the token. The status is always 200: an invalid token does not reject the request.
async fn is_known(list_flags: &Function, token: &str) -> bool {
    let event = Event::list().header("authorization", &format!("Bearer {token}"));
    let answer = list_flags.call(&event).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["checkout"] == false
}

#[tokio::test]
async fn a_token_signed_with_rsa_or_p256_names_the_caller() {
    for key in [SigningKey::rsa(), SigningKey::p256()] {
        let fixture = Fixture::start(key).await;
        let list_flags = fixture.list_flags().await;
        assert!(
            is_known(&list_flags, &fixture.good()).await,
            "{}",
            list_flags.log()
        );
        assert!(!is_known(&list_flags, "").await);
        let anonymous = list_flags.call(&Event::list()).await;
        assert_eq!(anonymous.json()["checkout"], true);
        let event = Event::list().header("authorization", &format!("bearer {}", fixture.good()));
        assert_eq!(list_flags.call(&event).await.json()["checkout"], false);
        // One fetch for all tokens, and none before the first.
        assert_eq!(fixture.issuer.fetches(), 1);
    }
}

/// Tokens of the same issuer, audience and key that identify no caller: their purpose is another, their key id only
/// contains the real one, or a field has the wrong type.
fn with_wrong_purposes_key_ids_or_types(fixture: &Fixture) -> Vec<(&'static str, String)> {
    vec![
        (
            "a longer key id",
            fixture.token(|it, _| it["kid"] = json!("k1k1")),
        ),
        (
            "a path for a key id",
            fixture.token(|it, _| it["kid"] = json!("../k1")),
        ),
        (
            "a list of key ids",
            fixture.token(|it, _| it["kid"] = json!(["k1"])),
        ),
        (
            "a logout token",
            fixture.token(|it, _| it["typ"] = json!("logout+jwt")),
        ),
        (
            "a proof of possession",
            fixture.token(|it, _| it["typ"] = json!("dpop+jwt")),
        ),
        (
            "a type that is not a text",
            fixture.token(|it, _| it["typ"] = json!(1)),
        ),
        (
            "a refresh token",
            fixture.token(|_, it| it["token_use"] = json!("refresh")),
        ),
        (
            "a use that is not a text",
            fixture.token(|_, it| it["token_use"] = json!(["access"])),
        ),
        (
            "an audience that is an object",
            fixture.token(|_, it| it["aud"] = json!({ "client": AUDIENCE })),
        ),
    ]
}

#[tokio::test]
async fn a_token_with_an_invalid_header_claim_or_signature_makes_an_anonymous_caller() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let list_flags = fixture.list_flags().await;
    assert!(
        is_known(&list_flags, &fixture.good()).await,
        "{}",
        list_flags.log()
    );
    let wrong: Vec<(&str, String)> = vec![
        (
            "expired",
            fixture.token(|_, it| it["exp"] = json!(now() - 31)),
        ),
        (
            "no expiry",
            fixture.token(|_, it| drop(it.as_object_mut().map(|it| it.remove("exp")))),
        ),
        (
            "an expiry that is not a number",
            fixture.token(|_, it| it["exp"] = json!("9999999999")),
        ),
        (
            "not valid yet",
            fixture.token(|_, it| it["nbf"] = json!(now() + 60)),
        ),
        (
            "issued in the future",
            fixture.token(|_, it| it["iat"] = json!(now() + 60)),
        ),
        (
            "a time that is not a number",
            fixture.token(|_, it| it["nbf"] = json!("0")),
        ),
        (
            "another issuer",
            fixture.token(|_, it| it["iss"] = json!("https://issuer.example")),
        ),
        (
            "another audience",
            fixture.token(|_, it| it["aud"] = json!("client-2")),
        ),
        (
            "an audience beside a client id",
            fixture.token(|_, it| {
                it["aud"] = json!(["client-2"]);
                it["client_id"] = json!(AUDIENCE);
            }),
        ),
        (
            "no audience",
            fixture.token(|_, it| drop(it.as_object_mut().map(|it| it.remove("aud")))),
        ),
        (
            "an empty subject",
            fixture.token(|_, it| it["sub"] = json!("")),
        ),
        (
            "a subject that is a number",
            fixture.token(|_, it| it["sub"] = json!(118)),
        ),
        (
            "a critical extension",
            fixture.token(|it, _| it["crit"] = json!(["exp"])),
        ),
        (
            "an unknown key id",
            fixture.token(|it, _| it["kid"] = json!("k2")),
        ),
        (
            "no key id",
            fixture.token(|it, _| drop(it.as_object_mut().map(|it| it.remove("kid")))),
        ),
        (
            "another key's signature",
            SigningKey::rsa().sign(&fixture.header(), &fixture.issuer.claims(USER)),
        ),
        (
            "three words in place of its parts",
            "not.a.token".to_owned(),
        ),
        ("too few parts", "a.b".to_owned()),
    ];
    for (what, token) in wrong
        .into_iter()
        .chain(with_wrong_purposes_key_ids_or_types(&fixture))
    {
        assert!(!is_known(&list_flags, &token).await, "{what}: {token}");
        let line = list_flags.last_request();
        assert!(line["token_error"].is_string(), "{what}: {line}");
    }
    assert!(is_known(&list_flags, &fixture.good()).await);
    let line = list_flags.last_request();
    assert_eq!(line.get("token_error"), None, "{line}");
    // A token that is invalid regardless of its key causes no fetch. Those with an unknown key id come too soon after
    // the first fetch.
    assert_eq!(fixture.issuer.fetches(), 1);
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let list_flags = fixture.list_flags().await;
    let claims = encode(fixture.issuer.claims(USER).to_string().as_bytes());
    // Without a signature, in several spellings.
    for name in ["none", "None", "NONE", ""] {
        let header = encode(json!({ "alg": name, "kid": "k1" }).to_string().as_bytes());
        for token in [format!("{header}.{claims}."), format!("{header}.{claims}")] {
            assert!(!is_known(&list_flags, &token).await, "{name:?}");
        }
    }
    // With the public key as the secret of an HMAC.
    let public = fixture.key.public("k1").to_string();
    let header = encode(
        json!({ "alg": "HS256", "kid": "k1" })
            .to_string()
            .as_bytes(),
    );
    let text = format!("{header}.{claims}");
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
    let signature = encode(ring::hmac::sign(&secret, text.as_bytes()).as_ref());
    assert!(!is_known(&list_flags, &format!("{text}.{signature}")).await);
    // With a valid signature under another algorithm's name, and with claims changed after signing.
    assert!(
        !is_known(
            &list_flags,
            &fixture.token(|it, _| it["alg"] = json!("ES256"))
        )
        .await
    );
    assert!(
        !is_known(
            &list_flags,
            &fixture.token(|it, _| it["alg"] = json!("RS384"))
        )
        .await
    );
    let good = fixture.token(|_, it| it["sub"] = json!("user-18"));
    let mut parts: Vec<&str> = good.split('.').collect();
    parts[1] = &claims;
    assert!(!is_known(&list_flags, &parts.join(".")).await);
    // With a key in the token itself.
    let own = SigningKey::rsa();
    let mut header = fixture.header();
    header["jwk"] = own.public("k1");
    header["jku"] = json!("http://127.0.0.1:1/keys");
    assert!(
        !is_known(
            &list_flags,
            &own.sign(&header, &fixture.issuer.claims(USER))
        )
        .await
    );
    assert!(
        is_known(&list_flags, &fixture.good()).await,
        "{}",
        list_flags.log()
    );
}

#[tokio::test]
async fn tokens_within_the_clock_tolerance_or_with_another_valid_type_or_audience_are_accepted() {
    let fixture = Fixture::start(SigningKey::p256()).await;
    let list_flags = fixture.list_flags().await;
    for token in [
        fixture.token(|_, it| it["exp"] = json!(now() - 15)),
        // The tolerance is 30 s. Time that passes before the check only helps.
        fixture.token(|_, it| it["nbf"] = json!(now() + 29)),
        fixture.token(|_, it| it["aud"] = json!(["other", AUDIENCE])),
        fixture.token(|it, _| it["typ"] = json!("at+JWT")),
        fixture.token(|it, _| it["typ"] = json!("application/at+jwt")),
        fixture.token(|it, _| drop(it.as_object_mut().map(|it| it.remove("typ")))),
        fixture.token(|_, it| it["token_use"] = json!("id")),
        fixture.token(|_, it| {
            drop(it.as_object_mut().map(|it| it.remove("aud")));
            it["client_id"] = json!(AUDIENCE);
            it["token_use"] = json!("access");
        }),
    ] {
        assert!(is_known(&list_flags, &token).await, "{}", list_flags.log());
    }
}

#[tokio::test]
async fn a_token_that_a_function_checks_itself_never_grants_admin_rights() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let environment = fixture.issuer.environment();
    let update = fixture
        .stack
        .function_with("update-flag", &environment)
        .await;
    let token = fixture.token(|_, it| it["cognito:groups"] = json!(["admin"]));
    let event = Event::update("checkout", &json!({ "enabled": false }))
        .anonymous()
        .header("authorization", &format!("Bearer {token}"));
    assert_eq!(update.call(&event).await.status, 401);
}

#[tokio::test]
async fn a_new_key_is_accepted_and_unknown_key_ids_cause_a_fetch_every_ten_seconds_at_most() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let started = Instant::now();
    let list_flags = fixture.list_flags().await;
    assert!(is_known(&list_flags, &fixture.good()).await);
    let new = SigningKey::p256();
    fixture
        .issuer
        .set_keys(&[fixture.key.public("k1"), new.public("k2")]);
    let header = json!({ "alg": "ES256", "kid": "k2" });
    let rotated = new.sign(&header, &fixture.issuer.claims(USER));
    eventually("the new key is accepted", async || {
        let invented = fixture.token(|it, _| it["kid"] = json!("invented"));
        assert!(!is_known(&list_flags, &invented).await);
        is_known(&list_flags, &rotated).await
    })
    .await;
    // At least ten seconds pass between two fetches.
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(10), "too early: {waited:?}");
    let most = 1 + usize::try_from(waited.as_secs() / 10).expect("small");
    assert!(
        fixture.issuer.fetches() <= most,
        "{}",
        fixture.issuer.fetches()
    );
    assert!(is_known(&list_flags, &fixture.good()).await);
}

#[tokio::test]
async fn a_failing_issuer_costs_one_bounded_wait_and_fails_no_request() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    for broken in [
        Fault::Failing,
        Fault::Silent,
        Fault::OtherIssuer,
        Fault::PlainHttp,
        Fault::Nonsense,
        Fault::TooLarge,
        Fault::TooManyKeys,
        Fault::Moved,
    ] {
        fixture.issuer.set_fault(Some(broken));
        let list_flags = fixture.list_flags().await;
        let started = Instant::now();
        assert!(!is_known(&list_flags, &fixture.good()).await, "{broken:?}");
        // The limit is 1.5 seconds; the rest is for a slow machine.
        assert!(started.elapsed() < Duration::from_secs(5), "{broken:?}");
        let before = fixture.issuer.fetches();
        assert!(!is_known(&list_flags, &fixture.good()).await, "{broken:?}");
        assert_eq!(
            fixture.issuer.fetches(),
            before,
            "{broken:?} was called again immediately"
        );
        let lines = list_flags.requests();
        let failed = lines.iter().filter(|it| it["issuer_error"].is_string());
        assert_eq!(failed.count(), 1, "{broken:?}: {lines:?}");
    }
    fixture.issuer.set_fault(None);
    let environment = [
        ("JWT_ISSUER", "http://127.0.0.1:1"),
        ("JWT_AUDIENCE", AUDIENCE),
    ];
    let list_flags = fixture
        .stack
        .function_with("list-flags", &environment)
        .await;
    let token = fixture.token(|_, it| it["iss"] = json!("http://127.0.0.1:1"));
    assert!(
        !is_known(&list_flags, &token).await,
        "a token of an unavailable issuer was accepted"
    );
}

#[tokio::test]
async fn an_issuer_may_name_only_trusted_addresses() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let name = fixture.issuer.name().to_owned();
    let port = name.rsplit(':').next().expect("a port").to_owned();
    for (address, good) in [
        (format!("{name}/other-keys"), true),
        (format!("http://localhost:{port}/keys"), true),
        // A careless parser would accept each of these: by comparing prefixes, dropping characters or resolving
        // relative URLs.
        (format!("http://user@127.0.0.1:{port}/keys"), false),
        (format!("http://user:password@127.0.0.1:{port}/keys"), false),
        (format!("http://@127.0.0.1:{port}/keys"), false),
        (format!("{name}/keys#fragment"), false),
        (format!("{name}/keys#"), false),
        (format!("{name}\\keys"), false),
        (format!("{name}/ke\nys"), false),
        (format!(" {name}/keys"), false),
        ("http://127.0.0.1:1@issuer.example/keys".to_owned(), false),
        ("http://localhost.issuer.example/keys".to_owned(), false),
        ("/keys".to_owned(), false),
        (String::new(), false),
    ] {
        fixture.issuer.set_metadata("jwks_uri", json!(address));
        let list_flags = fixture.list_flags().await;
        let found = is_known(&list_flags, &fixture.good()).await;
        assert_eq!(found, good, "{address}: {}", list_flags.log());
        if !good {
            let line = list_flags.last_request();
            let why = line["issuer_error"].as_str().unwrap_or_default();
            assert!(why.contains("jwks_uri"), "{address}: {line}");
        }
    }
}

#[tokio::test]
async fn an_invalid_issuer_url_is_not_contacted() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let port = fixture
        .issuer
        .name()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    for (issuer, why) in [
        (
            "http://127.0.0.1:1@issuer.example".to_owned(),
            "user information",
        ),
        (format!("http://user@127.0.0.1:{port}"), "user information"),
        (format!("http://127.0.0.1:{port}#"), "fragment"),
        (format!("http://127.0.0.1:{port}?x"), "query"),
        (format!("http://127.0.0.1:{port} "), "characters"),
        ("http://localhost.issuer.example".to_owned(), "https://"),
    ] {
        let environment = [("JWT_ISSUER", issuer.as_str()), ("JWT_AUDIENCE", AUDIENCE)];
        let list_flags = fixture
            .stack
            .function_with("list-flags", &environment)
            .await;
        let token = fixture.token(|_, it| it["iss"] = json!(issuer));
        assert!(!is_known(&list_flags, &token).await, "{issuer}");
        let log = list_flags.log();
        assert!(
            log.contains("JWT_ISSUER is not a valid issuer URL"),
            "{issuer}: {log}"
        );
        assert!(log.contains(why), "{issuer}: {log}");
    }
    assert_eq!(fixture.issuer.fetches(), 0);
}

/// Ids are unique among keys of one kind only (RFC 7517), and keys for other purposes sign no tokens.
#[tokio::test]
async fn among_keys_with_the_same_id_the_one_that_signed_the_token_is_used() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let other = SigningKey::p256();
    fixture
        .issuer
        .set_keys(&[other.public("k1"), fixture.key.public("k1")]);
    let list_flags = fixture.list_flags().await;
    assert!(
        is_known(&list_flags, &fixture.good()).await,
        "{}",
        list_flags.log()
    );
    let header = json!({ "alg": "ES256", "kid": "k1" });
    let second = other.sign(&header, &fixture.issuer.claims(USER));
    assert!(is_known(&list_flags, &second).await, "{}", list_flags.log());

    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("alg", json!("RS512")),
        ("kty", json!("oct")),
        ("kid", json!("k".repeat(257))),
    ] {
        let mut key = fixture.key.public("k1");
        key[name] = value.clone();
        fixture.issuer.set_keys(&[key]);
        let list_flags = fixture.list_flags().await;
        assert!(
            !is_known(&list_flags, &fixture.good()).await,
            "{name}: {value}"
        );
    }
}

#[tokio::test]
async fn keys_that_are_known_stay_known_while_the_issuer_is_down() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let list_flags = fixture.list_flags().await;
    assert!(is_known(&list_flags, &fixture.good()).await);
    fixture.issuer.set_fault(Some(Fault::Failing));
    // Ten seconds after the first fetch, an unknown key id causes another one.
    let invented = fixture.token(|it, _| it["kid"] = json!("invented"));
    eventually("a fetch fails", async || {
        assert!(!is_known(&list_flags, &invented).await);
        fixture.issuer.fetches() > 1
    })
    .await;
    assert!(is_known(&list_flags, &fixture.good()).await);
}

#[tokio::test]
async fn requests_that_come_together_share_one_fetch() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let issuer = fixture.issuer.environment();
    let mut environment = vec![("AWS_LAMBDA_MAX_CONCURRENCY", "8")];
    environment.extend(issuer);
    let list_flags = fixture
        .stack
        .function_with("list-flags", &environment)
        .await;
    let token = fixture.good();
    let outcomes = join_all((0..8).map(|_| is_known(&list_flags, &token))).await;
    assert_eq!(outcomes, [true; 8]);
    assert_eq!(fixture.issuer.fetches(), 1);
}

#[tokio::test]
async fn without_a_valid_issuer_and_an_audience_tokens_are_ignored() {
    let fixture = Fixture::start(SigningKey::rsa()).await;
    let name = fixture.issuer.name().to_owned();
    for environment in [
        vec![],
        vec![("JWT_ISSUER", name.as_str())],
        vec![
            ("JWT_ISSUER", "http://issuer.example"),
            ("JWT_AUDIENCE", AUDIENCE),
        ],
    ] {
        let list_flags = fixture
            .stack
            .function_with("list-flags", &environment)
            .await;
        assert!(
            !is_known(&list_flags, &fixture.good()).await,
            "{environment:?}"
        );
    }
    assert_eq!(fixture.issuer.fetches(), 0);
}

/// `openssl s_server -WWW` serves the files of its folder.
#[tokio::test]
async fn an_issuer_needs_a_certificate_for_its_name_from_a_trusted_authority() {
    let (ours, others) = (Certificates::create(), Certificates::create());
    let port = free_port();
    let name = format!("https://127.0.0.1:{port}");
    let key = SigningKey::rsa();
    let folder = ours.folder();
    let well_known = folder.join(".well-known");
    std::fs::create_dir_all(&well_known).expect("a folder");
    let about = json!({ "issuer": name, "jwks_uri": format!("{name}/keys.json") });
    let keys = json!({ "keys": [key.public("k1")] });
    std::fs::write(well_known.join("openid-configuration"), about.to_string()).expect("writes");
    std::fs::write(folder.join("keys.json"), keys.to_string()).expect("writes");
    let mut command = Command::new("sh");
    let server = "cd \"$0\" && exec openssl s_server -WWW -quiet -accept \"$1\" -cert server.pem -key server.key";
    command
        .args(["-c", server])
        .arg(folder)
        .arg(port.to_string());
    let _server = Process::start(&command, &folder.join("log"), None);
    eventually("the issuer listens", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    })
    .await;

    let stack = Stack::start().await;
    let claims = json!({ "iss": name, "aud": AUDIENCE, "sub": USER, "exp": now() + 3_600 });
    let token = key.sign(&json!({ "alg": "RS256", "kid": "k1" }), &claims);
    for (authorities, known) in [(Some(&ours), true), (Some(&others), false), (None, false)] {
        let file = authorities.map(|it| it.file("ca.pem")).unwrap_or_default();
        let environment = [
            ("JWT_ISSUER", name.as_str()),
            ("JWT_AUDIENCE", AUDIENCE),
            ("JWT_CA_FILE", file.as_str()),
        ];
        let list_flags = stack.function_with("list-flags", &environment).await;
        assert_eq!(
            is_known(&list_flags, &token).await,
            known,
            "{file}: {}",
            list_flags.log()
        );
    }
}
