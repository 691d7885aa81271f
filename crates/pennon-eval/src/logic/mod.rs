//! Targeting rules: `JsonLogic`, and what flagd adds to it.
//!
//! A rule is compiled once, into a tree of [`expression::Expression`]s with constants folded, paths
//! taken apart and weights added up; evaluating walks that tree over borrowed values. Both are
//! bounded (see [`bounds`]), and neither panics, whatever the rule and the context are.

mod arithmetic;
pub(crate) mod bounds;
mod cbor;
mod coerce;
mod compile;
mod cost;
pub(crate) mod evaluators;
mod expression;
mod fractional;
pub(crate) mod lint;
mod lists;
mod murmur;
mod number;
mod path;
pub(crate) mod place;
mod run;
mod semver;
mod shape;
mod steps;
mod stop;
#[cfg(test)]
mod tests;
mod texts;
mod value;

pub(crate) use compile::compile;
use expression::Expression;
use path::{Asked, Scope};
use run::Run;
pub(crate) use shape::check;
use steps::Steps;
pub(crate) use stop::Stop;
use value::Val;

use crate::Context;

/// A compiled rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    expression: Expression,
    /// The steps that it takes at most for a caller of whom nothing but the id is known.
    pub(crate) cost: u64,
}

/// Which variant a rule names.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    /// None: the default.
    None,
    /// This one, in the rule's or the context's words.
    Named(value::Text<'a>),
}

impl Rule {
    /// Evaluates the rule for one flag and caller, in so many steps of the request at most. Answers with
    /// those that it took, too.
    pub(crate) fn choose<'a>(
        &'a self,
        flag: &'a str,
        context: &'a Context,
        now: i64,
        steps: u64,
    ) -> (Result<Choice<'a>, Stop>, u64) {
        let scope = Scope::Context(Asked { context, flag, now });
        let mut run = Run::with(Steps::within(steps));
        let choice = self.run(&mut run, &scope);
        (choice, run.steps.taken())
    }

    fn run<'a>(&'a self, run: &mut Run, scope: &Scope<'a>) -> Result<Choice<'a>, Stop> {
        Ok(match run.evaluate(&self.expression, scope)? {
            Val::Null => Choice::None,
            Val::Bool(true) => Choice::Named(value::Text::Borrowed("true")),
            Val::Bool(false) => Choice::Named(value::Text::Borrowed("false")),
            Val::Text(text) => Choice::Named(text),
            other => Choice::Named(run.text(&other)?),
        })
    }
}
