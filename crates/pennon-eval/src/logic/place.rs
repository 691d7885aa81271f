//! The place of a caller in a `fractional`: a hash, scaled to a number of places.

use super::cbor;
use super::murmur::Murmur;
use crate::FractionalVersion;

/// The key of a flag as `fractional` hashes it: the state of the hash before the user id, which is computed once for all
/// callers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashedKey {
    version: FractionalVersion,
    hash: Murmur,
}

impl HashedKey {
    pub(crate) fn new(version: FractionalVersion, flag: &str) -> Self {
        let mut hash = Murmur::default();
        match version {
            FractionalVersion::V3 => {
                cbor::list(2, &mut hash);
                cbor::text(flag, &mut hash);
            }
            FractionalVersion::V2 => hash.write(flag.as_bytes()),
        }
        Self { version, hash }
    }

    /// The default bucketing value of `fractional`: the hash of flag key and user id.
    #[inline]
    pub(super) fn with_user(&self, user: &str) -> Murmur {
        let mut hash = self.hash;
        match self.version {
            FractionalVersion::V3 => cbor::text(user, &mut hash),
            FractionalVersion::V2 => hash.write(user.as_bytes()),
        }
        hash
    }

    /// The place of a user, from 0 to `places` - 1.
    pub(crate) fn place(&self, user: &str, places: u8) -> u8 {
        scale(self.with_user(user), places)
    }
}

/// The place, from 0 to `places` - 1, by a text in two parts.
pub(crate) fn by_text(version: FractionalVersion, parts: [&str; 2], places: u8) -> u8 {
    let mut hash = Murmur::default();
    match version {
        FractionalVersion::V3 => cbor::text_in_parts(&parts, &mut hash),
        FractionalVersion::V2 => parts.iter().for_each(|part| hash.write(part.as_bytes())),
    }
    scale(hash, places)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below the number of places"
)]
fn scale(hash: Murmur, places: u8) -> u8 {
    ((u64::from(hash.finish()) * u64::from(places)) >> 32) as u8
}
