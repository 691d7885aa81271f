//! API keys as texts: made here, taken apart here, compared here, and kept nowhere.
//!
//! A key reads `pennon_<kind>_<environment>_<random>`. It names its environment, so nobody has to look
//! for it, and a scanner for leaked secrets can tell it from other text. Only the hash of the whole is
//! stored. The random part has 256 bits, so a plain SHA-256 is hash enough: there is nothing to guess.

use std::hint::black_box;

use sha2::{Digest, Sha256};

use crate::config::Secret;
use crate::environment::Environment;
use crate::error::Error;
use crate::hex::hex;
use crate::id::random_bytes;
use crate::snapshot::{ApiKey, KeyKind, Snapshot};

const PREFIX: &str = "pennon_";
/// 32 bytes in base64url, without padding.
const RANDOM_LENGTH: usize = 43;
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The text of a key, in a form that a key can have. Whether it opens anything is another question.
#[derive(Debug)]
pub struct KeyText {
    /// The environment that it names.
    pub environment: Environment,
    /// The kind that it names.
    pub kind: KeyKind,
    text: Secret,
}

/// The name of a kind in a key and in the API.
#[must_use]
pub fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Server => "server",
        KeyKind::Client => "client",
    }
}

/// The kind of this name.
#[must_use]
pub fn kind_named(name: &str) -> Option<KeyKind> {
    [KeyKind::Server, KeyKind::Client]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}

impl KeyText {
    /// A key that nobody has had before.
    ///
    /// # Errors
    /// [`Error::Internal`] when the operating system gives no random numbers.
    pub fn generate(kind: KeyKind, environment: &Environment) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        random_bytes(&mut bytes)?;
        let text = format!(
            "{PREFIX}{}_{environment}_{}",
            kind_name(kind),
            base64url(&bytes)
        );
        Ok(Self {
            environment: environment.clone(),
            kind,
            text: Secret::new(text),
        })
    }

    /// Takes a text for a key. The random part has a fixed length, so that an underscore in the
    /// environment's name or in the random part leaves no doubt.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (kind, rest) = rest.split_once('_')?;
        let kind = kind_named(kind)?;
        let environment = rest.get(..rest.len().checked_sub(RANDOM_LENGTH)?)?;
        let random = rest.get(environment.len()..)?;
        if !random.bytes().all(|byte| BASE64URL.contains(&byte)) {
            return None;
        }
        Some(Self {
            environment: Environment::parse(environment.strip_suffix('_')?).ok()?,
            kind,
            text: Secret::new(text),
        })
    }

    /// The text itself. Shown once, when the key is made.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// What is stored: SHA-256 of the whole, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.text.expose().as_bytes()))
    }

    /// The key that this is, if it is one of the environment's.
    ///
    /// Every stored hash is looked at from end to end, so that the time it takes says nothing about
    /// how much of one was right. An environment has a few dozen keys.
    #[must_use]
    pub fn find_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a ApiKey> {
        let hash = self.hash();
        let mut found = None;
        for (stored, key) in &snapshot.keys {
            if is_same(stored.as_bytes(), hash.as_bytes()) {
                found = Some(key);
            }
        }
        // What a key says of itself is covered by its hash; a row that was changed by hand is not.
        found.filter(|key| key.kind == self.kind)
    }
}

/// Whether two texts are equal, in a time that depends on their lengths only.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let pairs = one.iter().zip(other);
    let difference = pairs.fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    one.len() == other.len() && difference == 0
}

fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        // n bytes take n + 1 letters.
        for letter in 0..=group.len() {
            let index = (bits >> (18 - 6 * letter)) & 63;
            text.push(char::from(BASE64URL[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Environment {
        Environment::parse(name).expect("a name")
    }

    #[test]
    fn a_key_is_taken_apart_as_it_was_put_together() {
        for name in ["production", "a_b-c_", "_", "server"] {
            for kind in [KeyKind::Server, KeyKind::Client] {
                let made = KeyText::generate(kind, &environment(name)).expect("random");
                let read = KeyText::parse(made.expose()).expect("a key");
                assert_eq!(read.environment, environment(name));
                assert_eq!(read.kind, kind);
                assert_eq!(read.hash(), made.hash());
            }
        }
    }

    #[test]
    fn no_other_text_is_a_key() {
        let random = "x".repeat(RANDOM_LENGTH);
        for text in [
            String::new(),
            "pennon_".to_owned(),
            format!("pennon_server_{random}"),
            format!("pennon_server__{random}"),
            format!("pennon_admin_production_{random}"),
            format!("pennon_server_production_{}", &random[1..]),
            format!("pennon_server_prod uction_{random}"),
            format!("pennon_server_production_{}é", &random[2..]),
            format!("pennon_server_production_{}ü{}", "x", &random[2..]),
            format!("Pennon_server_production_{random}"),
        ] {
            assert!(KeyText::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn two_keys_differ_and_neither_is_printed() {
        let one = KeyText::generate(KeyKind::Server, &environment("production")).expect("random");
        let two = KeyText::generate(KeyKind::Server, &environment("production")).expect("random");
        assert_ne!(one.expose(), two.expose());
        let random = &one.expose()[one.expose().len() - RANDOM_LENGTH..];
        assert!(!format!("{one:?}").contains(random));
    }

    #[test]
    fn only_the_whole_key_of_its_own_kind_opens_the_environment() {
        let key = KeyText::generate(KeyKind::Server, &environment("production")).expect("random");
        let mut snapshot = Snapshot::empty();
        assert!(key.find_in(&snapshot).is_none());
        let stored = |kind| ApiKey {
            id: "k-1".to_owned(),
            kind,
        };
        snapshot.keys.insert(key.hash(), stored(KeyKind::Client));
        assert!(key.find_in(&snapshot).is_none());
        snapshot.keys.insert(key.hash(), stored(KeyKind::Server));
        assert!(key.find_in(&snapshot).is_some());
        let mut text = key.expose().to_owned();
        let last = if text.pop() == Some('A') { 'B' } else { 'A' };
        text.push(last);
        let other = KeyText::parse(&text).expect("a key's form");
        assert!(other.find_in(&snapshot).is_none());
    }

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (text, expected) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64url(text.as_bytes()), expected);
        }
        assert_eq!(base64url(&[0xff, 0xef]), "_-8");
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn a_text_is_a_key_only_if_its_parts_make_the_same_text() {
        let random = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN-_0";
        let examples = [
            format!("pennon_server_production_{random}"),
            format!("pennon_client_a_b-c__{random}"),
            format!("pennon_client_server_{}", "_".repeat(RANDOM_LENGTH)),
        ];
        let words = &[
            "_",
            "__",
            "-",
            "pennon_",
            "server",
            "client",
            "production",
            "é",
            "\0",
            " ",
            "\n",
            "%5F",
            "A",
        ];
        for_all(&text(examples, words), |text| {
            let Some(key) = KeyText::parse(&text) else {
                return;
            };
            let start = format!("pennon_{}_{}_", kind_name(key.kind), key.environment);
            let random = text.strip_prefix(&start).expect("its own parts");
            assert_eq!(random.len(), RANDOM_LENGTH);
            assert!(
                random
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            );
            assert_eq!(key.expose(), text);
            assert_eq!(key.hash().len(), 64);
            assert!(
                !format!("{key:?}").contains(random),
                "a key that is printed"
            );
        });
    }
}
