//! Flags in a file that a person can read and edit, for local use and for tests.
//!
//! The file is read again whenever it has changed on disk, so an edit shows on the next request. It
//! is written whole, beside itself first, so a crash leaves the old file or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pennon_eval::{Flag, FlagKey};

use super::{Change, Fresh};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{Revision, Snapshot};

/// The content of the file: environments, and in each the flags under their keys.
type Contents = BTreeMap<String, BTreeMap<FlagKey, Flag>>;

/// A store in memory, kept in a file.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    path: PathBuf,
    contents: Contents,
    /// Raised whenever the contents change, for all environments at once.
    revision: Revision,
    /// What the file looked like when it was last read or written.
    seen: Option<Stamp>,
}

/// Enough of a file's metadata to notice an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl EmbeddedStore {
    /// Opens a file, or creates it with these contents.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn open(path: impl Into<PathBuf>, initial: &str) -> Result<Self, String> {
        let path = path.into();
        let mut inner = Inner {
            contents: Contents::new(),
            revision: Revision::NONE,
            seen: None,
            path,
        };
        if inner.path.exists() {
            inner.reload()?;
        } else {
            inner.contents = parse(initial, &inner.path)?;
            inner.write()?;
        }
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    pub(super) fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        let inner = self.current()?;
        if known == Some(inner.revision) {
            return Ok(Fresh::Unchanged);
        }
        Ok(Fresh::Changed(Snapshot {
            revision: inner.revision,
            flags: inner
                .contents
                .get(environment.as_str())
                .cloned()
                .unwrap_or_default(),
        }))
    }

    pub(super) fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        let inner = self.current()?;
        let names = inner
            .contents
            .keys()
            .filter_map(|name| Environment::parse(name).ok());
        Ok(names.map(|name| (name, inner.revision)).collect())
    }

    pub(super) fn begin(
        &self,
        environment: &Environment,
        key: &FlagKey,
        change: &Change,
    ) -> Result<Option<PendingChange>, Error> {
        let exists = self
            .current()?
            .contents
            .get(environment.as_str())
            .is_some_and(|flags| flags.contains_key(key));
        Ok(exists.then(|| PendingChange {
            store: self.clone(),
            environment: environment.clone(),
            key: key.clone(),
            change: change.clone(),
        }))
    }

    /// The state as the file has it. A file that cannot be read right now, perhaps because an
    /// editor is in the middle of it, leaves the last good state in place.
    fn current(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp(&inner.path) != inner.seen {
            inner.reload().map_err(Error::Unavailable)?;
        }
        Ok(inner)
    }
}

/// A change that waits for its commit.
pub struct PendingChange {
    store: EmbeddedStore,
    environment: Environment,
    key: FlagKey,
    change: Change,
}

impl PendingChange {
    pub(super) fn commit(self) -> Result<Flag, Error> {
        let mut inner = self.store.current()?;
        let flag = inner
            .contents
            .get_mut(self.environment.as_str())
            .and_then(|flags| flags.get_mut(&self.key))
            .ok_or_else(|| Error::FlagNotFound(self.key.to_string()))?;
        let before = flag.clone();
        if let Some(enabled) = self.change.enabled {
            flag.enabled = enabled;
        }
        if let Some(rollout) = self.change.rollout_percentage {
            flag.rollout_percentage = rollout;
        }
        if let Some(description) = self.change.description {
            flag.description = Some(description);
        }
        let after = flag.clone();
        if let Err(error) = inner.write() {
            // What is not in the file has not happened.
            if let Some(flags) = inner.contents.get_mut(self.environment.as_str()) {
                flags.insert(self.key, before);
            }
            return Err(Error::Unavailable(error));
        }
        Ok(after)
    }
}

impl Inner {
    fn reload(&mut self) -> Result<(), String> {
        let seen = stamp(&self.path);
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        self.contents = parse(&text, &self.path)?;
        self.seen = seen;
        self.raise_revision();
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        let explain = |error: &dyn std::fmt::Display| {
            format!("cannot write {}: {error}", self.path.display())
        };
        let mut text =
            serde_json::to_string_pretty(&self.contents).map_err(|error| explain(&error))?;
        text.push('\n');
        let beside = self.path.with_extension("json.new");
        std::fs::write(&beside, text).map_err(|error| explain(&error))?;
        std::fs::rename(&beside, &self.path).map_err(|error| explain(&error))?;
        self.seen = stamp(&self.path);
        self.raise_revision();
        Ok(())
    }

    /// The clock in milliseconds, but always more than before: a process that starts again goes on
    /// above every revision that a cache has seen.
    fn raise_revision(&mut self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            });
        self.revision = Revision(now.max(self.revision.0 + 1));
    }
}

fn parse(text: &str, path: &Path) -> Result<Contents, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{} is not as it should be: {error}", path.display()))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok()?,
        length: metadata.len(),
    })
}
