//! The issuer's public keys, as a JSON Web Key Set names them (RFC 7517), and signatures by them.
//! The only home of ring.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::Value;

/// How a token may be signed. Nothing else is accepted: `none` and the algorithms with a shared
/// secret are how tokens are forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256; what Cognito and most others use.
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

/// A public key that signs tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Its `kid`.
    pub(super) id: String,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256 { point: Vec<u8> },
}

impl Key {
    /// Whether this key made this signature. The key decides which algorithm that can be, not the
    /// token.
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

/// The most keys of a set. Issuers have two to ten; every token is compared with the ids of all.
pub(super) const MOST_KEYS: usize = 100;
/// The longest id of a key. Longer ones are left out with their keys.
const LONGEST_ID: usize = 256;

#[cfg(test)]
impl Key {
    /// Whether it is the same key, whatever its name.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.material == other.material
    }
}

/// The keys of a set that can be used. Others are left out: a set may hold keys for other purposes.
///
/// # Errors
/// A sentence for the log when the set is too large to be one.
pub(super) fn parse(set: &Value) -> Result<Vec<Key>, String> {
    let keys = set["keys"].as_array().map_or(&[][..], Vec::as_slice);
    if keys.len() > MOST_KEYS {
        return Err(format!(
            "a set of {} keys; at most {MOST_KEYS} are read",
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
        operations.is_some_and(|it| it.iter().any(|one| one == "verify"))
    };
    if found.get("key_ops").is_some_and(|it| !verifies(it)) {
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
            // 4: both coordinates follow, 32 bytes each.
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
    (id.len() <= LONGEST_ID).then(|| Key {
        id: id.to_owned(),
        material,
    })
}

/// Base64url without padding (RFC 7515), strictly.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
