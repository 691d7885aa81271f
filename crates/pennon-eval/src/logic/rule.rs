//! A compiled rule.

use serde_json::Value;

use super::expression::{Buckets, Expression};
use super::fractional::Chosen;
use super::path::{Input, Scope};
use super::run::Run;
use super::value::{Text, Val};
use crate::limits::EvalError;

/// A compiled rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(super) expression: Expression,
    /// The maximal steps of an evaluation for a context with only a targeting key.
    pub(crate) cost: u64,
}

/// The variant that a rule chose.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    /// No variant: the default applies.
    None,
    /// The variant at this position: see [`Rule::find_variants`].
    Variant(usize),
    /// The variant of this name, which may come from the context and so be any text.
    Named(Text<'a>),
}

impl Rule {
    /// Replaces names of variants with which the rule may end by their positions, so that evaluations need not look
    /// them up. A name for which `position` returns `None` remains.
    pub(crate) fn find_variants(&mut self, position: &impl Fn(&str) -> Option<usize>) {
        self.expression.find_variants(position);
    }

    /// Evaluates the rule for one flag and caller.
    #[inline]
    pub(crate) fn choose<'a>(
        &'a self,
        input: Input<'a>,
        run: &mut Run<'_>,
    ) -> Result<Choice<'a>, EvalError> {
        run.choose(&self.expression, &Scope::Context(input))
    }
}

impl Expression {
    /// [`Rule::find_variants`] for an expression that the rule may end with. Evaluators are shared between flags, so
    /// their names remain.
    fn find_variants(&mut self, find: &impl Fn(&str) -> Option<usize>) {
        if let Self::Constant(Value::String(name)) = self {
            if let Some(position) = find(name) {
                let name = std::mem::take(name).into_boxed_str();
                *self = Self::Variant { name, position };
            }
        } else if let Self::If(parts) = self {
            // Conditions alternate with results, and the last part is a result.
            let last = parts.len().saturating_sub(1);
            for (index, part) in parts.iter_mut().enumerate() {
                if index % 2 == 1 || index == last {
                    part.find_variants(find);
                }
            }
        } else if let Self::Fractional(fractional) = self
            && let Buckets::Fixed { ends, .. } = &mut fractional.buckets
        {
            for (_, variant) in ends {
                variant.find_variants(find);
            }
        }
    }
}

impl Run<'_> {
    /// Creates no [`Val`] for the result of the usual rule: the name of a variant in an `if` or a `fractional`.
    #[inline]
    fn choose<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Choice<'a>, EvalError> {
        let mut expression = expression;
        while let Expression::If(parts) = expression {
            self.fuel.charge_step()?;
            let Some(branch) = self.branch(parts, scope)? else {
                return Ok(Choice::None);
            };
            expression = branch;
        }
        if let Expression::Fractional(fractional) = expression {
            self.fuel.charge_step()?;
            match fractional.bucket(self, scope)? {
                Some(Chosen::Fixed(variant @ Expression::Variant { .. })) => expression = variant,
                chosen => {
                    let value = fractional.value(chosen, self, scope)?;
                    return self.choice(value);
                }
            }
        }
        if let Expression::Variant { position, .. } = expression {
            self.fuel.charge_step()?;
            return Ok(Choice::Variant(*position));
        }
        let value = self.evaluate(expression, scope)?;
        self.choice(value)
    }

    #[inline(never)]
    fn choice<'a>(&mut self, value: Val<'a>) -> Result<Choice<'a>, EvalError> {
        Ok(match value {
            Val::Null => Choice::None,
            Val::Bool(true) => Choice::Named(Text::Borrowed("true")),
            Val::Bool(false) => Choice::Named(Text::Borrowed("false")),
            Val::Text(text) => Choice::Named(text),
            other @ (Val::Number(_) | Val::List(_) | Val::Object(_) | Val::ReduceScope(_)) => {
                Choice::Named(self.text(&other)?)
            }
        })
    }
}
