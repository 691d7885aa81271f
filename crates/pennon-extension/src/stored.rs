//! The last document in a file, for an instance that starts while the service does not answer.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pennon_core::config::Secret;
use pennon_core::hex::hex;
use pennon_core::id::unique_id;
use ring::hmac;

/// The extension of a temporary file starts with this.
const TEMPORARY: &str = "new-";
/// A temporary file that is older is abandoned: no write takes this long.
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);

/// A file with the last document and its tag.
///
/// Its first line is an HMAC of the rest with the sync key: a file that is damaged, was written with another key or
/// for another URL, or comes from another program, is ignored.
pub(crate) struct StoredDocument {
    path: PathBuf,
    url: String,
    key: hmac::Key,
}

impl StoredDocument {
    /// The file for this key and URL: several sidecars of a machine may share the folder, and even the file.
    pub(crate) fn new(folder: &Path, url: &str, key: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
        let name = hex(&hmac::sign(&key, url.as_bytes()).as_ref()[..8]);
        Self {
            path: folder.join(format!("pennon-extension-{name}.flags")),
            url: url.to_owned(),
            key,
        }
    }

    /// The document and its tag. `None` if there is no file that was written with the same key and URL.
    pub(crate) fn read(&self) -> Option<(String, Vec<u8>)> {
        let bytes = fs::read(&self.path).ok()?;
        let (mac, content) = split_line(&bytes)?;
        let (url, rest) = split_line(content)?;
        let (etag, document) = split_line(rest)?;
        if url != self.url.as_bytes() || mac != self.mac_of(content).as_bytes() {
            return None;
        }
        Some((String::from_utf8(etag.to_vec()).ok()?, document.to_vec()))
    }

    /// Replaces the file in one step: a reader sees the old document or the new one. Rules and overrides name people,
    /// so no other user may read the file, and a file or link that another user has put in its place is not followed. A
    /// failure is only logged, because no evaluation needs the file before the next start.
    pub(crate) fn write(&self, etag: &str, document: &[u8]) {
        let mut content = format!("{}\n{etag}\n", self.url).into_bytes();
        content.extend_from_slice(document);
        self.remove_abandoned();
        // Several processes may write the file at the same time.
        let new = self
            .path
            .with_extension(format!("{TEMPORARY}{}", unique_id()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            writeln!(file, "{}", self.mac_of(&content))?;
            file.write_all(&content)?;
            fs::rename(&new, &self.path)
        });
        if let Err(error) = written {
            let _may_not_exist = fs::remove_file(&new);
            let path = self.path.display();
            tracing::warn!(domain = "config", "cannot write {path}: {error}");
        }
    }

    /// Removes temporary files of processes that were killed while they wrote: each has the size of the document, and a
    /// Lambda function shares its temporary folder with the extension. Younger ones may still be written.
    fn remove_abandoned(&self) {
        let name = self.path.with_extension(TEMPORARY);
        let (Some(folder), Some(start)) = (name.parent(), name.file_name()) else {
            return;
        };
        let start = start.as_encoded_bytes();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_abandoned = || {
                let age = entry.metadata().ok()?.modified().ok()?.elapsed().ok()?;
                Some(age > MAX_WRITE_TIME)
            };
            if entry.file_name().as_encoded_bytes().starts_with(start)
                && is_abandoned() == Some(true)
            {
                let _may_not_exist = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes the file.
    pub(crate) fn remove(&self) {
        let _may_not_exist = fs::remove_file(&self.path);
    }

    fn mac_of(&self, content: &[u8]) -> String {
        hex(hmac::sign(&self.key, content).as_ref())
    }
}

/// The bytes before the first line feed, and those after it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_unchanged_file_of_the_same_key_and_url_is_read() {
        let folder = std::env::temp_dir().join(format!("pennon-stored-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let of = |url: &str, key: &str| StoredDocument::new(&folder, url, &Secret::new(key));
        let stored = of("https://a", "k");
        assert_eq!(stored.read(), None);
        stored.write("\"1\"", b"{\n}");
        let mode = fs::metadata(&stored.path).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o077, 0, "readable by others");
        assert_eq!(stored.read(), Some(("\"1\"".to_owned(), b"{\n}".to_vec())));
        assert_eq!(of("https://b", "k").read(), None);
        assert_eq!(of("https://a", "l").read(), None);
        let bytes = fs::read(&stored.path).expect("a file");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&stored.path, &changed).expect("written");
            assert_eq!(stored.read(), None, "byte {at}");
            fs::write(&stored.path, &bytes[..at]).expect("written");
            assert_eq!(stored.read(), None, "the first {at} bytes");
        }
        stored.write("\"2\"", b"{}");
        assert_eq!(stored.read(), Some(("\"2\"".to_owned(), b"{}".to_vec())));
        of("https://a", "l").remove();
        assert_ne!(stored.read(), None, "removed by a process with another key");
        stored.remove();
        assert_eq!(stored.read(), None);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_write_removes_abandoned_temporary_files_of_the_same_document() {
        let folder = std::env::temp_dir().join(format!("pennon-abandoned-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let of = |url: &str| StoredDocument::new(&folder, url, &Secret::new("k"));
        let temporary = |url: &str, id: &str, age: u64| {
            let path = of(url).path.with_extension(format!("{TEMPORARY}{id}"));
            let file = fs::File::create(&path).expect("a file");
            let written_at = std::time::SystemTime::now() - Duration::from_secs(age);
            file.set_modified(written_at).expect("dated");
            path
        };
        let abandoned = temporary("https://a", "1", 61);
        let young = temporary("https://a", "2", 0);
        let other = temporary("https://b", "1", 61);
        of("https://a").write("\"1\"", b"{}");
        let exist = [&abandoned, &young, &other].map(|path| path.exists());
        assert_eq!(exist, [false, true, true]);
        assert_ne!(of("https://a").read(), None);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn processes_that_write_the_same_file_at_once_leave_a_complete_document() {
        let folder = std::env::temp_dir().join(format!("pennon-written-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let of = || StoredDocument::new(&folder, "https://a", &Secret::new("k"));
        let document = vec![b'x'; 1_000_000];
        of().write("\"0\"", &document);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        of().write("\"1\"", &document);
                        let (_, read) = of().read().expect("a complete document");
                        assert_eq!(read.len(), document.len());
                    }
                });
            }
        });
        let files = fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(files, 1, "temporary files are left");
        // A process cannot replace a folder.
        of().remove();
        fs::create_dir(&of().path).expect("a folder");
        of().write("\"2\"", &document);
        let files = fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(files, 1, "temporary files of a failed write are left");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
