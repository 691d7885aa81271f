//! Generated flags and contexts, answered by flagd's two engines and by ours.
//!
//! `CONFORMANCE_SEED` repeats a run, `CONFORMANCE_CASES` makes it longer, `CONFORMANCE_LIST=1` shows
//! every case in which the two engines differ from each other. docs/targeting.md tells how such a
//! case is settled, and which differences stay.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use pennon_tests::oracle::{Answer, By, Oracle};
use pennon_tests::rules::{Author, Subject};
use serde_json::{Map, Value, json};

/// Enough for every operator to meet every kind of operand, within seconds.
const CASES: usize = 6_000;

/// Flags per file, contexts per flag: a process is asked a few times per file.
const FLAGS: u32 = 40;
const CONTEXTS: usize = 8;

struct Engines {
    node: Oracle,
    python: Oracle,
}

#[derive(Debug)]
struct Case<'a> {
    file: &'a Value,
    key: &'a str,
    context: &'a Value,
}

/// What the engines say about one case.
#[derive(Debug)]
struct Said {
    expected: Answer,
    /// What they said when they did not agree: JavaScript, Python.
    dissent: Option<(Answer, Answer)>,
}

#[derive(Default)]
struct Tally {
    cases: usize,
    dropped: usize,
    dissent: usize,
    with_javascript: usize,
    with_python: usize,
}

impl Engines {
    fn start() -> Self {
        Self {
            node: Oracle::node(),
            python: Oracle::python(),
        }
    }

    /// What every case of a file must be answered with.
    fn judge(&mut self, subject: Subject, file: &Value, cases: &[(&str, &Value)]) -> Vec<Said> {
        let mut ask = |oracle: &mut Oracle, by| oracle.answers(by, file, cases.iter().copied());
        let alone = |answers: Vec<Answer>| answers.into_iter().map(Said::alone).collect();
        match subject {
            Subject::FractionalV2 => alone(ask(&mut self.node, By::Flagd)),
            Subject::FractionalV3 => alone(ask(&mut self.python, By::Flagd)),
            Subject::Operators => {
                let node = ask(&mut self.node, By::Flagd);
                let python = ask(&mut self.python, By::Flagd);
                let reference = ask(&mut self.node, By::JsonLogic);
                node.into_iter()
                    .zip(python)
                    .zip(reference)
                    .map(|((node, python), reference)| {
                        if same(&node, &python) {
                            Said::alone(node)
                        } else {
                            Said {
                                expected: reference,
                                dissent: Some((node, python)),
                            }
                        }
                    })
                    .collect()
            }
        }
    }

    /// Gives flags the variants that their rules name, so that what a rule says can be compared.
    fn learn(&mut self, subject: Subject, file: &mut Value, cases: &[(&str, &Value)]) {
        let said = self.judge(subject, file, cases);
        for (said, (key, _)) in said.into_iter().zip(cases) {
            let more = said.dissent.map(|(one, other)| [one, other]);
            for answer in more.into_iter().flatten().chain([said.expected]) {
                let variants = file["flags"][*key]["variants"]
                    .as_object_mut()
                    .expect("variants");
                if let Some(name) = answer.unknown_variant
                    && is_name(&name)
                {
                    let value = match variants.values().next().expect("a variant") {
                        Value::Bool(_) => json!(variants.len() % 2 == 0),
                        Value::Number(_) => json!(variants.len()),
                        Value::Object(_) => json!({ "is": name }),
                        Value::Null | Value::String(_) | Value::Array(_) => json!(name),
                    };
                    variants.insert(name, value);
                }
            }
        }
    }
}

/// What flagd's schema lets be the name of a variant.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\n', '\r', '\u{2028}', '\u{2029}'])
}

impl Said {
    fn alone(expected: Answer) -> Self {
        Self {
            expected,
            dissent: None,
        }
    }
}

/// JavaScript writes 2.0 as 2.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, one)| other.get(name).is_some_and(|other| same_value(one, other)))
        }
        (one, other) => one == other,
    }
}

fn same(one: &Answer, other: &Answer) -> bool {
    let metadata = |answer: &Answer| answer.metadata.clone().map(Value::Object);
    one.variant == other.variant
        && one.reason == other.reason
        && one.error_code == other.error_code
        && match (&one.value, &other.value) {
            (Some(one), Some(other)) => same_value(one, other),
            (one, other) => one == other,
        }
        && match (metadata(one), metadata(other)) {
            (Some(one), Some(other)) => same_value(&one, &other),
            // The reference of JsonLogic knows none.
            (_, _) => true,
        }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn seed() -> u64 {
    number("CONFORMANCE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::from(now.expect("past 1970").subsec_nanos())
    })
}

fn compare(subject: Subject, share: usize) {
    let seed = seed();
    let cases = number("CONFORMANCE_CASES")
        .map_or(CASES, |cases| usize::try_from(cases).expect("few"))
        / share;
    eprintln!("CONFORMANCE_SEED={seed} {subject:?}: {cases} cases");
    let author = Author::new(seed, subject);
    let mut engines = Engines::start();
    let mut tally = Tally::default();
    let mut listed = String::new();
    while tally.cases < cases {
        let mut file = author.file(FLAGS);
        let (kept, dropped) = sorted_out(&mut engines.node, &mut file);
        tally.dropped += dropped.len();
        assert!(tally.dropped < 1000 + 3 * tally.cases);
        for key in dropped {
            if std::env::var("DROPS").is_ok() {
                eprintln!("DROP {}", key.1);
            }
        }
        let contexts: Vec<Value> = (0..kept.len() * CONTEXTS)
            .map(|_| author.context())
            .collect();
        let cases: Vec<(&str, &Value)> = kept
            .iter()
            .flat_map(|key| std::iter::repeat_n(key.as_str(), CONTEXTS))
            .zip(&contexts)
            .collect();
        engines.learn(subject, &mut file, &cases);
        for (said, (key, context)) in engines.judge(subject, &file, &cases).iter().zip(&cases) {
            tally.cases += 1;
            if let Some((node, python)) = &said.dissent {
                tally.dissent += 1;
                if same(node, &said.expected) {
                    tally.with_javascript += 1;
                } else if same(python, &said.expected) {
                    tally.with_python += 1;
                } else {
                    let _ = writeln!(
                        listed,
                        "{} {} {}\n   node {} py {} ref {}",
                        key,
                        file["flags"][*key]["targeting"],
                        context,
                        short(node),
                        short(python),
                        short(&said.expected)
                    );
                }
            }
        }
    }
    eprintln!("{listed}");
    eprintln!(
        "{} cases dropped {} dissent {} js {} py {}",
        tally.cases, tally.dropped, tally.dissent, tally.with_javascript, tally.with_python
    );
}

fn short(a: &Answer) -> String {
    format!("{:?}/{:?}", a.variant, a.error_code)
}

/// Takes out what flagd's schemas do not allow.
fn sorted_out(node: &mut Oracle, file: &mut Value) -> (Vec<String>, Vec<(String, Value)>) {
    let mut single = file.clone();
    // The schemas as published reject all metadata of a file; both engines read it.
    single.as_object_mut().expect("a file").remove("metadata");
    let flags = file["flags"].as_object_mut().expect("flags");
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut good = Map::new();
    for (key, flag) in std::mem::take(flags) {
        single["flags"] = json!({ key.as_str(): flag.clone() });
        if node.accepts(&single) {
            kept.push(key.clone());
            good.insert(key, flag);
        } else {
            dropped.push((key, flag));
        }
    }
    file["flags"] = good.into();
    (kept, dropped)
}

#[test]
fn operators() {
    compare(Subject::Operators, 2);
}
#[test]
fn v2() {
    compare(Subject::FractionalV2, 4);
}
#[test]
fn v3() {
    compare(Subject::FractionalV3, 4);
}
