//! Parses a token and checks its claims (RFC 7519, and the rules of API Gateway's JWT authorizer).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pennon_eval::UserId;
use serde_json::Value;

use super::keys::{Algorithm, Key, decode};
use crate::config::TokenConfig;

/// Tolerated difference between the issuer's clock and ours.
pub const SKEW: Duration = Duration::from_secs(30);
/// API Gateway limits all headers of a request together to this size.
const MAX_LENGTH: usize = 10_240;

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("not a signed JWT")]
    Malformed,
    #[error("the signature algorithm (alg) must be RS256 or ES256")]
    Algorithm,
    #[error("it requires an unsupported extension (crit)")]
    Extension,
    #[error("the type (typ) must be JWT or at+jwt")]
    Type,
    #[error("token_use must be access or id")]
    Use,
    #[error("the issuer (iss) is not JWT_ISSUER")]
    Issuer,
    #[error("the audience (aud or client_id) is not in JWT_AUDIENCE")]
    Audience,
    #[error("expired, or exp is missing")]
    Expired,
    #[error("not valid yet (nbf or iat)")]
    NotYetValid,
    #[error("the issuer's key set does not contain the signing key (kid)")]
    UnknownKey,
    #[error("invalid signature")]
    Signature,
    #[error("the subject (sub) is missing or not a valid user id")]
    Subject,
}

/// A parsed token whose claims and signature have not been verified.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: String,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Parses a token.
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        let json = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&decode(part)?).ok()?;
            value.is_object().then_some(value)
        };
        if token.len() > MAX_LENGTH {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header = json(header).ok_or(TokenError::Malformed)?;
        let algorithm = header["alg"].as_str().and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        if header.get("crit").is_some() {
            return Err(TokenError::Extension);
        }
        // An issuer signs other tokens, such as logout tokens, with the same audience and key.
        if header.get("typ").is_some_and(|typ| !is_accepted_type(typ)) {
            return Err(TokenError::Type);
        }
        Ok(Self {
            algorithm,
            key_id: header["kid"]
                .as_str()
                .ok_or(TokenError::UnknownKey)?
                .to_owned(),
            claims: json(claims).ok_or(TokenError::Malformed)?,
            signed,
            signature: decode(signature).ok_or(TokenError::Malformed)?,
        })
    }

    /// The `kid` of the header: the id of the signing key.
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    pub(super) fn into_claims(self) -> Value {
        self.claims
    }

    /// Checks the issuer, the audience, the purpose and the times. Needs no key, so that a token with invalid claims
    /// never causes a request to the issuer.
    pub(super) fn check_claims(
        &self,
        config: &TokenConfig,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        if self.claims["iss"].as_str() != Some(&config.issuer) {
            return Err(TokenError::Issuer);
        }
        if let Some(purpose) = self.claims.get("token_use")
            && !matches!(purpose.as_str(), Some("access" | "id"))
        {
            return Err(TokenError::Use);
        }
        if !self.is_for(&config.audiences) {
            return Err(TokenError::Audience);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (earliest, latest) = (now.saturating_sub(SKEW), now + SKEW);
        let ends = self.claims["exp"].as_f64();
        if !ends.is_some_and(|ends| ends > earliest.as_secs_f64()) {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            let Some(begins) = self.claims.get(name) else {
                continue;
            };
            let begins = begins.as_f64();
            if !begins.is_some_and(|begins| begins <= latest.as_secs_f64()) {
                return Err(TokenError::NotYetValid);
            }
        }
        Ok(())
    }

    /// Whether `aud` contains one of the audiences. Cognito's access tokens have no `aud`; there `client_id`
    /// counts.
    fn is_for(&self, audiences: &[String]) -> bool {
        let ours = |name: &Value| {
            let name = name.as_str();
            audiences.iter().any(|audience| name == Some(audience))
        };
        match self.claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(ours),
            Some(name) => ours(name),
            None => ours(&self.claims["client_id"]),
        }
    }

    /// Returns the subject if this key signed the token.
    pub(super) fn verify(&self, key: &Key) -> Result<UserId, TokenError> {
        if !key.has_signed(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(TokenError::Signature);
        }
        self.claims["sub"]
            .as_str()
            .and_then(UserId::parse)
            .ok_or(TokenError::Subject)
    }
}

/// Whether `typ` is that of an id or access token (RFC 7519, RFC 9068), in any case and with or without the
/// prefix `application/`.
fn is_accepted_type(typ: &Value) -> bool {
    let Some(name) = typ.as_str() else {
        return false;
    };
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("application/").unwrap_or(&name);
    matches!(name, "jwt" | "at+jwt")
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json, text};
    use serde_json::json;

    use super::*;
    use crate::token::keys;

    /// Signed by a P-256 key and a 2048-bit RSA key whose private parts were not kept.
    const TOKENS: [&str; 2] = [
        include_str!("fuzz/es256.txt"),
        include_str!("fuzz/rs256.txt"),
    ];
    const KEYS: &str = include_str!("fuzz/jwks.json");

    fn key_set() -> Value {
        serde_json::from_str(KEYS).expect("JSON")
    }

    fn ours() -> Vec<Key> {
        keys::parse(&key_set()).expect("keys")
    }

    fn config() -> TokenConfig {
        TokenConfig {
            issuer: "https://issuer.example/".to_owned(),
            audiences: vec!["app".to_owned()],
            ca_file: None,
        }
    }

    /// The user of a token that is valid with these keys.
    fn user(token: &str, keys: &[Key]) -> Option<UserId> {
        let unverified = Unverified::parse(token).ok()?;
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        unverified.check_claims(&config(), now).ok()?;
        let key = keys.iter().find(|key| key.id == unverified.key_id())?;
        unverified.verify(key).ok()
    }

    #[test]
    fn a_changed_token_is_never_valid() {
        let keys = ours();
        for token in TOKENS {
            assert!(user(token, &keys).is_some(), "{token}");
        }
        let words = &[
            ".",
            "..",
            "=",
            "-",
            "_",
            "+",
            "/",
            "e30",
            "e30.e30.",
            "eyJhbGciOiJub25lIn0",
            "%",
            " ",
        ];
        for_all(&text(TOKENS, words), |token| {
            let known = TOKENS.contains(&token.as_str());
            assert_eq!(user(&token, &keys).is_some(), known);
        });
    }

    /// The tokens are not signed, so that mutated claims reach the check.
    #[test]
    fn accepted_claims_always_name_our_issuer_and_audience() {
        let examples = [
            json!([{"alg": "ES256", "kid": "e1"}, {"iss": "https://issuer.example/", "aud": "app",
                "sub": "alice", "exp": 1_800_000_000, "nbf": 0, "iat": 1.5}]),
            json!([{"alg": "RS256", "kid": "r1"}, {"iss": "https://issuer.example/",
                "aud": ["other", "app"], "exp": 1e12, "client_id": "app"}]),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for_all(&json(examples), |parts| {
            let part = |at: usize| {
                use base64::Engine;
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(parts[at].to_string())
            };
            let token = format!("{}.{}.AAAA", part(0), part(1));
            let Ok(unverified) = Unverified::parse(&token) else {
                return;
            };
            if unverified.check_claims(&config(), now).is_ok() {
                let claims = &parts[1];
                assert_eq!(claims["iss"], "https://issuer.example/");
                let audience = claims
                    .get("aud")
                    .unwrap_or(&claims["client_id"])
                    .to_string();
                assert!(audience.contains("\"app\""), "{audience}");
                assert!(claims["exp"].as_f64() > Some(1_699_999_000.0), "{claims}");
            }
            for key in ours() {
                assert!(unverified.verify(&key).is_err(), "unsigned but valid");
            }
        });
    }

    #[test]
    fn parsing_a_key_set_never_panics_and_only_our_keys_verify_our_tokens() {
        for_all(&json([key_set()]), |set| {
            let Ok(found) = keys::parse(&set) else {
                return;
            };
            let listed = set["keys"].as_array().map_or(0, Vec::len);
            assert!(found.len() <= listed);
            for token in TOKENS {
                let unverified = Unverified::parse(token).expect("a token");
                for key in &found {
                    let verified = unverified.verify(key).is_ok();
                    assert!(!verified || ours().iter().any(|ours| ours.same_as(key)));
                }
            }
        });
    }
}
