//! Estimates the maximum number of steps of a rule for a context with only a targeting key, as on the public routes.
//!
//! Such an evaluation iterates only over lists that the rule contains, so its cost follows from the rule alone. A
//! list or a text of unknown length is assumed to have the length `STEPS`, the step limit of an evaluation.

use serde_json::Value;

use super::cost::Cost;
use super::expression::{Each, Expression, Fractional};
use super::number::Num;
use super::path::Path;
use crate::limits::{BYTES_PER_STEP, STEPS};

/// The assumed length of a list or a text that is unknown.
const UNKNOWN: u64 = STEPS as u64;

/// The cost of an expression in the scope of the context.
pub(super) fn cost(expression: &Expression) -> Cost {
    Estimator { item: None }.cost(expression)
}

/// The cost of an expression in the body of `map` or another list operator, for items of any length.
pub(super) fn per_item(expression: &Expression) -> Cost {
    let item = Some(UNKNOWN);
    Estimator { item }.cost(expression)
}

struct Estimator {
    /// The maximal length of an item, in the body of a list operator.
    item: Option<u64>,
}

impl Estimator {
    /// The costs of all parts. Callers must not compute the cost of a part twice: that would double the work at every
    /// level of nesting.
    fn costs<'e>(&self, parts: impl IntoIterator<Item = &'e Expression>) -> Vec<Cost> {
        parts.into_iter().map(|part| self.cost(part)).collect()
    }

    /// The cost of following a path. The targeting key and the flag's key are assumed to be short.
    fn found(&self, path: &Path) -> Cost {
        let cost = self.value().plus_request(path.cost());
        if path.is_empty() {
            cost
        } else {
            cost.plus_request(self.characters())
        }
    }

    /// The size of the value that a path leads to, as a cost without steps.
    fn value(&self) -> Cost {
        match self.item {
            Some(item) => Cost::default().giving(item, item),
            None => Cost::default().giving(0, 1),
        }
    }

    /// The steps of following a path into a text, such as `name.length`: the evaluation counts the text's characters.
    fn characters(&self) -> u64 {
        self.item.unwrap_or(0)
    }

    fn cost(&self, expression: &Expression) -> Cost {
        if let Expression::Evaluator(evaluator) = expression {
            return match self.item {
                Some(_) => evaluator.item_cost,
                None => evaluator.cost,
            };
        }
        if let Expression::Traced(traced) = expression {
            return self.cost(&traced.expression);
        }
        // `Run::truth` and `Run::evaluate` charge a step each, and `truth` may call `evaluate` for the same expression.
        self.inner(expression).plus(2)
    }

    fn inner(&self, expression: &Expression) -> Cost {
        match expression {
            Expression::Evaluator(_) | Expression::Traced(_) => self.cost(expression),
            Expression::Constant(value) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let longest = items.iter().map(written).max().unwrap_or(0);
                Cost::default()
                    .giving(items.len() as u64, written(value))
                    .of_items(longest)
            }
            // Not reached, because `Rule::find_variants` runs after the estimate. Returns the cost of the constant that
            // the variant replaces.
            Expression::Variant { name, .. } => Cost::default().giving(0, bytes(name.len())),
            Expression::Var(path) => self.found(path),
            Expression::VarOr(path, default) => self.found(path).and(self.cost(default)),
            Expression::VarAt(path, default) => {
                let path = self.cost(path);
                // A path that is a list is first converted to a string. The string is then split at its dots, and its
                // parts are compared with the names of fields.
                let written = if path.list > 0 { path.text } else { 0 };
                let found = self.value().and(path.giving(0, 0));
                let found = found
                    .plus(written.saturating_add(path.text))
                    .plus_request(path.text.saturating_add(self.characters()));
                match default {
                    Some(default) => found.and(self.cost(default)),
                    None => found,
                }
            }
            Expression::If(parts) | Expression::And(parts) | Expression::Or(parts) => {
                all(&self.costs(parts))
            }
            Expression::Truth(one, _) => self.cost(one).giving(0, 1),
            Expression::Order { a, b, c, .. } => {
                let operands = [&**a, &**b];
                self.converted(operands.into_iter().chain(c.as_deref()))
                    .plus_request(peeked(operands))
            }
            Expression::Sum(parts)
            | Expression::Product(parts)
            | Expression::Minimum(parts)
            | Expression::Maximum(parts) => self.converted(parts),
            Expression::Negative(one) => self.converted([&**one]),
            Expression::Equal { a, b, .. }
            | Expression::Affix {
                text: a, affix: b, ..
            } => {
                let operands = [&**a, &**b];
                self.converted(operands).plus_request(peeked(operands))
            }
            Expression::Difference(a, b)
            | Expression::Quotient(a, b)
            | Expression::Remainder(a, b) => self.converted([&**a, &**b]),
            Expression::SemVer(arguments) => self.converted(arguments.as_slice()),
            Expression::List(items) => self.list(items),
            Expression::Missing(names) => {
                let count = names.len() as u64;
                let paths = names.iter().map(|path| path.cost() + 2).sum();
                let characters = self.characters().saturating_mul(count);
                Cost::default()
                    .plus_request(characters.saturating_add(paths))
                    .giving(count, paths)
            }
            Expression::MissingOf(names) => self.missing_of(names),
            Expression::MissingSome(need, names) => self.missing_some(need, names),
            Expression::Each { list, body, each } => self.each(list, body, *each),
            Expression::Reduce {
                list,
                body,
                initial,
            } => self.reduce(list, body, initial),
            Expression::Merge(parts) => self.merge(parts),
            Expression::In(needle, hay) => self.within(needle, hay),
            Expression::InTexts(needle, _) => {
                let peeked = peeked([&**needle]);
                let needle = self.cost(needle);
                let read = needle.text.saturating_add(peeked);
                needle.plus_request(read).giving(0, 1)
            }
            Expression::Cat(parts) => {
                let parts = self.costs(parts);
                let text = sum(&parts, |part| part.text.saturating_add(2));
                all(&parts).plus(text).giving(0, text)
            }
            Expression::Substr { text, from, length } => {
                let text = self.cost(text);
                let rest = self.converted([&**from].into_iter().chain(length.as_deref()));
                let twice = text.text.saturating_mul(2);
                text.and(rest).plus(twice).giving(0, text.text)
            }
            Expression::Fractional(fractional) => self.fractional(fractional),
        }
    }

    fn list(&self, items: &[Expression]) -> Cost {
        let items = self.costs(items);
        let text = sum(&items, |item| item.text.saturating_add(2));
        let all = all(&items);
        all.giving(items.len() as u64, text).of_items(all.text)
    }

    fn missing_of(&self, names: &[Expression]) -> Cost {
        let names = self.costs(names);
        let max = sum(&names, |name| name.list.max(1));
        let text = sum(&names, |name| name.text.saturating_add(2));
        let all = all(&names).plus(max.saturating_add(text));
        let characters = self.characters().saturating_mul(max);
        all.plus_request(text.saturating_add(characters))
            .giving(max, text)
    }

    fn missing_some(&self, need: &Expression, names: &Expression) -> Cost {
        let (need, names) = (self.cost(need), self.cost(names));
        let work = names.list.saturating_add(names.text);
        let characters = self.characters().saturating_mul(names.list);
        let read = names.text.saturating_add(need.text);
        need.and(names)
            .plus(work.saturating_add(need.text))
            .plus_request(read.saturating_add(characters))
            .giving(names.list, names.text)
    }

    fn reduce(&self, list: &Expression, body: &Expression, initial: &Expression) -> Cost {
        let (items, initial) = (self.cost(list), self.cost(initial));
        if items.list == 0 {
            return items.and(initial);
        }
        // The result of the body is the input of the next iteration and may have any size.
        let each = per_item(body).plus(1).times(items.list);
        items.and(initial).and(each).giving(UNKNOWN, UNKNOWN)
    }

    fn merge(&self, parts: &[Expression]) -> Cost {
        let parts = self.costs(parts);
        let list = sum(&parts, |part| part.list.max(1));
        let text = sum(&parts, |part| part.text.saturating_add(2));
        let all = all(&parts);
        let longest = all.text.max(all.item);
        all.plus(list).giving(list, text).of_items(longest)
    }

    fn within(&self, needle: &Expression, hay: &Expression) -> Cost {
        let (needle, hay) = (self.cost(needle), self.cost(hay));
        let compared = hay.text.saturating_add(needle.text);
        let work = hay.list.saturating_add(compared);
        needle
            .and(hay)
            .plus(work)
            .plus_request(compared)
            .giving(0, 1)
    }

    fn fractional(&self, fractional: &Fractional) -> Cost {
        let by = fractional.by.as_ref();
        let by = by.map_or_else(Cost::default, |by| self.cost(by));
        let hashed = by.text.saturating_add(by.list).saturating_add(1);
        let chosen = all(&self.costs(fractional.variants_and_weights()));
        by.and(chosen).plus(hashed).plus_request(hashed)
    }

    /// The cost of expressions whose results are compared, or converted to numbers or texts.
    fn converted<'e>(&self, parts: impl IntoIterator<Item = &'e Expression>) -> Cost {
        let parts = self.costs(parts);
        let text = sum(&parts, |part| part.text.saturating_mul(2));
        all(&parts).plus(text).plus_request(text).giving(0, 2)
    }

    fn each(&self, list: &Expression, body: &Expression, each: Each) -> Cost {
        let items = self.cost(list);
        if items.list == 0 {
            return items.giving(0, 1);
        }
        let item = Some(items.item);
        let result = Estimator { item }.cost(body);
        let work = items.and(result.plus(1).times(items.list));
        match each {
            Each::Map => {
                let text = result.text.saturating_add(2).saturating_mul(items.list);
                work.giving(items.list, text).of_items(result.text)
            }
            Each::Filter => work.giving(items.list, items.text).of_items(items.item),
            Each::All | Each::Some | Each::None => work.giving(0, 1),
        }
    }
}

/// The steps of peeking at operands before they are evaluated, which follows their paths once more.
fn peeked<'e>(operands: impl IntoIterator<Item = &'e Expression>) -> u64 {
    let paths = operands.into_iter().map(|operand| {
        if let Expression::Var(path) = operand.resolved() {
            path.cost()
        } else {
            0
        }
    });
    paths.sum()
}

/// The cost of all parts together.
fn all(parts: &[Cost]) -> Cost {
    parts.iter().copied().fold(Cost::default(), Cost::and)
}

/// The sum of one field of [`Cost`] over all parts.
fn sum(parts: &[Cost], of: impl Fn(&Cost) -> u64) -> u64 {
    parts.iter().map(of).fold(0, u64::saturating_add)
}

/// The steps of a text of this many bytes.
fn bytes(length: usize) -> u64 {
    (length / BYTES_PER_STEP) as u64
}

/// The steps of writing, reading or hashing a value.
fn written(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(number) => bytes(Num::of(number).text().len()),
        Value::String(text) => bytes(text.len()),
        Value::Array(items) => items.iter().map(|item| 2 + written(item)).sum(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| 2 + bytes(name.len()) + written(value))
                .sum()
        }
    }
}
