//! `fractional`: distributes callers over buckets in proportion to weights, by a hash.
//!
//! Version 3 hashes the CBOR encoding of the bucketing value; version 2, for imported rules, hashes the bytes of
//! its text. Without a bucketing expression, the value is the flag's key with the targeting key. Without a bucketing
//! value, and for invalid weights, the result is `null`, which selects the default variant.

use serde_json::Value;

use super::cbor;
use super::evaluators::Evaluators;
use super::expression::{Bucket, Buckets, Expression, Fractional};
use super::murmur::Murmur;
use super::number::Num;
use super::path::Scope;
use super::run::{Result, Run};
use super::traced::show;
use super::value::Val;
use crate::FractionalVersion;
use crate::limits::Fuel;
use crate::trace::{FractionalStep, Trace, VariantLimit};

/// flagd's limit on the sum of weights.
pub(super) const MAX_TOTAL_WEIGHT: u64 = i32::MAX as u64;

impl Fractional {
    pub(super) fn compile(
        mut arguments: Vec<Expression>,
        evaluators: &Evaluators<'_>,
    ) -> Expression {
        let version = evaluators.settings.fractional;
        let starts_with_bucket = match arguments.first().map(Expression::resolved) {
            None => return Expression::NULL,
            Some(Expression::List(_)) => true,
            Some(first) => first.constant().is_some_and(Value::is_array),
        };
        let by = (!starts_with_bucket).then(|| arguments.remove(0));
        let mut buckets = Vec::with_capacity(arguments.len());
        for argument in arguments {
            match Bucket::compile(argument, evaluators) {
                Some(bucket) => buckets.push(bucket),
                None => return Expression::NULL,
            }
        }
        match Buckets::compile(buckets, version) {
            Some(buckets) => Expression::Fractional(Box::new(Self {
                version,
                by,
                buckets,
            })),
            None => Expression::NULL,
        }
    }

    pub(super) fn choose<'a>(&'a self, run: &mut Run<'_>, scope: &Scope<'a>) -> Result<Val<'a>> {
        let mut hash = Murmur::default();
        let mut first_bucket = None;
        match &self.by {
            Some(by) => match (run.evaluate(by, scope)?, self.version) {
                (Val::Null, _) => return Ok(self.without_bucket(run)),
                (bucket @ Val::List(_), _) => {
                    first_bucket = Some(bucket);
                    match Self::hash_caller(scope, &mut run.fuel)? {
                        Some(caller) => hash = caller,
                        None => return Ok(self.without_bucket(run)),
                    }
                }
                (value, FractionalVersion::V3) => cbor::value(&value, &mut hash, &mut run.fuel)?,
                (Val::Text(text), FractionalVersion::V2) => {
                    run.fuel.charge_text(&text)?;
                    hash.write(text.as_bytes());
                }
                (_, FractionalVersion::V2) => return Ok(Val::Null),
            },
            None => match Self::hash_caller(scope, &mut run.fuel)? {
                Some(caller) => hash = caller,
                None => return Ok(self.without_bucket(run)),
            },
        }
        let hash = u64::from(hash.finish());
        match (&self.buckets, first_bucket) {
            (Buckets::Fixed { total, ends }, None) => {
                let place = (hash * total) >> 32;
                if let Some(trace) = &mut run.trace {
                    let step = step(Some(place), *total, constant_variants(ends), trace);
                    trace.fractional(step);
                }
                // The ends are sorted.
                let chosen = ends.partition_point(|(end, _)| *end <= place);
                match ends.get(chosen) {
                    Some((_, variant)) => Ok(self.variant(run.evaluate(variant, scope)?)),
                    None => Ok(Val::Null),
                }
            }
            (buckets, first_bucket) => {
                let Some(weighed) = buckets.weigh(first_bucket, self.version, run, scope)? else {
                    return Ok(Val::Null);
                };
                let total: u64 = weighed.iter().map(|(_, weight)| *weight).sum();
                if total > MAX_TOTAL_WEIGHT {
                    return Ok(Val::Null);
                }
                let place = (hash * total) >> 32;
                if let Some(trace) = &mut run.trace {
                    let variants = weighed.iter().scan(0, |limit, (variant, weight)| {
                        *limit += weight;
                        Some((Some(variant.clone()), *limit))
                    });
                    let step = step(Some(place), total, variants, trace);
                    trace.fractional(step);
                }
                let mut end = 0;
                for (variant, weight) in weighed {
                    end += weight;
                    if place < end {
                        return Ok(self.variant(variant));
                    }
                }
                Ok(Val::Null)
            }
        }
    }

    /// The result without a bucketing value.
    fn without_bucket<'a>(&self, run: &mut Run<'_>) -> Val<'a> {
        if let Some(trace) = &mut run.trace {
            let (total, ends) = match &self.buckets {
                Buckets::Fixed { total, ends } => (*total, ends.as_slice()),
                Buckets::Computed(_) => (0, &[][..]),
            };
            let step = step(None, total, constant_variants(ends), trace);
            trace.fractional(step);
        }
        Val::Null
    }

    fn variant<'a>(&self, variant: Val<'a>) -> Val<'a> {
        let is_name = match (&variant, self.version) {
            (Val::List(_) | Val::Object(_) | Val::Frame(_), FractionalVersion::V2) => false,
            (_, FractionalVersion::V2 | FractionalVersion::V3) => true,
        };
        if is_name { variant } else { Val::Null }
    }

    /// Hashes the flag's key and the targeting key, if the caller has one.
    fn hash_caller(scope: &Scope<'_>, fuel: &mut Fuel) -> Result<Option<Murmur>> {
        let Scope::Context(input) = scope else {
            return Ok(None);
        };
        let Some(user) = input.context.user() else {
            return Ok(None);
        };
        fuel.charge_request_for_bytes(user.as_str().len())?;
        Ok(Some(input.hashed_key.with_user(user.as_str())))
    }
}

/// The number of variants that a trace shows.
const SHOWN_VARIANTS: usize = 50;

/// `variants` are those of a rule, each with the sum of all weights up to its own.
fn step<'a>(
    bucket: Option<u64>,
    total: u64,
    variants: impl Iterator<Item = (Option<Val<'a>>, u64)>,
    trace: &mut Trace,
) -> FractionalStep {
    let variants = variants
        .take(SHOWN_VARIANTS)
        .map(|(variant, limit)| VariantLimit {
            variant: variant.map_or(Value::Null, |variant| {
                show(&variant, &mut |bytes| trace.has_room_for(bytes))
            }),
            limit,
        });
    FractionalStep {
        bucket,
        total,
        variants: variants.collect(),
    }
}

/// The variants of buckets whose weights are constants. A name that is computed is not known without a caller.
fn constant_variants(ends: &[(u64, Expression)]) -> impl Iterator<Item = (Option<Val<'_>>, u64)> {
    ends.iter()
        .map(|(limit, variant)| (variant.constant().map(Val::of), *limit))
}

impl Bucket {
    /// `None` for an argument that can never be a bucket.
    fn compile(argument: Expression, evaluators: &Evaluators<'_>) -> Option<Self> {
        // A shared constant is copied while the limit for copies allows it.
        let argument = match argument.constant() {
            Some(shared) if matches!(argument, Expression::Evaluator(_)) => {
                if !evaluators.has_room_for(shared) {
                    return Some(Self::Whole(argument));
                }
                Expression::Constant(shared.clone())
            }
            Some(_) | None => argument,
        };
        let parts = if let Expression::List(parts) = argument {
            parts
        } else if let Expression::Constant(constant) = argument {
            let Value::Array(parts) = constant else {
                return None;
            };
            parts.into_iter().map(Expression::Constant).collect()
        } else {
            return Some(Self::Whole(argument));
        };
        let mut parts = parts.into_iter();
        let variant = parts.next()?;
        let weight = parts.next();
        parts
            .next()
            .is_none()
            .then_some(Self::Pair { variant, weight })
    }
}

impl Buckets {
    /// `None` if no caller can get a variant.
    fn compile(buckets: Vec<Bucket>, version: FractionalVersion) -> Option<Self> {
        let is_fixed = buckets.iter().all(|bucket| match bucket {
            Bucket::Pair { weight, .. } => weight
                .as_ref()
                .is_none_or(|weight| weight.constant().is_some()),
            Bucket::Whole(_) => false,
        });
        if !is_fixed {
            return Some(Self::Computed(buckets));
        }
        let mut total: u64 = 0;
        let mut ends = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            if let Bucket::Pair {
                variant,
                weight: given,
            } = bucket
            {
                total = match given.as_ref().and_then(Expression::constant) {
                    Some(given) => total.checked_add(weight(&Val::of(given), version)?)?,
                    None => total + 1,
                };
                ends.push((total, variant));
            }
        }
        (total <= MAX_TOTAL_WEIGHT).then_some(Self::Fixed { total, ends })
    }

    /// Variants with their weights; `None` if one of them is not a bucket.
    fn weigh<'a>(
        &'a self,
        first: Option<Val<'a>>,
        version: FractionalVersion,
        run: &mut Run<'_>,
        scope: &Scope<'a>,
    ) -> Result<Option<Vec<(Val<'a>, u64)>>> {
        let mut weighed = Vec::new();
        if let Some(first) = first {
            match pair(&first, version) {
                Some(pair) => weighed.push(pair),
                None => return Ok(None),
            }
        }
        match self {
            Self::Fixed { ends, .. } => {
                let mut begin = 0;
                for (end, variant) in ends {
                    weighed.push((run.evaluate(variant, scope)?, end - begin));
                    begin = *end;
                }
            }
            Self::Computed(buckets) => {
                for bucket in buckets {
                    let pair = match bucket {
                        Bucket::Pair {
                            variant,
                            weight: given,
                        } => {
                            let variant = run.evaluate(variant, scope)?;
                            let weight = match given {
                                Some(given) => weight(&run.evaluate(given, scope)?, version),
                                None => Some(1),
                            };
                            weight.map(|weight| (variant, weight))
                        }
                        Bucket::Whole(whole) => pair(&run.evaluate(whole, scope)?, version),
                    };
                    match pair {
                        Some(pair) => weighed.push(pair),
                        None => return Ok(None),
                    }
                }
            }
        }
        Ok(Some(weighed))
    }
}

/// A bucket that was computed as a whole.
fn pair<'a>(value: &Val<'a>, version: FractionalVersion) -> Option<(Val<'a>, u64)> {
    let Val::List(list) = value else {
        return None;
    };
    match (list.len(), list.get(0), list.get(1)) {
        (1, Some(variant), None) => Some((variant, 1)),
        (2, Some(variant), Some(given)) => Some((variant, weight(&given, version)?)),
        (_, _, _) => None,
    }
}

/// Parses a weight: an integer. A negative weight, as a computed rollout may produce, counts as 0. Version 2 also
/// accepts floats without a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, not negative and below the largest total"
)]
pub(super) fn weight(value: &Val<'_>, version: FractionalVersion) -> Option<u64> {
    let Val::Number(number) = value else {
        return None;
    };
    match (*number, version) {
        (Num::Int(int), _) => {
            let weight = u64::try_from(int).unwrap_or(0);
            // One above the limit exceeds it, and cannot overflow the sum.
            Some(weight.min(MAX_TOTAL_WEIGHT + 1))
        }
        (Num::Big(_), _) => Some(MAX_TOTAL_WEIGHT + 1),
        (Num::Float(float), FractionalVersion::V2) => {
            (float.fract() == 0.0).then(|| float.clamp(0.0, f64::from(i32::MAX) + 1.0) as u64)
        }
        (Num::Float(_), FractionalVersion::V3) => None,
    }
}
