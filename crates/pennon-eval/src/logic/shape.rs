//! Checks the shape of a rule as flagd's published JSON Schema for targeting does.
//!
//! One check is stricter: an operation has exactly one operator. The schema allows several operators of one family
//! in an object, which no engine supports.

use serde_json::{Map, Value};

use super::semver::{Relation, Version};
use crate::violation::Violations;

/// The arguments of an operator.
enum Shape {
    /// A list with a minimal and a maximal length.
    List(usize, usize),
    /// One argument, or a list, whose first item is the argument.
    One,
    /// Two texts or operations.
    Texts,
    Var,
    Missing,
    MissingSome,
    SemVer,
    Fractional,
}

const ANY: usize = usize::MAX;

/// The operators of the schema. The engine also supports `?:` and `log`, for rules stored before this check.
fn shape(operator: &str) -> Option<Shape> {
    Some(match operator {
        "if" | "or" | "and" | "+" | "-" | "max" | "min" | "merge" | "cat" => Shape::List(1, ANY),
        "==" | "===" | "!=" | "!==" | ">" | ">=" | "%" | "/" | "map" | "filter" | "all"
        | "none" | "some" | "in" => Shape::List(2, 2),
        "<" | "<=" | "substr" => Shape::List(2, 3),
        "*" => Shape::List(2, ANY),
        "reduce" => Shape::List(3, 3),
        "!" | "!!" => Shape::One,
        "starts_with" | "ends_with" => Shape::Texts,
        "var" => Shape::Var,
        "missing" => Shape::Missing,
        "missing_some" => Shape::MissingSome,
        "sem_ver" => Shape::SemVer,
        "fractional" => Shape::Fractional,
        _ => return None,
    })
}

/// Checks a whole rule: an operation, or `{}` for no rule.
pub(crate) fn check(rule: &Value, problems: &mut Violations) {
    let is_empty = rule.as_object().is_some_and(Map::is_empty);
    if !is_empty {
        operation(rule, problems);
    }
}

fn operation(rule: &Value, problems: &mut Violations) {
    let Some(fields) = rule.as_object() else {
        problems.add("must be an operation: an object with one operator");
        return;
    };
    let mut fields = fields.iter();
    let (Some((operator, arguments)), None) = (fields.next(), fields.next()) else {
        problems.add("must be an operation: an object with one operator");
        return;
    };
    problems.inside(operator, |problems| {
        if operator == "$ref" {
            if !arguments.is_string() {
                problems.add("must be the name of an evaluator");
            }
            return;
        }
        match shape(operator) {
            Some(shape) => shape.check(arguments, problems),
            None => problems.add(format!("there is no operator '{operator}'")),
        }
    });
}

/// Checks an argument. Like the schema, it does not check the items of a list.
fn argument(value: &Value, problems: &mut Violations) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
        Value::Object(_) => operation(value, problems),
    }
}

fn each(items: &[Value], problems: &mut Violations, check: impl Fn(&Value, &mut Violations)) {
    for (index, item) in items.iter().enumerate() {
        problems.inside(&index.to_string(), |problems| check(item, problems));
    }
}

fn text(value: &Value, problems: &mut Violations) {
    if !value.is_string() {
        problems.add("must be a string");
    }
}

/// The items of a list. Adds a violation, and returns `None`, unless it is a list of `min` to `max` items.
fn list<'v>(
    value: &'v Value,
    min: usize,
    max: usize,
    problems: &mut Violations,
) -> Option<&'v [Value]> {
    let items = value
        .as_array()
        .filter(|items| (min..=max).contains(&items.len()));
    if items.is_none() {
        problems.add(match (min, max) {
            (0, ANY) => "must be a list".to_owned(),
            (min, ANY) => format!("must be a list of at least {min} items"),
            (min, max) if min == max => format!("must be a list of {min} items"),
            (min, max) => format!("must be a list of {min} to {max} items"),
        });
    }
    items.map(Vec::as_slice)
}

impl Shape {
    fn check(self, value: &Value, problems: &mut Violations) {
        match self {
            Self::List(min, max) => {
                if let Some(items) = list(value, min, max, problems) {
                    each(items, problems, argument);
                }
            }
            Self::One => argument(value, problems),
            Self::Texts => {
                if let Some(items) = list(value, 2, 2, problems) {
                    each(items, problems, |item, problems| {
                        if !item.is_string() {
                            operation(item, problems);
                        }
                    });
                }
            }
            Self::Var => var(value, problems),
            Self::Missing => {
                if let Some(items) = list(value, 0, ANY, problems) {
                    each(items, problems, text);
                }
            }
            Self::MissingSome => {
                if let Some([need, names]) = list(value, 2, 2, problems) {
                    if !need.is_number() {
                        problems.inside("0", |problems| problems.add("must be a number"));
                    }
                    problems.inside("1", |problems| {
                        if let Some(items) = list(names, 0, ANY, problems) {
                            each(items, problems, text);
                        }
                    });
                }
            }
            Self::SemVer => {
                if let Some([a, relation, b]) = list(value, 3, 3, problems) {
                    problems.inside("0", |problems| version(a, problems));
                    if relation.as_str().and_then(Relation::parse).is_none() {
                        problems.inside("1", |problems| {
                            problems.add_wrong("one of =, !=, >, <, >=, <=, ~, ^", relation);
                        });
                    }
                    problems.inside("2", |problems| version(b, problems));
                }
            }
            Self::Fractional => fractional(value, problems),
        }
    }
}

fn var(value: &Value, problems: &mut Violations) {
    match value {
        Value::String(path) => {
            let own = path.strip_prefix("$flagd.");
            if own.is_some_and(|own| !matches!(own, "timestamp" | "flagKey")) {
                problems.add("$flagd has only timestamp and flagKey");
            }
        }
        // The schema restricts only texts.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {}
    }
}

fn version(value: &Value, problems: &mut Violations) {
    let is_good = match value {
        Value::String(text) => Version::parse_complete(text).is_some(),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("var") => {
            operation(value, problems);
            true
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            false
        }
    };
    if !is_good {
        problems.add_wrong("a version (semver.org) or a var", value);
    }
}

fn fractional(value: &Value, problems: &mut Violations) {
    let Some(items) = list(value, 1, ANY, problems) else {
        return;
    };
    // The first argument may be the bucketing expression.
    let by = items.first().filter(|first| first.is_object());
    if let Some(by) = by {
        problems.inside("0", |problems| operation(by, problems));
    }
    let buckets = items.iter().enumerate().skip(usize::from(by.is_some()));
    for (index, item) in buckets {
        problems.inside(&index.to_string(), |problems| bucket(item, problems));
    }
}

fn bucket(value: &Value, problems: &mut Violations) {
    let Some(parts) = list(value, 1, 2, problems) else {
        return;
    };
    if let Some(variant) = parts.first() {
        problems.inside("0", |problems| argument(variant, problems));
    }
    if let Some(weight) = parts.get(1) {
        problems.inside("1", |problems| match weight {
            Value::Object(_) => operation(weight, problems),
            Value::Number(number) if is_weight(number) => {}
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                problems.add_wrong("an integer of at least 0", weight);
            }
        });
    }
}

fn is_weight(number: &serde_json::Number) -> bool {
    let float = number.as_f64().unwrap_or(-1.0);
    number.is_u64() || (float >= 0.0 && float.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_in_flagds_schema_the_items_of_a_list_are_not_checked() {
        let wrong = json!({"missing": "a"});
        for (rule, expected) in [
            (json!({"==": [[wrong], 1]}), None),
            (json!({"!": [wrong]}), None),
            (json!({"!!": [{"==": [1]}]}), None),
            (json!({"!": [wrong, wrong]}), None),
            (json!({"!": wrong}), Some("/!/missing must be a list")),
            (
                json!({"==": [wrong, 1]}),
                Some("/==/0/missing must be a list"),
            ),
            (
                json!({"missing_some": [1, "a"]}),
                Some("/missing_some/1 must be a list"),
            ),
            (
                json!({"*": [1]}),
                Some("/* must be a list of at least 2 items"),
            ),
            (
                json!({"reduce": [1]}),
                Some("/reduce must be a list of 3 items"),
            ),
        ] {
            let mut problems = Violations::default();
            check(&rule, &mut problems);
            let found: Vec<String> = problems
                .into_list()
                .into_iter()
                .map(|found| format!("{} {}", found.pointer, found.message))
                .collect();
            assert_eq!(found, Vec::from_iter(expected), "{rule}");
        }
    }
}
