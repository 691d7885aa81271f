//! The encoding of a cache entry, which is the hash of one environment.
//!
//! Each flag is one field: its key, and the flag as JSON. All other fields begin with `__`:
//!
//! | field | value |
//! |---|---|
//! | `__rev` | the revision of the flags; a hash with this field is an entry |
//! | `__inst` | the installation that filled the entry; see [`Installation`](crate::installation::Installation) |
//! | `__env` | settings, evaluation defaults and API keys of the environment, as JSON |
//! | `__fmt` | the version of this format; readers do not use an entry with a lower one |
//! | `__exp` | the expiry, by the clock of the instance that filled the entry (ms since 1970) |
//! | `__sum` | the SHA-256 of `__env`, `__fmt`, `__idx`, `__imac` and all flags |
//! | `__mac` | the HMAC-SHA-256 that authenticates the entry |
//! | `__idx` | the digest of every flag's field, as JSON |
//! | `__imac` | the HMAC-SHA-256 that authenticates `__env` and `__idx` without the flags |
//! | `__l:<lease>` | a lease: its reader may fill until this time (Redis' clock, ms) |
//! | `__grace` | the fill grace period: other readers wait until this time (ms); and the id of the reader that fills |
//! | `__b:<writer>` | a write barrier: no reader may fill until this time (ms) |
//! | `__d:<writer>` | this writer is done: its barrier must not be set again until this time (ms) |
//! | `__f:<key>` | a flag whose key begins with `__` |
//!
//! # Authentication
//!
//! Without authentication, everyone who can write to Redis could change flags and add API keys. Therefore
//! `__mac`, an HMAC-SHA-256 with a key that is never sent to Redis, covers the installation, the name of the
//! environment, the revision, the expiry and `__sum`, which covers the names and values of all other fields.
//! Each part is prefixed with its length, and the message begins with [`DOMAIN`]. `__rev`, `__inst`, `__exp`,
//! `__sum` and `__mac` are the *header*: a warm read fetches and verifies only them; a cold read also compares
//! `__sum` with the other fields. `__l:`, `__b:`, `__d:` and `__grace` are not covered: they contain no data, and
//! Redis' clock decides about them.
//!
//! The expiry is part of the entry because the TTL in Redis is not authenticated: an entry that was recorded
//! and replayed is valid until its expiry and no longer. It is compared with the reader's clock, so a reader
//! whose clock is ahead uses entries for less time, and one whose clock is behind for more, by the clock skew.
//!
//! # Changes
//!
//! After a change of one flag, all other flags are as before. A reader that holds an earlier snapshot fetches `__env`
//! and `__idx`, which `__imac` authenticates together with the revision and the expiry, and then only the flags whose
//! digest differs. A field that does not have its digest comes from another entry or is forged; the reader then
//! fetches the whole entry. A digest is the first 16 bytes of a SHA-256: nobody can find another flag with the
//! digest of a given one.
//!
//! # Versions
//!
//! Two versions of Pennon share entries during a deployment. A version that does not know a property of flags
//! (such as `bucketing`) does not read it from the database, so the entry that it fills would hide a committed change
//! of that property. `__fmt` is raised with every new property, together with [`INDEX_DOMAIN`], so that the newer
//! version rejects that entry, reads the database and fills the entry again. The older version uses entries of the
//! newer one; it ignores the property in the database, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use pennon_eval::{EvaluationDefaults, Flag, FlagKey, Settings};
use serde::{Deserialize, Serialize};

use super::mac::{MacKeys, decode_hex, digest_of, message_of};
use crate::environment::Environment;
use crate::hex::hex;
use crate::snapshot::{ApiKey, FlagDigest, Revision, Snapshot};

const REVISION: &str = "__rev";
const INSTALLATION: &str = "__inst";
const EXPIRY: &str = "__exp";
const DIGEST: &str = "__sum";
const MAC: &str = "__mac";
/// The fields that identify and authenticate an entry. A warm read fetches only these.
pub(super) const HEADER: [&str; 5] = [REVISION, INSTALLATION, EXPIRY, DIGEST, MAC];
const COMMON: &str = "__env";
/// The field of a list of environments that contains their names, as JSON.
const NAMES: &str = COMMON;
const INDEX: &str = "__idx";
const INDEX_MAC: &str = "__imac";
const FORMAT: &str = "__fmt";
/// The version of the format. 2: flags have a bucketing.
const VERSION: u32 = 2;
/// The fields from which a reader learns which flags have changed: the header, and these three.
pub(super) const SUMMARY: [&str; 8] = {
    let [a, b, c, d, e] = HEADER;
    [a, b, c, d, e, COMMON, INDEX, INDEX_MAC]
};
/// The revision of every list of environments.
pub(super) const LIST_REVISION: Revision = Revision(1);
const RESERVED: &str = "__";
const ESCAPED_FLAG: &str = "__f:";
/// The prefix of the message that `__mac` authenticates. Messages of another kind or format have another prefix, so
/// that a MAC of one is not valid for the other.
const DOMAIN: &str = "pennon cache entry 1";
/// The prefix of the message that `__imac` authenticates. Its number is [`VERSION`], because a reader of changes does
/// not fetch `__fmt`.
const INDEX_DOMAIN: &str = "pennon cache index 2";

/// The content of `__env`. An unknown field may change what a flag evaluates to, so an entry with one is not used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    #[serde(default)]
    settings: Settings,
    /// Required: without the defaults, the value for a caller without a targeting key is unknown.
    defaults: EvaluationDefaults,
    #[serde(default)]
    keys: BTreeMap<String, ApiKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreadable_keys: Vec<String>,
}

/// The key of an environment's hash.
pub(super) fn key(prefix: &str, environment: &Environment) -> String {
    format!("{prefix}feature_flags:{environment}")
}

/// Why an entry cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It cannot be decoded.
    Corrupt,
    /// Another installation filled it.
    OtherInstallation,
    /// It has no MAC.
    Unsigned,
    /// Its MAC or `__sum` does not match: other fields, another environment, or an unknown key.
    Forged,
    /// It expired this many milliseconds ago.
    Expired(u64),
}

impl Unusable {
    /// The name in logs.
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

/// The verified header of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) revision: Revision,
    /// When it expires, in milliseconds since 1970.
    pub(super) expires: u64,
    /// The SHA-256 of its content.
    pub(super) digest: String,
}

/// Signs and verifies the entry of one environment of an installation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) keys: &'a MacKeys,
    pub(super) installation: &'a str,
    /// The name of the environment, or of the list of environments.
    pub(super) environment: &'a str,
}

impl Signer<'_> {
    fn message(&self, revision: &str, expiry: &str, digest: &str) -> Vec<u8> {
        message_of(&[
            DOMAIN,
            self.installation,
            self.environment,
            revision,
            expiry,
            digest,
        ])
    }

    /// Verifies the values of [`HEADER`]. Compares the installation first, because the MAC of another
    /// installation does not match either.
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

    /// The message that `__imac` authenticates.
    fn index_message(&self, revision: &str, expiry: &str, common: &str, index: &str) -> Vec<u8> {
        message_of(&[
            INDEX_DOMAIN,
            self.installation,
            self.environment,
            revision,
            expiry,
            common,
            index,
        ])
    }

    /// Verifies all fields of an entry and returns its header.
    fn check_all(&self, fields: &[(&str, &str)], now: u64) -> Result<Header, Unusable> {
        let value = |wanted: &str| {
            let found = fields.iter().find(|(field, _)| *field == wanted);
            found.map(|(_, value)| *value)
        };
        let header = self.check(HEADER.map(value), now)?;
        if digest_of_content(fields.iter().copied()) == header.digest {
            Ok(header)
        } else {
            Err(Unusable::Forged)
        }
    }

    /// Signs content fields. Returns the header fields, followed by the content.
    fn sign(&self, revision: Revision, expires: u64, content: Vec<String>) -> Vec<String> {
        let (revision, expiry) = (revision.to_string(), expires.to_string());
        let texts = content.iter().map(String::as_str);
        let (names, values) = (texts.clone().step_by(2), texts.skip(1).step_by(2));
        let digest = digest_of_content(names.zip(values));
        let mac = self.keys.sign(&self.message(&revision, &expiry, &digest));
        let values = [revision, self.installation.to_owned(), expiry, digest, mac];
        let header = HEADER.into_iter().map(str::to_owned).zip(values);
        let mut fields: Vec<String> = header.flat_map(<[String; 2]>::from).collect();
        fields.extend(content);
        fields
    }
}

/// The SHA-256 of all content fields. They are sorted by name, because a hash in Redis has no order.
fn digest_of_content<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut content: Vec<_> = fields.filter(|(name, _)| is_content(name)).collect();
    content.sort_unstable();
    digest_of(content.into_iter().flat_map(|(name, value)| [name, value]))
}

/// Whether a field holds content: neither the header nor a field that only the scripts use.
fn is_content(name: &str) -> bool {
    let of_scripts = ["__l:", "__b:", "__d:"];
    !HEADER.contains(&name)
        && name != "__grace"
        && !of_scripts.iter().any(|prefix| name.starts_with(prefix))
}

/// Encodes a snapshot as alternating fields and values, the header first, and stores the digests in the snapshot.
pub(super) fn encode(
    snapshot: &Snapshot,
    signer: &Signer<'_>,
    expires: u64,
) -> Result<Vec<String>, serde_json::Error> {
    let mut fields = Vec::with_capacity(8 + 2 * snapshot.flags.len());
    let mut index = BTreeMap::new();
    let mut digests = Vec::with_capacity(snapshot.flags.len());
    let common = Common {
        settings: snapshot.settings.clone(),
        defaults: snapshot.defaults,
        keys: snapshot.keys.clone(),
        unreadable_keys: snapshot.unreadable_keys.clone(),
    };
    for (key, flag) in &snapshot.flags {
        let value = serde_json::to_string(&**flag)?;
        let digest = digest_of_flag(&value);
        digests.push(digest);
        index.insert(key, hex(&digest));
        fields.push(field_of(key));
        fields.push(value);
    }
    let common = serde_json::to_string(&common)?;
    let index = serde_json::to_string(&index)?;
    let (revision, expiry) = (snapshot.revision.to_string(), expires.to_string());
    let message = signer.index_message(&revision, &expiry, &common, &index);
    for (name, value) in [
        (COMMON, common),
        (FORMAT, VERSION.to_string()),
        (INDEX, index),
        (INDEX_MAC, signer.keys.sign(&message)),
    ] {
        fields.extend([name.to_owned(), value]);
    }
    snapshot.set_digests(digests);
    Ok(signer.sign(snapshot.revision, expires, fields))
}

/// The name of a flag's field.
fn field_of(key: &FlagKey) -> String {
    let key = key.as_str();
    if key.starts_with(RESERVED) {
        format!("{ESCAPED_FLAG}{key}")
    } else {
        key.to_owned()
    }
}

/// The digest of the value of a flag's field.
fn digest_of_flag(value: &str) -> FlagDigest {
    let mut digest = FlagDigest::default();
    let whole = ring::digest::digest(&ring::digest::SHA256, value.as_bytes());
    digest.copy_from_slice(&whole.as_ref()[..size_of::<FlagDigest>()]);
    digest
}

/// The digests of an index. `None` if it is not an index.
fn index_in(text: &str) -> Option<BTreeMap<FlagKey, FlagDigest>> {
    let index: BTreeMap<FlagKey, String> = serde_json::from_str(text).ok()?;
    let digests = index.into_iter().map(|(key, digest)| {
        let digest = FlagDigest::try_from(decode_hex(&digest)?).ok()?;
        Some((key, digest))
    });
    digests.collect()
}

/// The difference between an entry and an earlier snapshot.
#[derive(Debug)]
pub(super) struct Changes {
    /// The header of the entry.
    pub(super) header: Header,
    /// The new snapshot, without the flags that must be fetched.
    snapshot: Snapshot,
    digests: BTreeMap<FlagKey, FlagDigest>,
    /// The flags that must be fetched.
    keys: Vec<FlagKey>,
}

/// Compares the values of [`SUMMARY`] with an earlier snapshot. `None` if the earlier snapshot or the entry has no
/// digests, or the entry is not authentic: then the whole entry must be read.
pub(super) fn changes_since(
    earlier: &Snapshot,
    values: [Option<&str>; 8],
    signer: &Signer<'_>,
    now: u64,
) -> Option<Changes> {
    let [header @ .., common, index, index_mac] = values;
    let [revision, _installation, expiry, _digest, _mac] = header;
    let header = signer.check(header, now).ok()?;
    let (common, index) = (common?, index?);
    let message = signer.index_message(revision?, expiry?, common, index);
    if !signer.keys.verify(&message, index_mac?) {
        return None;
    }
    let digests = index_in(index)?;
    let held = earlier.flags.iter().zip(earlier.digests()?);
    let held: BTreeMap<&FlagKey, (&Arc<Flag>, &FlagDigest)> = held
        .map(|((key, flag), digest)| (key, (flag, digest)))
        .collect();
    let (mut flags, mut keys) = (BTreeMap::new(), Vec::new());
    for (key, digest) in &digests {
        match held.get(key) {
            Some((flag, known)) if *known == digest => {
                flags.insert(key.clone(), Arc::clone(flag));
            }
            Some(_) | None => keys.push(key.clone()),
        }
    }
    let common = serde_json::from_str(common).ok()?;
    Some(Changes {
        snapshot: snapshot_of(header.revision, common, flags),
        header,
        digests,
        keys,
    })
}

impl Changes {
    /// The fields that must be fetched.
    pub(super) fn fields(&self) -> Vec<String> {
        self.keys.iter().map(field_of).collect()
    }

    /// Adds the values of [`Self::fields`]. `None` if one does not have the digest of the index: the entry was
    /// replaced after its index was read, or the value is forged.
    pub(super) fn with(mut self, values: &[Option<&str>]) -> Option<(Snapshot, Header)> {
        if values.len() != self.keys.len() {
            return None;
        }
        for (key, value) in self.keys.into_iter().zip(values) {
            let value = (*value)?;
            if self.digests.get(&key) != Some(&digest_of_flag(value)) {
                return None;
            }
            let flag: Flag = serde_json::from_str(value).ok()?;
            self.snapshot.flags.insert(key, Arc::new(flag));
        }
        let digests = self.digests.into_values().collect();
        self.snapshot.set_digests(digests);
        Some((self.snapshot, self.header))
    }
}

/// Encodes a list of environments, the header first. Its revision never changes: a list that is out of date is
/// removed.
pub(super) fn encode_names(
    names: &[Environment],
    signer: &Signer<'_>,
    expires: u64,
) -> Result<Vec<String>, serde_json::Error> {
    let names: Vec<&str> = names.iter().map(Environment::as_str).collect();
    let fields = vec![NAMES.to_owned(), serde_json::to_string(&names)?];
    Ok(signer.sign(LIST_REVISION, expires, fields))
}

/// Verifies and decodes a list of environments.
///
/// # Errors
/// [`Unusable`].
pub(super) fn decode_names(
    fields: &[(&str, &str)],
    signer: &Signer<'_>,
    now: u64,
) -> Result<(Vec<Environment>, Header), Unusable> {
    let header = signer.check_all(fields, now)?;
    let names = fields.iter().find(|(field, _)| *field == NAMES);
    let (_, text) = names.ok_or(Unusable::Corrupt)?;
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| Unusable::Corrupt)?;
    let names = names.iter().map(|name| Environment::parse(name));
    let names: Result<Vec<Environment>, _> = names.collect();
    Ok((names.map_err(|_| Unusable::Corrupt)?, header))
}

/// Verifies and decodes a snapshot. Nothing is decoded before the MAC is verified.
///
/// # Errors
/// [`Unusable`].
pub(super) fn decode(
    fields: &[(&str, &str)],
    signer: &Signer<'_>,
    now: u64,
) -> Result<(Snapshot, Header), Unusable> {
    let header = signer.check_all(fields, now)?;
    let format = fields.iter().find(|(field, _)| *field == FORMAT);
    let version = format.and_then(|(_, text)| text.parse::<u32>().ok());
    if version.is_none_or(|version| version < VERSION) {
        return Err(Unusable::Corrupt);
    }
    let snapshot = snapshot_in(fields, header.revision).ok_or(Unusable::Corrupt)?;
    Ok((snapshot, header))
}

fn snapshot_in(fields: &[(&str, &str)], revision: Revision) -> Option<Snapshot> {
    let mut common: Option<Common> = None;
    let mut index = None;
    let mut flags = BTreeMap::new();
    let mut digests = BTreeMap::new();
    for (field, value) in fields {
        let key = if *field == COMMON {
            common = Some(serde_json::from_str(value).ok()?);
            continue;
        } else if *field == INDEX {
            index = Some(index_in(value)?);
            continue;
        } else if let Some(key) = field.strip_prefix(ESCAPED_FLAG) {
            key
        } else if field.starts_with(RESERVED) {
            continue;
        } else {
            field
        };
        let flag: Flag = serde_json::from_str(value).ok()?;
        let key = FlagKey::parse(key).ok()?;
        digests.insert(key.clone(), digest_of_flag(value));
        flags.insert(key, Arc::new(flag));
    }
    let snapshot = snapshot_of(revision, common?, flags);
    if let Some(index) = index {
        // If the index had a wrong digest, a reader that fetches only changes could keep a flag that has changed.
        if index != digests {
            return None;
        }
        snapshot.set_digests(digests.into_values().collect());
    }
    Some(snapshot)
}

fn snapshot_of(
    revision: Revision,
    common: Common,
    flags: BTreeMap<FlagKey, Arc<Flag>>,
) -> Snapshot {
    Snapshot {
        revision,
        flags,
        settings: common.settings,
        defaults: common.defaults,
        keys: common.keys,
        unreadable_keys: common.unreadable_keys,
        ..Snapshot::empty()
    }
}

#[cfg(test)]
fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use pennon_eval::Override;

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
            environment: "production",
        }
    }

    fn encoded(snapshot: &Snapshot) -> Vec<(String, String)> {
        let keys = keys("k");
        pairs(&encode(snapshot, &signer(&keys), EXPIRES).expect("encodes"))
    }

    fn decoded(fields: &[(String, String)]) -> Result<Snapshot, Unusable> {
        let keys = keys("k");
        decode(&borrowed(fields), &signer(&keys), NOW).map(|(snapshot, _)| snapshot)
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
                .map(|key| (FlagKey::parse(*key).expect("a key"), Arc::default()))
                .collect(),
            ..Snapshot::empty()
        }
    }

    #[test]
    fn a_snapshot_with_any_keys_is_decoded_as_it_was_encoded() {
        for keys in [
            &[][..],
            &["a", "b"],
            &["__rev", "__env", "__l:x", "__b:x", "__grace", "__f:a", "a"],
        ] {
            let snapshot = snapshot(keys);
            assert_eq!(decoded(&encoded(&snapshot)), Ok(snapshot));
        }
    }

    /// Copies of the fields with one field changed, removed or added.
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
    fn an_entry_with_a_changed_removed_or_added_field_is_rejected() {
        let good = encoded(&snapshot(&["a"]));
        assert!(decoded(&good).is_ok());
        for fields in forgeries(&good) {
            assert!(decoded(&fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn the_mac_ignores_the_order_of_fields_and_the_fields_of_scripts() {
        let mut fields = encoded(&snapshot(&["a", "b", "c"]));
        fields.reverse();
        for name in ["__l:1", "__b:1", "__d:1", "__grace"] {
            fields.push((name.to_owned(), "1".to_owned()));
        }
        assert!(decoded(&fields).is_ok());
    }

    #[test]
    fn an_entry_is_valid_for_one_environment_and_one_key_until_it_expires() {
        let (ours, other) = (keys("k"), keys("o"));
        let fields = encoded(&snapshot(&["a"]));
        let found = |signer: &Signer<'_>, now| {
            decode(&borrowed(&fields), signer, now).map(|(_, header)| header)
        };
        let header = found(&signer(&ours), NOW).expect("good");
        assert_eq!(header.expires, EXPIRES);
        assert!(found(&signer(&ours), EXPIRES - 1).is_ok());
        let late = found(&signer(&ours), EXPIRES + 7);
        assert_eq!(late, Err(Unusable::Expired(7)));
        assert_eq!(found(&signer(&other), NOW), Err(Unusable::Forged));
        let staging = Signer {
            environment: "staging",
            ..signer(&ours)
        };
        assert_eq!(found(&staging, NOW), Err(Unusable::Forged));
    }

    #[test]
    fn an_entry_whose_index_disagrees_with_its_flags_is_corrupt() {
        let keys = keys("k");
        let good = encoded(&snapshot(&["a", "b"]));
        let index = value_of(&good, INDEX).expect("an index").to_owned();
        let digest = index[6..38].to_owned();
        for other in [
            index.replacen(&digest, &"0".repeat(32), 1),
            index.replacen("\"a\"", "\"c\"", 1),
            format!("{{\"a\":\"{digest}\"}}"),
            index.replacen('{', &format!("{{\"c\":\"{digest}\","), 1),
        ] {
            assert_ne!(other, index);
            // Signed by a writer with the key.
            let content = good.iter().skip(HEADER.len()).flat_map(|(name, value)| {
                let value = if name == INDEX { &other } else { value };
                [name.clone(), value.clone()]
            });
            let signed = signer(&keys).sign(Revision(7), EXPIRES, content.collect());
            assert_eq!(decoded(&pairs(&signed)), Err(Unusable::Corrupt), "{other}");
        }
    }

    #[test]
    fn an_entry_of_another_installation_is_not_reported_as_forged() {
        let mut fields = encoded(&snapshot(&["a"]));
        "theirs".clone_into(&mut fields[1].1);
        assert_eq!(decoded(&fields), Err(Unusable::OtherInstallation));
        // Signed by the other installation, with the id of ours.
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
    fn an_entry_without_a_mac_is_unsigned_and_one_without_installation_is_corrupt() {
        let mut fields = encoded(&snapshot(&["a"]));
        fields.retain(|(name, _)| ![EXPIRY, DIGEST, MAC].contains(&name.as_str()));
        assert_eq!(decoded(&fields), Err(Unusable::Unsigned));
        fields.retain(|(name, _)| name != INSTALLATION);
        assert_eq!(decoded(&fields), Err(Unusable::Corrupt));
    }

    #[test]
    fn settings_keys_and_overrides_are_decoded_as_they_were_encoded() {
        let mut full = snapshot(&["theme"]);
        let key = ApiKey {
            id: "k-1".to_owned(),
            kind: crate::key_kind::KeyKind::Client,
        };
        full.keys.insert("ab".repeat(32), key);
        full.settings =
            serde_json::from_str(r#"{"evaluators":{"eu":{"==":[2.0,2]}}}"#).expect("settings");
        let flag = Arc::make_mut(full.flags.get_mut("theme").expect("there"));
        flag.overrides = BTreeMap::from([
            ("alice".to_owned(), Override::Variant("blue".to_owned())),
            ("bob".to_owned(), Override::Exclude),
            ("carol".to_owned(), Override::Unreadable),
        ]);
        assert_eq!(decoded(&encoded(&full)), Ok(full));
    }

    #[test]
    fn an_entry_with_an_unknown_common_field_is_corrupt() {
        let keys = keys("k");
        let common = serde_json::to_string(&Common {
            settings: Settings::default(),
            defaults: EvaluationDefaults::Existing,
            keys: BTreeMap::new(),
            unreadable_keys: Vec::new(),
        });
        let known = common.expect("encodes");
        let unknown = known.replacen('{', r#"{"variants":{},"#, 1);
        for (common, is_used) in [(known, true), (unknown, false)] {
            let content = [(COMMON, common.as_str()), (FORMAT, "3")];
            let content = content.iter().flat_map(|(name, value)| [*name, *value]);
            let content = content.map(str::to_owned).collect();
            let fields = pairs(&signer(&keys).sign(Revision(7), EXPIRES, content));
            let found = decoded(&fields);
            assert_eq!(found.is_ok(), is_used, "{found:?}");
            assert!(is_used || found == Err(Unusable::Corrupt));
        }
    }

    #[test]
    fn a_list_of_environments_and_an_entry_cannot_be_exchanged() {
        let keys = keys("k");
        let listing = Environment::listing();
        let of_list = Signer {
            environment: listing.as_str(),
            ..signer(&keys)
        };
        let names = vec![Environment::production()];
        let fields = encode_names(&names, &of_list, EXPIRES).expect("encodes");
        let fields = pairs(&fields);
        let (found, header) = decode_names(&borrowed(&fields), &of_list, NOW).expect("decodes");
        assert_eq!((found, header.revision), (names, LIST_REVISION));
        assert_eq!(decoded(&fields), Err(Unusable::Forged));
        let entry = encoded(&snapshot(&[]));
        assert!(decode_names(&borrowed(&entry), &of_list, NOW).is_err());
        for forged in forgeries(&fields) {
            assert!(
                decode_names(&borrowed(&forged), &of_list, NOW).is_err(),
                "{forged:?}"
            );
        }
    }

    /// The values of [`SUMMARY`] in an entry, as Redis returns them.
    fn summary(fields: &[(String, String)]) -> [Option<&str>; 8] {
        SUMMARY.map(|name| value_of(fields, name))
    }

    fn value_of<'a>(fields: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
        let found = fields.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    /// A reader holds `earlier` and fetches what has changed.
    fn fetched(earlier: &Snapshot, fields: &[(String, String)]) -> Option<(Snapshot, Vec<String>)> {
        let keys = keys("k");
        let changes = changes_since(earlier, summary(fields), &signer(&keys), NOW)?;
        let names = changes.fields();
        let values: Vec<_> = names.iter().map(|name| value_of(fields, name)).collect();
        let (snapshot, header) = changes.with(&values)?;
        assert_eq!(header.revision, snapshot.revision);
        Some((snapshot, names))
    }

    /// A snapshot with three flags that a reader holds, and the next revision: `b` is changed, `c` removed, `__d` new.
    fn change() -> (Snapshot, Snapshot) {
        let earlier = decoded(&encoded(&snapshot(&["a", "b", "c"]))).expect("an entry");
        let mut next = snapshot(&["a", "b", "__d"]);
        next.revision = Revision(earlier.revision.0 + 1);
        let flag = next.flags.get_mut("b").expect("there");
        Arc::make_mut(flag).enabled = true;
        next.unreadable_keys.push("k-7".to_owned());
        (earlier, next)
    }

    #[test]
    fn a_reader_fetches_only_the_flags_that_differ_from_its_snapshot() {
        let (earlier, next) = change();
        let (found, names) = fetched(&earlier, &encoded(&next)).expect("changes");
        assert_eq!(found, next);
        assert_eq!(names, ["__f:__d", "b"]);
        assert!(Arc::ptr_eq(&found.flags["a"], &earlier.flags["a"]));
        // The result is the base of the next fetch.
        let (again, names) = fetched(&found, &encoded(&next)).expect("changes");
        assert_eq!((again, names), (next.clone(), Vec::new()));
        // Encoding `next` has stored its digests, so the instance that fills the entry can fetch only changes too.
        let (found, names) = fetched(&next, &encoded(&earlier)).expect("changes");
        assert_eq!(found, earlier);
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn forged_changes_are_not_used() {
        let (earlier, next) = change();
        let good = encoded(&next);
        for fields in forgeries(&good) {
            // A field that is not fetched cannot do harm.
            if let Some((found, _)) = fetched(&earlier, &fields) {
                assert_eq!(found, next, "{fields:?}");
            }
        }
        // The parts of two authentic entries do not match.
        let other = encoded(&earlier);
        for name in [COMMON, INDEX, INDEX_MAC, REVISION, "b"] {
            let mut mixed = good.clone();
            let part = mixed.iter_mut().find(|(field, _)| field == name);
            let replacement = value_of(&other, name).expect("there").to_owned();
            part.expect("there").1 = replacement;
            assert!(fetched(&earlier, &mixed).is_none(), "{name}");
        }
        let keys = keys("k");
        let late = changes_since(&earlier, summary(&good), &signer(&keys), EXPIRES);
        assert!(late.is_none(), "an expired index was used");
        let staging = Signer {
            environment: "staging",
            ..signer(&keys)
        };
        let moved = changes_since(&earlier, summary(&good), &staging, NOW);
        assert!(moved.is_none(), "the index of another environment was used");
    }

    #[test]
    fn without_digests_the_whole_entry_is_read() {
        let (earlier, next) = change();
        assert!(
            fetched(&earlier.clone(), &encoded(&next)).is_none(),
            "a copy, which has no digests, was used"
        );
        let mut fields = encoded(&next);
        fields.retain(|(name, _)| ![INDEX, INDEX_MAC].contains(&name.as_str()));
        let fields = signed_again(&next, &fields);
        assert_eq!(decoded(&fields), Ok(next));
        assert!(fetched(&earlier, &fields).is_none());
    }

    /// The content of an entry with the MAC that it should have.
    fn signed_again(snapshot: &Snapshot, fields: &[(String, String)]) -> Vec<(String, String)> {
        let keys = keys("k");
        let content = fields
            .iter()
            .filter(|(name, _)| is_content(name))
            .flat_map(|(name, value)| [name.clone(), value.clone()])
            .collect();
        pairs(&signer(&keys).sign(snapshot.revision, EXPIRES, content))
    }

    /// Turns an entry into one of the version before the bucketing of flags, with all its MACs.
    fn before_bucketing(snapshot: &Snapshot, fields: &[(String, String)]) -> Vec<(String, String)> {
        let keys = keys("k");
        let mut fields = fields.to_vec();
        fields.retain(|(name, _)| name != FORMAT);
        let value = |name| value_of(&fields, name).expect("there");
        let message = message_of(&[
            "pennon cache index 1",
            "ours",
            "production",
            value(REVISION),
            value(EXPIRY),
            value(COMMON),
            value(INDEX),
        ]);
        let mac = keys.sign(&message);
        let field = fields.iter_mut().find(|(name, _)| name == INDEX_MAC);
        field.expect("there").1 = mac;
        signed_again(snapshot, &fields)
    }

    #[test]
    fn an_entry_of_a_version_that_does_not_know_the_bucketing_of_a_flag_is_not_used() {
        let (earlier, next) = change();
        let fields = encoded(&next);
        let old = before_bucketing(&next, &fields);
        assert_eq!(decoded(&old), Err(Unusable::Corrupt));
        assert!(fetched(&earlier, &old).is_none());
        let mut with_bucketing = next.clone();
        let flag = with_bucketing.flags.get_mut("a").expect("there");
        Arc::make_mut(flag).bucketing = Some(pennon_eval::Bucketing::Sha256);
        let changed = encoded(&with_bucketing);
        assert_eq!(decoded(&changed), Ok(with_bucketing));
        let (found, names) = fetched(&next, &changed).expect("changes");
        assert_eq!(names, ["a"], "the digest does not cover the bucketing");
        assert!(found.flags["a"].bucketing.is_some());
    }

    #[test]
    fn keys_of_entries_have_the_documented_names() {
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
            environment: "production",
        }
    }

    /// The fields of an entry with everything that a flag and an environment can have.
    fn fields() -> Value {
        let flag = json!({"enabled": true, "rolloutPercentage": 5, "description": "d", "salt": "s", "bucketing": "fractional",
            "overrides": {"alice": "include", "bob": "exclude", "carol": {"variant": "b"},
                "dave": "unreadable"},
            "definition": {"variants": {"a": 1, "b": 2.0}, "defaultVariant": "a",
                "targeting": {"if": [{"var": "plan"}, "a", null]}, "metadata": {"serverOnly": true}}});
        let common = json!({"settings": {"evaluators": {"eu": {"==": [1, 1]}}}, "defaults": "new",
            "keys": {"ab": {"id": "k-1", "kind": "client"}},
            "unreadable_keys": ["k-2"]});
        json!([["theme", flag], ["__f:__rev", {}], ["a b", {"enabled": false}], ["__env", common]])
    }

    /// Field values are JSON texts. The examples hold them as JSON, so that mutations change their parts too.
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
    fn a_decoded_snapshot_is_the_same_after_encoding_and_decoding() {
        let keys = keys();
        for_all(&json([fields()]), |value| {
            let Some(snapshot) = snapshot_in(&borrowed(&pairs(&value)), Revision(7)) else {
                return;
            };
            let written = encode(&snapshot, &signer(&keys), NOW + 1_000).expect("encodes");
            let written: Vec<(String, String)> = written
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            let (again, _) = decode(&borrowed(&written), &signer(&keys), NOW).expect("an entry");
            assert_eq!(again, snapshot);
        });
    }

    #[test]
    fn a_mutated_entry_is_rejected_or_has_the_signed_content() {
        let keys = keys();
        let snapshot = snapshot_in(&borrowed(&pairs(&fields())), Revision(7)).expect("a snapshot");
        let signed = encode(&snapshot, &signer(&keys), NOW + 1_000).expect("encodes");
        let signed: Value = signed
            .chunks(2)
            .map(|pair| json!([pair[0], pair[1]]))
            .collect();
        assert!(decode(&borrowed(&pairs(&signed)), &signer(&keys), NOW).is_ok());
        // A reader that lacks one flag; `encode` stores the digests in its snapshot.
        let earlier =
            snapshot_in(&borrowed(&pairs(&fields())[1..]), Revision(6)).expect("a snapshot");
        encode(&earlier, &signer(&keys), NOW + 1_000).expect("encodes");
        for_all(&json([signed]), |value| {
            let mutated = pairs(&value);
            let value_of = |wanted: &str| {
                let found = mutated.iter().find(|(name, _)| name == wanted);
                found.map(|(_, value)| value.as_str())
            };
            let summary = SUMMARY.map(value_of);
            if let Some(changes) = changes_since(&earlier, summary, &signer(&keys), NOW) {
                let names = changes.fields();
                let values: Vec<_> = names.iter().map(|name| value_of(name)).collect();
                if let Some((found, _)) = changes.with(&values) {
                    assert_eq!(found, snapshot);
                }
            }
            if let Ok((found, header)) = decode(&borrowed(&pairs(&value)), &signer(&keys), NOW) {
                assert_eq!(found, snapshot);
                assert_eq!(header.revision, Revision(7));
            }
        });
    }
}
