//! The files of the local store: `flags.json`, which may be a symbolic link, and the files beside it. One process at a
//! time uses them. Files are replaced atomically.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::id::unique_id;

/// Limit on symbolic links that are followed; the same as in Linux.
const MAX_LINKS: usize = 40;
/// The coarsest resolution of timestamps in a file system, in seconds. Two writes within it may have the same
/// timestamp.
const CLOCK_STEP: i64 = 2;
/// The suffixes of the files beside `flags.json`.
const LOCK: &str = ".lock";
const STATE: &str = ".state";
const TEMPORARY: &str = ".new-";
const UNREADABLE: &str = ".state.unreadable";

/// The paths of `flags.json` and the files beside it.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The configured path, which may be a symbolic link.
    given: PathBuf,
    /// The file itself. The other files are beside it, so they are the same for every link to it.
    flags: PathBuf,
}

/// The metadata of a file. If it differs, the file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    /// Whether the file was written so recently that another write may leave the same metadata.
    is_fresh: bool,
}

/// The content of `flags.json`.
pub(super) struct Text {
    /// The whole text. Digests and copies are of these bytes.
    pub(super) text: String,
    pub(super) stamp: Stamp,
}

impl Text {
    /// The text without the byte order mark that some editors add and JSON does not allow.
    pub(super) fn json(&self) -> &str {
        self.text.strip_prefix('\u{feff}').unwrap_or(&self.text)
    }
}

impl Files {
    /// Resolves a path. The file does not have to exist.
    ///
    /// # Errors
    /// A message with the path.
    pub(super) fn find(given: &Path) -> Result<Self, String> {
        let flags = resolve(given).map_err(|error| cannot("find", given, &error))?;
        if flags.is_dir() {
            return Err(cannot("use", given, &"it is a folder"));
        }
        Ok(Self {
            given: given.to_owned(),
            flags,
        })
    }

    pub(super) fn flags(&self) -> &Path {
        &self.flags
    }

    pub(super) fn state(&self) -> PathBuf {
        self.beside(STATE)
    }

    /// The path of the file beside `flags.json` with this suffix.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.flags.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.flags.with_file_name(name)
    }

    /// Locks these files against other processes until the result is dropped. The lock is a separate file, because
    /// every write replaces `flags.json`.
    ///
    /// # Errors
    /// A message with the file and, if known, the other process.
    pub(super) fn lock(&self) -> Result<File, String> {
        let path = self.beside(LOCK);
        let explain = |error: &dyn Display| cannot("lock", &path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| explain(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let _unknown = file.read_to_string(&mut process);
                return Err(format!(
                    "another Pennon server{} uses {}; stop it, or name another file in \
                     PENNON_FLAGS_FILE",
                    process_name(&process),
                    self.flags.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(explain(&error)),
        }
        self.give_to_owner(&path);
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        written.map_err(|error| explain(&error))?;
        Ok(file)
    }

    /// Whether `flags.json` is certainly unchanged since it had this metadata.
    pub(super) fn is_unchanged(&self, seen: &Stamp) -> bool {
        !seen.is_fresh
            && std::fs::metadata(&self.given).is_ok_and(|now| Stamp::of(&now).is_same(seen))
    }

    /// The metadata of `flags.json` right after a write. Marked as fresh, so that the next access reads the file.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(&self.flags).ok()?;
        Some(Stamp {
            is_fresh: true,
            ..Stamp::of(&metadata)
        })
    }

    /// Reads `flags.json`.
    ///
    /// # Errors
    /// A message with the path.
    pub(super) fn read(&self) -> Result<Text, String> {
        let explain = |error: &dyn Display| cannot("read", &self.given, error);
        let now = resolve(&self.given).map_err(|error| explain(&error))?;
        if now != self.flags {
            return Err(explain(&format!(
                "it led to {1} when the server started and leads to {0} now; start the server again",
                now.display(),
                self.flags.display()
            )));
        }
        let mut file = File::open(&self.flags).map_err(|error| explain(&error))?;
        let metadata = file.metadata().map_err(|error| explain(&error))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| explain(&error))?;
        Ok(Text {
            text,
            // Metadata from before the read: a concurrent write changes it.
            stamp: Stamp::of(&metadata),
        })
    }

    /// Writes a text durably to a new file beside `flags.json`, with the mode and the owner of `flags.json` if that
    /// exists.
    ///
    /// # Errors
    /// A message with the path of `flags.json`.
    pub(super) fn write_temporary(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.beside(&format!("{TEMPORARY}{}", unique_id()));
        let like = std::fs::metadata(&self.flags).ok();
        let written = write_new(&path, text.as_bytes(), like.as_ref());
        // The name must be durable before the journal contains it: a start that does not find the file assumes that it
        // has replaced `flags.json`.
        let written = written.and_then(|()| self.sync_folder());
        written.map_err(|error| {
            let _may_not_exist = std::fs::remove_file(&path);
            cannot("write", &self.flags, &error)
        })?;
        Ok(path)
    }

    /// Creates `flags.json`.
    ///
    /// # Errors
    /// A message with the path.
    pub(super) fn create(&self, text: &str) -> Result<(), String> {
        let temporary = self.write_temporary(text)?;
        std::fs::rename(&temporary, &self.flags).map_err(|error| {
            let _may_not_exist = std::fs::remove_file(&temporary);
            cannot("write", &self.flags, &error)
        })?;
        // It is created, even if it is not durable.
        let _not_durable = self.sync_folder();
        Ok(())
    }

    /// Replaces `flags.json`, which should have the digest `replaces`, by a file that [`Self::write_temporary`] has
    /// written. If somebody has edited `flags.json` in the meantime, the edited file is kept, and its path returned.
    ///
    /// # Errors
    /// A message with the path; nothing was replaced.
    pub(super) fn replace(
        &self,
        temporary: &Path,
        replaces: &str,
    ) -> Result<Option<PathBuf>, String> {
        let explain = |error: &dyn Display| cannot("replace", &self.flags, error);
        // Exchanges the two files, so that the replaced one can be compared afterwards. A comparison before the
        // replacement would miss an edit between the two.
        match renameat_with(CWD, temporary, CWD, &self.flags, RenameFlags::EXCHANGE) {
            Ok(()) => {
                // The replacement has happened, even if it is not durable.
                let _not_durable = self.sync_folder();
                Ok(self.remove_replaced(temporary, replaces))
            }
            // The file system does not support an exchange.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                if digest_of_file(&self.flags).as_deref() != Some(replaces) {
                    return Err(explain(&"it was edited in the meantime"));
                }
                std::fs::rename(temporary, &self.flags).map_err(|error| explain(&error))?;
                let _not_durable = self.sync_folder();
                Ok(None)
            }
            Err(error) => Err(explain(&error)),
        }
    }

    /// Removes the replaced file, which now has the name of the temporary file. If it has another digest than
    /// `replaces`, it contains an edit: then it is kept, and its path returned.
    pub(super) fn remove_replaced(&self, replaced: &Path, replaces: &str) -> Option<PathBuf> {
        if digest_of_file(replaced).as_deref() == Some(replaces) {
            // If that fails, the next start removes it.
            let _stays = std::fs::remove_file(replaced);
            return None;
        }
        let kept = self.free_name(".conflict");
        // Renamed and not copied, so that a program which is still writing to it loses nothing.
        Some(match std::fs::rename(replaced, &kept) {
            Ok(()) => kept,
            Err(_) => replaced.to_owned(),
        })
    }

    /// Writes a backup of `flags.json`, unless an equal one exists, and returns its path.
    ///
    /// # Errors
    /// A message with the path of the backup.
    pub(super) fn back_up(&self, text: &str) -> Result<PathBuf, String> {
        let first = self.beside(".bak");
        if std::fs::read(&first).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(first);
        }
        let path = self.free_name(".bak");
        let like = std::fs::metadata(&self.flags).ok();
        write_new(&path, text.as_bytes(), like.as_ref())
            .map_err(|error| cannot("write", &path, &error))?;
        Ok(path)
    }

    /// Saves unreadable bytes of the state file to a separate file, and returns its path.
    ///
    /// # Errors
    /// A message with the path of the copy.
    pub(super) fn keep_unreadable(&self, bytes: &[u8]) -> Result<PathBuf, String> {
        let path = self.free_name(UNREADABLE);
        write_new(&path, bytes, None).map_err(|error| cannot("write", &path, &error))?;
        self.give_to_owner(&path);
        Ok(path)
    }

    /// The existing copies of [`Self::keep_unreadable`].
    pub(super) fn unreadable_copies(&self) -> Vec<PathBuf> {
        let prefix = self.beside(UNREADABLE);
        let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
        let Ok(entries) = std::fs::read_dir(folder_of(&self.flags)) else {
            return Vec::new();
        };
        let mut copies: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix))
            .map(|entry| entry.path())
            .collect();
        copies.sort();
        copies
    }

    /// The first unused name with this suffix: `.bak`, `.bak.2`, `.bak.3`, ...
    fn free_name(&self, suffix: &str) -> PathBuf {
        let taken = |path: &PathBuf| path.symlink_metadata().is_ok();
        let mut path = self.beside(suffix);
        let mut number: u32 = 2;
        while taken(&path) {
            path = self.beside(&format!("{suffix}.{number}"));
            number = number.saturating_add(1);
        }
        path
    }

    /// The file with this name, if it exists and has the name of a temporary file.
    pub(super) fn temporary(&self, name: &str) -> Option<PathBuf> {
        let path = self.flags.with_file_name(name);
        (self.is_temporary(OsStr::new(name)) && path.is_file()).then_some(path)
    }

    /// Removes temporary files of earlier processes.
    pub(super) fn remove_temporaries(&self) {
        let Ok(entries) = std::fs::read_dir(folder_of(&self.flags)) else {
            return;
        };
        for entry in entries.flatten() {
            if self.is_temporary(&entry.file_name()) {
                let _stays = std::fs::remove_file(entry.path());
            }
        }
    }

    fn is_temporary(&self, name: &OsStr) -> bool {
        let of_flags = self.flags.file_name().unwrap_or_default();
        [of_flags.to_owned(), {
            let mut of_state = of_flags.to_owned();
            of_state.push(STATE);
            of_state
        }]
        .iter()
        .any(|of| {
            let id = name
                .as_encoded_bytes()
                .strip_prefix(of.as_encoded_bytes())
                .and_then(|rest| rest.strip_prefix(TEMPORARY.as_bytes()));
            id.is_some_and(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit))
        })
    }

    /// Replaces or creates the state file. Only its owner can read it. The replacement is durable after
    /// [`Self::sync_folder`].
    ///
    /// # Errors
    /// A message with the path.
    pub(super) fn write_state(&self, text: &str) -> Result<(), String> {
        let path = self.state();
        let temporary = self.beside(&format!("{STATE}{TEMPORARY}{}", unique_id()));
        let written = write_new(&temporary, text.as_bytes(), None).and_then(|()| {
            self.give_to_owner(&temporary);
            std::fs::rename(&temporary, &path)
        });
        written.map_err(|error| {
            let _may_not_exist = std::fs::remove_file(&temporary);
            cannot("write", &path, &error)
        })
    }

    /// Gives a file to the owner of `flags.json`. Otherwise a server that root has started would create files that
    /// the owner cannot use.
    fn give_to_owner(&self, path: &Path) {
        if let Ok(owner) = std::fs::metadata(&self.flags) {
            let _stays = chown(path, Some(owner.uid()), Some(owner.gid()));
        }
    }

    /// Makes a rename durable, so that a power failure does not restore the replaced file.
    /// Does nothing if that is impossible: some file systems cannot sync folders, and a folder that the process may not
    /// list cannot be opened.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        let synced = File::open(folder_of(&self.flags)).and_then(|folder| folder.sync_all());
        let code = synced.as_ref().err().and_then(Errno::from_io_error);
        match code {
            // NOTSUP and NOSYS: such as network shares on macOS.
            Some(Errno::ACCESS | Errno::INVAL | Errno::BADF | Errno::NOTSUP | Errno::NOSYS) => {
                Ok(())
            }
            Some(_) | None => synced,
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        Self {
            file: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            is_fresh: now - metadata.ctime() < CLOCK_STEP,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let key = |stamp: &Self| (stamp.file, stamp.modified, stamp.changed, stamp.length);
        key(self) == key(other)
    }
}

/// Writes a text at this offset, the end of the valid part of a file, and removes what follows. With `durable`, waits
/// until the text is on the disk. A failure leaves the valid part unchanged.
///
/// # Errors
/// An error of the file system, or a file that is shorter than `length`.
pub(super) fn append(path: &Path, length: u64, text: &str, durable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() < length {
        return Err(io::Error::other(
            "another program has changed it; start the server again",
        ));
    }
    // Removes the remains of a failed write.
    file.set_len(length)?;
    let written = file
        .seek(SeekFrom::Start(length))
        .and_then(|_| file.write_all(text.as_bytes()))
        .and_then(|()| if durable { file.sync_data() } else { Ok(()) });
    written.inspect_err(|_| {
        let _truncated_by_next_write = file.set_len(length);
    })
}

/// Allows only the owner of a file to read and write it.
///
/// # Errors
/// An error of the file system.
pub(super) fn keep_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Truncates a file.
///
/// # Errors
/// An error of the file system.
pub(super) fn truncate(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_data()
}

/// The SHA-256 of a text, in hexadecimal.
pub(super) fn digest(text: &[u8]) -> String {
    hex(&Sha256::digest(text))
}

pub(super) fn digest_of_file(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|content| digest(&content))
}

/// The message that an operation on a file failed.
pub(super) fn cannot(what: &str, path: &Path, error: &dyn Display) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// Writes a new file with the mode and the owner of another file; without one, only its owner can read it.
fn write_new(path: &Path, content: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    if let Some(like) = like {
        let mine = file.metadata()?;
        if (mine.uid(), mine.gid()) != (like.uid(), like.gid()) {
            chown(path, Some(like.uid()), Some(like.gid())).map_err(|error| {
                let (user, group) = (like.uid(), like.gid());
                io::Error::new(
                    error.kind(),
                    format!("its owner {user}:{group} cannot be kept: {error}"),
                )
            })?;
        }
        file.set_permissions(like.permissions())?;
    }
    file.sync_all()
}

/// Follows symbolic links. The last target does not have to exist.
fn resolve(given: &Path) -> io::Result<PathBuf> {
    let mut path = given.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(target) = std::fs::read_link(&path) {
            path = folder_of(&path).join(target);
        } else {
            let name = path
                .file_name()
                .ok_or_else(|| io::Error::other("the path has no file name"))?;
            return Ok(folder_of(&path).canonicalize()?.join(name));
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn process_name(text: &str) -> String {
    match text.trim().parse::<u32>() {
        Ok(process) => format!(" (process {process})"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn sync_folder_succeeds_if_the_file_system_cannot_sync_folders() {
        use super::*;

        // fsync(2) of a folder in /proc fails with EINVAL.
        let files = Files::find(Path::new("/proc/flags.json")).expect("a path");
        assert!(File::open("/proc").and_then(|it| it.sync_all()).is_err());
        files.sync_folder().expect("as durable as possible");
    }

    #[test]
    fn a_file_can_be_created_in_a_folder_that_may_not_be_listed() {
        use super::*;

        let folder = std::env::temp_dir().join(format!("pennon-folder-{}", unique_id()));
        std::fs::create_dir(&folder).expect("a folder");
        let files = Files::find(&folder.join("flags.json")).expect("a path");
        std::fs::set_permissions(&folder, Permissions::from_mode(0o300)).expect("protects");
        files.create("{}").expect("as durable as possible");
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("unprotects");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
