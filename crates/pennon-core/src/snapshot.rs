//! All flags of one environment at one moment, and what else an answer depends on.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Ruleset, Settings};
use serde::{Deserialize, Serialize};

use crate::server_only;

/// Counts the changes of an environment. A later commit has a higher revision, always.
///
/// It starts at, and never falls behind, the database's clock in milliseconds: a database that is
/// restored or created anew continues above every revision that a cache may still hold. It stays
/// below 2^53, so that Lua and JSON readers keep every digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of an environment that has never had a flag.
    pub const NONE: Self = Self(0);
}

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What an answer depends on, and the revision at which it was read, in one consistent read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision that this is the state of.
    pub revision: Revision,
    /// Every flag that is not archived, under its key.
    pub flags: BTreeMap<FlagKey, Flag>,
    /// What holds for every flag of the environment.
    pub settings: Settings,
    /// What holds in the whole installation where the settings leave it open.
    pub defaults: EvaluationDefaults,
    /// The API keys that are not revoked, under their hashes: SHA-256 of the whole key, in
    /// hexadecimal. To check a key takes no query, and a revoked one is gone like a changed flag.
    pub keys: BTreeMap<String, ApiKey>,
    /// The ids of API keys whose row makes no sense; they open nothing.
    pub unreadable_keys: Vec<String>,
    /// The flags, compiled by the first who evaluates.
    pub rules: Rules,
}

/// What is computed once, when first asked for: the compiled rules, and how much cannot be read. It follows
/// from the rest of a snapshot, so it makes no difference between snapshots, and a copy computes its own.
#[derive(Debug, Default)]
pub struct Rules {
    ruleset: OnceLock<Ruleset>,
    unreadable: OnceLock<usize>,
}

impl Clone for Rules {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Rules {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Rules {}

/// What is known of an API key beside its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What admins call it by; no secret.
    pub id: String,
    /// Who uses it.
    pub kind: KeyKind,
}

/// Who uses a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// A program that keeps its key to itself.
    Server,
    /// A program in its users' hands: everyone can read the key.
    Client,
}

/// Something that is stored and cannot be read, so that whatever depends on it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableItem<'a> {
    /// `flag`, `override`, `settings`, `key` or `installation`.
    pub kind: &'static str,
    /// The key of the flag, or of the flag that the override is of; the id of the API key. Never a user.
    pub name: &'a str,
    /// What is wrong with it.
    pub reason: &'a str,
    /// What is stored, as far as it is no secret and no name of a user: another text is another mistake.
    pub stored: &'a str,
}

impl Snapshot {
    /// All that is stored of the environment and cannot be read.
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
            reason: "its kind or its hash makes no sense",
            stored: "",
        }));
        items
    }

    /// Whether the row of the installation, which all environments share, cannot be read.
    #[must_use]
    pub fn has_unreadable_defaults(&self) -> bool {
        self.defaults == EvaluationDefaults::Unreadable
    }

    /// How many of them there are, counted once: every request reports it.
    #[must_use]
    pub fn unreadable_count(&self) -> usize {
        let count = || self.unreadable().len();
        *self.rules.unreadable.get_or_init(count)
    }

    /// Whether someone of this kind may know of a flag. A key for clients can be read by everyone who has
    /// the client, so flags for servers only do not exist for its holders, nor for callers without a key.
    /// A flag that may be for servers only is shown to server keys and admins alone: see `server_only`.
    #[must_use]
    pub fn shows(&self, flag: &Flag, kind: KeyKind) -> bool {
        match kind {
            KeyKind::Server => true,
            KeyKind::Client => !server_only::hides(flag, &self.settings),
        }
    }

    /// The flags, ready to be evaluated.
    #[must_use]
    pub fn rules(&self) -> &Ruleset {
        let compile = || Ruleset::compile(&self.flags, &self.settings, self.defaults);
        self.rules.ruleset.get_or_init(compile)
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
            rules: Rules::default(),
        }
    }
}
