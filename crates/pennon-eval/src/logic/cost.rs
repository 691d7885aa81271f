//! How much work a rule takes at most, for a caller of whom nothing but the id is known.
//!
//! Such a caller is whoever asks the public routes, and every one whose application sets no attributes.
//! The work follows from the rule alone then: lists to walk through are those that stand in it.
//! Whatever is not known counts as the most that one evaluation may take.

use serde_json::Value;

use super::expression::{Each, Expression};
use crate::limits::{BYTES_PER_STEP, STEPS};

/// What an expression takes at most, and what may come out of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Fuel that count against the limit of one evaluation.
    steps: u64,
    /// Steps that count against the request only, see [`Fuel::charge_request`](crate::limits::Fuel::charge_request).
    beside: u64,
    /// How many items the longest list has that may come out.
    list: u64,
    /// How many steps it takes to write or to hash what may come out.
    text: u64,
    /// The same of the longest item of a list that may come out. No list in it is longer either.
    item: u64,
}

/// How long a list or a text may be of which nothing is known.
const UNKNOWN: u64 = STEPS as u64;

impl Cost {
    /// What an expression takes in the scope of the caller.
    pub(super) fn of(expression: &Expression) -> Self {
        Walk { item: None }.cost(expression)
    }

    /// What an expression takes in the body of `map` and its relatives, whatever the items are.
    pub(super) fn per_item(expression: &Expression) -> Self {
        let item = Some(UNKNOWN);
        Walk { item }.cost(expression)
    }

    /// All steps of one evaluation, the text of its result included.
    pub(super) fn total(self) -> u64 {
        let steps = self.steps.saturating_add(self.text);
        steps.min(u64::from(STEPS)).saturating_add(self.beside)
    }

    fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(other.steps),
            beside: self.beside.saturating_add(other.beside),
            list: self.list.max(other.list),
            text: self.text.max(other.text),
            item: self.item.max(other.item),
        }
    }

    fn times(self, count: u64) -> Self {
        Self {
            steps: self.steps.saturating_mul(count),
            beside: self.beside.saturating_mul(count),
            ..self
        }
    }

    fn plus(self, steps: u64) -> Self {
        Self {
            steps: self.steps.saturating_add(steps),
            ..self
        }
    }

    fn beside(self, steps: u64) -> Self {
        Self {
            beside: self.beside.saturating_add(steps),
            ..self
        }
    }

    /// The same work with another result.
    fn giving(self, list: u64, text: u64) -> Self {
        Self {
            list,
            text,
            item: text,
            ..self
        }
    }

    /// The same result, whose items are no longer than this.
    fn of_items(self, item: u64) -> Self {
        Self { item, ..self }
    }
}

struct Walk {
    /// In the body of `map` and its relatives: how long an item is, at most.
    item: Option<u64>,
}

impl Walk {
    /// Each once: what is asked of a part again would double at every level.
    fn each_of<'e>(&self, parts: impl IntoIterator<Item = &'e Expression>) -> Vec<Cost> {
        parts.into_iter().map(|part| self.cost(part)).collect()
    }

    /// What a `var` may find. Of the caller only an id is known, and that is short.
    fn found(&self) -> Cost {
        match self.item {
            Some(item) => Cost::default().giving(item, item),
            None => Cost::default().giving(0, 1),
        }
    }

    fn cost(&self, expression: &Expression) -> Cost {
        if let Expression::Shared(shared) = expression {
            return match self.item {
                Some(_) => shared.item_cost,
                None => shared.cost,
            };
        }
        // As a condition and as a value: one step each.
        self.inner(expression).plus(2)
    }

    fn inner(&self, expression: &Expression) -> Cost {
        match expression {
            Expression::Shared(_) => self.cost(expression),
            Expression::Constant(value) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let longest = items.iter().map(written).max().unwrap_or(0);
                Cost::default()
                    .giving(items.len() as u64, written(value))
                    .of_items(longest)
            }
            Expression::Var(path) => self.found().beside(path.cost()),
            Expression::VarOr(path, default) => {
                self.found().beside(path.cost()).and(self.cost(default))
            }
            Expression::VarAt(path, default) => {
                let path = self.cost(path);
                let found = self.found().and(path.giving(0, 0));
                let found = found.plus(path.text).beside(path.text);
                match default {
                    Some(default) => found.and(self.cost(default)),
                    None => found,
                }
            }
            Expression::If(parts) | Expression::And(parts) | Expression::Or(parts) => {
                all(&self.each_of(parts))
            }
            Expression::Truth(one, _) => self.cost(one).giving(0, 1),
            Expression::Order { a, b, c, .. } => {
                self.converted([&**a, &**b].into_iter().chain(c.as_deref()))
            }
            Expression::Sum(parts)
            | Expression::Product(parts)
            | Expression::Minimum(parts)
            | Expression::Maximum(parts) => self.converted(parts),
            Expression::Negative(one) => self.converted([&**one]),
            Expression::Equal { a, b, .. }
            | Expression::Difference(a, b)
            | Expression::Quotient(a, b)
            | Expression::Remainder(a, b)
            | Expression::Affix {
                text: a, affix: b, ..
            } => self.converted([&**a, &**b]),
            Expression::SemVer(arguments) => self.converted(arguments.as_slice()),
            Expression::List(_)
            | Expression::Missing(_)
            | Expression::MissingOf(_)
            | Expression::MissingSome(..)
            | Expression::Each { .. }
            | Expression::Reduce { .. }
            | Expression::Merge(_)
            | Expression::In(..)
            | Expression::InTexts(..)
            | Expression::Cat(_)
            | Expression::Substr { .. }
            | Expression::Fractional(_) => self.of_many(expression),
        }
    }

    /// Operations whose work depends on the length of lists and texts.
    fn of_many(&self, expression: &Expression) -> Cost {
        match expression {
            Expression::List(items) => {
                let items = self.each_of(items);
                let text = sum(&items, |item| item.text.saturating_add(2));
                let all = all(&items);
                all.giving(items.len() as u64, text).of_items(all.text)
            }
            Expression::Missing(names) => {
                let paths = names.iter().map(|path| path.cost() + 2).sum();
                Cost::default()
                    .beside(paths)
                    .giving(names.len() as u64, paths)
            }
            Expression::MissingOf(names) => {
                let names = self.each_of(names);
                let most = sum(&names, |name| name.list.max(1));
                let text = sum(&names, |name| name.text.saturating_add(2));
                let all = all(&names).plus(most.saturating_add(text));
                all.beside(text).giving(most, text)
            }
            Expression::MissingSome(need, names) => {
                let (need, names) = (self.cost(need), self.cost(names));
                let work = names.list.saturating_add(names.text);
                need.and(names)
                    .plus(work.saturating_add(need.text))
                    .beside(names.text)
                    .giving(names.list, names.text)
            }
            Expression::Each { list, body, each } => self.walked(list, body, *each),
            Expression::Reduce {
                list,
                body,
                initial,
            } => {
                let (items, initial) = (self.cost(list), self.cost(initial));
                if items.list == 0 {
                    return items.and(initial);
                }
                // The body makes what the next one works on, of any size.
                let each = Cost::per_item(body).plus(1).times(items.list);
                items.and(initial).and(each).giving(UNKNOWN, UNKNOWN)
            }
            Expression::Merge(parts) => {
                let parts = self.each_of(parts);
                let list = sum(&parts, |part| part.list.max(1));
                let text = sum(&parts, |part| part.text.saturating_add(2));
                let all = all(&parts);
                let longest = all.text.max(all.item);
                all.plus(list).giving(list, text).of_items(longest)
            }
            Expression::In(needle, hay) => {
                let (needle, hay) = (self.cost(needle), self.cost(hay));
                let compared = hay.text.saturating_add(needle.text);
                let work = hay.list.saturating_add(compared);
                needle.and(hay).plus(work).beside(compared).giving(0, 1)
            }
            Expression::InTexts(needle, _) => {
                let needle = self.cost(needle);
                needle.beside(needle.text).giving(0, 1)
            }
            Expression::Cat(parts) => {
                let parts = self.each_of(parts);
                let text = sum(&parts, |part| part.text.saturating_add(2));
                all(&parts).plus(text).giving(0, text)
            }
            Expression::Substr { text, from, length } => {
                let text = self.cost(text);
                let rest = self.converted([&**from].into_iter().chain(length.as_deref()));
                let twice = text.text.saturating_mul(2);
                text.and(rest).plus(twice).giving(0, text.text)
            }
            Expression::Fractional(fractional) => {
                let by = fractional
                    .by()
                    .map_or_else(Cost::default, |by| self.cost(by));
                let hashed = by.text.saturating_add(by.list).saturating_add(1);
                let chosen = all(&self.each_of(fractional.chosen()));
                by.and(chosen).plus(hashed).beside(hashed)
            }
            other => self.inner(other),
        }
    }

    /// Expressions whose results are compared, or made numbers or texts.
    fn converted<'e>(&self, parts: impl IntoIterator<Item = &'e Expression>) -> Cost {
        let parts = self.each_of(parts);
        let text = sum(&parts, |part| part.text.saturating_mul(2));
        all(&parts).plus(text).beside(text).giving(0, 2)
    }

    fn walked(&self, list: &Expression, body: &Expression, each: Each) -> Cost {
        let items = self.cost(list);
        if items.list == 0 {
            return items.giving(0, 1);
        }
        let item = Some(items.item);
        let said = Walk { item }.cost(body);
        let work = items.and(said.plus(1).times(items.list));
        match each {
            Each::Map => {
                let text = said.text.saturating_add(2).saturating_mul(items.list);
                work.giving(items.list, text).of_items(said.text)
            }
            Each::Filter => work.giving(items.list, items.text).of_items(items.item),
            Each::All | Each::Some | Each::None => work.giving(0, 1),
        }
    }
}

/// All of them, one after the other.
fn all(parts: &[Cost]) -> Cost {
    parts.iter().copied().fold(Cost::default(), Cost::and)
}

/// The sum over what may come out of several.
fn sum(parts: &[Cost], of: impl Fn(&Cost) -> u64) -> u64 {
    parts.iter().map(of).fold(0, u64::saturating_add)
}

/// How many steps a text of so many bytes is.
pub(super) fn bytes(length: usize) -> u64 {
    (length / BYTES_PER_STEP) as u64
}

/// How many steps it takes to write or to hash a value. Numbers are short texts.
fn written(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
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
