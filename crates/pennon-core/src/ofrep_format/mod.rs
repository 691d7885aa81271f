//! The JSON of OFREP responses, and its size.
//!
//! Apart from `ofrep`, which receives requests, because limits depend on the size of a response.

#[cfg(test)]
pub(crate) mod examples;
mod failure;
mod item;
mod size;

pub use failure::{Code, Failure};
pub use item::Item;
pub use size::BulkSize;

pub(crate) use failure::FailureItem;
pub(crate) use item::flat;
