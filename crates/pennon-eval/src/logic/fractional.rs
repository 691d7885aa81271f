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
use crate::trace::{FractionalStep, Trace, VariantLimit};

/// flagd's limit on the sum of weights.
pub(super) const MAX_TOTAL_WEIGHT: u64 = i32::MAX as u64;

/// The variant of a bucket.
pub(super) enum Chosen<'a> {
    /// Not evaluated yet.
    Fixed(&'a Expression),
    /// Already evaluated.
    Computed(Val<'a>),
}

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
        let chosen = self.bucket(run, scope)?;
        self.value(chosen, run, scope)
    }

    /// The variant of the caller's bucket, if there is one.
    #[inline]
    pub(super) fn bucket<'a>(
        &'a self,
        run: &mut Run<'_>,
        scope: &Scope<'a>,
    ) -> Result<Option<Chosen<'a>>> {
        let (hash, first_bucket) = match &self.by {
            Some(by) => self.hash_by(by, run, scope)?,
            None => (self.hash_caller(run, scope)?, None),
        };
        let Some(hash) = hash else {
            return Ok(None);
        };
        let hash = u64::from(hash.finish());
        match (&self.buckets, first_bucket) {
            (Buckets::Fixed { total, ends }, None) => {
                let bucket = (hash * total) >> 32;
                if let Some(trace) = &mut run.trace {
                    let step = step(Some(bucket), *total, constant_variants(ends), trace);
                    trace.fractional(step);
                }
                // The ends are sorted.
                let chosen = ends.partition_point(|(end, _)| *end <= bucket);
                Ok(ends.get(chosen).map(|(_, variant)| Chosen::Fixed(variant)))
            }
            (_, first_bucket) => {
                let weighed = self.buckets.weigh(first_bucket, self.version, run, scope)?;
                let chosen = weighed.and_then(|weighed| by_weight(hash, weighed, run));
                Ok(chosen.map(Chosen::Computed))
            }
        }
    }

    /// The result with this variant.
    pub(super) fn value<'a>(
        &self,
        chosen: Option<Chosen<'a>>,
        run: &mut Run<'_>,
        scope: &Scope<'a>,
    ) -> Result<Val<'a>> {
        let variant = match chosen {
            None => return Ok(Val::Null),
            Some(Chosen::Fixed(variant)) => run.evaluate(variant, scope)?,
            Some(Chosen::Computed(variant)) => variant,
        };
        let is_name = match (&variant, self.version) {
            (Val::List(_) | Val::Object(_) | Val::ReduceScope(_), FractionalVersion::V2) => false,
            (_, FractionalVersion::V2 | FractionalVersion::V3) => true,
        };
        Ok(if is_name { variant } else { Val::Null })
    }

    /// Hashes the result of the bucketing expression. A result that is a list is the first bucket instead, and the
    /// flag's key and the targeting key are hashed.
    fn hash_by<'a>(
        &self,
        by: &'a Expression,
        run: &mut Run<'_>,
        scope: &Scope<'a>,
    ) -> Result<(Option<Murmur>, Option<Val<'a>>)> {
        let mut hash = Murmur::default();
        match (run.evaluate(by, scope)?, self.version) {
            (bucket @ Val::List(_), _) => return Ok((self.hash_caller(run, scope)?, Some(bucket))),
            (Val::Text(text), FractionalVersion::V2) => {
                run.fuel.charge_text(&text)?;
                hash.write(text.as_bytes());
            }
            (Val::Null, _) | (_, FractionalVersion::V2) => {
                self.note_absence(run);
                return Ok((None, None));
            }
            (value, FractionalVersion::V3) => cbor::value(&value, &mut hash, &mut run.fuel)?,
        }
        Ok((Some(hash), None))
    }

    /// Hashes the flag's key and the targeting key, if the caller has one.
    #[inline]
    fn hash_caller(&self, run: &mut Run<'_>, scope: &Scope<'_>) -> Result<Option<Murmur>> {
        let caller = match scope {
            Scope::Context(input) => input.context.user().map(|user| (user.as_str(), input)),
            Scope::Item(_) => None,
        };
        let Some((user, input)) = caller else {
            self.note_absence(run);
            return Ok(None);
        };
        run.fuel.charge_request_limit_for_bytes(user.len())?;
        Ok(Some(input.hashed_key.with_user(user)))
    }

    /// Records that there is no valid bucketing value, for a trace.
    fn note_absence(&self, run: &mut Run<'_>) {
        if let Some(trace) = &mut run.trace {
            let (total, ends) = match &self.buckets {
                Buckets::Fixed { total, ends } => (*total, ends.as_slice()),
                Buckets::Computed(_) => (0, &[][..]),
            };
            let step = step(None, total, constant_variants(ends), trace);
            trace.fractional(step);
        }
    }
}

/// The variant of the bucket that contains this hash, if the sum of the weights is valid.
fn by_weight<'a>(hash: u64, weighed: Vec<(Val<'a>, u64)>, run: &mut Run<'_>) -> Option<Val<'a>> {
    let total: u64 = weighed.iter().map(|(_, weight)| *weight).sum();
    if total > MAX_TOTAL_WEIGHT {
        return None;
    }
    let bucket = (hash * total) >> 32;
    if let Some(trace) = &mut run.trace {
        let variants = weighed.iter().scan(0, |limit, (variant, weight)| {
            *limit += weight;
            Some((Some(variant.clone()), *limit))
        });
        let step = step(Some(bucket), total, variants, trace);
        trace.fractional(step);
    }
    let mut end = 0;
    weighed.into_iter().find_map(|(variant, weight)| {
        end += weight;
        (bucket < end).then_some(variant)
    })
}

/// The maximum number of variants that a trace shows.
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
            Some(_) | None => argument.list_without_mark(),
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
    /// `None` if a constant weight, or the sum of all, is invalid: no caller gets a variant.
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

    /// Variants with their weights; `None` if a computed bucket or weight is invalid.
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

/// Parses a weight, an integer. Version 2 also accepts floats without a fraction. A negative weight, which a computed
/// rollout may produce, counts as 0.
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
