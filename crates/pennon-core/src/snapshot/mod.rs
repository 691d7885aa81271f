//! A consistent state of all flags of one environment, and of the other data that a response depends on.

pub(crate) mod fragments;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Ruleset, Settings};
use serde::{Deserialize, Serialize};

use self::fragments::Fragments;
use crate::key_kind::KeyKind;
use crate::server_only;

/// The version of an environment. A later commit always has a higher revision.
///
/// A change sets it to the database's clock in milliseconds, or to the previous revision plus one if that is higher.
/// So the first change in a database that was restored or created again has a revision above all that a cache may
/// still hold. Until then, a restored environment has the revision of the backup, and entries from before the
/// restore may have higher ones. Revisions stay below 2^53, which Lua and JSON readers represent exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of an environment that nothing has changed yet, such as an unknown one.
    pub const NONE: Self = Self(0);
}

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The state of an environment, from one consistent read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision of this state.
    pub revision: Revision,
    /// Every flag that is not archived, under its key. Shared with the snapshot of the next revision if it does not
    /// change.
    pub flags: BTreeMap<FlagKey, Arc<Flag>>,
    /// Settings of the environment.
    pub settings: Settings,
    /// The evaluation defaults of the installation, for settings that the environment does not set.
    pub defaults: EvaluationDefaults,
    /// The API keys that are not revoked, by the SHA-256 of the whole key in hexadecimal. A key is checked
    /// without a query, and a revocation takes effect like a change of a flag.
    pub keys: BTreeMap<String, ApiKey>,
    /// The ids of API keys whose row is invalid; they are rejected.
    pub unreadable_keys: Vec<String>,
    /// Values computed from the fields above.
    pub derived: Derived,
}

/// The first 16 bytes of the SHA-256 of a flag's field in a cache entry.
pub(crate) type FlagDigest = [u8; 16];

/// Values computed from the rest of the snapshot when they are first needed: the compiled rules, the parts of
/// responses, the number of unreadable items and the digests of the cache entry. They are ignored when snapshots are
/// compared, and a clone has none.
#[derive(Debug, Default)]
pub struct Derived {
    ruleset: OnceLock<Ruleset>,
    items: OnceLock<Arc<Fragments>>,
    switches: OnceLock<Arc<Fragments>>,
    unreadable: OnceLock<usize>,
    digests: OnceLock<Vec<FlagDigest>>,
}

impl Clone for Derived {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Derived {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Derived {}

/// An API key, without its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The id that admins refer to; not a secret.
    pub id: String,
    /// Which kind of client uses it.
    pub kind: KeyKind,
}

/// A stored item that is unreadable. Evaluations that depend on it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableItem<'a> {
    /// `flag`, `override`, `settings`, `key` or `installation`.
    pub kind: &'static str,
    /// The key of the flag, also for an override; the id of the API key. Never a user id.
    pub name: &'a str,
    /// Why it is unreadable.
    pub reason: &'a str,
    /// The stored text, without secrets and user ids. A different text is logged as a new problem.
    pub stored: &'a str,
}

impl Snapshot {
    /// All unreadable items of the environment.
    #[must_use]
    pub fn unreadable(&self) -> Vec<UnreadableItem<'_>> {
        let mut items = Vec::new();
        if self.has_unreadable_defaults() {
            items.push(UnreadableItem {
                kind: "installation",
                name: "",
                reason: "evaluation_defaults of pennon_installation is neither existing nor new",
                stored: "",
            });
        }
        if let Some(settings) = &self.settings.unreadable {
            items.push(UnreadableItem {
                kind: "settings",
                name: "",
                reason: &settings.reason,
                stored: &settings.text,
            });
        }
        for (key, flag) in &self.flags {
            let definition = flag.definition.as_ref();
            if let Some(unreadable) = definition.and_then(|it| it.unreadable.as_ref()) {
                items.push(UnreadableItem {
                    kind: "flag",
                    name: key.as_str(),
                    reason: &unreadable.reason,
                    stored: &unreadable.text,
                });
            }
            let unreadable = |kind: &Override| *kind == Override::Unreadable;
            if flag.overrides.values().any(unreadable) {
                items.push(UnreadableItem {
                    kind: "override",
                    name: key.as_str(),
                    reason: "its type is neither include nor exclude",
                    stored: "",
                });
            }
        }
        items.extend(self.unreadable_keys.iter().map(|id| UnreadableItem {
            kind: "key",
            name: id,
            reason: "its kind or its hash is invalid",
            stored: "",
        }));
        items
    }

    /// Whether the row of the installation, which all environments share, is unreadable.
    #[must_use]
    pub fn has_unreadable_defaults(&self) -> bool {
        self.defaults == EvaluationDefaults::Unreadable
    }

    /// The number of unreadable items. Cached, because every request reports it.
    #[must_use]
    pub fn unreadable_count(&self) -> usize {
        let count = || self.unreadable().len();
        *self.derived.unreadable.get_or_init(count)
    }

    /// Whether a caller with this kind of key may see a flag. Everyone can read a client key, so server-only
    /// flags are hidden from its holders and from callers without a key. A flag with unreadable metadata or
    /// settings counts as server-only: see `server_only`.
    #[must_use]
    pub fn shows(&self, flag: &Flag, kind: KeyKind) -> bool {
        match kind {
            KeyKind::Server | KeyKind::Sync => true,
            KeyKind::Client => !server_only::hides(flag, &self.settings),
        }
    }

    /// The compiled flags.
    #[must_use]
    pub fn rules(&self) -> &Ruleset {
        let compile = || Ruleset::compile(&self.flags, &self.settings, self.defaults);
        self.derived.ruleset.get_or_init(compile)
    }

    /// If an earlier snapshot is compiled and has the same settings and defaults, compiles only the flags that this one
    /// does not share with it. Otherwise does nothing.
    pub fn compile_after(&self, earlier: &Self) {
        let Some(rules) = earlier.derived.ruleset.get() else {
            return;
        };
        if (&self.settings, self.defaults) != (&earlier.settings, earlier.defaults) {
            return;
        }
        let is_unchanged = |key: &FlagKey| {
            let (now, before) = (self.flags.get(key), earlier.flags.get(key));
            now.zip(before)
                .is_some_and(|(now, before)| Arc::ptr_eq(now, before))
        };
        let rules = rules.compile_next(&self.flags, &self.settings, self.defaults, is_unchanged);
        let _already_set = self.derived.ruleset.set(rules);
    }

    /// The digests of the flags' fields in the cache entry, in the order of the flags. `None` until the snapshot is
    /// encoded as an entry or decoded from one.
    pub(crate) fn digests(&self) -> Option<&[FlagDigest]> {
        self.derived.digests.get().map(Vec::as_slice)
    }

    /// Remembers the digests of the cache entry, unless they are known.
    pub(crate) fn set_digests(&self, digests: Vec<FlagDigest>) {
        let _already_set = self.derived.digests.set(digests);
    }

    /// The parts of an OFREP response with all flags.
    pub(crate) fn items(&self) -> &Arc<Fragments> {
        let prepare = || Arc::new(Fragments::of_items(self));
        self.derived.items.get_or_init(prepare)
    }

    /// The parts of an object of booleans with all flags.
    pub(crate) fn switches(&self) -> &Arc<Fragments> {
        let prepare = || Arc::new(Fragments::of_switches(self));
        self.derived.switches.get_or_init(prepare)
    }

    /// An environment without flags.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            revision: Revision::NONE,
            flags: BTreeMap::new(),
            settings: Settings::default(),
            defaults: EvaluationDefaults::Existing,
            keys: BTreeMap::new(),
            unreadable_keys: Vec::new(),
            derived: Derived::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pennon_eval::{Context, Reason, Rollout, UserId};
    use serde_json::json;

    use super::*;

    fn flag(percent: u8) -> Arc<Flag> {
        Arc::new(Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(i64::from(percent)).expect("a percentage"),
            ..Flag::default()
        })
    }

    fn key(text: &str) -> FlagKey {
        FlagKey::parse(text).expect("a key")
    }

    fn variant(snapshot: &Snapshot, flag: &str) -> Option<(String, Reason, bool)> {
        let user = UserId::parse("alice");
        let found = snapshot
            .rules()
            .evaluate(flag, &Context::of(user.as_ref()), 0);
        let found = found.ok()?;
        let has_metadata = found.metadata.contains_key("owner");
        Some((found.variant.to_owned(), found.reason, has_metadata))
    }

    #[test]
    fn rules_compiled_after_an_earlier_snapshot_equal_those_compiled_alone() {
        let earlier = Snapshot {
            flags: [("same", 0), ("changed", 0), ("removed", 100)]
                .map(|(name, percent)| (key(name), flag(percent)))
                .into(),
            ..Snapshot::empty()
        };
        let same = Arc::clone(&earlier.flags["same"]);
        let next = Snapshot {
            flags: [
                (key("same"), same),
                (key("changed"), flag(100)),
                (key("new"), flag(100)),
            ]
            .into(),
            ..Snapshot::empty()
        };
        let with_metadata = Snapshot {
            settings: serde_json::from_value(json!({"metadata": {"owner": "us"}}))
                .expect("settings"),
            ..next.clone()
        };
        let without_defaults = Snapshot {
            defaults: EvaluationDefaults::Unreadable,
            ..next.clone()
        };
        let _compiled = earlier.rules();
        for snapshot in [next, with_metadata, without_defaults] {
            let fresh = snapshot.clone();
            snapshot.compile_after(&earlier);
            for name in ["same", "changed", "removed", "new"] {
                assert_eq!(variant(&snapshot, name), variant(&fresh, name), "{name}");
            }
        }
    }
}
