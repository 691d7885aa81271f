//! The AWS CLI accepts every `aws` command in docs/: operations, options, queries and parameters exist.
//!
//! Bash runs each document with a replacement for `aws` that records its arguments. The AWS CLI's own parser then
//! checks the recorded calls and sends nothing.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pennon_tests::TIME_LIMIT;
use pennon_tests::process::{new_folder, output_within};

use super::read;
use crate::tidy;

/// Records the number of its arguments and the arguments of each call, and prints one word.
const AWS: &str = "#!/bin/bash\nprintf '%s\\0' \"$#\" \"$@\" >>\"$CALLS\"\necho x\n";
/// These programs do nothing here: they would need a network, an installation or time.
const OTHERS: &str = "for name in cargo curl k6 git pip sleep redis-cli scripts/tools scripts/deploy \
    scripts/login scripts/set-parameter scripts/prune-versions psql pg_dump pg_restore; do eval \"$name() { :; }\"; done\n";
const CHECK: &str = include_str!("aws_commands.py");

/// The shell commands of a document: its `sh` blocks, and code spans that are whole `aws` commands.
fn script(document: &str) -> String {
    let mut script = OTHERS.to_owned();
    for (number, part) in document.split("```").enumerate() {
        if number % 2 == 1 {
            script.push_str(part.strip_prefix("sh\n").unwrap_or_default());
            continue;
        }
        let spans = part.split('`').skip(1).step_by(2);
        for span in spans.filter(|it| it.starts_with("aws ")) {
            script.push_str(&span.replace('\n', " "));
            script.push('\n');
        }
    }
    script
}

/// The `aws <service> <operation>` of a text.
fn operations(script: &str) -> BTreeSet<(String, String)> {
    let words: Vec<&str> = script
        .split(|letter: char| letter.is_whitespace() || "\"$();|".contains(letter))
        .filter(|word| !word.is_empty())
        .collect();
    let named = words.windows(3).filter(|words| words[0] == "aws");
    let named = named.filter(|words| !words[1].starts_with('-'));
    named
        .map(|words| (words[1].to_owned(), words[2].to_owned()))
        .collect()
}

/// The errors in the `aws` commands of documents, each with the name of its document. The AWS CLI starts once for all
/// documents, because each start takes half a second.
fn errors(documents: &[(String, String)]) -> Vec<String> {
    let folder = new_folder("commands");
    let mut found = Vec::new();
    for (name, document) in documents {
        let script = script(document);
        let recorded = record(&folder.join(name), &script);
        for (service, operation) in operations(&script) {
            let ran = recorded
                .iter()
                .any(|call| call.first() == Some(&service) && call.get(1) == Some(&operation));
            if !ran {
                found.push(format!("{name}: aws {service} {operation}: was not run"));
            }
        }
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/awscli/bin/python");
    // `scripts/tools` installs it.
    let mut check = Command::new(python);
    let names = documents.iter().map(|(name, _)| name);
    let checked = output_within(
        check.args(["-c", CHECK]).args(names).current_dir(&folder),
        9 * TIME_LIMIT,
    );
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let problems = String::from_utf8_lossy(&checked.stdout).into_owned();
    found.extend(problems.lines().map(str::to_owned));
    let _already_gone = std::fs::remove_dir_all(&folder);
    found
}

/// Runs a script in this folder and returns its calls of `aws`, which it writes into the file `calls`.
fn record(folder: &Path, script: &str) -> Vec<Vec<String>> {
    let programs = folder.join("bin");
    std::fs::create_dir_all(&programs).expect("a folder");
    let aws = programs.join("aws");
    std::fs::write(&aws, AWS).expect("writes");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&aws, executable).expect("sets");
    let calls = folder.join("calls");
    std::fs::write(&calls, "").expect("writes");
    std::fs::write(folder.join("script"), script).expect("writes");
    let mut bash = Command::new("bash");
    bash.arg("script")
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .env("CALLS", &calls);
    let output = output_within(&mut bash, 3 * TIME_LIMIT);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("syntax error"), "{stderr}");
    let text = std::fs::read_to_string(&calls).expect("reads");
    let mut parts = text.split_terminator('\0');
    let mut recorded = Vec::new();
    while let Some(count) = parts.next() {
        let count = count.parse().expect("a number of arguments");
        recorded.push(parts.by_ref().take(count).map(str::to_owned).collect());
    }
    recorded
}

#[test]
fn the_aws_cli_accepts_every_command_of_the_documents() {
    let documents = tidy::documents()
        .into_iter()
        .map(|name| (name.clone(), read(&name)));
    let documents: Vec<_> = documents
        .filter(|(_, text)| !operations(&script(text)).is_empty())
        .collect();
    assert!(documents.len() >= 10, "{} documents", documents.len());
    assert_eq!(errors(&documents), [""; 0]);
}

#[test]
fn a_command_that_the_aws_cli_rejects_is_found() {
    let mistakes = [
        ("aws elasticache describe-snapshot", "Invalid choice"),
        (
            "aws rds describe-db-instances --db-name x",
            "Unknown options",
        ),
        (
            "aws rds describe-db-instances --query 'a['",
            "Bad value for --query",
        ),
        (
            "aws logs start-query --query-string x",
            "arguments are required",
        ),
        (
            "aws ec2 describe-subnets --filters Name=vpc-id,Value=x",
            "Unknown parameter",
        ),
        ("false && aws sts get-caller-identity", "was not run"),
    ];
    let documents: Vec<_> = mistakes
        .iter()
        .enumerate()
        .map(|(number, (command, _))| (number.to_string(), format!("```sh\n{command}\n```")))
        .collect();
    let mut found = errors(&documents);
    found.sort();
    assert_eq!(found.len(), mistakes.len(), "{found:?}");
    for (number, (command, problem)) in mistakes.into_iter().enumerate() {
        let line = &found[number];
        let is_found = line.starts_with(&format!("{number}: ")) && line.contains(problem);
        assert!(is_found, "{command}: {line}");
    }
}
