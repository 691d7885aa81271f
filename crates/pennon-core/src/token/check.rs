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
