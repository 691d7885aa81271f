//! Compares results with those of flagd's engines, which `tests/conformance/vectors.py` has recorded.

#![expect(clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use pennon_eval::{
    Context, Definition, EvaluationDefaults, EvaluationError, Flag, FlagKey, FractionalVersion,
    Ruleset, Settings,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Vectors {
    #[serde(rename = "$evaluators")]
    evaluators: Map<String, Value>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    fractional: FractionalVersion,
    targeting: Value,
    context: Value,
    variants: Vec<String>,
    expected: Value,
    from: String,
}

fn evaluate(vector: &Vector, evaluators: &Map<String, Value>) -> Value {
    let variants = vector.variants.iter();
    let flag = Flag {
        enabled: true,
        definition: Some(Definition {
            variants: variants
                .map(|name| (name.clone(), format!("value of {name}").into()))
                .collect(),
            default_variant: Some("default".to_owned()),
            targeting: Some(vector.targeting.clone()),
            ..Definition::default()
        }),
        ..Flag::default()
    };
    let settings = Settings {
        evaluators: evaluators.clone(),
        fractional: vector.fractional,
        ..Settings::default()
    };
    let key = FlagKey::parse("flag").expect("a key");
    let ruleset = Ruleset::compile(
        &BTreeMap::from([(key, flag)]),
        &settings,
        EvaluationDefaults::New,
    );
    let context = Context::parse(vector.context.clone()).expect("a context");
    match ruleset.evaluate("flag", &context, 1_800_000_000) {
        Ok(found) => {
            assert_eq!(
                found.value,
                Some(&json!(format!("value of {}", found.variant)))
            );
            json!({ "variant": found.variant, "reason": found.reason })
        }
        Err(EvaluationError::General(_)) => json!({ "reason": "ERROR", "errorCode": "GENERAL" }),
        Err(EvaluationError::Parse(_)) => json!({ "reason": "ERROR", "errorCode": "PARSE_ERROR" }),
        Err(error @ (EvaluationError::FlagNotFound | EvaluationError::TargetingKeyMissing)) => {
            json!(error.to_string())
        }
    }
}

#[test]
fn rules_have_the_results_of_flagds_engines() {
    let text = include_str!("../../../tests/conformance/vectors.json");
    let all: Vectors = serde_json::from_str(text).expect("vectors");
    assert!(all.vectors.len() > 800, "only {}", all.vectors.len());
    let mut wrong = Vec::new();
    for vector in &all.vectors {
        let ours = evaluate(vector, &all.evaluators);
        if ours != vector.expected {
            wrong.push(format!(
                "{} with {}, fractional {:?}: {ours}, but {} by {}",
                vector.targeting, vector.context, vector.fractional, vector.expected, vector.from
            ));
        }
    }
    let (count, all) = (wrong.len(), all.vectors.len());
    assert!(wrong.is_empty(), "{count} of {all}:\n{}", wrong.join("\n"));
}
