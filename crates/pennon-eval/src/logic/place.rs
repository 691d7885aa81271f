//! The place of a caller in a `fractional`: a hash, scaled to a number of places.

use super::cbor;
use super::murmur::Murmur;
use crate::FractionalVersion;

/// The place of a user, from 0 to `places` - 1, by the key of the flag and the user id.
pub(crate) fn by_flag_and_user(
    version: FractionalVersion,
    flag: &str,
    user: &str,
    places: u8,
) -> u8 {
    let mut hash = Murmur::default();
    hash_flag_and_user(version, flag, user, &mut hash);
    scale(hash, places)
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

/// Hashes the default bucketing value of `fractional`.
pub(super) fn hash_flag_and_user(
    version: FractionalVersion,
    flag: &str,
    user: &str,
    hash: &mut Murmur,
) {
    match version {
        FractionalVersion::V3 => {
            cbor::list(2, hash);
            cbor::text(flag, hash);
            cbor::text(user, hash);
        }
        FractionalVersion::V2 => {
            hash.write(flag.as_bytes());
            hash.write(user.as_bytes());
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below the number of places"
)]
fn scale(hash: Murmur, places: u8) -> u8 {
    ((u64::from(hash.finish()) * u64::from(places)) >> 32) as u8
}
