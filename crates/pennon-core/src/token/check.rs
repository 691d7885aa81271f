//! What must be true of a token (RFC 7519, and the rules of API Gateway's JWT authorizer).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pennon_eval::UserId;
use serde_json::Value;

use super::keys::{Algorithm, Key, decode};
use crate::config::TokenConfig;

/// How far the issuer's clock may be from ours.
pub const SKEW: Duration = Duration::from_secs(30);
/// No header of a request that API Gateway lets through is longer.
const LONGEST: usize = 10_240;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("not a signed JWT")]
    Malformed,
    #[error("signed in a way that is not accepted; RS256 and ES256 are")]
    Algorithm,
    #[error("it demands an extension (crit) that is not understood")]
    Extension,
    #[error("a token for another purpose (typ); JWT and at+jwt are accepted")]
    Type,
    #[error("a token for another purpose (token_use); access and id are accepted")]
    Use,
    #[error("from another issuer")]
    Issuer,
    #[error("for another audience")]
    Audience,
    #[error("expired, or without an expiry")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("signed with a key that the issuer does not have")]
    UnknownKey,
    #[error("wrong signature")]
    Signature,
    #[error("it names nobody (sub)")]
    Nobody,
}

/// A token of which nothing is known yet but its form.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: String,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let json = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&decode(part)?).ok()?;
            value.is_object().then_some(value)
        };
        if token.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let header = json(header).ok_or(Refusal::Malformed)?;
        let algorithm = header["alg"].as_str().and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        if header.get("crit").is_some() {
            return Err(Refusal::Extension);
        }
        // A logout token, say, has the same issuer, audience and key as one that names a caller.
        if header.get("typ").is_some_and(|typ| !names_callers(typ)) {
            return Err(Refusal::Type);
        }
        Ok(Self {
            algorithm,
            key_id: header["kid"]
                .as_str()
                .ok_or(Refusal::UnknownKey)?
                .to_owned(),
            claims: json(claims).ok_or(Refusal::Malformed)?,
            signed,
            signature: decode(signature).ok_or(Refusal::Malformed)?,
        })
    }

    /// The `kid` of the key that it says it is signed with.
    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What it says of itself.
    pub(super) fn into_claims(self) -> Value {
        self.claims
    }

    /// Whether it would be good now, from whom and for whom we want, if its signature is right.
    pub(super) fn check_claims(
        &self,
        config: &TokenConfig,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        if self.claims["iss"].as_str() != Some(&config.issuer) {
            return Err(Refusal::Issuer);
        }
        if let Some(purpose) = self.claims.get("token_use")
            && !matches!(purpose.as_str(), Some("access" | "id"))
        {
            return Err(Refusal::Use);
        }
        if !self.is_for(&config.audiences) {
            return Err(Refusal::Audience);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (earliest, latest) = (now.saturating_sub(SKEW), now + SKEW);
        let ends = self.claims["exp"].as_f64();
        if !ends.is_some_and(|ends| ends > earliest.as_secs_f64()) {
            return Err(Refusal::Expired);
        }
        for name in ["nbf", "iat"] {
            let Some(begins) = self.claims.get(name) else {
                continue;
            };
            // A time that is no number is no time that has come.
            let begins = begins.as_f64();
            if !begins.is_some_and(|begins| begins <= latest.as_secs_f64()) {
                return Err(Refusal::NotYet);
            }
        }
        Ok(())
    }

    /// `aud` names one of the audiences; where there is none, as in Cognito's access tokens, the
    /// `client_id` does.
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

    /// The subject, if this key signed the token.
    pub(super) fn verify(&self, key: &Key) -> Result<UserId, Refusal> {
        if !key.has_signed(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(Refusal::Signature);
        }
        self.claims["sub"]
            .as_str()
            .and_then(UserId::parse)
            .ok_or(Refusal::Nobody)
    }
}

/// Whether the `typ` of a header is one of tokens that name callers (RFC 7519, RFC 9068), in any case and
/// with or without `application/` before it.
fn names_callers(typ: &Value) -> bool {
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

    /// Signed once, by keys that nobody has kept: of P-256 and of RSA with 2048 bits.
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

    /// Who is named by a token that is good for these keys.
    fn user(token: &str, keys: &[Key]) -> Option<UserId> {
        let unverified = Unverified::parse(token).ok()?;
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        unverified.check_claims(&config(), now).ok()?;
        let key = keys.iter().find(|key| key.id == unverified.key_id())?;
        unverified.verify(key).ok()
    }

    #[test]
    fn no_token_but_the_one_that_was_signed_names_anyone() {
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

    /// Texts that are not signed, so that claims of every kind are looked at.
    #[test]
    fn claims_of_every_kind_are_refused_or_name_our_issuer_and_audience() {
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
                assert!(unverified.verify(&key).is_err(), "nobody has signed it");
            }
        });
    }

    #[test]
    fn every_key_set_is_read_and_only_our_keys_verify_our_tokens() {
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
