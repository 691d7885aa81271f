//! Verifies the headers of entries, and reports entries that are not authentic.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::Cache;
use super::Lookup;
use super::client::Reply;
use super::entry::{Header, Signer, Unusable};
use super::mac::MacKeys;
use crate::environment::Environment;
use crate::snapshot::Revision;
use crate::timestamp::unix_millis;

/// An entry that expired less than this ago is not reported: clocks differ a little, and Redis counts the TTL
/// from the arrival of the fill. An entry that expired earlier counts as replayed.
const EXPIRY_TOLERANCE: Duration = Duration::from_secs(10);

/// The facts in the header of an authentic entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// The revision of the flags in it.
    pub revision: Revision,
    /// How long ago it was filled from the database, computed from its expiry and the TTL of this instance;
    /// [`Duration::MAX`] if more than that TTL and ten seconds are left.
    pub age: Duration,
    /// The time until it expires.
    pub ttl: Duration,
}

/// The last header that was verified. Most requests find the same one, and to compare it takes a fraction of the time
/// of an HMAC.
#[derive(Debug)]
pub(super) struct VerifiedHeader {
    keys: Arc<MacKeys>,
    environment: Environment,
    values: [Reply; 5],
    header: Header,
}

impl VerifiedHeader {
    /// The header, if these keys have verified the same values for the same environment and it has not expired.
    fn of(
        &self,
        keys: &Arc<MacKeys>,
        environment: &Environment,
        values: &[Reply; 5],
        now: u64,
    ) -> Option<&Header> {
        let is_same = Arc::ptr_eq(&self.keys, keys)
            && self.environment == *environment
            && self.values == *values;
        Some(&self.header).filter(|header| is_same && header.expires > now)
    }
}

impl Cache {
    /// The id of this installation. Without one, entries cannot be attributed to an installation, so none is
    /// used or filled.
    pub(super) fn installation_id(&self) -> Option<&str> {
        let id = self.installation.id();
        if id.is_none() && self.installation.is_first_report_of_unknown() {
            tracing::error!(
                domain = "config",
                error.r#type = "unknown_installation",
                "entries in Redis are neither used nor filled, because neither INSTALLATION_ID nor the address of the \
                 database is known; set INSTALLATION_ID to the same text in every function"
            );
        }
        id
    }

    /// Verifies the header of an entry. The revision alone is not enough: anyone may have written it, and
    /// databases that were restored from the same backup have the same revisions. An unusable header is not logged
    /// here: the caller then reads the whole entry, and that read logs the reason.
    pub(super) fn header_in(&self, reply: Reply, environment: &Environment) -> Lookup<EntryInfo> {
        let Reply::List(parts) = reply else {
            return Lookup::Miss;
        };
        let Ok(parts) = <[Reply; 5]>::try_from(parts) else {
            return Lookup::Miss;
        };
        let values = parts.each_ref().map(Reply::as_text);
        if values.iter().all(Option::is_none) {
            return Lookup::Miss;
        }
        let (Some(keys), Some(installation)) = (self.source.keys(), self.installation_id()) else {
            return Lookup::Miss;
        };
        let now = now();
        let mut verified = self.lock_verified();
        let known = verified.as_ref();
        if let Some(header) = known.and_then(|it| it.of(&keys, environment, &parts, now)) {
            return Lookup::Hit(self.entry_info(header));
        }
        let signer = Signer {
            keys: &keys,
            installation,
            environment: environment.as_str(),
        };
        match signer.check(values, now) {
            Ok(header) => {
                let info = self.entry_info(&header);
                *verified = Some(VerifiedHeader {
                    environment: environment.clone(),
                    values: parts,
                    header,
                    keys,
                });
                Lookup::Hit(info)
            }
            Err(Unusable::OtherInstallation) => {
                self.report_other_installation(environment);
                Lookup::Miss
            }
            Err(
                Unusable::Corrupt | Unusable::Unsigned | Unusable::Forged | Unusable::Expired(_),
            ) => Lookup::Unusable,
        }
    }

    fn lock_verified(&self) -> MutexGuard<'_, Option<VerifiedHeader>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entry_info(&self, header: &Header) -> EntryInfo {
        let ttl = Duration::from_millis(header.expires.saturating_sub(now()));
        // With a longer TTL than this instance's, as before the setting was lowered, the time of the fill is unknown.
        let age = if ttl > self.ttl + EXPIRY_TOLERANCE {
            Duration::MAX
        } else {
            self.ttl.saturating_sub(ttl)
        };
        EntryInfo {
            revision: header.revision,
            age,
            ttl,
        }
    }

    /// Logs why an entry is unusable, and whether it is gone. Counts entries that are not authentic.
    pub(super) fn report_unusable(&self, why: Unusable, environment: &Environment, removed: bool) {
        match why {
            Unusable::Expired(since) if since < in_milliseconds(EXPIRY_TOLERANCE) => return,
            Unusable::Corrupt => {
                tracing::warn!(
                    domain = "config",
                    error.r#type = "corrupt_entry",
                    removed,
                    "the cache entry of {environment} cannot be decoded and is not used"
                );
                return;
            }
            Unusable::Forged => self.source.suspect_keys(),
            Unusable::OtherInstallation | Unusable::Unsigned | Unusable::Expired(_) => {}
        }
        self.count_forged_entry();
        tracing::error!(
            domain = "config",
            error.r#type = "forged_entry",
            environment = environment.as_str(),
            reason = why.name(),
            removed,
            "a cache entry is not authentic and is not used. \
             This is harmless if another function or server on this Redis has a different CACHE_MAC_KEY (or \
             CACHE_MAC_SECRET_ARN), or runs an older version. Otherwise somebody else can write to \
             Redis; see cache-forged-entries in docs/operations.md"
        );
    }

    /// Counts an entry that is not authentic, for the metric with the alarm. Not part of the trace of a request,
    /// because `reconcile` finds forged entries too, without a request.
    pub(crate) fn count_forged_entry(&self) {
        self.forged_entries.fetch_add(1, Ordering::Relaxed);
    }

    /// How many entries that are not authentic were found since the last call.
    pub fn take_forged_entries(&self) -> u32 {
        self.forged_entries.swap(0, Ordering::Relaxed)
    }

    pub(super) fn report_other_installation(&self, environment: &Environment) {
        if self.installation.is_first_report_of_other() {
            tracing::error!(
                domain = "config",
                error.r#type = "other_installation",
                environment = environment.as_str(),
                "another installation keeps its flags in this Redis under the same keys; they are not \
                 used. Set a different CACHE_KEY_PREFIX for each installation"
            );
        }
    }
}

/// The time by the clock of this machine, in milliseconds since 1970.
pub(super) fn now() -> u64 {
    unix_millis(SystemTime::now())
}

pub(super) fn in_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_verified_header_confirms_only_the_same_values_for_the_same_environment_until_it_expires() {
        const EXPIRES: u64 = 1_700_000_300_000;
        let keys = || {
            let keys = MacKeys::parse(Secret::new("k".repeat(32)));
            Arc::new(keys.expect("a key"))
        };
        let ours = keys();
        let production = Environment::production();
        let values = ["7", "ours", "1700000300000", "digest", "mac"];
        let values = values.map(|value| Reply::Text(value.into()));
        let verified = VerifiedHeader {
            keys: ours.clone(),
            environment: production.clone(),
            values: values.clone(),
            header: Header {
                revision: Revision(7),
                expires: EXPIRES,
                digest: "digest".to_owned(),
            },
        };
        let found = verified.of(&ours, &production, &values, EXPIRES - 1);
        assert_eq!(found, Some(&verified.header));
        assert_eq!(verified.of(&ours, &production, &values, EXPIRES), None);
        assert_eq!(verified.of(&keys(), &production, &values, 0), None);
        let staging = Environment::parse("staging").expect("a name");
        assert_eq!(verified.of(&ours, &staging, &values, 0), None);
        for at in 0..values.len() {
            for other in [
                Reply::Nothing,
                Reply::Text("".into()),
                Reply::Text("8".into()),
            ] {
                let mut forged = values.clone();
                forged[at] = other;
                let found = verified.of(&ours, &production, &forged, 0);
                assert_eq!(found, None, "{forged:?}");
            }
        }
    }
}
