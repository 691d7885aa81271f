//! An OpenID Connect issuer: real keys, tokens signed with them, and a server that publishes the public keys and
//! signs users in ([`sign_in`](crate::sign_in)).

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pennon_core::http::Query;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use serde_json::{Map, Value, json};

use crate::process::find_program;
use crate::sign_in::SignIn;

/// The audience of tokens, unless a test sets another one.
pub const AUDIENCE: &str = "client-1";

/// A key pair that signs tokens.
pub enum SigningKey {
    /// RSA with 2048 bits.
    Rsa(Box<RsaKeyPair>),
    /// ECDSA on P-256.
    P256(Box<EcdsaKeyPair>),
}

impl SigningKey {
    /// Creates an RSA key with openssl, because ring cannot.
    pub fn rsa() -> Self {
        let program = find_program("openssl", &[], "Install it with `apt-get install openssl`.");
        let made = Command::new(program)
            .args(["genpkey", "-algorithm", "RSA", "-outform", "DER"])
            .args(["-pkeyopt", "rsa_keygen_bits:2048"])
            .output()
            .expect("openssl runs");
        // Some versions of openssl wrap the key in PKCS#8.
        let pair = RsaKeyPair::from_pkcs8(&made.stdout)
            .or_else(|_| RsaKeyPair::from_der(&made.stdout))
            .expect("an RSA key");
        Self::Rsa(Box::new(pair))
    }

    /// Creates a P-256 key.
    pub fn p256() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        Self::P256(Box::new(pair.expect("a key")))
    }

    /// The `alg` header of its tokens.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
        }
    }

    /// The public key as a JSON Web Key.
    pub fn public(&self, id: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let parts: PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
                    "n": encode(&parts.n), "e": encode(&parts.e) })
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "kid": id, "use": "sig", "crv": "P-256",
                    "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
        }
    }

    /// Signs a token with this header and these claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .expect("a signature");
                signature
            }
            Self::P256(pair) => {
                let signature = pair.sign(&random, text.as_bytes());
                signature.expect("a signature").as_ref().to_vec()
            }
        };
        format!("{text}.{}", encode(&signature))
    }
}

/// A running issuer.
pub struct Issuer {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    keys: Mutex<Value>,
    fetches: AtomicUsize,
    fault: Mutex<Option<Fault>>,
    /// Fields of the metadata that a test has set.
    changed_metadata: Mutex<Map<String, Value>>,
    sign_in: Mutex<SignIn>,
}

/// A fault of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The response with its metadata is 500.
    Failing,
    /// It does not send its metadata.
    Silent,
    /// Its metadata names another issuer.
    OtherIssuer,
    /// Its keys are at an address without TLS.
    PlainHttp,
    /// Its metadata is not JSON.
    Nonsense,
    /// Its set of keys is larger than the limit.
    TooLarge,
    /// It publishes more keys than the limit.
    TooManyKeys,
    /// Its key address redirects to another path on the same server.
    Moved,
}

impl Issuer {
    /// Starts an issuer with these public keys.
    pub async fn start(keys: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let address = format!("http://127.0.0.1:{port}");
        let shared = Arc::new(Shared {
            sign_in: Mutex::new(SignIn::at(&address)),
            address,
            keys: Mutex::new(json!({ "keys": keys })),
            fetches: AtomicUsize::new(0),
            fault: Mutex::new(None),
            changed_metadata: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(published_keys))
            .route("/other-keys", get(moved_keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/revoke", post(revoke))
            .route("/logout", get(logout))
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared }
    }

    /// Starts an issuer with a key of its own, with which it signs people in as members of these groups. Its access
    /// tokens are accepted on admin routes.
    pub async fn for_console(groups: &[&str]) -> Self {
        let key = Arc::new(SigningKey::p256());
        let issuer = Self::start(&[key.public("k1")]).await;
        issuer.sign_in(|it| {
            it.set_key(key, "k1");
            it.groups = Some(groups.iter().copied().map(str::to_owned).collect());
        });
        issuer
    }

    /// Its identifier, which is its URL.
    pub fn name(&self) -> &str {
        &self.shared.address
    }

    /// Replaces the published keys.
    pub fn set_keys(&self, keys: &[Value]) {
        *self.shared.keys.lock().expect("not poisoned") = json!({ "keys": keys });
    }

    /// Sets or removes a fault.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().expect("not poisoned") = fault;
    }

    /// Adds a field to its metadata, or replaces one.
    pub fn set_metadata(&self, name: &str, value: Value) {
        let mut changed = self.shared.changed_metadata.lock().expect("not poisoned");
        changed.insert(name.to_owned(), value);
    }

    /// Accesses the state of sign-ins.
    pub fn sign_in<T>(&self, use_it: impl FnOnce(&mut SignIn) -> T) -> T {
        use_it(&mut self.shared.sign_in.lock().expect("not poisoned"))
    }

    /// How often its metadata was fetched, which a client does before it fetches the keys.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::Relaxed)
    }

    /// Valid claims for this user.
    pub fn claims(&self, user: &str) -> Value {
        json!({ "iss": self.name(), "aud": AUDIENCE, "sub": user,
            "iat": now(), "exp": now() + 3_600 })
    }

    /// Like [`Self::environment`], with the client of the console.
    pub fn console_environment(&self) -> [(&str, &str); 3] {
        let [issuer, audience] = self.environment();
        [issuer, audience, ("CONSOLE_CLIENT_ID", AUDIENCE)]
    }

    /// The environment variables that point a function to this issuer.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("JWT_ISSUER", self.name()), ("JWT_AUDIENCE", AUDIENCE)]
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// Base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn metadata(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    shared.fetches.fetch_add(1, Ordering::Relaxed);
    let fault = *shared.fault.lock().expect("not poisoned");
    let mut metadata =
        json!({ "issuer": shared.address, "jwks_uri": format!("{}/keys", shared.address) });
    match fault {
        None | Some(Fault::TooLarge | Fault::TooManyKeys | Fault::Moved) => {}
        Some(Fault::Failing) => return (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::OtherIssuer) => metadata["issuer"] = json!("https://issuer.example"),
        Some(Fault::PlainHttp) => metadata["jwks_uri"] = json!("http://issuer.example/keys"),
        Some(Fault::Nonsense) => return (StatusCode::OK, "<html>".to_owned()),
    }
    for (name, endpoint) in [
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("revocation_endpoint", "revoke"),
        ("end_session_endpoint", "logout"),
    ] {
        metadata[name] = json!(format!("{}/{endpoint}", shared.address));
    }
    for (name, value) in shared.changed_metadata.lock().expect("not poisoned").iter() {
        metadata[name.as_str()] = value.clone();
    }
    (StatusCode::OK, metadata.to_string())
}

async fn published_keys(State(shared): State<Arc<Shared>>) -> Response {
    let keys = shared.keys.lock().expect("not poisoned").clone();
    let fault = *shared.fault.lock().expect("not poisoned");
    if fault == Some(Fault::Moved) {
        let elsewhere = [(header::LOCATION, "/other-keys")];
        return (StatusCode::FOUND, elsewhere).into_response();
    }
    if fault == Some(Fault::TooLarge) {
        return format!("{}{keys}", " ".repeat(1_000_000)).into_response();
    }
    if fault == Some(Fault::TooManyKeys) {
        let one = &keys["keys"][0];
        let many: Vec<&Value> = std::iter::repeat_n(one, 101).collect();
        return json!({ "keys": many }).to_string().into_response();
    }
    keys.to_string().into_response()
}

async fn moved_keys(State(shared): State<Arc<Shared>>) -> String {
    shared.keys.lock().expect("not poisoned").to_string()
}

async fn authorize(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let query = Query::parse(uri.query().unwrap_or_default());
    let mut sign_in = shared.sign_in.lock().expect("not poisoned");
    match sign_in.authorize(&query) {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

async fn token(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let mut sign_in = shared.sign_in.lock().expect("not poisoned");
    let (status, body) = sign_in.token(&Query::parse(&body));
    // Pages of any origin may sign in; the code verifier protects them.
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (status, headers, body.to_string()).into_response()
}

async fn logout(uri: Uri) -> Response {
    match SignIn::logout(&Query::parse(uri.query().unwrap_or_default())) {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

async fn revoke(State(shared): State<Arc<Shared>>, body: String) -> StatusCode {
    let mut sign_in = shared.sign_in.lock().expect("not poisoned");
    sign_in.revoke(&Query::parse(&body));
    StatusCode::OK
}
