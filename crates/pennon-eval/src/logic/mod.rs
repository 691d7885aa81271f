//! Targeting rules: `JsonLogic` with flagd's additions.
//!
//! `compile` turns a rule into a tree of [`expression::Expression`]s once: it folds constants, parses paths and sums
//! weights. `run` evaluates the tree for a context without copying its values. Both are bounded by
//! [`limits`](crate::limits), and neither panics for any rule and context.

mod arithmetic;
pub(crate) mod bucket;
mod cbor;
mod coerce;
mod compile;
mod cost;
mod estimate;
pub(crate) mod evaluators;
mod expression;
mod fractional;
#[cfg(test)]
mod fuzz;
pub(crate) mod lint;
mod lists;
mod murmur;
mod number;
mod path;
mod rule;
mod run;
mod semver;
mod shape;
mod strings;
#[cfg(test)]
mod tests;
mod traced;
mod value;

pub(crate) use compile::compile;
pub(crate) use path::Input;
pub(crate) use rule::{Choice, Rule};
pub(crate) use run::Run;
pub(crate) use shape::check;
