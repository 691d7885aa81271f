//! Flagd files: whole environments in and out, and `flags.json` of the local server.
//!
//! A flag that flagd knows comes in and goes out unchanged. What flagd does not know (rollouts and
//! salts) is in the flag's metadata, in fields that begin with `pennon.`; flagd and its SDKs ignore
//! them. A simple flag is exported as a boolean flag that gives as many callers `true`, if not the same
//! ones. A file may also give a simple flag in a short form, which flagd does not read: without
//! `variants`, and with `rolloutPercentage`.

mod fields;
mod file;
#[cfg(test)]
mod fuzz;
mod read;
mod read_flag;
mod read_settings;
mod simple;
#[cfg(test)]
mod tests;
mod warnings;
mod write;

pub use file::{File, Mode};
pub use read::read;
pub use write::{Form, write};
