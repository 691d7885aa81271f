//! A test certificate authority, and a server certificate signed by it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::{find_program, new_folder};

/// A folder with `ca.pem`, `server.pem` and `server.key`; the server certificate is for 127.0.0.1 only.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Creates the authority and the server certificate, both valid for two days.
    pub fn create() -> Self {
        let folder = new_folder("certificates");
        let openssl = |arguments: &[&str]| {
            let program =
                find_program("openssl", &[], "Install it with `apt-get install openssl`.");
            let output = Command::new(program)
                .args(arguments)
                .current_dir(&folder)
                .output()
                .expect("openssl runs");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let mut authority = vec!["req", "-x509", "-days", "2", "-subj", "/CN=Test authority"];
        authority.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
        authority.extend(key);
        openssl(&authority);
        let mut request = vec!["req", "-subj", "/CN=server", "-keyout", "server.key"];
        request.extend(["-out", "server.csr"]);
        request.extend(key);
        openssl(&request);
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("writes");
        openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ]);
        Self { folder }
    }

    /// The certificates that tests share unless they need their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(Self::create)
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}
