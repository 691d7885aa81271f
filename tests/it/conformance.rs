//! Generated flags and contexts, evaluated by flagd's two engines and by ours.
//!
//! `CONFORMANCE_SEED` repeats a run, `CONFORMANCE_CASES` sets its length, and `CONFORMANCE_LIST=1` prints every case in
//! which the two engines differ. docs/targeting.md describes the expected result of such a case and lists the remaining
//! differences.

#![expect(clippy::print_stdout, reason = "the seed repeats a run")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use pennon_eval::flagd::{self, Mode};
use pennon_eval::{
    Bucketing, Context, Definition, EvaluationDefaults, EvaluationError, Flag, FlagKey,
    FractionalVersion, Override, Reason, Rollout, Ruleset, Settings, Violations,
};
use pennon_tests::flag_generator::{FlagGenerator, Subject, smaller_versions};
use pennon_tests::reference_engine::{Engine, ReferenceEngine, Response};
use serde_json::{Map, Value, json};

/// Enough for every operator to meet every kind of operand, within seconds.
const CASES: usize = 6_000;

/// Flags per file, and contexts per flag. The engines evaluate one file at a time.
const FLAGS: u32 = 40;
const CONTEXTS: usize = 8;

/// The number of differences that are printed, and of attempts to reduce each.
const SHOWN: usize = 8;
const TRIES: usize = 400;

struct Engines {
    node: ReferenceEngine,
    python: ReferenceEngine,
}

/// The expected result of a case.
#[derive(Debug)]
struct Expectation {
    expected: Response,
    /// The results of JavaScript and Python if they differ.
    disagreement: Option<[Response; 2]>,
    /// The reference's result if it differs from the expected one.
    contradiction: Option<Response>,
    /// Names that a rule returned and that are not variants of the flag.
    unknown: Vec<String>,
}

/// The number of cases of each kind.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    rejected_flags: usize,
    disagreement: usize,
    as_javascript: usize,
    as_python: usize,
    as_reference_alone: usize,
    different: usize,
}

impl Expectation {
    /// Whether our result is acceptable. The reference's result is acceptable too, because two engines may agree for
    /// different reasons, for example if one reads a text as 0 and the other as not a number.
    fn allows(&self, ours: &Response) -> bool {
        let reference = self.contradiction.as_ref();
        same(ours, &self.expected) || reference.is_some_and(|reference| same(ours, reference))
    }
}

impl Engines {
    fn start() -> Self {
        Self {
            node: ReferenceEngine::node(),
            python: ReferenceEngine::python(),
        }
    }

    fn expected_results(
        &mut self,
        subject: Subject,
        file: &Value,
        cases: &[(&str, &Value)],
    ) -> Vec<Expectation> {
        let evaluate =
            |engine: &mut ReferenceEngine, by| engine.evaluate(by, file, cases.iter().copied());
        let alone = |expected: Response| Expectation {
            unknown: expected.unknown_variant.iter().cloned().collect(),
            expected,
            disagreement: None,
            contradiction: None,
        };
        match subject {
            Subject::FractionalV2 => {
                let results = evaluate(&mut self.node, Engine::Flagd);
                results.into_iter().map(alone).collect()
            }
            Subject::FractionalV3 => {
                let results = evaluate(&mut self.python, Engine::Flagd);
                results.into_iter().map(alone).collect()
            }
            Subject::Operators => {
                let node = evaluate(&mut self.node, Engine::Flagd);
                let python = evaluate(&mut self.python, Engine::Flagd);
                let reference = evaluate(&mut self.node, Engine::JsonLogic);
                node.into_iter()
                    .zip(python)
                    .zip(reference)
                    .map(|((node, python), reference)| combine(node, python, reference))
                    .collect()
            }
        }
    }

    /// Adds variants for the names that rules return, so that the results can be compared.
    fn add_missing_variants(
        &mut self,
        subject: Subject,
        file: &mut Value,
        cases: &[(&str, &Value)],
    ) {
        let expectations = self.expected_results(subject, file, cases);
        for (expectation, (key, _)) in expectations.into_iter().zip(cases) {
            let variants = file["flags"][*key]["variants"]
                .as_object_mut()
                .expect("variants");
            for name in expectation.unknown {
                if is_name(&name) {
                    let value = match variants.values().next().expect("a variant") {
                        Value::Bool(_) => json!(variants.len().is_multiple_of(2)),
                        Value::Number(_) => json!(variants.len()),
                        Value::Object(_) => json!({ "is": name }),
                        Value::Null | Value::String(_) | Value::Array(_) => json!(name),
                    };
                    variants.insert(name, value);
                }
            }
        }
    }

    /// The difference between our result and the expected one for a single flag, if any.
    fn difference(&mut self, subject: Subject, file: &Value, context: &Value) -> Option<String> {
        let mut file = file.clone();
        let key = file["flags"].as_object()?.keys().next()?.clone();
        let case = [(key.as_str(), context)];
        self.add_missing_variants(subject, &mut file, &case);
        let expectation = self.expected_results(subject, &file, &case).remove(0);
        let ours = ours(&read(subject, &file).ok()?, &key, context);
        (!expectation.allows(&ours)).then(|| {
            format!(
                "{}\n  with {context}\n  ours      {}\n  expected  {}{}",
                file,
                summary(&ours),
                summary(&expectation.expected),
                expectation
                    .disagreement
                    .map_or(String::new(), |[node, python]| {
                        let (node, python) = (summary(&node), summary(&python));
                        format!(" (JavaScript {node}, Python {python})")
                    })
            )
        })
    }

    /// Searches for a smaller flag and context that still differ, and describes the difference.
    fn shrink(&mut self, subject: Subject, mut file: Value, mut context: Value) -> String {
        let key = file["flags"]
            .as_object()
            .and_then(|flags| flags.keys().next());
        let at = format!("/flags/{}/targeting", key.expect("a flag"));
        let mut tries = TRIES;
        let mut without = file.clone();
        without["$evaluators"] = json!({});
        if self.difference(subject, &without, &context).is_some() {
            file = without;
        }
        let mut shown = self
            .difference(subject, &file, &context)
            .unwrap_or_else(|| {
                format!("{file}\n  with {context}, but only beside the other flags of its file")
            });
        'again: loop {
            let rule = file.pointer(&at).cloned().unwrap_or_default();
            let files = smaller_versions(&rule).into_iter().map(|rule| {
                let mut file = file.clone();
                if let Some(place) = file.pointer_mut(&at) {
                    *place = rule;
                }
                (file, context.clone())
            });
            let contexts = smaller_versions(&context)
                .into_iter()
                .map(|context| (file.clone(), context));
            for (new_file, new_context) in files.chain(contexts).collect::<Vec<_>>() {
                if !new_context.is_object() || !new_file.pointer(&at).is_some_and(Value::is_object)
                {
                    continue;
                }
                tries -= 1;
                if tries == 0 {
                    return shown;
                }
                if let Some(difference) = self.difference(subject, &new_file, &new_context) {
                    (file, context, shown) = (new_file, new_context, difference);
                    continue 'again;
                }
            }
            return shown;
        }
    }
}

/// Whether flagd's schemas accept this as the name of a variant.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\n', '\r', '\u{2028}', '\u{2029}'])
}

/// The expected result: that of both engines if they agree; an error if both fail, in whatever way; otherwise that of
/// the reference implementation of `JsonLogic`. If the reference fails, that of the engine that succeeds (JavaScript's
/// if both do).
fn combine(node: Response, python: Response, reference: Response) -> Expectation {
    let all = [&node, &python, &reference];
    let unknown = all
        .iter()
        .filter_map(|answer| answer.unknown_variant.clone());
    let unknown = unknown.collect();
    let stopped =
        |answer: &Response| answer.error_code.is_some() && answer.unknown_variant.is_none();
    let disagreement = !same(&node, &python);
    let expected = if !disagreement {
        node.clone()
    } else if node.error_code.is_some() && python.error_code.is_some() {
        Response {
            error_code: Some("GENERAL".to_owned()),
            ..python.clone()
        }
    } else if !stopped(&reference) {
        reference.clone()
    } else if node.error_code.is_some() {
        python.clone()
    } else {
        node.clone()
    };
    Expectation {
        contradiction: (!same(&expected, &reference)).then_some(reference),
        expected,
        disagreement: disagreement.then_some([node, python]),
        unknown,
    }
}

/// Compares values; JavaScript writes 2.0 as 2.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let other_of = |name: &String| other.get(name);
            let mut fields = one.iter();
            one.len() == other.len()
                && fields
                    .all(|(name, one)| other_of(name).is_some_and(|other| same_value(one, other)))
        }
        (one, other) => one == other,
    }
}

fn same(one: &Response, other: &Response) -> bool {
    let same_metadata = match (&one.metadata, &other.metadata) {
        (Some(one), Some(other)) => same_value(&json!(one), &json!(other)),
        // The reference of JsonLogic has no metadata.
        (None, _) | (_, None) => true,
    };
    let same_values = match (&one.value, &other.value) {
        (Some(one), Some(other)) => same_value(one, other),
        (one, other) => one == other,
    };
    one.variant == other.variant
        && one.reason == other.reason
        && one.error_code == other.error_code
        && same_values
        && same_metadata
}

fn summary(answer: &Response) -> String {
    match (&answer.error_code, &answer.variant) {
        (Some(code), _) => code.clone(),
        (None, Some(variant)) => format!("{variant:?} {}", answer.reason),
        (None, None) => format!("nothing {}", answer.reason),
    }
}

/// Parses the file as an import does.
fn read(subject: Subject, file: &Value) -> Result<Ruleset, Violations> {
    let mut read = flagd::read(file, &Settings::default(), Mode::Replace)?;
    read.settings.fractional = match subject {
        Subject::FractionalV2 => FractionalVersion::V2,
        Subject::FractionalV3 | Subject::Operators => FractionalVersion::V3,
    };
    Ok(Ruleset::compile(
        &read.flags,
        &read.settings,
        EvaluationDefaults::New,
    ))
}

fn ours(ruleset: &Ruleset, key: &str, context: &Value) -> Response {
    let context = Context::parse(context.clone()).expect("a context");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("past 1970").as_secs().cast_signed();
    match ruleset.evaluate(key, &context, now) {
        Ok(found) => Response {
            value: found.value.cloned(),
            variant: found.value.map(|_| found.variant.to_owned()),
            reason: match found.reason {
                Reason::Static => "STATIC",
                Reason::Default => "DEFAULT",
                Reason::TargetingMatch => "TARGETING_MATCH",
                Reason::Split => "SPLIT",
                Reason::Disabled => "DISABLED",
            }
            .to_owned(),
            error_code: None,
            unknown_variant: None,
            metadata: Some(found.metadata.clone()),
        },
        Err(error) => Response {
            value: None,
            variant: None,
            reason: "ERROR".to_owned(),
            error_code: Some(
                match error {
                    EvaluationError::FlagNotFound => "FLAG_NOT_FOUND",
                    EvaluationError::TargetingKeyMissing => "TARGETING_KEY_MISSING",
                    EvaluationError::Parse(_) => "PARSE_ERROR",
                    EvaluationError::General(_) => "GENERAL",
                }
                .to_owned(),
            ),
            unknown_variant: None,
            metadata: None,
        },
    }
}

/// Removes flags that flagd's schemas reject, and returns their number. Pennon must reject the same flags.
fn keep_valid(node: &mut ReferenceEngine, subject: Subject, file: &mut Value) -> usize {
    let mut alone = file.clone();
    let flags = file["flags"].as_object_mut().expect("flags");
    let before = flags.len();
    let mut valid = Map::new();
    for (key, flag) in std::mem::take(flags) {
        alone["flags"] = json!({ key.as_str(): flag });
        let read = read(subject, &alone);
        if node.accepts(&alone) {
            assert!(read.is_ok(), "{:?} in {alone}", read.err());
            valid.insert(key, flag);
        } else {
            assert!(read.is_err(), "Pennon accepts {alone}, flagd does not");
        }
    }
    let rejected = before - valid.len();
    assert!(rejected * 2 < before, "few generated flags are valid");
    *flags = valid;
    rejected
}

#[test]
fn a_wrong_operand_is_accepted_where_the_schemas_accept_it() {
    let mut node = ReferenceEngine::node();
    for (rule, is_valid) in [
        (json!({"!": [{"==": [1]}]}), true),
        (json!({"!!": [{"missing": "a"}]}), true),
        (json!({"!": [{"==": [1]}, 1]}), true),
        (json!({"==": [[{"==": [1]}], 1]}), true),
        (json!({"!": {"==": [1]}}), false),
        (json!({"==": [{"==": [1]}, 1]}), false),
    ] {
        let file = json!({"flags": {"a": {
            "state": "ENABLED",
            "variants": {"true": true, "false": false},
            "defaultVariant": "false",
            "targeting": rule,
        }}});
        assert_eq!(node.accepts(&file), is_valid, "{rule}");
        let read = read(Subject::Operators, &file);
        assert_eq!(read.is_ok(), is_valid, "{rule} {:?}", read.err());
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Generates flags and contexts, and compares our results with the expected ones. `parts` divides the number of cases.
fn compare(subject: Subject, parts: usize) {
    let seed = number("CONFORMANCE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("past 1970").subsec_nanos().into()
    });
    let cases =
        number("CONFORMANCE_CASES").map_or(CASES, |cases| cases.try_into().expect("few")) / parts;
    let list = number("CONFORMANCE_LIST").is_some();
    println!("CONFORMANCE_SEED={seed}");
    let generator = FlagGenerator::new(seed, subject);
    let mut engines = Engines::start();
    let mut tally = Tally::default();
    let mut differences = BTreeSet::new();
    while tally.cases < cases {
        let mut file = generator.file(FLAGS);
        tally.rejected_flags += keep_valid(&mut engines.node, subject, &mut file);
        let keys: Vec<String> = file["flags"]
            .as_object()
            .expect("flags")
            .keys()
            .cloned()
            .collect();
        let contexts: Vec<Value> = (0..keys.len() * CONTEXTS)
            .map(|_| generator.context())
            .collect();
        let keys = keys
            .iter()
            .flat_map(|key| std::iter::repeat_n(key.as_str(), CONTEXTS));
        let cases: Vec<(&str, &Value)> = keys.zip(&contexts).collect();
        engines.add_missing_variants(subject, &mut file, &cases);
        let ruleset = read(subject, &file).unwrap_or_else(|why| panic!("{why:?} in {file}"));
        for (expectation, (key, context)) in engines
            .expected_results(subject, &file, &cases)
            .into_iter()
            .zip(&cases)
        {
            tally.cases += 1;
            if let Some([node, python]) = &expectation.disagreement {
                tally.disagreement += 1;
                if same(node, &expectation.expected) {
                    tally.as_javascript += 1;
                } else if same(python, &expectation.expected) {
                    tally.as_python += 1;
                }
                if list {
                    println!(
                        "{} with {context}: JavaScript {}, Python {}, expected {}",
                        file["flags"][*key]["targeting"],
                        summary(node),
                        summary(python),
                        summary(&expectation.expected)
                    );
                }
            }
            let ours = ours(&ruleset, key, context);
            if expectation.allows(&ours) {
                tally.as_reference_alone += usize::from(!same(&ours, &expectation.expected));
            } else {
                tally.different += 1;
                if differences.len() < SHOWN {
                    let mut alone = file.clone();
                    alone["flags"] = json!({ *key: file["flags"][*key] });
                    differences.insert(engines.shrink(subject, alone, (*context).clone()));
                }
            }
        }
    }
    println!("{subject:?}: {tally:?}");
    let differences = Vec::from_iter(differences).join("\n\n");
    assert!(differences.is_empty(), "{tally:?}, such as\n{differences}");
    // Agreement with the reference alone is an exception.
    assert!(tally.as_reference_alone * 50 < tally.cases, "{tally:?}");
}

#[test]
fn every_operator_matches_the_engines_of_flagd() {
    compare(Subject::Operators, 2);
}

#[test]
fn fractional_v2_buckets_match_the_javascript_engine() {
    compare(Subject::FractionalV2, 4);
}

#[test]
fn fractional_v3_buckets_match_the_python_engine() {
    compare(Subject::FractionalV3, 4);
}

/// An export writes a simple flag whose bucketing is `fractional` as a rule, by which flagd's engines turn it on for
/// the same users. For a caller without a targeting key they return the default, which is `false` here.
fn rollouts_are_what_the_engine_computes(engine: &mut ReferenceEngine, version: FractionalVersion) {
    let settings = Settings {
        fractional: version,
        ..Settings::default()
    };
    let mut flags = BTreeMap::new();
    for salt in [None, Some(""), Some("pepper"), Some("a \"quoted\" 1")] {
        for percent in [0, 1, 25, 50, 99, 100] {
            let flag = Flag {
                enabled: true,
                rollout_percentage: Rollout::parse(percent).expect("in range"),
                salt: salt.map(str::to_owned),
                ..Flag::default()
            };
            let key = format!("at-{percent}-{}", salt.unwrap_or("none").len());
            flags.insert(FlagKey::parse(key).expect("a key"), flag);
        }
    }
    let file = flagd::write(&flags, &settings, flagd::Form::Export);
    let ruleset = Ruleset::compile(&flags, &settings, EvaluationDefaults::New);
    let mut contexts: Vec<Value> = (0..150)
        .map(|number| json!({"targetingKey": format!("user-{number}")}))
        .collect();
    contexts.extend([
        json!({"targetingKey": "0"}),
        json!({"targetingKey": "false"}),
        json!({"targetingKey": " "}),
        json!({"targetingKey": ""}),
        json!({}),
        json!({"plan": "gold"}),
    ]);
    let cases: Vec<(&str, &Value)> = flags
        .keys()
        .flat_map(|key| contexts.iter().map(move |context| (key.as_str(), context)))
        .collect();
    let answers = engine.evaluate(Engine::Flagd, &file, cases.iter().copied());
    let mut anonymous = 0;
    for (answer, (key, value)) in answers.iter().zip(&cases) {
        let context = Context::parse((*value).clone()).expect("a context");
        let ours = ruleset.is_on(key, &context, 0);
        assert_eq!(answer.error_code, None, "{key} with {value}");
        let theirs = answer.value.as_ref().and_then(Value::as_bool);
        assert_eq!(ours, theirs, "{key} with {value}, {version:?}");
        if context.user().is_none() && !key.contains("-0-") && !key.contains("-100-") {
            assert_eq!(answer.variant.as_deref(), Some("off"), "{key} with {value}");
            assert_eq!(answer.reason, "DEFAULT", "{key} with {value}");
            let strict = ruleset.evaluate(key, &context, 0);
            assert_eq!(strict, Err(EvaluationError::TargetingKeyMissing));
            anonymous += 1;
        }
    }
    assert_eq!(anonymous, 4 * 4 * 3);
}

#[test]
fn a_rollout_by_fractional_v2_matches_the_javascript_engine() {
    let mut node = ReferenceEngine::node();
    rollouts_are_what_the_engine_computes(&mut node, FractionalVersion::V2);
}

#[test]
fn a_rollout_by_fractional_v3_matches_the_python_engine() {
    let mut python = ReferenceEngine::python();
    rollouts_are_what_the_engine_computes(&mut python, FractionalVersion::V3);
}

/// Flags of every kind that a document for engines contains, with overrides.
fn synchronised_flags() -> BTreeMap<FlagKey, Flag> {
    let overrides = || {
        BTreeMap::from([
            ("user-1".to_owned(), Override::Include),
            ("user-2".to_owned(), Override::Exclude),
            ("0".to_owned(), Override::Include),
            ("missing".to_owned(), Override::Exclude),
        ])
    };
    let mut flags = BTreeMap::new();
    let mut add = |key: String, flag: Flag| flags.insert(FlagKey::parse(key).expect("a key"), flag);
    for percent in [0, 1, 10, 33, 50, 99, 100] {
        for salt in [None, Some("pepper")] {
            for with_overrides in [false, true] {
                let flag = Flag {
                    enabled: true,
                    rollout_percentage: Rollout::parse(percent).expect("in range"),
                    salt: salt.map(str::to_owned),
                    overrides: if with_overrides {
                        overrides()
                    } else {
                        BTreeMap::new()
                    },
                    ..Flag::default()
                };
                add(
                    format!("simple-{percent}-{}-{with_overrides}", salt.is_some()),
                    flag,
                );
            }
        }
    }
    let off = Flag {
        rollout_percentage: Rollout::parse(50).expect("in range"),
        overrides: overrides(),
        ..Flag::default()
    };
    add("disabled".to_owned(), off);
    let split = json!({"fractional": [["x", 20], ["y", 30], ["z", 50]]});
    let by_plan = json!({"if": [{"==": [{"var": "plan"}, "pro"]}, "y", split]});
    for (name, targeting, default) in [
        ("split", split.clone(), Some("x")),
        ("by-plan", by_plan, Some("z")),
        (
            "without-default",
            json!({"if": [{"in": ["7", {"var": "targetingKey"}]}, "y"]}),
            None,
        ),
        ("without-rule", Value::Null, Some("x")),
    ] {
        for enabled in [true, false] {
            let variants = json!({"x": "a", "y": "b", "z": "c"});
            let mut overrides = overrides();
            overrides.insert("user-3".to_owned(), Override::Variant("z".to_owned()));
            let flag = Flag {
                enabled,
                definition: Some(Definition {
                    variants: variants.as_object().expect("an object").clone(),
                    default_variant: default.map(str::to_owned),
                    targeting: Some(targeting.clone()),
                    metadata: odd_metadata(),
                    ..Definition::default()
                }),
                overrides,
                ..Flag::default()
            };
            add(format!("{name}-{enabled}"), flag);
        }
    }
    for (number, flag) in flags.values_mut().enumerate() {
        flag.description = (number % 2 == 0).then(|| format!("\"{number}\""));
        flag.other.insert("owner".to_owned(), json!(["team"]));
    }
    flags
}

/// Metadata that Pennon accepts or that SQL has written, some of which engines reject.
fn odd_metadata() -> Map<String, Value> {
    let metadata = json!({"": 1, "team": "web", "list": [1], "nothing": null});
    metadata.as_object().expect("an object").clone()
}

/// The engine gives every user the variant that Pennon gives them, from the document of `GET /v1/flags`.
fn documents_give_every_user_the_same_variant(
    engine: &mut ReferenceEngine,
    version: FractionalVersion,
) {
    const USERS: usize = 1_400;
    let mut settings = Settings {
        fractional: version,
        metadata: odd_metadata(),
        ..Settings::default()
    };
    let mut flags = synchronised_flags();
    // With v2, the flags override the bucketing of their environment; with v3, the default of the installation applies.
    if version == FractionalVersion::V2 {
        settings.bucketing = Some(Bucketing::Sha256);
        for flag in flags.values_mut() {
            flag.bucketing = Some(Bucketing::Fractional);
        }
    }
    let document = flagd::write_for_engines(&flags, &settings, EvaluationDefaults::New);
    assert_eq!(document["metadata"].get("pennon.remoteOnly"), None);
    let ruleset = Ruleset::compile(&flags, &settings, EvaluationDefaults::New);
    let mut contexts: Vec<Value> = (0..USERS)
        .map(|number| match number % 2 {
            0 => json!({"targetingKey": format!("user-{number}")}),
            _ => json!({"targetingKey": format!("user-{number}"), "plan": "pro"}),
        })
        .collect();
    for key in ["0", "false", " ", "", "missing"] {
        contexts.push(json!({ "targetingKey": key }));
    }
    // The JavaScript engine hashes UTF-16, and flagd UTF-8: see docs/local-evaluation.md.
    if version == FractionalVersion::V3 {
        contexts.push(json!({ "targetingKey": "ä😀" }));
    }
    contexts.extend([json!({}), json!({"plan": "pro"})]);
    let cases: Vec<(&str, &Value)> = flags
        .keys()
        .flat_map(|key| contexts.iter().map(move |context| (key.as_str(), context)))
        .collect();
    assert!(cases.len() >= 50_000, "{}", cases.len());
    let answers = engine.evaluate(Engine::Flagd, &document, cases.iter().copied());
    for (answer, (key, value)) in answers.iter().zip(&cases) {
        let context = Context::parse((*value).clone()).expect("a context");
        let place = format!("{key} with {value}, {version:?}: {answer:?}");
        let (variant, value) = match ruleset.evaluate(key, &context, 0) {
            Ok(ours) => (
                Some(ours.variant).filter(|it| !it.is_empty()),
                ours.value.cloned(),
            ),
            // An engine returns the default of the flag; OFREP reports that the key is missing.
            Err(EvaluationError::TargetingKeyMissing) => (Some("off"), Some(false.into())),
            Err(error) => panic!("{place}: {error:?}"),
        };
        assert_eq!(answer.value, value, "{place}");
        assert_eq!(answer.variant.as_deref(), variant, "{place}");
    }
}

/// The flag of docs/local-evaluation.md tells which version an engine computes.
#[test]
fn the_flag_of_the_manual_has_the_version_of_each_engine_as_its_value() {
    let manual = include_str!("../../docs/local-evaluation.md");
    let (_, rest) = manual.split_once("```json\n").expect("an example");
    let (text, _) = rest.split_once("```").expect("its end");
    let file: Value = serde_json::from_str(text).expect("a flagd file");
    let (key, context) = ("fractional-version", json!({"targetingKey": "user-0"}));
    for (mut engine, version) in [
        (ReferenceEngine::node(), "v2"),
        (ReferenceEngine::python(), "v3"),
    ] {
        let cases = [(key, &context)].into_iter();
        let answer = engine.evaluate(Engine::Flagd, &file, cases).remove(0);
        assert_eq!(answer.variant.as_deref(), Some(version));
        let subject = match version {
            "v2" => Subject::FractionalV2,
            _ => Subject::FractionalV3,
        };
        let ours = ours(&read(subject, &file).expect("valid"), key, &context);
        assert_eq!(ours.variant.as_deref(), Some(version));
    }
}

#[test]
fn the_javascript_engine_gives_every_user_the_variant_of_the_document() {
    let mut node = ReferenceEngine::node();
    documents_give_every_user_the_same_variant(&mut node, FractionalVersion::V2);
}

#[test]
fn the_python_engine_gives_every_user_the_variant_of_the_document() {
    let mut python = ReferenceEngine::python();
    documents_give_every_user_the_same_variant(&mut python, FractionalVersion::V3);
}

/// Engines replace each reference once, in the text of the flags, by patterns of their own: a regular expression, or a
/// replacement in which `$` and `\` have a meaning.
fn evaluators_have_the_same_meaning_in_the_document(engine: &mut ReferenceEngine) {
    let evaluators = json!({
        "ours": {"ends_with": [{"var": "email"}, "@ours.com"]},
        "nested": {"or": [{"$ref": "ours"}, {"==": [{"var": "plan"}, "pro"]}]},
        "twice": {"and": [{"$ref": "nested"}, {"$ref": "later"}]},
        "later": {"!=": [{"var": "plan"}, "free"]},
        "city": {"in": [{"var": "city"}, ["Zürich", "a \"quoted\" one", "a \\ backslash"]]},
        "dollar": {"in": [{"var": "city"}, ["$&", "$$", "$1"]]},
        "a.b (c)": {"==": [{"var": "city"}, "Bern"]},
        "käse": {"==": [{"var": "city"}, "Basel"]},
        "yes": true,
    });
    let settings = Settings {
        evaluators: evaluators.as_object().expect("an object").clone(),
        ..Settings::default()
    };
    let flags: BTreeMap<FlagKey, Flag> = settings
        .evaluators
        .keys()
        .map(|name| {
            let targeting = json!({"if": [{"$ref": name}, "y"]});
            let variants = json!({"x": "a", "y": "b"});
            let flag = Flag {
                enabled: true,
                definition: Some(Definition {
                    variants: variants.as_object().expect("an object").clone(),
                    default_variant: Some("x".to_owned()),
                    targeting: Some(targeting),
                    ..Definition::default()
                }),
                ..Flag::default()
            };
            (FlagKey::parse(name.clone()).expect("a key"), flag)
        })
        .collect();
    let document = flagd::write_for_engines(&flags, &settings, EvaluationDefaults::New);
    assert_eq!(document["metadata"].get("pennon.remoteOnly"), None);
    let ruleset = Ruleset::compile(&flags, &settings, EvaluationDefaults::New);
    let cities = [
        "Zürich",
        "a \"quoted\" one",
        "a \\ backslash",
        "$&",
        "$$",
        "$1",
        "Bern",
        "Basel",
    ];
    let contexts: Vec<Value> = cities
        .into_iter()
        .flat_map(|city| ["pro", "free", "other"].map(|plan| (city, plan)))
        .flat_map(|(city, plan)| {
            ["a@ours.com", "a@theirs.com"]
                .map(|email| json!({"city": city, "plan": plan, "email": email}))
        })
        .collect();
    let cases: Vec<(&str, &Value)> = flags
        .keys()
        .flat_map(|key| contexts.iter().map(move |context| (key.as_str(), context)))
        .collect();
    let answers = engine.evaluate(Engine::Flagd, &document, cases.iter().copied());
    for (answer, (key, value)) in answers.iter().zip(&cases) {
        let context = Context::parse((*value).clone()).expect("a context");
        let ours = ruleset.evaluate(key, &context, 0).expect("a variant");
        let place = format!("{key} with {value}: {answer:?}");
        assert_eq!(answer.variant.as_deref(), Some(ours.variant), "{place}");
    }
}

#[test]
fn evaluators_have_the_same_meaning_in_the_document_for_the_javascript_engine() {
    evaluators_have_the_same_meaning_in_the_document(&mut ReferenceEngine::node());
}

#[test]
fn evaluators_have_the_same_meaning_in_the_document_for_the_python_engine() {
    evaluators_have_the_same_meaning_in_the_document(&mut ReferenceEngine::python());
}
