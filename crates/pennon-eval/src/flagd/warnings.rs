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
    let below = |place: String, found: Violation| Violation {
        pointer: format!("{place}{}", found.pointer),
        ..found
    };
    let given = Settings {
        evaluators: given.cloned().unwrap_or_default(),
        ..read.settings.clone()
    };
    let mut warnings: Vec<Violation> = given
        .lint()
        .into_iter()
        .map(|found| below("/$evaluators".to_owned(), found))
        .collect();
    for (key, flag) in &read.flags {
        if let Some(definition) = &flag.definition {
            let found = definition.lint_with(evaluators).into_iter();
            warnings.extend(found.map(|found| below(read.pointer_to(key), found)));
        }
    }
    if !evaluators.all_linted() {
        warnings.push(Violation {
            pointer: String::new(),
            message:
                "the rules refer to so much that not all of it was checked for parts that cannot \
                      work"
                    .to_owned(),
        });
    }
    warnings
}
