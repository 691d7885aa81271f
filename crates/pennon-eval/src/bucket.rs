//! Where a user stands among the hundred buckets of a rollout.

use sha2::{Digest, Sha256};

use crate::UserId;

/// The bucket of a user, 0 to 99: the first four bytes of SHA-256 over the id's UTF-8 bytes, read as
/// a big-endian integer, modulo 100.
///
/// Nothing but the id goes in, neither the flag nor the environment, so the same users come first
/// in every rollout. That is what the service Pennon replaces does, and changing it would move
/// users between variants on the day of the switch.
#[must_use]
pub fn bucket(user: &UserId) -> u8 {
    bucket_of("", user)
}

/// The bucket of a user in a flag with a salt of its own: the salt goes into the hash before the id,
/// so that other users come first than in other flags.
pub(crate) fn bucket_of(salt: &str, user: &UserId) -> u8 {
    let hash = Sha256::new_with_prefix(salt.as_bytes());
    let digest = hash.chain_update(user.as_str().as_bytes()).finalize();
    let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    (head % 100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_equal_those_of_the_service_being_replaced() {
        let recorded = [
            ("user-123", 35),
            ("user-456", 15),
            ("user-0", 73),
            ("user-1", 52),
            ("alice", 1),
            ("Alice", 30),
            ("bob", 12),
            ("a", 10),
            ("ä", 99),
            ("😀", 88),
            (" user-123", 17),
            ("00000000-0000-4000-8000-000000000000", 96),
            ("user-18", 0),
            ("user-20", 4),
            ("user-37", 5),
            ("user-113", 24),
            ("user-76", 25),
            ("user-8", 49),
            ("user-51", 50),
            ("user-118", 99),
        ];
        for (id, expected) in recorded {
            let user = UserId::parse(id).expect("a non-empty id");
            assert_eq!(bucket(&user), expected, "bucket of {id:?}");
        }
    }
}
