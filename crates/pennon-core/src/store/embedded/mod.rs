//! Flags in a file that a person can read and edit, for local use and for tests.
//!
//! The file is read again whenever it has changed on disk, so an edit shows on the next request. It
//! is written whole, beside itself first, so a crash leaves the old file or the new one.

mod contents;
mod counts;
mod keys;
mod transaction;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pennon_eval::{EvaluationDefaults, FlagKey};

pub(super) use transaction::Transaction;

use super::Fresh;
use super::record::{
    AuditEntry, DueSchedule, EnvironmentRecord, FlagQuery, FlagRecord, OverridePage, Page, Paged,
    ScheduleRecord, SettingsRecord,
};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{ApiKey, Revision, Snapshot};
use contents::Contents;
use counts::Counted;

/// A store in memory, kept in a file.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Mutex<Inner>>,
    /// Held by whoever changes something, from begin to commit.
    writing: Arc<tokio::sync::Mutex<()>>,
}

struct Inner {
    path: PathBuf,
    contents: Contents,
    /// Raised whenever the contents change, for all environments at once.
    revision: Revision,
    /// What the file looked like when it was last read or written.
    seen: Option<Stamp>,
    counted: Counted,
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
            contents: Contents::default(),
            revision: Revision::NONE,
            seen: None,
            counted: Counted::default(),
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
            writing: Arc::default(),
        })
    }

    /// Whether the file can be used; otherwise a sentence that says what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.current() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        // For readers it is a store like any other that does not answer: what they know is good enough.
        let inner = match self.current() {
            Ok(inner) => inner,
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        };
        if known == Some(inner.revision) {
            return Ok(Fresh::Unchanged);
        }
        let name = environment.as_str();
        let mut snapshot = Snapshot {
            revision: inner.revision,
            flags: inner
                .contents
                .environments
                .get(name)
                .cloned()
                .unwrap_or_default(),
            ..Snapshot::empty()
        };
        if let Some(beside) = inner.contents.beside.get(name) {
            snapshot.settings = beside.settings.clone();
            let live = beside
                .keys
                .iter()
                .filter(|(_, key)| key.revoked_at.is_none());
            snapshot.keys = live
                .map(|(hash, key)| {
                    let id = key.id.clone();
                    let kind = key.kind;
                    (hash.clone(), ApiKey { id, kind })
                })
                .collect();
        }
        Ok(Fresh::Changed(snapshot))
    }

    pub(super) fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        let inner = self.current()?;
        let names = inner
            .contents
            .environments
            .keys()
            .filter_map(|name| Environment::parse(name).ok());
        Ok(names.map(|name| (name, inner.revision)).collect())
    }

    pub(super) fn list_environments(&self) -> Result<Vec<EnvironmentRecord>, Error> {
        let environments = self.environments()?;
        let inner = self.current()?;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let records = environments.into_iter().map(|(environment, revision)| {
            let name = environment.as_str();
            let flags = inner.contents.environments.get(name);
            let beside = inner.contents.beside.get(name);
            EnvironmentRecord {
                revision,
                flags: number(flags.map_or(0, BTreeMap::len)),
                archived: number(beside.map_or(0, |beside| beside.archived.len())),
                settings: settings_in(&inner.contents, name).settings,
                environment,
            }
        });
        Ok(records.collect())
    }

    /// A file in this form is from before there was a choice.
    pub(super) fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        self.current().map(|_usable| EvaluationDefaults::Existing)
    }

    pub(super) fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        Ok(settings_in(&self.current()?.contents, environment.as_str()))
    }

    pub(super) fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        Ok(self.current()?.contents.flag(environment.as_str(), key))
    }

    pub(super) fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Paged<(FlagKey, FlagRecord)>, Error> {
        let wanted = query.search.to_lowercase();
        let all = self.current()?.contents.flags(environment.as_str());
        let fits = |key: &FlagKey, record: &FlagRecord| {
            let description = record.flag.description.as_deref().unwrap_or_default();
            record.archived_at.is_some() == query.archived
                && (key.as_str().to_lowercase().contains(&wanted)
                    || description.to_lowercase().contains(&wanted))
        };
        let chosen: Vec<_> = all
            .into_iter()
            .filter(|(key, record)| fits(key, record))
            .collect();
        Ok(paged(chosen, query.page))
    }

    pub(super) fn list_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        page: Page,
    ) -> Result<Option<OverridePage>, Error> {
        let inner = self.current()?;
        let name = environment.as_str();
        let flag = inner.contents.flag(name, key);
        if flag.is_none_or(|flag| flag.archived_at.is_some()) {
            return Ok(None);
        }
        let mut all = inner.contents.overrides(name, key);
        all.reverse();
        Ok(Some(OverridePage {
            overrides: paged(all, page),
            revision: inner.contents.overrides_revision(name, key),
        }))
    }

    pub(super) fn list_audit(
        &self,
        environment: &Environment,
        key: Option<&FlagKey>,
        page: Page,
    ) -> Result<Paged<AuditEntry>, Error> {
        let inner = self.current()?;
        let beside = inner.contents.beside.get(environment.as_str());
        let about = |entry: &&AuditEntry| {
            key.is_none_or(|key| entry.flag_key.as_deref() == Some(key.as_str()))
        };
        let audit = beside.into_iter().flat_map(|beside| &beside.audit);
        let mut chosen: Vec<AuditEntry> = audit.filter(about).cloned().collect();
        chosen.reverse();
        Ok(paged(chosen, page))
    }

    pub(super) fn find_audit(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: i64,
    ) -> Result<Option<AuditEntry>, Error> {
        let inner = self.current()?;
        let beside = inner.contents.beside.get(environment.as_str());
        let mut audit = beside.into_iter().flat_map(|beside| &beside.audit);
        let found =
            audit.find(|entry| entry.id == id && entry.flag_key.as_deref() == Some(key.as_str()));
        Ok(found.cloned())
    }

    pub(super) fn list_schedules(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<Vec<ScheduleRecord>>, Error> {
        let inner = self.current()?;
        let name = environment.as_str();
        let flag = inner.contents.flag(name, key);
        if flag.is_none_or(|flag| flag.archived_at.is_some()) {
            return Ok(None);
        }
        let beside = inner.contents.beside.get(name);
        let mut records: Vec<ScheduleRecord> = beside
            .into_iter()
            .flat_map(|beside| &beside.schedules)
            .filter(|schedule| schedule.flag_key == *key)
            .cloned()
            .collect();
        records.sort_by_key(|schedule| schedule.scheduled_at);
        Ok(Some(records))
    }

    pub(super) fn due_schedules(&self, most: u32) -> Result<Vec<DueSchedule>, Error> {
        let inner = self.current()?;
        let now = SystemTime::now();
        let due = inner.contents.beside.iter().flat_map(|(name, beside)| {
            let due = beside.schedules.iter().filter(|it| it.is_due(now));
            due.filter_map(|schedule| {
                Some(DueSchedule {
                    environment: Environment::parse(name).ok()?,
                    key: schedule.flag_key.clone(),
                    id: schedule.id.clone(),
                })
            })
        });
        Ok(due
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .collect())
    }

    /// The state as the file has it. A file that cannot be read right now, perhaps because an
    /// editor is in the middle of it, leaves the last good state in place.
    fn current(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp(&inner.path) != inner.seen {
            inner.reload().map_err(Error::FileOfNoUse)?;
        }
        Ok(inner)
    }
}

fn paged<T>(all: Vec<T>, page: Page) -> Paged<T> {
    Paged {
        total: u64::try_from(all.len()).unwrap_or(u64::MAX),
        items: page.cut(all),
    }
}

fn settings_in(contents: &Contents, environment: &str) -> SettingsRecord {
    let beside = contents.beside.get(environment);
    let settings = beside.map(|beside| beside.settings.clone());
    let settings = settings.unwrap_or_default();
    SettingsRecord {
        revision: transaction::settings_revision(&settings),
        settings,
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
