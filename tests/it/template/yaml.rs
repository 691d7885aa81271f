//! YAML with `CloudFormation`'s tags as JSON: `!Ref X` becomes `{"Ref": "X"}`.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

/// Parses a template or another YAML file.
pub(crate) fn parse(text: &str) -> Value {
    let documents = Yaml::load_from_str(text).expect("YAML");
    assert_eq!(documents.len(), 1, "one document");
    convert(&documents[0])
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
