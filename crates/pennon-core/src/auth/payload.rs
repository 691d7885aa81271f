//! What the token of a request says. The gateway has verified its signature, and flattens what it hands
//! over; here the same claims stand as the issuer wrote them.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// No header of a request that API Gateway lets through is longer.
const LONGEST: usize = 10_240;
/// What [`Payload`] calls a name that stands there twice, to be told from other errors.
const TWICE: &str = "a name twice";

/// The payload of a token.
#[derive(Debug, PartialEq)]
pub(super) struct Payload(Map<String, Value>);

/// Why a text gives no payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPayload {
    /// It is not a signed JSON Web Token.
    NoToken,
    /// It is one, and names a claim twice: readers differ in which of them counts.
    Twice,
}

impl Payload {
    /// Takes the payload out of a token. Its signature is not looked at.
    pub(super) fn parse(token: &str) -> Result<Self, NoPayload> {
        let parts: Vec<&str> = token.split('.').collect();
        let [_, payload, _] = parts.as_slice() else {
            return Err(NoPayload::NoToken);
        };
        if token.len() > LONGEST {
            return Err(NoPayload::NoToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(payload);
        let bytes = bytes.map_err(|_| NoPayload::NoToken)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            if error.to_string().starts_with(TWICE) {
                NoPayload::Twice
            } else {
                NoPayload::NoToken
            }
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Payload;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Payload, A::Error> {
                let mut claims = Map::new();
                let mut twice = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name.clone(), value).is_some() {
                        twice.insert(name);
                    }
                }
                if twice.is_empty() {
                    Ok(Payload(claims))
                } else {
                    Err(A::Error::custom(TWICE))
                }
            }
        }

        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_payload_is_a_json_object_in_the_middle_of_a_token() {
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
            format!("{}{}", token("{}"), "x".repeat(LONGEST)),
        ] {
            assert_eq!(Payload::parse(&bad), Err(NoPayload::NoToken), "{bad}");
        }
    }

    #[test]
    fn a_claim_that_is_named_twice_is_seen_however_it_is_written() {
        for bad in [
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"roles":[],"x":{},"r\u006fles":["admin"]}"#,
        ] {
            assert_eq!(Payload::parse(&token(bad)), Err(NoPayload::Twice), "{bad}");
        }
        assert!(Payload::parse(&token(r#"{"a":{"sub":1},"sub":2}"#)).is_ok());
    }
}
