//! Operators whose result is a number.

use super::coerce;
use super::expression::Expression;
use super::number::Num;
use super::path::Scope;
use super::run::{Result, Run};
use crate::limits::EvalError;

impl Run<'_> {
    pub(super) fn sum<'a>(&mut self, parts: &'a [Expression], scope: &Scope<'a>) -> Result<Num> {
        self.collect(parts, Num::Int(0), Num::plus, scope)
    }

    pub(super) fn product<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Num> {
        self.collect(parts, Num::Int(1), Num::times, scope)
    }

    pub(super) fn difference<'a>(
        &mut self,
        a: &'a Expression,
        b: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        Ok(self.number(a, scope)?.minus(self.number(b, scope)?))
    }

    pub(super) fn negative<'a>(&mut self, one: &'a Expression, scope: &Scope<'a>) -> Result<Num> {
        Ok(Num::Int(0).minus(self.number(one, scope)?))
    }

    pub(super) fn quotient<'a>(
        &mut self,
        a: &'a Expression,
        b: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        let a = self.number(a, scope)?;
        let quotient = a.over(self.number(b, scope)?);
        quotient.ok_or(EvalError::DivisionByZero)
    }

    pub(super) fn remainder<'a>(
        &mut self,
        a: &'a Expression,
        b: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        let a = self.number(a, scope)?;
        let remainder = a.modulo(self.number(b, scope)?);
        remainder.ok_or(EvalError::DivisionByZero)
    }

    pub(super) fn minimum<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Num> {
        self.best(parts, |new, best| new < best, scope)
    }

    pub(super) fn maximum<'a>(
        &mut self,
        parts: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Num> {
        self.best(parts, |new, best| new > best, scope)
    }

    fn number<'a>(&mut self, expression: &'a Expression, scope: &Scope<'a>) -> Result<Num> {
        let value = self.evaluate(expression, scope)?;
        coerce::number(&value, &mut self.fuel)
    }

    fn collect<'a>(
        &mut self,
        parts: &'a [Expression],
        start: Num,
        combine: impl Fn(Num, Num) -> Num,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        let mut result = start;
        for part in parts {
            let part = self.evaluate(part, scope)?;
            result = combine(result, coerce::operand(&part, &mut self.fuel)?);
        }
        Ok(result)
    }

    /// The best of all parts; not-a-number when a part is not a number, or when there are no parts.
    fn best<'a>(
        &mut self,
        parts: &'a [Expression],
        is_better: impl Fn(f64, f64) -> bool,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        let mut best: Option<Num> = None;
        for part in parts {
            let new = self.number(part, scope)?;
            best = match best {
                Some(best) if !new.float().is_nan() && !is_better(new.float(), best.float()) => {
                    Some(best)
                }
                Some(best) if best.float().is_nan() => Some(best),
                Some(_) | None => Some(new),
            };
        }
        Ok(best.unwrap_or(Num::NAN))
    }
}
