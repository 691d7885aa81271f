//! A compiled rule.

use serde_json::Value;

use super::expression::Expression;
use super::path::{Input, Scope};
use super::run::Run;
use super::value::{Text, Val};
use crate::limits::EvalError;

/// A compiled rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(super) expression: Expression,
    /// The maximal steps of an evaluation for a caller without attributes.
    pub(crate) cost: u64,
}

/// The variant that a rule chose.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    /// No variant: the default applies.
    None,
    /// The variant of this name, which may come from the context and so be any text.
    Named(Text<'a>),
}

impl Rule {
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

impl Run<'_> {
    /// Most rules are an `if` whose branches are names of variants, which takes no [`Val`].
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
        if let Expression::Constant(Value::String(name)) = expression {
            self.fuel.charge_step()?;
            return Ok(Choice::Named(Text::Borrowed(name)));
        }
        self.choose_by_value(expression, scope)
    }

    #[inline(never)]
    fn choose_by_value<'a>(
        &mut self,
        expression: &'a Expression,
        scope: &Scope<'a>,
    ) -> Result<Choice<'a>, EvalError> {
        Ok(match self.evaluate(expression, scope)? {
            Val::Null => Choice::None,
            Val::Bool(true) => Choice::Named(Text::Borrowed("true")),
            Val::Bool(false) => Choice::Named(Text::Borrowed("false")),
            Val::Text(text) => Choice::Named(text),
            other @ (Val::Number(_) | Val::List(_) | Val::Object(_) | Val::Frame(_)) => {
                Choice::Named(self.text(&other)?)
            }
        })
    }
}
