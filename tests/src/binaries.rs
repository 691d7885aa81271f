//! The binaries of the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a binary of the workspace, built from the current code. `PENNON_BINARIES` names a folder with binaries
/// that exist already, to measure those of another commit or profile.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(build);
    let path = folder.join(name);
    assert!(path.is_file(), "no binary {}", path.display());
    path
}

/// Builds all binaries, because `cargo test` builds only those of the package under test. Tests use debug builds;
/// benchmarks have a profile of their own and use release builds.
///
/// The tests' build also names the test targets: without them, the dependencies would have other features than in
/// `cargo test --workspace`, and half of them would be compiled a second time.
fn build() -> PathBuf {
    if let Some(folder) = std::env::var_os("PENNON_BINARIES") {
        return folder.into();
    }
    let own = std::env::current_exe().expect("a path");
    // target/<profile>/deps/it-<hash>
    let folder = own
        .parent()
        .and_then(Path::parent)
        .expect("a target folder");
    let (arguments, folder): (&[&str], _) = if folder.ends_with("debug") {
        (&["--bins", "--tests"], folder.to_owned())
    } else {
        (
            &["--bins", "--profile", "release"],
            folder.with_file_name("release"),
        )
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Cargo sets these variables for a test. Build scripts that watch them, such as ring's, would see a change and
    // rebuild half of the dependencies.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let built = command
        .args(["build", "--quiet", "--locked", "--workspace"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "cargo build failed");
    folder
}
