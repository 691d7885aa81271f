//! Which installation an instance belongs to.
//!
//! Two installations may share one Redis by mistake, or for a while on purpose. Their environments have
//! the same names, so an entry has to say whose it is: staging must never serve the flags of production.
//! Every function of an installation has to know the same id, before it connects to the database.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The id of the installation that this instance belongs to: `INSTALLATION_ID`, otherwise derived from
/// where the flags are stored.
///
/// It is the first 128 bits of a SHA-256, in hexadecimal: the setting and the address may hold any
/// text, and Redis need not learn the address.
#[derive(Debug, Default)]
pub struct Installation {
    id: OnceLock<String>,
    reported: AtomicBool,
}

impl Installation {
    /// The installation that the setting names; without one, [`Self::derive`] tells it later.
    #[must_use]
    pub fn named(setting: Option<&str>) -> Self {
        let installation = Self::default();
        if let Some(name) = setting {
            installation.set("id", name);
        }
        installation
    }

    /// Derives the id from where the flags are stored, unless it is known already.
    pub fn derive(&self, place: &str) {
        self.set("store", place);
    }

    /// The id. `None` until the address of the database is known.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.get().map(String::as_str)
    }

    /// Whether something about this is to be logged: once per instance, since every read may meet it.
    pub(crate) fn is_first_report(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }

    /// The kind keeps a setting from naming an installation that has derived its id.
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
    fn a_setting_wins_over_the_place_and_the_first_place_stays() {
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
