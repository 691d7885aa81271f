//! Writes an environment as a document that flagd's engines evaluate as Pennon does.
//!
//! An export keeps everything for an import, but flagd knows neither overrides nor SHA-256, and returns the default of
//! the application for a disabled flag. This document is for evaluation only: overrides are part of the rules, and
//! flags that an engine would evaluate differently are left out and named in the metadata. Fields of a flag that
//! evaluation does not need are left out too: the Python engine rejects the whole document for an unknown one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::fields::{META_FRACTIONAL, META_REMOTE_ONLY};
use super::simple::boolean_definition;
use super::write::{Form, write};
use crate::logic::{self, evaluators::Evaluators};
use crate::ruleset::unreadable_reason;
use crate::{
    Bucketing, Definition, EvaluationDefaults, Flag, FlagKey, FractionalVersion, Override, Rollout,
    Settings,
};

/// Limit on the bytes of the evaluators that are copied into the rules of a document. With it, copies alone do not make
/// a document exceed the limit of a response.
const MAX_COPIED: usize = 2_000_000;

/// Writes an environment for flagd's engines, which give every user the same variant as Pennon.
///
/// The metadata has the version of `fractional` that the engine must compute, and the keys of flags that only Pennon
/// can evaluate: those whose users are ordered by SHA-256, those whose evaluation fails, and those for which the
/// limit on copies of evaluators leaves no room.
#[must_use]
pub fn write_for_engines(
    flags: &BTreeMap<FlagKey, Flag>,
    settings: &Settings,
    defaults: EvaluationDefaults,
) -> Value {
    let evaluators = Evaluators::of(settings);
    let mut copies = Copies::of(&settings.evaluators);
    let mut portable = BTreeMap::new();
    let mut remote_only = Vec::new();
    for (key, flag) in flags {
        match for_engines(flag, &evaluators, defaults, &mut copies) {
            Some(flag) => {
                portable.insert(key.clone(), flag);
            }
            None => remote_only.push(escaped(key.as_str())),
        }
    }
    let mut environment_metadata = for_every_engine(&settings.metadata);
    // An import of such a document stores this entry, which names the flags left out of the imported document.
    environment_metadata.shift_remove(META_REMOTE_ONLY);
    let mut written = Settings {
        anonymous_rollout: None,
        bucketing: None,
        unreadable: None,
        metadata: environment_metadata,
        ..settings.clone()
    };
    written
        .evaluators
        .retain(|name, _| !copies.copied.contains_key(name.as_str()));
    let version = match settings.fractional {
        FractionalVersion::V2 => "v2",
        FractionalVersion::V3 => "v3",
    };
    let mut document = write(&portable, &written, Form::Export);
    let metadata = &mut document["metadata"];
    metadata[META_FRACTIONAL] = version.into();
    if !remote_only.is_empty() {
        // A list is not possible: flagd accepts only scalars in metadata.
        metadata[META_REMOTE_ONLY] = remote_only.join(",").into();
    }
    document
}

/// The key in a list separated by commas. Keys may contain any character.
fn escaped(key: &str) -> Cow<'_, str> {
    if key.contains(['%', ',']) {
        Cow::Owned(key.replace('%', "%25").replace(',', "%2C"))
    } else {
        Cow::Borrowed(key)
    }
}

/// The flag with its overrides in its rule. `None` if an engine would evaluate it differently, or if its evaluators
/// exceed the limit on copies.
fn for_engines(
    flag: &Flag,
    evaluators: &Evaluators<'_>,
    defaults: EvaluationDefaults,
    copies: &mut Copies<'_>,
) -> Option<Flag> {
    let mut definition = match &flag.definition {
        None if !flag.enabled => boolean_definition(Rollout::default(), None),
        None => {
            let percent = flag.rollout_percentage.percent();
            let is_partial = (1..100).contains(&percent);
            let bucketing = flag.bucketing(evaluators.settings, defaults);
            if is_partial && bucketing != Some(Bucketing::Fractional) {
                return None;
            }
            boolean_definition(flag.rollout_percentage, flag.salt.as_deref())
        }
        // Nobody evaluates its rule, which may refer to evaluators in a circle.
        Some(definition) if !flag.enabled => Definition {
            targeting: None,
            ..definition.clone()
        },
        Some(definition) => definition.clone(),
    };
    // An empty name counts as absent, but not every engine may know that.
    definition.default_variant.take_if(|name| name.is_empty());
    if definition.unreadable.is_some() || !has_its_variants(&definition) {
        return None;
    }
    if flag.enabled {
        let has_bad_override = || {
            let mut overrides = flag.overrides.values();
            overrides.any(|it| *it == Override::Unreadable)
        };
        // Compiled without overrides, which do not count towards the limits of a rule.
        let has_bad_rule = || {
            let rule = definition.rule();
            rule.is_some_and(|rule| logic::compile(rule, evaluators).is_err())
        };
        if unreadable_reason(flag, evaluators.settings, defaults).is_some()
            || has_bad_override()
            || has_bad_rule()
        {
            return None;
        }
        definition = with_overrides(definition, flag);
    }
    let left = copies.bytes_left;
    if let Some(rule) = &mut definition.targeting
        && !copies.insert(rule)
    {
        // The copies made for this flag are discarded.
        copies.bytes_left = left;
        return None;
    }
    Some(Flag {
        // Pennon returns `false` for a disabled simple flag, flagd the default of the application.
        enabled: flag.enabled || flag.definition.is_none(),
        definition: Some(Definition {
            metadata: for_every_engine(&definition.metadata),
            ..definition
        }),
        ..Flag::default()
    })
}

/// Whether the definition has variants, and among them its default. SQL can write a definition without them, and
/// engines reject a whole document because of one.
fn has_its_variants(definition: &Definition) -> bool {
    let Definition {
        variants,
        default_variant,
        ..
    } = definition;
    let default = default_variant.as_ref();
    !variants.is_empty() && default.is_none_or(|name| variants.contains_key(name))
}

/// Copies into rules those evaluators that some engine would not resolve.
struct Copies<'a> {
    /// By name: each such evaluator, and its length as JSON.
    copied: HashMap<&'a str, (&'a Value, usize)>,
    bytes_left: usize,
}

impl<'a> Copies<'a> {
    fn of(evaluators: &'a Map<String, Value>) -> Self {
        let copied = evaluators.iter().filter_map(|(name, rule)| {
            let text = rule.to_string();
            (!every_engine_replaces(name, rule, &text))
                .then_some((name.as_str(), (rule, text.len())))
        });
        Self {
            copied: copied.collect(),
            bytes_left: MAX_COPIED,
        }
    }

    /// Replaces references. The rule has been compiled, which excludes circles and limits the depth. As in the
    /// compiler, an object with one field is an operation or a reference, and any other is data. Returns false if the
    /// copies take too many bytes.
    fn insert(&mut self, rule: &mut Value) -> bool {
        match rule {
            Value::Array(items) => items.iter_mut().all(|item| self.insert(item)),
            Value::Object(fields) if fields.len() == 1 => {
                let name = fields.get("$ref").and_then(Value::as_str);
                let Some((evaluator, bytes)) = name.and_then(|name| self.copied.get(name)) else {
                    return fields.values_mut().all(|value| self.insert(value));
                };
                let Some(left) = self.bytes_left.checked_sub(*bytes) else {
                    return false;
                };
                self.bytes_left = left;
                *rule = (*evaluator).clone();
                self.insert(rule)
            }
            Value::Object(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => true,
        }
    }
}

/// Whether every engine replaces references to the evaluator by its rule. Engines replace text, each evaluator once and
/// in any order: the rule must contain no reference. They use a regular expression: the name must contain no operator.
/// In the new text, `$` and `\` have a meaning. Go's engine expects an object.
fn every_engine_replaces(name: &str, rule: &Value, text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_object = rule.as_object().is_some_and(|fields| !fields.is_empty());
    let is_literal = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'$' && byte != b'\\';
    // `$ref` contains a `$`.
    name.bytes().all(is_plain) && is_object && text.bytes().all(is_literal)
}

/// The metadata without entries for which the Python engine rejects the whole document.
fn for_every_engine(metadata: &Map<String, Value>) -> Map<String, Value> {
    let mut metadata = metadata.clone();
    metadata.retain(|name, value| {
        let is_scalar = matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
        !name.is_empty() && is_scalar
    });
    metadata
}

/// The definition with a rule that first compares the targeting key with the overrides.
fn with_overrides(mut definition: Definition, flag: &Flag) -> Definition {
    let mut users: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (user, kind) in &flag.overrides {
        let variant = variant_of(flag, kind);
        users.entry(variant).or_default().push(user);
    }
    if users.is_empty() {
        return definition;
    }
    let mut branches = Vec::new();
    for (variant, users) in users {
        branches.push(json!({"in": [{"var": "targetingKey"}, users]}));
        branches.push(variant.into());
    }
    branches.push(definition.rule().cloned().unwrap_or(Value::Null));
    definition.targeting = Some(json!({ "if": branches }));
    definition
}

/// The variant of a user with this override; `None` is the default of the flag.
fn variant_of<'a>(flag: &Flag, kind: &'a Override) -> Option<&'a str> {
    match (&flag.definition, kind) {
        (None, kind) => Some(if kind.is_in() { "on" } else { "off" }),
        (Some(_), Override::Variant(name)) => Some(name),
        (Some(_), Override::Include | Override::Exclude | Override::Unreadable) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unreadable;
    use crate::limits::{RULE_DEPTH, RULE_NODES};

    fn document(flag: Flag, bucketing: Bucketing) -> Value {
        let flags = BTreeMap::from([(FlagKey::parse("a,b%").expect("a key"), flag)]);
        let settings = Settings {
            bucketing: Some(bucketing),
            ..Settings::default()
        };
        write_for_engines(&flags, &settings, EvaluationDefaults::Existing)
    }

    fn simple_flag(enabled: bool, percent: i64) -> Flag {
        Flag {
            enabled,
            rollout_percentage: Rollout::parse(percent).expect("in range"),
            ..Flag::default()
        }
    }

    fn typed_flag(targeting: Value) -> Flag {
        Flag {
            enabled: true,
            definition: Some(Definition {
                variants: json!({"x": 1, "y": 2}).as_object().expect("map").clone(),
                default_variant: Some("x".to_owned()),
                targeting: Some(targeting),
                ..Definition::default()
            }),
            ..Flag::default()
        }
    }

    fn overridden(flag: Flag, kinds: &[(&str, Override)]) -> Flag {
        let overrides = kinds.iter().cloned();
        Flag {
            overrides: overrides
                .map(|(user, kind)| (user.to_owned(), kind))
                .collect(),
            ..flag
        }
    }

    #[test]
    fn only_an_object_with_one_field_is_a_reference() {
        let data = json!({"$ref": "loop", "x": 1});
        let evaluators = json!({"loop": {"in": [1, [data]]}});
        let settings = Settings {
            evaluators: evaluators.as_object().expect("an object").clone(),
            ..Settings::default()
        };
        let flag = typed_flag(json!({"if": [{"$ref": "loop"}, "y"]}));
        let flags = BTreeMap::from([(FlagKey::parse("a").expect("a key"), flag)]);
        let written = write_for_engines(&flags, &settings, EvaluationDefaults::Existing);
        let copied = json!({"if": [evaluators["loop"], "y"]});
        assert_eq!(written["flags"]["a"]["targeting"], copied);
    }

    #[test]
    fn overrides_become_the_first_conditions_of_the_rule() {
        let kinds = [
            ("alice", Override::Include),
            ("bob", Override::Exclude),
            ("carol", Override::Variant("y".to_owned())),
        ];
        let key = json!({"var": "targetingKey"});
        let flag = overridden(simple_flag(true, 0), &kinds);
        let written = document(flag, Bucketing::Sha256);
        assert_eq!(
            written["flags"]["a,b%"]["targeting"],
            json!({"if": [{"in": [key, ["bob"]]}, "off", {"in": [key, ["alice", "carol"]]}, "on", null]})
        );
        let rule = json!({"if": [{"==": [{"var": "plan"}, "pro"]}, "y"]});
        let flag = overridden(typed_flag(rule.clone()), &kinds);
        let written = document(flag, Bucketing::Sha256);
        assert_eq!(
            written["flags"]["a,b%"]["targeting"],
            json!({"if": [{"in": [key, ["alice", "bob"]]}, null, {"in": [key, ["carol"]]}, "y", rule]})
        );
        assert_eq!(written["metadata"], json!({"pennon.fractional": "v3"}));
    }

    #[test]
    fn overrides_do_not_count_towards_the_limits_of_a_rule() {
        let many = (0..=RULE_NODES).map(|number| (format!("user-{number}"), Override::Include));
        let flag = Flag {
            overrides: many.collect(),
            ..simple_flag(true, 0)
        };
        let written = document(flag, Bucketing::Sha256);
        let targeting = &written["flags"]["a,b%"]["targeting"];
        let users = targeting["if"][0]["in"][1].as_array();
        assert_eq!(users.map(Vec::len), Some(RULE_NODES + 1));

        let deepest = (1..RULE_DEPTH).fold(json!("y"), |rule, _| json!({ "!!": rule }));
        let kinds = [("alice", Override::Variant("y".to_owned()))];
        let written = document(overridden(typed_flag(deepest), &kinds), Bucketing::Sha256);
        assert!(written["flags"]["a,b%"]["targeting"].is_object());
        let too_deep = (0..RULE_DEPTH).fold(json!("y"), |rule, _| json!({ "!!": rule }));
        let written = document(overridden(typed_flag(too_deep), &kinds), Bucketing::Sha256);
        assert_eq!(written["metadata"]["pennon.remoteOnly"], "a%2Cb%25");
    }

    #[test]
    fn the_metadata_does_not_name_flags_left_out_of_an_imported_document() {
        let stored = json!({"metadata": {"pennon.remoteOnly": "a", "team": "web"}});
        let settings: Settings = serde_json::from_value(stored).expect("settings");
        let flags = BTreeMap::from([(FlagKey::parse("a").expect("a key"), simple_flag(true, 0))]);
        let written = write_for_engines(&flags, &settings, EvaluationDefaults::New);
        let expected = json!({"team": "web", "pennon.fractional": "v3"});
        assert_eq!(written["metadata"], expected);
    }

    #[test]
    fn a_disabled_simple_flag_is_off_for_everyone_and_a_disabled_typed_flag_stays_disabled() {
        let flag = overridden(simple_flag(false, 50), &[("alice", Override::Include)]);
        let written = document(flag, Bucketing::Sha256);
        let off = json!({
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        });
        assert_eq!(written["flags"]["a,b%"], off);
        let typed = overridden(
            typed_flag(Value::Null),
            &[("alice", Override::Variant("y".to_owned()))],
        );
        let written = document(
            Flag {
                enabled: false,
                ..typed
            },
            Bucketing::Sha256,
        );
        assert_eq!(written["flags"]["a,b%"]["state"], "DISABLED");
        assert_eq!(written["flags"]["a,b%"]["targeting"], Value::Null);
    }

    #[test]
    fn the_metadata_has_the_version_of_fractional_and_nothing_that_an_engine_rejects() {
        let settings: Settings = serde_json::from_value(json!({
            "fractional": "v2", "anonymousRollout": true, "bucketing": "fractional",
            "metadata": {"team": "web", "": 1, "list": [1], "none": null},
        }))
        .expect("settings");
        let mut flag = typed_flag(Value::Null);
        flag.description = Some("d".to_owned());
        flag.definition.as_mut().expect("typed").metadata = settings.metadata.clone();
        let flags = BTreeMap::from([(FlagKey::parse("a").expect("a key"), flag)]);
        let written = write_for_engines(&flags, &settings, EvaluationDefaults::New);
        let expected = json!({"team": "web", "pennon.fractional": "v2"});
        assert_eq!(written["metadata"], expected);
        assert_eq!(written["flags"]["a"]["metadata"], json!({"team": "web"}));
        assert_eq!(written["flags"]["a"].get("description"), None);
    }

    #[test]
    fn evaluators_are_copied_into_rules_where_an_engine_would_not_replace_them() {
        let settings: Settings = serde_json::from_value(json!({"evaluators": {
            "plain": {"ends_with": [{"var": "email"}, "@x"]},
            "nested": {"or": [{"$ref": "plain"}, {"$ref": "later"}]},
            "later": {"in": [{"var": "city"}, ["Zürich"]]},
        }}))
        .expect("settings");
        let flag = typed_flag(json!({"if": [{"$ref": "nested"}, "y", {"$ref": "plain"}, "x"]}));
        let flags = BTreeMap::from([(FlagKey::parse("a").expect("a key"), flag)]);
        let written = write_for_engines(&flags, &settings, EvaluationDefaults::New);
        let later = json!({"in": [{"var": "city"}, ["Zürich"]]});
        let nested = json!({"or": [{"$ref": "plain"}, later]});
        assert_eq!(
            written["flags"]["a"]["targeting"],
            json!({"if": [nested, "y", {"$ref": "plain"}, "x"]})
        );
        let names: Vec<_> = written["$evaluators"]
            .as_object()
            .expect("evaluators")
            .keys()
            .collect();
        assert_eq!(names, ["plain"]);
    }

    #[test]
    fn copies_of_evaluators_have_a_limit_and_flags_beyond_it_are_left_out() {
        let cities: Vec<String> = (0..10_000)
            .map(|number| format!("Zürich {number}"))
            .collect();
        let settings: Settings = serde_json::from_value(json!({"evaluators": {
            "city": {"in": [{"var": "city"}, cities]},
        }}))
        .expect("settings");
        let flags = (0..30).map(|number| {
            let key = FlagKey::parse(format!("flag-{number:02}")).expect("a key");
            (key, typed_flag(json!({"if": [{"$ref": "city"}, "y"]})))
        });
        let flags: BTreeMap<FlagKey, Flag> = flags.collect();
        let written = write_for_engines(&flags, &settings, EvaluationDefaults::New);
        let remote = written["metadata"]["pennon.remoteOnly"].as_str();
        let remote: Vec<&str> = remote.expect("flags").split(',').collect();
        assert_eq!((remote.len(), remote[0]), (17, "flag-13"));
        assert_eq!(written["flags"].as_object().map(Map::len), Some(13));
        // A flag that is left out takes no room from the next one.
        let many = vec![json!({"$ref": "city"}); 14];
        let flags = [
            ("a", typed_flag(json!({"if": [{"or": many}, "y"]}))),
            ("b", typed_flag(json!({"if": [{"$ref": "city"}, "y"]}))),
        ];
        let flags = flags.map(|(key, flag)| (FlagKey::parse(key).expect("a key"), flag));
        let written = write_for_engines(&flags.into(), &settings, EvaluationDefaults::New);
        assert_eq!(written["metadata"]["pennon.remoteOnly"], "a");
    }

    #[test]
    fn flags_that_depend_on_unreadable_settings_are_left_out() {
        let settings = Settings::from_stored("[]");
        let split = typed_flag(json!({"fractional": [["x", 1], ["y", 1]]}));
        let flags = [
            ("all", simple_flag(true, 100)),
            ("half", simple_flag(true, 50)),
            ("split", split.clone()),
            (
                "off",
                Flag {
                    enabled: false,
                    ..split
                },
            ),
            (
                "no-operator",
                Flag {
                    enabled: false,
                    ..typed_flag(json!({"no_operator": []}))
                },
            ),
        ];
        let flags = flags.map(|(key, flag)| (FlagKey::parse(key).expect("a key"), flag));
        let written = write_for_engines(&flags.into(), &settings, EvaluationDefaults::New);
        assert_eq!(written["metadata"]["pennon.remoteOnly"], "half,split");
        let keys: Vec<&String> = written["flags"]
            .as_object()
            .expect("flags")
            .keys()
            .collect();
        // Nobody evaluates the rule of a disabled flag.
        assert_eq!(keys, ["all", "no-operator", "off"]);
        assert_eq!(written.get("pennon.unreadable"), None);
    }

    #[test]
    fn an_empty_name_of_a_default_variant_is_left_out_because_it_counts_as_absent() {
        let mut flag = typed_flag(json!({"if": [{"var": "x"}, "x"]}));
        if let Some(definition) = &mut flag.definition {
            definition.default_variant = Some(String::new());
        }
        for enabled in [true, false] {
            let flag = Flag {
                enabled,
                ..flag.clone()
            };
            let written = document(flag, Bucketing::Sha256);
            assert_eq!(written["metadata"].get("pennon.remoteOnly"), None);
            assert!(written["flags"]["a,b%"]["variants"].is_object());
            assert_eq!(written["flags"]["a,b%"].get("defaultVariant"), None);
        }
    }

    #[test]
    fn flags_that_an_engine_would_evaluate_differently_are_named_and_left_out() {
        let definition = Definition {
            unreadable: Some(Unreadable {
                reason: "no".to_owned(),
                text: "{".to_owned(),
            }),
            ..Definition::default()
        };
        let unreadable = Flag {
            definition: Some(definition),
            ..simple_flag(true, 0)
        };
        let own = |bucketing| Flag {
            bucketing: Some(bucketing),
            ..simple_flag(true, 50)
        };
        // Only SQL can write these, and engines reject the whole document because of one.
        let without_variants = Flag {
            definition: Some(Definition::default()),
            ..simple_flag(true, 0)
        };
        let mut without_its_default = typed_flag(Value::Null);
        if let Some(definition) = &mut without_its_default.definition {
            definition.default_variant = Some("z".to_owned());
        }
        let disabled = |flag: &Flag| Flag {
            enabled: false,
            ..flag.clone()
        };
        let with_bad_override =
            overridden(simple_flag(true, 100), &[("alice", Override::Unreadable)]);
        for (flag, bucketing, is_remote) in [
            (simple_flag(true, 50), Bucketing::Sha256, true),
            (simple_flag(true, 50), Bucketing::Fractional, false),
            (own(Bucketing::Fractional), Bucketing::Sha256, false),
            (own(Bucketing::Sha256), Bucketing::Fractional, true),
            (simple_flag(true, 100), Bucketing::Sha256, false),
            (simple_flag(false, 50), Bucketing::Sha256, false),
            (
                typed_flag(json!({"fractional": [["x", 1], ["y", 1]]})),
                Bucketing::Sha256,
                false,
            ),
            (
                typed_flag(json!({"no_operator": []})),
                Bucketing::Fractional,
                true,
            ),
            (with_bad_override, Bucketing::Fractional, true),
            (disabled(&without_variants), Bucketing::Fractional, true),
            (without_variants, Bucketing::Fractional, true),
            (disabled(&without_its_default), Bucketing::Fractional, true),
            (without_its_default, Bucketing::Fractional, true),
            (unreadable.clone(), Bucketing::Fractional, true),
            (
                Flag {
                    enabled: false,
                    ..unreadable
                },
                Bucketing::Fractional,
                true,
            ),
        ] {
            let case = format!("{flag:?} with {bucketing:?}");
            let written = document(flag, bucketing);
            let remote = written["metadata"].get("pennon.remoteOnly");
            let expected = json!("a%2Cb%25");
            assert_eq!(remote, is_remote.then_some(&expected), "{case}");
            assert_eq!(written["flags"].get("a,b%").is_none(), is_remote, "{case}");
        }
    }
}
