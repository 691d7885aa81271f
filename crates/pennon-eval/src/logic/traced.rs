//! Records the operations of a rule while it is evaluated.
//!
//! A rule that is compiled for a trace has an [`Expression::Traced`] around each operation that is not constant. It
//! has no effect on the result and takes no steps, so an explained evaluation equals every other.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::expression::Expression;
use super::run::{Result, Run};
use super::value::Val;
use crate::pointer_step;
use crate::trace::{Argument, Operation};

/// Longer lists and objects are cut.
const SHOWN_ITEMS: usize = 20;
/// Longer texts are cut, in characters.
const SHOWN_CHARACTERS: usize = 100;
/// Limit on the bytes of a constant.
const WRITTEN_BYTES: usize = 1_000;
/// Replaces the rest of a value that is cut.
const REST: &str = "…";

/// An operation whose evaluation is recorded.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    pub(super) expression: Expression,
    operation: Operation,
}

impl Traced {
    /// `pointer` leads to the operation in the evaluator of this name, or in the rule.
    pub(super) fn new(
        expression: Expression,
        evaluator: Option<&Arc<str>>,
        pointer: String,
        operator: &str,
        arguments: &Value,
    ) -> Self {
        let at = format!("{pointer}/{}", pointer_step(operator));
        let argument = |value: &Value, pointer: String| match operator_of(value) {
            Some(("$ref", Value::String(name))) => {
                Argument::Operation(Some(name.as_str().into()), String::new())
            }
            Some(_) => Argument::Operation(evaluator.cloned(), pointer),
            None => {
                let mut bytes = 0;
                let shown = show(&Val::of(value), &mut |more| {
                    bytes += more;
                    bytes <= WRITTEN_BYTES
                });
                Argument::Written(shown, bytes.min(WRITTEN_BYTES))
            }
        };
        let arguments = if let Value::Array(items) = arguments {
            let items = items.iter().enumerate();
            items
                .map(|(index, item)| argument(item, format!("{at}/{index}")))
                .collect()
        } else {
            vec![argument(arguments, at)]
        };
        Self {
            expression,
            operation: Operation {
                evaluator: evaluator.cloned(),
                pointer,
                operator: operator.to_owned(),
                arguments,
            },
        }
    }
}

fn operator_of(value: &Value) -> Option<(&str, &Value)> {
    let fields: &Map<String, Value> = value.as_object()?;
    let (operator, arguments) = fields.iter().next()?;
    (fields.len() == 1).then_some((operator.as_str(), arguments))
}

impl Run<'_> {
    pub(super) fn begin(&mut self, traced: &Traced) {
        if let Some(trace) = &mut self.trace {
            trace.begin(&traced.operation);
        }
    }

    pub(super) fn end(&mut self, traced: &Traced, result: Result<&Val<'_>>) {
        if let Some(trace) = &mut self.trace {
            let outcome = match result {
                Ok(value) => Ok(show(value, &mut |bytes| trace.has_room_for(bytes))),
                Err(error) => Err(error.to_string()),
            };
            trace.end(&traced.operation, outcome);
        }
    }

    /// Records the value of an operand that was read without an evaluation.
    #[cold]
    pub(super) fn note_peeked(&mut self, expression: &Expression, value: &Value) {
        if let Some(trace) = &mut self.trace
            && let Some(traced) = expression.traced()
        {
            let value = show(&Val::of(value), &mut |bytes| trace.has_room_for(bytes));
            trace.note(&traced.operation, value);
        }
    }
}

/// A value as JSON, cut to a size that people read. `has_room_for` is false once the trace is full.
pub(super) fn show(value: &Val<'_>, has_room_for: &mut impl FnMut(usize) -> bool) -> Value {
    let rest = || Value::String(REST.to_owned());
    if !has_room_for(8) {
        return rest();
    }
    match value {
        Val::Text(text) => {
            let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
            if shown.len() < text.len() {
                shown.push_str(REST);
            }
            if has_room_for(shown.len()) {
                Value::String(shown)
            } else {
                rest()
            }
        }
        Val::List(list) => {
            let items = list.iter().take(SHOWN_ITEMS);
            let mut items: Vec<Value> = items.map(|item| show(&item, has_room_for)).collect();
            if list.len() > SHOWN_ITEMS {
                items.push(rest());
            }
            Value::Array(items)
        }
        Val::Object(fields) => {
            let mut shown = Map::new();
            for (name, value) in fields.iter().take(SHOWN_ITEMS) {
                if name.chars().count() > SHOWN_CHARACTERS || !has_room_for(name.len()) {
                    break;
                }
                shown.insert(name.clone(), show(&Val::of(value), has_room_for));
            }
            if shown.len() < fields.len() {
                shown.insert(REST.to_owned(), Value::Null);
            }
            Value::Object(shown)
        }
        Val::Frame(frame) => {
            let mut shown = Map::new();
            for (name, value) in [
                ("accumulator", &frame.accumulator),
                ("current", &frame.current),
            ] {
                shown.insert(name.to_owned(), show(value, has_room_for));
            }
            Value::Object(shown)
        }
        Val::Null | Val::Bool(_) | Val::Number(_) => value.json().unwrap_or(Value::Null),
    }
}
