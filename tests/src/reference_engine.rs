//! flagd's own engines, as processes that answer a line of JSON for a line of JSON.
//!
//! The programs are in `tests/conformance`, what they run in `.tools` (put there by `scripts/tools`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::process::find_program;

/// One engine that answers.
#[derive(Debug)]
pub struct ReferenceEngine {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The result of an engine for one flag and one context.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    /// The value; none is the code's default.
    pub value: Option<Value>,
    /// The name of the variant.
    pub variant: Option<String>,
    /// Why.
    pub reason: String,
    /// What went wrong.
    pub error_code: Option<String>,
    /// The variant that the rule named and the flag does not have.
    pub unknown_variant: Option<String>,
    /// The flag's metadata over the file's; none with an error.
    pub metadata: Option<Map<String, Value>>,
}

/// The engine that the JavaScript program uses.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// flagd's engine.
    Flagd,
    /// The reference of `JsonLogic`, with flagd's operators.
    JsonLogic,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl ReferenceEngine {
    /// flagd's engine in JavaScript, the reference of `JsonLogic` and flagd's JSON Schemas.
    pub fn node() -> Self {
        // There only where the machine has none, or an old one.
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
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Self {
            process,
            questions,
            answers,
        }
    }

    fn ask(&mut self, question: &Value) -> Value {
        let questions = self.questions.as_mut().expect("open while it lives");
        writeln!(questions, "{question}").expect("the engine listens");
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the engine answers");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line:?} for {question}"));
        assert!(
            answer["failure"].is_null(),
            "{} for {question}",
            answer["failure"].as_str().unwrap_or_default()
        );
        answer
    }

    /// Its results for every case of a flagd file: a flag and a context.
    pub fn answers<'a>(
        &mut self,
        by: By,
        file: &Value,
        cases: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Vec<Response> {
        let cases: Vec<_> = cases
            .into_iter()
            .map(|(key, context)| json!({ "key": key, "context": context }))
            .collect();
        let by = match by {
            By::Flagd => "flagd",
            By::JsonLogic => "jsonlogic",
        };
        let answer = self.ask(&json!({ "flags": file, "cases": cases, "by": by }));
        let answers: Vec<Response> =
            serde_json::from_value(answer["answers"].clone()).expect("answers");
        assert_eq!(answers.len(), cases.len());
        answers
    }

    /// Whether flagd's JSON Schemas, and its check of the default variant, accept this file.
    pub fn accepts(&mut self, file: &Value) -> bool {
        self.ask(&json!({ "flags": file, "by": "schema" }))["valid"]
            .as_bool()
            .expect("yes or no")
    }
}

impl Drop for ReferenceEngine {
    fn drop(&mut self) {
        // Without questions the program ends.
        self.questions = None;
        let _ = self.process.wait();
    }
}
