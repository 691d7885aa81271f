//! flagd files: imports and exports of environments, and `flags.json` of the local server.
//!
//! An export contains a typed flag as it was imported. Rollouts, salts and bucketings, which flagd does not have, are
//! in the metadata of the flag, in fields that begin with `pennon.`; flagd and its SDKs ignore them. A simple flag is
//! exported as a boolean flag that is `true` for the same percentage of users, though not always for the same users. A
//! file may also contain a simple flag in a short form that flagd does not support: with `rolloutPercentage` and
//! without `variants`.

mod engine_document;
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

pub use engine_document::write_for_engines;
pub use fields::{RESERVED_FLAG_METADATA, RESERVED_SETTINGS_METADATA};
pub use file::{File, Mode};
pub use read::read;
pub use write::{Form, write};
