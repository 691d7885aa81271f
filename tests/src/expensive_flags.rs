//! Flags whose evaluation costs as much as the limits allow, or more.

use serde_json::{Map, Value, json};

/// Evaluators that each refer twice to the previous one: expanded, the last one has thousands of comparisons.
pub fn doubling_evaluators() -> Map<String, Value> {
    let mut evaluators = Map::new();
    evaluators.insert("e0".to_owned(), json!({"==": [{"var": "email"}, "x"]}));
    for level in 1..=12 {
        let previous = json!({"$ref": format!("e{}", level - 1)});
        let twice = json!({"or": [previous, previous]});
        evaluators.insert(format!("e{level}"), twice);
    }
    evaluators
}

/// A rule that refers to the last of [`doubling_evaluators`].
pub fn doubling_rule() -> Value {
    json!({"if": [{"$ref": "e12"}, "off", "on"]})
}

/// An evaluator that returns a list of 15,000 numbers.
pub fn list_evaluator() -> Map<String, Value> {
    let numbers: Vec<u32> = (0..15_000).collect();
    Map::from_iter([("numbers".to_owned(), json!({"merge": [numbers]}))])
}

/// A rule that searches the list of [`list_evaluator`]: tens of thousands of steps for every caller.
pub fn list_rule() -> Value {
    let missing = json!({"==": [{"var": ""}, -1]});
    json!({"if": [{"some": [{"$ref": "numbers"}, missing]}, "off", "on"]})
}

/// A definition with the variants `on` and `off` and this rule.
pub fn definition(rule: &Value) -> Value {
    json!({"variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": rule})
}
