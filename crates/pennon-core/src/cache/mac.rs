//! The keys that authenticate cache entries by HMAC-SHA-256. They are never sent to Redis.

use ring::{digest, hmac};

use crate::config::Secret;
use crate::hex::hex;

/// The least length of a key, in bytes: that of the output of HMAC-SHA-256. A shorter key would be weaker than
/// the hash.
const MIN_KEY_LENGTH: usize = 32;

/// One key, or several while a key is replaced: the first one signs, all verify.
#[derive(Debug, Clone)]
pub(super) struct MacKeys {
    text: Secret,
    keys: Vec<hmac::Key>,
}

impl MacKeys {
    /// Parses keys that are separated by white space.
    ///
    /// # Errors
    /// A message for the log that says what to do. It contains no part of a key.
    pub(super) fn parse(text: Secret) -> Result<Self, String> {
        let words = || text.expose().split_whitespace();
        if words().next().is_none() {
            return Err("the key for cache entries is empty".to_owned());
        }
        if words().any(|word| word.len() < MIN_KEY_LENGTH) {
            return Err(format!(
                "a key for cache entries must have at least {MIN_KEY_LENGTH} characters; \
                 `openssl rand -hex 32` generates one"
            ));
        }
        let keys = words()
            .map(|word| hmac::Key::new(hmac::HMAC_SHA256, word.as_bytes()))
            .collect();
        Ok(Self { text, keys })
    }

    /// Whether these keys were parsed from this text.
    pub(super) fn are_from(&self, text: &Secret) -> bool {
        self.text == *text
    }

    /// The MAC of a message by the first key, in hexadecimal.
    pub(super) fn sign(&self, message: &[u8]) -> String {
        let tag = self.keys.first().map(|key| hmac::sign(key, message));
        tag.map(|tag| hex(tag.as_ref())).unwrap_or_default()
    }

    /// Whether this is the MAC of the message by one of the keys. Takes constant time per key.
    pub(super) fn verify(&self, message: &[u8], mac: &str) -> bool {
        let Some(mac) = decode_hex(mac) else {
            return false;
        };
        self.keys
            .iter()
            .any(|key| hmac::verify(key, message, &mac).is_ok())
    }
}

/// The SHA-256 of parts, each prefixed with its length, so that different lists of parts have different digests.
pub(super) fn digest_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&length_of(part));
        context.update(part.as_bytes());
    }
    hex(context.finish().as_ref())
}

/// A message of parts, each prefixed with its length.
pub(super) fn message_of(parts: &[&str]) -> Vec<u8> {
    let mut message = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        message.extend_from_slice(&length_of(part));
        message.extend_from_slice(part.as_bytes());
    }
    message
}

fn length_of(part: &str) -> [u8; 8] {
    u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes()
}

/// Decodes hexadecimal text in lower case.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> MacKeys {
        MacKeys::parse(Secret::new(text)).expect("keys")
    }

    #[test]
    fn the_mac_is_hmac_sha_256() {
        // As `openssl dgst -sha256 -hmac` computes it.
        let keys = keys("0123456789abcdef0123456789abcdef");
        let mac = "137e6557c3c13a1ca5dc7e52a389a0f86be8cb4db4ae61c62396058b00acacd0";
        assert_eq!(keys.sign(b"what do ya want for nothing?"), mac);
        assert!(keys.verify(b"what do ya want for nothing?", mac));
        assert!(!keys.verify(b"what do ya want for nothing", mac));
    }

    #[test]
    fn of_two_keys_both_verify_and_the_first_signs() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let both = keys(&format!("{old}\n{new}"));
        let signed = both.sign(b"message");
        assert!(keys(&old).verify(b"message", &signed));
        assert!(!keys(&new).verify(b"message", &signed));
        assert!(both.verify(b"message", &keys(&new).sign(b"message")));
    }

    #[test]
    fn only_the_exact_mac_verifies() {
        let keys = keys(&"k".repeat(32));
        let mac = keys.sign(b"message");
        for wrong in [
            "",
            "0",
            "zz",
            &mac[2..],
            &mac.to_uppercase(),
            &format!("{mac}00"),
        ] {
            assert!(!keys.verify(b"message", wrong), "{wrong}");
        }
    }

    #[test]
    fn a_short_key_is_rejected_without_repeating_it() {
        for text in ["", "  ", "hunter2", &format!("{} hunter2", "k".repeat(32))] {
            let why = MacKeys::parse(Secret::new(text)).expect_err("no key");
            assert!(!why.contains("hunter2"), "{why}");
        }
        assert!(!format!("{:?}", keys(&"k".repeat(32))).contains("kkkk"));
    }

    #[test]
    fn different_parts_have_different_messages_and_digests() {
        assert_ne!(message_of(&["ab", "c"]), message_of(&["a", "bc"]));
        assert_ne!(message_of(&["a", ""]), message_of(&["a"]));
        assert_ne!(
            digest_of(["ab", "c"].into_iter()),
            digest_of(["a", "bc"].into_iter())
        );
    }
}
