//! All flags of an environment, ready to be evaluated.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bucket::UserOrder;
use crate::clock;
use crate::limits::{BYTES_PER_STEP, EvalError, REQUEST_STEPS};
use crate::logic::evaluators::Evaluators;
use crate::logic::{self, Choice, Rule};
use crate::{Context, Definition, EvaluationDefaults, Flag, FlagKey, Override, Settings};

/// How many steps it is to hash an id that every flag may hash: one of 256 bytes.
const SHORT_ID: u64 = 16;

static TRUE: Value = Value::Bool(true);
static FALSE: Value = Value::Bool(false);

/// All flags of an environment, compiled: made once per state of the environment, and then asked for
/// every caller.
#[derive(Debug, Clone)]
pub struct Ruleset {
    flags: HashMap<FlagKey, Compiled>,
    looks_at_time: bool,
    /// What a caller without a targeting key gets from a partial rollout, as a switch. `false` when that
    /// cannot be read, as for every flag that fails.
    anonymous_rollout: bool,
}

/// The work that one request may still have done by evaluations. A request for many flags shares one.
///
/// What a rule takes for a caller of whom nothing but the id is known is never refused: it is checked when
/// flags are written. Of the rest, such as walking a long list in the context for each of thousands of
/// flags, a request may have so much.
#[derive(Debug)]
pub struct Work {
    steps: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            steps: REQUEST_STEPS,
        }
    }
}

impl Work {
    /// For a caller of whom only an id is known.
    fn unlimited() -> Self {
        Self { steps: u64::MAX }
    }

    /// Takes what was done beyond what an evaluation may always have.
    fn take(&mut self, done: u64, always: u64) -> Result<(), EvaluationError> {
        let beyond = done.saturating_sub(always);
        let left = self.steps.checked_sub(beyond);
        self.steps = left.unwrap_or(0);
        left.map(|_left| ())
            .ok_or_else(|| EvaluationError::General(EvalError::RequestTooMuchWork.to_string()))
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation<'a> {
    /// The value; without one, the default in the caller's code.
    pub value: Option<&'a Value>,
    /// The name of the variant; may be empty.
    pub variant: &'a str,
    /// How it came about.
    pub reason: Reason,
    /// What the flag and its environment say about themselves.
    pub metadata: &'a Map<String, Value>,
}

/// How a value came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// It is the same for everyone.
    Static,
    /// The rule chose nothing, so it is the default.
    Default,
    /// The rule, or an override, chose it.
    TargetingMatch,
    /// The caller's place in the rollout of a simple flag.
    Split,
    /// The flag is not enabled.
    Disabled,
}

/// Why a flag has no value for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// There is no such flag.
    #[error("there is no such flag")]
    FlagNotFound,
    /// The flag places callers by their targeting key, and there is none.
    #[error("the flag is rolled out by targeting key, and the context has none")]
    TargetingKeyMissing,
    /// The definition of the flag cannot be understood.
    #[error("the definition cannot be understood: {0}")]
    Parse(String),
    /// The rule has no usable result.
    #[error("{0}")]
    General(String),
}

#[derive(Debug, Clone)]
struct Compiled {
    enabled: bool,
    overrides: BTreeMap<String, Override>,
    metadata: Arc<Map<String, Value>>,
    /// Why the flag has no value for anybody while it is enabled.
    unreadable: Option<String>,
    kind: Kind,
    /// Whether it is on for a caller of whom nothing is known, once one has asked: it is the same for all
    /// of them, and on public routes most callers are such.
    for_nobody: OnceLock<Option<bool>>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Users in proportion.
    Simple { percent: u8, order: UserOrder },
    /// Variants and a rule.
    Typed(Typed),
}

#[derive(Debug, Clone)]
struct Typed {
    /// Few, as a rule, and then quicker to find in order than by hashing.
    variants: BTreeMap<String, Value>,
    default: Option<String>,
    /// None: the default for everyone.
    rule: Option<Result<Rule, String>>,
    is_boolean: bool,
}

impl Ruleset {
    /// Compiles the flags of an environment. A flag that does not compile answers its callers with
    /// [`EvaluationError::Parse`]; the others are not concerned. The defaults are those of the
    /// installation, for what the settings leave open.
    #[must_use]
    pub fn compile(
        flags: &BTreeMap<FlagKey, Flag>,
        settings: &Settings,
        defaults: EvaluationDefaults,
    ) -> Self {
        let evaluators = Evaluators::of(settings);
        let common = Arc::new(settings.metadata.clone());
        let definitions = flags.values().filter_map(|flag| flag.definition.as_ref());
        let mut rules = definitions.filter_map(|definition| definition.targeting.as_ref());
        let looks_at_time = rules.any(clock::may_be_read_by)
            || settings.evaluators.values().any(clock::may_be_read_by);
        let flags = flags.iter().map(|(key, flag)| {
            let (kind, metadata) = match &flag.definition {
                None => (
                    Kind::Simple {
                        percent: flag.rollout_percentage.percent(),
                        order: UserOrder::of(flag, settings, defaults),
                    },
                    Arc::clone(&common),
                ),
                Some(definition) => (
                    Kind::Typed(Typed::compile(definition, &evaluators)),
                    merge(&common, &definition.metadata),
                ),
            };
            let compiled = Compiled {
                enabled: flag.enabled,
                overrides: flag.overrides.clone(),
                metadata,
                unreadable: unreadable(flag, settings, defaults),
                kind,
                for_nobody: OnceLock::new(),
            };
            (key.clone(), compiled)
        });
        Self {
            flags: flags.collect(),
            looks_at_time,
            anonymous_rollout: settings.anonymous_rollout(defaults).unwrap_or(false),
        }
    }

    /// Whether a rule may look at the time: then the same flags and the same caller may get another
    /// answer later.
    #[must_use]
    pub fn look_at_the_time(&self) -> bool {
        self.looks_at_time
    }

    /// What a caller gets. `now` is the time in seconds since 1970, for rules that look at it.
    ///
    /// # Errors
    /// [`EvaluationError`], when there is no value.
    pub fn evaluate(
        &self,
        key: &str,
        context: &Context,
        now: i64,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        self.evaluate_within(key, context, now, &mut Work::default())
    }

    /// The same for one of several flags that a request asks for.
    ///
    /// # Errors
    /// [`EvaluationError`], when there is no value; [`EvaluationError::General`] when the request has done
    /// too much work.
    pub fn evaluate_within(
        &self,
        key: &str,
        context: &Context,
        now: i64,
        work: &mut Work,
    ) -> Result<Evaluation<'_>, EvaluationError> {
        let (key, flag) = self
            .flags
            .get_key_value(key)
            .ok_or(EvaluationError::FlagNotFound)?;
        let (value, variant, reason) = match &flag.kind {
            Kind::Simple { percent, order } => {
                let (on, reason) = flag.simple(*percent, order, key.as_str(), context, work)?;
                let (value, variant) = if on { (&TRUE, "on") } else { (&FALSE, "off") };
                (Some(value), variant, reason)
            }
            Kind::Typed(typed) => flag.typed(typed, key.as_str(), context, now, work)?,
        };
        Ok(Evaluation {
            value,
            variant,
            reason,
            metadata: &flag.metadata,
        })
    }

    /// Whether a flag is on for a caller, for those who know on and off only; nothing for a flag that
    /// does not exist or has other values than these. Whether a partial rollout of a simple flag is on for
    /// a caller without a targeting key, the settings and the defaults of the installation say. A boolean
    /// flag that leaves the choice to the caller's code, or that cannot be evaluated, is off.
    #[must_use]
    pub fn is_on(&self, key: &str, context: &Context, now: i64) -> Option<bool> {
        let (key, flag) = self.flags.get_key_value(key)?;
        if context.is_empty() && !self.looks_at_time {
            let decide = || self.decide(key, flag, context, now);
            return *flag.for_nobody.get_or_init(decide);
        }
        self.decide(key, flag, context, now)
    }

    fn decide(&self, key: &FlagKey, flag: &Compiled, context: &Context, now: i64) -> Option<bool> {
        // Nothing but the id of the caller is known to those who ask so.
        let work = &mut Work::unlimited();
        match &flag.kind {
            Kind::Simple { percent, order } => {
                let decided = flag.simple(*percent, order, key.as_str(), context, work);
                Some(match decided {
                    Ok((on, _)) => on,
                    Err(EvaluationError::TargetingKeyMissing) => self.anonymous_rollout,
                    Err(
                        EvaluationError::FlagNotFound
                        | EvaluationError::Parse(_)
                        | EvaluationError::General(_),
                    ) => false,
                })
            }
            Kind::Typed(typed) if typed.is_boolean => {
                let decided = flag.typed(typed, key.as_str(), context, now, work);
                Some(matches!(decided, Ok((Some(Value::Bool(true)), _, _))))
            }
            Kind::Typed(_) => None,
        }
    }
}

/// A value, the name of its variant, how it came about.
type Decision<'a> = (Option<&'a Value>, &'a str, Reason);

impl Compiled {
    fn overridden(&self, context: &Context) -> Option<&Override> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(context.user()?.as_str())
    }

    /// Fails where what the answer depends on could not be read.
    fn must_be_readable(&self, context: &Context) -> Result<(), EvaluationError> {
        if let Some(reason) = &self.unreadable {
            return Err(EvaluationError::Parse(reason.clone()));
        }
        match self.overridden(context) {
            Some(Override::Unreadable) => Err(EvaluationError::Parse(
                "the override of this user is unreadable".to_owned(),
            )),
            Some(Override::Include | Override::Exclude | Override::Variant(_)) | None => Ok(()),
        }
    }

    /// Whether a simple flag is on, and why. In this order:
    ///
    /// 1. a flag that is not enabled is off for everyone, included users too (a kill switch);
    /// 2. an override decides for its user;
    /// 3. 0 % is off and 100 % is on for everyone;
    /// 4. a caller without a targeting key is the one error;
    /// 5. everyone else is on when the bucket is below the percentage.
    fn simple(
        &self,
        percent: u8,
        order: &UserOrder,
        key: &str,
        context: &Context,
        work: &mut Work,
    ) -> Result<(bool, Reason), EvaluationError> {
        if !self.enabled {
            return Ok((false, Reason::Disabled));
        }
        self.must_be_readable(context)?;
        if let Some(by_name) = self.overridden(context) {
            return Ok((by_name.is_in(), Reason::TargetingMatch));
        }
        match percent {
            0 => Ok((false, Reason::Static)),
            100.. => Ok((true, Reason::Static)),
            percent => {
                let user = context.user().ok_or(EvaluationError::TargetingKeyMissing)?;
                // The id is hashed, and of most callers it is short.
                work.take((user.as_str().len() / BYTES_PER_STEP) as u64, SHORT_ID)?;
                let bucket = order.bucket(key, user, context);
                Ok((bucket < percent, Reason::Split))
            }
        }
    }

    fn typed<'a>(
        &'a self,
        typed: &'a Typed,
        key: &'a str,
        context: &Context,
        now: i64,
        work: &mut Work,
    ) -> Result<Decision<'a>, EvaluationError> {
        if !self.enabled {
            return Ok((None, "", Reason::Disabled));
        }
        self.must_be_readable(context)?;
        match self.overridden(context) {
            Some(Override::Include | Override::Exclude | Override::Unreadable) => {
                return typed.default(Reason::TargetingMatch);
            }
            Some(Override::Variant(variant)) => {
                return typed.variant(variant, Reason::TargetingMatch);
            }
            None => {}
        }
        let rule = match &typed.rule {
            None => return typed.default(Reason::Static),
            Some(Ok(rule)) => rule,
            Some(Err(why)) => return Err(EvaluationError::Parse(why.clone())),
        };
        let (choice, done) = rule.choose(key, context, now, rule.cost.saturating_add(work.steps));
        work.take(done, rule.cost)?;
        match choice {
            Ok(Choice::None) => typed.default(Reason::Default),
            Ok(Choice::Named(name)) => typed.variant(&name, Reason::TargetingMatch),
            Err(stop) => Err(EvaluationError::General(stop.to_string())),
        }
    }
}

impl Typed {
    fn compile(definition: &Definition, evaluators: &Evaluators<'_>) -> Self {
        let variants = definition.variants.iter();
        let rule = definition.rule().map(|rule| {
            logic::compile(rule, evaluators)
                .map_err(|error| format!("{} at /targeting{}", error.message, error.pointer))
        });
        Self {
            is_boolean: definition.unreadable.is_none()
                && definition.variants.values().all(Value::is_boolean),
            variants: variants
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            // flagd takes an empty name for none.
            default: definition
                .default_variant
                .clone()
                .filter(|name| !name.is_empty()),
            rule,
        }
    }

    fn default(&self, reason: Reason) -> Result<Decision<'_>, EvaluationError> {
        match &self.default {
            Some(name) => self.variant(name, reason),
            None => Ok((None, "", Reason::Default)),
        }
    }

    fn variant(&self, name: &str, reason: Reason) -> Result<Decision<'_>, EvaluationError> {
        match self.variants.get_key_value(name) {
            Some((name, value)) => Ok((Some(value), name, reason)),
            None => Err(EvaluationError::General(no_variant(name))),
        }
    }
}

/// Why a flag can have no value, whoever asks.
fn unreadable(flag: &Flag, settings: &Settings, defaults: EvaluationDefaults) -> Option<String> {
    if let Some(definition) = &flag.definition
        && let Some(unreadable) = &definition.unreadable
    {
        return Some(format!(
            "the definition is unreadable: {}",
            unreadable.reason
        ));
    }
    let is_partial =
        flag.definition.is_none() && (1..100).contains(&flag.rollout_percentage.percent());
    if let Some(unreadable) = &settings.unreadable
        && (is_partial
            || flag
                .definition
                .as_ref()
                .is_some_and(Definition::depends_on_settings))
    {
        return Some(format!(
            "the settings of the environment are unreadable: {}",
            unreadable.reason
        ));
    }
    (is_partial && settings.bucketing(defaults).is_none())
        .then(|| "the evaluation defaults of the installation are unreadable".to_owned())
}

/// Why a flag has no value for a caller whose variant does not exist. A name may come from the context, and
/// be of any length: it takes 128 bytes at most, as they are in JSON.
fn no_variant(name: &str) -> String {
    const SHOWN: usize = 32;
    let plain = |character: char| match character {
        '"' | '\\' => '?',
        character if character.is_control() => '?',
        character => character,
    };
    let shown: String = name.chars().take(SHOWN).map(plain).collect();
    format!("there is no variant '{shown}'")
}

/// What a flag says about itself goes before what its environment says.
fn merge(common: &Arc<Map<String, Value>>, own: &Map<String, Value>) -> Arc<Map<String, Value>> {
    if own.is_empty() {
        return Arc::clone(common);
    }
    let mut merged = (**common).clone();
    for (name, value) in own {
        merged.insert(name.clone(), value.clone());
    }
    Arc::new(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Bucketing, FractionalVersion, Rollout, UserId};

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

    /// Value, variant, reason, for a caller.
    fn ask(
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
    fn overrides_go_before_the_rule_and_the_rule_before_the_default() {
        let flag = ruleset(json!({
            "variants": variants(), "defaultVariant": "one",
            "targeting": {"if": [{"==": [{"var": "targetingKey"}, "rule"]}, true, null]}
        }));
        let got = |value: i32, variant: &str, reason| {
            Ok((Some(json!(value)), variant.to_owned(), reason))
        };
        assert_eq!(ask(&flag, "in"), got(1, "one", Reason::TargetingMatch));
        assert_eq!(ask(&flag, "out"), got(1, "one", Reason::TargetingMatch));
        assert_eq!(ask(&flag, "two"), got(2, "two", Reason::TargetingMatch));
        assert_eq!(ask(&flag, "rule"), got(3, "true", Reason::TargetingMatch));
        assert_eq!(ask(&flag, "other"), got(1, "one", Reason::Default));
        assert!(matches!(
            ask(&flag, "gone"),
            Err(EvaluationError::General(_))
        ));
    }

    #[test]
    fn without_a_rule_the_default_is_static_and_without_a_default_it_is_the_codes() {
        for targeting in [json!(null), json!({})] {
            let flag = ruleset(json!({
                "variants": variants(), "defaultVariant": "one", "targeting": targeting
            }));
            assert_eq!(
                ask(&flag, "a"),
                Ok((Some(json!(1)), "one".to_owned(), Reason::Static))
            );
        }
        let flag = ruleset(json!({"variants": variants()}));
        assert_eq!(ask(&flag, "a"), Ok((None, String::new(), Reason::Default)));
    }

    #[test]
    fn a_flag_without_a_usable_result_is_an_error_of_its_own() {
        let rule = |rule: Value| {
            let flag = ruleset(json!({"variants": variants(), "targeting": rule}));
            ask(&flag, "a").expect_err("no result")
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
    fn the_metadata_of_the_flag_goes_before_the_environments() {
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
    fn a_simple_flag_says_on_or_off_and_how_it_came_to_that() {
        let got = |on: bool, reason| {
            let variant = if on { "on" } else { "off" };
            Ok((Some(json!(on)), variant.to_owned(), reason))
        };
        assert_eq!(ask(&simple(0, None, None), ""), got(false, Reason::Static));
        assert_eq!(ask(&simple(100, None, None), ""), got(true, Reason::Static));
        // Bucket 35.
        assert_eq!(
            ask(&simple(36, None, None), "user-123"),
            got(true, Reason::Split)
        );
        assert_eq!(
            ask(&simple(35, None, None), "user-123"),
            got(false, Reason::Split)
        );
        assert_eq!(
            ask(&simple(50, None, None), ""),
            Err(EvaluationError::TargetingKeyMissing)
        );
        assert_eq!(
            ask(
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
    fn those_who_know_on_and_off_get_that_or_nothing() {
        let nobody = Context::default();
        let is_on = |ruleset: &Ruleset| ruleset.is_on("f", &nobody, 0);
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
        assert_eq!(simple(0, None, None).is_on("g", &nobody, 0), None);
    }

    #[test]
    fn the_recorded_users_get_what_the_service_being_replaced_gave_them() {
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
        let nobody = Context::default();
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
                assert_eq!(at(percent).is_on("f", &nobody, 0), Some(anonymous));
                assert_eq!(
                    at(percent).evaluate("f", &nobody, 0),
                    Err(EvaluationError::TargetingKeyMissing)
                );
            }
            assert_eq!(at(0).is_on("f", &nobody, 0), Some(false));
            assert_eq!(at(100).is_on("f", &nobody, 0), Some(true));
            // Alice is in bucket 1 by SHA-256 and in 30 by flagd's hash of "f" and her id.
            let first = match bucketing {
                Bucketing::Sha256 => 2,
                Bucketing::Fractional => 31,
            };
            assert_eq!(at(first - 1).is_on("f", &alice, 0), Some(false));
            assert_eq!(at(first).is_on("f", &alice, 0), Some(true));
        }
    }

    #[test]
    fn a_rollout_by_fractional_is_the_rule_that_flagd_evaluates() {
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
        assert_eq!(orders(Some("")), [one, two], "an empty salt is none");
        let [one, two] = orders(Some("salt"));
        assert_eq!(one, two);
    }

    #[test]
    fn growing_a_rollout_only_ever_adds_users() {
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
                assert!((first..=100).all(is_in), "user-{number} fell out");
                at_half += usize::from(is_in(50));
            }
            assert!((200..300).contains(&at_half), "{at_half} of 500 at 50 %");
        }
    }

    #[test]
    fn another_salt_is_another_order_of_users() {
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
    fn growing_the_first_weight_only_ever_adds_callers() {
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
            assert!((first..=100).all(is_in), "user-{number} fell out");
            at_half += usize::from(is_in(50));
        }
        assert!((200..300).contains(&at_half), "{at_half} of 500 at 50");
    }
}
