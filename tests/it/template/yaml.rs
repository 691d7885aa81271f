//! YAML with `CloudFormation`'s tags as JSON: `!Ref X` becomes `{"Ref": "X"}`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

/// Parses a template or another YAML file.
pub(crate) fn parse(text: &str) -> Value {
    let documents = Yaml::load_from_str(text).expect("YAML");
    assert_eq!(documents.len(), 1, "not exactly one document");
    convert(&documents[0])
}

/// Parses a template by entry: a parameter or a resource, for example. Planted mistakes change few entries of the
/// same template, so each distinct entry is parsed once.
pub(crate) fn parse_by_entry(text: &str) -> Value {
    let sections = entries(text, 0).into_iter().map(|section| {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        let Some(name) = heading.strip_suffix(':') else {
            return parse_once(section);
        };
        let body: Map<String, Value> = entries(body, 2).into_iter().flat_map(parse_once).collect();
        Map::from_iter([(name.to_owned(), Value::Object(body))])
    });
    Value::Object(sections.flatten().collect())
}

/// The parts of a text that begin with a key after this many spaces. Comments before the first key belong to none.
fn entries(text: &str, indentation: usize) -> Vec<&str> {
    let is_key = |line: &str| {
        let (spaces, rest) = line.split_at_checked(indentation).unwrap_or_default();
        spaces.trim().is_empty() && rest.starts_with(|first: char| first.is_ascii_alphabetic())
    };
    let mut begins = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_key(line) {
            begins.push(at);
        }
        at += line.len();
    }
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins
        .iter()
        .zip(ends)
        .map(|(from, to)| &text[*from..to])
        .collect()
}

fn parse_once(entry: &str) -> Map<String, Value> {
    static PARSED: LazyLock<Mutex<HashMap<String, Map<String, Value>>>> =
        LazyLock::new(Mutex::default);
    if let Some(parsed) = PARSED.lock().expect("not poisoned").get(entry) {
        return parsed.clone();
    }
    let Value::Object(parsed) = parse(entry) else {
        panic!("no mapping: {entry}");
    };
    let mut all = PARSED.lock().expect("not poisoned");
    all.insert(entry.to_owned(), parsed.clone());
    parsed
}

fn convert(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => json!(value),
            Scalar::Integer(value) => json!(value),
            Scalar::FloatingPoint(value) => json!(value.into_inner()),
            Scalar::String(value) => json!(value),
        },
        Yaml::Sequence(items) => items.iter().map(convert).collect(),
        Yaml::Mapping(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                let key = convert(key);
                let name = key.as_str().map(str::to_owned);
                let name = name.unwrap_or_else(|| key.to_string());
                map.insert(name, convert(value));
            }
            Value::Object(map)
        }
        Yaml::Tagged(tag, value) => intrinsic(&tag.suffix, convert(value)),
        Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => {
            panic!("not expected in a template: {node:?}")
        }
    }
}

fn intrinsic(name: &str, argument: Value) -> Value {
    match name {
        "Ref" | "Condition" => json!({ name: argument }),
        "GetAtt" => {
            let argument = match argument.as_str() {
                Some(path) => json!(path.split_once('.').expect("a resource's attribute")),
                None => argument,
            };
            json!({ "Fn::GetAtt": argument })
        }
        _ => json!({ format!("Fn::{name}"): argument }),
    }
}

#[test]
fn tags_become_the_long_form() {
    let text = "a: !Ref X\nb: !If [C, !GetAtt Y.Z.W, !Sub \"${X}-1\"]\nc: {n: 6379, s: \"8.0\", t: !Not [!Condition D]}\n";
    assert_eq!(
        parse(text),
        json!({
            "a": { "Ref": "X" },
            "b": { "Fn::If": ["C", { "Fn::GetAtt": ["Y", "Z.W"] }, { "Fn::Sub": "${X}-1" }] },
            "c": { "n": 6379, "s": "8.0", "t": { "Fn::Not": [{ "Condition": "D" }] } },
        })
    );
}

#[test]
fn parsing_by_entry_has_the_same_result_as_parsing_at_once() {
    let template = super::read("template.yaml");
    assert_eq!(parse_by_entry(&template), parse(&template));
}
