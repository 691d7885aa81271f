//! The evaluators of an environment, each compiled once for all rules that refer to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::compile::{Compiler, Fault};
use super::cost::Cost;
use super::expression::{Expression, Texts};
use super::path::Path;
use super::run::Run;
use crate::Settings;
use crate::limits::{EvalError, FOLDED_VALUES, Fuel, LINT_VALUES, REQUEST_STEPS, RULE_DEPTH};

/// The evaluators of an environment while its rules are compiled or checked. A rule that refers to an
/// evaluator holds a pointer to it, so memory and time follow the size of the text, however often and
/// however deep evaluators refer to each other.
#[derive(Debug)]
pub struct Evaluators<'s> {
    pub(crate) settings: &'s Settings,
    compiled: RefCell<HashMap<&'s str, State>>,
    folded_left: Cell<usize>,
    fold_steps_left: Cell<u64>,
    lint_left: Cell<usize>,
}

#[derive(Debug)]
enum State {
    /// Whoever asks for it now is one of those that it refers to.
    Compiling,
    Done(Result<Arc<Shared>, Fault>),
}

/// A compiled evaluator.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) expression: Expression,
    /// How many values it has, with those that it refers to in their place.
    pub(super) values: usize,
    /// How deep it is nested, with those that it refers to in their place.
    pub(super) depth: usize,
    /// What it costs in the scope of the caller.
    pub(super) cost: Cost,
    /// What it costs for each item of a list.
    pub(super) item_cost: Cost,
    /// Forms of a constant that several operators need. Made once, as the evaluator itself.
    path: OnceLock<Path>,
    texts: OnceLock<Option<Arc<Texts>>>,
    names: OnceLock<Option<Arc<[Path]>>>,
}

impl<'s> Evaluators<'s> {
    /// Those of these settings. Each is compiled when a rule first refers to it.
    #[must_use]
    pub fn of(settings: &'s Settings) -> Self {
        Self {
            settings,
            compiled: RefCell::default(),
            folded_left: Cell::new(FOLDED_VALUES),
            fold_steps_left: Cell::new(REQUEST_STEPS),
            lint_left: Cell::new(LINT_VALUES),
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<Shared>, Fault> {
        let fault = |why: String| Fault {
            at: String::new(),
            why,
        };
        let Some((name, rule)) = self.settings.evaluators.get_key_value(name) else {
            return Err(fault(format!("there is no evaluator '{name}'")));
        };
        match self.compiled.borrow().get(name.as_str()) {
            Some(State::Done(done)) => return done.clone(),
            // One that refers to itself has no end.
            Some(State::Compiling) => return Err(fault(too_deep())),
            None => {}
        }
        self.put(name, State::Compiling);
        let done = Compiler::within_evaluator(self).shared(rule).map(Arc::new);
        self.put(name, State::Done(done.clone()));
        done
    }

    fn put(&self, name: &'s str, state: State) {
        self.compiled.borrow_mut().insert(name, state);
    }

    /// Computes something from constants that several rules share, as long as that takes no more than a
    /// request may, all rules together.
    pub(super) fn fold<T>(&self, work: impl FnOnce(&mut Run) -> Result<T, EvalError>) -> Option<T> {
        let left = self.fold_steps_left.get();
        let mut run = Run::with(Fuel::for_request(left));
        let result = work(&mut run).ok();
        self.fold_steps_left.set(left - run.fuel.used());
        result
    }

    /// Takes room for a constant that is copied or computed from one that several rules share. Without
    /// room it stays an operation that is run for each caller.
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

    /// Counts a value that is looked at for parts that cannot work. Not so once there were too many.
    pub(crate) fn may_lint(&self, values: usize) -> bool {
        let left = self.lint_left.get().checked_sub(values);
        self.lint_left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Whether everything was looked at that could be a part that cannot work.
    pub(crate) fn all_linted(&self) -> bool {
        self.lint_left.get() > 0
    }
}

/// About a rule that is nested too deep.
pub(super) fn too_deep() -> String {
    format!("nested deeper than {RULE_DEPTH} levels")
}

impl Shared {
    pub(super) fn new(expression: Expression, values: usize, depth: usize) -> Self {
        Self {
            cost: Cost::of(&expression),
            item_cost: Cost::per_item(&expression),
            expression,
            values,
            depth,
            path: OnceLock::new(),
            texts: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    /// The constant as a path. `make` must make the same of it each time.
    pub(super) fn path(&self, make: impl FnOnce() -> Path) -> Path {
        self.path.get_or_init(make).clone()
    }

    /// The constant as texts to look among, if it is a list of texts.
    pub(super) fn texts(&self, make: impl FnOnce() -> Option<Arc<Texts>>) -> Option<Arc<Texts>> {
        self.texts.get_or_init(make).clone()
    }

    /// The constant as names with their paths, if it is a list of texts.
    pub(super) fn names(&self, make: impl FnOnce() -> Option<Arc<[Path]>>) -> Option<Arc<[Path]>> {
        self.names.get_or_init(make).clone()
    }
}
