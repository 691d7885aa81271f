//! A parsed flagd file.

use std::collections::{BTreeMap, BTreeSet};

use crate::violation::{Violation, pointer_step};
use crate::{Flag, FlagKey, Settings};

/// How evaluators and metadata of a file are combined with those of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Those of the file replace those of the environment, which stay if the file has none.
    #[default]
    Replace,
    /// Those of the file are added to those of the environment, by name.
    Merge,
}

/// A parsed flagd file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The flags. The overrides of a flag are read only from its field `overrides`.
    pub flags: BTreeMap<FlagKey, Flag>,
    /// The settings of the environment, combined with those of the file.
    pub settings: Settings,
    /// JSON pointers to fields without a meaning in Pennon, which are kept for the export. At most 1,000; a warning
    /// has the number of the others.
    pub kept: Vec<String>,
    /// Parts that cannot work, such as a rule that selects a variant which does not exist, and parts that the export
    /// omitted because they were unreadable: at most 50. Entries without a pointer say how many are not listed, here or in
    /// `kept`, and that not everything was checked.
    pub warnings: Vec<Violation>,
    /// Flags that the file lacks because they were unreadable when it was exported.
    pub unreadable: BTreeSet<FlagKey>,
    /// The indexes of flags in an array, which determine their JSON pointers.
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
