//! Rules of this repository that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pennon_core::http::{self, ENDPOINTS};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder, with its path from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .expect("inside")
                    .display()
                    .to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    found
}

/// A file without the test modules at its end. Other items that only tests use, such as `mod tests;`, may stand between
/// items of the program, so they are kept.
fn without_test_modules(text: &str) -> &str {
    let mut modules = text.match_indices("\n#[cfg(test)]\nmod ");
    let begins_block = |(at, begin): &(usize, &str)| {
        let declaration = text[at + begin.len()..].lines().next();
        declaration.is_some_and(|line| line.ends_with('{'))
    };
    let first = modules.find(begins_block);
    first.map_or(text, |(at, _)| &text[..at])
}

/// The names of all functions, as in the template.
pub(crate) fn functions() -> BTreeSet<String> {
    let modules = read("functions/src/lib.rs");
    let names = modules
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(|name| name.replace('_', "-")).collect()
}

#[test]
fn each_vendor_is_used_in_one_place() {
    let homes = [
        ("fred::", "crates/pennon-core/src/cache/client.rs"),
        ("tokio_postgres", "crates/pennon-core/src/store/"),
        ("aws_sigv4", "crates/pennon-core/src/aws.rs"),
        ("hyper_", "crates/pennon-core/src/https"),
        ("ring::signature", "crates/pennon-core/src/token/keys.rs"),
        ("rustix", "crates/pennon-core/src/store/embedded/disk.rs"),
        ("std::env::", "crates/pennon-core/src/config/process.rs"),
    ];
    // A build script is not part of the program.
    let sources = sources("crates").into_iter().chain(sources("functions"));
    for (path, text) in sources.filter(|(path, _)| !path.ends_with("/build.rs")) {
        let code = without_test_modules(&text);
        for (vendor, home) in homes {
            let uses = code
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default())
                .any(|line| line.contains(vendor));
            assert!(
                !uses || path.starts_with(home),
                "{vendor} in {path}; its home is {home}"
            );
        }
    }
}

/// The top-level module of pennon-core that a file belongs to.
fn core_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("crates/pennon-core/src/")?;
    inside.split(['/', '.']).next()
}

#[test]
fn modules_of_pennon_core_do_not_import_each_other_in_a_circle() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let files = sources("crates/pennon-core/src");
    for (path, text) in &files {
        let module = core_module(path).expect("a module");
        let used = imports.entry(module.to_owned()).or_default();
        let code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        for line in code {
            assert!(
                !line.contains("crate::{"),
                "{path} imports several modules in one `use`: {line}"
            );
            let names = line.split("crate::").skip(1).map(|rest| {
                let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
                &rest[..end.unwrap_or(rest.len())]
            });
            used.extend(names.filter(|name| *name != module).map(str::to_owned));
        }
    }
    imports.remove("lib");
    // Items that lib.rs re-exports have no module of their own here.
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for used in imports.values_mut() {
        used.retain(|name| modules.contains(name));
    }
    while let Some(free) = imports.iter().find(|(_, used)| used.is_empty()) {
        let free = free.0.clone();
        imports.remove(&free);
        for used in imports.values_mut() {
            used.remove(&free);
        }
    }
    assert!(
        imports.is_empty(),
        "these modules import each other in a circle, or import from one: {imports:#?}"
    );
}

#[test]
fn evaluation_is_pure() {
    for (path, text) in sources("crates/pennon-eval/src") {
        for word in [
            "std::time",
            "std::fs",
            "std::net",
            "std::env",
            "tokio",
            "async fn",
        ] {
            assert!(!text.contains(word), "{word} in {path}");
        }
    }
    let manifest = read("crates/pennon-eval/Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).expect("a section");
    let dependencies = dependencies.split("\n[").next().expect("a section");
    for line in dependencies.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        assert!(
            ["serde", "serde_json", "sha2", "thiserror"].contains(&name),
            "pennon-eval depends on {name}"
        );
    }
}

#[test]
fn every_function_has_an_event_a_template_entry_and_a_row_in_the_routes_page() {
    let template = read("template.yaml");
    let routes = read("docs/routes.md");
    for function in functions() {
        let event = root().join(format!("events/{function}.json"));
        assert!(event.is_file(), "no file events/{function}.json");
        assert!(
            template.contains(&format!("Handler: {function}\n")),
            "template.yaml has no function {function}"
        );
        assert!(
            routes.contains(&format!("`{function}`")),
            "docs/routes.md does not name {function}"
        );
    }
}

/// A copy of the number would become wrong when one of the two changes.
#[test]
fn the_minimum_rust_version_is_stated_once() {
    let manifest = read("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("a version")
        .trim_matches('"');
    let mut files = documents();
    files.extend(PAGES.map(str::to_owned));
    files.extend(["rust-toolchain.toml", ".ci/run", "scripts/test"].map(str::to_owned));
    for (path, manifest) in manifests() {
        assert_eq!(manifest.matches(version).count(), 0, "{version} in {path}");
    }
    for path in files {
        assert!(!read(&path).contains(version), "{version} in {path}");
    }
}

/// The manifests of all crates, with their folders.
fn manifests() -> Vec<(String, String)> {
    let workspace = read("Cargo.toml");
    let list = |name: &str| {
        let rest = workspace.split_once(&format!("{name} = [")).expect(name).1;
        let inner = rest.split(']').next().expect("a list");
        let names = inner.split('"').skip(1).step_by(2);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut folders = Vec::new();
    for member in list("\nmembers").into_iter().chain(list("\nexclude")) {
        match member.strip_suffix("/*") {
            Some(folder) => {
                for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
                    let name = entry.expect("an entry").file_name();
                    folders.push(format!("{folder}/{}", name.display()));
                }
            }
            None => folders.push(member),
        }
    }
    folders.sort();
    let manifest = |folder: String| {
        let text = read(format!("{folder}/Cargo.toml"));
        (folder, text)
    };
    folders.into_iter().map(manifest).collect()
}

/// The dependencies of a manifest, of all kinds.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut is_dependencies = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependencies = line.ends_with("dependencies]");
        } else if is_dependencies && line.starts_with(|first: char| first.is_alphanumeric()) {
            names.insert(line.split(['.', ' ', '=']).next().expect("a name"));
        }
    }
    names
}

/// An unused dependency is compiled, audited and updated without need.
#[test]
fn every_dependency_is_used() {
    let manifests = manifests();
    for (folder, manifest) in &manifests {
        let other_crates = manifests.iter().map(|(other, _)| format!("{other}/"));
        let nested: Vec<String> = other_crates
            .filter(|other| {
                other.len() > folder.len() + 1 && other.starts_with(&format!("{folder}/"))
            })
            .collect();
        let sources: Vec<(String, String)> = sources(folder)
            .into_iter()
            .filter(|(path, _)| !nested.iter().any(|other| path.starts_with(other)))
            .collect();
        let names = dependencies(manifest);
        assert!(!names.is_empty(), "no dependencies found in {folder}");
        for name in names {
            let path = format!("{}::", name.replace('-', "_"));
            let is_named = |line: &str| {
                let code = line.split("//").next().unwrap_or_default();
                let mut places = code.match_indices(&path);
                places.any(|(at, _)| {
                    !code[..at].ends_with(|it: char| it.is_alphanumeric() || it == '_')
                })
            };
            let is_used = sources.iter().any(|(_, text)| text.lines().any(is_named));
            assert!(is_used, "{folder}/Cargo.toml: {name} is not used");
        }
    }
    let workspace = read("Cargo.toml");
    for name in dependencies(&workspace) {
        let line = format!("\n{name}.workspace = true");
        let is_used = manifests
            .iter()
            .any(|(_, manifest)| manifest.contains(&line));
        assert!(is_used, "Cargo.toml: no crate uses {name}");
    }
}

#[test]
fn the_readme_fits_on_two_screens() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "README.md has {lines} lines");
}

/// The README's costs are those of the cost page, which a test computes, in whole dollars.
#[test]
fn the_readme_has_the_costs_of_the_cost_page() {
    let rows = |text: &str, first: &str| -> Vec<Vec<String>> {
        let rows = text.lines().filter(|line| line.starts_with(first));
        rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect()
    };
    let page = read("docs/infrastructure/cost-monitoring.md");
    let readme = read("README.md");
    for (there, here) in [
        ("| idle |", "| idle |"),
        ("| small |", "| 100,000 requests a month |"),
        ("| 100 requests/s |", "| 100 requests a second |"),
    ] {
        let costs = rows(&page, there);
        let costs = costs.iter().map(|row| {
            let month: f64 = row[9].trim_matches('*').parse().expect("a number");
            format!("{month:.0}")
        });
        let shown = rows(&readme, here);
        assert_eq!(shown.len(), 1, "{here}");
        assert_eq!(costs.collect::<Vec<_>>(), shown[0][2..4], "{here}");
    }
}

/// The documents outside docs.
const PAGES: [&str; 7] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    ".github/pull_request_template.md",
    "examples/README.md",
    "infra/blocks/README.md",
];

/// Every document below docs, with its path from the root.
pub(crate) fn documents() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let path = path.strip_prefix(root()).expect("inside");
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_index_lists_every_document() {
    let index = read("docs/README.md");
    for document in documents() {
        let path = document.strip_prefix("docs/").expect("below docs");
        assert!(
            path == "README.md" || index.contains(&format!("({path})")),
            "docs/README.md does not list {document}"
        );
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .collect::<String>();
    kept.replace(' ', "-")
}

/// The files and headings that links name exist.
#[test]
fn links_between_documents_resolve() {
    let mut pages = documents();
    pages.extend(PAGES.map(str::to_owned));
    for page in pages {
        let folder = root().join(&page);
        let folder = folder.parent().expect("a folder");
        for link in read(&page).split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.starts_with("http") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                root().join(&page)
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{page}: no file for {link}");
            if !heading.is_empty() && target.extension().is_some_and(|it| it == "md") {
                let text = std::fs::read_to_string(&target).expect("text");
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(
                    anchors.any(|it| it == heading),
                    "{page}: no heading for {link}"
                );
            }
        }
    }
}

#[test]
fn every_route_has_a_function_an_event_in_the_template_and_a_row_in_the_routes_page() {
    let template = read("template.yaml");
    let routes = read("docs/routes.md");
    let functions = functions();
    for endpoint in ENDPOINTS.iter().chain(http::PAGES) {
        assert!(
            functions.contains(endpoint.function),
            "no module for the function {}",
            endpoint.function
        );
        let method = endpoint.method;
        for path in endpoint.paths() {
            let has_event = [method, "ANY"].iter().any(|method| {
                template.contains(&format!("Method: {method}\n            Path: {path}\n"))
            });
            assert!(has_event, "template.yaml has no event for {method} {path}");
        }
        let row = format!("| `{method} {}` |", endpoint.path);
        let has_row = routes.lines().any(|line| line.starts_with(&row));
        assert!(has_row, "docs/routes.md has no row {row}");
    }
}

#[test]
fn generated_files_are_current() {
    assert_eq!(xtask::check(&root()), Ok(()));
}

#[test]
fn a_bare_cargo_run_starts_the_local_server() {
    let manifest = read("crates/pennon-local/Cargo.toml");
    assert!(manifest.contains("\ndefault-run = \"pennon-local\"\n"));
    assert!(!read("functions/Cargo.toml").contains("default-run"));
    let workspace = read("Cargo.toml");
    let wanted = "\ndefault-members = [\"crates/*\", \"functions\"]\n";
    assert!(
        workspace.contains(wanted),
        "`sam build` finds no functions: it builds default members only"
    );
}

#[test]
fn every_setting_is_in_the_configuration_page() {
    let page = read("docs/configuration.md");
    let mut names = BTreeSet::new();
    for path in [
        "crates/pennon-core/src/config/reader.rs",
        "crates/pennon-local/src/settings.rs",
        "crates/pennon-extension/src/settings.rs",
    ] {
        let text = read(path);
        let code = without_test_modules(&text);
        names.extend(
            code.split('"')
                .filter(|word| {
                    word.len() > 3
                        && word
                            .chars()
                            .all(|letter| letter.is_ascii_uppercase() || letter == '_')
                })
                .map(str::to_owned),
        );
    }
    assert!(names.contains("REDIS_URL") && names.contains("PENNON_LISTEN"));
    for name in names {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/configuration.md does not explain {name}"
        );
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    let folders = ["crates", "functions", "xtask"].into_iter();
    for (path, text) in folders.flat_map(sources) {
        let lines = without_test_modules(&text).lines().count();
        assert!(lines <= 600, "{path} has {lines} lines");
    }
}

/// `cargo xtask generate` writes template.yaml. Its sources must stay short enough to read; repeated lines belong in
/// a block of infra/blocks.
#[test]
fn the_sources_of_the_template_stay_short_and_contain_no_ten_lines_three_times() {
    let mut total = 0;
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in ["infra", "infra/blocks"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let path = path.strip_prefix(root()).expect("inside").display();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() <= 900, "{path} has {} lines", lines.len());
            total += lines.len();
            for (at, ten) in shapes(&lines).windows(10).enumerate() {
                // A block ends where the next resource begins.
                if ten[1..].iter().all(|line| line.starts_with("   ")) {
                    let places = seen.entry(ten.join("\n")).or_default();
                    places.push(format!("{path}:{}", at + 1));
                }
            }
        }
    }
    assert!(total <= 2000, "infra has {total} lines");
    let repeated: Vec<_> = seen.iter().filter(|(_, places)| places.len() > 2).collect();
    assert!(repeated.is_empty(), "{repeated:#?}");
}

/// Lines without the parts in which copies of a block differ: references to resources, names and descriptions.
fn shapes(lines: &[&str]) -> Vec<String> {
    let shape = |line: &&str| {
        let named = ["Name: ", "Description: "]
            .iter()
            .find_map(|key| line.find(key));
        let line = &line[..named.unwrap_or(line.len())];
        let words = line.split(' ').map(|word| match word.find("${") {
            Some(at) => &word[..at],
            None => word,
        });
        let mut shape = String::new();
        let mut is_reference = false;
        for word in words {
            shape.push_str(if is_reference { "*" } else { word });
            shape.push(' ');
            is_reference = word.ends_with("!Ref") || word.ends_with("!GetAtt");
        }
        shape
    };
    lines.iter().map(shape).collect()
}

/// Without `--locked`, cargo updates an outdated `Cargo.lock` to versions that were not reviewed.
#[test]
fn scripts_build_with_the_lock_file() {
    let mut scripts = vec![".ci/run".to_owned()];
    let folder = std::fs::read_dir(root().join("scripts")).expect("a folder");
    for file in folder {
        let path = file.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str());
        if path.is_file() && path.extension().is_none() {
            scripts.push(format!("scripts/{}", name.expect("text")));
        }
    }
    assert!(read(".cargo/config.toml").contains("xtask = \"run --locked "));
    let mut calls = 0;
    for script in scripts {
        for line in read(&script).lines().map(str::trim) {
            // `fmt` builds nothing, the alias `xtask` has the option itself, and `need cargo "…"` calls nothing.
            let others = ["fmt", "xtask", "\""];
            let builds = |rest: &&str| !others.iter().any(|other| rest.starts_with(other));
            let commands = line.split("cargo ").skip(1).filter(builds).count();
            if commands > 0 && !line.starts_with('#') {
                calls += commands;
                let locked = line.matches("--locked").count();
                assert_eq!(locked, commands, "{script}: {line}");
            }
        }
    }
    assert!(calls >= 7, "only {calls} calls of cargo found");
}

/// A mere name, such as `cargo run`, is no command.
#[test]
fn commands_in_documents_build_with_the_lock_file() {
    let commands = ["run", "build", "test", "bench", "install", "clippy", "doc"];
    let mut found = 0;
    for path in documents().into_iter().chain(PAGES.map(str::to_owned)) {
        let text = read(&path);
        for (number, block) in text.split("```").enumerate() {
            let is_fenced = number % 2 == 1;
            let codes: Vec<&str> = if is_fenced {
                block.lines().collect()
            } else {
                block.split('`').skip(1).step_by(2).collect()
            };
            for code in codes {
                let is_command = commands.iter().any(|command| {
                    let words = format!("cargo {command}");
                    code.contains(&words) && (is_fenced || code != words)
                });
                if is_command {
                    found += 1;
                    assert!(code.contains("--locked"), "{path}: {code}");
                }
            }
        }
    }
    assert!(found > 30, "only {found} commands found");
}

/// Every installed Python package has a version and the hashes of its files, so that no other file is installed.
#[test]
fn python_packages_are_pinned_with_hashes() {
    let tools = read("scripts/tools");
    let installs = tools.lines().filter(|line| line.contains("pip install"));
    let installs: Vec<&str> = installs.collect();
    assert_eq!(
        installs.len(),
        2,
        "not one installation of uv and one by uv: {installs:?}"
    );
    for line in installs {
        assert!(line.contains("--require-hashes"), "no hashes: {line}");
    }
    for other in ["uvx", "uv tool", "pip sync"] {
        assert!(!tools.contains(other), "scripts/tools uses {other}");
    }
    let mut files = vec!["tests/clients/python/requirements".to_owned()];
    let folder = std::fs::read_dir(root().join("scripts")).expect("a folder");
    for file in folder {
        let path = file.expect("a file").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|it| it == "in") {
            files.push(format!("scripts/{}", stem.expect("text")));
        }
    }
    assert!(files.len() > 10);
    for file in files {
        let locked = read(format!("{file}.txt"));
        let wanted = read(format!("{file}.in"));
        for line in wanted.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['=', '[']).next().expect("a name");
            let version = line.rsplit("==").next().expect("a version");
            let pinned = |entry: &str| {
                let entry = entry.split([' ', ';']).next().unwrap_or_default();
                entry.split(['=', '[']).next() == Some(name)
                    && entry.ends_with(&format!("=={version}"))
            };
            assert!(locked.lines().any(pinned), "{line} is not in {file}.txt");
        }
        // An entry is a line without indentation, followed by the lines of its hashes.
        let mut unpinned = None;
        for line in locked
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            if line.starts_with(' ') {
                assert!(line.contains("--hash=sha256:"), "{file}: {line}");
                unpinned = None;
            } else {
                assert_eq!(unpinned, None, "{file}: no hash");
                assert!(line.contains("=="), "{file}: {line}");
                unpinned = Some(line);
            }
        }
        assert_eq!(unpinned, None, "{file}: no hash");
    }
}
