//! What is imported and cannot work.

use serde_json::{Map, Value};

use super::file::File;
use crate::logic::evaluators::Evaluators;
use crate::{Settings, Violation};

/// Parts that cannot work, with their places in the file. Of the evaluators only those that the file
/// itself gives.
pub(super) fn of(
    read: &File,
    given: Option<&Map<String, Value>>,
    evaluators: &Evaluators<'_>,
) -> Vec<Violation> {
    let at = |place: String, found: Violation| Violation {
        at: format!("{place}{}", found.at),
        ..found
    };
    let given = Settings {
        evaluators: given.cloned().unwrap_or_default(),
        ..read.settings.clone()
    };
    let mut warnings: Vec<Violation> = given
        .lint()
        .into_iter()
        .map(|found| at("/$evaluators".to_owned(), found))
        .collect();
    for (key, flag) in &read.flags {
        if let Some(definition) = &flag.definition {
            let found = definition.lint_with(evaluators).into_iter();
            warnings.extend(found.map(|found| at(read.pointer_to(key), found)));
        }
    }
    if !evaluators.all_linted() {
        warnings.push(Violation {
            at: String::new(),
            problem:
                "the rules refer to so much that not all of it was checked for parts that cannot \
                      work"
                    .to_owned(),
        });
    }
    warnings
}
