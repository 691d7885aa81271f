//! Writes the generated files: `template.yaml` and the table of routes in the documents.

mod blocks;
mod functions;
mod routes;
mod table;
mod template;

use std::path::Path;

/// A generated file.
pub struct Generated {
    /// The path from the root of the repository.
    pub path: &'static str,
    /// The text.
    pub text: String,
}

/// Generates the files of a repository.
///
/// # Errors
///
/// The first mistake in the sources, with its file.
pub fn generated(root: &Path) -> Result<Vec<Generated>, String> {
    let template = Generated {
        path: "template.yaml",
        text: template::template(root)?,
    };
    let routes = Generated {
        path: table::PATH,
        text: table::routes(&read(root, table::PATH)?)?,
    };
    Ok(vec![template, routes])
}

/// Writes the generated files.
///
/// # Errors
///
/// The first mistake in the sources, or a file that cannot be written.
pub fn generate(root: &Path) -> Result<(), String> {
    for Generated { path, text } in generated(root)? {
        std::fs::write(root.join(path), text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// Compares the generated files with those in the repository.
///
/// # Errors
///
/// The names of the files that differ, or the first mistake in the sources.
pub fn check(root: &Path) -> Result<(), String> {
    let mut different = Vec::new();
    for Generated { path, text } in generated(root)? {
        if read(root, path).is_ok_and(|found| found == text) {
            continue;
        }
        different.push(path);
    }
    if different.is_empty() {
        return Ok(());
    }
    let files = different.join(", ");
    Err(format!(
        "run `cargo xtask generate`; these files differ from its output: {files}"
    ))
}

fn read(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A copy of the sources in a new folder.
    fn copy(name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let to = std::env::temp_dir().join(format!("pennon-xtask-{name}-{}", std::process::id()));
        for folder in ["infra", "infra/blocks"] {
            std::fs::create_dir_all(to.join(folder)).expect("a folder");
            for entry in std::fs::read_dir(root.join(folder)).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let file = path.file_name().expect("a name");
                    std::fs::copy(&path, to.join(folder).join(file)).expect("copied");
                }
            }
        }
        std::fs::create_dir_all(to.join("docs")).expect("a folder");
        std::fs::copy(root.join(table::PATH), to.join(table::PATH)).expect("copied");
        to
    }

    fn change(root: &Path, path: &str, from: &str, to: &str) {
        let text = read(root, path).expect("text");
        assert!(text.contains(from), "{path} does not contain {from:?}");
        std::fs::write(root.join(path), text.replacen(from, to, 1)).expect("written");
    }

    #[test]
    fn a_file_that_differs_is_named_until_it_is_generated() {
        let root = copy("differs");
        let problem = check(&root).expect_err("no template yet");
        assert_eq!(
            problem,
            "run `cargo xtask generate`; these files differ from its output: template.yaml"
        );
        generate(&root).expect("generated");
        assert_eq!(check(&root), Ok(()));
        change(
            &root,
            "template.yaml",
            "Handler: get-flag",
            "Handler: get-flags",
        );
        change(&root, table::PATH, "| admins |", "| nobody |");
        let problem = check(&root).expect_err("two changes");
        assert!(
            problem.ends_with(": template.yaml, docs/routes.md"),
            "{problem}"
        );
        generate(&root).expect("generated");
        assert_eq!(check(&root), Ok(()));
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_mistake_in_the_sources_is_reported_with_its_file() {
        let functions = "infra/functions.yaml";
        for (name, path, from, to, expected) in [
            (
                "gap",
                "infra/alarms.yaml",
                " name=latency",
                "",
                "infra/blocks/alarm.yaml: name= is missing",
            ),
            (
                "value",
                "infra/alarms.yaml",
                " periods=3",
                " period=3",
                "infra/blocks/alarm.yaml: periods= is missing",
            ),
            (
                "unknown",
                "infra/alarms.yaml",
                "# @alarm",
                "# @alert",
                "infra/blocks/alert.yaml: No such file",
            ),
            (
                "kind",
                functions,
                "kind=read",
                "kind=reader",
                "kind=reader is unknown",
            ),
            (
                "canary",
                functions,
                "canary=errors",
                "canary=error",
                "canary=error is unknown",
            ),
            (
                "after",
                functions,
                "after=reads",
                "after=read",
                "has no function \"read\"",
            ),
            (
                "typing",
                functions,
                "role=Count",
                "rule=Count",
                "rule= is unknown",
            ),
            (
                "heading",
                functions,
                "  GetFlagFunction:\n",
                "  GetFlag:\n",
                "not below   GetFlagFunction:",
            ),
            (
                "directive",
                functions,
                "name=list-flags short=list",
                "name=get-flag short=get",
                "get-flag is not below   GetFlagFunction:",
            ),
            (
                "short",
                functions,
                " short=get",
                "",
                "get-flag has no short=",
            ),
        ] {
            let root = copy(name);
            change(&root, path, from, to);
            let problem = check(&root).expect_err(name);
            assert!(problem.starts_with("infra/"), "{problem}");
            assert!(problem.contains(expected), "{problem}");
            std::fs::remove_dir_all(root).expect("removed");
        }
    }
}
