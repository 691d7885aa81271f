//! The bucket of a user by SHA-256.

use sha2::{Digest, Sha256};

use crate::UserId;

/// The first four bytes of SHA-256 over salt and user id in UTF-8, read as a big-endian integer, modulo
/// 100.
///
/// Without a salt only the id is hashed, neither the flag nor the environment, so every rollout starts with the
/// same users. The existing service does the same; another hash would change the flags of users on the day of
/// the migration.
pub(crate) fn sha256_bucket(salt: &str, user: &UserId) -> u8 {
    let hash = Sha256::new_with_prefix(salt.as_bytes());
    let digest = hash.chain_update(user.as_str().as_bytes()).finalize();
    let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    (head % 100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_equal_those_of_the_existing_service() {
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
            assert_eq!(sha256_bucket("", &user), expected, "bucket of {id:?}");
        }
    }
}
