//! Flags in a file that a person can read and edit, for local use and for tests.
//!
//! `flags.json` holds what a person writes: flags and settings, in flagd's form. What the service keeps
//! beside is in `flags.json.state`. The file is read again whenever it has changed on disk, so an edit
//! shows on the next request; a change through the API replaces it whole, so a crash leaves the old file
//! or the new one, and never one without the state that belongs to it.

mod counts;
mod data;
mod disk;
mod flags_file;
mod journal;
mod keys;
mod line;
mod old_form;
mod outbox;
mod ramps;
mod state;
mod transaction;
mod webhooks;

use std::fs::File;
use std::path::Path;
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
use data::Data;
use disk::{Files, Stamp};
use flags_file::{Contents, not_right};
use journal::Journal;
use old_form::OldForm;
use state::{History, Record, State};

/// A store in memory, kept in files.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Mutex<Inner>>,
    /// Held by whoever changes something, from begin to commit.
    writing: Arc<tokio::sync::Mutex<()>>,
}

struct Inner {
    files: Files,
    data: Data,
    history: History,
    journal: Journal,
    /// Raised whenever the contents change, for all environments at once.
    revision: Revision,
    /// What the file looked like when it was last read or written, and the digest of its text.
    seen: Option<(Stamp, String)>,
    /// Keeps other processes away.
    _lock: File,
}

impl EmbeddedStore {
    /// Opens a file, or creates it with this text. A file in the form of earlier versions is converted.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it, or the process that uses it.
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
            revision: Revision::NONE,
            seen: None,
            _lock: lock,
        };
        inner.convert()?;
        inner.reload()?;
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

    /// Says where unreadable bytes of the state file are, until the copies are removed.
    pub(super) fn unreadable_state(&self) -> Option<String> {
        let inner = self.last_good();
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

    pub(super) fn snapshot(
        &self,
        environment: &Environment,
        known: Option<Revision>,
    ) -> Result<Fresh, Error> {
        let inner = match self.current() {
            Ok(inner) => inner,
            // After a mistake in the file readers get what it said before: a reader who has that already is
            // answered as by any store that does not answer, and another one gets it from here.
            Err(error) => {
                let inner = self.last_good();
                if known == Some(inner.revision) {
                    return Err(Error::Unavailable(error.to_string()));
                }
                inner
            }
        };
        if known == Some(inner.revision) {
            return Ok(Fresh::Unchanged);
        }
        let name = environment.as_str();
        let mut snapshot = Snapshot {
            revision: inner.revision,
            defaults: inner.data.contents.defaults,
            ..Snapshot::empty()
        };
        if let Some(set) = inner.data.contents.environments.get(name) {
            snapshot.flags.clone_from(&set.flags);
            snapshot.settings.clone_from(&set.settings);
        }
        if let Some(aside) = inner.data.state.of(name) {
            let keys = aside.keys.iter();
            let live = keys.filter(|(_, key)| key.revoked_at.is_none());
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

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same question as to a database, which can fail"
    )]
    pub(super) fn environments(&self) -> Result<Vec<(Environment, Revision)>, Error> {
        // Readers need them, also after a mistake in the file.
        let inner = match self.current() {
            Ok(inner) => inner,
            Err(_) => self.last_good(),
        };
        let names = inner.data.contents.environments.keys();
        let names = names.filter_map(|name| Environment::parse(name).ok());
        Ok(names.map(|name| (name, inner.revision)).collect())
    }

    pub(super) fn list_environments(&self) -> Result<Vec<EnvironmentRecord>, Error> {
        let environments = self.environments()?;
        let inner = self.current()?;
        let data = &inner.data;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let records = environments.into_iter().map(|(environment, revision)| {
            let name = environment.as_str();
            let set = data.contents.environments.get(name);
            let aside = data.state.of(name);
            EnvironmentRecord {
                revision,
                flags: number(set.map_or(0, |set| set.flags.len())),
                archived: number(aside.map_or(0, |aside| aside.archived.len())),
                settings: data.settings(name).settings,
                environment,
            }
        });
        Ok(records.collect())
    }

    pub(super) fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        Ok(self.current()?.data.contents.defaults)
    }

    pub(super) fn settings(&self, environment: &Environment) -> Result<SettingsRecord, Error> {
        Ok(self.current()?.data.settings(environment.as_str()))
    }

    pub(super) fn find_flag(
        &self,
        environment: &Environment,
        key: &FlagKey,
    ) -> Result<Option<FlagRecord>, Error> {
        Ok(self.current()?.data.flag(environment.as_str(), key))
    }

    pub(super) fn list_flags(
        &self,
        environment: &Environment,
        query: &FlagQuery,
    ) -> Result<Paged<(FlagKey, FlagRecord)>, Error> {
        let wanted = query.search.to_lowercase();
        let all = self.current()?.data.flags(environment.as_str());
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
        page: Page,
    ) -> Result<Paged<AuditEntry>, Error> {
        let inner = self.current()?;
        let is_about = |entry: &&AuditEntry| {
            entry.environment == environment.as_str()
                && key.is_none_or(|key| entry.flag_key.as_deref() == Some(key.as_str()))
        };
        let chosen: Vec<&AuditEntry> = inner.history.audit.iter().rev().filter(is_about).collect();
        let Paged { items, total } = paged(chosen, page);
        Ok(Paged {
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
        let inner = self.current()?;
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
        let inner = self.current()?;
        let name = environment.as_str();
        if inner.data.contents.flag(name, key).is_none() {
            return Ok(None);
        }
        let aside = inner.data.state.of(name);
        let mut records: Vec<ScheduleRecord> = aside
            .into_iter()
            .flat_map(|aside| aside.schedules.values())
            .filter(|schedule| schedule.flag_key == *key)
            .cloned()
            .collect();
        records.sort_by_key(|schedule| schedule.scheduled_at);
        Ok(Some(records))
    }

    pub(super) fn due_schedules(&self, most: u32) -> Result<Vec<DueSchedule>, Error> {
        let inner = self.current()?;
        let now = SystemTime::now();
        let mut due: Vec<(SystemTime, DueSchedule)> = Vec::new();
        for (name, aside) in inner.data.state.iter() {
            let Ok(environment) = Environment::parse(name) else {
                continue;
            };
            let schedules = aside.schedules.values().filter(|it| it.is_due(now));
            due.extend(schedules.map(|schedule| {
                let found = DueSchedule {
                    environment: environment.clone(),
                    key: schedule.flag_key.clone(),
                    id: schedule.id.clone(),
                };
                (schedule.scheduled_at, found)
            }));
        }
        due.sort_by_key(|(at, _)| *at);
        let due = due.into_iter().map(|(_, found)| found);
        Ok(due
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .collect())
    }

    /// The state as the file had it when it was last good.
    fn last_good(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as the file has it. A file that cannot be read right now, perhaps because an
    /// editor is in the middle of it, leaves the last good state in place.
    fn current(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.last_good();
        let is_unchanged = |(stamp, _): &(Stamp, String)| inner.files.is_unchanged(stamp);
        if !inner.seen.as_ref().is_some_and(is_unchanged) {
            inner.reload().map_err(Error::StoreFile)?;
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

impl Inner {
    /// Reads the file, unless it is the text that was read before.
    fn reload(&mut self) -> Result<(), String> {
        let read = self.files.read()?;
        let digest = disk::digest(read.text.as_bytes());
        if let Some((stamp, seen)) = &mut self.seen
            && *seen == digest
        {
            *stamp = read.stamp;
            return Ok(());
        }
        let before = self.seen.is_some().then_some(&self.data.contents);
        let path = self.files.flags();
        self.data.contents = Contents::parse_after(before, read.json(), &self.data.state, path)?;
        self.seen = Some((read.stamp, digest));
        self.raise_revision();
        Ok(())
    }

    /// Gives a file of an earlier version its new form, and keeps what it was beside it.
    fn convert(&mut self) -> Result<(), String> {
        let read = self.files.read()?;
        let path = self.files.flags().to_owned();
        let file = pennon_eval::json::parse(read.json().as_bytes());
        let is_old = file.is_ok_and(|file| old_form::is_old(&file));
        if !is_old {
            return Ok(());
        }
        let explain = |error: &dyn std::fmt::Display| {
            not_right(
                &path,
                &format!(
                    "it is not a flagd file, and cannot be converted from the form of earlier versions: {error}"
                ),
            )
        };
        let old = OldForm::parse(read.json()).map_err(|error| explain(&error))?;
        let (contents, records) = old.convert();
        let text = contents.to_text().map_err(|error| explain(&error))?;
        let mut state = self.data.state.clone();
        for record in &records {
            state.apply(record);
        }
        // Nobody may get another answer because of the conversion.
        let again = Contents::parse(&text, &state, &path).map_err(|error| explain(&error))?;
        if again != contents {
            return Err(explain(
                &"it says something that the new form has no place for",
            ));
        }
        let kept = self.files.back_up(&read.text)?;
        self.commit(
            Data { contents, state },
            records,
            &disk::digest(read.text.as_bytes()),
        )?;
        tracing::info!(
            file = %path.display(),
            kept = %kept.display(),
            "the file was converted; its old form is kept"
        );
        Ok(())
    }

    /// Writes a change: both files, or neither. `flags.json` is only touched when it says something new.
    fn commit(&mut self, data: Data, records: Vec<Record>, replaces: &str) -> Result<(), String> {
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
            // Its stamp is unknown until it is read again, since somebody may have written since.
            let digest = disk::digest(text.as_bytes());
            self.seen = self.files.stamp().map(|stamp| (stamp, digest));
        }
        self.data = data;
        for record in records {
            self.history.apply(record);
        }
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
