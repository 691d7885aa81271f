//! The published OpenFeature clients, run as programs from tests/clients. `scripts/tools` installs their
//! dependencies.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::TIME_LIMIT;
use crate::process::find_program;

/// A client that requests one flag at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// npm `@openfeature/ofrep-provider`.
    Node,
    /// The Python package `openfeature-provider-ofrep`.
    Python,
    /// crates.io `open-feature-ofrep`.
    Rust,
}

/// An evaluation for a client to request.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// `boolean`, `string`, `integer`, `float` or `object`.
    pub kind: &'static str,
    /// The flag.
    pub key: &'static str,
    /// The application's default.
    pub fallback: Value,
    /// The context, including the targeting key.
    pub context: Value,
}

impl Client {
    /// All clients of this kind.
    pub const ALL: [Self; 3] = [Self::Node, Self::Python, Self::Rust];

    /// Runs the client as a program and returns its result for each evaluation.
    pub async fn evaluate(
        self,
        base: &str,
        api_key: &str,
        evaluations: &[Evaluation],
    ) -> Vec<Value> {
        let requested = evaluations.iter().map(|evaluation| {
            json!({
                "type": evaluation.kind,
                "key": evaluation.key,
                "fallback": evaluation.fallback,
                "context": evaluation.context,
            })
        });
        let job = json!({
            "base": base,
            "headers": { "Authorization": format!("Bearer {api_key}") },
            "evaluations": requested.collect::<Vec<Value>>(),
        });
        let mut command = tokio::process::Command::from(self.command());
        command.arg(job.to_string()).kill_on_drop(true);
        let output = tokio::time::timeout(3 * TIME_LIMIT, command.output())
            .await
            .unwrap_or_else(|_| panic!("{self:?} does not end"))
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(line) = text.lines().rfind(|line| line.starts_with('[')) else {
            panic!("{self:?} printed {text:?}; {errors}");
        };
        let results: Vec<Value> = serde_json::from_str(line).expect("JSON");
        assert_eq!(results.len(), evaluations.len(), "{self:?}: {errors}");
        results
    }

    fn command(self) -> Command {
        match self {
            Self::Node => node("server.cjs"),
            Self::Python => {
                let mut command = Command::new(tools().join("openfeature-python/bin/python"));
                command.arg(programs().join("python/client.py"));
                command
            }
            Self::Rust => Command::new(rust()),
        }
    }
}

/// The client for browsers (npm `@openfeature/ofrep-web-provider`), which reads all flags for one context and
/// polls.
pub struct WebClient {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl WebClient {
    /// Starts the program with this job, whose format tests/clients/node/web.cjs describes.
    pub fn start(job: &Value) -> Self {
        let mut command = tokio::process::Command::from(node("web.cjs"));
        let mut process = command
            .arg(job.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let stdout = process.stdout.take().expect("piped");
        Self {
            _process: process,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Reads its next line of output.
    pub async fn next_message(&mut self) -> Value {
        let line = tokio::time::timeout(TIME_LIMIT, self.lines.next_line())
            .await
            .expect("the web client prints a line in time")
            .expect("it can be read")
            .expect("the web client prints a line before it ends");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder in which `scripts/tools` installs.
pub fn tools() -> PathBuf {
    root().join(".tools")
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn node(program: &str) -> Command {
    let bin = tools().join("bin");
    let folders = [bin.to_str().expect("text")];
    let advice = "`scripts/tools` installs it";
    let mut command = Command::new(find_program("node", &folders, advice));
    command
        .arg(programs().join("node").join(program))
        .env("NODE_PATH", tools().join("openfeature-node/node_modules"));
    command
}

fn rust() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build(&programs().join("rust"), "openfeature-client"))
}

/// Builds the Rust example and returns its path.
pub fn rust_example() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rust");
    build(&folder, "pennon-example")
}

/// Builds a Rust client. Each is its own workspace, so that its HTTP client and TLS library are not dependencies
/// of Pennon. The clients share a target folder because they share most crates.
fn build(workspace: &Path, program: &str) -> PathBuf {
    // target/<profile>/deps/it-<hash>
    let own = std::env::current_exe().expect("a path");
    let target = own.ancestors().nth(3).expect("a target folder");
    let target = target.join("openfeature-client");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{program} does not build");
    target.join("debug").join(program)
}
