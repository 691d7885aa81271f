//! Finds rules that may read the time, so that their results change without a change of a flag.

use serde_json::Value;

/// The last part of the path to the time, `$flagd.timestamp`.
const TIME: &str = "timestamp";

/// Whether a rule may read the time: it contains a computed path, or any text with the name of the time.
pub(crate) fn may_read_time(rule: &Value) -> bool {
    match rule {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains(TIME),
        Value::Array(items) => items.iter().any(may_read_time),
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_computed_path = name == "var" && is_computed(value);
            is_computed_path || may_read_time(value)
        }),
    }
}

/// Whether the path is known only when the rule runs.
fn is_computed(path: &Value) -> bool {
    match path {
        Value::Object(_) => true,
        Value::Array(items) => items.first().is_some_and(is_computed),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_that_may_read_the_time_is_found() {
        for rule in [
            json!({"<": [{"var": "$flagd.timestamp"}, 1_800_000_000]}),
            json!({"var": ["$flagd.timestamp", 0]}),
            json!({"if": [true, {"var": {"cat": ["$flagd.time", "stamp"]}}]}),
            json!({"var": [{"var": "which"}]}),
        ] {
            assert!(may_read_time(&rule), "{rule}");
        }
        for rule in [
            json!({"==": [{"var": "plan"}, "pro"]}),
            json!({"var": ["plan", {"cat": ["a", "b"]}]}),
            json!({"var": "$flagd.flagKey"}),
            json!(null),
        ] {
            assert!(!may_read_time(&rule), "{rule}");
        }
    }
}
