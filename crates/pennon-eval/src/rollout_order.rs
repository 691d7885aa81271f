//! The order in which a rollout reaches the users of a simple flag.

use crate::bucket::sha256_bucket;
use crate::logic::bucket::{HashedKey, bucket_of_text};
use crate::trace::Step;
use crate::{Bucketing, Context, EvaluationDefaults, Flag, FractionalVersion, Settings, UserId};

/// The order of the users of one flag. Each user is in one of a hundred buckets, and the flag is on for buckets
/// below the rollout percentage, so a higher percentage only adds users.
#[derive(Debug, Clone)]
pub(crate) enum UserOrder {
    /// By SHA-256 over the user id, the same for every flag.
    Sha256,
    /// By SHA-256 over this salt and the user id.
    SaltedSha256(String),
    /// By flagd's hash of flag key and user id.
    Fractional,
    /// By flagd's hash of this salt and the user id.
    SaltedFractional {
        version: FractionalVersion,
        salt: String,
    },
}

impl UserOrder {
    pub(crate) fn of(flag: &Flag, settings: &Settings, defaults: EvaluationDefaults) -> Self {
        // An empty salt does not change a hash.
        let salt = flag.salt.clone().filter(|salt| !salt.is_empty());
        match (flag.bucketing(settings, defaults), salt) {
            // Unreadable defaults: the evaluation fails before it needs the order.
            (Some(Bucketing::Sha256) | None, None) => Self::Sha256,
            (Some(Bucketing::Sha256) | None, Some(salt)) => Self::SaltedSha256(salt),
            (Some(Bucketing::Fractional), None) => Self::Fractional,
            (Some(Bucketing::Fractional), Some(salt)) => Self::SaltedFractional {
                version: settings.fractional,
                salt,
            },
        }
    }

    /// The decision about a caller with this bucket, for a trace.
    pub(crate) fn step(&self, bucket: Option<u8>, percent: u8) -> Step {
        let (bucketing, salt) = match self {
            Self::Sha256 => (Bucketing::Sha256, None),
            Self::SaltedSha256(salt) => (Bucketing::Sha256, Some(salt.clone())),
            Self::Fractional => (Bucketing::Fractional, None),
            Self::SaltedFractional { salt, .. } => (Bucketing::Fractional, Some(salt.clone())),
        };
        Step::Bucket {
            bucket,
            percent,
            bucketing,
            salt,
            result: bucket.map(|bucket| bucket < percent),
        }
    }

    /// The bucket of a user, 0 to 99. `user` is the user id of `context`.
    pub(crate) fn bucket(&self, key: &HashedKey, user: &UserId, context: &Context) -> u8 {
        match self {
            Self::Sha256 => context.bucket(user),
            Self::SaltedSha256(salt) => sha256_bucket(salt, user),
            Self::Fractional => key.bucket(user.as_str(), 100),
            Self::SaltedFractional { version, salt } => {
                bucket_of_text(*version, [salt, user.as_str()], 100)
            }
        }
    }
}
