//! Validates definitions and settings: they must match flagd's published JSON Schemas and stay within
//! [`limits`](crate::limits).

use serde_json::{Map, Value};

use crate::limits::{DATA_DEPTH, RULE_JSON_DEPTH, RULE_NODES};
use crate::logic::evaluators::Evaluators;
use crate::logic::{check, compile, lint};
use crate::violation::{Violation, Violations};
use crate::{Bucketing, Definition, FractionalVersion, Settings};

impl Definition {
    /// Parses a definition: `variants`, `defaultVariant`, `targeting` and `metadata` as in a flagd file.
    ///
    /// # Errors
    /// The violations: at most 50, and the number of the others.
    pub fn validate(value: &Value, settings: &Settings) -> Result<Self, Vec<Violation>> {
        Self::validate_with(value, &Evaluators::of(settings)).map_err(Violations::into_list)
    }

    /// Parses one of several definitions, which share compiled evaluators.
    ///
    /// # Errors
    /// The violations.
    pub fn validate_with(value: &Value, evaluators: &Evaluators<'_>) -> Result<Self, Violations> {
        let mut problems = Violations::default();
        let mut definition = Self::default();
        if let Some(fields) = problems.object(value) {
            definition = Self::read(fields, evaluators, &mut problems, |_, _, problems| {
                problems.add("unknown field");
            });
            if !fields.contains_key("variants") {
                problems.add_at("/variants", "is required");
            }
        }
        problems.into_result(definition)
    }

    /// Returns parts of the rule that cannot work for any caller: results that name no variant, and a `fractional`
    /// whose weights select no variant. Empty for a rule that does not compile.
    #[must_use]
    pub fn lint(&self, settings: &Settings) -> Vec<Violation> {
        self.lint_with(&Evaluators::of(settings)).into_list()
    }

    /// Lints one of several definitions, which share compiled evaluators.
    #[must_use]
    pub fn lint_with(&self, evaluators: &Evaluators<'_>) -> Violations {
        let mut problems = Violations::default();
        if let Some(rule) = self.rule()
            && compile(rule, evaluators).is_ok()
        {
            problems.inside("targeting", |problems| {
                lint::weights(rule, evaluators, problems);
                lint::results(rule, &self.variants, evaluators, problems);
            });
        }
        problems
    }

    /// Parses the fields of a definition. `other` receives all other fields.
    pub(crate) fn read(
        fields: &Map<String, Value>,
        evaluators: &Evaluators<'_>,
        problems: &mut Violations,
        mut other: impl FnMut(&str, &Value, &mut Violations),
    ) -> Self {
        let mut definition = Self::default();
        for (name, value) in fields {
            problems.inside(name, |problems| match name.as_str() {
                "variants" => definition.variants = variants(value, problems),
                "defaultVariant" => match value {
                    Value::Null => {}
                    Value::String(name) => definition.default_variant = Some(name.clone()),
                    Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                        problems.add("must be the name of a variant, or null");
                    }
                },
                "targeting" => {
                    rule(value, evaluators, problems);
                    definition.targeting = Some(value.clone());
                }
                "metadata" => definition.metadata = problems.object_of_scalars(value),
                name => other(name, value, problems),
            });
        }
        if fields.contains_key("variants")
            && let Some(name) = &definition.default_variant
            && !name.is_empty()
            && !definition.variants.contains_key(name)
        {
            problems.add_at("/defaultVariant", format!("there is no variant '{name}'"));
        }
        definition
    }
}

impl Settings {
    /// Parses settings: `evaluators`, `fractional` (`"v2"` or `"v3"`), `anonymousRollout`, `bucketing` (`"sha256"`
    /// or `"fractional"`), `metadata`, and `other`, the other fields of an imported flagd file.
    ///
    /// # Errors
    /// The violations.
    pub fn validate(value: &Value) -> Result<Self, Violations> {
        let mut problems = Violations::default();
        let mut settings = Self::default();
        let fields = problems.object(value).into_iter().flatten();
        for (name, value) in fields {
            problems.inside(name, |problems| match name.as_str() {
                "evaluators" => settings.evaluators = object(value, problems),
                "fractional" => match value.as_str() {
                    Some("v2") => settings.fractional = FractionalVersion::V2,
                    Some("v3") => settings.fractional = FractionalVersion::V3,
                    Some(_) | None => problems.add_wrong("\"v2\" or \"v3\"", value),
                },
                "anonymousRollout" => {
                    settings.anonymous_rollout = anonymous_rollout(value, problems);
                }
                "bucketing" => settings.bucketing = bucketing(value, problems),
                "metadata" => settings.metadata = set_metadata(value, problems),
                "other" => settings.other = object(value, problems),
                _ => problems.add("unknown field"),
            });
        }
        problems.inside("evaluators", |problems| {
            let evaluators = Evaluators::of(&settings);
            for name in settings.evaluators.keys() {
                evaluator(name, &evaluators, problems);
            }
        });
        problems.into_result(settings)
    }
}

/// Parses the setting `anonymousRollout`.
pub(crate) fn anonymous_rollout(value: &Value, problems: &mut Violations) -> Option<bool> {
    let anonymous = value.as_bool();
    if anonymous.is_none() {
        problems.add_wrong("true or false", value);
    }
    anonymous
}

/// Parses `bucketing`, of settings or of a flag.
pub(crate) fn bucketing(value: &Value, problems: &mut Violations) -> Option<Bucketing> {
    let bucketing = value.as_str().and_then(Bucketing::named);
    if bucketing.is_none() {
        problems.add_wrong("\"sha256\" or \"fractional\"", value);
    }
    bucketing
}

impl Settings {
    /// Returns every `fractional` whose weights select no variant, with a JSON pointer into `evaluators`.
    /// Evaluators that do not compile are left out.
    #[must_use]
    pub fn lint(&self) -> Violations {
        let mut problems = Violations::default();
        let evaluators = Evaluators::of(self);
        for (name, evaluator) in &self.evaluators {
            if compile(evaluator, &evaluators).is_ok() {
                problems.inside(name, |problems| {
                    lint::weights(evaluator, &evaluators, problems);
                });
            }
        }
        problems
    }
}

fn object(value: &Value, problems: &mut Violations) -> Map<String, Value> {
    problems.object(value).cloned().unwrap_or_default()
}

/// Parses the metadata of a set of flags.
pub(crate) fn set_metadata(value: &Value, problems: &mut Violations) -> Map<String, Value> {
    let metadata = problems.object_of_scalars(value);
    for name in ["flagSetId", "version"] {
        if metadata.get(name).is_some_and(|value| !value.is_string()) {
            problems.inside(name, |problems| problems.add("must be a string"));
        }
    }
    metadata
}

/// Checks that an evaluator has a name and is a rule.
pub(crate) fn evaluator(name: &str, evaluators: &Evaluators<'_>, problems: &mut Violations) {
    let Some(evaluator) = evaluators.settings.evaluators.get(name) else {
        return;
    };
    problems.inside(name, |problems| {
        if name.is_empty() {
            problems.add("the name must not be empty");
        }
        rule(evaluator, evaluators, problems);
    });
}

fn rule(value: &Value, evaluators: &Evaluators<'_>, problems: &mut Violations) {
    if !is_within(value, RULE_JSON_DEPTH) {
        problems.add(format!("nested deeper than {RULE_JSON_DEPTH} levels"));
        return;
    }
    let before = problems.count();
    check(value, problems);
    // The shape covers neither references nor operators inside lists.
    if problems.count() == before
        && let Err(error) = compile(value, evaluators)
    {
        problems.add_at(&error.pointer, error.message);
    }
}

fn is_within(value: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(items) => items.iter().all(|item| is_within(item, depth)),
        Value::Object(fields) => fields.values().all(|value| is_within(value, depth)),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
    }
}

/// The type of a variant; `None` for a type that no variant may have.
fn kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(_) => Some("boolean"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Object(_) => Some("object"),
        Value::Null | Value::Array(_) => None,
    }
}

fn variants(value: &Value, problems: &mut Violations) -> Map<String, Value> {
    let variants = object(value, problems);
    if variants.is_empty() && value.is_object() {
        problems.add("must have at least one variant");
    }
    let mut nodes: usize = 0;
    let common = variants.values().find_map(kind);
    for (name, value) in &variants {
        problems.inside(name, |problems| {
            if name.is_empty() {
                problems.add("the name must not be empty");
            }
            match (kind(value), common) {
                (None, _) => problems.add("must be a boolean, a string, a number or an object"),
                (kind, Some(common)) if kind != Some(common) => {
                    problems.add(format!("must be a {common}, like the other variants"));
                }
                (Some(_), _) => {}
            }
            if is_within(value, DATA_DEPTH) {
                nodes += count(value);
            } else {
                problems.add(format!("nested deeper than {DATA_DEPTH} levels"));
            }
        });
    }
    if nodes > RULE_NODES {
        problems.add(format!("the variants have more than {RULE_NODES} values"));
    }
    variants
}
