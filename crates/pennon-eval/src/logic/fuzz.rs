//! Evaluates random rules and compares the steps with the estimate.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};

use super::bucket::HashedKey;
use super::evaluators::Evaluators;
use super::{Choice, Input, Run, compile};
use crate::trace::{Step, Trace};
use crate::{Context, Settings};

/// Random rules with most operators, over constants, evaluators, the targeting key and items of lists.
struct Rules(fastrand::Rng);

impl Rules {
    fn text(&mut self) -> String {
        "x".repeat(self.0.usize(..100))
    }

    fn constant(&mut self) -> Value {
        match self.0.usize(..9) {
            0 => json!(null),
            1 => json!(self.0.bool()),
            2 => json!(self.0.u32(..100)),
            3 => json!(self.text()),
            4 => json!([1, "two", [3, "x".repeat(self.0.usize(..40))]]),
            5 => json!(vec!["a"; self.0.usize(..20)]),
            6 => json!(vec![self.text(); self.0.usize(..20)]),
            7 => json!(1.234_567_890_123_456_7e-6),
            _ => json!("a.b.0"),
        }
    }

    fn path(&mut self) -> Value {
        match self.0.usize(..6) {
            0 => json!("targetingKey"),
            1 => json!("length"),
            2 => json!("1.length"),
            3 => json!("$flagd.flagKey"),
            4 => json!(self.text()),
            _ => json!(""),
        }
    }

    fn rule(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return match self.0.usize(..3) {
                0 => json!({"var": self.path()}),
                _ => self.constant(),
            };
        }
        let mut next = || self.rule(depth - 1);
        let (a, b, c) = (next(), next(), next());
        match self.0.usize(..38) {
            0 => json!({"var": self.path()}),
            1 => json!({"missing": [self.path(), self.path()]}),
            2 => json!({"var": [self.path(), a]}),
            3 => json!({"var": a}),
            4 => json!({"$ref": "list"}),
            5 => json!({"$ref": "text"}),
            6 => json!({"$ref": "walk"}),
            7 => json!({"missing": [a, b]}),
            8 => json!({"missing_some": [a, b]}),
            9 => json!({"if": [a, b, c]}),
            10 => json!({"and": [a, b]}),
            11 => json!({"or": [a, b]}),
            12 => json!({"!": [a]}),
            13 => json!({"==": [a, b]}),
            14 => json!({"===": [a, b]}),
            15 => json!({"<": [a, b, c]}),
            16 => json!({"+": [a, b]}),
            17 => json!({"-": [a, b]}),
            18 => json!({"max": [a, b]}),
            19 => json!({"map": [a, b]}),
            20 => json!({"filter": [a, b]}),
            21 => json!({"all": [a, b]}),
            22 => json!({"some": [a, b]}),
            23 => json!({"reduce": [a, b, c]}),
            24 => json!({"merge": [a, b, c]}),
            25 => json!({"in": [a, b]}),
            26 => json!({"cat": [a, b, c]}),
            27 => json!({"substr": [a, b, c]}),
            28 => json!({"starts_with": [a, b]}),
            29 => json!({"sem_ver": [a, "<", b]}),
            30 => json!({"fractional": [a, ["on", 1], [b, 2]]}),
            31 => json!({"fractional": [[a, b], c]}),
            32 => json!({"map": [{"$ref": "list"}, a]}),
            33 => json!({"all": [{"$ref": "list"}, a]}),
            34 => json!({"<": [a, b]}),
            35 => json!({"in": [a, ["a", "b"]]}),
            36 => json!({"missing": [[a, b]]}),
            _ => json!([a, b]),
        }
    }
}

/// Settings with evaluators that the rules refer to.
fn settings() -> Settings {
    let list: Vec<Value> = (0..30)
        .map(|number| json!([number, "y".repeat(number)]))
        .collect();
    let evaluators = json!({
        "list": {"merge": [list, {"var": "targetingKey"}]},
        "text": {"cat": ["z".repeat(200), {"var": "targetingKey"}]},
        "walk": {"map": [{"$ref": "list"}, {"cat": [{"var": ""}, {"var": "1"}]}]},
    });
    Settings {
        evaluators: evaluators.as_object().cloned().expect("an object"),
        ..Settings::default()
    }
}

fn compare_traced(seed: u64, settings: &Settings, traced: &Cell<usize>) {
    let mut rules = Rules(fastrand::Rng::with_seed(seed));
    for depth in [1, 2, 3, 4, 5] {
        let rule = rules.rule(depth);
        let plain = compile(&rule, &Evaluators::of(settings));
        let marked = compile(&rule, &Evaluators::for_trace(settings));
        let (plain, marked) = match (plain, marked) {
            (Ok(plain), Ok(marked)) => (plain, marked),
            (plain, marked) => {
                assert_eq!(plain.err(), marked.err(), "{rule}");
                continue;
            }
        };
        assert_eq!(plain.cost, marked.cost, "{rule}");
        let key = HashedKey::new(settings.fractional, "flag");
        for context in [
            json!({}),
            json!({"targetingKey": "user-123"}),
            json!({"targetingKey": "u", "length": [1, {"a": {"b": ["x"]}}], "a": "x"}),
        ] {
            let context = Context::parse(context).expect("a context");
            let input = input_of(&context, &key);
            // With few steps left, both fail at the same one.
            for steps in [u64::MAX, 20] {
                let mut run = Run::for_request(steps, None);
                let (expected, taken) = (plain.choose(input, &mut run), run.steps());
                let mut trace = Box::default();
                let mut run = Run::for_request(steps, Some(&mut trace));
                let result = (marked.choose(input, &mut run), run.steps());
                assert_eq!(
                    (format!("{expected:?}"), taken),
                    (format!("{:?}", result.0), result.1),
                    "{rule}"
                );
                let steps = Trace::finish(*trace);
                traced.set(traced.get() + steps.len());
                let text = serde_json::to_string(&steps).expect("JSON");
                assert!(text.len() < 1_500_000, "{} bytes: {rule}", text.len());
                let inside = &settings.evaluators;
                for step in steps {
                    if let Step::Operation(step) = step {
                        let text = match &step.evaluator {
                            Some(name) => &inside[name.as_str()],
                            None => &rule,
                        };
                        let place = text.pointer(&step.pointer).expect("a place");
                        assert!(place.get(&step.operator).is_some(), "{step:?}: {rule}");
                    }
                }
            }
        }
    }
}

fn input_of<'a>(context: &'a Context, hashed_key: &'a HashedKey) -> Input<'a> {
    Input {
        context,
        flag: "flag",
        hashed_key,
        now: 7,
    }
}

#[test]
fn tracing_changes_no_result_and_names_the_place_of_each_operation() {
    let (settings, traced) = (settings(), Cell::new(0));
    pennon_fuzz::for_all(&pennon_fuzz::seeds(), |seed| {
        compare_traced(seed, &settings, &traced);
    });
    assert!(traced.get() > 0);
}

#[test]
fn finding_variants_changes_neither_results_nor_steps() {
    let (settings, found) = (settings(), Cell::new(0));
    let key = HashedKey::new(settings.fractional, "flag");
    pennon_fuzz::for_all(&pennon_fuzz::seeds(), |seed| {
        let mut rules = Rules(fastrand::Rng::with_seed(seed));
        for depth in [1, 2, 3, 4, 5] {
            let rule = rules.rule(depth);
            let Ok(plain) = compile(&rule, &Evaluators::of(&settings)) else {
                continue;
            };
            // Every other name is that of a variant.
            let names = RefCell::new(Vec::new());
            let mut ready = plain.clone();
            ready.find_variants(&|name| {
                let mut names = names.borrow_mut();
                names.push(name.to_owned());
                (names.len() % 2 == 1).then_some(names.len() - 1)
            });
            let names = names.into_inner();
            for context in [json!({}), json!({"targetingKey": "user-123", "a": "x"})] {
                let context = Context::parse(context).expect("a context");
                let input = input_of(&context, &key);
                for steps in [u64::MAX, 3] {
                    let name = |choice| match choice {
                        Choice::Variant(position) => {
                            found.set(found.get() + 1);
                            Some(names[position].clone())
                        }
                        Choice::Named(name) => Some(name.to_string()),
                        Choice::None => None,
                    };
                    let [expected, found] = [&plain, &ready].map(|rule| {
                        let mut run = Run::for_request(steps, None);
                        (rule.choose(input, &mut run).map(name), run.steps())
                    });
                    assert_eq!(found, expected, "{rule}");
                }
            }
        }
    });
    assert!(found.get() > 0);
}

#[test]
fn an_evaluation_takes_no_more_steps_than_estimated() {
    let settings = settings();
    let (compiled, close) = (Cell::new(0), Cell::new(0));
    let key = HashedKey::new(settings.fractional, "flag");
    pennon_fuzz::for_all(&pennon_fuzz::seeds(), |seed| {
        let mut rules = Rules(fastrand::Rng::with_seed(seed));
        for depth in [1, 2, 3, 4, 5] {
            let rule = rules.rule(depth);
            let Ok(ready) = compile(&rule, &Evaluators::of(&settings)) else {
                continue;
            };
            compiled.set(compiled.get() + 1);
            for context in [json!({}), json!({"targetingKey": "user-123"})] {
                let context = Context::parse(context).expect("a context");
                let input = input_of(&context, &key);
                let mut run = Run::for_request(u64::MAX, None);
                let (_choice, steps) = (ready.choose(input, &mut run), run.steps());
                assert!(steps <= ready.cost, "{steps} of {}: {rule}", ready.cost);
                close.set(close.get() + usize::from(steps * 4 >= ready.cost));
            }
        }
    });
    let (compiled, close) = (compiled.get(), close.get());
    assert!(compiled > 0);
    // More than a quarter of the evaluations (two for each rule) take at least a quarter of the estimate.
    assert!(close > compiled / 2, "only {close} for {compiled} rules");
}
