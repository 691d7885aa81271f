//! Operators that make numbers.

use super::coerce;
use super::expression::Expression;
use super::number::Num;
use super::path::Scope;
use super::run::{Result, Run};
use crate::limits::EvalError;

impl Run {
    /// The number that an operator makes.
    pub(super) fn arithmetic<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Num> {
        match expression {
            Expression::Sum(parts) => self.collect(parts, Num::Int(0), Num::plus, scope),
            Expression::Product(parts) => self.collect(parts, Num::Int(1), Num::times, scope),
            Expression::Negative(one) => Ok(Num::Int(0).minus(self.number(one, scope)?)),
            Expression::Difference(a, b) => {
                Ok(self.number(a, scope)?.minus(self.number(b, scope)?))
            }
            Expression::Quotient(a, b) => {
                let a = self.number(a, scope)?;
                a.over(self.number(b, scope)?)
                    .ok_or(EvalError::DivisionByZero)
            }
            Expression::Remainder(a, b) => {
                let a = self.number(a, scope)?;
                a.modulo(self.number(b, scope)?)
                    .ok_or(EvalError::DivisionByZero)
            }
            Expression::Minimum(parts) => self.best(parts, |new, best| new < best, scope),
            Expression::Maximum(parts) => self.best(parts, |new, best| new > best, scope),
            other => self.number(other, scope),
        }
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

    /// The best of all; not-a-number when one of them is none, or there is none.
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
