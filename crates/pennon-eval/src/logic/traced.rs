//! Records the operations of a rule while it is evaluated.
//!
//! A rule that is compiled for a trace has an [`Expression::Traced`] around each operation that is not constant. It
//! has no effect on the result and takes no steps, so an explained evaluation equals every other.

use serde_json::{Map, Value};

use super::expression::Expression;
use super::run::{Result, Run};
use super::value::Val;
use crate::trace::{Argument, Operation, REST, SHOWN_CHARACTERS, cut};

/// Longer lists and objects are cut.
const SHOWN_ITEMS: usize = 20;
/// Limit on the bytes of a constant.
const WRITTEN_BYTES: usize = 1_000;

/// An operation whose evaluation is recorded.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    pub(super) expression: Expression,
    pub(super) operation: Operation,
}

/// The operands of an operation, as they are written and compiled.
pub(super) fn arguments(written: &Value, compiled: &[Expression]) -> Vec<Argument> {
    let written = written
        .as_array()
        .map_or(std::slice::from_ref(written), Vec::as_slice);
    let arguments = written.iter().zip(compiled);
    arguments
        .map(|(written, compiled)| argument(written, compiled))
        .collect()
}

fn argument(written: &Value, compiled: &Expression) -> Argument {
    if let Some(Traced { operation, .. }) = compiled.traced() {
        return Argument::Operation(operation.evaluator.clone(), operation.pointer.clone());
    }
    // An operation whose operands are constant has been replaced by its result.
    let value = compiled.constant().unwrap_or(written);
    let mut bytes = 0;
    let shown = show(&Val::of(value), &mut |more| {
        bytes += more;
        bytes <= WRITTEN_BYTES
    });
    Argument::Written(shown, bytes.min(WRITTEN_BYTES))
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
            let shown = cut(text);
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
