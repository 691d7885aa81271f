//! What stands in the hash of an environment.
//!
//! One field per flag: its key, and the flag as JSON. Beside them the fields of the protocol, which
//! all begin with `__`:
//!
//! | field | value |
//! |---|---|
//! | `__rev` | the revision of the flags |
//! | `__inst` | the installation that has filled it; see [`Installation`](crate::installation::Installation) |
//! | `__env` | what holds for all flags (settings, keys), as JSON; with these three the hash is an entry |
//! | `__exp` | when the entry ends, by the clock of the instance that has filled it (ms since 1970) |
//! | `__sum` | the SHA-256 of `__env` and all flags |
//! | `__mac` | the HMAC-SHA-256 that authenticates the entry |
//! | `__l:<lease>` | a reader may fill until then (Redis' clock, ms) |
//! | `__head` | somebody is filling; others wait until then (ms) |
//! | `__d:<writer>` | that writer is done; its mark is not to be set again until then (ms) |
//! | `__b:<writer>` | somebody is committing; nobody may fill until then (ms) |
//! | `__f:<key>` | a flag whose own key begins with `__` |
//!
//! Version 0.1 may run beside this one. It takes `__rev` alone as an entry and passes over what it does
//! not know, so it can read ours: for it, a user who is to get a variant stands among a flag's
//! overrides as included, and which variant that is stands in `__env`. The other way round, an entry
//! of its making lacks definitions, settings and keys; without `__env` it is no entry to us, and is
//! replaced by one that both can read.
//!
//! # Authentication
//!
//! Whoever can write to Redis could otherwise change every flag and add an API key. So one HMAC-SHA-256,
//! with a key that Redis never sees, covers the installation, the environment, the revision, the expiry and
//! `__sum`, which covers the names and values of all other fields. Each part has its length before it, and
//! the message begins with [`DOMAIN`]. These five fields are the *header*: a warm read fetches and checks
//! them only, a cold one checks `__sum` against the fields as well. Leases, marks and `__head` are not
//! covered: they hold no content, and Redis' clock decides about them.
//!
//! The expiry is in the entry since the lifetime of a key is Redis' word: an entry that was recorded and put
//! back later is good until its expiry and no longer. It is compared with the reader's clock, so a reader
//! whose clock is ahead believes entries for less time, and one whose clock is behind for more, by the
//! difference of the two clocks.

use std::collections::BTreeMap;

use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Override, Settings};
use serde::{Deserialize, Serialize};

use super::mac::{MacKeys, digest_of, message_of};
use crate::environment::Environment;
use crate::snapshot::{ApiKey, Revision, Snapshot};

const REVISION: &str = "__rev";
const INSTALLATION: &str = "__inst";
const EXPIRY: &str = "__exp";
const DIGEST: &str = "__sum";
const MAC: &str = "__mac";
/// The fields that say, and prove, which entry this is: what a warm read asks for.
pub(super) const HEADER: [&str; 5] = [REVISION, INSTALLATION, EXPIRY, DIGEST, MAC];
const COMMON: &str = "__env";
/// What the list of environments has in the place of a revision.
pub(super) const LIST_REVISION: Revision = Revision(1);
const RESERVED: &str = "__";
const ESCAPED_FLAG: &str = "__f:";
/// What `__mac` authenticates begins with this, so that the key never signs one message with two meanings.
/// Another form of the message needs another text.
const DOMAIN: &str = "pennon cache entry 1";

/// The content of `__env`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Common {
    #[serde(default)]
    settings: Settings,
    /// Absent from entries of versions that knew one set of defaults only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    defaults: Option<EvaluationDefaults>,
    #[serde(default)]
    keys: BTreeMap<String, ApiKey>,
    /// Per flag and user, the variant that an override names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variants: BTreeMap<String, BTreeMap<String, String>>,
    /// Per flag, the users whose override cannot be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unreadable_overrides: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreadable_keys: Vec<String>,
}

/// The key of an environment's hash.
pub(super) fn key(prefix: &str, environment: &Environment) -> String {
    format!("{prefix}feature_flags:{environment}")
}

/// Why the fields of an entry are of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// A part of them was damaged, so none can be trusted.
    Corrupt,
    /// They are the flags of another installation.
    OtherInstallation,
    /// They have no MAC: an earlier version has filled it, or somebody else.
    Unsigned,
    /// Their MAC is that of other fields, of another environment, or by a key that is not known.
    Forged,
    /// The entry has ended, for so many milliseconds.
    Expired(u64),
}

impl Unusable {
    /// A word for logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::OtherInstallation => "other_installation",
            Self::Unsigned => "unsigned",
            Self::Forged => "bad_mac",
            Self::Expired(_) => "expired",
        }
    }
}

/// What an authentic entry says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) revision: Revision,
    /// When it ends, in milliseconds since 1970.
    pub(super) expires: u64,
    /// The SHA-256 of what it holds.
    pub(super) digest: String,
}

/// What binds an entry to its place, and proves who has filled it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) keys: &'a MacKeys,
    pub(super) installation: &'a str,
    /// The environment, or what else has an entry under this installation.
    pub(super) place: &'a str,
}

impl Signer<'_> {
    fn message(&self, revision: &str, expiry: &str, digest: &str) -> Vec<u8> {
        message_of(&[
            DOMAIN,
            self.installation,
            self.place,
            revision,
            expiry,
            digest,
        ])
    }

    /// Checks the values of [`HEADER`], of which the revision is there. Whose entry it is counts first:
    /// another installation has another key.
    pub(super) fn check(
        &self,
        [revision, installation, expiry, digest, mac]: [Option<&str>; 5],
        now: u64,
    ) -> Result<Header, Unusable> {
        match installation {
            Some(id) if id == self.installation => {}
            Some(_) => return Err(Unusable::OtherInstallation),
            None => return Err(Unusable::Corrupt),
        }
        let (Some(expiry), Some(digest), Some(mac)) = (expiry, digest, mac) else {
            return Err(Unusable::Unsigned);
        };
        let revision = revision.unwrap_or_default();
        let message = self.message(revision, expiry, digest);
        if !self.keys.verify(&message, mac) {
            return Err(Unusable::Forged);
        }
        let revision = revision.parse().map_err(|_| Unusable::Corrupt)?;
        let expires: u64 = expiry.parse().map_err(|_| Unusable::Corrupt)?;
        if expires <= now {
            return Err(Unusable::Expired(now - expires));
        }
        Ok(Header {
            revision: Revision(revision),
            expires,
            digest: digest.to_owned(),
        })
    }

    /// Checks all fields of an entry, and gives its header.
    fn check_all(&self, fields: &[(String, String)], now: u64) -> Result<Header, Unusable> {
        let value = |wanted: &str| {
            let found = fields.iter().find(|(field, _)| field == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let header = self.check(HEADER.map(value), now)?;
        let content = fields.iter().map(|(name, value)| (name, value));
        if digest_of_content(content) == header.digest {
            Ok(header)
        } else {
            Err(Unusable::Forged)
        }
    }

    /// The header fields before these fields.
    fn sign(&self, revision: Revision, expires: u64, content: Vec<String>) -> Vec<String> {
        let (revision, expiry) = (revision.to_string(), expires.to_string());
        let (names, values) = (content.iter().step_by(2), content.iter().skip(1).step_by(2));
        let digest = digest_of_content(names.zip(values));
        let mac = self.keys.sign(&self.message(&revision, &expiry, &digest));
        let values = [revision, self.installation.to_owned(), expiry, digest, mac];
        let header = HEADER.into_iter().map(str::to_owned).zip(values);
        let mut fields: Vec<String> = header.flat_map(<[String; 2]>::from).collect();
        fields.extend(content);
        fields
    }
}

/// The SHA-256 of all fields that hold content, in the order of their names: a hash has none.
fn digest_of_content<'a>(fields: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut content: Vec<_> = fields.filter(|(name, _)| is_content(name)).collect();
    content.sort_unstable();
    digest_of(
        content
            .into_iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
    )
}

/// Every field but the header and what the scripts keep for their own use.
fn is_content(name: &str) -> bool {
    let of_scripts = ["__l:", "__b:", "__d:"];
    !HEADER.contains(&name)
        && name != "__head"
        && !of_scripts.iter().any(|prefix| name.starts_with(prefix))
}

/// All fields of a snapshot, the header first, as field, value, field, value, ….
pub(super) fn encode(
    snapshot: &Snapshot,
    signer: &Signer<'_>,
    expires: u64,
) -> Result<Vec<String>, serde_json::Error> {
    let mut fields = Vec::with_capacity(2 + 2 * snapshot.flags.len());
    let mut common = Common {
        settings: snapshot.settings.clone(),
        defaults: Some(snapshot.defaults),
        keys: snapshot.keys.clone(),
        variants: BTreeMap::new(),
        unreadable_overrides: BTreeMap::new(),
        unreadable_keys: snapshot.unreadable_keys.clone(),
    };
    for (key, flag) in &snapshot.flags {
        let (variants, unreadable) = (variants(flag), unreadable(flag));
        let text = if variants.is_none() && unreadable.is_empty() {
            serde_json::to_string(flag)?
        } else {
            serde_json::to_string(&with_plain_overrides(flag))?
        };
        if let Some(variants) = variants {
            common.variants.insert(key.to_string(), variants);
        }
        if !unreadable.is_empty() {
            common
                .unreadable_overrides
                .insert(key.to_string(), unreadable);
        }
        let key = key.as_str();
        fields.push(if key.starts_with(RESERVED) {
            format!("{ESCAPED_FLAG}{key}")
        } else {
            key.to_owned()
        });
        fields.push(text);
    }
    fields.push(COMMON.to_owned());
    fields.push(serde_json::to_string(&common)?);
    Ok(signer.sign(snapshot.revision, expires, fields))
}

/// All fields of a list of environments, the header first. It has no revision of its own: what it holds is
/// current, or it has been dropped.
pub(super) fn encode_names(
    names: &[Environment],
    signer: &Signer<'_>,
    expires: u64,
) -> Result<Vec<String>, serde_json::Error> {
    let names: Vec<&str> = names.iter().map(Environment::as_str).collect();
    let fields = vec![COMMON.to_owned(), serde_json::to_string(&names)?];
    Ok(signer.sign(LIST_REVISION, expires, fields))
}

/// The environments that these fields list.
///
/// # Errors
/// [`Unusable`].
pub(super) fn decode_names(
    fields: &[(String, String)],
    signer: &Signer<'_>,
    now: u64,
) -> Result<(Vec<Environment>, Header), Unusable> {
    let header = signer.check_all(fields, now)?;
    let common = fields.iter().find(|(field, _)| field == COMMON);
    let (_, text) = common.ok_or(Unusable::Corrupt)?;
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| Unusable::Corrupt)?;
    let names = names.iter().map(|name| Environment::parse(name));
    let names: Result<Vec<Environment>, _> = names.collect();
    Ok((names.map_err(|_| Unusable::Corrupt)?, header))
}

/// The snapshot that these fields hold, and what the entry says of itself. Nothing of it is read before
/// its MAC was checked.
///
/// # Errors
/// [`Unusable`]. Whose entry it is counts first: what another installation writes may have another form.
pub(super) fn decode(
    fields: &[(String, String)],
    signer: &Signer<'_>,
    now: u64,
) -> Result<(Snapshot, Header), Unusable> {
    let header = signer.check_all(fields, now)?;
    let snapshot = snapshot_in(fields, header.revision).ok_or(Unusable::Corrupt)?;
    Ok((snapshot, header))
}

fn snapshot_in(fields: &[(String, String)], revision: Revision) -> Option<Snapshot> {
    let mut common: Option<Common> = None;
    let mut flags = BTreeMap::new();
    for (field, value) in fields {
        let key = if field == COMMON {
            common = Some(serde_json::from_str(value).ok()?);
            continue;
        } else if let Some(key) = field.strip_prefix(ESCAPED_FLAG) {
            key
        } else if field.starts_with(RESERVED) {
            continue;
        } else {
            field
        };
        let flag: Flag = serde_json::from_str(value).ok()?;
        flags.insert(FlagKey::parse(key).ok()?, flag);
    }
    let common = common?;
    for (key, variants) in common.variants {
        let flag = flags.get_mut(key.as_str())?;
        for (user, variant) in variants {
            flag.overrides.insert(user, Override::Variant(variant));
        }
    }
    for (key, users) in common.unreadable_overrides {
        let flag = flags.get_mut(key.as_str())?;
        for user in users {
            flag.overrides.insert(user, Override::Unreadable);
        }
    }
    Some(Snapshot {
        revision,
        flags,
        settings: common.settings,
        // Without them nobody can say what a caller without a key gets, so it is no entry.
        defaults: common.defaults?,
        keys: common.keys,
        unreadable_keys: common.unreadable_keys,
        ..Snapshot::empty()
    })
}

/// The overrides of a flag that name a variant, if there are any.
fn variants(flag: &Flag) -> Option<BTreeMap<String, String>> {
    let mut variants = BTreeMap::new();
    for (user, kind) in &flag.overrides {
        match kind {
            Override::Variant(variant) => {
                variants.insert(user.clone(), variant.clone());
            }
            Override::Include | Override::Exclude | Override::Unreadable => {}
        }
    }
    (!variants.is_empty()).then_some(variants)
}

/// The users of a flag whose override cannot be read.
fn unreadable(flag: &Flag) -> Vec<String> {
    let users = flag.overrides.iter();
    users
        .filter(|(_, kind)| **kind == Override::Unreadable)
        .map(|(user, _)| user.clone())
        .collect()
}

/// The same flag with every override in a form that version 0.1 can read.
fn with_plain_overrides(flag: &Flag) -> Flag {
    let mut plain = flag.clone();
    for kind in plain.overrides.values_mut() {
        match kind {
            Override::Variant(_) => *kind = Override::Include,
            Override::Unreadable => *kind = Override::Exclude,
            Override::Include | Override::Exclude => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const NOW: u64 = 1_700_000_000_000;
    const EXPIRES: u64 = NOW + 300_000;

    fn keys(text: &str) -> MacKeys {
        MacKeys::parse(Secret::new(text.repeat(32))).expect("keys")
    }

    fn signer(keys: &MacKeys) -> Signer<'_> {
        Signer {
            keys,
            installation: "ours",
            place: "production",
        }
    }

    fn encoded(snapshot: &Snapshot) -> Vec<(String, String)> {
        let keys = keys("k");
        pairs(&encode(snapshot, &signer(&keys), EXPIRES).expect("encodes"))
    }

    fn decoded(fields: &[(String, String)]) -> Result<Snapshot, Unusable> {
        let keys = keys("k");
        decode(fields, &signer(&keys), NOW).map(|(snapshot, _)| snapshot)
    }

    fn pairs(flat: &[String]) -> Vec<(String, String)> {
        flat.chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }

    fn snapshot(keys: &[&str]) -> Snapshot {
        Snapshot {
            revision: Revision(1_700_000_000_123),
            flags: keys
                .iter()
                .map(|key| (FlagKey::parse(*key).expect("a key"), Flag::default()))
                .collect(),
            ..Snapshot::empty()
        }
    }

    #[test]
    fn a_snapshot_survives_whatever_its_keys_are() {
        for keys in [
            &[][..],
            &["a", "b"],
            &["__rev", "__env", "__l:x", "__b:x", "__head", "__f:a", "a"],
        ] {
            let snapshot = snapshot(keys);
            assert_eq!(decoded(&encoded(&snapshot)), Ok(snapshot));
        }
    }

    /// All ways to change, remove or add one field.
    fn forgeries(good: &[(String, String)]) -> Vec<Vec<(String, String)>> {
        let mut forgeries = Vec::new();
        for at in 0..good.len() {
            for value in ["", "x", "{}", "9007199254740992"] {
                let mut fields = good.to_vec();
                value.clone_into(&mut fields[at].1);
                forgeries.push(fields);
            }
            let mut renamed = good.to_vec();
            renamed[at].0.push('2');
            forgeries.push(renamed);
            let mut fewer = good.to_vec();
            fewer.remove(at);
            forgeries.push(fewer);
            if is_content(&good[at].0) {
                let mut twice = good.to_vec();
                twice.push((good[at].0.clone(), "x".to_owned()));
                forgeries.push(twice);
            }
        }
        for name in ["b", "__f:__b", "__x"] {
            let more = [good, &[(name.to_owned(), "{}".to_owned())]].concat();
            forgeries.push(more);
        }
        forgeries
    }

    #[test]
    fn a_field_that_was_changed_removed_or_added_makes_an_entry_useless() {
        let good = encoded(&snapshot(&["a"]));
        assert!(decoded(&good).is_ok());
        for fields in forgeries(&good) {
            assert!(decoded(&fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn the_order_of_fields_and_what_scripts_keep_do_not_matter() {
        let mut fields = encoded(&snapshot(&["a", "b", "c"]));
        fields.reverse();
        for name in ["__l:1", "__b:1", "__d:1", "__head"] {
            fields.push((name.to_owned(), "1".to_owned()));
        }
        assert!(decoded(&fields).is_ok());
    }

    #[test]
    fn an_entry_is_good_for_one_place_one_key_and_until_its_expiry() {
        let (ours, other) = (keys("k"), keys("o"));
        let fields = encoded(&snapshot(&["a"]));
        let found =
            |signer: &Signer<'_>, now| decode(&fields, signer, now).map(|(_, header)| header);
        let header = found(&signer(&ours), NOW).expect("good");
        assert_eq!(header.expires, EXPIRES);
        assert!(found(&signer(&ours), EXPIRES - 1).is_ok());
        let late = found(&signer(&ours), EXPIRES + 7);
        assert_eq!(late, Err(Unusable::Expired(7)));
        assert_eq!(found(&signer(&other), NOW), Err(Unusable::Forged));
        let staging = Signer {
            place: "staging",
            ..signer(&ours)
        };
        assert_eq!(found(&staging, NOW), Err(Unusable::Forged));
    }

    #[test]
    fn an_entry_of_another_installation_is_told_from_a_forged_one() {
        let mut fields = encoded(&snapshot(&["a"]));
        "theirs".clone_into(&mut fields[1].1);
        assert_eq!(decoded(&fields), Err(Unusable::OtherInstallation));
        // Signed by the other installation, and claimed for ours.
        let keys = keys("k");
        let theirs = Signer {
            installation: "theirs",
            ..signer(&keys)
        };
        let fields = encode(&snapshot(&["a"]), &theirs, EXPIRES).expect("encodes");
        let mut fields = pairs(&fields);
        "ours".clone_into(&mut fields[1].1);
        assert_eq!(decoded(&fields), Err(Unusable::Forged));
    }

    #[test]
    fn an_entry_of_an_earlier_version_is_not_signed() {
        let mut fields = encoded(&snapshot(&["a"]));
        fields.retain(|(name, _)| ![EXPIRY, DIGEST, MAC].contains(&name.as_str()));
        assert_eq!(decoded(&fields), Err(Unusable::Unsigned));
        fields.retain(|(name, _)| name != INSTALLATION);
        assert_eq!(decoded(&fields), Err(Unusable::Corrupt), "as version 0.1");
    }

    #[test]
    fn settings_keys_and_variants_travel_where_version_0_1_does_not_look() {
        let mut full = snapshot(&["theme"]);
        let key = ApiKey {
            id: "k-1".to_owned(),
            kind: crate::snapshot::KeyKind::Client,
        };
        full.keys.insert("ab".repeat(32), key);
        full.settings =
            serde_json::from_str(r#"{"evaluators":{"eu":{"==":[2.0,2]}}}"#).expect("settings");
        let flag = full.flags.get_mut("theme").expect("there");
        flag.overrides = BTreeMap::from([
            ("alice".to_owned(), Override::Variant("blue".to_owned())),
            ("bob".to_owned(), Override::Exclude),
        ]);
        let fields = encoded(&full);
        assert_eq!(decoded(&fields), Ok(full));
        let theme = fields.iter().find(|(name, _)| name == "theme");
        let (_, theme) = theme.expect("there");
        assert!(theme.contains(r#""overrides":{"alice":"include","bob":"exclude"}"#));
    }

    #[test]
    fn a_list_of_environments_is_no_entry_of_an_environment() {
        let keys = keys("k");
        let listing = Environment::listing();
        let of_list = Signer {
            place: listing.as_str(),
            ..signer(&keys)
        };
        let names = vec![Environment::production()];
        let fields = encode_names(&names, &of_list, EXPIRES).expect("encodes");
        let fields = pairs(&fields);
        let (found, header) = decode_names(&fields, &of_list, NOW).expect("decodes");
        assert_eq!((found, header.revision), (names, LIST_REVISION));
        assert_eq!(decoded(&fields), Err(Unusable::Forged));
        let entry = encoded(&snapshot(&[]));
        assert!(decode_names(&entry, &of_list, NOW).is_err());
        for forged in forgeries(&fields) {
            assert!(decode_names(&forged, &of_list, NOW).is_err(), "{forged:?}");
        }
    }

    #[test]
    fn the_key_is_the_one_the_stories_name() {
        let production = Environment::production();
        assert_eq!(key("", &production), "feature_flags:production");
        let listing = Environment::listing();
        assert_eq!(key("", &listing), "feature_flags:.environments");
        assert_eq!(key("b:", &production), "b:feature_flags:production");
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, json};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Secret;

    const NOW: u64 = 1_700_000_000_000;

    fn keys() -> MacKeys {
        MacKeys::parse(Secret::new("k".repeat(32))).expect("keys")
    }

    fn signer(keys: &MacKeys) -> Signer<'_> {
        Signer {
            keys,
            installation: "ours",
            place: "production",
        }
    }

    /// Fields as an entry has them, with everything that a flag and an environment can have.
    fn fields() -> Value {
        let flag = json!({"enabled": true, "rolloutPercentage": 5, "description": "d", "salt": "s",
            "overrides": {"alice": "include", "bob": "exclude"},
            "definition": {"variants": {"a": 1, "b": 2.0}, "defaultVariant": "a",
                "targeting": {"if": [{"var": "plan"}, "a", null]}, "metadata": {"serverOnly": true}}});
        let common = json!({"settings": {"evaluators": {"eu": {"==": [1, 1]}}}, "defaults": "new",
            "keys": {"ab": {"id": "k-1", "kind": "client"}},
            "variants": {"theme": {"carol": "b"}}, "unreadable_overrides": {"theme": ["dave"]},
            "unreadable_keys": ["k-2"]});
        json!([["theme", flag], ["__f:__rev", {}], ["a b", {"enabled": false}], ["__env", common]])
    }

    /// Values are JSON in a text; the examples have them as JSON, so that edits reach into them.
    fn pairs(value: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.unwrap_or_else(|| value.to_string())
        };
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let pairs = items.iter().filter_map(Value::as_array);
        pairs
            .filter_map(|pair| Some((text(pair.first()?), text(pair.get(1)?))))
            .collect()
    }

    #[test]
    fn what_is_read_of_fields_is_the_same_when_it_is_written_and_read_again() {
        let keys = keys();
        for_all(&json([fields()]), |value| {
            let Some(snapshot) = snapshot_in(&pairs(&value), Revision(7)) else {
                return;
            };
            let written = encode(&snapshot, &signer(&keys), NOW + 1_000).expect("encodes");
            let written: Vec<(String, String)> = written
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            let (again, _) = decode(&written, &signer(&keys), NOW).expect("an entry");
            assert_eq!(again, snapshot);
        });
    }

    #[test]
    fn an_edited_entry_is_refused_or_holds_what_was_signed() {
        let keys = keys();
        let snapshot = snapshot_in(&pairs(&fields()), Revision(7)).expect("a snapshot");
        let signed = encode(&snapshot, &signer(&keys), NOW + 1_000).expect("encodes");
        let signed: Value = signed
            .chunks(2)
            .map(|pair| json!([pair[0], pair[1]]))
            .collect();
        assert!(decode(&pairs(&signed), &signer(&keys), NOW).is_ok());
        for_all(&json([signed]), |value| {
            if let Ok((found, header)) = decode(&pairs(&value), &signer(&keys), NOW) {
                assert_eq!(found, snapshot);
                assert_eq!(header.revision, Revision(7));
            }
        });
    }
}
