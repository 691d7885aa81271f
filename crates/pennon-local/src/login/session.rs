//! A session at an issuer, and the file that stores it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pennon_core::config::{Secret, process_environment};
use serde_json::{Value, json};

use super::notify;
use super::options::{Options, TokenKind};

/// The tokens of one sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) issuer: String,
    pub(super) client_id: String,
    /// The scopes that were requested.
    pub(super) scope: String,
    /// The user (`sub`).
    pub(super) subject: String,
    pub(super) access_token: Secret,
    pub(super) id_token: Secret,
    pub(super) refresh_token: Option<Secret>,
    /// When the access token expires, in seconds since 1970.
    pub(super) expires_at: u64,
}

impl Session {
    /// Whether it has the issuer, the client and, if given, the scopes of a command line.
    pub(super) fn is_for(&self, options: &Options) -> bool {
        self.issuer == options.issuer
            && self.client_id == options.client_id
            && options
                .scope
                .as_ref()
                .is_none_or(|scope| self.scope == *scope)
    }

    pub(super) fn is_valid_for(&self, time: Duration, kind: TokenKind) -> bool {
        let until = Duration::from_secs(seconds_now()) + time;
        match kind {
            TokenKind::Access => Duration::from_secs(self.expires_at) > until,
            TokenKind::Id => {
                let ends = expiry_of(self.id_token.expose());
                ends.is_some_and(|ends| ends > until.as_secs_f64())
            }
        }
    }

    pub(super) fn can_be_refreshed(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// The line that sets the token in a shell. The quotes prevent the expansion of a leading `~`.
    pub(super) fn export(&self, kind: TokenKind) -> String {
        let token = match kind {
            TokenKind::Access => &self.access_token,
            TokenKind::Id => &self.id_token,
        };
        format!("export PENNON_ADMIN_TOKEN='{}'", token.expose())
    }

    fn to_json(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "clientId": self.client_id,
            "scope": self.scope,
            "subject": self.subject,
            "accessToken": self.access_token.expose(),
            "idToken": self.id_token.expose(),
            "refreshToken": self.refresh_token.as_ref().map(Secret::expose),
            "expiresAt": self.expires_at,
        })
    }

    fn of_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let token = |name: &str| text(name).filter(|token| is_token(token)).map(Secret::new);
        Some(Self {
            issuer: text("issuer")?,
            client_id: text("clientId")?,
            // Missing in files of earlier versions.
            scope: text("scope").unwrap_or_default(),
            subject: text("subject")?,
            access_token: token("accessToken")?,
            id_token: token("idToken")?,
            refresh_token: text("refreshToken").map(Secret::new),
            expires_at: value["expiresAt"].as_u64()?,
        })
    }
}

/// Whether a text has only characters of a bearer token (RFC 6750), and at most 16 KiB. None of these characters can
/// close a quoted string in a shell.
pub(super) fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !text.is_empty() && text.len() <= 16_384 && text.bytes().all(plain)
}

/// When a JSON web token expires (`exp`), in seconds since 1970. It was verified before it was stored.
fn expiry_of(token: &str) -> Option<f64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["exp"].as_f64()
}

/// Seconds since 1970.
pub(super) fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// The file of one session, locked against other processes: issuers end a session whose refresh token is used
/// twice.
pub(super) struct SessionFile {
    path: PathBuf,
    /// The next content while it is written. An interrupted write leaves it behind, and it contains tokens.
    temporary: PathBuf,
    _lock: File,
}

impl SessionFile {
    /// Creates the folder if needed, and waits for other processes.
    pub(super) fn open(name: &str) -> Result<Self, String> {
        let variable =
            |name: &str| process_environment(name).filter(|value| value.starts_with('/'));
        let folder = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")))
            .ok_or("the session has no folder: set HOME or XDG_CONFIG_HOME to an absolute path")?
            .join("pennon");
        let failed = |error: &std::io::Error| format!("cannot use {}: {error}", folder.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| failed(&error))?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(format!("{name}.lock")))
            .map_err(|error| failed(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                notify("another login with this name is running; waiting for it");
                lock.lock().map_err(|error| failed(&error))?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        Ok(Self {
            path: folder.join(format!("{name}.json")),
            temporary: folder.join(format!("{name}.new")),
            _lock: lock,
        })
    }

    /// Reads the session. An unreadable file counts as none: the user signs in again.
    pub(super) fn read(&self) -> Option<Session> {
        let text = std::fs::read(&self.path).ok()?;
        Session::of_json(&serde_json::from_slice(&text).ok()?)
    }

    /// Stores the session, readable by its owner only.
    pub(super) fn write(&self, session: &Session) -> Result<(), String> {
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.temporary)
            .and_then(|mut file| {
                file.write_all(session.to_json().to_string().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&self.temporary, &self.path));
        written.map_err(|error| {
            let _may_not_exist = std::fs::remove_file(&self.temporary);
            format!("cannot write {}: {error}", self.path.display())
        })
    }

    /// Deletes the session, and what an interrupted write has left.
    pub(super) fn remove(&self) -> Result<(), String> {
        let remove = |path: &Path| match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        };
        remove(&self.path).and(remove(&self.temporary))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_sets_a_token_unchanged() {
        for token in ["~root/x", "=ls", "a-b._~+/=="] {
            assert!(is_token(token));
            let session = Session {
                issuer: "https://issuer.example".to_owned(),
                client_id: "c-1".to_owned(),
                scope: "openid".to_owned(),
                subject: "u-1".to_owned(),
                access_token: Secret::new(token),
                id_token: Secret::new("other"),
                refresh_token: None,
                expires_at: 0,
            };
            let line = session.export(TokenKind::Access);
            let printed = Command::new("bash")
                .arg("-c")
                .arg(format!("{line}; printf %s \"$PENNON_ADMIN_TOKEN\""))
                .output()
                .expect("a shell");
            assert_eq!(printed.stdout, token.as_bytes());
        }
        for text in ["", "a'b", "a b", "a\n"] {
            assert!(!is_token(text), "{text:?}");
        }
    }
}
