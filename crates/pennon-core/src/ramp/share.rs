//! The share of users that a ramp moves: the rollout percentage of a simple flag, or the weights of two
//! neighbouring variants in a flag whose rule is one `fractional`.
//!
//! `fractional` gives a caller the first variant for which `hash * total < end * 2^32` holds, where `end`
//! is the sum of the weights up to that variant. Multiplying all weights by one number changes no answer,
//! so a percentage that the weights cannot express is reached by scaling them. Moving weight between
//! neighbours moves the one end between them, so no caller of a third variant moves, and the callers of
//! the growing variant keep it.

use std::fmt;

use pennon_eval::{Definition, Flag, Rollout};
use serde_json::{Value, json};

use super::VariantPair;

/// The largest sum of weights that flagd takes.
const LARGEST_TOTAL: u64 = i32::MAX as u64;

/// Why a flag cannot be ramped, as a sentence for the admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRampable(pub String);

impl fmt::Display for NotRampable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a ramp moves in a flag.
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
    /// Without a rule, all users get the default variant, which is `from`.
    has_rule: bool,
    /// What places callers, where the rule says so.
    placed_by: Option<Value>,
    buckets: Buckets,
    from: usize,
    to: usize,
}

impl Share {
    /// What a ramp would move in this flag.
    ///
    /// # Errors
    /// The reason why no ramp can.
    pub fn of(flag: &Flag, pair: Option<&VariantPair>) -> Result<Self, NotRampable> {
        match (&flag.definition, pair) {
            (None, None) => Ok(Self::Rollout(flag.rollout_percentage.percent())),
            (None, Some(_)) => Err(NotRampable(
                "the flag has no variants; leave out from and to".to_owned(),
            )),
            (Some(_), None) => Err(NotRampable(
                "the flag has variants; name in to the variant that is to grow".to_owned(),
            )),
            (Some(definition), Some(pair)) => Weights::of(definition, pair).map(Self::Weights),
        }
    }

    /// The present percentage, rounded down.
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

    /// Checks that a percentage is more than the present share and not more than there is to move.
    ///
    /// # Errors
    /// The reason.
    pub fn check_growth(&self, first: u8, last: u8) -> Result<(), NotRampable> {
        match self {
            Self::Rollout(percent) if first > *percent => Ok(()),
            Self::Rollout(percent) => Err(NotRampable(format!(
                "the first step must be above the present {percent} %"
            ))),
            Self::Weights(weights) => {
                let (total, present) = (weights.total(), weights.to());
                if u64::from(first) * total <= present * 100 {
                    let percent = self.percent();
                    return Err(NotRampable(format!(
                        "the first step must be above the present share of about {percent} %"
                    )));
                }
                let movable = present + weights.from();
                if u64::from(last) * total > movable * 100 {
                    let most = (movable * 100).checked_div(total).unwrap_or_default();
                    return Err(NotRampable(format!(
                        "both variants together have {most} % of the users, and no step can be above that"
                    )));
                }
                Ok(())
            }
        }
    }

    /// Sets the share in the flag from which this was taken.
    ///
    /// # Errors
    /// When the weights cannot express it.
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

    /// Whether going from this share to another takes the flag from users and gives it to nobody: not
    /// more for the variant, and every third variant as before.
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
                "from and to must be different variants".to_owned(),
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
        let rule = rule_of(definition);
        let (placed_by, mut buckets) = if let Some(rule) = rule {
            buckets_of(rule)?
        } else if definition.default_variant.as_ref() == Some(from) {
            (None, vec![(from.clone(), 1)])
        } else {
            return Err(NotRampable(format!(
                "the flag has no rule, so all users get its defaultVariant: from must be that (got '{from}')"
            )));
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
            placed_by,
            buckets,
            from: from_at,
            to: to_at,
        };
        if weights.total() == 0 || weights.total() > LARGEST_TOTAL {
            return Err(NotRampable(
                "the sum of the weights must be above 0 and fit into 32 bits".to_owned(),
            ));
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

    /// Weights are at most 2^31, and there are fewer than 2^20 of them.
    fn total(&self) -> u64 {
        self.buckets.iter().map(|(_, weight)| *weight).sum()
    }

    /// The same with this share for the growing variant.
    fn with(&self, percent: u8) -> Result<Self, NotRampable> {
        let wanted = u64::from(percent) * self.total();
        let factor = 100 / gcd(100, wanted);
        let to = wanted * factor / 100;
        let both = (self.from() + self.to()) * factor;
        let Some(from) = both.checked_sub(to) else {
            return Err(NotRampable(format!(
                "the two variants together have less than {percent} % of the users"
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
        if scaled.total() > LARGEST_TOTAL {
            return Err(NotRampable(format!(
                "the weights cannot express {percent} %: their sum would exceed 32 bits"
            )));
        }
        Ok(scaled)
    }

    fn rule(&self) -> Value {
        let buckets = self
            .buckets
            .iter()
            .map(|(name, weight)| json!([name, weight]));
        let arguments: Vec<Value> = self.placed_by.iter().cloned().chain(buckets).collect();
        json!({ "fractional": arguments })
    }

    /// Whether the growing variant keeps only callers that it has here, and every third variant keeps its
    /// callers. Comparing sums of weights is not enough: a rule that lists the same weights in another
    /// order gives the variant to other callers.
    fn contains(&self, other: &Self) -> bool {
        let places_alike = !self.has_rule || !other.has_rule || self.placed_by == other.placed_by;
        let (total, others_total) = (self.total(), other.total());
        let (begin, end) = self.bounds(self.to);
        let (others_begin, others_end) = other.bounds(other.to);
        let keeps = other.to() == 0
            || (others_begin * total >= begin * others_total
                && others_end * total <= end * others_total);
        places_alike && keeps && self.thirds(others_total) == other.thirds(total)
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

    /// The callers of all other variants: name, and bounds by this factor.
    fn thirds(&self, factor: u64) -> Vec<(&str, u64, u64)> {
        let named = self.buckets.iter().enumerate();
        let thirds =
            named.filter(|(at, (_, weight))| *at != self.from && *at != self.to && *weight > 0);
        thirds
            .map(|(at, (name, _))| {
                let (begin, end) = self.bounds(at);
                (name.as_str(), begin * factor, end * factor)
            })
            .collect()
    }
}

/// The rule, unless it is absent or empty.
fn rule_of(definition: &Definition) -> Option<&Value> {
    definition.targeting.as_ref().filter(|rule| match rule {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => true,
    })
}

/// The buckets of a rule that is one `fractional` with names and numbers.
fn buckets_of(rule: &Value) -> Result<(Option<Value>, Buckets), NotRampable> {
    let no = |why: &str| {
        NotRampable(format!(
            "{why}; a ramp moves weight in a flag whose rule is absent or one fractional"
        ))
    };
    let fields = rule.as_object().filter(|fields| fields.len() == 1);
    let arguments = fields
        .and_then(|fields| fields.get("fractional"))
        .and_then(Value::as_array)
        .ok_or_else(|| no("the flag's rule is more than one fractional"))?;
    let (placed_by, buckets) = match arguments.split_first() {
        Some((first, rest)) if !first.is_array() => (Some(first.clone()), rest),
        Some(_) | None => (None, arguments.as_slice()),
    };
    let bucket = |bucket: &Value| -> Option<(String, u64)> {
        match bucket.as_array()?.as_slice() {
            [Value::String(name)] => Some((name.clone(), 1)),
            [Value::String(name), Value::Number(weight)] => {
                let whole = weight.as_u64().or_else(|| {
                    // 50.0 is a whole number, too.
                    let float = weight.as_f64()?;
                    format!("{float:.0}")
                        .parse()
                        .ok()
                        .filter(|_| float >= 0.0 && float.fract() == 0.0)
                })?;
                (whole <= LARGEST_TOTAL).then(|| (name.clone(), whole))
            }
            _ => None,
        }
    };
    let buckets: Option<Buckets> = buckets.iter().map(bucket).collect();
    let buckets = buckets.ok_or_else(|| no("the rule has a variant or weight that is computed"))?;
    Ok((placed_by, buckets))
}

fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}
