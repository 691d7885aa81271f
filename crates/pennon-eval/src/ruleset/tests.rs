//! Tests of evaluations.

use serde_json::{Value, json};

use super::*;
use crate::{Bucketing, FractionalVersion, Override, Rollout, UserId};

fn ruleset(definition: Value) -> Ruleset {
    let flag = Flag {
        enabled: true,
        definition: Some(serde_json::from_value(definition).expect("a definition")),
        overrides: [
            ("in".to_owned(), Override::Include),
            ("out".to_owned(), Override::Exclude),
            ("two".to_owned(), Override::Variant("two".to_owned())),
            ("gone".to_owned(), Override::Variant("gone".to_owned())),
        ]
        .into(),
        ..Flag::default()
    };
    let settings = Settings {
        metadata: [
            ("who".to_owned(), json!("all")),
            ("set".to_owned(), json!(1)),
        ]
        .into_iter()
        .collect(),
        ..Settings::default()
    };
    Ruleset::compile(
        &[(FlagKey::parse("f").expect("a key"), flag)].into(),
        &settings,
        EvaluationDefaults::Existing,
    )
}

/// The value, variant and reason for a user.
fn evaluate(
    ruleset: &Ruleset,
    user: &str,
) -> Result<(Option<Value>, String, Reason), EvaluationError> {
    let context = Context::of(UserId::parse(user).as_ref());
    let evaluation = ruleset.evaluate("f", &context, 0)?;
    Ok((
        evaluation.value.cloned(),
        evaluation.variant.to_owned(),
        evaluation.reason,
    ))
}

fn variants() -> Value {
    json!({"one": 1, "two": 2, "true": 3})
}

#[test]
fn an_override_takes_precedence_over_the_rule_and_the_rule_over_the_default() {
    let flag = ruleset(json!({
        "variants": variants(), "defaultVariant": "one",
        "targeting": {"if": [{"==": [{"var": "targetingKey"}, "rule"]}, true, null]}
    }));
    let got =
        |value: i32, variant: &str, reason| Ok((Some(json!(value)), variant.to_owned(), reason));
    assert_eq!(evaluate(&flag, "in"), got(1, "one", Reason::TargetingMatch));
    assert_eq!(
        evaluate(&flag, "out"),
        got(1, "one", Reason::TargetingMatch)
    );
    assert_eq!(
        evaluate(&flag, "two"),
        got(2, "two", Reason::TargetingMatch)
    );
    assert_eq!(
        evaluate(&flag, "rule"),
        got(3, "true", Reason::TargetingMatch)
    );
    assert_eq!(evaluate(&flag, "other"), got(1, "one", Reason::Default));
    assert!(matches!(
        evaluate(&flag, "gone"),
        Err(EvaluationError::General(_))
    ));
}

#[test]
fn without_a_rule_the_default_is_static_and_without_a_default_there_is_no_value() {
    for targeting in [json!(null), json!({})] {
        let flag = ruleset(json!({
            "variants": variants(), "defaultVariant": "one", "targeting": targeting
        }));
        assert_eq!(
            evaluate(&flag, "a"),
            Ok((Some(json!(1)), "one".to_owned(), Reason::Static))
        );
    }
    let flag = ruleset(json!({"variants": variants()}));
    assert_eq!(
        evaluate(&flag, "a"),
        Ok((None, String::new(), Reason::Default))
    );
    let mut compiled = flag.variants();
    let usual = compiled.next().map(|flag| flag.usual_reason);
    assert_eq!(usual, Some(Reason::Default));
}

#[test]
fn a_rule_without_a_valid_result_is_an_error() {
    let rule = |rule: Value| {
        let flag = ruleset(json!({"variants": variants(), "targeting": rule}));
        evaluate(&flag, "a").expect_err("no result")
    };
    assert!(matches!(
        rule(json!({"nothing": 1})),
        EvaluationError::Parse(_)
    ));
    assert!(matches!(rule(json!("three")), EvaluationError::General(_)));
    assert!(matches!(
        rule(json!({"/": [1, 0]})),
        EvaluationError::General(_)
    ));
    assert_eq!(
        ruleset(json!({})).evaluate("g", &Context::default(), 0),
        Err(EvaluationError::FlagNotFound)
    );
}

#[test]
fn the_metadata_of_the_flag_takes_precedence_over_that_of_the_environment() {
    let flag = ruleset(json!({"variants": variants(), "metadata": {"who": "me"}}));
    let evaluation = flag.evaluate("f", &Context::default(), 0).expect("a value");
    assert_eq!(json!(evaluation.metadata), json!({"who": "me", "set": 1}));
}

fn simple(percent: i64, salt: Option<&str>, definition: Option<Value>) -> Ruleset {
    let (settings, defaults) = (Settings::default(), EvaluationDefaults::Existing);
    compile(percent, salt, definition, &settings, defaults)
}

fn compile(
    percent: i64,
    salt: Option<&str>,
    definition: Option<Value>,
    settings: &Settings,
    defaults: EvaluationDefaults,
) -> Ruleset {
    let flag = Flag {
        enabled: true,
        rollout_percentage: Rollout::parse(percent).expect("in range"),
        salt: salt.map(str::to_owned),
        definition: definition.map(|text| serde_json::from_value(text).expect("a definition")),
        ..Flag::default()
    };
    let flags = [(FlagKey::parse("f").expect("a key"), flag)].into();
    Ruleset::compile(&flags, settings, defaults)
}

#[test]
fn a_simple_flag_is_on_or_off_with_a_reason() {
    let got = |on: bool, reason| {
        let variant = if on { "on" } else { "off" };
        Ok((Some(json!(on)), variant.to_owned(), reason))
    };
    assert_eq!(
        evaluate(&simple(0, None, None), ""),
        got(false, Reason::Static)
    );
    assert_eq!(
        evaluate(&simple(100, None, None), ""),
        got(true, Reason::Static)
    );
    // Bucket 35.
    assert_eq!(
        evaluate(&simple(36, None, None), "user-123"),
        got(true, Reason::Split)
    );
    assert_eq!(
        evaluate(&simple(35, None, None), "user-123"),
        got(false, Reason::Split)
    );
    assert_eq!(
        evaluate(&simple(50, None, None), ""),
        Err(EvaluationError::TargetingKeyMissing)
    );
    assert_eq!(
        evaluate(
            &Ruleset::compile(
                &[(FlagKey::parse("f").expect("a key"), Flag::default())].into(),
                &Settings::default(),
                EvaluationDefaults::Existing
            ),
            ""
        ),
        got(false, Reason::Disabled)
    );
}

#[test]
fn is_on_has_a_value_only_for_boolean_flags() {
    let anonymous = Context::default();
    let is_on = |ruleset: &Ruleset| ruleset.is_on("f", &anonymous, 0);
    assert_eq!(is_on(&simple(50, None, None)), Some(true));
    assert_eq!(is_on(&simple(0, None, None)), Some(false));
    let boolean = |rule: Value| {
        let variants = json!({"yes": true, "no": false});
        json!({"variants": variants, "defaultVariant": "yes", "targeting": rule})
    };
    assert_eq!(
        is_on(&simple(0, None, Some(boolean(json!({}))))),
        Some(true)
    );
    assert_eq!(
        is_on(&simple(0, None, Some(boolean(json!("no"))))),
        Some(false)
    );
    assert_eq!(
        is_on(&simple(0, None, Some(boolean(json!("gone"))))),
        Some(false)
    );
    let number = json!({"variants": {"a": 1}, "defaultVariant": "a"});
    assert_eq!(is_on(&simple(0, None, Some(number))), None);
    assert_eq!(simple(0, None, None).is_on("g", &anonymous, 0), None);
}

#[test]
fn recorded_users_get_the_values_of_the_existing_service() {
    // Users on both sides of each edge: bucket 0, 4, 5, 24, 25, 49, 50, 99.
    for (id, bucket) in [
        ("user-18", 0),
        ("user-20", 4),
        ("user-37", 5),
        ("user-113", 24),
        ("user-76", 25),
        ("user-8", 49),
        ("user-51", 50),
        ("user-118", 99),
    ] {
        let context = Context::of(UserId::parse(id).as_ref());
        let is_on = |percent| simple(percent, None, None).is_on("f", &context, 0);
        assert_eq!(is_on(bucket), Some(false), "{id}");
        assert_eq!(is_on(bucket + 1), Some(true), "{id}");
    }
}

#[test]
fn the_settings_of_an_environment_override_the_defaults_of_the_installation() {
    let no_user = Context::default();
    let alice = Context::of(UserId::parse("alice").as_ref());
    let with = |anonymous_rollout, bucketing| Settings {
        anonymous_rollout,
        bucketing,
        ..Settings::default()
    };
    let (sha256, fractional) = (Bucketing::Sha256, Bucketing::Fractional);
    for (settings, defaults, anonymous, bucketing) in [
        (with(None, None), EvaluationDefaults::Existing, true, sha256),
        (with(None, None), EvaluationDefaults::New, false, fractional),
        (
            with(Some(false), Some(fractional)),
            EvaluationDefaults::Existing,
            false,
            fractional,
        ),
        (
            with(Some(true), Some(sha256)),
            EvaluationDefaults::New,
            true,
            sha256,
        ),
    ] {
        let at = |percent| compile(percent, None, None, &settings, defaults);
        for percent in [1, 50, 99] {
            assert_eq!(at(percent).is_on("f", &no_user, 0), Some(anonymous));
            assert_eq!(
                at(percent).evaluate("f", &no_user, 0),
                Err(EvaluationError::TargetingKeyMissing)
            );
        }
        assert_eq!(at(0).is_on("f", &no_user, 0), Some(false));
        assert_eq!(at(100).is_on("f", &no_user, 0), Some(true));
        // Alice is in bucket 1 by SHA-256 and in 30 by flagd's hash of "f" and the id.
        let first = match bucketing {
            Bucketing::Sha256 => 2,
            Bucketing::Fractional => 31,
        };
        assert_eq!(at(first - 1).is_on("f", &alice, 0), Some(false));
        assert_eq!(at(first).is_on("f", &alice, 0), Some(true));
    }
}

#[test]
fn the_bucketing_of_a_flag_overrides_that_of_its_environment() {
    let alice = Context::of(UserId::parse("alice").as_ref());
    let (sha256, fractional) = (Bucketing::Sha256, Bucketing::Fractional);
    // The bucket of Alice by each hash, without and with a salt.
    for (own, salt, bucket) in [
        (sha256, None, 1),
        (fractional, None, 30),
        (sha256, Some("s"), sha256_bucket_of("s", "alice")),
    ] {
        for (of_environment, defaults) in [
            (None, EvaluationDefaults::Existing),
            (None, EvaluationDefaults::New),
            (None, EvaluationDefaults::Unreadable),
            (Some(sha256), EvaluationDefaults::New),
            (Some(fractional), EvaluationDefaults::Existing),
        ] {
            let settings = Settings {
                bucketing: of_environment,
                ..Settings::default()
            };
            let is_on = |percent| {
                let flag = Flag {
                    enabled: true,
                    rollout_percentage: Rollout::parse(percent).expect("in range"),
                    salt: salt.map(str::to_owned),
                    bucketing: Some(own),
                    ..Flag::default()
                };
                let flags = [(FlagKey::parse("f").expect("a key"), flag)].into();
                Ruleset::compile(&flags, &settings, defaults).is_on("f", &alice, 0)
            };
            let case = format!("{own:?} with {salt:?} in {of_environment:?}, {defaults:?}");
            assert_eq!(is_on(bucket), Some(false), "{case}");
            assert_eq!(is_on(bucket + 1), Some(true), "{case}");
        }
    }
}

fn sha256_bucket_of(salt: &str, user: &str) -> i64 {
    let user = UserId::parse(user).expect("an id");
    i64::from(crate::bucket::sha256_bucket(salt, &user))
}

#[test]
fn a_rollout_by_fractional_equals_flagds_fractional() {
    for version in [FractionalVersion::V2, FractionalVersion::V3] {
        let settings = Settings {
            fractional: version,
            ..Settings::default()
        };
        for salt in [None, Some("salt")] {
            for percent in [1, 33, 50, 99] {
                let buckets = [json!(["on", percent]), json!(["off", 100 - percent])];
                let by = json!({"cat": [salt, {"var": "targetingKey"}]});
                let rule: Vec<_> = salt.map(|_| by).into_iter().chain(buckets).collect();
                let definition = json!({
                    "variants": {"on": true, "off": false}, "defaultVariant": "off",
                    "targeting": {"fractional": rule}
                });
                let defaults = EvaluationDefaults::New;
                let simple = compile(percent, salt, None, &settings, defaults);
                let typed = compile(0, None, Some(definition), &settings, defaults);
                for number in 0..500 {
                    let id = format!("üser-{number}");
                    let context = Context::of(UserId::parse(id).as_ref());
                    assert_eq!(
                        simple.is_on("f", &context, 0),
                        typed.is_on("f", &context, 0),
                        "{version:?} {salt:?} {percent} {number}"
                    );
                }
            }
        }
    }
}

#[test]
fn each_flag_has_its_own_order_by_fractional_unless_flags_share_a_salt() {
    let keys = ["one", "two"].map(|key| FlagKey::parse(key).expect("a key"));
    let orders = |salt: Option<&str>| {
        let flag = Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(50).expect("in range"),
            salt: salt.map(str::to_owned),
            ..Flag::default()
        };
        let flags = keys.clone().map(|key| (key, flag.clone())).into();
        let rules = Ruleset::compile(&flags, &Settings::default(), EvaluationDefaults::New);
        ["one", "two"].map(|key| {
            let is_in = |number: u32| {
                let user = UserId::parse(format!("user-{number}"));
                rules.is_on(key, &Context::of(user.as_ref()), 0)
            };
            (0..100).map(is_in).collect::<Vec<_>>()
        })
    };
    let [one, two] = orders(None);
    assert_ne!(one, two);
    assert_eq!(orders(Some("")), [one, two], "the order changed");
    let [one, two] = orders(Some("salt"));
    assert_eq!(one, two);
}

#[test]
fn raising_the_percentage_only_adds_users() {
    let kinds = [EvaluationDefaults::Existing, EvaluationDefaults::New]
        .into_iter()
        .flat_map(|defaults| [(defaults, None), (defaults, Some("salt"))]);
    for (defaults, salt) in kinds {
        let settings = Settings::default();
        let steps: Vec<Ruleset> = (0..=100)
            .map(|percent| compile(percent, salt, None, &settings, defaults))
            .collect();
        let mut at_half = 0;
        for number in 0..500 {
            let user = UserId::parse(format!("user-{number}"));
            let context = Context::of(user.as_ref());
            let is_in = |percent: usize| steps[percent].is_on("f", &context, 0) == Some(true);
            let first = (0..=100)
                .find(|percent| is_in(*percent))
                .expect("in at 100 %");
            assert!((first..=100).all(is_in), "user-{number} was removed");
            at_half += usize::from(is_in(50));
        }
        assert!((200..300).contains(&at_half), "{at_half} of 500 at 50 %");
    }
}

#[test]
fn the_salt_determines_the_order_of_users() {
    let order = |salt| {
        let half = simple(50, salt, None);
        let is_in = move |number: u32| {
            let user = UserId::parse(format!("user-{number}"));
            half.is_on("f", &Context::of(user.as_ref()), 0)
        };
        (0..100).map(is_in).collect::<Vec<_>>()
    };
    assert_ne!(order(None), order(Some("a")));
    assert_ne!(order(Some("a")), order(Some("b")));
    assert_eq!(order(None), order(Some("")));
}

#[test]
fn raising_the_first_weight_only_adds_callers() {
    let variants = json!({"on": true, "off": false});
    let steps: Vec<Ruleset> = (0..=100)
        .map(|weight| {
            let rule = json!({"fractional": [["on", weight], ["off", 100 - weight]]});
            simple(
                0,
                None,
                Some(json!({"variants": variants, "targeting": rule})),
            )
        })
        .collect();
    let mut at_half = 0;
    for number in 0..500 {
        let user = UserId::parse(format!("user-{number}"));
        let context = Context::of(user.as_ref());
        let is_in = |weight: usize| steps[weight].is_on("f", &context, 0) == Some(true);
        let first = (0..=100).find(|weight| is_in(*weight)).expect("in at 100");
        assert!((first..=100).all(is_in), "user-{number} was removed");
        at_half += usize::from(is_in(50));
    }
    assert!((200..300).contains(&at_half), "{at_half} of 500 at 50");
}

#[test]
fn each_of_any_number_of_variants_is_found_by_its_name() {
    for count in 1..20 {
        let names: Vec<String> = (0..count)
            .map(|number| format!("variant-{number}"))
            .collect();
        let variants: Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), name.as_str().into()))
            .collect();
        let flag = ruleset(json!({
            "variants": variants, "defaultVariant": names[0],
            "targeting": {"var": "targetingKey"}
        }));
        for name in &names {
            let found = (
                Some(name.as_str().into()),
                name.clone(),
                Reason::TargetingMatch,
            );
            assert_eq!(evaluate(&flag, name), Ok(found));
        }
        assert!(evaluate(&flag, "variant-").is_err());
    }
}

#[test]
fn overrides_of_shared_flags_are_not_copied() {
    let flag = Arc::new(Flag {
        enabled: true,
        overrides: [("in".to_owned(), Override::Include)].into(),
        ..Flag::default()
    });
    let flags = [(FlagKey::parse("f").expect("a key"), Arc::clone(&flag))].into();
    let rules = Ruleset::compile(&flags, &Settings::default(), EvaluationDefaults::New);
    drop(flags);
    assert_eq!(Arc::strong_count(&flag), 2);
    let user = UserId::parse("in");
    assert_eq!(rules.is_on("f", &Context::of(user.as_ref()), 0), Some(true));
}
