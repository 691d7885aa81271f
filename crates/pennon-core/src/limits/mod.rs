//! Limits of names, texts and sizes. They apply to every way in which a flag is created or changed: the
//! routes of single flags, imports, copies and flag files. A flag that exceeded a limit before the limit existed
//! keeps its values.

mod flags;
mod names;
mod totals;

pub(crate) use flags::{NO_EFFECT, check_definition, check_flag, check_metadata};
pub use names::{check_description, check_salt, new_key};
pub(crate) use names::{is_blank, is_invisible};
pub(crate) use totals::{FlagMeter, Measure, first_exceeded};
