//! The syntax tree of a compiled rule. Its types refer to each other, so they are in one file.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::cost::Cost;
use super::path::Path;
use super::traced::Traced;
use crate::FractionalVersion;

/// One node of a compiled rule.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    Constant(Value),
    /// The name of a variant where a rule ends, with the position of the variant: see `Rule::find_variants`.
    Variant {
        name: Box<str>,
        position: usize,
    },
    /// A reference to an evaluator, with the same result as the rule of the evaluator.
    Evaluator(Arc<CompiledEvaluator>),
    /// An operation that a trace records, with the same result. Only rules that are compiled for a trace have these.
    Traced(Box<Traced>),
    /// A list with at least one computed item.
    List(Vec<Expression>),
    Var(Path),
    /// `var` with a default.
    VarOr(Path, Box<Expression>),
    /// `var` whose path is computed.
    VarAt(Box<Expression>, Option<Box<Expression>>),
    /// `missing` with fixed names.
    Missing(Arc<[Path]>),
    MissingOf(Vec<Expression>),
    MissingSome(Box<Expression>, Box<Expression>),
    If(Vec<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// `!!` (true) and `!` (false).
    Truth(Box<Expression>, bool),
    /// `==` and its relatives.
    Equal {
        a: Box<Expression>,
        b: Box<Expression>,
        is_strict: bool,
        /// The result when they are equal.
        when_equal: bool,
    },
    Order {
        a: Box<Expression>,
        b: Box<Expression>,
        /// The third operand of "between".
        c: Option<Box<Expression>>,
        order: Order,
    },
    Sum(Vec<Expression>),
    Product(Vec<Expression>),
    Negative(Box<Expression>),
    Difference(Box<Expression>, Box<Expression>),
    Quotient(Box<Expression>, Box<Expression>),
    Remainder(Box<Expression>, Box<Expression>),
    Minimum(Vec<Expression>),
    Maximum(Vec<Expression>),
    Each {
        list: Box<Expression>,
        body: Box<Expression>,
        each: Each,
    },
    Reduce {
        list: Box<Expression>,
        body: Box<Expression>,
        initial: Box<Expression>,
    },
    Merge(Vec<Expression>),
    In(Box<Expression>, Box<Expression>),
    /// `in` a list of fixed texts.
    InTexts(Box<Expression>, Arc<Texts>),
    Cat(Vec<Expression>),
    Substr {
        text: Box<Expression>,
        from: Box<Expression>,
        length: Option<Box<Expression>>,
    },
    Affix {
        text: Box<Expression>,
        affix: Box<Expression>,
        /// `ends_with`, not `starts_with`.
        is_end: bool,
    },
    SemVer(Box<[Expression; 3]>),
    Fractional(Box<Fractional>),
}

/// The fixed texts of [`Expression::InTexts`].
#[derive(Debug, Clone)]
pub(super) enum Texts {
    /// Texts that fit into an integer each, such as the codes of countries.
    Short(Vec<u64>),
    /// Faster to scan than to hash.
    Few(Vec<Box<str>>),
    Many(HashSet<Box<str>>),
}

impl Texts {
    /// The largest number of texts in [`Self::Few`]. [`Self::Short`] may have twice as many, which take the same time.
    const FEW: usize = 8;

    pub(super) fn new(texts: Vec<Box<str>>) -> Self {
        if texts.len() > 2 * Self::FEW {
            return Self::Many(texts.into_iter().collect());
        }
        let short: Option<Vec<u64>> = texts.iter().map(|text| as_integer(text)).collect();
        match short {
            Some(short) => Self::Short(short),
            None if texts.len() <= Self::FEW => Self::Few(texts),
            None => Self::Many(texts.into_iter().collect()),
        }
    }

    #[inline]
    pub(super) fn contains(&self, text: &str) -> bool {
        match self {
            Self::Short(texts) => as_integer(text).is_some_and(|text| texts.contains(&text)),
            Self::Few(texts) => texts.iter().any(|one| **one == *text),
            Self::Many(texts) => texts.contains(text),
        }
    }
}

/// A text of at most seven bytes as an integer, different for each text: its length, followed by its bytes.
#[inline]
fn as_integer(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let append = |integer: u64, byte: &u8| (integer << 8) | u64::from(*byte);
    (bytes.len() < size_of::<u64>()).then(|| bytes.iter().fold(bytes.len() as u64, append))
}

/// `<`, `<=`, `>` and `>=`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// What the operator does with the result of the body for each item.
#[derive(Debug, Clone, Copy)]
pub(super) enum Each {
    Map,
    Filter,
    All,
    Some,
    None,
}

impl Expression {
    pub(super) const NULL: Self = Self::Constant(Value::Null);

    /// The expression behind references to evaluators and marks for a trace.
    #[inline]
    pub(super) fn resolved(&self) -> &Self {
        let mut expression = self;
        while let Some(next) = expression.forwards_to() {
            expression = next;
        }
        expression
    }

    #[inline]
    fn forwards_to(&self) -> Option<&Self> {
        if let Self::Evaluator(evaluator) = self {
            Some(&evaluator.expression)
        } else if let Self::Traced(traced) = self {
            Some(&traced.expression)
        } else {
            None
        }
    }

    /// The operation that a trace records for this expression.
    pub(super) fn traced(&self) -> Option<&Traced> {
        let mut expression = self;
        loop {
            if let Self::Traced(traced) = expression {
                return Some(traced);
            }
            expression = expression.forwards_to()?;
        }
    }

    #[inline]
    pub(super) fn constant(&self) -> Option<&Value> {
        if let Self::Constant(value) = self.resolved() {
            Some(value)
        } else {
            None
        }
    }
}

/// A compiled `fractional`.
#[derive(Debug, Clone)]
pub(super) struct Fractional {
    pub(super) version: FractionalVersion,
    /// The value to hash; without one, the key of the flag and the targeting key.
    pub(super) by: Option<Expression>,
    pub(super) buckets: Buckets,
}

#[derive(Debug, Clone)]
pub(super) enum Buckets {
    /// All weights are constants: each bucket with the sum of the weights up to and including its own.
    Fixed {
        total: u64,
        ends: Vec<(u64, Expression)>,
    },
    Computed(Vec<Bucket>),
}

#[derive(Debug, Clone)]
pub(super) enum Bucket {
    Pair {
        variant: Expression,
        /// 1 if absent.
        weight: Option<Expression>,
    },
    /// An expression whose result may be a pair.
    Whole(Expression),
}

impl Fractional {
    /// The expressions of the variants, and of weights and buckets that are computed.
    pub(super) fn variants_and_weights(&self) -> Vec<&Expression> {
        match &self.buckets {
            Buckets::Fixed { ends, .. } => ends.iter().map(|(_, variant)| variant).collect(),
            Buckets::Computed(buckets) => {
                let buckets = buckets.iter().flat_map(|bucket| match bucket {
                    Bucket::Pair { variant, weight } => [Some(variant), weight.as_ref()],
                    Bucket::Whole(whole) => [Some(whole), None],
                });
                buckets.flatten().collect()
            }
        }
    }
}

/// A compiled evaluator.
#[derive(Debug)]
pub(super) struct CompiledEvaluator {
    pub(super) expression: Expression,
    /// The number of values of the evaluator, with references replaced.
    pub(super) values: usize,
    /// The nesting of the evaluator, with references replaced.
    pub(super) depth: usize,
    /// The cost in the scope of the context.
    pub(super) cost: Cost,
    /// The cost for each item of a list.
    pub(super) item_cost: Cost,
    /// Forms of a constant that several operators need, made once per evaluator.
    path: OnceLock<Path>,
    texts: OnceLock<Option<Arc<Texts>>>,
    names: OnceLock<Option<Arc<[Path]>>>,
}

impl CompiledEvaluator {
    pub(super) fn new(
        expression: Expression,
        (values, depth): (usize, usize),
        (cost, item_cost): (Cost, Cost),
    ) -> Self {
        Self {
            expression,
            values,
            depth,
            cost,
            item_cost,
            path: OnceLock::new(),
            texts: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    /// The constant as a path. `make` must return the same path each time.
    pub(super) fn path(&self, make: impl FnOnce() -> Path) -> Path {
        self.path.get_or_init(make).clone()
    }

    /// The constant as texts to search, if it is a list of texts.
    pub(super) fn texts(&self, make: impl FnOnce() -> Option<Arc<Texts>>) -> Option<Arc<Texts>> {
        self.texts.get_or_init(make).clone()
    }

    /// The constant as names with their paths, if it is a list of texts.
    pub(super) fn names(&self, make: impl FnOnce() -> Option<Arc<[Path]>>) -> Option<Arc<[Path]>> {
        self.names.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_texts_of_a_list_are_found_whatever_their_number_and_length() {
        let all = [
            "",
            "a",
            "b",
            "\0",
            "\0a",
            "a\0",
            "DE",
            "ED",
            "é",
            "1234567",
            "12345678",
            "123456789",
        ];
        let many = (0..20).map(|number| format!("{number}"));
        let many: Vec<String> = many.chain(all.map(str::to_owned)).collect();
        let needles = || many.iter().map(String::as_str);
        for begin in 0..many.len() {
            for end in begin..=many.len() {
                let listed = &many[begin..end];
                let texts = Texts::new(listed.iter().map(|text| text.as_str().into()).collect());
                for needle in needles() {
                    let is_listed = listed.iter().any(|text| text == needle);
                    assert_eq!(
                        texts.contains(needle),
                        is_listed,
                        "{needle:?} in {listed:?}"
                    );
                }
            }
        }
    }
}
