//! In which order the users of a simple flag get it.

use sha2::{Digest, Sha256};

use crate::logic::place;
use crate::{Bucketing, Context, EvaluationDefaults, Flag, FractionalVersion, Settings, UserId};

/// The order of the users of one flag: each is in one of a hundred buckets, and gets the flag when the
/// bucket is below the rollout percentage. So a higher percentage only ever adds users.
#[derive(Debug, Clone)]
pub(crate) enum UserOrder {
    /// By SHA-256 over the user id, the same for every flag.
    Sha256,
    /// By SHA-256 over this salt and the user id.
    SaltedSha256(String),
    /// By flagd's hash of flag key and user id, or of this salt and the user id.
    Fractional {
        version: FractionalVersion,
        salt: Option<String>,
    },
}

impl UserOrder {
    pub(crate) fn of(flag: &Flag, settings: &Settings, defaults: EvaluationDefaults) -> Self {
        // An empty salt changes no hash, and is none.
        let salt = flag.salt.clone().filter(|salt| !salt.is_empty());
        match (settings.bucketing(defaults), salt) {
            // Without a bucketing the flag fails before anyone is placed.
            (Some(Bucketing::Sha256) | None, None) => Self::Sha256,
            (Some(Bucketing::Sha256) | None, Some(salt)) => Self::SaltedSha256(salt),
            (Some(Bucketing::Fractional), salt) => Self::Fractional {
                version: settings.fractional,
                salt,
            },
        }
    }

    /// The bucket of the caller, who is this user, in the flag with this key: 0 to 99.
    pub(crate) fn bucket(&self, key: &str, user: &UserId, context: &Context) -> u8 {
        match self {
            Self::Sha256 => context.bucket(user),
            Self::SaltedSha256(salt) => sha256_bucket(salt, user),
            Self::Fractional { version, salt } => {
                let user = user.as_str();
                match salt {
                    None => place::by_flag_and_user(*version, key, user, 100),
                    Some(salt) => place::by_text(*version, [salt, user], 100),
                }
            }
        }
    }
}

/// The first four bytes of SHA-256 over salt and user id in UTF-8, read as a big-endian integer, modulo
/// 100.
///
/// Without a salt nothing but the id is hashed, neither the flag nor the environment, so the same users
/// come first in every rollout. An existing service with these tables does that, and changing it would move
/// users between variants on the day of the switch.
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
            assert_eq!(sha256_bucket("", &user), expected, "bucket of {id:?}");
        }
    }
}
