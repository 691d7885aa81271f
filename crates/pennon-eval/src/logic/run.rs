//! Evaluating a compiled rule.

use std::cmp::Ordering;

use super::coerce;
use super::expression::{Expression, Order};
use super::lists::missing;
use super::path::{self, Scope};
use super::steps::Steps;
use super::stop::Stop;
use super::value::{Text, Val};

pub(super) type Result<T> = std::result::Result<T, Stop>;

/// One evaluation.
pub(super) struct Run {
    pub(super) steps: Steps,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            steps: Steps::new(),
        }
    }

    pub(super) fn evaluate<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        self.steps.one()?;
        match expression {
            Expression::Constant(value) => Ok(Val::of(value)),
            Expression::Var(path) => Ok(path.find(scope)),
            Expression::VarOr(path, default) => match path.find(scope) {
                Val::Null => self.evaluate(default, scope),
                found => Ok(found),
            },
            Expression::If(parts) => self.choose(parts, scope),
            Expression::And(parts) => self.first(parts, false, scope),
            Expression::Or(parts) => self.first(parts, true, scope),
            Expression::Truth(one, wanted) => {
                let truth = self.evaluate(one, scope)?.is_truthy();
                Ok(Val::Bool(truth == *wanted))
            }
            Expression::Equal {
                a,
                b,
                is_strict,
                when_equal,
            } => {
                let a = self.evaluate(a, scope)?;
                let b = self.evaluate(b, scope)?;
                let equal = if *is_strict {
                    coerce::same(&a, &b)
                } else {
                    coerce::equal(&a, &b, &mut self.steps)?
                };
                Ok(Val::Bool(equal == *when_equal))
            }
            Expression::Order { a, b, c, order } => self.order(a, b, c.as_deref(), *order, scope),
            Expression::In(needle, hay) => self.within(needle, hay, scope),
            Expression::InTexts(needle, texts) => {
                let needle = self.evaluate(needle, scope)?;
                let is_in = match &needle {
                    Val::Text(text) => texts.contains(&**text),
                    Val::Null
                    | Val::Bool(_)
                    | Val::Number(_)
                    | Val::List(_)
                    | Val::Object(_)
                    | Val::Frame(_) => false,
                };
                Ok(Val::Bool(is_in))
            }
            Expression::Affix {
                text,
                affix,
                is_end,
            } => {
                let text = self.evaluate(text, scope)?;
                let affix = self.evaluate(affix, scope)?;
                Ok(match (&text, &affix) {
                    (Val::Text(text), Val::Text(affix)) if *is_end => {
                        Val::Bool(text.ends_with(&**affix))
                    }
                    (Val::Text(text), Val::Text(affix)) => Val::Bool(text.starts_with(&**affix)),
                    (_, _) => Val::Null,
                })
            }
            Expression::Fractional(fractional) => fractional.choose(self, scope),
            Expression::SemVer(arguments) => self.sem_ver(arguments, scope),
            Expression::List(items) => {
                let items = self.all(items, scope)?;
                Val::list(items)
            }
            Expression::VarAt(path, default) => self.var_at(path, default.as_deref(), scope),
            Expression::Missing(names) => missing(names, scope),
            Expression::MissingOf(names) => self.missing_of(names, scope),
            Expression::MissingSome(need, names) => self.missing_some(need, names, scope),
            Expression::Sum(_)
            | Expression::Product(_)
            | Expression::Negative(_)
            | Expression::Difference(..)
            | Expression::Quotient(..)
            | Expression::Remainder(..)
            | Expression::Minimum(_)
            | Expression::Maximum(_) => self.arithmetic(expression, scope).map(Val::Number),
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

    /// The text of a value.
    pub(super) fn text<'a>(&mut self, value: &Val<'a>) -> Result<Text<'a>> {
        coerce::text(value, &mut self.steps)
    }

    pub(super) fn all<'a>(
        &mut self,
        expressions: &'a [Expression],
        scope: &Scope<'a>,
    ) -> Result<Vec<Val<'a>>> {
        let values = expressions.iter().map(|one| self.evaluate(one, scope));
        values.collect()
    }

    fn choose<'a>(&mut self, parts: &'a [Expression], scope: &Scope<'a>) -> Result<Val<'a>> {
        let mut rest = parts;
        loop {
            match rest {
                [] => return Ok(Val::Null),
                [otherwise] => return self.evaluate(otherwise, scope),
                [condition, then, after @ ..] => {
                    if self.evaluate(condition, scope)?.is_truthy() {
                        return self.evaluate(then, scope);
                    }
                    rest = after;
                }
            }
        }
    }

    /// The first value that is as true as wanted, or the last one.
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
    ) -> Result<Val<'a>> {
        let a = self.evaluate(a, scope)?;
        let b = self.evaluate(b, scope)?;
        let mut holds = order.holds(coerce::order(&a, &b, &mut self.steps)?);
        if let Some(c) = c
            && holds
        {
            let c = self.evaluate(c, scope)?;
            holds = order.holds(coerce::order(&b, &c, &mut self.steps)?);
        }
        Ok(Val::Bool(holds))
    }

    fn var_at<'a>(
        &mut self,
        path: &'a Expression,
        default: Option<&'a Expression>,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let path = match self.evaluate(path, scope)? {
            Val::Null => Text::Borrowed(""),
            other => self.text(&other)?,
        };
        self.steps.text(&path)?;
        match (path::find(scope, &path), default) {
            (Val::Null, Some(default)) => self.evaluate(default, scope),
            (found, _) => Ok(found),
        }
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
