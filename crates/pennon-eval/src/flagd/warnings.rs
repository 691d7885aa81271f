//! Warnings about parts of a file that cannot work.

use serde_json::{Map, Value};

use super::file::File;
use crate::logic::evaluators::Evaluators;
use crate::{Settings, Violation, truncate_text};

/// Limit on the warnings after which no other flag is checked. One evaluator may cause dozens in each of thousands of
/// flags.
const MAX_WARNINGS: usize = 500;

/// Returns parts that cannot work, with JSON pointers into the file. `own` are the evaluators of the file itself; those
/// that only the environment has are not linted.
pub(super) fn of(
    read: &File,
    own: Option<&Map<String, Value>>,
    evaluators: &Evaluators<'_>,
) -> Vec<Violation> {
    let below = |parent: String, found: Violation| Violation {
        pointer: truncate_text(parent + &found.pointer),
        ..found
    };
    let own = Settings {
        evaluators: own.cloned().unwrap_or_default(),
        ..read.settings.clone()
    };
    let mut warnings: Vec<Violation> = own
        .lint()
        .into_iter()
        .map(|found| below("/$evaluators".to_owned(), found))
        .collect();
    for (key, flag) in &read.flags {
        if warnings.len() >= MAX_WARNINGS {
            warnings.push(Violation {
                pointer: "/flags".to_owned(),
                message:
                    "the remaining flags were not checked, because there are too many warnings"
                        .to_owned(),
            });
            break;
        }
        if let Some(definition) = &flag.definition {
            let found = definition.lint_with(evaluators).into_iter();
            warnings.extend(found.map(|found| below(read.pointer_to(key), found)));
        }
    }
    if !evaluators.all_linted() {
        warnings.push(Violation {
            pointer: String::new(),
            message: "the rules are too large to check all of them for parts that cannot work"
                .to_owned(),
        });
    }
    warnings
}
