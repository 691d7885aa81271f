//! A file that was read.

use std::collections::{BTreeMap, BTreeSet};

use crate::violation::{Violation, pointer_step};
use crate::{Flag, FlagKey, Settings};

/// What happens to settings that the environment has and the file does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The evaluators of the file replace those of the environment, and so does its metadata. Where the
    /// file has no evaluators or no metadata, those of the environment stay.
    #[default]
    Replace,
    /// Evaluators and metadata of the file are added to those of the environment, by name.
    Merge,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Its flags. Overrides come only from the field `overrides`.
    pub flags: BTreeMap<FlagKey, Flag>,
    /// The settings of the environment with those of the file.
    pub settings: Settings,
    /// JSON pointers to fields that are kept for the export and mean nothing to Pennon; at most 1,000,
    /// and then a warning says how many more there are.
    pub kept: Vec<String>,
    /// Parts that can be kept and cannot work: a rule that chooses a variant which does not exist, a
    /// `fractional` that places nobody.
    pub warnings: Vec<Violation>,
    /// Flags that were unreadable when the file was exported, and that it does not hold for this reason.
    pub unreadable: BTreeSet<FlagKey>,
    /// Where flags are that have no pointer of their own: those of an array.
    pub(super) items: BTreeMap<FlagKey, usize>,
}

impl File {
    /// The JSON pointer to a flag of the file.
    #[must_use]
    pub fn pointer_to(&self, key: &FlagKey) -> String {
        match self.items.get(key) {
            Some(index) => format!("/flags/{index}"),
            None => format!("/flags/{}", pointer_step(key.as_str())),
        }
    }
}
