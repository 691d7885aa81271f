//! The admin token and the API key of this server, and the key that authenticates its cache entries. Those
//! that the settings do not contain are generated once and saved in a file, so that they survive a restart.

use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pennon_core::api_key::KeyText;
use pennon_core::config::Secret;
use pennon_core::environment::Environment;
use pennon_core::http::unique_id;
use pennon_core::snapshot::KeyKind;

use crate::settings::Settings;

const TOKEN: &str = "PENNON_ADMIN_TOKEN";
const KEY: &str = "PENNON_API_KEY";
const MAC_KEY: &str = "CACHE_MAC_KEY";
const ABOUT: &str = "# Chosen by the local server of Pennon, and good for it only. It reads this file at every start;\n\
                     # without the file it chooses anew. `. FILE` sets them in a shell.\n";

/// The credentials of this server.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// The admin's bearer token.
    pub(crate) admin_token: Secret,
    /// The API key for OpenFeature SDKs. It is not in the store; keys that admins create are accepted too.
    pub(crate) api_key: KeyText,
    /// The key for cache entries, if there is a Redis and the settings contain no key.
    pub(crate) mac_key: Option<Secret>,
    /// Shell commands that export the generated credentials. Credentials from the settings are left out,
    /// because the user who started the server has them.
    pub(crate) exports: Vec<String>,
}

/// The contents of the file.
#[derive(Default)]
struct Saved {
    token: Option<String>,
    key: Option<KeyText>,
    mac_key: Option<String>,
}

impl Credentials {
    /// Takes credentials from the settings, and the others from the file beside the flags file, which it creates
    /// if it is missing.
    ///
    /// # Errors
    /// A message that names the file.
    pub(crate) fn open(settings: &mut Settings, needs_mac_key: bool) -> Result<Self, String> {
        let mut saved = Saved::default();
        let given = (settings.admin_token.take(), settings.api_key.take());
        if given.0.is_none() || given.1.is_none() || needs_mac_key {
            let path = path_beside(Path::new(&settings.flags_file));
            saved = read(&path)?;
            let is_whole = saved.token.is_some()
                && saved.key.is_some()
                && (saved.mac_key.is_some() || !needs_mac_key);
            if !is_whole {
                saved = generate(&path, saved, needs_mac_key)?;
            }
        }
        let mut exports = Vec::new();
        let admin_token = match (given.0, saved.token) {
            (Some(given), _) => given,
            (None, token) => {
                let token = token.unwrap_or_default();
                exports.push(format!("export {TOKEN}={token}"));
                Secret::new(token)
            }
        };
        let api_key = match (given.1, saved.key) {
            (Some(given), _) => given,
            (None, Some(key)) => {
                exports.push(format!("export {KEY}={}", key.expose()));
                key
            }
            (None, None) => return Err(format!("there is no {KEY}")),
        };
        Ok(Self {
            admin_token,
            api_key,
            mac_key: saved.mac_key.filter(|_| needs_mac_key).map(Secret::new),
            exports,
        })
    }
}

/// The path of the file: beside the flags file with links resolved, also when flags are in PostgreSQL.
fn path_beside(flags: &Path) -> PathBuf {
    let flags = flags.canonicalize().unwrap_or_else(|_| flags.to_owned());
    let mut path = flags.into_os_string();
    path.push(".secrets");
    PathBuf::from(path)
}

fn read(path: &Path) -> Result<Saved, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| format!("cannot protect {}: {error}", path.display()))?;
    let mut saved = Saved::default();
    for (number, line) in text.lines().enumerate() {
        // The message does not repeat the line, which may contain a secret.
        let wrong = |what: &str| {
            let place = format!("{}, line {}", path.display(), number + 1);
            format!("{place}: {what}; correct it, or delete the file and new ones are chosen")
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line);
        match assignment.split_once('=') {
            Some((TOKEN, token)) if is_plain(token) => saved.token = Some(token.to_owned()),
            Some((TOKEN, _)) => {
                return Err(wrong(&format!(
                    "{TOKEN} must be letters, digits, '-' or '_'"
                )));
            }
            Some((MAC_KEY, key)) if is_plain(key) && key.len() >= 32 => {
                saved.mac_key = Some(key.to_owned());
            }
            Some((MAC_KEY, _)) => {
                return Err(wrong(&format!(
                    "{MAC_KEY} must be 32 or more letters, digits, '-' or '_'"
                )));
            }
            Some((KEY, key)) => {
                let key = KeyText::parse(key).ok_or_else(|| wrong(&format!("{KEY} is no key")))?;
                saved.key = Some(key);
            }
            Some(_) | None => {
                return Err(wrong(&format!(
                    "it sets none of {TOKEN}, {KEY} and {MAC_KEY}"
                )));
            }
        }
    }
    Ok(saved)
}

/// Whether a shell needs no quotes around the text.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(plain)
}

/// Generates the missing credentials and writes the file. If another server has written the file in the
/// meantime, that file is used.
fn generate(path: &Path, saved: Saved, needs_mac_key: bool) -> Result<Saved, String> {
    let explain =
        |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let token = saved.token.unwrap_or(random_token()?);
    let key = match saved.key {
        Some(key) => key,
        None => KeyText::generate(KeyKind::Server, &Environment::production())
            .map_err(|error| error.to_string())?,
    };
    let mac_key = match saved.mac_key {
        None if needs_mac_key => Some(random_token()? + &random_token()?),
        mac_key => mac_key,
    };
    let mut text = format!(
        "{ABOUT}export {TOKEN}={token}\nexport {KEY}={}\n",
        key.expose()
    );
    if let Some(key) = &mac_key {
        text = format!("{text}export {MAC_KEY}={key}\n");
    }
    let exists = path.exists();
    let temporary = path.with_extension(format!("secrets.new-{}", unique_id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| {
            if exists {
                std::fs::rename(&temporary, path)
            } else {
                // Creating a link fails if the file exists; renaming would replace it.
                std::fs::hard_link(&temporary, path)
            }
        });
    let _renamed = std::fs::remove_file(&temporary);
    match written {
        Ok(()) => Ok(Saved {
            token: Some(token),
            key: Some(key),
            mac_key,
        }),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(explain(&error)),
    }
}

/// 128 random bits.
fn random_token() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| "the operating system gives no random numbers".to_owned())?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pennon-secrets-{name}-{}", unique_id()));
        std::fs::create_dir(&path).expect("a folder");
        path
    }

    fn settings(folder: &Path) -> Settings {
        Settings {
            listen: String::new(),
            admin_token: None,
            api_key: None,
            evaluations_per_second: None,
            flags_file: folder.join("flags.json").display().to_string(),
            webhooks_anywhere: false,
        }
    }

    #[test]
    fn generated_credentials_are_read_again_and_only_their_owner_can_read_them() {
        let folder = folder("chosen");
        let first = Credentials::open(&mut settings(&folder), false).expect("chosen");
        let path = folder.join("flags.json.secrets");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("changed");
        let second = Credentials::open(&mut settings(&folder), false).expect("read");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(first.admin_token, second.admin_token);
        assert_eq!(first.exports, second.exports);
        assert_eq!(first.exports.len(), 2);
        let files = std::fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(files, 1, "no temporary file stays");
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn credentials_from_the_settings_are_not_exported_and_a_missing_line_is_added() {
        let folder = folder("given");
        let path = folder.join("flags.json.secrets");
        std::fs::write(&path, "export PENNON_ADMIN_TOKEN=mine\n").expect("written");
        let read = Credentials::open(&mut settings(&folder), false).expect("read");
        assert_eq!(read.admin_token.expose(), "mine");
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains("export PENNON_ADMIN_TOKEN=mine\nexport PENNON_API_KEY=pennon_"));
        let mut given = Settings {
            admin_token: Some(Secret::new("other")),
            ..settings(&folder)
        };
        let read = Credentials::open(&mut given, false).expect("read");
        assert_eq!(read.admin_token.expose(), "other");
        assert_eq!(read.exports.len(), 1);
        assert!(read.exports[0].starts_with("export PENNON_API_KEY="));
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_key_for_cache_entries_is_generated_once_and_only_with_a_cache() {
        let folder = folder("cache");
        let first = Credentials::open(&mut settings(&folder), false).expect("chosen");
        assert_eq!(first.mac_key, None);
        let chosen = Credentials::open(&mut settings(&folder), true).expect("chosen");
        let key = chosen.mac_key.expect("a key");
        assert_eq!(key.expose().len(), 64);
        assert_eq!(chosen.admin_token, first.admin_token);
        let again = Credentials::open(&mut settings(&folder), true).expect("read");
        assert_eq!(again.mac_key, Some(key.clone()));
        assert!(
            again
                .exports
                .iter()
                .all(|line| !line.contains(key.expose()))
        );
        let without = Credentials::open(&mut settings(&folder), false).expect("read");
        assert_eq!((without.mac_key, without.exports), (None, first.exports));
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn an_error_names_the_wrong_line_and_does_not_repeat_it() {
        let folder = folder("wrong");
        for line in [
            "export PENNON_ADMIN_TOKEN=se cret",
            "PENNON_API_KEY=secret",
            "CACHE_MAC_KEY=secret",
            "OTHER=secret",
            "secret",
        ] {
            let path = folder.join("flags.json.secrets");
            std::fs::write(path, format!("# comment\n{line}\n")).expect("written");
            let why = Credentials::open(&mut settings(&folder), false).expect_err("wrong");
            assert!(why.contains("flags.json.secrets, line 2"), "{why}");
            assert!(!why.contains("cret\""), "{why}");
            assert!(
                !why.contains("secret;") && !why.contains("=secret"),
                "{why}"
            );
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
