//! Records the operations of a rule while it is evaluated.
//!
//! A rule that is compiled for a trace has an [`Expression::Traced`] around each operation, reference and list that is
//! not constant. The mark has no effect on the result and takes no steps, so an explained evaluation equals all others.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::expression::Expression;
use super::path::Scope;
use super::run::{Result, Run};
use super::value::Val;
use crate::trace::{Argument, MAX_OPERANDS, Operation, REST, SHOWN_CHARACTERS, cut};

/// Longer lists and objects are cut.
const SHOWN_ITEMS: usize = 20;
/// Limit on the bytes of one constant in a trace.
const WRITTEN_BYTES: usize = 1_000;

/// An expression whose evaluation is recorded.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    pub(super) expression: Expression,
    pub(super) operation: Operation,
}

/// The operands of an operation, as they are written and compiled.
pub(super) fn arguments(
    operator: &str,
    written: &Value,
    compiled: &[Expression],
) -> Arc<[Argument]> {
    let written = written
        .as_array()
        .map_or(std::slice::from_ref(written), Vec::as_slice);
    // A bucket is not evaluated as a list.
    let is_bucket = |written: &Value| operator == "fractional" && written.is_array();
    let arguments = written.iter().zip(compiled).take(MAX_OPERANDS);
    arguments
        .map(|(written, compiled)| match compiled.traced() {
            Some(traced) if !is_bucket(written) => {
                Argument::Operation(traced.operation.pointer.clone())
            }
            // An operation whose operands are constant has been replaced by its result.
            Some(_) | None => as_written(compiled.constant().unwrap_or(written)),
        })
        .collect()
}

fn as_written(value: &Value) -> Argument {
    let mut bytes = 0;
    let shown = show(&Val::of(value), &mut |more| {
        bytes += more;
        bytes <= WRITTEN_BYTES
    });
    Argument::Written(shown, bytes.min(WRITTEN_BYTES))
}

impl Expression {
    /// A list without the mark of a trace; any other expression unchanged.
    pub(super) fn list_without_mark(self) -> Self {
        if let Self::Traced(traced) = self {
            if matches!(traced.expression, Self::List(_)) {
                return traced.expression;
            }
            return Self::Traced(traced);
        }
        self
    }
}

impl Run<'_> {
    /// Evaluates an expression, by [`Self::evaluate`] or [`Self::condition`], and records its value.
    #[cold]
    pub(super) fn evaluate_traced<'a>(
        &mut self,
        traced: &'a Traced,
        scope: &Scope<'a>,
        evaluate: impl FnOnce(&mut Self, &'a Expression, &Scope<'a>) -> Result<Val<'a>>,
    ) -> Result<Val<'a>> {
        if let Some(trace) = &mut self.trace {
            trace.begin(&traced.operation);
        }
        let result = evaluate(self, &traced.expression, scope);
        if let Some(trace) = &mut self.trace {
            let outcome = match &result {
                Ok(value) => Ok(show(value, &mut |bytes| trace.has_room_for(bytes))),
                Err(error) => Err(error.to_string()),
            };
            trace.end(&traced.operation, outcome);
        }
        result
    }

    /// The value of a condition, for a trace. Takes the same steps as [`Self::truth`], which does not compute the
    /// value.
    #[cold]
    pub(super) fn condition<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        if let Expression::Traced(traced) = expression {
            self.evaluate_traced(traced, scope, Self::condition)
        } else if let Expression::Evaluator(evaluator) = expression {
            self.condition(&evaluator.expression, scope)
        } else if let Expression::And(parts) | Expression::Or(parts) = expression {
            self.fuel.charge_step()?;
            let deciding = matches!(expression, Expression::Or(_));
            let mut last = Val::Null;
            for part in parts {
                last = self.condition(part, scope)?;
                if last.is_truthy() == deciding {
                    break;
                }
            }
            Ok(last)
        } else if let Expression::If(parts) = expression {
            self.fuel.charge_step()?;
            match self.branch(parts, scope)? {
                Some(branch) => self.condition(branch, scope),
                None => Ok(Val::Null),
            }
        } else if let Expression::Affix { .. } = expression {
            self.evaluate(expression, scope)
        } else if let Expression::Truth(..)
        | Expression::Equal { .. }
        | Expression::Order { .. }
        | Expression::In(..)
        | Expression::InTexts(..) = expression
        {
            self.truth(expression, scope).map(Val::Bool)
        } else {
            // `truth` charges a step, and calls `evaluate`, which charges another.
            self.fuel.charge_step()?;
            self.evaluate(expression, scope)
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
        Val::ReduceScope(scope) => {
            let mut shown = Map::new();
            for (name, value) in [
                ("accumulator", &scope.accumulator),
                ("current", &scope.current),
            ] {
                shown.insert(name.to_owned(), show(value, has_room_for));
            }
            Value::Object(shown)
        }
        Val::Null | Val::Bool(_) | Val::Number(_) => value.json().unwrap_or(Value::Null),
    }
}
