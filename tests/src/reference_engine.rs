//! flagd's engines, as processes that exchange lines of JSON.
//!
//! The programs are in `tests/conformance`, their dependencies in `.tools` (installed by `scripts/tools`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::process::find_program;

/// A running engine.
#[derive(Debug)]
pub struct ReferenceEngine {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The result of an engine for one flag and one context.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    /// The value; `None` means the application's default.
    pub value: Option<Value>,
    /// The name of the variant.
    pub variant: Option<String>,
    /// The reason.
    pub reason: String,
    /// The error code.
    pub error_code: Option<String>,
    /// The name that the rule returned if the flag has no such variant.
    pub unknown_variant: Option<String>,
    /// The flag's metadata merged over the file's. `None` with an error, and always with [`Engine::JsonLogic`].
    pub metadata: Option<Map<String, Value>>,
}

/// The engine that the JavaScript program uses.
#[derive(Debug, Clone, Copy)]
pub enum Engine {
    /// flagd's engine.
    Flagd,
    /// The reference implementation of `JsonLogic`, with flagd's operators.
    JsonLogic,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl ReferenceEngine {
    /// flagd's engine in JavaScript, the reference implementation of `JsonLogic`, and flagd's JSON Schemas.
    pub fn node() -> Self {
        // `scripts/tools` installs Node only if the machine has none, or an old one.
        let tools = root().join(".tools/bin").display().to_string();
        let program = find_program("node", &[&tools], "Run `scripts/tools`, which installs it.");
        Self::start(&program, "tests/conformance/engine.mjs")
    }

    /// flagd's engine in Python.
    pub fn python() -> Self {
        let program = root().join(".tools/flagd-python/bin/python");
        assert!(program.exists(), "Run `scripts/tools`, which installs it.");
        Self::start(&program, "tests/conformance/engine.py")
    }

    fn start(program: &Path, script: &str) -> Self {
        let mut process = Command::new(program)
            .arg(root().join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self {
            process,
            input,
            output,
        }
    }

    fn request(&mut self, request: &Value) -> Value {
        let input = self.input.as_mut().expect("only drop closes the input");
        writeln!(input, "{request}").expect("the engine listens");
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the engine answers");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line:?} for {request}"));
        assert!(
            answer["failure"].is_null(),
            "{} for {request}",
            answer["failure"].as_str().unwrap_or_default()
        );
        answer
    }

    /// Evaluates cases of a flagd file: a flag and a context each.
    pub fn evaluate<'a>(
        &mut self,
        engine: Engine,
        file: &Value,
        cases: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Vec<Response> {
        let cases: Vec<_> = cases
            .into_iter()
            .map(|(key, context)| json!({ "key": key, "context": context }))
            .collect();
        let engine = match engine {
            Engine::Flagd => "flagd",
            Engine::JsonLogic => "jsonlogic",
        };
        let answer = self.request(&json!({ "flags": file, "cases": cases, "by": engine }));
        let results: Vec<Response> =
            serde_json::from_value(answer["answers"].clone()).expect("results");
        assert_eq!(results.len(), cases.len());
        results
    }

    /// Whether flagd's JSON Schemas, and its check of the default variant, accept this file.
    pub fn accepts(&mut self, file: &Value) -> bool {
        self.request(&json!({ "flags": file, "by": "schema" }))["valid"]
            .as_bool()
            .expect("yes or no")
    }
}

impl Drop for ReferenceEngine {
    fn drop(&mut self) {
        // The program ends when its input is closed.
        self.input = None;
        let _ = self.process.wait();
    }
}
