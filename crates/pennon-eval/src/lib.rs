//! Feature flags and their evaluation.
//!
//! This crate is pure: no I/O, no clock, no runtime. Everything that an evaluation depends on is an argument,
//! so the same inputs give the same result everywhere. `pennon-core` stores and caches flags.

mod bucket;
mod context;
mod cost;
mod defaults;
mod definition;
pub mod document;
mod flag;
pub mod flagd;
pub mod json;
mod key;
mod limits;
mod logic;
mod rollout_order;
mod ruleset;
mod size;
mod time_access;
pub mod trace;
mod validate;
mod violation;

pub use context::{Context, InvalidContext};
pub use cost::COSTLY_OPERATORS;
pub use defaults::{Bucketing, EvaluationDefaults};
pub use definition::{Definition, FractionalVersion, Settings, Unreadable};
pub use flag::{Flag, Override, Rollout, RolloutOutOfRange};
pub use key::{FlagKey, InvalidFlagKey, UserId};
pub use limits::REQUEST_STEPS;
pub use logic::evaluators::Evaluators;
pub use ruleset::{
    CompiledVariants, Decision, Evaluation, EvaluationError, ExplainedValue, Explanation, Reason,
    RequestFuel, Ruleset, explain,
};
pub use violation::{Summary, Violation, Violations, pointer_step, truncate_text};
