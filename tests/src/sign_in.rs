//! Sign-ins at the issuer: the authorization code flow with PKCE, rotating refresh tokens, and their faults.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use pennon_core::http::Query;
use pennon_core::token::SKEW;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded::Serializer;

use crate::issuer::{AUDIENCE, SigningKey, encode, now};

/// The state of all sign-ins at the issuer, which are of the same user, and the issuer's behaviour.
pub struct SignIn {
    issuer: String,
    key: Option<(Arc<SigningKey>, String)>,
    codes: HashMap<String, Code>,
    refresh_tokens: Vec<String>,
    /// The number of codes and of responses with tokens so far.
    issued: usize,
    /// The subject of its tokens.
    pub subject: String,
    /// The scopes that a client must request.
    pub scope: &'static str,
    /// Text at the end of its refresh tokens.
    pub refresh_suffix: String,
    /// The groups in its access tokens. Without them, access tokens are opaque.
    pub groups: Option<Vec<String>>,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// The lifetime of its access tokens in seconds.
    pub expires_in: u64,
    /// The lifetime of its id tokens in seconds.
    pub id_expires_in: u64,
    /// The grant types of the requests so far.
    pub grants: Vec<String>,
    /// Refresh tokens that clients have revoked.
    pub revoked: Vec<String>,
}

struct Code {
    challenge: String,
    redirect: String,
    nonce: String,
}

/// Whether an address is that of a server on this machine with one of these paths.
fn is_local(address: &str, paths: &[&str]) -> bool {
    let rest = address.strip_prefix("http://127.0.0.1:");
    let found = rest.and_then(|rest| rest.split_at_checked(rest.find('/')?));
    found.is_some_and(|(port, path)| port.parse::<u16>().is_ok() && paths.contains(&path))
}

/// How the issuer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Correctly.
    Correct,
    /// The user denies the request.
    Denied,
    /// The redirect contains another state.
    OtherState,
    /// The redirect contains no state.
    NoState,
    /// The redirect contains a code that is no longer valid.
    OldCode,
    /// The redirect names another issuer (RFC 9207).
    OtherIssuer,
    /// The id token has another nonce.
    OtherNonce,
    /// The id token has another audience.
    OtherAudience,
    /// The id token is signed with a key that the issuer does not publish.
    OtherKey,
    /// The response has no id token.
    NoIdToken,
    /// The access token contains shell syntax.
    Shell,
    /// A refresh returns tokens of another user.
    OtherUser,
    /// The token endpoint responds with 500.
    Failing,
}

impl SignIn {
    pub(crate) fn at(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            key: None,
            codes: HashMap::new(),
            refresh_tokens: Vec::new(),
            issued: 0,
            subject: "admin-1".to_owned(),
            scope: "openid",
            refresh_suffix: String::new(),
            groups: None,
            behaviour: Behaviour::Correct,
            expires_in: 900,
            id_expires_in: 900,
            grants: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// Sets the signing key.
    pub fn set_key(&mut self, key: Arc<SigningKey>, id: &str) {
        self.key = Some((key, id.to_owned()));
    }

    /// Revokes all refresh tokens.
    pub fn end_sessions(&mut self) {
        self.refresh_tokens.clear();
    }

    /// Responds to the request with which a browser begins a sign-in; returns the redirect's address.
    pub(crate) fn authorize(&mut self, query: &Query) -> Result<String, String> {
        let named = |name: &str| {
            let text = query.first(name).filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("no {name}"))
        };
        for (name, wanted) in [
            ("response_type", "code"),
            ("client_id", AUDIENCE),
            ("code_challenge_method", "S256"),
            ("scope", self.scope),
        ] {
            if named(name)? != wanted {
                return Err(format!("{name} is not {wanted}"));
            }
        }
        let redirect = named("redirect_uri")?;
        if !is_local(redirect, &["/callback", "/console/callback"]) {
            return Err(format!("{redirect} is not allowed"));
        }
        let (state, nonce) = (named("state")?, named("nonce")?);
        let challenge = named("code_challenge")?;
        for value in [state, nonce, challenge] {
            if value.len() < 43 {
                return Err(format!("{value} can be guessed"));
            }
        }
        let code = format!("code-{}", self.next_number());
        let pending = Code {
            challenge: challenge.to_owned(),
            redirect: redirect.to_owned(),
            nonce: nonce.to_owned(),
        };
        self.codes.insert(code.clone(), pending);
        let mut back = Serializer::new(format!("{redirect}?"));
        if self.behaviour == Behaviour::Denied {
            back.append_pair("error", "access_denied")
                .append_pair("error_description", "not today\u{1b}[31m\n");
        } else {
            if self.behaviour == Behaviour::OldCode {
                self.codes.remove(&code);
            }
            back.append_pair("code", &code);
        }
        if self.behaviour == Behaviour::OtherState {
            back.append_pair("state", &"x".repeat(43));
        } else if self.behaviour != Behaviour::NoState {
            back.append_pair("state", state);
        }
        if self.behaviour == Behaviour::OtherIssuer {
            back.append_pair("iss", "https://issuer.example");
        }
        Ok(back.finish())
    }

    /// Responds to a request for tokens.
    pub(crate) fn token(&mut self, form: &Query) -> (StatusCode, Value) {
        let field = |name: &str| form.first(name).unwrap_or_default();
        self.grants.push(field("grant_type").to_owned());
        let refused = |why: &str| (StatusCode::BAD_REQUEST, json!({ "error": why }));
        if self.behaviour == Behaviour::Failing {
            return (StatusCode::INTERNAL_SERVER_ERROR, Value::Null);
        }
        if field("client_id") != AUDIENCE {
            return refused("invalid_client");
        }
        let nonce = match field("grant_type") {
            "authorization_code" => {
                // A code is valid once, even if the exchange fails.
                let Some(code) = self.codes.remove(field("code")) else {
                    return refused("invalid_grant");
                };
                let challenge = encode(&Sha256::digest(field("code_verifier").as_bytes()));
                if challenge != code.challenge || field("redirect_uri") != code.redirect {
                    return refused("invalid_grant");
                }
                Some(code.nonce)
            }
            "refresh_token" => {
                let known = self.refresh_tokens.iter();
                let known = known
                    .enumerate()
                    .find(|(_, it)| *it == field("refresh_token"));
                let Some((at, _)) = known else {
                    return refused("invalid_grant");
                };
                self.refresh_tokens.remove(at);
                None
            }
            _ => return refused("unsupported_grant_type"),
        };
        (StatusCode::OK, self.tokens(nonce))
    }

    /// Responds to the request with which a browser signs out; returns the redirect's address. Tokens stay valid.
    pub(crate) fn logout(query: &Query) -> Result<String, String> {
        let after = query.first("post_logout_redirect_uri").unwrap_or_default();
        if query.first("client_id") == Some(AUDIENCE) && is_local(after, &["/console/"]) {
            Ok(after.to_owned())
        } else {
            Err(format!("{after} is not allowed"))
        }
    }

    pub(crate) fn revoke(&mut self, form: &Query) {
        let token = form.first("token").unwrap_or_default().to_owned();
        self.refresh_tokens.retain(|known| *known != token);
        self.revoked.push(token);
    }

    fn tokens(&mut self, nonce: Option<String>) -> Value {
        let number = self.next_number();
        let refresh = format!("refresh-{number}{}", self.refresh_suffix);
        self.refresh_tokens.push(refresh.clone());
        let is_refresh = nonce.is_none();
        let subject = if self.behaviour == Behaviour::OtherUser && is_refresh {
            "somebody-else"
        } else {
            self.subject.as_str()
        };
        let mut claims = json!({ "iss": self.issuer, "aud": AUDIENCE, "sub": subject,
            "token_use": "id", "iat": now(), "exp": now() + self.id_expires_in });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        if self.behaviour == Behaviour::OtherNonce {
            claims["nonce"] = json!("x".repeat(43));
        }
        if self.behaviour == Behaviour::OtherAudience {
            claims["aud"] = json!("client-2");
        }
        let (key, id) = self.key.clone().expect("a key to sign with");
        let key = if self.behaviour == Behaviour::OtherKey {
            Arc::new(SigningKey::p256())
        } else {
            key
        };
        let header = json!({ "alg": key.algorithm(), "kid": id, "typ": "JWT" });
        let access = match &self.groups {
            _ if self.behaviour == Behaviour::Shell => {
                "x; touch /tmp/pennon-login-was-here".to_owned()
            }
            // Accepted for exactly as long as the response says.
            Some(groups) => {
                let claims = json!({ "iss": self.issuer, "client_id": AUDIENCE, "sub": subject,
                    "token_use": "access", "cognito:groups": groups, "jti": number,
                    "iat": now(), "exp": now() + self.expires_in - SKEW.as_secs() });
                key.sign(&header, &claims)
            }
            None => format!("access-{number}"),
        };
        let mut answer = json!({
            "access_token": access,
            "refresh_token": refresh,
            "id_token": key.sign(&header, &claims),
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        });
        if self.behaviour == Behaviour::NoIdToken {
            answer["id_token"] = Value::Null;
        }
        answer
    }

    fn next_number(&mut self) -> usize {
        self.issued += 1;
        self.issued
    }
}
