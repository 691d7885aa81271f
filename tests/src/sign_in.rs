//! How the issuer signs users in: the authorization code flow with PKCE, refresh tokens that rotate, and what
//! can go wrong with them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use pennon_core::http::Query;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded::Serializer;

use crate::issuer::{AUDIENCE, SigningKey, encode, now};

/// The issuer's side of sign-ins. Every user is the same one.
pub struct SignIn {
    issuer: String,
    key: Option<(Arc<SigningKey>, String)>,
    codes: HashMap<String, Code>,
    refresh_tokens: Vec<String>,
    given: usize,
    /// Changes its behaviour.
    pub manner: Manner,
    /// For how many seconds its tokens are valid.
    pub seconds: u64,
    /// The grants that were asked for.
    pub grants: Vec<String>,
    /// Refresh tokens that clients have given back.
    pub revoked: Vec<String>,
}

struct Code {
    challenge: String,
    redirect: String,
    nonce: String,
}

/// How it signs users in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Good,
    /// The user says no.
    Denied,
    /// The browser returns with another state.
    OtherState,
    /// The browser returns without a state.
    NoState,
    /// The browser returns with a code that was used before.
    OldCode,
    /// The browser returns with the name of another issuer (RFC 9207).
    OtherIssuer,
    /// The id token is for another sign-in.
    OtherNonce,
    /// The id token is for another client.
    OtherAudience,
    /// The id token is signed with a key that the issuer does not tell.
    OtherKey,
    /// There is no id token.
    NoIdToken,
    /// The access token would do something in a shell.
    Shell,
    /// A refresh returns tokens of another user.
    SomebodyElse,
    /// The token endpoint answers 500.
    Failing,
}

impl SignIn {
    pub(crate) fn at(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            key: None,
            codes: HashMap::new(),
            refresh_tokens: Vec::new(),
            given: 0,
            manner: Manner::Good,
            seconds: 900,
            grants: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// Signs with this key from now on.
    pub fn set_key(&mut self, key: Arc<SigningKey>, id: &str) {
        self.key = Some((key, id.to_owned()));
    }

    /// Takes every refresh token back.
    pub fn end_sessions(&mut self) {
        self.refresh_tokens.clear();
    }

    /// A browser starts a sign-in; returns the address that it is redirected to.
    pub(crate) fn authorize(&mut self, query: &Query) -> Result<String, String> {
        let named = |name: &str| {
            let text = query.first(name).filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("no {name}"))
        };
        for (name, wanted) in [
            ("response_type", "code"),
            ("client_id", AUDIENCE),
            ("code_challenge_method", "S256"),
            ("scope", "openid"),
        ] {
            if named(name)? != wanted {
                return Err(format!("{name} is not {wanted}"));
            }
        }
        let redirect = named("redirect_uri")?;
        let port = redirect
            .strip_prefix("http://127.0.0.1:")
            .and_then(|rest| rest.strip_suffix("/callback"));
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err(format!("{redirect} is not allowed"));
        }
        let (state, nonce) = (named("state")?, named("nonce")?);
        let challenge = named("code_challenge")?;
        for secret in [state, nonce, challenge] {
            if secret.len() < 43 {
                return Err(format!("{secret} can be guessed"));
            }
        }
        let code = format!("code-{}", self.next());
        let pending = Code {
            challenge: challenge.to_owned(),
            redirect: redirect.to_owned(),
            nonce: nonce.to_owned(),
        };
        self.codes.insert(code.clone(), pending);
        let mut back = Serializer::new(format!("{redirect}?"));
        if self.manner == Manner::Denied {
            back.append_pair("error", "access_denied")
                .append_pair("error_description", "not today\u{1b}[31m\n");
        } else {
            if self.manner == Manner::OldCode {
                self.codes.remove(&code);
            }
            back.append_pair("code", &code);
        }
        if self.manner == Manner::OtherState {
            back.append_pair("state", &"x".repeat(43));
        } else if self.manner != Manner::NoState {
            back.append_pair("state", state);
        }
        if self.manner == Manner::OtherIssuer {
            back.append_pair("iss", "https://issuer.example");
        }
        Ok(back.finish())
    }

    /// A program asks for tokens.
    pub(crate) fn token(&mut self, form: &Query) -> (StatusCode, Value) {
        let field = |name: &str| form.first(name).unwrap_or_default();
        self.grants.push(field("grant_type").to_owned());
        let refused = |why: &str| (StatusCode::BAD_REQUEST, json!({ "error": why }));
        if self.manner == Manner::Failing {
            return (StatusCode::INTERNAL_SERVER_ERROR, Value::Null);
        }
        if field("client_id") != AUDIENCE {
            return refused("invalid_client");
        }
        let nonce = match field("grant_type") {
            "authorization_code" => {
                // A code is used once, even if the exchange fails.
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

    pub(crate) fn revoke(&mut self, form: &Query) {
        let token = form.first("token").unwrap_or_default().to_owned();
        self.refresh_tokens.retain(|known| *known != token);
        self.revoked.push(token);
    }

    fn tokens(&mut self, nonce: Option<String>) -> Value {
        let number = self.next();
        let refresh = format!("refresh-{number}");
        self.refresh_tokens.push(refresh.clone());
        let begun = nonce.is_some();
        let subject = if self.manner == Manner::SomebodyElse && !begun {
            "somebody-else"
        } else {
            "admin-1"
        };
        let mut claims = json!({ "iss": self.issuer, "aud": AUDIENCE, "sub": subject,
            "token_use": "id", "iat": now(), "exp": now() + 900 });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        if self.manner == Manner::OtherNonce {
            claims["nonce"] = json!("x".repeat(43));
        }
        if self.manner == Manner::OtherAudience {
            claims["aud"] = json!("client-2");
        }
        let (key, id) = self.key.clone().expect("a key to sign with");
        let key = if self.manner == Manner::OtherKey {
            Arc::new(SigningKey::p256())
        } else {
            key
        };
        let header = json!({ "alg": key.algorithm(), "kid": id, "typ": "JWT" });
        let access = if self.manner == Manner::Shell {
            "x; touch /tmp/pennon-login-was-here".to_owned()
        } else {
            format!("access-{number}")
        };
        let mut answer = json!({
            "access_token": access,
            "refresh_token": refresh,
            "id_token": key.sign(&header, &claims),
            "token_type": "Bearer",
            "expires_in": self.seconds,
        });
        if self.manner == Manner::NoIdToken {
            answer["id_token"] = Value::Null;
        }
        answer
    }

    fn next(&mut self) -> usize {
        self.given += 1;
        self.given
    }
}
