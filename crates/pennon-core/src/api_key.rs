//! The text of API keys: generates, parses and compares keys.
//!
//! A key has the form `pennon_<kind>_<environment>_<random>`. The environment is part of the key, so that it needs
//! no lookup, and the prefix lets scanners for leaked secrets recognise keys. Only the hash of the whole text is
//! stored. The random part has 256 bits and cannot be guessed, so SHA-256 without salt or stretching suffices.

use std::hint::black_box;

use sha2::{Digest, Sha256};

use crate::config::Secret;
use crate::environment::Environment;
use crate::error::Error;
use crate::hex::hex;
use crate::id::unguessable_text;
use crate::key_kind::KeyKind;
use crate::snapshot::{ApiKey, Snapshot};

const PREFIX: &str = "pennon_";
/// 32 bytes in base64url, without padding.
const RANDOM_LENGTH: usize = 43;

/// A well-formed key, which need not exist: see [`KeyText::find_in`].
#[derive(Debug)]
pub struct KeyText {
    /// The environment in the text.
    pub environment: Environment,
    /// The kind in the text.
    pub kind: KeyKind,
    text: Secret,
}

/// The name of a kind in a key and in the API.
#[must_use]
pub fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Server => "server",
        KeyKind::Client => "client",
        KeyKind::Sync => "sync",
    }
}

/// Parses the name of a kind.
#[must_use]
pub fn parse_kind(name: &str) -> Option<KeyKind> {
    [KeyKind::Server, KeyKind::Client, KeyKind::Sync]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}

/// Whether a text can be the id of a key: hexadecimal, with or without dashes.
#[must_use]
pub fn may_be_an_id(text: &str) -> bool {
    text.len() <= 36
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

impl KeyText {
    /// Generates a new key.
    ///
    /// # Errors
    /// [`Error::Internal`] if the operating system provides no random numbers.
    pub fn generate(kind: KeyKind, environment: &Environment) -> Result<Self, Error> {
        let text = format!(
            "{PREFIX}{}_{environment}_{}",
            kind_name(kind),
            unguessable_text()?
        );
        Ok(Self {
            environment: environment.clone(),
            kind,
            text: Secret::new(text),
        })
    }

    /// Parses a key. The fixed length of the random part makes this unambiguous, although the environment and the
    /// random part may contain underscores.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (kind, rest) = rest.split_once('_')?;
        let kind = parse_kind(kind)?;
        let environment = rest.get(..rest.len().checked_sub(RANDOM_LENGTH)?)?;
        let random = rest.get(environment.len()..)?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !random.bytes().all(is_base64url) {
            return None;
        }
        Some(Self {
            environment: Environment::parse(environment.strip_suffix('_')?).ok()?,
            kind,
            text: Secret::new(text),
        })
    }

    /// The text itself. It is shown once, when the key is created.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The stored form: SHA-256 of the whole text, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.text.expose().as_bytes()))
    }

    /// Finds the key among those of the snapshot.
    ///
    /// Compares all stored hashes in full, so that the duration does not disclose how many characters of a hash
    /// matched. An environment has a few dozen keys.
    #[must_use]
    pub fn find_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a ApiKey> {
        let hash = self.hash();
        let mut found = None;
        for (stored, key) in &snapshot.keys {
            if is_same(stored.as_bytes(), hash.as_bytes()) {
                found = Some(key);
            }
        }
        // The hash covers the kind in the text, but an operator may have changed the kind of the row.
        found.filter(|key| key.kind == self.kind)
    }
}

/// Compares in constant time, for texts of the same length.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let pairs = one.iter().zip(other);
    let difference = pairs.fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    one.len() == other.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Environment {
        Environment::parse(name).expect("a name")
    }

    #[test]
    fn a_generated_key_is_parsed_into_the_same_parts() {
        for name in ["production", "a_b-c_", "_", "server"] {
            for kind in [KeyKind::Server, KeyKind::Client, KeyKind::Sync] {
                let made = KeyText::generate(kind, &environment(name)).expect("random");
                let read = KeyText::parse(made.expose()).expect("a key");
                assert_eq!(read.environment, environment(name));
                assert_eq!(read.kind, kind);
                assert_eq!(read.hash(), made.hash());
            }
        }
    }

    #[test]
    fn a_malformed_key_is_rejected() {
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
    fn two_keys_differ_and_debug_output_hides_them() {
        let one = KeyText::generate(KeyKind::Server, &environment("production")).expect("random");
        let two = KeyText::generate(KeyKind::Server, &environment("production")).expect("random");
        assert_ne!(one.expose(), two.expose());
        let random = &one.expose()[one.expose().len() - RANDOM_LENGTH..];
        assert!(!format!("{one:?}").contains(random));
    }

    #[test]
    fn only_the_complete_key_of_the_stored_kind_is_found() {
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
        let other = KeyText::parse(&text).expect("well-formed");
        assert!(other.find_in(&snapshot).is_none());
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn the_parts_of_every_parsed_key_form_its_text() {
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
                "debug output shows the key"
            );
        });
    }
}
