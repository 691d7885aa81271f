//! Finds parts of a rule that cannot work for any caller: results that name no variant, and a `fractional` whose
//! weights select none.
//!
//! A mistake is reported only if it is beyond doubt: a computed result may be any variant, a branch behind a condition
//! that is always false is ignored, and `null` selects the default variant.

use serde_json::{Map, Value};

use super::bucket::HashedKey;
use super::compile::compile;
use super::evaluators::Evaluators;
use super::expression::Expression;
use super::fractional::{self, MAX_TOTAL_WEIGHT};
use super::path::Input;
use super::rule::{Choice, Rule};
use super::run::Run;
use super::value::Val;
use crate::trace::cut;
use crate::violation::{Violation, Violations};
use crate::{Context, FractionalVersion};

/// Checks the results of a rule that compiles.
pub(crate) fn results(
    rule: &Value,
    variants: &Map<String, Value>,
    evaluators: &Evaluators<'_>,
    problems: &mut Violations,
) {
    let mut lint = Lint {
        variants,
        evaluators,
        problems,
        evaluator: None,
    };
    lint.result(rule, Wanted::Any);
}

/// Checks the weights of every `fractional` in a rule that compiles. References are not followed.
pub(crate) fn weights(rule: &Value, evaluators: &Evaluators<'_>, problems: &mut Violations) {
    if !evaluators.may_lint(1) {
        return;
    }
    match rule {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                problems.inside(&index.to_string(), |problems| {
                    weights(item, evaluators, problems);
                });
            }
        }
        Value::Object(fields) => {
            for (name, arguments) in fields {
                problems.inside(name, |problems| {
                    if name == "fractional"
                        && fields.len() == 1
                        && let Value::Array(arguments) = arguments
                        && let Some(why) = selects_none(arguments, evaluators)
                    {
                        problems.add(why);
                    }
                    weights(arguments, evaluators, problems);
                });
            }
        }
    }
}

/// The results of an expression that can become the result of the operation around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    /// `or` ends with its first true argument.
    True,
    /// `and` ends with its first false argument.
    False,
}

impl Wanted {
    fn allows(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::True => is_true(value),
            Self::False => !is_true(value),
        }
    }

    /// The results that both allow, if any.
    fn within(self, other: Self) -> Option<Self> {
        match (self, other) {
            (both, Self::Any) | (Self::Any, both) => Some(both),
            (Self::True, Self::True) | (Self::False, Self::False) => Some(self),
            (Self::True, Self::False) | (Self::False, Self::True) => None,
        }
    }
}

struct Lint<'a, 's> {
    variants: &'a Map<String, Value>,
    evaluators: &'a Evaluators<'s>,
    problems: &'a mut Violations,
    /// The evaluator that is being checked. Its text is not part of the rule, so violations in it have the
    /// pointer of the reference.
    evaluator: Option<String>,
}

impl<'s> Lint<'_, 's> {
    fn inside(&mut self, step: &str, work: impl FnOnce(&mut Lint<'_, 's>)) {
        if self.evaluator.is_some() {
            return work(self);
        }
        let Self {
            variants,
            evaluators,
            problems,
            ..
        } = self;
        problems.inside(step, |problems| {
            work(&mut Lint {
                variants,
                evaluators,
                problems,
                evaluator: None,
            });
        });
    }

    fn add(&mut self, why: &str) {
        match &self.evaluator {
            Some(name) => self.problems.add(format!(
                "the evaluator '{}' has a result that {why}",
                cut(name)
            )),
            None => self.problems.add(why),
        }
    }

    fn result(&mut self, rule: &Value, wanted: Wanted) {
        if !self.evaluators.may_lint(1) {
            return;
        }
        let single = rule.as_object().filter(|fields| fields.len() == 1);
        match single.and_then(|fields| fields.iter().next()) {
            Some((operator, arguments)) => self.inside(operator, |lint| {
                lint.operation(rule, operator, arguments, wanted);
            }),
            None => self.constant(rule, wanted),
        }
    }

    fn operation(&mut self, rule: &Value, operator: &str, arguments: &Value, wanted: Wanted) {
        match (operator, arguments) {
            ("if" | "?:", Value::Array(arguments)) => self.branches(arguments, wanted),
            ("and", Value::Array(arguments)) => self.chain(arguments, Wanted::False, wanted),
            ("or", Value::Array(arguments)) => self.chain(arguments, Wanted::True, wanted),
            ("var", Value::Array(arguments)) => {
                if let [path, default] = arguments.as_slice()
                    && !is_always_there(path)
                {
                    self.inside("1", |lint| lint.result(default, wanted));
                }
            }
            ("fractional", Value::Array(arguments)) => self.buckets(arguments, wanted),
            ("$ref", Value::String(name)) => {
                let Some(evaluator) = self.evaluators.settings.evaluators.get(name) else {
                    return;
                };
                let outer = self.evaluator.replace(name.clone());
                if outer.is_none() {
                    let mut inner = Violations::default();
                    weights(evaluator, self.evaluators, &mut inner);
                    let name = cut(name);
                    self.problems.append(inner.map(|found| Violation {
                        pointer: String::new(),
                        message: format!("the evaluator '{name}': {}", found.message),
                    }));
                }
                self.result(evaluator, wanted);
                self.evaluator = outer;
            }
            ("log", Value::Array(arguments)) => {
                if let Some(first) = arguments.first() {
                    self.inside("0", |lint| lint.result(first, wanted));
                }
            }
            (_, _) => self.constant(rule, wanted),
        }
    }

    /// `if`: pairs of a condition and a result, then an optional default result.
    fn branches(&mut self, arguments: &[Value], wanted: Wanted) {
        let mut index = 0;
        while let Some(argument) = arguments.get(index) {
            let Some(then) = arguments.get(index + 1) else {
                self.inside(&index.to_string(), |lint| lint.result(argument, wanted));
                return;
            };
            let condition = self.fixed(argument).map(|value| is_true(&value));
            if condition != Some(false) {
                self.inside(&(index + 1).to_string(), |lint| lint.result(then, wanted));
            }
            if condition == Some(true) {
                return;
            }
            index += 2;
        }
    }

    /// `and` and `or`: the last argument, or the first one that ends the chain.
    fn chain(&mut self, arguments: &[Value], ending: Wanted, wanted: Wanted) {
        for (index, argument) in arguments.iter().enumerate() {
            let is_last = index + 1 == arguments.len();
            let possible = if is_last {
                Some(wanted)
            } else {
                ending.within(wanted)
            };
            if let Some(possible) = possible {
                self.inside(&index.to_string(), |lint| lint.result(argument, possible));
            }
            let value = self.fixed(argument);
            if value.is_some_and(|value| ending.allows(&value)) {
                return;
            }
        }
    }

    fn buckets(&mut self, arguments: &[Value], wanted: Wanted) {
        if selects_none(arguments, self.evaluators).is_some() {
            return;
        }
        let version = self.evaluators.settings.fractional;
        let first = usize::from(arguments.first().is_some_and(Value::is_object));
        let mut reached = Vec::with_capacity(arguments.len());
        for (index, bucket) in arguments.iter().enumerate().skip(first) {
            let weight = match bucket.get(1).map(|weight| self.fixed(weight)) {
                Some(Some(weight)) => match fractional::weight(&Val::of(&weight), version) {
                    Some(weight) => weight,
                    // An invalid weight: no caller gets a variant.
                    None => return,
                },
                Some(None) | None => 1,
            };
            if let (Some(variant), 1..) = (bucket.get(0), weight) {
                reached.push((index, variant));
            }
        }
        for (index, variant) in reached {
            // Version 2 treats a list as null.
            if version == FractionalVersion::V3 || !variant.is_array() {
                self.inside(&index.to_string(), |lint| {
                    lint.inside("0", |lint| lint.result(variant, wanted));
                });
            }
        }
    }

    /// The value of an expression that does not depend on the caller.
    fn fixed(&self, expression: &Value) -> Option<Value> {
        fixed(expression, self.evaluators)
    }

    /// Checks a result that is the same for every caller.
    fn constant(&mut self, result: &Value, wanted: Wanted) {
        let Some(value) = self.fixed(result) else {
            return;
        };
        if !wanted.allows(&value) {
            return;
        }
        let rule = Rule {
            expression: Expression::Constant(value),
            cost: 0,
        };
        let input = Input {
            context: &Context::default(),
            flag: "",
            hashed_key: &HashedKey::new(self.evaluators.settings.fractional, ""),
            now: 0,
        };
        match rule.choose(input, &mut Run::for_request(u64::MAX, None)) {
            Ok(Choice::Named(name)) if !self.variants.contains_key(&*name) => {
                // A name may be of any length.
                const SHOWN: usize = 64;
                let shown: String = name.chars().take(SHOWN).collect();
                self.add(&format!("names no variant: there is no '{shown}'"));
            }
            // An error, such as too many steps, is reported when the rule is evaluated.
            Ok(Choice::Named(_) | Choice::Variant(_) | Choice::None) | Err(_) => {}
        }
    }
}

fn fixed(expression: &Value, evaluators: &Evaluators<'_>) -> Option<Value> {
    match expression {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Some(expression.clone())
        }
        Value::Array(_) | Value::Object(_) => {
            if !evaluators.may_lint(crate::size::of(expression)) {
                return None;
            }
            let compiled = compile(expression, evaluators).ok()?;
            compiled.expression.constant().cloned()
        }
    }
}

fn is_true(value: &Value) -> bool {
    Val::of(value).is_truthy()
}

/// Whether a `var` of this path never takes its default.
fn is_always_there(path: &Value) -> bool {
    match path {
        Value::Null => true,
        Value::String(path) => {
            matches!(path.as_str(), "" | "$flagd.flagKey" | "$flagd.timestamp")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Why a `fractional` selects no variant for any caller. `None` if its weights do not prove it.
fn selects_none(arguments: &[Value], evaluators: &Evaluators<'_>) -> Option<&'static str> {
    let by = arguments.first().filter(|first| first.is_object());
    let first = usize::from(by.is_some());
    let mut total = 0.0;
    // A bucketing expression whose result is a list is the first bucket.
    let mut all_known = by.is_none_or(|by| is_no_list(by, evaluators));
    for bucket in arguments.iter().skip(first) {
        match bucket.get(1) {
            None => total += 1.0,
            Some(weight) => match fixed(weight, evaluators) {
                Some(Value::Number(weight)) => total += weight.as_f64().unwrap_or(0.0).max(0.0),
                // Computed, or of another type and so not a weight.
                Some(_) | None => all_known = false,
            },
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let largest = MAX_TOTAL_WEIGHT as f64;
    if total > largest {
        Some("the sum of the weights is above 2147483647, so nobody gets a variant")
    } else if all_known && total == 0.0 && arguments.len() > first {
        Some("all weights are 0, so nobody gets a variant")
    } else {
        None
    }
}

/// Whether the result of an expression is never a list. An attribute of the context counts as no list, because nobody
/// is bucketed by a list.
fn is_no_list(expression: &Value, evaluators: &Evaluators<'_>) -> bool {
    let mut operations = expression.as_object().into_iter().flatten();
    match operations.next().map(|(name, it)| (name.as_str(), it)) {
        Some(("cat", _)) => true,
        Some(("var", arguments)) => {
            let default = arguments.as_array().and_then(|it| it.get(1));
            default.is_none_or(|default| is_no_list(default, evaluators))
        }
        Some(_) | None => fixed(expression, evaluators).is_some_and(|value| !value.is_array()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Definition, Settings};

    fn settings(fractional: FractionalVersion) -> Settings {
        let evaluators = json!({
            "staff": {"ends_with": [{"var": "email"}, "@example.com"]},
            "choice": {"if": [{"$ref": "staff"}, "on", "ghost"]},
            "good": {"if": [{"$ref": "staff"}, "on", null]},
            "nobody": {"fractional": [["on", 0], ["off", 0]]},
            "bucket": {"if": [{"var": "beta"}, ["on", 1], ["off", 1]]}
        });
        Settings {
            evaluators: evaluators.as_object().cloned().expect("an object"),
            fractional,
            ..Settings::default()
        }
    }

    fn places_with(rule: &Value, fractional: FractionalVersion) -> Vec<String> {
        let definition = json!({
            "variants": {"on": 1, "off": 2, "true": 3, "7": 4}, "targeting": rule
        });
        let settings = settings(fractional);
        let definition = Definition::validate(&definition, &settings)
            .unwrap_or_else(|why| panic!("{why:?} in {rule}"));
        let found = definition.lint(&settings);
        found.into_iter().map(|found| found.pointer).collect()
    }

    fn places(rule: &Value) -> Vec<String> {
        places_with(rule, FractionalVersion::V3)
    }

    #[test]
    fn a_constant_result_that_names_no_variant_is_reported() {
        let staff = || json!({"$ref": "staff"});
        for (rule, at) in [
            (json!({"if": [staff(), "ghost"]}), "/if/1"),
            (json!({"if": [staff(), "on", "ghost"]}), "/if/2"),
            (
                json!({"if": [staff(), "on", staff(), "ghost", "off"]}),
                "/if/3",
            ),
            (
                json!({"if": [staff(), "on", {"if": [staff(), "off", ""]}]}),
                "/if/2/if/2",
            ),
            (json!({"if": [staff(), true, false]}), "/if/2"),
            (json!({"if": [staff(), 7, 8]}), "/if/2"),
            (json!({"if": [staff(), 7.0, 7.5]}), "/if/2"),
            (json!({"if": [staff(), ["on", "off"]]}), "/if/1"),
            (json!({"if": [false, "other", "ghost"]}), "/if/2"),
            (json!({"if": ["ghost"]}), "/if/0"),
            (json!({"and": [staff(), "ghost"]}), "/and/1"),
            (json!({"and": ["", "on"]}), "/and/0"),
            (
                json!({"and": [{"if": [staff(), 0, "x"]}, "on"]}),
                "/and/0/if/1",
            ),
            (json!({"or": [{"var": "plan"}, "ghost"]}), "/or/1"),
            (
                json!({"or": [{"if": [staff(), "ghost"]}, "on"]}),
                "/or/0/if/1",
            ),
            (
                json!({"or": [{"and": [staff(), "ghost"]}, "on"]}),
                "/or/0/and/1",
            ),
            (json!({"var": ["plan", "ghost"]}), "/var/1"),
            (json!({"cat": ["gh", "ost"]}), "/cat"),
            (
                json!({"if": [staff(), {"substr": ["ghost", 1]}]}),
                "/if/1/substr",
            ),
            (json!({"$ref": "choice"}), "/$ref"),
            (
                json!({"fractional": [["on", 1], ["ghost", 1]]}),
                "/fractional/1/0",
            ),
            (
                json!({"fractional": [["ghost"], ["off"]]}),
                "/fractional/0/0",
            ),
            (
                json!({"fractional": [{"var": "company"}, ["on", 1], [false, 1]]}),
                "/fractional/2/0",
            ),
            (
                json!({"fractional": [["on", 1], [{"if": [staff(), "on", "ghost"]}, {"var": "w"}]]}),
                "/fractional/1/0/if/2",
            ),
        ] {
            assert_eq!(places(&rule), [format!("/targeting{at}")], "{rule}");
        }
        let found = Definition::validate(
            &json!({"variants": {"on": 1}, "targeting": {"$ref": "choice"}}),
            &settings(FractionalVersion::V3),
        );
        let found = found
            .expect("a definition")
            .lint(&settings(FractionalVersion::V3));
        assert_eq!(
            found[0].message,
            "the evaluator 'choice' has a result that names no variant: there is no 'ghost'"
        );
    }

    #[test]
    fn messages_show_only_the_beginning_of_a_long_name_of_an_evaluator() {
        let name = "e".repeat(2_000);
        for rule in [json!("ghost"), json!({"fractional": [["on", 0]]})] {
            let settings = Settings {
                evaluators: [(name.clone(), rule)].into_iter().collect(),
                ..Settings::default()
            };
            let definition = json!({"variants": {"on": 1}, "targeting": {"$ref": name}});
            let definition = Definition::validate(&definition, &settings).expect("a definition");
            let found = definition.lint(&settings);
            assert_eq!(found.len(), 1);
            let shown = format!("the evaluator '{}…'", "e".repeat(100));
            assert!(found[0].message.starts_with(&shown), "{found:?}");
        }
    }

    #[test]
    fn results_that_may_be_valid_are_not_reported() {
        let staff = || json!({"$ref": "staff"});
        for rule in [
            json!({}),
            json!({"if": [staff(), "on", "off"]}),
            json!({"if": [staff(), "on", null]}),
            json!({"if": [staff(), true, 7]}),
            json!({"if": [staff(), 7.0, ["on"]]}),
            json!({"if": [false, "ghost", "on"]}),
            json!({"if": [{"==": [1, 2]}, "ghost", "on"]}),
            json!({"if": [true, "on", "ghost"]}),
            json!({"if": ["ghost", "on"]}),
            json!({"if": [staff(), {"var": "plan"}]}),
            json!({"==": [{"var": "plan"}, "ghost"]}),
            json!({"if": [{"==": [{"if": [staff(), "ghost", "spectre"]}, "ghost"]}, "on"]}),
            json!({"if": [{"in": [{"var": "plan"}, ["ghost", "spectre"]]}, "on", "off"]}),
            json!({"if": [{"or": [staff(), "ghost"]}, "on", "off"]}),
            json!({"and": [staff(), "on"]}),
            json!({"and": ["ghost", "on"]}),
            json!({"and": [{"if": [staff(), "ghost", null]}, "on"]}),
            json!({"and": [null, "ghost"]}),
            json!({"or": ["on", "ghost"]}),
            json!({"or": [{"if": [staff(), "", 0]}, "on"]}),
            json!({"or": [{"and": [{"or": ["on", "ghost"]}, {"var": "x"}]}, "on"]}),
            json!({"var": "ghost"}),
            json!({"var": ["plan"]}),
            json!({"var": ["plan", "on"]}),
            json!({"var": ["plan", null]}),
            json!({"var": ["$flagd.flagKey", "ghost"]}),
            json!({"cat": ["gh", {"var": "ost"}]}),
            json!({"$ref": "good"}),
            json!({"$ref": "staff"}),
            json!({"fractional": [["on", 1], ["ghost", 0], [null, 1]]}),
            json!({"fractional": [[{"var": "plan"}, 1], ["on", {"var": "weight"}]]}),
            json!({"fractional": [{"cat": ["ghost", {"var": "targetingKey"}]}, ["on", 50], ["off", 50]]}),
            json!({"if": [{"==": [{"fractional": [["ghost", 1], ["spectre", 1]]}, "ghost"]}, "on"]}),
            json!({"fractional": [["on", 0], ["off", {"var": "weight"}]]}),
            json!({"fractional": [["on", 0], ["off"]]}),
            json!({"fractional": [["on", 2_147_483_647]]}),
            json!({"fractional": [{"merge": ["on", 1]}, ["off", 0]]}),
            json!({"fractional": [{"merge": ["on", {"var": "weight"}]}, ["off", 0]]}),
            json!({"fractional": [{"$ref": "bucket"}, ["off", 0]]}),
            json!({"fractional": [{"var": ["x", ["on", 1]]}, ["off", 0]]}),
            json!({"map": [["ghost"], {"var": ""}]}),
        ] {
            assert!(places(&rule).is_empty(), "{rule} {:?}", places(&rule));
        }
        let list = json!({"fractional": [[["on", "off"], 1], ["on", 1]]});
        assert_eq!(places(&list).len(), 1);
        assert!(places_with(&list, FractionalVersion::V2).is_empty());
        let float = json!({"fractional": [["ghost", 50.0], ["on", 50.0]]});
        assert!(
            places(&float).is_empty(),
            "a variant that version 3 cannot select is reported: its weight is a float"
        );
        assert_eq!(places_with(&float, FractionalVersion::V2).len(), 1);
    }

    #[test]
    fn weights_that_select_no_variant_are_reported() {
        for (rule, at) in [
            (
                json!({"fractional": [["on", 0], ["off", 0]]}),
                "/fractional",
            ),
            (json!({"fractional": [["on", 0]]}), "/fractional"),
            (
                json!({"fractional": [{"var": "x"}, ["ghost", 0], ["off", 0.0]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [{"cat": [{"var": "x"}, "y"]}, ["on", 0]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [{"+": [1, 2]}, ["on", 0]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [["on", {"-": [1, 2]}]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [["on", 2_147_483_647], ["off"]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [["on", 2_147_483_648_u64], ["off", {"var": "x"}]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [["on", u64::MAX], ["off", u64::MAX]]}),
                "/fractional",
            ),
            (
                json!({"fractional": [["on", 1e300], ["off", 1e300]]}),
                "/fractional",
            ),
            (
                json!({"if": [{"==": [{"fractional": [["x", 0]]}, "x"]}, "on"]}),
                "/if/0/==/0/fractional",
            ),
            (
                json!({"if": [{"var": "x"}, {"fractional": [["on", 0]]}]}),
                "/if/1/fractional",
            ),
            (json!({"$ref": "nobody"}), "/$ref"),
        ] {
            for version in [FractionalVersion::V2, FractionalVersion::V3] {
                let found = places_with(&rule, version);
                assert_eq!(found, [format!("/targeting{at}")], "{rule}");
            }
        }
        let settings = settings(FractionalVersion::V3);
        let places: Vec<String> = settings
            .lint()
            .into_list()
            .into_iter()
            .map(|found| found.pointer)
            .collect();
        assert_eq!(places, ["/nobody/fractional"]);
    }

    #[test]
    fn a_reported_result_is_the_choice_of_the_callers_that_reach_it() {
        let definition = json!({
            "variants": {"on": 1, "off": 2},
            "targeting": {"or": [{"if": [{"var": "a"}, "ghost"]}, {"var": ["b", "spectre"]}]}
        });
        let settings = Settings::default();
        let definition = Definition::validate(&definition, &settings).expect("a definition");
        assert_eq!(definition.lint(&settings).len(), 2);
        let evaluators = Evaluators::of(&settings);
        let rule = compile(definition.rule().expect("a rule"), &evaluators).expect("compiles");
        for (context, variant) in [
            (json!({"a": 1}), "ghost"),
            (json!({}), "spectre"),
            (json!({"b": "on"}), "on"),
        ] {
            let context = Context::parse(context).expect("a context");
            let input = Input {
                context: &context,
                flag: "",
                hashed_key: &HashedKey::new(settings.fractional, ""),
                now: 0,
            };
            let choice = rule.choose(input, &mut Run::for_request(u64::MAX, None));
            let choice = choice.expect("a choice");
            assert!(matches!(choice, Choice::Named(name) if *name == *variant));
        }
    }
}
