//! Whether what Redis says is authentic, and what is done when it is not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Cache;
use super::Lookup;
use super::client::Reply;
use super::entry::{Header, Signer, Unusable};
use crate::environment::Environment;
use crate::snapshot::Revision;
use crate::telemetry::Trace;

/// An entry that has ended for less than this is no news: clocks differ a little, and Redis counts the
/// lifetime from the moment at which a fill arrives. For longer, somebody has put it back.
const EXPIRED_LATELY: Duration = Duration::from_secs(10);
/// What an authentic entry says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The revision of the flags in it.
    pub revision: Revision,
    /// How long ago it was filled from the database, as far as its expiry tells.
    pub age: Duration,
    /// How long it will live.
    pub lives_for: Duration,
}

impl Cache {
    /// The id of this installation. Without one, nobody can tell whose flags an entry holds, and none
    /// is believed or filled.
    pub(super) fn installation_id(&self) -> Option<&str> {
        let id = self.installation.id();
        if id.is_none() && self.installation.is_first_report() {
            tracing::error!(
                domain = "config",
                error.r#type = "unknown_installation",
                "Redis is not used, since neither INSTALLATION_ID nor the address of the database is \
                 known; set INSTALLATION_ID to the same text in every function"
            );
        }
        id
    }

    /// What an authentic entry of this installation says of itself. The revision alone would not do:
    /// anyone may have written it, and databases that were restored from one backup have the same
    /// revisions. What is wrong with an entry is reported when it is fetched.
    pub(super) fn header_in(&self, reply: Reply, environment: &Environment) -> Lookup<Seen> {
        let Reply::List(parts) = reply else {
            return Lookup::Miss;
        };
        let Ok(parts) = <[Reply; 5]>::try_from(parts) else {
            return Lookup::Miss;
        };
        let text = |part: &'_ Reply| match part {
            Reply::Text(text) => Some(text.clone()),
            Reply::Nothing
            | Reply::Number(_)
            | Reply::List(_)
            | Reply::WrongType
            | Reply::Malformed => None,
        };
        let values = parts.each_ref().map(text);
        let values = values.each_ref().map(Option::as_deref);
        let [Some(_), Some(_), ..] = values else {
            return Lookup::Miss;
        };
        let (Some(keys), Some(installation)) = (self.source.keys(), self.installation_id()) else {
            return Lookup::Miss;
        };
        let signer = Signer {
            keys: &keys,
            installation,
            environment: environment.as_str(),
        };
        match signer.check(values, now()) {
            Ok(header) => Lookup::Hit(self.seen(&header)),
            Err(Unusable::OtherInstallation) => {
                self.report_other_installation(environment);
                Lookup::Miss
            }
            Err(
                Unusable::Corrupt | Unusable::Unsigned | Unusable::Forged | Unusable::Expired(_),
            ) => Lookup::Miss,
        }
    }

    pub(super) fn seen(&self, header: &Header) -> Seen {
        let lives_for = Duration::from_millis(header.expires.saturating_sub(now()));
        Seen {
            revision: header.revision,
            age: self.ttl.saturating_sub(lives_for),
            lives_for,
        }
    }

    /// Says what is wrong with an entry. All but one that has just ended is a reason to look into who can
    /// write to this Redis.
    pub(super) fn report_unusable(&self, why: Unusable, environment: &Environment, trace: &Trace) {
        match why {
            Unusable::Expired(since) if since < in_milliseconds(EXPIRED_LATELY) => return,
            Unusable::Corrupt => {
                tracing::warn!(
                    domain = "config",
                    error.r#type = "damaged_entry",
                    "the cache entry of {environment} makes no sense; dropping it"
                );
                return;
            }
            Unusable::Forged => self.source.suspect_keys(),
            Unusable::OtherInstallation | Unusable::Unsigned | Unusable::Expired(_) => {}
        }
        trace.forged_entry();
        tracing::error!(
            domain = "config",
            error.r#type = "forged_entry",
            environment = environment.as_str(),
            reason = why.name(),
            "a cache entry is not authentic; it was dropped, and the flags were read from PostgreSQL. \
             Harmless if another function or server on this Redis has a different CACHE_MAC_KEY (or \
             CACHE_MAC_SECRET_ARN), or runs an older version. Otherwise somebody else can write to \
             Redis; see cache-forged-entries in docs/operations.md"
        );
    }

    pub(super) fn report_other_installation(&self, environment: &Environment) {
        if self.installation.is_first_report() {
            tracing::error!(
                domain = "config",
                error.r#type = "other_installation",
                environment = environment.as_str(),
                "another installation keeps its flags in this Redis under the same keys; they are not \
                 used. Give each installation a CACHE_KEY_PREFIX of its own"
            );
        }
    }
}

/// Milliseconds since 1970, by the clock of this machine.
pub(super) fn now() -> u64 {
    in_milliseconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

pub(super) fn in_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
