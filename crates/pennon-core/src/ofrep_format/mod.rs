//! The JSON of OFREP responses, and its size.
//!
//! Separate from `ofrep`, which handles requests, because `limits` and `snapshot` need the format and size of responses.

#[cfg(test)]
pub(crate) mod examples;
mod failure;
mod item;
mod size;

pub use failure::{Code, Failure};
pub use item::Item;
pub use size::BulkSize;

pub(crate) use failure::FailureItem;
pub(crate) use item::without_nested_values;
