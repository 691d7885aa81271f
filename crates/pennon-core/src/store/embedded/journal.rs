//! `flags.json.state`: an append-only journal with one line of JSON per change, so that the cost of a change does not
//! depend on the size of the state.
//!
//! A change of `flags.json` and its line must both happen or neither, although the process may end between the two.
//! Therefore the line is written first, with the name of the temporary file that will replace `flags.json`. If the
//! next start finds the temporary file unchanged, the replacement has not happened, and the line is removed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{self, Files, cannot, digest_of_file};
use super::state::{History, Record, State};
use crate::id::unique_id;

/// The version of the format of the state file.
const FORMAT: u32 = 1;
/// If the file has more superseded records than this, it is compacted.
const MAX_SUPERSEDED: usize = 10_000;
/// The number of records before a failed compaction is repeated.
const RETRY_AFTER: usize = 1_000;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    about: String,
    /// Earlier versions wrote none.
    #[serde(default)]
    id: Option<String>,
}

/// A change.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<Replacement>,
    records: Vec<Record>,
}

/// A new `flags.json` that belongs to a change.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replacement {
    /// The name of the temporary file that holds it until the replacement.
    temporary: String,
    /// The digest of the `flags.json` that it replaces.
    replaces: String,
    /// The digest of the new file.
    written: String,
}

/// The open state file.
#[derive(Debug)]
pub(super) struct Journal {
    files: Files,
    /// Distinguishes this state file from one at the same path on another machine. It never changes.
    id: String,
    /// The length of the valid part.
    length: u64,
    /// An upper bound of the superseded records, which compaction removes: those that were superseded at the start, and
    /// all records appended since.
    superseded: usize,
    /// Whether the last compaction is durable. If not, a power failure may restore the file from before it.
    is_durable: bool,
}

impl Journal {
    /// Reads the state, and completes or removes a change during which the last process ended.
    ///
    /// # Errors
    /// A message with the file and, if a line is unreadable, its number.
    pub(super) fn open(files: &Files) -> Result<(Self, State, History), String> {
        let path = files.state();
        let mut journal = Self {
            files: files.clone(),
            id: unique_id(),
            length: 0,
            superseded: 0,
            is_durable: true,
        };
        let (mut state, mut history) = (State::default(), History::default());
        if path.symlink_metadata().is_err() {
            journal.compact(&state, &history)?;
        }
        let content = std::fs::read(&path).map_err(|error| cannot("read", &path, &error))?;
        disk::keep_private(&path).map_err(|error| cannot("protect", &path, &error))?;
        journal.length = 0;
        let mut records = 0;
        let mut has_id = false;
        let mut lines = content.split_inclusive(|byte| *byte == b'\n').enumerate();
        while let Some((number, bytes)) = lines.next() {
            // An incomplete line belongs to a change that was not made.
            if !bytes.ends_with(b"\n") {
                break;
            }
            let explain = |error: &dyn std::fmt::Display| unreadable(&path, number, error);
            if number == 0 {
                let header: Header =
                    serde_json::from_slice(bytes).map_err(|error| explain(&error))?;
                if header.format != FORMAT {
                    let format = header.format;
                    return Err(explain(&format!(
                        "its format is {format}; this version of Pennon reads format {FORMAT}"
                    )));
                }
                if let Some(id) = header.id {
                    journal.id = id;
                    has_id = true;
                }
            } else {
                let line: Line = serde_json::from_slice(bytes).map_err(|error| explain(&error))?;
                let is_last = lines
                    .clone()
                    .next()
                    .is_none_or(|(_, rest)| !rest.ends_with(b"\n"));
                if let (Some(replacement), true) = (&line.file, is_last)
                    && !replacement.has_happened(files)
                {
                    break;
                }
                records += line.records.len();
                for record in line.records {
                    state.apply(&record);
                    history.apply(record);
                }
            }
            journal.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        if !content.ends_with(b"\n") {
            let good = usize::try_from(journal.length).unwrap_or(usize::MAX);
            let kept = files.keep_unreadable(content.get(good..).unwrap_or_default())?;
            tracing::warn!(
                file = %path.display(),
                kept = %kept.display(),
                "the state file is empty or ends in the middle of a line; a copy of the unreadable bytes is \
                 kept, and /health is degraded until you remove it"
            );
        }
        if journal.length < u64::try_from(content.len()).unwrap_or(u64::MAX) {
            tracing::warn!(
                file = %path.display(),
                "the server ended in the middle of a change; the change was not made"
            );
            disk::truncate(&path, journal.length)
                .map_err(|error| cannot("repair", &path, &error))?;
        }
        // Not before the line is removed: without the temporary file, the next start would apply the line.
        files.remove_temporaries();
        journal.superseded = records.saturating_sub(history.records(&state).len());
        // A file without an id is of an earlier version, or it is empty, or its first line is incomplete.
        if !has_id || journal.superseded > MAX_SUPERSEDED {
            journal.compact(&state, &history)?;
        }
        Ok((journal, state, history))
    }

    /// The id of the state file.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Appends a change that does not affect `flags.json`.
    ///
    /// # Errors
    /// A message with the file; nothing was appended.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), String> {
        self.append_line(None, records, true)
    }

    /// Appends counts, or uses of keys. They are not synced to the disk: a power failure may lose those of the last
    /// seconds.
    ///
    /// # Errors
    /// A message with the file; nothing was appended.
    pub(super) fn append_unsynced(
        &mut self,
        record: Record,
        state: &State,
        history: &mut History,
    ) -> Result<(), String> {
        let records = [record];
        self.append_line(None, &records, false)?;
        for record in records {
            history.apply(record);
        }
        self.compact_if_needed(state, history);
        Ok(())
    }

    /// Compacts the file if many records may be superseded. All appended records must have been applied.
    pub(super) fn compact_if_needed(&mut self, state: &State, history: &History) {
        if self.superseded > MAX_SUPERSEDED
            && let Err(error) = self.compact(state, history)
        {
            // The records are stored: an error here would make the caller store them again.
            tracing::warn!(
                error,
                "the state file was not compacted; this is tried again later"
            );
            self.superseded = MAX_SUPERSEDED - RETRY_AFTER;
        }
    }

    /// Appends a change and replaces `flags.json`, which should have the digest `replaces`, by this text. If somebody
    /// has edited the file in the meantime, the edited file is kept, and its path returned.
    ///
    /// # Errors
    /// A message with the file; nothing has changed.
    pub(super) fn append_and_replace(
        &mut self,
        records: &[Record],
        text: &str,
        replaces: &str,
    ) -> Result<Option<std::path::PathBuf>, String> {
        let temporary = self.files.write_temporary(text)?;
        let before = self.length;
        let name = temporary.file_name().unwrap_or_default();
        let replacement = Replacement {
            temporary: name.to_string_lossy().into_owned(),
            replaces: replaces.to_owned(),
            written: disk::digest(text.as_bytes()),
        };
        let done = self
            .append_line(Some(replacement), records, true)
            .and_then(|()| self.files.replace(&temporary, replaces));
        if done.is_err() {
            // If the line cannot be removed, the next one overwrites it. Until then the temporary file must stay:
            // without it, the next start would apply the line.
            self.length = before;
            if disk::truncate(&self.files.state(), before).is_ok() {
                let _removed_at_next_start = std::fs::remove_file(&temporary);
            }
        }
        done
    }

    fn append_line(
        &mut self,
        file: Option<Replacement>,
        records: &[Record],
        durable: bool,
    ) -> Result<(), String> {
        let path = self.files.state();
        if durable && !self.is_durable {
            let synced = self.files.sync_folder();
            synced.map_err(|error| cannot("write", &path, &error))?;
            self.is_durable = true;
        }
        let line = Line {
            file,
            records: records.to_vec(),
        };
        let mut text =
            serde_json::to_string(&line).map_err(|error| cannot("write", &path, &error))?;
        text.push('\n');
        disk::append(&path, self.length, &text, durable)
            .map_err(|error| cannot("write", &path, &error))?;
        self.length += u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.superseded += records.len();
        Ok(())
    }

    /// Rewrites the file without superseded records.
    fn compact(&mut self, state: &State, history: &History) -> Result<(), String> {
        let path = self.files.state();
        let explain = |error: serde_json::Error| cannot("write", &path, &error);
        let name = self.files.flags().file_name().unwrap_or_default();
        let header = Header {
            format: FORMAT,
            about: format!(
                "Data of Pennon that belongs to {}: audit, schedules, API keys' hashes, archived flags, \
                 counts. Only the server writes here",
                name.to_string_lossy()
            ),
            id: Some(self.id.clone()),
        };
        let mut text = serde_json::to_string(&header).map_err(explain)?;
        text.push('\n');
        for record in history.records(state) {
            let line = Line {
                file: None,
                records: vec![record],
            };
            text.push_str(&serde_json::to_string(&line).map_err(explain)?);
            text.push('\n');
        }
        self.files.write_state(&text)?;
        // The file is replaced even if it is not durable. The next durable change waits until it is.
        self.is_durable = self.files.sync_folder().is_ok();
        self.length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.superseded = 0;
        Ok(())
    }
}

impl Replacement {
    /// Whether the new file has replaced `flags.json`. If so, removes the replaced file, unless it contains an edit.
    fn has_happened(&self, files: &Files) -> bool {
        let Some(temporary) = files.temporary(&self.temporary) else {
            return true;
        };
        if digest_of_file(&temporary).as_deref() == Some(&self.written) {
            return false;
        }
        if let Some(kept) = files.remove_replaced(&temporary, &self.replaces) {
            report_conflict(files.flags(), &kept);
        }
        true
    }
}

/// Logs that a change has replaced an edited file, and where the edited file is.
pub(super) fn report_conflict(flags: &Path, kept: &Path) {
    tracing::error!(
        file = %flags.display(),
        kept = %kept.display(),
        "the file was edited while a change was being written; the edited file is kept beside it"
    );
}

fn unreadable(path: &Path, number: usize, error: &dyn std::fmt::Display) -> String {
    format!(
        "{}, line {}, cannot be read: {error}; repair the file, or move it away to start without \
         audit, archived flags, schedules, API keys and counts",
        path.display(),
        number + 1
    )
}

#[cfg(test)]
mod tests {
    use pennon_eval::{Flag, FlagKey};
    use serde_json::json;

    use super::super::EmbeddedStore;
    use super::*;
    use crate::environment::Environment;
    use crate::key_kind::KeyKind;

    /// A new folder with this `flags.json`.
    fn files(flags: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("pennon-journal-{}", unique_id()));
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join("flags.json");
        std::fs::write(&path, flags).expect("a file");
        Files::find(&path).expect("a path")
    }

    fn audit(id: i64) -> Record {
        let entry = json!({"audit": {"id": id, "environment": "production", "flagKey": null,
            "action": "environment.purge", "actor": "me", "at": "2026-01-01T00:00:00.000Z",
            "before": null, "after": null}});
        serde_json::from_value(entry).expect("a record")
    }

    /// The ids of the audit entries that the next start reads.
    fn found(files: &Files) -> Vec<i64> {
        let (_journal, _state, history) = Journal::open(files).expect("opens");
        history.audit.iter().map(|entry| entry.id).collect()
    }

    fn text(files: &Files) -> String {
        std::fs::read_to_string(files.flags()).expect("a file")
    }

    /// The other files in the folder.
    fn rest(files: &Files) -> Vec<String> {
        let folder = files.flags().parent().expect("a folder");
        let names = std::fs::read_dir(folder).expect("a folder").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        });
        let known = ["flags.json", "flags.json.state"];
        let mut rest: Vec<String> = names.filter(|name| !known.contains(&&**name)).collect();
        rest.sort();
        rest
    }

    /// The replacement of the text "old" by the text "new" in this temporary file.
    fn replacement(temporary: &Path) -> Replacement {
        let name = temporary.file_name().expect("a name");
        Replacement {
            temporary: name.to_string_lossy().into_owned(),
            replaces: disk::digest(b"old"),
            written: disk::digest(b"new"),
        }
    }

    fn remove(files: &Files) {
        std::fs::remove_dir_all(files.flags().parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn a_state_file_that_ends_at_any_byte_keeps_its_complete_changes() {
        let files = files("{}");
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        let header = journal.length;
        let mut ends = vec![header];
        for id in 1..=3 {
            journal.append(&[audit(id)]).expect("appends");
            ends.push(journal.length);
        }
        let whole = std::fs::read(files.state()).expect("a file");
        for length in 0..=whole.len() {
            std::fs::write(files.state(), &whole[..length]).expect("writes");
            let changes = ends.iter().filter(|end| **end <= length as u64).count();
            let expected: Vec<i64> = (1..i64::try_from(changes).expect("few")).collect();
            assert_eq!(found(&files), expected, "{length} bytes");
            // The next change is appended to them.
            let (mut journal, _, _) = Journal::open(&files).expect("opens");
            journal.append(&[audit(9)]).expect("appends");
            assert_eq!(found(&files).last(), Some(&9), "{length} bytes");
        }
        remove(&files);
    }

    #[test]
    fn a_file_of_an_earlier_version_gets_an_id_that_stays() {
        let files = files("{}");
        std::fs::write(files.state(), "{\"format\":1,\"about\":\"\"}\n").expect("writes");
        let (mut journal, state, history) = Journal::open(&files).expect("opens");
        journal.append(&[audit(1)]).expect("appends");
        let (again, _, read) = Journal::open(&files).expect("opens");
        assert_eq!((again.id(), read.audit.len()), (journal.id(), 1));
        journal.compact(&state, &history).expect("compacts");
        let (compacted, _, _) = Journal::open(&files).expect("opens");
        assert_eq!(compacted.id(), again.id());
        remove(&files);
    }

    #[test]
    fn a_change_is_removed_if_the_process_ended_before_flags_json_was_replaced() {
        let files = files("old");
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        journal.append(&[audit(1)]).expect("appends");
        let temporary = files.write_temporary("new").expect("writes");
        journal
            .append_line(Some(replacement(&temporary)), &[audit(2)], true)
            .expect("appends");
        // Here the process ends.
        assert_eq!(found(&files), [1]);
        assert_eq!((text(&files).as_str(), rest(&files)), ("old", vec![]));

        // The same, but the process ends after the replacement.
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        std::fs::write(&temporary, "new").expect("writes");
        journal
            .append_line(Some(replacement(&temporary)), &[audit(2)], true)
            .expect("appends");
        files
            .replace(&temporary, &disk::digest(b"old"))
            .expect("replaces");
        assert_eq!(found(&files), [1, 2]);
        assert_eq!((text(&files).as_str(), rest(&files)), ("new", vec![]));
        remove(&files);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_change_that_one_start_could_not_remove_is_removed_by_the_next() {
        use std::fs::File;
        use std::io::Write;
        use std::os::fd::AsRawFd;

        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

        let files = files("old");
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        let temporary = files.write_temporary("new").expect("writes");
        journal
            .append_line(Some(replacement(&temporary)), &[audit(1)], true)
            .expect("appends");
        // Here the process ends. The next one cannot truncate the state file.
        let content = std::fs::read(files.state()).expect("a file");
        let sealed = memfd_create("state", MemfdFlags::ALLOW_SEALING).expect("a file");
        let mut sealed = File::from(sealed);
        sealed.write_all(&content).expect("writes");
        fcntl_add_seals(&sealed, SealFlags::SHRINK).expect("seals");
        std::fs::remove_file(files.state()).expect("removes");
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        std::os::unix::fs::symlink(path, files.state()).expect("links");
        let why = Journal::open(&files).expect_err("a sealed file was truncated");
        assert!(why.contains("repair"), "{why}");

        std::fs::remove_file(files.state()).expect("removes");
        std::fs::write(files.state(), content).expect("writes");
        assert_eq!(found(&files), [0; 0]);
        assert_eq!((text(&files).as_str(), rest(&files)), ("old", vec![]));
        remove(&files);
    }

    #[test]
    fn a_concurrent_edit_is_kept() {
        let files = files("old");
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        std::fs::write(files.flags(), "edited").expect("writes");
        let kept = journal
            .append_and_replace(&[audit(1)], "new", &disk::digest(b"old"))
            .expect("replaces")
            .expect("the edit");
        assert_eq!(std::fs::read_to_string(kept).expect("a file"), "edited");
        assert_eq!((text(&files).as_str(), found(&files)), ("new", vec![1]));
        remove(&files);
    }

    #[tokio::test]
    async fn changes_compact_the_file_even_if_nothing_is_counted() {
        let files = files(r#"{"flags": {}}"#);
        let store = EmbeddedStore::open(files.flags(), "").expect("opens");
        let key = FlagKey::parse("new".to_owned()).expect("a key");
        let is_compacted = || store.lock_last_valid().journal.superseded == 0;
        // A change of flags.json, and one of the state alone.
        for adds_flag in [true, false] {
            store.lock_last_valid().journal.superseded = MAX_SUPERSEDED;
            let mut change = store
                .begin(&Environment::production(), "me")
                .await
                .expect("begins");
            if adds_flag {
                change.insert_flag(&key, &Flag::default()).expect("added");
            } else {
                let kind = KeyKind::Server;
                change.insert_key("hash", kind, "a key").expect("added");
            }
            change.commit().expect("commits");
            assert!(is_compacted(), "not compacted (adds a flag: {adds_flag})");
        }
        store.lock_last_valid().journal.superseded = MAX_SUPERSEDED;
        let edited = r#"{"flags": {"edited": {"state": "ENABLED", "variants": {"on": 1}}}}"#;
        std::fs::write(files.flags(), edited).expect("writes");
        drop(store.lock_current().expect("a valid file"));
        assert!(is_compacted(), "not compacted after an edit");
        drop(store);
        let (_journal, state, _history) = Journal::open(&files).expect("opens");
        let state = state.of("production").expect("an environment");
        assert_eq!(state.keys.len(), 1);
        remove(&files);
    }

    #[test]
    fn counts_are_stored_even_if_the_file_cannot_be_compacted() {
        let short = files("{}");
        Journal::open(&short).expect("creates the state file");
        // Only the name of the temporary file of a compaction exceeds the 255 bytes that file systems allow.
        let name = format!("{}.json", "f".repeat(220));
        let long = short.flags().with_file_name(&name);
        std::fs::rename(short.flags(), &long).expect("renamed");
        let files = Files::find(&long).expect("a path");
        std::fs::rename(short.state(), files.state()).expect("renamed");
        let (mut journal, state, mut history) = Journal::open(&files).expect("opens");
        // As after a large import.
        journal.superseded = 3 * MAX_SUPERSEDED;
        for id in 1..=2 {
            journal
                .append_unsynced(audit(id), &state, &mut history)
                .expect("stores");
        }
        // The second append has not tried to compact again.
        assert_eq!(journal.superseded, MAX_SUPERSEDED - RETRY_AFTER + 1);
        assert_eq!(found(&files), [1, 2]);
        remove(&files);
    }

    #[test]
    fn an_unreadable_line_is_reported_and_the_file_stays_unchanged() {
        let files = files("{}");
        let (mut journal, _, _) = Journal::open(&files).expect("opens");
        for id in 1..=2 {
            journal.append(&[audit(id)]).expect("appends");
        }
        let whole = std::fs::read_to_string(files.state()).expect("a file");
        for (damage, line) in [
            ("\"format\"", 1),
            ("{\"records\":[{\"audit\":{\"id\":1,", 2),
        ] {
            let damaged = whole.replacen(damage, "?", 1);
            assert_ne!(damaged, whole);
            std::fs::write(files.state(), &damaged).expect("writes");
            let why = Journal::open(&files).expect_err("a damaged line was read");
            assert!(why.contains(&format!("line {line}")), "{why}");
            assert_eq!(
                std::fs::read_to_string(files.state()).expect("a file"),
                damaged
            );
        }
        remove(&files);
    }
}
