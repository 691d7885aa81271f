//! The evaluators of an environment, each compiled once for all rules that refer to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::expression::CompiledEvaluator;
use super::run::Run;
use crate::Settings;
use crate::limits::{EvalError, FOLDED_VALUES, Fuel, LINT_VALUES, REQUEST_STEPS};

/// The evaluators of an environment while its rules are compiled or checked. A rule that refers to an
/// evaluator holds a pointer to it, so memory and time follow the size of the text, however often and
/// however deep evaluators refer to each other.
#[derive(Debug)]
pub struct Evaluators<'s> {
    pub(crate) settings: &'s Settings,
    /// Whether rules are compiled for a trace.
    pub(super) is_traced: bool,
    compiled: RefCell<HashMap<&'s str, State>>,
    folded_left: Cell<usize>,
    fold_steps_left: Cell<u64>,
    /// How many values may still be checked. `None` if a check exceeded the limit.
    lint_left: Cell<Option<usize>>,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// A reference found in this state is part of a cycle.
    Compiling,
    Done(Result<Arc<CompiledEvaluator>, CompileError>),
}

/// Why a rule does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompileError {
    /// A JSON pointer into the rule. For a mistake inside an evaluator it ends at the reference.
    pub(crate) pointer: String,
    pub(crate) message: String,
}

impl<'s> Evaluators<'s> {
    /// The evaluators of these settings. Each is compiled when a rule first refers to it.
    #[must_use]
    pub fn of(settings: &'s Settings) -> Self {
        Self {
            settings,
            is_traced: false,
            compiled: RefCell::default(),
            folded_left: Cell::new(FOLDED_VALUES),
            fold_steps_left: Cell::new(REQUEST_STEPS),
            lint_left: Cell::new(Some(LINT_VALUES)),
        }
    }

    /// The same for rules whose evaluation is traced.
    pub(crate) fn for_trace(settings: &'s Settings) -> Self {
        Self {
            is_traced: true,
            ..Self::of(settings)
        }
    }

    /// The name, the rule and the state of an evaluator. It has no state before a rule refers to it.
    pub(super) fn get(&self, name: &str) -> Option<(&'s str, &'s Value, Option<State>)> {
        let (name, rule) = self.settings.evaluators.get_key_value(name)?;
        let state = self.compiled.borrow().get(name.as_str()).cloned();
        Some((name, rule, state))
    }

    pub(super) fn set(&self, name: &'s str, state: State) {
        self.compiled.borrow_mut().insert(name, state);
    }

    /// Computes a value from shared constants. `None` if this fails: all such computations together may take as many
    /// steps as one request.
    pub(super) fn fold<T>(
        &self,
        work: impl FnOnce(&mut Run<'_>) -> Result<T, EvalError>,
    ) -> Option<T> {
        let left = self.fold_steps_left.get();
        let mut run = Run::with(Fuel::for_request(left));
        let result = work(&mut run).ok();
        self.fold_steps_left.set(left - run.fuel.used());
        result
    }

    /// Reserves memory for a copy of a shared constant, or for a value computed from one. Returns false if the limit is
    /// reached.
    pub(super) fn has_room_for(&self, constant: &Value) -> bool {
        let left = self
            .folded_left
            .get()
            .checked_sub(crate::size::of(constant));
        if let Some(left) = left {
            self.folded_left.set(left);
        }
        left.is_some()
    }

    /// Counts values before they are checked. Returns false if they exceed the limit, and from then on.
    pub(crate) fn may_lint(&self, values: usize) -> bool {
        let left = self.lint_left.get();
        let left = left.and_then(|left| left.checked_sub(values));
        self.lint_left.set(left);
        left.is_some()
    }

    /// Whether the limit was not exceeded, so that everything was checked.
    pub(crate) fn all_linted(&self) -> bool {
        self.lint_left.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_values_as_the_limit_are_all_checked() {
        let settings = Settings::default();
        let evaluators = Evaluators::of(&settings);
        assert!(evaluators.may_lint(LINT_VALUES));
        assert!(evaluators.all_linted());
        assert!(!evaluators.may_lint(1));
        assert!(!evaluators.all_linted());
    }
}
