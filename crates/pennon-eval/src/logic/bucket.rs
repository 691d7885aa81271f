//! The hash that `fractional` computes of flag key and user id by default, and the buckets of percentage rollouts that
//! use the same algorithm.

use super::cbor;
use super::murmur::Murmur;
use crate::FractionalVersion;

/// The state of `fractional`'s hash after the flag key and before the user id. It is computed once per flag, for all
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

    /// The hash of the default bucketing value of `fractional`, which consists of flag key and user id.
    #[inline]
    pub(super) fn with_user(&self, user: &str) -> Murmur {
        let mut hash = self.hash;
        match self.version {
            FractionalVersion::V3 => cbor::text(user, &mut hash),
            FractionalVersion::V2 => hash.write(user.as_bytes()),
        }
        hash
    }

    /// The bucket of a user, from 0 to `buckets` - 1.
    pub(crate) fn bucket(&self, user: &str, buckets: u8) -> u8 {
        scale(self.with_user(user), buckets)
    }
}

/// The bucket of a text, such as salt and user id, given in two parts so that they need not be concatenated.
pub(crate) fn bucket_of_text(version: FractionalVersion, parts: [&str; 2], buckets: u8) -> u8 {
    let mut hash = Murmur::default();
    match version {
        FractionalVersion::V3 => cbor::text_in_parts(&parts, &mut hash),
        FractionalVersion::V2 => parts.iter().for_each(|part| hash.write(part.as_bytes())),
    }
    scale(hash, buckets)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below the number of buckets"
)]
fn scale(hash: Murmur, buckets: u8) -> u8 {
    ((u64::from(hash.finish()) * u64::from(buckets)) >> 32) as u8
}
