//! The files of the local store: `flags.json`, found through symbolic links, and those beside it. One
//! process at a time uses them, and a file is replaced whole.

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

use crate::id::unique_id;

/// As many symbolic links may lead to one another; the number is Linux'.
const MOST_LINKS: usize = 40;
/// Two writes within this time, in seconds, may leave the same time of change in a file's metadata: the
/// coarsest clock of a file system goes in such steps.
const CLOCK_STEP: i64 = 2;
/// The endings of the names beside `flags.json`.
const LOCK: &str = ".lock";
const STATE: &str = ".state";
const TEMPORARY: &str = ".new-";
const UNREADABLE: &str = ".state.unreadable";

/// Where `flags.json` is, and where everything beside it goes.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The path as it was given, which may lead elsewhere.
    given: PathBuf,
    /// The file itself. What stands beside it is found from whichever path it is opened by.
    flags: PathBuf,
}

/// What a file looks like from outside. Another stamp means that it may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
    /// The file was written so shortly before that another write may leave the same stamp.
    is_fresh: bool,
}

/// What was read.
pub(super) struct Text {
    /// All of it. Digests and copies are of these bytes.
    pub(super) text: String,
    pub(super) stamp: Stamp,
}

impl Text {
    /// The text without the byte order mark that some editors put before it, which JSON does not know.
    pub(super) fn json(&self) -> &str {
        self.text.strip_prefix('\u{feff}').unwrap_or(&self.text)
    }
}

impl Files {
    /// Finds the file that a path names, whether it is there or not.
    ///
    /// # Errors
    /// A sentence that names the path.
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

    /// The path of the file beside `flags.json` whose name has this ending more.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.flags.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        self.flags.with_file_name(name)
    }

    /// Makes sure that no other process uses these files, for as long as the result lives. The lock is
    /// a file of its own, since every write replaces `flags.json`.
    ///
    /// # Errors
    /// A sentence that names the file and, if possible, the other process.
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

    /// Whether `flags.json` is still what was read with this stamp. What cannot be told counts as no.
    pub(super) fn is_unchanged(&self, seen: &Stamp) -> bool {
        !seen.is_fresh
            && std::fs::metadata(&self.given).is_ok_and(|now| Stamp::of(&now).is_same(seen))
    }

    /// What `flags.json` looks like now. It may have been written a moment ago, so the next look reads
    /// it.
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
    /// A sentence that names the file.
    pub(super) fn read(&self) -> Result<Text, String> {
        let explain = |error: &dyn Display| cannot("read", &self.given, error);
        let now = resolve(&self.given).map_err(|error| explain(&error))?;
        if now != self.flags {
            return Err(explain(&format!(
                "it leads to {} since the server has started, and led to {} before; start the \
                 server again",
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
            // From before reading: whatever is written meanwhile makes another stamp.
            stamp: Stamp::of(&metadata),
        })
    }

    /// Writes a text into a new file beside `flags.json` that can take its place: with its mode and
    /// its owner. Where there is no `flags.json` yet, the process decides on both.
    ///
    /// # Errors
    /// A sentence that names `flags.json`.
    pub(super) fn write_temporary(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.beside(&format!("{TEMPORARY}{}", unique_id()));
        let like = std::fs::metadata(&self.flags).ok();
        write_new(&path, text.as_bytes(), like.as_ref()).map_err(|error| {
            let _not_there = std::fs::remove_file(&path);
            cannot("write", &self.flags, &error)
        })?;
        Ok(path)
    }

    /// Puts a new `flags.json` where there is none.
    ///
    /// # Errors
    /// A sentence that names it.
    pub(super) fn create(&self, text: &str) -> Result<(), String> {
        let temporary = self.write_temporary(text)?;
        let created = std::fs::rename(&temporary, &self.flags).and_then(|()| self.sync_folder());
        created.map_err(|error| {
            let _not_there = std::fs::remove_file(&temporary);
            cannot("write", &self.flags, &error)
        })
    }

    /// Lets a file written by [`Self::write_temporary`] take the place of `flags.json`, which should
    /// have the digest `replaces`. If it was another one, because somebody has edited it at this
    /// moment, that is kept, and its path is the answer.
    ///
    /// # Errors
    /// A sentence that names the file; then nothing was replaced.
    pub(super) fn replace(
        &self,
        temporary: &Path,
        replaces: &str,
    ) -> Result<Option<PathBuf>, String> {
        let explain = |error: &dyn Display| cannot("replace", &self.flags, error);
        // The two change places, so that what was there can be looked at: a look beforehand would
        // miss what is written between the look and the replacement.
        match renameat_with(CWD, temporary, CWD, &self.flags, RenameFlags::EXCHANGE) {
            Ok(()) => {
                // It is done, whether or not a power cut could undo it.
                let _undone = self.sync_folder();
                Ok(self.settle(temporary, replaces))
            }
            // A file system that has no such operation.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                if digest_of_file(&self.flags).as_deref() != Some(replaces) {
                    return Err(explain(&"it was edited at this moment"));
                }
                std::fs::rename(temporary, &self.flags)
                    .and_then(|()| self.sync_folder())
                    .map_err(|error| explain(&error))?;
                Ok(None)
            }
            Err(error) => Err(explain(&error)),
        }
    }

    /// Does away with what a replacement has left under the name of the temporary file; keeps it when
    /// it is not what was meant to be replaced.
    pub(super) fn settle(&self, left: &Path, replaces: &str) -> Option<PathBuf> {
        if digest_of_file(left).as_deref() == Some(replaces) {
            // If it stays, the next start removes it.
            let _stays = std::fs::remove_file(left);
            return None;
        }
        let kept = self.free_name(".conflict");
        // Whoever is still writing into it goes on doing so under its new name.
        Some(match std::fs::rename(left, &kept) {
            Ok(()) => kept,
            Err(_) => left.to_owned(),
        })
    }

    /// Keeps a copy of `flags.json`, unless an earlier copy is the same.
    ///
    /// # Errors
    /// A sentence that names the copy.
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

    /// Keeps bytes of the state file that cannot be read in a file of their own.
    ///
    /// # Errors
    /// A sentence that names the copy.
    pub(super) fn keep_unreadable(&self, bytes: &[u8]) -> Result<PathBuf, String> {
        let path = self.free_name(UNREADABLE);
        write_new(&path, bytes, None).map_err(|error| cannot("write", &path, &error))?;
        self.give_to_owner(&path);
        Ok(path)
    }

    /// The copies made by [`Self::keep_unreadable`] that nobody has removed yet.
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

    /// The first name with this ending that nobody has: `.bak`, `.bak.2`, `.bak.3`, ...
    fn free_name(&self, ending: &str) -> PathBuf {
        let taken = |path: &PathBuf| path.symlink_metadata().is_ok();
        let mut path = self.beside(ending);
        let mut number: u32 = 2;
        while taken(&path) {
            path = self.beside(&format!("{ending}.{number}"));
            number = number.saturating_add(1);
        }
        path
    }

    /// The temporary file of this name, if it is one of ours and there.
    pub(super) fn temporary(&self, name: &str) -> Option<PathBuf> {
        let path = self.flags.with_file_name(name);
        (self.is_temporary(OsStr::new(name)) && path.is_file()).then_some(path)
    }

    /// Removes the temporary files that a process before has left behind.
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

    /// Replaces the state file, or creates it. Only its owner can read it.
    ///
    /// # Errors
    /// A sentence that names it.
    pub(super) fn write_state(&self, text: &str) -> Result<(), String> {
        let path = self.state();
        let temporary = self.beside(&format!("{STATE}{TEMPORARY}{}", unique_id()));
        let written = write_new(&temporary, text.as_bytes(), None).and_then(|()| {
            self.give_to_owner(&temporary);
            std::fs::rename(&temporary, &path)?;
            self.sync_folder()
        });
        written.map_err(|error| {
            let _not_there = std::fs::remove_file(&temporary);
            cannot("write", &path, &error)
        })
    }

    /// A server that root has started on somebody's file leaves files that this person can use.
    fn give_to_owner(&self, path: &Path) {
        if let Ok(owner) = std::fs::metadata(&self.flags) {
            let _stays = chown(path, Some(owner.uid()), Some(owner.gid()));
        }
    }

    /// Makes new names last: a power cut must not bring the replaced file back.
    fn sync_folder(&self) -> io::Result<()> {
        File::open(folder_of(&self.flags))?.sync_all()
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
        let what = |stamp: &Self| (stamp.file, stamp.modified, stamp.changed, stamp.length);
        what(self) == what(other)
    }
}

/// Appends to a file that has this length, and makes it last if `lasting`. A failure leaves the file as
/// it was.
///
/// # Errors
/// What the file system says; or that the file has another length.
pub(super) fn append(path: &Path, length: u64, text: &str, lasting: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let there = file.metadata()?.len();
    if there < length {
        return Err(io::Error::other(
            "another program has changed it; start the server again",
        ));
    }
    // What a write that failed has left.
    file.set_len(length)?;
    let written = file
        .seek(SeekFrom::Start(length))
        .and_then(|_| file.write_all(text.as_bytes()))
        .and_then(|()| if lasting { file.sync_data() } else { Ok(()) });
    written.inspect_err(|_| {
        let _next_time = file.set_len(length);
    })
}

/// Leaves a file to its owner alone.
///
/// # Errors
/// What the file system says.
pub(super) fn keep_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Cuts a file off.
///
/// # Errors
/// What the file system says.
pub(super) fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_data()
}

/// The SHA-256 of a text, in hexadecimal.
pub(super) fn digest(text: &[u8]) -> String {
    use std::fmt::Write;
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        let _never_fails = write!(digits, "{byte:02x}");
    }
    digits
}

pub(super) fn digest_of_file(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|content| digest(&content))
}

/// A sentence about a file.
pub(super) fn cannot(what: &str, path: &Path, error: &dyn Display) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// Writes a new file with the mode and the owner of another one, or for its owner only.
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

/// Follows symbolic links to the last name, which need not be there.
fn resolve(given: &Path) -> io::Result<PathBuf> {
    let mut path = given.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(target) = std::fs::read_link(&path) {
            path = folder_of(&path).join(target);
        } else {
            let name = path
                .file_name()
                .ok_or_else(|| io::Error::other("it names no file"))?;
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
