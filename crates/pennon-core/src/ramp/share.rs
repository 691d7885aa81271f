//! The share of users that a ramp moves: the rollout percentage of a simple flag, or the weights of two
//! neighbouring variants in a flag whose rule is one `fractional`.
//!
//! `fractional` gives a caller the first variant for which `hash * total < end * 2^32` holds, where `end`
//! is the sum of the weights up to that variant. Multiplying all weights by one number changes no answer,
//! so a percentage that the weights cannot express is reached by scaling them. Moving weight between
//! neighbours moves the one end between them, so the callers of all other variants keep theirs, and the
//! callers of the growing variant keep it.

use std::fmt;

use pennon_eval::{Definition, Flag, Rollout};
use serde_json::{Value, json};

use super::VariantPair;

/// The largest sum of weights that flagd takes.
const MAX_TOTAL_WEIGHT: u64 = i32::MAX as u64;

/// Why a flag cannot be ramped, as a sentence for the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRampable(pub String);

impl fmt::Display for NotRampable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The value of a flag that a ramp raises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// The percentage of a simple flag.
    Rollout(u8),
    /// Weights.
    Weights(Weights),
}

/// Variants with their weights, in the order of the rule.
type Buckets = Vec<(String, u64)>;

/// The weights of a flag whose rule is one `fractional`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// If `false`, all users get the default variant, which is `from`.
    has_rule: bool,
    /// The first argument of the rule, if it is not a bucket: its value is hashed.
    bucketing_expression: Option<Value>,
    buckets: Buckets,
    from: usize,
    to: usize,
}

impl Share {
    /// The value that a ramp would raise in this flag.
    ///
    /// # Errors
    /// The reason why no ramp can.
    pub fn of(flag: &Flag, pair: Option<&VariantPair>) -> Result<Self, NotRampable> {
        match (&flag.definition, pair) {
            (None, None) => Ok(Self::Rollout(flag.rollout_percentage.percent())),
            (None, Some(_)) => Err(NotRampable(
                "the flag has no variants; leave out 'from' and 'to'".to_owned(),
            )),
            (Some(_), None) => Err(NotRampable(
                "the flag has variants; set 'to' to the variant that grows and 'from' to the one that loses users"
                    .to_owned(),
            )),
            (Some(definition), Some(pair)) => Weights::of(definition, pair).map(Self::Weights),
        }
    }

    /// The current percentage, rounded down.
    #[must_use]
    pub fn percent(&self) -> u8 {
        match self {
            Self::Rollout(percent) => *percent,
            Self::Weights(weights) => {
                let percent = (weights.to() * 100).checked_div(weights.total());
                percent
                    .and_then(|it| u8::try_from(it).ok())
                    .unwrap_or_default()
            }
        }
    }

    /// Checks that a new ramp can set these rising percentages: the first is above the current share, the weights can
    /// express all of them, and the rule's first argument cannot be a list.
    ///
    /// # Errors
    /// The reason.
    pub fn check_steps(&self, percentages: &[u8]) -> Result<(), NotRampable> {
        let first = percentages.first().copied().unwrap_or_default();
        match self {
            Self::Rollout(percent) if first > *percent => Ok(()),
            Self::Rollout(percent) => Err(NotRampable(format!(
                "the first step must be above the current {percent} %"
            ))),
            Self::Weights(weights) => {
                // Not checked by `of`, so that a ramp that already exists can be rolled back.
                if weights
                    .bucketing_expression
                    .as_ref()
                    .is_some_and(may_be_list)
                {
                    return Err(NotRampable(
                        "the rule's first argument may be a list, which would be the first variant"
                            .to_owned(),
                    ));
                }
                if u64::from(first) * weights.total() <= weights.to() * 100 {
                    let percent = self.percent();
                    return Err(NotRampable(format!(
                        "the first step must be above the current share of about {percent} %"
                    )));
                }
                for percent in percentages {
                    weights.with(*percent)?;
                }
                Ok(())
            }
        }
    }

    /// Sets the share in the flag from which this was taken.
    ///
    /// # Errors
    /// If the percentage is above 100, the weights cannot express it, or the flag no longer has variants.
    pub fn set(&self, flag: &mut Flag, percent: u8) -> Result<(), NotRampable> {
        match (self, &mut flag.definition) {
            (Self::Rollout(_), _) => {
                let rollout = Rollout::parse(i64::from(percent));
                flag.rollout_percentage =
                    rollout.map_err(|error| NotRampable(error.to_string()))?;
                Ok(())
            }
            (Self::Weights(weights), Some(definition)) => {
                definition.targeting = Some(weights.with(percent)?.rule());
                Ok(())
            }
            (Self::Weights(_), None) => Err(NotRampable("the flag has no variants".to_owned())),
        }
    }

    /// Whether a change from this share to another gives the flag to no new user: the variant may only lose users, and
    /// all variants outside of the ramp keep theirs.
    #[must_use]
    pub fn is_at_least(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rollout(before), Self::Rollout(after)) => after <= before,
            (Self::Weights(before), Self::Weights(after)) => before.contains(after),
            (Self::Rollout(_), Self::Weights(_)) | (Self::Weights(_), Self::Rollout(_)) => false,
        }
    }
}

impl Weights {
    fn of(definition: &Definition, pair: &VariantPair) -> Result<Self, NotRampable> {
        let VariantPair { from, to } = pair;
        if from == to {
            return Err(NotRampable(
                "'from' and 'to' must be different variants".to_owned(),
            ));
        }
        if definition.unreadable.is_some() {
            return Err(NotRampable(
                "the flag's definition is unreadable".to_owned(),
            ));
        }
        for name in [from, to] {
            if !definition.variants.contains_key(name) {
                return Err(NotRampable(format!("the flag has no variant '{name}'")));
            }
        }
        let rule = definition.rule();
        let (bucketing_expression, mut buckets) = match (rule, &definition.default_variant) {
            (Some(rule), _) => buckets_of(rule)?,
            (None, Some(default)) if default == from => (None, vec![(from.clone(), 1)]),
            (None, Some(default)) => {
                return Err(NotRampable(format!(
                    "the flag has no rule, so all users get its defaultVariant '{default}'; 'from' must be that \
                     variant (got '{from}')"
                )));
            }
            (None, None) => {
                return Err(NotRampable(
                    "the flag has neither a rule nor a defaultVariant, so no variant can lose users; set a \
                     defaultVariant first"
                        .to_owned(),
                ));
            }
        };
        let at = |buckets: &[(String, u64)], name: &str| {
            let found = buckets.iter().enumerate().filter(|(_, (it, _))| it == name);
            let found: Vec<usize> = found.map(|(at, _)| at).collect();
            match found.as_slice() {
                [] => Ok(None),
                [at] => Ok(Some(*at)),
                [..] => Err(NotRampable(format!(
                    "the rule lists variant '{name}' more than once"
                ))),
            }
        };
        let Some(mut from_at) = at(&buckets, from)? else {
            return Err(NotRampable(format!(
                "the rule does not list variant '{from}'"
            )));
        };
        let to_at = if let Some(at) = at(&buckets, to)? {
            at
        } else {
            buckets.insert(from_at, (to.clone(), 0));
            from_at += 1;
            from_at - 1
        };
        if from_at.abs_diff(to_at) != 1 {
            return Err(NotRampable(format!(
                "'{from}' and '{to}' must stand next to each other in the rule, so that no user of another \
                 variant moves"
            )));
        }
        let weights = Self {
            has_rule: rule.is_some(),
            bucketing_expression,
            buckets,
            from: from_at,
            to: to_at,
        };
        let total = weights.total();
        if total == 0 || total > MAX_TOTAL_WEIGHT {
            return Err(NotRampable(format!(
                "the sum of the weights must be from 1 to {MAX_TOTAL_WEIGHT} (got {total})"
            )));
        }
        Ok(weights)
    }

    fn weight(&self, at: usize) -> u64 {
        self.buckets.get(at).map_or(0, |(_, weight)| *weight)
    }

    fn from(&self) -> u64 {
        self.weight(self.from)
    }

    fn to(&self) -> u64 {
        self.weight(self.to)
    }

    /// Cannot overflow: there are fewer than 2^20 weights, each below 2^38 even after [`Self::with`] has scaled it.
    fn total(&self) -> u64 {
        self.buckets.iter().map(|(_, weight)| *weight).sum()
    }

    /// The weights with this share for the growing variant.
    fn with(&self, percent: u8) -> Result<Self, NotRampable> {
        let wanted = u64::from(percent) * self.total();
        let factor = 100 / gcd(100, wanted);
        let to = wanted * factor / 100;
        let both = (self.from() + self.to()) * factor;
        let Some(from) = both.checked_sub(to) else {
            let movable = (self.from() + self.to()) * 100;
            let max = movable.checked_div(self.total()).unwrap_or_default();
            return Err(NotRampable(format!(
                "both variants together have {max} % of the users, and no step can be above that"
            )));
        };
        let mut scaled = self.clone();
        for (at, (_, weight)) in scaled.buckets.iter_mut().enumerate() {
            *weight = if at == self.to {
                to
            } else if at == self.from {
                from
            } else {
                *weight * factor
            };
        }
        let common = scaled
            .buckets
            .iter()
            .fold(0, |common, (_, weight)| gcd(*weight, common));
        for (_, weight) in &mut scaled.buckets {
            *weight /= common.max(1);
        }
        if scaled.total() > MAX_TOTAL_WEIGHT {
            return Err(NotRampable(format!(
                "the weights cannot express {percent} %: their sum would exceed {MAX_TOTAL_WEIGHT}"
            )));
        }
        Ok(scaled)
    }

    fn rule(&self) -> Value {
        let buckets = self
            .buckets
            .iter()
            .map(|(name, weight)| json!([name, weight]));
        let arguments: Vec<Value> = self
            .bucketing_expression
            .iter()
            .cloned()
            .chain(buckets)
            .collect();
        json!({ "fractional": arguments })
    }

    /// Whether in `other` the growing variant has only callers that it has here, and all variants outside of the ramp
    /// have the same callers. Comparing weights is not enough: the same weights in another order give the variant to
    /// other callers.
    fn contains(&self, other: &Self) -> bool {
        let same_bucketing = !self.has_rule
            || !other.has_rule
            || self.bucketing_expression == other.bucketing_expression;
        let (total, others_total) = (self.total(), other.total());
        let (begin, end) = self.bounds(self.to);
        let (others_begin, others_end) = other.bounds(other.to);
        let keeps = other.to() == 0
            || (others_begin * total >= begin * others_total
                && others_end * total <= end * others_total);
        same_bucketing && keeps && self.unramped(others_total) == other.unramped(total)
    }

    /// The sums of the weights before and up to this bucket.
    fn bounds(&self, at: usize) -> (u64, u64) {
        let before = self
            .buckets
            .iter()
            .take(at)
            .map(|(_, weight)| *weight)
            .sum();
        (before, before + self.weight(at))
    }

    /// The buckets of the variants outside of the ramp: the name, and the bounds multiplied by this factor.
    fn unramped(&self, factor: u64) -> Vec<(&str, u64, u64)> {
        let named = self.buckets.iter().enumerate();
        let unramped =
            named.filter(|(at, (_, weight))| *at != self.from && *at != self.to && *weight > 0);
        unramped
            .map(|(at, (name, _))| {
                let (begin, end) = self.bounds(at);
                (name.as_str(), begin * factor, end * factor)
            })
            .collect()
    }
}

/// The buckets of a rule that is one `fractional` with names and numbers.
fn buckets_of(rule: &Value) -> Result<(Option<Value>, Buckets), NotRampable> {
    let refused = |why: &str| {
        NotRampable(format!(
            "{why}; a ramp moves weight in a flag whose rule is absent or one fractional"
        ))
    };
    let fields = rule.as_object().filter(|fields| fields.len() == 1);
    let arguments = fields
        .and_then(|fields| fields.get("fractional"))
        .and_then(Value::as_array)
        .ok_or_else(|| refused("the flag's rule is more than one fractional"))?;
    let (bucketing_expression, buckets) = match arguments.split_first() {
        Some((first, rest)) if !first.is_array() => (Some(first.clone()), rest),
        Some(_) | None => (None, arguments.as_slice()),
    };
    let bucket = |bucket: &Value| -> Option<(String, u64)> {
        match bucket.as_array()?.as_slice() {
            [Value::String(name)] => Some((name.clone(), 1)),
            // 50.0 is a weight in one version of `fractional` and invalid in the other.
            [Value::String(name), Value::Number(weight)] => {
                let whole = weight.as_u64()?;
                (whole <= MAX_TOTAL_WEIGHT).then(|| (name.clone(), whole))
            }
            _ => None,
        }
    };
    let buckets: Option<Buckets> = buckets.iter().map(bucket).collect();
    let buckets = buckets.ok_or_else(|| {
        refused(&format!(
            "each bucket of the rule must be [\"variant\"] or [\"variant\", weight] with a constant name and an \
             integer from 0 to {MAX_TOTAL_WEIGHT}"
        ))
    })?;
    Ok((bucketing_expression, buckets))
}

/// Whether an expression may evaluate to a list. `fractional` takes a list as its first argument for a bucket. An
/// attribute of the context counts as no list, because rules use `var` for the value that is hashed.
fn may_be_list(expression: &Value) -> bool {
    let Value::Object(fields) = expression else {
        return expression.is_array();
    };
    let mut operations = fields.iter().map(|(name, it)| (name.as_str(), it));
    match (operations.next(), operations.next()) {
        (Some(("cat", _)), None) => false,
        (Some(("var", Value::Array(arguments))), None) => arguments.get(1).is_some_and(may_be_list),
        // The evaluator that it refers to may consist of a path and a default.
        (Some(("var", arguments)), None) => arguments.get("$ref").is_some(),
        _ => true,
    }
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pennon_eval::{
        Bucketing, Context, EvaluationDefaults, FlagKey, FractionalVersion, Ruleset, Settings,
        UserId,
    };
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};

    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    const USERS: usize = 100;

    fn typed(targeting: &Value) -> Flag {
        let definition = json!({
            "variants": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
            "defaultVariant": "a",
            "targeting": targeting,
        });
        Flag {
            enabled: true,
            definition: Some(serde_json::from_value(definition).expect("a definition")),
            ..Flag::default()
        }
    }

    fn pair(from: &str, to: &str) -> VariantPair {
        VariantPair {
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    /// The variant of each user.
    fn answers(flag: &Flag, settings: &Settings) -> Vec<String> {
        let key = FlagKey::parse("f").expect("a key");
        let flags = BTreeMap::from([(key, flag.clone())]);
        let ruleset = Ruleset::compile(&flags, settings, EvaluationDefaults::New);
        let answer = |user: usize| {
            let user = UserId::parse(format!("user-{user}"));
            let answer = ruleset.evaluate("f", &Context::of(user.as_ref()), 0);
            answer.expect("a value").variant.to_owned()
        };
        (0..USERS).map(answer).collect()
    }

    fn with_share(flag: &Flag, pair: Option<&VariantPair>, percent: u8) -> Flag {
        let mut raised = flag.clone();
        let share = Share::of(flag, pair).expect("a share");
        share.set(&mut raised, percent).expect("can be expressed");
        raised
    }

    /// Both versions of `fractional`, and both bucketings.
    fn settings() -> impl Strategy<Value = Settings> {
        let version = prop_oneof![Just(FractionalVersion::V2), Just(FractionalVersion::V3)];
        let bucketing = prop_oneof![Just(Bucketing::Sha256), Just(Bucketing::Fractional)];
        (version, bucketing).prop_map(|(fractional, bucketing)| Settings {
            fractional,
            bucketing: Some(bucketing),
            ..Settings::default()
        })
    }

    fn percentages() -> impl Strategy<Value = Vec<u8>> {
        vec(1_u8..=100, 1..6).prop_map(|mut percentages| {
            percentages.sort_unstable();
            percentages.dedup();
            percentages
        })
    }

    #[test]
    fn the_cohort_of_a_simple_flag_only_grows_and_is_the_same_after_a_restart() {
        pennon_fuzz::for_all(&(settings(), percentages()), |(settings, percentages)| {
            let mut flag = Flag {
                enabled: true,
                ..Flag::default()
            };
            let start = with_share(&flag, None, 0);
            let mut before = answers(&start, &settings);
            let mut seen = Vec::new();
            for percent in &percentages {
                flag = with_share(&flag, None, *percent);
                let now = answers(&flag, &settings);
                for (was, is) in before.iter().zip(&now) {
                    assert!(was == is || is == "on", "a user has lost the flag");
                }
                before.clone_from(&now);
                seen.push(now);
            }
            // Rolled back and started again, the ramp gives the flag to the same users.
            let mut again = start;
            for (percent, seen) in percentages.iter().zip(seen) {
                again = with_share(&again, None, *percent);
                assert_eq!(answers(&again, &settings), seen);
            }
        });
    }

    #[test]
    fn a_ramp_of_variants_moves_no_third_variant_and_only_adds_users() {
        let weights = vec(0_u32..1_000, 2..=5);
        let inputs = (
            settings(),
            percentages(),
            weights,
            any::<(bool, bool, u8)>(),
        );
        pennon_fuzz::for_all(&inputs, |(settings, percentages, weights, chosen)| {
            let (is_forward, has_bucketing_expression, place) = chosen;
            let first = usize::from(place) % (weights.len() - 1);
            let (from, to) = if is_forward {
                (first, first + 1)
            } else {
                (first + 1, first)
            };
            let buckets = NAMES
                .iter()
                .zip(&weights)
                .map(|(name, weight)| json!([name, weight]));
            let by =
                has_bucketing_expression.then(|| json!({"cat": ["salt", {"var": "targetingKey"}]}));
            let rule: Vec<Value> = by.into_iter().chain(buckets).collect();
            let start = typed(&json!({"fractional": rule}));
            let pair = pair(NAMES[from], NAMES[to]);
            let Ok(share) = Share::of(&start, Some(&pair)) else {
                assert!(weights.iter().all(|weight| *weight == 0));
                return;
            };
            let mut flag = start.clone();
            let mut steps = vec![answers(&start, &settings)];
            for percent in percentages {
                let present = Share::of(&flag, Some(&pair)).expect("a share");
                if present.check_steps(&[percent]).is_err() {
                    continue;
                }
                let raised = with_share(&flag, Some(&pair), percent);
                let after = Share::of(&raised, Some(&pair)).expect("a share");
                assert_eq!(after.percent(), percent);
                assert!(
                    after.is_at_least(&present),
                    "a rollback of the step is not allowed"
                );
                assert!(
                    after.is_at_least(&share),
                    "a rollback of all steps is not allowed"
                );
                assert!(
                    !present.is_at_least(&after),
                    "a rollback could make the step"
                );
                flag = raised;
                steps.push(answers(&flag, &settings));
            }
            for both in steps.windows(2) {
                for (was, is) in both[0].iter().zip(&both[1]) {
                    let is_moved = was == &pair.from && is == &pair.to;
                    assert!(was == is || is_moved, "{was} became {is}");
                }
            }
        });
    }

    #[test]
    fn a_change_to_a_lower_share_only_takes_users_from_the_growing_variant() {
        let weights = || vec(0_u32..5, 3);
        let orders = || Just(["a", "b", "c"].to_vec()).prop_shuffle();
        let inputs = (settings(), weights(), orders(), weights(), orders());
        pennon_fuzz::for_all(
            &inputs,
            |(settings, weights, order, others, other_order)| {
                let flag = |order: &[&str], weights: &[u32]| {
                    let buckets = order.iter().zip(weights);
                    let buckets: Vec<Value> = buckets.map(|(name, it)| json!([name, it])).collect();
                    typed(&json!({ "fractional": buckets }))
                };
                let (before, after) = (flag(&order, &weights), flag(&other_order, &others));
                let pair = pair("a", "b");
                let shares = (
                    Share::of(&before, Some(&pair)),
                    Share::of(&after, Some(&pair)),
                );
                let (Ok(share), Ok(other)) = shares else {
                    return;
                };
                if !share.is_at_least(&other) {
                    return;
                }
                let answers = [before, after].map(|flag| answers(&flag, &settings));
                for (was, is) in answers[0].iter().zip(&answers[1]) {
                    assert!(was == is || (was == "b" && is == "a"), "{was} became {is}");
                }
            },
        );
    }

    #[test]
    fn a_flag_that_cannot_be_ramped_is_rejected_with_the_reason() {
        let rule = |rule: Value| typed(&rule);
        let mut without_default = typed(&Value::Null);
        let definition = without_default.definition.as_mut().expect("a definition");
        definition.default_variant = None;
        for (flag, from, to, reason) in [
            (rule(Value::Null), "b", "a", "'from' must be that variant"),
            (rule(Value::Null), "a", "a", "different variants"),
            (rule(Value::Null), "a", "x", "no variant 'x'"),
            (
                rule(json!({"if": [true, "a", "b"]})),
                "a",
                "b",
                "more than one fractional",
            ),
            (
                rule(json!({"fractional": [["a", 1], ["b", {"var": "n"}]]})),
                "a",
                "b",
                "with a constant name and an integer",
            ),
            (
                rule(json!({"fractional": [["a", 50.0], ["b", 50]]})),
                "a",
                "b",
                "with a constant name and an integer",
            ),
            (
                rule(json!({"fractional": [["a", 1], ["c", 1], ["b", 1]]})),
                "a",
                "b",
                "next to each other",
            ),
            (
                rule(json!({"fractional": [["a", 1], ["a", 1]]})),
                "a",
                "b",
                "more than once",
            ),
            (
                rule(json!({"fractional": [["b", 1], ["c", 1]]})),
                "a",
                "b",
                "does not list",
            ),
            (
                rule(json!({"fractional": [["a", 0], ["b", 0]]})),
                "a",
                "b",
                "from 1 to 2147483647 (got 0)",
            ),
            (without_default, "a", "b", "set a defaultVariant first"),
        ] {
            let refused = Share::of(&flag, Some(&pair(from, to)));
            let refused = refused.expect_err("was accepted").to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(Share::of(&Flag::default(), Some(&pair("a", "b"))).is_err());
        assert!(Share::of(&typed(&Value::Null), None).is_err());
    }

    #[test]
    fn a_new_ramp_is_rejected_if_the_first_argument_of_the_rule_may_be_a_list() {
        for (first_argument, may_be_list) in [
            (json!("x"), false),
            (json!({"var": "x"}), false),
            (json!({"var": ["x", "y"]}), false),
            (json!({"var": {"cat": ["x", "y"]}}), false),
            (json!({"var": ["x", {"cat": ["y"]}]}), false),
            (json!({"if": [true, ["c", 1]]}), true),
            (json!({"var": ["x", ["c", 1]]}), true),
            (json!({"var": ["x", {"var": ["y", {"$ref": "e"}]}]}), true),
            (json!({"var": {"$ref": "e"}}), true),
        ] {
            let flag = typed(&json!({"fractional": [first_argument, ["a", 1], ["b", 1]]}));
            let share = Share::of(&flag, Some(&pair("a", "b"))).expect("a ramp that exists");
            let checked = share.check_steps(&[80]).map_err(|why| why.to_string());
            let rejected = checked.err().unwrap_or_default();
            assert_eq!(rejected.contains("may be a list"), may_be_list, "{flag:?}");
            let mut raised = flag.clone();
            share.set(&mut raised, 80).expect("weights");
            let raised = Share::of(&raised, Some(&pair("a", "b"))).expect("a share");
            assert!(raised.is_at_least(&share), "a rollback is not allowed");
        }
    }

    #[test]
    fn steps_are_rejected_at_the_current_share_and_above_the_users_of_both_variants() {
        let flag = typed(&json!({"fractional": [["a", 70], ["b", 10], ["c", 20]]}));
        let share = Share::of(&flag, Some(&pair("a", "b"))).expect("a share");
        assert_eq!(share.check_steps(&[11, 50, 80]), Ok(()));
        let assert_rejected = |percentages: &[u8], reason: &str| {
            let refused = share.check_steps(percentages).expect_err("was accepted");
            assert!(refused.0.contains(reason), "{percentages:?}: {refused}");
        };
        assert_rejected(&[10, 80], "about 10 %");
        assert_rejected(&[11, 81], "both variants together have 80 %");
        assert_rejected(&[11, 81, 82], "both variants together have 80 %");
        let large_weights = json!([["a", 2_000_000_000], ["b", 1], ["c", 1]]);
        let large_weights = typed(&json!({ "fractional": large_weights }));
        let share = Share::of(&large_weights, Some(&pair("a", "b"))).expect("a share");
        assert_eq!(share.check_steps(&[50]), Ok(()));
        let refused = share.check_steps(&[33, 50]).expect_err("was accepted");
        assert!(refused.0.contains("cannot express 33 %"), "{refused}");
        let none = typed(&Value::Null);
        let share = Share::of(&none, Some(&pair("a", "e"))).expect("a share");
        assert_eq!(share.check_steps(&[1, 100]), Ok(()));
        let all = with_share(&none, Some(&pair("a", "e")), 100);
        let rule = all.definition.expect("a definition").targeting;
        assert_eq!(rule, Some(json!({"fractional": [["e", 1], ["a", 0]]})));
    }
}
