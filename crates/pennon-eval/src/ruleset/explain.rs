//! Evaluates one flag and records the steps that decided.

use std::sync::Arc;

use serde_json::Value;

use super::evaluation::{EvaluationError, Reason};
use super::flag::CompiledFlag;
use super::request_fuel::RequestFuel;
use crate::logic::evaluators::Evaluators;
use crate::trace::{Step, Trace};
use crate::{Context, EvaluationDefaults, Flag, FlagKey, Settings};

/// The value of a flag for a caller, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The result, equal to that of all other evaluations.
    pub outcome: Result<ExplainedValue, EvaluationError>,
    /// The steps that decided, in their order.
    pub path: Vec<Step>,
}

/// The result of an explained evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedValue {
    /// The value; if absent, the application uses its own default.
    pub value: Option<Value>,
    /// The name of the variant; empty without a value.
    pub variant: String,
    /// The reason for the value.
    pub reason: Reason,
}

/// Evaluates a flag as [`Ruleset::evaluate`](crate::Ruleset::evaluate) does, and records the steps. It compiles the
/// flag first, so it is much slower.
#[must_use]
pub fn explain(
    (key, flag): (&FlagKey, &Flag),
    settings: &Settings,
    defaults: EvaluationDefaults,
    context: &Context,
    now: i64,
) -> Explanation {
    let evaluators = Evaluators::for_trace(settings);
    let common = Arc::new(settings.metadata.clone());
    let compiled = CompiledFlag::compile(key, flag, &evaluators, defaults, &common);
    let mut fuel = RequestFuel::traced();
    let outcome = compiled.evaluate(key.as_str(), context, now, &mut fuel);
    let outcome = outcome.map(|found| ExplainedValue {
        value: found.value.cloned(),
        variant: found.variant.to_owned(),
        reason: found.reason,
    });
    let path = fuel.trace.take().map(|trace| Trace::finish(*trace));
    Explanation {
        outcome,
        path: path.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Definition, FractionalVersion};

    /// The operations of a rule for a context, as JSON.
    fn operations(rule: &Value, evaluators: &Value, context: Value) -> Vec<Value> {
        let settings = Settings {
            evaluators: evaluators.as_object().cloned().expect("an object"),
            ..Settings::default()
        };
        operations_with(rule, &settings, context)
    }

    fn operations_with(rule: &Value, settings: &Settings, context: Value) -> Vec<Value> {
        let definition = json!({"variants": {"on": true, "off": false}, "targeting": rule});
        let definition = Definition::validate(&definition, settings).expect("a definition");
        let flag = Flag {
            enabled: true,
            definition: Some(definition),
            ..Flag::default()
        };
        let explained = explain(
            (&FlagKey::parse("flag").expect("a key"), &flag),
            settings,
            EvaluationDefaults::New,
            &Context::parse(context).expect("a context"),
            0,
        );
        let steps = explained.path.iter().map(|step| json!(step));
        steps.filter(|step| step["step"] == "operation").collect()
    }

    #[test]
    fn an_operand_that_is_constant_is_shown_with_its_value() {
        let evaluators = json!({
            "eu": {"merge": [["DE", "a country with a long name"], ["FR"]]},
            "outer": {"$ref": "inner"},
            "inner": {"==": [{"var": "plan"}, "pro"]},
        });
        let eu = json!(["DE", "a country with a long name", "FR"]);
        for (operation, context, operands) in [
            (
                json!({"==": [{"var": "n"}, {"+": [1, 2]}]}),
                json!({"n": 3}),
                json!([{"value": 3}, {"value": 3}]),
            ),
            (
                json!({"in": [{"var": "country"}, {"$ref": "eu"}]}),
                json!({"country": "FR"}),
                json!([{"value": "FR"}, {"value": eu}]),
            ),
            (
                json!({"!": {"==": [{"var": "n"}, {"!": {"$ref": "eu"}}]}}),
                json!({"n": false}),
                json!([{"value": true}]),
            ),
            (
                json!({"and": [{"$ref": "outer"}, {"var": "beta"}]}),
                json!({"plan": "free"}),
                json!([{"value": false}, {"skipped": true}]),
            ),
        ] {
            let rule = json!({"if": [operation, "on", "off"]});
            let steps = operations(&rule, &evaluators, context);
            let step = steps.iter().find(|step| step["pointer"] == "/if/0");
            let step = step.expect("the operation");
            assert_eq!(step["operands"], operands, "{rule}");
        }
    }

    #[test]
    fn an_evaluated_operand_is_shown_with_its_value_and_a_skipped_one_without() {
        let evaluators = json!({
            "staff": {"==": [{"var": "team"}, "ops"]},
            "names": [{"var": "a"}, "b"],
        });
        let skipped = json!({"skipped": true});
        let value = |value: Value| json!({ "value": value });
        let many: Vec<Value> = (0..50)
            .map(|index| json!({"var": format!("a{index}")}))
            .collect();
        let mut shown = vec![Value::Null; 20];
        shown.push(json!("…"));
        for (condition, context, operands) in [
            // Conditions show the values that they test, not only whether these are true.
            (
                json!({"!": {"var": "n"}}),
                json!({"n": 0}),
                json!([value(json!(0))]),
            ),
            (
                json!({"or": [{"var": "plan"}, {"var": "b"}]}),
                json!({"plan": "gold"}),
                json!([value(json!("gold")), skipped]),
            ),
            (
                json!({"and": [{"or": [{"var": "a"}, {"var": "plan"}]}, {"var": "b"}]}),
                json!({"a": "", "plan": "gold", "b": []}),
                json!([value(json!("gold")), value(json!([]))]),
            ),
            (
                json!({"!!": {"if": [{"var": "a"}, 1, {"var": "plan"}]}}),
                json!({"a": 0, "plan": "gold"}),
                json!([value(json!("gold"))]),
            ),
            (
                json!({"!": {"starts_with": [{"var": "n"}, "a"]}}),
                json!({"n": 0}),
                json!([value(Value::Null)]),
            ),
            // Lists show the values of their items.
            (
                json!({"in": ["x", [{"var": "a"}, "b"]]}),
                json!({"a": "x"}),
                json!([value(json!("x")), value(json!(["x", "b"]))]),
            ),
            (
                json!({"in": ["x", {"$ref": "names"}]}),
                json!({"a": "x"}),
                json!([value(json!("x")), value(json!(["x", "b"]))]),
            ),
            (
                json!({"and": [{"var": "b"}, [{"var": "a"}]]}),
                json!({"a": "x"}),
                json!([value(Value::Null), skipped]),
            ),
            // Operations in a list do not displace the operands after it.
            (
                json!({"cat": [many, {"var": "b"}]}),
                json!({"b": "hello"}),
                json!([value(json!(shown)), value(json!("hello"))]),
            ),
            // An evaluator may be evaluated for one operand, and not for another.
            (
                json!({"and": [{"$ref": "staff"}, {"$ref": "staff"}]}),
                json!({}),
                json!([value(json!(false)), skipped]),
            ),
            // A bucket is shown as it is written.
            (
                json!({"fractional": [{"var": "plan"}, ["on", {"var": "n"}], [{"var": "b"}, 1]]}),
                json!({"plan": "gold", "n": 0}),
                json!([
                    value(json!("gold")),
                    value(json!(["on", {"var": "n"}])),
                    value(json!([{"var": "b"}, 1])),
                ]),
            ),
        ] {
            let rule = json!({"if": [condition, "on", "off"]});
            let steps = operations(&rule, &evaluators, context);
            let step = |pointer| steps.iter().find(|step| step["pointer"] == pointer);
            let found = step("/if/0").expect("the operation");
            assert_eq!(found["operands"], operands, "{rule}");
            let condition = &step("").expect("the rule")["operands"][0];
            assert_eq!(condition["value"], found["result"], "{rule}");
        }
    }

    #[test]
    fn a_fractional_without_a_bucket_shows_its_variants() {
        let rule = json!({"fractional": [{"var": "plan"}, ["on", 1], ["off", 2]]});
        for (version, plan) in [("v2", json!(1)), ("v2", Value::Null), ("v3", Value::Null)] {
            let settings = Settings {
                fractional: if version == "v2" {
                    FractionalVersion::V2
                } else {
                    FractionalVersion::V3
                },
                ..Settings::default()
            };
            let steps = operations_with(&rule, &settings, json!({ "plan": plan }));
            let fractional = &steps[0]["fractional"];
            let expected = json!({
                "bucket": null,
                "total": 3,
                "variants": [{"variant": "on", "limit": 1}, {"variant": "off", "limit": 3}],
            });
            assert_eq!(*fractional, expected, "{version} {plan}");
        }
    }

    #[test]
    fn steps_show_only_the_beginning_of_a_long_name_of_an_evaluator() {
        let name = "ä".repeat(10_000);
        let compared = vec![json!({"!": {"var": "plan"}}); 500];
        let evaluators = json!({ name.as_str(): {"and": compared} });
        let steps = operations(&json!({"$ref": name}), &evaluators, json!({}));
        assert_eq!(steps.len(), 500);
        let shown = format!("{}…", "ä".repeat(100));
        assert!(steps.iter().all(|step| step["evaluator"] == shown));
    }
}
