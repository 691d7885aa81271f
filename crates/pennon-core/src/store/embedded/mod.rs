//! Flags in a file that people can edit, for local use and for tests.
//!
//! `flags.json` contains flags and settings in flagd's format. `flags.json.state` contains all other data. `flags.json`
//! is read again when it has changed on disk, so an edit applies from the next request on. A change through the API
//! replaces it atomically: a crash leaves the old or the new file, with the matching state.

mod counts;
mod data;
mod disk;
mod flags_file;
mod hours;
mod journal;
mod keys;
mod line;
mod old_format;
mod outbox;
mod overview;
mod ramps;
mod state;
mod transaction;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pennon_eval::{EvaluationDefaults, FlagKey};

pub(super) use transaction::Transaction;

use super::SnapshotUpdate;
use super::record::{
    AuditEntry, DueSchedule, EnvironmentRecord, FlagQuery, FlagRecord, OverridePage, Page,
    PageRequest, ScheduleRecord, SettingsRecord,
};
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::{ApiKey, Revision, Snapshot};
use crate::timestamp::unix_millis;
use data::Data;
use disk::{Files, Stamp};
use flags_file::{Contents, invalid_file};
use journal::Journal;
use old_format::OldFile;
use state::{History, Record, State};

/// A store in files, cached in memory.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Mutex<Inner>>,
    /// Held by a transaction until it ends.
    writing: Arc<tokio::sync::Mutex<()>>,
}

struct Inner {
    files: Files,
    data: Data,
    history: History,
    journal: Journal,
    /// The ids of the last batches of counts, oldest first.
    counted: VecDeque<String>,
    /// Raised by every commit and every edit of the file, so that a transaction notices an edit.
    revision: Revision,
    /// By environment, the value that `revision` got when the environment last changed.
    revisions: BTreeMap<String, Revision>,
    /// The metadata of the file when it was last read or written, and the digest of its text.
    seen: Option<(Stamp, String)>,
    /// The digest of a text that was invalid at this revision, and why. Kept so that its warnings are logged only once.
    rejected: Option<(String, Revision, String)>,
    /// Excludes other processes.
    _lock: File,
}

impl EmbeddedStore {
    /// Opens a file, or creates it with this text. Converts a file in the format of earlier versions.
    ///
    /// # Errors
    /// A message with the path and the violations, or the process that uses the file.
    pub fn open(path: impl AsRef<Path>, initial: &str) -> Result<Self, String> {
        let files = Files::find(path.as_ref())?;
        let lock = files.lock()?;
        if !files.flags().exists() {
            Contents::parse(initial, &State::default(), files.flags())?;
            files.create(initial)?;
        }
        let (journal, state, history) = Journal::open(&files)?;
        let mut inner = Inner {
            files,
            data: Data {
                contents: Contents::default(),
                state,
            },
            history,
            journal,
            counted: VecDeque::new(),
            revision: Revision::NONE,
            revisions: BTreeMap::new(),
            seen: None,
            rejected: None,
            _lock: lock,
        };
        inner.convert()?;
        inner.reload()?;
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            writing: Arc::default(),
        })
    }

    /// A text that identifies this store: the path of the file, and the id that its state file got when it was created.
    /// Files in several containers may have the same path.
    #[must_use]
    pub fn address(&self) -> String {
        let inner = self.lock_last_valid();
        format!("{}:{}", inner.journal.id(), inner.files.flags().display())
    }

    /// Checks whether the file is valid.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.lock_current() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A message with the paths of the copies of unreadable bytes; `None` if there are no copies.
    pub(super) fn unreadable_state(&self) -> Option<String> {
        let inner = self.lock_last_valid();
        let copies = inner.files.unreadable_copies();
        let names: Vec<String> = copies
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} could not be read completely; the unreadable bytes are in {}. Remove the copy when you \
                 no longer need it",
                inner.files.state().display(),
                names.join(", ")
            )
        })
    }

    /// The revision of an environment; while the file is invalid, that of its last valid contents.
    pub(super) fn revision(&self, environment: &Environment) -> Revision {
        let inner = self.lock_current();
        let inner = inner.unwrap_or_else(|_invalid| self.lock_last_valid());
        inner.revision_of(environment.as_str())
    }

    pub(super) fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<SnapshotUpdate, Error> {
        let inner = match self.lock_current() {
            Ok(inner) => inner,
            // While the file is invalid, readers get the last valid contents. For a reader that already has them,
            // the store counts as unavailable.
            Err(error) => {
                let inner = self.lock_last_valid();
                if known == Some(inner.revision_of(environment.as_str())) {
                    return Err(Error::Unavailable(error.to_string()));
                }
                inner
            }
        };
        let name = environment.as_str();
        let revision = inner.revision_of(name);
        if known == Some(revision) {
            return Ok(SnapshotUpdate::Unchanged);
        }
        let mut snapshot = Snapshot {
            revision,
            defaults: inner.data.contents.defaults,
            ..Snapshot::empty()
        };
        if let Some(set) = inner.data.contents.environments.get(name) {
            let flags = set.flags.iter();
            snapshot.flags = flags
                .map(|(key, flag)| (key.clone(), Arc::new(flag.clone())))
                .collect();
            snapshot.settings.clone_from(&set.settings);
        }
        if let Some(state) = inner.data.state.of(name) {
            let keys = state.keys.iter();
            let active = keys.filter(|(_, key)| key.revoked_at.is_none());
            snapshot.keys = active
                .map(|(hash, key)| {
                    let id = key.id.clone();
                    let kind = key.kind;
                    (hash.clone(), ApiKey { id, kind })
                })
                .collect();
        }
        Ok(SnapshotUpdate::Changed(snapshot))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as for a database, where the call can fail"
    )]
    pub(super) fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        // Readers need the names even while the file is invalid.
        let inner = match self.lock_current() {
            Ok(inner) => inner,
            Err(_) => self.lock_last_valid(),
        };
        let names = inner.data.contents.environments.keys();
        let names = names.filter_map(|name| Environment::parse(name).ok());
        let with_revision = names.map(|name| {
            let revision = inner.revision_of(name.as_str());
            (name, revision)
        });
        Ok(with_revision.collect())
    }

    pub(super) fn list_environments(&self) -> Result<Vec<EnvironmentRecord>, Error> {
        let environments = self.environments()?;
        let inner = self.lock_current()?;
        let data = &inner.data;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let records = environments.into_iter().map(|(environment, revision)| {
            let name = environment.as_str();
            let set = data.contents.environments.get(name);
            let state = data.state.of(name);
            EnvironmentRecord {
                revision,
                flags: number(set.map_or(0, |set| set.flags.len())),
                archived: number(state.map_or(0, |state| state.archived.len())),
                settings: data.settings(name).settings,
                environment,
            }
        });
        Ok(records.collect())
    }

    pub(super) fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        Ok(self.lock_current()?.data.contents.defaults)
    }

    pub(super) fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        Ok(self.lock_current()?.data.settings(environment.as_str()))
    }

    pub(super) fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        Ok(self.lock_current()?.data.flag(environment.as_str(), key))
    }

    pub(super) fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Page<(FlagKey, FlagRecord)>, Error> {
        let wanted = query.search.to_lowercase();
        let all = self.lock_current()?.data.flags(environment.as_str());
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
        page: PageRequest,
    ) -> Result<Option<OverridePage>, Error> {
        let inner = self.lock_current()?;
        let name = environment.as_str();
        if inner.data.contents.flag(name, key).is_none() {
            return Ok(None);
        }
        let mut all = inner.data.overrides(name, key);
        all.reverse();
        Ok(Some(OverridePage {
            overrides: paged(all, page),
            revision: inner.data.overrides_revision(name, key),
        }))
    }

    pub(super) fn list_audit(
        &self,
        environment: &Environment,
        key: Option<&FlagKey>,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Error> {
        let inner = self.lock_current()?;
        let is_about = |entry: &&AuditEntry| {
            entry.environment == environment.as_str()
                && key.is_none_or(|key| entry.flag_key.as_deref() == Some(key.as_str()))
        };
        let chosen: Vec<&AuditEntry> = inner.history.audit.iter().rev().filter(is_about).collect();
        let Page { items, total } = paged(chosen, page);
        Ok(Page {
            items: items.into_iter().cloned().collect(),
            total,
        })
    }

    pub(super) fn find_audit(
        &self,
        environment: &Environment,
        key: &FlagKey,
        id: i64,
    ) -> Result<Option<AuditEntry>, Error> {
        let inner = self.lock_current()?;
        let mut audit = inner.history.audit.iter();
        let found = audit.find(|entry| {
            entry.id == id
                && entry.environment == environment.as_str()
                && entry.flag_key.as_deref() == Some(key.as_str())
        });
        Ok(found.cloned())
    }

    pub(super) fn list_schedules(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<Vec<ScheduleRecord>>, Error> {
        let inner = self.lock_current()?;
        let name = environment.as_str();
        if inner.data.contents.flag(name, key).is_none() {
            return Ok(None);
        }
        let state = inner.data.state.of(name);
        let mut records: Vec<ScheduleRecord> = state
            .into_iter()
            .flat_map(|state| state.schedules.values())
            .filter(|schedule| schedule.flag_key == *key)
            .cloned()
            .collect();
        records.sort_by_key(ScheduleRecord::order);
        Ok(Some(records))
    }

    pub(super) fn due_schedules(&self, limit: u32) -> Result<Vec<DueSchedule>, Error> {
        let inner = self.lock_current()?;
        let now = SystemTime::now();
        let mut due = Vec::new();
        for (name, state) in inner.data.state.iter() {
            let Ok(environment) = Environment::parse(name) else {
                continue;
            };
            let schedules = state.schedules.values().filter(|it| it.is_due(now));
            due.extend(schedules.map(|schedule| {
                let found = DueSchedule {
                    environment: environment.clone(),
                    key: schedule.flag_key.clone(),
                    id: schedule.id.clone(),
                };
                (schedule.order(), found)
            }));
        }
        due.sort_by_key(|(order, _)| *order);
        let due = due.into_iter().map(|(_, found)| found);
        Ok(due
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect())
    }

    /// Locks the last valid contents.
    fn lock_last_valid(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the current contents, after reading the file again if it has changed. If the file is invalid, for example
    /// because an editor is writing it, fails and keeps the last valid contents.
    fn lock_current(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.lock_last_valid();
        let is_unchanged = |(stamp, _): &(Stamp, String)| inner.files.is_unchanged(stamp);
        if !inner.seen.as_ref().is_some_and(is_unchanged) {
            inner.reload().map_err(Error::StoreFile)?;
        }
        Ok(inner)
    }
}

fn paged<T>(all: Vec<T>, page: PageRequest) -> Page<T> {
    Page {
        total: u64::try_from(all.len()).unwrap_or(u64::MAX),
        items: page.cut(all),
    }
}

impl Inner {
    /// Reads the file and parses it if its text has changed.
    fn reload(&mut self) -> Result<(), String> {
        let read = self.files.read()?;
        let digest = disk::digest(read.text.as_bytes());
        if let Some((stamp, seen)) = &mut self.seen
            && *seen == digest
        {
            *stamp = read.stamp;
            return Ok(());
        }
        if let Some((rejected, revision, error)) = &self.rejected
            && (rejected, *revision) == (&digest, self.revision)
        {
            return Err(error.clone());
        }
        let before = self.seen.is_some().then_some(&self.data.contents);
        let path = self.files.flags();
        let contents = Contents::parse_after(before, read.json(), &self.data.state, path)
            .inspect_err(|error| {
                self.rejected = Some((digest.clone(), self.revision, error.clone()));
            })?;
        self.record_edit(&contents)?;
        let changed = self.changed_by(&contents);
        self.data.contents = contents;
        self.seen = Some((read.stamp, digest));
        self.raise_revisions(changed);
        Ok(())
    }

    /// Records when an edit added or changed flags. Cancels the schedules of flags that the edit removed, and forgets
    /// their details: neither may affect a flag that is added later with the same key.
    fn record_edit(&mut self, contents: &Contents) -> Result<(), String> {
        let mut records = self.data.state.cancel_schedules_without_flag(contents);
        let cancelled = records.len();
        records.extend(self.data.forget_removed(contents));
        let before = self.seen.is_some().then_some(&self.data.contents);
        records.extend(self.data.times_of_edited_flags(before, contents));
        if records.is_empty() {
            return Ok(());
        }
        self.journal.append(&records)?;
        for record in &records {
            self.data.state.apply(record);
        }
        self.journal
            .compact_if_needed(&self.data.state, &self.history);
        if cancelled > 0 {
            tracing::warn!(
                file = %self.files.flags().display(),
                schedules = cancelled,
                "an edit removed flags with pending schedules, which are cancelled"
            );
        }
        Ok(())
    }

    /// Converts a file in the format of earlier versions, and keeps a backup.
    fn convert(&mut self) -> Result<(), String> {
        let read = self.files.read()?;
        let path = self.files.flags().to_owned();
        let file = pennon_eval::json::parse(read.json().as_bytes());
        let is_old = file.is_ok_and(|file| old_format::is_old(&file));
        if !is_old {
            return Ok(());
        }
        let explain = |error: &dyn std::fmt::Display| {
            invalid_file(
                &path,
                &format!(
                    "it is not a flagd file, and cannot be converted from the format of earlier versions: {error}"
                ),
            )
        };
        let old = OldFile::parse(read.json()).map_err(|error| explain(&error))?;
        let (contents, records) = old.convert();
        let text = contents.to_text().map_err(|error| explain(&error))?;
        let mut state = self.data.state.clone();
        for record in &records {
            state.apply(record);
        }
        // The conversion must not change any evaluation.
        let again = Contents::parse(&text, &state, &path).map_err(|error| explain(&error))?;
        if again != contents {
            return Err(explain(
                &"it contains data that the new format cannot represent",
            ));
        }
        let kept = self.files.back_up(&read.text)?;
        self.commit(
            Data { contents, state },
            records,
            &disk::digest(read.text.as_bytes()),
            Some(Environment::production().as_str()),
        )?;
        // The contents are read again like those of any file at a start.
        self.seen = None;
        tracing::info!(
            file = %path.display(),
            kept = %kept.display(),
            "the file was converted; a backup of the old file is kept"
        );
        Ok(())
    }

    /// Writes the records to the journal and, if they change, the contents to `flags.json`: both or neither. Raises the
    /// revision of `raised`, and those of environments whose contents change.
    fn commit(
        &mut self,
        data: Data,
        records: Vec<Record>,
        replaces: &str,
        raised: Option<&str>,
    ) -> Result<(), String> {
        if data.contents == self.data.contents {
            if !records.is_empty() {
                self.journal.append(&records)?;
            }
        } else {
            let explain = |error| disk::cannot("write", self.files.flags(), &error);
            let text = data.contents.to_text().map_err(explain)?;
            let replaced = self.journal.append_and_replace(&records, &text, replaces)?;
            if let Some(kept) = replaced {
                journal::report_conflict(self.files.flags(), &kept);
            }
            // `stamp` is fresh, so the next access reads the file again: somebody may have written it since.
            let digest = disk::digest(text.as_bytes());
            self.seen = self.files.stamp().map(|stamp| (stamp, digest));
        }
        let mut changed = self.changed_by(&data.contents);
        changed.extend(raised.map(str::to_owned));
        self.data = data;
        for record in records {
            self.history.apply(record);
        }
        self.journal
            .compact_if_needed(&self.data.state, &self.history);
        self.raise_revisions(changed);
        Ok(())
    }

    /// Appends a record that affects neither flags nor their details, without waiting for the disk.
    fn append_unsynced(&mut self, record: Record) -> Result<(), Error> {
        self.journal
            .append_unsynced(record, &self.data.state, &mut self.history)
            .map_err(Error::StoreFile)
    }

    fn revision_of(&self, environment: &str) -> Revision {
        let revision = self.revisions.get(environment);
        revision.copied().unwrap_or(Revision::NONE)
    }

    /// The environments that these contents change, add or remove; all of them when the file is read for the first
    /// time.
    fn changed_by(&self, contents: &Contents) -> BTreeSet<String> {
        let (before, after) = (&self.data.contents, contents);
        let affects_all = self.seen.is_none() || before.defaults != after.defaults;
        let names = before.environments.keys().chain(after.environments.keys());
        let changed = names.filter(|name| {
            affects_all || before.environments.get(*name) != after.environments.get(*name)
        });
        changed.cloned().collect()
    }

    /// Sets the revisions of these environments to the clock in milliseconds, or to the highest revision plus one if
    /// that is higher. So the revisions of a restarted process are above all revisions in a cache.
    fn raise_revisions(&mut self, environments: BTreeSet<String>) {
        let now = i64::try_from(unix_millis(SystemTime::now())).unwrap_or(i64::MAX);
        self.revision = Revision(now.max(self.revision.0 + 1));
        let raised = environments.into_iter().map(|name| (name, self.revision));
        self.revisions.extend(raised);
    }
}
