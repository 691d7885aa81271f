//! The documents about deploying and operating name only things that exist, and describe every alarm.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::yaml::parse;
use super::{read, stack::text};

const DOCUMENTS: [&str; 10] = [
    "docs/deployment/cache-users.md",
    "docs/deployment/first-deploy.md",
    "docs/deployment/canary.md",
    "docs/deployment/redis-cluster-migration.md",
    "docs/deployment/parameter-changes.md",
    "docs/infrastructure/security-groups.md",
    "docs/infrastructure/cost-monitoring.md",
    "docs/infrastructure/backup-and-restore.md",
    "docs/migration.md",
    "docs/operations.md",
];

/// The part of an alarm's name that is the same in every stack and for every version:
/// `${AWS::StackName}-get-flag-v${…}-latency` is `get-flag-v…-latency`.
fn name_of(alarm: &str) -> String {
    let name = alarm.trim_start_matches("${AWS::StackName}-");
    match (name.find("${"), name.rfind('}')) {
        (Some(from), Some(to)) => format!("{}…{}", &name[..from], &name[to + 1..]),
        _ => name.to_owned(),
    }
}

#[test]
fn every_alarm_has_its_section_in_the_operations_manual_and_every_section_its_alarm() {
    let template = parse(&read("template.yaml"));
    let manual = read("docs/operations.md");
    let headings: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    let mut alarms = BTreeSet::new();
    for (id, resource) in template["Resources"].as_object().expect("resources") {
        if resource["Type"] != "AWS::CloudWatch::Alarm" {
            continue;
        }
        let name = name_of(text(&resource["Properties"]["AlarmName"]["Fn::Sub"]));
        assert!(!name.is_empty(), "{id} has no name");
        // The alarms of a rollout are the same for every function: <function>-v…-<kind>.
        let name = match name.split_once("-v…-") {
            Some((_, what)) => format!("<function>-v…-{what}"),
            None => name,
        };
        alarms.insert(name);
    }
    assert_eq!(alarms, headings);
}

/// The `aws` commands that come before the region is set, and the commands that Linux or macOS does not have.
fn problems(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut region = false;
    for block in document.split("```").skip(1).step_by(2) {
        let Some(commands) = block.strip_prefix("sh\n") else {
            continue;
        };
        for line in commands.lines().map(str::trim) {
            region |= line.contains("export AWS_REGION=");
            let mut commands = line.split(['(', ';', '|', '&']).map(str::trim);
            if commands.any(|it| it.starts_with("aws ")) && !region {
                found.push(format!("no region yet: {line}"));
            }
            if line.contains("date -d") || line.starts_with("open ") {
                found.push(format!("not on every system: {line}"));
            }
        }
    }
    found
}

#[test]
fn the_commands_of_the_documents_have_a_region_and_run_on_linux_and_macos() {
    for document in DOCUMENTS {
        assert_eq!(problems(&read(document)), [""; 0], "{document}");
    }
    let planted = "```sh\nx=$(aws logs x)\ncat x | aws logs y\nexport AWS_REGION=r\naws y --since $(date -d '-1 hour')\nopen z\n```";
    let wanted = [
        "no region yet: x=$(aws logs x)",
        "no region yet: cat x | aws logs y",
        "not on every system: aws y --since $(date -d '-1 hour')",
        "not on every system: open z",
    ];
    assert_eq!(problems(planted), wanted);
}

/// Checks the words of the documents that look like a path of this project or a parameter, outputs and links.
#[test]
fn everything_that_the_documents_name_exists() {
    let template = parse(&read("template.yaml"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = [
        "scripts/",
        "docs/",
        "functions/",
        "crates/",
        "events/",
        "load/",
        "tests/",
    ];
    let exists_in = |section: &str, name: &str| !template[section][name].is_null();
    for document in DOCUMENTS {
        let manual = read(document);
        let mut parameters = 0;
        for word in
            manual.split(|letter: char| letter.is_whitespace() || "`\"'()[]|,;<>".contains(letter))
        {
            let word = word.trim_end_matches(['.', ':']);
            if folders.iter().any(|folder| word.starts_with(folder)) {
                let path = word.split('#').next().unwrap_or_default();
                assert!(root.join(path).exists(), "{document}: {word}");
            }
            if let Some((name, value)) = word.split_once('=')
                && name.starts_with(|first: char| first.is_ascii_uppercase())
                && name.chars().all(|letter| letter.is_ascii_alphanumeric())
                && name.chars().any(|letter| letter.is_ascii_lowercase())
                && ![
                    "Feature",
                    "Service",
                    "Stage",
                    "Name",
                    "Values",
                    "Key",
                    "Value",
                    "Type",
                    "Unit",
                    "Status",
                    "Enabled",
                    "TagKey",
                    "ResourceType",
                    "Tags",
                    "Start",
                    "End",
                    "AdditionalVersionWeights",
                ]
                .contains(&name)
            {
                parameters += 1;
                assert!(
                    exists_in("Parameters", name),
                    "{document}: no parameter {name}"
                );
                let allowed = template["Parameters"][name]["AllowedValues"].as_array();
                let fits = |allowed: &Vec<Value>| {
                    allowed
                        .iter()
                        .any(|it| it == value || *it == value.parse::<u64>().unwrap_or(u64::MAX))
                };
                assert!(
                    value.contains('…') || value.starts_with('$') || allowed.is_none_or(fits),
                    "{document}: {word}"
                );
            }
        }
        for output in manual.split("output `").skip(1) {
            let output = output.split('`').next().unwrap_or_default();
            assert!(
                exists_in("Outputs", output),
                "{document}: no output {output}"
            );
        }
        assert!(
            parameters > 0 || !document.contains("migration"),
            "{document} names no parameter"
        );
        for link in manual.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.starts_with("http") {
                let path = root.join(document).parent().expect("a folder").join(link);
                assert!(path.exists(), "{document}: {link}");
            }
        }
    }
}

const PARAMETER_CHANGES: &str = include_str!("parameter_changes.py");

/// The effect of each parameter's change on resources, for each template, according to the schemas of `CloudFormation`.
fn parameter_changes(templates: &[&str]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut python = Command::new(root.join(".tools/sam/bin/python"))
        .args(["-c", PARAMETER_CHANGES])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("aws-sam-cli in .tools; `scripts/tools` installs it");
    let mut input = python.stdin.take().expect("piped");
    let templates = json!(templates).to_string();
    input.write_all(templates.as_bytes()).expect("writes");
    drop(input);
    let output = python.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What the table of dangerous changes lacks: parameters, and in their rows resources or the word "deleted".
fn left_out(changes: &Value, document: &str) -> Vec<String> {
    let rows: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let mut found = Vec::new();
    for (parameter, change) in changes.as_object().expect("an object") {
        let name = format!("`{parameter}`");
        let names_it = |row: &&&str| {
            row.split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(&name))
        };
        let Some(row) = rows.iter().find(names_it) else {
            found.push(format!("{parameter} is not in the table"));
            continue;
        };
        for replaced in change["replaced"].as_array().into_iter().flatten() {
            if !row.contains(&format!("`{}`", text(replaced))) {
                found.push(format!("{parameter} replaces {}", text(replaced)));
            }
        }
        if !change["exists"].is_null() && !row.contains("deleted") {
            found.push(format!("{parameter} creates and deletes resources"));
        }
    }
    found
}

#[test]
fn every_parameter_that_replaces_or_deletes_something_is_in_the_table_of_dangerous_ones() {
    let template = read("template.yaml");
    let document = read("docs/deployment/parameter-changes.md");
    // Two mistakes: a parameter determines another property that cannot be changed, or whether a resource exists.
    let replacing = template.replace(
        "      DBName: pennon\n",
        "      DBName: !Ref CacheKeyPrefix\n",
    );
    let creating = template.replace(
        "  DatabaseStorageAlarm:\n    Type: AWS::CloudWatch::Alarm\n    Condition: CreateDatabase\n",
        "  DatabaseStorageAlarm:\n    Type: AWS::CloudWatch::Alarm\n    Condition: LimitConcurrency\n",
    );
    let [committed, replacing, creating] =
        &parameter_changes(&[&template, &replacing, &creating])[..]
    else {
        panic!("the changes of three templates");
    };
    assert_eq!(left_out(committed, &document), [""; 0]);
    let parameters = &parse(&template)["Parameters"];
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let first = row.split('|').nth(1).expect("a cell");
        for name in first.split('`').skip(1).step_by(2) {
            assert!(!parameters[name].is_null(), "no parameter {name}");
        }
    }

    let without = document.replace("| `VpcCidr` |", "| `Stage` |");
    assert_eq!(
        left_out(committed, &without),
        ["VpcCidr is not in the table"]
    );
    assert_eq!(
        left_out(replacing, &document),
        ["CacheKeyPrefix replaces Database"]
    );
    let wanted = ["ReservedConcurrency creates and deletes resources"];
    assert_eq!(left_out(creating, &document), wanted);
}
