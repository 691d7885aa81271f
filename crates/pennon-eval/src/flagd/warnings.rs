//! Warnings about parts of a file that cannot work.

use serde_json::{Map, Value};

use super::file::File;
use crate::logic::evaluators::Evaluators;
use crate::violation::Violations;
use crate::{Settings, Violation};

/// Adds parts that cannot work to the warnings, with JSON pointers into the file. `own` are the evaluators of the file
/// itself; those that only the environment has are not linted.
pub(super) fn with_lint(
    mut warnings: Violations,
    read: &File,
    own: Option<&Map<String, Value>>,
    evaluators: &Evaluators<'_>,
) -> Vec<Violation> {
    let own = Settings {
        evaluators: own.cloned().unwrap_or_default(),
        ..read.settings.clone()
    };
    warnings.at("/$evaluators", |warnings| warnings.append(own.lint()));
    for (key, flag) in &read.flags {
        if let Some(definition) = &flag.definition {
            warnings.at(&read.pointer_to(key), |warnings| {
                warnings.append(definition.lint_with(evaluators));
            });
        }
    }
    let mut warnings = warnings.into_list();
    if !evaluators.all_linted() {
        warnings.push(Violation {
            pointer: String::new(),
            message: "the rules are too large to check all of them for parts that cannot work"
                .to_owned(),
        });
    }
    warnings
}
