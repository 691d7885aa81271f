//! Evaluates a compiled rule.

use std::cmp::Ordering;

use serde_json::Value;

use super::coerce;
use super::expression::{Expression, Order, Texts};
use super::number::Num;
use super::path::{self, Scope};
use super::value::{Text, Val};
use crate::limits::{EvalError, Fuel};
use crate::trace::Trace;

pub(super) type Result<T> = std::result::Result<T, EvalError>;

/// The state of one evaluation.
pub(crate) struct Run<'t> {
    pub(super) fuel: Fuel,
    /// Records the operations of a rule that is compiled for it.
    pub(super) trace: Option<&'t mut Trace>,
}

impl<'t> Run<'t> {
    pub(super) fn with(fuel: Fuel) -> Self {
        Self { fuel, trace: None }
    }

    /// For a request that may take this many more steps. `trace` records the operations of a rule that is compiled for
    /// a trace.
    #[inline]
    pub(crate) fn for_request(steps: u64, trace: Option<&'t mut Trace>) -> Self {
        Self {
            fuel: Fuel::for_request(steps),
            trace,
        }
    }

    /// The number of steps taken.
    #[inline]
    pub(crate) fn steps(&self) -> u64 {
        self.fuel.used()
    }
}

impl Run<'_> {
    pub(super) fn evaluate<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        self.fuel.charge_step()?;
        match expression {
            Expression::Constant(value) => Ok(Val::of(value)),
            Expression::Variant { name, .. } => Ok(Val::text(name)),
            Expression::Evaluator(evaluator) => {
                self.fuel.refund_step();
                self.evaluate(&evaluator.expression, scope)
            }
            Expression::Traced(traced) => {
                self.fuel.refund_step();
                self.evaluate_traced(traced, scope, Self::evaluate)
            }
            Expression::Var(path) => path.find(scope, &mut self.fuel),
            Expression::VarOr(path, default) => {
                let found = path.find(scope, &mut self.fuel)?;
                if found.is_null() {
                    self.evaluate(default, scope)
                } else {
                    Ok(found)
                }
            }
            Expression::If(parts) => match self.branch(parts, scope)? {
                Some(branch) => self.evaluate(branch, scope),
                None => Ok(Val::Null),
            },
            Expression::And(parts) => self.first(parts, false, scope),
            Expression::Or(parts) => self.first(parts, true, scope),
            Expression::Truth(..)
            | Expression::Equal { .. }
            | Expression::Order { .. }
            | Expression::In(..)
            | Expression::InTexts(..) => self.truth(expression, scope).map(Val::Bool),
            Expression::Affix {
                text,
                affix,
                is_end,
            } => {
                let holds = self.affix(text, affix, *is_end, scope)?;
                Ok(holds.map_or(Val::Null, Val::Bool))
            }
            Expression::Fractional(fractional) => fractional.choose(self, scope),
            Expression::SemVer(arguments) => self.sem_ver(arguments, scope),
            Expression::List(items) => {
                let items = self.all(items, scope)?;
                Val::list(items)
            }
            Expression::VarAt(path, default) => self.var_at(path, default.as_deref(), scope),
            Expression::Missing(names) => self.missing(names, scope),
            Expression::MissingOf(names) => self.missing_of(names, scope),
            Expression::MissingSome(need, names) => self.missing_some(need, names, scope),
            Expression::Sum(parts) => self.sum(parts, scope).map(Val::Number),
            Expression::Product(parts) => self.product(parts, scope).map(Val::Number),
            Expression::Negative(one) => self.negative(one, scope).map(Val::Number),
            Expression::Difference(a, b) => self.difference(a, b, scope).map(Val::Number),
            Expression::Quotient(a, b) => self.quotient(a, b, scope).map(Val::Number),
            Expression::Remainder(a, b) => self.remainder(a, b, scope).map(Val::Number),
            Expression::Minimum(parts) => self.minimum(parts, scope).map(Val::Number),
            Expression::Maximum(parts) => self.maximum(parts, scope).map(Val::Number),
            Expression::Each { list, body, each } => self.each(list, body, *each, scope),
            Expression::Reduce {
                list,
                body,
                initial,
            } => self.reduce(list, body, initial, scope),
            Expression::Merge(parts) => self.merge(parts, scope),
            Expression::Cat(parts) => self.cat(parts, scope),
            Expression::Substr { text, from, length } => {
                self.substr(text, from, length.as_deref(), scope)
            }
        }
    }

    /// Evaluates a condition. Most conditions compare a value of the context with a constant, without
    /// creating a [`Val`].
    pub(super) fn truth<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<bool> {
        let mut expression = expression;
        // The last part has the result, unless an earlier one decides.
        while let Expression::And(parts) | Expression::Or(parts) = expression {
            self.fuel.charge_step()?;
            let deciding = matches!(expression, Expression::Or(_));
            let Some((last, parts)) = parts.split_last() else {
                return Ok(false);
            };
            for part in parts {
                if self.truth(part, scope)? == deciding {
                    return Ok(deciding);
                }
            }
            expression = last;
        }
        self.fuel.charge_step()?;
        match expression {
            Expression::Evaluator(evaluator) => {
                self.fuel.refund_step();
                self.truth(&evaluator.expression, scope)
            }
            Expression::Traced(traced) => {
                self.fuel.refund_step();
                let value = self.evaluate_traced(traced, scope, Self::condition)?;
                Ok(value.is_truthy())
            }
            Expression::Truth(one, wanted) => Ok(self.truth(one, scope)? == *wanted),
            Expression::If(parts) => match self.branch(parts, scope)? {
                Some(branch) => self.truth(branch, scope),
                None => Ok(false),
            },
            Expression::Equal {
                a,
                b,
                is_strict,
                when_equal,
            } => Ok(self.equal(a, b, *is_strict, scope)? == *when_equal),
            Expression::Order { a, b, c, order } => self.order(a, b, c.as_deref(), *order, scope),
            Expression::In(needle, hay) => self.within(needle, hay, scope),
            Expression::InTexts(needle, texts) => self.in_texts(needle, texts, scope),
            Expression::Affix {
                text,
                affix,
                is_end,
            } => Ok(self.affix(text, affix, *is_end, scope)? == Some(true)),
            Expression::Constant(_)
            | Expression::Variant { .. }
            | Expression::List(_)
            | Expression::And(_)
            | Expression::Or(_)
            | Expression::Var(_)
            | Expression::VarOr(..)
            | Expression::VarAt(..)
            | Expression::Missing(_)
            | Expression::MissingOf(_)
            | Expression::MissingSome(..)
            | Expression::Sum(_)
            | Expression::Product(_)
            | Expression::Negative(_)
            | Expression::Difference(..)
            | Expression::Quotient(..)
            | Expression::Remainder(..)
            | Expression::Minimum(_)
            | Expression::Maximum(_)
            | Expression::Each { .. }
            | Expression::Reduce { .. }
            | Expression::Merge(_)
            | Expression::Cat(_)
            | Expression::Substr { .. }
            | Expression::SemVer(_)
            | Expression::Fractional(_) => Ok(self.evaluate(expression, scope)?.is_truthy()),
        }
    }

    /// The text of a value.
    pub(super) fn text<'a>(&mut self, value: &Val<'a>) -> Result<Text<'a>> {
        coerce::text(value, &mut self.fuel)
    }

    pub(super) fn all<'a>(
        &mut self,
        expressions: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Vec<Val<'a>>> {
        let values = expressions.iter().map(|one| self.evaluate(one, scope));
        values.collect()
    }

    /// The branch of an `if` that is taken.
    #[inline]
    pub(super) fn branch<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Option<&'a Expression>> {
        let mut rest = parts;
        loop {
            match rest {
                [] => return Ok(None),
                [otherwise] => return Ok(Some(otherwise)),
                [condition, then, after @ ..] => {
                    if self.truth(condition, scope)? {
                        return Ok(Some(then));
                    }
                    rest = after;
                }
            }
        }
    }

    fn affix<'a>(
        &mut self,
        text: &'a Expression,
        affix: &'a Expression,
        is_end: bool,
        scope: &Scope<'a>,
    ) -> Result<Option<bool>> {
        if let (Some(text), Some(affix)) = (self.peek(text, scope)?, self.peek(affix, scope)?) {
            return self.has_affix(text.as_str(), affix.as_str(), is_end);
        }
        let text = self.evaluate(text, scope)?;
        let affix = self.evaluate(affix, scope)?;
        self.has_affix(text.as_text(), affix.as_text(), is_end)
    }

    #[inline]
    fn has_affix(
        &mut self,
        text: Option<&str>,
        affix: Option<&str>,
        is_end: bool,
    ) -> Result<Option<bool>> {
        let (Some(text), Some(affix)) = (text, affix) else {
            return Ok(None);
        };
        self.fuel
            .charge_request_limit_for_bytes(affix.len().min(text.len()))?;
        Ok(Some(if is_end {
            text.ends_with(affix)
        } else {
            text.starts_with(affix)
        }))
    }

    fn equal<'a>(
        &mut self,
        a: &'a Expression,
        b: &'a Expression,
        is_strict: bool,
        scope: &Scope<'a>,
    ) -> Result<bool> {
        match (self.peek(a, scope)?, self.peek(b, scope)?) {
            (Some(Value::String(a)), Some(Value::String(b))) => {
                return coerce::same_text(a, b, &mut self.fuel);
            }
            (Some(Value::Number(a)), Some(Value::Number(b))) => {
                return Ok(Num::of(a).equals(Num::of(b)));
            }
            (_, _) => {}
        }
        let a = self.evaluate(a, scope)?;
        let b = self.evaluate(b, scope)?;
        if is_strict {
            coerce::same(&a, &b, &mut self.fuel)
        } else {
            coerce::equal(&a, &b, &mut self.fuel)
        }
    }

    /// The first value whose truth is `wanted`, else the last value.
    fn first<'a>(
        &mut self,
        parts: &'a [Expression],
        wanted: bool,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let mut last = Val::Null;
        for part in parts {
            last = self.evaluate(part, scope)?;
            if last.is_truthy() == wanted {
                break;
            }
        }
        Ok(last)
    }

    fn order<'a>(
        &mut self,
        a: &'a Expression,
        b: &'a Expression,
        c: Option<&'a Expression>,
        order: Order,
        scope: &Scope<'a>,
    ) -> Result<bool> {
        if let (Some(Value::Number(a)), Some(Value::Number(b)), None) =
            (self.peek(a, scope)?, self.peek(b, scope)?, c)
        {
            return Ok(order.holds(Num::of(a).compare(Num::of(b))));
        }
        let a = self.evaluate(a, scope)?;
        let b = self.evaluate(b, scope)?;
        let c = match c {
            Some(c) => Some(self.evaluate(c, scope)?),
            None => None,
        };
        if !order.holds(coerce::order(&a, &b, &mut self.fuel)?) {
            return Ok(false);
        }
        match c {
            Some(c) => Ok(order.holds(coerce::order(&b, &c, &mut self.fuel)?)),
            None => Ok(true),
        }
    }

    fn var_at<'a>(
        &mut self,
        path: &'a Expression,
        default: Option<&'a Expression>,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let path = self.evaluate(path, scope)?;
        let path = if path.is_null() {
            Text::Borrowed("")
        } else {
            self.text(&path)?
        };
        self.fuel.charge_text(&path)?;
        match (path::find(scope, &path, &mut self.fuel)?, default) {
            (Val::Null, Some(default)) if !path.is_empty() => self.evaluate(default, scope),
            (found, _) => Ok(found),
        }
    }

    /// The value of a constant or of a path through objects, without an evaluation.
    #[inline]
    fn peek<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Option<&'a Value>> {
        if let Expression::Constant(value) = expression {
            Ok(Some(value))
        } else if let Expression::Var(path) = expression {
            self.fuel.charge_request_limit(path.cost())?;
            Ok(path.peek(scope))
        } else {
            self.peek_through(expression, scope)
        }
    }

    /// [`Self::peek`] through references to evaluators and operations that a trace records.
    #[inline(never)]
    fn peek_through<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Option<&'a Value>> {
        let Expression::Var(path) = expression.resolved() else {
            return Ok(expression.constant());
        };
        self.fuel.charge_request_limit(path.cost())?;
        let found = path.peek(scope);
        if let Some(found) = found {
            self.note_peeked(expression, found);
        }
        Ok(found)
    }

    fn in_texts<'a>(
        &mut self,
        needle: &'a Expression,
        texts: &Texts,
        scope: &Scope<'a>,
    ) -> Result<bool> {
        if let Some(needle) = self.peek(needle, scope)? {
            return self.is_among_texts(needle.as_str(), texts);
        }
        let needle = self.evaluate(needle, scope)?;
        self.is_among_texts(needle.as_text(), texts)
    }

    fn is_among_texts(&mut self, needle: Option<&str>, texts: &Texts) -> Result<bool> {
        let Some(needle) = needle else {
            return Ok(false);
        };
        self.fuel.charge_request_limit_for_bytes(needle.len())?;
        Ok(texts.contains(needle))
    }
}

impl Order {
    fn holds(self, order: Option<Ordering>) -> bool {
        order.is_some_and(|order| match self {
            Self::Below => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Above => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        })
    }
}
