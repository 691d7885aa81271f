//! The issuer's public keys, parsed from a JSON Web Key Set (RFC 7517), and the verification of signatures
//! with ring.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;

/// The accepted signature algorithms. `none` and algorithms with a shared secret would allow forged tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256, which Cognito and most other issuers use.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// A public key of the issuer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The `kid`.
    pub(super) id: String,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256 { point: Vec<u8> },
}

impl Key {
    /// Whether this key made this signature. The type of the key decides the algorithm: with a token's own
    /// `alg`, an attacker could choose how the key is used.
    pub(super) fn has_signed(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let outcome = match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rs256) => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, text, signature),
            (Material::P256 { point }, Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature)
            }
            (Material::Rsa { .. }, Algorithm::Es256)
            | (Material::P256 { .. }, Algorithm::Rs256) => {
                return false;
            }
        };
        outcome.is_ok()
    }
}

/// Limit on the keys of a set. Issuers have two to ten, and each token is compared with the ids of all keys.
pub(super) const MAX_KEYS: usize = 100;
/// Keys with a longer id are skipped.
const MAX_ID_LENGTH: usize = 256;

#[cfg(test)]
impl Key {
    /// Whether both have the same key material; the ids may differ.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.material == other.material
    }
}

/// Parses a key set. Keys that cannot verify a token's signature are skipped: a set may hold keys for other
/// purposes.
///
/// # Errors
/// A message for the log if the set has too many keys.
pub(super) fn parse(set: &Value) -> Result<Vec<Key>, String> {
    let keys = set["keys"].as_array().map_or(&[][..], Vec::as_slice);
    if keys.len() > MAX_KEYS {
        return Err(format!(
            "the key set has {} keys, more than the limit of {MAX_KEYS}",
            keys.len()
        ));
    }
    Ok(keys.iter().filter_map(key).collect())
}

fn key(found: &Value) -> Option<Key> {
    if found.get("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let verifies = |operations: &Value| {
        let operations = operations.as_array();
        operations.is_some_and(|all| all.iter().any(|operation| operation == "verify"))
    };
    if found
        .get("key_ops")
        .is_some_and(|operations| !verifies(operations))
    {
        return None;
    }
    let bytes = |name: &str| decode(found[name].as_str()?);
    let (algorithm, material) = match found["kty"].as_str()? {
        "RSA" => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            (Algorithm::Rs256, Material::Rsa { modulus, exponent })
        }
        "EC" if found["crv"] == "P-256" => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            // An uncompressed point (SEC 1): 4, then both coordinates.
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            (Algorithm::Es256, Material::P256 { point })
        }
        _ => return None,
    };
    let named = found
        .get("alg")
        .map(|name| name.as_str().and_then(Algorithm::parse));
    if named.is_some_and(|named| named != Some(algorithm)) {
        return None;
    }
    let id = found["kid"].as_str()?;
    (id.len() <= MAX_ID_LENGTH).then(|| Key {
        id: id.to_owned(),
        material,
    })
}

/// Decodes base64url without padding (RFC 7515). Padding and trailing bits are rejected.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
