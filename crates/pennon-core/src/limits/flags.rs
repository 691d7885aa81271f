//! Limits of one flag and of metadata.

use pennon_eval::flagd::RESERVED_FLAG_METADATA;
use pennon_eval::{Definition, Flag, FlagKey, Violation, pointer_step};
use serde_json::{Map, Value};

use super::names::{check_description, check_salt, check_variant_name, new_key};
use crate::server_only::SERVER_ONLY;

/// The largest new value of a variant as JSON, in bytes.
const MAX_VARIANT_SIZE: usize = 256_000;
/// Why a typed flag takes no rollout percentage, salt or bucketing.
pub(crate) const NO_EFFECT: &str =
    "Has no effect on a flag with a definition, whose targeting decides who gets which variant";

/// Checks a flag that is imported, copied or read from an edited file. Pointers are relative to the flag; a violation
/// of its key has an empty pointer. Values that `before` has are not checked, except metadata (see
/// [`check_definition`]), so that flags from before a limit can still be changed.
#[must_use]
pub(crate) fn check_flag(key: &FlagKey, flag: &Flag, before: Option<&Flag>) -> Vec<Violation> {
    let violation = |pointer: &str, message: String| Violation {
        pointer: pointer.to_owned(),
        message,
    };
    let mut problems = Vec::new();
    if before.is_none()
        && let Err(why) = new_key(key.as_str())
    {
        problems.push(violation("", why));
    }
    if let Some(definition) = &flag.definition {
        let known = before.and_then(|flag| flag.definition.as_ref());
        problems.extend(check_definition(definition, known));
    }
    let description = (&flag.description, before.map(|flag| &flag.description));
    let salt = (&flag.salt, before.map(|flag| &flag.salt));
    for (place, (text, known), check) in [
        ("/description", description, check_description as Check),
        ("/salt", salt, check_salt),
    ] {
        if let Some(words) = text
            && known != Some(text)
            && let Err(why) = check(words)
        {
            problems.push(violation(place, why.to_owned()));
        }
    }
    problems
}

/// Checks a text.
type Check = fn(&str) -> Result<(), &'static str>;

/// Checks the limits of a definition that flagd does not have, with JSON pointers into the definition.
/// Variants that `before` has are not checked, unless they grow. Metadata is checked if anything differs from `before`.
#[must_use]
pub(crate) fn check_definition(
    definition: &Definition,
    before: Option<&Definition>,
) -> Vec<Violation> {
    let mut problems = Vec::new();
    for name in definition.variants.keys() {
        let known = before.is_some_and(|before| before.variants.contains_key(name));
        if !known && let Err(message) = check_variant_name(name) {
            let pointer = format!("/variants/{}", pointer_step(name));
            problems.push(Violation { pointer, message });
        }
    }
    for (name, value) in &definition.variants {
        let size = json_size(value);
        if size > MAX_VARIANT_SIZE && size > known_variant(before, name).map_or(0, json_size) {
            let pointer = format!("/variants/{}", pointer_step(name));
            let message =
                format!("Must have at most {MAX_VARIANT_SIZE} bytes as JSON (got {size})");
            problems.push(Violation { pointer, message });
        }
    }
    if before != Some(definition) {
        let reserved = &RESERVED_FLAG_METADATA;
        problems.extend(check_metadata(&definition.metadata, reserved));
    }
    problems
}

/// Checks the rules for metadata that flagd does not have: `serverOnly` must be a boolean, and the reserved names are
/// those of fields of Pennon in a flagd file. As metadata, they would make an export mean something else.
#[must_use]
pub(crate) fn check_metadata(
    metadata: &Map<String, Value>,
    reserved: &[&str],
) -> Option<Violation> {
    if let Some(name) = reserved.iter().find(|name| metadata.contains_key(**name)) {
        return Some(Violation {
            pointer: format!("/metadata/{name}"),
            message: "Is reserved for flagd files; choose another name".to_owned(),
        });
    }
    if metadata.get(SERVER_ONLY)?.is_boolean() {
        return None;
    }
    Some(Violation {
        pointer: format!("/metadata/{SERVER_ONLY}"),
        message: "Must be true or false".to_owned(),
    })
}

fn known_variant<'a>(before: Option<&'a Definition>, name: &str) -> Option<&'a Value> {
    before?.variants.get(name)
}

/// The length of a value as JSON, in bytes.
fn json_size(value: &Value) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(variants: &Value) -> Definition {
        serde_json::from_value(json!({ "variants": variants })).expect("a definition")
    }

    #[test]
    fn a_new_variant_name_that_cannot_be_counted_is_rejected_and_an_old_one_stays() {
        let long = "v".repeat(256);
        for (bad, rule) in [
            ("", "1 to 255 characters (got 0)"),
            (long.as_str(), "1 to 255 characters (got 256)"),
            ("a\0", "control characters (found U+0000)"),
            ("a\nb", "control characters (found U+000A)"),
        ] {
            let one = definition(&json!({"good": 1, (bad): 2}));
            let problems = check_definition(&one, None);
            assert_eq!(problems.len(), 1, "{bad:?}");
            assert_eq!(problems[0].pointer, format!("/variants/{bad}"));
            assert!(problems[0].message.contains(rule), "{problems:?}");
            let other = definition(&json!({(bad): 3, "more": 4}));
            assert_eq!(check_definition(&other, Some(&one)), []);
        }
        let slash = check_definition(&definition(&json!({"a/\n": 1})), None);
        assert_eq!(slash[0].pointer, "/variants/a~1\n");
        let fine = definition(&json!({("v".repeat(255)): 1, "a/b %\u{200b}": 2}));
        assert_eq!(check_definition(&fine, None), []);
    }
}
