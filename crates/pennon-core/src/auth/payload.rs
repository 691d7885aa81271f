//! Reads the claims from the token of a request. The gateway has verified the signature, but passes claims as
//! text; the token has them as the issuer wrote them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// API Gateway limits all headers of a request together to this size.
const MAX_LENGTH: usize = 10_240;
/// The message of the error for a duplicate name, which distinguishes it from serde's own errors.
const DUPLICATE: &str = "duplicate name";

/// The payload of a token.
#[derive(Debug, PartialEq)]
pub(super) struct Payload(Map<String, Value>);

/// Why no payload can be read from a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PayloadError {
    /// The text is not a signed JSON Web Token.
    NotAToken,
    /// The token has two claims with the same name. Parsers differ in which of them counts.
    DuplicateClaim,
}

impl Payload {
    /// Parses the payload of a token. The signature is not verified.
    pub(super) fn parse(token: &str) -> Result<Self, PayloadError> {
        let parts: Vec<&str> = token.split('.').collect();
        let [_, payload, _] = parts.as_slice() else {
            return Err(PayloadError::NotAToken);
        };
        if token.len() > MAX_LENGTH {
            return Err(PayloadError::NotAToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(payload);
        let bytes = bytes.map_err(|_| PayloadError::NotAToken)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            if error.to_string().starts_with(DUPLICATE) {
                PayloadError::DuplicateClaim
            } else {
                PayloadError::NotAToken
            }
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Claims;

        impl<'de> Visitor<'de> for Claims {
            type Value = Payload;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Payload, A::Error> {
                let mut claims = Map::new();
                let mut has_duplicates = false;
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    has_duplicates |= claims.insert(name, value).is_some();
                }
                if has_duplicates {
                    Err(A::Error::custom(DUPLICATE))
                } else {
                    Ok(Payload(claims))
                }
            }
        }

        deserializer.deserialize_map(Claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_payload_is_the_json_object_in_the_second_part_of_a_token() {
        let payload = Payload::parse(&token(r#"{"sub":"a","exp":1}"#)).expect("a payload");
        assert_eq!(payload.get("sub"), Some(&"a".into()));
        for bad in [
            String::new(),
            "a.b".to_owned(),
            "e30.e30.x.y".to_owned(),
            "e30.{}.x".to_owned(),
            format!("{}, {}", token("{}"), token("{}")),
            token("[]"),
            token("{"),
            token("\"a\""),
            format!("{}{}", token("{}"), "x".repeat(MAX_LENGTH)),
        ] {
            assert_eq!(Payload::parse(&bad), Err(PayloadError::NotAToken), "{bad}");
        }
    }

    #[test]
    fn a_duplicate_claim_is_rejected_even_if_its_name_is_escaped() {
        for bad in [
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"roles":[],"x":{},"r\u006fles":["admin"]}"#,
        ] {
            assert_eq!(
                Payload::parse(&token(bad)),
                Err(PayloadError::DuplicateClaim),
                "{bad}"
            );
        }
        assert!(Payload::parse(&token(r#"{"a":{"sub":1},"sub":2}"#)).is_ok());
    }
}
