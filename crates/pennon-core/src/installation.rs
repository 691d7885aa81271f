//! The id of the installation that an instance belongs to.
//!
//! Two installations may share one Redis, by mistake or during a migration. Their environments have the same
//! names, so entries contain the id of their installation: without it, staging could serve the flags of
//! production. The id cannot be stored in the database, because a function with a warm cache never connects to it:
//! every function computes the same id from its settings.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The id of the installation: from `INSTALLATION_ID`, otherwise from the address of the store.
///
/// It is the first 128 bits of a SHA-256, in hexadecimal: the setting and the address may hold any text, and
/// the address is not disclosed to Redis.
#[derive(Debug, Default)]
pub struct Installation {
    id: OnceLock<String>,
    has_reported_unknown: AtomicBool,
    has_reported_other: AtomicBool,
}

impl Installation {
    /// The installation that the setting names. Without a setting, [`Self::derive`] sets the id later.
    #[must_use]
    pub fn named(setting: Option<&str>) -> Self {
        let installation = Self::default();
        if let Some(name) = setting {
            installation.set("id", name);
        }
        installation
    }

    /// Derives the id from the address of the store, unless the id is already known.
    pub fn derive(&self, address: &str) {
        self.set("store", address);
    }

    /// The id. `None` until the address of the database is known.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.get().map(String::as_str)
    }

    /// Whether this is the first call. That the id is unknown is logged once per instance, because every read may
    /// encounter it.
    pub(crate) fn is_first_report_of_unknown(&self) -> bool {
        !self.has_reported_unknown.swap(true, Ordering::Relaxed)
    }

    /// Like [`Self::is_first_report_of_unknown`], for an entry of another installation. The id may become known later,
    /// so an instance may have both problems.
    pub(crate) fn is_first_report_of_other(&self) -> bool {
        !self.has_reported_other.swap(true, Ordering::Relaxed)
    }

    /// The kind is hashed too, so that an `INSTALLATION_ID` with the text of an address gives another id than that
    /// address.
    fn set(&self, kind: &str, text: &str) {
        self.id.get_or_init(|| {
            let digest = Sha256::digest(format!("{kind}:{text}"));
            hex(&digest[..16])
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_overrides_the_address_and_the_first_address_stays() {
        let id = |installation: &Installation| installation.id().map(str::to_owned);
        let named = Installation::named(Some("arn:stack/one"));
        let before = id(&named);
        named.derive("db:5432/flags");
        assert_eq!(id(&named), before);

        let derived = Installation::named(None);
        assert_eq!(derived.id(), None);
        derived.derive("db:5432/flags");
        let before = id(&derived);
        assert!(before.as_ref().is_some_and(|id| id.len() == 32));
        derived.derive("other:5432/flags");
        assert_eq!(id(&derived), before);
        assert_ne!(id(&Installation::named(Some("db:5432/flags"))), before);
    }
}
